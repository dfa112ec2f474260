"""Three workers under load: SIGKILL at random moments and at random points, join and leave, SIGSTOP beyond the session; the clock.

Random kills rarely hit an open transaction: the table of points is the proof, this is the doubt.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from schemas import ids
from streams.order import Run, decode_order
from tests.faults.hosts import heard
from tests.faults.strike import Step
from tests.faults.table import Row
from tests.faults.trial import Trial, since, trial
from tests.faults.world import World

WORKERS = 3
POINTS = ("accepted", "begun", "sent", "offsets", "acknowledged", "ended", "done")
SESSION_S = 6.0
AWAY_EACH = 10


class Dice:
    """Reproducible chance."""

    def __init__(self, seed: str) -> None:
        self._seed, self._n = seed, 0

    def below(self, bound: int) -> int:
        self._n += 1
        return ids.coin(f"{self._seed}/{self._n}", "dice") * bound // 65_536


async def kills(bootstrap: str, folder: Path, wanted: int, *, shaken: bool) -> list[Row]:
    """`wanted` SIGKILLs, half at random moments, half at random points; members are started again at once.

    Each tenth only after its session, when others have its lanes. `shaken`: none of that, but a fourth worker joins and leaves
    meanwhile, so that kills fall into rebalances.
    """
    name = "shaken" if shaken else "kills"
    what = "SIGKILL, join, leave under load" if shaken else "SIGKILL at random under load"
    async with trial(f"chaos-{name}", bootstrap, folder, partitions=6) as made:
        rows = made.row("m", "chaos", what)
        async with made.load("m", 0.1):
            await asyncio.gather(*(made.begin(world, n) for world in made.worlds for n in range(WORKERS)))
            await asyncio.gather(*(heard(host, "committed", timeout_s=60) for host in made.every))
            left = iter(range(wanted))
            killers = [
                _kill(made, world, row, ordinal, left, shaken=shaken)
                for world, row in zip(made.worlds, rows, strict=True)
                for ordinal in range(WORKERS)
            ]
            shaker = asyncio.create_task(_join_and_leave(made)) if shaken else None
            await asyncio.gather(*killers)
            if not shaken and wanted >= AWAY_EACH:
                for row in rows:
                    row.notes.append(f"each {AWAY_EACH}th stayed away for longer than its session")
            if shaker is not None:
                joins = await _ended(shaker)
                for row in rows:
                    row.notes.append(f"{joins} joins, {joins} leaves")
                    if not joins:
                        row.say("nobody joined")
        return await _finished(made, rows)


async def _finished(made: Trial, rows: list[Row]) -> list[Row]:
    found = await made.finish()
    for world, row in zip(made.worlds, rows, strict=True):
        row.fenced, row.dropped = made.of(world, "fenced"), made.of(world, "dropped")
    return found


async def _kill(made: Trial, world: World, row: Row, ordinal: int, left: Iterator[int], *, shaken: bool) -> None:
    dice = Dice(f"{world.name}/{ordinal}")
    for number in left:
        host = made.owners[world.name, ordinal]
        await asyncio.sleep(0.1 + dice.below(5000 if shaken else 1000) / 1000)
        if dice.below(2):
            await host.arm(Step(POINTS[dice.below(len(POINTS))], 1 + dice.below(6), "exit"))
            struck = await heard(host, "struck", timeout_s=5.0)
        else:
            struck = None
        killed = struck.t if struck is not None else time.monotonic()
        await host.kill()
        row.faults += 1
        stays_away = not shaken and number % AWAY_EACH == AWAY_EACH - 1
        if stays_away:
            await asyncio.sleep(SESSION_S + 1.0)
        host = await made.begin(world, ordinal)
        first = await heard(host, "committed", timeout_s=90.0)
        if not stays_away:
            row.recoveries += since(first, killed)
        if first is None and not shaken:
            row.say(f"worker {ordinal} did not commit within 90 s")


async def _join_and_leave(made: Trial) -> int:
    joins = 0
    try:
        while True:
            await asyncio.sleep(2)
            hosts = [await made.begin(world, WORKERS) for world in made.worlds]
            await asyncio.gather(*(heard(host, "opened", timeout_s=20) for host in hosts))
            await asyncio.sleep(1)
            joins += 1
            for world in made.worlds:
                await made.owners.pop((world.name, WORKERS)).stop()
            await asyncio.sleep(SESSION_S)  # a static member has left when its session ends
    except asyncio.CancelledError:
        return joins


async def _ended(task: "asyncio.Task[int]") -> int:
    task.cancel()
    return await task


async def jumps(bootstrap: str, folder: Path) -> list[Row]:
    """The worker's clock jumps 4 s forward, back, an hour back, and is right again: ticks never run backwards."""
    async with trial("clock", bootstrap, folder) as made:
        rows = made.row("m", "clock", "+4 s, back, -1 h, right again")
        async with made.load("m", 0.2):
            hosts = [await made.begin(world) for world in made.worlds]
            await asyncio.gather(*(heard(host, "committed", timeout_s=60) for host in hosts))
            for jump_s in (4, 0, -3600, 0):
                await asyncio.sleep(3)
                for host in hosts:
                    await host.order(jump_ms=jump_s * 1000)
                for row in rows:
                    row.faults += 1
            await asyncio.sleep(4)
        found = await _finished(made, rows)
        for world, row in zip(made.worlds, rows, strict=True):
            if world.shape == "fold" and not _ahead(world):
                row.say("no tick was ahead of its time: the jump did nothing")
        return found


def _ahead(world: World) -> bool:
    """Whether a tick's time lies after the broker's time of its record: the clock was ahead."""
    return any(
        isinstance(run, Run) and run.topic == "~tick" and run.first > record.timestamp_ms + 1_000
        for record in world.rows.get(f"{world.group}.order", [])
        for run in decode_order(record.value)
    )
