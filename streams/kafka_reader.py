"""Consumers on aiokafka: members of a group, or alone at positions given."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportUnknownLambdaType=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportIncompatibleMethodOverride=false
# aiokafka ships no types; every value that leaves this file is typed by the port.

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    TopicAuthorizationFailedError,
)

from streams.kafka_clients import close, start
from streams.kafka_edge import denied, quiet_client_logs, starting, translated
from streams.kafka_names import take_any_names
from streams.kafka_settings import CONSUMER
from streams.port import TP, Listener, Lost
from streams.security import PLAINTEXT, Security
from streams.shapes import Record
from streams.wire import valued


def _records(found: dict[Any, list[Any]]) -> dict[TP, list[Record]]:
    return {
        (tp.topic, tp.partition): [
            Record(m.topic, m.partition, m.offset, m.key, m.value, valued(m.headers), m.timestamp) for m in messages
        ]
        for tp, messages in found.items()
    }


class _Relay(ConsumerRebalanceListener):
    """Hands rebalances on. New partitions are paused, at a position that nothing is read from before a lane seeks."""

    def __init__(self, reader: "KafkaReader", listener: Listener) -> None:
        self.reader = reader
        self.listener = listener

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self.listener.revoked([(tp.topic, tp.partition) for tp in revoked])

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self.reader.resting.clear()
        for tp in assigned:
            self.reader.consumer.pause(tp)
            self.reader.consumer.seek(tp, 0)
        await self.listener.assigned([(tp.topic, tp.partition) for tp in assigned])


class KafkaReader:
    """A consumer: a static group member, or alone at positions given.

    The client's own pause throws away what it has fetched, up to a megabyte, to fetch it once more: a lane that pauses and resumes
    would read everything several times. So a paused partition is not asked, and what was fetched of it stays.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        security: Security = PLAINTEXT,
        positions: Mapping[TP, int] | None = None,
        group: tuple[Collection[str], str, str, Listener] | None = None,
        gives: type[Any] | None = None,
    ) -> None:
        """`gives`: what reads the client's answers in the place of `AnyNames`."""
        self.security = security
        self.positions = dict(positions or {})
        self.group = group
        self.gives = gives
        self.bootstrap = bootstrap
        self.resting: set[TopicPartition] = set()
        self._waiting: asyncio.Timeout | None = None  # for what does not rest
        self._consumer: Any = None

    @property
    def consumer(self) -> Any:
        if self._consumer is None:
            raise Lost("the reader was not started")
        return self._consumer

    async def start(self) -> None:
        quiet_client_logs()
        take_any_names()
        member: dict[str, Any] = {}
        if self.group is not None:
            _, group, instance, _ = self.group
            member = {"group_id": group, "group_instance_id": instance, "client_id": instance}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            auto_offset_reset="none",
            key_deserializer=self.gives,  # not of keys: see kafka_names
            **CONSUMER,
            **self.security.client(),
            **member,
        )
        if self.group is not None:
            topics, _, _, listener = self.group
            self._consumer.subscribe(topics=sorted(topics), listener=_Relay(self, listener))
        async with starting("consumer start", self.bootstrap, self.security):
            await start(self._consumer)
        if self.group is None:
            self._consumer.assign([TopicPartition(*tp) for tp in self.positions])
            for tp, offset in self.positions.items():
                self.seek(tp, offset)
            await asyncio.sleep(0)  # let the client's tasks begin: it cannot stop one that never ran

    async def stop(self) -> None:
        if self._consumer is not None:
            with translated("consumer stop", self.security):
                await close(self._consumer)

    def seek(self, tp: TP, offset: int) -> None:
        with translated(f"seek {tp}", self.security):
            self.consumer.seek(TopicPartition(*tp), offset)

    def pause(self, partitions: Collection[TP]) -> None:
        tps = {TopicPartition(*tp) for tp in partitions}
        if gone := tps - self.consumer.assignment():
            raise Lost(f"pause: {', '.join(map(str, sorted(gone)))} is not assigned")
        self.resting |= tps

    def resume(self, partitions: Collection[TP]) -> None:
        tps = {TopicPartition(*tp) for tp in partitions}
        with translated("resume", self.security):
            self.consumer.resume(*tps)
        self.resting -= tps
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def poll(self, *, timeout_s: float, max_records: int) -> Mapping[TP, Sequence[Record]]:
        return _records(await self.polled(timeout_s, max_records))

    async def polled(self, timeout_s: float, max_records: int) -> dict[Any, list[Any]]:
        """The same as the client gives it."""
        with translated("poll", self.security):
            try:
                found = await self._fetched(timeout_s, max_records)
            except NoOffsetForPartitionError:
                return {}  # asked by the client itself before the lane has sought its position
            except ConsumerStoppedError as exc:
                raise Lost("the consumer is stopped") from exc
        if not found and not self.security.open:
            self._check_hidden()
        return found

    async def _fetched(self, timeout_s: float, max_records: int) -> dict[Any, list[Any]]:
        """What the client has of the partitions that do not rest, waiting for it or until one that rested is resumed.

        The client counts a record as read when it gives it: so it gives it to this coroutine, from which it goes to a lane with
        nothing awaited in between, never to a task of its own. A position that is ahead of what lanes hold would let a tick
        overtake.
        """
        if not self.resting:
            return await self.consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        try:
            async with asyncio.timeout(timeout_s) as self._waiting:
                if awake := self.consumer.assignment() - self.resting:
                    wait_ms = int(timeout_s * 1000)
                    return await self.consumer.getmany(*awake, timeout_ms=wait_ms, max_records=max_records)
                await asyncio.sleep(timeout_s)
        except TimeoutError:
            if self._waiting is None or not self._waiting.expired():
                raise
        finally:
            self._waiting = None
        return {}

    def _check_hidden(self) -> None:
        """Denied where the broker hides a topic from us: the client would wait for it without a word."""
        names = {tp.topic for tp in self.consumer.assignment()}
        if hidden := sorted(names & self.consumer._client.cluster.unauthorized_topics):  # noqa: SLF001  told nowhere else
            raise denied(self.security, "poll", TopicAuthorizationFailedError(hidden))

    async def position(self, tp: TP) -> int:
        with translated(f"position {tp}", self.security):
            try:
                return await self.consumer.position(TopicPartition(*tp))
            except IllegalStateError as exc:
                raise Lost(f"{tp} is not assigned") from exc
