"""Records to events and emits to records: headers, ids, places, sizes, dead letters.

Must not send anything: it says what would be sent where.
"""

from collections.abc import Callable, Sequence
from dataclasses import field
from functools import lru_cache
from operator import itemgetter
from typing import cast

from schemas import ids, principal
from schemas.codec import decode_payload, encode, payload_class, rfc3339
from schemas.errors import Refused, Undecodable
from schemas.payload import REGISTRY, Payload
from schemas.principal import PROVEN, Ring, Speaker
from schemas.topics import BY_NAME, PREFIX, dlq_of
from schemas.value import value
from streams.port import Outgoing
from streams.shapes import DeadLetter, Emit, Event, Headers, Out, Place, Record

BROKER_BYTES = 1_048_588  # the broker's default max.message.bytes; the topics table raises it for dead letters
SMALL = 1 << 16  # value, key and cause together; the other headers of an emit are a few hundred bytes
LETTER_BYTES = BROKER_BYTES + 65_536
PLACED = frozenset(BY_NAME[name].full for name in ("requests", "verdicts", "commands"))  # outside producers place these
TYPED = frozenset(topic.full for topic in BY_NAME.values())
KEYED = frozenset(
    BY_NAME[name].full for name in ("verdicts", "commands")
)  # outsiders write these, and agents go by the payload
ATTEMPT, NOT_BEFORE, ORIGIN, WRITTEN = (
    "ratchet-attempt",
    "ratchet-not-before",
    "ratchet-origin",
    "ratchet-written",
)
PARKING = frozenset((ATTEMPT, NOT_BEFORE, ORIGIN, WRITTEN))
Verify = Callable[[Record], Speaker | None]
"""Who speaks in a record of a `PROVEN` topic, None where nothing is to be proven; raises `Refused`. Depends on the record alone."""
_MASK = 0xFFFFFFFF
_VALUE = itemgetter(1)


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), as an unsigned number."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & _MASK
        k = (k ^ k >> 24) * 0x5BD1E995 & _MASK
        h = h * 0x5BD1E995 & _MASK ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & _MASK
    h = (h ^ h >> 13) * 0x5BD1E995 & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Where the default partitioner of the Java client places a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def size_of(record: Outgoing) -> int:
    """An upper bound of the bytes that a batch with this record alone takes."""
    size = 61 + 31 + len(record.key or b"") + len(record.value or b"")
    for name, data in record.headers:
        size += 10 + 2 * len(name) + len(data or b"")
    return size


def valued(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """Headers as a broker's adapter gives them: one that a client sent without a value has an empty one, so that no reader knows both."""
    if None in map(_VALUE, headers):
        return tuple([(name, value or b"") for name, value in headers])
    return cast("Headers", tuple(headers))


def speaker(ring: Ring, record: Record) -> Speaker | None:
    """Who speaks in a record, by this ring: a `Verify` once the ring is bound."""
    return principal.verify(
        ring,
        topic=record.topic,
        headers=record.headers,
        key=record.key,
        value=record.value,
        at_ms=record.timestamp_ms,
    )


def largest(topic: str) -> int:
    """The largest batch that a topic takes."""
    return LETTER_BYTES if topic.endswith((".dlq", ".deferred")) else BROKER_BYTES


def decode(record: Record, partitions: int, verify: Verify | None = None) -> Event[Payload]:
    """The event in a record. Undecodable names the header or field; `Refused` kind `misplaced` where it lies wrongly.

    A topic takes its own types only, whoever wrote them: who may speak on one topic cannot be heard as if on another. The key is
    what the event is about; of a request the router sees to that, for it can answer.

    `verify` is asked before the payload is parsed, and only on topics where principals speak. Without `ce_id` the id is derived
    from the place, so that a re-read gives the same.
    """
    headers = dict[str, bytes | None](record.headers)  # a client may send a header without a value
    try:
        ce_id = (headers.get("ce_id") or b"").decode()
        ce_type = (headers.get("ce_type") or b"").decode()
        source = (headers.get("ce_source") or b"").decode()
        traceparent = (headers.get("traceparent") or b"").decode()
        key = "" if record.key is None else record.key.decode()
    except UnicodeDecodeError:
        raise Undecodable("a header or the key is not UTF-8", kind="encoding", field="key", accepted="UTF-8") from None
    if record.topic in PLACED:
        at = -1 if record.key is None else partition_of(record.key, partitions)
        if at != record.partition:
            raise Refused(
                f"lies on partition {record.partition}, murmur2 of its key says {'none' if at < 0 else at}",
                kind="misplaced",
                field="key",
                accepted=(
                    "the request id (of a command: the route) as key, partitioner murmur2 "
                    "(librdkafka: partitioner=murmur2_random)"
                ),
            )
    if len(headers) < len(record.headers):
        _check_repeated(record)
    if not ce_type:
        raise Undecodable("there is no ce_type header", kind="no-type", field="ce_type", accepted="ratchet.<type>.v1")
    speaker = verify(record) if verify is not None and record.topic in PROVEN else None
    model = payload_class(ce_type)
    if record.topic in TYPED and record.topic != PREFIX + model.TOPIC:
        raise Undecodable(
            f"{model.TYPE} does not belong on {record.topic}",
            kind="wrong-type",
            field="ce_type",
            accepted=" or ".join(
                sorted(one.ce_type() for one in REGISTRY.values() if record.topic == PREFIX + one.TOPIC)
            )
            or "none",
        )
    payload = decode_payload(model, record.value)
    if record.topic in KEYED and key != payload.event_key():
        raise Refused(
            f"{model.TYPE}: the record key is not what the event is about",
            kind="wrong-key",
            field="key",
            accepted="the request id, of a command its route, of a repair its tenant, as key",
        )
    if speaker is not None:
        speaker.admits(payload)
    place = record.place
    event_id = ce_id or ids.derive(str(place), "place", 0)
    return Event(event_id, key, payload, source, traceparent, place, record)


def _check_repeated(record: Record) -> None:
    """Of two attributes of one name one reader would believe the first, another the last."""
    names = [name for name, _ in record.headers if name.startswith("ce_")]
    for name in names:
        if names.count(name) > 1:
            raise Undecodable(
                f"the header {name[:80]!r} stands there twice",
                kind="repeated-header",
                field=name[:80],
                accepted="each ce_ header once",
            )


@value
class Cause:
    """Why something is emitted, and where it lies."""

    id: str
    key: bytes | None
    traceparent: str
    at: Place | str
    partition: int


def cause_of(event: Event[Payload]) -> Cause:
    return Cause(event.id, event.record.key, event.traceparent, event.place, event.place.partition)


def raw_cause(record: Record) -> Cause:
    """The cause that an undecodable record is: its ids when it names them, else its place."""
    found = dict[str, bytes | None](record.headers)
    name = (found.get("ce_id") or b"").decode("utf-8", "replace") or ids.derive(str(record.place), "place", 0)
    trace = (found.get("traceparent") or b"").decode("utf-8", "replace")
    return Cause(name, record.key, trace, str(record.place), record.partition)


@value
class Sent:
    """One record on its way."""

    topic: str
    partition: int
    record: Outgoing
    blob: bytes | None = None  # for the artifact store


@value
class Verbatim(Emit):
    """An emit that goes out as it is: no id, no header is derived, nothing is encoded. For the benchmark's runs without the codec."""

    row: Sent = field(kw_only=True)


class TooLarge(Exception):
    """An emit does not fit its topic."""


def letter(record: Record, *, agent: str, kind: str, message: str, attempts: int, at_ms: int) -> Sent:
    """The dead letter of a record: key, value and headers untouched, and why."""
    headers: Headers = (
        *record.headers,
        ("ratchet-dlq-topic", record.topic.encode()),
        ("ratchet-dlq-partition", str(record.partition).encode()),
        ("ratchet-dlq-offset", str(record.offset).encode()),
        ("ratchet-dlq-agent", agent.encode()),
        ("ratchet-dlq-kind", kind.encode()),
        ("ratchet-dlq-message", message.encode()[:2000].decode("utf-8", "ignore").encode()),
        ("ratchet-dlq-attempts", str(attempts).encode()),
        ("ratchet-dlq-at", rfc3339(at_ms).encode()),
    )
    return Sent(dlq_of(record.topic), record.partition, Outgoing(record.key, record.value, headers))


def outgoing(
    outs: Sequence[Out], cause: Cause, *, agent: str, partitions: int, now_ms: Callable[[], int]
) -> list[Sent]:
    """The records of what an agent emitted because of `cause`. Raises TooLarge before anything is sent. `now_ms` dates letters."""
    sent: list[Sent] = []
    for index, out in enumerate(outs):
        if isinstance(out, DeadLetter):
            row = letter(out.record, agent=agent, kind=out.kind, message=out.message, attempts=1, at_ms=now_ms())
        else:
            row = out.row if isinstance(out, Verbatim) else _emitted(out, index, cause, agent, partitions)
            if len(row.record.value or b"") + len(row.record.key or b"") + len(cause.id) < SMALL:
                sent.append(row)
                continue
        if size_of(row.record) > largest(row.topic):
            raise TooLarge(f"an emit of {size_of(row.record)} bytes for {row.topic}, which takes {largest(row.topic)}")
        sent.append(row)
    return sent


def _emitted(out: Emit, index: int, cause: Cause, agent: str, partitions: int) -> Sent:
    event_id = ids.derive(cause.id, agent, index if out.identity is None else out.identity)
    encoded = encode(
        out.payload,
        event_id=event_id,
        source=f"ratchet/{agent}",
        traceparent=ids.trace_parent(cause.traceparent or None, event_id),
        extra=(("ratchet-cause", cause.id.encode()), ("ratchet-at", str(cause.at).encode())),
    )
    if out.prove is not None:
        encoded = out.prove(encoded)
    partition = cause.partition if encoded.key == cause.key else partition_of(encoded.key, partitions)
    return Sent(PREFIX + out.payload.TOPIC, partition, Outgoing(encoded.key, encoded.value, encoded.headers), out.blob)


def parked(record: Record, *, attempt: int, topic: str, not_before_ms: int) -> Sent:
    """A record for the agent's deferred topic; `attempt` rounds used so far."""
    headers: Headers = (
        *record.headers,
        (ATTEMPT, str(attempt).encode()),
        (NOT_BEFORE, str(not_before_ms).encode()),
        (ORIGIN, str(record.place).encode()),
        (WRITTEN, str(record.timestamp_ms).encode()),
    )
    return Sent(topic, record.partition, Outgoing(record.key, record.value, headers))


def unparked(record: Record) -> tuple[Record, int, int]:
    """The original record behind a deferred one, the rounds used, and when it is due again. `Undecodable` if it was not `parked`."""
    found = dict(record.headers)
    place, attempt, due, written = record.place, 0, 0, 0
    try:
        attempt, due = int(found[ATTEMPT]), int(found[NOT_BEFORE])
        topic, _, rest = found[ORIGIN].decode().partition("[")
        number, _, offset = rest.partition("]@")
        place = Place(topic, int(number), int(offset))
        written = int(found.get(WRITTEN, str(record.timestamp_ms)))  # a proof counts by the time of the first writing
        ours = place.partition == record.partition and all(
            0 <= n < 1 << 53 for n in (place.offset, attempt, due, written)
        )
    except (KeyError, ValueError):
        ours = False
    if not ours:
        raise Undecodable("not a deferred record", kind="deferred", field=ORIGIN, accepted="our own headers")
    headers = tuple(row for row in record.headers if row[0] not in PARKING)
    original = Record(place.topic, place.partition, place.offset, record.key, record.value, headers, written)
    return original, attempt, due


class Decoder:
    """Decodes records, once per process where several agents read the same topic. Holds the newest few only."""

    KEEP = 8192

    def __init__(self, verify: Verify | None = None) -> None:
        self.readers: dict[str, int] = {}
        self.partitions = 1
        self.verify = verify
        self._kept: dict[tuple[str, int, int], tuple[Event[Payload], int]] = {}

    def add_reader(self, topic: str) -> None:
        """Announce one more agent of this process that reads `topic`."""
        self.readers[topic] = self.readers.get(topic, 0) + 1

    def __call__(self, record: Record) -> Event[Payload]:
        readers = self.readers.get(record.topic, 1)
        if readers < 2:
            return decode(record, self.partitions, self.verify)
        place = (record.topic, record.partition, record.offset)
        event, left = self._kept.pop(place, (None, readers))
        if event is None:
            event = decode(record, self.partitions, self.verify)
        if left > 1:
            self._kept[place] = (event, left - 1)
            if len(self._kept) > self.KEEP:
                del self._kept[next(iter(self._kept))]
        return event


class Undecoded(Decoder):
    """Gives every record as an event without looking into it: for the benchmark's runs without the codec."""

    NOTHING = Payload(at_ms=0)

    def __call__(self, record: Record) -> Event[Payload]:
        return Event("", "", self.NOTHING, "", "", record.place, record)
