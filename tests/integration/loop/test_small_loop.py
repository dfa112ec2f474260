"""One whole small loop on real Kafka, Redis, Ray and vLLM: the demonstration at its smallest scale."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from infra.settings import load
from tools.demo import Shown, passed, play
from tools.demo.champion import SMALL


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_useless_adapter_rejected_better_one_promoted_and_rolled_back_when_damaged(tmp_path: Path) -> None:
    """Trainings, pairs, stages, promotion, damage, rollback, evidence: nothing lost, nothing twice, each for its own reason."""
    settings = load().model_copy(update={"state_dir": tmp_path / "state"})
    with (tmp_path / "screen.txt").open("w") as screen:
        report = play(
            shown=Shown(rollback=True), settings=settings, scale=SMALL, console=Console(file=screen, width=120)
        )
    told = json.dumps(report, indent=1)
    assert report["lost"] == 0, told
    assert report["duplicated"] == 0, told
    assert report["evidence_verified"], told
    assert report["cases"] == report["requests"], told
    assert passed(report), told
    useless, better = report["challengers"]
    assert (useless["labels"], useless["outcome"], useless["stages"]) == ("shuffled", "rejected", []), told
    assert "harmful: worse in quality" in useless["why"], told
    assert (better["labels"], better["outcome"]) == ("true", "promoted"), told
    assert [stage["share"] for stage in better["stages"]] == [0.2, 0.5, 0.8], told
    back = report["rollback"]
    assert (back["champion"], back["on_its_own"], back["trust"]) == ("base", True, "SHADOW"), told
    assert "quality" in back["reason"], told
    share = {name: row["all"] for name, row in report["accuracy"].items()}
    assert share["after"] > share["before"], told
    assert share["degraded"] < share["back"] < share["after"], told
    assert (tmp_path / "state" / "demo" / "report.png").stat().st_size > 10_000
    assert not (tmp_path / "state" / "stack.json").exists(), "the stack is stopped"
