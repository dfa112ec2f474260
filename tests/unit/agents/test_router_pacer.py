"""The pacer: within half a per cent of the budget, whatever the costs do; no nano-dollar lost."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router import pacer
from agents.router.pacer import (
    MICRO,
    Pace,
    Pacer,
    affordable,
    corrected,
    late,
    renewed,
    reserved,
    score,
    settled,
    steered,
)
from schemas.errors import Refused

ARMS = (30_000, 500_000, 15_000_000)  # nano-dollars: 1 to 500
MEANS = (790_000, 925_000, 935_000)
REQUESTS = 4_000


def spent_share(
    budget: int,
    costs: Callable[[int, np.random.Generator], np.ndarray],
    *,
    seed: int = 0,
    delay: int = 0,
    alive: Callable[[int, int], bool] = lambda arm, at: True,
) -> float:
    """A period of requests over three arms of uncertain quality: what was spent, out of the budget. Expected costs are the usual ones;
    what a request really cost is settled `delay` requests later."""
    rng = np.random.default_rng(seed)
    pace, state, waiting, total = Pace(budget), Pacer(), [], 0
    for at in range(REQUESTS):
        qualities = [int(mean + 60_000 * rng.normal()) for mean in MEANS]
        actual = costs(at, rng).astype(int).tolist()
        price = steered(state, pace, REQUESTS - at)
        scores = [
            score(quality, cost, pace, price) if alive(arm, at) else -(10**12)
            for arm, (quality, cost) in enumerate(zip(qualities, ARMS, strict=True))
        ]
        arm = scores.index(max(scores))
        state = reserved(state, pace, ARMS[arm], REQUESTS - at - 1)
        waiting.append((ARMS[arm], actual[arm]))
        total += actual[arm]
        while len(waiting) > delay:
            state = settled(state, *waiting.pop(0))
    for one in waiting:
        state = settled(state, *one)
    assert state.spent == total
    assert state.requests == REQUESTS
    return total / (budget * REQUESTS)


def steady(at: int, rng: np.random.Generator) -> np.ndarray:
    """Costs as expected."""
    return np.array(ARMS, float)


def uneven(at: int, rng: np.random.Generator) -> np.ndarray:
    """Log-normal about what is expected."""
    return np.array(ARMS) * rng.lognormal(-0.125, 0.5, 3)


def bursty(at: int, rng: np.random.Generator) -> np.ndarray:
    """Four times as dear for 100 of each 500 requests, a third as dear else."""
    return np.array(ARMS) * (4.0 if at % 500 < 100 else 1 / 3) * rng.lognormal(-0.02, 0.2, 3)


def dearer(at: int, rng: np.random.Generator) -> np.ndarray:
    """The two better arms' prices rise to the threefold on the way."""
    return np.array(ARMS) * np.array([1.0, 3.0, 3.0] if at > REQUESTS // 2 else [1.0, 1.0, 1.0])


BUDGETS = (300_000, 1_000_000, 3_000_000, 7_000_000)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("costs", [steady, uneven, bursty, dearer], ids=lambda one: one.__name__)
def test_the_budget_is_met(budget: int, costs: Callable[[int, np.random.Generator], np.ndarray]) -> None:
    """Within half a per cent at the end of the period, on steady, uneven and bursty costs and after a change of prices."""
    assert abs(spent_share(budget, costs) - 1.0) <= 0.005


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_budget_is_met_when_costs_come_late(budget: int) -> None:
    """What is known at the decision is only the reservation; the result comes 50 requests later."""
    assert abs(spent_share(budget, uneven, delay=50) - 1.0) <= 0.005


@pytest.mark.parametrize("budget", [1_000_000, 3_000_000])
def test_the_budget_is_met_when_an_arm_dies(budget: int) -> None:
    """The middle arm is gone for the last half."""
    assert abs(spent_share(budget, steady, alive=lambda arm, at: arm != 1 or at < REQUESTS // 2) - 1.0) <= 0.005


def test_what_does_not_bind_costs_nothing() -> None:
    """Below the budget λ stays 0."""
    state = Pacer()
    for _ in range(100):
        state = reserved(state, Pace(1_000), 900)
    assert state.price == 0
    assert steered(state, Pace(1_000)) == 0


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)), max_size=60), st.integers(1, 10**9))
def test_nothing_is_lost_and_the_price_is_never_negative(costs: list[tuple[int, int]], budget: int) -> None:
    """`spent` is the sum of what was settled to the nano-dollar; λ stays within its bounds."""
    pace, state = Pace(budget), Pacer()
    for expected, actual in costs:
        state = settled(reserved(state, pace, expected), expected, actual)
        assert 0 <= state.price <= pacer.MOST_PRICE
        assert steered(state, pace) >= 0
    assert state.spent == sum(actual for _, actual in costs)
    assert renewed(state) == Pacer(state.price, carried=state.carried)


@given(st.integers(1, 10**12), st.integers(0, 10**14))
def test_one_step_is_bounded(budget: int, cost: int) -> None:
    """However dear a request was, λ rises by at most seven steps; it falls by at most one."""
    pace = Pace(budget)
    moved = reserved(Pacer(100_000), pace, cost).price - 100_000
    step = pace.eta + 100_000 * pace.relative // MICRO
    assert -step <= moved <= 7 * step


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_the_ledger_corrects_within_bounds(spent: int, due: int) -> None:
    """By at most the factor 2, in the direction of the ledger."""
    pace, state = Pace(1_000), Pacer(10_000)
    price = corrected(state, pace, spent, due)
    assert 5_000 <= price <= 20_000
    if spent > 2 * due:
        assert price == 20_000
    if spent < due:
        assert price <= 10_000


def test_money_and_lateness_are_taken_off_the_quality() -> None:
    """In millionths: λ times the share of the budget, and the share above the SLO."""
    pace = Pace(1_000)
    assert score(900_000, 2_000, pace, 50_000) == 800_000
    assert late(900, 1_000, 70_000) == 0
    assert late(1_500, 1_000, 70_000) == 35_000


def test_what_would_break_the_limit_is_not_affordable() -> None:
    """At 100 % the budget is a mask."""
    assert affordable(Pacer(spent=900), 100, 1_000)
    assert not affordable(Pacer(spent=900), 101, 1_000)


def test_all_wrong_numbers_of_a_pace_are_named_at_once() -> None:
    """Each with what is accepted."""
    with pytest.raises(Refused, match=r"budget 0, accepted: 1 to .*; horizon 0, accepted"):
        Pace(0, horizon=0)
