"""The demonstration: the whole loop, live, on real Kafka, Redis, Ray and vLLM, with real customer messages."""

import asyncio
import json
import sys
from typing import Any

from rich.console import Console

from infra.settings import Settings, load
from schemas.errors import Refused
from tools.demo.champion import Scale, train_champion
from tools.demo.live import live
from tools.demo.picture import draw
from tools.demo.report import began_ms, passed, report_of, show
from tools.demo.route import ROUTE
from tools.demo.run import Run, Shown, played
from tools.demo.stage import Stage
from tools.width import console as open_console


def play(*, shown: Shown, settings: Settings, scale: Scale, console: Console, keep: bool = False) -> dict[str, Any]:
    """One run: up, champion, loop, evidence, report, down. Returns what `report.json` holds.

    Whatever goes wrong, Ctrl-C included, the stack is stopped again (unless `keep` and the run was whole).
    """
    stage = Stage(settings, lambda words: console.print(f"[dim]         {words}[/]", highlight=False))
    run = Run(stage=stage, scale=scale, shown=shown, console=console)
    whole = False
    try:
        with run.phase("up", "The stack starts: Kafka, Redis, Ray, agents"):
            stage.up()
        with run.phase("champion", "The champion: a small Llama, trained on part of Banking77"):
            base, cached = train_champion(scale, run.folder / "cache", stage.artifacts, run.say)
            run.say("kept from an earlier run" if cached else "trained, and kept for the next run")
        evidence = asyncio.run(live(run, base))
        report = report_of(run, evidence)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draw(run.ledger, began_ms(run.ledger), run.marks, run.folder / "report.png", _title(report))
        whole = True
        return report
    finally:
        if keep and whole:
            console.print(f"\nThe stack is left running with the route [bold]{ROUTE}[/]: try")
            console.print('  ratchet submit "my card was swallowed" --route banking.intent', highlight=False)
            console.print("  ratchet tail      ratchet trace REQUEST      ratchet down", highlight=False)
        else:
            console.print("\n[dim]stopping the stack[/]")
            stage.down()


def _title(report: dict[str, Any]) -> str:
    back = report["rollback"]
    if back is None or back["reason"] is None:
        return str(report["why"])
    return f"{report['why']}; damaged by hand; rolled back after {back['answers_between']} answers"


def main(*, shown: Shown, keep: bool, as_json: bool) -> int:
    """The command. Exit 0 when the run showed what it should, 1 when not, 2 used wrongly, 3 when something is away."""
    if shown.rollback and (shown.useless or shown.chaos):
        raise Refused("--rollback goes alone: it shows a useless adapter too, and no other damage", kind="usage")
    console = open_console(stderr=as_json)
    settings = load()
    report = played(lambda: play(shown=shown, settings=settings, scale=Scale(), console=console, keep=keep), console)
    if isinstance(report, int):
        return report
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        show(report, console, settings.state_dir / "demo")
    return 0 if passed(report) else 1


__all__ = ["Shown", "main", "passed", "play", "show"]
