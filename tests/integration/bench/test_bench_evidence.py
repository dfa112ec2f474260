"""The benchmark of the evidence log on a real Vault and a real witness, small: every checkpoint is published, nothing is left."""

import json
from pathlib import Path

import psutil
import pytest

from tools.bench import main

NAMED = {
    "appends_per_s", "batch_entries", "fsync", "checkpoint_ms_p50", "checkpoint_ms_p99", "reverify_records_per_s",
    "reaudit_10m_s", "proof_bytes_max", "verifier_start_s",
}  # fmt: skip


@pytest.mark.timeout(300)
def test_a_short_run_appends_and_audits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All the keys of the design; figures are in order. Speeds are not judged."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    options = ["--batches", "3", "--batch", "500", "--audit", "4000", "--folder", str(tmp_path)]
    code = main("evidence", options, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if any(line["pass"] is False for line in found["summary"].values()) else 0)
    assert found.keys() >= NAMED
    assert found["appends_per_s"] == found["summary"]["appends_per_s"]["value"] > 0
    assert found["batch_entries"] == 500
    assert found["entries"] == 1500 + 3  # each batch's coverage
    assert 0 < found["checkpoint_ms_p50"] <= found["checkpoint_ms_p99"] <= found["checkpoint_ms_max"]
    assert found["reaudit_10m_s"] is None
    assert list(tmp_path.iterdir()) == []
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
