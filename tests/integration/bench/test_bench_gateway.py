"""The benchmark of decisions on real servers, small: every request is decided with everything on and committed, nothing is left."""

import json

import psutil
import pytest

from tools.bench import main


@pytest.mark.timeout(300)
def test_a_short_run_measures_decisions(capsys: pytest.CaptureFixture[str]) -> None:
    """Each request is decided once, by the strategy, and committed; figures are in order. Speeds are not judged."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    code = main("gateway", ["--rate", "50", "--seconds", "3", "--skip-ope"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if any(line["pass"] is False for line in found["summary"].values()) else 0)
    assert found["kafka"]
    for name, words in (("full", {"balanced", "session"}), ("fixed", {"champion"})):
        ran = found[name]
        assert {word for word, count in ran["said"].items() if count} - {"explored", "without the store"} <= words
        assert ran["decisions"] >= 50
        for what in ("decide_ms", "durable_ms"):
            assert 0 < ran[what]["p50"] <= ran[what]["p99"] <= ran[what]["p999"] <= ran[what]["max"]
        assert ran["decide_ms"]["p50"] < ran["durable_ms"]["p50"]
    assert found["full"]["decisions"] == 150
    assert found["full"]["said"]["balanced"] > 75
    assert len(found["max_decisions_per_s"]) == 6
    assert all(row["decisions_per_s"] > 0 for row in found["max_decisions_per_s"])
    assert found["parts"]["decide: weigh: features"] < found["parts"]["decide"]
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
