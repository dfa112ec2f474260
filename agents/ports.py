"""What agents await: the ports. Each Protocol lives beside its adapters; agents import them from here."""

from typing import Protocol

from infra.clock import Clock
from infra.engine import OUR_FAULTS, ArmSpec, Engine, EngineGuest, Generation, LoadOutcome, Places, blames_engine
from infra.limits import Limit, Taken
from infra.local_limits import LocalBudget, LocalQuota
from infra.pool import Scaling
from infra.semantic import SemanticIndex
from infra.store import Store
from schemas.payload import Payload

__all__ = [
    "OUR_FAULTS",
    "ArmSpec",
    "Clock",
    "Engine",
    "EngineGuest",
    "Facts",
    "Generation",
    "Leases",
    "Limit",
    "LoadOutcome",
    "LocalBudget",
    "LocalQuota",
    "Places",
    "Scaling",
    "SemanticIndex",
    "Store",
    "Taken",
    "blames_engine",
]


class Leases(Protocol):
    """Who may do what only one may do at a time. A lease ends by itself after its time."""

    async def acquire(self, key: str, token: str, ttl_s: float) -> bool:
        """Whether the lease is the token's now. One of any number that ask at the same time gets it."""
        ...

    async def release(self, key: str, token: str) -> object:
        """Give it back, where it is still the token's."""
        ...


class Facts(Protocol):
    """Sends events that have no input record: at least once, the id derived from `identity`."""

    async def send(self, payload: Payload, identity: str) -> None:
        """Raises `Unavailable` when the broker did not acknowledge."""
        ...
