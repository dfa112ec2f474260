"""What an entry of a record may hold, as JSON Schema for auditors: made of the same kinds that write the entries. Pure.

The collector's own entries (`coverage`, `finding`, `violation`, `trust`) are of no record and are not described here.
"""

from agents.evidence.facts import COUNT, DEFINED, MAX_ITEMS, NAME, TOKEN, Document, described
from agents.evidence.record import NOBODY, fields_of, references
from agents.evidence.table import TABLE
from schemas.payload import TOPIC_PATTERN

ID = "urn:ratchet:schema:evidence-entry:v1"
_HEX16, _HEX32 = {"type": "string", "pattern": "^[0-9a-f]{32}$"}, {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = COUNT.document
_TRUE = {"const": True}
_CODE = {"type": "string", "pattern": "^[a-z][a-z0-9._-]{0,79}$"}
_OF_EVERY = {"bytes": _COUNT} | dict.fromkeys(("tombstone", "undecodable", "too_deep", "facts_too_large"), _TRUE)
_DEAD_LETTER = {
    "topic": _CODE,
    "agent": _CODE,
    "kind": _CODE,
    "partition": _COUNT,
    "offset": _COUNT,
    "of": {"enum": [*TABLE]},
}


def document() -> Document:
    """The schema: an envelope, and the facts by type. What it does not name stands in no entry."""
    properties: Document = {
        "v": {"const": 1},
        "id": {"type": "string", "maxLength": 300, "description": "The event's, else the record's place."},
        "type": {"enum": [*TABLE, "dead-letter", "unknown"]},
        "time": {"type": "string", "format": "date-time"},
        "src": {
            "type": "object",
            "properties": {
                "topic": {"type": "string", "pattern": TOPIC_PATTERN},
                "partition": _COUNT,
                "inc": _COUNT | {"description": "Incarnation of the topic's partition."},
                "offset": _COUNT,
                "broker_ms": {
                    "type": ["integer", "string"],
                    "pattern": "^-?[0-9]{16,19}$",
                    "description": "When the broker says it took the record.",
                },
            },
            "required": ["topic", "partition", "inc", "offset", "broker_ms"],
            "additionalProperties": False,
        },
        "tenant": NAME.document | {"description": f"{NOBODY!r} where none can be told."},
        "route": NAME.document,
        "request": NAME.document,
        "key": TOKEN.document | {"description": "The record's, where it is none of the above."},
        "cause": TOKEN.document,
        "cause_at": {"type": "string", "maxLength": 120, "description": "Place of the record that caused it."},
        "actor": {"anyOf": [TOKEN.document, _HEX16], "description": "The agent, or a person's pseudonym."},
        "subject": _HEX16 | {"description": "Pseudonym of whose data it is."},
        "policy": {"type": "array", "items": described(references()), "maxItems": MAX_ITEMS},
        "facts": {"type": "object"},
        "commit": {"type": "object", "propertyNames": {"pattern": "^[a-z_]{1,40}$"}, "additionalProperties": _HEX32},
        "retention": {"enum": ["time", "compact", "long"]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "ratchet.evidence-entry.v1",
        "description": "An entry of the evidence log about a record, as canonical JSON (RFC 8785). Texts stand in it as commitments only.",
        "type": "object",
        "properties": properties,
        "required": ["v", "id", "type", "src", "tenant", "facts", "commit", "retention"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}},
                "then": {"properties": {"facts": _facts(name)}},
            }
            for name in (*TABLE, "dead-letter", "unknown")
        ],
        "$defs": DEFINED,
    }


def _facts(name: str) -> Document:
    if name == "unknown":
        found: Document = {}
    elif name == "dead-letter":
        found = _DEAD_LETTER
    else:
        row = TABLE[name]
        found = described(fields_of(name))["properties"] | dict.fromkeys(row.people, _HEX16)
        found |= {f"{field}_count": _COUNT for field in sorted(row.lists)}
    return {"type": "object", "properties": found | _OF_EVERY, "additionalProperties": False}
