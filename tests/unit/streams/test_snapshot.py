"""What a Fold leaves in the artifact store: blobs before their transaction, snapshots that a replay can start from."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from streams_contract import FAST, Chain, Count, answer, chain_of, request, until

from infra.clock import SystemClock
from schemas import ids
from schemas.errors import Undecodable
from schemas.payload import Payload
from streams import snapshot
from streams.lane import AgentCrashed, Notice
from streams.memory import MemoryBroker, run_until
from streams.order import Position, Run, Skipped, SnapshotTaken, decode_order, encode_runs, encode_skip, encode_snapshot
from streams.port import Outgoing
from streams.runner import Runner, RuntimeSettings
from streams.shapes import Change, Emit, Event, KeyState, Tick
from streams.state import MemoryState

OFTEN = replace(FAST, snapshot_s=0.05)


@dataclass
class Shelf:
    """An artifact store that may be full."""

    full: int = 0
    held: dict[str, bytes] = field(default_factory=dict)

    def put_bytes(self, data: bytes) -> str:
        if self.full > 0:
            self.full -= 1
            raise OSError(28, "No space left on device")
        self.held[ids.digest(data)] = data
        return ids.digest(data)


class Carrying(Count):
    """Tells each link with a blob that the answer names by digest."""

    def fold(self, state: KeyState[Chain, Chain], event: Event[Payload] | Tick) -> Change[Chain, Chain]:
        assert isinstance(event, Event)
        blob = f"matrix of {event.id}".encode()
        return Change([Emit(answer(event, ids.digest(blob)).payload, blob=blob)])


def runner_of(
    broker: MemoryBroker,
    fold: Count,
    shelf: Shelf | None,
    settings: RuntimeSettings = FAST,
    seen: list[Notice] | None = None,
) -> Runner:
    observe = (lambda n: None) if seen is None else seen.append
    made = Runner(broker, SystemClock(), settings=settings, artifacts=shelf, observe=observe)
    made.add_fold(fold)
    return made


def said(broker: MemoryBroker) -> list[Run | SnapshotTaken | Skipped]:
    return [row for record in broker.records("probe.order") for row in decode_order(record.value)]


async def feed(broker: MemoryBroker, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        broker.publish(request(f"k{n % 7}", str(n)), event_id=str(n))
        await asyncio.sleep(0.002)


async def test_a_blob_is_kept_before_its_event_is_seen() -> None:
    """While the store takes nothing, nothing is committed; then each event comes once and what it names is there."""
    broker, shelf = MemoryBroker(1), Shelf(full=3)
    await feed(broker, 5)
    runner = runner_of(broker, Carrying("probe"), shelf)
    task = asyncio.create_task(runner.run())
    await until(lambda: shelf.full == 1)
    assert broker.records("answers") == []
    await until(lambda: len(broker.records("answers")) == 5)
    await runner.stop()
    await task
    named = [event.data.model_dump()["reason"] for event in broker.events("answers")]
    assert sorted(named) == sorted(shelf.held)
    assert len(named) == 5


async def test_a_blob_without_a_store_is_our_mistake() -> None:
    """It is not dropped in silence: the agent crashes and is told by name."""
    broker = MemoryBroker(1)
    await feed(broker, 1)
    with pytest.raises(AgentCrashed) as error:
        await asyncio.wait_for(runner_of(broker, Carrying("probe"), None).run(), 5)
    assert "was given no artifact store" in str(error.value.__cause__)


async def test_a_replay_may_start_at_a_snapshot() -> None:
    """The state in the artifact, and the runs after it, give the same chains as the whole log."""
    broker, shelf, seen = MemoryBroker(1), Shelf(), list[Notice]()
    runner = runner_of(broker, Count("probe"), shelf, OFTEN, seen)
    task = asyncio.create_task(runner.run())
    await feed(broker, 120)
    await until(lambda: len(broker.records("answers")) == 120)
    await runner.stop()
    await task
    rows = said(broker)
    taken = [row for row in rows if isinstance(row, SnapshotTaken)]
    assert len(taken) >= 2
    assert [n.text for n in seen if n.kind == "snapshot"] == [row.digest for row in taken]
    middle = taken[len(taken) // 2]
    assert shelf.held[middle.digest].startswith(snapshot.BEGINS)
    found = snapshot.decode(shelf.held[middle.digest])
    assert (found.agent, found.partition, found.position) == ("probe", 0, middle.position)
    state, fold = MemoryState(Count("probe")), Count("probe")
    for row in found.rows:
        state.load(row)
    list(state.settle())
    events = {event.place.offset: event for event in broker.events("requests")}
    before, after = rows[: rows.index(middle)], rows[rows.index(middle) + 1 :]
    assert max(row.last for row in before if isinstance(row, Run)) + 1 == middle.position.following["ratchet.requests"]
    for run in (row for row in after if isinstance(row, Run)):
        for offset in range(run.first, run.last + 1):
            key = events[offset].key
            state.apply(key, fold.fold(state.view(key), events[offset]))
    for k in range(7):
        view = state.view(f"k{k}")
        assert view.record is not None
        assert view.record.chain == chain_of([str(n) for n in range(120) if n % 7 == k])[-1]


async def test_a_snapshot_is_taken_once_in_its_time() -> None:
    """A restart does not take another: the changelog remembers when the last one was; a quiet lane takes none."""
    broker, shelf = MemoryBroker(1), Shelf()
    settings = replace(FAST, snapshot_s=3600.0)
    for n in range(3):
        await feed(broker, 5, 5 * n)
        await run_until(
            runner_of(broker, Count("probe"), shelf, settings), lambda n=n: len(broker.records("answers")) == 5 * n + 5
        )
    marks = [r.value for r in broker.records("probe.state") if r.key == b"~snapshot"]
    assert (shelf.held, len(marks)) == ({}, 1)


async def test_a_store_that_is_away_costs_the_snapshot_only() -> None:
    """The lane goes on, and nothing is said of a snapshot that is not there."""
    broker, shelf, seen = MemoryBroker(1), Shelf(full=1000), list[Notice]()
    runner = runner_of(broker, Count("probe"), shelf, OFTEN, seen)
    task = asyncio.create_task(runner.run())
    await feed(broker, 60)
    await until(lambda: len(broker.records("answers")) == 60)
    await runner.stop()
    await task
    assert shelf.full == 999
    assert not any(isinstance(row, SnapshotTaken) for row in said(broker))
    assert not any(n.kind == "dropped" for n in seen)


def test_equal_state_gives_equal_bytes() -> None:
    """Order of loading, and whether values were read since, change nothing."""
    rows = [
        Outgoing(b"b", b'{"n":1,"chain":"x\\ty"}', (("due", b"5"),)),
        Outgoing(b"a\0e", b'{"n":2,"chain":""}'),
        Outgoing(b"a", b"null"),
    ]
    made: list[bytes] = []
    for order in (rows, rows[::-1]):
        text = snapshot.head("probe", 0, Position({"t": 3})) + b"".join(snapshot.line(row) for row in order)
        state = MemoryState(Count("probe"))
        for row in snapshot.decode(text).rows:
            state.load(row)
        list(state.settle())
        if order is rows:
            state.view("b")
        made.append(b"".join(snapshot.line(row) for row in state.rows()))
    assert made[0] == made[1] == b"".join(snapshot.line(row) for row in (rows[2], rows[1], rows[0]))


def test_a_torn_snapshot_is_refused() -> None:
    """Every way to cut it off is seen, and the line is named."""
    whole = snapshot.head("probe", 0, Position({})) + snapshot.line(Outgoing(b"a", b"null"))
    for cut in (whole[:-1], whole[:-8], whole[3:], b""):
        with pytest.raises(Undecodable):
            snapshot.decode(cut)


def test_order_records_come_back_as_they_were() -> None:
    """Runs, ticks, snapshots and skips; anything else is undecodable."""
    taken = SnapshotTaken("sha256:ab", Position({"t": 4}, 9, 3), 77)
    assert decode_order(encode_runs([["t", 1, 2], ["~tick", 5, 5]])) == [Run("t", 1, 2), Run("~tick", 5, 5)]
    assert decode_order(encode_snapshot(taken)) == [taken]
    assert decode_order(encode_skip(Skipped("t", 3, 8))) == [Skipped("t", 3, 8)]
    for value in (None, b"{}", b"[1]", b"7", b"x", b'{"skip": 3}'):
        with pytest.raises(Undecodable):
            decode_order(value)
