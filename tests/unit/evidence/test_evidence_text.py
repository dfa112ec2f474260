"""No free text of the gate's, of incidents', erasures' and observations' events in an entry: over all that their models let in."""

import json
import re
from typing import Any

import pytest
from generated import payloads
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from recorded_events import AT_MS, complete, uuid

from agents.evidence import entries, record
from agents.evidence.table import TABLE
from schemas import codec, compliance, events
from schemas.compliance import Cut, Horizons
from schemas.gate import GateTenant
from schemas.payload import REGISTRY, Payload
from streams.shapes import Record

KEY = b"k" * 32
SCHEMA = Draft202012Validator(entries.document())
MARK = "Mary was here"
GATED = ("decision.routed", "answer.released", "answer.withheld", "answer.refused")
NEW = sorted(
    {name for name in TABLE if REGISTRY[name].__module__ == compliance.__name__}
    | {*GATED, "export.made", "request.submitted"}
)
FREE = st.text(max_size=12).map(lambda text: f"{MARK} {text}")
DIGESTS = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)


def entry_of(name: str, value: bytes, key: bytes = b"acme") -> dict[str, Any]:
    headers = (("ce_id", b"event-1"), ("ce_type", f"ratchet.{name}.v1".encode()))
    built = record.Draft(Record("ratchet.observations", 0, 1, key, value, headers, AT_MS)).build(KEY, KEY)
    return json.loads(built)


@given(st.sampled_from(NEW), st.data())
def test_no_free_text_of_any_event(name: str, data: st.DataObject) -> None:
    """Whatever a model's text fields, lists and maps hold: the entry has none of it, keeps to its schema, and commits to the record."""
    payload = data.draw(payloads(REGISTRY[name], FREE))
    entry = entry_of(name, json.dumps(payload).encode())
    assert MARK not in json.dumps(entry)
    assert [error.message for error in SCHEMA.iter_errors(entry)] == []  # pyright: ignore[reportUnknownMemberType]
    assert "value" in entry["commit"]


@given(st.sampled_from(NEW), st.data())
def test_no_one_s_number_where_an_id_may_stand(name: str, data: st.DataObject) -> None:
    """People put telephone and card numbers into ids: none of seven digits or more enters, in whatever field has a pattern."""
    number = data.draw(st.from_regex(r"[0-9]{7,16}", fullmatch=True))

    def pattern(text: str) -> st.SearchStrategy[str]:
        return st.just(number) if re.fullmatch(text, number) else st.from_regex(text, fullmatch=True)

    entry = entry_of(
        name,
        json.dumps(data.draw(payloads(REGISTRY[name], st.just(number), pattern=pattern))).encode(),
        number.encode(),
    )
    del entry["commit"], entry["facts"]["bytes"]
    assert number not in {*_strings(entry)}


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in (name, *_strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


STEP: dict[str, Any] = {
    "incident": "v-17", "aware_at_ms": AT_MS, "notify_by_ms": AT_MS + 1, "personal_data": True, "high_risk": True, "by": "ann",
}  # fmt: skip
ASKED = {name: item for name, item in STEP.items() if name not in ("by", "notify_by_ms")}
CUT = (Cut(partition=0, offset=7), Cut(partition=1, offset=0))
RECEIPT: dict[str, Any] = {"erasure": uuid("command"), "subject": "0f" * 16}
GATE = events.GateSeen(
    action="mask", rules=("gdpr-9", "hipaa-164.514.b.2", "gate-no-arm"), exemptions=("ex-1",), rules_digest=DIGESTS[0], tenant_version=3,
    purpose="support", legal_basis="legitimate_interest", origin="eu-central", registered=True,
    found={"email": 2, "icd10": 1, "sex_life": 0}, masked=("email", "icd10"), scan="late",
)  # fmt: skip
ROOT = "a" * 64
REAL: dict[str, dict[str, Any]] = {
    **{name: {"gate": GATE} for name in GATED},
    **{name: STEP for name in NEW if name.startswith("incident.")},
    "command.tenant": {"operator": "ann", "settings": GateTenant(tenant="acme")},
    "command.incident": {**ASKED, "operator": "ann", "step": "notify", "notice": compliance.Notice(nature=True)},
    "command.erase": {"operator": "ann"},
    "command.forget": {**RECEIPT, "cut": CUT},
    "policy.gate": {"version": 2, "settings": GateTenant(tenant="acme"), "author": "ann"},
    "incident.detected": {
        **STEP, "violation": "offset-gap", "controls": ("hipaa-164.312.b", "aiact-26.6"), "log_index": 9,
    },
    "incident.notified": {**STEP, "late": True, "missing": ("delay_reason",)},
    "incident.refused": {**STEP, "step": "close", "state": "assessed"},
    "subject.erased": {
        **RECEIPT, "keys": 1, "epoch": 1, "cut": CUT, "hold_checked": True, "effective_at_ms": AT_MS, "by": "ann",
        "horizons": Horizons(backup_ms=1), "routes": ("banking",),
    },
    "subject.kept": {
        **RECEIPT, "reason": "settings", "holds": ("case-2026-7",), "settings": ("max_compaction_lag_ms", "policy_gate"),
    },
    "adapter.marked": {
        **RECEIPT, "adapter": DIGESTS[0], "dataset": DIGESTS[1], "order_id": uuid("order"), "rows": 3, "ordered": True,
    },
    "access.checked": {"check": "role", "what": "wrong-kafka-user", "passed": True, "by": "ann"},
    "config.observed": {"what": "kafka-tls", "passed": True, "by": "ann"},
    "drill.completed": {"kind": "restore", "size": 9, "root": ROOT, "restored": ROOT, "passed": True, "by": "ann"},
    "deid.applied": {
        "order_id": uuid("order"), "dataset": DIGESTS[1], "classes": 16, "unsupported": ("names", "other-numbers"), "rows": 3,
    },
    "export.made": {"manifest": ROOT, "kind": "subject", "files": 3, "entries": 7, "expected": 7, "by": "ann"},
    "request.submitted": {
        "purpose": "support", "legal_basis": "contract", "origin": "eu-central", "classes": ("religion",), "notice": "n-1",
        "messages": (events.Message(role="user", content="why?"),),
    },
}  # fmt: skip


def real(name: str) -> Payload:
    model = REGISTRY[name]
    about = {
        "route": "banking",
        "request_id": "q",
        "request_partition": 0,
        "request_offset": 0,
        "at_ms": AT_MS,
        "tenant": "acme",
    }
    return complete(
        model, **{field: value for field, value in about.items() if field in model.model_fields}, **REAL[name]
    )


@pytest.mark.parametrize("name", NEW)
def test_what_an_agent_says_is_a_fact(name: str) -> None:
    """Of an event as it is really written nothing that the table calls a fact is lost to a commitment, in parts of it neither."""
    payload = real(name)
    made = codec.encode(payload, event_id="event-1", source="ratchet/test", traceparent="")
    entry, row = entry_of(name, made.value, made.key), TABLE[name]
    said = json.loads(made.value)
    for field in set(REAL[name]) & row.plain:
        shown = entry["facts"][field]
        if field in row.parts:
            parts = said[field] if isinstance(said[field], list) else [said[field]]
            assert (shown if isinstance(shown, list) else [shown]) == [_said(part, row.parts[field]) for part in parts]
        else:
            assert shown == said[field]
        assert field not in entry["commit"] or field in row.commits
    assert all(re.fullmatch(r"[0-9a-f]{32}", entry["facts"][field]) for field in row.people if said.get(field))


def _said(part: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: part[name] for name in fields if part[name] not in ("", None)}


@pytest.mark.parametrize("model", [compliance.CommandIncident, compliance.IncidentDetected])
@pytest.mark.parametrize("name", ["20261122", "2026-11-22", "4111111111111111", "a b"])
def test_an_incident_s_id_stands_in_the_log(model: type[Payload], name: str) -> None:
    """One that could be a number of somebody's is refused at once: in an entry it would only be committed to."""
    with pytest.raises(ValidationError, match="incident"):
        complete(model, at_ms=AT_MS, incident=name, operator="ann", step="detect", aware_at_ms=AT_MS)
    made = complete(model, at_ms=AT_MS, incident="breach-2026-11-22", operator="ann", step="detect", aware_at_ms=AT_MS)
    entry = entry_of(model.TYPE, made.model_dump_json().encode())
    assert entry["facts"]["incident"] == "breach-2026-11-22"


@pytest.mark.parametrize(
    "said",
    [{"purposes": {"care2": ("consent",)}}, {"purposes": {"care": ("basis7",)}}, {"purpose": "Care"}, {"basis": "6b"}],
)
def test_purposes_and_bases_stand_in_the_log(said: dict[str, Any]) -> None:
    """A tenant's configuration takes no name that an entry would not show: the controls read it there."""
    with pytest.raises(ValidationError, match=next(iter(said))):
        GateTenant.model_validate({"tenant": "acme", **said})
