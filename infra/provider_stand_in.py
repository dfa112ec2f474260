"""`stand_in`: answers, delays and faults drawn from a seed and the prompt, for tests and demonstrations. It is no model.

Deterministic: the same arm, seed and prompt give the same answer or the same fault on every machine. Its results name the engine
`stand_in`. How it behaves stands in the arm's `url`: `stand-in:?least_ms=20&most_ms=80&answers=yes|no&unavailable=10`, see `Manners`.

Refused in production, which is where secrets come from Vault (`Settings.production`): there `NoStandIn` takes its place.
"""

import asyncio
import hashlib
import logging
from dataclasses import replace
from typing import Annotated
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.clock import Clock
from infra.engine import ArmSpec, Blameless, Generation
from infra.provider import Fault, settings_refused
from schemas.errors import Refused

SCHEME = "stand-in"
ACCEPTED = "stand-in:?NAME=VALUE&… with seed, least_ms, most_ms, answers=A|B, and of 1000 prompts unavailable, limited, refused, hanging"
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch")
log = logging.getLogger("ratchet")


Share = Annotated[int, Field(ge=0, le=1000)]
Milliseconds = Annotated[int, Field(ge=0, le=3_600_000)]


class Manners(BaseModel):
    """How a stand-in behaves. Shares are of 1000 prompts; what a prompt gets, it gets each time.

    Latency is drawn uniformly. `answers`: what it chooses from, separated by |; none: a few words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, lt=1 << 32)
    least_ms: Milliseconds = 0
    most_ms: Milliseconds = 0
    answers: str = ""
    unavailable: Share = 0
    limited: Share = 0
    refused: Share = 0
    hanging: Share = 0

    @classmethod
    def read(cls, spec: ArmSpec) -> "Manners":
        """From the arm's `url`. Raises `Refused` that names every bad key."""
        scheme, _, query = (spec.url or SCHEME).partition(":?")
        if scheme != SCHEME:
            raise settings_refused(spec, "url", ACCEPTED)
        try:
            made = cls.model_validate(dict(parse_qsl(query, keep_blank_values=True)))
        except ValidationError as fault:
            names = sorted({str(row["loc"][0]) for row in fault.errors(include_input=False)})
            wrong = ", ".join(name if name in cls.model_fields else "an unknown name" for name in names)
        else:
            if made.unavailable + made.limited + made.refused + made.hanging <= 1000:
                return made
            wrong = "the sum of the shares"
        raise settings_refused(spec, f"url ({wrong})", ACCEPTED)


class StandIn:
    """See the module."""

    name = "stand_in"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        manners = Manners.read(spec)
        if spec.adapter is not None:
            raise settings_refused(spec, "adapter", "none")
        prompt = spec.prompt(text)
        said = f"{manners.seed}\x1f{spec.model or spec.arm}\x1f{prompt}"
        seed = hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()
        spread_ms = max(0, manners.most_ms - manners.least_ms)
        latency_ms = manners.least_ms + spread_ms * int.from_bytes(seed[:4], "big") / 2**32
        fate = int.from_bytes(seed[4:8], "big") % 1000
        hangs = fate >= 1000 - manners.hanging
        if hangs or latency_ms > timeout_s * 1000:
            await self._clock.sleep(timeout_s)
            raise Fault(f"no answer of {self.name} for request {request_id} within {timeout_s:.3f} s")
        if latency_ms > 0:
            await self._clock.sleep(latency_ms / 1000)
        else:
            await asyncio.sleep(0)
        self._check(manners, fate)
        return self._answer(spec, manners, prompt, seed, latency_ms)

    def _check(self, manners: Manners, fate: int) -> None:
        if fate < manners.unavailable:
            raise Fault(f"{self.name} fails, as it is told to")
        if fate < manners.unavailable + manners.limited:
            raise Blameless(f"{self.name} takes no more, as it is told to", retry_after_s=1.0)
        if fate < manners.unavailable + manners.limited + manners.refused:
            raise Refused(f"{self.name} refuses, as it is told to", kind="bad_request")

    def _answer(self, spec: ArmSpec, manners: Manners, prompt: str, seed: bytes, latency_ms: float) -> Generation:
        drawn = " ".join(WORDS[byte % len(WORDS)] for byte in seed[9 : 10 + seed[8] % 4])
        if manners.answers:
            offered = manners.answers.split("|")
            drawn = offered[int.from_bytes(seed[8:12], "big") % len(offered)]
        words = drawn.split()
        kept = words[: spec.max_tokens]
        return Generation(
            text=" ".join(kept),
            tokens_in=max(1, len(prompt.split())),
            tokens_out=len(kept),
            latency_ms=latency_ms,
            ttft_ms=latency_ms / max(1, len(kept)),
            finish_reason="length" if len(kept) < len(words) else "stop",
            logprobs=tuple(-(1 + seed[index % 32]) / 256 for index in range(len(kept))),
            adapter_digest=None,
            engine=self.name,
            replica=self.name,
        )

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        """Live unless it fails always. Says, each time, what it is."""
        manners = Manners.read(spec)
        if manners.unavailable == 1000:
            raise Fault(f"{self.name} fails, as it is told to")
        calm = replace(spec, url="")
        await self.complete(calm, "probe", "probe", timeout_s)
        log.warning("arm %s is a stand-in: its answers come from a hash, for tests and demonstrations only", spec.arm)


class NoStandIn:
    """In the stand-in's place where there must be none: it refuses, loudly."""

    name = StandIn.name

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        raise self._no(spec)

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        refused = self._no(spec)
        log.error("%s", refused)
        raise refused

    def _no(self, spec: ArmSpec) -> Refused:
        return Refused(
            f"arm {spec.arm!r} is a stand-in, which never answers in production: secrets come from Vault here",
            kind="provider_settings",
            field="provider",
            accepted="a provider with a model; RATCHET_SECRETS=local for a first look",
        )
