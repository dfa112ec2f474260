"""When an entry is proven and when a partition fails, against the distributions themselves in fractions."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router.trials import CHECK_SHARE, Counts, checked, keeps_slo, proven


def tail_of_beta(x: Fraction, a: int, b: int) -> Fraction:
    """P(Beta(a, b) > x) by the integral of the density, expanded for whole a and b."""
    whole = Fraction(0)
    for j in range(b):  # B(a, b)^-1 · ∫_x^1 t^(a-1) (1-t)^(b-1) dt
        whole += Fraction((-1) ** j * comb(b - 1, j), a + j) * (1 - x ** (a + j))
    return whole * a * comb(a + b - 1, a)


@pytest.mark.parametrize(("other", "needed"), [(0, 148), (1, 234), (2, 310)])
def test_how_many_trials_prove_an_entry(other: int, needed: int) -> None:
    """At the least number the Beta tail above 2 % falls below 5 %, and not one before."""
    x = Fraction(1, 50)
    assert tail_of_beta(x, 1 + other, 1 + needed) < Fraction(1, 20) <= tail_of_beta(x, 1 + other, needed)
    assert proven(Counts(needed, other))
    assert not proven(Counts(needed - 1, other))


@given(same=st.integers(0, 400), other=st.integers(0, 6))
def test_proven_is_the_beta_bound(same: int, other: int) -> None:
    """For any counts, the rule and the distribution say the same."""
    assert proven(Counts(same, other)) == (tail_of_beta(Fraction(1, 50), 1 + other, 1 + same) < Fraction(1, 20))


def test_never_proven_with_too_many_contradictions() -> None:
    """An entry with more than fifty is given up, whatever else it has."""
    assert proven(Counts(10_000, 50))
    assert not proven(Counts(10**9, 51))


@given(same=st.integers(0, 500), other=st.integers(0, 12))
def test_the_slo_is_a_binomial_test(same: int, other: int) -> None:
    """A partition is switched off where so many false hits have a chance below 5 % at a true rate of 1 %."""
    n, rate = same + other, Fraction(1, 100)
    below = sum((comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(other)), Fraction(0))
    assert keeps_slo(Counts(same, other)) == (1 - below >= Fraction(1, 20))


def test_a_partition_begins_on_and_fails_soon() -> None:
    """No check is no breach; one false hit among the first five is; by the share itself where there were many."""
    assert keeps_slo(Counts())
    assert not keeps_slo(Counts(4, 1))
    assert keeps_slo(Counts(5, 1))
    assert keeps_slo(Counts(5940, 60))
    assert not keeps_slo(Counts(5939, 60))


def test_two_per_cent_of_hits_are_checked() -> None:
    """The coin of 20,000 ids falls at its rate, the same each time."""
    ids = [f"event-{number}" for number in range(20_000)]
    share = sum(checked(one) for one in ids) / len(ids)
    assert abs(share - CHECK_SHARE / 65_536) < 4 * (0.02 * 0.98 / 20_000) ** 0.5
    assert all(checked(one) == checked(one) for one in ids[:100])
