"""The e-processes: fair bets at the edge of their null, near their oracle, and the same bits after every save."""

import math
from itertools import product

import pytest

from agents.rules.eprocess import ONE, Betting, Discordant, Wealth, Worse, at_least, log_of, power, times, total


def value(wealth: Wealth) -> float:
    return math.ldexp(*wealth)


def edge(mean: float, ties: float) -> list[tuple[float, float]]:
    """(D, probability) on -1, 0, 1 with that mean and that share of ties."""
    rest = 1 - ties
    return [(-1.0, (rest - mean) / 2), (0.0, ties), (1.0, (rest + mean) / 2)]


def mean_wealth(start: Betting | Worse, outcomes: list[tuple[float, float]], n: int) -> float:
    """The exact mean of the wealth after n independent outcomes."""
    found = 0.0
    for row in product(outcomes, repeat=n):
        process = start
        for difference, _ in row:
            process = process.add(difference)
        found += math.prod(chance for _, chance in row) * value(process.wealth())
    return found


@pytest.mark.parametrize("n", range(1, 7))
def test_discordant_pairs_are_a_fair_bet(n: int) -> None:
    """F1 at P(win) = 1/2: the mean over all sequences is 1, and below it the mean is smaller."""
    for chance, most in ((0.5, 1 + 1e-9), (0.4, 0.99999)):
        mean = sum(
            math.comb(n, wins)
            * chance**wins
            * (1 - chance) ** (n - wins)
            * value(Discordant(wins=wins, losses=n - wins).wealth())
            for wins in range(n + 1)
        )
        assert mean <= most


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("ties", [0.0, 0.5])
def test_betting_is_fair_at_its_margin(margin: float, ties: float) -> None:
    """F2 at mean -d: exactly 1 for every n up to 6; a hair worse and it is less."""
    for n in range(1, 6 if ties else 7):
        assert mean_wealth(Betting(margin=margin), edge(-margin, ties), n) == pytest.approx(1, abs=1e-9)
    assert mean_wealth(Betting(margin=margin), edge(-margin - 0.02, ties), 4) < 1


@pytest.mark.parametrize("allowance", [0.01, 0.05])
def test_worse_is_fair_at_its_allowance(allowance: float) -> None:
    """The harm process at mean -a: exactly 1; a challenger that is less bad gives less."""
    for n in range(1, 6):
        assert mean_wealth(Worse(allowance=allowance), edge(-allowance, 0.3), n) == pytest.approx(1, abs=1e-9)
    assert mean_wealth(Worse(allowance=allowance), edge(0.0, 0.3), 4) < 1


def oracle(wins: int, losses: int) -> float:
    """ln E of the Beta(6, 6) prior cut to (1/2, 1), by Simpson's rule on a fine grid."""
    steps = 4000

    def integral(a: int, b: int) -> float:
        points = [0.5 + 0.5 * i / steps for i in range(steps + 1)]
        peak = max(p**a * (1 - p) ** b for p in points)
        weights = [1 if i in (0, steps) else 4 if i % 2 else 2 for i in range(steps + 1)]
        return math.log(peak) + math.log(
            sum(w * (p**a * (1 - p) ** b / peak) for w, p in zip(weights, points, strict=True))
        )

    return integral(5 + wins, 5 + losses) - integral(5, 5) + (wins + losses) * math.log(2)


@pytest.mark.parametrize(
    ("wins", "losses"), [(5, 2), (12, 6), (12, 5), (30, 20), (40, 22), (60, 40), (110, 80), (400, 330)]
)
def test_discordant_is_within_a_hundredth_of_its_oracle(wins: int, losses: int) -> None:
    """Where 0 < ln E < 5 the 48 bets agree with the integral they stand for."""
    expected = oracle(wins, losses)
    assert 0 < expected < 5
    assert log_of(Discordant(wins=wins, losses=losses).wealth()) == pytest.approx(expected, abs=0.01)


def test_a_million_losses_stay_finite_and_never_count() -> None:
    """Neither under- nor overflow: the wealth is far below every level, and a million wins far above."""
    lost = Discordant(losses=1_000_000).wealth()
    won = Discordant(wins=1_000_000).wealth()
    assert math.isfinite(log_of(lost))
    assert log_of(lost) < -10_000
    assert math.isfinite(log_of(won))
    assert log_of(won) > 600_000
    assert not at_least(lost, 1e-300)
    assert at_least(won, 1e300)
    assert log_of(Discordant(wins=1850, losses=3150).wealth()) < 0


def test_long_losses_do_not_underflow_a_betting_process() -> None:
    """After 3,000 losses the log wealth is finite, negative, and the wealth no more than before."""
    process, harm = Betting(margin=0.03), Worse(allowance=0.01)
    for _ in range(3000):
        process, harm = process.add(-1.0), harm.add(1.0)
    assert -1e6 < log_of(process.wealth()) < -100
    assert -1e6 < log_of(harm.wealth()) < -100
    assert not at_least(process.wealth(), 1.0)


def test_saving_after_every_value_changes_no_bit() -> None:
    """Through JSON after each value, or not at all: the same mantissas and exponents."""
    for start in (Betting(margin=0.03), Betting(margin=0.0), Worse(allowance=0.01), Discordant()):
        straight = saved = start
        for number in range(120):
            difference = ((number * 37) % 101 - 50) / 50
            straight = straight.add(difference)
            saved = type(saved).model_validate_json(saved.model_dump_json()).add(difference)
        assert saved == straight
        assert saved.wealth() == straight.wealth()


def test_a_value_outside_its_range_is_refused() -> None:
    """A D beyond one would break the bound on the bets."""
    with pytest.raises(ValueError, match="accepted: -1 to 1"):
        Betting(margin=0.0).add(1.5)


def test_the_arithmetic_of_wealth() -> None:
    """Products, powers, sums and comparisons agree with floats, and go on where floats end."""
    assert value(times((0.75, 3), (0.5, 1))) == 6.0
    assert value(power(1.5, 10)) == 1.5**10
    assert power(1.5, 0) == ONE
    assert value(total([(0.5, 1), (0.75, 3), (0.0, 0)])) == 7.0
    assert total([(0.5, 1), (0.5, -5000)]) == ONE
    assert power(0.5, 5000)[1] == -4999
    assert at_least(ONE, 1.0)
    assert not at_least((0.5, 0), 0.6)
    assert log_of((0.0, 0)) == -math.inf
    assert Discordant(wins=1).add(0.0) == Discordant(wins=1)


def test_levels_compare_exactly() -> None:
    """`at_least` is ≥ on the value, also at equality."""
    assert at_least((0.625, 5), 20.0)
    assert not at_least((math.nextafter(0.625, 0), 5), 20.0)


def test_powers_and_sums_do_not_overflow() -> None:
    """A power far beyond a float keeps its logarithm; a sum is that of its greatest part."""
    big = power(1.75, 100_000)
    assert log_of(big) == pytest.approx(100_000 * math.log(1.75), rel=1e-12)
    assert log_of(total([big, power(0.5, 100_000)])) == pytest.approx(log_of(big), rel=1e-12)
