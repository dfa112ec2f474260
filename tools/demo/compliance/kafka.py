"""What the demonstration reads of Kafka, as the administrator of its own stack, and the one thing that it does to it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from schemas.errors import Unavailable
from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from schemas.topics import full
from streams.kafka import KafkaBroker
from streams.kafka_purge import delete_before
from streams.port import Admin, BrokerError
from streams.security import Security
from streams.shapes import Record
from tools.demo.stage import Stage
from tools.stack.secure import administration


def rows(stage: Stage, topic: str, *types: str) -> list[dict[str, Any]]:
    """What a topic holds now, oldest first: `type`, `key`, `partition`, `offset` and `data`; of these types where some are named."""
    found = [_row(record) for record in asyncio.run(records(stage, [full(topic)]))]
    return [row for row in found if not types or row["type"] in types]


def _row(record: Record) -> dict[str, Any]:
    headers = dict(record.headers)
    try:
        value: object = json.loads(record.value or b"{}")
    except ValueError:
        value = {}
    return {
        "type": headers.get("ce_type", b"").decode().removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX),
        "key": (record.key or b"").decode("utf-8", "replace"),
        "partition": record.partition,
        "offset": record.offset,
        "data": cast("dict[str, Any]", value) if isinstance(value, dict) else {},
    }


async def records(stage: Stage, topics: Sequence[str]) -> list[Record]:
    """Everything that these topics hold, whoever may read them, by its time."""
    async with _opened(stage) as (broker, admin):
        counts = await admin.partitions(topics)
        every = [(topic, number) for topic, count in counts.items() for number in range(count)]
        starts, ends = await admin.starts(every), await admin.ends(every)
        left = {tp: at for tp, at in starts.items() if at < ends[tp]}
        if not left:
            return []
        reader = broker.reader(left)
        found: list[Record] = []
        await reader.start()
        try:
            waiting = set(left)
            while waiting:
                for tp, some in (await reader.poll(timeout_s=0.2, max_records=2000)).items():
                    found += [record for record in some if record.offset < ends[tp]]
                waiting = {tp for tp in waiting if await reader.position(tp) < ends[tp]}
        finally:
            await reader.stop()
    return sorted(found, key=lambda record: record.timestamp_ms)


def lose(stage: Stage, topic: str, partition: int, through: int) -> None:
    """Delete the partition's records up to this offset."""
    where, security = _administrator(stage)
    asyncio.run(delete_before(where, {(full(topic), partition): through + 1}, security))


def behind(stage: Stage, topic: str, partition: int, group: str) -> int:
    """The offset that a group reads next there; below 0 where that is not known."""

    async def asked() -> int:
        async with _opened(stage) as (_, admin):
            return (await admin.committed(group, [(full(topic), partition)])).get((full(topic), partition), -1)

    return asyncio.run(asked())


@asynccontextmanager
async def _opened(stage: Stage) -> AsyncGenerator[tuple[KafkaBroker, Admin]]:
    where, security = _administrator(stage)
    broker = KafkaBroker(where, security)
    admin = broker.admin()
    try:
        await admin.start()
        try:
            yield broker, admin
        finally:
            await admin.stop()
    except BrokerError as fault:
        raise Unavailable(f"Kafka at {where} is away: {fault}") from fault


def _administrator(stage: Stage) -> tuple[str, Security]:
    found = administration(stage.state)
    if found is None:
        raise RuntimeError(f"{stage.state} has no secured Kafka of its own")
    return found
