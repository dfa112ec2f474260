"""The broker port on aiokafka. Only `kafka*.py` import a Kafka client: the untyped edge."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportUnknownLambdaType=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportIncompatibleMethodOverride=false
# aiokafka ships no types; every value that leaves this file is typed by the port.

import asyncio
import logging
from collections.abc import Awaitable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    TopicAuthorizationFailedError,
)

from streams.kafka_admin import KafkaAdmin
from streams.kafka_clients import close, opening, start
from streams.kafka_edge import denied, quiet_client_logs, starting, translated
from streams.kafka_names import take_any_names
from streams.kafka_settings import CONSUMER, PRODUCER, TRANSACTION_TIMEOUT_MS
from streams.port import TP, BrokerError, Listener, Lost, Outgoing
from streams.security import PLAINTEXT, Security
from streams.shapes import Record
from streams.wire import valued

log = logging.getLogger("streams")


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
    ) -> None:
        self.security = security
        self.positions = dict(positions or {})
        self.group = group
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
        with translated("poll", self.security):
            try:
                found = await self._fetched(timeout_s, max_records)
            except NoOffsetForPartitionError:
                return {}  # asked by the client itself before the lane has sought its position
            except ConsumerStoppedError as exc:
                raise Lost("the consumer is stopped") from exc
        if not found and not self.security.open:
            self._check_hidden()
        return _records(found)

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


def _seen(future: "asyncio.Future[Any]") -> None:
    """Mark the outcome of an abandoned send as seen."""
    if not future.cancelled():
        future.exception()


async def _send(
    producer: Any, topic: str, partition: int, records: Sequence[Outgoing]
) -> list["asyncio.Future[object]"]:
    """Queue records as few batches as fit, in order."""
    sent: list[asyncio.Future[object]] = []
    batch = producer.create_batch()
    for record in records:
        row = {"key": record.key, "value": record.value, "headers": list(record.headers), "timestamp": None}
        if batch.append(**row) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            sent[-1].add_done_callback(_seen)
            batch = producer.create_batch()
            batch.append(**row)
    sent.append(await producer.send_batch(batch, topic, partition=partition))
    sent[-1].add_done_callback(_seen)
    return sent


class _Acknowledged:
    """Awaits a send and translates its error; may be dropped unawaited, as a lane that drops does."""

    __slots__ = ("future", "security", "what")

    def __init__(self, future: "asyncio.Future[object]", what: str, security: Security) -> None:
        self.future = future
        self.what = what
        self.security = security

    def __await__(self) -> Generator[Any, None, None]:
        with translated(self.what, self.security):
            yield from self.future.__await__()


class KafkaTransactionalProducer:
    """One transactional id."""

    def __init__(self, bootstrap: str, transactional_id: str, security: Security = PLAINTEXT) -> None:
        self.bootstrap = bootstrap
        self.security = security
        self.id = transactional_id
        self._producer: Any = None

    async def start(self) -> None:
        quiet_client_logs()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id=self.id,
            transactional_id=self.id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=5,
            **PRODUCER,
            **self.security.client(),
        )
        async with starting(f"{self.id}: start", self.bootstrap, self.security):
            with opening():
                await self._producer.start()  # where it fails the lane closes it, within its bound

    async def stop(self, timeout_s: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await close(producer, timeout_s)
        except (TimeoutError, KafkaError, OSError, AssertionError) as exc:
            log.debug("%s: let go by force: %r", self.id, exc)

    @property
    def producer(self) -> Any:
        if self._producer is None:
            raise Lost(f"{self.id}: stopped")
        return self._producer

    @contextmanager
    def _step(self, what: str) -> Generator[None]:
        """One step of a transaction. Where the client has given the transaction up meanwhile, it says only that there is none:
        what it gave it up for (a fence) waits in a future, and is what the lane must know."""
        with translated(f"{self.id}: {what}", self.security):
            try:
                yield
            except (IllegalOperation, AssertionError) as exc:
                ended = self.producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001  it is told nowhere else
                cause = ended.exception() if ended is not None and ended.done() else None
                raise cause or KafkaError(str(exc)) from exc

    async def begin(self) -> None:
        with self._step("begin"):
            await self.producer.begin_transaction()
            self.producer._txn_manager.wait_for_transaction_end().add_done_callback(_seen)  # noqa: SLF001  awaited at a commit only

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Sequence[Awaitable[object]]:
        what = f"send to {topic}[{partition}]"
        with self._step(what):
            futures = await _send(self.producer, topic, partition, records)
        return [_Acknowledged(future, f"{self.id}: {what}", self.security) for future in futures]

    async def offsets(self, following: Mapping[TP, int], group: str) -> None:
        with self._step("offsets"):
            await self.producer.send_offsets_to_transaction(
                {TopicPartition(*tp): offset for tp, offset in following.items()}, group
            )

    async def commit(self) -> None:
        with self._step("commit"):
            await self.producer.commit_transaction()

    async def abort(self) -> None:
        with self._step("abort"):
            await self.producer.abort_transaction()


class KafkaProducer:
    """Idempotent, without transactions."""

    def __init__(self, bootstrap: str, security: Security = PLAINTEXT) -> None:
        self.bootstrap = bootstrap
        self.security = security
        self._producer: Any = None

    async def start(self) -> None:
        quiet_client_logs()
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            enable_idempotence=True,
            retry_backoff_ms=50,
            **PRODUCER,
            **self.security.client(),
        )
        async with starting("producer start", self.bootstrap, self.security):
            await start(producer)
        self._producer = producer

    async def stop(self) -> None:
        if self._producer is not None:
            with translated("producer stop", self.security):
                await close(self._producer)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        what = f"send to {topic}[{partition}]"
        with translated(what, self.security):
            if self._producer is None:
                raise Lost("the producer was not started")
            for future in await _send(self._producer, topic, partition, records):
                await _Acknowledged(future, what, self.security)


class KafkaBroker:
    """Makes the parts of one cluster, each of them connecting as the same principal."""

    def __init__(self, bootstrap: str, security: Security = PLAINTEXT) -> None:
        self.bootstrap = bootstrap
        self.security = security

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> KafkaReader:
        return KafkaReader(self.bootstrap, security=self.security, group=(topics, group, instance, listener))

    def reader(self, positions: Mapping[TP, int]) -> KafkaReader:
        return KafkaReader(self.bootstrap, security=self.security, positions=positions)

    def transactional(self, transactional_id: str) -> KafkaTransactionalProducer:
        return KafkaTransactionalProducer(self.bootstrap, transactional_id, self.security)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self.bootstrap, self.security)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.bootstrap, self.security)


__all__ = ["BrokerError", "KafkaBroker", "quiet_client_logs"]
