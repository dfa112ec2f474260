"""What agents await: the ports. Each Protocol lives beside its adapters; agents import them from here."""

from typing import Protocol

from infra.clock import Clock
from infra.engine import ArmSpec, Engine, EngineGuest, Generation, LoadOutcome
from infra.pool import Scaling
from infra.store import Store
from schemas.payload import Payload

__all__ = ["ArmSpec", "Clock", "Engine", "EngineGuest", "Facts", "Generation", "LoadOutcome", "Scaling", "Store"]


class Facts(Protocol):
    """Sends events that have no input record: at least once, the id derived from `identity`."""

    async def send(self, payload: Payload, identity: str) -> None:
        """Raises `Unavailable` when the broker did not acknowledge."""
        ...
