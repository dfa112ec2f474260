"""E-processes keep their promise: mean at most one under the null, exactly; and the same bits always."""

import itertools
import math

import pytest

from agents.rules.eprocess import Betting, Discordant, Worse, at_least, log_of, power, total


def value(wealth: tuple[float, int]) -> float:
    return math.ldexp(wealth[0], wealth[1])


@pytest.mark.parametrize("n", range(1, 7))
def test_f1_has_mean_one_at_the_edge_of_its_null(n: int) -> None:
    """Exact enumeration of all sequences of n fair discordant pairs: the mean of E is 1."""
    mean = 0.0
    for wins in range(n + 1):
        mean += math.comb(n, wins) / 2**n * value(Discordant(wins=wins, losses=n - wins).wealth())
    assert mean == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("n", [1, 3, 6])
def test_f2_has_mean_one_at_the_edge_of_its_null(margin: float, n: int) -> None:
    """D in {-1, 1} with mean -d: enumeration of all sequences gives mean 1."""
    up = (1 - margin) / 2
    mean = 0.0
    for sequence in itertools.product((-1.0, 1.0), repeat=n):
        process, chance = Betting(margin=margin), 1.0
        for difference in sequence:
            process, chance = process.add(difference), chance * (up if difference > 0 else 1 - up)
        mean += chance * value(process.wealth())
    assert mean == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("n", [1, 4, 6])
def test_the_harm_process_has_mean_one_at_the_edge_of_its_null(n: int) -> None:
    """Worse by exactly the allowance: mean 1."""
    allowance = 0.01
    up = (1 - allowance) / 2
    mean = 0.0
    for sequence in itertools.product((-1.0, 1.0), repeat=n):
        process, chance = Worse(allowance=allowance), 1.0
        for difference in sequence:
            process, chance = process.add(difference), chance * (up if difference > 0 else 1 - up)
        mean += chance * value(process.wealth())
    assert mean == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(12, 5), (30, 10), (100, 70), (400, 330)])
def test_f1_is_the_beta_binomial(wins: int, losses: int) -> None:
    """Within 0.01 nat of the mixture under a Beta(6, 6) prior cut to (1/2, 1), by numeric integration, where 0 < ln E < 5."""
    steps = 20_000
    points = [0.5 + (i + 0.5) / (2 * steps) for i in range(steps)]
    prior = [(p * (1 - p)) ** 5 for p in points]
    likelihood = [math.exp(wins * math.log(2 * p) + losses * math.log(2 * (1 - p))) for p in points]
    oracle = math.log(math.fsum(w * x for w, x in zip(prior, likelihood, strict=True)) / math.fsum(prior))
    assert 0 < oracle < 5
    assert log_of(Discordant(wins=wins, losses=losses).wealth()) == pytest.approx(oracle, abs=0.01)


def test_a_million_losses_stay_finite_and_hopeless() -> None:
    """No under- or overflow: a hopeless process is very small, never positive evidence, never infinite."""
    log_e = log_of(Discordant(wins=0, losses=1_000_000).wealth())
    assert math.isfinite(log_e)
    assert log_e < -1000
    assert math.isfinite(log_of(Discordant(wins=1_000_000, losses=0).wealth()))


def test_powers_and_sums_do_not_overflow() -> None:
    """A power far beyond a float keeps its logarithm; a sum is that of its greatest part."""
    big = power(1.75, 100_000)
    assert log_of(big) == pytest.approx(100_000 * math.log(1.75), rel=1e-12)
    assert log_of(total([big, power(0.5, 100_000)])) == pytest.approx(log_of(big), rel=1e-12)


def test_levels_compare_exactly() -> None:
    """`at_least` is ≥ on the value, also at equality."""
    assert at_least((0.625, 5), 20.0)
    assert not at_least((math.nextafter(0.625, 0), 5), 20.0)


def test_a_process_survives_json_to_the_bit() -> None:
    """Saved and read again after every value, a process has the same bits as one that never was."""
    straight, saved = Betting(margin=0.03), Betting(margin=0.03)
    for index in range(200):
        difference = ((index * 7919) % 201 - 100) / 100
        straight = straight.add(difference)
        saved = Betting.model_validate_json(saved.add(difference).model_dump_json())
    assert saved == straight
    assert saved.wealth() == straight.wealth()


def test_a_value_out_of_range_is_refused() -> None:
    """D outside [-1, 1] is a bug of the caller."""
    with pytest.raises(ValueError, match="accepted: -1 to 1"):
        Betting(margin=0.1).add(1.5)
