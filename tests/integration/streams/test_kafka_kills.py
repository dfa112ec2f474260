"""SIGKILL at fault points and at any moment, on a real broker: nothing lost, nothing twice, state right."""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from streams_contract import Count, Echo, World, chain_of, request, run_agents

from schemas.events import AnswerRefused
from streams.kafka import KafkaBroker
from streams.port import Lost

RUNS = itertools.count()
ROOT = Path(__file__).parents[3]
WORKER = ROOT / "tests/support/streams_worker.py"
KEYS = 12


@pytest.fixture
async def world(kafka: str) -> AsyncIterator[World]:
    made = await World(KafkaBroker(kafka), f"x{next(RUNS)}").start()
    yield made
    await made.stop()


async def _worker(kafka: str, agent: str, shape: str, point: str, nth: int) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{WORKER.parent}"}  # noqa: TID251  a child of the test
    return await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), kafka, agent, shape, point, str(nth), env=environment
    )


@pytest.mark.parametrize("shape", ["transform", "fold"])
async def test_sigkill_loses_and_repeats_nothing(world: World, kafka: str, shape: str) -> None:
    """Seven deaths, five of them inside a transaction or between its commit and memory, while requests come in."""
    agent = world.agent(shape)
    await world.join(agent, fold=shape == "fold")
    ids_of: dict[str, list[str]] = {f"{world.tag}-{n}": [] for n in range(KEYS)}
    deaths = [("begun", 2), ("sent", 3), ("acknowledged", 2), ("offsets", 3), ("ended", 4), ("never", 1), ("never", 1)]
    wanted = 0
    for number, (point, nth) in enumerate(deaths):
        process = await _worker(kafka, agent, shape, point, nth)
        rounds = 0
        while process.returncode is None:
            for key in ids_of:
                ids_of[key] += await world.publish(request(key, f"{number}.{rounds}"))
                wanted += 1
            rounds += 1
            await asyncio.sleep(0.02)
            if point == "never" and rounds == 60:
                process.send_signal(signal.SIGKILL)
            assert rounds < 800, f"the worker did not die at {point}"
        assert await process.wait() == -signal.SIGKILL
    process = await _worker(kafka, agent, shape, "never", 1)
    try:
        async with asyncio.timeout(60):
            while len(await world.answers(agent)) < wanted:  # noqa: ASYNC110  the broker does not signal
                await asyncio.sleep(0.2)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    answers = await world.answers(agent)
    assert len(answers) == len({event.id for event in answers}) == wanted
    for key, names in ids_of.items():
        reasons = [e.data.reason for e in answers if e.key == key and isinstance(e.data, AnswerRefused)]
        if shape == "fold":
            assert reasons == chain_of(names)
        else:
            assert reasons == sorted(reasons, key=lambda text: [int(part) for part in text.split(".")])


@pytest.mark.parametrize("point", ["fenced", "committed", "restored", "accepted", "sent", "offsets", "ended", "done"])
async def test_a_lane_that_loses_its_broker_at_a_point_reopens(world: World, point: str) -> None:
    """The lost connection drops the lane; reopened, it finds out what became of the transaction."""
    count, echo = Count(world.agent("count")), Echo(world.agent("echo"))
    await world.join(count.name, fold=True)
    await world.join(echo.name)
    names = await world.publish(*(request(world.tag, f"t{n}") for n in range(30)))
    struck: set[str] = set()

    async def strike(at: str, agent: str, partition: int) -> None:
        if at == point and agent not in struck:
            struck.add(agent)
            raise Lost("by the test")

    async def done() -> bool:
        return all([len(await world.answers(name)) >= 30 for name in (count.name, echo.name)])

    await run_agents(world, done, count, echo, fault=strike)
    assert struck == {count.name, echo.name}
    chained = [e.data.reason for e in await world.answers(count.name) if isinstance(e.data, AnswerRefused)]
    echoed = [e.data.reason for e in await world.answers(echo.name) if isinstance(e.data, AnswerRefused)]
    assert chained == chain_of(names)
    assert echoed == [f"t{n}" for n in range(30)]
