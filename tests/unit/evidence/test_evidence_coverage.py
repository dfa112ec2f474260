"""Each offset once: as an entry or as a skip with its reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.evidence import coverage
from agents.evidence.ports import Read
from streams.shapes import Gap, Record

TOPIC = "ratchet.results"


def record(offset: int, topic: str = TOPIC, partition: int = 0) -> Record:
    return Record(topic, partition, offset, None, None, (), 0)


def spans(batch: coverage.Batch, *, full: bool = False) -> list[dict[str, Any]]:
    rows = [json.loads(data) for data in batch.closing({}, full=full)]
    return [row for row in rows if row["type"] == "coverage"]


def fill(frontiers: dict[tuple[str, int], int], reads: list[Read]) -> coverage.Batch:
    batch = coverage.Batch(frontiers)
    for read in reads:
        batch.add(read)
    return batch


def test_missing_offsets_become_skips() -> None:
    """Offsets that a read-committed client leaves out are skipped, with the little that is known as the reason."""
    batch = fill({(TOPIC, 0): 5}, [record(5), record(8)])
    assert spans(batch)[0]["partitions"] == {
        f"{TOPIC}/0": {"inc": 0, "from": 5, "next": 9, "entries": 2, "skips": [[6, 7, "marker-or-aborted"]]}
    }


def test_compaction_is_named_only_where_it_happens() -> None:
    """On a compacted topic a gap may be compaction, and the reason says so."""
    batch = fill({("ratchet.policies", 0): 0}, [record(3, "ratchet.policies")])
    assert spans(batch)[0]["partitions"]["ratchet.policies/0"]["skips"] == [[0, 2, "marker-aborted-or-compacted"]]


def test_duplicates_fall_silently() -> None:
    """What lies below the frontier changes nothing."""
    batch = fill({(TOPIC, 0): 5}, [record(3), record(5), record(5), record(4), Gap(TOPIC, 0, 2, 4, "marker")])
    assert [read.offset for read in batch.records] == [5]
    assert batch.next() == {(TOPIC, 0): 6}


@pytest.mark.parametrize(("kind", "finding"), [("unknown", "offset-gap"), ("lost", "range-lost")])
def test_unexplained_gaps_are_findings(kind: Any, finding: str) -> None:
    """A gap that nobody explains, or a range evicted unread, is a finding before the coverage that skips it."""
    batch = fill({(TOPIC, 0): 0}, [record(0), Gap(TOPIC, 0, 1, 4, kind), record(5)])
    rows = [json.loads(data) for data in batch.closing({}, full=False)]
    assert [row["type"] for row in rows] == ["finding", "coverage"]
    assert (rows[0]["kind"], rows[0]["from"], rows[0]["to"]) == (finding, 1, 4)


def test_a_partition_that_begins_late_is_a_finding() -> None:
    """Offsets before the first read of a partition are named, not taken for markers."""
    batch = fill({}, [record(7)])
    rows = [json.loads(data) for data in batch.closing({}, full=False)]
    assert (rows[0]["kind"], rows[0]["to"]) == ("range-unread", 6)


def test_frontiers_are_read_back_from_the_newest_full_coverage() -> None:
    """The newest word on each partition counts, and nothing before the full coverage is read."""
    first = fill({("a.b", 1): 4}, [record(0)])
    older, newer = first.closing({}, full=True), fill(first.next(), [record(1), record(2)]).closing({}, full=False)

    def newest_first() -> Any:
        yield from reversed([b'{"commit":{}}', *older, b'{"commit":{}}', *newer])
        raise AssertionError("read too far")

    assert coverage.frontiers(newest_first()) == {(TOPIC, 0): 3, ("a.b", 1): 4}


def test_many_tenants_fit() -> None:
    """However many tenants a batch names, the coverage fits an entry, and the counts add up."""
    batch = fill({}, [record(0)])
    tenants = {f"{'t' * 120}-{number}": 1 + number % 3 for number in range(4096)}
    (made,) = batch.closing(tenants, full=True)
    assert len(made) < 65_535
    assert sum(json.loads(made)["tenants"].values()) == sum(tenants.values())


def test_many_partitions_and_skips_are_split() -> None:
    """However many partitions and skips, every coverage fits an entry, and the pieces join."""
    frontiers = {(f"ratchet.topic-{number}", partition): 1 for number in range(60) for partition in range(12)}
    batch = fill(frontiers | {(TOPIC, 0): 0}, [record(offset) for offset in range(0, 4000, 2)])
    made = batch.closing({"acme": 3}, full=True)
    assert max(map(len, made)) < 65_535
    assert coverage.frontiers(reversed(made)) == batch.next()


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(0, 10))
def test_entries_and_skips_add_up(steps: list[int], start: int) -> None:
    """For any offsets, entries plus skipped offsets are the range."""
    offsets = [start + sum(steps[: index + 1]) - 1 for index in range(len(steps))]
    batch = fill({(TOPIC, 0): start}, [record(offset) for offset in offsets])
    for row in spans(batch):
        for span in row["partitions"].values():
            skipped = sum(last - first + 1 for first, last, _ in span["skips"])
            assert span["entries"] + skipped == span["next"] - span["from"]
