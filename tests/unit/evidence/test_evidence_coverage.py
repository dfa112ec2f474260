"""Each offset once: as an entry or as a skip with its reason."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evidence import coverage
from agents.evidence.ports import Frontier, Gap, Last, Read, Reset, Source
from agents.evidence.record import Draft
from agents.evidence.violations import VIOLATES
from schemas import topics
from streams.memory import MemoryBroker
from streams.port import Outgoing
from streams.reader import EveryOffset
from streams.shapes import Record

TOPIC = "ratchet.results"
POLICIES = "ratchet.policies"
KEPT = {"offset-gap": "unknown", "range-lost": "lost", "range-unread": "before-first-read"}


def record(offset: int, topic: str = TOPIC, partition: int = 0) -> Record:
    return Record(topic, partition, offset, None, None, (("ce_id", b"e%d" % offset),), 1000 + offset)


def at(offset: int, inc: int = 0, topic: str = TOPIC) -> dict[Source, Frontier]:
    return {(topic, 0): Frontier(inc, offset)}


def fill(frontiers: Mapping[Source, Frontier], reads: Sequence[Read]) -> coverage.Batch:
    batch = coverage.Batch(frontiers)
    for read in reads:
        batch.add(read)
    return batch


def closing(
    batch: coverage.Batch, tags: Mapping[str, int] | None = None, *, full: bool = False
) -> list[dict[str, Any]]:
    """Findings and coverage entries; behind each finding stands its violation, and nowhere else is one."""
    rows = [json.loads(data) for data in batch.closing(tags or {}, full=full)]
    for at, row in enumerate(rows):
        behind = rows[at + 1] if at + 1 < len(rows) else {}
        told = {
            "v": 1,
            "type": "violation",
            "finding": row.get("kind"),
            "controls": [*VIOLATES.get(row.get("kind"), ())],
        }
        assert (behind == told) == (row["type"] == "finding"), row
    return [row for row in rows if row["type"] != "violation"]


def spans(batch: coverage.Batch, place: str = f"{TOPIC}/0") -> list[dict[str, Any]]:
    """What a batch's coverage entries say of a partition, in order."""
    rows = [row["partitions"] for row in closing(batch) if row["type"] == "coverage"]
    return [row[place] for row in rows if place in row]


@pytest.mark.parametrize("kind", ["marker", "aborted", "lost", "unknown"])
def test_a_gap_is_skipped_by_its_kind(kind: str) -> None:
    """Entries, what was skipped and why, where it ends, and the newest record of it."""
    batch = fill(at(5), [record(5), Gap(TOPIC, 0, 6, 7, kind), record(8)])
    told = {"inc": 0, "from": 5, "next": 9, "entries": 2, "skips": [[6, 7, kind]], "last": [8, 1008, "e8"]}
    assert spans(batch) == [told]


def test_what_the_reader_leaves_out_nobody_explains() -> None:
    """An offset that was neither a record nor a gap is unknown, and so a finding."""
    batch = fill(at(5), [record(5), record(8), Gap(TOPIC, 0, 10, 10, "marker")])
    assert spans(batch)[0]["skips"] == [[6, 7, "unknown"], [9, 9, "unknown"], [10, 10, "marker"]]
    assert [(row["from"], row["to"]) for row in closing(batch) if row["type"] == "finding"] == [(6, 7), (9, 9)]


def test_compaction_explains_only_where_it_happens() -> None:
    """On a topic that is not compacted, as the table of topics says, nothing is taken for compacted."""
    for topic, kind in ((POLICIES, "compacted"), (TOPIC, "unknown"), (POLICIES + ".dlq", "unknown")):
        batch = fill(at(0, topic=topic), [Gap(topic, 0, 0, 2, "compacted"), record(3, topic)])
        assert spans(batch, f"{topic}/0")[0]["skips"] == [[0, 2, kind]]


def test_gaps_of_a_kind_become_one_skip() -> None:
    """The batches of an aborted transaction are one range."""
    gaps = [Gap(TOPIC, 0, offset, offset, "aborted") for offset in range(400)]
    batch = fill(at(0), [*gaps, Gap(TOPIC, 0, 400, 400, "marker"), Gap(TOPIC, 0, 401, 401, "marker")])
    assert spans(batch)[0]["skips"] == [[0, 399, "aborted"], [400, 401, "marker"]]


def test_duplicates_fall_silently() -> None:
    """What lies below the frontier changes nothing, and alone is nothing to record."""
    batch = fill(at(5), [record(3), record(5), record(5), record(4), Gap(TOPIC, 0, 2, 4, "marker")])
    assert [(read.offset, inc) for read, inc in batch.records] == [(5, 0)]
    assert batch.next() == {(TOPIC, 0): Frontier(0, 6, Last(5, 1005, "e5"))}
    assert fill(at(5), [record(3), Gap(TOPIC, 0, 2, 4, "lost")]).spans == {}


@pytest.mark.parametrize(
    ("kind", "finding"), [("unknown", "offset-gap"), ("lost", "range-lost"), ("odd", "offset-gap")]
)
def test_unexplained_gaps_are_findings(kind: str, finding: str) -> None:
    """A gap that nobody explains, or a range evicted unread, is a finding before the coverage that skips it."""
    rows = closing(fill(at(0, inc=3), [record(0), Gap(TOPIC, 0, 1, 4, kind), record(5)]))
    assert [row["type"] for row in rows] == ["finding", "coverage"]
    source = {"topic": TOPIC, "partition": 0, "inc": 3}
    assert rows[0] == {"v": 1, "type": "finding", "kind": finding, "src": source, "from": 1, "to": 4}


def test_a_partition_that_begins_late_is_a_finding() -> None:
    """Offsets before the first read of a partition are named, not taken for markers."""
    rows = closing(fill({}, [record(7)]))
    assert (rows[0]["kind"], rows[0]["from"], rows[0]["to"]) == ("range-unread", 0, 6)
    assert rows[1]["partitions"][f"{TOPIC}/0"]["skips"] == [[0, 6, "before-first-read"]]


def test_a_reset_begins_the_next_incarnation() -> None:
    """In one batch: the old log's records, the finding, and the new log's from offset 0, each with its incarnation."""
    batch = fill(at(5, inc=1), [record(5), Reset(TOPIC, 0, 6), Gap(TOPIC, 0, 0, 1, "lost"), record(2)])
    assert [(read.offset, inc) for read, inc in batch.records] == [(5, 1), (2, 2)]
    rows = closing(batch)
    assert [row.get("kind") for row in rows] == ["source-reset", "range-lost", None, None]
    source = {"topic": TOPIC, "partition": 0, "inc": 2}
    assert rows[0] == {"v": 1, "type": "finding", "kind": "source-reset", "src": source, "from": 0, "to": 6}
    assert [(row["inc"], row["from"], row["next"], row["last"][0]) for row in spans(batch)] == [
        (1, 5, 6, 5),
        (2, 0, 3, 2),
    ]
    assert batch.next() == {(TOPIC, 0): Frontier(2, 3, Last(2, 1002, "e2"))}


def test_a_reset_alone_is_recorded() -> None:
    """A partition that is there no more: nothing follows, and the newest record of the old log is no longer its own."""
    batch = fill({(TOPIC, 0): Frontier(0, 9, Last(8, 1, "x"))}, [Reset(TOPIC, 0, 9)])
    assert spans(batch) == [{"inc": 1, "from": 0, "next": 0, "entries": 0, "skips": []}]
    assert batch.next() == {(TOPIC, 0): Frontier(1, 0)}


def test_the_newest_record_is_carried_on() -> None:
    """Also where only markers follow it, and in a coverage that names partitions of which nothing came."""
    known = {(TOPIC, 0): Frontier(0, 3, Last(2, 1002, "e2")), (TOPIC, 1): Frontier(4, 9, Last(8, 7, "x"))}
    batch = fill(known, [Gap(TOPIC, 0, 3, 3, "marker")])
    (row,) = closing(batch, full=True)
    assert row["partitions"][f"{TOPIC}/0"]["last"] == [2, 1002, "e2"]
    still = {"inc": 4, "from": 9, "next": 9, "entries": 0, "skips": [], "last": [8, 7, "x"]}
    assert row["partitions"][f"{TOPIC}/1"] == still
    assert coverage.frontiers(reversed(batch.closing({}, full=True))) == batch.next()


def test_a_time_beyond_what_is_canonical_is_kept() -> None:
    """A producer may claim any time: it comes back as it was."""
    odd = Record(TOPIC, 0, 0, None, None, (), 2**62)
    batch = fill(at(0), [odd])
    assert spans(batch)[0]["last"] == [0, str(2**62), f"{TOPIC}[0]@0"]
    assert coverage.frontiers(batch.closing({}, full=True)) == batch.next()


def test_frontiers_are_read_back_from_the_newest_full_coverage() -> None:
    """The newest word on each partition counts, and nothing before the full coverage is read."""
    first = fill({("a.b", 1): Frontier(2, 4)}, [record(0)])
    older, newer = first.closing({}, full=True), fill(first.next(), [record(1), record(2)]).closing({}, full=False)

    def newest_first() -> Iterator[bytes]:
        yield from reversed([b'{"commit":{}}', *older, b'{"commit":{}}', *newer])
        raise AssertionError("read too far")

    known = {(TOPIC, 0): Frontier(0, 3, Last(2, 1002, "e2")), ("a.b", 1): Frontier(2, 4)}
    assert coverage.frontiers(newest_first()) == known


def test_every_tenant_is_named_however_many() -> None:
    """Counts that do not fit one coverage go on in the next of the batch; each fits an entry, and they stand together at the end."""
    batch = fill({}, [record(0), record(2)])
    tags = {f"{number:032x}": 1 + number % 3 for number in range(4096)}
    made = batch.closing(tags, full=True)
    assert max(map(len, made)) < 65_535
    rows = [json.loads(data) for data in made]
    assert [row["type"] for row in rows] == ["finding", "violation", *["coverage"] * (len(rows) - 2)]
    assert len(rows) > 4
    counted = [item for row in rows[2:] for item in row["tenants"].items()]
    assert (len(counted), dict(counted)) == (4096, tags)
    assert {row["full"] for row in rows[2:]} == {True}


def test_many_partitions_and_skips_are_split() -> None:
    """However many partitions and skips, every coverage fits an entry, and the pieces join, each with its newest record."""
    known = {(f"ratchet.topic-{number}", partition): Frontier(0, 1) for number in range(60) for partition in range(12)}
    batch = fill(known | at(0), [record(offset) for offset in range(0, 4000, 2)])
    made = batch.closing({"acme": 3}, full=True)
    assert max(map(len, made)) < 65_535
    assert coverage.frontiers(reversed(made)) == batch.next()
    told = spans(batch)
    assert len(told) > 1
    assert [piece["from"] for piece in told] == [0, *(piece["next"] for piece in told[:-1])]
    assert all(
        piece["last"][0] == piece["next"] - 1 - (piece is not told[-1] and piece["next"] % 2 == 0) for piece in told
    )


@pytest.mark.parametrize("taken", [None, 2, 8])
async def test_an_offset_taken_out_of_the_source_is_a_finding(taken: int | None) -> None:
    """From a broker to the log: markers and aborted records are none, an offset that somebody removed is, wherever it lay."""
    broker = MemoryBroker(1)
    producer = broker.transactional("t")
    await producer.start()
    for decide in (producer.commit, producer.abort, producer.commit):
        await producer.begin()
        await producer.send(TOPIC, 0, [Outgoing(b"k", b"v"), Outgoing(b"k", b"w")])
        await decide()
    if taken is not None:
        broker.remove((TOPIC, 0), taken)
    reader = EveryOffset(broker, [TOPIC], lambda record: Draft(record).id, topics.compacted())
    await reader.seek({})
    batch = fill({}, await reader.poll(0.1))
    await reader.stop()
    found = [(row["kind"], row["from"], row["to"]) for row in closing(batch) if row["type"] == "finding"]
    assert found == ([] if taken is None else [("offset-gap", taken, taken)])
    assert batch.next()[TOPIC, 0].next == 9


@st.composite
def histories(draw: st.DrawFn) -> list[Read]:
    """What a reader may tell of two partitions: records, gaps told and untold, duplicates, logs made anew."""
    following, told, reads = [0, 0], [list[Read](), list[Read]()], list[Read]()
    for step in draw(st.lists(st.sampled_from(["record", "gap", "hole", "again", "reset", "markers"]), max_size=40)):
        partition = draw(st.integers(0, 1))
        first, size = following[partition], draw(st.integers(1, 4))
        if step == "record":
            made: list[Read] = [record(first + n, partition=partition) for n in range(size)]
        elif step == "gap":
            kind = draw(st.sampled_from(["marker", "aborted", "compacted", "lost", "unknown", "odd"]))
            made = [Gap(TOPIC, partition, max(0, first - draw(st.integers(0, 2))), first + size - 1, kind)]
        elif step == "markers":
            size = 600
            kinds = ("marker", "aborted")
            made = [Gap(TOPIC, partition, first + n, first + n, kinds[n % 2]) for n in range(size)]
        elif step == "again":
            size, made = 0, told[partition][-3:]
        elif step == "reset":
            following[partition], size = 0, 0
            made = [Reset(TOPIC, partition, first)]
            told[partition].clear()
        else:
            made = []
        following[partition] += size
        if step != "reset":
            told[partition] += made
        reads += made
    return reads


@given(histories(), st.lists(st.integers(0, 40), max_size=3))
def test_each_offset_is_accounted_for_once(reads: list[Read], cuts: list[int]) -> None:
    """Any history, in any batches: of each incarnation each offset is one entry or in one skip, and what must be is a finding."""
    frontiers: dict[Source, Frontier] = {}
    entries: list[tuple[str, int, int]] = []
    covered: dict[tuple[str, int], list[dict[str, Any]]] = {}
    found: Counter[tuple[str, int, str, int, int]] = Counter()
    edges = sorted({0, *cuts, len(reads)})
    for low, high in pairwise(edges):
        batch = fill(frontiers, reads[low:high])
        entries += [(f"{TOPIC}/{row.partition}", inc, row.offset) for row, inc in batch.records]
        for row in closing(batch):
            if row["type"] == "finding":
                source = row["src"]
                found[f"{TOPIC}/{source['partition']}", source["inc"], row["kind"], row["from"], row["to"]] += 1
            for place, span in row.get("partitions", {}).items():
                covered.setdefault((place, span["inc"]), []).append(span)
        assert coverage.frontiers(reversed(batch.closing({}, full=True))) == batch.next()
        frontiers = batch.next()
    for (place, inc), pieces in covered.items():
        at, count = 0, 0
        skipped: list[int] = []
        for piece in pieces:
            assert piece["from"] == at
            at, count = piece["next"], count + piece["entries"]
            skipped += [offset for first, last, _ in piece["skips"] for offset in range(first, last + 1)]
            for first, last, kind in piece["skips"]:
                named = [name for name, of in KEPT.items() if of == kind]
                assert [found[place, inc, name, first, last] for name in named] == [1] * len(named)
        recorded = [offset for name, number, offset in entries if (name, number) == (place, inc)]
        assert len(recorded) == count
        assert sorted(skipped + recorded) == list(range(at))
    resets = sum(isinstance(row, Reset) for row in reads)
    assert sum(count for (_, _, kind, _, _), count in found.items() if kind == "source-reset") == resets
    assert sum(max(inc for name, inc in covered if name == place) for place in {name for name, _ in covered}) == resets
