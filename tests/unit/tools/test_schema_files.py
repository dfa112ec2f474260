"""`python -m tools.schema`: files follow the models, released versions are kept and never broken."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.export import json_schemas
from tools.schema import history, incompatible, main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder `schemas` with everything exported and released."""
    folder = tmp_path / "schemas"
    assert main(["export", "--release"], folder) == 0
    return folder


def edit(file: Path, **change: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def test_what_was_exported_checks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh export has no drift and nothing unreleased."""
    assert main(["check"], root) == 0
    assert "0 types unreleased" in capsys.readouterr().out


def test_releasing_again_adds_nothing(root: Path) -> None:
    """A version is added only where a schema changed in more than its notes."""
    before = history(root)
    edit(root / "history" / "case.closed" / "1.json", description="as it was said then")
    assert main(["export", "--release"], root) == 0
    assert {name: len(rows) for name, rows in history(root).items()} == dict.fromkeys(before, 1)


def test_an_edited_missing_or_foreign_file_is_drift(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each generated file that is not what the models say is named."""
    edit(root / "json" / "case.closed.v1.json", title="mine")
    (root / "asyncapi.json").unlink()
    (root / "json" / "old.type.v1.json").write_text("{}")
    assert main(["check"], root) == 1
    said = capsys.readouterr().err
    assert "case.closed.v1.json: stale" in said
    assert "asyncapi.json: missing" in said
    assert "old.type.v1.json: no such event type" in said


def test_any_earlier_version_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check is transitive: the first version is asked, not only the last; nothing is released over it."""
    first = root / "history" / "case.answered" / "1.json"
    (first.parent / "2.json").write_text(first.read_text())
    schema = json.loads(first.read_text())
    del schema["properties"]["ok"]
    schema["required"].remove("ok")
    first.write_text(json.dumps(schema))
    assert main(["check"], root) == 1
    assert "case.answered against version 1: $.ok: is required now" in capsys.readouterr().err
    assert main(["export", "--release"], root) == 1
    assert len(history(root)["case.answered"]) == 2


def test_a_released_type_does_not_go(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A type once released stays readable."""
    folder = root / "history" / "old.type"
    folder.mkdir()
    (folder / "1.json").write_text('{"type": "object"}')
    assert main(["check"], root) == 1
    assert "old.type: released and gone" in capsys.readouterr().err


def test_a_missing_version_is_refused(root: Path) -> None:
    """A hole in the history is said, not stepped over."""
    folder = root / "history" / "case.closed"
    (folder / "1.json").rename(folder / "2.json")
    with pytest.raises(ValueError, match=r"case.closed: versions \[2\]"):
        history(root)


@pytest.mark.parametrize(("topic", "both"), [("promotions", True), ("audit", True), ("results", False)])
def test_promotions_and_audit_stay_readable_by_old_readers(topic: str, both: bool) -> None:
    """On the topics that outsiders verify, a new enum value is a break as well: their readers would refuse it."""
    old = {"type": "object", "properties": {"kind": {"enum": ["a"]}}}
    new = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}}
    found = incompatible({"t": new}, {"t": [(1, old)]}, {"t": topic})
    assert found == (["t: readers of version 1: $.kind: 'b' is no longer accepted"] if both else [])


def test_every_schema_file_names_itself() -> None:
    """`$id` and title say type and version."""
    for name, schema in json_schemas().items():
        assert schema["$id"] == f"urn:ratchet:schema:{name}:v1"
        assert schema["title"] == f"ratchet.{name}.v1"
