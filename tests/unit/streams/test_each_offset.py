"""What a broker's answer says of each offset: batches of records, markers, aborted ones, and what compaction left of them."""

import struct

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from streams.kafka_names import take_any_names
from streams.kafka_whole import EachOffset
from streams.shapes import Gap, Record

CONTROL = 0x20
ABORT, COMMIT = 0, 1


class NoName(str):
    """A name that a careless client sends."""

    def encode(self, *args: object, **kwargs: object) -> bytes:
        return b"\xff"


def batch(
    first: int, *deltas: int, producer: int = -1, count: int = 0, marker: int | None = None, bad: bool = False
) -> bytes:
    """Records at these deltas of `count` offsets, the others as compaction leaves them; or a marker's batch."""
    made = _DefaultRecordBatchBuilderPy(2, 0, int(producer >= 0), producer, 0, 0, 1 << 20)
    for delta in deltas:
        key = b"k" if marker is None else struct.pack(">hh", 0, marker)
        made.append(delta, 1, key, b"%d" % (first + delta), [(NoName("x") if bad else "x", b"")])
    data = bytearray(made.build())
    data[:8] = first.to_bytes(8, "big")
    attributes, last = struct.unpack_from(">hi", data, 21)
    struct.pack_into(">hi", data, 21, attributes | (CONTROL if marker is not None else 0), max(count - 1, last))
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def told(data: bytes, *, at: int = 0, aborted: list[tuple[int, int]] | None = None) -> tuple[str, int]:
    """Each offset by a letter, from the position on, and the position after it."""
    take_any_names()
    records = fetcher.MemoryRecords(data)
    tp, rc = TopicPartition("t", 0), fetcher.READ_COMMITTED
    reader = fetcher.PartitionRecords(tp, records, aborted, at, EachOffset, None, True, rc)
    letters = ""
    for row in reader:
        if isinstance(row, Record):
            assert (row.offset, row.value) == (at + len(letters), b"%d" % row.offset)
            letters += "r"
        else:
            assert isinstance(row, Gap)
            assert row.first == at + len(letters)
            letters += {"marker": "M", "aborted": "a", "missing": "-"}[row.kind] * (row.last - row.first + 1)
        assert reader.next_fetch_offset == at + len(letters)
    return letters, reader.next_fetch_offset


def test_markers_and_aborted_batches_are_told_in_their_place() -> None:
    """A producer's transaction is aborted up to its marker; its next one and those of others are not."""
    data = batch(0, 0, 1, producer=7) + batch(2, 0, producer=8) + batch(3, 0, producer=7)
    data += batch(4, 0, producer=7, marker=ABORT) + batch(5, 0, producer=8, marker=COMMIT) + batch(6, 0, producer=7)
    data += batch(7, 0, producer=7, marker=COMMIT) + batch(8, 0)
    assert told(data, aborted=[(7, 0)]) == ("aaraMMrMr", 9)


@pytest.mark.parametrize("at", range(6))
def test_an_answer_begins_with_the_batch_in_which_the_position_lies(at: int) -> None:
    """What lies before the position is not told again, in a batch of records, in an aborted one, or at a marker."""
    data = batch(0, 0, 1, 2) + batch(3, 0, 1, producer=7) + batch(5, 0, producer=7, marker=ABORT)
    assert told(data, at=at, aborted=[(7, 3)]) == ("rrraaM"[at:], 6)


def test_what_compaction_took_is_missing() -> None:
    """Before, inside and at the end of a batch, between batches, a whole batch's records, and those of a marker."""
    data = batch(2, 1, 3, count=6) + batch(10, count=2) + batch(13, producer=7, marker=ABORT, count=1) + batch(15, 0)
    assert told(data) == ("---r-r----" + "--" + "-M" + "-r", 16)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_bad_name_changes_nothing(at: int) -> None:
    """Records whose header names are none are records, and the batches around them are what they are."""
    data = batch(0, 0, 1, 3, count=4, bad=True) + batch(4, 0, producer=7) + batch(5, 0, producer=7, marker=ABORT)
    assert told(data, at=at, aborted=[(7, 4)]) == ("rr-raM"[at:], 6)


def test_a_batch_with_another_checksum_is_not_read() -> None:
    """Neither its records nor its header are believed."""
    data = bytearray(batch(0, 0) + batch(1, 0, producer=7, marker=COMMIT))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="the batch at 1 has another checksum"):
        told(bytes(data))


def test_other_consumers_read_as_before() -> None:
    """Who does not ask for each offset is given records only, its keys by its own deserializer."""
    take_any_names()
    data = fetcher.MemoryRecords(batch(0, 0, producer=7, marker=COMMIT) + batch(1, 0))
    tp = TopicPartition("t", 0)
    reader = fetcher.PartitionRecords(tp, data, [], 0, bytes.upper, None, True, fetcher.READ_COMMITTED)
    assert [(row.offset, row.key) for row in reader] == [(1, b"K")]
