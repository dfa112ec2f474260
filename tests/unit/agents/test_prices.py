"""Prices: which counts when, and what an answer costs, in whole nano-dollars."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from agents.rules.prices import Tariff, cost_nano, price_at
from schemas.routing import Price

OLD = Price(arm="small", since_ms=100, nano_usd_in=150, nano_usd_cached=15, nano_usd_out=600)
NEW = Price(arm="small", since_ms=200, nano_usd_in=100, nano_usd_out=400)
OWN = Price(arm="own", nano_usd_engine_s=1_234_567)
TABLE = (NEW, OWN, OLD)
COUNTS = st.integers(0, 10**7)


def test_the_newest_price_that_has_begun_counts() -> None:
    """Whatever the table's order; from its first millisecond on; of that arm only; cached tokens as any other where not said."""
    assert price_at(TABLE, "small", 99) is None
    assert price_at(TABLE, "small", 100) == price_at(TABLE, "small", 199) == Tariff(150, 15, 600, 0)
    assert price_at(TABLE, "small", 200) == price_at(TABLE[::-1], "small", 10**15) == Tariff(100, 100, 400, 0)
    assert price_at(TABLE, "own", 0) == Tariff(0, 0, 0, 1_234_567)
    assert price_at(TABLE, "other", 10**15) is None


def test_an_answer_costs_its_tokens_and_its_time() -> None:
    """Cached tokens at their own price, no more of them than there were; time rounded up; nothing below nothing."""
    old, own = Tariff(150, 15, 600, 0), Tariff(0, 0, 0, 1_234_567)
    assert cost_nano(old, 1000, 400, 50, 0) == 600 * 150 + 400 * 15 + 50 * 600
    assert cost_nano(old, 10, 11, 0, 0) == 10 * 15
    assert cost_nano(old, -5, -5, -5, -5) == 0
    assert cost_nano(own, 1000, 0, 1000, 1) == 1235
    assert cost_nano(own, 1000, 0, 1000, 1000) == 1_234_567
    assert cost_nano(own, 0, 0, 0, 0) == 0


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 10**12))
def test_cost_is_the_exact_sum_rounded_up(tokens_in: int, cached: int, tokens_out: int, ms: int, second: int) -> None:
    """An integer at or above the exact cost, less than one nano-dollar above."""
    held = min(cached, tokens_in)
    exact = Fraction((tokens_in - held) * 7 + held * 3 + tokens_out * 11) + Fraction(ms * second, 1000)
    assert cost_nano(Tariff(7, 3, 11, second), tokens_in, cached, tokens_out, ms) == ceil(exact)
