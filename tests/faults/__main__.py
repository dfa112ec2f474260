"""`python -m tests.faults`: break everything that can be broken, count what was lost, duplicated or wrong, and say so in a table.

Exit codes: 0 all rows good; 1 something lost, duplicated or wrong, or a fault that did nothing; 2 used wrongly; 3 no server.
"""

import argparse
import asyncio
import contextlib
import logging
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from infra.settings import load
from schemas.errors import Unavailable
from tests.faults import chaos, outages
from tests.faults.points import kafka_table, memory_table
from tests.faults.table import Row, show, verdict, write
from tools.stack.kafka import VERSION, running_kafka

KILLS = 200
SHORT_KILLS = 6


@dataclass
class Run:
    """What the scenarios share."""

    folder: Path
    cache_dir: Path
    kills: int = KILLS
    short: bool = False
    until: float = float("inf")
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    _bootstrap: str = ""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    async def kafka(self) -> str:
        """The broker that no scenario hurts; started at first use."""
        if not self._bootstrap:
            context = running_kafka(self.folder / "kafka", self.cache_dir)
            self._bootstrap = (await asyncio.to_thread(self._stack.enter_context, context)).bootstrap
        return self._bootstrap

    def close(self) -> None:
        self._stack.close()


async def _memory(run: Run) -> list[Row]:
    return await (memory_table(("acknowledged", "ended"), (1,)) if run.short else memory_table())


async def _points(run: Run) -> list[Row]:
    bootstrap = await run.kafka()
    if run.short:
        return await kafka_table(bootstrap, run.folder, ("acknowledged",), (1,), ("exit", "stop"))
    return await kafka_table(bootstrap, run.folder)


async def _kills(run: Run) -> list[Row]:
    wanted = SHORT_KILLS if run.short else run.kills - run.kills // 5
    return await chaos.kills(await run.kafka(), run.folder, wanted, shaken=False)


async def _shaken(run: Run) -> list[Row]:
    return await chaos.kills(await run.kafka(), run.folder, run.kills // 5, shaken=True)


async def _session(run: Run) -> list[Row]:
    return await chaos.session(await run.kafka(), run.folder)


async def _clock(run: Run) -> list[Row]:
    return await chaos.jumps(await run.kafka(), run.folder)


async def _broker(run: Run) -> list[Row]:
    only = ("kill",) if run.short else ("term", "kill", "away", "frozen")
    return await outages.single(run.folder, run.cache_dir, only)


async def _proxy(run: Run) -> list[Row]:
    return await outages.swallowed(
        run.folder, run.cache_dir, ("answer",) if run.short else ("answer", "request", "connection")
    )


async def _disk(run: Run) -> list[Row]:
    return await outages.full_disk(run.folder, run.cache_dir)


async def _cluster(run: Run) -> list[Row]:
    return await outages.three(run.folder, run.cache_dir)


SCENARIOS: dict[str, Callable[[Run], Awaitable[list[Row]]]] = {
    "memory": _memory,
    "points": _points,
    "session": _session,
    "clock": _clock,
    "proxy": _proxy,
    "disk": _disk,
    "broker": _broker,
    "cluster": _cluster,
    "kills": _kills,
    "shaken": _shaken,
}
SHORT = ("memory", "points", "clock", "proxy", "broker", "kills")


async def run_scenarios(names: list[str], run: Run, say: Callable[[str], None]) -> list[Row]:
    """One after the other; what time does not allow is named in `run.skipped`."""
    try:
        for name in names:
            if time.monotonic() > run.until:
                run.skipped.append(name)
                continue
            began = time.monotonic()
            run.rows += await SCENARIOS[name](run)
            say(f"{name}: {time.monotonic() - began:.0f} s")
    finally:
        await asyncio.to_thread(run.close)
    return run.rows


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=KILLS, help=f"random SIGKILLs, a fifth during rebalances ({KILLS})"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no scenario after so long")
    parser.add_argument("--only", nargs="+", choices=sorted(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there")
    parser.add_argument("--short", action="store_true", help="one row of each kind that fits into a minute or two")
    found = parser.parse_args(argv)
    if found.kills < 5:
        parser.error(f"--kills {found.kills}: at least 5")
    return found


async def _main(given: argparse.Namespace, folder: Path) -> Run:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, asyncio.current_task())
    run = Run(folder, load().resolved().cache_dir, given.kills, given.short, time.monotonic() + given.seconds)
    names = list(given.only or (SHORT if given.short else SCENARIOS))
    await run_scenarios(names, run, lambda line: print(line, file=sys.stderr, flush=True))
    return run


def _cancel(task: "asyncio.Task[Any] | None") -> None:
    if task is not None:
        task.cancel()


def main(argv: list[str] | None = None) -> int:
    given = _arguments(argv)
    logging.getLogger("streams").setLevel(logging.CRITICAL)  # it tells of each fault; the workers' logs have it
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="ratchet-faults-"))
    began = time.monotonic()
    try:
        run = asyncio.run(_main(given, folder))
    except Unavailable as error:
        print(f"no server: {error}", file=sys.stderr)
        return 3
    took_s = time.monotonic() - began
    bad = any(row.bad for row in run.rows)
    show(run.rows, Console(width=None if sys.stdout.isatty() else 170))
    cores = psutil.cpu_count() or 0
    print(f"{verdict(run.rows)}; {took_s:.0f} s on {cores} cores")
    if run.skipped:
        print(f"not begun for want of time: {', '.join(run.skipped)}")
    if given.json:
        about = {"seconds": round(took_s), "cores": cores, "python": platform.python_version(), "kafka": VERSION}
        write(run.rows, given.json, about | {"kills": given.kills, "short": given.short, "skipped": run.skipped})
    if bad:
        print(f"the workers' logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad or not run.rows else 0


if __name__ == "__main__":
    sys.exit(main())
