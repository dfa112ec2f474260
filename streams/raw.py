"""The yardstick of `ratchet bench streams`: the loops that a careful person writes by hand on the client.

They have the client settings of `kafka.py`, one group member, one task and (transactional) one producer per partition, and do
the same work per event. None of them survives what a lane survives: nothing but the benchmark may use them.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportArgumentType=false, reportCallIssue=false
# aiokafka ships no types, as in kafka.py.

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.kafka_edge import quiet_client_logs
from streams.kafka_settings import CONSUMER, PRODUCER, TRANSACTION_TIMEOUT_MS
from streams.port import TP, Outgoing
from streams.shapes import Record

Calls = Literal["record", "batch"]
Work = Callable[[Record], Outgoing]
POLL_MS = 200


class Watch(Protocol):
    """Told when the first records have come and when the last are committed."""

    def begin(self) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a loop does: `events` of `source`, equally many per partition, to `target`. No `work`: key, value and headers pass."""

    bootstrap: str
    source: str
    target: str
    partitions: int
    events: int
    batch: int
    group: str
    work: Work | None = None

    @property
    def each(self) -> int:
        return self.events // self.partitions


async def consume(job: Job, watch: Watch) -> None:
    """Poll and drop, at `read_committed`."""
    async with _consumer(job) as consumer:
        left = job.events
        while left:
            for rows in (await consumer.getmany(timeout_ms=POLL_MS, max_records=job.batch)).values():
                watch.begin()
                left -= len(rows)
        watch.end()


async def at_least_once(job: Job, watch: Watch, calls: Calls) -> None:
    """Send, await every acknowledgement, commit the offset. One idempotent producer, a task per partition."""
    async with _consumer(job) as consumer, _producer(job, "", enable_idempotence=True) as producer:

        async def one(number: int) -> None:
            tp, left = TopicPartition(job.source, number), job.each
            while left:
                rows = await _take(consumer, [tp], min(job.batch, left), watch)
                left -= len(rows)
                for future in await _send(producer, job, rows, calls):
                    await future
                await consumer.commit({tp: rows[-1].offset + 1})

        await _all(one(number) for number in range(job.partitions))
        watch.end()


async def transactional(job: Job, watch: Watch, calls: Calls, ids: Literal["one", "each"]) -> None:
    """A transaction per `batch`: outputs and offsets. With one id all partitions share it; else each has a producer and a task."""
    async with _consumer(job) as consumer:
        if ids == "one":
            tps = [TopicPartition(job.source, number) for number in range(job.partitions)]
            await _transactions(job, watch, consumer, tps, job.events, calls)
        else:
            await _all(
                _transactions(job, watch, consumer, [TopicPartition(job.source, number)], job.each, calls)
                for number in range(job.partitions)
            )
        watch.end()


async def _transactions(job: Job, watch: Watch, consumer: Any, tps: Sequence[Any], left: int, calls: Calls) -> None:
    name = f"{job.group}-{'all' if len(tps) > 1 else tps[0].partition}"
    async with _producer(job, name, transactional_id=name, transaction_timeout_ms=TRANSACTION_TIMEOUT_MS) as producer:
        while left:
            rows = await _take(consumer, tps, min(job.batch, left), watch)
            left -= len(rows)
            await producer.begin_transaction()
            sent = await _send(producer, job, rows, calls)
            following = {TopicPartition(row.topic, row.partition): row.offset + 1 for row in rows}
            await producer.send_offsets_to_transaction(following, job.group)
            for future in sent:
                await future
            await producer.commit_transaction()


async def _take(consumer: Any, tps: Sequence[Any], count: int, watch: Watch) -> list[Any]:
    """Exactly `count` records."""
    rows: list[Any] = []
    while len(rows) < count:
        for found in (await consumer.getmany(*tps, timeout_ms=POLL_MS, max_records=count - len(rows))).values():
            watch.begin()
            rows += found
    return rows


async def _send(producer: Any, job: Job, rows: Sequence[Any], calls: Calls) -> list[Awaitable[Any]]:
    if calls == "batch":
        return await _send_batches(producer, job, rows)
    sent: list[Awaitable[Any]] = []
    for row in rows:
        key, value, headers = _out(job.work, row)
        sent.append(await producer.send(job.target, value, key, partition=row.partition, headers=headers))
    return sent


async def _send_batches(producer: Any, job: Job, rows: Sequence[Any]) -> list[Awaitable[Any]]:
    sent: list[Awaitable[Any]] = []
    batches: dict[int, Any] = {}
    for row in rows:
        key, value, headers = _out(job.work, row)
        batch = batches.get(row.partition)
        if batch is None:
            batch = batches[row.partition] = producer.create_batch()
        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            sent.append(await producer.send_batch(batch, job.target, partition=row.partition))
            batch = batches[row.partition] = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=headers)
    for number, batch in batches.items():
        sent.append(await producer.send_batch(batch, job.target, partition=number))
    return sent


def _out(work: Work | None, row: Any) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    if work is None:
        return row.key, row.value, list(row.headers)
    made = work(Record(row.topic, row.partition, row.offset, row.key, row.value, row.headers, row.timestamp))
    return made.key, made.value, list(made.headers)


async def _all(work: Any) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in work:
            group.create_task(coroutine)


@asynccontextmanager
async def _consumer(job: Job) -> AsyncGenerator[Any]:
    quiet_client_logs()
    consumer = AIOKafkaConsumer(
        job.source,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        auto_offset_reset="earliest",
        **CONSUMER,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _producer(job: Job, name: str, **more: Any) -> AsyncGenerator[Any]:
    producer = AIOKafkaProducer(
        bootstrap_servers=job.bootstrap,
        client_id=name or job.group,
        retry_backoff_ms=5,
        **PRODUCER,
        **more,
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


async def count_uncommitted(bootstrap: str, starts: Mapping[TP, int]) -> int:
    """Records from these offsets to the end, those of aborted transactions among them."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, isolation_level="read_uncommitted"
    )
    found = 0
    try:
        await consumer.start()
        tps = [TopicPartition(*tp) for tp in starts]
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, starts[tp.topic, tp.partition])
        ends = await consumer.end_offsets(tps)
        for tp in tps:
            while await consumer.position(tp) < ends[tp]:
                rows = (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, [])
                found += sum(row.offset < ends[tp] for row in rows)
    finally:
        await consumer.stop()
    return found
