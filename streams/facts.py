"""Facts: events without an input record (an adapter is live, a job reports). At least once; equal content, equal id."""

from schemas import ids
from schemas.codec import encode
from schemas.errors import Refused, Unavailable
from schemas.payload import Payload
from schemas.topics import PREFIX
from streams.port import Broker, BrokerError, Denied, Outgoing, Producer, Rejected
from streams.wire import largest, partition_of, size_of


class Facts:
    """An idempotent producer for one agent. Connects at the first fact; `stop` lets go."""

    def __init__(self, broker: Broker, agent: str) -> None:
        self.agent = agent
        self._broker = broker
        self._producer: Producer | None = None
        self._counts: dict[str, int] = {}

    async def send(self, payload: Payload, identity: str, traceparent: str | None = None) -> None:
        """Returns when acknowledged; the event's id is derived from `identity`, so a repeat has the same.

        Raises `Unavailable` when the broker did not acknowledge (send again), `Refused` when it never will.
        """
        event_id = ids.derive(identity, self.agent, payload.TYPE)
        trace = ids.trace_parent(traceparent, event_id)
        row = encode(payload, event_id=event_id, source=f"ratchet/{self.agent}", traceparent=trace)
        topic, record = PREFIX + payload.TOPIC, Outgoing(row.key, row.value, row.headers)
        if size_of(record) > largest(topic):
            raise Refused(f"a fact of {size_of(record)} bytes, {topic} takes {largest(topic)}", kind="oversize")
        try:
            if self._producer is None:
                producer = self._broker.producer()
                await producer.start()
                self._producer = producer
            await self._producer.send(topic, partition_of(row.key, await self._partitions(topic)), [record])
        except (Rejected, Denied) as error:
            raise Refused(f"{payload.TYPE}: {error}", kind="rejected") from error
        except BrokerError as error:
            await self.stop()
            raise Unavailable(f"{payload.TYPE} was not acknowledged: {error}") from error

    async def _partitions(self, topic: str) -> int:
        if topic not in self._counts:
            admin = self._broker.admin()
            await admin.start()
            try:
                self._counts |= await admin.partitions([topic])
            finally:
                await admin.stop()
            if topic not in self._counts:
                raise Unavailable(f"topic {topic} does not exist: `ratchet up` creates it")
        return self._counts[topic]

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                await producer.stop()
            except BrokerError:
                return  # what was acknowledged stays, the rest was told to its caller
