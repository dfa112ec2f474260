"""The rules of trust: how a result is scored, and what becomes of the answer.

1. One answer per request: `answer.released` in the transaction of its score, or held and answered by `review.settled`.
2. Nothing is released past the window's end: from there the case settles it.
3. A shadow's result is scored and never released.
4. A route whose settings are not known is treated as gated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from schemas import ids
from schemas.events import (
    AnswerReleased,
    AnswerWithheld,
    ResultCompleted,
    ResultFailed,
    ReviewSettled,
    ScoreAssigned,
)
from schemas.policies import SIGNALS, Policy, PolicyRef, PolicyRoute, PolicyTrust
from streams.shapes import Emit, Event

NAME = "trust"
AUDIT_SHARE = 0.05
LOGPROB_FLOOR = -20.0
Z_LIMIT = 30.0
PRIOR_SCORER = "prior"
PRIOR_WEIGHTS = (1.5, 0.5, -0.1, 0.5)
PRIOR_CENTER = (-0.3, -1.5, 1.5, 0.9)
PRIOR_SCALE = (0.4, 1.5, 1.0, 0.4)


@dataclass(frozen=True, slots=True)
class Policies:
    """One synchronous read of the view."""

    route: Event[PolicyRoute] | None
    trust: Event[PolicyTrust] | None

    def refs(self) -> tuple[PolicyRef, ...]:
        """What a score names as its basis."""
        found: list[PolicyRef] = []
        for event in (self.route, self.trust):
            if event is not None:
                policy: Policy = event.data
                found.append(PolicyRef(kind=policy.KIND, name=policy.name(), version=policy.version, id=event.id))
        return tuple(found)


def signals_of(result: ResultCompleted) -> tuple[float, ...]:
    """The values of `SIGNALS`. Without logprobs both of theirs are the floor: unknown is not trusted."""
    held = [min(0.0, max(LOGPROB_FLOOR, value)) for value in result.logprobs]
    mean = math.fsum(held) / len(held) if held else LOGPROB_FLOOR
    low = min(held, default=LOGPROB_FLOOR)
    return (mean, low, math.log1p(min(result.tokens_out, 1 << 53)), 1.0 if result.finish_reason == "stop" else 0.0)


def z_of(
    signals: Sequence[float], weights: Sequence[float], center: Sequence[float], scale: Sequence[float], bias: float
) -> float:
    """The raw score: a weighted sum of the standardised signals, kept within ±30."""
    rows = zip(signals, weights, center or [0.0] * len(weights), scale or [1.0] * len(weights), strict=True)
    z = bias + math.fsum(weight * (signal - middle) / width for signal, weight, middle, width in rows)
    return min(Z_LIMIT, max(-Z_LIMIT, z))


def shown(z: float, platt_a: float, platt_b: float) -> float:
    """The probability that is shown: the logistic function of platt_a·z + platt_b."""
    x = min(700.0, max(-700.0, platt_a * z + platt_b))
    return 1.0 / (1.0 + math.exp(-x))


def scored(result: ResultCompleted, policy: PolicyTrust | None) -> tuple[tuple[float, ...], float, float]:
    """(signals, z, score) of a result under the policy, or under the prior where there is none that can be used."""
    signals = signals_of(result)
    if policy is None or policy.signals != SIGNALS or len(policy.weights) != len(SIGNALS):
        z = z_of(signals, PRIOR_WEIGHTS, PRIOR_CENTER, PRIOR_SCALE, 0.0)
        return signals, z, shown(z, 1.0, 0.0)
    z = z_of(signals, policy.weights, policy.center, policy.scale, policy.bias)
    return signals, z, shown(z, policy.platt_a, policy.platt_b)


@dataclass(frozen=True, slots=True)
class Action:
    """What becomes of an answer. `label_propensity`: how probable it was that somebody judges it."""

    release: bool
    certified: bool = False
    review: bool = False
    sampled: bool = False
    label_propensity: float = 0.0


def act(result: ResultCompleted, score: float, policies: Policies, now_ms: int) -> Action:
    """The action for a completed result. Coins are of the request id: every copy of this agent throws the same."""
    if result.shadow or not result.final:
        return Action(False)
    in_time = now_ms <= result.window_end_ms
    settings = policies.route.data.settings if policies.route else None
    if settings is not None and settings.release == "immediate":
        picked = heads(result.request_id, "review", settings.review_share)
        return Action(in_time, review=picked and in_time, sampled=picked, label_propensity=settings.review_share)
    trust = policies.trust.data if policies.trust else None
    if settings is not None and trust is not None and trust.mode == "GRANTED" and score >= trust.threshold:
        audited = heads(result.request_id, "audit", AUDIT_SHARE)
        if audited or not in_time:
            return Action(False, True, review=in_time, sampled=audited, label_propensity=AUDIT_SHARE)
        return Action(True, True, label_propensity=AUDIT_SHARE)
    return Action(False, review=in_time, sampled=True, label_propensity=1.0)


def heads(identity: str, label: str, share: float) -> bool:
    """A hash coin that shows heads for `share` of the identities."""
    return ids.coin(identity, label) < share * 65_536


def decide(event: Event[ResultCompleted] | Event[ResultFailed], policies: Policies, now_ms: int) -> tuple[Emit, ...]:
    """The score of a result, and with it the answer where it is released. A failure that is not final says nothing."""
    result = event.data
    trust = policies.trust.data if policies.trust else None
    settings = policies.route.data.settings if policies.route else None
    signals: tuple[float, ...] = ()
    z, score, action = -Z_LIMIT, 0.0, Action(False)
    if isinstance(result, ResultFailed):
        if not result.final:
            return ()
    else:
        signals, z, score = scored(result, trust)
        action = act(result, score, policies, now_ms)
    assigned = ScoreAssigned(
        tenant=result.tenant,
        at_ms=now_ms,
        route=result.route,
        request_id=result.request_id,
        request_partition=result.request_partition,
        request_offset=result.request_offset,
        request_at_ms=result.request_at_ms,
        arm=result.arm,
        shadow=result.shadow,
        decision_id=result.decision_id,
        result_id=event.id,
        failed=isinstance(result, ResultFailed),
        action="release" if action.release else "hold",
        score=score,
        z=z,
        signals=signals,
        scorer=PRIOR_SCORER if trust is None else trust.scorer,
        threshold=trust.threshold if trust else (settings.trust_threshold if settings else 1.0),
        certified=action.certified,
        review=action.review,
        sampled=action.sampled,
        label_propensity=action.label_propensity,
        gated=settings is None or settings.release == "gated",
        assigned_at_ms=result.assigned_at_ms,
        window_end_ms=result.window_end_ms,
        policies=policies.refs(),
    )
    # Shadow and served results of one request have different causes, so these identities never meet.
    if isinstance(result, ResultFailed) or not action.release:
        return (Emit(assigned, "score"),)
    answer = AnswerReleased(
        tenant=result.tenant,
        at_ms=now_ms,
        route=result.route,
        request_id=result.request_id,
        request_partition=result.request_partition,
        request_offset=result.request_offset,
        request_at_ms=result.request_at_ms,
        text=result.text,
        arm=result.arm,
        score=score,
        certified=action.certified,
        reviewed=False,
        decision_id=result.decision_id,
        result_id=event.id,
        latency_ms=_latency(now_ms, result.request_at_ms or result.assigned_at_ms),
    )
    return (Emit(assigned, "score"), Emit(answer, "answer"))


def settle(event: Event[ReviewSettled], now_ms: int) -> tuple[Emit, ...]:
    """The one answer of a request that was held, as its case settled it."""
    told = event.data
    if told.outcome == "released":
        released = AnswerReleased(
            tenant=told.tenant,
            at_ms=now_ms,
            route=told.route,
            request_id=told.request_id,
            request_partition=told.request_partition,
            request_offset=told.request_offset,
            request_at_ms=max(0, told.request_at_ms),
            text=told.text,
            arm=told.arm,
            score=told.score,
            certified=False,
            reviewed=told.reason in ("approved", "corrected"),
            decision_id=told.decision_id,
            result_id=told.result_id,
            latency_ms=_latency(now_ms, told.request_at_ms or now_ms),
        )
        return (Emit(released, "answer"),)
    withheld = AnswerWithheld(
        tenant=told.tenant,
        at_ms=now_ms,
        route=told.route,
        request_id=told.request_id,
        request_partition=told.request_partition,
        request_offset=told.request_offset,
        request_at_ms=max(0, told.request_at_ms),
        reason="rejected" if told.reason in ("approved", "corrected") else told.reason,
        detail=told.detail,
        decision_id=told.decision_id,
    )
    return (Emit(withheld, "answer"),)


def _latency(now_ms: int, since_ms: int) -> float:
    return float(max(0, now_ms - since_ms))
