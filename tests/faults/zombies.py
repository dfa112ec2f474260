"""Owners that are none any more, and do not know: frozen inside a transaction beyond the session; working on without membership."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.hosts import Process, heard
from tests.faults.strike import Step
from tests.faults.table import Row
from tests.faults.trial import Trial, since, trial
from tests.faults.world import World

KINDS = ("frozen", "unaware")
TOLD = {"frozen": "SIGSTOP longer than the session", "unaware": "lost membership, works on"}
TAKEN_S = 40.0


async def zombies(bootstrap: str, folder: Path, kinds: Sequence[str] = KINDS) -> list[Row]:
    """Two members; one becomes a zombie, the other takes its lanes, then the zombie comes to its senses."""
    return [row for kind in KINDS if kind in kinds for row in await _zombie(bootstrap, folder, kind)]


async def _zombie(bootstrap: str, folder: Path, kind: str) -> list[Row]:
    async with trial(f"zombie-{kind}", bootstrap, folder) as made:
        rows = made.row("m", "zombie", TOLD[kind])
        async with made.load("m", 0.1):
            await asyncio.gather(*(made.begin(world, n) for world in made.worlds for n in range(2)))
            await asyncio.gather(*(heard(host, "committed", timeout_s=60) for host in made.every))
            await asyncio.sleep(1)
            strike = _frozen if kind == "frozen" else _unaware
            await asyncio.gather(*(strike(made, *pair) for pair in zip(made.worlds, rows, strict=True)))
            await asyncio.sleep(5)
        found = await made.finish()
        for world, row in zip(made.worlds, rows, strict=True):
            row.fenced, row.dropped = made.of(world, "fenced"), made.of(world, "dropped")
            if not row.fenced:
                row.say("no lane was fenced")
        return found


async def _frozen(made: Trial, world: World, row: Row) -> None:
    zombie = made.owners[world.name, 0]
    row.inside = True
    began = time.monotonic()
    await zombie.arm(Step("acknowledged", 1, "stop"))
    await _succeeded(made, world, row, began)
    await asyncio.sleep(1)
    if await heard(zombie, "struck", after=began, timeout_s=0.1) is None:
        row.say("not frozen")
    zombie.resume()


async def _unaware(made: Trial, world: World, row: Row) -> None:
    """It polls and commits on while its successor does: a commit asks for no membership, the epoch alone keeps it out."""
    zombie: Process = made.owners[world.name, 0]
    began = time.monotonic()
    await zombie.order(mute=True)
    await _succeeded(made, world, row, began)
    await asyncio.sleep(6)
    await zombie.order(mute=False)


async def _succeeded(made: Trial, world: World, row: Row, began: float) -> None:
    """The other member has opened a lane since."""
    seen = await heard(made.owners[world.name, 1], "opened", after=began, timeout_s=TAKEN_S)
    row.faults += seen is not None
    row.recoveries += since(seen, began)
