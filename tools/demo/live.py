"""The loop, lived: from the applied route to the exported evidence. Nothing is bypassed.

The route is applied by a command, requests and verdicts are published like anyone's; trainer, judge and evidence log do what
they always do. The route's margins and times are small, and shown.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from infra import banking77
from infra.clock import SystemClock
from schemas.errors import Refused, Unavailable
from schemas.events import CommandApply
from schemas.ids import derive
from schemas.routes import Arm, JudgeSettings, Route, TrainingSettings
from tools.demo.champion import Scale
from tools.demo.ledger import Ledger
from tools.demo.play import Customer, Street
from tools.demo.stage import Stage
from tools.demo.wire import KafkaWire

ROUTE = "banking.intent"
MAX_PAIRS = 1500
ANSWER_PATIENCE_S = 240
JUDGES_SHARE = 400  # messages kept for the judge, however long the training takes


def demo_route(base: str, scale: Scale, *, useless: bool) -> Route:
    """The route of the demonstration: small margins of time, the judge's usual α, a latency SLO for a small CPU."""
    arm = Arm(
        arm="base",
        base=base,
        max_tokens=banking77.MAX_TOKENS,
        stop=banking77.STOP,
        template=banking77.TEMPLATE,
    )
    return Route(
        route=ROUTE,
        release="immediate",
        grader="reference",
        arms=(arm,),
        champion="base",
        window_s=240,
        deadline_s=200,
        review_share=0,
        shadow_share=1,
        judge=JudgeSettings(
            min_pairs=100,
            max_pairs=MAX_PAIRS,
            min_time_s=scale.min_time_s,
            cooldown_s=30,
            latency_slo_ms=6000,
            latency_margin=0.05,
            latency_harm=0.10,
            error_margin=scale.error_margin,
            error_harm=2 * scale.error_margin,
        ),
        training=TrainingSettings(
            min_rows=scale.rows,
            min_new_rows=scale.rows,
            min_rows_per_class=5,
            min_interval_s=86_400,
            epochs=scale.lora_epochs,
            learning_rate=scale.lora_rate,
            time_limit_s=900,
            holdout="report" if useless else scale.holdout,
            shuffle_labels=useless,
        ),
    )


@dataclass(slots=True)
class Run:
    """One run of the demonstration and what it found."""

    stage: Stage
    scale: Scale
    useless: bool
    chaos: bool
    console: Console
    ledger: Ledger = field(default_factory=Ledger)
    marks: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    kills: list[str] = field(default_factory=list[str])
    route: dict[str, Any] = field(default_factory=dict[str, Any])
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

    def mark(self, words: str) -> None:
        """Remember a moment for the picture."""
        self.marks.append((SystemClock().now_ms(), words))


async def _tell(run: Run, stop: asyncio.Event) -> None:
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
            words.append(f"right of the last 150: [bold]{points[-1][1]:.0%}[/]")
        if ledger.ordered is not None and ledger.trained is None and ledger.progress is not None:
            at = ledger.progress
            words.append(f"training {at.phase} {at.step}/{at.steps}" + (f" loss {at.loss:.2f}" if at.loss else ""))
        if ledger.looks:
            look = ledger.looks[-1]
            words.append(f"{look.pairs} pairs, log E [bold]{look.log_e:.1f}[/] of {look.needed:.1f}")
            waiting = [name for name, met in look.conditions.items() if not met]
            if waiting and ledger.promoted is None and ledger.rejected is None:
                words.append(f"[dim]waiting for {', '.join(waiting)}[/]")
        run.peak_rss = max(run.peak_rss, await asyncio.to_thread(run.stage.resident_bytes))
        run.say("; ".join(words))


def _customers(split: banking77.Split, part: str) -> list[Customer]:
    rows = split.feedback if part == "feedback" else split.test
    return [Customer(m.text, m.intent, m.intent in split.known, part == "test") for m in rows]


async def _chaos(run: Run, quiet: asyncio.Event) -> None:
    """SIGKILL every agent process once, and one Ray engine actor, a few seconds apart, while requests flow."""
    victims = run.stage.agent_pids()
    for name, pid in victims.items():
        await asyncio.sleep(6)
        os.kill(pid, signal.SIGKILL)
        run.kills.append(name)
        run.say(f"[red]SIGKILL[/] {name} (pid {pid})")
    await asyncio.sleep(6)
    pids = await asyncio.to_thread(run.stage.engine_pids)
    if not pids:
        raise Unavailable("no Ray engine actor was found to kill")
    os.kill(pids[0], signal.SIGKILL)
    run.kills.append("ray engine actor")
    run.say(f"[red]SIGKILL[/] Ray engine actor (pid {pids[0]})")
    quiet.set()


async def live(run: Run, base: str) -> dict[str, Any]:
    """The loop itself, from the route to the exported evidence."""
    voices = await run.stage.voices()
    wire = KafkaWire(run.stage.bootstrap, run.stage.partitions, voices)
    await wire.start()
    ledger, split = run.ledger, run.scale.split()
    street = Street(
        wire,
        ledger,
        route=ROUTE,
        run=f"demo-{wire.now_ms()}",
        staff=voices["verdicts"].name,
        concurrency=24,
        pace_s=0.0,
    )
    await street.open()
    stop = asyncio.Event()
    teller = asyncio.create_task(_tell(run, stop))
    chaos: asyncio.Task[None] | None = None

    def alive() -> None:
        fault = street.failure()
        if fault is not None:
            raise fault
        if chaos is not None and chaos.done() and chaos.exception() is not None:
            raise RuntimeError("chaos failed") from chaos.exception()
        if ledger.failed is not None:
            raise Refused(f"the training failed: {ledger.failed.reason}", kind="training")

    def decided() -> bool:
        return ledger.promoted is not None or ledger.rejected is not None

    try:
        with run.phase("apply", "The route is applied; the champion is loaded and proven live"):
            route = demo_route(base, run.scale, useless=run.useless)
            run.route = route.model_dump(mode="json")
            numbers = route.judge
            run.say(
                f"judge: α {numbers.alpha}, at least {numbers.min_pairs} pairs and {numbers.min_time_s} s, "
                f"latency SLO {numbers.latency_slo_ms} ms (margin {numbers.latency_margin}), window {route.window_s:.0f} s"
            )
            await _apply(wire, route, voices["commands"].name)
            await _until(lambda: "base" in ledger.live, 300, alive, "the champion is not live")
        feedback = _customers(split, "feedback")
        known = [row for row in feedback if row.known][::2][: run.scale.known_requests]  # thinned: the rest stays mixed
        taken = set(known)
        rest = [row for row in feedback if row not in taken]
        held_out = _customers(split, "test")
        after, before = held_out[: run.scale.after_requests], held_out[run.scale.after_requests :]

        with run.phase("known", "Phase 1: customers ask about what the champion knows"):
            run.mark("known intents")
            quiet = asyncio.Event()
            if run.chaos:
                chaos = asyncio.create_task(_chaos(run, quiet))
            await street.ask(known, "known", until=lambda: False, alive=alive)
        with run.phase("new", "Phase 2: all intents arrive; the champion never learnt some of them"):
            run.mark("all intents arrive")
            asked = await street.ask(rest, "new", until=lambda: ledger.ordered is not None, alive=alive)
            await _until(lambda: ledger.ordered is not None, ANSWER_PATIENCE_S, alive, "no training was ordered")
            ordered = ledger.ordered
            run.mark("training ordered")
            run.say(f"[green]training ordered[/]: {ordered.rows if ordered else 0} rows; the bank goes on meanwhile")
            unseen = rest[asked:]
            street.pace_s = run.scale.pace_while_training_s
            meanwhile = unseen[: len(unseen) - min(len(unseen) // 2, JUDGES_SHARE)]
            asked = await street.ask(meanwhile, "new", until=lambda: ledger.opened is not None, alive=alive)
            street.pace_s = 0.0
            await _until(lambda: ledger.opened is not None, 900, alive, "no challenger came out of the training")
            run.say(f"[green]challenger[/] {ledger.opened.challenger if ledger.opened else ''} runs in shadow")
        with run.phase(
            "judging",
            "The challenger answers in shadow, on messages held out from training (other mix); the judge watches",
        ):
            run.mark("challenger in shadow; messages held out")
            await street.ask([*before, *unseen[asked:]], "new", until=decided, alive=alive)
            if chaos is not None:
                await chaos
            await street.settle(30, alive)
            if not run.useless:
                await _until(decided, 60, alive, "the judge did not decide with all the messages there are")
        if ledger.promoted is not None:
            run.mark("promoted")
            run.say(f"[bold green]promoted[/] after {ledger.promoted.pairs} pairs, log E {ledger.promoted.log_e:.1f}")
        elif ledger.rejected is not None:
            run.mark("rejected")
            run.say(f"[bold]rejected[/]: {ledger.rejected.reason}")
        with run.phase("after", "Phase 3: the same stream again"):
            await street.ask(after, "after", until=lambda: False, alive=alive)
            await street.settle(ANSWER_PATIENCE_S, alive)
        with run.phase("evidence", "The evidence is exported and checked offline"):
            evidence = await run.stage.evidence(run.folder / "evidence")
    finally:
        stop.set()
        teller.cancel()
        if chaos is not None:
            chaos.cancel()
        await street.close()
        await wire.stop()
    return evidence


async def _apply(wire: KafkaWire, route: Route, operator: str) -> None:
    at = wire.now_ms()
    command = CommandApply(route=route.route, at_ms=at, operator=operator, reason="demonstration", settings=route)
    await wire.send([(command, derive(f"demo/{at}", "demo", "apply"))])


async def _until(met: Callable[[], bool], timeout_s: float, alive: Callable[[], None], otherwise: str) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not met():
                alive()
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unavailable(f"{otherwise} within {timeout_s:.0f} s; the agents' logs say why") from None
