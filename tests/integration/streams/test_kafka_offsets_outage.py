"""Each offset once while brokers die: leaders move, the one that was killed comes back, and nothing is taken for another log."""

import asyncio
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from offsets_contract import answer, batches, identity, kinds, values

from streams.kafka import KafkaBroker
from streams.port import BrokerError, TopicSpec
from streams.reader import EveryOffset, Read
from streams.shapes import Gap, Record
from tools.stack.kafka import running_cluster

TOPIC = "offsets"
ROWS = 50


async def write(broker: KafkaBroker, name: str) -> None:
    """A transaction that is committed, and one that is aborted, of `ROWS` batches each."""
    producer = broker.transactional(f"outage-{name}")
    async with asyncio.timeout(60):
        while True:  # until who leads after the death is settled: nothing is written before
            try:
                await producer.start()
                break
            except BrokerError:
                await asyncio.sleep(0.5)
        for kept in (True, False):
            await producer.begin()
            await batches(producer, TOPIC, *[f"{name}-{number}".encode() for number in range(ROWS)])
            await (producer.commit() if kept else producer.abort())
    await producer.stop(2.0)


async def leader(bootstrap: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    (topic,) = await admin.describe_topics([TOPIC])
    await admin.close()
    return topic["partitions"][0]["leader"]


async def test_each_offset_once_over_the_deaths_of_leaders(tmp_path: Path, cache_dir: Path) -> None:
    """Twice the leader is killed and started again while a reader follows what is written."""
    with running_cluster(tmp_path, cache_dir) as cluster:
        broker = KafkaBroker(cluster.bootstrap)
        admin = broker.admin()
        await admin.start()
        await admin.create([TopicSpec(TOPIC, 1, 3, {"min.insync.replicas": "1"})])
        reader = EveryOffset(broker, [TOPIC], identity)
        await write(broker, "before")
        await reader.seek({})
        found: list[Read] = []

        async def follow(records: int) -> None:
            async with asyncio.timeout(90):
                while len(values(found)) < records or kinds(found).get("aborted", 0) < records:
                    found.extend(await answer(reader))

        await follow(ROWS)
        for number in (1, 2):
            node = await leader(cluster.bootstrap)
            cluster.kill(node)
            await write(broker, f"after-{number}")
            following = asyncio.create_task(follow((number + 1) * ROWS))
            await asyncio.to_thread(cluster.start, node)
            await following
        async with asyncio.timeout(30):
            while kinds(found).get("marker") != 6:
                found.extend(await answer(reader))
        await reader.stop()
        await admin.stop()
    following = 0
    for row in found:
        assert isinstance(row, Record | Gap)
        first, last = (row.offset, row.offset) if isinstance(row, Record) else (row.first, row.last)
        assert first == following
        following = last + 1
    names = ["before", "after-1", "after-2"]
    assert values(found) == [f"{name}-{number}".encode() for name in names for number in range(ROWS)]
    assert kinds(found) == {"marker": 6, "aborted": 3 * ROWS}
