"""The demonstration of the router: two arms of different size and price, learnt, priced, broken and judged in front of you."""

import asyncio
import json
import sys
from collections import deque
from typing import Any

from rich.console import Console

from agents.router.basis_build import build
from infra.settings import Settings, load
from tools.demo.champion import train
from tools.demo.report import began_ms
from tools.demo.routing.live import WINDOW, Tour, live
from tools.demo.routing.picture import Drawn, draw
from tools.demo.routing.report import passed, report_of, show
from tools.demo.routing.route import LARGE, ROUTE, SMALL, routed
from tools.demo.routing.server import Server
from tools.demo.routing.story import Story, texts
from tools.demo.run import played
from tools.demo.stage import Stage
from tools.width import console as open_console

BASIS_SEED = 1


def play(*, settings: Settings, story: Story, console: Console, keep: bool = False) -> dict[str, Any]:
    """One run: up, two models, a basis, the acts, evidence, report, down. Returns what `routing.json` holds.

    Whatever goes wrong, Ctrl-C included, the stack is stopped again, the provider with it (unless `keep` and the run was whole).
    """
    stage = Stage(settings, lambda words: console.print(f"[dim]         {words}[/]", highlight=False))
    tour = Tour(stage=stage, story=story, console=console)
    server: Server | None = None
    whole = False
    try:
        with tour.phase("up", "The stack starts: Kafka, Redis, Ray, agents"):
            stage.up()
        told = texts(story)
        with tour.phase(
            "models", "Two small Llamas, trained on part of Banking77: one knows half of the intents, one all"
        ):
            large, _ = train(told.large, story.large, story.threads, tour.folder / "cache", stage.artifacts, tour.say)
            log = stage.state / "logs" / "provider.log"
            server = Server(stage.artifacts.open_tree(large), LARGE, log, stage.record.tag)
            server.start()  # it needs a while, in which the small one is trained and loaded
            small, _ = train(told.small, story.small, story.threads, tour.folder / "cache", stage.artifacts, tour.say)
            basis = stage.artifacts.put_bytes(build([row.text for row in told.large], BASIS_SEED).to_bytes())
            tour.say(f"and the basis of the features, from {len(told.large)} texts without labels")
        evidence = asyncio.run(live(tour, server, routed(story, small, server.url, basis), deque(told.asked)))
        report = report_of(tour, evidence)
        (tour.folder / "routing.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        picture(tour, report)
        whole = True
        return report
    finally:
        if keep and whole:
            console.print(f"\nThe stack is left running with the route [bold]{ROUTE}[/]; `ratchet down` stops it")
        else:
            console.print("\n[dim]stopping the stack[/]")
            if server is not None:
                server.kill()
            stage.down()


def picture(tour: Tour, report: dict[str, Any]) -> None:
    """`routing.png`."""
    ledger, story, times = tour.ledger, tour.story, tour.times
    told = report["chosen"]
    title = (
        f"right {told['right']:.1%} at {told['cost'] / 1000:.2f} micro-dollars; small alone {report['alone'][SMALL]:.1%}, "
        f"as many large ones at random {told['at_random']:.1%}"
    )
    down = [(times["breaker open"], times["breaker closed"])] if "breaker closed" in times else []
    draw(
        ledger.rows(),
        began_ms(ledger),
        Drawn(SMALL, LARGE, story.budget, story.period_s, WINDOW, tour.marks, down, title),
        tour.folder / "routing.png",
    )


def main(*, keep: bool, as_json: bool) -> int:
    """The command. Exit 0 when the run showed what it should, 1 when not, 2 used wrongly, 3 when something is away."""
    console = open_console(stderr=as_json)
    settings = load()
    report = played(lambda: play(settings=settings, story=Story(), console=console, keep=keep), console)
    if isinstance(report, int):
        return report
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        show(report, console, str(settings.state_dir / "demo"))
    return 0 if passed(report) else 1


__all__ = ["main", "passed", "play", "show"]
