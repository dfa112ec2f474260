"""One run of the demonstration of compliance: its commands, what was claimed and what held."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rich.markup import escape

from infra.clock import SystemClock
from infra.settings import process_environment
from schemas.errors import Unavailable
from tools.demo.compliance.provider import Provider
from tools.demo.run import Telling

REPOSITORY = Path(__file__).parents[3]
COMMAND_S = 120.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said in JSON, and its exit code."""

    code: int
    rows: list[dict[str, Any]]
    words: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """The last line; empty where there was none."""
        return self.rows[-1] if self.rows else {}


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the demonstration said would be so."""

    act: str
    words: str
    held: bool
    seen: str = ""


@dataclass(slots=True, kw_only=True)
class Tale(Telling):
    """`claims`: all of them, in order. `kept`: what a later act or the report needs. `tries`: how often a request was asked again."""

    provider: Provider
    nonce: str
    act: str = ""
    tries: dict[str, int] = field(default_factory=dict[str, int])
    claims: list[Claim] = field(default_factory=list[Claim])
    kept: dict[str, Any] = field(default_factory=dict[str, Any])

    def claim(self, words: str, held: bool, seen: str = "") -> bool:
        """Say whether it held, and remember it."""
        self.claims.append(Claim(self.act, words, held, seen))
        mark = "[green]✓[/]" if held else "[red]✗[/]"
        told = f": {seen}" if seen else ""
        self.console.print(f"         {mark} {words}[dim]{escape(told)}[/]", highlight=False)
        return held

    def ratchet(self, *words: str, quiet: bool = False) -> Said:
        """A command as anyone would type it; what it said. `quiet`: that it says no is expected and told elsewhere."""
        self.say(f"[bold]$ ratchet {escape(shlex.join(words))}[/]")
        around = process_environment() | {"RATCHET_STATE_DIR": str(self.stage.state)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tools.ratchet", *words, "--json"],
                capture_output=True,
                text=True,
                check=False,
                env=around,
                cwd=REPOSITORY,
                timeout=COMMAND_S,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"`ratchet {words[0]}` did not end within {COMMAND_S:.0f} s") from None
        said = Said(done.returncode, _rows(done.stdout), done.stderr[-600:])
        if said.code and not quiet:
            told = said.row.get("error") or said.row.get("reason") or said.words
            self.console.print(f"           [dim]exit {said.code}: {escape(str(told)[:300])}[/]", highlight=False)
        return said

    def until(self, met: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Look twice a second. Raises `Unavailable` that says what did not come."""
        clock = SystemClock()
        deadline = clock.monotonic() + timeout_s
        while not met():
            if clock.monotonic() > deadline:
                raise Unavailable(f"{otherwise} within {timeout_s:.0f} s; the agents' logs say why")
            time.sleep(0.5)


def _rows(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            value: object = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(cast("dict[str, Any]", value))
    return found
