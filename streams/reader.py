"""The reader for evidence: every offset of the given topics up to the last stable one, as a record or as a gap with its kind.

The caller keeps the positions. Markers and aborted records take offsets that no consumer is given: they are the gaps.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from schemas.errors import Unavailable
from streams.port import TP, Admin, Broker, BrokerError, OutOfRange, Reader
from streams.shapes import Gap, Place, Record

RECORDS = 4096


class EveryOffset:
    """`seek` once, then `poll`. Per partition the answers cover each offset exactly once, in order."""

    def __init__(self, broker: Broker, topics: Collection[str]) -> None:
        self.topics = tuple(sorted(topics))
        self._broker = broker
        self._admin: Admin | None = None
        self._reader: Reader | None = None
        self._next: dict[TP, int] = {}

    async def seek(self, positions: Mapping[TP, int]) -> None:
        """Go on at these offsets; a partition not named begins at offset 0, so that what retention removed is told."""
        try:
            await self.stop()
            admin = self._broker.admin()
            self._admin = admin
            await admin.start()
            counts = await admin.partitions(self.topics)
            missing = sorted(set(self.topics) - set(counts))
            if missing:
                raise Unavailable(f"topics are missing: {', '.join(missing)}; `ratchet up` creates them")
            tps = [(topic, number) for topic in self.topics for number in range(counts[topic])]
            self._next = {tp: positions.get(tp, 0) for tp in tps}
            await self._open()
        except BrokerError as error:
            raise Unavailable(f"cannot read the topics: {error}") from error

    async def _open(self) -> None:
        reader = self._broker.reader(self._next)
        await reader.start()
        self._reader = reader

    async def poll(self, timeout_s: float) -> Sequence[Record | Gap]:
        """What there is, a few thousand at most; empty after the time. Unavailable while the broker is away: call again."""
        try:
            if self._reader is None:
                if self._admin is None:
                    raise AssertionError("poll before seek")
                await self._open()
            return await self._poll(timeout_s)
        except BrokerError as error:
            await self._let_go()
            raise Unavailable(f"cannot read on: {error}") from error

    async def _poll(self, timeout_s: float) -> list[Record | Gap]:
        reader = self._reader
        if reader is None:
            return []
        try:
            found = await reader.poll(timeout_s=timeout_s, max_records=RECORDS)
        except OutOfRange:
            return await self._lost(reader)
        read: list[Record | Gap] = []
        for tp, rows in found.items():
            for row in rows:
                self._skip(read, tp, row.offset, "marker-or-aborted")
                read.append(row)
                self._next[tp] = row.offset + 1
        for tp in self._next:
            self._skip(read, tp, await reader.position(tp), "marker-or-aborted")
        return read

    async def _lost(self, reader: Reader) -> list[Record | Gap]:
        """What retention removed before it was read."""
        if self._admin is None:
            return []
        read: list[Record | Gap] = []
        for tp, start in (await self._admin.starts(list(self._next))).items():
            if self._next[tp] < start:
                self._skip(read, tp, start, "lost")
                reader.seek(tp, start)
        return read

    def _skip(self, read: list[Record | Gap], tp: TP, until: int, kind: str) -> None:
        first = self._next[tp]
        if until > first:
            read.append(Gap(tp[0], tp[1], first, until - 1, kind))
            self._next[tp] = until

    async def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()

    async def stop(self) -> None:
        await self._let_go()
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.stop()


class ByPlace:
    """Reads single committed records again by topic, partition and offset. One reader for each partition asked, one call at a time."""

    def __init__(self, broker: Broker, timeout_s: float = 5.0) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._readers: dict[TP, Reader] = {}
        self._locks: dict[TP, asyncio.Lock] = {}

    async def read(self, place: Place) -> Record | None:
        """The record; None where retention has removed it. Raises `Unavailable` while the broker does not give it in time."""
        tp = (place.topic, place.partition)
        async with self._locks.setdefault(tp, asyncio.Lock()):
            try:
                return await self._read(tp, place.offset)
            except OutOfRange:
                return None
            except BrokerError as error:
                reader = self._readers.pop(tp, None)
                if reader is not None:
                    await reader.stop()
                raise Unavailable(f"cannot read {place} again: {error}") from error

    async def _read(self, tp: TP, offset: int) -> Record | None:
        reader = self._readers.get(tp)
        if reader is None:
            reader = self._broker.reader({tp: offset})
            await reader.start()
            self._readers[tp] = reader
        else:
            reader.seek(tp, offset)
        found = await reader.poll(timeout_s=self._timeout_s, max_records=1)
        rows = found.get(tp, ())
        if not rows:
            raise Unavailable(
                f"{tp[0]}[{tp[1]}]@{offset} was not given within {self._timeout_s:g} s", retry_after_s=1.0
            )
        return rows[0] if rows[0].offset == offset else None

    async def stop(self) -> None:
        """Let go of the readers."""
        readers, self._readers = [*self._readers.values()], {}
        for reader in readers:
            await reader.stop()
