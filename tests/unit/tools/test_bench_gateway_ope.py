"""The benchmark's off-policy part: its worlds say what is true, its logs are the router's, its figures are what they are called."""

from pathlib import Path

import numpy as np
import pytest

from agents.router.ope_rows import WHOLE, columns
from schemas.errors import Refused
from tools.bench import gateway_ope as ope
from tools.bench.gateway_ope_world import Recorded, Simulated

SMALL = Simulated(people=1000, dims=8)
LINE = '{"prompt": "%s", "arms": {"a": {"reward": %s, "cost": 0.001}, "b": {"reward": 0.5, "cost": 0.00001}}}\n'


def test_a_small_run_says_all_figures() -> None:
    """A replay of 1,500 requests: every estimator and policy, errors only of what was not refused, no limit on what none passed."""
    found = ope.run(lambda words: None, 1, rows=1500, world=SMALL)
    assert set(found["ope"]) == {"snips", "dr", "policies", "rows", "replays", "seed"}
    rows = {(row["estimator"], row["policy"]): row for row in found["ope"]["policies"]}
    assert {policy for _, policy in rows} == {"champion", "cheapest", "learnt", "greedy", "plausible"}
    for estimator in ("snips", "dr"):
        greedy, cheapest = rows[estimator, "greedy"], rows[estimator, "cheapest"]
        assert greedy["refused"] == 0.0
        assert greedy["rmse"] < 0.02
        assert cheapest["refused"] == 1.0
        assert (cheapest["rmse"], cheapest["bias"], cheapest["coverage"]) == (None, None, None)
        assert set(found["ope"][estimator]) >= {"rmse", "bias", "coverage", "refused"}
    assert set(found["summary"]) == {"ope_snips_rmse", "ope_dr_rmse", "ope_snips_coverage", "ope_dr_coverage"}


def test_the_log_is_one_of_our_policy() -> None:
    """Shares sum to the whole, exploration stays within its cap, and happens; only first turns draw; every row can be judged."""
    log = ope.replayed(SMALL, np.random.default_rng(1), 600)
    for row, first in zip(log.rows, log.requests.first.tolist(), strict=True):
        assert sum(row.propensities.values()) == WHOLE
        assert row.sticky == (first != row.at_ms)
        assert row.arm == log.rows[first].arm
        assert row.sticky or max(row.propensities.values()) >= WHOLE - ope.RULE.cap
    assert any(0 < share < WHOLE for row in log.rows for share in row.propensities.values())
    assert columns(log.rows).left_out == {}
    assert 0.4 < np.mean([row.reward is None for row in log.rows if row.label_propensity < WHOLE]) < 0.6
    assert all(row.reward is not None for row in log.rows if row.label_propensity == WHOLE)


def test_rewards_have_the_mean_that_the_world_says() -> None:
    """50,000 requests: each arm's mean reward is its mean quality, to three standard errors."""
    seen = SMALL.requests(np.random.default_rng(2), 50_000)
    assert np.abs(seen.reward.mean(axis=0) / 1e6 - seen.mean.mean(axis=0)).max() < 3 * 0.2 / np.sqrt(50_000)
    assert (seen.first <= np.arange(50_000)).all()


def test_a_file_is_a_world(tmp_path: Path) -> None:
    """Its rows are everyone, its arms sorted, its champion the cheapest of the best; a broken line is refused by its number."""
    file = tmp_path / "outcomes.jsonl"
    words = np.random.default_rng(1).integers(0, 160, (150, 12))
    texts = [" ".join(f"word{word}" for word in row) for row in words]
    file.write_text("".join(LINE % (text, 0.6 + number % 4 / 10) for number, text in enumerate(texts)))
    world = ope.recorded(file, 1)
    assert isinstance(world, Recorded)
    assert (world.arms, world.champion) == (("a", "b"), 0)
    assert world.everyone().mean.mean(axis=0) == pytest.approx([0.74867, 0.5], abs=1e-4)
    drawn = world.requests(np.random.default_rng(1), 10)
    assert (drawn.x.dtype, len(drawn.x)) == (np.int16, 10)
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(Refused, match=r"outcomes\.jsonl:151"):
        ope.run(lambda words: None, 1, data=file)
