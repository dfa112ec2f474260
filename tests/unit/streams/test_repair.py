"""Skipping the record that halted a lane: one transaction, refused while its owner may be at work."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from streams_contract import FAST, Count, Echo, chain_of, request, until

from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.events import AnswerRefused, RequestSubmitted
from schemas.payload import Payload
from schemas.topics import deferred_topic
from streams.lane import AgentCrashed, Notice
from streams.memory import MemoryBroker, run_until
from streams.order import Run, Skipped, decode_order
from streams.port import Outgoing
from streams.repair import skip
from streams.runner import Runner
from streams.shapes import Change, Event, KeyState, Out, Place, Tick
from streams.wire import Sent, parked

CLOCK = SystemClock()
INPUTS = ("ratchet.requests",)


def poisonous(event: Event[Payload] | Tick) -> bool:
    return isinstance(event, Event) and isinstance(event.data, RequestSubmitted) and event.data.request_id == "poison"


class FragileEcho(Echo):
    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if poisonous(event):
            raise ZeroDivisionError
        return await super().__call__(event)


class FragileCount(Count):
    def fold(self, state: KeyState, event: Event[Payload] | Tick) -> Change:  # pyright: ignore[reportMissingTypeArgument]
        if poisonous(event):
            raise ZeroDivisionError
        return super().fold(state, event)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(1, offsets=False)
    for topic in ("ratchet.requests", deferred_topic("probe")):
        made.committed["ratchet.probe", (topic, 0)] = 0
    return made


def runner_of(broker: MemoryBroker, agent: Echo | Count, folder: Path, seen: list[Notice] | None = None) -> Runner:
    made = Runner(
        broker, CLOCK, settings=FAST, state_dir=folder, observe=(lambda n: None) if seen is None else seen.append
    )
    if isinstance(agent, Echo):
        made.add_transform(agent)
    else:
        made.add_fold(agent)
    return made


async def poisoned(broker: MemoryBroker, agent: Echo | Count, folder: Path, crashes: int = 3) -> Place:
    """Three records of which the second has crashed the agent."""
    for name in ("a", "poison", "b"):
        broker.publish(request(name), event_id=name)
    for _ in range(crashes):
        with pytest.raises(AgentCrashed, match=r"ratchet\.requests"):
            await asyncio.wait_for(runner_of(broker, agent, folder).run(), 5)
    return next(r.place for r in broker.records("requests") if r.key == b"poison")


def inputs_of(agent: Echo | Count) -> tuple[str, ...]:
    return INPUTS if isinstance(agent, Count) else (*INPUTS, deferred_topic(agent.name))


@pytest.mark.parametrize("kind", [FragileEcho, FragileCount])
async def test_a_halted_lane_is_freed_while_it_runs(broker: MemoryBroker, kind: type, tmp_path: Path) -> None:
    """The skipped record is a dead letter, nothing else is lost, and the lane opens again by itself."""
    agent, seen = kind("probe"), list[Notice]()
    place = await poisoned(broker, agent, tmp_path)
    runner = runner_of(broker, agent, tmp_path, seen)
    task = asyncio.create_task(runner.run())
    await until(lambda: any(n.kind == "halted" for n in seen) and len(broker.records("answers")) == 1)
    fold = isinstance(agent, Count)
    await skip(broker, CLOCK, "probe", inputs_of(agent), place, fold=fold, reason="by ada: no", crashes=tmp_path)
    await until(lambda: len(broker.records("answers")) == 2)
    await runner.stop()
    await task
    letters = broker.records("requests.dlq")
    assert [(r.key, dict(r.headers)["ratchet-dlq-message"]) for r in letters] == [(b"poison", b"by ada: no")]
    assert [e.key for e in broker.events("answers")] == ["a", "b"]


async def test_a_skip_moves_the_position_and_tells_the_order(broker: MemoryBroker, tmp_path: Path) -> None:
    """A Fold restores after a skip: changelog and offsets agree, and the order topic says what was left out."""
    agent = FragileCount("probe")
    place = await poisoned(broker, agent, tmp_path)
    await run_until(runner_of(broker, agent, tmp_path), lambda: len(broker.records("answers")) == 1)
    broker.groups.clear()
    await skip(broker, CLOCK, "probe", INPUTS, place, fold=True, reason="r")
    await run_until(runner_of(broker, agent, tmp_path), lambda: len(broker.records("answers")) == 2)
    answers = [e.data.reason for e in broker.events("answers") if isinstance(e.data, AnswerRefused)]
    assert answers == [chain_of(["a"])[0], chain_of(["b"])[0]]
    said = [row for r in broker.records("ratchet.probe.order") for row in decode_order(r.value)]
    assert next(row for row in said if isinstance(row, Skipped)).offset == place.offset
    assert [(row.first, row.last) for row in said if isinstance(row, Run)] == [(0, 0), (2, 2)]


async def test_a_skip_beside_a_living_owner_is_refused(broker: MemoryBroker, tmp_path: Path) -> None:
    """While the group has a member and no halt is known nothing is fenced and nothing changes."""
    agent = Echo("probe")
    runner = runner_of(broker, agent, tmp_path)
    task = asyncio.create_task(runner.run())
    await until(lambda: "ratchet.probe" in broker.groups and bool(broker.transactions))
    epochs = {name: state.epoch for name, state in broker.transactions.items()}
    record = broker.publish(request("a", "slow0.2"))
    with pytest.raises(Refused, match="is running"):
        await skip(broker, CLOCK, "probe", inputs_of(agent), record.place, fold=False, reason="r", crashes=tmp_path)
    assert {name: state.epoch for name, state in broker.transactions.items()} == epochs
    await until(lambda: len(broker.records("answers")) == 1)
    await runner.stop()
    await task
    assert broker.records("requests.dlq") == []


@pytest.mark.parametrize(("offset", "kind"), [(0, "passed"), (2, "not-next"), (9, "no-record")])
async def test_only_the_next_record_can_be_skipped(
    broker: MemoryBroker, tmp_path: Path, offset: int, kind: str
) -> None:
    """What is committed, or has others before it, is refused and named; offsets stay."""
    agent = FragileCount("probe")
    await poisoned(broker, agent, tmp_path, crashes=1)
    broker.groups.clear()
    if kind == "no-record":
        broker.committed["ratchet.probe", ("ratchet.requests", 0)] = 3
    before = dict(broker.committed)
    if kind == "passed":
        broker.committed["ratchet.probe", ("ratchet.requests", 0)] = 1
        before = dict(broker.committed)
    with pytest.raises(Refused) as error:
        await skip(broker, CLOCK, "probe", INPUTS, Place("ratchet.requests", 0, offset), fold=True, reason="r")
    assert (error.value.kind, broker.committed) == (kind, before)
    assert broker.records("requests.dlq") == []


async def test_a_topic_that_the_agent_does_not_read_is_refused(broker: MemoryBroker) -> None:
    """The place must be on one of the agent's inputs."""
    with pytest.raises(Refused, match="does not read"):
        await skip(broker, CLOCK, "probe", INPUTS, Place("ratchet.cases", 0, 0), fold=True, reason="r")


async def test_a_skipped_deferred_record_lies_with_its_source(broker: MemoryBroker) -> None:
    """A deferred record that halted its lane becomes a dead letter of the topic that it came from; what tells of it goes with it."""
    record = broker.publish(request("a"), event_id="a")
    row = parked(record, attempt=1, topic=deferred_topic("probe"), not_before_ms=0)
    place = broker.append((row.topic, 0), row.record, None).place
    telling = Sent("ratchet.commands", 0, Outgoing(b"k", b"told"))
    inputs = (*INPUTS, deferred_topic("probe"))
    await skip(broker, CLOCK, "probe", inputs, place, fold=False, reason="r", tell=(telling,))
    (dead,) = broker.records("requests.dlq")
    said = dict(dead.headers)
    assert (dead.key, said["ratchet-dlq-topic"], said["ratchet-dlq-offset"]) == (b"a", b"ratchet.requests", b"0")
    assert "ratchet-attempt" not in said
    assert broker.committed["ratchet.probe", (deferred_topic("probe"), 0)] == 1
    assert [row.value for row in broker.records("commands")] == [b"told"]
