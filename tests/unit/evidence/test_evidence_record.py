"""What of a record may stand in the log."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evidence import record
from schemas import canonical
from schemas.payload import REGISTRY
from schemas.topics import BY_NAME
from streams.shapes import Record

KEY = b"k" * 32
RECORDED = sorted(name for name, model in REGISTRY.items() if model.TOPIC in BY_NAME and BY_NAME[model.TOPIC].recorded)


def entry(value: Any, ce_type: str = "request.submitted", *, topic: str = "ratchet.requests", **headers: str) -> Any:
    data = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    all_headers = {"ce_id": "event-1", "ce_type": f"ratchet.{ce_type}.v1", **headers}
    raw = Record(topic, 3, 17, b"q1", data, tuple((name, text.encode()) for name, text in all_headers.items()), 99)
    return canonical.decode(record.Draft(raw).build(KEY, KEY))


def test_every_recorded_type_has_a_row() -> None:
    """A new event type must say what of it may be copied."""
    assert sorted(record.TABLE) == RECORDED


def test_texts_are_commitments_and_people_pseudonyms() -> None:
    """A verdict's correction is committed to, its author is a pseudonym, its numbers are facts."""
    made = entry(
        {"tenant": "acme", "route": "r", "request_id": "q1", "at_ms": 1, "by": "mary", "kind": "person",
         "corrected": "the right answer", "seconds_spent": 1.5, "answers": [{"label": "A", "decision": "approve"}]},
        "verdict.given",
    )  # fmt: skip
    assert made["facts"]["by"] == made["actor"] == record.pseudonym(KEY, "person", "mary")
    assert made["facts"]["seconds_spent"] == "1.5"
    assert made["facts"]["answers"] == [{"label": "A", "decision": "approve"}]
    assert made["commit"]["corrected"] == record.commitment(KEY, "event-1", "corrected", b"the right answer")
    assert made["src"] == {"topic": "ratchet.requests", "partition": 3, "inc": 0, "offset": 17, "broker_ms": 99}


def test_equal_texts_differ_by_event_and_field() -> None:
    """The same text in another event or field has another commitment: no dictionary."""
    made = {record.commitment(KEY, event, name, b"yes") for event in ("a", "b") for name in ("x", "y")}
    assert len(made) == 4


@pytest.mark.parametrize(
    "text", ["mary@example.org", "+49 170 1234567", "+491701234567", "4111-1111-1111-1111", "a b", "é", ""]
)
def test_what_is_no_token_is_never_plain(text: str) -> None:
    """Ids that are e-mails, telephone or card numbers, or text do not enter, wherever an id may stand."""
    made = entry(
        {"tenant": text, "route": text, "request_id": text, "at_ms": 1, "arm": text, "chain": [text],
         "arms": [{"arm": text}], "policies": [{"kind": "trust", "name": text, "version": 1, "id": text}]},
        "decision.routed", ce_id=text, ce_source=text, ce_time=text, **{"ratchet-cause": text, "ratchet-at": text},
    )  # fmt: skip
    assert not text or text not in json.dumps(made, ensure_ascii=False)
    assert made["tenant"] == record.NOBODY
    assert made["id"] == "ratchet.requests[3]@17"


@pytest.mark.parametrize(
    "text",
    [
        "ssn-123-45-6789", "a123-45-6789", "req_123.45.6789", "123-45-6789-x", "card-4111111111111111", "card_4111111111111111",
        "x4111-1111-1111-1111", "req-4111.1111.1111.1111", "req-378282246310005", "r-3782-822463-10005", "4222222222222-x",
        "r-20261122-6304000000000000000",
    ],
)  # fmt: skip
def test_an_id_around_a_persons_number_is_committed_to(text: str) -> None:
    """Letters beside it help nothing: neither as the request's id, nor the record's key, nor the event's own id."""
    value = {"tenant": "acme", "route": "r", "request_id": text, "at_ms": 1}
    headers = ((name, data.encode()) for name, data in (("ce_id", text), ("ce_type", "ratchet.request.submitted.v1")))
    raw = Record("ratchet.requests", 3, 17, text.encode(), json.dumps(value).encode(), tuple(headers), 99)
    made = json.loads(record.Draft(raw).build(KEY, KEY))
    assert text not in json.dumps(made)
    assert {"request", "key", "ce_id"} <= made["commit"].keys()


@pytest.mark.parametrize(
    "text",
    [
        "demo-000123", "r-2026-11-22-0001", "r-2025-000123", "run-20261122-101112", "run-20261122101112", "req-1732269068123",
        "evt-1732269068123456789", "order-0000000000123", "breach-2026-11-22", "6234567f-1234-4234-8234-123456789012",
        "req-62345678-6234-4234-8234-623456789012", "q-" + "6234567890123456a" * 2, "sha256.c4111111111111111f",
        "01JD9ZK3M4N5P6Q7R8S9T0V1W2",
    ],
)  # fmt: skip
def test_ids_that_people_use_stand_in_plain(text: str) -> None:
    """Counters, days, times, UUIDs and digests: an entry is found by them."""
    assert entry({"tenant": "acme", "route": "r", "request_id": text, "at_ms": 1}, ce_id=text)["request"] == text
    assert entry({"tenant": "acme"}, ce_id=text)["id"] == text


@given(st.uuids())
def test_every_uuid_stands_in_plain(value: UUID) -> None:
    """With a word before it, too."""
    assert entry({"tenant": "acme", "request_id": f"req-{value}"}, ce_id=str(value))["request"] == f"req-{value}"


@pytest.mark.parametrize("value", [b"not json mary@example.org", b"\xff\xfe", b"[1]", None, b'{"a":"\\ud800"}', b""])
def test_what_cannot_be_read_is_recorded_all_the_same(value: bytes | None) -> None:
    """A record that is no event has an entry: envelope, size, and a commitment to the whole."""
    made = entry(value)
    assert made["src"]["offset"] == 17
    assert "example" not in json.dumps(made)
    assert ("value" in made["commit"]) == (value is not None)


def test_unknown_types_show_only_the_envelope() -> None:
    """Nothing of a payload of an unknown type is copied."""
    made = entry({"tenant": "acme", "secret": "hush", "arm": "a"}, "person.named")
    assert made["type"] == "unknown"
    assert set(made["facts"]) == {"bytes"}
    assert set(made["commit"]) == {"value", "ce_type", "key"} - ({"key"} if "key" in made else set())


def test_a_dead_letter_names_its_source() -> None:
    """Source place, agent and kind of error are facts; message and record are commitments."""
    made = entry(
        {"tenant": "acme", "messages": "hello"}, topic="ratchet.requests.dlq",
        **{"ratchet-dlq-topic": "ratchet.requests", "ratchet-dlq-partition": "3", "ratchet-dlq-offset": "12",
           "ratchet-dlq-agent": "router", "ratchet-dlq-kind": "invalid", "ratchet-dlq-message": "messages: no list"},
    )  # fmt: skip
    assert made["type"] == "dead-letter"
    facts = {"topic": "ratchet.requests", "partition": 3, "offset": 12, "agent": "router", "kind": "invalid"}
    assert facts.items() <= made["facts"].items()
    assert {"message", "value"} <= set(made["commit"])


def test_facts_that_do_not_fit_are_refused_whole() -> None:
    """Nothing is cut: the entry says so, keeps its envelope, and commits to the whole record."""
    choices = [{"arm": f"arm{number}", "propensity": 1, "masks": ["privacy-" * 5] * 64} for number in range(64)]
    payload = {"tenant": "acme", "route": "r", "request_id": "q1", "at_ms": 1, "subject": "ada", "why": "complete"}
    assert entry(payload | {"choices": choices[:8]}, "case.closed")["facts"]["why"] == "complete"
    made = entry(payload | {"choices": choices}, "case.closed")
    assert set(made["facts"]) == {"facts_too_large", "bytes"}
    assert made["facts"]["facts_too_large"] is True
    assert set(made["commit"]) == {"value", "key"} - {"key"}
    assert (made["tenant"], made["route"], made["request"]) == ("acme", "r", "q1")
    assert made["subject"] == record.pseudonym(KEY, "subject", "ada")
    assert len(canonical.encode(made)) <= 65_535


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ({"choices": [{"arm": "a", "masks": ["m" * 48] * 64}] * 64}, "facts-too-large"),
        ({"messages": json.loads("[" * 300 + "]" * 300)}, "too-deep"),
        ({"messages": []}, ""),
    ],
)
def test_a_draft_tells_what_it_refused(value: Any, refused: str) -> None:
    """Why an entry has no facts, for the collector's finding; nothing where all was taken."""
    headers = (("ce_id", b"x"), ("ce_type", b"ratchet.case.closed.v1"))
    draft = record.Draft(Record("ratchet.cases", 0, 1, b"k", json.dumps(value).encode(), headers, 5))
    assert draft.refused == ""
    draft.build(KEY, KEY)
    assert draft.refused == refused


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["arm-1", "a@b.de"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(RECORDED), st.data(), st.integers(-(2**63), 2**63 - 1))
def test_no_record_stops_the_log(name: str, data: st.DataObject, timestamp_ms: int) -> None:
    """Whatever stands in an event's fields, it has a canonical entry without an e-mail."""
    row = record.TABLE[name]
    fields = sorted({*row.facts, *row.commits, *row.people, *row.parts, "tenant", "route", "request_id", "policies"})
    value = json.dumps(data.draw(st.dictionaries(st.sampled_from(fields), junk, max_size=6))).encode()
    headers = (("ce_id", b"x"), ("ce_type", f"ratchet.{name}.v1".encode()))
    made = record.Draft(Record("ratchet.cases", 0, 1, b"k", value, headers, timestamp_ms)).build(KEY, KEY)
    canonical.decode(made)
    assert b"a@b.de" not in made


@pytest.mark.parametrize("depth", [300, 1000, 100_000])
def test_deep_nesting_does_not_stop_the_log(depth: int) -> None:
    """Text nested deeper than any event is recorded as what it is."""
    made = entry(b'{"tenant":"a","messages":' + b"[" * depth + b"]" * depth + b"}")
    assert made["src"]["offset"] == 17
    assert made["facts"].keys() & {"too_deep", "undecodable"}
    assert "value" in made["commit"]


def test_the_incarnation_is_the_callers() -> None:
    """The same place in a topic's next incarnation is another entry."""
    raw = Record("ratchet.requests", 0, 1, b"k", b"{}", (("ce_id", b"x"),), 5)
    first, second = (canonical.decode(record.Draft(raw, inc).build(KEY, KEY)) for inc in (0, 1))
    assert second == first | {"src": first["src"] | {"inc": 1}}  # type: ignore[operator, index, call-overload]


def test_a_rebuild_gives_equal_bytes() -> None:
    """The same record gives the same entry."""
    raw = Record("ratchet.requests", 0, 1, b"k", b'{"tenant":"a","score":0.1}', (("ce_id", b"x"),), 5)
    assert record.Draft(raw).build(KEY, KEY) == record.Draft(raw).build(KEY, KEY)


@pytest.mark.parametrize("topic", ["ratchet.requests", "ratchet.requests.dlq"])
def test_a_request_without_a_tenant_is_the_default_tenants(topic: str) -> None:
    """As the router reads it: so its subject has the pseudonym, and hence the key, that everything that follows from it has."""
    said = {"route": "r", "request_id": "q1", "at_ms": 1, "messages": [], "subject": "alice"}
    made = entry(said, topic=topic)
    assert made["tenant"] == "default"
    assert made["subject"] == entry(said | {"tenant": "default"}, topic=topic)["subject"]
    assert entry(said | {"tenant": "not a name"}, topic=topic)["tenant"] == record.NOBODY
    assert entry(said, "no.such.type", topic=topic)["tenant"] == record.NOBODY
    assert entry(b"{", topic=topic)["tenant"] == record.NOBODY
