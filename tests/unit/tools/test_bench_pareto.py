"""`ratchet bench router --format paretobandit` on small files: what it reads, refuses, compares with, and what it learns from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.router.thompson import WHOLE
from schemas.errors import Refused
from tools.bench import router_pareto
from tools.bench.pareto_data import Outcomes, read
from tools.bench.pareto_play import Settings, play, warmed
from tools.bench.pareto_rules import Hindsight

TOPICS = ("sum the numbers", "name the river", "write the code", "find the error")
WORDS = ("please", "now", "short", "long", "fully", "again", "once", "twice", "step", "list", "table", "word", "part")


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts of four topics: the dear arm is better on two of them, the cheap one on the others."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        topic = int(rng.integers(4))
        words = " ".join(rng.choice(WORDS, 12))
        dear, cheap = (0.9, 0.5) if topic < 2 else (0.6, 0.8)
        made.append(
            {
                "prompt": f"{TOPICS[topic]} {words}",
                "arms": {
                    "dear": {"reward": dear, "cost": 0.004 * rng.uniform(0.8, 1.2)},
                    "cheap": {"reward": cheap, "cost": 0.0002, "near_best": True},
                },
                "source": f"topic-{topic}",
                "difficulty": "none",
                "best_arm": "dear",
            }
        )
    return made


def written(path: Path, made: list[dict[str, Any]]) -> Path:
    """A file of them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for the runs."""
    return written(tmp_path_factory.mktemp("pareto") / "data.jsonl", rows(420))


@pytest.fixture(scope="module")
def outcomes(data: Path) -> Outcomes:
    """What is in it."""
    return read(data)


def test_a_file_is_read_with_arms_by_name(outcomes: Outcomes) -> None:
    """Rewards in millionths, costs in nano-dollars; all further fields are left."""
    assert outcomes.arms == ("cheap", "dear")
    assert outcomes.rewards.shape == (420, 2)
    assert set(outcomes.rewards[:, 0].tolist()) == {500_000, 800_000}
    assert set(outcomes.costs[:, 0].tolist()) == {200_000}


GOOD = {"prompt": "p", "arms": {"a": {"reward": 1, "cost": 0}}}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"arms": GOOD["arms"]}, "`prompt` is no text"),
        ({"prompt": "p"}, "`arms` is no object"),
        ({"prompt": "p", "arms": []}, "`arms` is no object"),
        ({"prompt": "p", "arms": {}}, "`arms` is no object"),
        ({"prompt": "p", "arms": {"a": {"reward": 1}}}, "arms.a: `cost` is no number"),
        ({"prompt": "p", "arms": {"a": {"reward": True, "cost": 0}}}, "arms.a: `reward` is no number"),
        ({"prompt": "p", "arms": {"a": {"reward": 1.5, "cost": 0}}}, "reward is 1.5"),
        ({"prompt": "p", "arms": {"a": {"reward": 1, "cost": -1}}}, "cost is -1"),
        ({"prompt": "p", "arms": {"b": {"reward": 1, "cost": 0}}}, "the arms are"),
        ([], "`prompt` is no text"),
    ],
)
def test_a_row_that_is_none_is_refused_with_its_line(tmp_path: Path, row: Any, why: str) -> None:
    """Where it is, what is wrong, what is accepted."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(Refused) as fault:
        read(path)
    assert "rows.jsonl:3" in str(fault.value)
    assert why in str(fault.value)
    assert "accepted: a line" in str(fault.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Missing, empty, no JSON, no text."""
    with pytest.raises(Refused, match="cannot be read"):
        read(tmp_path / "none.jsonl")
    for content, why in ((b"", "no row"), (b"{\n", ":1: it is no JSON"), (b"\xff\xfe", "cannot be read")):
        path = tmp_path / "bad.jsonl"
        path.write_bytes(content)
        with pytest.raises(Refused, match=why):
            read(path)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "--data is missing"),
        (["--data", "x", "--warm-n", "5"], "--warm-n 5"),
        (["--data", "x", "--orders", "0"], "--orders 0"),
        (["--data", "x", "--what"], "not understood: --what"),
        (["--data", "x", "--orders", "many"], "usage|invalid"),
    ],
)
def test_a_wrong_call_is_refused_with_the_usage(options: list[str], why: str) -> None:
    """Everything wrong at once."""
    with pytest.raises(Refused, match=why) as fault:
        router_pareto.options_of(options)
    assert "--warm-n N" in str(fault.value)


def test_the_report_has_what_the_contract_says(data: Path) -> None:
    """Five budgets, each with reward, cost, error, and what it is compared with; the router beats the best single arm for less."""
    found = router_pareto.run(["--data", str(data), "--warm-n", "150", "--orders", "2"], lambda words: None)
    assert list(found["results"]) == ["0.0003", "0.001", "0.003", "0.007", "none"]
    for row in found["results"].values():
        assert {
            "reward", "cost", "budget_error", "best_single", "best_single_within_budget", "random_mix_at_cost", "oracle"
        } <= set(row)  # fmt: skip
        assert row["reward"] <= row["oracle"] + 1e-9
        assert 0 < row["least_propensity"] <= 1
    free = found["results"]["none"]
    assert free["reward"] > free["best_single"]
    assert free["cost"] < free["best_single_cost"] * 1.05
    assert [found["results"][name]["binds"] for name in ("0.0003", "0.007")] == [True, False]
    assert found["summary"]["budget_error_0.007"]["pass"] is None
    json.dumps(found)


def test_the_same_file_gives_the_same_report(data: Path) -> None:
    """Seeds, not chance."""
    told = ["--data", str(data), "--warm-n", "150", "--orders", "1"]
    assert router_pareto.run(told, lambda words: None) == router_pareto.run(told, lambda words: None)


def test_a_warm_file_of_its_own_leaves_all_rows_to_the_stream(data: Path, tmp_path: Path) -> None:
    """Its arms must be those of the data."""
    warm = written(tmp_path / "warm.jsonl", rows(150, seed=9))
    told = ["--data", str(data), "--orders", "1", "--warm", str(warm), "--basis", str(warm)]
    assert router_pareto.run(told, lambda words: None)["warm_rows"] == 150
    written(warm, [{**GOOD}] * 150)
    with pytest.raises(Refused, match="its arms are"):
        router_pareto.run(told, lambda words: None)
    written(warm, rows(20))
    with pytest.raises(Refused, match="20 rows"):
        router_pareto.run(told, lambda words: None)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """What is left after the warm start must be a stream."""
    path = written(tmp_path / "few.jsonl", rows(150))
    with pytest.raises(Refused, match="150 rows, of which 300"):
        router_pareto.run(["--data", str(path)], lambda words: None)


def test_only_the_drawn_arms_outcome_is_seen(outcomes: Outcomes) -> None:
    """Changing what the arms not drawn would have said changes nothing."""
    x = np.random.default_rng(0).normal(0, 3000, (420, 40)).clip(-32768, 32767).astype(np.int16)
    x[:, 0] = 4096
    warm, stream = outcomes.part(np.arange(150)), outcomes.part(np.arange(150, 420))
    start = warmed(x[:150], warm)
    first = play(start, x[:150], x[150:], stream, 1_000_000, "n", Settings())
    other = Outcomes(stream.prompts, stream.arms, stream.rewards.copy(), stream.costs.copy())
    hidden = 1 - first.arms
    other.rewards[np.arange(270), hidden] = 123_456
    other.costs[np.arange(270), hidden] = 999_999_999
    second = play(start, x[:150], x[150:], other, 1_000_000, "n", Settings())
    assert np.array_equal(first.arms, second.arms)
    assert np.array_equal(first.propensities, second.propensities)
    assert first.reward == second.reward
    assert (first.propensities.sum(axis=1) == WHOLE).all()
    assert first.propensities[np.arange(270), first.arms].min() > 0


def test_hindsight_is_exact_on_what_can_be_seen() -> None:
    """Two arms, two prompts: the best arm, the mixture on the line between, the oracle as a linear programme."""
    seen = Hindsight(np.array([[0.2, 1.0], [0.6, 0.8]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert seen.best_single() == pytest.approx((0.9, 1.0))
    assert seen.best_single(0.5) == pytest.approx((0.4, 0.0))
    assert seen.best_single(-1.0) is None
    assert seen.random_mix(0.5) == pytest.approx(0.65)
    assert seen.random_mix(2.0) == pytest.approx(0.9)
    assert seen.random_mix(-1.0) is None
    assert seen.oracle() == pytest.approx(0.9)
    assert seen.oracle(0.5) == pytest.approx(0.8)
    assert seen.oracle(0.25) == pytest.approx(0.6)
