"""Many tracks at once, to the bit: what `agents.rules.eprocess.Track` holds and says, for a column per replicate.

Rules:
1. The same float64 operations in the same order as the product: elementwise numpy + and × give the same bits as Python's, powers come from
   the product's own tables, sums run bet by bet. Only the scaling by powers of two is done at other times, which is exact.
2. What is returned is the wealth as `capped` tells it, so that a comparison with a level is the product's.
3. `tests/unit/tools/test_bench_twin.py` and every run of the benchmark compare with the product itself.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.rules.eprocess import Bets, Nulls
from agents.rules.wealth import powers

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]
_STEP = 64  # of `powers`, and of our own rescaling
_DEEPEST = 1100  # a term so many binary digits below the largest changes no bit of the sum
_CEILING, _FLOOR = 1000, -1000  # of `capped`
_CHUNK = 1 << 15
_HALVES = np.ldexp(1.0, -np.arange(_DEEPEST + 1))


class _Table:
    """A base's powers 0 to n as `power` factors them: mantissas and exponents of the large and the small step, a row per bet."""

    def __init__(self, bases: tuple[float, ...], most: int) -> None:
        found = [powers(base) for base in bases]
        steps = most // _STEP + 1
        large = [[table.large_at(n) for n in range(steps)] for table in found]
        small = [[table.small[n] for n in range(_STEP)] for table in found]
        self.large = np.array([[m for m, _ in row] for row in large])
        self.small = np.array([[m for m, _ in row] for row in small])
        self.large_up = np.array([[e for _, e in row] for row in large], dtype=np.int64)
        self.small_up = np.array([[e for _, e in row] for row in small], dtype=np.int64)


@lru_cache(maxsize=64)
def _tables(bets: Bets, most: int) -> tuple[_Table, _Table, _Table]:
    """Of the three factors: a loss, a win, a tie."""
    rows = list(zip(bets.levels, bets.slopes, strict=True))
    return (
        _Table(tuple(a - b for a, b in rows), most),
        _Table(tuple(a + b for a, b in rows), most),
        _Table(tuple(a for a, _ in rows), most),
    )


def _parts(bets: Bets, losses: Whole, ties: Whole, wins: Whole, most: int) -> tuple[Reals, Whole]:
    """`counted`, a column per element: mantissas and exponents, a row per bet."""
    weights = np.array(bets.weights)
    mantissas, exponents = np.frexp(weights)
    shape = (len(weights), losses.shape[0])
    parts = np.broadcast_to(mantissas[:, None], shape).copy()
    ups = np.broadcast_to(exponents.astype(np.int64)[:, None], shape).copy()
    counts = (losses, wins, ties if bets.offset else None)
    for table, count in zip(_tables(bets, most), counts, strict=True):
        if count is None:
            parts *= 0.25  # two times ONE's mantissa
            ups += 2
            continue
        high, low = count // _STEP, count % _STEP
        parts *= table.large.take(high, axis=1)
        parts *= table.small.take(low, axis=1)
        ups += table.large_up.take(high, axis=1)
        ups += table.small_up.take(low, axis=1)
    return parts, ups


def _total(parts: Reals, ups: Whole) -> Reals:
    """`total` and `capped` of columns whose mantissas are all positive."""
    top = ups.max(axis=0)
    down = np.minimum(top[None, :] - ups, _DEEPEST)
    terms = parts * _HALVES.take(down)
    value = np.zeros(parts.shape[1])
    for row in terms:
        value += row
    mantissa, shift = np.frexp(value)
    exponent = top + shift
    found = np.ldexp(mantissa, np.clip(exponent, _FLOOR, _CEILING).astype(np.int32))
    found[exponent > _CEILING] = 2.0**_CEILING
    found[exponent <= _FLOOR] = 0.0
    return found


def counts_wealth(bets: Bets, losses: Whole, ties: Whole, wins: Whole, missing: Whole | None = None) -> Reals:
    """The wealth of tracks of counts, elementwise over arrays of any one shape."""
    if missing is not None:
        losses, ties = (losses + missing, ties) if bets.missing else (losses, ties + missing)
    shape, most = losses.shape, int(max(losses.max(), ties.max(), wins.max(), 1))
    width = most + 1
    keys = losses.ravel() * width + wins.ravel()
    if bets.offset:
        keys = keys * width + ties.ravel()
    _, first, back = np.unique(keys, return_index=True, return_inverse=True)
    a, b, c = losses.ravel()[first], ties.ravel()[first], wins.ravel()[first]
    found = np.empty(len(first))
    for at in range(0, len(first), _CHUNK):
        part = slice(at, at + _CHUNK)
        found[part] = _total(*_parts(bets, a[part], b[part], c[part], most))
    return found[back.ravel()].reshape(shape)


def count_looks(nulls: Mapping[str, Bets], d: NDArray[np.int8], every: int) -> dict[str, Reals]:
    """Per null the wealth at every `every`-th pair, (looks, replicates), of D in -1, 0, 1, (pairs, replicates)."""
    wins, losses = at_looks(d == 1, every), at_looks(d == -1, every)
    seen = every * np.arange(1, len(wins) + 1, dtype=np.int64)[:, None]
    return {name: counts_wealth(bets, losses, seen - wins - losses, wins) for name, bets in nulls.items()}


def at_looks(values: NDArray[np.bool_], every: int) -> Whole:
    """How many so far, at every `every`-th pair."""
    looks = len(values) // every
    by_look = values[: looks * every].reshape(looks, every, -1).sum(axis=1, dtype=np.int64)
    return np.cumsum(by_look, axis=0)


def value_looks(nulls: Nulls, d: Reals, every: int) -> dict[str, Reals]:
    """As `count_looks`, of any D in [-1, 1]: what is no count multiplies a float per bet, pair by pair."""
    pairs, columns = d.shape
    if not np.all((d >= -1.0) & (d <= 1.0)):
        raise ValueError("a D lies outside -1 to 1")
    levels, slopes = np.array(nulls.levels)[:, None], np.array(nulls.slopes)[:, None]
    values, ups = np.ones((len(levels), columns)), np.zeros((len(levels), columns), dtype=np.int64)
    factor = np.empty_like(values)
    whole = (d == 0.0) | (d == 1.0) | (d == -1.0)
    wins, losses, ties = (at_looks(d == value, every) for value in (1.0, -1.0, 0.0))
    found = {name: np.empty((pairs // every, columns)) for name in nulls.bets}
    most = pairs
    for n in range(pairs):
        np.multiply(slopes, d[n], out=factor)
        factor += levels
        counted = np.flatnonzero(whole[n])
        if len(counted):
            factor[:, counted] = 1.0
        values *= factor
        if (n + 1) % _STEP == 0:
            values, shifts = np.frexp(values)
            ups += shifts
        if (n + 1) % every == 0:
            look = n // every
            scales, shifts = np.frexp(values)
            up = ups + shifts
            for name, bets in nulls.bets.items():
                place = nulls.places[name]
                parts, more = _parts(bets, losses[look], ties[look], wins[look], most)
                found[name][look] = _total(parts * scales[place], more + up[place])
    return found


def mean_looks(d: Reals, every: int) -> Reals:
    """`Track.mean` at every `every`-th pair: (wins - losses + the others' sum in order) / n."""
    whole = (d == 0.0) | (d == 1.0) | (d == -1.0)
    sums = np.cumsum(np.where(whole, 0.0, d), axis=0)[every - 1 :: every]
    seen = every * np.arange(1, len(sums) + 1)[:, None]
    return (at_looks(d == 1.0, every) - at_looks(d == -1.0, every) + sums) / seen
