"""The vectorised tracks are the product's, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.eprocess import Nulls, Track, gain_bets, margin_bets, win_bets, worse_bets
from agents.rules.wealth import capped
from tools.bench.judge_draws import Scenario, draw
from tools.bench.judge_replay import replay
from tools.bench.judge_rules import bars, first_looks, running_p95, wealths, whole
from tools.bench.judge_suites import differing
from tools.bench.twin import Reals, count_looks, counts_wealth, mean_looks, value_looks

NULLS = Nulls(
    better=win_bets(), gain=gain_bets(), margin=margin_bets(0.02), harm=margin_bets(0.05), worse=worse_bets(0.01)
)


def looks_of(d: Reals, every: int) -> tuple[dict[str, list[list[float]]], list[list[float]]]:
    """By the product: wealths by null and look, and the means."""
    found: dict[str, list[list[float]]] = {null: [] for null in NULLS.bets}
    means: list[list[float]] = []
    tracks = [Track() for _ in range(d.shape[1])]
    for n, row in enumerate(d.tolist(), start=1):
        tracks = [track.add(value, NULLS) for track, value in zip(tracks, row, strict=True)]
        if n % every == 0:
            for null, rows in found.items():
                rows.append([capped(track.wealth(null, NULLS)) for track in tracks])
            means.append([track.mean or 0.0 for track in tracks])
    return found, means


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), tilt=st.floats(-0.6, 0.6), whole_share=st.floats(0.0, 1.0))
def test_values_and_counts_mixed(seed: int, tilt: float, whole_share: float) -> None:
    """Any mixture of counts and values gives the same wealths and means at every look, rescaled or not."""
    rng = np.random.default_rng(seed)
    d = np.clip(rng.normal(tilt, 0.5, (170, 3)), -1.0, 1.0)
    d = np.where(rng.random(d.shape) < whole_share, np.rint(d), d) + 0.0
    own, means = looks_of(d, 10)
    found = value_looks(NULLS, d, 10)
    assert {null: rows.tolist() for null, rows in found.items()} == own
    assert mean_looks(d, 10).tolist() == means


def test_a_long_track_that_only_loses_stays_the_same() -> None:
    """Far below what a float holds, both say 0; far above, both say the same."""
    for value in (-0.7, 0.7):
        d = np.full((4000, 1), value)
        own, _ = looks_of(d, 1000)
        assert {null: rows.tolist() for null, rows in value_looks(NULLS, d, 1000).items()} == own


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.tuples(*[st.integers(0, 3000)] * 4), min_size=1, max_size=5))
def test_counts_with_missing_verdicts(counts: list[tuple[int, int, int, int]]) -> None:
    """Losses, ties, wins and missing verdicts, any numbers of them."""
    losses, ties, wins, missing = (np.array(column, dtype=np.int64) for column in zip(*counts, strict=True))
    for null, bets in NULLS.bets.items():
        own = [capped(Track(losses=a, ties=b, wins=c, missing=m).wealth(null, NULLS)) for a, b, c, m in counts]
        assert counts_wealth(bets, losses, ties, wins, missing).tolist() == own


def test_looks_of_counts() -> None:
    """Pair by pair, as the judge looks."""
    d = np.random.default_rng(2).choice(np.array([-1, 0, 1], dtype=np.int8), (400, 4), p=(0.1, 0.7, 0.2))
    own, _ = looks_of(d.astype(np.float64), 20)
    assert {null: rows.tolist() for null, rows in count_looks(NULLS.bets, d, 20).items()} == own


def test_a_value_outside_is_refused() -> None:
    """As the product's track refuses it."""
    with pytest.raises(ValueError, match="outside -1 to 1"):
        value_looks(NULLS, np.array([[1.5]]), 1)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("better", quality=0.1, latency=0.6, cost=0.5),
        Scenario("failing", errors=0.2, latency=0.8),
        Scenario("dear", quality=0.1, latency=0.6, cost=1.4),
    ],
)
def test_the_whole_decision_is_the_arenas(scenario: Scenario) -> None:
    """Every wealth at every look and the look that promotes are those of `take` and `look`."""
    pairs = draw(np.random.default_rng(4), scenario, 1500, 2)
    found = wealths(pairs)
    firsts = {"ratchet": first_looks(whole(found, bars(pairs))), "ratchet, no bars": first_looks(whole(found, None))}
    own = [replay(pairs, column) for column in range(2)]
    assert [differing(one, column, found, firsts) for column, one in enumerate(own)] == [[], []]
    assert {np.isfinite(one.promoted) for one in own} == {scenario.name == "better"}


def test_a_disagreement_is_seen() -> None:
    """One bit of one wealth, or another look, is named."""
    pairs = draw(np.random.default_rng(5), Scenario("A/A"), 200, 1)
    found, own = wealths(pairs), replay(pairs, 0)
    found["cost_harm"][7, 0] = np.nextafter(found["cost_harm"][7, 0], 2.0)
    firsts = {"ratchet": np.array([150.0]), "ratchet, no bars": np.array([np.inf])}
    assert differing(own, 0, found, firsts) == ["cost_harm", "ratchet"]


def test_the_running_p95_is_exact() -> None:
    """At every look the nearest-rank p95 of all so far."""
    values = np.random.default_rng(6).integers(1, 1000, (300, 3))
    found = running_p95(values)
    for look in range(30):
        n = (look + 1) * 10
        rank = -(-n * 19 // 20) - 1
        assert found[look].tolist() == np.sort(values[:n], axis=0)[rank].tolist()
