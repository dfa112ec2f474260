"""The benchmark on a real stack, small: what it measures adds up, and nothing of it is left."""

import json

import pytest

from tools.bench import main


@pytest.mark.timeout(300)
def test_a_small_run_measures_every_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """Every request is answered once, every agent has its share, the latency is of the load that is named."""
    code = main("loop", ["--requests", "300", "--seconds", "2", "--no-vllm"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["requests_per_s"]["pass"] is not None
    assert code == (1 if any(line["pass"] is False for line in found["summary"].values()) else 0)
    assert set(found["answers"]) == {"answer.released.v1"}
    assert found["answers"]["answer.released.v1"] == 500 + 300 + found["latency"]["requests"]
    agents = {"router", "trust", "cases", "ladder", "judge", "inference", "trainer", "evidence", "observer"}
    assert agents | {"kafka", "redis", "driver"} <= found["cpu"].keys()
    assert sum(line["share"] for line in found["cpu"].values()) == pytest.approx(1, abs=0.01)
    assert 0 < found["latency"]["p50_ms"] <= found["latency"]["p99_ms"]
