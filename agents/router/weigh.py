"""What each arm is worth to a request: masks and terms, from policies and what was observed. Pure, in integers."""

from collections.abc import Mapping
from dataclasses import dataclass

from agents.router import features, model, pacer
from agents.router.masks import NOBODY, Purse, Wish, loads, masks_of, rank
from agents.router.model import Estimate
from agents.router.observed import Observed, Policies
from agents.rules.prices import Tariff, cost_nano, price_at
from schemas.events import ArmTerms, RequestSubmitted
from schemas.policies import PolicyFleet, RouterArm
from schemas.routes import Arm, Route
from schemas.routing import RoutingSettings, Sensitivity

MICRO = 1_000_000
CHARS_PER_TOKEN = 4  # until the learner has counted
MOST_MS = 3_600_000
TOO_MUCH = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Weighed:
    """A request as the router sees it, and every arm of the fleet beside it."""

    sensitivity: Sensitivity
    complexity: features.Complexity
    tokens_in: int
    features: str
    lambda_cost: int
    masks: Mapping[str, tuple[str, ...]]
    terms: Mapping[str, ArmTerms]
    purse: Purse


def weighs(settings: RoutingSettings) -> bool:
    """Whether the route has anything to weigh: if not, a decision says nothing of it."""
    some = (settings.arms, settings.arm, settings.budget.nano_usd, settings.regions, settings.prices)
    quota = settings.quota
    some = (*some, quota.requests_per_s, quota.tokens_per_min)
    return any(some) or settings.cache.exact or settings.cache.semantic or settings.strategy != "fixed"


def weighs_any(route: Route) -> bool:
    """Whether the route, or the policy it tries, has anything to weigh."""
    return weighs(route.routing) or (route.trial is not None and weighs(route.trial))


def sensitivity_of(request: RequestSubmitted, settings: RoutingSettings) -> Sensitivity:
    """The higher of the route's and the request's own."""
    return max(settings.sensitivity, request.sensitivity or "public", key=rank)


def period_of(settings: RoutingSettings, now_ms: int) -> int | None:
    """The number of the budget's period; None without a budget."""
    return None if settings.budget.nano_usd is None else settings.budget.period_at(now_ms)


def weigh(
    request: RequestSubmitted, route: Route, fleet: PolicyFleet, policies: Policies, observed: Observed, left_ms: int
) -> Weighed:
    """Every arm's masks and terms. Predictions need a model; a request from `personal` up leaves no features behind."""
    settings, router = route.routing, policies.router
    sensitivity = sensitivity_of(request, settings)
    reading = features.read(model.text_of(request.messages))
    complexity = features.complexity_of(reading, len(request.messages))
    chars = sum(len(message.content) for message in request.messages)
    estimates: Mapping[str, Estimate] = {}
    told = ""
    if weighs_any(route) and policies.model is not None:
        x = policies.model.basis.vector_of(reading)
        estimates = policies.model.predict(x)
        told = model.encoded(x) if rank(sensitivity) < rank("personal") else ""
    purse = _purse(settings, observed)
    price = _lambda(settings, 0 if router is None else router.data.lambda_cost, observed)
    wanted = {
        arm.arm: model.row_of(None if router is None else router.data, arm.arm, arm.adapter) for arm in fleet.arms
    }
    counted = [row.tokens_in_milli for row in wanted.values() if row is not None and row.tokens_in_milli]
    tokens_in = max(1, chars * max(counted) // 1000 if counted else -(-chars // CHARS_PER_TOKEN))
    wish = Wish(sensitivity, request.needs, tokens_in, left_ms, None if observed.gated is None else observed.gated.arms)
    by_arm = loads(request.route, policies.live, observed.now_ms)
    terms: dict[str, ArmTerms] = {}
    found: dict[str, tuple[str, ...]] = {}
    for arm in sorted(fleet.arms, key=lambda arm: arm.arm):
        own = _terms(arm, wanted[arm.arm], estimates.get(arm.arm), settings, tokens_in, price, observed.now_ms)
        terms[arm.arm] = own
        found[arm.arm] = masks_of(
            arm,
            wish,
            settings,
            by_arm.get(arm.arm, NOBODY),
            latency_ms=own.latency_ms,
            cost=own.cost_nano_usd,
            purse=purse,
        )
    return Weighed(sensitivity, complexity, tokens_in, told, price, found, terms, purse)


def _terms(
    arm: Arm,
    row: RouterArm | None,
    estimate: Estimate | None,
    settings: RoutingSettings,
    tokens_in: int,
    price: int,
    now_ms: int,
) -> ArmTerms:
    tariff = tariff_of(arm, settings, now_ms)
    latency = row.latency_ms if row is not None and row.latency_ms else arm.expected_ms
    cost = None if tariff is None else expected_nano(arm, row, tariff, tokens_in)
    quality = None if estimate is None else estimate.quality
    cost_term, late, score = worth(settings, price, quality, cost, latency)
    return ArmTerms(
        quality=quality,
        deviation=None if estimate is None else estimate.deviation,
        cost_nano_usd=cost,
        latency_ms=min(latency, MOST_MS),
        cost_term=cost_term,
        latency_term=late,
        score=score,
        nano_usd_in=0 if tariff is None else tariff.nano_usd_in,
        nano_usd_cached=0 if tariff is None else tariff.nano_usd_cached,
        nano_usd_out=0 if tariff is None else tariff.nano_usd_out,
        nano_usd_engine_s=0 if tariff is None else tariff.nano_usd_engine_s,
    )


def expected_nano(arm: Arm, row: RouterArm | None, tariff: Tariff, tokens_in: int) -> int:
    """What an answer of the arm would cost: with the tokens and the engine's time that its answers take."""
    tokens_out = row.tokens_out if row is not None and row.tokens_out else arm.max_tokens
    engine_ms = row.engine_ms if row is not None else 0
    return cost_nano(tariff, tokens_in, 0, min(tokens_out, arm.max_tokens), engine_ms)


def worth(
    settings: RoutingSettings, price: int, quality: int | None, cost: int | None, latency_ms: int
) -> tuple[int, int, int | None]:
    """(cost term, latency term, score): score = quality - λ·cost ÷ budget - weight·(latency above the SLO) ÷ SLO."""
    budget = settings.budget.nano_usd
    cost_term = 0 if budget is None or cost is None else min(price * cost // budget, TOO_MUCH)
    weight = round(settings.latency_weight * MICRO)
    late = 0 if settings.slo_ms is None else min(pacer.late(latency_ms, settings.slo_ms, weight), TOO_MUCH)
    return cost_term, late, None if quality is None else quality - cost_term - late


def reweighed(terms: Mapping[str, ArmTerms], settings: RoutingSettings, price: int) -> dict[str, ArmTerms]:
    """The same predictions and costs as another policy of the route compares them."""
    found: dict[str, ArmTerms] = {}
    for arm, row in terms.items():
        cost_term, late, score = worth(settings, price, row.quality, row.cost_nano_usd, row.latency_ms)
        found[arm] = row.model_copy(update={"cost_term": cost_term, "latency_term": late, "score": score})
    return found


def tariff_of(arm: Arm, settings: RoutingSettings, now_ms: int) -> Tariff | None:
    """What the arm costs now: by the route's table, else by its own two prices. None: an outside arm that nobody has priced."""
    if any(row.arm == arm.arm for row in settings.prices):
        return price_at(settings.prices, arm.arm, now_ms)
    if not arm.ours and not arm.nano_usd_in and not arm.nano_usd_out:
        return None
    return Tariff(arm.nano_usd_in, arm.nano_usd_in, arm.nano_usd_out, 0)


def _purse(settings: RoutingSettings, observed: Observed) -> Purse:
    budget = settings.budget
    if budget.nano_usd is None:
        return Purse()
    spent = observed.told.spent_nano_usd
    pct = None if spent is None else spent * 100 // (budget.nano_usd * budget.requests)
    return Purse(True, pct, observed.told.away)


def _lambda(settings: RoutingSettings, price: int, observed: Observed) -> int:
    """λ of the policy, corrected by the ledger, which is younger."""
    told, budget = observed.told, settings.budget.nano_usd
    if budget is None or told.spent_nano_usd is None or told.requests is None:
        return price
    pace = pacer.Pace(budget)
    return pacer.corrected(pacer.Pacer(price), pace, told.spent_nano_usd, budget * told.requests)
