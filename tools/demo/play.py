"""The people of the demonstration: customers who ask, and the bank's staff whose verdicts say what was meant.

Everything goes through Kafka, as anyone's would: requests and verdicts are published, answers are read.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.events import Message, RequestSubmitted, VerdictGiven
from schemas.ids import derive
from schemas.payload import Payload
from tools.demo.ledger import Asked, Ledger, Phase

PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Customer:
    """A real message, and the intent behind it."""

    text: str
    intent: str
    known: bool
    held_out: bool


class Wire(Protocol):
    """Kafka as the demonstration uses it."""

    async def send(self, events: Sequence[tuple[Payload, str]]) -> None: ...
    def events(self) -> AsyncIterator[tuple[str, Payload]]: ...
    def now_ms(self) -> int: ...


class Street:
    """Keeps `concurrency` customers waiting at any time; answers each with a verdict; writes all into the ledger."""

    def __init__(self, wire: Wire, ledger: Ledger, *, route: str, run: str, staff: str, concurrency: int) -> None:
        self.staff = staff
        self.wire, self.ledger, self.route, self.run = wire, ledger, route, run
        self.concurrency = concurrency
        self._free = asyncio.Semaphore(concurrency)
        self._verdicts: list[tuple[Payload, str]] = []
        self._watcher: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start reading what comes back."""
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop reading."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self) -> None:
        async for event_id, payload in self.wire.events():
            answered = self.ledger.take(event_id, payload)
            if answered is not None:
                self._free.release()
                request_id = getattr(payload, "request_id", "")
                await self._verdict(str(request_id), answered)

    async def _verdict(self, request_id: str, asked: Asked) -> None:
        verdict = VerdictGiven(
            route=self.route,
            request_id=request_id,
            at_ms=self.wire.now_ms(),
            by=self.staff,
            kind="reference",
            corrected=asked.intent,
        )
        await self.wire.send([(verdict, derive(request_id, "demo-verdict", 0))])

    def failure(self) -> BaseException | None:
        """What ended the reading, if anything did."""
        if self._watcher is None or not self._watcher.done() or self._watcher.cancelled():
            return None
        return self._watcher.exception()

    async def ask(
        self,
        customers: deque[Customer],
        phase: Callable[[], Phase],
        *,
        until: Callable[[], bool],
        alive: Callable[[], None],
        pace_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Let customers ask until none is left or `until()` says so; who has asked leaves. `pace_s()`: how long until the next one."""
        while customers and not until():
            alive()
            try:
                async with asyncio.timeout(1.0):
                    await self._free.acquire()
            except TimeoutError:
                continue
            await self._send(customers.popleft(), phase())
            await self._pause(pace_s, until)

    async def _send(self, customer: Customer, phase: Phase) -> None:
        request_id = f"{self.run}-{phase}-{len(self.ledger.asked):05d}"
        now = self.wire.now_ms()
        self.ledger.asked[request_id] = Asked(phase, customer.intent, customer.known, customer.held_out, now)
        request = RequestSubmitted(
            route=self.route,
            request_id=request_id,
            at_ms=now,
            messages=(Message(role="user", content=customer.text),),
        )
        await self.wire.send([(request, derive(request_id, "demo", 0))])

    async def _pause(self, pace_s: Callable[[], float], until: Callable[[], bool]) -> None:
        """What was asked for changes while it passes: the shortest wait that was meant since counts."""
        left = pace_s()
        while left > 0 and not until():
            await asyncio.sleep(min(left, PAUSE_S))
            left = min(left - PAUSE_S, pace_s())

    async def settle(self, timeout_s: float, alive: Callable[[], None]) -> None:
        """Wait until every request has its answer and its case, at most `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.ledger.lost():
                    alive()
                    await asyncio.sleep(0.2)
