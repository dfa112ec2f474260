"""Moving a group's offsets on the broker in memory: while nobody is at work, within the log, and never so that a Fold counts twice."""

import asyncio
from contextlib import suppress

import pytest
from streams_contract import FAST, Count, Echo, chain_of, request, until

from infra.clock import SystemClock
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused, CommandOffsets
from schemas.topics import deferred_topic
from streams.letters import tell
from streams.memory import MemoryBroker, run_until
from streams.moving import Move, move, plan
from streams.order import Skipped, decode_order
from streams.runner import Runner
from streams.shapes import Place
from streams.wire import Sent

CLOCK = SystemClock()
REQUESTS = ("ratchet.requests", 0)
TRANSFORM = ("ratchet.requests", deferred_topic("probe"))
FOLD = ("ratchet.requests",)


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker(1, clock=CLOCK, offsets=False)
    for topic in TRANSFORM:
        made.committed["ratchet.probe", (topic, 0)] = 0
    for name in ("a", "b", "c"):
        made.publish(request(name), event_id=name)
    return made


def runner_of(broker: MemoryBroker, agent: Echo | Count) -> Runner:
    made = Runner(broker, CLOCK, settings=FAST)
    if isinstance(agent, Echo):
        made.add_transform(agent)
    else:
        made.add_fold(agent)
    return made


async def answered(broker: MemoryBroker, agent: Echo | Count, count: int) -> None:
    """Run until there are so many answers, then stop, and let the session end."""
    await run_until(runner_of(broker, agent), lambda: len(broker.records("answers")) == count)
    broker.groups.clear()


def told(one: Move) -> Sent:
    said = CommandOffsets(
        at_ms=1, operator="ann", agent="probe", topic=one.topic, partition=one.partition,
        from_offset=one.from_offset, to_offset=one.to_offset,
    )  # fmt: skip
    return tell(said, str(one), Place(one.topic, one.partition, one.to_offset), 1, None)


async def moved(broker: MemoryBroker, to: int, *, fold: bool) -> None:
    inputs = FOLD if fold else TRANSFORM
    moves = await plan(broker.admin(), "probe", inputs, {REQUESTS: to}, fold=fold)
    await move(broker, CLOCK, "probe", inputs, moves, fold=fold, tell=told)


async def test_a_transform_that_goes_back_sends_the_same_ids_again(broker: MemoryBroker) -> None:
    """What it answered it answers again under the same ids, so that readers know it; the event says from where to where."""
    await answered(broker, Echo("probe"), 3)
    await moved(broker, 1, fold=False)
    await answered(broker, Echo("probe"), 5)
    ids = [row.id for row in broker.events("answers")]
    assert (ids[3:], len(set(ids))) == (ids[1:3], 3)
    (command,) = broker.events("commands")
    assert isinstance(command.data, CommandOffsets)
    assert (command.data.from_offset, command.data.to_offset) == (3, 1)


async def test_a_fold_goes_on_behind_what_it_is_told_to_leave_out(broker: MemoryBroker) -> None:
    """Position, offset and order move together: it restores, folds the next once and nothing before it."""
    await answered(broker, Count("probe"), 3)
    left_out = [broker.publish(request("a"), event_id=name) for name in ("x", "y")]
    broker.publish(request("a"), event_id="z")
    await moved(broker, left_out[-1].offset + 1, fold=True)
    await answered(broker, Count("probe"), 4)
    answers = [row.data for row in broker.events("answers") if isinstance(row.data, AnswerRefused)]
    assert answers[-1].reason == chain_of(["a", "z"])[-1]
    said = [row for r in broker.records("ratchet.probe.order") for row in decode_order(r.value)]
    assert [row.offset for row in said if isinstance(row, Skipped)] == [left_out[-1].offset]


async def test_a_fold_never_goes_back(broker: MemoryBroker) -> None:
    """What it has folded is in its state: refused, and nothing changes."""
    await answered(broker, Count("probe"), 3)
    before = dict(broker.committed)
    with pytest.raises(Refused, match="count twice"):
        await moved(broker, 0, fold=True)
    assert (broker.committed, broker.records("commands")) == (before, [])


async def test_all_that_lies_outside_the_log_is_named(broker: MemoryBroker) -> None:
    """Behind the end, before what retention left, no such partition, a group without offsets."""
    admin = broker.admin()
    broker.truncate(REQUESTS, 2)
    wanted = {REQUESTS: 1, (deferred_topic("probe"), 0): 7}
    with pytest.raises(Refused) as error:
        await plan(admin, "probe", TRANSFORM, wanted, fold=False)
    assert "the log holds 2 to 3" in str(error.value)
    assert "the log holds 0 to 0" in str(error.value)
    with pytest.raises(Refused, match=r"reads no ratchet\.requests\[4\]"):
        await plan(admin, "probe", TRANSFORM, {("ratchet.requests", 4): 0}, fold=False)
    with pytest.raises(Refused, match="has no offset"):
        await plan(admin, "nobody", TRANSFORM, {REQUESTS: 2}, fold=False)
    assert await plan(admin, "probe", TRANSFORM, {REQUESTS: 2}, fold=False) == (Move("ratchet.requests", 0, 0, 2),)
    broker.committed["ratchet.probe", REQUESTS] = 2
    assert await plan(admin, "probe", TRANSFORM, {REQUESTS: 2}, fold=False) == ()


async def test_while_the_agent_runs_nothing_moves(broker: MemoryBroker) -> None:
    """Refused before its lane is fenced: the agent goes on undisturbed."""
    runner = runner_of(broker, Echo("probe"))
    task = asyncio.create_task(runner.run())
    try:
        await until(lambda: len(broker.records("answers")) == 3)
        epochs = {name: state.epoch for name, state in broker.transactions.items()}
        with pytest.raises(Refused, match="is running"):
            await moved(broker, 0, fold=False)
        assert {name: state.epoch for name, state in broker.transactions.items()} == epochs
    finally:
        await runner.stop()
        with suppress(asyncio.CancelledError):
            await task
    assert broker.committed["ratchet.probe", REQUESTS] == 3


async def test_a_plan_that_no_longer_holds_is_refused(broker: MemoryBroker) -> None:
    """The agent ran between plan and deed: what was said to be moved is not what would be."""
    moves = await plan(broker.admin(), "probe", TRANSFORM, {REQUESTS: 3}, fold=False)
    await answered(broker, Echo("probe"), 3)
    with pytest.raises(Refused, match="gone on meanwhile"):
        await move(broker, CLOCK, "probe", TRANSFORM, moves, fold=False, tell=told)
    assert broker.records("commands") == []


async def test_a_refusal_after_the_first_lane_says_what_was_moved() -> None:
    """One lane stands where the plan says, the other has gone on: the first is moved, and the refusal tells it."""
    broker = MemoryBroker(2, clock=CLOCK, offsets=False)
    for topic in TRANSFORM:
        broker.committed |= {("ratchet.probe", (topic, number)): 0 for number in (0, 1)}
    for name in ("a", "b", "c", "d", "e", "f"):
        broker.publish(request(name), event_id=name)
    ends = {("ratchet.requests", number): end for number, end in (await _ends(broker)).items()}
    moves = await plan(broker.admin(), "probe", TRANSFORM, ends, fold=False)
    broker.committed["ratchet.probe", ("ratchet.requests", 1)] = 1
    with pytest.raises(Refused, match=r"moved: ratchet\.requests\[0\] from 0 to .*; not the rest: probe has gone on"):
        await move(broker, CLOCK, "probe", TRANSFORM, moves, fold=False, tell=told)
    assert broker.committed["ratchet.probe", ("ratchet.requests", 0)] == ends["ratchet.requests", 0]


async def _ends(broker: MemoryBroker) -> dict[int, int]:
    found = await broker.admin().ends([("ratchet.requests", 0), ("ratchet.requests", 1)])
    return {number: end for (_, number), end in found.items()}


async def test_a_broker_that_goes_away_is_said(broker: MemoryBroker) -> None:
    """Unavailable names how far it came."""
    moves = await plan(broker.admin(), "probe", TRANSFORM, {REQUESTS: 3}, fold=False)
    broker.away = True
    with pytest.raises(Unavailable, match="nothing for certain"):
        await move(broker, CLOCK, "probe", TRANSFORM, moves, fold=False, tell=told)
