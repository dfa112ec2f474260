"""Restoring a Fold's state: progress, a stop on the way, and state of older and newer versions."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import pytest
from pydantic import BaseModel
from streams_contract import FAST, Count, answer, chain_of, request, until

from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.events import AnswerRefused
from schemas.payload import Payload
from streams.lane import Notice
from streams.memory import MemoryBroker, MemoryReader, run_until
from streams.port import TP
from streams.restore import POSITION
from streams.runner import Runner
from streams.shapes import AnyFold, Change, Event, KeyState, RawState, Tick
from streams.state import split_key

STATE, ORDER = "ratchet.probe.state", "ratchet.probe.order"


class SlowReader(MemoryReader):
    """Gives one record at a time, and not soon."""

    async def poll(self, *, timeout_s: float, max_records: int):  # pyright: ignore[reportIncompatibleMethodOverride]
        await asyncio.sleep(0.01)
        return await super().poll(timeout_s=timeout_s, max_records=1)


class SlowBroker(MemoryBroker):
    """Remembers the readers that restoring makes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.readers: list[MemoryReader] = []

    def reader(self, positions: Mapping[TP, int]) -> MemoryReader:
        self.readers.append(SlowReader(self, dict(positions)))
        return self.readers[-1]


def runner_of(broker: MemoryBroker, fold: AnyFold, seen: list[Notice] | None = None) -> Runner:
    made = Runner(broker, SystemClock(), settings=FAST, observe=(lambda n: None) if seen is None else seen.append)
    made.add_fold(fold)
    return made


async def fold_all(broker: MemoryBroker, fold: AnyFold, count: int) -> None:
    await run_until(runner_of(broker, fold), lambda: len(broker.records("answers")) == count)


async def test_a_restore_tells_how_far_it_is() -> None:
    """Read of total as a share that rises to 1, then the seconds that it took."""
    broker, seen = SlowBroker(), list[Notice]()
    for n in range(10):
        broker.publish(request("k", str(n)), event_id=str(n))
    await fold_all(broker, Count("probe"), 10)
    broker.publish(request("k", "last"), event_id="last")
    await run_until(runner_of(broker, Count("probe"), seen), lambda: len(broker.records("answers")) == 11)
    told = [n for n in seen if n.kind == "restoring"]
    assert len(told) > 5
    assert [n.value for n in told] == sorted(n.value for n in told)
    assert (told[-1].value, told[-1].text.split(" of ")[0]) == (1.0, told[-1].text.split(" of ")[1])
    assert [n.value > 0.05 for n in seen if n.kind == "restored"] == [True]


@pytest.mark.parametrize("how", ["stop", "revoke", "cancel"])
async def test_a_stop_during_a_restore_leaves_nothing(how: str) -> None:
    """No reader stays open, no task goes on, nothing is committed; the next start restores as if nothing had been."""
    broker = SlowBroker()
    for n in range(20):
        broker.publish(request("k", str(n)), event_id=str(n))
    await fold_all(broker, Count("probe"), 20)
    before = dict(broker.committed)
    broker.readers.clear()
    tasks = asyncio.all_tasks()
    runner = runner_of(broker, Count("probe"))
    task = asyncio.create_task(runner.run())
    await until(lambda: bool(broker.readers) and broker.readers[0].positions[STATE, 0] > 2)
    if how == "revoke":
        broker.rebalance()
        await until(lambda: len(broker.readers) == 2)
        assert broker.readers[0].stopped
        await until(lambda: broker.readers[1].positions[STATE, 0] > 2)
    if how == "cancel":
        task.cancel()
    else:
        await runner.stop()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)
    assert all(reader.stopped for reader in broker.readers)
    assert asyncio.all_tasks() == tasks
    assert broker.committed == before
    names = [str(n) for n in range(20)]
    broker.publish(request("k", "last"), event_id="last")
    await fold_all(broker, Count("probe"), 21)
    last = broker.events("answers")[-1].data
    assert isinstance(last, AnswerRefused)
    assert last.reason == chain_of([*names, "last"])[-1]


class Sum(BaseModel):
    """The second form of the state: `n` has become `count`."""

    count: int
    chain: str


class Second(Count):
    """`Count` after its state changed: other field names, entries under longer names, every second entry gone."""

    record_type = Sum  # pyright: ignore[reportAssignmentType]
    entry_type = Sum  # pyright: ignore[reportAssignmentType]
    state_version = 2

    def migrate(self, from_version: int, raw: RawState) -> RawState:
        assert from_version == 1

        def moved(value: Mapping[str, object]) -> Mapping[str, object]:
            return {"count": value["n"], "chain": value["chain"]}

        entries = {f"e{name}": moved(value) for name, value in raw.entries.items() if int(name) % 2}
        return RawState(raw.key, moved(raw.record), entries, raw.due_ms)

    def fold(self, state: KeyState, event: Event[Payload] | Tick) -> Change:  # pyright: ignore[reportMissingTypeArgument]
        assert isinstance(event, Event)
        old = state.record or Sum(count=0, chain="")
        new = Sum(count=old.count + 1, chain=chain_of([old.chain + event.id])[0])
        return Change([answer(event, ",".join(sorted(state.entries)))], new)


def rows_of(broker: MemoryBroker) -> dict[tuple[str, str | None], tuple[object, str]]:
    """The changelog's newest rows but the position, with the version of each."""
    found: dict[tuple[str, str | None], tuple[object, str]] = {}
    for row in broker.records(STATE):
        if row.key != b"~position":
            key = split_key(row.key or b"")
            found[key] = (json.loads(row.value or b"null"), dict(row.headers).get("version", b"1").decode())
    return found


async def test_an_older_state_is_migrated_key_by_key() -> None:
    """A changelog without a version is version 1. A key is rewritten whole with its first change, others stay as they are."""
    broker = MemoryBroker(1)
    for key in ("a", "b"):
        for n in range(3):
            broker.publish(request(key, str(n)), event_id=f"{key}{n}")
    await fold_all(broker, Count("probe"), 6)
    order = [row.value for row in broker.records(ORDER)]
    for round_ in range(2):
        broker.publish(request("a", f"again{round_}"))
        await fold_all(broker, Second("probe"), 7 + round_)
    answers = [e.data.reason for e in broker.events("answers") if isinstance(e.data, AnswerRefused)]
    assert answers[-2:] == ["e1,e3", "e1,e3"]
    rows = rows_of(broker)
    versions = {name: version for name, (value, version) in rows.items() if value is not None}
    assert {name: v for name, v in versions.items() if name[0] == "a"} == {
        ("a", None): "2",
        ("a", "e1"): "2",
        ("a", "e3"): "2",
    }
    assert {v for name, v in versions.items() if name[0] == "b"} == {"1"}
    assert {name[1] for name, (value, _) in rows.items() if name[0] == "a" and value is None} == {"1", "2", "3"}
    position = [json.loads(r.value or b"") for r in broker.records(STATE) if r.key == b"~position"][-1]
    assert position["version"] == 2
    assert [row.value for row in broker.records(ORDER)][: len(order)] == order
    assert len(broker.records(ORDER)) == len(order) + 2


async def test_a_newer_state_is_refused_by_name() -> None:
    """Old code does not touch what new code has written; both versions are named."""
    broker = MemoryBroker(1)
    broker.publish(request("a", "x"))
    await fold_all(broker, Second("probe"), 1)
    broker.publish(request("a", "y"))
    with pytest.raises(Refused, match="state of version 2, this code knows version 1"):
        await asyncio.wait_for(runner_of(broker, Count("probe")).run(), 5)
    assert len(broker.records("answers")) == 1


async def test_an_older_state_without_a_way_is_refused() -> None:
    """A version without `migrate` is our mistake, said before anything is folded."""

    class Forgetful(Count):
        state_version = 2

    broker = MemoryBroker(1)
    broker.publish(request("a", "x"))
    await fold_all(broker, Count("probe"), 1)
    with pytest.raises(Refused, match="no `migrate`"):
        await asyncio.wait_for(runner_of(broker, Forgetful("probe")).run(), 5)


async def test_a_quiet_lane_says_where_it_stands() -> None:
    """So that segments of its changelog end and what was removed is compacted; it is no event, and a restart finds its place."""
    broker = MemoryBroker(1)
    broker.publish(request("k", "0"), event_id="0")
    runner = Runner(broker, SystemClock(), settings=replace(FAST, touch_s=0.05))
    runner.add_fold(Count("probe"))
    task = asyncio.create_task(runner.run())
    await until(lambda: len([row for row in broker.records(STATE) if row.key == POSITION]) >= 3)
    await runner.stop()
    await task
    rows = [row for row in broker.records(STATE) if row.key == POSITION]
    assert len({row.value for row in rows}) == 1
    assert len(broker.records(ORDER)) == len(broker.records("answers")) == 1
    broker.publish(request("k", "1"), event_id="1")
    again = Runner(broker, SystemClock(), settings=FAST)
    again.add_fold(Count("probe"))
    await run_until(again, lambda: len(broker.records("answers")) == 2)
    assert broker.events("answers")[1].data.model_dump()["reason"] == chain_of(["0", "1"])[-1]
