"""One run of the demonstration: what is shown, where it stands, and what it says while it goes."""

import asyncio
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from infra.clock import SystemClock
from schemas.errors import Refused, Unavailable
from tools.demo.champion import Scale
from tools.demo.ledger import ROLLING, Contest, Ledger
from tools.demo.stage import Stage

Ending = Literal["rejected", "promoted", "degraded", "rolled back"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run is there to show, beside the loop itself. `rollback` shows a rejection, a promotion and the way back."""

    useless: bool = False
    chaos: bool = False
    rollback: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to the serving arm, and when the engines had it."""

    at_ms: int
    arm: str
    words: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment for the picture; one with an ending is what the run is about."""

    at_ms: int
    words: str
    ending: Ending | None = None


@dataclass(slots=True, kw_only=True)
class Telling:
    """Where a run is shown, and what it has said so far."""

    stage: Stage
    console: Console
    marks: list[Mark] = field(default_factory=list[Mark])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    peak_rss: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return self.stage.state / "demo"

    def say(self, words: str) -> None:
        """One line with the time since the start."""
        self.console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/]  {words}", highlight=False)

    @contextmanager
    def phase(self, name: str, words: str) -> Generator[None, None, None]:
        """Announce and time a phase."""
        self.console.print(f"\n[bold]{words}[/]", highlight=False)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)

    def mark(self, words: str, ending: Ending | None = None) -> None:
        """Remember a moment for the picture."""
        self.marks.append(Mark(SystemClock().now_ms(), words, ending))


@dataclass(slots=True, kw_only=True)
class Run(Telling):
    """One run of the demonstration and what it found."""

    scale: Scale
    shown: Shown
    ledger: Ledger = field(default_factory=Ledger)
    kills: list[str] = field(default_factory=list[str])
    route: dict[str, Any] = field(default_factory=dict[str, Any])
    damage: Damage | None = None


@contextmanager
def interruptible() -> Generator[None]:
    """SIGTERM and SIGINT both as Ctrl-C, also where a shell's background job had SIGINT ignored: an event loop then ends its tasks one by
    one, and what was started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # the event loop's own while one runs
        if callable(handler):
            handler(number, frame)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def played(play: Callable[[], dict[str, Any]], console: Console) -> dict[str, Any] | int:
    """A demonstration's report; where it was interrupted or could not be played, that is said, and the command's exit code."""
    try:
        with interruptible():
            return play()
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 130
    except Refused as fault:
        console.print(f"[red]{fault}[/]", highlight=False)
        return 2
    except Unavailable as fault:
        console.print(f"[red]{fault}[/]", highlight=False)
        return 3


async def until(met: Callable[[], bool], timeout_s: float, alive: Callable[[], None], otherwise: str) -> None:
    """Wait for `met()`; `Unavailable` says what did not come."""
    try:
        async with asyncio.timeout(timeout_s):
            while not met():
                alive()
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unavailable(f"{otherwise} within {timeout_s:.0f} s; the agents' logs say why") from None


async def tell(run: Run, stop: asyncio.Event) -> None:
    """A line every few seconds: what the screen shows while the loop lives."""
    ledger = run.ledger
    while not stop.is_set():
        await asyncio.sleep(4 if ledger.asked else 15)
        answered = sum(1 for row in ledger.asked.values() if row.answers)
        points = ledger.rolling()
        if not ledger.asked:
            run.say("the engine loads the champion (a minute or so on a small CPU)")
            continue
        words = [f"{len(ledger.asked)} asked, {answered} answered"]
        if points:
            words.append(f"right of the last {ROLLING}: [bold]{points[-1][1]:.0%}[/]")
        if len(ledger.ordered) > len(ledger.trained) and ledger.progress is not None:
            at = ledger.progress
            words.append(f"training {at.phase} {at.step}/{at.steps}" + (f" loss {at.loss:.2f}" if at.loss else ""))
        if ledger.contest is not None and not ledger.contest.decided:
            words += _judged(ledger.contest)
        if ledger.rolled_back is None and ledger.holdback:
            look = ledger.holdback[-1]
            words.append(f"holdback: {look.pairs} pairs, log E of harm {look.worse:.1f} of {look.worse_needed:.1f}")
        run.peak_rss = max(run.peak_rss, await asyncio.to_thread(run.stage.resident_bytes))
        run.say("; ".join(words))


def _judged(contest: Contest) -> list[str]:
    if not contest.looks:
        return [f"[dim]{contest.challenger}: pairs wait for their verdicts' window[/]"]
    look = contest.looks[-1]
    words = [f"{look.pairs} pairs, log E [bold]{look.log_e:.1f}[/] of {look.needed:.1f}"]
    waiting = [name for name, met in look.conditions.items() if not met]
    if contest.stages:
        words.append(f"serves [bold]{contest.stages[-1].rollout_bp / 10_000:.0%}[/]")
    elif waiting:
        words.append(f"[dim]waiting for: {', '.join(waiting)}[/]")
    return words
