"""The loop, lived: from the applied route to the exported evidence. Nothing is bypassed but where the damage is the point.

The route is applied by a command, requests and verdicts are published like anyone's; trainer, judge and evidence log do what
they always do. The route's margins and times are small, and shown.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

from infra import banking77
from schemas.compliance import CommandTenant
from schemas.errors import Refused, Unavailable
from schemas.events import CommandApply, CommandTrain, CommandTrust
from schemas.ids import derive
from schemas.routes import Route
from tools.demo.decline import TEMPERATURE, degrade
from tools.demo.ledger import Contest, Phase
from tools.demo.play import Customer, Street
from tools.demo.route import CHAMPION, PERMITTED, ROUTE, Labels, demo_route
from tools.demo.run import Damage, Run, tell, until
from tools.demo.wire import KafkaWire

CONCURRENCY = 24
ANSWER_PATIENCE_S = 240
LIVE_PATIENCE_S = 300
TRAINING_PATIENCE_S = 900
ROLLBACK_PATIENCE_S = 120
ROWS_PER_REQUEST = 0.91  # of the messages asked, those that differ and have enough of their intent
IDLE_S = 1.0  # between customers while the judge waits for verdicts


def _customers(split: banking77.Split, part: str) -> list[Customer]:
    rows = split.feedback if part == "feedback" else split.test
    return [Customer(m.text, m.intent, m.intent in split.known, part == "test") for m in rows]


async def live(run: Run, base: str) -> dict[str, Any]:
    """The loop itself, from the route to the exported evidence."""
    voices = await run.stage.voices()
    wire = KafkaWire(run.stage.bootstrap, run.stage.partitions, voices)
    await wire.start()
    name = f"demo-{wire.now_ms()}"
    street = Street(wire, run.ledger, route=ROUTE, run=name, staff=voices["verdicts"].name, concurrency=CONCURRENCY)
    await street.open()
    stop = asyncio.Event()
    teller = asyncio.create_task(tell(run, stop))
    acts = Acts(run, wire, street, base, voices["commands"].name)
    try:
        await acts.opening()
        if run.shown.rollback:
            await acts.careless()
        await acts.known()
        await acts.learning()
        await acts.judging()
        await acts.after()
        if run.shown.rollback and run.ledger.promoted is not None:
            await acts.decline()
            await acts.back()
        with run.phase("evidence", "The evidence is exported and checked offline"):
            evidence = await run.stage.evidence(run.folder / "evidence", run.ledger.last_answered())
    finally:
        stop.set()
        teller.cancel()
        acts.close()
        await street.close()
        await wire.stop()
    return evidence


class Acts:
    """What happens, act by act. Customers who have asked are gone; only `again` come back, phase after phase."""

    def __init__(self, run: Run, wire: KafkaWire, street: Street, base: str, operator: str) -> None:
        self.run, self.wire, self.street, self.base, self.operator = run, wire, street, base, operator
        self.ledger, self.scale = run.ledger, run.scale
        split = run.scale.split()
        feedback, held_out = _customers(split, "feedback"), _customers(split, "test")
        known = [row for row in feedback if row.known][::2][: run.scale.known_requests]  # thinned: the rest stays mixed
        taken = set(known)
        self.first = deque(known)
        self.rest = deque(row for row in feedback if row not in taken)
        self.again = held_out[: run.scale.after_requests]
        self.held_out = deque(held_out[run.scale.after_requests :])
        self.chaos: asyncio.Task[None] | None = None

    def alive(self) -> None:
        """Raise what has ended the run."""
        fault = self.street.failure()
        if fault is not None:
            raise fault
        if self.chaos is not None and self.chaos.done() and self.chaos.exception() is not None:
            raise RuntimeError("chaos failed") from self.chaos.exception()
        if self.ledger.failed is not None:
            raise Refused(f"the training failed: {self.ledger.failed.reason}", kind="training")

    def close(self) -> None:
        if self.chaos is not None:
            self.chaos.cancel()

    # acts

    async def opening(self) -> None:
        run = self.run
        with run.phase("apply", "The route is applied; the champion is loaded and proven live"):
            careless = run.shown.rollback or run.shown.useless
            route = self._route("shuffled" if careless else "true")
            numbers = route.judge
            run.say(
                f"judge: α {numbers.alpha}, at least {numbers.min_pairs} pairs and {numbers.min_time_s} s; a verdict has "
                f"{route.window_s:.0f} s, then its pair counts; stages {', '.join(f'{s:.0%}' for s in numbers.stages)} of "
                f"{numbers.stage_time_s} s"
            )
            await self._permit()
            await self._apply(route)
            await until(lambda: CHAMPION in self.ledger.live, LIVE_PATIENCE_S, self.alive, "the champion is not live")

    async def careless(self) -> None:
        """A first training, by command, from labels that were shuffled: its adapter must not get far."""
        run, ledger, scale = self.run, self.ledger, self.scale
        with run.phase(
            "useless", "Customers ask about what the champion knows; a careless training shuffles its labels"
        ):
            run.mark("known intents")
            await self._ask(self.first, "known", until=lambda: len(ledger.asked) >= scale.useless_after)
            await self._train()
            contest = await self._challenger(self.first, "known", keep=len(self.first) // 2)
            await self._contest(contest, self.first, self.rest, burst=scale.burst // 5, shadow="known")
            self._ended(contest, "the useless one is rejected")
            if contest.promoted is not None:
                raise Refused("the adapter from shuffled labels was promoted", kind="judge")
            await self._apply(self._route("true"))

    async def known(self) -> None:
        with self.run.phase("known", "Customers ask about what the champion knows"):
            if not self.run.shown.rollback:
                self.run.mark("known intents")
            if self.run.shown.chaos:
                self.chaos = asyncio.create_task(_chaos(self.run))
            await self._ask(self.first, "known")
        self.run.mark("all intents arrive")

    async def learning(self) -> None:
        run, ledger, scale = self.run, self.ledger, self.scale
        with run.phase("new", "All intents arrive; the champion never learnt some of them"):
            if run.shown.rollback:
                await self._ask(self.rest, "new", until=lambda: len(ledger.asked) * ROWS_PER_REQUEST >= scale.rows)
                await self._train()
            else:
                await self._ask(self.rest, "new", until=lambda: bool(ledger.ordered))
                await self._ordered(1)
            run.say("the bank goes on meanwhile")
            await self._challenger(self.rest, "new", keep=min(len(self.rest) // 2, scale.judges_share))

    async def judging(self) -> None:
        run, ledger = self.run, self.ledger
        contest = ledger.contest
        if contest is None:
            raise Unavailable("no arena is open")
        with run.phase("judging", "The challenger answers in the shadow, on messages held out from training"):
            run.mark("challenger in the shadow")
            await self._contest(contest, deque([*self.held_out, *self.rest]), burst=self.scale.burst, shadow="shadow")
            if self.chaos is not None:
                await self.chaos
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)
        self._ended(contest, "rejected")

    async def after(self) -> None:
        with self.run.phase("after", "A new stream of messages, held out too"):
            await self._ask(deque(self.again), "after")
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)

    async def decline(self) -> None:
        """Behind everyone's back: the serving arm's sampling is changed on the engines, while every record says the same version."""
        run, ledger, promoted = self.run, self.ledger, self.ledger.promoted
        if promoted is None:
            raise Unavailable("nothing was promoted")
        with run.phase(
            "degraded", "Somebody changes the new champion's sampling on the engine by hand; no record says so"
        ):
            await self._grant()
            fleet = ledger.fleets[-1]
            await asyncio.to_thread(degrade, run.stage.state / "env", fleet)
            words = f"temperature {fleet.arm(fleet.champion).temperature:g} → {TEMPERATURE:g} on the engine"
            run.damage = Damage(self.wire.now_ms(), fleet.champion, words)
            run.mark(f"damaged by hand: {words}", "degraded")
            run.say(f"[red]{fleet.champion}[/]: {words}; adapter, digest and policy are as before")
            await self._ask(
                deque(self.again * 3),
                "degraded",
                until=lambda: ledger.rolled_back is not None,
                pace_s=self.scale.pace_degraded_s,
            )
            await until(
                lambda: ledger.rolled_back is not None, ROLLBACK_PATIENCE_S, self.alive, "the judge did not roll back"
            )
            if ledger.rolled_back is not None:
                run.mark("rolled back", "rolled back")
                run.say(f"[bold green]rolled back[/] to {ledger.rolled_back.champion}: {ledger.rolled_back.reason}")
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)

    async def back(self) -> None:
        with self.run.phase("back", "The same messages again, answered by the old champion"):
            await self._ask(deque(self.again), "back")
            await self.street.settle(ANSWER_PATIENCE_S, self.alive)

    # steps

    async def _ask(
        self, customers: deque[Customer], phase: Phase, until: Callable[[], bool] = lambda: False, pace_s: float = 0.0
    ) -> None:
        await self.street.ask(customers, lambda: phase, until=until, alive=self.alive, pace_s=lambda: pace_s)

    async def _challenger(self, going: deque[Customer], phase: Phase, keep: int = 0) -> Contest:
        """Customers go on slowly, all but the last `keep`, until the adapter that is being trained has its arena and is live."""
        ledger, known = self.ledger, len(self.ledger.contests)

        def live() -> bool:
            contest = ledger.contest
            return contest is not None and len(ledger.contests) > known and contest.challenger in ledger.live

        kept = deque[Customer]()
        for _ in range(keep):
            kept.appendleft(going.pop())
        await self._ask(going, phase, until=live, pace_s=self.scale.pace_while_training_s)
        going.extend(kept)
        await until(live, TRAINING_PATIENCE_S, self.alive, "no challenger came out of the training, proven live")
        contest = ledger.contest
        if contest is None:
            raise Unavailable("no arena is open")
        contest.asked_before = len(ledger.asked)
        self.run.say(f"[green]challenger[/] {contest.challenger} is live and runs in the shadow")
        return contest

    async def _contest(self, contest: Contest, *customers: deque[Customer], burst: int, shadow: Phase) -> None:
        """Customers ask until the judge has decided: fast while few pairs wait for their window, slowly while many do."""
        run, scale = self.run, self.scale
        stages = 0

        def pace_s() -> float:
            if contest.stages:
                return scale.pace_in_stages_s
            asked = len(self.ledger.asked) - contest.asked_before
            return 0.0 if asked < burst or asked - contest.pairs < burst // 5 else IDLE_S

        def decided() -> bool:
            nonlocal stages
            for row in contest.stages[stages:]:
                run.say(f"[green]stage {row.stage}[/]: {contest.challenger} serves {row.rollout_bp / 10_000:.0%}")
            stages = len(contest.stages)
            return contest.decided

        for crowd in customers:
            await self.street.ask(
                crowd,
                lambda: "stages" if contest.stages else shadow,
                until=decided,
                alive=self.alive,
                pace_s=pace_s,
            )
        numbers = run.route["judge"]
        patience = 2 * float(run.route["window_s"]) + len(numbers["stages"]) * numbers["stage_time_s"] + 60
        await until(decided, patience, self.alive, "the judge did not decide with all the messages there are")

    def _ended(self, contest: Contest, words: str) -> None:
        run = self.run
        if contest.promoted is not None:
            run.mark("promoted", "promoted")
            run.say(f"[bold green]promoted[/] after {contest.promoted.pairs} pairs, log E {contest.promoted.log_e:.1f}")
        elif contest.rejected is not None:
            run.mark(words, "rejected")
            run.say(f"[bold]rejected[/] after {contest.rejected.pairs} pairs: {contest.rejected.reason}")

    async def _ordered(self, count: int) -> None:
        ledger = self.ledger
        await until(lambda: len(ledger.ordered) >= count, ANSWER_PATIENCE_S, self.alive, "no training was ordered")
        self.run.mark("training")
        self.run.say(f"[green]training ordered[/]: {ledger.ordered[-1].rows} rows")

    # commands

    def _route(self, labels: Labels) -> Route:
        shown = self.run.shown
        route = demo_route(self.base, self.scale, labels=labels, chaos=shown.chaos, by_command=shown.rollback)
        self.run.route = route.model_dump(mode="json")
        return route

    async def _permit(self) -> None:
        """Without this the gate refuses every request."""
        at = self.wire.now_ms()
        command = CommandTenant(
            tenant=PERMITTED.tenant, at_ms=at, operator=self.operator, reason="demonstration", settings=PERMITTED
        )
        await self.wire.send([(command, derive(f"demo/{at}", "demo", "tenant"))])
        await until(lambda: bool(self.ledger.gates), ANSWER_PATIENCE_S, self.alive, "the tenant was not configured")

    async def _apply(self, route: Route) -> None:
        at = self.wire.now_ms()
        command = CommandApply(
            route=route.route, at_ms=at, operator=self.operator, reason="demonstration", settings=route
        )
        await self.wire.send([(command, derive(f"demo/{at}", "demo", "apply"))])

    async def _train(self) -> None:
        await self.street.settle(ANSWER_PATIENCE_S, self.alive)  # a row is a closed case
        at, ordered = self.wire.now_ms(), len(self.ledger.ordered)
        command = CommandTrain(route=ROUTE, at_ms=at, operator=self.operator, reason="demonstration")
        await self.wire.send([(command, derive(f"demo/{at}", "demo", "train"))])
        await self._ordered(ordered + 1)

    async def _grant(self) -> None:
        """Someone trusts the new champion: a rollback must take that back."""
        at = self.wire.now_ms()
        command = CommandTrust(
            route=ROUTE, at_ms=at, operator=self.operator, reason="demonstration", action="grant", threshold=0.9
        )
        await self.wire.send([(command, derive(f"demo/{at}", "demo", "grant"))])
        await until(lambda: bool(self.ledger.trust), ANSWER_PATIENCE_S, self.alive, "trust was not granted")


async def _chaos(run: Run) -> None:
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
