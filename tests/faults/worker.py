"""A process that runs one world's agent on Kafka, forked as `forks` says. Ordered about on stdin, speaks on stdout.

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
from streams import restore
from streams.kafka import KafkaBroker
from streams.kafka_admin import KafkaAdmin
from streams.kafka_reader import KafkaReader
from streams.lane import Notice, Observe, RuntimeSettings
from streams.port import TP, Listener
from streams.runner import Runner
from tests.faults.agents import Chain, Echo
from tests.faults.forks import serve
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
    """`mute`: the members' heartbeats are held back, all else goes on; the group believes them gone."""

    mute = False

    def admin(self) -> KafkaAdmin:
        return _Admin(self.bootstrap, self.security)

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> KafkaReader:
        return _Member(self, topics, group, instance, listener)


class _Member(KafkaReader):
    def __init__(self, broker: _Broker, *group: Any) -> None:
        super().__init__(broker.bootstrap, security=broker.security, group=group)
        self._broker = broker

    async def start(self) -> None:
        await super().start()
        coordinator: Any = self.consumer._coordinator  # the client has no word for it
        beat = coordinator._do_heartbeat

        async def held_back() -> bool:
            return True if self._broker.mute else await beat()

        coordinator._do_heartbeat = held_back


def _signal_self(number: signal.Signals) -> Any:
    async def send() -> None:
        os.kill(os.getpid(), number)

    return send


def _while_restoring(observer: Observer, kind: str, runner: list[Runner]) -> Observe:
    """An observer that strikes once, in the middle of a restore."""
    left, stopping = [kind], list[asyncio.Task[None]]()

    def observe(notice: Notice) -> None:
        if left and notice.kind == "restoring" and 0 < notice.value < 1:
            say("struck", notice.partition, notice.text)
            if left.pop() == "stop":
                stopping.append(asyncio.create_task(runner[0].stop()))
            else:
                os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        observer(notice)

    return observe


async def _orders(runner: Runner, strike: Strike, observer: Observer, clock: JumpingClock, broker: _Broker) -> None:
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
        if "mute" in order:
            broker.mute = order["mute"]
        if "stop" in order:
            break
    await runner.stop()


async def main(
    world: str,
    shape: str,
    bootstrap: str,
    ordinal: int,
    settings: dict[str, Any],
    restoring: str = "",
    records: int = restore.RECORDS,
) -> None:
    restore.RECORDS = records
    observer = Observer(say)
    strike = Strike(say, _signal_self(signal.SIGKILL), _signal_self(signal.SIGSTOP))
    clock, broker, runners = JumpingClock(), _Broker(bootstrap), list[Runner]()
    observe = _while_restoring(observer, restoring, runners) if restoring else observer
    runner = Runner(broker, clock, ordinal=ordinal, settings=RuntimeSettings(**settings), observe=observe, fault=strike)
    runners.append(runner)
    if shape == "transform":
        runner.add_transform(Echo(world))
    else:
        runner.add_fold(Chain(world))
    say("begun")
    orders = asyncio.create_task(_orders(runner, strike, observer, clock, broker))
    await runner.run()
    orders.cancel()
    say("ended")


if __name__ == "__main__":
    told = serve(int(sys.argv[1]))
    if told is not None:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
        asyncio.run(main(**told))
