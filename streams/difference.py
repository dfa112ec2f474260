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


@dataclass(frozen=True, slots=True)
class Given:
    """One record that the replay gave, and when. Those of one `line` must lie in this order."""

    sent: Sent
    line: str
    at_ms: int


@dataclass(slots=True)
class Rederived:
    """What one agent's replay gave. `covered`: the places replayed; `outside`: those of them that are not compared."""

    agent: str
    excluded: frozenset[str] = frozenset()
    given: list[Given] = field(default_factory=list[Given])
    covered: set[str] = field(default_factory=set[str])
    outside: set[str] = field(default_factory=set[str])
    notes: Counter[str] = field(default_factory=Counter[str])  # what was taken as recorded or left out, and how often
    until_ms: dict[int, int] = field(default_factory=dict[int, int])  # by partition: the last transaction of a Fold
    found: list[Difference] = field(default_factory=list[Difference])
    keys: int = 0  # of state, compared
    hash: Any = field(default_factory=hashlib.sha256)

    def give(self, sent: Iterable[Sent], line: str, at_ms: int) -> None:
        """`at_ms`: when the broker got what it follows from."""
        for row in sent:
            self.given.append(Given(row, line, at_ms))
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
    return said.get("ce_source", b"").decode("utf-8", "replace").removeprefix("ratchet/") if AT in said else ""


def agrees(sent: Sequence[Sent], recorded: Sequence[Record], excluded: frozenset[str]) -> bool:
    """Whether these are the same records, in any order."""
    left = Counter(_bytes(row.topic, row.partition, row.record, excluded) for row in sent)
    return left == Counter(_bytes(row.topic, row.partition, row, excluded) for row in recorded)


def _kept_all(topic: str, partition: int, at_ms: int) -> bool:
    return False


def compare(gave: Rederived, recorded: Iterable[Record], gone: Gone = _kept_all) -> list[Difference]:
    """All differences between a replay and what its agent has written. `gone`: what has been removed since is not missed."""
    pairs, missing, extra = _matched(gave, list(recorded))
    found = list(gave.found)
    last: dict[tuple[str, str, int], int] = {}
    for given, record in pairs:
        if cause_at(given.sent.topic, given.sent.record.headers) in gave.outside:
            continue
        fields = tuple(_fields(given.sent, record, gave.excluded))
        if fields:
            found.append(_difference(gave.agent, "changed", record, fields))
        at = (given.line, record.topic, record.partition)
        if given.line and record.offset < last.get(at, -1):
            found.append(_difference(gave.agent, "order", record, (Field("offset", record.offset, f"> {last[at]}"),)))
        last[at] = max(record.offset, last.get(at, -1))
    for given in missing:
        sent = given.sent
        if gone(sent.topic, sent.partition, given.at_ms):
            gave.notes["outputs that retention or compaction has removed: not compared"] += 1
        elif cause_at(sent.topic, sent.record.headers) not in gave.outside:
            found.append(_difference(gave.agent, "missing", sent))
    found += [_difference(gave.agent, "extra", record) for record in extra if _expected(gave, record)]
    return found


def _expected(gave: Rederived, record: Record) -> bool:
    """Whether the replay should have given a record that it did not give."""
    cause = cause_at(record.topic, record.headers)
    if cause not in gave.covered or cause in gave.outside:
        return False
    if not is_letter(record.topic):
        return True
    until_ms = gave.until_ms.get(record.partition)  # a Fold may give up a record long after it took it
    return dict(record.headers).get("ratchet-dlq-kind") != SKIPPED.encode() and (
        until_ms is None or record.timestamp_ms <= until_ms
    )


def _matched(gave: Rederived, recorded: list[Record]) -> tuple[list[tuple[Given, Record]], list[Given], list[Record]]:
    """Pairs of what is the same output: by its id, else by its cause and type."""
    held: dict[str, list[Record]] = {}
    for record in recorded:
        held.setdefault(_identity(record.topic, record.headers), []).append(record)
    pairs: list[tuple[Given, Record]] = []
    alone: list[Given] = []
    for given in gave.given:
        rows = held.get(_identity(given.sent.topic, given.sent.record.headers))
        if not rows:
            alone.append(given)
            continue
        mine = _bytes(given.sent.topic, given.sent.partition, given.sent.record, gave.excluded)
        at = cause_at(given.sent.topic, given.sent.record.headers)
        same = [row for row in rows if _bytes(row.topic, row.partition, row, gave.excluded) == mine]
        near = [row for row in rows if cause_at(row.topic, row.headers) == at]
        chosen = (same or near or rows)[0]
        rows.remove(chosen)
        pairs.append((given, chosen))
    left: dict[tuple[str, str], list[Record]] = {}
    for rows in held.values():
        for row in rows:
            left.setdefault((cause_at(row.topic, row.headers), row.topic + _type(row.headers)), []).append(row)
    missing: list[Given] = []
    for given in alone:
        topic, headers = given.sent.topic, given.sent.record.headers
        rows = left.get((cause_at(topic, headers), topic + _type(headers)))
        if rows:
            pairs.append((given, rows.pop(0)))
        else:
            missing.append(given)
    return pairs, missing, [row for rows in left.values() for row in rows]


def _identity(topic: str, headers: Headers) -> str:
    return cause_at(topic, headers) if is_letter(topic) else _said(headers, "ce_id")


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
