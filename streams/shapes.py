"""What an agent is to the runtime: Transform, Fold, View, and the values that pass between them.

Rules:
1. An agent never sees a Kafka client. It is given events and gives back emits.
2. A Fold is pure: (state, event) -> Change. No view, clock, store, randomness or await.
3. A Transform may await. It raises `Refused` (dead letter), `Unavailable` (retried, then deferred), or crashes.
4. Ids of emits are derived by the runtime from the cause, the agent and the emit's index (`schemas.ids.derive`).
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from schemas.payload import Payload
from schemas.principal import Prove
from schemas.value import value

Headers = tuple[tuple[str, bytes], ...]
P = TypeVar("P", bound=Payload)
P_co = TypeVar("P_co", bound=Payload, covariant=True)


@value
class Place:
    """Where a record lies. `str()` gives `topic[partition]@offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@value
class Record:
    """A record as the broker gave it, untouched."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int

    @property
    def place(self) -> Place:
        return Place(self.topic, self.partition, self.offset)


class Held(BaseModel):
    """A record that a Fold keeps in its state, so that it can later become a dead letter untouched."""

    model_config = ConfigDict(frozen=True)

    topic: str
    partition: int
    offset: int
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...]

    @staticmethod
    def of(record: Record) -> "Held":
        """Wrap a record; bytes become base64 text."""

        def text(data: bytes | None) -> str | None:
            return None if data is None else base64.b64encode(data).decode("ascii")

        return Held(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=text(record.key),
            value=text(record.value),
            headers=tuple((name, base64.b64encode(value).decode("ascii")) for name, value in record.headers),
        )

    def record(self) -> Record:
        """The record again, byte for byte (its broker timestamp is not kept)."""

        def data(text: str | None) -> bytes | None:
            return None if text is None else base64.b64decode(text)

        headers = tuple((name, base64.b64decode(value)) for name, value in self.headers)
        return Record(self.topic, self.partition, self.offset, data(self.key), data(self.value), headers, 0)


@value
class Event(Generic[P_co]):
    """A decoded CloudEvent with its place. `key` is the record key as text; `source` the producer's ce_source."""

    id: str
    key: str
    data: P_co
    source: str
    traceparent: str
    place: Place
    record: Record


@dataclass(frozen=True, slots=True)
class Tick:
    """Event time has reached `at_ms`; given to the keys whose `due_ms` it has reached, in (due, key) order."""

    at_ms: int
    id: str  # derived: the cause of what the key emits now
    traceparent: str


@value
class Emit:
    """An event to send. Topic, type and key come from the payload's class (`.TOPIC`, `.TYPE`, `.event_key()`).

    An emit whose key equals the cause's key goes to the cause's partition number, any other is placed by murmur2 of its
    key. `identity` replaces the emit's index in id derivation (for emits whose order may vary). `blob`: bytes that the payload
    names by digest; the runner puts them into the artifact store before the transaction, twice is harmless. `prove` puts the
    proof of a principal on the record: on a topic where principals speak.
    """

    payload: Payload
    identity: str | None = None
    blob: bytes | None = None
    prove: Prove | None = None


@value
class DeadLetter:
    """Send a record untouched to its topic's DLQ with reason headers. `message` carries no payload text."""

    record: Record
    kind: str
    message: str


Out = Emit | DeadLetter


class View(Protocol):
    """A read-only table of a compacted topic, whole before the lanes open, then followed."""

    def get(self, model: type[P], key: str) -> Event[P] | None:
        """The newest event under `key`, or None. Raises TypeError when it is not a `model`. Synchronous, O(1)."""
        ...

    def items(self, model: type[P]) -> Mapping[str, Event[P]]:
        """All newest events of that payload class by key."""
        ...

    def age_s(self) -> float:
        """Seconds since the view last knew itself to be at the end of its topic."""
        ...


class Transform(Protocol):
    """`async (event) -> emits`, windowed: finished out of order, committed in order.

    Views are given to the agent's constructor by the composition root. `refused` turns an undecodable record into emits
    (for example `answer.refused`), or returns None: then the runtime makes a dead letter.
    """

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    async def __call__(self, event: Event[Payload]) -> Sequence[Out]: ...
    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None: ...
    def deadline_ms(self, event: Event[Payload]) -> int | None:
        """Epoch ms after which a deferred event is given up, None for no deadline."""
        ...

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        """What to emit when retries, rounds or the deadline are used up (for example `result.failed`)."""
        ...


R = TypeVar("R", bound=BaseModel)
E = TypeVar("E", bound=BaseModel)


class Unchanged:
    """The record of this key stays as it is."""


UNCHANGED = Unchanged()


@value
class KeyState(Generic[R, E]):
    """What a Fold knows of one key. Read-only. `entries` may change order after a restore: sort what you walk."""

    key: str
    record: R | None
    entries: Mapping[str, E]
    due_ms: int | None


@value
class Change(Generic[R, E]):
    """What a Fold answers. `put` and `drop` change named entries; `due_ms`: UNCHANGED keeps, None clears.

    `forget=True` deletes the key whole (record, entries, due): a tombstone in the changelog.
    """

    emits: Sequence[Out] = ()
    record: R | Unchanged = UNCHANGED
    put: Mapping[str, E] = field(default_factory=dict[str, E])
    drop: Sequence[str] = ()
    due_ms: int | None | Unchanged = UNCHANGED
    forget: bool = False


class Fold(Protocol[R, E]):
    """Pure `(state, event) -> change`, one after the other per lane; its changelog is in the same transaction."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def record_type(self) -> type[R]: ...
    @property
    def entry_type(self) -> type[E]: ...
    def state_key(self, event: Event[Payload]) -> str | None:
        """The state key that the event belongs to; None ignores the event (its offset is still committed)."""
        ...

    def fold(self, state: KeyState[R, E], event: Event[Payload] | Tick) -> Change[R, E]: ...


@dataclass(frozen=True, slots=True)
class RawState:
    """One key of an older version of a Fold's state: record and entries as JSON values, not as models."""

    key: str
    record: Any
    entries: Mapping[str, Any]
    due_ms: int | None


@runtime_checkable
class Migrating(Protocol):
    """What a Fold has beside its own shape once its state changed its form. Without it the state is of version 1.

    `migrate` is pure, and brings any earlier version to `state_version`, key by key, when a lane restores; a state newer than
    `state_version` is refused. A record of None without entries forgets the key. No event is folded and none is emitted.
    """

    @property
    def state_version(self) -> int: ...
    def migrate(self, from_version: int, raw: RawState) -> RawState: ...


@value
class Gap:
    """Offsets `first` to `last` of a partition that hold no committed record, and of what kind they are.

    `marker`: ends of transactions; `aborted`: records of transactions that were not committed; `missing`: the log goes on behind
    them. What reads for evidence tells `compacted` (their keys were written again) from `unknown` (nobody explains it) in the
    place of `missing`, and adds `lost`: removed by retention before they were read.
    """

    topic: str
    partition: int
    first: int
    last: int
    kind: str


@value
class Last:
    """The newest record that was read of a partition: by it a log is known again. `id` is whatever the reader's `identity` says."""

    offset: int
    broker_ms: int
    id: str


@value
class Frontier:
    """How far a partition was recorded: everything below `next`, of the partition's incarnation `inc`."""

    inc: int
    next: int
    last: Last | None = None


@value
class Reset:
    """Another log stands where a partition was read up to `frontier`. What follows of it begins again at offset 0."""

    topic: str
    partition: int
    frontier: int


Decode = Callable[[Record], Event[Payload]]
AnyFold = Fold[Any, Any]
