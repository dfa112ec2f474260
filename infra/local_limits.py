"""What a router goes by while the store is away: its own share of the quota, and of the budget that it last knew of.

Plain objects of one process, used by one event loop. They hold no truth: what they granted is handed to the store when it is back.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.limits import PARTS, Levels, Limit, Taken, check_amounts, check_money, refill, wait_ms

MOST_KEYS = 10_000
MOST_HELD = 10_000
EPOCH_S = 30 * 86_400.0


class LocalQuota:
    """Token buckets of one of `routers` equal routers: each lets through its share of the rate and of the burst.

    Who asks for more than the share of a burst, but not for more than the burst, is let through by a full bucket and leaves it in
    debt: the rate holds in the long run, and no tenant is shut out because there are many routers. An outage begins with full
    buckets, so it grants at most one burst more.
    """

    def __init__(self, routers: int) -> None:
        if routers < 1:
            raise ValueError(f"{routers!r} routers; accepted: from 1")
        self._routers = routers
        self._held: OrderedDict[str, Levels] = OrderedDict()

    def take(self, key: str, limits: Sequence[Limit], amounts: Sequence[int], now_ms: int) -> Taken:
        """As `Store.take`, of this router's share, by the caller's clock."""
        check_amounts(limits, amounts)
        # A token costs `routers` tokens of the whole bucket: as exact as the whole, whatever the division leaves.
        parts = refill(self._held.get(key), now_ms, limits)
        needs = [amount * PARTS * self._routers for amount in amounts]
        floors = [min(need, limit.burst * PARTS) for need, limit in zip(needs, limits, strict=True)]
        never = any(amount > limit.burst for amount, limit in zip(amounts, limits, strict=True))
        ok = not never and all(floor <= part for floor, part in zip(floors, parts, strict=True))
        if ok:
            parts = tuple(part - need for part, need in zip(parts, needs, strict=True))
        self._held[key] = Levels(now_ms, parts)
        self._held.move_to_end(key)
        while len(self._held) > MOST_KEYS:
            self._held.popitem(last=False)
        left = tuple(max(0, part) // (PARTS * self._routers) for part in parts)
        return Taken(ok, left, 0 if ok else None if never else wait_ms(floors, parts, limits))


@dataclass(frozen=True, slots=True)
class Known:
    """A period's sum in nano-USD as the store told it last, and when."""

    spent: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation made without the store."""

    period: str
    request: str
    nano_usd: int
    ttl_s: float


class Ledger(Protocol):
    """What the local budget needs of the store."""

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes: ...

    async def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int: ...

    async def lift(self, period: str, nano_usd: int, ttl_s: float) -> int: ...


class LocalBudget:
    """The periods' sums as last told, and a share of what they left over for while the store is away.

    Of a period that the store never told of, nothing may be spent.
    """

    def __init__(self, routers: int) -> None:
        if routers < 1:
            raise ValueError(f"{routers!r} routers; accepted: from 1")
        self._routers = routers
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._held: dict[tuple[str, str], Held] = {}
        self._sums: dict[str, int] = {}
        self._epoch: bytes | None = None

    def heard(self, period: str, spent: int, now_ms: int) -> None:
        """What the store just told."""
        self._known[period] = Known(spent, now_ms)
        self._known.move_to_end(period)
        while len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)

    def known(self, period: str) -> Known | None:
        return self._known.get(period)

    def due(self, periods: Sequence[str], now_ms: int, age_ms: int) -> list[str]:
        """The periods of which nothing is known that is younger than this: what to ask the store for."""
        found: list[str] = []
        for period in periods:
            known = self._known.get(period)
            if known is None or not 0 <= now_ms - known.at_ms < age_ms:
                found.append(period)
        return found

    def room(self, period: str, limit_nano_usd: int) -> int:
        """What this router may still spend of the period's limit while the store is away; 0: mask the outside arms."""
        known = self._known.get(period)
        if known is None or len(self._held) >= MOST_HELD:
            return 0
        share = max(0, limit_nano_usd - known.spent) // self._routers
        return max(0, share - self._sums.get(period, 0))

    def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> None:
        """Note a reservation that the store could not be told of; once per request."""
        check_money(nano_usd)
        if (period, request) not in self._held:
            self._held[period, request] = Held(period, request, nano_usd, ttl_s)
            self._sums[period] = self._sums.get(period, 0) + nano_usd

    def held(self) -> tuple[Held, ...]:
        """What is still to be handed over, oldest first."""
        return tuple(self._held.values())

    async def meet(self, store: Ledger, token: str, now_ms: int, ttl_s: float) -> None:
        """Agree with the store: at the start, and when it is back. `token` is one that nobody used before.

        A store that has forgotten everything meanwhile is first told what was spent; then it gets the reservations made without
        it. Raises `Unavailable` half-way; the next call goes on. Two at a time do the same as one.
        """
        epoch = await store.set_if_absent("ledger-epoch", token.encode(), EPOCH_S)
        if self._epoch not in (None, epoch):
            for period, known in tuple(self._known.items()):
                self.heard(period, await store.lift(period, known.spent, ttl_s), now_ms)
        self._epoch = epoch
        for key, one in tuple(self._held.items()):
            self.heard(one.period, await store.reserve(one.period, one.request, one.nano_usd, one.ttl_s), now_ms)
            if self._held.pop(key, None) is None:
                continue  # another handed it over meanwhile
            left = self._sums[one.period] - one.nano_usd
            if left:
                self._sums[one.period] = left
            else:
                del self._sums[one.period]
