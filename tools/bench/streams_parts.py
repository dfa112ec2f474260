"""Parts of `ratchet bench streams` beside throughput: work against workers and latency, latency at a given rate, linear cost, memory."""

import asyncio
import tracemalloc
from collections import deque
from collections.abc import Sequence
from typing import Any

from schemas.payload import Payload
from streams.lane import Notice, RuntimeSettings
from streams.runner import Runner
from streams.shapes import Event, Out
from tools.bench import Say
from tools.bench.loop import percentiles
from tools.bench.streams_base import Copy, Count, Field, Source, judged, until
from tools.bench.streams_children import loading
from tools.bench.streams_rows import SHIPPED


async def _shipped(on: Field, shape: str, source: Source, *, work_s: float = 0.0) -> dict[str, Any]:
    """One run as shipped, codec on, its outputs counted."""
    name, starts = on.name(shape), await on.ends(source.partitions)
    await on.join(name, shape, source)
    agent = Copy(name, source.topic, work_s=work_s) if shape == "transform" else Count(name, source.topic)
    meter, _ = await on.run(agent, source, SHIPPED)
    return meter.row(source.events) | judged(source.ids, await on.since(starts, source.events))


async def work(on: Field, partitions: int, seconds: float, say: Say) -> list[dict[str, Any]]:
    """Events that wait 20 and 200 ms: events per second over workers ÷ latency."""
    found: list[dict[str, Any]] = []
    for work_s in (0.02, 0.2):
        ideal = SHIPPED.workers * partitions / work_s
        rounds = max(2, int(seconds / work_s))
        source = await on.fill("work", partitions, rounds * SHIPPED.workers * partitions)
        say(f"work: {1000 * work_s:.0f} ms each, {source.events} events, at best {ideal:.0f} events/s")
        row = await _shipped(on, "transform", source, work_s=work_s)
        found.append(
            {"work_ms": 1000 * work_s, "ideal_per_s": ideal, "ratio": round(row["events_per_s"] / ideal, 3), **row}
        )
    return found


async def scale(on: Field, counts: Sequence[int], events: int, say: Say) -> list[dict[str, Any]]:
    """Events per second of one core, by the number of partitions."""
    found: list[dict[str, Any]] = []
    for partitions in counts:
        source = await on.fill("scale", partitions, events - events % partitions)
        for shape in ("transform", "fold"):
            say(f"scale: {shape} on {partitions} partitions")
            row = await _shipped(on, shape, source)
            per_core = round(1e6 / row["cpu_us_per_event"])
            found.append({"shape": shape, "partitions": partitions, "events_per_core_s": per_core, **row})
    return found


class _Paced:
    """Milliseconds from the time each event was due to the commit that holds it, lane by lane in order."""

    def __init__(self) -> None:
        self.due: dict[int, deque[int]] = {}
        self.times: list[float] = []
        self.done = asyncio.Event()
        self.wanted = 0

    def accepted(self, event: Event[Payload]) -> None:
        self.due.setdefault(event.place.partition, deque()).append(event.data.at_ms)

    def committed(self, partition: int, events: int, now_ms: int) -> None:
        rows = self.due[partition]
        self.times += [now_ms - rows.popleft() for _ in range(events)]
        if len(self.times) >= self.wanted:
            self.done.set()


class _PacedCopy(Copy):
    def __init__(self, name: str, source: str, paced: _Paced) -> None:
        super().__init__(name, source)
        self.paced = paced

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        self.paced.accepted(event)
        return await super().__call__(event)


async def latency(on: Field, partitions: int, rate: float, seconds: float, say: Say) -> dict[str, Any]:
    """A Transform as shipped under events that another process sends at `rate`, each when it is due."""
    source = await on.fill("paced", partitions, 0)
    name, paced = on.name("paced"), _Paced()
    await on.join(name, "transform", source)
    opened, left = asyncio.Event(), partitions

    def observe(notice: Notice) -> None:
        nonlocal left
        if notice.kind == "committed":
            paced.committed(notice.partition, int(notice.value), on.clock.now_ms())
        elif notice.kind == "opened":
            left -= 1
            if not left:
                opened.set()

    runner = Runner(on.broker, on.clock, observe=observe)
    runner.add_transform(_PacedCopy(name, source.topic, paced))
    paced.wanted = int(rate * seconds)
    say(f"latency: {rate:.0f} events/s for {seconds:.0f} s")

    async def paced_load() -> None:
        await opened.wait()
        async with loading(on.bootstrap, source.topic, partitions, rate, seconds):
            await paced.done.wait()

    feeding = asyncio.create_task(paced_load())
    try:
        await until(runner, paced.done, timeout_s=seconds + 60)
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
    return {"events_per_s": round(rate, 1), "events": len(paced.times), **percentiles(paced.times)}


class _Stuck(Copy):
    """Begins every event and ends none until it is let go."""

    def __init__(self, name: str, source: str, wanted: int) -> None:
        super().__init__(name, source)
        self.wanted = wanted
        self.full = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        self.wanted -= 1
        if self.wanted <= 0:
            self.full.set()
        await self.go.wait()
        return await super().__call__(event)


async def memory(on: Field, events: int, say: Say) -> dict[str, float]:
    """Bytes that an event holds while a worker has it, and while it waits for one: allocations of Python, the record's own among them."""
    source = await on.fill("memory", 1, events)
    say(f"memory: {events} events in one lane")
    return {
        "events": events,
        "bytes_waiting": await _held(on, source, workers=1),
        "bytes_in_work": await _held(on, source, workers=events),
    }


async def _held(on: Field, source: Source, *, workers: int) -> float:
    """Bytes per event when the window holds the whole source and `workers` of them are in work."""
    name, left = on.name("memory"), source.events
    await on.join(name, "transform", source)
    agent, before, found = _Stuck(name, source.topic, workers), 0, 0
    taken, done = asyncio.Event(), asyncio.Event()

    def observe(notice: Notice) -> None:
        nonlocal left, before
        if notice.kind == "opened":
            before = tracemalloc.get_traced_memory()[0]
        elif notice.kind == "accepted":
            left -= int(notice.value)
            if left <= 0:
                taken.set()

    async def measure() -> None:
        nonlocal found
        await taken.wait()
        await agent.full.wait()
        await on.clock.sleep(0.3)  # the client lets go of what it had fetched
        found = tracemalloc.get_traced_memory()[0] - before
        agent.go.set()
        done.set()

    settings = RuntimeSettings(window=source.events, workers=workers)
    runner = Runner(on.broker, on.clock, settings=settings, observe=observe)
    runner.add_transform(agent)
    tracemalloc.start()
    measuring = asyncio.create_task(measure())
    try:
        await until(runner, done)
    finally:
        tracemalloc.stop()
        measuring.cancel()
        await asyncio.wait([measuring])
    return round(found / source.events)
