"""The ladder as a state machine: two chains of e-processes on fixed thresholds, certified for good but for an alarm."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import at_least
from agents.trust.ladder import CHAINS, RUNGS, Rungs, level_of, thresholds
from schemas import ids

EVEN = [(n * 37 % 1000) / 1000 for n in range(1000)]


def coin(seed: object, label: str) -> float:
    return (ids.coin(str(seed), label) + 0.5) / 65_536


def taught(labels: list[tuple[float, bool]], risk: float = 0.05, delta: float = 0.05) -> Rungs:
    rungs = Rungs.cut(EVEN, risk, delta)
    for z, right in labels:
        rungs = rungs.add(z, right=right)
    return rungs


def test_the_thresholds_are_the_deciles_from_the_best() -> None:
    """Rung 10 covers the best tenth, rung 100 all; equal scores lie on one side."""
    tau = thresholds(EVEN)
    shares = [sum(z >= cut for z in EVEN) for cut in tau]
    assert shares == [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]
    assert thresholds([1.0] * 7)[:9] == (1.0,) * 9
    assert thresholds([-30.0])[9] < -30.0
    with pytest.raises(ValueError, match="no scores"):
        thresholds([])


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=300))
def test_thresholds_never_rise_and_each_rung_covers_its_share(scores: list[float]) -> None:
    """At least: where scores are equal, more."""
    tau = thresholds(scores)
    assert list(tau) == sorted(tau, reverse=True)
    for rung, cut in enumerate(tau):
        assert sum(z >= cut for z in scores) * RUNGS >= len(scores) * (rung + 1)
    assert thresholds(sorted(scores)) == tau


def test_the_levels_share_out_delta() -> None:
    """30 to 100 % at 1/(0.8 δ), 10 and 20 % at 1/(0.2 δ): the first rung of each chain, all others at the same."""
    assert [round(level_of(rung, 0.05), 9) for rung in range(RUNGS)] == [100.0] * 2 + [25.0] * 8
    assert math.isclose(sum(1 / level_of(chain[0], 0.05) for chain, _ in CHAINS), 0.05)


def test_a_rung_waits_for_all_before_it_in_its_chain() -> None:
    """70 % crosses with 30 % still open: nothing is certified; once 30 to 60 % cross, 70 % is at once."""
    rungs = Rungs.cut(EVEN, 0.05, 0.05)
    crossed = (True, False, False, True, True, True, True, False, False, False)
    open_at_30 = rungs.model_copy(update={"crossed": crossed})
    assert (open_at_30.covers(), open_at_30.certified()[0]) == (10, True)
    whole = rungs.model_copy(update={"crossed": (False, False, True, *crossed[3:])})
    assert whole.covers() == 70
    assert whole.certified() == (False, False, True, True, True, True, True, False, False, False)


def test_an_alarm_demotes_the_rung_and_all_looser_ones_to_a_new_start() -> None:
    """What is tighter keeps its evidence; E is 1 again where it was demoted."""
    rungs = taught([(z, True) for z in EVEN[:900]])
    assert rungs.covers() == 100
    after = rungs.demoted(50)
    assert (after.covers(), after.n[:4], after.crossed[:4]) == (40, rungs.n[:4], rungs.crossed[:4])
    assert (after.n[4:], after.bad[4:], after.crossed[4:]) == ((0,) * 6, (0,) * 6, (False,) * 6)
    assert after.wealth(4) == (0.5, 1)
    assert rungs.demoted(30).covers() == 0
    assert after.tau == rungs.tau


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused(bad: float) -> None:
    """And nothing has changed."""
    rungs = Rungs.cut(EVEN, 0.05, 0.05)
    with pytest.raises(ValueError, match="finite"):
        rungs.add(bad, right=True)
    with pytest.raises(KeyError):
        rungs.floor(35)


LABELS = st.lists(st.tuples(st.floats(-0.2, 1.2), st.integers(0, 30).map(bool)), max_size=400)
STEPS = st.lists(st.one_of(LABELS, st.sampled_from(range(10, 101, 10))), max_size=4)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([0.05, 0.1, 0.3]), st.sampled_from([0.05, 0.2]))
def test_whatever_happens_the_ladder_holds_its_rules(
    steps: list[list[tuple[float, bool]] | int], risk: float, delta: float
) -> None:
    """Certified is a prefix of each chain; released is certified; counts never fall but at a reset; a look left out changes nothing."""
    rungs = Rungs.cut(EVEN, risk, delta)
    plain = [False] * RUNGS
    for step in steps:
        if isinstance(step, int):
            rungs = rungs.demoted(step)
            plain = [crossed and rung < step // 10 - 1 for rung, crossed in enumerate(plain)]
            continue
        for z, right in step:
            after = rungs.add(z, right=right)
            assert all(new >= old for new, old in zip(after.n, rungs.n, strict=True))
            assert all(new >= old for new, old in zip(after.bad, rungs.bad, strict=True))
            assert all(new or not old for new, old in zip(after.crossed, rungs.crossed, strict=True))
            rungs = after
            for rung, tau in enumerate(rungs.tau):
                if z >= tau and not plain[rung]:
                    plain[rung] = at_least(risk_wealth(rungs.bad[rung], rungs.n[rung], risk), level_of(rung, delta))
        assert rungs.crossed == tuple(plain)
        _holds(rungs)
    assert Rungs.model_validate_json(rungs.model_dump_json()) == rungs


def _holds(rungs: Rungs) -> None:
    held = rungs.certified()
    for chain, _ in CHAINS:
        row = [held[rung] for rung in chain]
        assert row == sorted(row, reverse=True)
        assert all(rungs.crossed[rung] for rung in chain if held[rung])
    assert rungs.covers() == 0 or held[rungs.covers() // 10 - 1]


def quality(seed: str) -> float:
    """A chance to be right whose distribution is about the benchmark's Beta(4, 0.6): the best of four, stretched towards 1."""
    best = max(coin(seed, str(number)) for number in range(4))
    return 1.0 - (1.0 - best) ** 1.6


def run(seed: str, labels: int, risk_of_all: float | None = None) -> tuple[int, list[bool], Rungs]:
    """(first release or 0, whether each rung was ever certified, the ladder). With `risk_of_all` the score says nothing."""
    scores = [quality(f"{seed}/u{n}") for n in range(1000)]
    rungs, first = Rungs.cut(scores, 0.05, 0.05), 0
    for n in range(labels):
        z = quality(f"{seed}/{n}")
        chance = z if risk_of_all is None else 1.0 - risk_of_all
        rungs = rungs.add(z, right=coin(f"{seed}/{n}", "right") < chance)
        if not first and rungs.covers():
            first = n + 1
    return first, list(rungs.certified()), rungs


@pytest.mark.timeout(60)
def test_a_useless_score_at_the_edge_is_seldom_certified() -> None:
    """Every rung's risk is 5 % exactly, 2,000 labels, a look after each: of 40 ladders at most 4 ever certify one (5 % are 2)."""
    ever = sum(any(run(f"edge{seed}", 2000, 0.05)[1]) for seed in range(40))
    assert ever <= 4


@pytest.mark.timeout(60)
def test_the_first_release_comes_near_500_labels() -> None:
    """The median of 25 ladders, with a score that tells something, and none of them is ever over its risk."""
    truth = sorted(quality(f"truth/{n}") for n in range(20_000))
    firsts: list[int] = []
    for seed in range(25):
        first, held, rungs = run(f"first{seed}", 1000)
        firsts.append(first or 9999)
        for rung, tau in enumerate(rungs.tau):
            inside = [z for z in truth if z >= tau]
            assert not held[rung] or 1.0 - sum(inside) / len(inside) <= 0.05
    assert 300 <= sorted(firsts)[12] <= 600
