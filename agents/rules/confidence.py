"""Confidence sequences, for display: which means the evidence so far leaves open, at all times together.

Nothing decides on them, so logarithms are allowed here (rule 1 of `agents.rules.wealth`).
"""

import math
from collections.abc import Callable

from agents.rules.bets import F2_MARGIN
from agents.rules.eprocess import Track

_STEPS = 48


def rate_sequence(bad: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds of a rate of which `bad` of `n` came: all m whose mixture of likelihood ratios is below 1/α.

    E(m) = B(bad + 1/2, n - bad + 1/2) / (B(1/2, 1/2)·m^bad·(1-m)^(n-bad)): the Beta(1/2, 1/2) mixture (Robbins 1970), inverted by
    bisection. Raises ValueError where the counts are none.
    """
    good = n - bad
    if not 0 <= bad <= n or not 0.0 < alpha < 1.0:
        raise ValueError(f"{bad!r} of {n!r} at α {alpha!r}; accepted: 0 <= bad <= n, 0 < α < 1")
    mixture = math.lgamma(bad + 0.5) + math.lgamma(good + 0.5) - math.lgamma(n + 1.0) - math.log(math.pi)
    level = -math.log(alpha)

    def excluded(m: float) -> bool:
        return mixture - _log_power(m, bad) - _log_power(1.0 - m, good) >= level

    estimate = bad / n if n else 0.5
    return _edge(estimate, 0.0, excluded), _edge(estimate, 1.0, excluded)


def mean_sequence(track: Track, alpha: float) -> tuple[float, float] | None:
    """Bounds of the mean of D from counts: on each side all m that F2 against "mean ≤ m" (or "≥ m") leaves below 2/α.

    A missing verdict counts as D = 0. None where the track holds values that are no -1, 0 or 1: those are not kept one by one.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"α is {alpha!r}; accepted: between 0 and 1")
    if track.others:
        return None
    mean, ties = track.mean or 0.0, track.ties + track.missing
    return _lowest(mean, track.losses, ties, track.wins, alpha), -_lowest(-mean, track.wins, ties, track.losses, alpha)


def _lowest(mean: float, losses: int, ties: int, wins: int, alpha: float) -> float:
    """The least mean that is left open. E against "mean ≤ m" falls as m rises, so one bisection finds it."""
    level = math.log(2.0 / alpha)

    def excluded(m: float) -> bool:
        room = 1.0 + m
        if not room:
            return ties + wins > 0  # a mean of -1 allows nothing but losses
        logs = [
            losses * math.log1p(-bet) + ties * math.log1p(-bet * m / room) + wins * math.log1p(bet * (1.0 - m) / room)
            for bet in F2_MARGIN
        ]
        most = max(logs)
        return most + math.log(sum(math.exp(one - most) for one in logs) / len(logs)) >= level

    return _edge(mean, -1.0, excluded)


def _log_power(base: float, exponent: int) -> float:
    """ln(base^exponent), where 0^0 is 1."""
    if not exponent:
        return 0.0
    return exponent * math.log(base) if base > 0.0 else -math.inf


def _edge(inside: float, outside: float, excluded: Callable[[float], bool]) -> float:
    """The last point left open on the way from the estimate to an end, by bisection; the end itself where it is open."""
    if not excluded(outside):
        return outside
    near, far = inside, outside
    for _ in range(_STEPS):
        middle = (near + far) / 2
        near, far = (near, middle) if excluded(middle) else (middle, far)
    return near
