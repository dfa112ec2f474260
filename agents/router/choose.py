"""Which arm answers: shares of the strategy, the judge's rollout over them, the session's arm, the chain. Pure.

1. The logged propensity is the marginal over sessions: part · challenger + (1 - part) · strategy; the strategy's, where the route tries
   another policy, is again the marginal of both.
2. Raising a share, the judge's or a trial's, never moves a session or request back out of it.
3. The draw is the first 16 bits of SHA-256(session or event id ‖ `arm`) on the cumulative shares, arms sorted by id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agents.router import masks, rollout, strategy, thompson
from agents.router.observed import Observed
from agents.router.weigh import Weighed, reweighed
from schemas import ids
from schemas.events import RequestSubmitted
from schemas.policies import PolicyFleet, PolicyRouter
from schemas.routes import Route

WHOLE = strategy.WHOLE
CHAIN = 3
LEAST_COUNTED = 100  # requests of 24 hours that an emergency's share is at least taken of


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and of what. `shares`: marginal, every arm of the fleet. `masks`: after what was taken back. `trial`: the route's
    trial decided."""

    arm: str
    strategy: str
    shares: Mapping[str, int]
    masks: Mapping[str, tuple[str, ...]]
    chain: tuple[str, ...]
    preferred: str
    explored: bool
    emergency: bool
    relaxed: tuple[str, ...]
    bucket: int
    draw: int
    identity: str
    trial: bool = False


def drawn(shares: Mapping[str, int], draw: int) -> str:
    """The arm on which a draw of 16 bits falls, arms sorted by id. The shares sum to 65,536."""
    arms = sorted(shares)
    return arms[thompson.drawn([shares[arm] for arm in arms], draw)]


def choose(
    request: RequestSubmitted,
    event_id: str,
    route: Route,
    fleet: PolicyFleet,
    router: PolicyRouter | None,
    weighed: Weighed,
    observed: Observed,
) -> Choice | None:
    """The choice; None where no arm may answer."""
    settings = route.routing
    known = {arm.arm for arm in fleet.arms}
    among = [arm for arm in settings.chosen_from(fleet.champion) if arm in known]
    challenger = fleet.challenger
    served = among if challenger is None or not fleet.rollout_bp else [*among, challenger]
    told, relaxed = masks.relaxed({arm: weighed.masks[arm] for arm in served}, weighed.purse)
    all_masks = {arm: told.get(arm, weighed.masks[arm]) for arm in sorted(known)}
    identity = observed.session or event_id
    bucket = ids.bucket(fleet.experiment or fleet.route, observed.session or request.request_id)
    draw = ids.coin(identity, "arm")
    standing = _standing(request, fleet, router, weighed, observed)
    found = strategy.shares(
        settings,
        {arm: weighed.terms[arm] for arm in among},
        {arm: bool(all_masks[arm]) for arm in among},
        standing,
    )
    part = rollout.part_of(fleet.rollout_bp) if challenger is not None and not all_masks[challenger] else 0
    if found is None:  # a challenger serves its buckets, never in the place of all others
        return _emergency(settings.emergency.arm, weighed, route, observed, all_masks, bucket, draw, identity)
    led, trial, shares = found, False, dict(found.by_arm)
    beside = _beside(route, fleet, weighed, all_masks, standing)
    if beside is not None:
        shares = rollout.overlaid(shares, beside.by_arm, rollout.part_of(rollout.share_bp(route)), found.preferred)
        trial = rollout.decides(route, observed.session or request.request_id)
        led = beside if trial else found
    arm, why = drawn(led.by_arm, draw), f"trial/{led.why}" if trial else led.why
    if challenger is not None and part:
        shares = rollout.overlaid(shares, {challenger: WHOLE}, part, found.preferred)
        if bucket < fleet.rollout_bp:
            arm, why, led, trial = challenger, "rollout", found, False
    kept = observed.session_arm
    if route.sticky and kept is not None and shares.get(kept, 0) > 0:
        arm, why = kept, "session"
    explored = why not in ("rollout", "session") and arm in led.explores
    return Choice(
        arm=arm,
        strategy=why,
        shares={name: shares.get(name, 0) for name in sorted(known)},
        masks=all_masks,
        chain=_chain(*tried(route, weighed, trial), fleet, observed, all_masks, arm),
        preferred=led.preferred,
        explored=explored,
        emergency=False,
        relaxed=relaxed,
        bucket=bucket,
        draw=draw,
        identity=identity,
        trial=trial,
    )


def tried(route: Route, weighed: Weighed, trial: bool) -> tuple[Route, Weighed]:
    """The route and its arms' terms as the policy sees them that decided."""
    if not trial or route.trial is None:
        return route, weighed
    terms = reweighed(weighed.terms, route.trial, weighed.lambda_cost)
    return rollout.as_tried(route), replace(weighed, terms=terms)


def _beside(
    route: Route,
    fleet: PolicyFleet,
    weighed: Weighed,
    told: Mapping[str, tuple[str, ...]],
    standing: strategy.Standing,
) -> strategy.Shares | None:
    """What the route's trial would have of its arms, under the same masks; None without one, or where none of them may answer."""
    if route.trial is None or not rollout.share_bp(route):
        return None
    among = [arm for arm in route.trial.chosen_from(fleet.champion) if arm in told]
    terms = reweighed({arm: weighed.terms[arm] for arm in among}, route.trial, weighed.lambda_cost)
    return strategy.shares(route.trial, terms, {arm: bool(told[arm]) for arm in among}, standing)


def _standing(
    request: RequestSubmitted,
    fleet: PolicyFleet,
    router: PolicyRouter | None,
    weighed: Weighed,
    observed: Observed,
) -> strategy.Standing:
    """No exploration from `personal` up, after a session's first turn, in the middle of a conversation, or while frozen."""
    tier = weighed.complexity.tier
    if router is None:
        return strategy.Standing(fleet.champion)
    first = observed.session_arm is None and all(message.role != "assistant" for message in request.messages)
    explore = first and not router.frozen and masks.rank(weighed.sensitivity) < masks.rank("personal")
    return strategy.Standing(
        champion=fleet.champion,
        warm=router.warm and router.champion == fleet.champion,
        guarded=router.guarded,
        explore=explore,
        complex_tier=tier == "complex",
        held=router.preferred.get(tier),
    )


def _chain(
    route: Route,
    weighed: Weighed,
    fleet: PolicyFleet,
    observed: Observed,
    told: Mapping[str, tuple[str, ...]],
    arm: str,
) -> tuple[str, ...]:
    """Who is asked when the arm cannot answer: the champion and its predecessor, the other arms by worth, the emergency arm last."""
    spare = [name for name in (fleet.champion, fleet.rollback) if name is not None]
    among = [name for name in route.routing.chosen_from(fleet.champion) if name in told and name != arm]
    others = strategy.ranked(route.routing, weighed.terms, among, fleet.champion)
    order = [*others, *spare] if route.routing.arms else spare
    chain = [name for name in dict.fromkeys(order) if name in told and not told[name] and name != arm][:CHAIN]
    last = route.routing.emergency.arm
    if last and last not in (arm, *chain) and allowed(last, route, weighed, observed, told):
        chain.append(last)
    return tuple(chain)


def allowed(arm: str, route: Route, weighed: Weighed, observed: Observed, told: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the emergency arm may be asked: no mask, and its own ledger of 24 hours holds. Without the ledger it may not."""
    settings, seen = route.routing.emergency, observed.told
    cost = weighed.terms[arm].cost_nano_usd if arm in weighed.terms else None
    known = None not in (seen.emergency_count, seen.emergency_nano_usd, cost)
    if told.get(arm, ("not_live",)) or not known:
        return False
    most = int(settings.share * max(seen.requests_24h or 0, LEAST_COUNTED))
    within = (seen.emergency_nano_usd or 0) + (cost or 0) <= settings.nano_usd
    return within and (seen.emergency_count or 0) + 1 <= most


def _emergency(
    arm: str,
    weighed: Weighed,
    route: Route,
    observed: Observed,
    told: Mapping[str, tuple[str, ...]],
    bucket: int,
    draw: int,
    identity: str,
) -> Choice | None:
    if not arm or not allowed(arm, route, weighed, observed, told):
        return None
    shares = {name: WHOLE if name == arm else 0 for name in told}
    return Choice(arm, "emergency", shares, told, (), arm, False, True, (), bucket, draw, identity)
