"""From a Kafka record to one log entry. Pure: a rebuild of the log gives the same bytes.

Rules:
1. No free text and no plain personal data. What the table does not name is not copied.
2. A value becomes a fact only where it is of its field's kind (`facts`). Else it is committed to.
3. Text is committed to with HMAC-SHA-256 under a key of its own (event and field): equal texts differ, and opening one
   opens no other. A bare hash would be a dictionary.
4. People are pseudonyms under the tenant's key.
5. Nothing of our clock enters.
"""

import hmac
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import orjson
from pydantic_core import SchemaValidator

from agents.evidence.facts import MAX_ITEMS, NAME, Kind, is_token, kinds, listed, parts, reader
from agents.evidence.keytable import Wanted, request_place
from agents.evidence.table import STRINGS, TABLE, Row
from schemas import canonical, codec, topics
from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX, Payload
from schemas.policies import PolicyRef
from schemas.tlog.tiles import MAX_ENTRY
from streams.shapes import Record

_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})")
_PLACE = re.compile(r"[a-z.]{1,80}\[[0-9]{1,6}\]@[0-9]{1,18}")
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]+")
_WORD = re.compile(r"[a-z][a-z0-9._-]{0,79}")
_TYPES = {f"{TYPE_PREFIX}{name}{TYPE_SUFFIX}".encode(): name for name in TABLE}
_SORTED = orjson.OPT_SORT_KEYS
NOBODY = "unattributed"
"""The tenant of records of which none can be told."""


def pseudonym(key: bytes, label: str, identifier: str) -> str:
    """16 bytes of HMAC-SHA-256(key, label ‖ 0x1f ‖ identifier) as hex, as the router makes those of subjects."""
    return hmac.digest(key, f"{label}\x1f{identifier}".encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def opening(key: bytes, event_id: str, name: str) -> bytes:
    """The key of one commitment: HMAC-SHA-256(key, "commit" ‖ event id ‖ field). Revealed, it opens that one alone."""
    return hmac.digest(key, f"commit\x1f{event_id}\x1f{name}".encode("utf-8", "surrogatepass"), "sha256")


def commitment(key: bytes, event_id: str, name: str, data: bytes) -> str:
    """HMAC-SHA-256(k, data) as hex, with k = `opening(key, event_id, name)`."""
    return hmac.digest(opening(key, event_id, name), data, "sha256").hex()


def committed_bytes(value: Any) -> bytes:
    """What a commitment covers: a string's UTF-8, anything else that JSON can say as compact JSON with sorted keys."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value, option=_SORTED)


class Draft:
    """A record on its way to an entry. Ask `tenant`, then `build` with that tenant's keys.


    `inc`: the incarnation of the topic's partition that the record was read from.
    """

    def __init__(self, record: Record, inc: int = 0) -> None:
        self._record = record
        self._inc = inc
        self._headers = dict(reversed(record.headers))  # the first of equal names wins
        self._payload = _parse(record.value)
        self._type = _TYPES.get(self._headers.get("ce_type", b""), "")
        self._names: dict[str, Any] = _NAMES.validate_python(self._payload) if self._payload else {}
        self.tenant: str = self._names.get("tenant", self._unsaid_tenant())
        self._id = self._token("ce_id") or str(record.place)
        self._key = self._pseudonym_key = b""
        self._known: dict[str, Any] | None = None
        self._whose: tuple[bytes, str | None] | None = None
        self._commit: dict[str, str] = {}
        self.refused = ""
        """Once built: why the entry has no facts (`facts-too-large`, `too-deep`), for the collector's finding; else ""."""

    def _unsaid_tenant(self) -> str:
        """An event that leaves its tenant out is the default tenant's to every agent: its subject must have one key, and not two."""
        left_out = self._type and self._payload is not None and "tenant" not in self._payload
        return str(Payload.model_fields["tenant"].default) if left_out else NOBODY

    @property
    def id(self) -> str:
        """The entry's id: the event's own where it is a token, else the record's place."""
        return self._id

    def wanted(self, pseudonym_key: bytes) -> Wanted | None:
        """Whose key commits to the texts; None: the tenant's. As `wanted_of` says it of the entry."""
        subject = self._subject(pseudonym_key)
        if subject is None or self._payload is None or not self._payload.get("request_id"):
            return None
        letter = self._record.topic.endswith(".dlq")
        facts = self._letter_place() if letter else self._validated(self._payload) if self._type else {}
        record = self._record
        return Wanted(self.tenant, subject, request_place(record.topic, record.partition, record.offset, facts))

    def build(self, commitment_key: bytes, pseudonym_key: bytes) -> bytes:
        """The canonical entry. Never refuses a record: what cannot be read is committed to whole.

        Facts that do not fit are refused whole, never cut: the entry says `facts_too_large`.
        """
        self._key, self._pseudonym_key = commitment_key, pseudonym_key
        self._commit.clear()
        try:
            data = self._whole()
        except orjson.JSONEncodeError:  # nested deeper than any event is
            return self._envelope_only("too-deep")
        return data if len(data) <= MAX_ENTRY else self._envelope_only("facts-too-large")

    def _envelope_only(self, refused: str) -> bytes:
        self.refused = refused
        self._commit.clear()
        return self._finish(self._envelope(), {refused.replace("-", "_"): True})

    def _whole(self) -> bytes:
        facts: dict[str, Any] = {}
        entry = self._envelope()
        if self._record.topic.endswith(".dlq"):
            entry["type"] = "dead-letter"
            facts = self._dead_letter()
        elif self._type and self._payload is not None:
            facts = self._facts(TABLE[self._type], self._payload)
            if "operator" in facts or "by" in facts:
                entry["actor"] = facts.get("operator") or facts["by"]
        return self._finish(entry, facts)

    def _finish(self, entry: dict[str, Any], facts: dict[str, Any]) -> bytes:
        record = self._record
        if record.value is None:
            facts["tombstone"] = True
        else:
            facts["bytes"] = len(record.value)
            self._committed("value", record.value)
            if self._payload is None:
                facts["undecodable"] = True
        entry["facts"] = facts
        entry["commit"] = self._commit
        # Sorted orjson is JCS here: keys are ASCII, kinds leave no float, no large integer, no odd string.
        return orjson.dumps(entry, option=_SORTED)

    def _envelope(self) -> dict[str, Any]:
        record = self._record
        entry: dict[str, Any] = {
            "v": 1,
            "id": self._id,
            "type": self._type or "unknown",
            "src": {
                "topic": record.topic,
                "partition": record.partition,
                "inc": self._inc,
                "offset": record.offset,
                "broker_ms": _milliseconds(record.timestamp_ms),
            },
            "tenant": self.tenant,
            "retention": _retention(record.topic),
        }
        self._of_headers(entry)
        if self._payload:
            self._of_payload(entry, self._payload)
        self._record_key(entry)
        return entry

    def _of_headers(self, entry: dict[str, Any]) -> None:
        time = self._text("ce_time")
        if time is not None and _INSTANT.fullmatch(time):
            entry["time"] = time
        identity = self._text("ce_id")
        if identity is not None and identity != self._id:
            self._committed("ce_id", identity)
        if not self._type and (kind := self._text("ce_type")) is not None:
            self._committed("ce_type", kind)
        cause, at = self._token("ratchet-cause"), self._text("ratchet-at")
        if cause:
            entry["cause"] = cause
        if at is not None and _PLACE.fullmatch(at):
            entry["cause_at"] = at
        source = self._token("ce_source")
        if source and source.startswith("ratchet/"):
            entry["actor"] = source

    def _of_payload(self, entry: dict[str, Any], payload: Mapping[str, Any]) -> None:
        for name, field in (("route", "route"), ("request", "request_id"), ("policy", "policies")):
            if field in self._names:
                entry[name] = self._names[field][:MAX_ITEMS]
            elif value := payload.get(field):
                self._committed(name, value)
        subject = self._subject(self._pseudonym_key)
        if subject is not None:
            entry["subject"] = subject

    def _subject(self, pseudonym_key: bytes) -> str | None:
        if self._whose is None or self._whose[0] != pseudonym_key:
            subject = self._payload.get("subject") if self._payload else None
            if not isinstance(subject, str) or not subject:
                subject = None
            elif self._type == "request.submitted" or not _PSEUDONYM.fullmatch(subject):
                subject = pseudonym(pseudonym_key, "subject", subject)
            self._whose = pseudonym_key, subject
        return self._whose[1]

    def _record_key(self, entry: dict[str, Any]) -> None:
        """The key in plain where the entry does not say it yet and it is a token; else committed to."""
        data = self._record.key
        if data is None:
            return
        try:
            key = data.decode()
        except UnicodeDecodeError:
            self._committed("key", data)
            return
        if key in (entry.get("route"), entry.get("request"), self.tenant):
            return
        if is_token(key):
            entry["key"] = key
        else:
            self._committed("key", key)

    def _facts(self, row: Row, payload: Mapping[str, Any]) -> dict[str, Any]:
        facts = self._validated(payload)
        for name in row.plain - facts.keys():
            value = payload.get(name)
            if value is not None and value != "":
                self._committed(name, value)
        for name in row.lists:
            items = payload.get(name)
            if isinstance(items, list):
                count = len(cast("list[Any]", items))
                if name in row.counts or count > MAX_ITEMS:
                    facts[f"{name}_count"] = count
                if count > MAX_ITEMS and name in facts:
                    facts[name] = facts[name][:MAX_ITEMS]
        for name in row.commits:
            value = payload.get(name)
            if value is not None and value != "":
                self._committed(name, value)
        for name in row.people:
            value = payload.get(name)
            if isinstance(value, str) and value:
                facts[name] = pseudonym(self._pseudonym_key, "person", value)
        return facts

    def _validated(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """What the table copies, of its kind. Lists of it may be cut by who asked."""
        known = self._known
        if known is None:
            known = self._known = dict[str, Any](_reader(self._type).validate_python(payload))
        return known.copy()

    def _dead_letter(self) -> dict[str, Any]:
        """Source place and error kind; the record itself is only committed to."""
        facts = self._letter_place()
        if self._type:
            facts["of"] = self._type
        message = self._text("ratchet-dlq-message")
        if message:
            self._committed("message", message)
        return facts

    def _letter_place(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for name in ("topic", "agent", "kind"):
            text = self._text(f"ratchet-dlq-{name}")
            if text is not None and _WORD.fullmatch(text):
                facts[name] = text
        for name, digits in (("partition", 6), ("offset", 15)):
            text = self._text(f"ratchet-dlq-{name}")
            if text is not None and len(text) <= digits and _NUMBER.fullmatch(text):
                facts[name] = int(text)
        return facts

    def _committed(self, name: str, value: Any) -> None:
        data = value if isinstance(value, bytes) else committed_bytes(value)
        self._commit[name] = commitment(self._key, self._id, name, data)

    def _text(self, header: str) -> str | None:
        data = self._headers.get(header)
        return None if data is None else data.decode("utf-8", "replace")

    def _token(self, header: str) -> str | None:
        text = self._text(header)
        return text if text is not None and is_token(text) else None


def fields_of(name: str) -> dict[str, Kind]:
    """The kinds of an event type's facts, those of people left out. TypeError where the table names what has none."""
    row, model = TABLE[name], codec.payload_class(f"{TYPE_PREFIX}{name}{TYPE_SUFFIX}")
    return kinds(model, row.facts, STRINGS) | parts(model, row.parts, STRINGS)


def references() -> dict[str, Kind]:
    """The kinds of a reference to a policy."""
    return kinds(PolicyRef, tuple(PolicyRef.model_fields), STRINGS)


@cache
def _reader(name: str) -> SchemaValidator:
    return reader(fields_of(name))


_NAMES = reader({"tenant": NAME, "route": NAME, "request_id": NAME, "policies": listed(references())})


def _parse(value: bytes | None) -> Mapping[str, Any] | None:
    if value is None:
        return None
    try:
        parsed: Any = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return cast("Mapping[str, Any]", parsed) if isinstance(parsed, dict) else None


@cache
def _retention(topic: str) -> str:
    row = topics.BY_NAME.get(topic.removeprefix(topics.PREFIX).removesuffix(".dlq"))
    if row is None or (topic.endswith(".dlq") and row.kept == "compact"):
        return "time"
    return row.kept


def _milliseconds(at_ms: int) -> int | str:
    """What a broker says can be any 64 bits; JSON's integers end at 2^53."""
    return at_ms if -canonical.MAX_INT <= at_ms <= canonical.MAX_INT else str(at_ms)
