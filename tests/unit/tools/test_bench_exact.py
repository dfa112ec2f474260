"""The exact intervals beside every share."""

import math

import pytest

from tools.bench.exact import beta_share, interval, lower_bound, upper_bound


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.691503, 1.0),
        (1, 20, 0.001265, 0.248733),
    ],
)
def test_intervals_are_clopper_and_pearsons(hits: int, of: int, low: float, high: float) -> None:
    """Known values, to six digits."""
    found = interval(hits, of)
    assert found == (pytest.approx(low, abs=2e-6), pytest.approx(high, abs=2e-6))


@pytest.mark.parametrize(("hits", "of"), [(7, 40), (58, 900), (1, 900), (880, 900)])
def test_bounds_have_their_tail_probability(hits: int, of: int) -> None:
    """Summing the binomial by hand: at the bounds the tails are alpha."""
    alpha = 0.025
    low, high = lower_bound(hits, of, alpha), upper_bound(hits, of, alpha)

    def tail(p: float, counts: range) -> float:
        return sum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in counts)

    assert tail(low, range(hits, of + 1)) == pytest.approx(alpha, rel=1e-9)
    assert tail(high, range(hits + 1)) == pytest.approx(alpha, rel=1e-9)


def test_the_incomplete_beta_function_at_its_ends() -> None:
    """0 at 0, 1 at 1, and the polynomial where the second number is 1."""
    assert (beta_share(2.0, 3.0, 0.0), beta_share(2.0, 3.0, 1.0)) == (0.0, 1.0)
    assert beta_share(4.0, 1.0, 0.7) == pytest.approx(0.7**4, rel=1e-12)


@pytest.mark.parametrize(("hits", "of"), [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_count_is_refused(hits: int, of: int) -> None:
    """More hits than tries, or none tried, is an error."""
    with pytest.raises(ValueError, match="accepted"):
        interval(hits, of)
