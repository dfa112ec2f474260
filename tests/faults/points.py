"""The table of fault points: each point, its first and fourth pass, exit, stop, raise and delay, on either broker.

A chain of steps per shape and action lives in one world: every step has keys of its own, its load comes while the fault strikes,
and the next step begins when all of it is answered. The whole world is compared with the reference at the end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.clock import SystemClock
from streams.kafka import KafkaBroker
from streams.memory import MemoryBroker
from streams.port import POINTS
from tests.faults import raw
from tests.faults.forks import forking
from tests.faults.hosts import MEMORY_DELAY_S, WORKER, Host, InProcess, Process, count, heard
from tests.faults.strike import ACTIONS, INSIDE, Seen, Step
from tests.faults.table import Row
from tests.faults.world import SHAPES, Shape, World

Start = Callable[[World], Awaitable[Host]]
PASSES = (1, 4)
CHECKED = "acknowledged"  # here a copy of each answer is in the log for certain
TICKS_S = 1.6
ROUNDS = 60  # of load until a fault must have struck


def steps(action: str, points: Iterable[str] = POINTS, passes: Iterable[int] = PASSES) -> list[Step]:
    """The steps of one chain."""
    return [Step(point, nth, action) for point in points for nth in passes]


@dataclass
class Chain:
    """Runs steps one after the other on one world."""

    world: World
    start: Start
    broker: str
    zombie_s: float = 10.0
    delay_s: float = 2.0

    async def run(self, wanted: Sequence[Step]) -> list[Row]:
        rows: list[Row] = []
        self.owner = await self.start(self.world)
        self.hosts = [self.owner]
        try:
            await heard(self.owner, "opened", timeout_s=60)
            for number, step in enumerate(wanted):
                rows.append(await self._step(f"s{number}", Step(step.point, step.nth, step.action, self.delay_s)))
            await asyncio.sleep(0.5)
            await self.owner.stop()
        finally:
            for host in self.hosts:
                host.resume()
                await host.kill()
        findings, aborted = await self.world.check(), await self.world.aborted()
        for number, row in enumerate(rows):
            row.add(*findings.of(f"s{number}."))
            row.aborted = aborted[f"s{number}"]
            row.inside = row.scenario[1] == CHECKED
        if rows:
            others = [sum(counts.values()) for counts in (findings.lost, findings.duplicated, findings.wrong)]
            known = [sum(values) for values in zip(*((r.lost, r.duplicated, r.wrong) for r in rows), strict=True)]
            rows[-1].add(*(a - b for a, b in zip(others, known, strict=True)))
            for word in findings.words[:3]:
                rows[-1].say(word)
        return rows

    async def _step(self, mark: str, step: Step) -> Row:
        world, owner = self.world, self.owner
        row = Row((step.action, step.point), self.broker, world.shape)
        fenced, dropped = self._count("fenced"), self._count("dropped")
        if step.point == CHECKED:
            await asyncio.sleep(
                TICKS_S
            )  # the last ticks of the step before: a transaction with these alone has no copy of ours
        await owner.arm(step)
        shaking: asyncio.Task[None] | None = None
        if step.point == "revoked":
            await world.publish(mark)
            shaking = asyncio.create_task(self._shake())
        told = count(owner, "fenced") + count(owner, "dropped")
        struck = await self._struck(mark, step)
        if struck is None:
            row.say(f"not struck at pass {step.nth} of {step.point}")
            await owner.kill()
            self.owner = await self._begin()
        else:
            row.faults = 1
            if step.action in ("exit", "stop"):
                if step.action == "exit":
                    await owner.gone()
                self.owner = await self._begin()
            await world.publish(mark)
            lane = None if step.action in ("exit", "stop") else struck.partition
            first = await heard(
                self.owner,
                "committed",
                after=struck.t,
                timeout_s=8.0,
                where=lambda seen: lane in (None, seen.partition),
            )
            if first is not None:
                row.recoveries.append(first.t - struck.t)
        if shaking is not None:
            await shaking
        if not await world.settled(mark):
            row.say("not settled")
        if step.action == "stop" and struck is not None:
            await self._wake(mark, step, owner, row, told)
        row.fenced, row.dropped = self._count("fenced") - fenced, self._count("dropped") - dropped
        return row

    async def _struck(self, mark: str, step: Step) -> Seen | None:
        """Load until the fault has struck."""
        for _ in range(ROUNDS):
            await self.world.publish(mark)
            struck = await heard(self.owner, "struck", timeout_s=0.05, where=lambda seen: seen.text == step.point)
            if struck is not None:
                return struck
        if step.point == "revoked":
            return await heard(self.owner, "struck", where=lambda seen: seen.text == "revoked")
        return None

    async def _wake(self, mark: str, step: Step, zombie: Host, row: Row, before: int) -> None:
        """The zombie goes on while its successor works; then it is gone. `before`: what it had dropped until it was frozen."""
        zombie.resume()
        await self.world.publish(mark)
        for _ in range(int(self.zombie_s / 0.05)):
            await asyncio.sleep(0.05)
            if count(zombie, "fenced") + count(zombie, "dropped") > before:
                break
        await self.world.publish(mark)
        if step.point in INSIDE and count(zombie, "fenced") + count(zombie, "dropped") == before:
            row.faults = 0
            row.say("the zombie was not fenced")
        await zombie.kill()
        if not await self.world.settled(mark):
            row.say("not settled after the zombie")

    async def _begin(self) -> Host:
        host = await self.start(self.world)
        self.hosts.append(host)
        return host

    def _count(self, kind: str) -> int:
        return sum(count(host, kind) for host in self.hosts)

    async def _shake(self) -> None:
        broker = self.world.broker
        if isinstance(broker, MemoryBroker):
            broker.rebalance()
        else:
            await raw.shake(self.world.bootstrap, self.world.group, self.world.inputs)


async def _in_process(world: World) -> Host:
    return InProcess(world)


async def _together(work: Iterable[Awaitable[list[Row]]], at_once: int) -> list[Row]:
    """Some at once; the rows in the order of the work."""
    gate = asyncio.Semaphore(at_once)

    async def one(rows: Awaitable[list[Row]]) -> list[Row]:
        async with gate:
            return await rows

    return [row for rows in await asyncio.gather(*map(one, work)) for row in rows]


async def _memory_row(step: Step, shape: Shape) -> list[Row]:
    broker = MemoryBroker(4, offsets=False)
    world = await World(broker, "probe", shape, broker.clock).start()
    rows = await Chain(world, _in_process, "memory", zombie_s=10.0, delay_s=MEMORY_DELAY_S).run([step])
    await world.stop()
    return rows


async def memory_table(
    points: Iterable[str] = POINTS, passes: Iterable[int] = PASSES, actions: Iterable[str] = ACTIONS
) -> list[Row]:
    """The whole table on the broker in memory, a world per step."""
    wanted = [step for action in actions for step in steps(action, points, passes)]
    return await _together((_memory_row(step, shape) for step in wanted for shape in SHAPES), 8)


async def kafka_table(
    bootstrap: str,
    folder: Path,
    points: Iterable[str] = POINTS,
    passes: Iterable[int] = PASSES,
    actions: Iterable[str] = ACTIONS,
    *,
    at_once: int = 4,
) -> list[Row]:
    """The whole table on Kafka: a world per shape and action, each agent a process that kills or freezes itself."""

    async def chain(action: str, shape: Shape) -> list[Row]:
        async def begin(world: World) -> Host:
            return await Process.begin(forks, world, folder)

        name = f"points-{action}-{shape}"
        world = await World(KafkaBroker(bootstrap), name, shape, SystemClock(), bootstrap).start()
        try:
            return await Chain(world, begin, "kafka").run(steps(action, points, passes))
        finally:
            await world.stop()

    points, passes = tuple(points), tuple(passes)
    async with forking(WORKER) as forks:
        return await _together((chain(action, shape) for action in actions for shape in SHAPES), at_once)
