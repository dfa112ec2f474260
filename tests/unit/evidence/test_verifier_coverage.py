"""The signer's own word does not help a log with a gap that nothing explains."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import evidence_bundle as made
import pytest

from tools import verify_evidence

PLACE = f"{made.TOPIC}/0"
OFFSETS = (0, 1, 2, 3, 4, 7, 8, 9)


def judged(tmp_path: Path, batches: Sequence[bytes]) -> verify_evidence.Report:
    """What the verifier says of a properly signed log of these entries, behind its trust entry."""
    log = made.Log([made.trust(made.policy_text()), *batches])
    return verify_evidence.verify(made.write(tmp_path / str(len(list(tmp_path.iterdir()))), log.files()))


def batch(spans: made.Spans | None = None, skips: Sequence[Any] = ((5, 6, "aborted"),)) -> list[bytes]:
    records = [made.record(offset, tenant=("acme", "globex")[offset % 3 == 0]) for offset in OFFSETS]
    return [*records, (spans or made.Spans()).close(records, {PLACE: skips})]


def edited(entries: list[bytes], change: Callable[[Any], object], at: int = -1) -> list[bytes]:
    """The batch with its coverage changed."""
    value = json.loads(entries[at])
    change(value)
    entries[at] = made.jcs(value)
    return entries


def span(change: Callable[[Any], object]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: edited(entries, lambda value: change(value["partitions"][PLACE]))


def whole(change: Callable[[Any], object]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda entries: edited(entries, change)


def test_a_legal_gap_is_no_finding(tmp_path: Path) -> None:
    """Aborted records and markers take offsets: counted, not complained of."""
    report = judged(tmp_path, batch())
    assert (report.problems, report.findings) == ([], [])
    assert report.partitions[PLACE][0].skips == {"aborted": 2}


@pytest.mark.parametrize(("name", "spoil"), [
    ("an entry removed", lambda e: e[:3] + e[4:]),
    ("an entry twice", lambda e: [*e[:3], e[2], *e[3:]]),
    ("entries swapped", lambda e: [e[1], e[0], *e[2:]]),
    ("no coverage", lambda e: e[:-1]),
    ("coverage before the last record", lambda e: [*e[:-2], e[-1], e[-2]]),
    ("coverage twice", lambda e: [*e, e[-1]]),
    ("a second trust-less start", lambda e: [*e, made.record(11)]),
    ("a skip removed", span(lambda p: p["skips"].clear())),
    ("a skip over an entry", span(lambda p: p.update(skips=[[3, 5, "aborted"]], entries=7))),
    ("a skip over an entry, counts right", span(lambda p: p.update(skips=[[4, 5, "aborted"]]))),
    ("skips out of order", span(lambda p: p.update(skips=[[6, 6, "marker"], [5, 5, "marker"]]))),
    ("skips that overlap", span(lambda p: p.update(skips=[[5, 6, "marker"], [6, 6, "marker"]], entries=7))),
    ("a skip backwards", span(lambda p: p.update(skips=[[6, 5, "marker"]]))),
    ("a skip beyond", span(lambda p: p.update(skips=[[5, 6, "marker"], [12, 12, "marker"]]))),
    ("a skip of no kind", span(lambda p: p.update(skips=[[5, 6, "because"]]))),
    ("an old kind", span(lambda p: p.update(skips=[[5, 6, "marker-or-aborted"]]))),
    ("an unannounced unknown", span(lambda p: p.update(skips=[[5, 6, "unknown"]]))),
    ("a later start", span(lambda p: p.update({"from": 1}))),
    ("a further end", span(lambda p: p.update(next=11))),
    ("an earlier end", span(lambda p: p.update(next=9))),
    ("more entries", span(lambda p: p.update(entries=9))),
    ("another incarnation", span(lambda p: p.update(inc=1))),
    ("a last of another offset", span(lambda p: p["last"].__setitem__(0, 8))),
    ("a last of another time", span(lambda p: p["last"].__setitem__(1, 5))),
    ("a last of another id", span(lambda p: p["last"].__setitem__(2, "event-x"))),
    ("a last of true", span(lambda p: p["last"].__setitem__(0, True))),
    ("no last", span(lambda p: p.pop("last"))),
    ("true for a number", span(lambda p: p.update({"from": False}))),
    ("an unknown member", span(lambda p: p.update(more=1))),
    ("fewer of a tenant", whole(lambda c: c["tenants"].popitem())),
    ("more of a tenant", whole(lambda c: c["tenants"].update(more=1))),
    ("a tenant's for another's", whole(lambda c: c.update(tenants={made.tag("acme"): 4, made.tag("globex"): 4}))),
    ("no tenants", whole(lambda c: c.pop("tenants"))),
    ("full is a word", whole(lambda c: c.update(full="no"))),
    ("a place of no form", whole(lambda c: c["partitions"].update({"x": c["partitions"].pop(PLACE)}))),
    ("not canonical", lambda e: [e[0].replace(b'":', b'": ', 1), *e[1:]]),
    ("a float", lambda e: [e[0].replace(b'"inc":0', b'"inc":0.5', 1), *e[1:]]),
    ("no JSON", lambda e: [b"\xff", *e[1:]]),
    ("an empty entry", lambda e: [b"", *e[1:]]),
    ("a list", lambda e: [b"[]", *e[1:]]),
    ("deep", lambda e: [b"[" * 60_000, *e[1:]]),
    ("a huge number", lambda e: [b'{"v":' + b"9" * 60_000 + b"}", *e[1:]]),
    ("another version", lambda e: [e[0].replace(b'"v":1', b'"v":2'), *e[1:]]),
    ("a version of true", lambda e: [e[0].replace(b'"v":1', b'"v":true'), *e[1:]]),
    ("a key that is not ASCII", lambda e: [made.record(0, zä=1), *e[1:]]),
    ("a lone surrogate", lambda e: [e[0].replace(b'"time"', b'"\\ud800"', 1), *e[1:]]),
])  # fmt: skip
def test_signed_but_incomplete_logs(tmp_path: Path, name: str, spoil: Any) -> None:
    """Each of these is refused, and the reason names the entry or what is missing."""
    report = judged(tmp_path, spoil(batch()))
    assert not report.valid, name
    assert not any(problem.startswith("cannot be read") for problem in report.problems)


@pytest.mark.parametrize(("kind", "finding"), sorted(verify_evidence.NEED_FINDING.items()))
def test_recorded_findings_do_not_fail_it(tmp_path: Path, kind: str, finding: str) -> None:
    """A gap that the log itself names as a finding is shown, and the log is valid; without the finding it is not."""
    entries = batch(skips=[(5, 6, kind)])
    told = made.finding(finding, 5, 6)
    report = judged(tmp_path, [*entries[:-1], told, entries[-1]])
    assert (report.problems, [shown["kind"] for shown in report.findings]) == ([], [finding])
    for other in (made.finding(finding, 5, 5), made.finding("witness-away", 5, 6), made.finding(finding, 5, 6, inc=1)):
        assert not judged(tmp_path, [*entries[:-1], other, entries[-1]]).valid
    assert not judged(tmp_path, entries).valid


def test_a_finding_without_a_source(tmp_path: Path) -> None:
    """Findings about the collector itself stand anywhere."""
    away = made.jcs({"v": 1, "type": "finding", "kind": "witness-away", "detail": {"witness": "w1", "tries": 3}})
    report = judged(tmp_path, [away, *batch(), away])
    assert (report.problems, report.found) == ([], 2)


def violation(**changed: Any) -> bytes:
    return made.jcs({"v": 1, "type": "violation", "finding": "offset-gap", "controls": ["hipaa-164.312.b"]} | changed)


def test_a_violation_stands_behind_its_finding(tmp_path: Path) -> None:
    """It is shown with its controls, and a log with it is valid: what is recorded is not hidden."""
    *records, coverage = batch(skips=[(5, 6, "unknown")])
    report = judged(tmp_path, [*records, made.finding("offset-gap", 5, 6), violation(), coverage])
    assert (report.problems, report.found) == ([], 1)
    row = {"entry": len(records) + 2, "finding": "offset-gap", "controls": ["hipaa-164.312.b"]}
    assert report.as_json()["violations"] == [row]
    assert f"violation   offset-gap: hipaa-164.312.b (entry {row['entry']})" in verify_evidence.lines_of(report)


@pytest.mark.parametrize("bent", [
    [violation(), made.finding("offset-gap", 5, 6)],
    [made.finding("offset-gap", 5, 6), violation(finding="range-lost")],
    [made.finding("offset-gap", 5, 6), violation(), violation()],
    [made.finding("offset-gap", 5, 6), violation(controls=[])],
    [made.finding("offset-gap", 5, 6), violation(controls=["gdpr-5", "gdpr-5"])],
    [made.finding("offset-gap", 5, 6), violation(controls=[1])],
    [made.finding("offset-gap", 5, 6), violation(controls=["call me"])],
    [made.finding("offset-gap", 5, 6), violation(controls="gdpr-5")],
    [made.finding("offset-gap", 5, 6), violation(more=1)],
    [made.finding("offset-gap", 5, 6), violation(finding=None)],
])  # fmt: skip
def test_a_bent_violation_is_refused(tmp_path: Path, bent: list[bytes]) -> None:
    """Before its finding, of another one, twice, without controls or with more than these: none of it is valid."""
    *records, coverage = batch(skips=[(5, 6, "unknown")])
    report = judged(tmp_path, [*records, *bent, coverage])
    assert any("violation" in problem or "controls" in problem for problem in report.problems)


def test_a_violation_far_from_its_finding_is_refused(tmp_path: Path) -> None:
    """A record between them, one that needs no reading too, parts them."""
    told = made.finding("offset-gap", 5, 6)
    parted = [*batch()[:-1], told, made.record(10), violation()]
    assert any("not that finding" in problem for problem in judged(tmp_path, parted).problems)


def reset(told: bytes | None) -> list[bytes]:
    """A log whose source began anew after 10 offsets, with `told` as its finding."""
    spans = made.Spans()
    again = [made.record(offset, inc=1) for offset in range(3)]
    return [*batch(spans), *again, *([] if told is None else [told]), spans.close(again)]


def test_a_source_that_began_anew(tmp_path: Path) -> None:
    """A new incarnation begins at offset 0, behind a finding that says where the old one ended."""
    report = judged(tmp_path, reset(made.finding("source-reset", 0, 10, inc=1)))
    assert report.problems == []
    assert [(stream.inc, stream.next) for stream in report.partitions[PLACE]] == [(0, 10), (1, 3)]
    shown = report.as_json()["partitions"][PLACE]
    assert (shown["inc"], shown["next"], shown["before"][0]["next"]) == (1, 3, 10)


@pytest.mark.parametrize("told", [
    None,
    made.finding("source-reset", 0, 9, inc=1),
    made.finding("source-reset", 1, 10, inc=1),
    made.finding("source-reset", 0, 10, inc=2),
    made.finding("source-reset", 0, 10, inc=1, partition=1),
    made.finding("offset-gap", 0, 10, inc=1),
])  # fmt: skip
def test_a_source_that_began_anew_unannounced(tmp_path: Path, told: bytes | None) -> None:
    """Without exactly that finding the new incarnation is refused: it would hide what the old one lost."""
    assert not judged(tmp_path, reset(told)).valid


def test_nothing_of_an_old_incarnation_follows(tmp_path: Path) -> None:
    """Records of the old incarnation after the new one began are refused."""
    entries = reset(made.finding("source-reset", 0, 10, inc=1))
    late = made.record(10)
    stale = json.loads(entries[-1])
    stale["partitions"][PLACE] = {"inc": 0, "from": 10, "next": 11, "entries": 1, "skips": []}
    stale["tenants"] = {made.tag("acme"): 1}
    assert not judged(tmp_path, [*entries, late, made.jcs(stale)]).valid


def test_a_reset_within_one_batch(tmp_path: Path) -> None:
    """Old and new records of one batch are covered by two coverage entries at its end, in order."""
    old = [made.record(offset) for offset in range(4)]
    new = [made.record(offset, inc=1) for offset in range(2)]
    spans = made.Spans()
    first = spans.close(old)
    second = spans.close(new)
    told = made.finding("source-reset", 0, 4, inc=1)
    assert judged(tmp_path, [*old, *new, told, first, second]).problems == []
    assert not judged(tmp_path, [*old, *new, told, second, first]).valid


def test_a_span_in_pieces(tmp_path: Path) -> None:
    """A partition with many skips goes on in the next coverage entry of the batch; each piece covers its range whole."""
    records = [made.record(offset) for offset in (0, 1, 4, 5)]
    spans = made.Spans()
    first = spans.close(records[:2], {PLACE: [(2, 3, "marker")]})
    second = spans.close(records[2:])
    assert judged(tmp_path, [*records, first, second]).problems == []
    assert not judged(tmp_path, [*records, second, first]).valid
    assert not judged(tmp_path, [*records, first, made.record(6), second]).valid


def test_counts_that_go_on_in_the_next_entry(tmp_path: Path) -> None:
    """The counts of a batch may stand in several of its coverage entries, and together they are held to."""
    records = [made.record(offset, tenant=f"t{offset % 3}") for offset in range(9)]
    one = json.loads(made.Spans().close(records))
    names = sorted(one["tenants"])
    two = one | {"partitions": {}, "tenants": {names[0]: one["tenants"].pop(names[0])}}
    assert judged(tmp_path, [*records, made.jcs(one), made.jcs(two)]).problems == []
    assert not judged(tmp_path, [*records, made.jcs(one)]).valid


def test_a_full_coverage_names_all(tmp_path: Path) -> None:
    """A coverage that says it is full and leaves a partition out is refused."""
    spans = made.Spans()
    first = batch(spans)
    other = [made.record(0, partition=1)]
    second = json.loads(spans.close(other)) | {"full": True}
    assert not judged(tmp_path, [*first, *other, made.jcs(second)]).valid
    last = made.jcs(second | {"partitions": second["partitions"] | {PLACE: {
        "inc": 0, "from": 10, "next": 10, "entries": 0, "skips": [], "last": spans.last[PLACE]
    }}})  # fmt: skip
    assert judged(tmp_path, [*first, *other, last]).problems == []


def test_records_without_end_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that never covers its records is given up on, in bounded memory."""
    monkeypatch.setattr(verify_evidence, "MAX_BATCH", 300)
    report = judged(tmp_path, [made.record(offset) for offset in range(800)])
    assert "under no coverage" in report.problems[-1]
