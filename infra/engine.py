"""The engine port: what answers prompts, whichever machine or library does it.

    engine_vllm.py       vLLM in this process
    engine_scripted.py   deterministic answers from a hash, in this process: for tests and load, by explicit name only
    cluster.py           any of these in Ray actors, several replicas behind the same port

Errors: `Refused` (unknown arm, a prompt beyond the limit) and `Unavailable` (the engine is away, the deadline passed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as the engine needs it. `arm` is unique within an engine: who serves several routes says `route/arm`.

    `base` is the digest of an artifact tree or a local folder; `adapter` the digest of a signed adapter statement.
    `{text}` in `template` is where the user's text goes.
    """

    arm: str
    base: str
    adapter: str | None = None
    temperature: float = 0.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    template: str = "{text}"

    def prompt(self, text: str) -> str:
        return self.template.replace("{text}", text)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `logprobs` are those of the chosen tokens, natural log, under the model (not the sampling temperature)."""

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
    """Whether a replica answers for an arm now, proven by a probe. `reason` says why not; it is "" when live."""

    arm: str
    adapter: str | None
    replica: str
    live: bool
    reason: str
    load_ms: float


class EngineGuest(Protocol):
    """Asks arms that somebody else's `ensure` has loaded; loads and unloads none."""

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        """As `Engine.generate`. `Unavailable` too where nobody has loaded the arm yet."""
        ...


class Engine(Protocol):
    """Answers for the arms last named to `ensure`. Calls may run at the same time; they are batched inside."""

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        """Make exactly these arms answer: load what is missing, unload what is not named, leave alone what is live.

        Idempotent. An arm that cannot be loaded gives an outcome that says why and harms no other arm. One outcome per
        arm and replica, in the order given.
        """
        ...

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        """The arm's answer to `text` within `timeout_s`; at the deadline the work is aborted and Unavailable raised."""
        ...

    async def healthy(self) -> bool: ...

    async def close(self) -> None:
        """Let go of the engine. A detached one (Ray) goes on for the next process; see `RayEngines.shutdown`."""
        ...
