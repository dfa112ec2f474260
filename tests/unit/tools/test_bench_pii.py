"""`ratchet bench pii`: how findings are held against labels, which half counts, and what a file must look like."""

import json
from pathlib import Path

import pytest

from infra.detect import detect
from schemas.errors import Refused
from schemas.findings import Finding, Kind
from tools.bench import known, main, pii
from tools.bench.pii_data import GATE, Labelled, halves, read
from tools.bench.pii_score import matches, scored

SAMPLE = Path(__file__).parents[2] / "data" / "pii" / "sample.json"


def email(start: int, end: int) -> Finding:
    return Finding(Kind.EMAIL, start, end, "test")


@pytest.mark.parametrize(
    ("found", "hits"),
    [
        ([email(0, 10)], 1),
        ([email(0, 5)], 1),
        ([email(0, 4)], 0),
        ([email(5, 20)], 0),
        ([email(0, 10), email(1, 10)], 1),
        ([Finding(Kind.PHONE, 0, 10, "test")], 0),
        ([], 0),
    ],
)
def test_a_label_is_met_once_by_its_own_type(found: list[Finding], hits: int) -> None:
    """The same type and half the union, one finding a label."""
    assert len(matches([(Kind.EMAIL, 0, 10)], found)) == hits


def test_the_best_pairs_are_made_first() -> None:
    """A finding that fits one label exactly is not spent on its neighbour."""
    assert len(matches([(Kind.EMAIL, 0, 10), (Kind.EMAIL, 3, 10)], [email(3, 10), email(0, 9)])) == 2


def test_figures_by_hand() -> None:
    """One hit, one miss, one false finding in a clean text: each figure as counted by hand."""
    texts = [
        Labelled("a", ((Kind.EMAIL, 0, 4), (Kind.CARD, 5, 9)), ("PERSON",)),
        Labelled("b", ((Kind.DATE, 0, 4),), ()),
        Labelled("c", (), ()),
    ]
    answers = {"a": [email(0, 4)], "b": [email(0, 4), Finding(Kind.HEALTH, 6, 8, "test")], "c": []}
    found = scored(texts, lambda text: answers[text])
    assert found["micro8"] == {"precision": 0.5, "recall": 0.3333, "f1": 0.4}
    assert found["types"]["email"] == {"gold": 1, "precision": 0.5, "recall": 1.0, "f1": 0.6667}
    assert found["types"]["ip"] == {"gold": 0, "precision": None, "recall": None, "f1": None}
    assert found["gate"] == {"recall": 0.5, "clean_flag_rate": 0.5, "text_recall": 1.0, "clean_texts": 2}


def test_the_gate_is_the_first_six() -> None:
    """Domains and dates alone do not make a text one that the gate looks for."""
    assert {kind.value for kind in GATE} == {"email", "card", "phone", "iban", "ssn", "ip"}
    assert Labelled("b", ((Kind.DATE, 0, 4), (Kind.DOMAIN, 5, 9)), ()).clean


def test_the_sample_reaches_the_limits() -> None:
    """On a sample of the published texts, both halves of it: F1, recall and no flag of a clean text."""
    texts = read(SAMPLE)
    assert all(len(half) > 20 for half in halves(texts).values())
    found = scored(texts, detect)
    assert found["micro8"]["f1"] >= 0.95
    assert found["gate"]["recall"] >= 0.95
    assert found["gate"]["clean_flag_rate"] == 0


def test_older_labels_are_read(tmp_path: Path) -> None:
    """Labels of older files stand for today's, empty spans are left out, other labels are counted as unsupported."""
    file = tmp_path / "old.json"
    spans = [("EMAIL", 0, 2), ("BIRTHDAY", 2, 3), ("URL", 3, 4), ("IBAN", 4, 5), ("PERSON", 5, 6), ("LOCATION", 6, 6)]
    labels = [{"entity_type": name, "start_position": start, "end_position": end} for name, start, end in spans]
    file.write_text(json.dumps([{"full_text": "0123456", "spans": labels, "template_id": 1}]))
    (one,) = read(file)
    assert [kind for kind, _, _ in one.gold] == [Kind.EMAIL, Kind.DATE, Kind.DOMAIN, Kind.IBAN]
    assert one.others == ("PERSON",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{}", "accepted: a JSON list"),
        ("[]", "at least one text"),
        ('[{"spans": []}]', "0.full_text"),
        (
            '[{"full_text": "ab", "spans": [{"entity_type": "EMAIL", "start_position": 1, "end_position": 9}]}]',
            "0.spans",
        ),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: str, named: str) -> None:
    """A file of another format is refused with the place and what is accepted, and none of its text."""
    file = tmp_path / "bad.json"
    file.write_text(content)
    with pytest.raises(Refused, match=named):
        read(file)


def test_wrong_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file, a file that is not there, an option of others: the usage and exit code 2."""
    for options in ([], ["--data", str(tmp_path / "none.json")], ["--data", str(SAMPLE), "--replicates", "3"]):
        assert main("pii", options, as_json=True) == 2
    assert "--data" in capsys.readouterr().err


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure of the design stands at the top level, both halves below, the limits in the summary."""
    monkeypatch.setattr("tools.bench.pii_speed.AT_LEAST_S", 0.01)
    monkeypatch.setattr("tools.bench.pii_speed.ADVERSARIAL", ("a@",))
    monkeypatch.setattr("tools.bench.pii_speed.KB_TEXTS", 5)
    found = known()["pii"](["--data", str(SAMPLE)], lambda _: None)
    assert pii.run is known()["pii"]
    figures = {"types", "micro8", "gate", "unsupported", "texts_per_s", "p99_ms_2kb", "adversarial_100kb_ms"}
    assert figures | {"tuned", "held_out", "summary"} <= set(found)
    assert found["tuned"]["texts"] + found["held_out"]["texts"] == found["texts"]
    assert found["summary"]["held_out_f1"]["value"] == found["held_out"]["micro8"]["f1"]
    assert found["unsupported"]["PERSON"] > 0
    assert found["gate_masked"] == 0 < found["gate_dense_masked"]
    assert 0 < found["gate_us_p50"] <= found["gate_us_p99"]
    assert found["summary"]["gate_us_p50"]["value"] == found["gate_us_p50"]
