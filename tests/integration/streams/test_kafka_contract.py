"""The contract suite on a real broker."""

import itertools
from collections.abc import AsyncIterator

import pytest
from streams_contract import *  # noqa: F403  the suite's tests are collected here
from streams_contract import World

from streams.kafka import KafkaBroker

RUNS = itertools.count()


@pytest.fixture
async def world(kafka: str) -> AsyncIterator[World]:
    """The shared broker, with names of this test's own."""
    made = await World(KafkaBroker(kafka), f"k{next(RUNS)}").start()
    yield made
    await made.stop()
