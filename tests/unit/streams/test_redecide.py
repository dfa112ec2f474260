"""A Transform again from its inputs: what was deferred, gave up, was refused or too large comes out as it was recorded."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from streams_contract import AWAY, FAST, Echo, request, until

from infra.clock import SystemClock
from schemas.errors import Unavailable
from schemas.events import RequestSubmitted
from schemas.payload import Payload
from streams.difference import Rederived
from streams.memory import MemoryBroker
from streams.recorded import Collector, RecordedLog
from streams.replay import StillClock, Window, redecide
from streams.runner import Runner
from streams.shapes import Event, Out, Record

INPUTS = ("ratchet.requests", "ratchet.probe.deferred")
TEXTS = ("one", AWAY, "never", "refused", "huge", "slow0.05", "last")


class Away(Echo):
    """An Echo for which one text never works."""

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        assert isinstance(event.data, RequestSubmitted)
        if event.data.messages[0].content == "never":
            raise Unavailable("the world is away")
        return await super().__call__(event)


class Recalled:
    """The world is back, except for what never worked."""

    def __init__(self) -> None:
        self.transform, self.clock = Away("probe"), StillClock()
        self.transform.calls = 1000

    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        return None

    def otherwise(self, record: Record, recorded: Sequence[Record]) -> str | None:
        return None

    def ended(self, gave: Rederived) -> None:
        gave.notes["ended"] += 1


@pytest.fixture(scope="module")
def log() -> RecordedLog:
    """One run: an event of each text, one that is no JSON, one that somebody else laid among the deferred."""

    async def run() -> RecordedLog:
        broker = MemoryBroker(1)
        settings = replace(FAST, retry_s=0.05, defer_s=0.1, rounds=2)
        runner = Runner(broker, SystemClock(), settings=settings)
        runner.add_transform(Away("probe"))
        task = asyncio.create_task(runner.run())
        for n, text in enumerate(TEXTS):
            broker.publish(request(f"k{n}", text), event_id=str(n))
        broker.put("ratchet.requests", b"bad", b"\xff")
        broker.put("ratchet.probe.deferred", b"foreign", b"{}")
        await until(lambda: len(broker.records("answers")) == 5 and len(broker.records("requests.dlq")) == 4)
        await runner.stop()
        await task
        others = ["ratchet.answers", "ratchet.requests.dlq", *INPUTS]
        return await Collector(broker).collect([], others, {"ratchet.probe": INPUTS})

    return asyncio.run(run())


async def test_deferred_and_dead_come_out_the_same(log: RecordedLog) -> None:
    """Later answers, the failure of what never worked, dead letters but for their time and tries: all as recorded."""
    assert len({row.key for row in log.topic("ratchet.probe.deferred")}) == 3
    gave = await redecide(Recalled(), log, Window())
    assert not gave.found
    assert (gave.events, gave.records) == (8, 8)
    assert gave.notes == {"ended": 1}


async def test_what_is_parked_still_is_no_difference(log: RecordedLog) -> None:
    """A deferred event whose turn has not come has no output to compare."""
    committed = {"ratchet.probe": log.committed["ratchet.probe"] | {(INPUTS[1], 0): 0}}
    early = RecordedLog(log.partitions, log.starts, committed)
    parked = {row.key for row in log.topic("ratchet.probe.deferred")}
    early.add(row for row in log.all() if row.topic != "ratchet.answers" or row.key not in parked)
    gave = await redecide(Recalled(), early, Window())
    assert not gave.found
    assert gave.notes["deferred and not decided yet"] == 2
    assert gave.events == 6


async def test_what_is_not_committed_is_not_expected(log: RecordedLog) -> None:
    """A group that has done nothing yet: nothing is decided, nothing is missing."""
    gave = await redecide(Recalled(), RecordedLog(1, log.starts, {"ratchet.probe": {}}), Window())
    assert (gave.events, gave.records, dict(gave.kinds)) == (0, 0, {})


async def test_a_letter_with_another_reason_is_found(log: RecordedLog) -> None:
    """Of a dead letter only time and tries are left out."""

    def other(row: Record) -> Record:
        headers = tuple((k, b"why not" if k == "ratchet-dlq-message" else v) for k, v in row.headers)
        return replace(row, headers=headers)

    changed = RecordedLog(log.partitions, log.starts, log.committed)
    changed.add(map(other, log.all()))
    gave = await redecide(Recalled(), changed, Window())
    assert gave.kinds == {"changed": 3}
    assert {field.path for row in gave.found for field in row.fields} == {"header ratchet-dlq-message"}


async def test_what_an_operator_skipped_is_not_decided(log: RecordedLog) -> None:
    """A dead letter by hand stands for the agent's answer, whatever that would have been."""

    def skip(row: Record) -> Record:
        return replace(row, headers=tuple((k, b"skipped" if v == b"oversize" else v) for k, v in row.headers))

    changed = RecordedLog(log.partitions, log.starts, log.committed)
    changed.add(map(skip, log.all()))
    gave = await redecide(Recalled(), changed, Window())
    assert not gave.found
    assert gave.notes["skipped by an operator: not decided"] == 1
    assert gave.events == 7
