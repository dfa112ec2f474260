"""The broker as the runtime sees it: the narrow port that `kafka.py` and `memory.py` serve.

Rules:
1. An adapter translates every client error into a `BrokerError` at this edge; nothing else of the client comes through.
2. After any error of a transactional call its outcome is unknown: the caller drops the producer, never retries or aborts on it.
3. Offsets and ends are those of `read_committed`: an end is the last stable offset, and positions pass over markers.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.value import value
from streams.shapes import Gap, Headers, Record

TP = tuple[str, int]  # topic and partition
NONE = -1  # what `Admin.committed` says where a group has no offset


class BrokerError(Exception):
    """Root of what the port raises."""


class Fenced(BrokerError):
    """Another producer took the transactional id, or the transaction timed out."""


class Lost(BrokerError):
    """The broker is away, or the outcome of the call is unknown."""


class Rejected(BrokerError):
    """The broker refused a batch of records; the transaction would commit without it."""


class Denied(BrokerError):
    """The broker does not let this principal do this. It stays so until somebody changes its rights."""


class ShutOut(Denied):
    """The broker does not let this principal in: password, certificate or protocol. Only a fresh start reads them again."""


class OutOfRange(BrokerError):
    """The position is not in the log: retention has removed what was not read, or the log ends below it."""


class Clock(Protocol):
    """Injected time. `now_ms` is the wall clock, `monotonic` measures, `sleep` waits."""

    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


@value
class Outgoing:
    """A record to send."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Listener(Protocol):
    """Told of rebalances. Must return soon: no heartbeats run inside."""

    async def revoked(self, partitions: Collection[TP]) -> None: ...
    async def assigned(self, partitions: Collection[TP]) -> None: ...


class Reader(Protocol):
    """A consumer at `read_committed`. Positions are the caller's; nothing is committed by it."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def seek(self, tp: TP, offset: int) -> None: ...
    def pause(self, partitions: Collection[TP]) -> None:
        """Give no more of them, until `resume`."""
        ...

    def resume(self, partitions: Collection[TP]) -> None: ...
    async def poll(self, *, timeout_s: float, max_records: int) -> Mapping[TP, Sequence[Record]]:
        """What was fetched, each partition in offset order. Returns early when there is something, {} at the timeout."""
        ...

    async def position(self, tp: TP) -> int:
        """The next offset to be polled, past any markers that follow what was polled."""
        ...


class WholeReader(Protocol):
    """A reader at `read_committed` that also tells what the log has in the place of records. It begins at positions given."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def poll(self, *, timeout_s: float, max_items: int) -> Mapping[TP, Sequence[Record | Gap]]:
        """Each partition in order, each offset from its position on exactly once: a record, or in a gap by what the broker sends.

        Gaps are `marker`, `aborted` or `missing`, and do not wait for a record behind them. Returns early when there is something,
        {} at the timeout. Raises OutOfRange while a position is below the log's start or above its end.
        """
        ...


class Producer(Protocol):
    """Idempotent, `acks=all`, no transaction."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        """Returns when the broker has acknowledged all of them, in order."""
        ...


class TransactionalProducer(Protocol):
    """One transactional id. `start` ends the id's former transaction and waits until that is decided."""

    async def start(self) -> None: ...
    async def stop(self, timeout_s: float) -> None:
        """Let go of everything within the time. Neither commits nor aborts."""
        ...

    async def begin(self) -> None: ...
    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Sequence[Awaitable[object]]:
        """Queue records. Each awaitable must be awaited before `commit`: it raises `Rejected` for a refused batch."""
        ...

    async def offsets(self, following: Mapping[TP, int], group: str) -> None: ...
    async def commit(self) -> None: ...
    async def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


class Admin(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, int]:
        """Committed offsets. `NONE` where there is none; left out where the broker does not know yet."""
        ...

    async def members(self, group: str) -> tuple[str, ...]:
        """The instances that are members of a group now, sorted; none where the group is not known."""
        ...

    async def set_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        """Give a group without members explicit offsets."""
        ...

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        """Last stable offsets."""
        ...

    async def starts(self, partitions: Collection[TP]) -> dict[TP, int]: ...
    async def offsets_at(self, partitions: Collection[TP], at_ms: int) -> dict[TP, int]:
        """The first offset with a timestamp at or after `at_ms`; the end where there is none."""
        ...

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        """Partition counts; a topic that does not exist is left out."""
        ...

    async def replication(self, topics: Collection[str]) -> dict[str, int]:
        """The fewest replicas that a partition of each topic has."""
        ...

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """Effective configuration of each topic."""
        ...

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create topics; one that exists meanwhile is left as it is."""
        ...

    async def brokers(self) -> int:
        """How many brokers are live."""
        ...


class Broker(Protocol):
    """Makes the parts. Constructors do no I/O: `start` does."""

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> Reader:
        """A static member of a group; whole columns of co-partitioned topics are assigned. New partitions come paused."""
        ...

    def reader(self, positions: Mapping[TP, int]) -> Reader: ...
    def whole_reader(self, positions: Mapping[TP, int]) -> WholeReader: ...
    def transactional(self, transactional_id: str) -> TransactionalProducer: ...
    def producer(self) -> Producer: ...
    def admin(self) -> Admin: ...


class Artifacts(Protocol):
    """Bytes by digest, durable when the call returns. Called in a thread. May raise OSError or Unavailable."""

    def put_bytes(self, data: bytes) -> str: ...


Fault = Callable[[str, str, int], Awaitable[None]]
"""`(point, agent, partition)`: called by a lane at each named point; what it raises happens there."""
POINTS = (
    "fenced",
    "committed",
    "restored",
    "opened",
    "accepted",
    "begun",
    "sent",
    "acknowledged",
    "offsets",
    "ended",
    "done",
    "revoked",
)
