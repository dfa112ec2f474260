"""Every call of an engine goes through here: a slot of its arm, the breaker before its engine, and the deadline.

What was asked of an engine is counted once, however it ended. Nothing here is kept anywhere else: after a restart the breakers are
closed, the slots free and the latencies unknown.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from agents.inference.breaker import Breaker, Breakers, Change, End, Key, Permit
from agents.inference.hedge import Latencies
from agents.inference.slots import Slots
from agents.ports import Clock, Engine, Generation, Leases, LoadOutcome, Places, blames_engine
from schemas.errors import Unavailable

HERE = ("engine",)  # where an arm is asked whose engine has no name
MARGIN_S = 0.25  # past the deadline: the engine keeps it, this is for one that does not
LEASE_S = 60.0  # most that a probe may hold back those of other processes
SOON_S = 0.5
TOLD = 1_024  # changes kept while the broker is away


class Blocked(Unavailable):
    """No call was made: breakers are open, or the arm has as many calls under way as it may. Says nothing of the engine."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes, and the permit of the breaker that let it pass."""

    engine: str
    pooled: bool
    breaker: Breaker
    permit: Permit
    lease: tuple[str, str] | None = None  # key and token


class Calls:
    """The calls of one process. `pool`: the engine where it has several replicas; `leases`: what other processes see too."""

    def __init__(self, engine: Engine, clock: Clock, instance: str, leases: Leases, pool: Places | None = None) -> None:
        self.changes: deque[tuple[Key, Change, int, int]] = deque(
            maxlen=TOLD
        )  # with the wall clock's lead, and a number
        self.changed = asyncio.Event()
        self.breakers = Breakers(self._tell)
        self._engine = engine
        self._clock = clock
        self._instance = instance
        self._leases = leases
        self._pool = pool
        self._slots: dict[str, Slots] = {}
        self._latencies: dict[str, Latencies] = {}
        self._caps: Mapping[str, int | None] = {}
        self._where: dict[str, tuple[str, ...]] = {}
        self._probes = 0
        self._changes = 0

    # what is known

    def engines(self, arm: str) -> tuple[str, ...]:
        """Where the arm can be asked now, the best place first."""
        found = () if self._pool is None else tuple(self._pool.places(arm))
        return found or self._where.get(arm, HERE)

    def slots(self, arm: str) -> Slots:
        found = self._slots.get(arm)
        if found is None:
            found = self._slots[arm] = Slots(self._clock)
            found.cap = self._caps.get(arm)
        return found

    def p95_ms(self, arm: str) -> int | None:
        """Of the arm's last answers; None until there are enough."""
        found = self._latencies.get(arm)
        return None if found is None else found.p95_ms

    def ready(self, arm: str) -> bool:
        """Whether a call would be made at once."""
        return not self.slots(arm).busy and self._passes(arm)

    def open_until_ms(self, arm: str) -> int:
        """Until when by the wall clock the arm can be asked nowhere; 0 where it can."""
        until = self.breakers.open_until_ms(arm, self.engines(arm), self.now_ms())
        return until + self.lead_ms() if until else 0

    def now_ms(self) -> int:
        """The breakers' time: it never steps back."""
        return int(self._clock.monotonic() * 1000)

    def lead_ms(self) -> int:
        """What makes wall time of the breakers' time."""
        return self._clock.now_ms() - self.now_ms()

    # what is told

    def limit(self, caps: Mapping[str, int | None]) -> None:
        """The arms that there are, each with the most calls that it may have under way. What others left behind is forgotten."""
        self._caps = caps
        for arm, slots in list(self._slots.items()):
            slots.cap = caps.get(arm)
            slots.wake()
            if arm not in caps and not slots.in_flight:
                del self._slots[arm]
                self._latencies.pop(arm, None)
        self._where = {arm: engines for arm, engines in self._where.items() if arm in caps}
        self.breakers.keep(caps)

    def loaded(self, before: Iterable[LoadOutcome], now: Sequence[LoadOutcome]) -> None:
        """Which engines have just proven which arms live: whoever was not live before may be tried at once."""
        live = {(row.arm, row.replica) for row in before if row.live}
        where: dict[str, tuple[str, ...]] = {}
        for row in now:
            where[row.arm] = HERE if row.arm in where else (row.replica,)
            if row.live and (row.arm, row.replica) not in live:
                self.breakers.revived(row.arm, row.replica, self.now_ms())
                self.breakers.revived(row.arm, HERE[0], self.now_ms())
        self._where |= where

    def _tell(self, key: Key, change: Change) -> None:
        self._changes += 1
        self.changes.append((key, change, self.lead_ms(), self._changes))
        self.changed.set()

    # what is done

    async def ask(self, arm: str, text: str, request_id: str, deadline_ms: int, patience_s: float) -> Generation:
        """The arm's answer before the deadline.

        Where its calls are as many as they may be, it is waited for `patience_s` at most. `Blocked` where no call was made,
        `Unavailable` where one failed or was cut at the deadline.
        """
        slots = self.slots(arm)
        if slots.busy and not self._passes(arm):
            raise self._barred(arm)  # no waiting for a slot that would be of no use
        if not await slots.take(min(patience_s, self._left_s(deadline_ms))):
            raise Blocked(f"arm {arm!r} is busy: {slots.in_flight} of {slots.cap} calls under way", retry_after_s=0.1)
        try:
            left_s = self._left_s(deadline_ms)
            if left_s <= 0:
                raise Blocked("the deadline has passed")
            place = await self._admit(arm, left_s)
            return await self._made(place, arm, text, request_id, deadline_ms)
        finally:
            slots.give_back()

    async def _made(self, place: Place, arm: str, text: str, request_id: str, deadline_ms: int) -> Generation:
        began = self.now_ms()
        how: End = "void"  # cancelled, or what the sender must change
        left_s = self._left_s(deadline_ms)
        try:
            async with asyncio.timeout(left_s + MARGIN_S):
                if place.pooled and self._pool is not None:
                    made = await self._pool.generate_at(place.engine, arm, text, request_id, left_s)
                else:
                    made = await self._engine.generate(arm, text, request_id, left_s)
        except TimeoutError as error:
            how = self._late(arm, left_s)
            raise Unavailable(f"{place.engine} did not keep the deadline") from error
        except Unavailable as error:
            if blames_engine(error):
                how = self._late(arm, left_s) if self._left_s(deadline_ms) <= 0 else "failed"
            raise
        else:
            how = "answered"
            self._latencies.setdefault(arm, Latencies()).add(self.now_ms() - began)
            return made
        finally:
            await self._end(place, how)

    async def _admit(self, arm: str, left_s: float) -> Place:
        """The first place whose breaker lets a call pass. A probe is one at a time over all processes, where the store answers."""
        found = () if self._pool is None else self._pool.places(arm)
        for engine in found or self._where.get(arm, HERE):
            breaker = self.breakers.at(arm, engine)
            permit = breaker.admit(self.now_ms())
            if permit is None:
                continue
            place = Place(engine, bool(found), breaker, permit)
            if not permit.probe:
                return place
            leased = await self._leased(arm, place, left_s)
            if leased is not None:
                return leased
        raise self._barred(arm)

    async def _leased(self, arm: str, place: Place, left_s: float) -> Place | None:
        """The place with its lease; without one where the store is away; None where another process probes."""
        self._probes += 1
        lease = f"probe:{place.engine}:{arm}", f"{self._instance}/{self._probes}"
        try:
            if await self._leases.acquire(*lease, min(left_s + 1.0, LEASE_S)):
                return replace(place, lease=lease)
        except Unavailable:
            return place
        except asyncio.CancelledError:
            await self._end(replace(place, lease=lease), "void")
            raise
        place.breaker.end(place.permit, "void", self.now_ms())
        return None

    async def _end(self, place: Place, how: End) -> None:
        place.breaker.end(place.permit, how, self.now_ms())
        if place.lease is not None:
            with suppress(Unavailable):  # it ends by itself
                await self._leases.release(*place.lease)

    def _passes(self, arm: str) -> bool:
        now = self.now_ms()
        return any(self.breakers.at(arm, engine).passes(now) for engine in self.engines(arm))

    def _late(self, arm: str, given_s: float) -> End:
        """A call that had less time than the arm takes for most of its answers says nothing of the engine."""
        p95_ms = self.p95_ms(arm)
        return "failed" if p95_ms is None or given_s * 1000 >= p95_ms else "void"

    def _barred(self, arm: str) -> Blocked:
        until = self.breakers.open_until_ms(arm, self.engines(arm), self.now_ms())
        left_s = max(0, until - self.now_ms()) / 1000
        names = ", ".join(self.engines(arm))
        state = f"open for {left_s:.1f} s more" if until else "half-open, and another call is its probe"
        return Blocked(f"breaker of arm {arm!r} at {names}: {state}", retry_after_s=min(max(left_s, 0.1), SOON_S))

    def _left_s(self, deadline_ms: int) -> float:
        return min(deadline_ms - self._clock.now_ms(), 1 << 53) / 1000
