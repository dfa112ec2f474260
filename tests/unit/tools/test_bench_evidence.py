"""`ratchet bench evidence`: its options, its made-up records and logs, its arithmetic; servers are an integration test."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.record import Draft
from schemas import canonical
from schemas.errors import Refused
from schemas.tlog import merkle
from tools.bench import evidence, evidence_data
from tools.bench.evidence_append import Appended
from tools.bench.evidence_audit import audit


def silent(words: str) -> None:
    del words


@pytest.mark.parametrize("options", [
    ["--batches", "0"], ["--batch", "4097"], ["--batch", "0"], ["--audit", "999"], ["--audit", "many"], ["--fast"],
    ["--full", "--audit", "5000"], ["--folder", "nowhere"], ["--audit", "200000000"],
])  # fmt: skip
def test_bad_options_are_refused(options: list[str]) -> None:
    """What is accepted is said, before anything starts."""
    with pytest.raises(Refused, match="ratchet bench evidence"):
        evidence.options_of(options)


def test_ten_million_only_when_asked() -> None:
    """The default audits a million; `--full` ten."""
    assert evidence.options_of([]).audit == 1_000_000
    assert evidence.options_of(["--full"]).audit == 10_000_000
    assert evidence.options_of(["--audit", "5000"]).audit == 5000


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    """More than fits is refused with what is needed, before anything starts."""
    with pytest.raises(Refused, match="MiB free"):
        evidence.run(["--audit", "100000000", "--batches", "1000000", "--folder", str(tmp_path)], silent)
    assert list(tmp_path.iterdir()) == []


def test_records_become_entries_with_facts() -> None:
    """Four kinds, offsets without gaps, no two ids alike; each becomes an entry of its type that hides the text."""
    made = evidence_data.records(10)
    entries: list[Any] = [
        canonical.decode(Draft(record).build(evidence_data.KEY, evidence_data.KEY)) for record in made
    ]
    assert [entry["type"] for entry in entries[:5]] == [
        "request.submitted", "result.completed", "answer.released", "case.answered", "request.submitted",
    ]  # fmt: skip
    assert [(record.topic, record.offset) for record in made[3:6]] == [
        ("ratchet.cases", 0), ("ratchet.requests", 1), ("ratchet.results", 1),
    ]  # fmt: skip
    assert len({entry["id"] for entry in entries}) == 10
    assert all(len(entry["facts"]) >= 3 and "undecodable" not in entry["facts"] for entry in entries)
    assert all(b"new card" not in canonical.encode(entry) for entry in entries)


def test_made_logs_are_logs_of_the_collectors_entries(tmp_path: Path) -> None:
    """A log that is written directly verifies, and its entries are such as the collector writes."""
    keys = evidence.Keys()
    size = evidence.write(tmp_path / "log", 5000, keys)
    (tmp_path / "policy.txt").write_text(keys.policy.text())
    found = audit(tmp_path / "log", tmp_path / "policy.txt")
    assert (found.entries, size) == (5003, 5003)  # trust, two batches with their coverage
    assert found.seconds > 0
    assert found.peak_mib > 1
    bundle = (tmp_path / "log/tile/entries/000").read_bytes()
    second = bundle[2 + int.from_bytes(bundle[:2], "big") + 2 :]
    entry: Any = json.loads(second[: second.index(b'"v":1}') + 6])
    draft: Any = canonical.decode(Draft(evidence_data.records(1)[0]).build(evidence_data.KEY, evidence_data.KEY))
    assert entry | {"commit": {}} == draft | {"commit": {}}
    assert entry["commit"].keys() == draft["commit"].keys()
    read = evidence_data.hash_reader(tmp_path / "log", size)
    assert evidence.largest_proof(tmp_path / "log", size) < 2000
    merkle.verify_inclusion(7, size, read(0, 7), merkle.inclusion_proof(7, size, read), merkle.root(size, read))


def test_a_log_that_is_refused_is_our_bug(tmp_path: Path) -> None:
    """A figure is never taken of a verification that failed."""
    keys = evidence.Keys()
    evidence.write(tmp_path / "log", 1000, keys)
    (tmp_path / "policy.txt").write_text(evidence.Keys().policy.text())
    with pytest.raises(RuntimeError, match="ended with 1"):
        audit(tmp_path / "log", tmp_path / "policy.txt")


def test_figures_and_limits() -> None:
    """Rates over all batches, the p99 of few is their slowest, and the limits are the design's."""
    took = Appended(
        entries=1000, bytes=800_000, building_s=[0.01] * 10, checkpoint_s=[0.002] * 9 + [0.3], raw_s=[0.001] * 10
    )
    found = evidence.append_summary(took)
    assert found["appends_per_s"] == {"value": 3145, "limit": ">= 20000", "pass": False}
    assert found["records_per_s"]["value"] == 2392
    assert (found["checkpoint_ms_p50"]["value"], found["checkpoint_ms_p99"]["value"]) == (2.0, 300.0)
    assert found["checkpoint_ms_p99"]["pass"] is False
    assert found["appends_to_raw"]["value"] == pytest.approx(0.031)


def test_audits_in_small(tmp_path: Path) -> None:
    """Every figure of the design, the ten million scaled and not claimed, nothing left in the folder but the policy."""
    found = evidence.audits(tmp_path, 4000, silent)
    summary = found["summary"]
    assert [row["entries"] for row in found["audits"]] == [1002, 4002]
    assert summary["reaudit_10m_s"] == {"value": None, "limit": None, "pass": None}
    assert summary["reaudit_10m_scaled_s"]["limit"] == "<= 180"
    limits = {name: line["limit"] for name, line in summary.items() if line["limit"]}
    assert limits == {
        "reverify_records_per_s": ">= 300000", "reaudit_10m_scaled_s": "<= 180", "memory_growth": "<= 1.25",
        "proof_bytes_max": "<= 2000", "verifier_start_s": "<= 0.5",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["policy.txt"]
