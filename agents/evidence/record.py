"""From a Kafka record to one log entry. Pure: a rebuild of the log gives the same bytes.

Rules:
1. No free text and no plain personal data. What the table does not name is not copied.
2. A string becomes a fact only as a token (`TOKEN`): no spaces, no @, no mere row of digits. Else it is committed to.
3. Text is committed to with HMAC-SHA-256 under a key of its own (event and field): equal texts differ, and opening one
   opens no other. A bare hash would be a dictionary.
4. People are pseudonyms under the tenant's key.
5. Nothing of our clock enters.
"""

import hmac
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from schemas import canonical, topics
from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from schemas.tlog.tiles import MAX_ENTRY
from streams.shapes import Record

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}")
_DIGITS = re.compile(r"\+?[0-9][0-9 ./:+-]{5,}[0-9]")  # a telephone or card number is a token, too
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})")
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_MAX_ITEMS = 64
NOBODY = "unattributed"
"""The tenant of records that name none."""


@dataclass(frozen=True, slots=True)
class Row:
    """What may be copied of one event type.

    `facts`: numbers, booleans, enums, ids, and flat lists and maps of them. `parts`: the same inside a list of objects.
    `commits`: texts. `people`: identifiers of persons, written as pseudonyms. `counts`: lists whose length is said.
    """

    facts: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


_AT = ("request_partition", "request_offset", "request_at_ms")
_SPAN = ("assigned_at_ms", "window_end_ms")
_RESULT = (*_AT, *_SPAN, "arm", "adapter", "shadow", "final", "attempt", "decision_id", "latency_ms", "instance")
_CHOICES = ("arm", "adapter", "propensity", "masks")
_CASE_ARM = (
    "arm", "adapter", "shadow", "status", "result_id", "grade", "model_grade", "latency_us", "ttft_us", "tokens_in",
    "tokens_out", "cost_nano_usd", "source",
)  # fmt: skip
_CASE = (*_AT, *_SPAN, "decision_id", "arm", "drawn", "experiment", "arenas")
_LIVE = ("arm", "adapter", "instance", "replica")
_CLOSED = Row(
    (*_CASE, "why", "grader", "human_share", "human_sampled", "verdict_kind", "verdict_after_score", "verdict_at_ms",
     "score", "z", "scorer", "signals", "certified", "action", "sampled", "label_propensity", "settled",
     "strategy", "attempt", "source", "cost_nano_usd"),
    ("messages", "label", "routing", "session", "escalated"),
    ("verdict_by", "model_by"),
    parts={"arms": _CASE_ARM, "choices": _CHOICES},
)  # fmt: skip
_ARENA = ("arena", "champion", "challenger", "adapter")
_POLICY_ARM = ("arm", "base", "adapter", "temperature", "max_tokens")
_COMMAND = Row((), ("reason",), ("operator",))
_RECORD = ("agent", "topic", "partition")
_LETTER = (*_RECORD, "offset", "letter_topic", "letter_partition", "letter_offset")

TABLE: Mapping[str, Row] = {
    "request.submitted": Row(("deadline_ms", "sensitivity", "needs"), ("messages", "session_id"), counts=("messages",)),
    "decision.routed": Row(
        (*_AT, *_SPAN, "arm", "chain", "shadows", "second_arm", "strategy", "draw", "experiment", "bucket",
         "rollout_bp", "shadow_probability", "attempt", "deadline_at_ms", "grader", "human_share", "double_share", "arenas",
         "session_arm", "store_seen", "code", "cache_key", "hedges", "kept_result"),
        ("messages", "draw_identity", "session", "routing", "cached"),
        counts=("messages",),
        parts={"arms": _CHOICES},
    ),
    "shadow.ordered": Row((*_AT, *_SPAN, "arm", "decision_id", "deadline_at_ms"), ("messages",)),
    "result.completed": Row(
        (*_RESULT, "tokens_in", "tokens_out", "ttft_ms", "engine_ms", "finish_reason", "engine", "replica", "agreement",
         "source", "cached_tokens", "cost_nano_usd"), ("text",)
    ),
    "result.failed": Row((*_RESULT, "kind"), ("reason",)),
    "score.assigned": Row(
        (*_AT, *_SPAN, "arm", "shadow", "decision_id", "result_id", "failed", "action", "score", "z", "signals",
         "scorer", "threshold", "certified", "review", "sampled", "label_propensity", "gated", "attempt", "result_partition",
         "result_offset"),
    ),
    "answer.released": Row(
        (*_AT, "arm", "score", "certified", "reviewed", "decision_id", "result_id", "latency_ms"), ("text",)
    ),
    "answer.withheld": Row((*_AT, "reason", "decision_id"), ("detail",)),
    "answer.refused": Row(("request_partition", "request_offset", "kind", "retry_after_ms"), ("field", "reason", "accepted")),
    "review.requested": Row(
        (*_AT, "grader", "gated", "due_ms", "people", "double"), ("messages", "answers"), counts=("answers",)
    ),
    "review.settled": Row(
        (*_AT, "outcome", "reason", "arm", "result_id", "decision_id", "score"), ("text", "detail")
    ),
    "verdict.given": Row(
        ("kind", "seconds_spent"), ("corrected",), ("by",), parts={"answers": ("label", "decision", "rating")}
    ),
    "case.answered": Row((*_CASE, "ok", "latency_us", "tokens_out", "released", "shadows", "source",
                                    "cost_nano_usd", "strategy", "lost"), ("reason",)),
    "case.closed": _CLOSED,
    "case.amended": Row(
        (*_CLOSED.facts, "amends", "contradicts", "same_person"), _CLOSED.commits, _CLOSED.people, parts=_CLOSED.parts
    ),
    "policy.route": Row(("version",), ("settings",), ("author",)),
    "policy.fleet": Row(
        ("version", "champion", "challenger", "rollback", "rollout_bp", "shadow_bp", "experiment", "shadows", "loaded",
         "arenas", "paused"),
        ("reason",),
        parts={"arms": _POLICY_ARM},
    ),
    "policy.trust": Row(
        ("version", "scorer", "signals", "weights", "center", "scale", "bias", "platt_a", "platt_b",
         "threshold", "mode", "labels", "arm", "tau", "rung", "certified", "floor", "gate", "counted", "drilled", "kappa"),
        (),
        ("granted_by",),
    ),
    "policy.live": Row(
        ("version", "instance", "until_ms"),
        parts={"arms": ("route", "arm", "adapter", "replicas", "in_flight", "cap", "open_until_ms"),
               "breakers": ("route", "arm", "engine", "state", "until_ms")},
    ),
    "policy.router": Row(
        ("version", "champion", "basis", "dims", "factors", "warm", "frozen", "guarded", "lambda_cost", "preferred",
         "generation", "labels", "cases", "code"),
        ("alarms",),
        parts={"arms": ("arm", "adapter", "labels", "cases", "mean", "tokens_in_milli", "tokens_out", "latency_ms",
                        "engine_ms")},
    ),
    "policy.capacity": Row(
        ("version", "window_s"),
        parts={"arms": ("arm", "adapter", "rate_milli", "tokens_s", "p95_ms", "busy_milli", "replicas", "warm")},
    ),
    "promotion.opened": Row((*_ARENA, "resumed", "settings")),
    "promotion.evaluated": Row(
        (*_ARENA, "pairs", "quality_pairs", "wins", "losses", "champion_grade", "challenger_grade", "conditions",
         "decision", "stage", "holdback", "late"),
        ("reason", "basis"),
        parts={"processes": ("name", "log_e", "max_log_e", "needed", "n", "estimate", "crossed", "mantissa", "exponent",
                             "peak")},
    ),
    "promotion.staged": Row((*_ARENA, "stage", "rollout_bp", "pairs"), ("reason",)),
    "promotion.approval_requested": Row((*_ARENA, "pairs", "log_e")),
    "promotion.rejected": Row((*_ARENA, "pairs", "log_e"), ("reason",)),
    "model.promoted": Row((*_ARENA, "pairs", "log_e", "fleet_version", "evaluation"), (), ("approved_by",)),
    "model.rolled_back": Row((*_ARENA, "fleet_version"), ("reason",), ("by",)),
    "trust.changed": Row(("before", "after", "refused"), ("reason",), ("by",)),
    "training.ordered": Row(
        ("order_id", "reason", "base", "champion", "parent_adapter", "cases_partition", "cases_first", "cases_last",
         "rows", "classes", "max_tokens", "settings", "attempt"),
        ("template", "stop"),
    ),
    "training.cancelled": Row(("order_id",), ("reason",), ("by",)),
    "training.progressed": Row(("order_id", "step", "steps", "epoch", "loss", "phase")),
    "training.completed": Row(
        ("order_id", "adapter", "tree", "dataset", "rows", "cutoff_ms", "seconds", "metrics", "energy_j",
         "energy_estimated")
    ),
    "training.failed": Row(("order_id", "metrics"), ("reason",)),
    "adapter.registered": Row(
        ("order_id", "adapter", "base", "parent", "dataset", "cutoff_ms", "metrics", "arm")
    ),
    "adapter.live": Row((*_LIVE, "load_ms")),
    "adapter.refused": Row(_LIVE, ("reason",)),
    "breaker.changed": Row(("arm", "engine", "instance", "before", "after", "until_ms", "calls", "failed")),
    "command.apply": Row((), ("reason", "settings"), ("operator",)),
    "command.promote": Row(("challenger",), ("reason",), ("operator",)),
    "command.reject": Row(("challenger",), ("reason",), ("operator",)),
    "command.rollback": _COMMAND,
    "command.pause": _COMMAND,
    "command.resume": _COMMAND,
    "command.trust": Row(("action", "threshold"), ("reason",), ("operator",)),
    "command.train": _COMMAND,
    "command.cancel": _COMMAND,
    "command.resend": Row((*_LETTER, "sent_id", "edited", "again"), ("reason",), ("operator",)),
    "command.discard": Row(_LETTER, ("reason",), ("operator",)),
    "command.skip": Row((*_RECORD, "offset"), ("reason",), ("operator",)),
    "command.offsets": Row((*_RECORD, "from_offset", "to_offset"), ("reason",), ("operator",)),
}  # fmt: skip


def pseudonym(key: bytes, label: str, identifier: str) -> str:
    """16 bytes of HMAC-SHA-256(key, label ‖ 0x1f ‖ identifier) as hex, as the router makes those of subjects."""
    return hmac.digest(key, f"{label}\x1f{identifier}".encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def commitment(key: bytes, event_id: str, name: str, data: bytes) -> str:
    """HMAC-SHA-256(k, data) as hex, with k = HMAC(key, "commit" ‖ event id ‖ field): reveal k to open it alone."""
    own = hmac.digest(key, f"commit\x1f{event_id}\x1f{name}".encode("utf-8", "surrogatepass"), "sha256")
    return hmac.digest(own, data, "sha256").hex()


def committed_bytes(value: Any) -> bytes:
    """What a commitment covers: a string's UTF-8, anything else as sorted compact JSON."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def is_token(value: str) -> bool:
    """Whether a string may stand in the log in plain."""
    return TOKEN.fullmatch(value) is not None and not (value[0].isdigit() and _DIGITS.fullmatch(value))


class Draft:
    """A record on its way to an entry. Ask `tenant`, then `build` with that tenant's keys."""

    def __init__(self, record: Record, inc: int = 0) -> None:
        self._record = record
        self._inc = inc
        self._headers = dict(reversed(record.headers))  # the first of equal names wins
        self._payload = _parse(record.value)
        self._type = self._event_type()
        tenant = self._payload.get("tenant") if self._payload else None
        self.tenant = tenant if isinstance(tenant, str) and is_token(tenant) else NOBODY
        self._id = self._token("ce_id") or str(record.place)
        self._key = self._pseudonym_key = b""
        self._commit: dict[str, str] = {}

    @property
    def id(self) -> str:
        """The entry's id: the event's own where it is a token, else the record's place."""
        return self._id

    def build(self, commitment_key: bytes, pseudonym_key: bytes) -> bytes:
        """The canonical entry. Never refuses a record: what cannot be read is committed to whole."""
        self._key, self._pseudonym_key = commitment_key, pseudonym_key
        self._commit.clear()
        try:
            data = self._whole()
        except RecursionError:  # nested deeper than any event is
            return self._envelope_only({"too_deep": True})
        return data if len(data) <= MAX_ENTRY else self._envelope_only({"facts_too_large": True})

    def _envelope_only(self, facts: dict[str, Any]) -> bytes:
        """For facts that do not fit: refused whole, never cut."""
        self._commit.clear()
        return self._finish(self._envelope(), facts)

    def _whole(self) -> bytes:
        facts: dict[str, Any] = {}
        entry = self._envelope()
        row = TABLE.get(self._type)
        if self._record.topic.endswith(".dlq"):
            entry["type"] = "dead-letter"
            facts = self._dead_letter()
        elif row is not None and self._payload is not None:
            facts = self._facts(row, self._payload)
            self._people(row, self._payload, entry, facts)
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
        # Sorted orjson is JCS here: keys are ASCII, `_scalar` leaves no float, no large integer, no odd string.
        return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)

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
                "broker_ms": _scalar(record.timestamp_ms),
            },
            "tenant": self.tenant,
            "retention": _retention(record.topic),
        }
        time = self._text("ce_time")
        if time is not None and _INSTANT.fullmatch(time):
            entry["time"] = time
        for name, raw in (("ce_id", self._text("ce_id")), ("ce_type", None if self._type else self._text("ce_type"))):
            if raw is not None and (name == "ce_type" or raw != self._id):
                self._committed(name, raw)
        cause, at = self._token("ratchet-cause"), self._text("ratchet-at")
        if cause:
            entry["cause"] = cause
        if at is not None and re.fullmatch(r"[a-z.]{1,80}\[[0-9]{1,6}\]@[0-9]{1,18}", at):
            entry["cause_at"] = at
        source = self._token("ce_source")
        if source and source.startswith("ratchet/"):
            entry["actor"] = source
        payload = self._payload or {}
        for name, field_name in (("route", "route"), ("request", "request_id")):
            value = payload.get(field_name)
            if isinstance(value, str) and value:
                self._plain(entry, name, value)
        self._record_key(entry)
        policies = payload.get("policies")
        if isinstance(policies, list):
            refs = [_part(item, ("kind", "name", "version", "id")) for item in cast("list[Any]", policies)[:_MAX_ITEMS]]
            entry["policy"] = [ref for ref in refs if ref]
        return entry

    def _record_key(self, entry: dict[str, Any]) -> None:
        """The key in plain where the entry does not say it yet and it is a token; else committed to."""
        if self._record.key is None:
            return
        try:
            key = self._record.key.decode()
        except UnicodeDecodeError:
            self._committed("key", self._record.key)
            return
        if key not in (entry.get("route"), entry.get("request"), self.tenant):
            self._plain(entry, "key", key)

    def _plain(self, entry: dict[str, Any], name: str, value: str) -> None:
        if is_token(value):
            entry[name] = value
        else:
            self._committed(name, value)

    def _facts(self, row: Row, payload: Mapping[str, Any]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for name in row.facts:
            value = payload.get(name)
            if value is None or value == "":
                continue
            fact = _fact(value)
            if fact is None:
                self._committed(name, value)
            else:
                facts[name] = fact
        for name, wanted in row.parts.items():
            items = payload.get(name)
            if isinstance(items, list):
                shown = cast("list[Any]", items)[:_MAX_ITEMS]
                facts[name] = [_part(item, wanted) for item in shown]
                if len(shown) < len(cast("list[Any]", items)):
                    facts[f"{name}_count"] = len(cast("list[Any]", items))
        for name in row.counts:
            items = payload.get(name)
            if isinstance(items, list):
                facts[f"{name}_count"] = len(cast("list[Any]", items))
        for name in row.commits:
            value = payload.get(name)
            if value is not None and value != "":
                self._committed(name, value)
        return facts

    def _people(self, row: Row, payload: Mapping[str, Any], entry: dict[str, Any], facts: dict[str, Any]) -> None:
        for name in row.people:
            value = payload.get(name)
            if isinstance(value, str) and value:
                facts[name] = pseudonym(self._pseudonym_key, "person", value)
        if "operator" in facts or "by" in facts:
            entry["actor"] = facts.get("operator") or facts["by"]
        subject = payload.get("subject")
        if isinstance(subject, str) and subject:
            known = self._type != "request.submitted" and _PSEUDONYM.fullmatch(subject)
            entry["subject"] = subject if known else pseudonym(self._pseudonym_key, "subject", subject)

    def _dead_letter(self) -> dict[str, Any]:
        """Source place and error kind; the record itself is only committed to."""
        facts: dict[str, Any] = {}
        for name in ("topic", "agent", "kind"):
            token = self._token(f"ratchet-dlq-{name}")
            if token:
                facts[name] = token
        for name in ("partition", "offset"):
            text = self._text(f"ratchet-dlq-{name}") or ""
            if re.fullmatch(r"[0-9]{1,15}", text):
                facts[name] = int(text)
        if self._type:
            facts["of"] = self._type
        message = self._text("ratchet-dlq-message")
        if message:
            self._committed("message", message)
        return facts

    def _committed(self, name: str, value: Any) -> None:
        data = value if isinstance(value, bytes) else committed_bytes(value)
        self._commit[name] = commitment(self._key, self._id, name, data)

    def _event_type(self) -> str:
        text = self._text("ce_type") or ""
        name = text.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)
        return name if name in TABLE and text == f"{TYPE_PREFIX}{name}{TYPE_SUFFIX}" else ""

    def _text(self, header: str) -> str | None:
        data = self._headers.get(header)
        if data is None:
            return None
        return data.decode("utf-8", "replace")

    def _token(self, header: str) -> str | None:
        text = self._text(header)
        return text if text is not None and is_token(text) else None


def _parse(value: bytes | None) -> Mapping[str, Any] | None:
    if value is None:
        return None
    try:
        parsed: Any = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return cast("Mapping[str, Any]", parsed) if isinstance(parsed, dict) else None


def _retention(topic: str) -> str:
    row = topics.BY_NAME.get(topic.removeprefix(topics.PREFIX).removesuffix(".dlq"))
    if row is None or (topic.endswith(".dlq") and row.kept == "compact"):
        return "time"
    return row.kept


def _scalar(value: Any) -> Any:
    """The canonical form of a number, boolean or token; None for anything else."""
    kind = cast("object", type(value))
    if kind is str:
        return value if is_token(value) else None
    if kind is bool:
        return value
    if kind is int:
        return value if -canonical.MAX_INT <= value <= canonical.MAX_INT else str(value)
    return canonical.decimal(value) if kind is float and math.isfinite(value) else None


def _fact(value: Any) -> Any:
    """The fact of a value: a scalar, a flat list, a flat map with token keys. None where anything in it is not one."""
    kind = cast("object", type(value))
    if kind is list:
        return _all(cast("list[Any]", value))
    if kind is dict:
        items = cast("dict[str, Any]", value)
        flat = _all([item for item in items.values() if item is not None])
        if flat is None or not all(is_token(name) for name in items):
            return None
        return {name: _scalar(item) for name, item in items.items() if item is not None}
    return _scalar(value)


def _all(values: Sequence[Any]) -> list[Any] | None:
    scalars = [_scalar(value) for value in values]
    return None if len(scalars) > _MAX_ITEMS or any(scalar is None for scalar in scalars) else scalars


def _part(item: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """The wanted facts of an object in a list; what is no fact is left out (the whole value is committed to)."""
    if not isinstance(item, dict):
        return {}
    values = cast("dict[str, Any]", item)
    found = {name: _fact(values[name]) for name in wanted if values.get(name) is not None}
    return {name: fact for name, fact in found.items() if fact is not None}
