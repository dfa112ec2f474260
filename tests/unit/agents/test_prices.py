"""Prices: which counts when, and what an answer costs, in whole nano-dollars."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.prices import cost_nano, expected_nano, price_at
from schemas.routing import Price

OLD = Price(arm="small", since_ms=100, nano_usd_in=150, nano_usd_cached=15, nano_usd_out=600)
NEW = Price(arm="small", since_ms=200, nano_usd_in=100, nano_usd_out=400)
OWN = Price(arm="own", nano_usd_engine_s=1_234_567)
TABLE = (NEW, OWN, OLD)
COUNTS = st.integers(0, 10**7)


def test_the_newest_price_that_has_begun_counts() -> None:
    """Whatever the table's order; from its first millisecond on; of that arm only."""
    assert price_at(TABLE, "small", 99) is None
    assert price_at(TABLE, "small", 100) == price_at(TABLE, "small", 199) == OLD
    assert price_at(TABLE, "small", 200) == price_at(reversed(TABLE), "small", 10**15) == NEW
    assert price_at(TABLE, "own", 0) == OWN
    assert price_at(TABLE, "other", 10**15) is None


def test_an_answer_costs_its_tokens_and_its_time() -> None:
    """Cached tokens at their own price, or at the input's where there is none; time rounded up."""
    assert cost_nano(OLD, 1000, 400, 50, 0) == 600 * 150 + 400 * 15 + 50 * 600
    assert cost_nano(NEW, 1000, 400, 50, 0) == 1000 * 100 + 50 * 400
    assert cost_nano(OLD, 10, 11, 0, 0) == 10 * 15
    assert cost_nano(OWN, 1000, 0, 1000, 1) == 1235
    assert cost_nano(OWN, 1000, 0, 1000, 1000) == 1_234_567
    assert cost_nano(OWN, 0, 0, 0, 0) == 0


def test_an_unknown_price_is_no_price() -> None:
    """None, never 0: the router masks it."""
    assert expected_nano(None, 10, 10, 10) is None
    assert expected_nano(OLD, 1000, 50, 7) == cost_nano(OLD, 1000, 0, 50, 7)


@pytest.mark.parametrize("amounts", [(-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, -1)])
def test_less_than_nothing_is_not_priced(amounts: tuple[int, int, int, int]) -> None:
    """An amount below zero is an error of ours."""
    with pytest.raises(ValueError, match="no amounts"):
        cost_nano(OLD, *amounts)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 10**12))
def test_cost_is_the_exact_sum_rounded_up(tokens_in: int, cached: int, tokens_out: int, ms: int, second: int) -> None:
    """An integer at or above the exact cost, less than one nano-dollar above."""
    price = Price(arm="a", nano_usd_in=7, nano_usd_cached=3, nano_usd_out=11, nano_usd_engine_s=second)
    held = min(cached, tokens_in)
    exact = Fraction((tokens_in - held) * 7 + held * 3 + tokens_out * 11) + Fraction(ms * second, 1000)
    assert cost_nano(price, tokens_in, cached, tokens_out, ms) == ceil(exact)
