"""The arithmetic of evidence: exact where floats are, and going on where they end."""

import math
from fractions import Fraction

import pytest
from fair import value
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agents.rules.wealth import ONE, Floats, Wealth, at_least, capped, log_of, power, powers, times, total

wealths = st.tuples(
    st.floats(min_value=0.5, max_value=math.nextafter(1.0, 0.0)), st.integers(min_value=-200_000, max_value=200_000)
)
near_ones = st.tuples(
    st.floats(min_value=0.5, max_value=math.nextafter(1.0, 0.0)), st.integers(min_value=-900, max_value=900)
)


def exact(wealth: Wealth) -> Fraction:
    return Fraction(wealth[0]) * Fraction(2) ** wealth[1]


class Kept(BaseModel):
    values: Floats = ()


def test_the_arithmetic_agrees_with_floats() -> None:
    """Products, powers, sums and comparisons of ordinary numbers are those of floats."""
    assert value(times((0.75, 3), (0.5, 1))) == 6.0
    assert value(power(1.5, 10)) == 1.5**10
    assert power(1.5, 0) == ONE
    assert value(total([(0.5, 1), (0.75, 3), (0.0, 0)])) == 7.0
    assert at_least(ONE, 1.0)
    assert not at_least((0.5, 0), 0.6)


def test_nothing_stays_nothing() -> None:
    """Zero has one form, is below every level, adds nothing and takes every product."""
    nothing = (0.0, 0)
    assert total([]) == total([nothing, nothing]) == nothing
    assert times(nothing, (0.75, 90)) == times((0.75, 90), nothing) == nothing
    assert not at_least(nothing, 5e-324)
    assert log_of(nothing) == -math.inf
    assert capped(nothing) == 0.0


def test_levels_compare_exactly() -> None:
    """`at_least` is ≥ on the value, also at equality and one bit below."""
    assert at_least((0.625, 5), 20.0)
    assert not at_least((math.nextafter(0.625, 0), 5), 20.0)
    assert at_least((0.5, -1073), 5e-324)
    assert not at_least((0.5, -1074), 5e-324)


@pytest.mark.parametrize("level", [0.0, -1.0, math.inf, math.nan])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    """Zero, infinity and nan are no levels: every comparison with them would be an accident."""
    with pytest.raises(ValueError, match="accepted: a finite number above 0"):
        at_least(ONE, level)


@pytest.mark.parametrize(("base", "exponent"), [(0.0, 1), (-0.5, 2), (math.inf, 1), (math.nan, 1), (1.5, -1)])
def test_a_power_that_is_none_is_refused(base: float, exponent: int) -> None:
    """A base must be positive and finite, an exponent at least 0; and a refused one leaves no trace in the tables."""
    power(1.5, 300)
    before = len(powers(1.5).large)
    with pytest.raises(ValueError, match="accepted"):
        power(base, exponent)
    assert len(powers(1.5).large) == before


@pytest.mark.parametrize("base", [0.3, 0.9999, 1.0000001, 1.75, 1 / 3])
@pytest.mark.parametrize("exponent", [1, 63, 64, 65, 128, 1000, 4097])
def test_a_power_is_within_its_bound(base: float, exponent: int) -> None:
    """Against exact rational arithmetic the relative error is below 1.02·(n + 64)·2^-53."""
    truth = Fraction(base) ** exponent
    error = float(abs(exact(power(base, exponent)) / truth - 1))
    assert error <= 1.02 * (exponent + 64) * 2.0**-53


def test_a_power_does_not_depend_on_what_was_asked_before() -> None:
    """Small exponents before large ones, or the reverse, or a table that starts anew: the same bits."""
    asked = [3, 70, 5000, 64, 4999, 1]
    first = [power(1.2345678, n) for n in asked]
    powers.cache_clear()
    assert [power(1.2345678, n) for n in reversed(asked)] == first[::-1]


def test_powers_and_sums_do_not_overflow() -> None:
    """A power far beyond a float keeps its logarithm; a sum is that of its greatest part."""
    big, small = power(1.75, 100_000), power(0.5, 100_000)
    assert log_of(big) == pytest.approx(100_000 * math.log(1.75), rel=1e-12)
    assert total([big, small]) == total([small, big]) == big
    assert small == (0.5, -99_999)
    assert total([(0.5, 1), (0.5, -5000)]) == ONE


@given(near_ones, near_ones)
def test_a_product_is_rounded_once(one: Wealth, other: Wealth) -> None:
    """The mantissa of a product is the float nearest to the exact one; the exponent loses nothing."""
    found = times(one, other)
    assert 0.5 <= found[0] < 1.0
    assert abs(exact(found) / (exact(one) * exact(other)) - 1) <= Fraction(1, 2**53)
    assert found == times(other, one)


@given(st.lists(wealths, min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_a_sum_never_loses_its_largest_part(parts: list[Wealth]) -> None:
    """The sum is at least each part and at most their number times the largest, in normal form."""
    found = total(parts)
    top = max(parts, key=lambda part: (part[1], part[0]))
    assert 0.5 <= found[0] < 1.0
    assert (found[1], found[0]) >= (top[1], top[0])
    assert log_of(found) <= log_of(top) + math.log(len(parts)) + 1e-9


@given(st.lists(near_ones, min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_a_sum_is_near_the_exact_one(parts: list[Wealth]) -> None:
    """All parts are positive, so the relative error of adding them up is below their number times 2^-53."""
    truth = sum((exact(part) for part in parts), Fraction(0))
    assert abs(exact(total(parts)) / truth - 1) <= Fraction(len(parts), 2**53)


@given(wealths, st.floats(min_value=1e-300, max_value=1e300))
def test_a_level_agrees_with_logarithms_away_from_equality(wealth: Wealth, level: float) -> None:
    """Where the logarithms differ visibly, `at_least` says what they say."""
    gap = log_of(wealth) - math.log(level)
    if abs(gap) > 1e-9 * max(1.0, abs(log_of(wealth))):
        assert at_least(wealth, level) == (gap > 0)


@given(near_ones, st.floats(min_value=5e-324, allow_infinity=False))
def test_a_level_agrees_with_exact_numbers(wealth: Wealth, level: float) -> None:
    """Against rational arithmetic `at_least` is right everywhere, subnormal levels too."""
    assert at_least(wealth, level) == (exact(wealth) >= Fraction(level))


def test_a_peak_is_capped_at_both_ends() -> None:
    """Within a float's range the cap changes nothing; beyond it is 2^1000 and 0, and order is kept."""
    assert capped((0.625, 5)) == 20.0
    assert capped((0.5, 5000)) == 2.0**1000
    assert capped((0.5, -5000)) == 0.0
    steps = [capped((0.75, exponent)) for exponent in range(-1003, 1004)]
    assert steps == sorted(steps)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_packed_floats_come_back_to_the_bit(values: list[float]) -> None:
    """Any finite floats, subnormals and -0.0 too, are the same bits after JSON."""
    kept = Kept(values=tuple(values))
    again = Kept.model_validate_json(kept.model_dump_json())
    assert [one.hex() for one in again.values] == [one.hex() for one in values]
    assert again.model_dump_json() == kept.model_dump_json()


def test_packed_floats_are_ten_characters_each() -> None:
    """Ten characters a float and none that JSON escapes: 112 bets stay near one kilobyte."""
    text = Kept(values=(5e-324, 1 / 3, -1.7e308, math.pi)).model_dump_json()
    assert len(text) == len('{"values":""}') + 40
    assert "\\" not in text


@pytest.mark.parametrize("text", ["0", "00000", "0000000000000", '"""""', "~~~~~~~~~~"])
def test_packed_floats_that_are_none_are_refused(text: str) -> None:
    """A text that is cut or of other characters is named by the state's reader; it never becomes other numbers."""
    with pytest.raises(ValidationError):
        Kept(values=text)  # pyright: ignore[reportArgumentType]
