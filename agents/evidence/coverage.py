"""Which offsets the log covers. Pure.

Per partition and incarnation every offset, from the first to the frontier, is an entry or a skip with its reason, once. A batch of
reads becomes entries, findings, and last the `coverage` entries that say so; a log's frontiers are read from these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from agents.evidence.ports import Frontier, Gap, Last, Read, Source
from agents.evidence.record import Draft
from agents.evidence.violations import with_violation
from schemas import canonical, topics
from schemas.tlog.tiles import MAX_ENTRY
from streams.shapes import Record

COVERAGE = "coverage"
FINDING = "finding"
FULL_EVERY = 65_536
"""After so many entries a coverage names every partition, so that a resume reads back no further."""
KINDS = frozenset({"marker", "aborted", "compacted", "lost", "unknown", "before-first-read"})
FINDINGS = {"unknown": "offset-gap", "lost": "range-lost", "before-first-read": "range-unread"}
_NONE: Mapping[str, Any] = {}
_RECORD: Mapping[str, Any] = {"full": False}
_OPENING = b'{"full":'  # of coverage entries alone: keys are sorted
_MAX_SKIPS = 256
_ROOM = MAX_ENTRY - 8192
_FIRST = Frontier(0, 0)
_COMPACTED = topics.compacted()


@dataclass(slots=True)
class _Span:
    """What one coverage entry says of one partition. `before`: how far another log had been read in its place."""

    inc: int
    start: int
    next: int
    last: Last | None
    before: int | None = None
    entries: int = 0
    skips: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    newest: Record | None = None

    def frontier(self) -> Frontier:
        if self.newest is not None:
            self.last = Last(self.newest.offset, self.newest.timestamp_ms, Draft(self.newest).id)
            self.newest = None
        return Frontier(self.inc, self.next, self.last)


@dataclass(slots=True)
class Batch:
    """Reads on their way to one checkpoint. `frontiers` stays: the caller takes `next` once the batch is signed."""

    frontiers: Mapping[Source, Frontier]
    records: list[tuple[Record, int]] = field(default_factory=list[tuple[Record, int]])
    """What becomes an entry, in the order read, each with the incarnation of its partition at that place."""
    spans: dict[Source, list[_Span]] = field(default_factory=dict[Source, list[_Span]])
    """Per partition what is covered, each going on where the former ends or, at a reset, at offset 0. Empty: nothing to record."""

    def add(self, read: Read) -> None:
        """Take a read. Below the frontier it is a duplicate and falls silently; what is left out becomes a skip."""
        source = (read.topic, read.partition)
        spans = self.spans.get(source)
        span = spans[-1] if spans is not None else self._untouched(source)
        if isinstance(read, Record):
            first = last = read.offset
        elif isinstance(read, Gap):
            first, last = read.first, read.last
        else:
            at = span.frontier()
            self.spans.setdefault(source, []).append(_Span(at.inc + 1, 0, 0, None, at.next))
            return
        if last < span.next:
            return
        fresh = spans is None
        if fresh:
            self.spans[source] = [span]
        if first > span.next:
            unread = fresh and source not in self.frontiers
            span = self._skip(source, first - 1, "before-first-read" if unread else "unknown")
        if isinstance(read, Gap):
            self._skip(source, last, _named(read))
            return
        span.entries += 1
        span.next, span.newest = last + 1, read
        self.records.append((read, span.inc))

    def _untouched(self, source: Source) -> _Span:
        """A span in which nothing lies yet."""
        at = self.frontiers.get(source, _FIRST)
        return _Span(at.inc, at.next, at.next, at.last)

    def _skip(self, source: Source, last: int, kind: str) -> _Span:
        """Leave out what lies from the frontier to `last`. The span that goes on behind it."""
        span = self.spans[source][-1]
        if span.skips and span.skips[-1][1] == span.next - 1 and span.skips[-1][2] == kind:
            span.skips[-1] = (span.skips[-1][0], last, kind)
        else:
            if len(span.skips) == _MAX_SKIPS:
                at = span.frontier()
                span = _Span(at.inc, at.next, at.next, at.last)
                self.spans[source].append(span)
            span.skips.append((span.next, last, kind))
        span.next = last + 1
        return span

    def next(self) -> dict[Source, Frontier]:
        """The frontiers after this batch."""
        return dict(self.frontiers) | {source: spans[-1].frontier() for source, spans in self.spans.items()}

    def closing(self, tags: Mapping[str, int], *, full: bool) -> list[bytes]:
        """Findings with their violations, and coverage entries, to stand after the records.

        `tags`: how many of the records each tenant's tag has. `full` names every known partition.
        """
        spans = dict(self.spans)
        if full:
            spans = {source: [self._untouched(source)] for source in self.frontiers} | spans
        ordered = sorted(spans.items())
        found = [finding for source, parts in ordered for span in parts for finding in _findings(source, span)]
        return found + _packed([(source, span) for source, parts in ordered for span in parts], tags, full=full)


def frontiers(newest_first: Iterable[bytes]) -> dict[Source, Frontier]:
    """The frontiers that a log's entries, given from the newest back, say. Reads no further than it must."""
    found: dict[Source, Frontier] = {}
    whole = False
    for data in newest_first:
        entry = cast("Mapping[str, Any]", canonical.decode(data)) if data.startswith(_OPENING) else _RECORD
        if whole and not entry["full"]:
            break
        whole = whole or bool(entry["full"])
        for place, span in cast("Mapping[str, Mapping[str, Any]]", entry.get("partitions", _NONE)).items():
            topic, _, partition = place.rpartition("/")
            found.setdefault((topic, int(partition)), Frontier(span["inc"], span["next"], _last(span.get("last"))))
    return found


def _last(told: tuple[int, int | str, str] | None) -> Last | None:
    return None if told is None else Last(told[0], int(told[1]), told[2])


def _named(gap: Gap) -> str:
    """The kind of a gap as the log says it; what is no kind of ours is `unknown`, and so a finding."""
    if gap.kind == "compacted" and gap.topic not in _COMPACTED:
        return "unknown"
    return gap.kind if gap.kind in KINDS else "unknown"


def _findings(source: Source, span: _Span) -> Iterable[bytes]:
    told = [("source-reset", 0, span.before)] if span.before is not None else []
    told += [(FINDINGS[kind], first, last) for first, last, kind in span.skips if kind in FINDINGS]
    for kind, first, last in told:
        yield from with_violation(kind, _finding(kind, source, span.inc, first, last))


def finding(kind: str, record: Record, inc: int) -> bytes:
    """A finding about one record."""
    return _finding(kind, (record.topic, record.partition), inc, record.offset, record.offset)


def _finding(kind: str, source: Source, inc: int, first: int, last: int) -> bytes:
    place: Mapping[str, canonical.Json] = {"topic": source[0], "partition": source[1], "inc": inc}
    return canonical.encode({"v": 1, "type": FINDING, "kind": kind, "src": place, "from": first, "to": last})


def _piece(span: _Span) -> dict[str, Any]:
    last = span.frontier().last
    told = {"last": [last.offset, _integer(last.broker_ms), last.id]} if last is not None else {}
    skips = [list(skip) for skip in span.skips]
    return {"inc": span.inc, "from": span.start, "next": span.next, "entries": span.entries, "skips": skips} | told


def _integer(value: int) -> int | str:
    """As an entry writes it: a string beyond what canonical integers reach."""
    return value if -canonical.MAX_INT <= value <= canonical.MAX_INT else str(value)


def _packed(spans: Iterable[tuple[Source, _Span]], tags: Mapping[str, int], *, full: bool) -> list[bytes]:
    """As few coverage entries as fit: the tags, then the partitions, whose spans follow each other in order, one per entry."""
    packed: list[tuple[dict[str, Any], dict[str, int]]] = [({}, {})]
    left = _ROOM
    for tag, count in sorted(tags.items()):
        left -= len(tag) + 24
        if left < 0:
            packed.append(({}, {}))
            left = _ROOM - len(tag) - 24
        packed[-1][1][tag] = count
    for (topic, partition), span in spans:
        place, piece = f"{topic}/{partition}", _piece(span)
        size = len(canonical.encode(piece)) + len(place) + 4
        left -= size
        if place in packed[-1][0] or left < 0:
            packed.append(({}, {}))
            left = _ROOM - size
        packed[-1][0][place] = piece
    return [
        canonical.encode({"v": 1, "type": COVERAGE, "full": full, "partitions": partitions, "tenants": tenants})
        for partitions, tenants in packed
    ]
