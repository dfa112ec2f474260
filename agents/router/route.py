"""The write-ahead decision: what was chosen, with all that recomputes it, and the shadows' orders. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from agents.router import strategy
from agents.router.choose import Choice, tried
from agents.router.observed import Hit, Observed, Policies
from agents.router.trials import checked
from agents.router.weigh import Weighed, period_of, weighs_any
from agents.rules.grading import grader_of, heads
from schemas import ids
from schemas.events import (
    ArmChoice,
    CachedAnswer,
    DecisionRouted,
    RequestSubmitted,
    RoutingTerms,
    ShadowOrdered,
)
from schemas.policies import PolicyFleet, PolicyRef
from schemas.routes import MODEL_GRADERS, Route
from streams.shapes import Emit, Event

NAME = "router"
CODE = "router/2"
WHOLE = strategy.WHOLE


def deadline_of(request: RequestSubmitted, settings: Route, now_ms: int) -> int:
    """The route's, or the request's own where that is nearer."""
    deadline = now_ms + int(settings.deadline_s * 1000)
    return deadline if request.deadline_ms is None else min(deadline, request.at_ms + request.deadline_ms)


def emits(
    event: Event[RequestSubmitted],
    settings: Route,
    fleet: PolicyFleet,
    policies: Policies,
    observed: Observed,
    weighed: Weighed,
    choice: Choice,
) -> tuple[Emit, ...]:
    """The decision, and an order for each shadow."""
    settings, weighed = tried(settings, weighed, choice.trial)
    hit = _hit(settings, fleet, observed, choice)
    if hit is not None:
        shares = {arm: WHOLE if arm == hit.arm else 0 for arm in choice.shares}
        choice = _cached(choice, hit.arm, shares)
    decision = _decision(event, settings, fleet, policies, observed, weighed, choice, hit)
    decision_id = ids.derive(event.id, NAME, "decision")
    orders = [Emit(_order(decision, name, decision_id), f"shadow/{name}") for name in decision.shadows]
    if decision.cached is not None and decision.cached.kind == "semantic" and checked(event.id):
        # Asked again beside the answer that was given. It is no shadow of the decision: nobody waits for it, no pair is made.
        check = _order(decision, decision.arm, decision_id).model_copy(update={"trial": decision.cached})
        orders.append(Emit(check, "check"))
    return (Emit(decision, "decision"), *orders)


def _hit(settings: Route, fleet: PolicyFleet, observed: Observed, choice: Choice) -> Hit | None:
    """What the cache has, of an arm that might have been drawn: the champion's first."""
    among = settings.routing.chosen_from(fleet.champion)
    served = (*observed.hits, *(Hit(like.arm, like.answer) for like in observed.likes if like.serve))
    usable = [hit for hit in served if hit.arm in among and not choice.masks.get(hit.arm, ("unknown",))]
    return min(usable, key=lambda hit: (hit.arm != choice.arm, hit.arm != fleet.champion, hit.arm), default=None)


def _cached(choice: Choice, arm: str, shares: dict[str, int]) -> Choice:
    return replace(choice, arm=arm, strategy="cache", shares=shares, chain=(), explored=False, emergency=False)


def _shadows(
    event: Event[RequestSubmitted], settings: Route, fleet: PolicyFleet, policies: Policies, choice: Choice
) -> tuple[str, ...]:
    """Who answers too: the judge's pair by its coin; where nobody is judged, now and then every arm that is not learnt yet."""
    beside: Sequence[str | None] = (fleet.champion, *(fleet.shadows or (fleet.challenger,)))
    chance = fleet.shadow_bp * WHOLE // 10_000
    if ids.coin(event.id, "shadow") >= chance:
        beside = ()
    router = None if policies.router is None else policies.router.data
    if (
        not fleet.arenas
        and settings.routing.arms
        and (router is None or not router.warm)
        and (heads(event.id, "warm", settings.routing.warm_share))
    ):
        beside = (*beside, *settings.routing.chosen_from(fleet.champion))
    others = dict.fromkeys(name for name in beside if name is not None and name != choice.arm)
    return tuple(name for name in others if name in choice.masks and not choice.masks[name])


def _decision(
    event: Event[RequestSubmitted],
    settings: Route,
    fleet: PolicyFleet,
    policies: Policies,
    observed: Observed,
    weighed: Weighed,
    choice: Choice,
    hit: Hit | None,
) -> DecisionRouted:
    request, now = event.data, observed.now_ms
    grader = grader_of(settings.grader, settings.grading.arm, choice.masks)
    adapters = {row.arm: row.adapter for row in fleet.arms}
    told = weighs_any(settings)
    return DecisionRouted(
        tenant=request.tenant,
        at_ms=now,
        route=request.route,
        request_id=request.request_id,
        request_partition=event.place.partition,
        request_offset=event.place.offset,
        request_at_ms=request.at_ms,
        messages=request.messages,
        arm=choice.arm,
        chain=choice.chain,
        shadows=() if hit is not None else _shadows(event, settings, fleet, policies, choice),
        second_arm=_second(settings, choice),
        arms=tuple(
            ArmChoice(
                arm=name,
                adapter=adapters[name],
                propensity=share,
                masks=choice.masks[name],
                terms=weighed.terms[name] if told else None,
            )
            for name, share in choice.shares.items()
        ),
        strategy=choice.strategy,
        draw=choice.draw,
        draw_identity=choice.identity,
        experiment=fleet.experiment,
        arenas=fleet.arenas,
        bucket=choice.bucket,
        rollout_bp=fleet.rollout_bp,
        shadow_probability=fleet.shadow_bp * WHOLE // 10_000,
        assigned_at_ms=now,
        window_end_ms=now + int(settings.window_s * 1000),
        deadline_at_ms=deadline_of(request, settings, now),
        grader=grader,
        human_share=settings.grading.human_share if grader in MODEL_GRADERS else 0.0,
        double_share=settings.grading.double_share,
        session=observed.session,
        session_arm=observed.session_arm,
        subject=observed.subject,
        policies=policies.refs(request.route),
        store_seen=observed.store_seen,
        code=CODE,
        routing=_terms(settings, policies, observed, weighed, choice) if told else None,
        cached=None if hit is None else hit.answer,
        cache_key="" if hit is not None else observed.keys.get(choice.arm, ""),
        hedges=_hedges(settings, choice) if hit is None else (),
        trial=None if hit is not None else _trial(observed, choice),
        gate=None if observed.gated is None else observed.gated.seen,
        mask_map=observed.mask_map,
    )


def _trial(observed: Observed, choice: Choice) -> CachedAnswer | None:
    """A like question's answer of the arm that answers afresh: whether both are the same is counted."""
    return next((like.answer for like in observed.likes if like.arm == choice.arm and not like.serve), None)


def _second(settings: Route, choice: Choice) -> str | None:
    """The arm that is asked only to see whether it agrees."""
    second = settings.trust.second_arm
    return None if second is None or second == choice.arm or choice.masks.get(second, ("unknown",)) else second


def _hedges(settings: Route, choice: Choice) -> tuple[str, ...]:
    """Who may be asked too when the answer is late: arms of the chain that are as private as the one chosen."""
    if settings.routing.hedge_share <= 0:
        return ()
    ours = {arm.arm: arm.ours for arm in settings.arms}
    return tuple(name for name in choice.chain if ours.get(name) == ours.get(choice.arm))[:1]


def _terms(settings: Route, policies: Policies, observed: Observed, weighed: Weighed, choice: Choice) -> RoutingTerms:
    router = None if policies.router is None else policies.router.data
    return RoutingTerms(
        strategy=settings.routing.strategy,
        sensitivity=weighed.sensitivity,
        complexity=weighed.complexity.tier,
        points=dict(weighed.complexity.why),
        basis=settings.routing.basis,
        features=weighed.features,
        lambda_cost=weighed.lambda_cost,
        preferred=choice.preferred,
        explored=choice.explored,
        emergency=choice.emergency,
        emergency_arm=_emergency_arm(settings, choice),
        relaxed=choice.relaxed,
        period=period_of(settings.routing, observed.now_ms),
        reserved_nano_usd=weighed.terms[choice.arm].cost_nano_usd or 0,
        tokens_in=weighed.tokens_in,
        observed=observed.told,
        warm=router is not None and router.warm,
        frozen=router is not None and router.frozen,
        guarded=router is not None and router.guarded,
        notes=_notes(policies, choice),
        trial=choice.trial,
    )


def _notes(policies: Policies, choice: Choice) -> tuple[str, ...]:
    """What else had a part in it, in words."""
    refused = "" if policies.model is None else policies.model.refused
    found = (f"the learner's policy is not used: {refused}",) if refused else ()
    if choice.relaxed:
        found = (*found, f"no arm was left: {', '.join(choice.relaxed)} taken back")
    return found


def _emergency_arm(settings: Route, choice: Choice) -> str:
    arm = settings.routing.emergency.arm
    return arm if arm and arm in (choice.arm, *choice.chain) else ""


def _order(decision: DecisionRouted, arm: str, decision_id: str) -> ShadowOrdered:
    refs: tuple[PolicyRef, ...] = decision.policies
    terms = next((row.terms for row in decision.arms if row.arm == arm), None)
    return ShadowOrdered(
        tenant=decision.tenant,
        at_ms=decision.at_ms,
        route=decision.route,
        request_id=decision.request_id,
        request_partition=decision.request_partition,
        request_offset=decision.request_offset,
        request_at_ms=decision.request_at_ms,
        messages=decision.messages,
        arm=arm,
        decision_id=decision_id,
        deadline_at_ms=decision.deadline_at_ms,
        assigned_at_ms=decision.assigned_at_ms,
        window_end_ms=decision.window_end_ms,
        policies=refs,
        terms=terms,
        period=None if decision.routing is None else decision.routing.period,
        subject=decision.subject,
    )
