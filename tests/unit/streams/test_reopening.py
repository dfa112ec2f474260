"""What a lane that drops and opens again keeps of its former life: that it was asked to drain, and nothing of its work."""

import asyncio
from contextlib import suppress

from streams_contract import FAST, Echo, request, until

from infra.clock import SystemClock
from streams.lane import Lane, Notice
from streams.memory import MemoryBroker
from streams.port import Lost
from streams.runner import Runner
from streams.transform import TransformLane

SLOW = "slow30"


async def begun() -> tuple[Runner, asyncio.Task[None], Echo, TransformLane, list[Notice]]:
    """A Transform's lane in the middle of a call that takes long."""
    broker, agent, seen = MemoryBroker(1), Echo("probe"), list[Notice]()
    broker.publish(request("k", SLOW))
    runner = Runner(broker, SystemClock(), settings=FAST, observe=seen.append)
    runner.add_transform(agent)
    task = asyncio.create_task(runner.run())
    await until(lambda: agent.calls == 1)
    (lane,) = runner._members[0].lanes.values()
    assert isinstance(lane, TransformLane)
    return runner, task, agent, lane, seen


async def reopened(lane: Lane, seen: list[Notice]) -> None:
    """Break the lane, and wait until it is open again."""
    seen.clear()
    lane.broken(Lost("by the test"))
    await until(lambda: any(notice.kind == "opened" for notice in seen))


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_lane_that_reopens_while_it_drains_lets_nothing_in() -> None:
    """A graceful stop that meets a lost connection still ends: what was dropped is the next owner's."""
    runner, task, agent, lane, seen = await begun()
    draining = asyncio.create_task(runner._members[0].drain())
    await asyncio.sleep(0)
    await reopened(lane, seen)
    await asyncio.wait_for(draining, 5)
    await asyncio.sleep(0.3)  # longer than a poll
    assert agent.calls == 1
    assert not any(notice.kind == "accepted" for notice in seen)
    await runner.stop()
    await asyncio.wait_for(task, 5)


async def test_a_dropped_lane_holds_no_record_of_its_former_work() -> None:
    """Only the worker that is at work is remembered, however often the lane opened."""
    _, task, agent, lane, seen = await begun()
    for count in (2, 3):
        await reopened(lane, seen)
        await until(lambda wanted=count: agent.calls == wanted)
        assert len(lane._at) == 1
    await end(task)
    assert not lane._at
