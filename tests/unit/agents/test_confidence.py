"""Confidence sequences: they hold the truth at all looks together, hold the estimate, and narrow."""

import math
from collections.abc import Callable

import pytest
from drawn import uniforms
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.confidence import mean_sequence, rate_sequence
from agents.rules.eprocess import Nulls, Track, win_bets

ALPHA = 0.05


def exact_coverage(chance: float, most: int, bounds: Callable[[int, int], tuple[float, float]], truth: float) -> float:
    """P(the bounds hold `truth` at every one of `most` looks), exactly: the paths of counts that never left it.

    The counts k that leave the truth open are an interval for each n, whose ends move up by at most one as n grows.
    """
    alive = {0: 1.0}
    first, last = 0, 0
    for n in range(1, most + 1):
        moved: dict[int, float] = {}
        for k, mass in alive.items():
            moved[k] = moved.get(k, 0.0) + mass * (1 - chance)
            moved[k + 1] = moved.get(k + 1, 0.0) + mass * chance
        while first <= n and bounds(first, n)[1] < truth:
            first += 1
        last = max(last, first)
        while last < n and bounds(last + 1, n)[0] <= truth:
            last += 1
        alive = {k: mass for k, mass in moved.items() if first <= k <= last}
    return math.fsum(alive.values())


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.5, 0.95])
def test_a_rate_is_covered_at_all_looks_together(rate: float) -> None:
    """The probability that the true rate was ever outside, at any of 300 looks, is at most 5 %: by exact enumeration."""
    covered = exact_coverage(rate, 300, lambda k, n: rate_sequence(k, n, ALPHA), rate)
    assert 1 - ALPHA <= covered < 1


@pytest.mark.parametrize("chance", [0.5, 0.6])
def test_a_mean_of_wins_and_losses_is_covered_at_all_looks_together(chance: float) -> None:
    """The same for the mean of D without ties, at 100 looks."""

    def bounds(k: int, n: int) -> tuple[float, float]:
        found = mean_sequence(Track(wins=k, losses=n - k), ALPHA)
        assert found is not None
        return found

    assert 1 - ALPHA <= exact_coverage(chance, 100, bounds, 2 * chance - 1) < 1


def test_a_mean_with_ties_is_covered_in_simulation() -> None:
    """With half the pairs tied and a mean of 0.1, of 60 runs with 8 looks each at most 5 ever lose the truth."""
    lost = 0
    for run in range(60):
        draws, counts, held = uniforms(run), [0, 0, 0], True
        for n in range(1, 241):
            u = next(draws)
            counts[0 if u < 0.2 else 1 if u < 0.7 else 2] += 1
            if not n % 30:
                found = mean_sequence(Track(losses=counts[0], ties=counts[1], wins=counts[2]), ALPHA)
                assert found is not None
                held = held and found[0] <= 0.1 <= found[1]
        lost += not held
    assert lost <= 5


@given(st.integers(min_value=0, max_value=5000), st.integers(min_value=0, max_value=5000))
@settings(max_examples=80, deadline=None)
def test_a_rate_lies_within_its_bounds(bad: int, good: int) -> None:
    """The bounds hold the estimate and stay within 0 and 1."""
    low, high = rate_sequence(bad, bad + good, ALPHA)
    assert 0.0 <= low <= high <= 1.0
    if bad + good:
        assert low <= bad / (bad + good) <= high


@given(
    st.integers(min_value=0, max_value=2000),
    st.integers(min_value=0, max_value=2000),
    st.integers(min_value=0, max_value=2000),
    st.integers(min_value=0, max_value=50),
)
@settings(max_examples=60, deadline=None)
def test_a_mean_lies_within_its_bounds(losses: int, ties: int, wins: int, missing: int) -> None:
    """The bounds hold the estimate, stay within -1 and 1, and turn with the arms."""
    track = Track(losses=losses, ties=ties, wins=wins, missing=missing)
    found = mean_sequence(track, ALPHA)
    assert found is not None
    assert -1.0 <= found[0] <= (track.mean or 0.0) <= found[1] <= 1.0
    turned = mean_sequence(Track(losses=wins, ties=ties, wins=losses, missing=missing), ALPHA)
    assert turned == (-found[1], -found[0])


def test_nothing_leaves_everything_open() -> None:
    """Before the first label or pair every rate and every mean is possible."""
    assert rate_sequence(0, 0, ALPHA) == (0.0, 1.0)
    assert mean_sequence(Track(), ALPHA) == (-1.0, 1.0)


def test_all_alike_leaves_its_end_open() -> None:
    """None bad: down to exactly 0; all bad: up to exactly 1; the same for the mean of D."""
    low, high = rate_sequence(0, 100, ALPHA)
    assert low == 0.0
    assert 0.03 < high < 0.1
    assert rate_sequence(100, 100, ALPHA) == pytest.approx((1 - high, 1.0), abs=1e-9)
    won = mean_sequence(Track(wins=100), ALPHA)
    lost = mean_sequence(Track(losses=100), ALPHA)
    assert won is not None
    assert lost is not None
    assert won[1] == 1.0
    assert lost[0] == -1.0
    assert won[0] > 0.8
    assert lost[1] == -won[0]


def test_bounds_narrow_with_n() -> None:
    """At the same rate ten times the labels give a third of the width, also far beyond what one route sees."""
    widths = [
        high - low for low, high in (rate_sequence(3 * n // 100, n, ALPHA) for n in (100, 1000, 10_000, 1_000_000))
    ]
    assert widths[1] < widths[0] / 2
    assert widths[2] < widths[1] / 2
    assert widths[3] < widths[2] / 7
    pairs = [mean_sequence(Track(wins=3 * n, losses=2 * n, ties=5 * n), ALPHA) for n in (10, 100, 1000)]
    spans = [found[1] - found[0] for found in pairs if found is not None]
    assert spans[0] > 1.5 * spans[1] > 2 * spans[2]


def test_values_have_no_bounds() -> None:
    """Where a track holds values that are no -1, 0 or 1 there is nothing to invert."""
    assert mean_sequence(Track(wins=3).add(0.5, Nulls(win=win_bets())), ALPHA) is None


@pytest.mark.parametrize(
    ("bad", "n", "alpha"), [(-1, 5, 0.05), (6, 5, 0.05), (1, 5, 0.0), (1, 5, 1.0), (1, 5, math.nan)]
)
def test_counts_that_are_none_are_refused(bad: int, n: int, alpha: float) -> None:
    """0 ≤ bad ≤ n, and α strictly within 0 and 1."""
    with pytest.raises(ValueError, match="accepted: 0 <= bad <= n"):
        rate_sequence(bad, n, alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_an_alpha_that_is_none_is_refused(alpha: float) -> None:
    """α lies strictly within 0 and 1."""
    with pytest.raises(ValueError, match="accepted: between 0 and 1"):
        mean_sequence(Track(wins=3), alpha)
