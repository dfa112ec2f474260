"""Parts of `ratchet bench streams` about state and size: restore by number of keys, and how many partitions one process can hold."""

import asyncio
from typing import Any

import psutil

from infra.clock import SystemClock
from schemas.errors import Unavailable
from streams.admin import ensure_groups
from streams.lane import Notice, RuntimeSettings
from streams.memory import MemoryBroker
from streams.port import Broker, BrokerError, Outgoing
from streams.runner import Runner
from tools.bench import Say
from tools.bench.streams_base import Copy, Count, Field, Meter, keys_of, payload, record, until
from tools.bench.streams_rows import SHIPPED

LEAST = 64  # partitions that the real broker begins with


async def restore(on: Field, sizes: list[int], say: Say) -> list[dict[str, Any]]:
    """Seconds in which a lane has its state again: one partition, one row of 220 bytes per key and what the transactions left."""
    found: list[dict[str, Any]] = []
    for keys in sizes:
        say(f"restore: {keys} keys")
        source = await on.fill("restore", 1, keys, keys=keys)
        name = on.name("restore")
        await on.join(name, "fold", source)
        agent = Count(name, source.topic)
        await on.run(agent, source, SHIPPED)
        opened, seconds = asyncio.Event(), list[float]()

        def observe(notice: Notice, opened: asyncio.Event = opened, seconds: list[float] = seconds) -> None:
            if notice.kind == "restored":
                seconds.append(notice.value)
            elif notice.kind == "opened":
                opened.set()

        async with Meter() as meter:
            runner = Runner(on.broker, on.clock, observe=observe)
            runner.add_fold(agent)
            meter.begin()
            await until(runner, opened)
            meter.end()
        found.append(
            {
                "keys": keys,
                "seconds": round(seconds[0], 3),
                "seconds_per_10000": round(10_000 * seconds[0] / keys, 3),
                "stall_ms": round(1000 * meter.stall_s, 1),
            }
        )
    return found


class _Lanes:
    """Opens a Fold and a Transform on every partition, twice: the second time with state. Then one event per partition goes through."""

    def __init__(self, broker: Broker, partitions: int, tag: str) -> None:
        self.broker = broker
        self.partitions = partitions
        self.names = (f"count-{tag}", f"copy-{tag}")
        self.source = f"ratchet.bench-many-{tag}"
        self.keys = keys_of(partitions, 1)
        self.sent = 0

    def rows(self) -> list[Outgoing]:
        """One event per partition, in their order."""
        self.sent += 1
        return [record(payload(keys[0]), f"{self.source}-{self.sent}-{n}") for n, keys in enumerate(self.keys)]

    def runner(self, observe: Any) -> Runner:
        runner = Runner(self.broker, SystemClock(), observe=observe, settings=RuntimeSettings(open_bound_s=120))
        runner.add_fold(Count(self.names[0], self.source))
        runner.add_transform(Copy(self.names[1], self.source))
        return runner

    async def once(self, timeout_s: float) -> dict[str, Any]:
        """Open every lane and let the event that lies in each partition through, for both agents."""
        resident = psutil.Process().memory_info().rss
        counts: dict[str, float] = {"opened": 0, "committed": 0}
        opened_s, dropped, clock = 0.0, 0, SystemClock()
        done, wanted = asyncio.Event(), 2 * self.partitions

        def observe(notice: Notice) -> None:
            nonlocal opened_s, dropped
            if notice.kind == "dropped":
                dropped += 1
            if notice.kind in counts:
                counts[notice.kind] += notice.value
                if notice.kind == "opened" and counts["opened"] == wanted:
                    opened_s = clock.monotonic() - began
            if counts["opened"] >= wanted and counts["committed"] >= wanted:
                done.set()

        async with Meter() as meter:
            began = clock.monotonic()
            meter.begin()
            await until(self.runner(observe), done, timeout_s=timeout_s)
            meter.end()
            resident = psutil.Process().memory_info().rss - resident
        return {
            "opened_s": round(opened_s, 2),
            "all_committed_s": round(meter.wall_s, 2),
            "cpu_s": round(meter.cpu_s, 2),
            "stall_ms": round(1000 * meter.stall_s, 1),
            "mib_more": round(resident / 2**20),
            "dropped": dropped,
        }


async def many_in_memory(partitions: int, say: Say) -> dict[str, Any]:
    """Assign and restore on the broker in memory: a Fold's and a Transform's lane on every partition."""
    say(f"partitions: {partitions} on the broker in memory, two lanes each")
    broker = MemoryBroker(partitions=partitions)
    lanes, found = _Lanes(broker, partitions, "memory"), dict[str, Any]()
    for word in ("empty", "restored"):
        for row in lanes.rows():
            broker.put(lanes.source, row.key, row.value, row.headers)
        found[word] = await lanes.once(300)
    return {"partitions": partitions, "lanes": 2 * partitions, **found}


async def many_on_kafka(on: Field, most: int, bound_s: float, say: Say) -> dict[str, Any]:
    """The same on the broker, twice as many each time, until `most` or until the time is used up or it does not come up."""
    tried: list[dict[str, Any]] = []
    until_s, partitions, ended = on.clock.monotonic() + bound_s, min(LEAST, most), "all"
    while True:
        left_s = until_s - on.clock.monotonic()
        if left_s <= 0:
            ended = f"{bound_s:.0f} s were used up"
            break
        say(f"partitions: {partitions} on Kafka, two lanes each, {left_s:.0f} s left")
        try:
            async with asyncio.timeout(left_s):
                tried.append(await _on_kafka(on, partitions, left_s))
        except (TimeoutError, Unavailable, BrokerError) as fault:
            ended = f"{partitions} did not come up: {fault!r}"[:200]
            break
        if partitions >= most:
            break
        partitions = min(2 * partitions, most)
    return {"fit": tried[-1]["partitions"] if tried else 0, "bound_s": bound_s, "ended": ended, "tried": tried}


async def _on_kafka(on: Field, partitions: int, left_s: float) -> dict[str, Any]:
    tag = str(partitions)
    lanes = _Lanes(on.broker, partitions, tag)
    count, copy = lanes.names
    own = [f"ratchet.{count}.state", f"ratchet.{count}.order", f"ratchet.{copy}.deferred"]
    for name in (lanes.source, *own):
        await on.create([name], partitions)
    groups = {f"ratchet.{count}": [lanes.source], f"ratchet.{copy}": [lanes.source, own[2]]}
    await ensure_groups(on.bootstrap, groups, admin=on.admin)
    producer, found = on.broker.producer(), dict[str, Any]()
    await producer.start()
    try:
        for word in ("empty", "restored"):
            await asyncio.gather(*(producer.send(lanes.source, n, [row]) for n, row in enumerate(lanes.rows())))
            found[word] = await lanes.once(left_s)
    finally:
        await producer.stop()
    return {"partitions": partitions, "lanes": 2 * partitions, **found}
