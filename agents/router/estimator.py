"""The estimator: how many replicas each arm of a route needs and which adapters stay warm, from its cases.

1. `policy.capacity` is written from here alone, its version counted here; on a change, at most once per bucket of ten seconds.
2. Time is when a request was assigned. Loads add in any order: what is estimated depends on the cases, not on how they came.
   What comes after its bucket has left the ring (16 minutes) counts no more as demand.
3. `case.answered` tells demand at once; `case.closed`, maybe hours later, what a call of an arm is like: its tokens, a shadow's time.
4. Replicas go up at once, down when fewer were enough for ten minutes. The champion, and who serves most, keep one.
5. One replica is measured only while one is advised: how many there are, no case says (`agents/router/capacity.py`).
"""

from collections.abc import Mapping

from agents.router import capacity
from agents.router.capacity import BUCKET_MS, RING, WARM, WINDOW, Arms
from agents.router.load import Load, call, total
from agents.router.route_load import Declared, Part, Result, RouteLoad, State, Turn
from agents.rules.commands import objection, remembered
from agents.rules.replicas import pooled
from schemas.events import CaseAmended, CaseAnswered, CaseArm, CaseClosed, CommandApply
from schemas.payload import Payload
from schemas.policies import CapacityArm, PolicyCapacity
from schemas.routes import Route
from streams.shapes import Change, Emit, Event, Tick

NAME = "estimator"
HOLD = 60  # buckets for which fewer replicas must be enough before there are fewer: 10 minutes
FADES = 4096  # calls beyond which what is known from before is halved


class Estimator:
    """Fold `estimator`, keyed by route."""

    name = NAME
    inputs = ("ratchet.cases", "ratchet.commands")
    record_type = RouteLoad
    entry_type = Part

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CommandApply | CaseAnswered | CaseClosed) and not isinstance(data, CaseAmended):
            return data.route
        return None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        if isinstance(event, Tick):
            return Change() if state.record is None else _ticked(state, state.record, event)
        data = event.data
        if isinstance(data, CommandApply):
            return _applied(state, data, event)
        if state.record is None:
            return Change()  # a route that was never applied has no arms of which anything could be said
        turn = Turn(state, state.record)
        if isinstance(data, CaseAnswered):
            _answered(turn, data)
        elif isinstance(data, CaseClosed):
            _closed(turn, data)
        return turn.change()


def _answered(turn: Turn, case: CaseAnswered) -> None:
    """Calls of the arm that answered, of those that failed before it, and of the shadows."""
    bucket = _bucket(case)
    _reach(turn, bucket)
    if case.source != "cache":
        timed = call(case.latency_us, served=True, tokens_out=case.tokens_out)
        turn.add(bucket, case.arm, timed if case.latency_us else Load(calls=1, served=1))
    for arm in (*case.lost, *case.shadows):
        turn.add(bucket, arm, Load(calls=1))


def _closed(turn: Turn, case: CaseClosed) -> None:
    """What a call of each arm is like; and that first answers which were escalated were calls too."""
    bucket = _bucket(case)
    _reach(turn, bucket)
    for row in case.arms:
        if row.status != "completed" or row.source != "model":
            continue
        past = turn.past(row.arm)
        turn.keep(row.arm, past.model_copy(update={"adapter": row.adapter, "like": past.like.plus(_like(row))}))
        if not row.shadow and row.arm != case.arm:
            turn.add(bucket, row.arm, Load(calls=1))


def _like(row: CaseArm) -> Load:
    timed = call(row.latency_us, served=not row.shadow)
    return timed.model_copy(update={"told": 1, "tokens_in": row.tokens_in, "tokens_out": row.tokens_out})


def _bucket(case: CaseAnswered | CaseClosed) -> int:
    """When the calls were made. No case is from before its decision: a clock that runs ahead moves time no further than the case."""
    return min(case.assigned_at_ms, case.at_ms) // BUCKET_MS


def _reach(turn: Turn, bucket: int) -> None:
    """Time goes on to a bucket, never back: those before it are complete now."""
    before = turn.record.head
    if bucket <= before:
        return
    turn.set(head=bucket)
    if before:
        _estimate(turn)
    _leave(turn)
    turn.due_ms = (bucket + 1) * BUCKET_MS


def _ticked(state: State, record: RouteLoad, tick: Tick) -> Result:
    """Time goes on without a case; once nothing is left to forget or to take back, there is nothing to wait for."""
    turn = Turn(state, record)
    _reach(turn, tick.at_ms // BUCKET_MS)
    quiet = not turn.loads() and all(need == 0 for rows in turn.record.needs.values() for _, need in rows)
    turn.due_ms = None if quiet else (turn.record.head + 1) * BUCKET_MS
    return turn.change()


def _applied(state: State, command: CommandApply, event: Event[Payload]) -> Result:
    """New settings; the judge says what may not be done."""
    record, settings = state.record, command.settings
    known = remembered(() if record is None else record.commands, event.id)
    if known is None or objection(command, event.key, None if record is None else record.tenant) is not None:
        return Change()
    facts = _facts(settings) | {"commands": known}
    if record is None:
        record = RouteLoad.model_validate(facts | {"leading": settings.champion})
    elif settings.champion != record.champion:
        facts |= {"leading": settings.champion}
    turn = Turn(state, record.model_copy(update=facts))
    _estimate(turn, command.at_ms)
    return turn.change()


def _facts(settings: Route) -> dict[str, object]:
    """What the record says of the settings."""
    slo = settings.routing.slo_ms
    return {
        "tenant": settings.tenant,
        "champion": settings.champion,
        "challengers": settings.challengers,
        "arms": {arm.arm: Declared(adapter=arm.adapter, ours=arm.provider == "ray_vllm") for arm in settings.arms},
        "limit_ms": settings.judge.latency_slo_ms if slo is None else slo,
    }


def _estimate(turn: Turn, at_ms: int | None = None) -> None:
    """What is needed now, from the complete buckets; published where it changed."""
    loads = turn.loads()
    _lead(turn, loads)
    record = turn.record
    now = record.head
    names = sorted({*record.arms, *loads, record.leading})
    past = {name: turn.past(name) for name in names}
    complete = {arm: {b: load for b, load in rows.items() if b < now} for arm, rows in loads.items()}
    own = {arm: rows for arm, rows in complete.items() if _declared(record, arm).ours}
    single = {bucket: _alone(record, bucket) for rows in own.values() for bucket in rows}
    like = {name: row.like for name, row in past.items()}
    shared, outside = Arms(now, own, like, single), Arms(now, complete, like)
    measured = shared.measured()
    needs, arms = dict(record.needs), list[CapacityArm]()
    for name in names:
        ours = _declared(record, name).ours
        demand = (shared if ours else outside).demand(name)
        one = capacity.held(_together(past[name].held, measured.get(name, {})), record.limit_ms)
        need = capacity.needed(demand, one) if ours else 0
        needs[name] = _falling(needs.get(name, ()), now, need)
        why = capacity.told(demand, one) if ours else f"{capacity.told(demand, one)}; another's engines"
        arms.append(_arm(turn, name, demand, needs[name], need, why, loads))
    turn.set(needs={name: rows for name, rows in needs.items() if name in names})
    _publish(turn, tuple(arms), at_ms)


def _arm(
    turn: Turn,
    name: str,
    demand: capacity.Demand,
    needs: tuple[tuple[int, int], ...],
    need: int,
    why: str,
    loads: Mapping[str, Mapping[int, Load]],
) -> CapacityArm:
    """The row of an arm: what is needed, with hysteresis and the least, and whether it stays warm."""
    record, declared = turn.record, _declared(turn.record, name)
    kept = name in (record.champion, record.leading)
    most = max(needs[0][1], int(kept and declared.ours))
    used = any(bucket > record.head - WARM for bucket in loads.get(name, {}))
    why += f"; {most} were needed within 10 min, {need} now" if most > max(need, 1) else ""
    why += "; the champion keeps one" if kept and declared.ours and not need else ""
    return CapacityArm(
        arm=name,
        adapter=turn.past(name).adapter if name not in record.arms else declared.adapter,
        rate_milli=capacity.rate_milli(demand.rate),
        tokens_s=demand.tokens_in_s + demand.tokens_out_s,
        p95_ms=demand.p95_ms,
        busy_milli=demand.busy_milli,
        replicas=most,
        warm=kept or used or name in record.challengers,
        why=why,
    )


def _lead(turn: Turn, loads: Mapping[str, Mapping[int, Load]]) -> None:
    """Who served most of the last minutes; as it was, where nobody served."""
    since = turn.record.head - WINDOW
    served = {
        arm: sum(load.served for bucket, load in rows.items() if since <= bucket < turn.record.head)
        for arm, rows in loads.items()
    }
    leading = min(served, key=lambda arm: (-served[arm], arm), default="")
    if served.get(leading):
        turn.set(leading=leading)


def _declared(record: RouteLoad, arm: str) -> Declared:
    """What is said of an arm; one that was trained here runs here."""
    return record.arms.get(arm, Declared())


def _alone(record: RouteLoad, bucket: int) -> int | None:
    """One, where one engine was advised at the time; else nobody knows how many there were."""
    engines = next((engines for since, engines in reversed(record.advised) if since <= bucket), 1)
    return 1 if engines <= 1 else None


def _together(past: Mapping[int, Load], now: Mapping[int, Load]) -> dict[int, Load]:
    return {octave: total((past.get(octave, Load()), now.get(octave, Load()))) for octave in sorted({*past, *now})}


def _falling(rows: tuple[tuple[int, int], ...], now: int, need: int) -> tuple[tuple[int, int], ...]:
    """The needs of the last ten minutes that no later one exceeds, with this one."""
    kept = [row for row in rows if row[0] > now - HOLD and row[1] > need]
    return (*kept, (now, need))


def _publish(turn: Turn, arms: tuple[CapacityArm, ...], at_ms: int | None) -> None:
    """`policy.capacity`, where something of it changed by more than a tenth."""
    record = turn.record
    if [_shown(row) for row in arms] == [_shown(row) for row in record.published] and not any(
        _moved(old, new) for old, new in zip(record.published, arms, strict=True)
    ):
        return
    engines = pooled(arms)
    advised = record.advised
    if engines != (advised[-1][1] if advised else 1):
        advised = (*[row for row in advised if row[0] < record.head][-RING:], (record.head, engines))
    turn.set(version=record.version + 1, published=arms, advised=advised)
    policy = PolicyCapacity(
        tenant=record.tenant,
        at_ms=record.head * BUCKET_MS if at_ms is None else at_ms,
        route=turn.state.key,
        version=turn.record.version,
        arms=arms,
        window_s=WINDOW * BUCKET_MS // 1000,
    )
    turn.emits.append(Emit(policy, "policy"))


def _shown(row: CapacityArm) -> tuple[str, str | None, int, bool]:
    return row.arm, row.adapter, row.replicas, row.warm


def _moved(old: CapacityArm, new: CapacityArm) -> bool:
    pairs = (
        (old.rate_milli, new.rate_milli, 100),
        (old.tokens_s, new.tokens_s, 10),
        (old.p95_ms, new.p95_ms, 10),
        (old.busy_milli, new.busy_milli, 100),
    )
    return any(abs(a - b) > least and 10 * abs(a - b) > max(a, b) for a, b, least in pairs)


def _leave(turn: Turn) -> None:
    """Buckets that leave the ring: what one replica held then is kept, the rest forgotten; so are arms that nobody has used."""
    record = turn.record
    gone = {
        arm: {bucket: load for bucket, load in rows.items() if bucket <= record.head - RING}
        for arm, rows in turn.loads().items()
    }
    own = {arm: rows for arm, rows in gone.items() if rows and _declared(record, arm).ours}
    single = {bucket: _alone(record, bucket) for rows in own.values() for bucket in rows}
    like = {arm: turn.past(arm).like for arm in own}
    for arm, octaves in Arms(record.head, own, like, single).measured().items():
        past = turn.past(arm)
        turn.keep(arm, past.model_copy(update={"held": _together(past.held, octaves)}))
    for arm, rows in gone.items():
        for bucket in rows:
            name = f"load/{bucket}/{arm}"
            turn.put.pop(name, None)
            turn.drop[name] = None
    used = {*record.arms, *turn.loads(), record.leading}
    for name in sorted({*turn.state.entries, *turn.put}):
        if name.startswith("past/"):
            _fade(turn, name.removeprefix("past/"), used)


def _fade(turn: Turn, arm: str, used: set[str]) -> None:
    """Old measurements count less and less; what is known of an arm that has gone is forgotten."""
    if arm not in used:
        turn.put.pop(f"past/{arm}", None)
        turn.drop[f"past/{arm}"] = None
        return
    past = turn.past(arm)
    like = past.like.halved() if past.like.told > FADES else past.like
    rows = {octave: load.halved() if load.timed > FADES else load for octave, load in past.held.items()}
    if like is not past.like or any(rows[octave] is not past.held[octave] for octave in rows):
        turn.keep(arm, past.model_copy(update={"like": like, "held": rows}))
