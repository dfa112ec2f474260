"""Exact enumeration: the mean of an e-process over every sequence of outcomes, each with its probability."""

import math
from fractions import Fraction

from agents.rules.eprocess import Nulls, Track, gain_bets, margin_bets, win_bets, worse_bets
from agents.rules.wealth import Wealth

ALL = Nulls(win=win_bets(), gain=gain_bets(), margin=margin_bets(0.03), harm=margin_bets(0.05), worse=worse_bets(0.01))

Law = list[tuple[float | None, Fraction]]
"""What one pair can be, and how likely."""


def value(wealth: Wealth) -> float:
    """A wealth of ordinary size as a float."""
    return math.ldexp(*wealth)


def law(mean: Fraction | float, low: float, high: float, middle: float = 0.0, share: Fraction = Fraction(0)) -> Law:
    """`low`, `high` and, with that share, `middle`; the mean is exactly `mean`."""
    rest = 1 - share
    aim = (Fraction(mean) - share * Fraction(middle)) / rest
    up = (aim - Fraction(low)) / (Fraction(high) - Fraction(low))
    found: Law = [(low, (1 - up) * rest), (high, up * rest)]
    if share:
        found.append((middle, share))
    assert all(chance >= 0 for _, chance in found), "no such law: the mean is out of reach"
    return found


def mean_of(outcomes: Law) -> Fraction:
    """The exact mean of a law."""
    return sum((Fraction(d or 0.0) * chance for d, chance in outcomes), Fraction(0))


def means(outcomes: Law, nulls: Nulls, name: str, n: int) -> list[float]:
    """The mean of E after 1 to n independent pairs."""
    layer = [(1.0, Track())]
    found: list[float] = []
    for _ in range(n):
        layer = [(chance * float(odds), track.add(d, nulls)) for chance, track in layer for d, odds in outcomes]
        found.append(math.fsum(chance * value(track.wealth(name, nulls)) for chance, track in layer))
    return found


def folded(row: list[float | None], nulls: Nulls = ALL) -> Track:
    """The track after these pairs."""
    track = Track()
    for d in row:
        track = track.add(d, nulls)
    return track


def wealths(track: Track, nulls: Nulls = ALL) -> dict[str, Wealth]:
    """E against each null."""
    return {name: track.wealth(name, nulls) for name in nulls.bets}
