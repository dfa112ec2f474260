"""Header names that are not UTF-8: the client reads on, and loses nothing that lies before or behind them."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streams.kafka_names import take_any_names

GZIP = 1


class NoName(str):
    """A name that a careless client sends."""

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"\xff" + super().encode()


def batch(first: int, names: str, *, codec: int = 0, producer: int = -1) -> bytes:
    """A batch with a record per letter, `!` being a name that is none. Its base offset is outside what the sum covers."""
    made = _DefaultRecordBatchBuilderPy(2, codec, int(producer >= 0), producer, 0, 0, 1 << 20)
    for number, name in enumerate(names):
        assert made.append(number, 1, b"k", name.encode(), [(NoName("x") if name == "!" else name, b"1"), ("b", None)])
    return first.to_bytes(8, "big") + bytes(made.build())[8:]


def read(
    data: bytes, *, after: int = 0, aborted: list[tuple[int, int]] | None = None
) -> tuple[list[tuple[int, str]], Any]:
    take_any_names()
    reader = fetcher.PartitionRecords(
        TopicPartition("t", 0), fetcher.MemoryRecords(data), aborted, after, None, None, True, fetcher.READ_COMMITTED
    )
    found = []
    for row in reader:
        assert row.value in (row.headers[0][0].encode(), b"!")
        assert row.headers[1] == ("b", None)
        found.append((row.offset, row.headers[0][0]))
    return found, reader.next_fetch_offset


@pytest.mark.parametrize("codec", [0, GZIP])
def test_each_record_is_read_once_and_in_order(codec: int) -> None:
    """Bad names at the beginning, in the middle, twice in a batch and in batches behind each other."""
    rows = ("ab", "!c", "d!e!", "!", "f")
    data = b"".join(batch(10 * n, names, codec=codec) for n, names in enumerate(rows))
    wanted = [
        (10 * n + k, "\ufffdx" if name == "!" else name) for n, names in enumerate(rows) for k, name in enumerate(names)
    ]
    assert read(data) == (wanted, 41)
    behind = b"".join(batch(10 * n, names, codec=codec) for n, names in enumerate(rows) if n >= 2)
    assert read(behind, after=21) == ([row for row in wanted if row[0] >= 21], 41)


def test_without_bad_names_all_is_as_the_client_reads_it() -> None:
    """And an answer that holds nothing is one without records."""
    assert read(batch(0, "ab") + batch(2, "c")) == ([(0, "a"), (1, "b"), (2, "c")], 3)
    assert fetcher.MemoryRecords(b"").has_next() is False
    assert fetcher.MemoryRecords(b"").next_batch() is None


def test_what_was_aborted_stays_unread() -> None:
    """A bad name in an aborted transaction, or before one, changes nothing about what counts."""
    data = batch(0, "a!", producer=7) + batch(2, "!b", producer=8) + batch(4, "c", producer=7)
    assert read(data, aborted=[(7, 0)]) == ([(2, "\ufffdx"), (3, "b")], 5)
