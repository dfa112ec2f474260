"""`ratchet explain` and `ratchet access` on a log in a folder: what is said of a request and of a person, from entries only."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidenced import AT_MS, Book
from recorded_events import M, complete

from agents.evidence.record import Draft
from agents.rules.gate_standard import STANDARD
from agents.wiring import TenantKeys
from infra.secrets import LocalSecrets
from schemas.compliance import Cut, Horizons, SubjectErased
from schemas.events import AiMark, AnswerRefused, AnswerReleased, AnswerWithheld, DecisionRouted, GateSeen
from schemas.payload import Payload
from streams.shapes import Record
from tools.cli.evidence import pseudonym_of

Run = Callable[..., tuple[int, str, str]]
PERSON = "customer-4711"
ARMS: list[dict[str, Any]] = [
    {"arm": "house", "adapter": None, "propensity": 49_152, "masks": []},
    {"arm": "small", "adapter": None, "propensity": 16_384, "masks": []},
    {"arm": "cloud", "adapter": None, "propensity": 0, "masks": ["privacy"]},
]


def subject_of(tmp_path: Path, tenant: str = "acme", person: str = PERSON) -> str:
    """A person's pseudonym as the collector of this stack writes it."""
    store = LocalSecrets.open(tmp_path / "secrets.json")
    keys = TenantKeys(asyncio.run(store.commitment_key("tenants")))
    value = json.dumps({"tenant": tenant, "route": "banking", "request_id": "q", "subject": person}).encode()
    record = Record("ratchet.requests", 0, 0, b"q", value, (("ce_type", b"ratchet.request.submitted.v1"),), AT_MS)
    entry = json.loads(Draft(record).build(keys.commitment_key(tenant), keys.pseudonym_key(tenant)))
    return str(entry["subject"])


class Teller:
    """Writes what the agents would about requests into the book."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def say(self, topic: str, kind: str, request: str, facts: Any, *, tenant: str = "acme", **more: Any) -> None:
        event = f"{tenant}-{request}-{kind}"
        self.book.add(topic, kind, facts, tenant=tenant, event_id=event, more={"request": request} | more)

    def submitted(self, request: str, subject: str | None = None, tenant: str = "acme", **facts: Any) -> dict[str, Any]:
        """The request; the place that others name."""
        place = {"request_partition": 0, "request_offset": self.book.offsets["ratchet.requests"]}
        more = {} if subject is None else {"subject": subject}
        facts = {"messages_count": 2, "bytes": 311} | facts
        self.say("requests", "request.submitted", request, facts, tenant=tenant, **more)
        return place

    def decided(self, request: str, place: Any, subject: str | None = None, tenant: str = "acme", **facts: Any) -> None:
        more = {} if subject is None else {"subject": subject}
        said = place | {
            "arm": "house", "arms": ARMS, "strategy": "balanced", "draw": 1234, "attempt": 1, "chain": ["small"],
            "routing": {"sensitivity": "personal", "explored": False}, "window_end_ms": AT_MS + 10**9,
        }  # fmt: skip
        policy = [{"kind": "fleet", "route": "banking", "version": 4}]
        self.say("decisions", "decision.routed", request, said | facts, tenant=tenant, policy=policy, **more)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A reviewed request of our person, an open one, a withheld one of another, a refused one, and one name at two tenants."""
    made, subject = Book.new(tmp_path), subject_of(tmp_path)
    tell = Teller(made)
    place = tell.submitted("q1", subject)
    tell.decided("q1", place, subject)
    scored = place | {"arm": "house", "score": "0.71", "scorer": "calibrated/3", "threshold": "0.9", "action": "hold"}
    tell.say("scores", "score.assigned", "q1", scored | {"gated": True, "shadow": False})
    tell.say("reviews", "review.requested", "q1", place | {"gated": True})
    verdict = {
        "kind": "person",
        "seconds_spent": "41.5",
        "by": "b" * 32,
        "answers": [{"label": "A", "decision": "approve"}],
    }
    tell.say("verdicts", "verdict.given", "q1", verdict)
    tell.say("reviews", "review.settled", "q1", place | {"outcome": "released", "reason": "approved"})
    tell.say("answers", "answer.released", "q1", place | {"arm": "house", "reviewed": True, "latency_ms": "52000.5"})
    tell.decided("q2", tell.submitted("q2", subject), subject)
    place = tell.submitted("q3", subject_of(tmp_path, person="somebody-else"))
    tell.decided("q3", place, strategy="champion")
    tell.say("answers", "answer.withheld", "q3", place | {"reason": "window_ended"})
    made.add("requests", "unknown", {"bytes": 9, "undecodable": True}, more={"key": "q4"})
    refused = {"request_partition": 0, "request_offset": 3, "kind": "not-json"}
    tell.say("answers", "answer.refused", "q4", refused)
    dead = {"topic": "ratchet.requests", "partition": 0, "offset": 3, "kind": "not-json", "agent": "router"}
    made.add("requests.dlq", "dead-letter", dead, event_id="acme-q1-request.submitted", more={"key": "q4"})
    for tenant in ("acme", "globex"):
        place = tell.submitted("same", subject_of(tmp_path, tenant), tenant=tenant, sensitivity="secret")
        tell.decided("same", place, tenant=tenant)
    made.close()
    asyncio.run(made.commit())
    return made


def explained(cli: Run, *words: str) -> dict[str, Any]:
    code, said, _ = cli("explain", *words, "--json")
    assert code == 0, said
    return json.loads(said)


def test_a_reviewed_request(cli: Run, book: Book, tmp_path: Path) -> None:
    """Each section in plain words: purpose, data, rules, route, arms with chances, score, the person's part, outcome, how to contest."""
    said = explained(cli, "q1")
    sections = {name: "\n".join(lines) for name, lines in said["sections"].items()}
    assert list(sections) == ["purpose", "data", "rules", "route", "arms", "score", "person", "outcome", "contest"]
    for name, words in (
        ("purpose", "not recorded"),
        ("data", "2 messages, 311 bytes"),
        ("data", "personal, as the router took it"),
        ("data", subject_of(tmp_path)),
        ("rules", "no gate"),
        ("route", "banking"),
        ("route", "fleet version 4"),
        ("arms", "house: quality less what cost and latency are worth; it had a chance of 75.0% (draw 1234 of 65536)"),
        ("arms", "cloud: 0.0%, not allowed: privacy (it may not see what is so sensitive)"),
        ("arms", "if that fails: small"),
        (
            "score",
            "house: 0.710 by calibrated/3, threshold 0.900, on a route where a person decides first: it waits for a person",
        ),
        ("person", "before the answer goes out"),
        ("person", "judged after 41.5 s: A approve"),
        ("person", "released, approved"),
        ("outcome", "house was released after a person's review, 52000.5 ms"),
        ("contest", "asks the operator of dev.ratchet.test"),
        ("contest", f"entry-{book.index['acme-q1-answer.released']}"),
    ):
        assert words in sections[name], (name, sections[name])
    assert [row["chance"] for row in said["decisions"][0]["arms"]] == [0.75, 0.25, 0.0]
    assert said["entries"][0]["type"] == "request.submitted"
    assert len(said["entries"]) == 7
    code, text, _ = cli("explain", "q1")
    assert code == 0
    assert all(line in text for lines in said["sections"].values() for line in lines)


def test_from_a_bundle(cli: Run, book: Book) -> None:
    """An exported log says the same."""
    assert cli("evidence", "export", "bundle", "--log-only")[0] == 0
    assert explained(cli, "q1", "--log", "bundle") == explained(cli, "q1")


def test_other_ends(cli: Run, book: Book) -> None:
    """Open, withheld, refused with its dead letter: each says what is known and makes nothing up."""
    assert explained(cli, "q2")["sections"]["outcome"] == ["still open, as far as the log goes"]
    withheld = explained(cli, "q3")["sections"]
    assert withheld["outcome"][0].startswith("no answer: nobody decided before its time was over")
    assert withheld["arms"][0].startswith("house: the champion serves")
    refused = explained(cli, "q4")["sections"]
    assert [line.split("(")[0].strip() for line in refused["outcome"]] == [
        "refused", "a record about it was refused by router: not-json, requests",
    ]  # fmt: skip
    assert refused["arms"] == ["none was chosen: no decision is in the log"]
    assert refused["person"] == ["no person had a part in it"]
    assert refused["score"] == ["no score is recorded"]


SEEN = GateSeen(
    action="mask", rules=("gdpr-44", "soc2-p6.1"), rules_digest=STANDARD.digest(), tenant_version=3, purpose="support",
    legal_basis="contract", origin="eu", registered=True, found={"email": 2, "religion": 0}, masked=("email",),
)  # fmt: skip


def gated(book: Book, *told: Payload) -> None:
    for number, payload in enumerate(told):
        book.event(payload, f"gated-{number}")
    book.close()
    asyncio.run(book.commit())


def about(model: type[M], **said: Any) -> M:
    return complete(model, at_ms=AT_MS, tenant="acme", route="banking", request_id="q9", **said)


def test_what_the_gate_said_of_a_request(cli: Run, book: Book) -> None:
    """Purpose and basis, each rule in its own words, what was found by kind and count, what was replaced, under which rules."""
    gated(book, about(DecisionRouted, arm="house", grader="verdict", gate=SEEN))
    said = explained(cli, "q9")
    assert said["sections"]["purpose"] == [
        "support, on the legal basis contract", "the tenant's register of processing names this",
    ]  # fmt: skip
    words = {rule.id: rule.words for rule in STANDARD.rules}
    assert said["sections"]["rules"] == [
        "the gate let it go on with values replaced",
        f"  gdpr-44: {words['gdpr-44']}",
        f"  soc2-p6.1: {words['soc2-p6.1']}",
        "  found: email (2), religion (named by the sender); the values stand nowhere in the log",
        "  replaced by placeholders before it went on: email",
        f"  by the rules {STANDARD.digest()}, and version 3 of what the tenant is permitted",
    ]
    assert [(row["entry"], row["action"], row["masked"]) for row in said["gate"]] == [
        (book.index["gated-0"], "mask", ["email"])
    ]


def test_a_denied_request(cli: Run, book: Book) -> None:
    """Which rules refused it, that no model saw it, and how to contest it; rules that are not shipped any more are told so."""
    gate = GateSeen(
        action="deny",
        rules=("gate-basis", "house-7"),
        exemptions=("ex-1",),
        rules_digest="sha256:" + "0" * 64,
        scan="late",
    )
    gated(book, about(AnswerRefused, kind="gate", field="legal_basis", reason="No legal basis is named.", gate=gate))
    said = explained(cli, "q9")["sections"]
    assert said["purpose"][1] == "the tenant's register of processing does not name this"
    assert said["rules"] == [
        "the gate denied it",
        "  gate-basis: No legal basis is named.",
        "  house-7: a rule that is not among those shipped now",
        "  weakened by what the tenant is exempted from: ex-1",
        "  scanning took too long, so the text was not known to be clean",
        f"  by the rules sha256:{'0' * 64}, which are not those shipped now: their words may differ, and nothing configured for the tenant",
    ]
    assert said["outcome"] == [
        f"refused by the gate before any model saw it, by the rules above (entry {book.index['gated-0']})"
    ]
    assert any("may be sent again once" in line for line in said["contest"])
    assert said["arms"] == ["none was chosen: no decision is in the log"]


def test_what_the_gate_said_of_an_answer(cli: Run, book: Book) -> None:
    """What it replaced in an answer that went out with its mark, and why it withheld another."""
    told = GateSeen(action="mask", rules=("soc2-c1.1",), found={"card": 1}, masked=("card",))
    denied = GateSeen(action="deny", rules=("soc2-cc6.7",), found={"secret": 1})
    gated(
        book,
        about(AnswerReleased, arm="house", marked=True, mark=AiMark(statement="{}", binding="0" * 64), gate=told),
        about(AnswerWithheld, reason="gate", gate=denied),
    )
    lines = explained(cli, "q9")["sections"]["outcome"]
    at = [book.index[f"gated-{number}"] for number in range(2)]
    assert lines[0].endswith(f"marked as made by a machine (entry {at[0]})")
    assert "  of the answer: the gate let it go on with values replaced" in lines
    assert "  replaced by placeholders before it went on: card" in lines
    assert f"no answer: the gate stopped the answer (entry {at[1]})" in lines
    assert "  of the answer: the gate denied it" in lines


def test_an_erased_person(cli: Run, book: Book, tmp_path: Path) -> None:
    """Requests below the cut are said to be erased, from which day on and by which receipt; later ones, and other people's, are not."""
    receipt = complete(
        SubjectErased, tenant="acme", at_ms=AT_MS, subject=subject_of(tmp_path), effective_at_ms=AT_MS, hold_checked=True,
        cut=(Cut(partition=0, offset=1),), horizons=Horizons(),
    )  # fmt: skip
    gated(book, receipt)
    (word,) = (line for line in explained(cli, "q1")["sections"]["data"] if line.startswith("erased"))
    assert "from 2026-09-21 on no key that we hold opens the texts" in word
    assert word.endswith(f"(receipt: entry {book.index['gated-0']})")
    for request in ("q2", "q3"):
        assert not [line for line in explained(cli, request)["sections"]["data"] if "erased" in line]


def test_an_unknown_request_is_a_no(cli: Run, book: Book) -> None:
    """Exit 1, in JSON too; an id is not taken by its beginning; a folder that is not there is used wrongly."""
    for request in ("q", "nobody", "Q1"):
        code, said, _ = cli("explain", request, "--json")
        assert (code, json.loads(said)["kind"]) == (1, "unknown-request")
    assert cli("explain", "q1", "--tenant", "globex")[0] == 1
    assert cli("explain", "q1", "--log", "nowhere")[0] == 2


def test_one_name_at_two_tenants(cli: Run, book: Book) -> None:
    """Whose is asked for; neither is mixed with the other."""
    code, said, _ = cli("explain", "same")
    assert (code, "acme, globex; give --tenant" in said) == (1, True)
    said = explained(cli, "same", "--tenant", "globex")
    assert (said["tenant"], len(said["entries"])) == ("globex", 2)


def test_a_persons_entries(cli: Run, book: Book, tmp_path: Path) -> None:
    """Exactly those that name the person and those about their requests, of this tenant; each verifies; their id is nowhere."""
    code, said, _ = cli("access", PERSON, "--tenant", "acme", "--unrecorded", "--out", "given", "--json")
    assert code == 0, said
    row = json.loads(said)
    truth = [index for name, index in book.index.items() if name.startswith(("acme-q1-", "acme-q2-", "acme-same-"))]
    assert [one["index"] for one in row["entries"]] == sorted(truth)
    assert row["requests"] == ["q1", "q2", "same"]
    assert row["subject"] == subject_of(tmp_path)
    assert (row["texts"]["opened"], "`ratchet up`" in row["texts"]["why"]) == (0, True)
    assert row["recorded_by"] == ""
    proofs = sorted((tmp_path / "given/entries").glob("*.tlog-proof"))
    assert len(proofs) == len(truth)
    for proof in proofs:
        assert cli("evidence", "verify", str(proof), "--policy", str(book.root / "policy.txt"))[0] == 0
    told = json.loads((tmp_path / "given/explanations/q1.json").read_text())
    assert told == explained(cli, "q1")
    assert {path.stem for path in (tmp_path / "given/explanations").iterdir()} == {"q1", "q2", "same"}
    assert json.loads((tmp_path / "given/access.json").read_text())["entries"] == row["entries"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "given").rglob("*") if path.is_file())
    assert PERSON.encode() not in everything
    broken = tmp_path / "given/entries" / f"{proofs[0].stem}.json"
    broken.write_bytes(broken.read_bytes().replace(b"acme", b"acmf"))
    assert cli("evidence", "verify", str(proofs[0]), "--policy", str(book.root / "policy.txt"))[0] == 1


def test_by_pseudonym_from_a_bundle(cli: Run, book: Book, tmp_path: Path) -> None:
    """Without any key, from an exported log; it says what is lacking and how to verify."""
    subject = subject_of(tmp_path, "globex")
    assert cli("evidence", "export", "bundle", "--log-only")[0] == 0
    (tmp_path / "secrets.json").unlink()
    words = ("access", subject, "--pseudonym", "--tenant", "globex", "--log", "bundle", "--out", "given")
    code, said, _ = cli(*words)
    assert code == 0
    for expected in ("2 entries of 1 requests", "not in an export of it", "not recorded in the log", "--policy FILE"):
        assert expected in said
    assert not (tmp_path / "secrets.json").exists()
    code, _, said = cli(*words)
    assert (code, "exists" in said) == (2, True)


def test_two_entries_of_one_id(cli: Run, book: Book, tmp_path: Path) -> None:
    """A dead letter has the id of the record that it holds: both are written."""
    dead = {"topic": "ratchet.requests", "partition": 0, "offset": 0, "kind": "invalid", "agent": "router"}
    book.add("requests.dlq", "dead-letter", dead, event_id="acme-q1-request.submitted", more={"request": "q1"})
    at = book.size - 1
    book.close()
    asyncio.run(book.commit())
    assert cli("access", PERSON, "--tenant", "acme", "--unrecorded", "--out", "given")[0] == 0
    names = {path.stem for path in (tmp_path / "given/entries").glob("*.tlog-proof")}
    assert {"acme-q1-request.submitted", f"entry-{at}"} <= names


def test_an_unknown_person_is_a_no(cli: Run, book: Book, tmp_path: Path) -> None:
    """Exit 1 and nothing written; what cannot be an id is used wrongly, and is not repeated."""
    for words in (("nobody",), (PERSON, "--tenant", "initech"), ("f" * 32, "--pseudonym")):
        code, said, _ = cli("access", *words, "--out", "given", "--json")
        assert (code, json.loads(said)["kind"]) == (1, "unknown-subject")
    for words in (("a b@example.org",), (PERSON, "--pseudonym")):
        code, _, said = cli("access", *words, "--out", "given")
        assert (code, words[0] in said) == (2, False)
    assert not (tmp_path / "given").exists()
    assert not list(tmp_path.glob(".given*"))


def test_the_pseudonym_is_the_collectors(tmp_path: Path, cli: Run) -> None:
    """The command line makes the one that stands in the log."""
    assert asyncio.run(pseudonym_of("acme", "subject", PERSON)) == subject_of(tmp_path)
