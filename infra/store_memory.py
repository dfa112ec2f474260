"""The store in memory: the contract of Redis for tests, and the store of offline tools."""

import time
from collections.abc import Callable, Sequence

from infra.limits import ONCE_S, Levels, Limit, Taken, check_amounts, check_money, milliseconds, take_from
from schemas.errors import Unavailable


class MemoryStore:
    """`cut()` takes it away, `mend()` brings it back, emptied as Redis would be. No call awaits, so each is atomic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, bytes]] = {}
        self._buckets: dict[str, Levels] = {}
        self._logs: dict[str, tuple[float, list[tuple[str, bytes]]]] = {}
        self._entries = 0
        self._away = False
        self._closed = False

    def cut(self) -> None:
        """From here every call raises `Unavailable`."""
        self._away = True

    def mend(self) -> None:
        """Answer again, with nothing remembered."""
        self._away = False
        self._held.clear()
        self._buckets.clear()
        self._logs.clear()

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

    async def delete(self, key: str) -> None:
        self._check()
        self._held.pop(key, None)

    async def add(self, key: str, n: int, ttl_s: float, *, once: str = "") -> int:
        self._check()
        held = int(self._live(key) or b"0")
        if once and self._live(f"once:{key}:{once}") is not None:
            return held
        if once:
            self._set(f"once:{key}:{once}", b"1", ttl_s)
        self._count(key, held + n, ttl_s, lengthen=False)
        return held + n

    async def counts(self, keys: Sequence[str]) -> list[int]:
        self._check()
        return [int(self._live(key) or b"0") for key in keys]

    async def acquire(self, key: str, token: str, ttl_s: float) -> bool:
        self._check()
        if self._live(key) not in (None, token.encode()):
            return False
        self._set(key, token.encode(), ttl_s)
        return True

    async def release(self, key: str, token: str) -> bool:
        self._check()
        if self._live(key) != token.encode():
            return False
        del self._held[key]
        return True

    async def take(self, key: str, limits: Sequence[Limit], amounts: Sequence[int], *, once: str = "") -> Taken:
        self._check()
        check_amounts(limits, amounts)
        mark = f"bucket:{key}:once:{once}"
        again = bool(once) and self._live(mark) is not None
        asked = [0] * len(amounts) if again else amounts
        self._buckets[key], taken = take_from(self._buckets.get(key), int(self._clock() * 1000), limits, asked)
        if once and taken.ok:
            self._set(mark, b"1", ONCE_S)
        return taken

    async def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        return self._charge("r", period, request, nano_usd, ttl_s)

    async def settle(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        return self._charge("s", period, request, nano_usd, ttl_s)

    async def spent(self, periods: Sequence[str]) -> list[int]:
        self._check()
        return [int(self._live(f"ledger:{period}") or b"0") for period in periods]

    async def lift(self, period: str, nano_usd: int, ttl_s: float) -> int:
        self._check()
        check_money(nano_usd)
        held = int(self._live(f"ledger:{period}") or b"0")
        if held < nano_usd:
            self._count(f"ledger:{period}", nano_usd, ttl_s)
        return max(held, nano_usd)

    async def append(self, key: str, value: bytes, most: int, ttl_s: float) -> None:
        self._check()
        self._entries += 1
        rows = [*self._log(key), (f"{self._entries:020}", bytes(value))]
        self._logs[key] = (self._clock() + milliseconds(ttl_s) / 1000, rows[-most:])

    async def tail(self, key: str, after: str, most: int) -> list[tuple[str, bytes]]:
        self._check()
        return [row for row in self._log(key) if row[0] > after][:most]

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        self._closed = True

    def _charge(self, kind: str, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        self._check()
        check_money(nano_usd)
        total, record = f"ledger:{period}", f"ledger:{period}:{request}"
        held, before = int(self._live(total) or b"0"), self._live(record)
        if before is not None and not (kind == "s" and before.startswith(b"r")):
            return held
        held += nano_usd - (0 if before is None else int(before[1:]))
        self._set(record, f"{kind}{nano_usd}".encode(), ttl_s)
        self._count(total, held, ttl_s)
        return held

    def _count(self, key: str, n: int, ttl_s: float, *, lengthen: bool = True) -> None:
        """Hold a number under its own time to live, lengthened if that is shorter than this one."""
        self._live(key)
        until = self._held[key][0] if key in self._held else 0.0
        self._set(key, str(n).encode(), ttl_s)
        if until and not (lengthen and until < self._held[key][0]):
            self._held[key] = (until, self._held[key][1])

    def _log(self, key: str) -> list[tuple[str, bytes]]:
        until, rows = self._logs.get(key, (0.0, []))
        return rows if until > self._clock() else []

    def _set(self, key: str, value: bytes, ttl_s: float) -> None:
        self._held[key] = (self._clock() + milliseconds(ttl_s) / 1000, bytes(value))

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
