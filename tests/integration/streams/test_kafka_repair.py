"""Skipping on a real broker: who is a member is asked of the broker, and the lane's own id fences."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from streams_contract import Count, World, request, run_agents

from infra.clock import SystemClock
from schemas.errors import Refused
from streams.kafka import KafkaBroker
from streams.repair import skip
from streams.runner import Runner

RUNS = itertools.count()


@pytest.fixture
async def world(kafka: str) -> AsyncIterator[World]:
    made = await World(KafkaBroker(kafka), f"rp{next(RUNS)}").start()
    yield made
    await made.stop()


async def test_a_fold_goes_on_behind_a_skipped_record(world: World) -> None:
    """Refused while the agent runs; once it is stopped the record is skipped, and the state restores past it."""
    agent = Count(world.agent("fold"))
    await world.join(agent.name, fold=True)
    clock, inputs = SystemClock(), ("ratchet.requests",)
    await world.publish(request("one", "first"))
    runner = Runner(world.broker, clock)
    runner.add_fold(agent)
    task = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(60):
            while not await world.answers(agent.name):  # noqa: ASYNC110  the broker does not signal
                await asyncio.sleep(0.1)
        row = (await world.read("ratchet.requests"))[-1]
        with pytest.raises(Refused, match="is running"):
            await skip(world.broker, clock, agent.name, inputs, row.place, fold=True, reason="r")
    finally:
        await runner.stop()
        with suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(30):
        while await world.admin.members(f"ratchet.{agent.name}"):  # noqa: ASYNC110  until its session ends
            await asyncio.sleep(0.2)
    await world.publish(request("one", "second"))
    row = (await world.read("ratchet.requests"))[-1]
    await skip(world.broker, clock, agent.name, inputs, row.place, fold=True, reason="by ada")
    await world.publish(request("one", "third"))
    agent = Count(agent.name)

    async def done() -> bool:
        return len(await world.answers(agent.name)) == 2

    await run_agents(world, done, agent)
    letters = await world.read("ratchet.requests.dlq")
    assert dict(letters[-1].headers)["ratchet-dlq-offset"] == str(row.offset).encode()
