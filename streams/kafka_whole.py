"""Each offset of a partition, by what the broker sends: records, and in the place of what the client drops without a word, gaps.

The client knows more than it tells: the header of a batch says that it is a marker, the answer's index which transactions were
aborted. The client's reader of an answer is asked for both, in order with the records; fetching, leaders and retries stay its own.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportPrivateUsage=false, reportArgumentType=false
# aiokafka ships no types.

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from streams.kafka_names import AnyNames
from streams.kafka_reader import KafkaReader
from streams.port import TP, Lost
from streams.security import PLAINTEXT, Security
from streams.shapes import Gap, Record
from streams.wire import valued


class EachOffset(AnyNames):
    """The client's reader of one partition's answer. `next_fetch_offset` is the first offset that it has not given."""

    def _unpack_records(self) -> Iterator[Record | Gap]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"{self._tp}: the batch at {batch.base_offset} has another checksum")
            kind = self._left_out(batch)
            if kind:
                yield from self._gap(batch.base_offset, "missing")
                yield from self._gap(batch.next_offset, kind)
            else:
                yield from self._given(batch)

    def _again(self) -> Iterator[Record | Gap]:
        yield from self._given(self._lenient())
        yield from self._unpack_records()

    def _left_out(self, batch: Any) -> str:
        """The kind of a batch that no reader of committed records is given; empty for one that is."""
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            return "marker"
        return "aborted" if batch.is_transactional and batch.producer_id in self._aborted_producers else ""

    def _contains_abort_marker(self, batch: Any) -> bool:
        """Compaction may leave a marker's batch without its record; then nothing of its transaction is left either."""
        first = next(iter(batch), None)
        return first is not None and ControlRecord.parse(first.key) == ABORT_MARKER

    def _given(self, batch: Any) -> Iterator[Record | Gap]:
        topic, partition = self._tp
        for record in batch:
            offset = record.offset
            if offset != self.next_fetch_offset:
                if offset < self.next_fetch_offset:  # the answer begins with the whole batch in which the position lies
                    continue
                yield from self._gap(offset, "missing")
            self.next_fetch_offset = offset + 1
            headers = valued(record.headers)
            yield Record(topic, partition, offset, record.key, record.value, headers, record.timestamp)
        yield from self._gap(batch.next_offset, "missing")

    def _gap(self, until: int, kind: str) -> Iterator[Gap]:
        """What lies between the last offset given and this one, if anything."""
        first = self.next_fetch_offset
        if until > first:
            self.next_fetch_offset = until
            yield Gap(self._tp.topic, self._tp.partition, first, until - 1, kind)


class KafkaWholeReader:
    """Alone, at positions given."""

    def __init__(self, bootstrap: str, positions: Mapping[TP, int], security: Security = PLAINTEXT) -> None:
        self._reader = KafkaReader(bootstrap, security=security, positions=positions, gives=EachOffset)
        self._there: set[str] = set()  # topics that the cluster had once it answered

    async def start(self) -> None:
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    async def poll(self, *, timeout_s: float, max_items: int) -> Mapping[TP, Sequence[Record | Gap]]:
        self._check_there()
        found = await self._reader.polled(timeout_s, max_items)
        return {(tp.topic, tp.partition): rows for tp, rows in found.items()}

    def _check_there(self) -> None:
        """Lost where a topic is there no more: the client would wait, and go on in another one of the same name."""
        there = set(self._reader.consumer._client.cluster.topics())  # noqa: SLF001  told nowhere else
        if gone := sorted(self._there - there):
            raise Lost(f"there is no topic {', '.join(gone)} any more")
        self._there = there & {topic for topic, _ in self._reader.positions}
