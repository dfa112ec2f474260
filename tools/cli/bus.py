"""Kafka as the command line uses it: publish and be told, follow topics, read ranges.

Committed records only; no group, no commits.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Self

from infra.clock import SystemClock
from schemas.codec import Encoded
from schemas.errors import Refused, Unavailable
from streams.port import TP, Broker, BrokerError, Denied, Outgoing, Rejected
from streams.shapes import Record
from streams.wire import BROKER_BYTES, partition_of, size_of


def now_ms() -> int:
    """The wall clock: the time of an event that a person causes with the command line."""
    return SystemClock().now_ms()


@contextlib.contextmanager
def translated(bootstrap: str) -> Generator[None, None, None]:
    """What the broker's port raises, as `Refused` or `Unavailable`."""
    try:
        yield
    except Denied as fault:
        raise Refused(str(fault), kind="forbidden") from fault
    except Rejected as fault:
        raise Refused(f"the broker refused the record: {fault}", kind="rejected") from fault
    except BrokerError as fault:
        raise Unavailable(f"Kafka at {bootstrap} is away: {fault}; `ratchet status` says what runs") from fault


class Bus:
    """`async with Bus(broker, bootstrap) as bus`. Made by `tools.cli.place.open_bus`.

    Given as a call, the broker is made at the start: it may need a password from the secret store.
    """

    def __init__(self, broker: Broker | Callable[[], Awaitable[Broker]], bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._made = broker

    async def __aenter__(self) -> Self:
        self._broker = await self._made() if callable(self._made) else self._made
        self.admin = self._broker.admin()
        with translated(self.bootstrap):
            await self.admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(BrokerError):
            await self.admin.stop()

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Partition counts. Raises `Unavailable` where a topic does not exist yet."""
        with translated(self.bootstrap):
            found = await self.admin.partitions(topics)
        missing = sorted(set(topics) - set(found))
        if missing:
            raise Unavailable(f"Kafka at {self.bootstrap} has no topic {missing[0]}: `ratchet up` creates the topics")
        return found

    async def publish(self, records: Iterable[tuple[str, Encoded]]) -> None:
        """Send records, placed by murmur2 of their keys; returns when all are acknowledged.

        Raises `Refused` before anything is sent where one is larger than the broker takes.
        """
        rows = list(records)
        for topic, row in rows:
            check_size(topic, row)
        counts = await self.partitions({topic for topic, _ in rows})
        batches: dict[TP, list[Outgoing]] = defaultdict(list)
        for topic, row in rows:
            batches[topic, partition_of(row.key, counts[topic])].append(Outgoing(row.key, row.value, row.headers))
        producer = self._broker.producer()
        with translated(self.bootstrap):
            await producer.start()
            try:
                for (topic, partition), batch in batches.items():
                    await producer.send(topic, partition, batch)
            finally:
                await producer.stop()

    async def ends(self, topics: Collection[str]) -> dict[TP, int]:
        """The end of every partition of the topics now."""
        tps = [(topic, p) for topic, count in (await self.partitions(topics)).items() for p in range(count)]
        with translated(self.bootstrap):
            return await self.admin.ends(tps)

    async def starts(self, topics: Collection[str], since_ms: int | None = None) -> dict[TP, int]:
        """The first offset of every partition, or the first with a timestamp at or after `since_ms`."""
        tps = [(topic, p) for topic, count in (await self.partitions(topics)).items() for p in range(count)]
        return await self.starts_of(tps, since_ms)

    async def starts_of(self, tps: Collection[TP], since_ms: int | None = None) -> dict[TP, int]:
        """The same for chosen partitions."""
        with translated(self.bootstrap):
            return await (self.admin.starts(tps) if since_ms is None else self.admin.offsets_at(tps, since_ms))

    async def follow(self, positions: Mapping[TP, int]) -> AsyncGenerator[Record | None, None]:
        """Records from the positions on, for ever; None at least every 0.2 s: time to look at the clock."""
        reader = self._broker.reader(positions)
        with translated(self.bootstrap):
            await reader.start()
            try:
                while True:
                    found = await reader.poll(timeout_s=0.2, max_records=1000)
                    for record in sorted(_all(found), key=lambda r: r.timestamp_ms):
                        yield record
                    yield None
            finally:
                await reader.stop()

    async def read(self, positions: Mapping[TP, int]) -> list[Record]:
        """Everything from the positions to the ends as they are now, by record time."""
        return sorted([record async for record in self.each(positions)], key=lambda r: r.timestamp_ms)

    async def each(self, positions: Mapping[TP, int]) -> AsyncGenerator[Record, None]:
        """The same record by record, of each partition in its order: for more than memory holds."""
        with translated(self.bootstrap):
            ends = await self.admin.ends(list(positions))
        wanted = {tp: at for tp, at in positions.items() if at < ends.get(tp, 0)}
        if not wanted:
            return
        reader = self._broker.reader(wanted)
        with translated(self.bootstrap):
            await reader.start()
            try:
                left = set(wanted)
                while left:
                    for tp, records in (await reader.poll(timeout_s=0.2, max_records=2000)).items():
                        for record in records:
                            if record.offset < ends[tp]:
                                yield record
                    left = {tp for tp in left if await reader.position(tp) < ends[tp]}
                    await asyncio.sleep(0)
            finally:
                await reader.stop()

    async def newest(self, topic: str, keys: Collection[str]) -> dict[str, Record]:
        """The newest record of each of the keys on a compacted topic."""
        count = (await self.partitions([topic]))[topic]
        tps = {(topic, partition_of(key.encode(), count)) for key in keys}
        held: dict[str, Record] = {}
        for record in await self.read(await self.starts_of(tps)):
            key = (record.key or b"").decode("utf-8", "replace")
            if key in keys:
                held[key] = record
        return held


def check_size(topic: str, row: Encoded) -> None:
    """Raise `Refused` where the broker would not take the record, naming its limit."""
    size = size_of(Outgoing(row.key, row.value, row.headers))
    if size > BROKER_BYTES:
        raise Refused(
            f"{topic}: {size:,} bytes with its envelope; accepted: at most {BROKER_BYTES:,} bytes a record",
            kind="too-large",
            field="value",
            accepted=f"at most {BROKER_BYTES:,} bytes",
        )


def _all(found: Mapping[TP, Sequence[Record]]) -> Iterator[Record]:
    for records in found.values():
        yield from records
