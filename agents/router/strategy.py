"""The strategies: which of a route's arms answers, with what probability. Pure, in integers.

1. What comes back are propensities out of 65,536 over the arms that may answer; a masked arm has none.
2. Only `balanced` explores: of the others' log no other policy can be judged.
3. Until the learner has labels enough of every arm, and while its guard is shut, the champion serves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agents.router import thompson
from schemas.events import ArmTerms
from schemas.routing import RoutingSettings

WHOLE = thompson.WHOLE
MICRO = thompson.MICRO
WIDTH = 10  # of the bounds that make an arm plausible: with 2 the log hardly ever tries what another policy would want
Z_MILLI = 1645  # of a bound that holds with 95 %


@dataclass(frozen=True, slots=True)
class Standing:
    """What the strategy looks at beside the arms' terms. `held`: the arm preferred so far for requests of this tier."""

    champion: str
    warm: bool = False
    guarded: bool = False
    explore: bool = False
    complex_tier: bool = False
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Shares:
    """`by_arm`: out of 65,536, every candidate. `why`: the word that the decision says."""

    by_arm: Mapping[str, int]
    preferred: str
    explores: frozenset[str]
    why: str


def shares(
    settings: RoutingSettings, terms: Mapping[str, ArmTerms], masked: Mapping[str, bool], standing: Standing
) -> Shares | None:
    """What each candidate's share is; None where all are masked. `terms` and `masked` name the same arms."""
    order = _order(settings, standing.champion, terms)
    open_arms = [arm for arm in order if not masked[arm]]
    if not open_arms:
        return None
    learnt = standing.warm and not standing.guarded and all(terms[arm].quality is not None for arm in open_arms)
    if settings.strategy == "fixed" or not learnt:
        why = "champion" if open_arms[0] == standing.champion else settings.strategy
        return _all_to(open_arms[0], terms, why)
    if settings.strategy == "balanced":
        return _balanced(settings, terms, masked, standing)
    if settings.strategy == "cost_optimized":
        return _all_to(_cheapest(settings, terms, open_arms, standing.champion), terms, settings.strategy)
    best = max(open_arms, key=lambda arm: (terms[arm].quality or 0, -(terms[arm].cost_nano_usd or 0)))
    return _all_to(best, terms, settings.strategy)


def ranked(settings: RoutingSettings, terms: Mapping[str, ArmTerms], arms: Sequence[str], champion: str) -> list[str]:
    """Arms as a chain would try them: what they are worth where that is known, else as the route names them."""
    order = {arm: at for at, arm in enumerate(_order(settings, champion, terms))}
    if all(terms[arm].score is not None for arm in arms):
        return sorted(arms, key=lambda arm: (-(terms[arm].score or 0), order[arm]))
    return sorted(arms, key=lambda arm: order[arm])


def rule(settings: RoutingSettings) -> thompson.Rule:
    """The settings in integers."""
    return _rule(settings.alpha, settings.explore, settings.floor, settings.switch_gain)


@lru_cache(maxsize=1024)
def _rule(alpha: float, explore: float, floor: float, switch_gain: float) -> thompson.Rule:
    cap = round(explore * WHOLE)
    return thompson.Rule(
        alpha=round(alpha * MICRO),
        width=WIDTH,
        floor=round(floor * WHOLE),
        cap=cap,
        cap_complex=cap * 2 // 5,
        switch=round(switch_gain * MICRO),
    )


def _order(settings: RoutingSettings, champion: str, terms: Mapping[str, ArmTerms]) -> list[str]:
    """The arm that `fixed` names, the champion, the others as named."""
    first = (settings.arm,) if settings.arm else ()
    return [arm for arm in dict.fromkeys((*first, champion, *settings.arms, *sorted(terms))) if arm in terms]


def _all_to(chosen: str, terms: Mapping[str, ArmTerms], why: str) -> Shares:
    return Shares({arm: WHOLE if arm == chosen else 0 for arm in sorted(terms)}, chosen, frozenset(), why)


def _balanced(
    settings: RoutingSettings, terms: Mapping[str, ArmTerms], masked: Mapping[str, bool], standing: Standing
) -> Shares:
    arms = sorted(terms)
    found = thompson.probabilities(
        [max(-thompson.MOST, min(terms[arm].score or 0, thompson.MOST)) for arm in arms],
        [max(0, min(terms[arm].deviation or 0, thompson.MOST)) for arm in arms],
        rule(settings),
        masked=[masked[arm] for arm in arms],
        explore=standing.explore,
        complex_tier=standing.complex_tier,
        held=next((at for at, arm in enumerate(arms) if arm == standing.held), None),
    )
    explores = frozenset(arm for arm, explored in zip(arms, found.explores, strict=True) if explored)
    by_arm = dict(zip(arms, found.propensities, strict=True))
    return Shares(by_arm, arms[found.preferred], explores, "balanced")


def _cheapest(settings: RoutingSettings, terms: Mapping[str, ArmTerms], arms: Sequence[str], champion: str) -> str:
    """The cheapest whose gain over the champion is, with 95 %, at least the least gain; the champion always qualifies.

    Deviations are in units of one label's noise, which is at most ½ of a quality between 0 and 1 (Popoviciu 1935).
    """
    reference = terms.get(champion)
    least = round(settings.least_gain * MICRO)

    def good(arm: str) -> bool:
        if arm == champion or reference is None or reference.quality is None:
            return True
        own = terms[arm]
        spread = math.isqrt((own.deviation or 0) ** 2 + (reference.deviation or 0) ** 2)
        return (own.quality or 0) - reference.quality - spread * Z_MILLI // 2000 >= least

    fit = [arm for arm in arms if good(arm)] or list(arms)
    return min(fit, key=lambda arm: (terms[arm].cost_nano_usd or 0, -(terms[arm].quality or 0), arm))
