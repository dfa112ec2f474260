"""The reader for evidence: every offset of the given topics up to the last stable one, as a record or as a gap with its kind.

The caller keeps the positions. That a log is still the one that was read is seen by its end, and by the newest record read of it,
which is read once more whenever the reader begins again: at a start, after the broker was away, and where a position is not in it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import Unavailable
from streams.port import TP, Admin, Broker, BrokerError, OutOfRange, Reader, WholeReader
from streams.shapes import Frontier, Gap, Last, Place, Record, Reset

ITEMS = 4096
Read = Record | Gap | Reset


@dataclass(slots=True)
class _Known:
    """What was told of a partition: everything below `next`, `newest` by this reader. Until it is `proved`, `last` must be seen."""

    next: int
    last: Last | None
    proved: bool = True
    newest: Record | None = None

    @property
    def position(self) -> int:
        return self.next if self.proved or self.last is None else self.last.offset


class EveryOffset:
    """`seek` once, then `poll`. Per partition the answers cover each offset exactly once, in order, anew after each `Reset`.

    `identity` says of a record what a `Last` calls its id. On `compacted` topics offsets may be missing; elsewhere that is `unknown`.
    """

    def __init__(
        self,
        broker: Broker,
        topics: Collection[str],
        identity: Callable[[Record], str],
        compacted: Collection[str] = (),
    ) -> None:
        self.topics = tuple(sorted(topics))
        self.compacted = frozenset(compacted)
        self._broker = broker
        self._identity = identity
        self._admin: Admin | None = None
        self._reader: WholeReader | None = None
        self._known: dict[TP, _Known] = {}
        self._told: list[Read] = []  # for the next answer, also where a call fails after it took something

    async def seek(self, frontiers: Mapping[TP, Frontier]) -> None:
        """Go on at these; a partition not named begins at offset 0, so that what retention removed is told."""
        try:
            await self.stop()
            admin = self._broker.admin()
            self._admin = admin
            await admin.start()
            counts = await admin.partitions(self.topics)
            missing = sorted(set(self.topics) - set(counts))
            if missing:
                raise Unavailable(f"topics are missing: {', '.join(missing)}; `ratchet up` creates them")
            self._told = [  # of a topic that was made anew with fewer partitions
                Reset(topic, partition, frontier.next)
                for (topic, partition), frontier in sorted(frontiers.items())
                if partition >= counts.get(topic, partition + 1) and frontier.next
            ]
            tps = [(topic, number) for topic in self.topics for number in range(counts[topic])]
            found = {tp: frontiers.get(tp, Frontier(0, 0)) for tp in tps}
            self._known = {tp: _Known(frontier.next, frontier.last) for tp, frontier in found.items()}
            await self._open()
        except BrokerError as error:
            await self._let_go()
            raise Unavailable(f"cannot read the topics: {error}") from error

    async def poll(self, timeout_s: float) -> Sequence[Read]:
        """What there is, a few thousand at most; empty after the time. Unavailable while the broker is away: call again."""
        try:
            await self._poll(timeout_s)
        except OutOfRange:
            await self._let_go()  # the next call looks at the logs' bounds
        except BrokerError as error:
            await self._let_go()
            raise Unavailable(f"cannot read on: {error}") from error
        told, self._told = self._told, []
        return told

    async def _poll(self, timeout_s: float) -> None:
        if self._reader is None:
            await self._open()
        if self._reader is None or self._told:
            return
        another = False
        for tp, rows in (await self._reader.poll(timeout_s=timeout_s, max_items=ITEMS)).items():
            another |= not self._take(tp, rows)
        if another:
            await self._let_go()

    async def _open(self) -> None:
        """Read from where we are, by what the bounds of the logs say of that."""
        if self._admin is None:
            raise AssertionError("poll before seek")
        starts, ends = await self._admin.starts(list(self._known)), await self._admin.ends(list(self._known))
        for tp, known in self._known.items():
            if known.newest is not None:
                known.last, known.newest = self._last(known.newest), None
            if ends[tp] < known.next:
                self._reset(tp)
            known.proved = known.last is None or known.last.offset < starts[tp]  # evicted: nobody can tell any more
            if known.next < starts[tp]:
                self._told.append(Gap(*tp, known.next, starts[tp] - 1, "lost"))
                known.next = starts[tp]
        reader = self._broker.whole_reader({tp: known.position for tp, known in self._known.items()})
        self._reader = reader
        await reader.start()

    def _reset(self, tp: TP) -> None:
        known = self._known[tp]
        self._told.append(Reset(*tp, known.next))
        known.next, known.last, known.proved, known.newest = 0, None, True, None

    def _take(self, tp: TP, rows: Sequence[Record | Gap]) -> bool:
        """Tell what is new in the rows, which go on at the position. False where they show that it is another log."""
        known = self._known[tp]
        if not known.proved and not self._same(known.last, rows[0]):
            self._reset(tp)
            return False
        known.proved = True
        following, newest = known.next, known.newest
        for row in rows:
            if isinstance(row, Record):
                if row.offset >= following:
                    self._told.append(row)
                    newest, following = row, row.offset + 1
            elif row.last >= following:
                self._told.append(Gap(*tp, max(row.first, following), row.last, self._kind(row)))
                following = row.last + 1
        known.next, known.newest = following, newest
        return True

    def _same(self, last: Last | None, row: Record | Gap) -> bool:
        """Whether the newest record read stands where it stood. Where compaction removed it nobody can tell."""
        if isinstance(row, Gap):
            return row.kind == "missing"
        return self._last(row) == last

    def _last(self, row: Record) -> Last:
        return Last(row.offset, row.timestamp_ms, self._identity(row))

    def _kind(self, gap: Gap) -> str:
        if gap.kind != "missing":
            return gap.kind
        return "compacted" if gap.topic in self.compacted else "unknown"

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
