"""What the parts of `ratchet bench streams` share: events of one size, two agents, a meter, a broker's topics, the count of what is lost
or twice."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
from pydantic import BaseModel

from infra.clock import Clock, SystemClock
from schemas import ids
from schemas.codec import encode
from schemas.errors import Unavailable
from schemas.events import Message, RequestSubmitted
from schemas.payload import Payload
from schemas.topics import deferred_topic, order_topic, state_topic
from streams.admin import ensure_groups
from streams.kafka import KafkaBroker
from streams.kafka_admin import KafkaAdmin
from streams.lane import Notice, RuntimeSettings
from streams.port import TP, Outgoing, TopicSpec
from streams.runner import Runner
from streams.shapes import AnyFold, Change, Emit, Event, KeyState, Out, Record, Tick, Transform
from streams.wire import Sent, Undecoded, Verbatim, partition_of

VALUE_BYTES = 494
KEYS = 100  # per partition
TARGET = "ratchet.requests"
CAUSE = "ratchet-cause"
TICK_S = 0.005
STUCK_S = 120.0
VISIBLE_S = 10.0


def payload(key: str, at_ms: int = 1_700_000_000_000) -> RequestSubmitted:
    """A request whose JSON has exactly `VALUE_BYTES` bytes."""
    made = RequestSubmitted(
        at_ms=at_ms, route="bench", request_id=key, messages=(Message(role="user", content="x"),), deadline_ms=100_000
    )
    text = "a word " * (VALUE_BYTES // 7)
    left = VALUE_BYTES - len(made.model_dump_json()) + 1
    return made.model_copy(update={"messages": (Message(role="user", content=text[:left]),)})


def record(made: RequestSubmitted, event_id: str) -> Outgoing:
    """The event as one of our agents would have sent it: nine headers."""
    extra = ((CAUSE, event_id.encode()), ("ratchet-at", b"ratchet.requests[0]@0000000"))
    row = encode(
        made, event_id=event_id, source="ratchet/bench", traceparent=ids.trace_parent(None, event_id), extra=extra
    )
    return Outgoing(row.key, row.value, row.headers)


def keys_of(partitions: int, each: int) -> list[list[str]]:
    """`each` keys per partition, where murmur2 places them."""
    found: list[list[str]] = [[] for _ in range(partitions)]
    short, n = partitions, 0
    while short:
        key = f"key-{n:07d}"
        rows = found[partition_of(key.encode(), partitions)]
        if len(rows) < each:
            rows.append(key)
            short -= len(rows) == each
        n += 1
    return found


class Copy:
    """A Transform that emits what it is given, after `work_s` of waiting."""

    def __init__(self, name: str, source: str, *, codec: bool = True, work_s: float = 0.0) -> None:
        self.name = name
        self.inputs = (source,)
        self.codec = codec
        self.work_s = work_s
        self.clock = SystemClock()

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if self.work_s:
            await self.clock.sleep(self.work_s)
        return (Emit(event.data),) if self.codec else (verbatim(event),)

    def refused(self, record: Record, error: Exception) -> None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return ()


def verbatim(event: Event[Payload]) -> Emit:
    """The event's record again, untouched."""
    row = event.record
    return Verbatim(event.data, row=Sent(TARGET, row.partition, Outgoing(row.key, row.value, row.headers)))


class Tally(BaseModel):
    """A count, and text up to about 220 bytes."""

    count: int
    text: str = "s" * 190


class Count:
    """A Fold that counts each key's events and emits what it is given; `numbered`: with the count in it."""

    record_type = Tally
    entry_type = Tally

    def __init__(self, name: str, source: str, *, codec: bool = True, numbered: bool = False) -> None:
        self.name = name
        self.inputs = (source,)
        self.codec = codec
        self.numbered = numbered

    def state_key(self, event: Event[Payload]) -> str | None:
        return event.key if self.codec else (event.record.key or b"").decode()

    def fold(self, state: KeyState[Tally, Tally], event: Event[Payload] | Tick) -> Change[Tally, Tally]:
        if isinstance(event, Tick):
            return Change()
        count = 1 if state.record is None else state.record.count + 1
        data = event.data.model_copy(update={"deadline_ms": count}) if self.numbered else event.data
        return Change((Emit(data) if self.codec else verbatim(event),), record=Tally(count=count))


class Meter:
    """Wall, CPU of this process and of the broker, and the longest stall of the loop, between `begin` (the first counts) and `end`."""

    def __init__(self, broker: psutil.Process | None = None) -> None:
        self.broker = broker
        self.done = asyncio.Event()
        self.wall_s = self.cpu_s = self.broker_s = self.stall_s = 0.0
        self._began: tuple[float, float, float] | None = None

    def begin(self) -> None:
        if self._began is None:
            self._began = self._now()

    def end(self) -> None:
        if self._began is not None and not self.done.is_set():
            now = self._now()
            self.wall_s, self.cpu_s, self.broker_s = (b - a for a, b in zip(self._began, now, strict=True))
            self.done.set()

    def _now(self) -> tuple[float, float, float]:
        spent = self.broker.cpu_times() if self.broker is not None else None
        return time.perf_counter(), time.process_time(), 0.0 if spent is None else spent.user + spent.system

    async def __aenter__(self) -> "Meter":
        gc.collect()
        self._watch = asyncio.create_task(self._stalls())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch

    async def _stalls(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            if self._began is not None and not self.done.is_set():
                self.stall_s = max(self.stall_s, time.perf_counter() - before - TICK_S)

    def row(self, events: int) -> dict[str, float]:
        return {
            "events": events,
            "events_per_s": round(events / self.wall_s, 1),
            "cpu_us_per_event": round(1e6 * self.cpu_s / events, 2),
            "broker_us_per_event": round(1e6 * self.broker_s / events, 2),
            "stall_ms": round(1000 * self.stall_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """A topic filled with events."""

    topic: str
    partitions: int
    ids: tuple[str, ...]

    @property
    def events(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Told:
    """What the lanes of a run said."""

    wanted: int
    meter: Meter
    counts: Counter[str] = field(default_factory=Counter[str])
    transactions: int = 0
    at: dict[tuple[str, int], float] = field(default_factory=dict[tuple[str, int], float])

    def __call__(self, notice: Notice) -> None:
        self.counts[notice.kind] += int(notice.value)
        if notice.kind == "accepted":
            self.meter.begin()
        elif notice.kind == "committed":
            self.transactions += 1
            if self.counts["committed"] >= self.wanted:
                self.meter.end()


class Field:
    """A broker, and what the benchmark has put there."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.broker = KafkaBroker(bootstrap)
        self.clock: Clock = SystemClock()
        self.process = _broker_process()
        self._admin: KafkaAdmin | None = None
        self._names = 0

    async def __aenter__(self) -> "Field":
        self._admin = self.broker.admin()
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.admin.stop()

    @property
    def admin(self) -> KafkaAdmin:
        if self._admin is None:
            raise AssertionError("not entered")
        return self._admin

    def name(self, word: str) -> str:
        self._names += 1
        return f"{word}-{self._names}"

    async def create(self, names: Sequence[str], partitions: int) -> None:
        known = await self.admin.partitions(names)
        config = {"segment.bytes": str(16 << 20)}
        specs = [
            TopicSpec(name, partitions, 1, config | ({"cleanup.policy": "compact"} if name.endswith(".state") else {}))
            for name in names
            if name not in known
        ]
        if specs:
            await self.admin.create(specs)
        async with asyncio.timeout(STUCK_S):
            while await self.admin.partitions(names) != dict.fromkeys(names, max(partitions, *known.values(), 0)):
                await self.clock.sleep(0.05)

    async def fill(self, word: str, partitions: int, events: int, *, keys: int = KEYS) -> Source:
        """A topic with `events` events, equally many per partition, over `keys` keys of each."""
        topic = f"ratchet.bench-{self.name(word)}"
        await self.create([topic], partitions)
        rows = keys_of(partitions, keys)
        each, found = events // partitions, list[str]()
        producer = self.broker.producer()
        try:
            await producer.start()
            for number, names in enumerate(rows):
                bodies = [payload(name) for name in names]
                for first in range(0, each, 1000):
                    batch = list[Outgoing]()
                    for n in range(first, min(first + 1000, each)):
                        found.append(ids.derive(topic, str(number), n))
                        batch.append(record(bodies[n % keys], found[-1]))
                    await producer.send(topic, number, batch)
        finally:
            await producer.stop()
        return Source(topic, partitions, tuple(found))

    async def join(self, agent: str, shape: str, source: Source) -> None:
        """The agent's own topics, and its group at the start of its inputs."""
        own = [deferred_topic(agent)] if shape == "transform" else [state_topic(agent), order_topic(agent)]
        await self.create(own, source.partitions)
        inputs = [source.topic, *own] if shape == "transform" else [source.topic]
        await ensure_groups(self.bootstrap, {f"ratchet.{agent}": inputs}, admin=self.admin)

    async def ends(self, partitions: int) -> dict[TP, int]:
        """Where the target topic ends now."""
        return await self.admin.ends([(TARGET, number) for number in range(partitions)])

    async def since(self, starts: Mapping[TP, int], wanted: int) -> list[Record]:
        """Committed records of the target topic since then.

        A commit is acknowledged before its markers are in every partition, so what lacks of `wanted` is given time to appear.
        """
        found, until_s = list[Record](), self.clock.monotonic() + VISIBLE_S
        reader = self.broker.reader(starts)
        await reader.start()
        try:
            while True:
                for tp, end in (await self.admin.ends(list(starts))).items():
                    while await reader.position(tp) < end:
                        for rows in (await reader.poll(timeout_s=0.2, max_records=5000)).values():
                            found += rows
                if len(found) >= wanted or self.clock.monotonic() > until_s:
                    return found
                await self.clock.sleep(0.05)
        finally:
            await reader.stop()

    async def run(
        self, agent: Transform | AnyFold, source: Source, settings: RuntimeSettings, *, codec: bool = True
    ) -> tuple[Meter, Told]:
        """Run one agent until it has committed the whole source. It has joined before."""
        async with Meter(self.process) as meter:
            told = Told(source.events, meter)
            decoder = None if codec else Undecoded()
            runner = Runner(self.broker, self.clock, settings=settings, observe=told, decoder=decoder)
            if isinstance(agent, Copy):
                runner.add_transform(agent)
            elif isinstance(agent, Count):
                runner.add_fold(agent)
            await until(runner, meter.done)
        return meter, told


async def until(runner: Runner, done: asyncio.Event, *, timeout_s: float = STUCK_S) -> None:
    """Run until the event is set; raise what ended the run before that."""
    running, waiting = asyncio.create_task(runner.run()), asyncio.create_task(done.wait())
    try:
        await asyncio.wait([running, waiting], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            if running.done():
                running.result()
            raise Unavailable(f"a run of the benchmark did not end within {timeout_s:.0f} s")
    finally:
        waiting.cancel()
        await runner.stop()
        await asyncio.wait([running])
    running.result()


def judged(source: Sequence[str], rows: Sequence[Record]) -> dict[str, int]:
    """How many events have no output, and how many outputs are one too many."""
    seen = Counter(dict(row.headers)[CAUSE].decode() for row in rows)
    return {"lost": len(set(source) - set(seen)), "duplicated": len(rows) - len(set(source) & set(seen))}


def _broker_process() -> psutil.Process | None:
    """The broker that this process has started."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "kafka.Kafka" in child.cmdline():
                return child
    return None
