"""The benchmark's arithmetic and its refusals; the measurement itself is an integration test."""

import json
from typing import Any

import pytest

from schemas.errors import Refused
from tools import bench
from tools.bench import figure, loop, main


def test_an_unknown_benchmark_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not known ends with 2 and the names that are."""
    assert main("lop", [], as_json=True) == 2
    assert "known are conformance, evidence, gateway, judge, loop, pii, router, streams, trust" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("options", [["--requests", "0"], ["--requests", "many"], ["--fast"], ["--seconds", "-1"]])
def test_bad_options_are_refused(options: list[str]) -> None:
    """Options that are not understood are refused before anything starts."""
    with pytest.raises(Refused, match="ratchet bench loop"):
        loop.options_of(options)


def test_a_limit_holds_fails_or_is_not_there() -> None:
    """A figure passes at its limit, fails below it and fails where it was not measured."""
    assert figure(200.0, at_least=200)["pass"] is True
    assert figure(199.9, at_least=200)["pass"] is False
    assert figure(None, at_least=200)["pass"] is False
    assert figure(3.0)["pass"] is None


@pytest.mark.parametrize(("value", "code"), [(250.0, 0), (10.0, 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_exit_code_says_whether_the_limits_hold(
    value: float, code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 when a limit fails, in both forms of the report; JSON has the common fields."""

    def work(options: Any, say: Any) -> dict[str, Any]:
        return {
            "cpu": {"router": {"seconds": 1.0, "share": 1.0, "ms_per_request": 2.0}},
            "notes": ["a note"],
            "summary": {"requests_per_s": figure(value, at_least=200)},
        }

    monkeypatch.setattr(bench, "known", lambda: {"loop": work})
    assert main("loop", [], as_json=as_json) == code
    said = capsys.readouterr().out
    if as_json:
        found = json.loads(said)
        assert {"bench", "commit", "machine", "versions", "elapsed_s", "summary"} <= found.keys()
    else:
        assert "requests_per_s" in said


def test_what_was_spent_adds_up_to_one() -> None:
    """Shares are of the CPU between two looks, the greatest first."""
    found = loop.spent({"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 8.0}, 100)
    assert list(found) == ["b", "a"]
    assert found["b"] == {"seconds": 3.0, "share": 0.75, "ms_per_request": 30.0}


def test_percentiles_of_few_and_many() -> None:
    """Percentiles are of the times given; nothing and one time are defined."""
    assert loop.percentiles([])["p99_ms"] == 0.0
    assert loop.percentiles([7.0])["p50_ms"] == 7.0
    many = loop.percentiles([float(n) for n in range(101)])
    assert (many["p50_ms"], many["p99_ms"], many["max_ms"]) == (50.0, 99.0, 100.0)
