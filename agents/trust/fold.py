"""The ladder: what trust believes of a route, learnt online from labelled cases, and whom an operator lets it release.

1. One record per route; `policy.trust` is written from it alone, its version counted here.
2. A label counts once, and only where the score stood before the verdict, or the verdict is a reference's.
3. A grant is an operator's; a new champion, another grader or a withdrawal ends it at once.

The map: logistic regression by AdaGrad (Duchi, Hazan & Singer 2011) on log-loss over standardised signals, then Platt's
map of z by an online Newton step (Gupta & Ramdas 2023, arXiv 2305.00070). float64, plain Python order.
"""

import math
from dataclasses import replace
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from agents.rules.commands import objection, remembered
from agents.trust.decide import PRIOR_CENTER, PRIOR_SCALE, PRIOR_SCORER, PRIOR_WEIGHTS, z_of
from schemas.events import (
    CaseClosed,
    CommandApply,
    CommandTrust,
    ModelPromoted,
    ModelRolledBack,
    TrustChanged,
)
from schemas.payload import Payload
from schemas.policies import SIGNALS, PolicyTrust
from streams.shapes import Change, DeadLetter, Emit, Event, KeyState, Out, Tick, Unchanged

PUBLISH_EVERY = 25
REMEMBERED = 64
SIGNAL_MOST = 1e6  # none that `decide.signals_of` makes is near; its square must stay a number
PRIOR_COUNT = 20.0
RATE = 0.3
SCALE_FLOOR = 0.05
PLATT_RATE = 1.0
Mode: TypeAlias = Literal["SHADOW", "GRANTED"]


class NoEntry(BaseModel):
    """The ladder keeps no entries."""

    model_config = ConfigDict(frozen=True)


class Rung(BaseModel):
    """All the ladder knows of a route."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    version: int = 0
    champion: str  # as last applied; a promotion is told by its own event
    grader: str
    threshold: float
    mode: Mode = "SHADOW"
    granted_by: str = ""
    labels: int = 0
    unpublished: int = 0
    recent: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    count: float = PRIOR_COUNT
    mean: tuple[float, ...] = PRIOR_CENTER
    spread: tuple[float, ...] = tuple(PRIOR_COUNT * width * width for width in PRIOR_SCALE)
    weights: tuple[float, ...] = PRIOR_WEIGHTS
    bias: float = 0.0
    squares: tuple[float, ...] = (1.0,) * (len(SIGNALS) + 1)
    platt_a: float = 1.0
    platt_b: float = 0.0
    newton: tuple[float, float, float] = (10.0, 0.0, 10.0)

    def scale(self) -> tuple[float, ...]:
        """The standard deviation of each signal so far."""
        return tuple(max(SCALE_FLOOR, math.sqrt(spread / self.count)) for spread in self.spread)


State: TypeAlias = KeyState[Rung, NoEntry]
Result: TypeAlias = Change[Rung, NoEntry]


class Ladder:
    """Fold `ladder`, keyed by route."""

    name = "ladder"
    inputs = ("ratchet.cases", "ratchet.commands", "ratchet.promotions")
    record_type = Rung
    entry_type = NoEntry

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CommandApply | CommandTrust | ModelPromoted | ModelRolledBack):
            return data.route
        return data.route if type(data) is CaseClosed else None  # an amendment never rewrites a label

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        if isinstance(event, Tick):
            return Change()
        data, rung = event.data, state.record
        if isinstance(data, CommandApply | CommandTrust):
            return _heeded(rung, data, event)
        if rung is None:
            return Change()  # a route that was never applied has no trust
        if isinstance(data, ModelPromoted | ModelRolledBack):
            return _replaced(rung, data)
        if isinstance(data, CaseClosed):
            return _labelled(rung, data)
        return Change()


def label_of(case: CaseClosed) -> bool | None:
    """Whether the serving arm's answer was right; None where the case may not teach trust."""
    fair = case.verdict_after_score or case.verdict_kind == "reference"
    if not fair or len(case.signals) != len(SIGNALS) or any(abs(one) > SIGNAL_MOST for one in case.signals):
        return None
    for arm in case.arms:
        if arm.arm == case.arm and not arm.shadow:
            return None if arm.grade is None or arm.status != "completed" else arm.grade >= 500
    return None


def learn(rung: Rung, signals: tuple[float, ...], right: bool) -> Rung:
    """One step on one label: the error is that of the map before the step."""
    y = 1.0 if right else 0.0
    count = rung.count + 1.0
    mean = tuple(m + (x - m) / count for m, x in zip(rung.mean, signals, strict=True))
    spread = tuple(
        s + (x - old) * (x - new) for s, x, old, new in zip(rung.spread, signals, rung.mean, mean, strict=True)
    )
    scale = rung.scale()
    z = z_of(signals, rung.weights, rung.mean, scale, rung.bias)
    gap = _logistic(z) - y
    inputs = (*((x - m) / s for x, m, s in zip(signals, rung.mean, scale, strict=True)), 1.0)
    steps = tuple(gap * min(5.0, max(-5.0, x)) for x in inputs)
    squares = tuple(q + g * g for q, g in zip(rung.squares, steps, strict=True))
    moved = tuple(
        w - RATE * g / math.sqrt(q) for w, g, q in zip((*rung.weights, rung.bias), steps, squares, strict=True)
    )
    platt_a, platt_b, newton = _platt(rung, z, y)
    return rung.model_copy(
        update={
            "labels": rung.labels + 1,
            "unpublished": rung.unpublished + 1,
            "count": count,
            "mean": mean,
            "spread": spread,
            "weights": moved[:-1],
            "bias": moved[-1],
            "squares": squares,
            "platt_a": platt_a,
            "platt_b": platt_b,
            "newton": newton,
        }
    )


def _platt(rung: Rung, z: float, y: float) -> tuple[float, float, tuple[float, float, float]]:
    gap = _logistic(rung.platt_a * z + rung.platt_b) - y
    ga, gb = gap * z, gap
    aa, ab, bb = rung.newton
    aa, ab, bb = aa + ga * ga, ab + ga * gb, bb + gb * gb
    det = aa * bb - ab * ab
    a = rung.platt_a - PLATT_RATE * (bb * ga - ab * gb) / det
    b = rung.platt_b - PLATT_RATE * (aa * gb - ab * ga) / det
    return min(10.0, max(0.1, a)), min(10.0, max(-10.0, b)), (aa, ab, bb)  # a > 0: the order of scores stays


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, x))))


def _labelled(rung: Rung, case: CaseClosed) -> Result:
    right = label_of(case)
    if right is None or case.request_id in rung.recent:
        return Change()
    learnt = learn(rung, case.signals, right)
    learnt = learnt.model_copy(update={"recent": (*rung.recent, case.request_id)[-REMEMBERED:]})
    if learnt.unpublished < PUBLISH_EVERY:
        return Change(record=learnt)
    return _publish(learnt, case.route, case.at_ms)


def _heeded(rung: Rung | None, command: CommandApply | CommandTrust, event: Event[Payload]) -> Result:
    """A command is done once; what may not be done at all, the judge says."""
    known = remembered(() if rung is None else rung.commands, event.id)
    if known is None or objection(command, event.key, None if rung is None else rung.tenant) is not None:
        return Change()
    done = _applied(rung, command) if isinstance(command, CommandApply) else _commanded(rung, command, event)
    after = rung if isinstance(done.record, Unchanged) else done.record
    return done if after is None else replace(done, record=after.model_copy(update={"commands": known}))


def _applied(rung: Rung | None, command: CommandApply) -> Result:
    settings = command.settings
    if rung is None:
        first = Rung(
            tenant=settings.tenant,
            champion=settings.champion,
            grader=settings.grader,
            threshold=settings.trust_threshold,
        )
        return _publish(first, command.route, command.at_ms)
    facts = {"tenant": settings.tenant, "champion": settings.champion, "grader": settings.grader}
    changed = [name for name in ("champion", "grader") if getattr(rung, name) != facts[name]]
    after = rung.model_copy(update=facts)
    if rung.mode == "GRANTED" and changed:
        after = after.model_copy(update={"mode": "SHADOW", "granted_by": "", "threshold": settings.trust_threshold})
        why = f"{' and '.join(changed)} changed by command.apply"
        return _publish(after, command.route, command.at_ms, _changed(rung, after, command, why, command.operator))
    if rung.mode == "SHADOW" and rung.threshold != settings.trust_threshold:
        after = after.model_copy(update={"threshold": settings.trust_threshold})
        return _publish(after, command.route, command.at_ms)
    return Change(record=after) if after != rung else Change()


def _commanded(rung: Rung | None, command: CommandTrust, event: Event[Payload]) -> Result:
    if rung is None:
        letter = DeadLetter(event.record, "unknown-route", f"route {command.route!r} was never applied")
        return Change(emits=(letter,))
    if command.action == "grant":
        threshold = rung.threshold if command.threshold is None else command.threshold
        update = {"mode": "GRANTED", "granted_by": command.operator, "threshold": threshold}
    else:
        update = {"mode": "SHADOW", "granted_by": ""}
    after = rung.model_copy(update=update)
    if (after.mode, after.threshold) == (rung.mode, rung.threshold):
        return Change()
    why = command.reason or f"command.trust {command.action}"
    return _publish(after, command.route, command.at_ms, _changed(rung, after, command, why, command.operator))


def _replaced(rung: Rung, told: ModelPromoted | ModelRolledBack) -> Result:
    """Another model serves: its scores mean something else. The map stays as a start and learns fast again."""
    champion = told.challenger if isinstance(told, ModelPromoted) else told.champion
    fresh = Rung(tenant=rung.tenant, champion=rung.champion, grader=rung.grader, threshold=rung.threshold)
    kept = {
        "version": rung.version,
        "weights": rung.weights,
        "bias": rung.bias,
        "mean": rung.mean,
        "spread": tuple(PRIOR_COUNT * width * width for width in rung.scale()),
        "recent": rung.recent,
    }
    after = fresh.model_copy(update=kept)
    if rung.mode == "SHADOW":
        return _publish(after, told.route, told.at_ms)
    return _publish(after, told.route, told.at_ms, _changed(rung, after, told, f"{told.TYPE}: {champion}", ""))


def _changed(
    before: Rung,
    after: Rung,
    cause: CommandApply | CommandTrust | ModelPromoted | ModelRolledBack,
    reason: str,
    by: str,
) -> Emit:
    payload = TrustChanged(
        tenant=after.tenant,
        at_ms=cause.at_ms,
        route=cause.route,
        before=_words(before),
        after=_words(after),
        reason=reason,
        by=by,
    )
    return Emit(payload, "changed")


def _words(rung: Rung) -> str:
    return f"GRANTED >= {rung.threshold:g}" if rung.mode == "GRANTED" else "SHADOW"


def _publish(rung: Rung, route: str, at_ms: int, *others: Emit) -> Result:
    version = rung.version + 1
    kept = rung.model_copy(update={"version": version, "unpublished": 0})
    policy = PolicyTrust(
        tenant=kept.tenant,
        at_ms=at_ms,
        version=version,
        route=route,
        scorer=f"logistic/{version}" if kept.labels else PRIOR_SCORER,
        weights=kept.weights,
        center=kept.mean,
        scale=kept.scale(),
        bias=kept.bias,
        platt_a=kept.platt_a,
        platt_b=kept.platt_b,
        threshold=kept.threshold,
        mode=kept.mode,
        labels=kept.labels,
        granted_by=kept.granted_by,
    )
    emits: tuple[Out, ...] = (Emit(policy, "policy"), *others)
    return Change(emits=emits, record=kept)
