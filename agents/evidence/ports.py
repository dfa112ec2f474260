"""What the evidence collector needs from the world. The composition root gives adapters; tests give fakes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from agents.evidence.keytable import Erased, Missing, SubjectKey, Wanted
from agents.ports import Clock
from infra.notary import Notary
from infra.witness_client import Cosigned, RolledBack, SplitView
from schemas.payload import Payload
from schemas.tlog.note import Checkpoint
from schemas.tlog.tiles import Tile
from streams.shapes import Frontier, Gap, Last, Record, Reset

__all__ = [
    "Attestor",
    "AuditPublisher",
    "Clock",
    "Cosigned",
    "EvidenceKeys",
    "Fence",
    "Frontier",
    "Gap",
    "Last",
    "LogReader",
    "LogStore",
    "Notary",
    "Read",
    "Reset",
    "RolledBack",
    "Source",
    "SplitView",
    "SubjectKeys",
    "Witnesses",
]

Source = tuple[str, int]
"""(topic, partition)."""


Read = Record | Gap | Reset


class LogReader(Protocol):
    """Every offset of every recorded topic, read committed, in order per partition. The caller keeps the frontiers."""

    async def seek(self, frontiers: Mapping[Source, Frontier]) -> None:
        """Go on at these; a partition not named begins at offset 0. Called once, before `poll`."""
        ...

    async def poll(self, timeout_s: float) -> Sequence[Read]:
        """What there is, a few thousand at most; empty after `timeout_s`. Raises Unavailable: call again.

        Kinds of gap: `marker`, `aborted`, `compacted` (on compacted topics), `lost` (evicted unread), `unknown`. Offsets left out are
        taken for `unknown`. After a Reset the partition begins again at offset 0.
        """
        ...


class Fence(Protocol):
    """The right to sign: a Kafka transactional id."""

    async def commit(self) -> None:
        """Commit a transaction under our id. Raises when another process has taken it: then nothing may be signed."""
        ...


class LogStore(Protocol):
    """Where a log lies: files that are there whole, or not at all, after any crash. One writer; held until `close`.

    Every call raises Unavailable when the disk is full or takes no writes: nothing is half done then that the same call
    does not complete later. What contradicts itself is LogDamaged.
    """

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None when there is none."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Give a file new bytes: after a crash it has the old ones or the new ones. Durable on return."""
        ...

    def add(self, files: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """Make files that never change again, and yield each name once it stands. Durable when the iteration ends.

        A name that stands already must have the same bytes.
        """
        ...

    def set_aside(self, names: Sequence[str]) -> None:
        """Take unsigned files out of the log, keeping them for a person to look at. Durable."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names of a folder's files; empty where there is none."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files. One that is gone already is no error."""
        ...

    def drop_partials(self, tile: Tile) -> None:
        """Remove the partial versions of a tile that is full."""
        ...

    def hashes(self, tile: Tile) -> list[bytes]:
        """A tile's hashes, as they lie there."""
        ...

    def entries(self, size: int, number: int) -> list[bytes]:
        """The entries of bundle `number` in a log of `size`, as they lie there."""
        ...

    def newest_first(self, size: int) -> Iterator[bytes]:
        """Every entry of a log of `size`, from the last one back."""
        ...

    def beyond(self, size: int, room: int) -> list[str]:
        """Files of the tree that a log of `size` does not have, at most `room` entries past it."""
        ...

    def close(self) -> None:
        """Let another writer have it."""
        ...


class Attestor(Protocol):
    """Signs statements about what the log records: a training run that ended, a model that was promoted."""

    async def attest(self, index: int, entry: bytes) -> bytes:
        """The DSSE envelope of the statement about the entry at `index`. Raises Unavailable. Asked again after a crash."""
        ...


class EvidenceKeys(Protocol):
    """Secrets per tenant, 32 bytes each, for ever the same. They answer for any token: also for a tenant never seen."""

    def commitment_key(self, tenant: str) -> bytes: ...
    def pseudonym_key(self, tenant: str) -> bytes: ...


class SubjectKeys(Protocol):
    """Keys of subjects, those made that were missing: on the keyring (acks=all) when this returns. Raises Unavailable."""

    async def make(self, wanted: Collection[Wanted]) -> Mapping[Wanted, SubjectKey | Erased | Missing]: ...


class AuditPublisher(Protocol):
    """Sends to `ratchet.audit` and keeps a cursor, both in one transaction: exactly once. Ids derive from the identity."""

    async def start(self) -> int | None:
        """The cursor of the last committed transaction, None before the first. May be called again."""
        ...

    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None:
        """`(payload, identity)` each. After Unavailable the outcome is unknown: `start` tells."""
        ...


class Witnesses(Protocol):
    """Everybody of the policy who watches that the log shows all the same history."""

    async def cosign(self, checkpoint: Checkpoint, note: bytes, prove: Callable[[int], Sequence[bytes]]) -> Cosigned:
        """Ask each of them, at once; bounded in time. `prove(old)` is the consistency proof from `old` entries to these.

        Who is away is `missing`; whether enough answered is the policy's to say. Raises RolledBack, SplitView.
        """
        ...
