"""The rules of trust: how a result is scored, and what becomes of the answer.

1. One answer per request: `answer.released` in the transaction of its score, or held and answered by `review.settled`.
2. Nothing is released past the window's end: from there the case settles it.
3. A shadow's result is scored and never released.
4. A route whose settings are not known is treated as gated, and so is one whose policy says `gate`.
5. Certified is what the ladder's own arm answers with z at or above the released rung. While a score releases anything, the audit's
   coin, which knows nothing of the score, draws the same share of every answer: these are judged blind, and they alone are `sampled`.
6. A first answer of a model that scores below the route's `routing.cascade.below` escalates: it is neither released nor reviewed, and a
   second, last decision follows. What the ladder or a grant lets out by its score never does: it was certified as it is, and an
   answer that the audit drew in its place must stay one of its kind. A second attempt never escalates, nor what comes too late for one.
7. What may go out by these rules still passes the gate (`release`). What that withholds nobody reviews, and no label comes of it.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from agents.rules.ai_mark import Origins
from agents.rules.grading import heads
from agents.trust.release import Gate, Held, let_out
from agents.trust.score import PRIOR_NAME, Z_LIMIT, Scorer, log1p_about, shown, z_of
from schemas.compliance import PolicyGate
from schemas.events import (
    AnswerReleased,
    AnswerWithheld,
    ResultCompleted,
    ResultFailed,
    ReviewSettled,
    ScoreAssigned,
)
from schemas.policies import SIGNALS, Policy, PolicyRef, PolicyRoute, PolicyTrust
from schemas.routes import Route
from streams.shapes import Emit, Event

NAME = "trust"
LOGPROB_FLOOR = -20.0


@dataclass(frozen=True, slots=True)
class Policies:
    """One synchronous read of the view. `gate`: the tenant's, where the route has a gate."""

    route: Event[PolicyRoute] | None
    trust: Event[PolicyTrust] | None
    gate: Event[PolicyGate] | None = None

    def refs(self) -> tuple[PolicyRef, ...]:
        """What a score names as its basis."""
        found: list[PolicyRef] = []
        for event in (self.route, self.trust, self.gate):
            if event is not None:
                policy: Policy = event.data
                found.append(PolicyRef(kind=policy.KIND, name=policy.name(), version=policy.version, id=event.id))
        return tuple(found)


def signals_of(result: ResultCompleted) -> tuple[float, ...]:
    """The values of `SIGNALS`. Without logprobs both of theirs are the floor: unknown is not trusted."""
    held = [min(0.0, max(LOGPROB_FLOOR, value)) for value in result.logprobs]
    mean = math.fsum(held) / len(held) if held else LOGPROB_FLOOR
    return (
        mean,
        min(held, default=LOGPROB_FLOOR),
        log1p_about(result.tokens_out),
        1.0 if result.finish_reason == "stop" else 0.0,
        0.0 if result.agreement is None else result.agreement,
        0.0 if result.agreement is None else 1.0,
    )


def usable(policy: PolicyTrust | None) -> PolicyTrust | None:
    """The policy where it scores by today's signals. By any other nothing is scored, and nothing is released on its word."""
    known = policy is not None and policy.signals == SIGNALS and len(policy.weights) == len(SIGNALS)
    return policy if known else None


def scored(result: ResultCompleted, policy: PolicyTrust | None) -> tuple[tuple[float, ...], float, float]:
    """(signals, z, score) of a result under the policy, or under the prior where there is none that can be used."""
    signals = signals_of(result)
    if policy is None or usable(policy) is None:
        z = Scorer().z(signals)
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
    escalate: bool = False

    @property
    def word(self) -> Literal["release", "hold", "escalate"]:
        """As the score says it."""
        return "escalate" if self.escalate else "release" if self.release else "hold"


@dataclass(frozen=True, slots=True)
class Passed:
    """What a score lets out by itself. `certified`: by the ladder; else an operator's grant says so."""

    by_score: bool = False
    certified: bool = False


def act(result: ResultCompleted, z: float, score: float, policies: Policies, now_ms: int) -> Action:
    """The action for a completed result. Coins are of the request id: every copy of this agent throws the same."""
    if result.shadow or not result.final:
        return Action(False)
    in_time = now_ms <= result.window_end_ms
    settings = policies.route.data.settings if policies.route else None
    trust = policies.trust.data if policies.trust else None
    if settings is None:
        return Action(False, review=in_time, sampled=True, label_propensity=1.0)
    gated = is_gated(settings, trust)
    trust = usable(trust)
    passed = _passed(result, z, score, trust, gated=gated)
    if not passed.by_score and escalates(result, score, settings, now_ms):
        return Action(False, escalate=True)
    if trust is not None and (trust.mode == "ENFORCE" or (trust.mode == "GRANTED" and gated)):
        return _released_on_score(result, passed, settings, gated=gated, in_time=in_time)
    if gated:
        return Action(False, review=in_time, sampled=True, label_propensity=1.0)
    picked = heads(result.request_id, "review", settings.review_share)
    return Action(in_time, review=picked and in_time, sampled=picked, label_propensity=settings.review_share)


def escalates(result: ResultCompleted, score: float, settings: Route, now_ms: int) -> bool:
    """Whether a stronger arm shall answer: a model's first answer, scored too low, within the route's deadline and the window."""
    first = result.attempt == 1 and result.source == "model"
    until_ms = min(result.window_end_ms, result.assigned_at_ms + int(settings.deadline_s * 1000))
    return first and score < settings.routing.cascade.below and now_ms < until_ms


def is_gated(settings: Route | None, trust: PolicyTrust | None) -> bool:
    """Whether a person decides first, unless a score releases."""
    return settings is None or settings.release == "gated" or (trust is not None and trust.gate)


def _passed(result: ResultCompleted, z: float, score: float, trust: PolicyTrust | None, *, gated: bool) -> Passed:
    """What the ladder certified, or an operator granted where a person would decide first."""
    if trust is None:
        return Passed()
    if trust.mode == "ENFORCE":
        certified = trust.floor is not None and z >= trust.floor and result.arm == trust.arm
        return Passed(certified, certified)
    return Passed(trust.mode == "GRANTED" and gated and score >= trust.threshold)


def _released_on_score(
    result: ResultCompleted, passed: Passed, settings: Route, *, gated: bool, in_time: bool
) -> Action:
    """ENFORCE or GRANTED. The audit's coin is thrown for every answer alike, so what it draws is a random part of every rung."""
    share = settings.trust.audit_share
    audited = heads(result.request_id, "audit", share)
    reviewed = audited
    if not passed.by_score:
        reviewed = audited or gated or heads(result.request_id, "review", settings.review_share)
    release = in_time and (not gated or (passed.by_score and not audited))
    return Action(release, passed.certified, review=reviewed and in_time, sampled=audited, label_propensity=share)


def may_go_out(result: ResultCompleted, policies: Policies, now_ms: int) -> bool:
    """Whether the score lets the answer out: then its text is to be looked at."""
    _, z, score = scored(result, policies.trust.data if policies.trust else None)
    return act(result, z, score, policies, now_ms).release


def decide(
    event: Event[ResultCompleted] | Event[ResultFailed], policies: Policies, now_ms: int, held: Held | None = None
) -> tuple[Emit, ...]:
    """The score of a result, and with it the answer where it is released. A failure that is not final says nothing.

    `held`: what was found out of the answer's text; there where it `may_go_out`.
    """
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
        action = act(result, z, score, policies, now_ms)
    answer: AnswerReleased | AnswerWithheld | None = None
    if action.release and isinstance(result, ResultCompleted):
        if held is None:
            raise ValueError(f"the answer of request {result.request_id} may go out, and nobody looked at it")
        answer = _by_score(event.id, result, score, policies, now_ms, held, certified=action.certified)
        if isinstance(answer, AnswerWithheld):
            action = replace(action, review=False, sampled=False, label_propensity=0.0)
    assigned = ScoreAssigned(
        tenant=result.tenant,
        at_ms=now_ms,
        route=result.route,
        request_id=result.request_id,
        request_partition=result.request_partition,
        request_offset=result.request_offset,
        request_at_ms=result.request_at_ms,
        subject=result.subject,
        arm=result.arm,
        shadow=result.shadow,
        decision_id=result.decision_id,
        result_id=event.id,
        failed=isinstance(result, ResultFailed),
        action=action.word,
        score=score,
        z=z,
        signals=signals,
        scorer=PRIOR_NAME if trust is None or usable(trust) is None else trust.scorer,
        threshold=trust.threshold if trust else (settings.trust_threshold if settings else 1.0),
        certified=action.certified,
        review=action.review,
        sampled=action.sampled,
        label_propensity=action.label_propensity,
        gated=is_gated(settings, trust),
        assigned_at_ms=result.assigned_at_ms,
        window_end_ms=result.window_end_ms,
        policies=policies.refs(),
        attempt=result.attempt,
        result_partition=event.place.partition if action.escalate else None,
        result_offset=event.place.offset if action.escalate else None,
        withheld=isinstance(answer, AnswerWithheld),
    )
    # Shadow and served results of one request have different causes, so these identities never meet.
    return (Emit(assigned, "score"),) if answer is None else (Emit(assigned, "score"), Emit(answer, "answer"))


def _by_score(
    result_id: str,
    result: ResultCompleted,
    score: float,
    policies: Policies,
    now_ms: int,
    held: Held,
    *,
    certified: bool,
) -> AnswerReleased | AnswerWithheld:
    """The answer that its score lets out, as far as the gate does."""
    answer = AnswerReleased(
        tenant=result.tenant,
        at_ms=now_ms,
        route=result.route,
        request_id=result.request_id,
        request_partition=result.request_partition,
        request_offset=result.request_offset,
        request_at_ms=result.request_at_ms,
        subject=result.subject,
        text=result.text,
        arm=result.arm,
        score=score,
        certified=certified,
        reviewed=False,
        decision_id=result.decision_id,
        result_id=result_id,
        latency_ms=_latency(now_ms, result.request_at_ms or result.assigned_at_ms),
    )
    origins = Origins(
        tenant=result.tenant,
        request_id=result.request_id,
        result_id=result_id,
        arm=result.arm,
        adapter=result.adapter,
        by="model",
        review="none",
    )
    return let_out(answer, origins, Gate.of(policies.route, policies.gate), held)


def settle(event: Event[ReviewSettled], policies: Policies, now_ms: int, held: Held | None = None) -> tuple[Emit, ...]:
    """The one answer of a request that was held, as its case settled it. `held`: there where it is to be released."""
    told = event.data
    if told.outcome == "released":
        if held is None:
            raise ValueError(f"the answer of request {told.request_id} may go out, and nobody looked at it")
        released = AnswerReleased(
            tenant=told.tenant,
            at_ms=now_ms,
            route=told.route,
            request_id=told.request_id,
            request_partition=told.request_partition,
            request_offset=told.request_offset,
            request_at_ms=max(0, told.request_at_ms),
            subject=told.subject,
            text=told.text,
            arm=told.arm,
            score=told.score,
            certified=False,
            reviewed=told.reason in ("approved", "corrected"),
            decision_id=told.decision_id,
            result_id=told.result_id,
            latency_ms=_latency(now_ms, told.request_at_ms or now_ms),
            policies=policies.refs(),
        )
        origins = Origins(
            tenant=told.tenant,
            request_id=told.request_id,
            result_id=told.result_id,
            arm=told.arm,
            adapter=told.adapter,
            by="person" if told.reason == "corrected" else "model",
            review="approved" if told.reason == "approved" else "none",
        )
        return (Emit(let_out(released, origins, Gate.of(policies.route, policies.gate), held), "answer"),)
    withheld = AnswerWithheld(
        tenant=told.tenant,
        at_ms=now_ms,
        route=told.route,
        request_id=told.request_id,
        request_partition=told.request_partition,
        request_offset=told.request_offset,
        request_at_ms=max(0, told.request_at_ms),
        subject=told.subject,
        reason="rejected" if told.reason in ("approved", "corrected") else told.reason,
        detail=told.detail,
        decision_id=told.decision_id,
        policies=policies.refs(),
    )
    return (Emit(withheld, "answer"),)


def _latency(now_ms: int, since_ms: int) -> float:
    return float(max(0, now_ms - since_ms))
