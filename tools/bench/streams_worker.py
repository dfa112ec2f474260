"""A process of `ratchet bench streams`: an agent that is killed, or a load at a constant rate.

    python -m tools.bench.streams_worker agent BOOTSTRAP transform|fold NAME SOURCE
    python -m tools.bench.streams_worker load BOOTSTRAP TOPIC PARTITIONS RATE SECONDS

`agent` says `ready` when it is loaded, waits for a line, runs, and says `commit <monotonic seconds>` at its first commit.
"""

import asyncio
import sys

from infra.clock import SystemClock
from schemas import ids
from streams.kafka import KafkaBroker
from streams.lane import Notice
from streams.port import Outgoing
from streams.runner import Runner
from tools.bench.streams_base import KEYS, Copy, Count, keys_of, payload, record

STEP_S = 0.005


def agent(bootstrap: str, shape: str, name: str, source: str) -> None:
    """Run until killed."""
    clock, said = SystemClock(), list[float]()

    def observe(notice: Notice) -> None:
        if notice.kind == "committed" and not said:
            said.append(clock.monotonic())
            sys.stdout.write(f"commit {said[0]}\n")
            sys.stdout.flush()

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return
    runner = Runner(KafkaBroker(bootstrap), clock, observe=observe)
    if shape == "transform":
        runner.add_transform(Copy(name, source))
    else:
        runner.add_fold(Count(name, source, numbered=True))
    asyncio.run(runner.run())


async def load(bootstrap: str, topic: str, partitions: int, rate: float, seconds: float) -> None:
    """Send each event when it is due, whatever became of the others; `at_ms` is the time that it was due."""
    clock, rows = SystemClock(), keys_of(partitions, KEYS)
    producer = KafkaBroker(bootstrap).producer()
    await producer.start()
    try:
        began, sent, count = clock.now_ms(), 0, int(rate * seconds)
        bodies = [[payload(key) for key in keys] for keys in rows]
        while sent < count:
            due = min(count, int((clock.now_ms() - began) * rate / 1000))
            batches: list[list[Outgoing]] = [[] for _ in range(partitions)]
            for n in range(sent, due):
                at = began + int(1000 * n / rate)
                body = bodies[n % partitions][n // partitions % KEYS].model_copy(update={"at_ms": at})
                batches[n % partitions].append(record(body, ids.derive(topic, "load", n)))
            sent = max(sent, due)
            await asyncio.gather(
                *(producer.send(topic, number, batch) for number, batch in enumerate(batches) if batch)
            )
            await clock.sleep(STEP_S)
    finally:
        await producer.stop()


def main(mode: str, *words: str) -> None:
    if mode == "agent":
        agent(*words)
    else:
        bootstrap, topic, partitions, rate, seconds = words
        asyncio.run(load(bootstrap, topic, int(partitions), float(rate), float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
