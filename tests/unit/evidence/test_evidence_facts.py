"""What is a fact: every field of every event by its kind, and nothing else, whatever stands in a record."""

import hmac
import json
import typing
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agents.evidence import entries, facts, record
from agents.evidence.table import ENVELOPE, LEFT_OUT, STRINGS, TABLE
from schemas import canonical
from schemas.payload import REGISTRY
from streams.recorded import read_file
from streams.shapes import Record

KEY = b"k" * 32
DATA = Path(__file__).resolve().parents[2] / "data" / "recorded"
LOG = [row for file in ("types.xz", "loop.xz") for row in read_file(DATA / file).all()]
SCHEMA = entries.document()
CANARIES = (
    "Mary Jones",
    "mary.jones@example.org",
    "+49 170 1234567",
    "491701234567",
    "4111111111111111",
    "4111-1111-1111-1111",
    "078-05-1120",
    "192.168.178.20",
    "My card has not arrived",
    "Jürgen",
)
HEADERS = ("ce_id", "ce_source", "ce_time", "ratchet-cause", "ratchet-at", "traceparent")
LETTER = tuple(
    f"ratchet-dlq-{name}" for name in ("topic", "partition", "agent", "kind", "message")
)  # the offset is any number


def made(name: str, payload: Any, *, topic: str = "ratchet.cases", key: bytes = b"k", **headers: str) -> Any:
    told = {"ce_id": "event-1", "ce_type": f"ratchet.{name}.v1", **headers}
    raw = tuple((header, text.encode()) for header, text in told.items())
    value = json.dumps(payload, ensure_ascii=False).encode()
    return canonical.decode(record.Draft(Record(topic, 0, 1, key, value, raw, 5)).build(KEY, KEY))


def against_schema(entry: Any) -> list[str]:
    """What in an entry its schema does not allow."""
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(entry)]  # pyright: ignore[reportUnknownMemberType]


def part_of(name: str, field: str) -> Any:
    """The model inside a field that holds objects."""
    annotation = REGISTRY[name].model_fields[field].annotation
    inside = [one for one in typing.get_args(annotation) if hasattr(one, "model_fields")]
    return inside[0] if inside else annotation


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_field_is_accounted_for(name: str) -> None:
    """Each field of an event, and of its parts, is a fact, a commitment, a person, counted, of the envelope, or left out with a reason."""
    row, fields = TABLE[name], set(REGISTRY[name].model_fields)
    left = LEFT_OUT.get("case.closed" if name == "case.amended" else name, {})
    plain = {*row.facts, *row.parts, *row.people}
    assert len(plain) == len(row.facts) + len(row.parts) + len(row.people), "a field is a fact in one way"
    assert not {*row.commits} & {*row.facts, *row.people}, "what is shown is not committed to as well"
    assert not ENVELOPE & {*plain, *row.commits}
    out = {field for field in left if "." not in field}
    assert {*plain, *row.commits, *row.counts, *out} | ENVELOPE & fields == fields
    assert not out & {*plain, *row.commits}
    for field, shown in row.parts.items():
        hidden = {one.removeprefix(f"{field}.") for one in left if one.startswith(f"{field}.")}
        assert set(shown) | hidden == set(part_of(name, field).model_fields)
        assert not set(shown) & hidden
    assert all(left.values())


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_fact_has_a_kind(name: str) -> None:
    """No fact is a string without a pattern, a list of words or a declared kind."""
    assert set(record.fields_of(name)) == TABLE[name].plain
    assert '"type": "string"}' not in json.dumps(record.fields_of(name), default=lambda kind: kind.document)


@pytest.mark.parametrize(
    ("name", "field", "told"),
    [
        ("result.completed", "text", "without pattern"),
        ("case.closed", "routing", "is no kind"),
        ("score.assigned", "sorce", "no field 'sorce'"),
    ],
)
def test_a_fact_without_a_kind_is_refused(name: str, field: str, told: str) -> None:
    """A table that would copy free text, an object or what is not there is refused, by the field."""
    with pytest.raises(TypeError, match=rf"{REGISTRY[name].__name__}.*{told}"):
        facts.kinds(REGISTRY[name], (field,), STRINGS)


def test_declared_kinds_are_used() -> None:
    """Each name in `STRINGS` is a free string of some fact."""
    used = {
        name for row in TABLE.values() for name in (*row.facts, *(one for part in row.parts.values() for one in part))
    }
    assert set(STRINGS) - {"id", "name"} <= used


@pytest.mark.parametrize(
    ("name", "field", "value", "fact"),
    [
        ("score.assigned", "action", "hold", "hold"),
        ("score.assigned", "action", "free", None),
        ("score.assigned", "score", 0.1, "0.1"),
        ("score.assigned", "score", 1, "1.0"),
        ("score.assigned", "score", 1.5, None),
        ("score.assigned", "score", "0.1", None),
        ("score.assigned", "shadow", True, True),
        ("score.assigned", "shadow", 1, None),
        ("score.assigned", "attempt", 2, 2),
        ("score.assigned", "attempt", 2.0, 2),
        ("score.assigned", "attempt", 2.5, None),
        ("score.assigned", "attempt", True, None),
        ("score.assigned", "attempt", 2**53 - 1, 2**53 - 1),
        ("score.assigned", "attempt", 2**53, None),
        ("score.assigned", "attempt", 2**70, None),
        ("score.assigned", "result_offset", -1, None),
        ("score.assigned", "signals", [0.5, 1], ["0.5", "1.0"]),
        ("score.assigned", "signals", [0.5, "x"], None),
        ("score.assigned", "signals", [0.5] * 65, None),
        ("score.assigned", "scorer", "logistic/12", "logistic/12"),
        ("score.assigned", "scorer", "ask Mary", None),
        ("score.assigned", "decision_id", "7c2dda03-747f-55de-b2ae-28eb0bdecfe9", "7c2dda03-747f-55de-b2ae-28eb0bdecfe9"),
        ("score.assigned", "decision_id", "mary", None),
        ("decision.routed", "grader", "verdict", "verdict"),
        ("decision.routed", "grader", "mary", None),
        ("decision.routed", "routing", {"sensitivity": "secret", "notes": ["hush"]}, {"sensitivity": "secret"}),
        ("policy.router", "preferred", {"simple": "big"}, {"simple": "big"}),
        ("policy.router", "preferred", {"Mary Jones": "big"}, None),
        ("promotion.opened", "settings", {"alpha": 0.05, "min_pairs": 9, "latency_slo_ms": None},
         {"alpha": "0.05", "min_pairs": 9}),
        ("promotion.opened", "settings", {"fdr": True}, None),
        ("training.ordered", "settings", {"enabled": True, "rank": 8, "dropout": 0.1}, {"enabled": True, "rank": 8, "dropout": "0.1"}),
        ("promotion.opened", "settings", {"win_by": "quality,cost", "stages": "0.2,0.5"},
         {"win_by": "quality,cost", "stages": "0.2,0.5"}),
        ("promotion.opened", "settings", {"win_by": "My card"}, None),
        ("training.completed", "metrics", {"accuracy": 0.5}, {"accuracy": "0.5"}),
        ("trust.changed", "after", "SHADOW, 40 % certified, gated", "SHADOW, 40 % certified, gated"),
        ("trust.changed", "after", "GRANTED >= 0.3", "GRANTED >= 0.3"),
        ("trust.changed", "after", "GRANTED to Mary", None),
        ("export.made", "manifest", "ab" * 32, "ab" * 32),
        ("export.made", "manifest", "AB" * 32, None),
        ("export.made", "kind", "half", None),
    ],
)  # fmt: skip
def test_a_value_is_a_fact_by_its_kind(name: str, field: str, value: Any, fact: Any) -> None:
    """A value of its field's kind is copied in canonical form; any other is committed to, and nothing of it is shown."""
    entry = made(name, {"tenant": "acme", field: value})
    assert entry["facts"].get(field) == fact
    assert type(entry["facts"].get(field)) is type(fact)
    if field not in TABLE[name].commits:
        assert (field in entry["commit"]) == (fact is None)


def test_what_says_nothing_is_neither_fact_nor_commitment() -> None:
    """None and the empty string leave no trace of their own."""
    entry = made("case.closed", {"tenant": "acme", "experiment": "", "score": None, "verdict_kind": "", "label": ""})
    assert set(entry["facts"]) == {"bytes"}
    assert set(entry["commit"]) == {"value", "key"} - {"key" if "key" in entry else ""}


def test_the_first_parts_are_shown_and_all_are_counted() -> None:
    """Of a list of parts that is too long the first 64 are shown; a list in which something is no part is committed to."""
    arms = [{"arm": f"a{number}", "adapter": None, "propensity": 1} for number in range(70)]
    entry = made("decision.routed", {"tenant": "acme", "arms": arms})
    assert entry["facts"]["arms"] == [{"arm": f"a{number}", "propensity": 1} for number in range(64)]
    assert entry["facts"]["arms_count"] == 70
    entry = made("decision.routed", {"tenant": "acme", "arms": [*arms[:2], "Mary Jones"]})
    assert "arms" in entry["commit"]
    assert "arms" not in entry["facts"]


def everywhere(name: str, canary: str) -> list[dict[str, Any]]:
    """The canary as every field, and inside lists, maps and every part of every field."""
    row, fields = TABLE[name], [field for field in REGISTRY[name].model_fields if field != "at_ms"]
    shapes: list[Any] = [
        canary,
        [canary],
        {canary: canary},
        [{canary: canary, "arm": canary}],
        {"arm": canary},
        [[canary]],
    ]
    found = [dict.fromkeys(fields, shape) for shape in shapes]
    parts = {field: dict.fromkeys(part_of(name, field).model_fields, canary) for field in row.parts}
    refs = [dict.fromkeys(("kind", "name", "version", "id"), canary)]
    listed = {field: [part, {one: [canary] for one in part}] for field, part in parts.items()}
    return [*found, parts, {**listed, "policies": refs}, {canary: canary}]


@pytest.mark.parametrize("canary", CANARIES)
def test_no_canary_in_any_entry(canary: str) -> None:
    """E-mails, telephone, card and social security numbers, addresses, names and text, as each field of each type, as record key, in

    headers and as a dead letter: no entry holds them.
    """
    headers = dict.fromkeys(HEADERS, canary)
    for name in TABLE:
        for payload in everywhere(name, canary):
            entry = made(name, payload, key=canary.encode(), **headers)
            assert canary not in json.dumps(entry, ensure_ascii=False), name
    told: dict[str, Any] = dict.fromkeys((*HEADERS, *LETTER), canary)
    letter = made("case.closed", {"tenant": canary}, topic="ratchet.cases.dlq", **told)
    assert canary not in json.dumps(letter, ensure_ascii=False)


def opened(raw: Record, entry: Any) -> None:
    """Every commitment of an entry is that to the record's own text, under the key that is revealed for it."""
    payload = None if "undecodable" in entry["facts"] else json.loads(raw.value or b"null")
    for name, said in entry["commit"].items():
        field = {"request": "request_id", "policy": "policies"}.get(name, name)
        if name == "value":
            data = raw.value or b""
        elif isinstance(payload, dict) and field in payload and name != "key":
            data = record.committed_bytes(payload[field])
        else:
            continue
        assert hmac.digest(record.opening(KEY, entry["id"], name), data, "sha256").hex() == said
        assert said == record.commitment(KEY, entry["id"], name, data)


def test_recorded_entries_keep_to_the_schema() -> None:
    """The entry of every record of a real log is as its schema says, shows no text, and its commitments open."""
    Draft202012Validator.check_schema(SCHEMA)
    seen: set[str] = set()
    for raw in LOG:
        entry = canonical.decode(record.Draft(raw).build(KEY, KEY))
        assert isinstance(entry, dict)
        seen.add(str(entry["type"]))
        assert against_schema(entry) == [], raw.place
        if not raw.topic.endswith(".dlq") and entry["type"] != "unknown":
            opened(raw, entry)
    assert seen >= set(TABLE)


def test_real_facts_are_facts() -> None:
    """Nothing that the table calls a fact is committed to in a real log, but for ids of arenas made up by hand."""
    for raw in LOG:
        entry: Any = canonical.decode(record.Draft(raw).build(KEY, KEY))
        row = TABLE.get(entry["type"])
        lost = set(entry["commit"]) & row.plain - set(row.commits) if row else set[str]()
        assert lost <= {"arena"}, (entry["type"], lost)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [*CANARIES, "arm-1", "release", "sha256:" + "0f" * 32, "7c2dda03-747f-55de-b2ae-28eb0bdecfe9", 0.5, 7]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["arm", "name", "version", "propensity", "x y", *CANARIES]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(TABLE)), st.data(), st.integers(-(2**63), 2**63 - 1))
def test_any_record_has_a_canonical_entry(name: str, data: st.DataObject, at_ms: int) -> None:
    """Valid or garbage, a record gives RFC 8785's own bytes, the same again, within the schema, without a canary; commitments open."""
    real = [raw for raw in LOG if dict(raw.headers).get("ce_type") == f"ratchet.{name}.v1".encode()]
    payload: dict[str, Any] = json.loads(
        data.draw(st.sampled_from(real)).value or b"{}" if data.draw(st.booleans()) else b"{}"
    )
    payload |= data.draw(st.dictionaries(st.sampled_from(sorted(REGISTRY[name].model_fields)), values, max_size=6))
    headers = (("ce_id", data.draw(st.text(max_size=9)).encode()), ("ce_type", f"ratchet.{name}.v1".encode()))
    raw = Record("ratchet.cases", 0, 1, data.draw(st.binary(max_size=9)), json.dumps(payload).encode(), headers, at_ms)
    built = record.Draft(raw).build(KEY, KEY)
    entry: Any = json.loads(built)
    assert rfc8785.dumps(entry) == built
    assert record.Draft(raw).build(KEY, KEY) == built
    assert against_schema(entry) == []
    text = json.dumps(entry, ensure_ascii=False)
    assert not [canary for canary in CANARIES if canary in text]
    if not entry["facts"].keys() & {"too_deep", "undecodable"}:
        commits = list(entry["commit"].values())
        assert len(set(commits)) == len(commits), "equal texts have other commitments"
