"""Other processes of `ratchet bench streams`, ended whatever happens, and the part that kills them."""

import asyncio
import statistics
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from infra.settings import process_environment
from schemas import ids
from schemas.codec import decode_payload
from schemas.errors import Unavailable
from schemas.events import RequestSubmitted
from streams.port import Outgoing
from streams.raw import count_uncommitted
from streams.shapes import Record
from tools.bench import Say
from tools.bench.streams_base import KEYS, STUCK_S, Field, Source, judged, keys_of, payload, record

RATE = 2000.0
STEP_S = 0.01
FIRST_S = 30.0


class Child:
    """A process of the benchmark."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @staticmethod
    async def start(*words: str, module: str = "tools.bench.streams_worker") -> "Child":
        argv = ["-m", module, *words]
        around = process_environment() | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
        pipe = asyncio.subprocess.PIPE
        return Child(await asyncio.create_subprocess_exec(sys.executable, *argv, stdin=pipe, stdout=pipe, env=around))

    async def line(self, within_s: float = FIRST_S) -> list[str]:
        """The next line it says, in words. `Unavailable` when it says nothing."""
        if self.process.stdout is None:
            raise AssertionError("no pipe")
        try:
            async with asyncio.timeout(within_s):
                said = (await self.process.stdout.readline()).decode().split()
        except TimeoutError:
            said = list[str]()
        if not said:
            raise Unavailable(f"a process of the benchmark said nothing for {within_s:.0f} s, or ended")
        return said

    def go(self) -> None:
        if self.process.stdin is None:
            raise AssertionError("no pipe")
        self.process.stdin.write(b"go\n")

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.communicate()


@asynccontextmanager
async def loading(bootstrap: str, topic: str, partitions: int, rate: float, seconds: float) -> AsyncGenerator[None]:
    """Another process sends at `rate` for `seconds`."""
    child = await Child.start("load", bootstrap, topic, str(partitions), str(rate), str(seconds))
    try:
        yield
    finally:
        await child.kill()


class Feed:
    """Sends events at a constant rate until it is stopped, and knows their ids."""

    def __init__(self, on: Field, source: Source) -> None:
        self.on = on
        self.source = source
        self.ids: list[str] = []

    async def run(self) -> None:
        producer = self.on.broker.producer()
        keys = keys_of(self.source.partitions, KEYS)
        await producer.start()
        try:
            while True:
                for number, names in enumerate(keys):
                    batch = list[Outgoing]()
                    for _ in range(max(1, int(RATE * STEP_S / len(keys)))):
                        n = len(self.ids)
                        self.ids.append(ids.derive(self.source.topic, "feed", n))
                        batch.append(record(payload(names[n % KEYS]), self.ids[-1]))
                    await producer.send(self.source.topic, number, batch)
                await self.on.clock.sleep(STEP_S)
        finally:
            await producer.stop()


async def recovery(on: Field, partitions: int, kills: int, say: Say) -> dict[str, Any]:
    """SIGKILL under load at moments drawn from the kill's number: seconds to the first commit of the next process."""
    found: dict[str, Any] = {}
    for how in ("restarted", "standby"):
        for shape in ("transform", "fold"):
            say(f"recovery: {shape}, {how}, {kills} kills")
            row = found[f"{shape}_{how}"] = await _kills(on, shape, partitions, kills, standby=how == "standby")
            say(f"recovery: {shape}, {how}: p50 {row['p50_s']} s, worst {row['worst_s']} s, lost {row['lost']}")
    return found


async def _kills(on: Field, shape: str, partitions: int, kills: int, *, standby: bool) -> dict[str, Any]:
    source, starts = await on.fill("kills", partitions, 0), await on.ends(partitions)
    name = on.name(shape)
    await on.join(name, shape, source)
    words = ("agent", on.bootstrap, shape, name, source.topic)
    feed, times = Feed(on, source), list[float]()
    feeding = asyncio.create_task(feed.run())
    child, following = await Child.start(*words), None
    try:
        await child.line()
        child.go()
        await child.line()
        for number in range(kills):
            if standby:
                following = await Child.start(*words)
                await following.line()
            await on.clock.sleep(0.2 + 0.5 * ids.coin(name, str(number)) / 65_536)
            began = on.clock.monotonic()
            child.process.kill()
            if following is None:
                following = await Child.start(*words)
                await following.line()
            following.go()
            await child.kill()
            child, following = following, None
            times.append(float((await child.line())[1]) - began)
        feeding.cancel()
        await asyncio.wait([feeding])
        rows = await _all_out(on, feed, starts)
        copies = await count_uncommitted(on.bootstrap, starts) - len(rows)
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
        for one in (child, following):
            if one is not None:
                await one.kill()
    return {
        "kills": kills,
        "p50_s": round(statistics.median(times), 3),
        "worst_s": round(max(times), 3),
        "events": len(feed.ids),
        "aborted_copies": copies,
        **judged(feed.ids, rows),
        "state_wrong": wrong_states(rows) if shape == "fold" else 0,
    }


async def _all_out(on: Field, feed: Feed, starts: dict[tuple[str, int], int]) -> Sequence[Record]:
    """The outputs, when there are enough of them and no more come."""
    until, before = on.clock.monotonic() + STUCK_S, -1
    while True:
        rows = await on.since(starts, 0)
        enough = len(rows) >= len(feed.ids) and len(rows) == before
        if enough or on.clock.monotonic() > until:
            return rows
        before = len(rows)
        await on.clock.sleep(0.3)


def wrong_states(rows: Sequence[Record]) -> int:
    """Keys whose outputs do not count 1, 2, 3 …: then the state was wrong at some time."""
    counts: dict[bytes | None, list[int | None]] = defaultdict(list)
    for row in rows:
        data = decode_payload(RequestSubmitted, row.value)
        counts[row.key].append(data.deadline_ms if isinstance(data, RequestSubmitted) else None)
    return sum(found != list(range(1, len(found) + 1)) for found in counts.values())
