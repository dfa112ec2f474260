"""Policies: small versioned records on one compacted topic that the deciding agents hold as a read-only view."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.payload import ID_PATTERN, Payload
from schemas.routes import Arm, Route

SIGNALS = ("mean_logprob", "min_logprob", "log_tokens", "finished", "agrees", "has_second")
FORMER_SIGNALS = SIGNALS[:4]  # of a policy that does not say its own
BreakerState = Literal["closed", "half_open", "open"]


class PolicyRef(BaseModel):
    """Which version of which policy a decision used."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    version: int
    id: str


class Policy(Payload):
    """Keyed `kind/name`. The one writer counts `version` up."""

    TOPIC = "policies"
    KIND: ClassVar[str] = ""

    version: int = Field(ge=1)

    def name(self) -> str:
        raise TypeError(f"{type(self).__name__} has no name")

    def event_key(self) -> str:
        return f"{self.KIND}/{self.name()}"


class RoutePolicy(Policy):
    route: str = Field(pattern=ID_PATTERN)

    def name(self) -> str:
        return self.route


class PolicyRoute(RoutePolicy):
    """The settings of a route, as applied. By the judge."""

    TYPE = "policy.route"
    KIND = "route"

    settings: Route
    author: str = ""


class PolicyFleet(RoutePolicy):
    """Which arms a route has and what each does now. By the judge.

    `rollout_bp` (0..10000): the share of rollout buckets that the challenger serves. `shadow_bp`: the share of requests
    that both arms answer. `rollback` names the arm kept loaded to return to. `shadows`: the arms that answer beside the serving one where
    the coin says so (empty: the challenger); `loaded`: arms kept loaded though they serve nobody; `arenas`: whose pairs these are.
    """

    TYPE = "policy.fleet"
    KIND = "fleet"

    arms: tuple[Arm, ...]
    champion: str
    challenger: str | None = None
    rollback: str | None = None
    rollout_bp: int = Field(default=0, ge=0, le=10_000)
    shadow_bp: int = Field(default=0, ge=0, le=10_000)
    experiment: str = Field(default="", description="Salt of the rollout's buckets: the arena's key.")
    shadows: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    arenas: tuple[str, ...] = ()
    paused: bool = False
    reason: str = ""

    def arm(self, name: str) -> Arm:
        """The arm of that name; KeyError when the fleet has none."""
        for arm in self.arms:
            if arm.arm == name:
                return arm
        raise KeyError(name)


class PolicyTrust(RoutePolicy):
    """How trust scores and whom it releases. By the ladder.

    z = bias + Σ weights[i]·(signals[i] - center[i])/scale[i]; shown score = 1/(1+exp(-(platt_a·z + platt_b))).
    `mode` SHADOW: nothing is released on a score. ENFORCE: what `arm` answers with z at or above `floor` is, certified, but for the
    audit share. GRANTED: an operator's command releases scores at or above `threshold`, uncertified. `gate`: an `immediate` route is
    treated as `gated`.
    """

    TYPE = "policy.trust"
    KIND = "trust"

    scorer: str
    signals: tuple[str, ...] = FORMER_SIGNALS
    weights: tuple[float, ...]
    center: tuple[float, ...] = Field(default=(), description="One per signal; empty: all 0.")
    scale: tuple[float, ...] = Field(default=(), description="One per signal; empty: all 1.")
    bias: float = 0.0
    platt_a: float = 1.0
    platt_b: float = 0.0
    threshold: float = Field(default=0.9, ge=0, le=1)
    mode: Literal["SHADOW", "ENFORCE", "GRANTED"] = "SHADOW"
    labels: int = 0
    granted_by: str = ""
    arm: str = Field(default="", description="The arm that the ladder is about; empty: none.")
    tau: tuple[float, ...] = Field(default=(), description="Least z of the rungs 10 to 100 %; empty: not cut yet.")
    rung: int = Field(
        default=0, ge=0, le=100, description="Per cent of the scores that the released rung covers; 0: none."
    )
    certified: int = Field(default=0, ge=0, le=100, description="The loosest rung that is certified, released or not.")
    floor: float | None = Field(default=None, description="Least z that is released under ENFORCE.")
    gate: bool = False
    counted: int = Field(default=0, ge=0, description="Labels that the ladder counted.")
    drilled: bool = Field(default=False, description="The kill switch was tested.")
    kappa: float | None = Field(default=None, description="Cohen's kappa of two people's labels.")


class RouterArm(BaseModel):
    """What the learner believes of an arm. `mean` is base64 of little-endian int32, one weight per feature (`Snapshot` of the learner).

    `labels`: graded cases behind it; without enough it is not chosen for its quality. Token counts and latency are running means.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    adapter: str | None = None
    labels: int = Field(default=0, ge=0)
    cases: int = Field(default=0, ge=0)
    mean: str = ""
    tokens_in_milli: int = Field(default=0, ge=0, description="Input tokens per 1000 characters of the messages.")
    tokens_out: int = Field(default=0, ge=0, description="Mean of an answer.")
    latency_ms: int = Field(default=0, ge=0, description="Mean of an answer.")
    engine_ms: int = Field(default=0, ge=0, description="Mean of an answer, inside the engine.")


class PolicyRouter(RoutePolicy):
    """What the router chooses by. By the learner.

    `factors`: digest of the arms' square roots of covariance, "" until there are any. `lambda_cost`: price of the budget in millionths of
    quality. `generation` rises with a promotion, rollback or rejected answer: caches of an earlier one do not count.
    """

    TYPE = "policy.router"
    KIND = "router"

    champion: str
    basis: str = Field(default="", description="Digest of the basis that the weights belong to.")
    dims: int = Field(default=0, ge=0)
    arms: tuple[RouterArm, ...] = ()
    factors: str = ""
    warm: bool = Field(default=False, description="Every arm that is chosen among has labels enough.")
    frozen: bool = Field(default=False, description="Trust is in ALARM: no exploration, nothing learnt.")
    guarded: bool = Field(default=False, description="The router did worse than the champion: the champion serves.")
    lambda_cost: int = Field(default=0, ge=0, lt=1 << 53)
    preferred: dict[str, str] = Field(default_factory=dict, description="Complexity tier -> arm, for its hysteresis.")
    generation: int = Field(default=0, ge=0)
    labels: int = Field(default=0, ge=0)
    cases: int = Field(default=0, ge=0)
    alarms: tuple[str, ...] = Field(default=(), description="Calibration and oscillation, in words.")
    code: str = ""


class CapacityArm(BaseModel):
    """Demand and capacity of an arm over the last minutes."""

    model_config = ConfigDict(frozen=True)

    arm: str
    adapter: str | None = None
    rate_milli: int = Field(ge=0, description="Requests per 1000 s.")
    tokens_s: int = Field(ge=0)
    p95_ms: int = Field(ge=0)
    busy_milli: int = Field(ge=0, description="Mean number of calls at work, thousandths.")
    replicas: int = Field(ge=0, description="How many the demand needs.")
    warm: bool = Field(description="Whether the adapter shall be kept loaded.")
    why: str = ""


class PolicyCapacity(RoutePolicy):
    """How many replicas each arm needs, which adapters to keep warm. By the estimator; followed on Ray, advice elsewhere."""

    TYPE = "policy.capacity"
    KIND = "capacity"

    arms: tuple[CapacityArm, ...]
    window_s: int = Field(ge=1)


class LiveArm(BaseModel):
    """An arm that an inference instance has proven live."""

    model_config = ConfigDict(frozen=True)

    route: str
    arm: str
    adapter: str | None
    replicas: int
    in_flight: int = Field(default=0, ge=0, description="Calls under way as this was written.")
    cap: int | None = Field(default=None, ge=1, description="Most calls at once; from there on it is busy.")
    open_until_ms: int = Field(
        default=0, ge=0, description="The breakers of all its engines are open until then; 0: it can be asked."
    )

    @property
    def busy(self) -> bool:
        """Whether it has as many calls under way as it may."""
        return self.cap is not None and self.in_flight >= self.cap


class LiveBreaker(BaseModel):
    """A breaker of an inference instance that is not closed. `engine`: the replica or provider before which it stands."""

    model_config = ConfigDict(frozen=True)

    route: str
    arm: str
    engine: str
    state: BreakerState
    until_ms: int = Field(default=0, ge=0, description="Open until then; 0 when half-open.")


class PolicyLive(Policy):
    """What one inference instance can answer now; after `until_ms` it no longer counts. By the instance, a fact."""

    TYPE = "policy.live"
    KIND = "live"

    instance: str
    arms: tuple[LiveArm, ...]
    until_ms: int
    breakers: tuple[LiveBreaker, ...] = Field(default=(), description="Those that are not closed.")

    def name(self) -> str:
        return self.instance
