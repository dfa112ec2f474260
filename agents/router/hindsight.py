"""What another routing policy would have chosen in the cases of the log: the rows that `ope.judge` takes. Pure.

1. The context stands as it was logged: what was observed (breakers, load, deadlines), predictions, λ. What settings make of it is made
   anew, for the new policy and for today's alike: prices, weights, what is masked for privacy, residency and price.
2. Predictions are the logged ones, made before each outcome. A later model may have been trained on the very rows it would be judged by.
3. A case is left out, and counted, only for what was known before its draw.
4. Only people's and references' grades are rewards, of the answer finally served; the arm is the one drawn, whoever answered.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.router import masks, pacer, strategy
from agents.router.drift import Calibration
from agents.router.model import Estimate, Model, decoded, row_of
from agents.router.ope_rows import MICRO, WHOLE, Logged
from agents.router.weigh import expected_nano, tariff_of, worth
from agents.rules.grading import teaches
from agents.rules.prices import Tariff, cost_nano
from schemas.events import ArmTerms, CaseArm, CaseClosed, RoutingTerms
from schemas.policies import PolicyFleet, PolicyRouter
from schemas.routes import MODEL_GRADERS, Arm, Route
from schemas.routing import RoutingSettings

OF_SETTINGS = frozenset(
    {"privacy", "residency", "price_unknown", "budget"}
)  # masks that the settings make; others were observed
RIDGE = "the ridge differs: predictions would have been others, and the log holds none of them"
BASIS = "the text basis differs: nothing learnt carries over to it, so the log cannot say what it will know"


@dataclass(frozen=True, slots=True)
class Today:
    """What the running policy is made of. `model`: predictions by it, in place of the logged ones. `now_ms`: prices are those of then."""

    route: Route
    fleet: PolicyFleet
    router: PolicyRouter | None
    now_ms: int
    model: Model | None = None


@dataclass(frozen=True, slots=True)
class Hindsight:
    """`cases`: how many there were; `left_out`: how many are no row, by reason. `holds`: why no log could carry the answer."""

    cases: int
    rows: tuple[Logged, ...]
    left_out: Mapping[str, int]
    calibration: Calibration
    notes: tuple[str, ...]
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy to be rebuilt. `prices`: its own table, in place of the costs that were logged. `budget_masks`: the logged ones hold.
    `pace`: λ follows what this policy would have spent; None: the logged λ."""

    settings: RoutingSettings
    prices: bool = False
    budget_masks: bool = True
    pace: pacer.Pace | None = None


@dataclass(frozen=True, slots=True)
class Usable:
    """A case that can be judged. `terms`: what was weighed. `estimates`: by arm. `explores`: whether this turn could explore."""

    case: CaseClosed
    terms: RoutingTerms
    x: NDArray[np.int16]
    estimates: Mapping[str, Estimate]
    explores: bool


@dataclass(slots=True)
class Sorting:
    """The cases while they are sorted out. `sessions`: seen so far; `drawn`: those whose arm a usable case drew."""

    left_out: Counter[str] = field(default_factory=Counter[str])
    sessions: set[str] = field(default_factory=set[str])
    drawn: set[str] = field(default_factory=set[str])


def newest(told: Iterable[CaseClosed]) -> list[CaseClosed]:
    """A case each, as it was told last, in the order in which they were assigned. `told`: in the log's order."""
    last = {case.request_id: case for case in told}
    return sorted(last.values(), key=lambda case: (case.assigned_at_ms, case.request_partition, case.request_offset))


def look_back(told: Iterable[CaseClosed], new: RoutingSettings, today: Today) -> Hindsight:
    """The rows for the new policy against today's, from closed and amended cases of one route in the log's order."""
    cases, current = newest(told), today.route.routing
    if new.basis != current.basis:
        return Hindsight(len(cases), (), {}, Calibration(), (), (BASIS,))
    if new.ridge != current.ridge:
        return Hindsight(len(cases), (), {}, Calibration(), (), (RIDGE,))
    sorting = Sorting()
    usable = [one for case in cases if (one := _usable(case, new, today, sorting)) is not None]
    policy, notes = _changed(new, current, usable)
    targets = _shares(policy, usable, today)
    currents = _shares(Policy(current), usable, today)
    rows: list[Logged] = []
    calibration = Calibration()
    for one, target, now in zip(usable, targets, currents, strict=True):
        session = one.case.session
        if target is None or now is None:
            sorting.left_out["no arm was left"] += 1
            continue
        if one.case.strategy == "session" and session not in sorting.drawn:
            sorting.left_out["its session began before these cases"] += 1
            continue
        if session is not None:
            sorting.drawn.add(session)
        rows.append(_row(one, target, now, _cost(one.case, policy, today)))
        calibration = _graded(calibration, one)
    return Hindsight(len(cases), tuple(rows), dict(sorted(sorting.left_out.items())), calibration, notes)


# which cases


def _usable(case: CaseClosed, new: RoutingSettings, today: Today, sorting: Sorting) -> Usable | None:
    first = case.session is None or case.session not in sorting.sessions
    if case.session is not None:
        sorting.sessions.add(case.session)
    terms, x = case.routing, None if case.routing is None else decoded(case.routing.features)
    why = _unusable(case, new, today, x)
    if why or terms is None or x is None:
        sorting.left_out[why] += 1
        return None
    explores = first and all(message.role != "assistant" for message in case.messages)
    if today.model is not None:
        estimates = today.model.predict(x)
    else:
        logged = {row.arm: row.terms for row in case.choices if row.terms is not None}
        estimates = {
            arm: Estimate(row.quality, row.deviation or 0) for arm, row in logged.items() if row.quality is not None
        }
    return Usable(case, terms, x, estimates, explores)


def _unusable(case: CaseClosed, new: RoutingSettings, today: Today, x: NDArray[np.int16] | None) -> str:
    """Why the case says nothing of another policy; all of it was known before the draw."""
    terms = case.routing
    if case.source == "cache" or case.strategy == "cache":
        return "answered by the cache"
    if terms is None:
        return "nothing was weighed"
    if masks.rank(terms.sensitivity) >= masks.rank("personal"):
        return "personal: no features are kept"
    if x is None or terms.basis != today.route.routing.basis:
        return "features of another text basis" if x is not None else "without features"
    if terms.emergency:
        return "no arm was left"
    if not terms.warm or terms.guarded or terms.frozen:
        return "the champion served: too little learnt, the guard shut or trust in alarm"
    adapters = {arm.arm: arm.adapter for arm in today.fleet.arms}
    then = {row.arm: row.adapter for row in case.choices if row.terms is not None}
    champion = today.fleet.champion
    wanted = {*new.chosen_from(champion), *today.route.routing.chosen_from(champion)}
    if any(arm not in then or arm not in adapters or adapters[arm] != then[arm] for arm in wanted):
        return "an arm was not there or was another model"
    return ""


# what would have been chosen


def _changed(
    new: RoutingSettings, current: RoutingSettings, usable: Sequence[Usable]
) -> tuple[Policy, tuple[str, ...]]:
    """How the new policy is rebuilt, and what of that must be said."""
    notes: list[str] = []
    prices, same_budget = new.prices != current.prices, new.budget == current.budget
    pace = None
    if prices:
        notes.append("prices differ: costs of both policies are by the new table, as it stands now")
    if not same_budget:
        notes.append("the budget differs: nothing is masked for the budget that was spent then")
    if new.budget.nano_usd is not None and new.budget.nano_usd != current.budget.nano_usd:
        pace = pacer.Pace(new.budget.nano_usd)
        notes.append("λ is paced anew, by what the new policy would have spent; the running policy's is the logged one")
    if masks.rank(new.sensitivity) < masks.rank(current.sensitivity):
        notes.append("sensitivity is lower: cases keep the higher one that they were decided under")
    if new.cascade != current.cascade:
        notes.append("the cascade differs: second answers are the log's")
    held = sum(1 for one in usable if any(row.propensity == WHOLE for row in one.case.choices))
    if usable and held == len(usable):
        notes.append("the log does not explore: each arm was certain before it was drawn")
    return Policy(new, prices, same_budget, pace), tuple(notes)


def _shares(policy: Policy, usable: Sequence[Usable], today: Today) -> list[Mapping[str, int] | None]:
    """The policy's shares in each case's context."""
    if policy.pace is None:
        return [_chosen(policy, one, today, one.terms.lambda_cost)[0] for one in usable]
    start = usable[0].terms.lambda_cost if usable else 0
    _, prices = _paced(policy, policy.pace, usable, today, start)  # only to find the λ to begin with
    late = prices[len(prices) // 2 :]
    return _paced(policy, policy.pace, usable, today, sum(late) // max(len(late), 1))[0]


def _paced(
    policy: Policy, pace: pacer.Pace, usable: Sequence[Usable], today: Today, price: int
) -> tuple[list[Mapping[str, int] | None], list[int]]:
    """Shares and λ at each case: it moves with what the policy would spend on average."""
    state, found, prices = pacer.Pacer(price), list[Mapping[str, int] | None](), list[int]()
    for one in usable:
        prices.append(pacer.steered(state, pace))
        shares, costs = _chosen(policy, one, today, prices[-1])
        found.append(shares)
        if shares is not None:
            expected = sum(share * (costs[arm] or 0) for arm, share in shares.items())
            state = pacer.reserved(state, pace, expected // WHOLE)
    return found, prices


def _chosen(
    policy: Policy, one: Usable, today: Today, price: int
) -> tuple[Mapping[str, int] | None, dict[str, int | None]]:
    """Shares, None where no arm may answer; and what each arm would cost."""
    settings, champion = policy.settings, today.fleet.champion
    choices = {row.arm: row for row in one.case.choices}
    terms: dict[str, ArmTerms] = {}
    masked: dict[str, bool] = {}
    for name in settings.chosen_from(champion):
        arm, logged = today.fleet.arm(name), choices[name].terms
        if logged is None:
            raise AssertionError("a usable case has terms of every arm")
        terms[name] = _terms_again(policy, arm, logged, one, today, price)
        masked[name] = bool(_masks_again(policy, arm, choices[name].masks, one, terms[name].cost_nano_usd))
    standing = strategy.Standing(
        champion=champion,
        warm=True,
        explore=one.explores,
        complex_tier=one.terms.complexity == "complex",
        held=None if today.router is None else today.router.preferred.get(one.terms.complexity),
    )
    found = strategy.shares(settings, terms, masked, standing)
    return None if found is None else found.by_arm, {name: row.cost_nano_usd for name, row in terms.items()}


def _terms_again(policy: Policy, arm: Arm, logged: ArmTerms, one: Usable, today: Today, price: int) -> ArmTerms:
    cost = logged.cost_nano_usd
    if policy.prices:
        tariff = tariff_of(arm, policy.settings, today.now_ms)
        known = row_of(today.router, arm.arm, arm.adapter)
        cost = None if tariff is None else expected_nano(arm, known, tariff, one.terms.tokens_in)
    estimate = one.estimates.get(arm.arm)
    quality = None if estimate is None else estimate.quality
    cost_term, late, score = worth(policy.settings, price, quality, cost, logged.latency_ms)
    return logged.model_copy(
        update={
            "quality": quality,
            "deviation": None if estimate is None else estimate.deviation,
            "cost_nano_usd": cost,
            "cost_term": cost_term,
            "latency_term": late,
            "score": score,
        }
    )


def _masks_again(policy: Policy, arm: Arm, logged: tuple[str, ...], one: Usable, cost: int | None) -> frozenset[str]:
    settings = policy.settings
    sensitivity = max(settings.sensitivity, one.terms.sensitivity, key=masks.rank)
    found = {
        "privacy": masks.rank(sensitivity) > masks.rank(arm.cleared)
        or (settings.strategy == "privacy_first" and not arm.ours),
        "residency": bool(settings.regions) and arm.region not in settings.regions,
        "price_unknown": settings.budget.nano_usd is not None and cost is None,
        "budget": policy.budget_masks and "budget" in logged,
    }
    return (frozenset(logged) - OF_SETTINGS) | {code for code, holds in found.items() if holds}


# what came of it


def _row(one: Usable, target: Mapping[str, int], current: Mapping[str, int], cost: int) -> Logged:
    case = one.case
    reward, propensity = _label(case)
    return Logged(
        cluster=case.session or case.request_id,
        at_ms=case.assigned_at_ms,
        arm=case.drawn or case.arm,
        propensities={row.arm: row.propensity for row in case.choices},
        target=target,
        current=current,
        x=one.x,
        reward=reward,
        cost_nano=cost,
        label_propensity=propensity,
        sticky=case.strategy == "session",
    )


def _served(case: CaseClosed) -> CaseArm | None:
    """The answer finally served, where there is one."""
    found = (row for row in case.arms if row.arm == case.arm and not row.shadow and row.status == "completed")
    return next(found, None)


def _label(case: CaseClosed) -> tuple[int | None, int]:
    """(grade in micro, with what chance out of 65,536 it was to be given). Nobody's grade counts that no chance asked for."""
    served = _served(case)
    if served is None or served.grade is None or not teaches(case):
        return None, WHOLE
    chance = case.label_propensity if case.sampled else 0.0
    if case.verdict_kind == "reference":
        chance = 1.0
    elif case.grader in MODEL_GRADERS and case.action != "hold":  # people judge a share, whatever was drawn for review
        chance = case.human_share if case.human_sampled else 0.0
    propensity = min(round(chance * WHOLE), WHOLE)
    return (served.grade * 1000, propensity) if propensity > 0 else (None, WHOLE)


def _cost(case: CaseClosed, policy: Policy, today: Today) -> int:
    """What the answer cost, all attempts: as it was paid, or by the new prices."""
    if not policy.prices:
        return case.cost_nano_usd or 0
    tariffs = {arm.arm: tariff_of(arm, policy.settings, today.now_ms) for arm in today.fleet.arms}
    return sum(
        _call(row, tariff)
        for row in case.arms
        if not row.shadow and row.source == "model" and (tariff := tariffs.get(row.arm)) is not None
    )


def _call(row: CaseArm, tariff: Tariff) -> int:
    return cost_nano(tariff, row.tokens_in, 0, row.tokens_out, row.engine_us // 1000)


def _graded(calibration: Calibration, one: Usable) -> Calibration:
    """Predicted against graded, of the arm that answered."""
    reward, propensity = _label(one.case)
    estimate = one.estimates.get(one.case.arm)
    if reward is None or estimate is None or one.case.attempt > 1:
        return calibration
    return calibration.add(one.case.arm, max(0, min(estimate.quality, MICRO)), reward, propensity)
