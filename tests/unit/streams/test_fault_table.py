"""Each fault point, first and fourth pass, exit or lost connection, Transform and Fold: the effects are those of no fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from streams_contract import FAST, Count, Echo, Faults, World, chain_of, request, until

from infra.clock import SystemClock
from schemas.events import AnswerRefused
from streams.memory import MemoryBroker
from streams.port import POINTS, Fenced, Lost
from streams.runner import Runner

KEYS = [f"key-{n}" for n in range(8)]
EACH = 6


class Exit(BaseException):
    """The process is gone."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await World(MemoryBroker(4, offsets=False), "f").start()
    yield made
    await made.stop()


def _memory(world: World) -> MemoryBroker:
    assert isinstance(world.broker, MemoryBroker)
    return world.broker


async def _live(world: World, agent: Echo | Count, faults: Faults, wanted: int) -> None:
    """Run until all answers are there, starting again after each exit, with a rebalance on the way."""
    broker, shaken = _memory(world), False
    async with asyncio.timeout(10):
        while len(broker.records("answers")) < wanted or (not faults.struck and faults.left > 0 and not shaken):
            runner = Runner(broker, SystemClock(), settings=FAST, fault=faults)
            if isinstance(agent, Echo):
                runner.add_transform(agent)
            else:
                runner.add_fold(agent)
            task = asyncio.create_task(runner.run())
            try:
                while not task.done() and len(broker.records("answers")) < wanted:
                    await asyncio.sleep(0.003)
                    if not shaken and len(broker.records("answers")) > wanted // 3:
                        shaken = True
                        broker.rebalance()
                if task.done():
                    with pytest.raises(Exit):
                        await task
                await asyncio.sleep(0.004)
                shaken = shaken or len(broker.records("answers")) >= wanted
            finally:
                task.cancel()
                with suppress(BaseException):
                    await task


@pytest.mark.parametrize("shape", ["transform", "fold"])
@pytest.mark.parametrize("action", ["exit", "lost", "fenced"])
@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("point", POINTS)
async def test_a_fault_changes_no_effect(world: World, point: str, nth: int, action: str, shape: str) -> None:
    """Nothing is lost, nothing twice, order and state are right, whatever breaks where."""
    error = {"exit": Exit(), "lost": Lost("the answer is lost"), "fenced": Fenced("another owner")}[action]
    faults = Faults(point, nth, error)
    agent = Echo("probe") if shape == "transform" else Count("probe")
    await world.join("probe", fold=shape == "fold")
    ids_of: dict[str, list[str]] = {key: [] for key in KEYS}
    for n in range(EACH):
        for key in KEYS:
            ids_of[key] += await world.publish(request(key, f"t{n}"))
    await _live(world, agent, faults, EACH * len(KEYS))
    answers = _memory(world).events("answers")
    assert len(answers) == EACH * len(KEYS)
    assert len({event.id for event in answers}) == len(answers)
    for key in KEYS:
        reasons = [e.data.reason for e in answers if e.key == key and isinstance(e.data, AnswerRefused)]
        assert reasons == ([f"t{n}" for n in range(EACH)] if shape == "transform" else chain_of(ids_of[key]))
    if point in ("begun", "sent", "acknowledged", "offsets", "ended", "done", "accepted") or nth == 1:
        assert faults.struck or point == "revoked"


async def test_a_zombie_stopped_inside_its_transaction_is_fenced(world: World) -> None:
    """An owner that sleeps inside a transaction, is replaced and wakes up, changes nothing any more."""
    broker, asleep, wake = _memory(world), asyncio.Event(), asyncio.Event()
    await world.join("probe", fold=True)
    for n in range(20):
        await world.publish(request("key-1", f"t{n}"))

    async def sleep_at(point: str, agent: str, partition: int) -> None:
        if point == "offsets" and not asleep.is_set():
            asleep.set()
            await wake.wait()

    old = Runner(broker, SystemClock(), settings=FAST, fault=sleep_at)
    old.add_fold(Count("probe"))
    zombie = asyncio.create_task(old.run())
    await asyncio.wait_for(asleep.wait(), 5)
    new = Runner(broker, SystemClock(), settings=FAST, ordinal=1)
    new.add_fold(Count("probe"))
    broker.groups["ratchet.probe"].members.clear()  # the session of the sleeper has ended
    broker.groups["ratchet.probe"].seen_s.clear()
    owner = asyncio.create_task(new.run())
    await until(lambda: len(broker.records("answers")) >= 20)
    wake.set()
    await asyncio.sleep(0.1)
    for runner, task in ((new, owner), (old, zombie)):
        await runner.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    answers = broker.events("answers")
    assert len(answers) == len({event.id for event in answers}) == 20
    assert broker.aborted_copies > 0


async def test_a_compacted_changelog_restores_the_same_state(world: World) -> None:
    """Compaction leaves the newest record per key; the fold goes on as if nothing had been dropped."""
    broker = _memory(world)
    await world.join("probe", fold=True)
    names: list[str] = []
    for n in range(10):
        names += await world.publish(request("key-1", f"t{n}"))
    nothing = Faults("none", 1, Exit())
    await _live(world, Count("probe"), nothing, 10)
    broker.compact("ratchet.probe.state")
    names += await world.publish(request("key-1", "last"))
    await _live(world, Count("probe"), nothing, 11)
    last = broker.events("answers")[-1].data
    assert isinstance(last, AnswerRefused)
    assert last.reason == chain_of(names)[-1]


async def test_a_changelog_that_disagrees_with_the_offsets_is_fatal(world: World) -> None:
    """The changelog's position and the committed offsets are one transaction: where they differ nothing goes on."""
    broker = _memory(world)
    await world.join("probe", fold=True)
    await world.publish(request("key-1", "t"))
    await _live(world, Count("probe"), Faults("none", 1, Exit()), 1)
    tp = next(record for record in broker.records("requests")).place
    broker.committed["ratchet.probe", (tp.topic, tp.partition)] += 5
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_fold(Count("probe"))
    with pytest.raises(Exception, match="probe crashed"):
        await asyncio.wait_for(runner.run(), 5)


async def test_offsets_that_are_still_loading_are_asked_for_again(world: World) -> None:
    """While the broker does not know the offsets the lane waits; it never starts from zero."""
    broker = _memory(world)
    await world.join("probe")
    await world.publish(request("key-1", "one"))
    await _live(world, Echo("probe"), Faults("none", 1, Exit()), 1)
    broker.loading = True
    await world.publish(request("key-1", "two"))
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(Echo("probe"))
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(0.25)
    assert len(broker.records("answers")) == 1
    broker.loading = False
    await until(lambda: len(broker.records("answers")) >= 2)
    await runner.stop()
    await task
    assert [e.data.reason for e in broker.events("answers") if isinstance(e.data, AnswerRefused)] == ["one", "two"]


async def test_a_refused_batch_is_never_committed_around(world: World) -> None:
    """While the broker refuses the output nothing is committed; when it takes it again all is there once."""
    broker = _memory(world)
    await world.join("probe")
    await world.publish(*(request("key-1", f"t{n}") for n in range(5)))
    broker.refuse = {"ratchet.answers"}
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(Echo("probe"))
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(0.2)
    assert broker.records("answers") == []
    broker.refuse = set()
    await until(lambda: len(broker.records("answers")) >= 5)
    await runner.stop()
    await task
    assert len({event.id for event in broker.events("answers")}) == 5


async def test_ticks_wait_behind_the_backlog(world: World) -> None:
    """A key that is due before its backlog is read gets its tick after the whole backlog, with everything counted."""
    broker = _memory(world)
    await world.join("probe", fold=True)
    await world.publish(request("key-1", "first"))
    count = Count("probe", ticks=True)
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_fold(count)
    await world.publish(*(request("key-1", f"t{n}") for n in range(400)))
    task = asyncio.create_task(runner.run())
    await until(
        lambda: broker.events("answers") != [] and broker.events("answers")[-1].data.model_dump()["kind"] == "tick"
    )
    await runner.stop()
    await task
    ticks = [e for e in broker.events("answers") if isinstance(e.data, AnswerRefused) and e.data.kind == "tick"]
    assert [tick.data.model_dump()["reason"] for tick in ticks] == ["401"]
    assert any(b"~tick" in (row.value or b"") for row in broker.records("ratchet.probe.order"))


async def test_three_crashes_at_one_place_halt_the_lane_only(world: World, tmp_path: object) -> None:
    """An event that crashes the agent thrice stops its own partition, visibly; the others go on."""
    from pathlib import Path

    from streams.lane import AgentCrashed, Notice

    class Fragile(Echo):
        async def __call__(self, event: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            if event.data.messages[0].content == "poison":  # pyright: ignore[reportAttributeAccessIssue]
                raise ZeroDivisionError
            return await super().__call__(event)  # pyright: ignore[reportArgumentType]

    assert isinstance(tmp_path, Path)
    broker, seen = _memory(world), list[Notice]()
    await world.join("probe")
    await world.publish(request("key-1", "poison"))

    def runner() -> Runner:
        made = Runner(broker, SystemClock(), settings=FAST, state_dir=tmp_path, observe=seen.append)
        made.add_transform(Fragile("probe"))  # pyright: ignore[reportArgumentType]
        return made

    for _ in range(3):
        with pytest.raises(AgentCrashed, match=r"ratchet\.requests"):
            await asyncio.wait_for(runner().run(), 5)
    await world.publish(*(request(key, "fine") for key in KEYS))
    last = runner()
    task = asyncio.create_task(last.run())
    await asyncio.sleep(0.3)
    await last.stop()
    await task
    assert [notice.text.startswith("ratchet.requests[") for notice in seen if notice.kind == "halted"] == [True]
    halted = broker.records("requests")[0].partition
    expected = [r for r in broker.records("requests") if r.partition != halted]
    assert len(broker.records("answers")) == len(expected)
