"""A small world of agents on the broker in memory, alive for as long as a test wants it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from streams.runner import Runner


class World(Protocol):
    """What runs: `start` sets `task` going."""

    runner: Runner
    task: "asyncio.Task[None]"

    async def start(self) -> None: ...


W = TypeVar("W", bound=World)


@asynccontextmanager
async def living(world: W) -> AsyncIterator[W]:
    """Started, and stopped at the end; what broke it is raised."""
    await world.start()
    try:
        yield world
        await world.runner.stop()
        await world.task
    finally:
        world.task.cancel()
        with suppress(asyncio.CancelledError):
            await world.task


@asynccontextmanager
async def working(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Side by side for as long as the block lasts, then cancelled; what broke one of them is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
