"""The scripted engine: answers, tokens, logprobs and latency drawn from SHA-256 of arm and prompt.

Deterministic and in this process: the same arm and text give the same generation on every machine. It verifies adapters like
a real engine when it is given a verifier. Chosen only by its explicit name, for tests and load; it is no model.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from infra.adapters import AdapterVerifier
from infra.clock import Clock, SystemClock
from infra.engine import ArmSpec, Generation, LoadOutcome
from schemas.errors import Refused, Unavailable

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch")


@dataclass(frozen=True, slots=True)
class Script:
    """What the scripted engine does. `answers` (by arm, then text; arm "*" for all) come before hashed ones.

    Latency is drawn uniformly from `latency_ms`. Text matching `fail_pattern` makes the call Unavailable, text matching
    `hang_pattern` makes it last until its deadline.
    """

    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    latency_ms: tuple[float, float] = (0.0, 0.0)
    max_chars: int = 100_000
    fail_pattern: str | None = None
    hang_pattern: str | None = None


class ScriptedEngine:
    """See the module. `replica` names this instance in what it returns."""

    def __init__(
        self,
        script: Script | None = None,
        replica: str = "scripted-0",
        verifier: AdapterVerifier | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._script = script or Script()
        self._replica = replica
        self._verifier = verifier
        self._clock = clock or SystemClock()
        self._arms: dict[str, ArmSpec] = {}
        self._outcomes: dict[ArmSpec, LoadOutcome] = {}

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        self._outcomes = {
            spec: known if (known := self._outcomes.get(spec)) is not None and known.live else self._load(spec)
            for spec in arms
        }
        self._arms = {spec.arm: spec for spec in arms if self._outcomes[spec].live}
        return [self._outcomes[spec] for spec in arms]

    def _load(self, spec: ArmSpec) -> LoadOutcome:
        live = LoadOutcome(spec.arm, spec.adapter, self._replica, True, "", 0.0)
        if spec.adapter is None or self._verifier is None:
            return live
        try:
            self._verifier.verify(spec.adapter, spec.base)
        except (Refused, Unavailable) as fault:
            return replace(live, live=False, reason=str(fault))
        return live

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        spec = self._arms.get(arm)
        if spec is None:
            raise Refused(
                f"arm {arm!r} is not loaded", kind="unknown_arm", field="arm", accepted=str(sorted(self._arms))
            )
        prompt = spec.prompt(text)
        if len(prompt) > self._script.max_chars:
            raise Refused(
                f"prompt of {len(prompt)} characters",
                kind="prompt_too_long",
                field="text",
                accepted=f"at most {self._script.max_chars} characters",
            )
        if self._script.fail_pattern is not None and re.search(self._script.fail_pattern, text):
            raise Unavailable(f"scripted failure for request {request_id}")
        seed = hashlib.sha256(f"{arm}\x1f{prompt}".encode()).digest()
        low, high = self._script.latency_ms
        latency_ms = low + (high - low) * int.from_bytes(seed[:4], "big") / 2**32
        hang = self._script.hang_pattern is not None and re.search(self._script.hang_pattern, text) is not None
        if hang or latency_ms > timeout_s * 1000:
            await self._clock.sleep(timeout_s)
            raise Unavailable(f"no answer for request {request_id} within {timeout_s} s")
        if latency_ms > 0:
            await self._clock.sleep(latency_ms / 1000)
        else:
            await asyncio.sleep(0)
        return self._answer(spec, text, prompt, seed, latency_ms)

    def _answer(self, spec: ArmSpec, text: str, prompt: str, seed: bytes, latency_ms: float) -> Generation:
        table = self._script.answers
        told = table.get(spec.arm, {}).get(text, table.get("*", {}).get(text))
        hashed = " ".join(WORDS[byte % len(WORDS)] for byte in seed[8 : 9 + seed[7] % 4])
        words = (hashed if told is None else told).split()[: spec.max_tokens]
        logprobs = tuple(-(1 + seed[i % 32]) / 256 for i in range(len(words)))
        cut = told is not None and len(told.split()) > spec.max_tokens
        return Generation(
            text=" ".join(words),
            tokens_in=max(1, len(prompt.split())),
            tokens_out=len(words),
            latency_ms=latency_ms,
            ttft_ms=latency_ms / max(1, len(words)),
            finish_reason="length" if cut else "stop",
            logprobs=logprobs,
            adapter_digest=spec.adapter,
            engine="scripted",
            replica=self._replica,
        )

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self._arms.clear()
        self._outcomes.clear()


class ScriptedGuest:
    """Asks a scripted engine of its own: it answers alike on every machine, so there is nothing to share."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self._specs: dict[str, ArmSpec] = {}

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        if self._specs.get(spec.arm) != spec:
            self._specs[spec.arm] = spec
            await self._engine.ensure(list(self._specs.values()))
        return await self._engine.generate(spec.arm, text, request_id, timeout_s)
