"""The e-processes: fair bets at the edge of their null, near their oracle, and the same bits after every save."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from fair import ALL, Law, folded, law, mean_of, means, value

from agents.rules.bets import F1_W
from agents.rules.eprocess import Bets, Nulls, Track, gain_bets, margin_bets, risk_wealth, win_bets, worse_bets
from agents.rules.metrics import contrast, exceedance, gain_of, margin_of, overlaid, overlay_scale, routed
from agents.rules.wealth import at_least, log_of
from schemas.routes import JudgeSettings

TIGHT = 1e-12
HALF = Fraction(1, 2)

# fair at the edge of the null


EDGES: dict[str, tuple[Bets, Law]] = {
    "F1, no ties": (win_bets(), law(0, -1.0, 1.0)),
    "F1, ties": (win_bets(), law(0, -1.0, 1.0, 0.0, HALF)),
    "F1, graded": (win_bets(), law(0, -0.3, 0.7, 0.1, Fraction(1, 4))),
    "F2 d=0, counts": (gain_bets(), law(0, -1.0, 1.0, 0.0, Fraction(1, 3))),
    "F2 d=0, graded": (gain_bets(), law(0, -0.85, 0.4)),
    "F2 margin, counts": (margin_bets(0.03), law(-0.03, -1.0, 1.0, 0.0, HALF)),
    "F2 margin, graded": (margin_bets(0.03), law(-0.03, -0.9, 0.125, 0.5, Fraction(1, 8))),
    "F2 harm": (margin_bets(0.05), law(-0.05, -1.0, 1.0, 0.0, HALF)),
    "F2 wide margin": (margin_bets(0.9), law(-0.9, -1.0, 1.0)),
    "F2 all but the whole": (margin_bets(0.999), law(-0.999, -1.0, 1.0)),
    "worse by a": (worse_bets(0.01), law(-0.01, -1.0, 1.0, 0.0, HALF)),
    "worse by a, graded": (worse_bets(0.015), law(-0.015, -0.6, 0.9)),
    "worse at all": (worse_bets(0.0), law(0, -1.0, 1.0)),
    "F4 latency": (gain_bets(), law(0, contrast(900_001, 1_330_007), contrast(1_200_000, 771_000))),
    "F5 ramp": (margin_bets(0.02), law(-0.02, -exceedance(1_300_017, 1_000_000), exceedance(900_001, 1_000_000))),
    "F5 harm": (margin_bets(0.05), law(-0.05, -exceedance(1_100_000, 990_000), 1.0, 0.0, Fraction(3, 4))),
    "F7 errors": (margin_bets(0.01), law(-0.01, -1.0, 1.0, 0.0, Fraction(9, 10))),
    "F8 cost gain": (gain_bets(), law(0, -1.0, contrast(1000, 100), 0.25, HALF)),
    "F8 cost margin": (margin_bets(margin_of(0.05)), law(-margin_of(0.05), contrast(600, 701), contrast(700, 600))),
    "F8 cost harm": (margin_bets(margin_of(0.15)), law(-margin_of(0.15), -1.0, contrast(710, 600))),
}


@pytest.mark.parametrize("case", EDGES)
def test_the_mean_is_one_at_the_edge_of_the_null(case: str) -> None:
    """Every sequence of up to six pairs, weighted by its probability: exactly 1 at the edge, and falling when a little inside."""
    bets, edge = EDGES[case]
    nulls = Nulls(it=bets)
    assert means(edge, nulls, "it", 6) == pytest.approx([1.0] * 6, abs=TIGHT)
    bad, good = (0, 1) if bets.sign > 0 else (1, 0)
    inside = list(edge)
    inside[bad] = (edge[bad][0], edge[bad][1] + edge[good][1] / 50)
    inside[good] = (edge[good][0], edge[good][1] * 49 / 50)
    falling = [1.0, *means(inside, nulls, "it", 4)]
    assert all(later < earlier for earlier, later in pairwise(falling))


def test_a_missing_verdict_never_helps() -> None:
    """No verdict is a tie where a gain is claimed and where harm is, a loss where "not worse" is: the mean stays at most 1."""
    law_with_gaps: Law = [(-1.0, Fraction(1, 4)), (1.0, Fraction(1, 4)), (None, HALF)]
    for name in ALL.bets:
        assert all(mean <= 1.0 + TIGHT for mean in means(law_with_gaps, ALL, name, 4))
    nothing = folded([None] * 30)
    assert value(nothing.wealth("win", ALL)) == pytest.approx(1.0, abs=TIGHT)
    assert nothing.wealth("margin", ALL) == folded([-1.0] * 30).wealth("margin", ALL)
    assert nothing.wealth("worse", ALL) == folded([0.0] * 30).wealth("worse", ALL)


def stopped(track: Track, nulls: Nulls, name: str, laws: Callable[[Track], Law], left: int) -> float:
    """The mean of E where one stops as soon as it stands above 1.2, or after `left` more pairs."""
    now = value(track.wealth(name, nulls))
    if not left or now > 1.2:
        return now
    return math.fsum(float(odds) * stopped(track.add(d, nulls), nulls, name, laws, left - 1) for d, odds in laws(track))


@pytest.mark.parametrize("name", list(ALL.bets))
def test_stopping_at_the_best_moment_gains_nothing(name: str) -> None:
    """Who looks after every pair and stops when it looks good has mean 1, also where the past sets what the next pair can be."""
    edge = {"win": 0.0, "gain": 0.0, "margin": -0.03, "harm": -0.05, "worse": -0.01}[name]

    def laws(track: Track) -> Law:
        return law(edge, -1.0, 1.0, 0.0, Fraction(1, 3)) if track.n % 2 or track.wins else law(edge, -0.4, 0.8)

    assert stopped(Track(), ALL, name, laws, 6) == pytest.approx(1.0, abs=TIGHT)


def test_routed_pairs_are_fair_at_unequal_shares() -> None:
    """F9: with a challenger drawn at 0.2 and 0.7, never paired: mean 1 at the margin, also where the share changes and d is 0."""

    def routed_law(pi: Fraction, champion: Fraction, challenger: Fraction, weight: Fraction = Fraction(1)) -> Law:
        rows = [(True, pi, challenger), (False, 1 - pi, champion)]
        return [
            (routed(y, float(pi), challenger=arm), weight * odds * (rate if y else 1 - rate))
            for arm, odds, rate in rows
            for y in (0.0, 1.0)
        ]

    few, most = Fraction(1, 5), Fraction(7, 10)
    level = Fraction(4, 5)
    for pi in (few, most):
        least = float(min(pi, 1 - pi))
        nulls = Nulls(margin=margin_bets(0.03 * least), gain=gain_bets())
        worse = routed_law(pi, level, level - Fraction(3, 100))
        assert means(worse, nulls, "margin", 4) == pytest.approx([1.0] * 4, abs=TIGHT)
        assert means(routed_law(pi, level, level), nulls, "gain", 4) == pytest.approx([1.0] * 4, abs=TIGHT)
        assert means(worse, nulls, "gain", 3)[-1] < 1.0
    nulls = Nulls(margin=margin_bets(0.03 * float(few)), gain=gain_bets())
    mixed = [*routed_law(few, level, level, HALF), *routed_law(most, level, level, HALF)]
    assert means(mixed, nulls, "gain", 3) == pytest.approx([1.0] * 3, abs=TIGHT)
    lower = level - Fraction(3, 100)
    mixed = [*routed_law(few, level, lower, HALF), *routed_law(most, level, lower, HALF)]
    assert means(mixed, nulls, "margin", 3)[-1] < 1.0


@pytest.mark.parametrize("bias", [1.0, -1.0, 0.25])
def test_a_biased_judge_model_gains_nothing_under_the_overlay(bias: float) -> None:
    """F10: a model that always says `bias`, people asked by a coin of share 1/5: mean 1 where people's D has the null's mean."""
    share = Fraction(1, 5)
    scale = overlay_scale(float(share))
    for margin, bets in ((0.03, margin_bets(0.03 / scale)), (0.0, gain_bets()), (0.0, win_bets())):
        people = law(-margin, -1.0, 1.0, 0.0, HALF)
        asked: Law = [(overlaid(bias, d, float(share)), share * odds) for d, odds in people]
        edge = [*asked, (overlaid(bias, None, float(share)), 1 - share)]
        assert float(mean_of(edge)) == pytest.approx(-margin / scale, abs=TIGHT)
        assert means(edge, Nulls(it=bets), "it", 4) == pytest.approx([1.0] * 4, abs=TIGHT)


@pytest.mark.parametrize("risk", [0.01, 0.05, 0.2, 0.9])
def test_a_rung_is_a_fair_bet(risk: float) -> None:
    """The ladder's process at P(reject) = t: mean 1 for up to six labels; at a higher risk it is less, and falls."""

    def mean(n: int, chance: float) -> float:
        return math.fsum(
            math.comb(n, bad) * chance**bad * (1 - chance) ** (n - bad) * value(risk_wealth(bad, n, risk))
            for bad in range(n + 1)
        )

    assert [mean(n, risk) for n in range(7)] == pytest.approx([1.0] * 7, abs=TIGHT)
    falling = [mean(n, min(1.0, risk * 1.1)) for n in range(7)]
    assert all(later < earlier for earlier, later in pairwise(falling))


# the oracle


def log_integral(power_of_p: int, power_of_rest: int, low: float, high: float) -> float:
    """ln ∫ p^a (1-p)^b dp from `low` to `high`, by Simpson's rule on logarithms."""
    steps = 2000
    terms: list[tuple[float, int]] = []
    for i in range(steps + 1):
        p = low + (high - low) * i / steps
        if (p > 0 or not power_of_p) and (p < 1 or not power_of_rest):
            log_p = power_of_p * math.log(p) if power_of_p else 0.0
            log_rest = power_of_rest * math.log1p(-p) if power_of_rest else 0.0
            terms.append((log_p + log_rest, 1 if i in (0, steps) else 4 if i % 2 else 2))
    most = max(term for term, _ in terms)
    return most + math.log(sum(weight * math.exp(term - most) for term, weight in terms) * (high - low) / steps / 3)


def risk_oracle(bad: int, n: int, risk: float) -> float:
    """ln E of the uniform prior on (0, risk): STATISTICS 2 with a = b = 1; the beta functions cancel."""
    fit = log_integral(bad, n - bad, 0.0, risk) - math.log(risk)
    return fit - bad * math.log(risk) - (n - bad) * math.log1p(-risk)


def win_oracle(wins: int, losses: int) -> float:
    """ln E of the Beta(6, 6) prior cut to (1/2, 1)."""
    fit = log_integral(5 + wins, 5 + losses, 0.5, 1.0) - log_integral(5, 5, 0.5, 1.0)
    return fit + (wins + losses) * math.log(2)


def test_the_oracle_is_right_where_it_has_a_closed_form() -> None:
    """Two integrals known by hand; and the hopeless case of STATISTICS 2 is -7.43."""
    assert log_integral(1, 1, 0.5, 1.0) == pytest.approx(math.log(1 / 12), abs=1e-9)
    assert log_integral(0, 3, 0.0, 0.05) == pytest.approx(math.log((1 - 0.95**4) / 4), abs=1e-9)
    assert risk_oracle(1850, 5000, 0.05) == pytest.approx(-7.43, abs=0.01)


@pytest.mark.parametrize("risk", [0.02, 0.05, 0.1, 0.2])
def test_a_rung_is_within_a_hundredth_of_its_oracle(risk: float) -> None:
    """Where 0 < ln E < 5, up to 5,000 labels, the 32 bets agree with the integral they stand for."""
    seen = 0
    for n in (30, 100, 500, 2000, 5000):
        for bad in range(0, int(n * risk) + 1, max(1, n // 250)):
            expected = risk_oracle(bad, n, risk)
            if 0 < expected < 5:
                seen += 1
                assert log_of(risk_wealth(bad, n, risk)) == pytest.approx(expected, abs=0.01)
    assert seen > 5


def test_wins_are_within_a_hundredth_of_their_oracle() -> None:
    """F1 where 0 < ln E < 5, up to 5,000 discordant pairs: the 48 bets agree with the integral they stand for."""
    seen = 0
    for n in (5, 20, 100, 500, 1500, 5000):
        for wins in range(n // 2, n + 1, max(1, n // 120)):
            expected = win_oracle(wins, n - wins)
            if 0 < expected < 5:
                seen += 1
                assert log_of(Track(wins=wins, losses=n - wins).wealth("win", ALL)) == pytest.approx(expected, abs=0.01)
    assert seen > 20


def test_the_hopeless_case_is_never_positive() -> None:
    """37 % rejects of 5,000 at 5 %, where the incomplete beta underflows: at most its oracle of -7.43, and no floor lifts it."""
    hopeless = log_of(risk_wealth(1850, 5000, 0.05))
    assert math.isfinite(hopeless)
    assert hopeless <= -7.43 + 0.01
    assert log_of(Track(wins=1850, losses=3150).wealth("win", ALL)) < 0
    assert all(log_of(risk_wealth(bad, 5000, 0.05)) < 0 for bad in range(251, 5001, 250))


def test_a_million_losses_stay_finite() -> None:
    """Neither under- nor overflow: a million losses are below every level, as many wins above, and their logarithms finite."""
    nulls = Nulls(margin=margin_bets(0.03))
    lost, won = Track(losses=1_000_000).wealth("margin", nulls), Track(wins=1_000_000).wealth("margin", nulls)
    assert -1e6 < log_of(lost) < -10_000
    assert not at_least(lost, 1e-300)
    assert 10_000 < log_of(won) < 1e6
    assert at_least(won, 1e300)
    assert -1e6 < log_of(risk_wealth(1_000_000, 1_000_000, 0.05)) < -10_000
    for name, sign in (("win", -1), ("gain", -1), ("worse", 1)):
        assert 1e3 < sign * log_of(Track(losses=100_000).wealth(name, ALL)) < 1e6


def test_values_at_the_extremes_neither_vanish_nor_overflow() -> None:
    """10^5 values next to 1, then as many next to -1: the wealth climbs, then falls, in normal form at every look."""
    nulls = Nulls(gain=gain_bets())
    track, logs = Track(), [0.0]
    for d, sign in ((0.9990234375, 1), (-0.9990234375, -1)):
        for _ in range(20):
            for _ in range(5000):
                track = track.add(d, nulls)
            mantissa, exponent = track.wealth("gain", nulls)
            assert 0.5 <= mantissa < 1.0
            logs.append(log_of((mantissa, exponent)))
            assert math.isfinite(logs[-1])
            assert (logs[-1] - logs[-2]) * sign > 1
    assert max(logs) > 60_000
    assert logs[-1] < 0
    assert min(track.shifts) < -900
    assert all(left > 0 and math.isfinite(left) for left in track.rest)


@pytest.mark.parametrize("margin", [0.9, 0.99, 0.9999999999, -0.99])
def test_a_margin_near_everything_does_not_overflow_between_two_rescalings(margin: float) -> None:
    """The highest factors and the lowest ones, 200 in a row each: finite, and as counting them would say."""
    nulls = Nulls(it=margin_bets(margin), win=win_bets())
    near = math.nextafter(1.0, 0.0)
    for d in (near, -near):
        track = folded([d] * 200, nulls)
        counted = folded([math.copysign(1.0, d)] * 200, nulls)
        assert track.others == 200
        for name in nulls.bets:
            assert log_of(track.wealth(name, nulls)) == pytest.approx(log_of(counted.wealth(name, nulls)), rel=1e-6)


@pytest.mark.parametrize("margin", [1.0, -1.0, 1.5, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    """A null that no D can break or that every D breaks has no bets."""
    with pytest.raises(ValueError, match="accepted: between -1 and 1"):
        margin_bets(margin)
    with pytest.raises(ValueError, match="accepted: 0 up to below 1"):
        worse_bets(margin)


@pytest.mark.parametrize(("bad", "n", "risk"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0), (1, 5, 1.0), (1, 5, math.nan)])
def test_counts_that_are_none_are_refused(bad: int, n: int, risk: float) -> None:
    """A rung's counts lie within 0 ≤ bad ≤ n and its risk within 0 and 1."""
    with pytest.raises(ValueError, match="accepted: 0 <= bad <= n"):
        risk_wealth(bad, n, risk)


def test_bets_are_what_their_table_says() -> None:
    """Weights sum to 1 within a rounding and no D brings a factor to 0: for every null and any margin."""
    for bets in (*ALL.bets.values(), margin_bets(0.0), margin_bets(0.99), margin_bets(-0.9), worse_bets(0.99)):
        assert math.fsum(bets.weights) == pytest.approx(1.0, abs=1e-15)
        for level, slope in zip(bets.levels, bets.slopes, strict=True):
            assert min(level - slope, level + slope) > 2.0**-7
            assert max(level - slope, level + slope) < 2.0**7
    assert len(F1_W) == 48


def test_a_bar_is_evidence_only_past_it() -> None:
    """At a steady ratio of 0.9 the F4 process grows, and at 1/0.9 it falls: the sign is the challenger's."""
    nulls = Nulls(gain=gain_bets())
    d = contrast(1000, 900)
    assert d == pytest.approx(gain_of(0.9))
    assert log_of(folded([d] * 200, nulls).wealth("gain", nulls)) > 3
    assert log_of(folded([-d] * 200, nulls).wealth("gain", nulls)) < -0.5


def test_the_page_names_every_number_of_a_route() -> None:
    """docs/statistics.md says of each of the judge's settings that there is one: a new one belongs there."""
    page = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert [name for name in JudgeSettings.model_fields if f"`{name}`" not in page] == []
