"""No connection outlives its client, at whatever instant its start or its stop is cut off."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection  # pyright: ignore[reportMissingTypeStubs]
from streams_contract import Noted

from schemas.topics import TopicPlan
from streams.admin import ensure_topics
from streams.kafka import KafkaBroker
from streams.port import BrokerError

NAMES = itertools.count()
STEP_S, STEPS = 0.0005, 40  # a start takes about ten milliseconds


@pytest.fixture
async def broker(kafka: str) -> AsyncIterator[KafkaBroker]:
    """With one topic of two partitions, and nothing open before and after."""
    await ensure_topics(kafka, 2, 1, wanted=[TopicPlan("connections", {})])
    gc.collect()
    assert open_now() == []
    yield KafkaBroker(kafka)
    assert open_now() == []


def open_now() -> list[str]:
    """The connections to Kafka that this process holds, those included that nobody knows of any more."""
    found: list[Any] = [
        one for one in gc.get_objects() if type(one) is AIOKafkaConnection
    ]  # isinstance() runs others' code
    return [repr(one) for one in found if one.connected()]


def clients(broker: KafkaBroker) -> dict[str, Callable[[], Any]]:
    """One of each, made anew at each call."""
    return {
        "producer": broker.producer,
        "transactional": lambda: broker.transactional(f"connections.{next(NAMES) % 2}"),
        "reader": lambda: broker.reader({("connections", 0): 0}),
        "member": lambda: broker.group_reader(["connections"], f"connections.{next(NAMES)}", "m", Noted()),
        "admin": broker.admin,
    }


async def cut(doing: Any, after_s: float) -> None:
    """Do it, and cancel it after a while. What it raised instead is no matter here."""
    task = asyncio.ensure_future(doing)
    await asyncio.wait([task], timeout=after_s)
    task.cancel()
    with suppress(asyncio.CancelledError, BrokerError):
        await task


async def stop(client: Any) -> None:
    """As its owner does."""
    await (client.stop(1.0) if hasattr(client, "begin") else client.stop())


@pytest.mark.parametrize("kind", clients(KafkaBroker("")))
async def test_a_start_that_is_cut_off(broker: KafkaBroker, kind: str) -> None:
    """Cancelled at forty instants, then stopped."""
    for step in range(STEPS):
        client = clients(broker)[kind]()
        await cut(client.start(), step * STEP_S)
        await stop(client)
    await asyncio.sleep(0.1)
    assert open_now() == []


@pytest.mark.parametrize("kind", clients(KafkaBroker("")))
async def test_a_stop_that_is_cut_off(broker: KafkaBroker, kind: str) -> None:
    """Cancelled at forty instants, and not tried again."""
    for step in range(STEPS):
        client = clients(broker)[kind]()
        await client.start()
        await cut(stop(client), step * STEP_S / 4)
    await asyncio.sleep(0.1)
    assert open_now() == []
    assert [task for task in asyncio.all_tasks() if "aiokafka" in repr(task)] == []
