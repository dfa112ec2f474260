"""A header name that is not UTF-8, on a real broker: the broker takes it, and an agent that reads it goes on."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from streams_contract import Echo, World, request, run_agents

from schemas.codec import encode
from streams.kafka import KafkaBroker
from streams.port import Outgoing
from streams.wire import partition_of

RUNS = itertools.count()


class NoName(str):
    """A name that a careless client sends."""

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"\xff" + super().encode()


@pytest.fixture
async def world(kafka: str) -> AsyncIterator[World]:
    made = await World(KafkaBroker(kafka), f"hn{next(RUNS)}").start()
    yield made
    await made.stop()


async def test_a_name_that_is_none_stops_no_agent_and_loses_no_neighbour(kafka: str, world: World) -> None:
    """Three requests in one batch, the middle one with such a name: each is answered once, and what comes after them."""
    agent = Echo(world.agent("names"))
    await world.join(agent.name)
    sender = AIOKafkaProducer(bootstrap_servers=kafka)
    await sender.start()
    batch = sender.create_batch()
    batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 1 << 20)
    place = partition_of(b"one", 4)
    for text in ("first", "second", "third"):
        row = encode(request("one", text), event_id=f"{world.tag}-{text}", source="test", traceparent="")
        odd = ((NoName("name"), b"1"),) if text == "second" else ()
        assert batch.append(key=row.key, value=row.value, timestamp=None, headers=[*odd, *row.headers])
    try:
        await (await sender.send_batch(batch, "ratchet.requests", partition=place))
    finally:
        await sender.stop()
    row = encode(request("one", "fourth"), event_id=f"{world.tag}-fourth", source="test", traceparent="")
    await world.producer.send("ratchet.requests", place, [Outgoing(row.key, row.value, row.headers)])

    async def done() -> bool:
        return len(await world.answers(agent.name)) >= 4

    await run_agents(world, done, agent)
    causes = [dict(event.record.headers)["ratchet-cause"].decode() for event in await world.answers(agent.name)]
    assert causes == [f"{world.tag}-{text}" for text in ("first", "second", "third", "fourth")]
    assert [row.headers[0][0] for row in await world.read("ratchet.requests")].count("\ufffdname") == 1
