"""What a lane does while its partitions are taken away: commit what is finished, within one bound, and nothing after."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from streams_contract import FAST, Count, Echo, chain_of, request, until

from infra.clock import SystemClock
from schemas.events import AnswerRefused
from schemas.payload import Payload
from streams.kafka_clients import close
from streams.lane import Lane, Notice
from streams.memory import MemoryBroker, MemoryTransactionalProducer
from streams.port import Lost
from streams.runner import Runner, RuntimeSettings
from streams.shapes import Event, Out

LATE = replace(FAST, linger_s=60.0, batch=1000, revoke_bound_s=0.4)  # nothing is committed unless something asks for it


class Twice(Echo):
    """Remembers every text that it was called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.texts: list[str] = []

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        self.texts.append(event.data.model_dump()["messages"][0]["content"])
        return await super().__call__(event)


class Stuck(MemoryTransactionalProducer):
    """Its offsets never arrive."""

    async def offsets(self, following: object, group: str) -> None:
        await asyncio.sleep(3600)


class StuckBroker(MemoryBroker):
    stuck = True

    def transactional(self, transactional_id: str) -> MemoryTransactionalProducer:
        return Stuck(self, transactional_id) if self.stuck else super().transactional(transactional_id)


class Deaf(MemoryTransactionalProducer):
    """Stops as the real client may: a cancellation of its caller ends a task of its own, and is not passed on."""

    async def stop(self, timeout_s: float) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.3)

    async def start(self) -> None:
        self.broker.opened += 1
        await super().start()


class DeafBroker(MemoryBroker):
    opened = 0

    def transactional(self, transactional_id: str) -> MemoryTransactionalProducer:
        return Deaf(self, transactional_id)


def start(
    broker: MemoryBroker, agent: Echo | Count, settings: RuntimeSettings = LATE
) -> tuple[Runner, asyncio.Task[None]]:
    runner = Runner(broker, SystemClock(), settings=settings)
    if isinstance(agent, Echo):
        runner.add_transform(agent)
    else:
        runner.add_fold(agent)
    return runner, asyncio.create_task(runner.run())


def lanes_of(runner: Runner) -> list[Lane]:
    return [lane for member in runner._members for lane in member.lanes.values()]


async def finished(runner: Runner, count: int) -> None:
    await until(lambda: sum(lane.finished() for lane in lanes_of(runner)) == count)


async def stop(runner: Runner, task: asyncio.Task[None]) -> None:
    await runner.stop()
    await asyncio.wait_for(task, 5)


async def test_finished_work_is_committed_before_a_lane_is_let_go() -> None:
    """A rebalance repeats no finished call: its outputs are there before another owner could begin."""
    broker, agent = MemoryBroker(1), Twice("probe")
    for n in range(20):
        broker.publish(request("k", str(n)))
    runner, task = start(broker, agent)
    await finished(runner, 20)
    assert broker.records("answers") == []
    broker.rebalance()
    await until(lambda: len(broker.records("answers")) == 20)
    await stop(runner, task)
    assert agent.texts == [str(n) for n in range(20)]


async def test_a_fold_commits_what_it_has_folded() -> None:
    """State, order and offsets with it: the chain goes on after the rebalance."""
    broker = MemoryBroker(1)
    for n in range(20):
        broker.publish(request("k", str(n)), event_id=str(n))
    runner, task = start(broker, Count("probe"))
    await finished(runner, 20)
    broker.rebalance()
    await until(lambda: len(broker.records("answers")) == 20)
    broker.publish(request("k", "last"), event_id="last")
    await finished(runner, 1)
    await stop(runner, task)
    last = broker.events("answers")[-1].data
    assert isinstance(last, AnswerRefused)
    assert last.reason == chain_of([*(str(n) for n in range(20)), "last"])[-1]


async def test_unfinished_work_is_not_waited_for() -> None:
    """A slow call is cancelled at once and done again; what was finished before it is kept."""
    broker, agent = MemoryBroker(1), Twice("probe")
    for text in ("a", "slow30", "b"):
        broker.publish(request("k", text))
    runner, task = start(broker, agent, replace(LATE, revoke_bound_s=20.0))
    await finished(runner, 1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await runner._members[0].revoked([])
    assert loop.time() - began < 5
    assert [event.data.model_dump()["reason"] for event in broker.events("answers")] == ["a"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.texts == ["a", "slow30", "b"]


@pytest.mark.parametrize("lanes", [1, 20])
async def test_one_time_bounds_all_of_it(lanes: int) -> None:
    """A commit that does not come through costs no more than the bound, whatever the number of lanes; nothing comes after."""
    broker, agent = StuckBroker(lanes), Echo("probe")
    for n in range(200):
        broker.publish(request(f"k{n}", str(n)))
    runner, task = start(broker, agent)
    await finished(runner, 200)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await runner._members[0].revoked([])
    assert 0.25 < loop.time() - began < 5
    offsets = dict(broker.committed)
    await asyncio.sleep(0.3)
    assert broker.records("answers") == []
    assert broker.committed == offsets
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    broker.stuck = False
    runner, task = start(broker, agent, FAST)
    await until(lambda: len(broker.records("answers")) == 200)
    await stop(runner, task)
    assert len({event.id for event in broker.events("answers")}) == 200


async def test_a_lane_that_is_dropping_when_it_is_let_go_never_opens_again() -> None:
    """Whatever the client makes of the cancellation: a lane that opened again would fence its successor, again and again."""
    broker, agent = DeafBroker(1), Echo("probe")
    runner, task = start(broker, agent, replace(FAST, revoke_bound_s=2.0))
    await until(lambda: any(lane.open for lane in lanes_of(runner)))
    (lane,) = lanes_of(runner)
    lane.broken(Lost("by the test"))
    await until(lambda: not lane.open)
    opened = broker.opened
    await asyncio.sleep(0.05)  # it waits for its producer to stop
    await runner._members[0].revoked([])
    await asyncio.sleep(0.3)
    assert broker.opened == opened
    assert not lane.open
    await stop(runner, task)


async def _told(seen: list[Notice], held: Callable[[Notice], bool]) -> None:
    await until(lambda: any(held(notice) for notice in seen))


async def test_lag_keys_and_stalls_are_told() -> None:
    """Lag counts what is not committed and falls to 0 behind markers; a held-up loop shows; a closed lane says so."""
    broker, agent, seen = MemoryBroker(1), Echo("probe"), list[Notice]()
    for n in range(5):
        broker.publish(request("k", str(n)))
    broker.publish(request("k", "slow0.3"))
    runner = Runner(broker, SystemClock(), settings=FAST, observe=seen.append)
    runner.add_transform(agent)
    runner.add_fold(Count("count"))
    task = asyncio.create_task(runner.run())
    await _told(seen, lambda n: (n.kind, n.agent, n.value) == ("lag", "probe", 1))
    await _told(seen, lambda n: (n.kind, n.agent, n.value) == ("state_keys", "count", 1))
    await until(lambda: len(broker.records("answers")) == 12)
    seen.clear()
    await _told(seen, lambda n: (n.kind, n.agent, n.value) == ("lag", "probe", 0))
    await _told(seen, lambda n: (n.kind, n.agent, n.value) == ("lag", "count", 0))
    import time

    time.sleep(0.12)  # noqa: ASYNC251  the fault
    await _told(seen, lambda n: n.kind == "stall_s" and n.value > 0.05)
    await stop(runner, task)
    assert {n.agent for n in seen if n.kind == "closed"} == {"probe", "count"}


class Swallowing:
    """A client that takes a cancellation for the end of one of its own tasks, as aiokafka's do."""

    def __init__(self, stops_s: float) -> None:
        self.stops_s = stops_s
        self.stopping = asyncio.Event()
        self._client = self
        self.closed = 0

    async def stop(self) -> None:
        self.stopping.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(self.stops_s)

    async def close(self) -> None:
        self.closed += 1


async def test_a_cancellation_that_the_client_swallows_is_raised_after_all() -> None:
    """Who is cancelled while the client stops is cancelled, and who is not goes on; its connections are closed in both cases."""
    client = Swallowing(0.0)
    await close(client)
    assert client.closed == 1
    client = Swallowing(3600.0)
    task = asyncio.create_task(close(client))
    await client.stopping.wait()
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert client.closed == 1
