"""The contract suite on the broker in memory."""

from collections.abc import AsyncIterator

import pytest
from streams_contract import *  # noqa: F403  the suite's tests are collected here
from streams_contract import World

from streams.memory import MemoryBroker


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A fresh broker in memory, whose groups have no offsets of themselves."""
    made = await World(MemoryBroker(4, offsets=False), "m").start()
    yield made
    await made.stop()
