"""The engine port: what answers prompts, whichever machine or library does it.

    engine_vllm.py       vLLM in this process
    engine_scripted.py   deterministic answers from a hash, in this process: for tests and load, by explicit name only
    cluster.py           any of these in Ray actors, several replicas behind the same port
    engine_mixed.py      arms of Ray's engines and of providers (provider.py) behind the same port

Errors: `Refused` (unknown arm, a prompt beyond the limit) and `Unavailable` (the engine is away, the deadline passed); of the latter
`Blameless` where the engine is well. `blames_engine` is what a breaker asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from schemas.errors import Unavailable
from schemas.routes import Arm

OWN = "ray_vllm"  # the provider of arms that our own engines serve
OUR_FAULTS = frozenset({"unauthorized", "not_found", "provider_settings"})
"""Kinds of `Refused` that lie in an arm's settings or key, not in the request: another arm may well answer it."""


class Blameless(Unavailable):
    """Away, and the engine is not to blame: a limit reached (429), a deadline too near, a key store that is away, not asked at all."""


def blames_engine(error: BaseException) -> bool:
    """Whether a breaker counts a failed call: timeouts, connection errors, 5xx, unreadable or dishonest replies, death.

    Not what is refused (4xx), limited, cancelled.
    """
    return isinstance(error, Unavailable) and not isinstance(error, Blameless)


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as the engine needs it. `arm` is unique within an engine: who serves several routes says `route/arm`.

    `base` is the digest of an artifact tree or a local folder; `adapter` the digest of a signed adapter statement.
    `{text}` in `template` is where the user's text goes.

    Of providers only: `model` as the provider calls it (Azure: the deployment), `url` of its interface, `secret`: the name of its key
    (provider_keys.py; empty: none), `api_version` (Azure, Anthropic).
    """

    arm: str
    base: str
    adapter: str | None = None
    temperature: float = 0.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    template: str = "{text}"
    provider: str = OWN
    model: str = ""
    url: str = ""
    secret: str = ""
    api_version: str = ""

    @classmethod
    def of(cls, name: str, arm: Arm) -> "ArmSpec":
        """A route's arm under the engine's name for it."""
        return cls(
            arm=name,
            base=arm.base,
            adapter=arm.adapter,
            temperature=arm.temperature,
            max_tokens=arm.max_tokens,
            stop=arm.stop,
            template=arm.template,
            provider=arm.provider,
            model=arm.model,
            url=arm.url,
            secret=arm.secret,
            api_version=arm.api_version,
        )

    def prompt(self, text: str) -> str:
        return self.template.replace("{text}", text)


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `logprobs` are those of the chosen tokens, natural log, under the model (not the sampling temperature).

    Of providers: none where they offer none; `ttft_ms` is the first byte's time, of the whole answer where it is not streamed;
    `tokens_cached` of `tokens_in` came from their prompt cache; `reply_id` is theirs, for asking them about it.
    """

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
    tokens_cached: int = 0
    reply_id: str = ""


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


@runtime_checkable
class Places(Protocol):
    """An engine of several replicas, where each can be asked by name."""

    def places(self, arm: str) -> Sequence[str]:
        """The replicas that the arm is live at, the one to ask first in front; empty where there is none, or nobody knows."""
        ...

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        """As `Engine.generate`, at one of `places`."""
        ...
