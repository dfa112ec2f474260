"""A Fold's worker is stopped, killed or frozen while its lanes restore their state; the next one must find all of it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.faults.hosts import Process, heard
from tests.faults.table import Row
from tests.faults.trial import Trial, since, trial
from tests.faults.world import World

KINDS = ("stop", "kill", "freeze")
TOLD = {"stop": "stopped", "kill": "SIGKILL", "freeze": "SIGSTOP, successor, SIGCONT"}
ROUNDS = 60  # of load before, so that there is something to restore
RECORDS = 20  # a poll of the changelog brings so few that the fault falls in the middle
TIMES = 3
STOP_S = 3.0


async def interrupted(bootstrap: str, folder: Path, kinds: Sequence[str] = KINDS) -> list[Row]:
    """Each kind, three times in turn."""
    wanted = [kind for kind in KINDS if kind in kinds]
    async with trial("restore", bootstrap, folder, shapes=("fold",)) as made:
        (world,) = made.worlds
        first = await made.begin(world)
        await made.publish(wanted[0], ROUNDS)
        await world.settled(wanted[0])
        await first.stop()
        for kind in wanted:
            (row,) = made.row(kind, "restoring", TOLD[kind])
            async with made.load(kind, 0.1):
                for _ in range(TIMES):
                    await _interrupt(made, world, row, kind)
        await made.begin(world)
        return await made.finish()


async def _interrupt(made: Trial, world: World, row: Row, kind: str) -> None:
    host = await made.begin(world, restoring=kind, records=RECORDS)
    struck = await heard(host, "struck", timeout_s=20)
    if struck is None:
        row.say("not struck while restoring")
        await host.kill()
        return
    row.faults += 1
    if kind == "stop":
        await _ended(host, row)
    elif kind == "kill":
        await host.gone()
    successor = await made.begin(world, records=RECORDS)
    first = await heard(successor, "committed", timeout_s=30)
    row.recoveries += since(first, struck.t)
    if first is None:
        row.say("the successor did not commit within 30 s")
    if kind == "freeze":
        host.resume()
        await asyncio.sleep(1)
        await host.kill()
    await successor.stop()


async def _ended(host: Process, row: Row) -> None:
    try:
        async with asyncio.timeout(STOP_S + 2.0):  # Python's own end included
            await host.gone()
    except TimeoutError:
        row.say(f"it did not stop within {STOP_S} s")
        await host.kill()
    if host.fork.returncode:
        row.say(f"it ended with {host.fork.returncode}; see {host.log}")
