"""How topics stand: where they end, how long they keep what they hold. For who erases; nothing of a topic is read."""

import asyncio
from collections.abc import Collection

from schemas.errors import Unavailable
from schemas.topics import full
from streams.port import Admin, Broker, BrokerError, Outgoing, Producer

TOUCH = b"-"  # the key of a record that is only there to be appended


class Standing:
    """Connects at the first question; `stop` lets go. Everything raises `Unavailable` where the broker does not answer, or not to us."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._admin: Admin | None = None
        self._producer: Producer | None = None
        self._asking = asyncio.Lock()

    async def ends(self, topic: str) -> dict[int, int]:
        """Partition -> last stable offset: what was acknowledged before the call lies below."""
        name = full(topic)
        async with self._asking:
            try:
                admin = await self._open()
                count = (await admin.partitions([name])).get(name, 0)
                found = await admin.ends([(name, number) for number in range(count)])
            except BrokerError as error:
                await self._let_go()
                raise Unavailable(f"where {name} ends cannot be told: {error}") from error
        if not found:
            raise Unavailable(f"topic {name} does not exist: `ratchet up` creates it")
        return {number: offset for (_, number), offset in found.items()}

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """Effective settings of each topic that there is."""
        names = [full(topic) for topic in topics]
        async with self._asking:
            try:
                admin = await self._open()
                there = await admin.partitions(names)
                return await admin.configs(sorted(there))
            except BrokerError as error:
                await self._let_go()
                raise Unavailable(f"the settings of topics cannot be told: {error}") from error

    async def touch(self, topic: str) -> None:
        """Append a tombstone of no key of anybody's to each partition: Kafka ends a segment only when something is appended, and cleans
        none that has not ended. It is compacted away itself."""
        name = full(topic)
        for number in await self.ends(topic):
            try:
                if self._producer is None:
                    producer = self._broker.producer()
                    await producer.start()
                    self._producer = producer
                await self._producer.send(name, number, [Outgoing(TOUCH, None)])
            except BrokerError as error:
                await self._let_go()
                raise Unavailable(f"{name}[{number}] was not appended to: {error}") from error

    async def stop(self) -> None:
        async with self._asking:
            await self._let_go()

    async def _open(self) -> Admin:
        if self._admin is None:
            admin = self._broker.admin()
            await admin.start()
            self._admin = admin
        return self._admin

    async def _let_go(self) -> None:
        held, self._admin, self._producer = (self._admin, self._producer), None, None
        for client in held:
            if client is not None:
                try:
                    await client.stop()
                except BrokerError:
                    continue  # it is gone already
