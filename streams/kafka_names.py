"""Header names that are not UTF-8, which a broker takes and aiokafka does not: it raises, and forgets what it had read before them.

One such record would crash whoever reads it, and again after each restart. `take_any_names` makes the client read it with U+FFFD where
the name is none, so that it is a record like others with a header that nobody knows.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportPrivateUsage=false, reportArgumentType=false
# aiokafka ships no types.

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

LENGTH_AT, BEFORE_LENGTH = 8, 12  # of a batch: where its length stands, and how much the length leaves out
_PartitionRecords: Any = fetcher.PartitionRecords


class _Records:
    """The batches of an answer, and the bytes of the newest one given."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data or b"")
        self._records: Any = MemoryRecords(data)
        self._next = 0
        self.newest = self._data[:0]
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is not None:
            (length,) = struct.unpack_from(">i", self._data, self._next + LENGTH_AT)
            self.newest = self._data[self._next : self._next + BEFORE_LENGTH + length]
            self._next += len(self.newest)
        return batch


class _Lenient(bytearray):
    """Bytes of which every part can be decoded."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Lenient(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, "replace")


class AnyNames(_PartitionRecords):
    """The client's reader of one partition, which goes on where a name cannot be decoded."""

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            self._records_iterator = self._again()
            return super().__next__()

    def _lenient(self) -> Any:
        """The batch that could not be read, from its first record on."""
        batch = _DefaultRecordBatchPy(self._records.newest)
        batch._maybe_uncompress()  # noqa: SLF001
        batch._buffer = _Lenient(batch._buffer)  # noqa: SLF001
        return batch

    def _again(self) -> Iterator[Any]:
        """From the record on that could not be read, then what follows its batch."""
        batch = self._lenient()
        for record in batch:
            if record.offset >= self.next_fetch_offset:
                made = self._consumer_record(self._tp, record)
                self.next_fetch_offset = record.offset + 1
                yield made
        self.next_fetch_offset = batch.next_offset
        yield from self._unpack_records()


def _partition_records(tp: Any, records: Any, aborted: Any, offset: int, of_keys: Any, *rest: Any) -> Any:
    """What reads a partition's answer. A consumer that has a class of its own for this gives it as its `key_deserializer`: the
    fetcher hands on nothing else of a consumer."""
    if isinstance(of_keys, type) and issubclass(of_keys, AnyNames):
        return of_keys(tp, records, aborted, offset, None, *rest)
    return AnyNames(tp, records, aborted, offset, of_keys, *rest)


def take_any_names() -> None:
    """For every consumer that this process makes from now on; calling it again changes nothing."""
    fetcher.PartitionRecords = _partition_records
    fetcher.MemoryRecords = _Records
