"""A process that runs the judge until it is killed: `judge_worker.py BOOTSTRAP ORDINAL CLOCK LOG POINT NTH`.

Its wall clock stands at what the file CLOCK says, so that ticks come where a test puts them. It kills itself at the NTH time that
its lane is at POINT, and writes a line into LOG whenever its lane has opened.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from agents.judge.fold import Judge
from infra.clock import SystemClock
from streams.kafka import KafkaBroker
from streams.runner import Runner
from streams.surroundings import RuntimeSettings

SETTINGS = RuntimeSettings(fenced_wait_s=0.2, tick_s=0.001)


class ToldClock(SystemClock):
    """A wall clock that a file sets."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now_ms(self) -> int:
        return int(self._file.read_text())


async def main(bootstrap: str, ordinal: str, clock: str, log: str, point: str, nth: str) -> None:
    left = int(nth)

    async def strike(at: str, name: str, partition: int) -> None:
        nonlocal left
        if at == "opened":
            with Path(log).open("a") as file:  # noqa: ASYNC230  one line
                file.write(f"{ordinal}\n")
        if at == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    runner = Runner(
        KafkaBroker(bootstrap), ToldClock(Path(clock)), ordinal=int(ordinal), settings=SETTINGS, fault=strike
    )
    runner.add_fold(Judge())
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
