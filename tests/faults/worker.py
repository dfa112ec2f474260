"""A process that runs one world's agent on Kafka: `python -m tests.faults.worker '{…}'`. Ordered about on stdin, speaks on stdout.

It is what a fault hits: it kills or freezes itself at the point it was told.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Collection
from typing import Any

from infra.clock import SystemClock
from streams.kafka import KafkaAdmin, KafkaBroker
from streams.lane import RuntimeSettings
from streams.port import TP
from streams.runner import Runner
from tests.faults.agents import Chain, Echo
from tests.faults.strike import Observer, Step, Strike


class JumpingClock(SystemClock):
    """The machine's wall clock, set wrongly by `jump_ms`."""

    jump_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.jump_ms


def say(kind: str, partition: int = -1, text: str = "") -> None:
    sys.stdout.write(json.dumps([time.monotonic(), kind, partition, text]) + "\n")
    sys.stdout.flush()


class _Admin(KafkaAdmin):
    """Tells when the broker did not know all offsets: while it loads them."""

    async def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, int]:
        found = await super().committed(group, partitions)
        if len(found) < len(partitions):
            say("unknown offsets")
        return found


class _Broker(KafkaBroker):
    def admin(self) -> KafkaAdmin:
        return _Admin(self.bootstrap)


def _signal_self(number: signal.Signals) -> Any:
    async def send() -> None:
        os.kill(os.getpid(), number)

    return send


async def _orders(runner: Runner, strike: Strike, observer: Observer, clock: JumpingClock) -> None:
    """Read orders until stdin ends, then stop: a worker does not outlive its harness."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if "arm" in order:
            strike.arm(Step(**order["arm"]))
            observer.again()
        if "jump_ms" in order:
            clock.jump_ms = order["jump_ms"]
        if "stop" in order:
            break
    await runner.stop()


async def main(world: str, shape: str, bootstrap: str, ordinal: int, settings: dict[str, Any]) -> None:
    observer = Observer(say)
    strike = Strike(say, _signal_self(signal.SIGKILL), _signal_self(signal.SIGSTOP))
    clock = JumpingClock()
    runner = Runner(
        _Broker(bootstrap),
        clock,
        ordinal=ordinal,
        settings=RuntimeSettings(**settings),
        observe=observer,
        fault=strike,
    )
    if shape == "transform":
        runner.add_transform(Echo(world))
    else:
        runner.add_fold(Chain(world))
    say("begun")
    orders = asyncio.create_task(_orders(runner, strike, observer, clock))
    await runner.run()
    orders.cancel()
    say("ended")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main(**json.loads(sys.argv[1])))
