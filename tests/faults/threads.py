"""Calls in a thread that are waited for even when we are cancelled: what they start is then known, and can be ended."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def whole(call: Callable[P, T], *args: P.args, **words: P.kwargs) -> T:
    """`call` in a thread. Cancelled: waits for its end first, then is cancelled."""
    task = asyncio.create_task(asyncio.to_thread(call, *args, **words))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
