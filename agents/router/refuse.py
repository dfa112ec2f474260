"""What a sender is told whose request is not taken: the field, the reason, and what would be accepted. Never a payload's text."""

import json
import re
from collections.abc import Mapping
from typing import cast

from schemas.errors import Refused
from schemas.events import PURPOSE_PATTERN, AnswerRefused, GateSeen, RequestSubmitted
from schemas.payload import ID_PATTERN
from schemas.policies import PolicyRef
from streams.shapes import Emit, Event, Record

ID = re.compile(ID_PATTERN)

ACCEPTED = {
    "tenant": f"a string matching {ID_PATTERN}",
    "at_ms": "an integer, Unix epoch milliseconds, from 0",
    "route": f"the name of an applied route, matching {ID_PATTERN}",
    "request_id": f"a string matching {ID_PATTERN}, equal to the record key",
    "messages": "a list of 1 to 64 objects {role: system, user or assistant; content: a string that is not empty}",
    "session_id": f"null or a string matching {ID_PATTERN}",
    "subject": f"null or a string matching {ID_PATTERN}",
    "deadline_ms": "null or an integer from 1, counted from at_ms",
    "sensitivity": "null, public, internal, personal or secret",
    "needs": "a list of at most 16 names of capabilities",
    "purpose": f"null or a name matching {PURPOSE_PATTERN}",
    "legal_basis": f"null or a name matching {PURPOSE_PATTERN}",
    "notice": f"null or a string matching {ID_PATTERN}",
    "origin": f"null or a name matching {PURPOSE_PATTERN}",
    "classes": f"a list of at most 16 names matching {PURPOSE_PATTERN}",
    "ce_type": RequestSubmitted.ce_type(),
    "value": "a JSON object in UTF-8",
}


def refusal(
    event: Event[RequestSubmitted],
    now_ms: int,
    kind: str,
    field: str,
    reason: str,
    accepted: str,
    request_id: str | None = None,
    policies: tuple[PolicyRef, ...] = (),
    retry_after_ms: int | None = None,
    masked: Mapping[str, tuple[str, ...]] | None = None,
    gate: GateSeen | None = None,
    subject: str | None = None,
) -> Emit:
    """`answer.refused` to a decoded request. `subject`: the pseudonym."""
    payload = AnswerRefused(
        tenant=event.data.tenant,
        at_ms=now_ms,
        route=event.data.route,
        request_id=event.data.request_id if request_id is None else request_id,
        kind=kind,
        field=field,
        reason=reason,
        accepted=accepted,
        request_partition=event.place.partition,
        request_offset=event.place.offset,
        policies=policies,
        retry_after_ms=retry_after_ms,
        masks=dict(masked or {}),
        gate=gate,
        subject=subject,
    )
    return Emit(payload, "refused")


def undecodable(record: Record, error: Exception) -> Emit | None:
    """`answer.refused` for JSON under a usable id that is no valid request; None where there is nobody to answer."""
    key, said = _text(record.key), _json(record.value)
    if key is None or not ID.fullmatch(key) or said is None:
        return None
    fields: Mapping[str, object] = cast("dict[str, object]", said) if isinstance(said, dict) else {}
    refused = error if isinstance(error, Refused) else Refused(str(error))
    field = refused.field or "value"
    payload = AnswerRefused(
        tenant=_id_or(fields.get("tenant"), "default"),
        at_ms=max(record.timestamp_ms, 0),
        route=_id_or(fields.get("route"), ""),
        request_id=key,
        kind=refused.kind,
        field=field,
        reason=str(refused).removeprefix(f"{field}: ").removesuffix(f"; accepted: {refused.accepted}"),
        accepted=accepted_at(field) if refused.kind == "invalid" else refused.accepted or accepted_at(field),
        request_partition=record.partition,
        request_offset=record.offset,
    )
    return Emit(payload, "refused")


def accepted_at(field: str) -> str:
    """What a request's field (a path, `messages.0.role`) may hold; for an unknown field, which ones there are."""
    known = ACCEPTED.get(field.split(".", 1)[0])
    return known or "only the fields " + ", ".join(sorted(RequestSubmitted.model_fields))


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _json(data: bytes | None) -> object:
    try:
        return None if data is None else cast("object", json.loads(data.decode()))
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None


def _id_or(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) and ID.fullmatch(value) else otherwise
