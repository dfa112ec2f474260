"""A world: one agent's topics on a broker, the load on them, and the comparison of what came out with the reference."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from schemas import ids
from schemas.codec import encode
from schemas.events import Message, RequestSubmitted
from streams.admin import committed
from streams.memory import MemoryBroker
from streams.port import TP, Broker, BrokerError, Clock, Outgoing, Producer, TopicSpec
from streams.shapes import Record
from streams.wire import partition_of
from tests.faults import raw
from tests.faults.agents import Chain, Echo, Findings, check_chain, check_echo

Shape = Literal["transform", "fold"]
SHAPES: tuple[Shape, ...] = ("transform", "fold")
KEYS = 8


@dataclass
class World:
    """`publish` load under a mark (the keys' prefix), `settled` waits for its answers, `check` compares everything."""

    broker: Broker
    name: str
    shape: Shape
    clock: Clock
    bootstrap: str = ""
    partitions: int = 4
    replication: int = 1
    rows: dict[str, list[Record]] = field(default_factory=dict[str, list[Record]])
    published: Counter[str] = field(default_factory=Counter[str])
    answered: Counter[str] = field(default_factory=Counter[str])
    _sent: int = 0

    @property
    def agent(self) -> Echo | Chain:
        return Echo(self.name) if self.shape == "transform" else Chain(self.name)

    @property
    def group(self) -> str:
        return f"ratchet.{self.name}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its group reads."""
        own = () if self.shape == "fold" else (f"{self.group}.deferred",)
        return (*self.agent.inputs, *own)

    @property
    def topics(self) -> tuple[str, ...]:
        own = ("state", "order") if self.shape == "fold" else ("deferred",)
        return tuple(f"{self.group}.{word}" for word in ("a", "b", "out", *own))

    async def start(self) -> "World":
        self.admin = self.broker.admin()
        await self.admin.start()
        await self.admin.create([TopicSpec(name, self.partitions, self.replication, {}) for name in self.topics])
        while await self.admin.partitions(self.topics) != dict.fromkeys(self.topics, self.partitions):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        tps = [(topic, number) for topic in self.inputs for number in range(self.partitions)]
        await self.admin.set_offsets(self.group, dict.fromkeys(tps, 0))
        await self._open()
        return self

    async def _open(self) -> None:
        self._producer: Producer | None = None
        self._tps: list[TP] = [(topic, number) for topic in self.topics for number in range(self.partitions)]
        self._reader = self.broker.reader(dict.fromkeys(self._tps, 0))
        await self._reader.start()

    async def stop(self) -> None:
        with suppress(BrokerError):
            await self._reader.stop()
        if self._producer is not None:
            with suppress(BrokerError):
                await self._producer.stop()
        await self.admin.stop()

    # load

    async def publish(self, mark: str, rounds: int = 1) -> None:
        """`rounds` events of each key under the mark, over both topics. While the broker is away: waits for it."""
        for _ in range(rounds):
            for n in range(KEYS):
                await self._publish(f"{mark}.{n}", ("a", "b")[(self._sent // 3) % 2])

    async def _publish(self, key: str, word: str) -> None:
        while True:
            self._sent += 1
            payload = RequestSubmitted(
                at_ms=self.clock.now_ms(),
                route="r",
                request_id=key,
                messages=(Message(role="user", content=f"{key} {self._sent}"),),
            )
            name = ids.derive(f"{self.name}/{self._sent}", "faults", 0)
            row = encode(payload, event_id=name, source="faults", traceparent="")
            place = partition_of(row.key, self.partitions)
            try:
                if self._producer is None:
                    producer = self.broker.producer()
                    await producer.start()
                    self._producer = producer
                await self._producer.send(f"{self.group}.{word}", place, [Outgoing(row.key, row.value, row.headers)])
            except BrokerError:  # whether it was written is for the log to say: another one goes out under another id
                if self._producer is not None:
                    with suppress(BrokerError):
                        await self._producer.stop()
                self._producer = None
                await asyncio.sleep(0.2)
            else:
                return

    @asynccontextmanager
    async def load(self, mark: str, pause_s: float) -> AsyncGenerator[None]:
        """Publish a round each `pause_s` in the background."""

        async def forever() -> None:
            while True:
                await self.publish(mark)
                await asyncio.sleep(pause_s)

        task = asyncio.create_task(forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # what came out

    async def read(self) -> None:
        """Read every topic to its last stable offset."""
        ends = await self.admin.ends(self._tps)
        while any([await self._reader.position(tp) < ends[tp] for tp in self._tps]):
            for records in (await self._reader.poll(timeout_s=0.05, max_records=5000)).values():
                for record in records:
                    self._note(record)

    def _note(self, record: Record) -> None:
        self.rows.setdefault(record.topic, []).append(record)
        key = (record.key or b"").decode()
        mark = key.partition(".")[0]
        if record.topic in self.agent.inputs:
            self.published[mark] += 1
        elif record.topic == f"{self.group}.out" and b"~tick" not in dict(record.headers)["ratchet-at"]:
            self.answered[mark] += 1

    async def settled(self, mark: str, timeout_s: float = 40.0) -> bool:
        """Whether everything published under the mark is answered; False when for so long no more of it was read.

        So a slow reader of ours is not taken for a lane that hangs. Nothing may be published under the mark meanwhile.
        """
        loop = asyncio.get_running_loop()
        known, deadline = -1, 0.0
        while True:
            with suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.read()
                if self.published[mark] and self.answered[mark] >= self.published[mark]:
                    return True
            found = self.published[mark] + self.answered[mark]
            if found > known:
                known, deadline = found, loop.time() + timeout_s
            elif loop.time() > deadline:
                return False
            await asyncio.sleep(0.05)

    async def check(self) -> Findings:
        """Compare with the reference. The agents must have stopped."""
        await asyncio.sleep(0.1)
        await self.read()
        inputs = [record for topic in self.agent.inputs for record in self.rows.get(topic, [])]
        out = self.rows.get(f"{self.group}.out", [])
        agent = self.agent
        if isinstance(agent, Echo):
            return check_echo(agent, inputs, out)
        tps = [(topic, number) for topic in agent.inputs for number in range(self.partitions)]
        at = await committed(self.admin, self.group, tps)
        return check_chain(
            agent, inputs, out, self.rows.get(f"{self.group}.order", []), self.rows.get(f"{self.group}.state", []), at
        )

    async def aborted(self) -> Counter[str]:
        """Copies of answers, by mark, that no reader of committed data is given."""
        if isinstance(self.broker, MemoryBroker):
            logs = [log for (topic, _), log in self.broker.logs.items() if topic == f"{self.group}.out"]
            keys = [e.record.key for log in logs for e in log.entries if e.fate == "aborted" and e.record is not None]
        else:
            known = {(r.partition, r.offset) for r in self.rows.get(f"{self.group}.out", [])}
            every = await raw.uncommitted(self.bootstrap, f"{self.group}.out", self.partitions)
            keys = [key for partition, offset, key in every if (partition, offset) not in known]
        return Counter((key or b"").decode().partition(".")[0] for key in keys)
