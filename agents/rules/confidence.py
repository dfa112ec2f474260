"""Confidence sequences, for display: which means the evidence so far leaves open, at all times together."""

import math
from collections.abc import Callable

from agents.rules.eprocess import Track, counted, margin_bets
from agents.rules.wealth import log_of, power, times, total

_POINTS = 32
_STEPS = 40
_NEAR = 1e-9


def rate_sequence(bad: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds of a rate of which `bad` of `n` came: all m whose mixture of likelihood ratios is below 1/α.

    E(m) = mean_g (θ_g/m)^bad ((1-θ_g)/(1-m))^(n-bad), θ the 32 midpoints of (0, 1) (Robbins 1970), inverted by bisection.
    """
    if not n:
        return 0.0, 1.0
    points = [(g + 0.5) / _POINTS for g in range(_POINTS)]
    mixture = log_of(total([times(power(p, bad), power(1.0 - p, n - bad)) for p in points])) - math.log(_POINTS)

    def excluded(m: float) -> bool:
        return mixture - bad * math.log(m) - (n - bad) * math.log1p(-m) >= -math.log(alpha)

    centre = min(max(bad / n, _NEAR), 1.0 - _NEAR)
    return _edge(centre, _NEAR, excluded), _edge(centre, 1.0 - _NEAR, excluded)


def mean_sequence(track: Track, alpha: float) -> tuple[float, float] | None:
    """Bounds of the mean of D from counts: on each side all m that F2 against "mean ≤ m" (or "≥ m") leaves below 2/α.

    None where the track holds values that are no -1, 0 or 1: those are not kept one by one.
    """
    if track.others:
        return None
    turned = track.model_copy(update={"wins": track.losses, "losses": track.wins})
    return _lowest(track, alpha), -_lowest(turned, alpha)


def _lowest(track: Track, alpha: float) -> float:
    """The least mean that is left open."""

    def excluded(m: float) -> bool:
        return log_of(
            total(counted(margin_bets(-m), track.losses, track.ties + track.missing, track.wins))
        ) >= math.log(2.0 / alpha)

    centre = min(1.0 - _NEAR, max(_NEAR - 1.0, track.mean or 0.0))
    return _edge(centre, _NEAR - 1.0, excluded)


def _edge(inside: float, outside: float, excluded: Callable[[float], bool]) -> float:
    """The last point left open on the way from the estimate to an end, by bisection; the end itself where it is open."""
    if not excluded(outside):
        return outside
    near, far = inside, outside
    for _ in range(_STEPS):
        middle = (near + far) / 2
        near, far = (near, middle) if excluded(middle) else (middle, far)
    return near
