"""The broker port on aiokafka: with `kafka_clients` the only file that imports a Kafka client, and the untyped edge.

Settings and their reasons are the table in docs/design.md ("Ids, members, values"); none of them is for callers to change.
"""
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
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)

from streams.kafka_clients import close, opening, start
from streams.port import NONE, TP, BrokerError, Fenced, Listener, Lost, Outgoing, OutOfRange, Rejected, TopicSpec
from streams.shapes import Record

REQUEST_TIMEOUT_MS = 8_000
TRANSACTION_TIMEOUT_MS = 10_000
SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 1_000
REBALANCE_TIMEOUT_MS = 10_000
BATCH_BYTES = 1 << 20
LARGEST_BYTES = 1_048_588 + 65_536
log = logging.getLogger("streams")
REFUSED = {2, 10, 18, 29, 32, 87}  # corrupt, too large, list too large, not allowed, timestamp, invalid record


class _Quiet(logging.Filter):
    """Lets one line per place in the client through each second: a broker that is away makes thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno)
        if record.created - self.last.get(place, 0.0) < 1.0:
            return False
        self.last[place] = record.created
        return True


def quiet_client_logs() -> None:
    """Rate-limit the client's own log lines: warnings and worse, one per place and second."""
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.client", "aiokafka.cluster"):
        _quiet(logging.getLogger(name))
    for name in ("producer.sender", "producer.transaction_manager", "consumer.fetcher", "consumer.group_coordinator"):
        _quiet(logging.getLogger(f"aiokafka.{name}"))
    # It warns of each partition's first batch in a transaction, while the broker verifies it (NotEnoughReplicas, retried).
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)


def _quiet(logger: logging.Logger) -> None:
    if not any(isinstance(found, _Quiet) for found in logger.filters):
        logger.addFilter(_Quiet())
        logger.setLevel(logging.WARNING)


@contextmanager
def _translated(what: str) -> Generator[None]:
    """Foreign errors become the port's."""
    try:
        yield
    except (ProducerFenced, InvalidProducerEpoch) as exc:
        raise Fenced(f"{what}: {exc}") from exc
    except (MessageSizeTooLargeError, RecordTooLargeError, TopicAuthorizationFailedError) as exc:
        raise Rejected(f"{what}: {exc!r}") from exc
    except OffsetOutOfRangeError as exc:
        raise OutOfRange(f"{what}: {exc}") from exc
    except KafkaError as exc:
        cause = exc.__cause__
        if isinstance(cause, ProducerFenced | InvalidProducerEpoch):
            raise Fenced(f"{what}: {cause}") from exc
        kind = Rejected if getattr(exc, "errno", 0) in REFUSED else Lost
        raise kind(f"{what}: {exc!r}") from exc
    except (OSError, TimeoutError, AssertionError) as exc:  # the client asserts where metadata is not there yet
        raise Lost(f"{what}: {exc!r}") from exc


def _records(found: dict[Any, list[Any]]) -> dict[TP, list[Record]]:
    return {
        (tp.topic, tp.partition): [
            Record(m.topic, m.partition, m.offset, m.key, m.value, m.headers, m.timestamp) for m in messages
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
        for tp in assigned:
            self.reader.consumer.pause(tp)
            self.reader.consumer.seek(tp, 0)
        await self.listener.assigned([(tp.topic, tp.partition) for tp in assigned])


class KafkaReader:
    """A consumer: a static group member, or alone at positions given."""

    def __init__(
        self,
        bootstrap: str,
        *,
        positions: Mapping[TP, int] | None = None,
        group: tuple[Collection[str], str, str, Listener] | None = None,
    ) -> None:
        self.positions = dict(positions or {})
        self.group = group
        self.bootstrap = bootstrap
        self._consumer: Any = None

    @property
    def consumer(self) -> Any:
        if self._consumer is None:
            raise Lost("the reader was not started")
        return self._consumer

    async def start(self) -> None:
        quiet_client_logs()
        member: dict[str, Any] = {}
        if self.group is not None:
            _, group, instance, _ = self.group
            member = {"group_id": group, "group_instance_id": instance, "client_id": instance}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
            max_partition_fetch_bytes=LARGEST_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            partition_assignment_strategy=(RangePartitionAssignor,),
            retry_backoff_ms=100,
            **member,
        )
        if self.group is not None:
            topics, _, _, listener = self.group
            self._consumer.subscribe(topics=sorted(topics), listener=_Relay(self, listener))
        with _translated("consumer start"):
            await start(self._consumer)
        if self.group is None:
            self._consumer.assign([TopicPartition(*tp) for tp in self.positions])
            for tp, offset in self.positions.items():
                self.seek(tp, offset)
            await asyncio.sleep(0)  # let the client's tasks begin: it cannot stop one that never ran

    async def stop(self) -> None:
        if self._consumer is not None:
            with _translated("consumer stop"):
                await close(self._consumer)

    def seek(self, tp: TP, offset: int) -> None:
        with _translated(f"seek {tp}"):
            self.consumer.seek(TopicPartition(*tp), offset)

    def pause(self, partitions: Collection[TP]) -> None:
        with _translated("pause"):
            self.consumer.pause(*(TopicPartition(*tp) for tp in partitions))

    def resume(self, partitions: Collection[TP]) -> None:
        with _translated("resume"):
            self.consumer.resume(*(TopicPartition(*tp) for tp in partitions))

    async def poll(self, *, timeout_s: float, max_records: int) -> Mapping[TP, Sequence[Record]]:
        with _translated("poll"):
            try:
                found = await self.consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
            except NoOffsetForPartitionError:
                return {}  # asked by the client itself before the lane has sought its position
            except ConsumerStoppedError as exc:
                raise Lost("the consumer is stopped") from exc
            return _records(found)

    async def position(self, tp: TP) -> int:
        with _translated(f"position {tp}"):
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

    __slots__ = ("future", "what")

    def __init__(self, future: "asyncio.Future[object]", what: str) -> None:
        self.future = future
        self.what = what

    def __await__(self) -> Generator[Any, None, None]:
        with _translated(self.what):
            yield from self.future.__await__()


class KafkaTransactionalProducer:
    """One transactional id."""

    def __init__(self, bootstrap: str, transactional_id: str) -> None:
        self.bootstrap = bootstrap
        self.id = transactional_id
        self._producer: Any = None

    async def start(self) -> None:
        quiet_client_logs()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            client_id=self.id,
            transactional_id=self.id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            acks="all",
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            max_request_size=LARGEST_BYTES,
            retry_backoff_ms=5,
        )
        with _translated(f"{self.id}: start"), opening():
            await self._producer.start()  # where it fails the lane closes it, within its bound

    async def stop(self, timeout_s: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(timeout_s):  # the client's own stop would wait for the broker
                await close(producer)
        except (TimeoutError, KafkaError, OSError, AssertionError) as exc:
            log.debug("%s: let go by force: %r", self.id, exc)

    @property
    def producer(self) -> Any:
        if self._producer is None:
            raise Lost(f"{self.id}: stopped")
        return self._producer

    async def begin(self) -> None:
        with _translated(f"{self.id}: begin"):
            await self.producer.begin_transaction()

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Sequence[Awaitable[object]]:
        what = f"{self.id}: send to {topic}[{partition}]"
        with _translated(what):
            futures = await _send(self.producer, topic, partition, records)
        return [_Acknowledged(future, what) for future in futures]

    async def offsets(self, following: Mapping[TP, int], group: str) -> None:
        with _translated(f"{self.id}: offsets"):
            await self.producer.send_offsets_to_transaction(
                {TopicPartition(*tp): offset for tp, offset in following.items()}, group
            )

    async def commit(self) -> None:
        with _translated(f"{self.id}: commit"):
            await self.producer.commit_transaction()

    async def abort(self) -> None:
        with _translated(f"{self.id}: abort"):
            await self.producer.abort_transaction()


class KafkaProducer:
    """Idempotent, without transactions."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._producer: Any = None

    async def start(self) -> None:
        quiet_client_logs()
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=LARGEST_BYTES,
            retry_backoff_ms=50,
        )
        with _translated("producer start"):
            await start(producer)
        self._producer = producer

    async def stop(self) -> None:
        if self._producer is not None:
            with _translated("producer stop"):
                await close(self._producer)

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        what = f"send to {topic}[{partition}]"
        with _translated(what):
            if self._producer is None:
                raise Lost("the producer was not started")
            for future in await _send(self._producer, topic, partition, records):
                await _Acknowledged(future, what)


class KafkaAdmin:
    """Topics, offsets, ends."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin: Any = None
        self._reader: Any = None
        self._coordinators: dict[str, int] = {}

    async def start(self) -> None:
        quiet_client_logs()
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS, client_id="ratchet-admin"
        )
        self._reader = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            enable_auto_commit=False,
        )
        with _translated("admin start"):
            await start(self._admin, self._reader)

    async def stop(self) -> None:
        try:
            if self._admin is not None:
                await close(self._admin)
        finally:
            if self._reader is not None:
                await close(self._reader)

    async def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, int]:
        with _translated(f"{group}: committed offsets"):
            try:
                if group not in self._coordinators:
                    self._coordinators[group] = await self._admin.find_coordinator(group)
                found = await self._admin.list_consumer_group_offsets(
                    group, self._coordinators[group], [TopicPartition(*tp) for tp in partitions]
                )
            except KafkaError:
                self._coordinators.pop(group, None)
                raise
        if not found:  # the top-level error is not told: loading, or not the coordinator any more
            self._coordinators.pop(group, None)
        return {(tp.topic, tp.partition): NONE if row.offset < 0 else int(row.offset) for tp, row in found.items()}

    async def set_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        member = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        with _translated(f"{group}: set offsets"):
            try:
                await start(member)
                member.assign([TopicPartition(*tp) for tp in offsets])
                await member.commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})
            finally:
                await close(member)

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        with _translated("end offsets"):
            found = await self._reader.end_offsets([TopicPartition(*tp) for tp in partitions])
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def starts(self, partitions: Collection[TP]) -> dict[TP, int]:
        with _translated("start offsets"):
            found = await self._reader.beginning_offsets([TopicPartition(*tp) for tp in partitions])
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def offsets_at(self, partitions: Collection[TP], at_ms: int) -> dict[TP, int]:
        ends = await self.ends(partitions)
        with _translated("offsets by time"):
            found = await self._reader.offsets_for_times({TopicPartition(*tp): at_ms for tp in partitions})
        return {
            tp: ends[tp] if (row := found.get(TopicPartition(*tp))) is None else int(row.offset) for tp in partitions
        }

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        with _translated("describe topics"):
            found = await self._admin.describe_topics(sorted(topics))
        return {row["topic"]: len(row["partitions"]) for row in found if not row["error_code"]}

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(topics)]
        with _translated("describe configs"):
            answers = await self._admin.describe_configs(wanted)
        return {
            resource[3]: {row[0]: str(row[1]) for row in resource[4]}
            for answer in answers
            for resource in answer.resources
            if not resource[0]
        }

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        rows = [NewTopic(row.name, row.partitions, row.replication, topic_configs=dict(row.config)) for row in topics]
        with _translated("create topics"):
            answer = await self._admin.create_topics(rows)
        bad = [f"{row[0]}: {row[2] or row[1]}" for row in answer.topic_errors if row[1] not in (0, 36)]
        if bad:
            raise Rejected("topics not created: " + "; ".join(bad))

    async def alive(self) -> bool:
        with _translated("describe cluster"):
            return bool((await self._admin.describe_cluster())["brokers"])


class KafkaBroker:
    """Makes the parts of one cluster."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> KafkaReader:
        return KafkaReader(self.bootstrap, group=(topics, group, instance, listener))

    def reader(self, positions: Mapping[TP, int]) -> KafkaReader:
        return KafkaReader(self.bootstrap, positions=positions)

    def transactional(self, transactional_id: str) -> KafkaTransactionalProducer:
        return KafkaTransactionalProducer(self.bootstrap, transactional_id)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self.bootstrap)

    def admin(self) -> KafkaAdmin:
        return KafkaAdmin(self.bootstrap)


__all__ = ["BrokerError", "KafkaBroker", "quiet_client_logs"]
