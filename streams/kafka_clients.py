"""A client of Kafka leaves nothing behind, at whatever instant its start or its stop is cut off.

aiokafka loses sight of a connection that a cancelled start has just opened (the client does not hold it yet) and of one that a request
opens while the client closes; a stop that is cancelled leaves the rest of its tasks running, and some swallow the cancellation. Nobody
ends those: they hold a socket here and at the broker until the garbage collector finds them.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportPrivateUsage=false
# pyright: reportAttributeAccessIssue=false
# aiokafka ships no types.

import asyncio
from collections.abc import Collection, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from aiokafka import client as kafka_client
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError

TASKS = (
    ("_sender", "_sender_task"),
    ("_coordinator", "_coordination_task"),
    ("_coordinator", "_heartbeat_task"),
    ("_coordinator", "_commit_refresh_task"),
    ("_coordinator", "_reset_committed_task"),
    ("_fetcher", "_fetch_task"),
)  # what a consumer or a producer keeps running, by the part that runs it
END_S = 0.5

_opened: ContextVar[list[tuple[Any, Any]] | None] = ContextVar("opened", default=None)
_closed: WeakSet[Any] = WeakSet()


async def _connect(*args: Any, on_close: Any = None, **options: Any) -> Any:
    """In the place of the client's own function: the first connection of a start is noted, a closed client gets none."""
    connection: Any = await create_conn(*args, on_close=on_close, **options)
    if on_close is None:
        if (opened := _opened.get()) is not None:
            opened.append((connection, connection._writer.transport))  # noqa: SLF001
    elif on_close.__self__ in _closed:
        drop(connection)
        raise KafkaConnectionError("the client is closed")
    return connection


@contextmanager
def opening() -> Generator[None]:
    """Around a client's start: where it fails or is cut off, no connection is left that the client does not know of.

    Nor is one left that the client has closed without waiting, as it does with the first: over TLS that would take a farewell.
    """
    kafka_client.create_conn = _connect
    opened: list[tuple[Any, Any]] = []
    before = _opened.set(opened)
    with ExitStack() as undo:
        undo.callback(_close_all, opened)
        try:
            yield
        finally:
            _opened.reset(before)
        undo.pop_all()
        _close_all([(connection, transport) for connection, transport in opened if not connection.connected()])


def drop(connection: Any) -> None:
    """Close a connection on which nothing is under way, at once: the farewell of TLS may outlive the event loop."""
    writer = connection._writer  # noqa: SLF001
    connection.close()
    if writer is not None:
        writer.transport.abort()


def _close_all(opened: Collection[tuple[Any, Any]]) -> None:
    for connection, transport in opened:
        connection.close()
        transport.abort()


async def start(*clients: Any) -> None:
    """Start clients one after the other; where one fails or is cut off, all of them are closed."""
    async with AsyncExitStack() as undo:
        for client in clients:
            undo.push_async_callback(close, client)
        with opening():
            for client in clients:
                await client.start()
        await asyncio.sleep(0)  # let their tasks begin: a client cannot stop one that never ran
        undo.pop_all()


async def close(client: Any, within_s: float | None = None) -> None:
    """Stop a consumer, a producer or an admin client, started or not; a second call does nothing.

    Where it raises, and where the caller is cancelled meanwhile, its connections and its tasks are ended all the same. So they
    are `within_s`, where that is given: the client's own stop would wait for the broker. Then TimeoutError.
    """
    own_s = None if within_s is None else max(within_s - 2 * END_S, within_s / 2)
    task = asyncio.current_task()
    cancelled = 0 if task is None else task.cancelling()
    try:
        async with asyncio.timeout(own_s):
            await (client.stop() if hasattr(client, "stop") else client.close())
    finally:
        await _end(client)
    if task is not None and task.cancelling() > cancelled:
        raise asyncio.CancelledError  # the client took it for the end of one of its own tasks


async def _end(client: Any) -> None:
    """What is left of it."""
    network = client.client if hasattr(client, "client") else client._client  # noqa: SLF001
    _closed.add(network)
    found = (getattr(getattr(client, part, None), name, None) for part, name in TASKS)
    tasks: set[asyncio.Task[Any]] = {one for one in found if one is not None and not one.done()}
    tasks |= {one for one in getattr(getattr(client, "_fetcher", None), "_pending_tasks", ()) if not one.done()}
    for one in tasks:
        one.cancel()
    # A fenced producer fails also what nobody awaits; the garbage collector would complain of it wherever it comes by.
    for batches in getattr(getattr(client, "_message_accumulator", None), "_batches", {}).values():
        for waiter in [batch._drain_waiter for batch in batches if batch._drain_waiter.done()]:  # noqa: SLF001
            waiter.exception()
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):  # a broker that takes nothing more would hold what was still to be sent
            await network.close()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)
