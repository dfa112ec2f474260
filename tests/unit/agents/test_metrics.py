"""What a pair says of each metric: in [-1, 1], + good for the challenger, from integers that are divided once."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.metrics import contrast, exceedance, gain_of, margin_of, overlaid, overlay_scale, routed

amounts = st.integers(min_value=0, max_value=10**15)


@given(amounts, amounts)
def test_a_contrast_is_the_exact_ratio_rounded_once(champion: int, challenger: int) -> None:
    """(cp - ch)/(cp + ch) is the float nearest to the rational number, within [-1, 1], and turns its sign with the arms."""
    found = contrast(champion, challenger)
    assert -1.0 <= found <= 1.0
    assert found == -contrast(challenger, champion)
    if champion + challenger:
        assert found == float(Fraction(champion - challenger, champion + challenger))


def test_free_answers_on_both_sides_are_a_tie() -> None:
    """Where neither arm costs anything D is 0; where one does, the free one wins whole."""
    assert contrast(0, 0) == 0.0
    assert contrast(7, 0) == 1.0
    assert contrast(0, 7) == -1.0


@pytest.mark.parametrize(("champion", "challenger"), [(-1, 5), (5, -1), (-3, -3)])
def test_amounts_below_zero_are_refused(champion: int, challenger: int) -> None:
    """A latency or cost below zero is no measurement; the message names both."""
    with pytest.raises(ValueError, match=f"champion {champion}, challenger {challenger}; accepted: 0 or more"):
        contrast(champion, challenger)


@pytest.mark.parametrize(("champion", "challenger", "ratio"), [(1000, 900, 0.9), (100, 105, 1.05), (200, 230, 1.15)])
def test_a_ratio_is_the_contrast_that_it_gives(champion: int, challenger: int, ratio: float) -> None:
    """What a route sets as a ratio is the D of a pair with that ratio."""
    assert contrast(champion, challenger) == pytest.approx(gain_of(ratio), abs=1e-15)
    if ratio > 1.0:
        assert contrast(champion, challenger) == pytest.approx(-margin_of(ratio - 1.0), abs=1e-15)


def test_the_bars_and_margins_of_the_design() -> None:
    """10 % faster is 1/19; 5 % dearer is 5/205 and 15 % dearer 15/215."""
    assert gain_of(0.9) == pytest.approx(1 / 19, abs=1e-15)
    assert gain_of(1.0) == 0.0
    assert margin_of(0.05) == 0.05 / 2.05
    assert margin_of(0.15) == pytest.approx(15 / 215, abs=1e-15)
    assert margin_of(0.0) == 0.0


@pytest.mark.parametrize("x0", [1, 3, 900_000, 1_234_567, 10**12])
def test_the_ramp_runs_from_two_thirds_to_one_and_a_half(x0: int) -> None:
    """s is 0 up to 2/3·x0 and 1 from 3/2·x0, at those points exactly; 0.4 at the objective."""
    assert exceedance(0, x0) == exceedance(2 * x0 // 3, x0) == 0.0
    assert exceedance(-(-3 * x0 // 2), x0) == exceedance(100 * x0, x0) == 1.0
    assert exceedance(x0, x0) == 0.4
    assert exceedance(2 * 300, 3 * 300) == 0.0
    assert exceedance(3 * 300, 2 * 300) == 1.0


@given(amounts, amounts, st.integers(min_value=1, max_value=10**12))
def test_the_ramp_is_monotone_and_exact(one: int, other: int, x0: int) -> None:
    """A slower answer never has a smaller s, and s is the rational number rounded once."""
    low, high = sorted((one, other))
    assert exceedance(low, x0) <= exceedance(high, x0)
    truth = (Fraction(one, x0) - Fraction(2, 3)) * Fraction(6, 5)
    assert exceedance(one, x0) == float(min(Fraction(1), max(Fraction(0), truth)))


@pytest.mark.parametrize(("latency", "x0"), [(-1, 100), (100, 0), (100, -5)])
def test_an_objective_that_is_none_is_refused(latency: int, x0: int) -> None:
    """Without an objective above zero there is no ramp."""
    with pytest.raises(ValueError, match="accepted: 0 or more, above 0"):
        exceedance(latency, x0)


@given(st.floats(min_value=0, max_value=1), st.floats(min_value=1e-9, max_value=1 - 1e-9))
def test_a_routed_outcome_stays_in_range(outcome: float, propensity: float) -> None:
    """F9 is within [0, 1] for the challenger and [-1, 0] for the champion: no rounding leaves the range of D."""
    assert 0.0 <= routed(outcome, propensity, challenger=True) <= 1.0
    assert -1.0 <= routed(outcome, propensity, challenger=False) <= 0.0


def test_a_rare_arm_speaks_louder() -> None:
    """At π = 1/5 a challenger's success counts whole and a champion's one quarter of it."""
    assert routed(1.0, 0.2, challenger=True) == 1.0
    assert routed(1.0, 0.2, challenger=False) == -0.25
    assert routed(0.0, 0.2, challenger=True) == 0.0


@pytest.mark.parametrize(
    ("outcome", "propensity"), [(1.1, 0.5), (-0.1, 0.5), (1.0, 0.0), (1.0, 1.0), (math.nan, 0.5), (1.0, math.nan)]
)
def test_an_outcome_that_is_none_is_refused(outcome: float, propensity: float) -> None:
    """Y lies within [0, 1] and π strictly within 0 and 1: an arm that could not be drawn says nothing."""
    with pytest.raises(ValueError, match="accepted: 0 <= Y <= 1"):
        routed(outcome, propensity, challenger=True)


@given(
    st.floats(min_value=-1, max_value=1),
    st.one_of(st.none(), st.floats(min_value=-1, max_value=1)),
    st.floats(min_value=1e-6, max_value=1),
)
def test_an_overlaid_difference_stays_in_range(model: float, person: float | None, share: float) -> None:
    """F10 over 1 + 2/r is within [-1, 1] whatever model and person say."""
    assert -1.0 <= overlaid(model, person, share) <= 1.0


def test_with_everybody_asked_the_model_does_not_count() -> None:
    """At r = 1 the overlay is the person's D, over 3, whatever the model said."""
    assert overlay_scale(1.0) == 3.0
    assert overlaid(1.0, -0.5, 1.0) == overlaid(-1.0, -0.5, 1.0) == -0.5 / 3.0


@pytest.mark.parametrize(
    ("model", "person", "share"),
    [(1.5, None, 0.1), (0.0, -2.0, 0.1), (math.nan, 0.0, 0.1), (0.0, math.nan, 0.1), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5)],
)
def test_an_overlay_that_is_none_is_refused(model: float, person: float | None, share: float) -> None:
    """Neither a D outside [-1, 1] nor a share of nobody or of more than everybody."""
    with pytest.raises(ValueError, match="accepted"):
        overlaid(model, person, share)
