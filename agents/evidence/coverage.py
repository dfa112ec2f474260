"""Which offsets the log covers. Pure.

Per partition every offset, from the first to the frontier, is an entry or a skip with its reason, once. A batch of
reads becomes entries, findings, and last the `coverage` entries that say so; a log's frontiers are read from these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agents.evidence.ports import Gap, Read, Source
from schemas import canonical, topics
from schemas.tlog.tiles import MAX_ENTRY
from streams.shapes import Record

COVERAGE = "coverage"
FINDING = "finding"
FULL_EVERY = 65_536
"""After so many entries a coverage names every partition, so that a resume reads back no further."""
_NONE: Mapping[str, Any] = {}
_RECORD: Mapping[str, Any] = {"full": False}
_OPENING = b'{"full":'  # of coverage entries alone: keys are sorted
_MAX_SKIPS = 256
_MAX_TENANTS = 256
_ROOM = MAX_ENTRY - 8192
_FINDINGS = {"unknown": "offset-gap", "lost": "range-lost", "before-first-read": "range-unread"}


@dataclass(slots=True)
class _Span:
    """What one batch covers of one partition."""

    start: int
    next: int
    entries: int = 0
    skips: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])


@dataclass(slots=True)
class Batch:
    """Reads on their way to one checkpoint. `frontiers` stays: the caller takes `next` once the batch is signed."""

    frontiers: Mapping[Source, int]
    records: list[Record] = field(default_factory=list[Record])
    spans: dict[Source, _Span] = field(default_factory=dict[Source, _Span])

    def add(self, read: Read) -> None:
        """Take a read. Below the frontier it is a duplicate and falls silently; what is missing becomes a skip."""
        source = (read.topic, read.partition)
        known = self.spans.get(source)
        frontier = known.next if known is not None else self.frontiers.get(source, 0)
        first, last = (read.first, read.last) if isinstance(read, Gap) else (read.offset, read.offset)
        if last < frontier:
            return
        span = known or self.spans.setdefault(source, _Span(frontier, frontier))
        if first > frontier:
            fresh = known is None and source not in self.frontiers
            span.skips.append((frontier, first - 1, "before-first-read" if fresh else _missing(read.topic)))
        if isinstance(read, Gap):
            span.skips.append((max(first, frontier), last, _named(read)))
        else:
            span.entries += 1
            self.records.append(read)
        span.next = last + 1

    def next(self) -> dict[Source, int]:
        """The frontiers after this batch."""
        return dict(self.frontiers) | {source: span.next for source, span in self.spans.items()}

    def closing(self, tenants: Mapping[str, int], *, full: bool) -> list[bytes]:
        """Findings and coverage entries, to stand after the records. `full` names every known partition."""
        spans = dict(self.spans)
        if full:
            for source, frontier in self.frontiers.items():
                spans.setdefault(source, _Span(frontier, frontier))
        findings = [
            canonical.encode(
                {"v": 1, "type": FINDING, "kind": _FINDINGS[kind], "src": _src(source), "from": first, "to": last}
            )
            for source, span in sorted(self.spans.items())
            for first, last, kind in span.skips
            if kind in _FINDINGS
        ]
        return findings + _pack(spans, tenants, full=full)


def frontiers(newest_first: Iterable[bytes]) -> dict[Source, int]:
    """The frontiers that a log's entries, given from the newest back, say. Reads no further than it must."""
    found: dict[Source, int] = {}
    whole = False
    for data in newest_first:
        entry = cast("Mapping[str, Any]", canonical.decode(data)) if data.startswith(_OPENING) else _RECORD
        if whole and not entry["full"]:
            break
        whole = whole or bool(entry["full"])
        for place, span in cast("Mapping[str, Mapping[str, int]]", entry.get("partitions", _NONE)).items():
            topic, _, partition = place.rpartition("/")
            found.setdefault((topic, int(partition)), span["next"])
    return found


def _named(gap: Gap) -> str:
    """The kind of a gap as the log says it; what is no kind of ours is `unknown`, and so a finding."""
    if gap.kind == "marker-or-aborted":
        return _missing(gap.topic)
    return gap.kind if gap.kind in ("marker", "aborted", "lost") else "unknown"


def _missing(topic: str) -> str:
    """What a client cannot tell apart: control markers, aborted records, on compacted topics the compacted."""
    row = topics.BY_NAME.get(topic.removeprefix(topics.PREFIX))
    compacted = row is not None and row.kept == "compact"
    return "marker-aborted-or-compacted" if compacted else "marker-or-aborted"


def _src(source: Source) -> dict[str, canonical.Json]:
    return {"topic": source[0], "partition": source[1], "inc": 0}


def _pieces(span: _Span) -> Iterable[dict[str, Any]]:
    """A span in pieces of at most `_MAX_SKIPS` skips: each piece covers its own range whole."""
    start = span.start
    chunks: Sequence[list[tuple[int, int, str]]] = [
        span.skips[at : at + _MAX_SKIPS] for at in range(0, len(span.skips), _MAX_SKIPS)
    ] or [[]]
    for number, skips in enumerate(chunks):
        end = span.next if number == len(chunks) - 1 else skips[-1][1] + 1
        skipped = sum(last - first + 1 for first, last, _ in skips)
        yield {
            "inc": 0,
            "from": start,
            "next": end,
            "entries": end - start - skipped,
            "skips": [list(skip) for skip in skips],
        }
        start = end


def _counted(tenants: Mapping[str, int]) -> dict[str, int]:
    """Entries per tenant; of more tenants than an entry holds, the largest, the others together under `~others`."""
    ordered = sorted(tenants.items(), key=lambda item: (-item[1], item[0]))
    others = sum(count for _, count in ordered[_MAX_TENANTS:])
    return dict(ordered[:_MAX_TENANTS]) | ({"~others": others} if others else {})


def _pack(spans: Mapping[Source, _Span], tenants: Mapping[str, int], *, full: bool) -> list[bytes]:
    """As few coverage entries as fit. A partition's pieces follow each other in order, one per entry."""
    packed: list[dict[str, Any]] = [{}]
    counts = _counted(tenants)
    sizes = [sum(len(tenant) + 16 for tenant in counts)]
    for (topic, partition), span in sorted(spans.items()):
        place = f"{topic}/{partition}"
        for piece in _pieces(span):
            size = len(canonical.encode(piece)) + len(place) + 4
            if place in packed[-1] or sizes[-1] + size > _ROOM:
                packed.append({})
                sizes.append(0)
            packed[-1][place] = piece
            sizes[-1] += size
    return [
        canonical.encode(
            {
                "v": 1,
                "type": COVERAGE,
                "full": full,
                "partitions": partitions,
                "tenants": counts if number == 0 else {},
            }
        )
        for number, partitions in enumerate(packed)
    ]
