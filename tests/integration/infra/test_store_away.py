"""Redis away or hung: `Unavailable` within the bound, at once while it is known, and found again by itself."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from infra.store import Limit, Store
from infra.store_redis import RedisStore
from schemas.errors import Unavailable
from tools.stack.ports import free_ports
from tools.stack.processes import Running, kill
from tools.stack.redis import start_redis

T = TypeVar("T")
BOUND_S = 0.005
SLACK_S = 0.5  # a machine that does other work too; a hung server takes for ever

CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.get("k"),
    lambda store: store.mget(["k", "l"]),
    lambda store: store.put("k", b"v", 1),
    lambda store: store.set_if_absent("k", b"v", 1),
    lambda store: store.delete("k"),
    lambda store: store.add("n", 1, 1),
    lambda store: store.counts(["n"]),
    lambda store: store.acquire("l", "t", 1),
    lambda store: store.release("l", "t"),
    lambda store: store.take("t", (Limit(1, 1),), (1,)),
    lambda store: store.reserve("p", "r", 1, 1),
    lambda store: store.settle("p", "r", 1, 1),
    lambda store: store.spent(["p"]),
    lambda store: store.lift("p", 1, 1),
    lambda store: store.append("log", b"v", 1, 1),
    lambda store: store.tail("log", "", 1),
]


class Server:
    """A Redis of the test's own, to kill, stop and let go on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self.running: Running = start_redis(folder, self.port)

    def signal(self, which: signal.Signals) -> None:
        os.kill(self.running.pid, which)

    def again(self) -> None:
        self.running = start_redis(self._folder, self.port)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A running server, gone afterwards whatever the test did to it."""
    made = Server(tmp_path)
    yield made
    kill(made.running)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    """A store that has reached the server once."""
    made = RedisStore(f"redis://127.0.0.1:{server.port}/0", timeout_s=BOUND_S)
    await made.ping()
    yield made
    await made.close()


async def at_last(call: Callable[[], Awaitable[T]]) -> T:
    """What a call says once it gets through: five milliseconds are short on a busy machine."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("call", CALLS)
async def test_each_call_ends_in_bound_when_redis_hangs(
    server: Server, store: RedisStore, call: Callable[[Store], Awaitable[object]]
) -> None:
    """A stopped server accepts connections and never answers: every call is Unavailable in milliseconds."""
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="Redis did not answer"):
            await call(store)
        assert time.monotonic() - began < BOUND_S + SLACK_S
    finally:
        server.signal(signal.SIGCONT)


async def test_a_hung_server_is_asked_once_and_found_again(server: Server, store: RedisStore) -> None:
    """A thousand calls to a hung server take no thousand bounds; once it goes on, the store does too, and forgets nothing."""
    await at_last(lambda: store.put("k", b"v", 100))
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        for _ in range(1000):
            with pytest.raises(Unavailable):
                await store.get("k")
        assert time.monotonic() - began < 1000 * BOUND_S / 2
    finally:
        server.signal(signal.SIGCONT)
    assert await at_last(lambda: store.get("k")) == b"v"


async def test_replies_are_never_crossed(server: Server, store: RedisStore) -> None:
    """Calls that were given up while the server hung leave no reply behind for the next ones."""
    keys = [f"k{number}" for number in range(40)]
    for key in keys:
        await at_last(lambda key=key: store.put(key, key.encode(), 100))
    for _ in range(5):
        asked = [asyncio.create_task(store.get(key)) for key in keys]
        await asyncio.sleep(0)
        server.signal(signal.SIGSTOP)
        try:
            found = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            server.signal(signal.SIGCONT)
        for key, one in zip(keys, found, strict=True):
            assert isinstance(one, Unavailable) or one == key.encode()
        for key in keys[:5]:
            assert await at_last(lambda key=key: store.get(key)) == key.encode()


async def test_killed_and_back(server: Server, store: RedisStore) -> None:
    """A killed server is Unavailable at once, and used again by itself, cold, its scripts loaded anew."""
    await at_last(lambda: store.reserve("p", "r", 5, 100))
    kill(server.running)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="Redis did not answer"):
        await store.spent(["p"])
    assert time.monotonic() - began < BOUND_S + SLACK_S
    server.again()
    assert await at_last(lambda: store.spent(["p"])) == [0]
    assert await at_last(lambda: store.lift("p", 5, 100)) == 5


async def test_a_ping_finds_it_at_once(server: Server, store: RedisStore) -> None:
    """A ping asks even a server that was away; its answer opens the store."""
    kill(server.running)
    with pytest.raises(Unavailable):
        await store.get("k")
    with pytest.raises(Unavailable):
        await store.ping()
    server.again()
    await store.ping()
    assert await at_last(lambda: store.get("k")) is None


async def test_more_calls_than_connections_wait(server: Server) -> None:
    """Who finds no free connection waits for one: that is no outage."""
    store = RedisStore(f"redis://127.0.0.1:{server.port}/0", timeout_s=2.0, connections=2)
    await store.ping()
    assert await asyncio.gather(*(store.get("k") for _ in range(200))) == [None] * 200
    await store.close()


async def test_a_fault_of_ours_does_not_shut_the_store(server: Server) -> None:
    """An answer that is an error is an answer: the next call goes through."""
    patient = RedisStore(f"redis://127.0.0.1:{server.port}/0", timeout_s=2.0)
    await patient.append("log", b"v", 1, 10)
    with pytest.raises(Unavailable, match="ResponseError"):
        await patient.get("log")
    assert await patient.get("k") is None
    await patient.close()


async def test_a_busy_process_does_not_call_the_server_away(store: RedisStore) -> None:
    """Each turn of the loop takes longer than the bound, and a call needs several: it is this process that is late."""
    await at_last(lambda: store.put("k", b"v", 60))
    loop, busy = asyncio.get_running_loop(), True

    def work() -> None:
        time.sleep(2 * BOUND_S)  # other requests
        if busy:
            loop.call_soon(work)

    work()
    assert await asyncio.gather(*(store.get("k") for _ in range(20))) == [b"v"] * 20
    busy = False
