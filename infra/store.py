"""Store: what processes share for a while, with expiry: values, counters, locks, token buckets, a ledger, short logs. The port.

    store_redis.py    Redis, one round trip a call; imported where one is opened, for its client is heavy
    store_memory.py   a dictionary, for tests and the offline tools

Nothing that decides is only here: it may lose everything at any time. A value set is seen by every process until it expires,
is evicted or the server restarts.
"""

from collections.abc import Sequence
from typing import Protocol

from infra.limits import Limit, Taken
from infra.store_memory import MemoryStore

__all__ = ["Limit", "MemoryStore", "Store", "Taken"]


class Store(Protocol):
    """Keys to bytes, each with a time to live. Every call is atomic, and ends within the adapter's bound or raises `Unavailable`.

    After `Unavailable` a call may have been done or not. Those that are told by whom (`once`, `request`, `token`) may be
    repeated with no other outcome than once; `append` may come twice.
    """

    async def get(self, key: str) -> bytes | None: ...

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes:
        """Set the value unless the key has one; return what the store holds afterwards, the winner's for every caller."""
        ...

    async def delete(self, key: str) -> None: ...

    async def add(self, key: str, n: int, ttl_s: float, *, once: str = "") -> int:
        """Count, and return the sum. The first count begins the counter's life. `once`: counts one time under this name."""
        ...

    async def counts(self, keys: Sequence[str]) -> list[int]:
        """What the counters hold, 0 for one that is absent."""
        ...

    async def acquire(self, key: str, token: str, ttl_s: float) -> bool:
        """Hold the lock unless another token does; for who holds it already, its life begins anew."""
        ...

    async def release(self, key: str, token: str) -> bool:
        """Let go of the lock; False, and nothing happens, where this token does not hold it."""
        ...

    async def take(self, key: str, limits: Sequence[Limit], amounts: Sequence[int], *, once: str = "") -> Taken:
        """Take an amount from each of the key's buckets, all or nothing, by the store's own clock.

        `once`: whoever took under this name takes nothing more for ten minutes and is told yes.
        """
        ...

    async def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        """Charge a request's expected cost to a period and return the period's sum. One that was charged before stays as it is."""
        ...

    async def settle(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        """Put the request's true cost in place of what was reserved, or charge it; the first settlement stays. Returns the sum."""
        ...

    async def spent(self, periods: Sequence[str]) -> list[int]:
        """The periods' sums: settled, and reserved where not settled yet."""
        ...

    async def lift(self, period: str, nano_usd: int, ttl_s: float) -> int:
        """Raise a period's sum to at least this much, which somebody saw before the store forgot it. Returns the sum."""
        ...

    async def append(self, key: str, value: bytes, most: int, ttl_s: float) -> None:
        """Add to a log that keeps the `most` latest; its life begins anew."""
        ...

    async def tail(self, key: str, after: str, most: int) -> list[tuple[str, bytes]]:
        """The oldest `most` entries after a mark ("": from the start), each with its own mark, in the order they came."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
