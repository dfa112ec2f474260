"""The judge: a Fold keyed by route that owns what the fleet is. It publishes the route, opens arenas, folds pairs, promotes, rolls back.

Rules:
1. It alone writes `policy.route` and `policy.fleet`; versions rise by one.
2. Pairs are folded at ticks, in their order (`agents.judge.order`); a case that comes again changes nothing.
3. A command is done once, and only where it is the route's tenant's: this agent says so for all who read commands.
4. Only `decide.look` promotes, or an operator's approval that it does not contradict. A rollback needs no evidence.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from agents.judge import course
from agents.judge.arena import Arena, guards_of, hold_back, overlay_of, priced, take, version_key
from agents.judge.bench import BREAKER, ORDER, Bench, Entry, Judging, State, Waiting
from agents.judge.decide import Look, guard_name, look
from agents.judge.order import (
    MOST_PENDING,
    PAIR,
    Place,
    assigned_ms,
    entry_of,
    ripe,
    seen_entry,
    stale_seen,
)
from agents.judge.pairs import Pending, filled
from agents.rules.commands import objection, remembered
from schemas.events import (
    AdapterLive,
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
)
from schemas.payload import Payload, RouteEvent
from schemas.policies import PolicyRoute
from schemas.routes import Arm
from streams.shapes import UNCHANGED, Change, DeadLetter, Event, RawState, Tick

NAME = course.NAME
STATE_VERSION = 2


class Judge:
    """See the module."""

    name = NAME
    inputs = ("cases", "training", "commands")
    record_type = Bench
    entry_type = Entry
    state_version = STATE_VERSION

    def __init__(self, most_pending: int = MOST_PENDING) -> None:
        self._most_pending = most_pending

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        wanted = CaseAnswered | CaseClosed | AdapterRegistered | AdapterLive | AdapterRefused | Command
        return data.route if isinstance(data, wanted) and isinstance(data, RouteEvent | Command) else None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Change[Bench, Entry]:
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
        if data is None:
            _tick(judging)
        else:
            self._take(judging, data)
        course.open_next(judging)
        return Change(
            emits=judging.emits,
            record=UNCHANGED if judging.bench is state.record else judging.bench,
            put=judging.put,
            drop=tuple(judging.drop),
            due_ms=_due(state.due_ms, judging.due_ms, whole=data is None),
        )

    def _take(self, judging: Judging, data: Payload) -> None:
        match data:
            case CaseAnswered():
                _answered(judging, data, self._most_pending)
            case CaseClosed() if type(data) is CaseClosed:
                _closed(judging, data)
            case CommandApply():
                _apply(judging, data)
            case AdapterRegistered():
                _registered(judging, data)
            case AdapterLive() | AdapterRefused():
                _engine_said(judging, data)
            case CommandPromote() | CommandReject():
                _decided(judging, data)
            case CommandRollback():
                course.leave(judging, data.reason, data.operator)
            case CommandPause() | CommandResume():
                judging.change(paused=isinstance(data, CommandPause))
                judging.publish_fleet(f"{'paused' if judging.bench.paused else 'resumed'} by {data.operator}")
            case _:
                pass

    def _heed(self, judging: Judging, command: Command, event: Event[Payload]) -> Change[Bench, Entry] | None:
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

    def migrate(self, from_version: int, raw: RawState) -> RawState:
        """Version 1 had another evidence: its open arena's challenger waits in line for a new one."""
        old = raw.record
        if old is None:
            return RawState(raw.key, None, {}, None)
        kept = {name: old[name] for name in Bench.model_fields if name in old}
        open_arena = raw.entries.get(old.get("current") or "")
        arms = {arm["arm"]: arm for arm in old["arms"]}
        if open_arena is not None and open_arena["challenger"] in arms:
            waiting = Waiting(
                arm=Arm.model_validate(arms[open_arena["challenger"]]), fresh_after_ms=open_arena["fresh_after_ms"]
            )
            kept["queue"] = [waiting.model_dump(mode="json"), *kept.get("queue", [])]
        return RawState(raw.key, kept, {}, 1)


def _due(before: int | None, wanted: int | None, *, whole: bool) -> Any:
    """A tick has looked at all that waits; any other event only adds."""
    if whole:
        return wanted
    return UNCHANGED if wanted is None or (before is not None and before <= wanted) else wanted


# pairs


def _answered(judging: Judging, case: CaseAnswered, most_pending: int) -> None:
    breaker = judging.breaker(case.arm) if case.source == "model" else None  # a cache tells nothing of the arm
    if breaker is not None:
        judging.keep_breaker(breaker.answered(judging.bench.settings.judge, ok=case.ok, latency_us=case.latency_us))
        course.trip(judging, case.arm)
    _announce(judging, case, most_pending)


def _announce(judging: Judging, case: CaseAnswered, most_pending: int) -> None:
    """A pair to come takes its place."""
    bench = judging.bench
    if not case.shadows or not any(key in bench.open or key == bench.watch for key in case.arenas):
        return
    name = entry_of(case)
    if judging.entry(name) is not None:
        return
    place = judging.place
    if name <= place.last:
        judging.keep(ORDER, Entry(order=place.model_copy(update={"late": place.late + 1})))
    elif place.waiting >= most_pending:
        judging.keep(ORDER, Entry(order=place.model_copy(update={"overflow": place.overflow + 1})))
    else:
        end_ms = max(case.window_end_ms, case.assigned_at_ms)  # a time to come is nobody's last place
        judging.keep(name, Entry(pending=Pending(window_end_ms=end_ms, arenas=case.arenas, subject=case.subject)))
        on = Place(last=place.last, waiting=place.waiting + 1, late=place.late, overflow=place.overflow)
        judging.keep(ORDER, Entry(order=on))
        judging.wake(end_ms)


def _closed(judging: Judging, case: CaseClosed) -> None:
    _watch_closed(judging, case)
    name = entry_of(case)
    entry = judging.entry(name)
    pending = None if entry is None else entry.pending
    if pending is None or pending.closed:
        return  # no pair, folded already, or told again
    if any(row.tokens_in < 0 or row.tokens_out < 0 for row in case.arms):
        judging.give_up("invalid", "case.closed: arms: tokens below 0; accepted: 0 or more")
        judging.keep(name, Entry(pending=replace(pending, closed=True)))  # nobody's, and holds nobody up
        return
    arms = {arm.arm: arm for arm in judging.bench.arms}
    judging.keep(name, Entry(pending=filled(pending, case, arms)))


def _watch_closed(judging: Judging, case: CaseClosed) -> None:
    """What breakers learn of a closed case: the served answer's grade, and a failure that another arm made good."""
    judge = judging.bench.settings.judge
    for row in case.arms:
        breaker = None if row.shadow else judging.breaker(row.arm)
        if breaker is None:
            continue
        if row.status == "failed" and case.arm != row.arm:
            judging.keep_breaker(breaker.answered(judge, ok=False, latency_us=row.latency_us))
        elif case.arm == row.arm and row.grade is not None and row.status == "completed":
            judging.keep_breaker(breaker.graded(judge, row.grade))
        course.trip(judging, row.arm)


def _tick(judging: Judging) -> None:
    """Fold the pairs whose place has come, then what time itself brings."""
    waiting = {
        name: entry.pending
        for name, entry in judging.state.entries.items()
        if entry.pending is not None and name.startswith(PAIR)
    }
    folded = ripe(waiting, judging.now_ms)
    for name in folded:
        _fold_pair(judging, name, waiting[name])
        judging.forget(name)
    if folded:
        on = {"last": folded[-1], "waiting": len(waiting) - len(folded)}
        judging.keep(ORDER, Entry(order=judging.place.model_copy(update=on)))
        for name in stale_seen(judging.state.entries, folded[-1]):
            judging.forget(name)
    left = min(waiting.keys() - set(folded), default=None)
    if left is not None:
        judging.wake(max(waiting[left].window_end_ms, judging.now_ms + 1))
    course.stage_over(judging)
    course.watch_over(judging)


def _fold_pair(judging: Judging, name: str, pending: Pending) -> None:
    judge = judging.bench.settings.judge
    for key in pending.arenas:
        arena = judging.arena(key) if key in (*judging.bench.open, judging.bench.watch) else None
        if arena is None or assigned_ms(name) <= arena.fresh_after_ms:
            continue
        if pending.subject is not None and judge.once_a_day:
            seen = seen_entry(name, key, pending.subject)
            if judging.entry(seen) is not None:
                continue
            judging.keep(seen, Entry())
        before = arena.pairs
        arena = judging.keep_arena(take(arena, judge, pending, judging.nulls(arena.overlay)))
        if arena.pairs > before and (arena.pairs % judge.evaluate_every == 0 or arena.pairs == judge.max_pairs):
            course.take_look(judging, arena, f"{arena.key}-{arena.pairs}")


# routes and arms


def _apply(judging: Judging, command: CommandApply) -> None:
    """Take the settings. Registered arms, the champion and open arenas stay, unless the settings contradict them."""
    settings, bench = command.settings, judging.bench
    declared = {arm.arm: arm for arm in settings.arms}
    learnt = [arm for arm in bench.arms if arm.arm not in declared and arm.adapter is not None]
    known = {*declared, *(arm.arm for arm in learnt)}
    asked = bench.version == 0 or settings.champion != bench.settings.champion
    champion = settings.champion if asked or bench.champion not in known else bench.champion
    changed = {arm.arm for arm in bench.arms if declared.get(arm.arm, arm) != arm}
    judging.change(
        settings=settings,
        version=bench.version + 1,
        arms=(*settings.arms, *learnt),
        champion=champion,
        rollback=bench.rollback if bench.rollback in known and bench.rollback != champion else None,
        live=tuple(name for name in bench.live if name in known and name not in changed),
    )
    for arena in judging.arenas():
        if not _still_meant(judging, arena):
            course.close(judging, arena, "superseded by new settings")
    if champion != bench.champion or judging.bench.rollback is None:
        course.end_watch(judging)
        judging.change(leaving=None)
        judging.drop_breaker(bench.champion)
    elif (watched := judging.watched()) is not None and _version(bench, watched) != _version(judging.bench, watched):
        course.end_watch(judging)
        again = hold_back(watched, judging.now_ms, overlay_of(settings), priced=priced(*_arms(judging.bench, watched)))
        judging.keep_arena(again)
        judging.change(watch=again.key)
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
        course.enqueue(judging, declared[name], judging.now_ms)
    judging.publish_fleet(f"applied by {command.operator}")


def _still_meant(judging: Judging, arena: Arena) -> bool:
    """Whether the arena is the one that the settings of now would open."""
    bench = judging.bench
    known = {arm.arm for arm in bench.arms}
    if arena.champion != bench.champion or arena.challenger not in known:
        return False
    return _version(bench, arena) == arena.key


def _arms(bench: Bench, arena: Arena) -> tuple[Arm, Arm]:
    return bench.arm(arena.champion), bench.arm(arena.challenger)


def _version(bench: Bench, arena: Arena) -> str:
    return version_key(*_arms(bench, arena), bench.settings)


def _registered(judging: Judging, data: AdapterRegistered) -> None:
    """A new adapter becomes an arm: the champion's prompt, sampling and prices, the adapter's weights."""
    champion = judging.bench.arm(judging.bench.champion)
    try:
        arm = Arm.model_validate({**champion.model_dump(), "arm": data.arm, "base": data.base, "adapter": data.adapter})
    except ValidationError:
        judging.give_up("invalid", "adapter.registered: its arm and base make no arm of a route")
        return
    course.enqueue(judging, arm, data.cutoff_ms)


def _engine_said(judging: Judging, data: AdapterLive | AdapterRefused) -> None:
    """An arm was proven live, or refused: who is refused is not judged on, and nobody returns to it."""
    bench = judging.bench
    arm = next((arm for arm in bench.arms if arm.arm == data.arm), None)
    if arm is None or arm.adapter != data.adapter:
        return
    if isinstance(data, AdapterLive):
        if data.arm not in bench.live:
            judging.change(live=(*bench.live, data.arm))
        course.return_if_live(judging)
        return
    if data.arm in bench.live:
        judging.change(live=tuple(name for name in bench.live if name != data.arm))
    arena = judging.judged(data.arm)
    if arena is not None:
        course.reject(judging, arena, f"refused by the engine: {data.reason[:300]}", 0.0)


# operators


def _decided(judging: Judging, command: CommandPromote | CommandReject) -> None:
    arena = judging.judged(command.challenger)
    if arena is None:
        return
    beside = course.around(judging, arena)
    arena, seen = look(arena, beside)
    judging.keep_arena(arena)
    if isinstance(command, CommandReject):
        course.reject(judging, arena, f"rejected by {command.operator}", seen.log_e)
        return
    refusal = _refusal(judging, arena, seen)
    identity = f"{arena.key}-approval"
    if refusal:
        course.evaluated(judging, arena, beside, seen, identity, f"approval by {command.operator} refused: {refusal}")
        return
    arena = judging.keep_arena(arena, approved_by=command.operator)
    course.evaluated(judging, arena, beside, seen, identity, f"approved by {command.operator}")
    course.advance(judging, arena, seen, identity)


def _refusal(judging: Judging, arena: Arena, seen: Look) -> str:
    """Why an approval is not taken: what was asked for is approved while the guardrails hold, anything else needs all conditions."""
    if arena.stage:
        return "it is on its way already"
    if judging.staged() is not None:
        return "another challenger is on its way"
    if seen.decision == "reject":
        return seen.reason
    asked = {guard_name(guard) for guard in guards_of(arena)} if arena.asked_approval else set(seen.conditions)
    return ", ".join(name for name, held in seen.conditions.items() if name in asked and not held)


def preview(bench: Bench, entries: Sequence[Entry], now_ms: int) -> list[tuple[Arena, Look]]:
    """What the judge would say now of every open arena and the holdback. The same `look`, nothing emitted."""
    named = {f"arena/{entry.arena.key}": entry for entry in entries if entry.arena is not None}
    named |= {BREAKER + entry.breaker.arm: entry for entry in entries if entry.breaker is not None}
    state = State(bench.settings.route, bench, named, None)
    judging = Judging(state, bench, now_ms, Tick(now_ms, "", ""))
    watched = judging.watched()
    return [
        look(arena, course.around(judging, arena)) for arena in (*judging.arenas(), *((watched,) if watched else ()))
    ]
