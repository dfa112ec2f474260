"""Commands that are asked for while another is under way go together: one write, one read, each with an answer of its own.

A decision asks the store some six times, and hundreds of decisions are at work at once: the client spends more on each round trip than on
what is in it. A command that comes alone goes at once.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

MOST = 256  # commands of one write
Asked = tuple[tuple[Any, ...], "asyncio.Future[Any]"]


class Line:
    """Asks in the order of the calls, over one connection at a time. Bounds are the caller's, who may also stop waiting."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._waiting: list[Asked] = []
        self._under_way: list[Asked] = []
        self._task: asyncio.Task[None] | None = None

    def ask(self, *command: Any) -> Awaitable[Any]:
        """The command's own answer; raises its own error, or that of the connection."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._task is None:
            self._task = asyncio.create_task(self._send())
        return future

    def drop(self) -> None:
        """Give up what is under way, and its connection with it: no later command gets an answer to an earlier one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        asked, self._under_way, self._waiting = [*self._under_way, *self._waiting], [], []
        _fail(asked, Disconnected("given up"))

    async def close(self) -> None:
        """Give up everything; returns when the connection is given back."""
        task = self._task
        self.drop()
        if task is not None:
            await asyncio.wait([task])

    async def _send(self) -> None:
        mine = asyncio.current_task()
        try:
            while self._waiting and self._task is mine:
                asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                self._under_way = [one for one in asked if not one[1].done()]
                await self._ask_all(self._under_way)
        finally:
            if self._task is mine:
                self._task = None

    async def _ask_all(self, asked: list[Asked]) -> None:
        """A pipeline that is no transaction. The client lets go of a connection on which it was cancelled."""
        if not asked:
            return
        pipe = self._redis.pipeline(transaction=False)
        for command, _ in asked:
            pipe.execute_command(*command)
        try:
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for (command, future), answer in zip(asked, answers, strict=True):
                if isinstance(answer, Exception):
                    _fail([(command, future)], answer)
                elif not future.done():
                    future.set_result(answer)
        except (RedisError, OSError, TimeoutError) as fault:
            _fail(asked, fault)
        finally:
            _fail(asked, Disconnected("given up"))


def _fail(asked: list[Asked], fault: Exception) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(fault)
