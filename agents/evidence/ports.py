"""What the evidence collector needs from the world. The composition root gives adapters; tests give fakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.payload import Payload
from streams.shapes import Record

Source = tuple[str, int]
"""(topic, partition)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets `first` to `last` of a partition that will never be records for us, and why.

    `marker` and `aborted` come from batch headers; `lost` was evicted unread; `unknown` is what nobody can explain.
    """

    topic: str
    partition: int
    first: int
    last: int
    kind: Literal["marker", "aborted", "lost", "unknown"]


Read = Record | Gap


class LogReader(Protocol):
    """Every offset of every recorded topic, read committed, in order per partition. The caller keeps the position."""

    async def seek(self, positions: Mapping[Source, int]) -> None:
        """Go on at these offsets; a partition not named begins at its first offset. Called once, before `poll`."""
        ...

    async def poll(self, timeout_s: float) -> Sequence[Read]:
        """What there is, a few thousand at most; empty after `timeout_s`. Unavailable when the broker stays away.

        A reader that does not see markers and aborted records just leaves their offsets out.
        """
        ...


class Fence(Protocol):
    """The right to sign: a Kafka transactional id."""

    async def commit(self) -> None:
        """Commit a transaction under our id. Raises when another process has taken it: then nothing may be signed."""
        ...


class Notary(Protocol):
    """Signs checkpoints. Its private key never leaves it."""

    @property
    def name(self) -> str:
        """The key name, which is the log's origin."""
        ...

    def latest(self) -> int:
        """The newest key version."""
        ...

    def sign(self, body: bytes, key_version: int | None = None) -> bytes:
        """The 64 bytes of Ed25519 over `body`. Raises Unavailable; the same body and version give the same bytes."""
        ...

    def vkey(self, key_version: int) -> str:
        """The verifier key of one version."""
        ...

    def vkeys(self) -> list[str]:
        """Every version's verifier key, oldest first."""
        ...


class EvidenceKeys(Protocol):
    """Secrets per tenant."""

    async def commitment_key(self, tenant: str) -> bytes:
        """32 bytes, for ever the same, for any token: a tenant never seen before has a key, too. Raises Unavailable."""
        ...


class AuditPublisher(Protocol):
    """Sends to `ratchet.audit`, at least once; `identity` makes the event's id, so a repeat has the same."""

    async def publish(self, payload: Payload, identity: str) -> None: ...


class Clock(Protocol):
    """Only for how long to wait and for an event's `at_ms`: nothing of it enters the log."""

    def now_ms(self) -> int: ...
    def monotonic_s(self) -> float: ...
