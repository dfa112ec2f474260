"""A process that runs one agent until it is killed: `streams_worker.py BOOTSTRAP AGENT transform|fold POINT NTH`."""

import asyncio
import os
import signal
import sys

from streams_contract import FAST, Count, Echo

from infra.clock import SystemClock
from streams.kafka import KafkaBroker
from streams.runner import Runner


async def main(bootstrap: str, agent: str, shape: str, point: str, nth: str) -> None:
    left = int(nth)

    async def strike(at: str, name: str, partition: int) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    runner = Runner(KafkaBroker(bootstrap), SystemClock(), settings=FAST, fault=strike)
    if shape == "transform":
        runner.add_transform(Echo(agent))
    else:
        runner.add_fold(Count(agent))
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
