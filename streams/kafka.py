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

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError

from streams.kafka_admin import KafkaAdmin
from streams.kafka_clients import close, opening, start
from streams.kafka_edge import quiet_client_logs, starting, translated
from streams.kafka_reader import KafkaReader
from streams.kafka_settings import PRODUCER, TRANSACTION_TIMEOUT_MS
from streams.kafka_whole import KafkaWholeReader
from streams.port import TP, BrokerError, Listener, Lost, Outgoing
from streams.security import PLAINTEXT, Security

log = logging.getLogger("streams")


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

    def whole_reader(self, positions: Mapping[TP, int]) -> KafkaWholeReader:
        return KafkaWholeReader(self.bootstrap, positions, self.security)

    def transactional(self, transactional_id: str) -> KafkaTransactionalProducer:
        return KafkaTransactionalProducer(self.bootstrap, transactional_id, self.security)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self.bootstrap, self.security)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.bootstrap, self.security)


__all__ = ["BrokerError", "KafkaBroker", "quiet_client_logs"]
