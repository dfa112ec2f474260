"""Where an agent under test runs: a process of its own on Kafka, or a runner in this process on the broker in memory.

Both are killed, frozen, continued and told where the next fault strikes by the same calls, so one table runs on both.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from infra.clock import SystemClock
from streams.lane import RuntimeSettings
from streams.runner import Runner
from tests.faults.agents import Chain
from tests.faults.forks import Fork, Forks
from tests.faults.strike import Observer, Seen, Step, Strike
from tests.faults.world import World

WORKER = "tests.faults.worker"
# Of the production values only the commit bound is shorter, so that a delay of seconds is beyond it.
KAFKA: Mapping[str, Any] = {"commit_bound_s": 1.5}
MEMORY = RuntimeSettings(
    linger_s=0.003,
    batch=16,
    commit_bound_s=1.0,
    fenced_wait_s=0.02,
    backoff_s=0.01,
    backoff_max_s=0.1,
    tick_s=0.1,
)
MEMORY_DELAY_S = 1.3


class Host(Protocol):
    """An agent that runs somewhere. `said` grows."""

    said: list[Seen]

    async def arm(self, step: Step) -> None: ...
    async def gone(self) -> None:
        """Wait until it has ended."""
        ...

    def resume(self) -> None: ...
    async def kill(self) -> None: ...
    async def stop(self) -> None:
        """Gracefully; raises when it ends with an error."""
        ...


def count(host: Host, kind: str) -> int:
    return sum(seen.kind == kind for seen in host.said)


async def heard(
    host: Host, kind: str, *, after: float = 0.0, timeout_s: float = 15.0, where: Callable[[Seen], bool] | None = None
) -> Seen | None:
    """The first thing of that kind said after a time, None when it does not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        for seen in host.said:
            if seen.kind == kind and seen.t >= after and (where is None or where(seen)):
                return seen
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.005)


class Process:
    """A worker process."""

    def __init__(self, fork: Fork, log: Path) -> None:
        self.said: list[Seen] = []
        self.log = log
        self.fork = fork
        self._listening = asyncio.create_task(self._listen())

    @staticmethod
    async def begin(
        forks: Forks,
        world: World,
        folder: Path,
        *,
        ordinal: int = 0,
        settings: Mapping[str, Any] = KAFKA,
        **words: Any,
    ) -> "Process":
        """`words` are further ones of `tests.faults.worker.main`."""
        told = {
            "world": world.name,
            "shape": world.shape,
            "bootstrap": world.bootstrap,
            "ordinal": ordinal,
            "settings": dict(settings),
            **words,
        }
        log = folder / f"{world.name}-{ordinal}.log"
        return Process(await forks.begin(told, log), log)

    async def _listen(self) -> None:
        while line := await self.fork.stdout.readline():
            with suppress(ValueError):  # a line cut off by SIGKILL
                self.said.append(Seen(*json.loads(line)))
        await self.fork.ended()

    async def order(self, **words: Any) -> None:
        with suppress(ConnectionError):
            self.fork.stdin.write(json.dumps(words).encode() + b"\n")
            await self.fork.stdin.drain()

    async def arm(self, step: Step) -> None:
        await self.order(arm=step.dump())

    async def gone(self) -> None:
        await asyncio.wait([self._listening])

    def send(self, number: signal.Signals) -> None:
        self.fork.send(number)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.gone()

    async def stop(self) -> None:
        await self.order(stop=True)
        try:
            async with asyncio.timeout(20):
                await self.gone()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the worker does not stop; see {self.log}") from None
        if self.fork.returncode:
            raise AssertionError(f"the worker ended with {self.fork.returncode}; see {self.log}")


class InProcess:
    """A runner of ours on the broker in memory. Frozen means that the lane at the fault point sleeps until resumed."""

    def __init__(self, world: World) -> None:
        self.said: list[Seen] = []
        self._awake = asyncio.Event()
        self._observer = Observer(self._say)
        self._strike = Strike(self._say, self._die, self._awake_again)
        self._runner = Runner(world.broker, SystemClock(), settings=MEMORY, observe=self._observer, fault=self._strike)
        agent = world.agent
        if isinstance(agent, Chain):
            self._runner.add_fold(agent)
        else:
            self._runner.add_transform(agent)
        self._task = asyncio.create_task(self._runner.run())

    def _say(self, kind: str, partition: int = -1, text: str = "") -> None:
        self.said.append(Seen(time.monotonic(), kind, partition, text))

    async def _die(self) -> None:
        self._runner.kill()
        self._task.cancel()
        await asyncio.sleep(3600)

    async def _awake_again(self) -> None:
        await self._awake.wait()

    async def arm(self, step: Step) -> None:
        self._strike.arm(step)
        self._observer.again()

    async def gone(self) -> None:
        await asyncio.wait([self._task])

    def resume(self) -> None:
        self._awake.set()

    async def kill(self) -> None:
        self._runner.kill()
        self._task.cancel()
        await self.gone()

    async def stop(self) -> None:
        await self._runner.stop()
        await self._task
