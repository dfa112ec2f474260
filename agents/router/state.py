"""What the learner keeps of a route: a small record, an entry for each arm, and one for each case that may still be amended."""

import base64

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from agents.router import model
from agents.router.drift import Calibration, Oscillation
from agents.router.guard import Guard
from agents.router.learner import Posterior
from agents.router.pacer import Pacer
from schemas.routing import RoutingSettings

CASE, ARM, COUNT, NEAR, DRIFT = "case/", "arm/", "count/", "near/", "drift"


class Frozen(BaseModel):
    """A part of the state."""

    model_config = ConfigDict(frozen=True)


class Pace(Frozen):
    """λ and the account of its period."""

    price: int = 0
    requests: int = 0
    spent: int = 0
    carried: int = 0
    period: int = 0

    @property
    def pacer(self) -> Pacer:
        return Pacer(self.price, self.requests, self.spent, self.carried)


class RouteLearner(Frozen):
    """`cases`: closed ones so far, the clock of forgetting. `folded`: up to which case the posteriors' entries reach.

    `factors`: digest of the blob that was published last, `factors_at`: the labels it rests on, by arm.
    """

    tenant: str = "default"
    route: str = ""
    version: int = 0
    champion: str = ""
    adapters: dict[str, str | None] = Field(default_factory=dict)
    settings: RoutingSettings = RoutingSettings()
    generation: int = 0
    cases: int = 0
    folded: int = 0
    labels: int = 0
    dims: int = 0
    frozen: bool = False
    pace: Pace = Pace()
    guard: Guard = Guard()
    swings: tuple[tuple[int, str], ...] = Field(default=(), description="Alarms of oscillation and when.")
    tiers: dict[str, dict[str, int]] = Field(default_factory=dict)
    preferred: dict[str, str] = Field(default_factory=dict)
    factors: str = ""
    factors_at: dict[str, int] = Field(default_factory=dict)
    factors_ms: int = 0
    published_case: int = 0
    published_ms: int = 0
    commands: tuple[str, ...] = ()


class ArmCounts(Frozen):
    """Running means of what an arm's answers take, in thousandths; of its last fifty or so."""

    labels: int = 0
    cases: int = 0
    tokens_in_milli: int = 0
    tokens_out_milli: int = 0
    latency_milli: int = 0
    engine_milli: int = 0

    @property
    def tokens_out(self) -> int:
        """Of an answer, rounded up."""
        return -(-self.tokens_out_milli // 1000)

    @property
    def latency_ms(self) -> int:
        """Of an answer, rounded up."""
        return -(-self.latency_milli // 1000)

    @property
    def engine_ms(self) -> int:
        """Of an answer, rounded up."""
        return -(-self.engine_milli // 1000)

    def with_answer(self, chars: int, tokens_in: int, tokens_out: int, latency_us: int, engine_us: int) -> "ArmCounts":
        """After one more answer to messages of so many characters."""
        weight = min(self.cases + 1, 50)

        def mean(old: int, new: int) -> int:
            return old + (new - old) // weight

        return ArmCounts(
            labels=self.labels,
            cases=self.cases + 1,
            tokens_in_milli=mean(self.tokens_in_milli, tokens_in * 1000 // max(chars, 1)),
            tokens_out_milli=mean(self.tokens_out_milli, tokens_out * 1000),
            latency_milli=mean(self.latency_milli, latency_us),
            engine_milli=mean(self.engine_milli, engine_us),
        )


class Near(Frozen):
    """What a decision compared: arm -> (quality in millionths, expected cost in nano-dollars)."""

    tokens_in: int = 0
    arms: dict[str, tuple[int, int]] = Field(default_factory=dict)


class Label(Frozen):
    """What a case said of an arm: quality in millionths, and what it counts."""

    quality: int
    weight: float


class Part(Frozen):
    """One entry. Of an arm: `posterior` (base64), written seldom, and `counts`, in an entry of its own. Of a case: its number, its
    labels, and until it is folded its features. Of `drift`: calibration and oscillation. Of the last comparisons: `near`."""

    posterior: str = ""
    counts: ArmCounts | None = None
    number: int = 0
    window_end_ms: int = 0
    labels: dict[str, Label] = Field(default_factory=dict)
    features: str = ""
    calibration: Calibration | None = None
    oscillation: Oscillation | None = None
    near: Near | None = None

    def regression(self) -> Posterior | None:
        """The arm's posterior; None before its first label."""
        return Posterior.from_bytes(base64.b64decode(self.posterior)) if self.posterior else None

    def x(self) -> NDArray[np.int16] | None:
        """The case's features while it is not folded."""
        return model.decoded(self.features)


def posterior_text(posterior: Posterior) -> str:
    """A posterior as an entry holds it."""
    return base64.b64encode(posterior.to_bytes()).decode("ascii")
