"""What the evidence collector needs from the world. The composition root gives adapters; tests give fakes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.ports import Clock
from infra.notary import Notary
from schemas.payload import Payload
from schemas.tlog.note import Checkpoint
from streams.shapes import Frontier, Gap, Last, Record, Reset

__all__ = [
    "AuditPublisher",
    "Clock",
    "Cosigned",
    "EvidenceKeys",
    "Fence",
    "Frontier",
    "Gap",
    "Last",
    "LogReader",
    "Notary",
    "Read",
    "Reset",
    "RolledBack",
    "Source",
    "SplitView",
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


class EvidenceKeys(Protocol):
    """Secrets per tenant, 32 bytes each, for ever the same. They answer for any token: also for a tenant never seen."""

    def commitment_key(self, tenant: str) -> bytes: ...
    def pseudonym_key(self, tenant: str) -> bytes: ...


class AuditPublisher(Protocol):
    """Sends to `ratchet.audit` and keeps a cursor, both in one transaction: exactly once. Ids derive from the identity."""

    async def start(self) -> int | None:
        """The cursor of the last committed transaction, None before the first. May be called again."""
        ...

    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None:
        """`(payload, identity)` each. After Unavailable the outcome is unknown: `start` tells."""
        ...


class RolledBack(Exception):
    """A witness has seen a larger log than ours: our directory is an old one. Nothing may be signed until a person has looked."""


class SplitView(Exception):
    """A witness has seen another history of this log. Nothing may be published until a person has looked."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What the witnesses of a policy said of one checkpoint."""

    lines: tuple[str, ...]
    """Their signature lines, each with its newline, verified, in the policy's order."""
    missing: Mapping[str, str]
    """Why a witness's line is not among them, by its petname."""


class Witnesses(Protocol):
    """Everybody of the policy who watches that the log shows all the same history."""

    async def cosign(self, checkpoint: Checkpoint, note: bytes, prove: Callable[[int], Sequence[bytes]]) -> Cosigned:
        """Ask each of them, at once; bounded in time. `prove(old)` is the consistency proof from `old` entries to these.

        Who is away is `missing`; whether enough answered is the policy's to say. Raises RolledBack, SplitView.
        """
        ...
