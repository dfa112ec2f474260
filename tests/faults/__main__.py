"""`python -m tests.faults`: break everything that can be broken, count what was lost, duplicated or wrong, and say so in a table.

Exit codes: 0 all rows good; 1 something lost, duplicated or wrong, or a fault that did nothing, or an error that ended the run;
2 used wrongly; 3 no server, or no disk to fill; 130 stopped by a signal. However it ends, its processes are gone, and the rows that
it has are told; its folder stays only where a row is bad or an error ended the run.
"""

import argparse
import asyncio
import json
import logging
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from infra.settings import load
from schemas.errors import Unavailable
from tests.faults.scenarios import KILLS, SCENARIOS, Run, chosen, run_scenarios
from tests.faults.table import bad, dump, markdown, parse, show, verdict
from tools.stack.kafka import VERSION

TO_STDOUT = Path("-")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    kills = f"random SIGKILLs: a fifth of them is for shaken where that runs, the rest for kills ({KILLS})"
    only = "scenarios or parts of them: kills, points/exit (see --list)"
    told = "every row, to a file or instead of the table"
    parser.add_argument("--kills", type=int, default=KILLS, metavar="N", help=kills)
    parser.add_argument("--only", nargs="+", metavar="ROW", help=only)
    parser.add_argument("--list", action="store_true", help="the scenarios and their parts; runs nothing")
    parser.add_argument("--short", action="store_true", help="what fits into a minute")
    parser.add_argument("--json", nargs="?", type=Path, const=TO_STDOUT, metavar="FILE", help=told)
    parser.add_argument("--table", type=Path, metavar="FILE", help="what --json wrote, as Markdown; runs nothing")
    given = parser.parse_args(argv)
    if given.kills < 5:
        parser.error(f"--kills {given.kills}: accepted are 5 and more")
    if given.json and given.json != TO_STDOUT and (given.json.is_dir() or not given.json.parent.is_dir()):
        parser.error(f"--json {given.json}: accepted is a file in a folder that there is")
    try:
        given.rows = chosen(given.only, short=given.short)
    except ValueError as error:
        parser.error(str(error))
    return given


def _list() -> None:
    for name, scenario in SCENARIOS.items():
        parts = f"  ({', '.join(scenario.parts)})" if scenario.parts else ""
        print(f"{name:8} {scenario.about}{parts}")


def _markdown(path: Path) -> int:
    """The table of a run that was written as JSON."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = parse(told["rows"])
        about = (
            f"`--kills {int(told['kills'])}`, {int(told['seconds'])} s on {int(told['cores'])} cores, "
            f"Kafka {told['kafka']}, Python {told['python']}"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"--table {path}: {error!r}; accepted is a file that --json wrote", file=sys.stderr)
        return 2
    print(f"{markdown(rows)}\n\n{verdict(rows)}; {about}")
    return 0


async def _main(given: argparse.Namespace, run: Run) -> None:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("not in a task")
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await run_scenarios(given.rows, run, lambda line: print(line, file=sys.stderr, flush=True))


def _report(given: argparse.Namespace, run: Run, took_s: float) -> None:
    cores = psutil.cpu_count() or 0
    about = {"seconds": round(took_s), "cores": cores, "python": platform.python_version(), "kafka": VERSION}
    told = json.dumps(about | {"kills": given.kills, "short": given.short, "rows": dump(run.rows)}, indent=1)
    if given.json == TO_STDOUT:
        print(told)
        return
    if given.json:
        given.json.write_text(told + "\n", encoding="utf-8")
    show(run.rows, Console(width=None if sys.stdout.isatty() else 170))
    print(f"{verdict(run.rows)}; {took_s:.0f} s on {cores} cores")


def main(argv: list[str] | None = None) -> int:
    given = _arguments(argv)
    if given.list:
        _list()
        return 0
    if given.table:
        return _markdown(given.table)
    logging.getLogger("streams").setLevel(logging.CRITICAL)  # it tells of each fault; the workers' logs have it
    client = logging.getLogger("aiokafka")
    client.addHandler(logging.NullHandler())
    client.propagate = False
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="ratchet-faults-"))
    run = Run(folder, load().resolved().cache_dir, given.kills, short=given.short)
    keep = True  # an error that nobody expected names logs in the folder
    try:
        asyncio.run(_main(given, run))
        keep = bad(run.rows)
    except Unavailable as error:
        keep = False
        print(f"cannot run here: {error}", file=sys.stderr)
        return 3
    except asyncio.CancelledError:
        keep = False
        print("stopped", file=sys.stderr)
        return 130
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        if run.rows:
            _report(given, run, time.monotonic() - began)
        if keep:
            print(f"the workers' logs are in {folder}", file=sys.stderr)
    return int(keep)


if __name__ == "__main__":
    sys.exit(main())
