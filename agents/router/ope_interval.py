"""95 % intervals of ratios and of the difference of two, by resampling sessions. Pure: the seed is a constant.

Bootstrap-t (Efron 1979; Hall 1988): each resample's distance from the estimate is measured in its own standard error, which
corrects for the skewness that heavy weights bring. From 200 effective rows on the plain percentiles cover as well [M].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.router.ope_rows import Floats

SEED = 65_537
RESAMPLES = 999
_AT_ONCE = 2_000_000  # numbers in a batch of resamples: bounds the memory
_TAIL = 0.025
_ROW, _COLUMN = np.triu_indices(4)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The new policy, the current one, and new - current on the same rows."""

    target: Estimate
    current: Estimate
    difference: Estimate


def compare(parts: Sequence[Floats]) -> list[Compared]:
    """Each part: sessions × (target's numerator and denominator, current's numerator and denominator). All parts see the same
    resamples."""
    wide = _exact(np.concatenate([_moments(part) for part in parts], axis=1))
    width = wide.shape[1] // len(parts)
    whole = wide.sum(axis=0)
    drawn = np.concatenate(list(_resampled(wide)), axis=0)
    return [_compared(whole[None, at : at + width], drawn[:, at : at + width]) for at in range(0, wide.shape[1], width)]


def _moments(part: Floats) -> Floats:
    """A session's four sums and their ten products: enough for estimate and variance of any resample."""
    return np.concatenate([part, part[:, _ROW] * part[:, _COLUMN]], axis=1)


def _exact(wide: Floats) -> Floats:
    """Rounded, by column, to whole multiples of a power of two with which a sum of as many is exact in any order: in 2^-52 of the
    greatest sum, whatever the library's threads do."""
    most = np.maximum(np.abs(wide).max(axis=0), 1e-300) * len(wide)
    grain = np.ldexp(1.0, np.frexp(most)[1] - 52)
    return np.asarray(np.rint(wide / grain) * grain, np.float64)


def _resampled(wide: Floats) -> Sequence[Floats]:
    count = len(wide)
    rng = np.random.default_rng(SEED)
    found: list[Floats] = []
    left = RESAMPLES
    while left > 0:
        size = min(left, max(1, _AT_ONCE // count))
        drawn = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        found.append(times.astype(np.float64) @ wide)
        left -= size
    return found


def _compared(whole: Floats, drawn: Floats) -> Compared:
    value, error = _statistics(whole)
    values, errors = _statistics(drawn)
    return Compared(*(_estimate(value[0, at], error[0, at], values[:, at], errors[:, at]) for at in range(3)))


def _statistics(moments: Floats) -> tuple[Floats, Floats]:
    """rows × (target, current, difference): ratios, and their standard errors by the delta method over sessions."""
    top_t, low_t, top_c, low_c = moments[:, :4].T
    safe_t, safe_c = np.where(low_t > 0.0, low_t, 1.0), np.where(low_c > 0.0, low_c, 1.0)
    target, current = top_t / safe_t, top_c / safe_c
    products = np.empty((len(moments), 4, 4))
    products[:, _ROW, _COLUMN] = products[:, _COLUMN, _ROW] = moments[:, 4:]
    none = np.zeros_like(target)
    of_target = np.stack([1.0 / safe_t, -target / safe_t, none, none], axis=1)
    of_current = np.stack([none, none, 1.0 / safe_c, -current / safe_c], axis=1)
    values = np.stack([target, current, target - current], axis=1)
    errors = [
        np.sqrt(np.maximum(np.einsum("ri,rij,rj->r", slope, products, slope), 0.0))
        for slope in (of_target, of_current, of_target - of_current)
    ]
    return values, np.stack(errors, axis=1)


def _estimate(value: float, error: float, values: Floats, errors: Floats) -> Estimate:
    usable = errors > 1e-12 * (1.0 + np.abs(values))
    if error <= 0.0 or not usable.any():
        return Estimate(float(value), float(value), float(value))
    distance = (values[usable] - value) / errors[usable]
    low, high = np.quantile(distance, (1.0 - _TAIL, _TAIL))
    return Estimate(float(value), float(value - low * error), float(value - high * error))
