"""The store on Redis (6.2 or newer): at most one round trip a call, each within a bound, and none to a server that is known to be away."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from infra import limits as scripts
from infra.limits import ONCE_S, Limit, Taken, check_amounts, check_money, milliseconds
from infra.redis_line import Line
from schemas.errors import Unavailable

CONNECT_S = 0.25  # more than a call has, for the first connection and for finding a lost server again
PARTS = 16  # in which a bound is counted
PROBE_S = 0.05


@contextlib.asynccontextmanager
async def _within(bound_s: float) -> AsyncGenerator[None]:
    """`TimeoutError` after the bound, counted in parts: what this process is late itself, for it has more to do than it can, is not the
    server's. Else quota, ledger and cache would be gone under load, when they are needed most."""
    loop, left = asyncio.get_running_loop(), PARTS
    async with asyncio.timeout(None) as limit:

        def gone() -> None:
            nonlocal left, handle
            left -= 1
            if left:
                handle = loop.call_later(bound_s / PARTS, gone)
            else:
                limit.reschedule(loop.time())

        handle = loop.call_later(bound_s / PARTS, gone)
        try:
            yield
        finally:
            handle.cancel()


class RedisStore:
    """Connects at the first call, which has `CONNECT_S` more than `timeout_s`, the bound of every later one.

    A call that fails shuts the store: calls raise `Unavailable` at once, without a wait, until a ping in the background has come
    back. Hundreds of calls a second must not wait for a hung server one after the other, nor open connections to it.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.05, prefix: str = "ratchet:", connections: int = 64) -> None:
        self._bound_s = timeout_s
        self._prefix = prefix
        pool = cast("Any", BlockingConnectionPool).from_url(
            url,
            max_connections=connections,
            timeout=None,  # a call waits for a free connection within its own bound
            socket_timeout=timeout_s
            + CONNECT_S,  # the bound of a call is ours: a new connection's greeting may take longer
            socket_connect_timeout=timeout_s + CONNECT_S,
            retry=Retry(NoBackoff(), 1),  # one more try on a fresh connection: an idle one may have been closed
        )
        self._redis: Any = Redis.from_pool(pool)  # its methods are typed for both of its clients at once
        self._script = {
            name: self._redis.register_script(getattr(scripts, name))
            for name in ("TAKE", "CHARGE", "LIFT", "ADD", "ACQUIRE", "RELEASE", "APPEND", "FIRST")
        }
        self._line = Line(self._redis)
        self._proven = False
        self._probe: asyncio.Task[None] | None = None

    async def get(self, key: str) -> bytes | None:
        return await self._call(self._line.ask, "GET", self._prefix + key)

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._call(self._line.ask, "MGET", *(self._prefix + key for key in keys)) if keys else []

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._call(self._line.ask, "SET", self._prefix + key, value, "PX", milliseconds(ttl_s))

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        return await self._run("FIRST", (key,), (value, milliseconds(ttl_s)))

    async def delete(self, key: str) -> None:
        await self._call(self._line.ask, "DEL", self._prefix + key)

    async def add(self, key: str, n: int, ttl_s: float, *, once: str = "") -> int:
        keys = (key, f"once:{key}:{once}")
        return int(await self._run("ADD", keys, (n, milliseconds(ttl_s), int(bool(once)))))

    async def counts(self, keys: Sequence[str]) -> list[int]:
        return [int(held or b"0") for held in await self.mget(keys)]

    async def acquire(self, key: str, token: str, ttl_s: float) -> bool:
        return bool(await self._run("ACQUIRE", (key,), (token, milliseconds(ttl_s))))

    async def release(self, key: str, token: str) -> bool:
        return bool(await self._run("RELEASE", (key,), (token,)))

    async def take(self, key: str, limits: Sequence[Limit], amounts: Sequence[int], *, once: str = "") -> Taken:
        check_amounts(limits, amounts)
        args = [milliseconds(ONCE_S) if once else 0]
        for limit, amount in zip(limits, amounts, strict=True):
            args += [amount, limit.per_minute, limit.burst]
        ok, wait, *left = await self._run("TAKE", (f"bucket:{key}", f"bucket:{key}:once:{once}"), args)
        return Taken(bool(ok), tuple(int(one) for one in left), None if int(wait) < 0 else int(wait))

    async def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        return await self._charge("r", period, request, nano_usd, ttl_s)

    async def settle(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        return await self._charge("s", period, request, nano_usd, ttl_s)

    async def spent(self, periods: Sequence[str]) -> list[int]:
        return await self.counts([f"ledger:{period}" for period in periods])

    async def lift(self, period: str, nano_usd: int, ttl_s: float) -> int:
        check_money(nano_usd)
        return int(await self._run("LIFT", (f"ledger:{period}",), (nano_usd, milliseconds(ttl_s))))

    async def append(self, key: str, value: bytes, most: int, ttl_s: float) -> None:
        await self._run("APPEND", (key,), (value, most, milliseconds(ttl_s)))

    async def tail(self, key: str, after: str, most: int) -> list[tuple[str, bytes]]:
        since = f"({after}" if after else "-"
        rows = await self._call(self._redis.xrange, self._prefix + key, min=since, max="+", count=most)
        return [(mark.decode(), fields[b"v"]) for mark, fields in rows]

    async def ping(self) -> None:
        """Asks also a server that was away, and opens the store again where it answers."""
        await self._bounded(self._redis.ping)
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
        await self._line.close()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _charge(self, kind: str, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        check_money(nano_usd)
        keys = (f"ledger:{period}", f"ledger:{period}:{request}")
        return int(await self._run("CHARGE", keys, (kind, nano_usd, milliseconds(ttl_s))))

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self._call(self._scripted, self._script[name], [self._prefix + key for key in keys], args)

    async def _scripted(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """A script by its digest; a server that does not know it, for it was started anew, is told it."""
        try:
            return await self._line.ask("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            await self._line.ask("SCRIPT LOAD", script.script)
            return await self._line.ask("EVALSHA", script.sha, len(keys), *keys, *args)

    async def _call(self, do: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        if self._probe is not None:
            raise Unavailable("Redis did not answer a moment ago", retry_after_s=PROBE_S)
        return await self._bounded(do, *args, **named)

    async def _bounded(self, do: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        try:
            async with _within(self._bound_s if self._proven else self._bound_s + CONNECT_S):
                answer = await do(*args, **named)
        except (RedisError, OSError, TimeoutError) as fault:
            if not isinstance(fault, ResponseError) and self._probe is None:
                self._proven = False
                self._line.drop()
                self._probe = asyncio.create_task(self._find_again())
            raise Unavailable(f"Redis did not answer: {type(fault).__name__}", retry_after_s=0.2) from fault
        self._proven = True
        return answer

    async def _find_again(self) -> None:
        """Ping until it answers, then open the store."""
        found = False
        while not found:
            await asyncio.sleep(PROBE_S)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._bound_s + CONNECT_S):
                    found = bool(await self._redis.ping())
        self._proven, self._probe = True, None
