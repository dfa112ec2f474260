"""The second, last decision about a request whose first answer was scored too low. Pure.

1. It comes always: where no stronger arm may answer, the first result is kept, and the decision carries its text.
2. Times are those of the first: neither deadline nor window begins anew.
3. It explores nothing and no shadow is ordered: what is learnt of the first choice is the first decision's.
4. The gate is asked again, for what was permitted may have ended. What it denies now goes to no model; a text that could not be scanned
   this time is tried again.
"""

from dataclasses import dataclass, replace

from agents.router.observed import Gated, Observed, Policies
from agents.router.route import CODE, WHOLE, deadline_of
from agents.router.weigh import Weighed, weigh, weighs_any
from agents.rules.answers import answer_of
from agents.rules.grading import grader_of
from schemas import ids
from schemas.errors import Unavailable
from schemas.events import (
    ArmChoice,
    DecisionRouted,
    RequestSubmitted,
    ResultCompleted,
    RoutingTerms,
    ScoreAssigned,
)
from schemas.policies import PolicyFleet
from schemas.routes import MODEL_GRADERS, Route
from streams.shapes import Emit, Event

ATTEMPT = 2


@dataclass(frozen=True, slots=True)
class First:
    """What was read again by its offset: the request, and the result that was scored too low."""

    request: RequestSubmitted
    result: ResultCompleted


def decide(event: Event[ScoreAssigned], first: First, policies: Policies, observed: Observed) -> tuple[Emit, ...]:
    """The decision. Raises `Unavailable` while route or fleet are not known."""
    score = event.data
    if policies.route is None or policies.fleet is None:
        raise Unavailable(f"route {score.route!r} has no policies yet", retry_after_s=0.5)
    settings, fleet = policies.route.data.settings, policies.fleet.data
    first = replace(first, request=_passed(first.request, settings, observed.gated))
    deadline = deadline_of(first.request, settings, score.assigned_at_ms)
    weighed = weigh(first.request, settings, fleet, policies, observed, deadline - observed.now_ms)
    stronger = [arm for arm in _stronger(settings, score.arm) if not weighed.masks.get(arm, ("unknown",))]
    decision = _decision(event, first, settings, fleet, policies, observed, weighed, stronger, deadline)
    return (Emit(decision, "second"),)


def _passed(request: RequestSubmitted, settings: Route, gated: Gated | None) -> RequestSubmitted:
    """The request as the gate lets it through."""
    if gated is None:
        if settings.has_gate:
            raise AssertionError("a request of a route with a gate is not decided on before the gate was asked")
        return request
    if gated.seen.scan != "whole":
        raise Unavailable(f"route {request.route!r}: the text could not be scanned again", retry_after_s=1.0)
    return gated.request


def _stronger(settings: Route, arm: str) -> tuple[str, ...]:
    """The arms behind this one in the cascade; all of them where it is none of its arms."""
    arms = settings.routing.cascade.arms
    return arms[arms.index(arm) + 1 :] if arm in arms else arms


def _decision(
    event: Event[ScoreAssigned],
    first: First,
    settings: Route,
    fleet: PolicyFleet,
    policies: Policies,
    observed: Observed,
    weighed: Weighed,
    stronger: list[str],
    deadline: int,
) -> DecisionRouted:
    score, request = event.data, first.request
    arm = stronger[0] if stronger else score.arm
    grader = grader_of(settings.grader, settings.grading.arm, weighed.masks)
    adapters = {row.arm: row.adapter for row in fleet.arms}
    identity = observed.session or event.id
    told = weighs_any(settings)
    return DecisionRouted(
        tenant=score.tenant,
        at_ms=observed.now_ms,
        route=score.route,
        request_id=score.request_id,
        request_partition=score.request_partition,
        request_offset=score.request_offset,
        request_at_ms=score.request_at_ms,
        messages=request.messages,
        arm=arm,
        chain=tuple(stronger[1:]),
        arms=tuple(
            ArmChoice(
                arm=name,
                adapter=adapters[name],
                propensity=WHOLE if name == arm else 0,
                masks=weighed.masks[name],
                terms=weighed.terms[name] if told else None,
            )
            for name in sorted(adapters)
        ),
        strategy="cascade",
        draw=ids.coin(identity, "arm"),
        draw_identity=identity,
        attempt=ATTEMPT,
        assigned_at_ms=observed.now_ms,
        window_end_ms=score.window_end_ms,
        deadline_at_ms=max(deadline, observed.now_ms),
        grader=grader,
        human_share=settings.grading.human_share if grader in MODEL_GRADERS else 0.0,
        double_share=settings.grading.double_share,
        session=observed.session,
        session_arm=observed.session_arm,
        subject=observed.subject,
        policies=policies.refs(score.route),
        store_seen=observed.store_seen,
        code=CODE,
        routing=RoutingTerms(
            strategy=settings.routing.strategy,
            sensitivity=weighed.sensitivity,
            complexity=weighed.complexity.tier,
            points=dict(weighed.complexity.why),
            lambda_cost=weighed.lambda_cost,
            preferred=arm,
            reserved_nano_usd=(weighed.terms[arm].cost_nano_usd or 0) if stronger and arm in weighed.terms else 0,
            tokens_in=weighed.tokens_in,
            observed=observed.told,
            notes=(f"score {score.score:.3f} is below {settings.routing.cascade.below:g}",),
        ),
        cached=None if stronger else answer_of(first.result, score.result_id, "kept"),
        kept_result="" if stronger else score.result_id,
        gate=None if observed.gated is None else observed.gated.seen,
        mask_map=observed.mask_map if stronger else first.result.mask_map,  # a kept text has its own placeholders
    )
