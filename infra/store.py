"""Store: a shared cache with expiry. Redis in use, a dictionary in tests; the port and both adapters.

Nothing that decides is only here: it may lose everything at any time. A value set is seen by every process until it expires,
is evicted or the server restarts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from schemas.errors import Unavailable


class Store(Protocol):
    """Keys to bytes, each with a time to live. Every call ends within the adapter's bound or raises `Unavailable`."""

    async def get(self, key: str) -> bytes | None: ...

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        """Set the value unless the key has one; return what the store holds afterwards, the winner's for every caller."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class RedisStore:
    """The store on Redis (6.2 or newer). Connects at the first call; a call after a failure connects anew."""

    def __init__(self, url: str, *, timeout_s: float = 0.05, prefix: str = "ratchet:", connections: int = 64) -> None:
        self._bound_s = timeout_s
        self._prefix = prefix
        self._redis: Any = cast("Any", Redis).from_url(  # its methods are typed for both of its clients at once
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=max(timeout_s, 0.25),
            max_connections=connections,
            retry=Retry(NoBackoff(), 1),  # one more try on a fresh connection: an idle one may have been closed
        )

    async def get(self, key: str) -> bytes | None:
        return await self._bounded(self._redis.get(self._prefix + key))

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        return await self._bounded(self._redis.mget([self._prefix + key for key in keys]))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._bounded(self._redis.set(self._prefix + key, value, px=_milliseconds(ttl_s)))

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        # NX with GET needs Redis 7; a pipeline of two is one round trip, and 6.2 knows it. Whoever lost reads the winner.
        pipe = self._redis.pipeline(transaction=True)
        pipe.set(self._prefix + key, value, px=_milliseconds(ttl_s), nx=True)
        pipe.get(self._prefix + key)
        held: bytes | None = (await self._bounded(pipe.execute()))[1]
        return value if held is None else held  # None: evicted or expired in between; ours is then as good as any

    async def ping(self) -> None:
        await self._bounded(self._redis.ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _bounded(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(4 * self._bound_s + 0.25):
                return await call
        except (RedisError, OSError, TimeoutError) as fault:
            raise Unavailable(f"Redis did not answer: {type(fault).__name__}", retry_after_s=0.2) from fault


class MemoryStore:
    """The store in memory: the contract of Redis for tests. `cut()` takes it away, `mend()` brings it back, emptied as Redis would be."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, bytes]] = {}
        self._away = False
        self._closed = False

    def cut(self) -> None:
        """From here every call raises `Unavailable`."""
        self._away = True

    def mend(self) -> None:
        """Answer again, with nothing remembered."""
        self._away = False
        self._held.clear()

    async def get(self, key: str) -> bytes | None:
        self._check()
        return self._live(key)

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        self._check()
        return [self._live(key) for key in keys]

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._check()
        self._set(key, value, ttl_s)

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        self._check()
        held = self._live(key)
        if held is None:
            self._set(key, value, ttl_s)
            return value
        return held

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        self._closed = True

    def _set(self, key: str, value: bytes, ttl_s: float) -> None:
        self._held[key] = (self._clock() + _milliseconds(ttl_s) / 1000, bytes(value))

    def _live(self, key: str) -> bytes | None:
        found = self._held.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._held[key]
            return None
        return found[1]

    def _check(self) -> None:
        assert not self._closed, "the store was used after close()"  # noqa: S101  a fake fails the test on misuse
        if self._away:
            raise Unavailable("the store in memory was cut off", retry_after_s=0.2)


def _milliseconds(ttl_s: float) -> int:
    if not ttl_s > 0:
        raise ValueError(f"a time to live is above 0 s, not {ttl_s!r}")
    return max(1, round(ttl_s * 1000))
