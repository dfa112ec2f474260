"""A scenario on Kafka: a Transform's and a Fold's world side by side, their workers, and the rows that come of it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.clock import SystemClock
from streams.kafka import KafkaBroker
from tests.faults.forks import Forks, forking
from tests.faults.hosts import WORKER, Process, count
from tests.faults.strike import Seen
from tests.faults.table import Row
from tests.faults.world import SHAPES, Shape, World

PRODUCTION: Mapping[str, Any] = {}


@dataclass
class Trial:
    """Both worlds of a scenario. A row per mark and shape: `row` makes them, `finish` fills in what the check says."""

    worlds: list[World]
    forks: Forks
    folder: Path
    label: str
    owners: dict[tuple[str, int], Process] = field(default_factory=dict[tuple[str, int], Process])
    every: list[Process] = field(default_factory=list[Process])
    rows: dict[tuple[str, str], Row] = field(default_factory=dict[tuple[str, str], Row])

    async def begin(
        self, world: World, ordinal: int = 0, settings: Mapping[str, Any] = PRODUCTION, **words: Any
    ) -> Process:
        """Start (again) a member of the world's group. `words` are the worker's."""
        host = await Process.begin(self.forks, world, self.folder, ordinal=ordinal, settings=settings, **words)
        self.owners[world.name, ordinal] = host
        self.every.append(host)
        return host

    def row(self, mark: str, kind: str, what: str) -> list[Row]:
        """The rows of a mark, one per world."""
        return [
            self.rows.setdefault((mark, world.name), Row((kind, what), self.label, world.shape))
            for world in self.worlds
        ]

    def of(self, world: World, kind: str) -> int:
        """How often the world's workers said something."""
        return sum(count(host, kind) for host in self.every if host.log.name.startswith(f"{world.name}-"))

    async def heard_all(self, mark: str, since: float, timeout_s: float = 60.0) -> None:
        """Wait until all under the mark is answered; the time since then is the recovery."""

        async def one(world: World) -> None:
            row = self.rows[mark, world.name]
            if await world.settled(mark, timeout_s):
                row.recoveries.append(time.monotonic() - since)
            else:
                row.say("not settled")

        await asyncio.gather(*map(one, self.worlds))

    async def publish(self, mark: str, rounds: int = 1) -> None:
        await asyncio.gather(*(world.publish(mark, rounds) for world in self.worlds))

    @asynccontextmanager
    async def load(self, mark: str, pause_s: float) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for world in self.worlds:
                await stack.enter_async_context(world.load(mark, pause_s))
            yield

    async def finish(self, *, settle_s: float = 120.0) -> list[Row]:
        """Wait for every answer, stop all workers gracefully, compare with the reference."""
        for (mark, name), row in self.rows.items():
            world = next(world for world in self.worlds if world.name == name)
            if not await world.settled(mark, settle_s):
                row.say(f"{world.published[mark] - world.answered[mark]} of {world.published[mark]} not answered")
        await asyncio.sleep(1.5)  # the last ticks
        await asyncio.gather(*(host.stop() for host in self.owners.values()))
        for world in self.worlds:
            findings, aborted = await world.check(), await world.aborted()
            rows = [(mark, row) for (mark, name), row in self.rows.items() if name == world.name]
            for mark, row in rows:
                row.add(*findings.of(f"{mark}."))
                row.aborted, row.events = aborted[mark], world.published[mark]
            last = rows[-1][1]
            others = sum(map(sum, (c.values() for c in (findings.lost, findings.duplicated, findings.wrong))))
            if others != sum(row.lost + row.duplicated + row.wrong for _, row in rows):
                last.wrong += 1  # under no key of ours: ticks, positions
            for word in findings.words[:3]:
                last.say(word)
        return list(self.rows.values())


@asynccontextmanager
async def trial(
    name: str,
    bootstrap: str,
    folder: Path,
    *,
    label: str = "kafka",
    partitions: int = 4,
    replication: int = 1,
    shapes: Sequence[Shape] = SHAPES,
) -> AsyncGenerator[Trial]:
    """Worlds that are there and empty; whatever was started is gone afterwards."""
    worlds = [
        World(KafkaBroker(bootstrap), f"{name}-{shape}", shape, SystemClock(), bootstrap, partitions, replication)
        for shape in shapes
    ]
    async with forking(WORKER) as forks:
        made = Trial([await world.start() for world in worlds], forks, folder, label)
        try:
            yield made
        finally:
            for host in made.every:
                host.resume()
                await host.kill()
            for world in worlds:
                await world.stop()


def since(seen: Seen | None, began: float) -> list[float]:
    """The time until something was heard, if it was."""
    return [] if seen is None else [seen.t - began]
