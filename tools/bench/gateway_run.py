"""Parts of `ratchet bench gateway` on Kafka: decisions under an open loop, each measured; how many a process makes of what waits; the same
topics through a loop by hand."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.router.actor import Router
from agents.router.around import StoreAround
from infra.clock import SystemClock
from infra.store import MemoryStore, Store
from infra.telemetry import Telemetry
from schemas.errors import Unavailable
from schemas.events import DecisionRouted
from schemas.payload import Payload
from schemas.policies import PolicyRouter
from schemas.topics import BY_NAME
from streams import raw
from streams.admin import ensure_groups, ensure_topics
from streams.lane import Notice
from streams.port import Outgoing
from streams.reader import ByPlace
from streams.runner import Runner
from streams.shapes import Emit, Event, Out, Record, Transform
from streams.wire import Verbatim, cause_of, decode, outgoing
from tools.bench import Say
from tools.bench.gateway_parts import KEY
from tools.bench.gateway_world import FIXED, FULL, World, record, request
from tools.bench.streams_base import Field, Meter, until
from tools.bench.streams_children import Child

REQUESTS, DECISIONS, POLICIES = (BY_NAME[name].full for name in ("requests", "decisions", "policies"))
LEARNT_S = 2.0  # between two versions of the learner's policy, as often as it may publish one
WARM_S = 2.0  # of load that comes first and is not counted: connections, caches, the model's first unfolding
SENT_S = 60.0  # that the sender may be late with the last
PATIENCE_S, SLOWEST_PER_S = 120.0, 20
AT_ONCE = 500


@dataclass(slots=True)
class Samples:
    """What the requests of one run met. Milliseconds; `due`: by partition and offset, in the order of offsets, until it is committed."""

    first: int  # requests before this one warm up
    wanted: int
    decide_ms: list[float] = field(default_factory=list[float])
    durable_ms: list[float] = field(default_factory=list[float])
    said: Counter[str] = field(default_factory=Counter[str])
    due: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict[int, dict[int, tuple[int, int]]])
    begun_ms: int = 0
    ended_ms: int = 0
    seen: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def taken(self, event: Event[Payload], number: int) -> None:
        self.due.setdefault(event.place.partition, {}).setdefault(event.place.offset, (number, event.data.at_ms))

    def decided(self, number: int, took_ms: float, outs: Sequence[Out]) -> None:
        if number < self.first:
            return
        self.decide_ms.append(took_ms)
        for out in outs:
            made = out.payload if isinstance(out, Emit) else None
            self.said[made.strategy if isinstance(made, DecisionRouted) else "no decision"] += 1
            if isinstance(made, DecisionRouted):
                self.said["explored"] += int(made.routing is not None and made.routing.explored)
                self.said["without the store"] += int(not made.store_seen)

    def committed(self, partition: int, events: int, now_ms: int) -> None:
        rows = self.due[partition]
        for _ in range(events):
            number, at_ms = rows.pop(next(iter(rows)))
            self.seen += 1
            if number >= self.first:
                self.durable_ms.append(now_ms - at_ms)
                self.begun_ms = min(self.begun_ms or at_ms, at_ms)
                self.ended_ms = now_ms
        if self.seen >= self.wanted:
            self.done.set()

    @property
    def achieved_per_s(self) -> float:
        """Decisions per second from when the first was due to the last commit."""
        return 1000 * len(self.durable_ms) / max(1, self.ended_ms - self.begun_ms)


class Watched:
    """A router whose every call is timed, from the decoded event to the records that the producer is given: they are encoded here, as the
    lane would, and pass it as they are."""

    def __init__(self, inner: Transform, samples: Samples, partitions: int) -> None:
        self.name = inner.name
        self.inputs = inner.inputs
        self.inner = inner
        self.samples = samples
        self.partitions = partitions

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        number = number_of(event.key)
        self.samples.taken(event, number)
        began = time.perf_counter()
        outs = await self.inner(event)
        rows = outgoing(outs, cause_of(event), agent=self.name, partitions=self.partitions, now_ms=lambda: 0)
        self.samples.decided(number, 1000 * (time.perf_counter() - began), outs)
        return [
            Verbatim(out.payload, row=row) if isinstance(out, Emit) else out
            for out, row in zip(outs, rows, strict=True)
        ]

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return self.inner.refused(record, error)

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return self.inner.deadline_ms(event)

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return self.inner.expired(event, error)


def number_of(request_id: str) -> int:
    """Which request of its run it is."""
    return int(request_id.rpartition("-")[2])


class Gateway:
    """A broker with every topic, the policies on it, and routers made for one run after the other."""

    def __init__(self, on: Field, world: World, partitions: int, data: Path | None) -> None:
        self.on = on
        self.world = world
        self.partitions = partitions
        self.data = data
        self.telemetry = Telemetry("bench")
        self.learnt = 0

    async def prepare(self) -> None:
        """Topics, policies, groups."""
        await ensure_topics(self.on.bootstrap, self.partitions, 1, admin=self.on.admin)
        by_partition: dict[int, list[Outgoing]] = {}
        for one in self.world.policies:
            number, row = record(one, self.partitions)
            by_partition.setdefault(number, []).append(row)
        await self._send(POLICIES, by_partition)

    async def _send(self, topic: str, by_partition: dict[int, list[Outgoing]]) -> None:
        producer = self.on.broker.producer()
        await producer.start()
        try:
            for number, rows in by_partition.items():
                for first in range(0, len(rows), AT_ONCE):
                    await producer.send(topic, number, rows[first : first + AT_ONCE])
        finally:
            await producer.stop()

    def runner(self, store: Store, samples: Samples, observe: Callable[[Notice], None]) -> Runner:
        """The router as its process has it: one runner, metrics counted."""
        clock = SystemClock()

        def told(notice: Notice) -> None:
            self.telemetry.observe(notice)
            if notice.kind == "committed":
                samples.committed(notice.partition, int(notice.value), clock.now_ms())
            observe(notice)

        runner = Runner(self.on.broker, clock, observe=told)
        again = ByPlace(self.on.broker)  # no request is escalated here
        around = StoreAround(store, clock)
        router = Router(
            runner.view("policies"), store, around, again, clock, lambda tenant: KEY, artifact=self.world.artifact
        )
        runner.add_transform(Watched(router, samples, self.partitions))
        return runner

    async def paced(self, store: Store, route: str, rate: float, seconds: float, say: Say) -> Samples:
        """Under another process's requests at `rate`, whatever becomes of them, until every one is committed."""
        word = self.on.name(route)
        first = int(rate * min(WARM_S, seconds))
        count = first + max(1, int(rate * seconds))
        samples, opened, left = Samples(first, count), asyncio.Event(), self.partitions

        def observe(notice: Notice) -> None:
            nonlocal left
            left -= notice.kind == "opened"
            if left <= 0:
                opened.set()

        runner = self.runner(store, samples, observe)
        await ensure_groups(self.on.bootstrap, runner.groups(), admin=self.on.admin)
        words = (self.on.bootstrap, str(self.partitions), str(rate), str(count), route, word, str(self.data or ""))
        child = await Child.start(*words, module="tools.bench.gateway_worker")
        loading: asyncio.Task[None] | None = None

        async def load() -> None:
            await opened.wait()
            say(f"{route}: {rate:g} requests/s for {seconds:g} s")
            child.go()
            learning = asyncio.create_task(self._learning())
            try:
                await child.line(SENT_S + 2 * count / rate)
            except Unavailable:
                samples.done.set()  # the rest will never come
                raise
            finally:
                learning.cancel()
                await asyncio.wait([learning])

        try:
            await child.line()
            loading = asyncio.create_task(load())
            await until(runner, samples.done, timeout_s=PATIENCE_S + count / SLOWEST_PER_S)
            if loading.done():
                loading.result()
        finally:
            if loading is not None:
                loading.cancel()
                await asyncio.wait([loading])
            await child.kill()
        return samples

    async def _learning(self) -> None:
        """New versions of the learner's policy for ever, each of which the router must unfold."""
        policies = [one for one in self.world.policies if isinstance(one, PolicyRouter)]
        producer = self.on.broker.producer()
        await producer.start()
        try:
            while True:
                await self.on.clock.sleep(LEARNT_S)
                self.learnt += 1
                for one in policies:
                    newer = one.model_copy(update={"version": one.version + self.learnt})
                    number, row = record(newer, self.partitions, self.learnt)
                    await producer.send(POLICIES, number, [row])
        finally:
            await producer.stop()

    async def waiting(self, store: Store, route: str, count: int) -> dict[str, float]:
        """`count` requests lie there already: decisions per second from the first record polled to the last commit."""
        word = self.on.name(f"{route}-waiting")
        await self._fill(REQUESTS, word, count, route)
        samples = Samples(0, count)
        async with Meter(self.on.process) as meter:

            def observe(notice: Notice) -> None:
                if notice.kind == "accepted":
                    meter.begin()
                elif samples.done.is_set():
                    meter.end()

            runner = self.runner(store, samples, observe)
            await ensure_groups(self.on.bootstrap, runner.groups(), admin=self.on.admin)
            await until(runner, samples.done, timeout_s=PATIENCE_S + count / SLOWEST_PER_S)
            meter.end()
        return _told(meter, count)

    async def by_hand(self, count: int) -> dict[str, float]:
        """A transactional loop by hand that only decodes, copies and encodes as many requests."""
        topic = f"ratchet.bench-{self.on.name('raw')}"
        await self.on.create([topic], self.partitions)
        each = count // self.partitions
        placed: dict[int, list[Outgoing]] = {number: [] for number in range(self.partitions)}
        n = 0
        while any(len(rows) < each for rows in placed.values()):
            number, row = record(request("raw", n, FULL, self.world.texts, self.on.clock.now_ms()), self.partitions)
            n += 1
            if len(placed[number]) < each:
                placed[number].append(row)
        await self._send(topic, placed)
        job = raw.Job(
            self.on.bootstrap, topic, DECISIONS, self.partitions, each * self.partitions, min(each, AT_ONCE),
            self.on.name("raw"), self._copied,
        )  # fmt: skip
        async with Meter(self.on.process) as meter:
            await raw.transactional(job, meter, "batch", "each")
        return _told(meter, each * self.partitions)

    def _copied(self, row: Record) -> Outgoing:
        event = decode(row, self.partitions)
        cause = cause_of(event)
        return outgoing((Emit(event.data),), cause, agent="raw", partitions=self.partitions, now_ms=lambda: 0)[0].record

    async def _fill(self, topic: str, word: str, count: int, route: str) -> None:
        now_ms = self.on.clock.now_ms()
        by_partition: dict[int, list[Outgoing]] = {}
        for n in range(count):
            number, row = record(request(word, n, route, self.world.texts, now_ms), self.partitions)
            by_partition.setdefault(number, []).append(row)
        await self._send(topic, by_partition)


def _told(meter: Meter, count: int) -> dict[str, float]:
    found = meter.row(count)
    return {
        "decisions": count,
        "decisions_per_s": found["events_per_s"],
        "cpu_us_per_decision": found["cpu_us_per_event"],
        "broker_us_per_decision": found["broker_us_per_event"],
    }


async def on_kafka(gateway: Gateway, store: Store, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    """Open loop with everything on, with nothing on, and what one process can do."""
    await gateway.prepare()
    full = await gateway.paced(store, FULL, rate, seconds, say)
    fixed = await gateway.paced(MemoryStore(), FIXED, rate, max(1.0, seconds / 4), say)
    count = max(500, min(10_000, int(rate * seconds / 6)))
    say(f"{count} requests that wait")
    found = [
        {"what": "router, Kafka and Redis", **await gateway.waiting(store, FULL, count)},
        {"what": "fixed, Kafka", **await gateway.waiting(MemoryStore(), FIXED, count)},
        {"what": "loop by hand, Kafka", **await gateway.by_hand(count)},
    ]
    return {"full": full, "fixed": fixed, "through_kafka": found}
