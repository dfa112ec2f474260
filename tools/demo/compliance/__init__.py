"""The demonstration of compliance: a clinic's gate, an incident, an erasure, and the evidence of all three, on real parts."""

import json
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from tools.demo.champion import train
from tools.demo.compliance import broken, forgotten, gated, proven
from tools.demo.compliance.provider import Provider
from tools.demo.compliance.report import passed, report_of, show
from tools.demo.compliance.story import ROUTE
from tools.demo.compliance.telling import Tale
from tools.demo.routing.story import Story, texts
from tools.demo.run import played
from tools.demo.stage import Stage
from tools.width import console as open_console

Act = Callable[[Tale], None]
ACTS: tuple[tuple[str, str, Act], ...] = (
    ("gate", "What patients and others ask, and what becomes of it", gated.asking),
    ("search", "A word of every denied text is looked for in all topics, files and metrics", gated.searching),
    ("observed", "What must not be possible is tried, and a restore is drilled", broken.observing),
    ("violation", "A record is deleted before the evidence log has read it", broken.violating),
    ("incident", "The incident that follows, with its clock", broken.handling),
    ("erasure", "A patient asks to be forgotten", forgotten.forgetting),
    ("explanation", "Why, from the log alone", forgotten.explaining),
    ("controls", "The controls, as the log shows them", proven.controls),
    ("evidence", "The evidence is exported and checked offline", proven.proving),
)
SCRIPTED = "0" * 64  # the scripted engine loads no model
LOUDLY = (
    "[bold red on white] THE CLINIC'S OWN MODEL IS SCRIPTED (RATCHET_ENGINE=scripted): its answers come from a hash. "
    "Everything else is real. [/]"
)


def play(*, settings: Settings, console: Console, keep: bool = False) -> dict[str, Any]:
    """One run: up, the acts, the report, down. Returns what `compliance.json` holds.

    An act that cannot be played is a claim that did not hold, and the next one is played. Whatever goes wrong, Ctrl-C included, the
    stack is stopped again, the provider with it (unless `keep` and the run was whole).
    """
    began = time.monotonic()
    stage = Stage(settings, lambda words: console.print(f"[dim]         {words}[/]", highlight=False))
    provider = Provider()
    tale = Tale(stage=stage, console=console, provider=provider, nonce=f"c{secrets.token_hex(4)}")
    whole = False
    if settings.engine == "scripted":
        console.print(LOUDLY, highlight=False)
    try:
        provider.start()
        with tale.phase("up", "The stack starts: Kafka over TLS with rights, Redis, Vault, Ray, agents"):
            stage.up(vault=True, secure=True)
        tale.folder.mkdir(parents=True, exist_ok=True)
        with tale.phase("tenant", "A clinic: data stays in the EU, HIPAA holds; three models, one of them its own"):
            tale.act = "tenant"
            gated.opening(tale, _base(tale))
        for name, words, act in ACTS:
            with tale.phase(name, words):
                tale.act = name
                _played(tale, act)
        report = report_of(tale, time.monotonic() - began)
        (tale.folder / "compliance.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        whole = True
        return report
    finally:
        if keep and whole:
            console.print(
                f"\nThe stack is left running with the route [bold]{ROUTE}[/]; `ratchet down` stops it", highlight=False
            )
        else:
            console.print("\n[dim]stopping the stack[/]")
            stage.down()
        provider.stop()


def _played(tale: Tale, act: Act) -> None:
    try:
        act(tale)
    except (Refused, Unavailable) as fault:
        tale.claim("the act can be played", held=False, seen=str(fault))


def _base(tale: Tale) -> str:
    """The clinic's own model: small, trained on bank messages. Who sees which text matters here, not what it says."""
    if tale.stage.settings.engine == "scripted":
        return f"sha256:{SCRIPTED}"
    story = Story()
    told = texts(story)
    base, cached = train(told.small, story.small, story.threads, tale.folder / "cache", tale.stage.artifacts, tale.say)
    tale.say(
        "the clinic's own model: " + ("kept from an earlier run" if cached else "trained, and kept for the next run")
    )
    return base


def main(*, keep: bool, as_json: bool) -> int:
    """The command. Exit 0 when all happened as it was said, 1 when not, 2 used wrongly, 3 when something is away."""
    console = open_console(stderr=as_json)
    settings = load()
    report = played(lambda: play(settings=settings, console=console, keep=keep), console)
    if isinstance(report, int):
        return report
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        show(report, console, settings.resolved().state_dir / "demo")
    return 0 if passed(report) else 1


__all__ = ["main", "passed", "play", "show"]
