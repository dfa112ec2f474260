"""`ratchet bench trust`: its options, its ladders, its scorers; small runs of what takes longer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import at_least
from schemas.errors import Refused
from tools.bench import main, scorers, trust, trust_ladder, trust_suites
from tools.bench.exact import upper_bound


def silent(words: str) -> None:
    del words


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """900 questions by four models that agree where they are right."""
    rng = np.random.default_rng(3)
    names = ("best", "b", "c", "d")
    head = "question_id,category,n_options,answer," + ",".join(f"{name}:pred,{name}:chars" for name in names)
    lines = [head]
    for n in range(900):
        easy = rng.random() < 0.7
        cells: list[str] = []
        for share in (0.9, 0.8, 0.75, 0.7):
            right = easy or rng.random() < share - 0.6
            cells.append(f"{'C' if right else 'ABD'[int(rng.integers(3))]},{int(rng.integers(50, 500))}")
        lines.append(f"q{n},{'xyz'[n % 3]},4,C,{','.join(cells)}")
    path = tmp_path / "o.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_synthetic_run_has_the_rows_and_figures_of_the_design() -> None:
    """Every rule on both kinds of scores, the three changes of the detector, limits as named."""
    found = trust.synthetic(silent, replicates=4, labels=600, lengths=2)
    assert {(one["suite"], one["rule"]) for one in found["rows"]} == {
        (suite, rule) for suite in ("ladder", "useless") for rule in trust_ladder.RULES
    }
    keys = {"suite", "scenario", "rule", "replicates", "share", "share_low", "share_high", "median_pairs", "p90_pairs"}
    assert all(keys < set(one) for one in found["rows"])
    assert [one["change"] for one in found["detector"]["changes"]] == ["2→10 %", "20→25 %", ".5→3 %"]
    assert found["agrees"] is True
    limits = {name: line["limit"] for name, line in found["summary"].items() if line["limit"]}
    assert limits == {
        "violation": "<= 0.05", "coverage_5000": ">= 0.54", "first_release": "<= 500", "useless_released": "<= 0.05",
        "detector_2_to_10_median": "<= 300", "detector_run_length": ">= 10000", "differing_replays": "<= 0",
    }  # fmt: skip
    assert json.loads(json.dumps(found))["seed"] == trust.SEED


def test_a_file_is_read_and_its_ladders_told(outcomes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row per target and risk, each with scorers, ladder and whether it is certifiable; the first's on top."""
    options = ["--data", str(outcomes), "--target", "best", "--panel", "c,d", "--risk", ".05,.3", "--replicates", "5"]
    assert main("trust", options, as_json=True) in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"bench", "commit", "machine", "versions", "seed", "elapsed_s", "rows", "summary"} <= found.keys()
    assert [(one["target"], one["panel"], one["risk"]) for one in found["rows"]] == [
        ("best", ["c", "d"], 0.05), ("best", ["c", "d"], 0.3),
    ]  # fmt: skip
    for one in (found, *found["rows"]):
        assert set(one["scorers"]["logistic"]) == {"auroc", "aurc", "ece15", "brier"}
        assert set(one["ladder"]) == set(trust_ladder.RULES)
        assert {"violation", "coverage", "first_release"} <= set(one["ladder"]["two_chains"])
        assert isinstance(one["certifiable"], bool)
    told = found["scorers"]
    assert told["logistic"]["auroc"] > 0.7 > told["category_rate"]["auroc"]
    assert told["base_rate"]["auroc"] == 0.5
    assert found["rows"][0]["fit"] + found["rows"][0]["test"] == 900


def test_targets_and_panel_have_defaults(outcomes: Path) -> None:
    """The three best, each with the best others; as tables for the screen too."""
    found = trust.run(["--data", str(outcomes), "--replicates", "2", "--risk", "0.2"], silent)
    assert [one["target"] for one in found["rows"]] == ["best", "b", "c"]
    assert found["rows"][1]["panel"] == ["best", "c", "d"]
    assert len(found["tables"]["ladders"]) == 3 * len(trust_ladder.RULES)


@pytest.mark.parametrize(
    "options",
    [
        ["--target", "nobody"], ["--panel", "b,nobody"], ["--panel", "b,b"], ["--target", "best", "--panel", "best,b"],
        ["--risk", "0"], ["--risk", "1"], ["--risk", "often"], ["--risk", ""], ["--replicates", "0"], ["--quick"],
        ["--risk", "nan"],
    ],
)  # fmt: skip
def test_what_the_file_or_the_command_does_not_have_is_refused(options: list[str], outcomes: Path) -> None:
    """What is accepted is said."""
    with pytest.raises(Refused, match=r"accepted:|ratchet bench trust"):
        trust.run(["--data", str(outcomes), *options], silent)


@pytest.mark.parametrize("options", [["--target", "a"], ["--panel", "a"], ["--risk", ".1"]])
def test_options_about_a_file_need_one(options: list[str]) -> None:
    """Without `--data` they mean nothing."""
    with pytest.raises(Refused, match="no --data is given"):
        trust.options_of(options)


def test_too_small_a_file_is_refused(tmp_path: Path) -> None:
    """There must be something to fit and to test."""
    path = tmp_path / "o.csv"
    path.write_text("question_id,category,n_options,answer,a:pred,a:chars\n1,m,4,A,A,1\n", encoding="utf-8")
    with pytest.raises(Refused, match="at least 60"):
        trust.run(["--data", str(path)], silent)


def test_a_rung_is_certified_by_the_products_wealth() -> None:
    """For every n and k the table says what `risk_wealth` says."""
    most = trust_ladder.most_by_wealth(0.2, 20.0, 120)
    for n in range(121):
        for k in range(n + 1):
            assert at_least(risk_wealth(k, n, 0.2), 20.0) == (k <= most[n])


def test_the_rules_that_people_use() -> None:
    """Clopper-Pearson's bound and Laplace's rate, at the greatest count that they allow and one more."""
    pearson, laplace = trust_ladder.most_by_clopper_pearson(0.05, 300), trust_ladder.most_by_laplace(0.05, 300)
    for n in (59, 93, 200, 300):
        k = int(pearson[n])
        assert upper_bound(k, n, 0.05) <= 0.05 < upper_bound(k + 1, n, 0.05)
    assert pearson[58] == -1
    for n in (50, 100, 299):
        k = int(laplace[n])
        assert (n - k + 1) / (n + 2) >= 0.95 > (n - k) / (n + 2)
    assert laplace[49] == -1


def test_chains_release_in_order() -> None:
    """The loosest rung whose whole chain has crossed; a rung that has not stops its chain."""
    seen = np.tile(np.arange(1, 201)[:, None], (1, 10))
    clean = trust_ladder.Labels(seen, np.zeros_like(seen))
    assert trust_ladder.two_chains(clean, 0.05, 200)[-1] == 10
    stopped = np.zeros_like(seen)
    stopped[:, 4] = seen[:, 4]
    assert trust_ladder.two_chains(trust_ladder.Labels(seen, stopped), 0.05, 200)[-1] == 4
    stopped[:, 2] = seen[:, 2]
    assert trust_ladder.two_chains(trust_ladder.Labels(seen, stopped), 0.05, 200)[-1] == 2
    assert trust_ladder.one_chain(trust_ladder.Labels(seen, stopped), 0.05, 200)[-1] == 0


def test_the_truth_of_a_rung() -> None:
    """Coverage and risk of a threshold are those of many draws."""
    draws = np.random.default_rng(1).beta(4.0, 0.6, 400_000)
    share, risk = trust_suites.truth(0.95)
    assert share == pytest.approx(float((draws >= 0.95).mean()), abs=0.003)
    assert risk == pytest.approx(float((1 - draws[draws >= 0.95]).mean()), abs=0.001)
    assert trust_suites.truth(-np.inf) == (1.0, pytest.approx(0.6 / 4.6))


def test_detectors_are_the_products() -> None:
    """To the bit, over three changes."""
    assert trust_suites.differing(9, replicates=2, labels=400) == []


def test_figures_of_a_scorer() -> None:
    """AUROC with ties, AURC, ECE and Brier of five answers by hand."""
    p, right = np.array([0.9, 0.8, 0.8, 0.4, 0.1]), np.array([True, True, False, False, True])
    found = scorers.figures(p, right)
    assert found["auroc"] == pytest.approx((1 + 1 + 0.5 + 1 + 0 + 0) / 6)
    assert found["aurc"] == pytest.approx((0 + 0.25 + 1 / 3 + 0.5 + 0.4) / 5)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.64 + 0.16 + 0.81) / 5)
    assert found["ece15"] == pytest.approx((0.1 + 0.6 + 0.4 + 0.9) / 5)
    assert scorers.figures(p, np.ones(5, dtype=bool))["auroc"] is None
