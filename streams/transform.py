"""The Transform lane: a window per input topic, finished out of order, committed in order; retries, deferral, dead letters."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas import ids
from schemas.errors import Refused, Unavailable, Undecodable
from schemas.payload import Payload
from schemas.topics import deferred_topic, dlq_of
from streams.lane import Lane, Prefix, Surroundings
from streams.port import Reader
from streams.shapes import Event, Out, Record, Transform
from streams.wire import ORIGIN, Cause, Sent, TooLarge, cause_of, letter, outgoing, parked, raw_cause, unparked

YIELD_EVERY = 200  # heartbeats share the loop
FIRST_RETRY_S = 0.1
FOR_EVER_MS = 1 << 53  # a deadline past it is none


@dataclass(slots=True)
class Slot:
    """One accepted record and what came of it."""

    record: Record
    sent: Sequence[Sent] = ()
    park: tuple[Record, int] | None = None  # the original, and the rounds it will have used
    done: bool = False


class Window:
    """The accepted records of one topic: `queue` not begun, `order` not committed or cut."""

    __slots__ = ("idle", "order", "queue", "workers")

    def __init__(self) -> None:
        self.queue: deque[Slot] = deque()
        self.order: deque[Slot] = deque()
        self.idle: deque[asyncio.Future[None]] = deque()
        self.workers: list[asyncio.Task[None]] = []


class TransformLane(Lane):
    """Runs a Transform on one partition."""

    def __init__(
        self,
        around: Surroundings,
        transform: Transform,
        inputs: Sequence[str],
        workers: int,
        partition: int,
        reader: Reader,
    ) -> None:
        self.parking = deferred_topic(transform.name)
        super().__init__(around, transform.name, (*inputs, self.parking), partition, reader)
        self.transform = transform
        self.workers = workers
        self.windows: dict[str, Window] = {}
        self._finished: list[Slot] = []
        self._committing: dict[str, int] = {}
        self._worked_s = 0.0
        self._begun = 0
        self._at: dict[asyncio.Task[None], Record] = {}

    def begin_work(self) -> None:
        self.windows = {topic: Window() for topic in self.inputs}
        self._finished = []
        self._committing = {}

    def take(self, record: Record) -> None:
        window = self.windows[record.topic]
        slot = Slot(record)
        window.queue.append(slot)
        window.order.append(slot)
        while window.idle:
            future = window.idle.popleft()
            if not future.done():
                future.set_result(None)
                return
        if len(window.workers) < self.workers:
            task = asyncio.create_task(self._work(window))
            task.add_done_callback(self._worker_ended)
            window.workers.append(task)

    def _worker_ended(self, task: "asyncio.Task[None]") -> None:
        at = self._at.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crash(error, None if at is None else at.place)

    async def _work(self, window: Window) -> None:
        loop, clock, me = asyncio.get_running_loop(), self.around.clock, asyncio.current_task()
        while True:
            while not window.queue:
                future: asyncio.Future[None] = loop.create_future()
                window.idle.append(future)
                await future
            slot = window.queue.popleft()
            if me is not None:
                self._at[me] = slot.record
            began = clock.monotonic()
            await self._process(slot)
            self._worked_s += clock.monotonic() - began
            slot.done = True
            if window.order[0] is slot:
                while window.order and window.order[0].done:
                    self._finished.append(window.order.popleft())
                self.moved()
            self._begun += 1
            if self._begun % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def answer(self, record: Record) -> Sequence[Sent]:
        """What the agent sends because of one record. A replay does only this, on a lane that never opens."""
        slot = Slot(record)
        await self._process(slot)
        return slot.sent

    async def _process(self, slot: Slot) -> None:
        record, attempt, due_ms = slot.record, 0, 0
        try:
            if record.topic == self.parking:
                record, attempt, due_ms = self._unparked(record)
            event = self.around.decoder(record)
        except Refused as error:
            self._notice("refused", text=error.kind)
            outs = None if record.topic == self.parking else self.transform.refused(record, error)
            if outs is None:
                slot.sent = [self._letter(record, error.kind, str(error), 1)]
            else:
                slot.sent = self._outgoing(record, raw_cause(record), outs)
            return
        if record is not slot.record:
            await self._wait_due(event, due_ms)
        await self._call(slot, event, attempt)

    def _unparked(self, record: Record) -> tuple[Record, int, int]:
        """`Undecodable` for a record that this agent never parked."""
        original, attempt, due_ms = unparked(record)
        if original.topic not in self.inputs or original.topic == self.parking:
            raise Undecodable("not from an input", kind="deferred", field=ORIGIN, accepted="a place in an input")
        return original, attempt, due_ms

    async def _wait_due(self, event: Event[Payload], due_ms: int) -> None:
        deadline = self.transform.deadline_ms(event)
        until = due_ms if deadline is None else min(due_ms, deadline)
        left_s = min((until - self.around.clock.now_ms()) / 1000, self.settings.defer_s)  # none is parked longer
        if left_s > 0:
            await self.around.clock.sleep(left_s)

    async def _call(self, slot: Slot, event: Event[Payload], attempt: int) -> None:
        """The agent's answer, or after retries a parked or expired event, or a dead letter."""
        clock, settings = self.around.clock, self.settings
        began_s, tries = 0.0, 0
        while True:
            try:
                outs = await self.transform(event)
            except Refused as error:
                self._notice("refused", text=error.kind)
                slot.sent = [self._letter(event.record, error.kind, str(error), tries + 1)]
                return
            except Unavailable as error:
                tries += 1
                began_s = began_s or clock.monotonic()
                left_s = self._left_s(event)
                pause_s = FIRST_RETRY_S * 2 ** (tries - 1) * (0.5 + ids.coin(event.id, f"retry/{tries}") / 65_536)
                pause_s = max(pause_s, error.retry_after_s or 0.0)
                spent = clock.monotonic() - began_s + min(pause_s, left_s) > settings.retry_s
                if left_s <= 0 or (spent and attempt >= settings.rounds):
                    self._notice("expired")
                    slot.sent = self._outgoing(event.record, cause_of(event), self.transform.expired(event, error))
                    return
                if spent:
                    slot.park = (event.record, attempt + 1)
                    return
                await clock.sleep(min(pause_s, left_s))
            else:
                slot.sent = self._outgoing(event.record, cause_of(event), outs)
                return

    def _left_s(self, event: Event[Payload]) -> float:
        deadline = self.transform.deadline_ms(event)
        left_ms = None if deadline is None else deadline - self.around.clock.now_ms()
        return float("inf") if left_ms is None or left_ms > FOR_EVER_MS else left_ms / 1000

    def _outgoing(self, record: Record, cause: Cause, outs: Sequence[Out]) -> list[Sent]:
        around = self.around
        try:
            return outgoing(outs, cause, agent=self.agent, partitions=around.partitions, now_ms=around.clock.now_ms)
        except TooLarge as error:
            return [self._letter(record, "oversize", str(error), 1)]

    def _letter(self, record: Record, kind: str, message: str, attempts: int) -> Sent:
        self._notice("dead_letter", text=kind)
        now = self.around.clock.now_ms()
        row = letter(record, agent=self.agent, kind=kind, message=message, attempts=attempts, at_ms=now)
        if record.topic == self.parking:  # not ours: it came from no input, and lies with the letters of the first
            return replace(row, topic=dlq_of(self.inputs[0]))
        return row

    def held(self, topic: str) -> int:
        window = self.windows.get(topic)
        return 0 if window is None else len(window.order) + self._committing.get(topic, 0)

    def finished(self) -> int:
        return len(self._finished)

    def idle(self) -> bool:
        return super().idle() and not self._finished

    def cut(self) -> Prefix:
        slots, self._finished = self._finished, []
        worked_s, self._worked_s = self._worked_s, 0.0
        counts: dict[str, int] = {}
        last: dict[str, int] = {}
        sent: list[Sent] = []
        not_before = self.around.clock.now_ms() + int(self.settings.defer_s * 1000)  # once, so that it never runs back
        for slot in slots:
            topic = slot.record.topic
            counts[topic] = counts.get(topic, 0) + 1
            last[topic] = slot.record.offset
            sent += slot.sent
            if slot.park is not None:
                record, attempt = slot.park
                sent.append(parked(record, attempt=attempt, topic=self.parking, not_before_ms=not_before))
                self._notice("deferred")
        self._committing = counts
        following = {(topic, self.partition): offset + 1 for topic, offset in last.items()}
        return Prefix(len(slots), following, sent, worked_s)

    def advance(self, prefix: Prefix) -> None:
        self._committing = {}

    def rest(self) -> None:
        for window in self.windows.values():
            for task in window.workers:
                task.cancel()

    def forget(self) -> None:
        self.rest()
        self.windows = {}
        self._finished = []
        self._committing = {}
