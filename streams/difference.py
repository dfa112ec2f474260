"""What a replay gave against what the log holds: matched record by record, told field by field. Pure.

Compared are partition, key, value and headers, byte for byte, and that outputs of one lane lie in the order in which they were
given. Record timestamps and offsets are the broker's.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from streams.letters import FROM
from streams.port import Outgoing
from streams.shapes import Headers, Record
from streams.wire import Sent

# Headers that a Transform stamps from outside the log, and why they cannot be derived. A Fold has none: its times are its events'.
EXCLUDED: Mapping[str, str] = {
    "ratchet-dlq-at": "the wall clock when a Transform gave a record up",
    "ratchet-dlq-attempts": "how often a Transform tried: tries are not in the log",
}
ABSENT = "(absent)"
Gone = Callable[[str, int, int], bool]
"""Whether a record that was written into (topic, partition) at a time may have been removed since."""
AT = "ratchet-at"
SKIPPED = "skipped"  # a dead letter by an operator's hand
SHOWN = 1000
INTERNAL = (".deferred", ".state", ".order")  # of a deferred record the headers are those of its source


def _kept_all(topic: str, partition: int, at_ms: int) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Field:
    """One field that differs. `path`: `partition`, `key`, `header ce_time`, `value.arms[0].propensity` …"""

    path: str
    recorded: Any
    derived: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """`kind`: changed, missing (from the log), extra (in the log), order, fact (recorded, but impossible), state.

    `cause` is the place of the event that the output follows from, `place` the recorded output's.
    """

    agent: str
    kind: str
    cause: str
    place: str
    type: str
    id: str
    fields: tuple[Field, ...] = ()


@dataclass(slots=True)
class Rederived:
    """What one agent's replay gave and how it differs: compared event by event, so that memory holds figures, not records."""

    agent: str
    excluded: frozenset[str] = frozenset()
    gone: Gone = _kept_all
    events: int = 0  # compared
    records: int = 0  # given
    keys: int = 0  # of state, compared
    notes: Counter[str] = field(default_factory=Counter[str])  # what was taken as recorded or left out, and how often
    found: list[Difference] = field(default_factory=list[Difference])  # the first SHOWN of them
    kinds: Counter[str] = field(default_factory=Counter[str])  # all differences, by kind
    hash: Any = field(default_factory=hashlib.sha256)
    _last: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])

    def differ(self, difference: Difference) -> None:
        self.kinds[difference.kind] += 1
        if len(self.found) < SHOWN:
            self.found.append(difference)

    def compare(self, sent: Sequence[Sent], recorded: Sequence[Record], line: str, at_ms: int) -> None:
        """What one event gave against what the log holds of it. `at_ms`: when the broker got the event.

        What is given one after the other on one `line` must lie in this order, "" is no line.
        """
        pairs, missing, extra = _matched(sent, recorded, self.excluded)
        for row, record in pairs:
            fields = tuple(_fields(row, record, self.excluded))
            if fields:
                self.differ(_difference(self.agent, "changed", record, fields))
            at = (line, record.topic, record.partition)
            last = self._last.get(at, -1)
            if line and record.offset < last:
                self.differ(_difference(self.agent, "order", record, (Field("offset", record.offset, f"> {last}"),)))
            if line:
                self._last[at] = max(record.offset, last)
        for row in missing:
            if self.gone(row.topic, row.partition, at_ms):
                self.notes["outputs that retention or compaction has removed: not compared"] += 1
            else:
                self.differ(_difference(self.agent, "missing", row))
        for record in extra:
            self.unexpected(record)

    def unexpected(self, record: Record) -> None:
        """The log holds an output that the replay did not give. An operator's skip is none of the agent's."""
        if _said(record.headers, "ratchet-dlq-kind") != SKIPPED:
            self.differ(_difference(self.agent, "extra", record))

    def count(self, sent: Iterable[Sent]) -> None:
        """Add to the figures what was given, compared or not."""
        for row in sent:
            self.records += 1
            headers = _kept(row.record.headers, self.excluded)
            self.hash.update(repr((row.topic, row.partition, row.record.key, row.record.value, headers)).encode())


def is_letter(topic: str) -> bool:
    return topic.endswith(".dlq")


def cause_at(topic: str, headers: Headers) -> str:
    """The place that an output names as its cause: of a dead letter, the place of the record it was."""
    said = {name: value.decode("utf-8", "replace") for name, value in headers}
    if not is_letter(topic):
        return said.get(AT, "")
    return f"{said.get('ratchet-dlq-topic')}[{said.get('ratchet-dlq-partition')}]@{said.get('ratchet-dlq-offset')}"


def written_by(record: Record) -> str:
    """The agent whose output a record is, "" where it is nobody's (facts of an agent have no cause and do not count)."""
    said = dict(record.headers)
    if is_letter(record.topic):
        return said.get("ratchet-dlq-agent", b"").decode("utf-8", "replace")
    if record.topic.endswith(INTERNAL) or FROM in said:  # what an operator sent back is nobody's output
        return ""
    return said.get("ce_source", b"").decode("utf-8", "replace").removeprefix("ratchet/") if AT in said else ""


def agrees(sent: Sequence[Sent], recorded: Sequence[Record], excluded: frozenset[str]) -> bool:
    """Whether these are the same records, in any order."""
    left = Counter(_bytes(row.topic, row.partition, row.record, excluded) for row in sent)
    return left == Counter(_bytes(row.topic, row.partition, row, excluded) for row in recorded)


def _matched(
    sent: Sequence[Sent], recorded: Sequence[Record], excluded: frozenset[str]
) -> tuple[list[tuple[Sent, Record]], list[Sent], list[Record]]:
    """Pairs of what is the same output: by its bytes, else its id, else its type."""
    pairs: list[tuple[Sent, Record]] = []
    ours, theirs = list(sent), list(recorded)
    for sameness in (_bytes_of(excluded), _identity, _kind):
        held: dict[Any, list[Record]] = {}
        for record in theirs:
            held.setdefault(sameness(record.topic, record.partition, record), []).append(record)
        alone: list[Sent] = []
        for row in ours:
            rows = held.get(sameness(row.topic, row.partition, row.record))
            if rows:
                pairs.append((row, rows.pop(0)))
            else:
                alone.append(row)
        ours, theirs = alone, [record for rows in held.values() for record in rows]
    order = {id(row): i for i, row in enumerate(sent)}
    return sorted(pairs, key=lambda pair: order[id(pair[0])]), ours, theirs


def _bytes_of(excluded: frozenset[str]) -> Callable[[str, int, Record | Outgoing], Any]:
    return lambda topic, partition, row: _bytes(topic, partition, row, excluded)


def _identity(topic: str, partition: int, row: Record | Outgoing) -> Any:
    return cause_at(topic, row.headers) if is_letter(topic) else _said(row.headers, "ce_id")


def _kind(topic: str, partition: int, row: Record | Outgoing) -> Any:
    return topic, _type(row.headers)


def _said(headers: Headers, name: str) -> str:
    return dict(headers).get(name, b"").decode("utf-8", "replace")


def _type(headers: Headers) -> str:
    return _said(headers, "ce_type").removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)


def _kept(headers: Headers, excluded: frozenset[str]) -> Headers:
    return tuple(row for row in headers if row[0] not in excluded) if excluded else headers


def _bytes(topic: str, partition: int, row: Record | Outgoing, excluded: frozenset[str]) -> tuple[Any, ...]:
    return topic, partition, row.key, row.value, _kept(row.headers, excluded)


def _difference(agent: str, kind: str, row: Record | Sent, fields: tuple[Field, ...] = ()) -> Difference:
    place = str(row.place) if isinstance(row, Record) else f"{row.topic}[{row.partition}]"
    headers = row.headers if isinstance(row, Record) else row.record.headers
    if not fields:
        shown = f"partition {row.partition}, {_text(row.value if isinstance(row, Record) else row.record.value)}"
        fields = (Field("record", shown, ABSENT) if kind == "extra" else Field("record", ABSENT, shown),)
    kind_of = f"dead letter of {_type(headers) or 'no type'}" if is_letter(row.topic) else _type(headers)
    return Difference(agent, kind, cause_at(row.topic, headers), place, kind_of, _said(headers, "ce_id"), fields)


def _fields(sent: Sent, record: Record, excluded: frozenset[str]) -> Iterator[Field]:
    ours = sent.record
    if sent.topic != record.topic:
        yield Field("topic", record.topic, sent.topic)
    if sent.partition != record.partition:
        yield Field("partition", record.partition, sent.partition)
    if ours.key != record.key:
        yield Field("key", _text(record.key), _text(ours.key))
    yield from _headers(_kept(record.headers, excluded), _kept(ours.headers, excluded))
    yield from values(record.value, ours.value)


def _headers(recorded: Headers, derived: Headers) -> Iterator[Field]:
    if recorded == derived:
        return
    theirs, ours = dict(recorded), dict(derived)
    quiet = True
    for name in dict.fromkeys((*theirs, *ours)):
        if theirs.get(name) != ours.get(name):
            quiet = False
            yield Field(f"header {name}", _header(theirs, name), _header(ours, name))
    if quiet:
        yield Field("headers", [name for name, _ in recorded], [name for name, _ in derived])


def _header(headers: Mapping[str, bytes], name: str) -> str:
    return _text(headers[name]) if name in headers else ABSENT


def values(recorded: bytes | None, derived: bytes | None) -> Iterator[Field]:
    """The fields of two JSON values that differ; the whole bytes where that does not tell."""
    if recorded == derived:
        return
    try:
        there, here = cast("object", json.loads(recorded or b"")), cast("object", json.loads(derived or b""))
        told = list(_walk("value", there, here))
    except ValueError:
        told = []
    if told:
        yield from told
    else:
        yield Field("value bytes", _text(recorded), _text(derived))


def _walk(path: str, recorded: object, derived: object) -> Iterator[Field]:
    same = recorded == derived and type(recorded) is type(derived)
    if isinstance(recorded, dict) and isinstance(derived, dict):
        theirs, ours = cast("dict[str, Any]", recorded), cast("dict[str, Any]", derived)
        for name in dict.fromkeys((*theirs, *ours)):
            yield from _walk(f"{path}.{name}", theirs.get(name, ABSENT), ours.get(name, ABSENT))
    elif isinstance(recorded, list) and isinstance(derived, list):
        rows, own = cast("list[Any]", recorded), cast("list[Any]", derived)
        for i in range(max(len(rows), len(own))):
            there, here = (one[i] if i < len(one) else ABSENT for one in (rows, own))
            yield from _walk(f"{path}[{i}]", there, here)
    elif not same:
        yield Field(path, recorded, derived)


def _text(data: bytes | None) -> str:
    return ABSENT if data is None else data.decode("utf-8", "backslashreplace")
