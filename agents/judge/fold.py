"""The judge: a Fold keyed by route that owns what the fleet is. It publishes the route, opens arenas, folds pairs, promotes.

Rules:
1. It alone writes `policy.route` and `policy.fleet`; versions rise by one.
2. One arena at a time per route; a registered adapter that meets an open arena or a cooldown waits in line.
3. A command is done once, and only where it is the route's tenant's: this agent says so for all who read commands.
4. Only `decide.look` promotes, or an operator's approval that `decide.look` does not contradict. A rollback needs no evidence.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agents.judge.decide import (
    Arena,
    Look,
    add_pair,
    look,
    open_arena,
    p95_us,
    pair_of,
    settings_of,
    version_key,
)
from agents.rules.commands import objection, remembered
from schemas.events import (
    AdapterRefused,
    AdapterRegistered,
    CaseAnswered,
    CaseClosed,
    Command,
    CommandApply,
    CommandPause,
    CommandPromote,
    CommandReject,
    CommandResume,
    CommandRollback,
    ModelPromoted,
    ModelRolledBack,
    PromotionApprovalRequested,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
)
from schemas.ids import derive
from schemas.payload import Payload, RouteEvent
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from streams.shapes import UNCHANGED, Change, DeadLetter, Emit, Event, KeyState, Out, Tick

NAME = "judge"
QUEUE = 4
LATENCIES = 200


class Waiting(BaseModel):
    """A registered challenger in line."""

    model_config = ConfigDict(frozen=True)

    arm: Arm
    fresh_after_ms: int


class Bench(BaseModel):
    """What the judge knows of one route."""

    model_config = ConfigDict(frozen=True)

    settings: Route
    version: int = 0
    fleet_version: int = 0
    arms: tuple[Arm, ...] = ()
    champion: str = ""
    challenger: str | None = None
    rollback: str | None = None
    paused: bool = False
    current: str = ""
    queue: tuple[Waiting, ...] = ()
    cooldown_until_ms: int = 0
    latencies: tuple[int, ...] = ()
    commands: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.arm == name)


class Judging:
    """One event being folded: the bench as it changes, the arenas put, the emits."""

    def __init__(self, state: KeyState[Bench, Arena], bench: Bench, now_ms: int, event: Event[Payload] | Tick) -> None:
        self.state, self.bench, self.now_ms, self.event, self.cause = state, bench, now_ms, event, event.id
        self.put: dict[str, Arena] = {}
        self.emits: list[Out] = []

    def change(self, **fields: Any) -> None:
        self.bench = self.bench.model_copy(update=fields)

    def give_up(self, kind: str, message: str) -> None:
        """The event becomes a dead letter."""
        if not isinstance(self.event, Tick):
            self.emits.append(DeadLetter(self.event.record, kind, message))

    def emit(self, payload: Payload, identity: str | None = None) -> None:
        self.emits.append(Emit(payload, identity))

    @property
    def arena(self) -> Arena | None:
        """The open arena."""
        key = self.bench.current
        return (self.put.get(key) or self.state.entries.get(key)) if key else None

    def common(self, arena: Arena) -> dict[str, Any]:
        return {
            "tenant": self.bench.settings.tenant,
            "at_ms": self.now_ms,
            "route": self.bench.settings.route,
            "arena": arena.key,
            "champion": arena.champion,
            "challenger": arena.challenger,
            "adapter": arena.adapter,
        }

    def publish_fleet(self, reason: str) -> None:
        """The fleet as it is now, one version on."""
        bench = self.bench
        needed = [bench.champion, bench.challenger, bench.rollback, *(arm.arm for arm in bench.settings.arms)]
        arms = tuple(arm for arm in bench.arms if arm.arm in needed)
        self.change(fleet_version=bench.fleet_version + 1, arms=arms)
        bench = self.bench
        judged = bench.challenger is not None
        self.emit(
            PolicyFleet(
                tenant=bench.settings.tenant,
                at_ms=self.now_ms,
                route=bench.settings.route,
                version=bench.fleet_version,
                arms=bench.arms,
                champion=bench.champion,
                challenger=bench.challenger,
                rollback=bench.rollback,
                rollout_bp=round(bench.settings.rollout * 10_000) if judged else 0,
                shadow_bp=round(bench.settings.shadow_share * 10_000) if judged else 0,
                experiment=bench.current if judged else "",
                paused=bench.paused,
                reason=reason,
            ),
            f"fleet-{bench.fleet_version}",
        )


class Judge:
    """See the module."""

    name = NAME
    inputs = ("cases", "training", "commands")
    record_type = Bench
    entry_type = Arena

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        wanted = CaseAnswered | CaseClosed | AdapterRegistered | AdapterRefused | Command
        return data.route if isinstance(data, wanted) and isinstance(data, RouteEvent | Command) else None

    def fold(self, state: KeyState[Bench, Arena], event: Event[Payload] | Tick) -> Change[Bench, Arena]:
        if isinstance(event, Tick):
            now, data = event.at_ms, None
        else:
            now, data = event.data.at_ms, event.data
        if state.record is None and not isinstance(data, CommandApply):
            return Change()
        bench = state.record or Bench(settings=data.settings)  # type: ignore[union-attr]  # an apply, by the line above
        judging = Judging(state, bench, now, event)
        if isinstance(data, Command) and not isinstance(event, Tick):
            stop = self._heed(judging, data, event)
            if stop is not None:
                return stop
        self._take(judging, data)
        due = self._next_in_line(judging)
        return Change(
            emits=judging.emits,
            record=UNCHANGED if judging.bench is state.record else judging.bench,
            put=judging.put,
            due_ms=due,
        )

    def _heed(self, judging: Judging, command: Command, event: Event[Payload]) -> Change[Bench, Arena] | None:
        """What becomes of a command that is not to be done: a dead letter, or nothing where it was done already."""
        known_route = judging.state.record is not None
        problem = objection(command, event.key, judging.bench.settings.tenant if known_route else None)
        if problem is not None:
            return Change(emits=(DeadLetter(event.record, *problem),))
        known = remembered(judging.bench.commands, event.id)
        if known is None:
            return Change()
        judging.change(commands=known)
        return None

    def _take(self, judging: Judging, data: Payload | None) -> None:
        match data:
            case CaseAnswered() if judging.bench.settings.judge.latency_slo_ms is None and data.ok:
                if data.arm == judging.bench.champion:
                    judging.change(latencies=(*judging.bench.latencies, data.latency_us)[-LATENCIES:])
            case CaseClosed() if type(data) is CaseClosed:
                self._pair(judging, data)
            case CommandApply():
                self._apply(judging, data)
            case AdapterRegistered():
                self._registered(judging, data)
            case AdapterRefused():
                arena = judging.arena
                if arena is not None and arena.challenger == data.arm:
                    self._reject(judging, arena, f"refused by the engine: {data.reason[:300]}", 0.0)
            case CommandPromote() | CommandReject():
                self._answer(judging, data)
            case CommandRollback():
                self._rollback(judging, data)
            case CommandPause() | CommandResume():
                judging.change(paused=isinstance(data, CommandPause))
                judging.publish_fleet(f"{'paused' if judging.bench.paused else 'resumed'} by {data.operator}")
            case _:
                pass

    # routes

    def _apply(self, judging: Judging, command: CommandApply) -> None:
        """Take the settings. Registered arms, the champion and an open arena stay, unless the settings contradict them."""
        settings, bench = command.settings, judging.bench
        declared = {arm.arm: arm for arm in settings.arms}
        learnt = [arm for arm in bench.arms if arm.arm not in declared and arm.adapter is not None]
        known = {*declared, *(arm.arm for arm in learnt)}
        first = bench.version == 0
        asked = first or settings.champion != bench.settings.champion
        champion = settings.champion if asked or bench.champion not in known else bench.champion
        judging.change(
            settings=settings,
            version=bench.version + 1,
            arms=(*settings.arms, *learnt),
            champion=champion,
            rollback=bench.rollback if bench.rollback in known and bench.rollback != champion else None,
        )
        arena = judging.arena
        if arena is not None:
            same_arena = (
                arena.champion == champion
                and arena.challenger in known
                and version_key(judging.bench.arm(champion), judging.bench.arm(arena.challenger), settings) == arena.key
            )
            if not same_arena:
                self._close(judging, arena, "superseded by new settings")
        judging.emit(
            PolicyRoute(
                tenant=settings.tenant,
                at_ms=judging.now_ms,
                route=settings.route,
                version=judging.bench.version,
                settings=settings,
                author=command.operator,
            ),
            "route",
        )
        for name in settings.challengers:
            self._enqueue(judging, declared[name], judging.now_ms)
        judging.publish_fleet(f"applied by {command.operator}")

    # arenas

    def _registered(self, judging: Judging, data: AdapterRegistered) -> None:
        """A new adapter becomes an arm: the champion's prompt and sampling, the adapter's weights."""
        champion = judging.bench.arm(judging.bench.champion)
        try:
            arm = Arm.model_validate(
                {**champion.model_dump(), "arm": data.arm, "base": data.base, "adapter": data.adapter}
            )
        except ValidationError:
            judging.give_up("invalid", "adapter.registered: its arm and base make no arm of a route")
            return
        self._enqueue(judging, arm, data.cutoff_ms)

    def _enqueue(self, judging: Judging, arm: Arm, fresh_after_ms: int) -> None:
        waiting = [row for row in judging.bench.queue if row.arm.arm != arm.arm]
        open_now = judging.arena is not None and judging.arena.challenger == arm.arm
        if arm.arm != judging.bench.champion and not open_now:
            waiting.append(Waiting(arm=arm, fresh_after_ms=fresh_after_ms))
        judging.change(queue=tuple(waiting[-QUEUE:]))

    def _next_in_line(self, judging: Judging) -> int | None:
        """Open the next arena when none is open and the cooldown is over; the time to look again, if any."""
        if any(row.arm.arm == judging.bench.champion for row in judging.bench.queue):  # it serves by now
            judging.change(queue=tuple(row for row in judging.bench.queue if row.arm.arm != judging.bench.champion))
        bench = judging.bench
        if bench.current or not bench.queue:
            return None
        if judging.now_ms < bench.cooldown_until_ms:
            return bench.cooldown_until_ms
        first, rest = bench.queue[0], bench.queue[1:]
        others = tuple(arm for arm in bench.arms if arm.arm != first.arm.arm)
        judging.change(queue=rest, arms=(*others, first.arm))
        champion = judging.bench.arm(bench.champion)
        key = version_key(champion, first.arm, bench.settings)
        known = judging.state.entries.get(key)
        if known is None:
            arena = open_arena(
                champion, first.arm, bench.settings, now_ms=judging.now_ms, fresh_after_ms=first.fresh_after_ms
            )
        else:
            arena = known.model_copy(update={"done": "", "asked_approval": False})
        judging.put[key] = arena
        judging.change(current=key, challenger=arena.challenger)
        judging.emit(
            PromotionOpened(**judging.common(arena), resumed=known is not None, settings=dict(settings_of(arena))),
            "opened",
        )
        judging.publish_fleet(f"arena opened for {arena.challenger}")
        return self._next_in_line(judging)

    def _pair(self, judging: Judging, case: CaseClosed) -> None:
        arena = judging.arena
        pair = None if arena is None else pair_of(case, arena)
        if arena is None or pair is None or case.request_id == arena.last_case:
            return
        if arena.slo_us is None:
            frozen = p95_us(judging.bench.latencies)
            if frozen is None:
                return  # no objective to measure against yet
            arena = arena.model_copy(update={"slo_us": frozen})
        arena = add_pair(arena, *pair, case.request_id, sampled=case.sampled)
        judging.put[arena.key] = arena
        if arena.pairs % arena.settings.evaluate_every == 0 or arena.pairs == arena.settings.max_pairs:
            self._look(judging, arena)

    def _look(self, judging: Judging, arena: Arena) -> None:
        bench = judging.bench
        arena, seen = look(
            arena,
            now_ms=judging.now_ms,
            cooldown_until_ms=bench.cooldown_until_ms,
            approval=bench.settings.approval,
        )
        judging.put[arena.key] = arena
        self._evaluated(judging, arena, seen)
        if seen.decision == "promote":
            self._promote(judging, arena, seen.log_e, by="")
        elif seen.decision == "reject":
            self._reject(judging, arena, seen.reason, seen.log_e)
        elif seen.decision == "request_approval" and not arena.asked_approval:
            judging.put[arena.key] = arena.model_copy(update={"asked_approval": True})
            judging.emit(
                PromotionApprovalRequested(**judging.common(arena), pairs=arena.pairs, log_e=seen.log_e), "approval"
            )

    def _evaluated(self, judging: Judging, arena: Arena, seen: Look, reason: str = "") -> None:
        judging.emit(
            PromotionEvaluated(
                **judging.common(arena),
                pairs=arena.pairs,
                quality_pairs=arena.quality_pairs,
                wins=arena.superiority.wins,
                losses=arena.superiority.losses,
                champion_grade=seen.champion_grade,
                challenger_grade=seen.challenger_grade,
                processes=seen.processes,
                conditions=seen.conditions,
                decision="continue" if reason else seen.decision,  # type: ignore[arg-type]  # one of the four words
                reason=reason or seen.reason,
            ),
            "evaluated",
        )

    def _promote(self, judging: Judging, arena: Arena, log_e: float, *, by: str) -> None:
        before = judging.bench.champion
        self._end(judging, arena, "promoted")
        judging.change(champion=arena.challenger, rollback=before)
        judging.publish_fleet(f"{arena.challenger} promoted")
        judging.emit(
            ModelPromoted(
                **judging.common(arena),
                pairs=arena.pairs,
                log_e=log_e,
                approved_by=by,
                fleet_version=judging.bench.fleet_version,
                evaluation=derive(judging.cause, NAME, "evaluated"),
            ),
            "promoted",
        )

    def _reject(self, judging: Judging, arena: Arena, reason: str, log_e: float) -> None:
        self._close(judging, arena, reason, log_e)
        judging.publish_fleet(f"{arena.challenger} rejected: {reason}")

    def _close(self, judging: Judging, arena: Arena, reason: str, log_e: float = 0.0) -> None:
        self._end(judging, arena, reason)
        judging.emit(
            PromotionRejected(**judging.common(arena), reason=reason, pairs=arena.pairs, log_e=log_e), "rejected"
        )

    def _end(self, judging: Judging, arena: Arena, word: str) -> None:
        """The arena is over: it is kept, so that the same challenger resumes; the cooldown begins."""
        judging.put[arena.key] = arena.model_copy(update={"done": word})
        cooldown = judging.now_ms + judging.bench.settings.judge.cooldown_s * 1000
        judging.change(current="", challenger=None, cooldown_until_ms=cooldown)

    # operators

    def _answer(self, judging: Judging, command: CommandPromote | CommandReject) -> None:
        arena = judging.arena
        if arena is None or arena.challenger != command.challenger:
            return
        arena, seen = look(
            arena, now_ms=judging.now_ms, cooldown_until_ms=judging.bench.cooldown_until_ms, approval="automatic"
        )
        judging.put[arena.key] = arena
        if isinstance(command, CommandReject):
            self._reject(judging, arena, f"rejected by {command.operator}", seen.log_e)
        elif seen.decision == "promote":
            self._evaluated(judging, arena, seen)
            self._promote(judging, arena, seen.log_e, by=command.operator)
        else:
            missing = ", ".join(name for name, met in seen.conditions.items() if not met) or seen.reason
            self._evaluated(judging, arena, seen, f"approval by {command.operator} refused: {missing}")

    def _rollback(self, judging: Judging, command: CommandRollback) -> None:
        bench = judging.bench
        back = bench.rollback
        if back is None:
            judging.publish_fleet(f"rollback by {command.operator} refused: there is no arm to return to")
            return
        if (arena := judging.arena) is not None:
            self._close(judging, arena, f"rollback by {command.operator}")
        taken_out = bench.champion
        cooldown = judging.now_ms + bench.settings.judge.cooldown_s * 1000
        judging.change(champion=back, rollback=None, cooldown_until_ms=cooldown)
        judging.publish_fleet(f"rolled back by {command.operator}")
        judging.emit(
            ModelRolledBack(
                tenant=bench.settings.tenant,
                at_ms=judging.now_ms,
                route=bench.settings.route,
                arena="",
                champion=back,
                challenger=taken_out,
                adapter=None,
                reason=command.reason or "by command",
                by=command.operator,
                fleet_version=judging.bench.fleet_version,
            ),
            "rolled-back",
        )


def preview(bench: Bench, arenas: Sequence[Arena], now_ms: int) -> Look | None:
    """What the judge would say now; None where no arena is open. The same `look`, nothing emitted."""
    arena = next((row for row in arenas if row.key == bench.current), None)
    if arena is None:
        return None
    return look(arena, now_ms=now_ms, cooldown_until_ms=bench.cooldown_until_ms, approval=bench.settings.approval)[1]
