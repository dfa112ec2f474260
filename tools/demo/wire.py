"""Kafka as the demonstration uses it: one producer, one reader from now on, typed events."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from infra.clock import SystemClock
from schemas import codec, ids
from schemas.errors import Undecodable
from schemas.payload import Payload
from schemas.topics import PREFIX
from streams.kafka import KafkaBroker
from streams.port import TP, Outgoing
from streams.wire import partition_of
from tools.voice import Voice

WATCHED = tuple(PREFIX + name for name in ("answers", "cases", "promotions", "training", "policies", "commands"))


class KafkaWire:
    """Opened before the first request is sent, so that nothing is missed. One user at a time."""

    def __init__(
        self, bootstrap: str, partitions: int, voices: Mapping[str, Voice], watched: Sequence[str] = WATCHED
    ) -> None:
        self._broker = KafkaBroker(bootstrap)
        self._partitions = partitions
        self._voices = voices  # by topic
        self._watched = watched
        self._producer = self._broker.producer()
        self._clock = SystemClock()
        self._positions: dict[TP, int] = {}

    async def start(self) -> None:
        """Remember where the topics end now."""
        admin = self._broker.admin()
        await admin.start()
        self._positions = await admin.ends([(topic, p) for topic in self._watched for p in range(self._partitions)])
        await admin.stop()
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    def now_ms(self) -> int:
        return self._clock.now_ms()

    async def send(self, events: Sequence[tuple[Payload, str]]) -> None:
        """Publish; returns when acknowledged."""
        for payload, event_id in events:
            row = codec.encode(
                payload, event_id=event_id, source="ratchet/demo", traceparent=ids.trace_parent(None, event_id)
            )
            topic = PREFIX + payload.TOPIC
            row = self._voices[payload.TOPIC].prove(row)
            partition = partition_of(row.key, self._partitions)
            await self._producer.send(topic, partition, [Outgoing(row.key, row.value, row.headers)])

    async def events(self) -> AsyncGenerator[tuple[str, Payload], None]:
        """Every event of the watched topics from `start` on, for ever."""
        reader = self._broker.reader(self._positions)
        await reader.start()
        try:
            while True:
                for records in (await reader.poll(timeout_s=0.2, max_records=500)).values():
                    for record in records:
                        headers = dict(record.headers)
                        try:
                            model = codec.payload_class(headers.get("ce_type", b"").decode())
                            yield headers["ce_id"].decode(), codec.decode_payload(model, record.value)
                        except Undecodable:
                            continue  # somebody else's record; the agents refuse it where it matters
        finally:
            await reader.stop()
