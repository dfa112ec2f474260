"""What agents await: the ports. Each Protocol lives beside its adapters; agents import them from here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infra.clock import Clock
from infra.store import Store
from schemas.payload import Payload

__all__ = ["ArmSpec", "Clock", "Engine", "Facts", "Generation", "LoadOutcome", "Store"]


class Facts(Protocol):
    """Sends events that have no input record: at least once, the id derived from `identity`."""

    async def send(self, payload: Payload, identity: str) -> None:
        """Raises `Unavailable` when the broker did not acknowledge."""
        ...


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """What an engine shall be able to answer as `arm` (`route/arm`)."""

    arm: str
    base: str
    adapter: str | None
    temperature: float
    max_tokens: int
    stop: tuple[str, ...]
    template: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of an engine. Natural logarithms of the chosen tokens' probabilities."""

    text: str
    tokens_in: int
    tokens_out: int
    latency_ms: float
    ttft_ms: float
    finish_reason: str
    logprobs: tuple[float, ...]
    adapter_digest: str | None
    engine: str
    replica: str


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """Whether a replica has proven an arm live, and if not why."""

    arm: str
    adapter: str | None
    replica: str
    live: bool
    reason: str
    load_ms: float


class Engine(Protocol):
    """Models that answer. Raises `Refused` where the request is wrong, `Unavailable` where the engine is away."""

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]: ...
    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation: ...
    async def healthy(self) -> bool: ...
    async def close(self) -> None: ...
