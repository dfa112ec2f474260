"""What the evidence collector needs from the world. The composition root gives adapters; tests give fakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agents.ports import Clock, Facts
from infra.notary import Notary
from streams.shapes import Record

__all__ = ["Clock", "EvidenceKeys", "Facts", "Fence", "Gap", "LogReader", "Notary", "Read", "Source"]

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


class EvidenceKeys(Protocol):
    """Secrets per tenant."""

    async def commitment_key(self, tenant: str) -> bytes:
        """32 bytes, for ever the same, for any token: a tenant never seen before has a key, too. Raises Unavailable."""
        ...
