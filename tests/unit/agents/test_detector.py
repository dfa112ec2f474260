"""The SR e-detector: notices a risen rate soon, cries wolf seldom, and its promise holds by enumeration."""

import math
from fractions import Fraction
from statistics import median

import pytest
from drawn import uniforms

from agents.rules.bets import SR_NARROW, SR_WIDE
from agents.rules.detector import ALARM, Detector

OUTCOMES = [(0.0, Fraction(3, 10)), (0.25, Fraction(2, 5)), (1.0, Fraction(3, 10))]


def run_length(p0: float, rates: tuple[tuple[float, int], ...], seed: int) -> int:
    """Values until the alarm, or all of them: the recursion on floats, as `Detector.add` says (see the test of that)."""
    factors = [(1.0 - bet * p0, 1.0 + bet * (1.0 - p0)) for bet in (SR_WIDE if p0 <= 0.1 else SR_NARROW)]
    sums = [0.0] * len(factors)
    limit, n, draws = ALARM * len(factors), 0, uniforms(seed)
    for rate, most in rates:
        for _ in range(most):
            bad = next(draws) < rate
            sums = [(r + 1.0) * factor[bad] for r, factor in zip(sums, factors, strict=True)]
            n += 1
            if sum(sums) >= limit:
                return n
    return n


@pytest.mark.parametrize("p0", [0.05, 0.1, 0.475, 0.9])
def test_the_level_has_mean_n_at_the_edge_of_the_null(p0: float) -> None:
    """E[R_n] = n for rejects at rate p0, over all sequences of up to six; at half the rate it is less."""
    for rate, exact in ((p0, True), (p0 / 2, False)):
        layer = [(1.0, Detector.at(p0))]
        for n in range(1, 7):
            layer = [
                (chance * odds, detector.add(x))
                for chance, detector in layer
                for x, odds in ((1.0, rate), (0.0, 1 - rate))
            ]
            mean = math.fsum(chance * detector.level() for chance, detector in layer)
            assert mean == pytest.approx(n, abs=1e-11) if exact else mean < n


def test_graded_values_are_fair_too() -> None:
    """E[R_n] = n for values between 0 and 1 whose mean is p0: nothing needs them to be rejects."""
    p0 = float(sum(Fraction(x) * odds for x, odds in OUTCOMES))
    layer = [(1.0, Detector.at(p0))]
    for n in range(1, 6):
        layer = [(chance * float(odds), detector.add(x)) for chance, detector in layer for x, odds in OUTCOMES]
        assert math.fsum(chance * one.level() for chance, one in layer) == pytest.approx(n, abs=1e-11)


def test_the_fast_recursion_is_the_detector() -> None:
    """What the simulations here run is what `Detector` computes: the same alarm at the same value."""
    detector, draws = Detector.at(0.05), uniforms(3)
    while not detector.alarmed():
        detector = detector.add(float(next(draws) < 0.12))
    assert detector.n == run_length(0.05, ((0.12, 100_000),), 3)


@pytest.mark.parametrize(
    ("before", "after", "p0", "known", "limit"), [(0.02, 0.10, 0.05, 260, 300), (0.005, 0.03, 0.02, 1206, 1500)]
)
def test_a_risen_rate_is_noticed_soon(before: float, after: float, p0: float, known: int, limit: int) -> None:
    """After 500 good values the median delay is near the design's, 2 → 10 % at p0 5 %: at most 300 values."""
    delays = [
        run_length(p0, ((before, 500), (after, 20_000)), 1000 + run) - 500 for run in range(151 if known < 1000 else 61)
    ]
    assert all(delay > 0 for delay in delays)
    assert known / 2 < median(delays) <= limit


def test_false_alarms_are_ten_thousand_values_apart() -> None:
    """At p0 itself the mean run length is at least c = 10^4, counting runs that were cut at 40,000 as no longer."""
    lengths = [run_length(0.05, ((0.05, 40_000),), 77 + run) for run in range(30)]
    assert sum(lengths) / len(lengths) >= ALARM


@pytest.mark.parametrize("x", [-0.01, 1.01, math.nan, math.inf, -math.inf])
def test_a_value_outside_its_range_is_refused(x: float) -> None:
    """A value beyond 0 to 1 is named, and the detector stands as before."""
    detector = Detector.at(0.05).add(1.0)
    with pytest.raises(ValueError, match="accepted: 0 to 1"):
        detector.add(x)
    assert detector == Detector.at(0.05).add(1.0)


@pytest.mark.parametrize("p0", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_is_none_is_refused(p0: float) -> None:
    """p0 lies strictly within 0 and 1."""
    with pytest.raises(ValueError, match="p0"):
        Detector.at(p0)


def test_saving_after_every_value_changes_no_bit() -> None:
    """Through JSON after each value, or not at all: the same packed state."""
    straight = saved = Detector.at(0.05)
    for _, u in zip(range(300), uniforms(8), strict=False):
        straight = straight.add(u)
        saved = Detector.model_validate_json(saved.model_dump_json()).add(u)
        assert saved.model_dump_json() == straight.model_dump_json()
    assert len(straight.model_dump_json()) < 200


@pytest.mark.parametrize("p0", [0.01, 0.1, 0.5, 0.99])
def test_a_detector_neither_overflows_nor_dies(p0: float) -> None:
    """After thousands of rejects the level is finite and alarmed; after as many good values it is small again, never below 0."""
    detector = Detector.at(p0)
    for _ in range(2500):
        detector = detector.add(1.0)
    assert math.isfinite(detector.level())
    assert detector.alarmed() or p0 > 0.9
    high = detector.level()
    for _ in range(2500):
        detector = detector.add(0.0)
    assert 0.0 < detector.level() < high
    assert not Detector.at(p0).alarmed()
