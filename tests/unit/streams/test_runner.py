"""How a process of agents leaves: nothing is begun any more, everything is let go, whatever the broker does meanwhile."""

import asyncio
from collections.abc import Collection, Mapping

import pytest
from streams_contract import FAST, Echo, until

from infra.clock import SystemClock
from streams.memory import MemoryAdmin, MemoryBroker, MemoryReader
from streams.port import TP, Listener, Lost
from streams.runner import Runner


class Rejoining(MemoryReader):
    """Rejoins its group while it stops, as the client's own task may until it has ended."""

    async def stop(self) -> None:
        assert self.listener is not None
        await self.listener.revoked(list(self.positions))
        await self.listener.assigned(list(self.positions))
        await super().stop()


class RejoiningBroker(MemoryBroker):
    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> MemoryReader:
        return Rejoining(self, {}, tuple(sorted(topics)), group, instance, listener)


async def test_a_rebalance_while_it_stops_starts_no_lane() -> None:
    """A lane that nobody closes would fence its successor: the epoch stays that of the lane that was."""
    broker = RejoiningBroker(1)
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(Echo("probe"))
    task = asyncio.create_task(runner.run())
    await until(lambda: "ratchet.probe-0" in broker.transactions)
    epoch = broker.transactions["ratchet.probe-0"].epoch
    await runner.stop()
    await asyncio.wait_for(task, 5)
    await asyncio.sleep(0.05)
    assert broker.transactions["ratchet.probe-0"].epoch == epoch
    assert [task for task in asyncio.all_tasks() if task.get_name() == "probe-0"] == []


class Failing(MemoryReader):
    """Its stop fails where the broker says so, and takes its time where not."""

    async def stop(self) -> None:
        assert isinstance(self.broker, FailingBroker)
        if self.group in self.broker.failing:
            raise self.broker.failing[self.group]
        await asyncio.sleep(0.05)
        await super().stop()
        self.broker.left.append(self.group)


class FailingBroker(MemoryBroker):
    def __init__(self, failing: dict[str | None, Exception]) -> None:
        super().__init__(1)
        self.failing = failing
        self.left: list[str | None] = []

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> MemoryReader:
        return Failing(self, {}, tuple(sorted(topics)), group, instance, listener)


async def leave(broker: MemoryBroker, *names: str) -> None:
    """Run agents of these names until all have joined, then stop."""
    runner = Runner(broker, SystemClock(), settings=FAST)
    for name in names:
        runner.add_transform(Echo(name))
    task = asyncio.create_task(runner.run())
    await until(lambda: len(broker.transactions) == len(names))
    await runner.stop()
    await asyncio.wait_for(task, 5)


async def test_a_member_that_cannot_leave_keeps_no_other_from_leaving() -> None:
    """The broker is away for the first: the second's reader is stopped all the same before the run ends, and nothing is raised."""
    broker = FailingBroker({"ratchet.first": Lost("the broker is away")})
    await leave(broker, "first", "second")
    assert broker.left == ["ratchet.second"]


async def test_what_is_no_fault_of_the_broker_is_raised_when_all_have_left() -> None:
    """A mistake of ours in the stop of one reader is not passed over in silence."""
    broker = FailingBroker({"ratchet.first": Lost("the broker is away"), "ratchet.second": ValueError("ours")})
    with pytest.raises(ValueError, match="ours"):
        await leave(broker, "first", "second", "third")
    assert broker.left == ["ratchet.third"]


class Away(MemoryAdmin):
    """Starts while the broker is there and says nothing of topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.held = False

    async def start(self) -> None:
        assert isinstance(self.broker, AwayBroker)
        self.broker.admins.append(self)
        await super().start()
        self.held = True

    async def stop(self) -> None:
        self.held = False

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        assert isinstance(self.broker, AwayBroker)
        self.broker.asked.add("topics")
        if "topics" in self.broker.silent:
            raise Lost("the broker is away")
        return await super().partitions(topics)


class AwayBroker(MemoryBroker):
    """Is away from one step of the start on, and remembers who asked."""

    def __init__(self, silent: str) -> None:
        super().__init__(1)
        self.silent = silent
        self.asked: set[str] = set()
        self.admins: list[Away] = []

    def admin(self) -> Away:
        return Away(self)

    def reachable(self) -> None:
        if self.silent == "everything":
            self.asked.add("everything")
            raise Lost("the broker is away")
        super().reachable()

    def reader(self, positions: Mapping[TP, int]) -> MemoryReader:
        if self.silent == "views":
            self.asked.add("views")
            raise Lost("the broker is away")
        return super().reader(positions)


@pytest.mark.parametrize("silent", ["everything", "topics", "views"])
async def test_it_can_be_stopped_while_it_waits_for_the_broker(silent: str) -> None:
    """Whatever the start waits for: the run returns at once, without a member, and lets its admin go."""
    broker = AwayBroker(silent)
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.view("policies")
    runner.add_transform(Echo("probe"))
    task = asyncio.create_task(runner.run())
    await until(lambda: silent in broker.asked)
    await asyncio.sleep(0.05)
    await runner.stop()
    await asyncio.wait_for(task, 0.4)
    assert not runner.ready.is_set()
    assert (broker.groups, broker.transactions) == ({}, {})
    assert [admin for admin in broker.admins if admin.held] == []
