"""E-processes: evidence against a null that may be looked at every second.

Each starts at 1 and has mean at most 1 under its null at any stopping time; so P(ever ≥ 1/α) ≤ α (Ville 1939). All are
finite mixtures E = Σ_g w_g Π_i (1 + f_g·x_i), Σ w = 1, with bets fixed before the data (Waudby-Smith & Ramdas 2023, arXiv
2010.09686). `agents.rules.wealth` holds the rules of the arithmetic.

A `Track` is the evidence of one metric: what D, challenger against champion, in [-1, 1] and + good for the challenger, has
been. Values of -1, 0 and 1 are counted (exact, mergeable, free of order); any other multiplies a float per bet (in order).
`Bets` says against which null a track is read: any number of nulls (`Nulls`) read the same counts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import frexp
from typing import Annotated

from pydantic import Field, TypeAdapter

from agents.rules.bets import F1_P, F1_W, F2_MARGIN, F2_ZERO
from agents.rules.wealth import Floats, Wealth, mixed, power, powers, times, total

_RESCALE_EVERY = 64  # factors lie within 2^-7 (F1) and 2^7 (margins): so many on 1/2…2^255 neither vanish nor overflow
_SHIFT = 256
_FAR = math.ldexp(1.0, 500)
_STEPS = 64


@dataclass(frozen=True, slots=True)
class Bets:
    """One null and the bets against it: a value D multiplies bet g by (1 + f_g·offset) + (sign·f_g)·D.

    `missing`: the D that a pair without a verdict counts as.
    """

    fractions: tuple[float, ...]
    weights: tuple[float, ...]
    sign: float
    offset: float
    missing: int = 0

    @property
    def levels(self) -> tuple[float, ...]:
        """What D = 0 multiplies each bet by."""
        return tuple(1.0 + f * self.offset for f in self.fractions)

    @property
    def slopes(self) -> tuple[float, ...]:
        """How much more or less D = 1 does."""
        return tuple(self.sign * f for f in self.fractions)


_UNIFORM = (0.0625,) * 16


@cache
def win_bets() -> Bets:
    """F1. Null: P(win | discordant) ≤ 1/2; of graded values: mean(D) ≤ 0. Assumed: so at each pair, given the past.

    Σ w_g (2p_g)^W (2-2p_g)^L, p = 48 midpoints of (1/2, 1), w ∝ (p(1-p))^5: the beta-binomial mixture with a Beta(6, 6) prior cut
    to (1/2, 1) (Robbins 1970). In the common form f = 2p-1 on D.
    """
    return Bets(tuple(2.0 * p - 1.0 for p in F1_P), F1_W, 1.0, 0.0)


@cache
def gain_bets() -> Bets:
    """F2 with d = 0. Null: mean(D) ≤ 0 given the past. 16 bets, 0.05 to 0.9 geometric. For F4 (latency) and F8 (cost)."""
    return Bets(F2_ZERO, _UNIFORM, 1.0, 0.0)


_LEAST_ROOM = 0.015625  # 1/64: a margin of all but everything bets no higher than one of 63/64


@lru_cache(maxsize=1024)
def margin_bets(margin: float) -> Bets:
    """F2. Null: mean(D) ≤ -margin given the past, -1 < margin < 1: rejecting it says "not worse by the margin".

    x = D + d, 16 bets 0.08 to 0.7 geometric, over (1 - d), at least 1/64. A missing verdict is D = -1. Raises ValueError outside.
    """
    if not -1.0 < margin < 1.0:
        raise ValueError(f"the margin is {margin!r}; accepted: between -1 and 1")
    room = max(1.0 - margin, _LEAST_ROOM)
    return Bets(tuple(bet / room for bet in F2_MARGIN), _UNIFORM, 1.0, margin, -1)


@lru_cache(maxsize=1024)
def worse_bets(allowance: float) -> Bets:
    """The harm process. Null: mean(D) ≥ -allowance given the past, "worse by at most a": rejecting it says that the challenger harms.

    x = -D - a, 0 ≤ a < 1, 16 bets 0.05 to 0.9 geometric, over (1 + a). A missing verdict is D = 0. Raises ValueError outside.
    """
    if not 0.0 <= allowance < 1.0:
        raise ValueError(f"the allowance is {allowance!r}; accepted: 0 up to below 1")
    return Bets(tuple(bet / (1.0 + allowance) for bet in F2_ZERO), _UNIFORM, -1.0, -allowance)


Count = Annotated[int, Field(ge=0)]


class Nulls:
    """All that one track is read against, by name: the same for its whole life."""

    __slots__ = ("bets", "levels", "places", "slopes")

    def __init__(self, **bets: Bets) -> None:
        self.bets = bets
        self.levels = tuple(level for one in bets.values() for level in one.levels)
        self.slopes = tuple(slope for one in bets.values() for slope in one.slopes)
        self.places: dict[str, slice] = {}
        at = 0
        for name, one in bets.items():
            self.places[name] = slice(at, at + len(one.fractions))
            at += len(one.fractions)


@dataclass(slots=True)  # a value that nobody changes; frozen would cost a third of `add`
class Track:
    """All that is kept of one metric's pairs: O(1) of their number. Two tracks of counts only merge exactly.

    `missing`: pairs whose verdict never came. `others`, `total`: how many values were no -1, 0 or 1, and their sum in order; `rest`: per
    null and bet the product that they make, times 2^(-256·`shifts`).
    """

    losses: Count = 0
    ties: Count = 0
    wins: Count = 0
    missing: Count = 0
    others: Count = 0
    total: float = 0.0
    rest: Floats = ()
    shifts: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """How many pairs."""
        return self.losses + self.ties + self.wins + self.missing + self.others

    @property
    def mean(self) -> float | None:
        """The mean of D, a missing verdict as 0; None of nothing."""
        return (self.wins - self.losses + self.total) / self.n if self.n else None

    def add(self, d: float | None, nulls: Nulls) -> "Track":
        """The track after one pair; None: its verdict is missing. Raises ValueError outside [-1, 1] and changes nothing."""
        losses, ties, wins, missing = self.losses, self.ties, self.wins, self.missing
        if d is None:
            missing += 1
        elif d == 0.0:
            ties += 1
        elif d == 1.0:
            wins += 1
        elif d == -1.0:
            losses += 1
        elif -1.0 < d < 1.0:
            return self._grown(d, nulls)
        else:
            raise ValueError(f"D is {d!r}; accepted: -1 to 1")
        return Track(losses, ties, wins, missing, self.others, self.total, self.rest, self.shifts)

    def add_each(self, ds: Mapping[str, float], nulls: Nulls) -> "Track":
        """As `add`, where each null sees a value of its own: a pair of which only bounds are known. The mean takes that of `better`.

        Raises ValueError outside [-1, 1] and changes nothing.
        """
        if any(not -1.0 <= d <= 1.0 for d in ds.values()):
            raise ValueError(f"D is {dict(ds)!r}; accepted: -1 to 1")
        each = [ds[name] for name, bets in nulls.bets.items() for _ in bets.fractions]
        rest, shifts = self._moved(each, nulls)
        return Track(
            self.losses, self.ties, self.wins, self.missing, self.others + 1, self.total + ds["better"], rest, shifts
        )

    def _grown(self, d: float, nulls: Nulls) -> "Track":
        old = self.rest or (1.0,) * len(nulls.levels)
        rest = tuple([r * (level + slope * d) for r, level, slope in zip(old, nulls.levels, nulls.slopes, strict=True)])
        rest, shifts = self._near(rest)
        return Track(self.losses, self.ties, self.wins, self.missing, self.others + 1, self.total + d, rest, shifts)

    def _moved(self, ds: Iterable[float], nulls: Nulls) -> tuple[tuple[float, ...], tuple[int, ...]]:
        old = self.rest or (1.0,) * len(nulls.levels)
        rows = zip(old, nulls.levels, nulls.slopes, ds, strict=True)
        return self._near(tuple([r * (level + slope * d) for r, level, slope, d in rows]))

    def _near(self, rest: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
        if self.others % _RESCALE_EVERY == _RESCALE_EVERY - 1:
            return _rescaled(rest, self.shifts)
        return rest, self.shifts

    def merge(self, other: "Track") -> "Track":
        """Both together, where neither holds other values than counts. Raises ValueError where one does."""
        if self.others or other.others:
            raise ValueError("only counts merge exactly: a track holds values that are no -1, 0 or 1")
        return Track(
            losses=self.losses + other.losses,
            ties=self.ties + other.ties,
            wins=self.wins + other.wins,
            missing=self.missing + other.missing,
        )

    def wealth(self, name: str, nulls: Nulls) -> Wealth:
        """E against the null of that name."""
        bets = nulls.bets[name]
        losses, ties = self.losses, self.ties
        if bets.missing:
            losses += self.missing
        else:
            ties += self.missing
        mantissas, exponents = _counted(bets, losses, ties, self.wins)
        if self.rest:
            place = nulls.places[name]
            scaled = [frexp(value) for value in self.rest[place]]
            mantissas = [m * scale for m, (scale, _) in zip(mantissas, scaled, strict=True)]
            exponents = [e + up for e, (_, up) in zip(exponents, scaled, strict=True)]
            if self.shifts:
                exponents = [e + _SHIFT * shift for e, shift in zip(exponents, self.shifts[place], strict=True)]
        return mixed(mantissas, exponents)

    def to_json(self) -> str:
        """JSON that `of_json` reads back to the bit; what is 0 or empty is left out."""
        return _TRACK.dump_json(self, exclude_defaults=True).decode()

    @staticmethod
    def of_json(text: str) -> "Track":
        """The track of a JSON object. pydantic's ValidationError where it is none."""
        return _TRACK.validate_json(text)


_TRACK = TypeAdapter(Track)


def _rescaled(values: tuple[float, ...], shifts: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The same numbers, exactly; all near 1 again where one has come far from it."""
    if max(values) < _FAR and min(values) > 1.0 / _FAR:
        return values, shifts
    steps = [frexp(value)[1] // _SHIFT for value in values]
    moved = tuple(old + step for old, step in zip(shifts or (0,) * len(values), steps, strict=True))
    scaled = tuple(math.ldexp(value, -_SHIFT * step) for value, step in zip(values, steps, strict=True))
    return scaled, moved if any(moved) else ()


Column = tuple[tuple[float, ...], tuple[int, ...]]


class _Columns:
    """The powers of one factor of every bet: mantissas and exponents side by side."""

    __slots__ = ("large", "small", "tables")

    def __init__(self, bases: tuple[float, ...]) -> None:
        self.tables = [powers(base) for base in bases]
        self.small: list[Column] = [_column([table.small[step] for table in self.tables]) for step in range(_STEPS)]
        self.large: list[Column] = []

    def large_at(self, steps: int) -> Column:
        while len(self.large) <= steps:
            self.large.append(_column([table.large_at(len(self.large)) for table in self.tables]))
        return self.large[steps]


def _column(wealths: list[Wealth]) -> Column:
    return tuple(m for m, _ in wealths), tuple(e for _, e in wealths)


@lru_cache(maxsize=1024)
def _columns(bets: Bets) -> tuple[Column, tuple[_Columns, _Columns, _Columns]]:
    """Weights, and the powers of a loss, a tie, a win."""
    rows = list(zip(bets.levels, bets.slopes, strict=True))
    down, up = tuple(level - slope for level, slope in rows), tuple(level + slope for level, slope in rows)
    return _column([frexp(weight) for weight in bets.weights]), (_Columns(down), _Columns(bets.levels), _Columns(up))


def counted(bets: Bets, losses: int, ties: int, wins: int) -> list[Wealth]:
    """Per bet its weight times the powers of its three factors."""
    return list(zip(*_counted(bets, losses, ties, wins), strict=True))


def _counted(bets: Bets, losses: int, ties: int, wins: int) -> tuple[Sequence[float], Sequence[int]]:
    """Per bet its weight times the powers of its three factors: mantissas in (2^-7, 1), and exponents."""
    (mantissas, exponents), (down, level, up) = _columns(bets)
    for table, count in ((down, losses), (up, wins), (level, ties if bets.offset else 0)):
        if count:
            high, low = divmod(count, _STEPS)
            (am, ae), (bm, be) = table.large_at(high), table.small[low]
            mantissas = [m * a * b for m, a, b in zip(mantissas, am, bm, strict=True)]
            exponents = [e + a + b for e, a, b in zip(exponents, ae, be, strict=True)]
    return mantissas, exponents


RISK_BETS = 32


def risk_wealth(bad: int, n: int, risk: float) -> Wealth:
    """A rung's evidence: `bad` of `n` labels were rejects. Null: P(reject) ≥ risk given the past, 0 < risk < 1. Counts.

    E = (1/32) Σ_g (θ_g/t)^bad ((1-θ_g)/(1-t))^(n-bad), θ_g = t(g-1/2)/32: a mixture of likelihood ratios over risks below t.
    Raises ValueError where the counts are none.
    """
    if not 0 <= bad <= n or not 0.0 < risk < 1.0:
        raise ValueError(f"{bad!r} of {n!r} at risk {risk!r}; accepted: 0 <= bad <= n, 0 < risk < 1")
    parts = [times(power(up, bad), power(down, n - bad)) for up, down in _risk_bases(risk)]
    mantissa, exponent = total(parts)
    return mantissa, exponent - 5  # the mean of 32


@lru_cache(maxsize=256)
def _risk_bases(risk: float) -> tuple[tuple[float, float], ...]:
    bases: list[tuple[float, float]] = []
    for g in range(1, RISK_BETS + 1):
        theta = risk * (g - 0.5) / RISK_BETS
        bases.append((theta / risk, (1.0 - theta) / (1.0 - risk)))
    return tuple(bases)
