"""One suite for the broker in memory and for Kafka: what is told of each offset of a log. A test file gives the fixture `logs`."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest

from schemas.errors import Unavailable
from streams.port import TP, Admin, Broker, Outgoing, Producer, TopicSpec, TransactionalProducer
from streams.reader import EveryOffset, Read
from streams.shapes import Frontier, Gap, Last, Record, Reset

__all__ = [
    "Logs",
    "Operator",
    "test_a_gap_behind_the_last_record_is_told_without_waiting",
    "test_a_log_made_anew_is_known_by_its_newest_record",
    "test_a_log_made_anew_while_we_read_is_told",
    "test_a_log_that_ends_below_us_is_another",
    "test_a_partition_that_is_there_no_more_is_told",
    "test_a_position_inside_an_aborted_transaction",
    "test_a_topic_that_is_missing_is_named",
    "test_a_topic_that_vanishes_while_we_read_is_looked_at_again",
    "test_compacted_offsets_are_told_where_keys_are_compacted",
    "test_every_offset_is_told_once",
    "test_nothing_is_told_of_a_transaction_before_it_ends",
    "test_the_same_log_goes_on_behind_its_newest_record",
    "test_transactions_that_interleave_are_told_apart",
    "test_what_retention_removed_is_lost",
    "test_where_the_newest_record_was_evicted_nothing_is_claimed",
]

NAMES = itertools.count()


class Operator(Protocol):
    """What a test does to a broker beyond its port."""

    async def evict(self, tp: TP, before: int) -> None:
        """Retention removes what is below."""
        ...

    async def delete(self, topic: str) -> None: ...
    async def compact(self, topic: str) -> None:
        """Let the cleaner run, if it must be told to."""
        ...


@dataclass
class Logs:
    """Topics of a test's own on a broker, and what reads them."""

    broker: Broker
    admin: Admin
    producer: Producer
    operator: Operator

    async def topic(self, *, partitions: int = 1, config: Mapping[str, str] | None = None, name: str = "") -> str:
        name = name or f"offsets-{next(NAMES)}"
        await self.admin.create([TopicSpec(name, partitions, 1, config or {})])
        async with asyncio.timeout(20):  # the broker answers before every part of it knows of the topic
            while await self.admin.partitions([name]) != {name: partitions}:  # noqa: ASYNC110  nobody signals it
                await asyncio.sleep(0.05)
        return name

    async def again(self, topic: str, *, partitions: int = 1) -> None:
        """Delete the topic and make it anew."""
        await self.operator.delete(topic)
        await self.topic(name=topic, partitions=partitions)

    async def plain(self, topic: str, *values: bytes, key: bytes = b"k", partition: int = 0) -> None:
        await self.producer.send(topic, partition, [Outgoing(key, value) for value in values])

    async def ends_at(self, topic: str, offset: int, partition: int = 0) -> None:
        """Wait until the last stable offset is there: a transaction's end is answered before its markers are written."""
        async with asyncio.timeout(20):
            while (found := await self.admin.ends([(topic, partition)])) != {(topic, partition): offset}:
                assert found[topic, partition] <= offset
                await asyncio.sleep(0.02)

    async def transaction(self) -> TransactionalProducer:
        made = self.broker.transactional(f"offsets-{next(NAMES)}")
        await made.start()
        return made


def identity(record: Record) -> str:
    return (record.value or b"").decode()


async def batches(producer: TransactionalProducer, topic: str, *values: bytes) -> None:
    """Each value in a batch of its own."""
    for value in values:
        for future in await producer.send(topic, 0, [Outgoing(b"k", value)]):
            await future


async def read(
    logs: Logs,
    topic: str,
    until: int,
    at: Frontier | None = None,
    *,
    compacted: bool = False,
    resets: int = 0,
    before: Callable[[], Awaitable[object]] | None = None,
) -> list[Read]:
    """What is told of partition 0 up to an offset after so many resets, each offset once. `before` happens before the first answer."""
    reader = EveryOffset(logs.broker, [topic], identity, [topic] if compacted else ())
    try:
        await reader.seek({} if at is None else {(topic, 0): at})
        if before is not None:
            await before()
        return await follow(reader, until, at.next if at else 0, resets)
    finally:
        await reader.stop()


async def answer(reader: EveryOffset) -> Sequence[Read]:
    """What a poll gives, asked again while the broker does not answer."""
    while True:
        try:
            return await reader.poll(0.1)
        except Unavailable:
            await asyncio.sleep(0.1)


async def ever(reader: EveryOffset) -> None:
    """Poll until it raises."""
    async with asyncio.timeout(20):
        while True:
            await reader.poll(0.1)


async def follow(reader: EveryOffset, until: int, following: int, resets: int = 0) -> list[Read]:
    found: list[Read] = []
    async with asyncio.timeout(30):
        while resets or following < until:
            for row in await answer(reader):
                found.append(row)
                if isinstance(row, Reset):
                    assert row.frontier == following
                    following, resets = 0, resets - 1
                    continue
                first, last = (row.first, row.last) if isinstance(row, Gap) else (row.offset, row.offset)
                assert first == following <= last
                following = last + 1
    assert (following, resets) == (until, 0)
    return found


def values(found: Sequence[Read]) -> list[bytes | None]:
    return [row.value for row in found if isinstance(row, Record)]


def kinds(found: Sequence[Read]) -> dict[str, int]:
    """How many offsets there are of each kind of gap."""
    count: Counter[str] = Counter()
    for row in found:
        if isinstance(row, Gap):
            count[row.kind] += row.last - row.first + 1
    return dict(count)


async def test_every_offset_is_told_once(logs: Logs) -> None:
    """Records, markers and aborted records cover the log from any position to its end without overlap."""
    topic = await logs.topic()
    producer = await logs.transaction()
    for decide in (producer.commit, producer.abort, producer.commit, producer.abort):
        await producer.begin()
        for future in await producer.send(topic, 0, [Outgoing(b"k", b"v"), Outgoing(b"k", b"w")]):
            await future
        await decide()
    await producer.stop(2.0)
    await logs.ends_at(topic, 12)
    wanted = "rrmaamrrmaam"
    for start in range(12):
        found = await read(logs, topic, 12, Frontier(0, start))
        told = [row.kind[0] * (row.last - row.first + 1) if isinstance(row, Gap) else "r" for row in found]
        assert "".join(told) == wanted[start:]


async def test_transactions_that_interleave_are_told_apart(logs: Logs) -> None:
    """Of two transactions with many batches between each other's, one is committed and one aborted, in one answer."""
    topic = await logs.topic()
    good, bad = await logs.transaction(), await logs.transaction()
    for producer in (good, bad):
        await producer.begin()
    for number in range(20):
        await batches(bad, topic, b"bad")
        await batches(good, topic, b"good-%d" % number)
        await logs.plain(topic, b"plain-%d" % number)
    await good.commit()
    await batches(bad, topic, b"bad")
    await bad.abort()
    await bad.begin()
    await batches(bad, topic, b"better")
    await bad.commit()
    for producer in (good, bad):
        await producer.stop(2.0)
    await logs.ends_at(topic, 65)
    found = await read(logs, topic, 65)
    assert kinds(found) == {"aborted": 21, "marker": 3}
    assert values(found) == [name % number for number in range(20) for name in (b"good-%d", b"plain-%d")] + [b"better"]


async def test_a_position_inside_an_aborted_transaction(logs: Logs) -> None:
    """Reading begins between and within the batches of a transaction that was aborted: the rest is aborted."""
    topic = await logs.topic()
    producer = await logs.transaction()
    await producer.begin()
    await batches(producer, topic, b"a", b"b")
    for future in await producer.send(topic, 0, [Outgoing(b"k", b"c")] * 3):
        await future
    await producer.abort()
    await producer.stop(2.0)
    await logs.ends_at(topic, 6)
    for start in range(5):
        assert kinds(await read(logs, topic, 6, Frontier(0, start))) == {"aborted": 5 - start, "marker": 1}


async def test_nothing_is_told_of_a_transaction_before_it_ends(logs: Logs) -> None:
    """At an open transaction reading stops, also for what lies behind it; its end makes it known what it was."""
    topic = await logs.topic()
    producer = await logs.transaction()
    await producer.begin()
    await batches(producer, topic, b"open")
    await logs.plain(topic, b"behind")
    reader = EveryOffset(logs.broker, [topic], identity)
    await reader.seek({})
    assert [row for _ in range(4) for row in await reader.poll(0.1)] == []
    await producer.abort()
    found = await follow(reader, 3, 0)
    await reader.stop()
    await producer.stop(2.0)
    assert (values(found), kinds(found)) == ([b"behind"], {"aborted": 1, "marker": 1})


async def test_a_gap_behind_the_last_record_is_told_without_waiting(logs: Logs) -> None:
    """A log that ends with aborted records and a marker is covered to its end though no record follows."""
    topic = await logs.topic()
    producer = await logs.transaction()
    reader = EveryOffset(logs.broker, [topic], identity)
    await reader.seek({})
    await producer.begin()
    await batches(producer, topic, b"a")
    await producer.commit()
    assert kinds(await follow(reader, 2, 0)) == {"marker": 1}
    await producer.begin()
    await batches(producer, topic, b"b", b"c")
    await producer.abort()
    assert kinds(await follow(reader, 5, 2)) == {"aborted": 2, "marker": 1}
    await reader.stop()
    await producer.stop(2.0)


async def test_what_retention_removed_is_lost(logs: Logs) -> None:
    """Evicted before the reader came, and while it was about to read: told as lost, and reading goes on behind it."""
    topic = await logs.topic()
    await logs.plain(topic, *[b"%d" % number for number in range(10)])
    await logs.operator.evict((topic, 0), 4)
    found = await read(logs, topic, 10, Frontier(0, 2))
    assert (found[0], values(found)) == (Gap(topic, 0, 2, 3, "lost"), [b"4", b"5", b"6", b"7", b"8", b"9"])
    found = await read(logs, topic, 10)
    assert kinds(found) == {"lost": 4}


async def test_compacted_offsets_are_told_where_keys_are_compacted(logs: Logs) -> None:
    """What the cleaner took out is `compacted` on a topic where keys are, and `unknown` on one where they must not be."""
    topic = await logs.topic(
        config={"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.0"}
    )
    for number in range(5):
        await logs.plain(topic, b"%d" % number)
    await logs.plain(topic, b"other", key=b"j")
    await asyncio.sleep(0.3)
    await logs.plain(topic, b"behind", key=b"h")  # the cleaner leaves the segment alone that is written to
    await logs.operator.compact(topic)
    async with asyncio.timeout(60):
        while not kinds(found := await read(logs, topic, 7, compacted=True)):  # noqa: ASYNC110  nobody signals it
            await asyncio.sleep(0.5)
    assert (kinds(found), values(found)) == ({"compacted": 4}, [b"4", b"other", b"behind"])
    assert kinds(await read(logs, topic, 7)) == {"unknown": 4}
    evicted = Frontier(0, 3, Last(2, 1, "2"))
    assert kinds(await read(logs, topic, 7, evicted, compacted=True)) == {"compacted": 1}


async def newest(logs: Logs, topic: str) -> Frontier:
    """How far the topic can be read, as a log would know it."""
    end = (await logs.admin.ends([(topic, 0)]))[topic, 0]
    record = [row for row in await read(logs, topic, end) if isinstance(row, Record)][-1]
    return Frontier(0, end, Last(record.offset, record.timestamp_ms, identity(record)))


async def test_the_same_log_goes_on_behind_its_newest_record(logs: Logs) -> None:
    """A second start sees its newest record again, whatever lies between it and the frontier, and tells only what is new."""
    topic = await logs.topic()
    producer = await logs.transaction()
    await producer.begin()
    await batches(producer, topic, b"a", b"b")
    await producer.commit()
    await producer.stop(2.0)
    await logs.ends_at(topic, 3)
    known = await newest(logs, topic)
    assert known == Frontier(0, 3, Last(1, known.last.broker_ms if known.last else 0, "b"))
    await logs.plain(topic, b"c")
    assert values(await read(logs, topic, 4, known)) == [b"c"]
    assert values(await read(logs, topic, 4, Frontier(0, 2, known.last))) == [b"c"]
    producer = await logs.transaction()
    await producer.begin()
    for future in await producer.send(topic, 0, [Outgoing(b"k", b"v")] * 3):
        await future
    await producer.abort()
    await producer.stop(2.0)
    await logs.ends_at(topic, 8)
    inside = Frontier(0, 5, (await newest(logs, topic)).last)
    assert kinds(await read(logs, topic, 8, inside)) == {"aborted": 2, "marker": 1}


async def test_where_the_newest_record_was_evicted_nothing_is_claimed(logs: Logs) -> None:
    """Retention took what was read: nobody can tell any more, so reading goes on."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    await logs.operator.evict((topic, 0), 2)
    assert values(await read(logs, topic, 3, Frontier(0, 2, Last(1, 5, "something else")))) == [b"c"]


async def test_a_log_that_ends_below_us_is_another(logs: Logs) -> None:
    """Made anew and shorter while we were away: told with our frontier, then read from its first offset."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    known = await newest(logs, topic)
    await logs.again(topic)
    await logs.plain(topic, b"x")
    found = await read(logs, topic, 1, known, resets=1)
    assert (found[0], values(found)) == (Reset(topic, 0, 3), [b"x"])


@pytest.mark.parametrize("rows", [[b"a", b"b", b"c"], [b"a", b"b", b"other", b"d", b"e"]])
async def test_a_log_made_anew_is_known_by_its_newest_record(logs: Logs, rows: list[bytes]) -> None:
    """As long as ours or longer: another time or id at the newest record tells, and what was removed of the new one is lost."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    known = await newest(logs, topic)
    await asyncio.sleep(0.01)  # the broker's clock has milliseconds
    await logs.again(topic)
    await logs.plain(topic, *rows)
    await logs.operator.evict((topic, 0), 1)
    found = await read(logs, topic, len(rows), known, resets=1)
    assert found[:2] == [Reset(topic, 0, 3), Gap(topic, 0, 0, 0, "lost")]
    assert values(found) == rows[1:]


async def test_a_log_made_anew_while_we_read_is_told(logs: Logs) -> None:
    """The position is not in the new log: told at once, and once."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    reader = EveryOffset(logs.broker, [topic], identity)
    await reader.seek({})
    assert len(await follow(reader, 3, 0)) == 3
    await logs.again(topic)
    await logs.plain(topic, b"x")
    found = await follow(reader, 1, 3, resets=1)
    await reader.stop()
    assert (found[0], values(found)) == (Reset(topic, 0, 3), [b"x"])


async def test_a_topic_that_vanishes_while_we_read_is_looked_at_again(logs: Logs) -> None:
    """Made anew and longer than before: our position is in the new log, too, but its newest record is not."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    reader = EveryOffset(logs.broker, [topic], identity)
    await reader.seek({})
    await follow(reader, 3, 0)
    assert list(await reader.poll(0.3)) == []
    await logs.operator.delete(topic)
    with pytest.raises(Unavailable):
        await ever(reader)
    await logs.topic(name=topic)
    await logs.plain(topic, b"v", b"w", b"x", b"y")
    found = await follow(reader, 4, 3, resets=1)
    await reader.stop()
    assert values(found) == [b"v", b"w", b"x", b"y"]


async def test_a_partition_that_is_there_no_more_is_told(logs: Logs) -> None:
    """Made anew with fewer partitions: a partition that we had read is another, though nothing can be read of it."""
    topic = await logs.topic(partitions=2)
    await logs.again(topic)
    reader = EveryOffset(logs.broker, [topic], identity)
    await reader.seek({(topic, 1): Frontier(0, 7), (topic, 0): Frontier(0, 0)})
    assert list(await reader.poll(0.1)) == [Reset(topic, 1, 7)]
    await reader.stop()


async def test_a_topic_that_is_missing_is_named(logs: Logs) -> None:
    """Without a topic there is nothing to begin with."""
    reader = EveryOffset(logs.broker, [await logs.topic(), "offsets-none"], identity)
    await logs.operator.delete("offsets-none")
    with pytest.raises(Unavailable, match=r"topics are missing: offsets-none; .*ratchet up"):
        await reader.seek({})
    await reader.stop()
