"""Controls from the log: four results, never a pass without a case, and a document that OSCAL's own schema accepts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import regex
from evidenced import Book, learn, tell
from jsonschema.exceptions import ValidationError

from agents.evidence.controls import Ledger
from agents.evidence.oscal import Result, assessment_results, instant
from schemas.tlog.note import Checkpoint

SCHEMA = json.loads((Path(__file__).parents[2] / "data/oscal/assessment-results.schema.json").read_text())
LOG = Checkpoint("dev.ratchet.test", 100, bytes(32))
CONTROLS = ("hipaa-164.312.b", "hipaa-164.312.c", "soc2-cc7.2", "soc2-cc8.1", "aiact-12")


def matches(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword `pattern` as ECMA-262 means it, with classes of Unicode."""
    if validator.is_type(instance, "string") and regex.search(pattern, instance) is None:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft7Validator, {"pattern": matches})


def document(*results: Result) -> dict[str, Any]:
    return json.loads(assessment_results(LOG, results, 1_790_000_000_000, 1_790_000_009_999))


def errors(value: Any) -> list[str]:
    return [error.message for error in Validator(SCHEMA).iter_errors(value)]


def states(book: Book, *, unbroken: bool = True) -> dict[str, str]:
    """Control to result over the entries that the book holds."""
    ledger = Ledger()
    for index, entry in enumerate(book.batch):
        ledger.take(index, json.loads(entry))
    return {result.control: result.state for result in ledger.results(unbroken=unbroken)}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book.new(tmp_path)


EVERY = (
    Result("soc2-cc7.2", "one", "satisfied", "All of it.", 4),
    Result("soc2-cc8.1", "two", "not-satisfied", "Not all.", 3, range(40)),
    Result("hipaa-164.312.b", "three", "not-applicable", "No such data, signed by nobody yet."),
    Result("aiact-12", "four", "no-evidence", "No case."),
)


def test_the_four_results() -> None:
    """Satisfied; failed with the reason; excluded; not satisfied for want of evidence. The schema accepts all of them."""
    value = document(*EVERY)
    assert errors(value) == []
    (result,) = value["assessment-results"]["results"]
    selection = result["reviewed-controls"]["control-selections"][0]
    assert [row["control-id"] for row in selection["exclude-controls"]] == ["hipaa-164.312.b"]
    status = {row["target"]["target-id"]: row["target"]["status"] for row in result["findings"]}
    assert status == {
        "soc2-cc7.2": {"state": "satisfied", "reason": "pass"},
        "soc2-cc8.1": {"state": "not-satisfied", "reason": "fail"},
        "aiact-12": {"state": "not-satisfied", "reason": "other"},
    }
    assert "0, 1, 2" in result["observations"][1]["description"]
    assert "and 20 more" in result["observations"][1]["description"]


@pytest.mark.parametrize("number", range(4))
def test_each_result_alone(number: int) -> None:
    """Nothing but excluded controls is a document too."""
    assert errors(document(EVERY[number])) == []


def test_the_schema_is_asked() -> None:
    """A control id with brackets, a missing import and a foreign state are refused: the check can fail."""
    good = document(EVERY[0])
    assert errors(document(Result("a(1)", "x", "satisfied", "y", 1)))
    for spoil in ("import-ap", "metadata"):
        bad = json.loads(json.dumps(good))
        del bad["assessment-results"][spoil]
        assert errors(bad)
    bad = json.loads(json.dumps(good))
    bad["assessment-results"]["results"][0]["findings"][0]["target"]["status"]["state"] = "no-evidence"
    assert errors(bad)


def test_one_log_one_document() -> None:
    """No clock and no chance: the same bytes again, other ids under another root."""
    first = assessment_results(LOG, EVERY, 1, 2)
    assert first == assessment_results(LOG, EVERY, 1, 2)
    other = assessment_results(Checkpoint(LOG.origin, LOG.size, b"\x01" * 32), EVERY, 1, 2)
    assert json.loads(first)["assessment-results"]["uuid"] != json.loads(other)["assessment-results"]["uuid"]
    assert instant(1_790_000_000_001) == "2026-09-21T14:13:20.001Z"


def test_a_sound_story_satisfies(book: Book) -> None:
    """Gapless, answered, promoted on an evaluation: nothing that it has cases of fails."""
    tell(book)
    book.close()
    said = states(book)
    assert {control: said[control] for control in CONTROLS} == dict.fromkeys(CONTROLS, "satisfied")
    assert "not-satisfied" not in said.values()


def test_an_empty_log_is_no_evidence(book: Book) -> None:
    """Nothing happened: nothing passes."""
    assert set(states(book).values()) == {"no-evidence"}


def test_a_gap_and_its_finding(book: Book) -> None:
    """Lost offsets fail coverage and the watch over anomalies; markers fail nothing."""
    book.request(0)
    book.close({"ratchet.requests": ()})
    book.add("requests", "request.submitted", {}, skip=2)
    book.close({"ratchet.requests": [(1, 2, "marker")]})
    assert states(book)["hipaa-164.312.b"] == "satisfied"
    book.add("requests", "request.submitted", {}, skip=3)
    book.raw(
        {"v": 1, "type": "finding", "kind": "range-lost", "from": 4, "to": 6,
         "src": {"topic": "ratchet.requests", "partition": 0, "inc": 0}}
    )  # fmt: skip
    book.close({"ratchet.requests": [(4, 6, "lost")]})
    said = states(book)
    assert (said["hipaa-164.312.b"], said["soc2-cc7.2"], said["hipaa-164.312.c"]) == (
        "not-satisfied", "not-satisfied", "satisfied",
    )  # fmt: skip


def test_a_coverage_that_does_not_continue(book: Book) -> None:
    """A span that begins after the last one ended."""
    book.request(0)
    book.close()
    book.covered["ratchet.requests"] += 1
    book.add("requests", "request.submitted", {}, skip=1)
    book.close()
    assert states(book)["hipaa-164.312.b"] == "not-satisfied"


def test_a_changed_or_reset_source(book: Book) -> None:
    """Tiles that lack the signed root, or a source that began anew, fail integrity."""
    book.request(0)
    book.close()
    assert states(book, unbroken=False)["hipaa-164.312.c"] == "not-satisfied"
    book.raw(
        {"v": 1, "type": "finding", "kind": "source-reset", "from": 0, "to": 1,
         "src": {"topic": "ratchet.requests", "partition": 0, "inc": 1}}
    )  # fmt: skip
    assert states(book)["hipaa-164.312.c"] == "not-satisfied"


def test_a_finding_of_no_source(book: Book) -> None:
    """A witness that is away is a finding as well."""
    book.request(0)
    book.raw({"v": 1, "type": "finding", "kind": "witness-away", "detail": {"witness": "w1"}})
    book.close()
    assert states(book)["soc2-cc7.2"] == "not-satisfied"


def test_a_promotion_without_ground(book: Book) -> None:
    """It names an evaluation that the log does not hold."""
    learn(book)
    book.add("promotions", "model.promoted", {"evaluation": "never-seen"})
    assert states(book)["soc2-cc8.1"] == "not-satisfied"


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ("rda", "satisfied"),
        ("da", "not-satisfied"),
        ("ra", "not-satisfied"),
        ("rd", "no-evidence"),
        ("r", "no-evidence"),
    ],
)
def test_what_an_answer_needs(book: Book, parts: str, state: str) -> None:
    """Request and decision, in whatever order they came; an open request is no case yet."""
    book.request(0, parts=parts)
    book.batch.reverse()
    assert states(book)["aiact-12"] == state


def test_a_refused_request_needs_no_decision(book: Book) -> None:
    """But it needs its request."""
    book.add("requests", "unknown", {})
    refusal = {"request_partition": 0, "request_offset": 0, "kind": "schema"}
    book.add("answers", "answer.refused", refusal)
    assert states(book)["aiact-12"] == "satisfied"
    book.add("answers", "answer.refused", refusal | {"request_offset": 9})
    assert states(book)["aiact-12"] == "not-satisfied"
