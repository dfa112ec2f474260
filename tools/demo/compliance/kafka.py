"""What the demonstration reads of Kafka, as the administrator of its own stack, and the one thing that it does to it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.topics import full
from streams.kafka import KafkaBroker
from streams.kafka_purge import delete_before
from streams.security import Security
from streams.shapes import Record
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.demo.stage import Stage
from tools.stack.secure import administration


def rows(stage: Stage, topic: str, *types: str) -> list[dict[str, Any]]:
    """What a topic holds now, oldest first; of these types where some are named."""
    found = [as_row(record) for record in asyncio.run(records(stage, [full(topic)]))]
    return [row for row in found if not types or row["type"] in types]


async def records(stage: Stage, topics: Sequence[str]) -> list[Record]:
    """Everything that these topics hold, whoever may read them."""
    where, security = _administrator(stage)
    async with Bus(KafkaBroker(where, security), where) as bus:
        return await bus.read(await bus.starts(topics))


def lose(stage: Stage, topic: str, partition: int, through: int) -> None:
    """Delete the partition's records up to this offset."""
    where, security = _administrator(stage)
    asyncio.run(delete_before(where, {(full(topic), partition): through + 1}, security))


def behind(stage: Stage, topic: str, partition: int, group: str) -> int:
    """The offset that a group reads next there."""

    async def asked() -> int:
        where, security = _administrator(stage)
        async with Bus(KafkaBroker(where, security), where) as bus:
            return (await bus.admin.committed(group, [(full(topic), partition)])).get((full(topic), partition), -1)

    return asyncio.run(asked())


def _administrator(stage: Stage) -> tuple[str, Security]:
    found = administration(stage.state)
    if found is None:
        raise RuntimeError(f"{stage.state} has no secured Kafka of its own")
    return found
