"""One whole small loop on real Kafka, Redis, Ray and vLLM: the demonstration at its smallest scale."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from infra.settings import load
from tools.demo import play
from tools.demo.champion import SMALL


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_a_better_adapter_is_trained_judged_promoted_and_proven(tmp_path: Path) -> None:
    """Requests, verdicts, training, pairs, promotion and evidence: nothing lost, nothing twice, and the answers get better."""
    settings = load().model_copy(update={"state_dir": tmp_path / "state"})
    with (tmp_path / "screen.txt").open("w") as screen:
        report = play(
            useless=False, chaos=False, settings=settings, scale=SMALL, console=Console(file=screen, width=120)
        )
    told = json.dumps(report, indent=1)
    assert report["lost"] == 0, told
    assert report["duplicated"] == 0, told
    assert report["promoted"], told
    assert report["evidence_verified"], told
    assert report["cases"] == report["requests"], told
    assert report["accuracy"]["after"]["all"] > report["accuracy"]["before"]["all"], told
    assert (tmp_path / "state" / "demo" / "report.png").stat().st_size > 10_000
    assert not (tmp_path / "state" / "stack.json").exists(), "the stack is stopped"
