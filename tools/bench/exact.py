"""Exact intervals of a share (Clopper & Pearson 1934), without scipy: for display beside what was counted, never a decision's input."""

import math
from collections.abc import Callable

_STEPS = 100  # of a bisection: beyond a float's 53 bits
_TERMS = 500
_CLOSE, _TINY = 3e-16, 1e-300


def beta_share(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a, b > 0: its continued fraction (Numerical Recipes, 6.4; Lentz)."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _CLOSE:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def lower_bound(hits: int, of: int, alpha: float) -> float:
    """The rate at which `hits` or more of `of` come with probability alpha; 0 for no hit."""
    if hits == 0:
        return 0.0
    return _bisect(lambda p: beta_share(hits, of - hits + 1, p) > alpha)


def upper_bound(hits: int, of: int, alpha: float) -> float:
    """The rate at which `hits` or fewer of `of` come with probability alpha; 1 where all hit."""
    if hits == of:
        return 1.0
    return _bisect(lambda p: 1.0 - beta_share(hits + 1, of - hits, p) < alpha)


def interval(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """The two-sided Clopper-Pearson interval. Raises ValueError unless 0 <= hits <= of and of > 0."""
    if not 0 <= hits <= of or of < 1:
        raise ValueError(f"{hits!r} of {of!r}; accepted: 0 <= hits <= of, of > 0")
    alpha = (1.0 - level) / 2.0
    return lower_bound(hits, of, alpha), upper_bound(hits, of, alpha)


def _bisect(above: Callable[[float], bool]) -> float:
    """Where `above` turns true."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if above(middle) else (middle, high)
    return (low + high) / 2.0
