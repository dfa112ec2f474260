"""What the port does not offer and a fault test must see: aborted records, leaders, coordinators, a member that shakes a group."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# aiokafka ships no types.
import asyncio
import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

JOIN_S = 20.0


async def uncommitted(bootstrap: str, topic: str, partitions: int) -> list[tuple[int, int, bytes | None]]:
    """(partition, offset, key) of every record of a topic, those of open and aborted transactions as well."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_uncommitted", enable_auto_commit=False
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, 0)
        ends = await consumer.end_offsets(tps)
        found: list[tuple[int, int, bytes | None]] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for rows in (await consumer.getmany(timeout_ms=100, max_records=5000)).values():
                found += [(row.partition, row.offset, row.key) for row in rows]
        return found
    finally:
        await consumer.stop()


async def shake(bootstrap: str, group: str, topics: Sequence[str]) -> None:
    """Join a group and leave it: everything is revoked and assigned twice. Reads and commits nothing.

    It leaves only when it has joined: the broker would wait for one that left before until its session ends.
    """
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
        rebalance_timeout_ms=10_000,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(JOIN_S):
            while not consumer.assignment():  # noqa: ASYNC110  the client tells nobody
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    finally:
        await consumer.stop()


async def fill_offsets(bootstrap: str, records: int) -> None:
    """Make the first partition of the offsets topic long, with a group of nobody's: a broker reads all of it when it starts."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id="__admin_client",
        acks=1,
        max_batch_size=900_000,
        max_request_size=1_000_000,
    )
    await producer.start()
    try:
        key = struct.pack(">hh6sh6si", 1, 6, b"nobody", 6, b"nobody", 0)
        value = struct.pack(">hqihq", 3, 1, -1, 0, 1)
        while records > 0:
            batch = producer.create_batch()
            while records > 0 and batch.append(key=key, value=value, timestamp=None) is not None:
                records -= 1
            await (await producer.send_batch(batch, "__consumer_offsets", partition=0))
    finally:
        await producer.stop()


async def _admin(bootstrap: str) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    return admin


async def coordinator(bootstrap: str, group: str) -> int:
    """The node that coordinates a group."""
    admin = await _admin(bootstrap)
    try:
        return await admin.find_coordinator(group)
    finally:
        await admin.close()


async def leader(bootstrap: str, topic: str, partition: int) -> int:
    """The node that leads a partition."""
    admin = await _admin(bootstrap)
    try:
        found = await admin.describe_topics([topic])
        return next(row["leader"] for row in found[0]["partitions"] if row["partition"] == partition)
    finally:
        await admin.close()


async def whole(bootstrap: str, topics: Sequence[str], replicas: int) -> None:
    """Wait until every partition has all its replicas in sync."""
    admin = await _admin(bootstrap)
    try:
        while True:
            found = await admin.describe_topics(list(topics))
            if all(len(row["isr"]) >= replicas for topic in found for row in topic["partitions"]):
                return
            await asyncio.sleep(0.5)
    finally:
        await admin.close()
