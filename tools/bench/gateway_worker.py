"""The other process of `ratchet bench gateway`: requests at a constant rate, each when it is due.

    python -m tools.bench.gateway_worker BOOTSTRAP PARTITIONS RATE COUNT ROUTE WORD [DATA]

It says `ready` when it is connected, waits for a line, sends, and says `sent`. A request's `at_ms` is when it was due: one that is sent
late counts as late, whoever kept it.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.clock import SystemClock
from streams.kafka import KafkaBroker
from streams.port import Outgoing
from tools.bench.gateway_world import record, request, texts_of

FIRST_MS = 50  # from the word to the first request


async def load(bootstrap: str, partitions: int, rate: float, count: int, route: str, word: str, data: str = "") -> None:
    """Open loop: no request waits for a decision."""
    clock, texts = SystemClock(), texts_of(Path(data) if data else None)
    producer = KafkaBroker(bootstrap).producer()
    await producer.start()
    waiting: list[list[Outgoing]] = [[] for _ in range(partitions)]
    come, last = [asyncio.Event() for _ in range(partitions)], False

    async def send(number: int) -> None:
        """What is due goes at once; what becomes due while the broker has not answered goes together, late."""
        while waiting[number] or not last:
            await come[number].wait()
            come[number].clear()
            rows, waiting[number] = waiting[number], []
            if rows:
                await producer.send("ratchet.requests", number, rows)

    try:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if not await asyncio.to_thread(sys.stdin.readline):
            return
        async with asyncio.TaskGroup() as senders:
            for number in range(partitions):
                senders.create_task(send(number))
            began, sent = clock.now_ms() + FIRST_MS, 0
            while sent < count:
                passed_ms = clock.now_ms() - began
                due = max(sent, min(count, int(passed_ms * rate / 1000) + 1)) if passed_ms >= 0 else sent
                found = batches(range(sent, due), partitions, rate, began, route, word, texts)
                for number, rows in found.items():
                    waiting[number] += rows
                    come[number].set()
                sent = due
                await clock.sleep(max(0.0005, (began + 1000 * sent / rate - clock.now_ms()) / 1000))
            last = True
            for event in come:
                event.set()
        sys.stdout.write("sent\n")
        sys.stdout.flush()
    finally:
        await producer.stop()


def batches(
    numbers: Sequence[int], partitions: int, rate: float, began: int, route: str, word: str, texts: Sequence[str]
) -> dict[int, list[Outgoing]]:
    """These requests by partition."""
    found: dict[int, list[Outgoing]] = {}
    for n in numbers:
        number, row = record(request(word, n, route, texts, began + int(1000 * n / rate)), partitions)
        found.setdefault(number, []).append(row)
    return found


def main(bootstrap: str, partitions: str, rate: str, count: str, route: str, word: str, data: str = "") -> None:
    asyncio.run(load(bootstrap, int(partitions), float(rate), int(count), route, word, data))


if __name__ == "__main__":
    main(*sys.argv[1:])
