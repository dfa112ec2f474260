"""The guard: does the router do worse than the champion would? Then the champion serves, until the router is proven again.

1. The confidence sequence of the mean of D, router less champion, is asked at one point only, -margin: it lies below (`harmful`) when E
   against "mean ≥ -margin" has reached 1/α, above (`proven`) when E against "mean ≤ -margin" has. Each errs with probability ≤ α, at
   whatever time anyone looks (Ville 1939; bets of Waudby-Smith & Ramdas 2023), if every case's D has such a mean given the past.
2. `router` serves until harmful; then the `champion` does, with a fresh track, until its lower bound is above -margin. A guard made
   `strict` starts with the champion. So a champion serves for as long as, after a harm, the lower bound is below -margin.
3. D needs no pair: by the logged propensities it is (y - c)·(π(arm) - 1{arm is the champion}) ÷ p(arm), π being the router's shares, p
   the logged ones, c what the champion was expected to reach. Its mean is right for any c that was fixed before the draw.
4. Frozen (trust in ALARM): nothing is counted, nothing explored; who serves stays.

`agents.rules.eprocess` does the arithmetic: the same bits on every machine, in the order of the cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from agents.rules.eprocess import Nulls, Track, margin_bets, worse_bets
from agents.rules.wealth import at_least

MARGIN = 0.01
LEVEL = 20.0  # 1/α
WHOLE = 65_536
MICRO = 1_000_000


@cache
def nulls() -> Nulls:
    """`worse`: mean ≤ -margin, rejected by a router that is not worse. `fine`: mean ≥ -margin, rejected by one that harms."""
    return Nulls(worse=margin_bets(MARGIN), fine=worse_bets(MARGIN))


@dataclass(frozen=True, slots=True)
class Guard:
    """`champion_serves`: what the decision asks. `trips`: how often it came to that. `track`: the evidence since the last change."""

    champion_serves: bool = False
    frozen: bool = False
    trips: int = 0
    track: Track = field(default_factory=Track)

    @property
    def explores(self) -> bool:
        """Whether anything may be drawn for the sake of learning."""
        return not self.frozen


def starting(*, strict: bool) -> Guard:
    """A guard that has seen nothing. `strict`: the champion serves until the router is proven."""
    return Guard(champion_serves=strict)


def difference(
    quality: int, expected: int, arm: int, champion: int, router: Sequence[int], logged: Sequence[int]
) -> float | None:
    """What a graded case says of router less champion, from -1 to 1, shrunk so that its sign against -margin keeps its mean.

    `quality` of the drawn `arm` and `expected` of the champion in millionths; `router`, `logged`: shares out of 65,536. None where the
    two choose alike, or where the log cannot tell: an arm that one of them would choose had no chance.
    """
    weights = _weights(champion, router, logged)
    if weights is None or not any(weights):
        return None
    d = (quality - expected) / MICRO * weights[arm]
    return _shrunk(d, max(1.0, *(abs(one) for one in weights)))


def paired(quality: int, champion_quality: int) -> float:
    """As `difference`, of a case that the router's preferred arm and the champion both answered: a shadow pair."""
    return _shrunk((quality - champion_quality) / MICRO, 1.0)


def observed(guard: Guard, d: float | None) -> Guard:
    """The guard after a graded case; None says nothing. Raises ValueError outside -1 to 1."""
    if d is None or guard.frozen:
        return guard
    track = guard.track.add(d, nulls())
    if guard.champion_serves:
        if at_least(track.wealth("worse", nulls()), LEVEL):
            return replace(guard, champion_serves=False, track=Track())
    elif at_least(track.wealth("fine", nulls()), LEVEL):
        return replace(guard, champion_serves=True, trips=guard.trips + 1, track=Track())
    return replace(guard, track=track)


def frozen(guard: Guard, *, alarm: bool) -> Guard:
    """The guard after `trust.changed`: frozen for as long as trust is in ALARM."""
    return replace(guard, frozen=alarm)


def renewed(guard: Guard, *, strict: bool) -> Guard:
    """The guard of another champion or another router: what was seen does not count for it."""
    return replace(starting(strict=strict), frozen=guard.frozen, trips=guard.trips)


def _weights(champion: int, router: Sequence[int], logged: Sequence[int]) -> list[float] | None:
    found: list[float] = []
    for at, (chosen, chance) in enumerate(zip(router, logged, strict=True)):
        apart = chosen - (WHOLE if at == champion else 0)
        if apart and not chance:
            return None
        found.append(apart / chance if apart else 0.0)
    return found


def _shrunk(d: float, most: float) -> float:
    """D″ with D″ + margin = s·(D + margin), s > 0: D's mean is above -margin exactly when that of D″ is, and D″ stays within -1 to 1."""
    scale = (1.0 - MARGIN) / most
    return max(-1.0, min(scale * (d + MARGIN) - MARGIN, 1.0))
