"""`ratchet bench judge`: its options, its rows, its figures; small runs of what takes minutes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import Refused
from tools.bench import judge, main
from tools.bench.judge_draws import Scenario, draw, qualities
from tools.bench.judge_fold import cases_per_second
from tools.bench.judge_rules import ALONE, UNION, asymptotic_cs, first_looks, glr, paired_t, t_quantile, welch
from tools.bench.rows import quantile, row

ROW = {"suite", "scenario", "rule", "replicates", "share", "share_low", "share_high", "median_pairs", "p90_pairs"}
PAIR = {"champion", "challenger", "difference", "correlation", "discordant", "same_answer"}


def silent(words: str) -> None:
    del words


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """400 questions by three models: one is right in 40 %, one in 60 %, one always."""
    rng = np.random.default_rng(1)
    lines = ["question_id,category,n_options,answer,weak:pred,weak:chars,v:2:pred,v:2:chars,sure:pred,sure:chars"]
    for n in range(400):
        weak, good = ("A" if rng.random() < share else "B" for share in (0.4, 0.6))
        lines.append(f"{n},{'law' if n % 3 else 'math'},4,A,{weak},{100 + n},{good},{50 + n},A,{90 + n}")
    path = tmp_path / "o.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_synthetic_run_has_the_rows_and_figures_of_the_design() -> None:
    """Suites, rules and keys as named; every replay agrees with the product's own code."""
    found = judge.synthetic(silent, replicates=6, pairs=300, replayed=1)
    assert all(set(one) == ROW for one in found["rows"])
    rules = {(one["suite"], one["rule"]) for one in found["rows"]}
    assert rules >= {("quality", rule) for rule in ("ratchet", "welch", "paired_t", "glr", "asymptotic_cs")} | {
        ("latency", "ratchet"),
        ("latency", "fixed_p95"),
        ("whole", "ratchet"),
        ("whole", "point_estimate"),
    }
    assert found["agrees"] is True
    assert found["replayed"] == 8
    limits = {name: line["limit"] for name, line in found["summary"].items() if line["limit"]}
    assert limits == {
        "quality_aa": "<= 0.05", "quality_plus5_median": "<= 400", "quality_plus2_power": ">= 0.8",
        "latency_aa": "<= 0.05", "latency_minus10_median": "<= 250", "whole_aa": "<= 0.05", "whole_aa_no_bars": "<= 0.05",
        "harmful_quality": "<= 0.01", "harmful_errors": "<= 0.01", "margin_quality": "<= 0.05", "margin_errors": "<= 0.05",
        "whole_plus5_median": "<= 1600", "whole_cost15_median": "<= 1600", "whole_latency15_median": "<= 1600",
        "differing_replays": "<= 0", "decision_us": "<= 20", "arena_bytes": "<= 2048", "fold_cases_per_s": ">= 10000",
    }  # fmt: skip
    assert json.loads(json.dumps(found))["seed"] == judge.SEED


def test_a_run_repeats() -> None:
    """The seed is fixed: the same rows again."""
    first, again = (judge.synthetic(silent, replicates=3, pairs=120, replayed=0)["rows"] for _ in range(2))
    assert first == again


def test_a_file_is_judged(outcomes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Default pairs are the neighbours in accuracy, both ways; rows say what the pair is; what is not there is said."""
    assert main("judge", ["--data", str(outcomes), "--replicates", "20"], as_json=True) in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {"bench", "commit", "machine", "versions", "seed", "elapsed_s", "rows", "summary"} <= found.keys()
    assert all(set(one) == ROW | PAIR for one in found["rows"])
    assert {one["suite"] for one in found["rows"]} == {"quality", "swap", "noninferiority", "whole"}
    pairs = [(one["champion"], one["challenger"]) for one in found["rows"]]
    assert list(dict.fromkeys(pairs)) == [("v:2", "sure"), ("sure", "v:2"), ("weak", "v:2"), ("v:2", "weak")]
    assert found["absent"] == ["latency", "latency p95", "errors"]
    by_rule = {(one["suite"], one["champion"], one["rule"]): one for one in found["rows"]}
    better, worse = by_rule["quality", "v:2", "ratchet"], by_rule["quality", "sure", "ratchet"]
    assert worse["share"] == 0.0
    assert worse["difference"] < -0.3 < 0.1
    assert worse["correlation"] is None
    assert better["replicates"] == 20
    assert found["summary"]["swap"]["limit"] == "<= 0.05"
    assert found["data"] == {"file": "o.csv", "rows": 400, "models": 3, "orders": 20}


def test_a_pair_is_named(outcomes: Path) -> None:
    """`--pair`, repeatable, in the order asked."""
    found = judge.run(["--data", str(outcomes), "--pair", "weak,sure", "--replicates", "5"], silent)
    assert {(one["champion"], one["challenger"]) for one in found["rows"]} == {("weak", "sure")}
    one = next(one for one in found["rows"] if (one["suite"], one["rule"]) == ("quality", "ratchet"))
    assert one["share"] == 1.0
    assert one["discordant"] == pytest.approx(one["difference"])


@pytest.mark.parametrize("pair", ["weak", "weak,nobody", "weak,weak", ",", "weak,sure,v:2"])
def test_a_pair_that_is_none_is_refused(pair: str, outcomes: Path) -> None:
    """The models that the file has are named."""
    with pytest.raises(Refused, match="accepted: weak, v:2, sure"):
        judge.run(["--data", str(outcomes), "--pair", pair], silent)


def test_one_model_is_not_enough(tmp_path: Path) -> None:
    """A judge needs a champion and a challenger."""
    path = tmp_path / "o.csv"
    rows = "".join(f"{n},m,4,A,A,1\n" for n in range(20))
    path.write_text("question_id,category,n_options,answer,a:pred,a:chars\n" + rows, encoding="utf-8")
    with pytest.raises(Refused, match="two or more"):
        judge.run(["--data", str(path)], silent)
    path.write_text("question_id,category,n_options,answer,a:pred,a:chars\n1,m,4,A,A,1\n", encoding="utf-8")
    with pytest.raises(Refused, match="1 questions; accepted: at least 10"):
        judge.run(["--data", str(path)], silent)


@pytest.mark.parametrize(
    "options", [["--replicates", "0"], ["--replicates", "x"], ["--pair", "a,b"], ["--fast"], ["--dat", "f"], ["word"]]
)
def test_bad_options_are_refused(options: list[str]) -> None:
    """With the usage, before anything runs."""
    with pytest.raises(Refused, match="ratchet bench judge"):
        judge.options_of(options)


def test_draws_are_what_the_scenario_says() -> None:
    """Rates, the correlation of outcomes, discordance and ratios, within what chance allows."""
    rng = np.random.default_rng(7)
    champion, challenger = qualities(rng, 0.0, (4000, 50))
    assert np.corrcoef(champion.ravel(), challenger.ravel())[0, 1] == pytest.approx(0.5, abs=0.01)
    assert float((champion != challenger).mean()) == pytest.approx(0.16, abs=0.003)
    pairs = draw(rng, Scenario("s", quality=-0.03, latency=0.8, cost=0.7, errors=0.005), 4000, 50)
    assert float(pairs.values("quality").mean()) == pytest.approx(-0.03, abs=0.004)
    assert float(pairs.champion_good.mean()) == pytest.approx(0.80, abs=0.003)
    assert float(np.median(pairs.challenger_us) / np.median(pairs.champion_us)) == pytest.approx(0.8, abs=0.01)
    assert float(np.median(pairs.challenger_cost) / np.median(pairs.champion_cost)) == pytest.approx(0.7, abs=0.01)
    failed = pairs.challenger_failed
    assert set(pairs.values("cost")[failed & ~pairs.champion_failed].tolist()) == {-1.0}
    assert set(pairs.values("cost")[pairs.champion_failed & ~failed].tolist()) == {1.0}
    assert set(pairs.values("cost")[pairs.champion_failed & failed].tolist()) <= {0.0}
    assert not pairs.challenger_good[failed].any()


def test_competitors_by_hand() -> None:
    """The formulas of the design on one sequence: 60 of 100 against 40 of 100, all discordant or not."""
    champion, challenger = np.zeros((100, 1), dtype=bool), np.zeros((100, 1), dtype=bool)
    champion[:40], challenger[40:] = True, True
    n, gap = 100.0, 0.2
    variance = (1.0 - gap**2) * n / (n - 1)
    assert bool(paired_t(champion, challenger)[9, 0]) == (gap > t_quantile(99, 0.05) * (variance / n) ** 0.5)
    alone = 0.24 * n / (n - 1)
    assert bool(welch(champion, challenger)[9, 0]) == (gap > t_quantile(99, 0.05) * (2 * alone / n) ** 0.5)
    assert bool(glr(champion, challenger)[9, 0]) == (gap**2 / (4 * alone / n) > np.log((1 + np.log(200)) / 0.05))
    assert not asymptotic_cs(champion, challenger)[9, 0]
    assert bool(asymptotic_cs(champion, challenger, 0.9)[9, 0])
    assert t_quantile(9, 0.05) == pytest.approx(1.833113, abs=1e-6)
    assert ALONE == 20.0
    assert pytest.approx(60.0) == UNION


def test_medians_count_those_that_never_were_promoted() -> None:
    """Half promoted: the median is the last of them; fewer: there is none."""
    firsts = np.array([100.0, np.inf, 200.0, np.inf])
    assert quantile(firsts, 0.5) == 200.0
    assert quantile(firsts, 0.75) is None
    assert row("s", "c", "r", firsts)["share"] == 0.5
    assert first_looks(np.array([[False, False], [True, False]])).tolist() == [20.0, np.inf]


def test_every_case_goes_through_the_fold() -> None:
    """All pairs are folded in order, with a look every 10."""
    found = cases_per_second(draw(np.random.default_rng(1), Scenario("A/A"), 200, 1))
    assert (found["pairs"], found["evaluations"]) == (200, 20)
    assert found["cases_per_s"] > 0
