"""What is removed of a compacted topic goes away in the time that receipts name: on a real broker only where something is appended."""

import asyncio

from streams.kafka import KafkaBroker
from streams.port import Admin, Outgoing, TopicSpec
from streams.standing import Standing

SOON = {
    "cleanup.policy": "compact",
    "segment.ms": "500",
    "max.compaction.lag.ms": "500",
    "min.compaction.lag.ms": "0",
    "file.delete.delay.ms": "0",
}


async def kept(broker: KafkaBroker, admin: Admin, topic: str) -> set[bytes | None]:
    """The values under the key that the broker still has."""
    ((tp, first),) = (await admin.starts([(topic, 0)])).items()
    end = (await admin.ends([tp]))[tp]
    reader = broker.reader({tp: first})
    await reader.start()
    found: set[bytes | None] = set()
    try:
        while await reader.position(tp) < end:
            for rows in (await reader.poll(timeout_s=0.2, max_records=1000)).values():
                found |= {row.value for row in rows if row.key == b"subject"}
    finally:
        await reader.stop()
    return found


async def test_a_removed_key_goes_where_the_topic_is_touched_and_stays_where_it_is_not(kafka: str) -> None:
    """Two topics with the same records and settings: the cleaner takes the wrapped key of that one whose segments end."""
    broker = KafkaBroker(kafka)
    admin, producer, standing = broker.admin(), broker.producer(), Standing(broker)
    touched, quiet = "ratchet.test-touched", "ratchet.test-quiet"
    await admin.start()
    await producer.start()
    try:
        await admin.create([TopicSpec(name, 1, 1, SOON) for name in (touched, quiet)])
        assert set(await standing.ends(touched)) == {0}
        for name in (touched, quiet):
            await producer.send(name, 0, [Outgoing(b"subject", b"wrapped")])
            await producer.send(name, 0, [Outgoing(b"subject", b"removed")])
        async with asyncio.timeout(90):
            while b"wrapped" in await kept(broker, admin, touched):
                await standing.touch(touched)
                await asyncio.sleep(1)
        assert await kept(broker, admin, touched) == {b"removed"}
        assert await kept(broker, admin, quiet) == {b"wrapped", b"removed"}
        told = await standing.configs([touched, "no-such-topic"])
        assert told.keys() == {touched}
        assert told[touched].items() >= SOON.items()
    finally:
        for part in (producer, standing, admin):
            await part.stop()
