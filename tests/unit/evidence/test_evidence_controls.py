"""Each control of the catalogue reaches each of the four results that it can reach, and no other way round."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evidenced import AT_MS, Book

from agents.evidence.catalogue import BY_ID, CATALOGUE, CHECKS, CROSSWALK, DEADLINE, DEADLINES, Control
from agents.evidence.checks import all_checks
from agents.evidence.controls import Ledger, row_of, sheet
from agents.evidence.oscal import Result
from agents.evidence.record import Draft
from agents.evidence.statements import HEADER, Statement, read
from agents.evidence.table import TABLE
from infra.notary import LocalNotary, verify
from schemas.errors import Refused
from schemas.tlog import note
from schemas.topics import recorded
from streams.recorded import read_file

ORIGIN = "dev.ratchet.test"
OBSERVED = "observations"
DENIED: dict[str, Any] = {"action": "deny", "rules": ["purpose"]}
PURPOSE = {"purpose": "support", "basis": "contract"}
ARMS: list[dict[str, Any]] = [{"arm": "house", "masks": []}, {"arm": "cloud", "masks": ["privacy"]}]
PLACE = {"request_partition": 0, "request_offset": 0}
HOUR = 3_600_000

Story = Callable[[Book], object]


@dataclass(frozen=True)
class Told:
    """What makes a check hold, and what makes it fail; `broken`: the tiles do not have the root."""

    good: Story
    bad: Story
    broken: bool = False


def observe(event: str, **facts: Any) -> Story:
    return lambda book: book.add(OBSERVED, event, facts)


def decide(**facts: Any) -> Story:
    return lambda book: book.add("decisions", "decision.routed", PLACE | {"arm": "house", "arms": ARMS} | facts)


def gate(**facts: Any) -> Story:
    return decide(gate={"action": "allow", "rules": [], **facts})


def all_of(*stories: Story) -> Story:
    return lambda book: [story(book) for story in stories]


def covered(book: Book) -> None:
    book.request(0)
    book.close()


def finding(kind: str) -> Story:
    def tell(book: Book) -> None:
        covered(book)
        source = {"topic": "ratchet.requests", "partition": 0, "inc": 0}
        book.raw({"v": 1, "type": "finding", "kind": kind, "from": 0, "to": 1, "src": source})

    return tell


def gap(book: Book) -> None:
    covered(book)
    book.covered["ratchet.requests"] += 1
    book.add("requests", "request.submitted", {}, skip=1)
    book.close()


def promotion(evaluation: str) -> Story:
    def tell(book: Book) -> None:
        book.add("promotions", "promotion.evaluated", {}, event_id="evaluation-1")
        book.add("promotions", "model.promoted", {"evaluation": evaluation})

    return tell


def live(adapter: str) -> Story:
    def tell(book: Book) -> None:
        book.add("training", "adapter.live", {"adapter": adapter})
        book.add("training", "adapter.registered", {"adapter": "sha256:" + "1" * 64})

    return tell


def scored(*, reviewed: bool, gated: bool = True, decision: str = "decision-1") -> Story:
    facts = PLACE | {"decision_id": decision}

    def tell(book: Book) -> None:
        book.add("answers", "answer.released", facts | {"reviewed": reviewed})
        book.add("scores", "score.assigned", facts | {"action": "hold", "gated": gated, "shadow": False})

    return tell


def verdicts(*seconds: str) -> Story:
    def tell(book: Book) -> None:
        for spent in seconds:
            book.add("verdicts", "verdict.given", {"kind": "person", "seconds_spent": spent})

    return tell


def graded(book: Book) -> None:
    book.add("cases", "case.closed", {"arms": [{"arm": "house", "grade": 1000}]})


def alarm(*then: str) -> Story:
    def tell(book: Book) -> None:
        graded(book)
        book.add("promotions", "trust.changed", {"alarm": True})
        for kind in then:
            book.add("commands", kind, {})

    return tell


def incident(*states: str, notified_after: int = 1, **facts: Any) -> Story:
    """An incident of which somebody became aware at the log's beginning; it is notified so many hours later."""

    def tell(book: Book) -> None:
        aware = AT_MS + book.size
        for state in states:
            known = aware + notified_after * HOUR if state == "notified" else aware
            at(book, known, f"incident.{state}", {"incident": "i1", "aware_at_ms": aware} | facts)

    return tell


def at(book: Book, at_ms: int, kind: str, facts: Mapping[str, Any]) -> None:
    """An observation that the broker took at this time."""
    book.add(OBSERVED, kind, facts)
    entry = json.loads(book.batch[-1])
    entry["src"]["broker_ms"] = at_ms
    book.batch[-1] = json.dumps(entry).encode()


WHOLE = ("detected", "assessed", "contained", "notified", "closed")
UNTOLD = ("detected", "assessed", "not_notifiable", "contained", "closed")
STORIES: Mapping[str, Told] = {
    "unbroken": Told(covered, gap),
    "unaltered": Told(covered, finding("source-reset")),
    "kept": Told(covered, finding("range-lost")),
    "watched": Told(covered, finding("witness-away")),
    "grounded": Told(promotion("evaluation-1"), promotion("never-seen")),
    "rebuilt": Told(lambda book: book.request(0), lambda book: book.request(0, parts="da")),
    "accounted": Told(lambda book: book.request(0), all_of(lambda book: book.request(0), decide(), scored(reviewed=True))),
    "signed": Told(live("sha256:" + "1" * 64), live("sha256:" + "2" * 64)),
    "confined": Told(
        decide(routing={"sensitivity": "personal"}), decide(routing={"sensitivity": "personal"}, shadows=["cloud"])
    ),
    "purposed": Told(all_of(gate(**PURPOSE), gate(**DENIED)), gate(purpose="support")),
    "registered": Told(all_of(gate(registered=True), gate(**DENIED)), gate(registered=False)),
    "special": Told(gate(action="confine", rules=["special-category"]), gate(rules=["special-category"])),
    "transfer": Told(gate(action="deny", rules=["transfer-tool"]), gate(rules=["residency"])),
    "overseen": Told(all_of(scored(reviewed=True), scored(reviewed=False, gated=False, decision="decision-2")), scored(reviewed=False)),
    "attentive": Told(verdicts(*["12.5"] * 4, "0.5"), verdicts(*["12.5"] * 3, "0.5")),
    "accurate": Told(alarm("command.trust"), alarm()),
    "marked": Told(
        all_of(scored(reviewed=True), lambda book: book.add("answers", "answer.released", {"marked": True})),
        lambda book: [book.add("answers", "answer.released", mark) for mark in ({"marked": True}, {})],
    ),
    "roles": Told(
        observe("access.checked", check="role", passed=True), observe("access.checked", check="role", passed=False)
    ),
    "transport": Told(
        observe("access.checked", check="transport", passed=True), observe("access.checked", check="transport")
    ),
    "principals": Told(
        observe("access.checked", check="principal", passed=True),
        observe("access.checked", check="principal", passed=False),
    ),
    "configured": Told(observe("config.observed", passed=True), observe("config.observed", passed=False)),
    "restored": Told(observe("drill.completed", passed=True), observe("drill.completed", passed=False)),
    "handled": Told(incident(*WHOLE), incident("detected", "contained")),
    "notified": Told(incident(*WHOLE, notified_after=72), incident(*WHOLE, notified_after=73)),
    "told": Told(incident(*WHOLE, high_risk=True), incident(*UNTOLD, high_risk=True)),
    "erased": Told(
        observe("subject.erased", hold_checked=True, keys=1, effective_at_ms=AT_MS),
        observe("subject.erased", keys=1, effective_at_ms=AT_MS),
    ),
    "accessed": Told(
        observe("export.made", kind="subject", entries=7, expected=7),
        observe("export.made", kind="subject", entries=6, expected=7),
    ),
    "deidentified": Told(
        observe("deid.applied", classes=11, unsupported=[str(n) for n in range(7)]),
        observe("deid.applied", classes=11, unsupported=["names"]),
    ),
}  # fmt: skip
LOGGED = [control for control in CATALOGUE if control.check != "person"]
BY_PERSON = [control for control in CATALOGUE if control.check == "person"]
NEVER = Statement("", "not-applicable", "2999-12-31", "There is no such thing.", "ann")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book.new(tmp_path)


def assessed(control: Control, book: Book, *statements: Statement, unbroken: bool = True) -> Result:
    ledger = Ledger()
    for index, entry in enumerate(book.batch):
        ledger.take(index, json.loads(entry))
    results = ledger.results(unbroken=unbroken, statements=statements)
    (found,) = (one for one in results if one.control == control.id)
    return found


def stated(control: Control, says: Any, until: str) -> Statement:
    return Statement(control.id, says, until, "There is no such thing.", "ann")


@pytest.mark.parametrize("control", LOGGED, ids=lambda control: control.id)
def test_a_control_reaches_all_four_results(control: Control, book: Book, tmp_path: Path) -> None:
    """No case: no evidence, or not applicable while a statement is valid; cases: all hold, or one that fails is named."""
    told = STORIES[control.check]
    assert assessed(control, book).state == "no-evidence"
    ever = stated(control, "not-applicable", "2999-12-31")
    assert assessed(control, book, ever).state == "not-applicable"
    told.good(book)
    good = assessed(control, book)
    assert (good.state, good.population > 0, list(good.failed)) == ("satisfied", True, [])
    other = Book.new(tmp_path / "other")
    told.bad(other)
    bad = assessed(control, other)
    assert bad.state == "not-satisfied"
    assert bad.failed
    assert {index < len(other.batch) for index in bad.failed} == {True}
    assert assessed(control, other, ever).state == "not-satisfied"


@pytest.mark.parametrize("control", BY_PERSON, ids=lambda control: control.id)
def test_a_persons_control_reaches_all_four_results(control: Control, book: Book) -> None:
    """Silence is no evidence; a review counts until its day is over, and then fails; it can be not applicable."""
    covered(book)
    assert assessed(control, book).state == "no-evidence"
    valid = assessed(control, book, stated(control, "reviewed", "2026-09-21"))
    assert (valid.state, valid.by, valid.population) == ("satisfied", "ann", 1)
    assert assessed(control, book, stated(control, "reviewed", "2026-09-20")).state == "not-satisfied"
    assert assessed(control, book, stated(control, "not-applicable", "2026-09-21")).state == "not-applicable"


def test_an_expired_statement_is_no_evidence(book: Book) -> None:
    """Of a control without a case; the result says that there was one."""
    covered(book)
    control = BY_ID["hipaa-164.514.b.2"]
    said = assessed(control, book, stated(control, "not-applicable", "2026-09-20"))
    assert (said.state, "expired on 2026-09-20" in said.why) == ("no-evidence", True)


def test_without_the_root_no_entry_counts(book: Book) -> None:
    """Integrity and retention fail for every entry where the tiles do not have the signed root."""
    covered(book)
    for name in ("hipaa-164.312.c", "hipaa-164.316.b.2", "aiact-19"):
        assert len(assessed(BY_ID[name], book, unbroken=False).failed) == len(book.batch)


def test_the_catalogue_resolves() -> None:
    """Every check, deadline and cross-walk that a control names exists, and each is named by one; ids are OSCAL's tokens."""
    assert len(BY_ID) == len(CATALOGUE)
    assert {control.check for control in CATALOGUE} == set(CHECKS)
    assert set(CHECKS) == set(all_checks()[1]) | {"person"} == set(STORIES) | {"person"}
    assert {name for control in CATALOGUE for name in control.crosswalk} == set(CROSSWALK)
    assert {name for control in CATALOGUE for name in control.deadlines} <= set(DEADLINE)
    assert len(DEADLINE) == len(DEADLINES)
    assert all(control.crosswalk for control in CATALOGUE)
    assert all(set(control.id) <= set("abcdefghijklmnopqrstuvwxyzD0123456789.-") for control in CATALOGUE)


def test_what_a_control_waits_for_does_not_exist() -> None:
    """Once somebody writes it into the log, the catalogue must not say that nobody does; what does not exist is waited for."""
    decision, answer, export = (TABLE[name] for name in ("decision.routed", "answer.released", "export.made"))
    assert "gate" not in decision.plain | frozenset(decision.commits)
    assert "marked" not in answer.plain
    assert "entries" not in export.plain
    own = {"coverage", "finding", "checkpoint", "dead-letter", "command.*"}
    facts = {"the gate", "the mark on answers", "export.made of a subject"}
    for name, wording in CHECKS.items():
        unknown = set(wording.proof) - set(TABLE) - own
        assert bool(unknown) == (wording.waits_for not in facts | {""}), name
        assert all(kind.startswith(wording.waits_for.removesuffix("*")) for kind in unknown)


def test_the_page_for_auditors_lists_the_catalogue() -> None:
    """Each check with its controls, case, condition and what it waits for, as the code has them."""
    page = (Path(__file__).parents[3] / "docs/evidence.md").read_text()
    for name, wording in CHECKS.items():
        ids = ", ".join(f"`{control.id}`" for control in CATALOGUE if control.check == name)
        assert f"| {ids} | {wording.case} | {wording.holds} | {wording.waits_for} |\n" in page
    assert f"a catalogue of {len(CATALOGUE)} controls" in (Path(__file__).parents[3] / "CHANGELOG.md").read_text()


def test_the_deadlines_are_those_of_the_design() -> None:
    """Their days and values, by id."""
    begins = {row.id: row.begins for row in DEADLINES}
    assert (DEADLINE["gdpr-33-notify"].value, DEADLINE["aiact-logs"].value) == (72, 183)
    assert (begins["aiact-50-new"], begins["aiact-50-older"]) == ("2026-08-02", "2026-12-02")
    assert (begins["aiact-annex-iii"], begins["aiact-annex-i"]) == ("2027-12-02", "2028-08-02")
    assert DEADLINE["hipaa-retention"].value >= 6 * 365
    assert set(DEADLINES[0].as_json()) == {"id", "from", "until", "value", "unit", "source"}


@pytest.mark.parametrize(
    ("facts", "holds"),
    [
        ({"chain": ["cloud"]}, False),
        ({"second_arm": "cloud"}, False),
        ({"hedges": ["cloud"]}, False),
        ({"arm": "cloud"}, False),
        ({"routing": {"sensitivity": "secret", "relaxed": ["residency"]}}, False),
        ({"routing": {"sensitivity": "secret", "relaxed": ["slo"]}}, True),
        ({"routing": {"sensitivity": "internal"}, "arm": "cloud"}, None),
        ({"routing": {}, "gate": {"action": "deny"}}, False),
        ({"routing": {}, "gate": {"action": "confine"}}, True),
    ],
)
def test_where_private_data_may_go(book: Book, facts: Mapping[str, Any], holds: bool | None) -> None:
    """Not to a masked arm in whatever part, not by taking back the mask, not after a denial; the rest is no case."""
    decide(**{"routing": {"sensitivity": "personal"}, **facts})(book)
    state = {True: "satisfied", False: "not-satisfied", None: "no-evidence"}[holds]
    assert assessed(BY_ID["soc2-cc6.7"], book).state == state


def test_a_request_that_stays_open(book: Book) -> None:
    """Open is fine until the window and its grace are over; undecided until a day is over; a dead letter is an end."""
    control = BY_ID["soc2-pi1.3"]
    book.request(0, parts="r")
    decide(window_end_ms=AT_MS)(book)
    assert assessed(control, book).state == "satisfied"
    at(book, AT_MS + 2 * HOUR, "breaker.changed", {})
    assert assessed(control, book).failed == [0]
    letter = {"topic": "ratchet.requests", "partition": 0, "offset": 0}
    book.add("requests.dlq", "dead-letter", letter | {"agent": "observer"})
    assert assessed(control, book).state == "not-satisfied"
    book.add("requests.dlq", "dead-letter", letter | {"agent": "router"})
    assert assessed(control, book).state == "satisfied"
    book.request(1, parts="r")
    at(book, AT_MS + 26 * HOUR, "breaker.changed", {})
    assert assessed(control, book).state == "not-satisfied"


def test_a_recorded_loop_fails_nothing() -> None:
    """Real records of a whole loop, restarts and rejected input included: what has cases is satisfied."""
    log = read_file(Path(__file__).parents[2] / "data/recorded/loop.xz")
    ledger, topics = Ledger(), recorded()
    taken = (record for record in sorted(log.all(), key=lambda row: row.timestamp_ms) if record.topic in topics)
    for index, record in enumerate(taken):
        ledger.take(index, json.loads(Draft(record).build(bytes(32), bytes(32))))
    states = {one.control: one.state for one in ledger.results(unbroken=True) if one.population}
    assert set(states.values()) == {"satisfied"}
    assert {"soc2-cc8.1", "soc2-pi1.1", "gdpr-22", "aiact-12", "aiact-14", "aiact-15", "aiact-19"} <= set(states)


def test_a_topic_made_anew_is_not_answered_twice(book: Book) -> None:
    """The same offset of another incarnation is another request."""
    control = BY_ID["soc2-pi1.4"]
    book.request(0)
    book.offsets.clear()
    start = len(book.batch)
    book.request(1)
    assert assessed(control, book).state == "not-satisfied"
    request = json.loads(book.batch[start])
    request["src"]["inc"] = 1
    book.batch[start] = json.dumps(request).encode()
    assert assessed(control, book).state == "satisfied"


def test_an_open_incident_runs_against_the_clock(book: Book) -> None:
    """Not yet notified is fine for 72 hours of the log's time, then late; found not notifiable it is no case."""
    control = BY_ID["gdpr-33"]
    incident("detected", "assessed")(book)
    assert assessed(control, book).state == "satisfied"
    at(book, AT_MS + 100 * HOUR, "breaker.changed", {})
    assert assessed(control, book).state == "not-satisfied"
    book.add(OBSERVED, "incident.not_notifiable", {"incident": "i1"})
    assert assessed(control, book).state == "no-evidence"


def test_an_alarm_of_another_route_stays_open(book: Book) -> None:
    """A command acts on its own route alone."""
    alarm()(book)
    book.add("commands", "command.trust", {}, tenant="globex")
    assert assessed(BY_ID["aiact-72"], book).state == "not-satisfied"


def test_the_sheet_is_csv(book: Book) -> None:
    """A row a control, in the catalogue's order, that a reader of CSV gets back whole."""
    covered(book)
    ledger = Ledger()
    for index, entry in enumerate(book.batch):
        ledger.take(index, json.loads(entry))
    results = ledger.results(unbroken=False)
    rows = list(csv.DictReader(io.StringIO(sheet(results).decode(), newline="")))
    assert [row["control"] for row in rows] == [control.id for control in CATALOGUE]
    broken = next(row for row in rows if row["control"] == "hipaa-164.312.c")
    assert (broken["state"], broken["failed"], broken["entries"]) == ("not-satisfied", "4", "0 1 2 3")
    assert {row["why"] for row in rows} == {row_of(one)["why"] for one in results}


def signed(notary: LocalNotary, *lines: str, origin: str = ORIGIN, header: str = HEADER) -> bytes:
    text = "\n".join((header, origin, *lines)) + "\n"
    key = note.parse_vkey(notary.vkey(1))
    return (text + "\n" + note.sign_line(key, notary.sign(text.encode(), 1))).encode()


def line(**changed: Any) -> str:
    row = {"control": "soc2-cc1", "says": "reviewed", "until": "2027-06-30", "why": "Read on 1 June."} | changed
    return json.dumps(row)


@pytest.fixture
def notary(tmp_path: Path) -> LocalNotary:
    return LocalNotary.create(tmp_path / "ann.key", "dev.ann")


def test_statements_are_read(notary: LocalNotary) -> None:
    """Of a note that a known signer signed: who, what, until when."""
    data = signed(notary, line(), line(control="gdpr-9", says="not-applicable"))
    found = read(data, ORIGIN, [note.parse_vkey(notary.vkey(1))], verify)
    assert [(one.control, one.says, one.by) for one in found] == [
        ("soc2-cc1", "reviewed", "dev.ann"), ("gdpr-9", "not-applicable", "dev.ann"),
    ]  # fmt: skip


def test_a_statement_of_nobody_known_is_refused(notary: LocalNotary, tmp_path: Path) -> None:
    """Another signer, a changed line, no signature at all."""
    data, keys = signed(notary, line()), [note.parse_vkey(notary.vkey(1))]
    other = LocalNotary.create(tmp_path / "bob.key", "dev.bob")
    for bad, known in (
        (data, [note.parse_vkey(other.vkey(1))]),
        (data.replace(b"2027", b"2097"), keys),
        (data.split(b"\n\n")[0], keys),
    ):
        with pytest.raises(Refused, match="statements"):
            read(bad, ORIGIN, known, verify)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"origin": "other.log"}, "another log"),
        ({"header": "x"}, HEADER),
        ({"lines": ("{",)}, "line 3 is not JSON"),
        ({"lines": ("[]",)}, "control, says, until, why"),
        ({"lines": (line(more=1),)}, "control, says, until, why"),
        ({"lines": (line(control="soc2-cc99"),)}, "soc2-cc99"),
        ({"lines": (line(says="satisfied"),)}, "not-applicable, reviewed"),
        ({"lines": (line(control="gdpr-9"),)}, "shown by the log"),
        ({"lines": (line(until="2027-02-30"),)}, "2027-02-30"),
        ({"lines": (line(why="=cmd()"),)}, "why"),
        ({"lines": (line(), line())}, "stated twice"),
    ],
)
def test_what_a_statement_may_not_be(notary: LocalNotary, data: Mapping[str, Any], word: str) -> None:
    """Signed or not: each is refused by name, with what would be accepted."""
    made = signed(notary, *data.get("lines", ()), origin=data.get("origin", ORIGIN), header=data.get("header", HEADER))
    with pytest.raises(Refused, match=word) as refused:
        read(made, ORIGIN, [note.parse_vkey(notary.vkey(1))], verify)
    assert "accepted" in str(refused.value)
