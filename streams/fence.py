"""A fence and a publisher for evidence: transactional ids whose state is a record of `ratchet.evidence.state`, partition 0.

Rules:
1. A fenced owner never goes on: `Fenced` is final.
2. After an unknown outcome the id is taken again, and the last committed record says whether anybody came between.
"""

import json
from collections.abc import Sequence

from schemas import ids
from schemas.codec import encode
from schemas.errors import Unavailable
from schemas.payload import Payload
from schemas.topics import PREFIX, state_topic
from streams.port import TP, Broker, BrokerError, Fenced, Outgoing, TransactionalProducer
from streams.wire import partition_of

STOP_S = 2.0


class _Owned:
    """A transactional id with a counted record of its own; each commit counts up."""

    def __init__(self, broker: Broker, name: str, agent: str) -> None:
        self.id = f"ratchet.{agent}.{name}"
        self.key = f"~{name}".encode()
        self.home: TP = (state_topic(agent), 0)
        self.broker = broker
        self.count = -1  # of our last attempt; -1 before the first start
        self.cursor: int | None = None
        self.fenced = False
        self._producer: TransactionalProducer | None = None

    async def open(self) -> TransactionalProducer:
        """Take the id. Raises Fenced, for good, when another owner has committed since our last attempt."""
        if self.fenced:
            raise Fenced(f"{self.id} belongs to another process")
        if self._producer is not None:
            return self._producer
        producer = self.broker.transactional(self.id)
        try:
            await producer.start()
            count, cursor = await self._last()
        except BrokerError:
            await producer.stop(STOP_S)
            raise
        if self.count >= 0 and count > self.count:
            self.fenced = True
            await producer.stop(STOP_S)
            raise Fenced(f"{self.id}: another process committed {count}, we had tried {self.count}")
        self.count, self.cursor = count, cursor
        self._producer = producer
        return producer

    async def _last(self) -> tuple[int, int | None]:
        admin = self.broker.admin()
        await admin.start()
        try:
            start, end = (await admin.starts([self.home]))[self.home], (await admin.ends([self.home]))[self.home]
        finally:
            await admin.stop()
        count, cursor = 0, None
        if end > start:
            reader = self.broker.reader({self.home: start})
            await reader.start()
            try:
                while await reader.position(self.home) < end:
                    for row in (await reader.poll(timeout_s=0.2, max_records=5000)).get(self.home, ()):
                        if row.key == self.key and row.value is not None:
                            known = json.loads(row.value)
                            count, cursor = known["count"], known["cursor"]
            finally:
                await reader.stop()
        return count, cursor

    async def commit(self, rows: Sequence[tuple[str, int, Outgoing]], cursor: int | None) -> None:
        try:
            producer = await self.open()
            self.count += 1
            value = json.dumps({"count": self.count, "cursor": cursor}).encode()
            await producer.begin()
            waiting = [
                future
                for topic, partition, row in (*rows, (*self.home, Outgoing(self.key, value)))
                for future in await producer.send(topic, partition, [row])
            ]
            for future in waiting:
                await future
            await producer.commit()
            self.cursor = cursor
        except Fenced:
            self.fenced = True
            await self.stop()
            raise
        except BrokerError as error:
            await self.stop()
            raise Unavailable(f"{self.id}: the outcome is unknown: {error}") from error

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop(STOP_S)


class Fence:
    """The right to go on: `commit` succeeds only for the newest owner of the id."""

    def __init__(self, broker: Broker, agent: str = "evidence") -> None:
        self._owned = _Owned(broker, "fence", agent)

    async def start(self) -> None:
        """Take the id; every earlier owner is fenced from here on."""
        try:
            await self._owned.open()
        except Fenced:
            raise
        except BrokerError as error:
            raise Unavailable(f"cannot take the fence: {error}") from error

    async def commit(self) -> None:
        """Commit under the id. `Fenced`: another process has it, never go on. `Unavailable`: unknown, may be tried again."""
        await self._owned.commit((), None)

    async def stop(self) -> None:
        await self._owned.stop()


class Publisher:
    """Publishes events and its cursor in one transaction: exactly once from a log that is not Kafka.

    Publishers of different `owner` do not fence each other.
    """

    def __init__(self, broker: Broker, partitions: int, agent: str = "evidence", owner: str = "publisher") -> None:
        self.agent = agent
        self.partitions = partitions
        self._owned = _Owned(broker, owner, agent)

    async def start(self) -> int | None:
        """Take the id and say where the last committed transaction ended: its `cursor`, None before the first."""
        try:
            await self._owned.open()
        except Fenced:
            raise
        except BrokerError as error:
            raise Unavailable(f"cannot take the publisher's id: {error}") from error
        return self._owned.cursor

    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None:
        """`(payload, identity)` each, ids derived from the identity. After `Unavailable` call `start` for the cursor."""
        rows: list[tuple[str, int, Outgoing]] = []
        for payload, identity in payloads:
            event_id = ids.derive(identity, self.agent, payload.TYPE)
            trace = ids.trace_parent(None, event_id)
            row = encode(payload, event_id=event_id, source=f"ratchet/{self.agent}", traceparent=trace)
            place = partition_of(row.key, self.partitions)
            rows.append((PREFIX + payload.TOPIC, place, Outgoing(row.key, row.value, row.headers)))
        await self._owned.commit(rows, cursor)

    async def stop(self) -> None:
        await self._owned.stop()
