"""How a route chooses among its arms: strategy, limits, budget, prices, caches. Part of a route file; a router file is this table alone."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.payload import ID_PATTERN, Strict

Strategy = Literal["fixed", "privacy_first", "cost_optimized", "quality_optimized", "balanced"]
Sensitivity = Literal["public", "internal", "personal", "secret"]
SENSITIVITIES: tuple[Sensitivity, ...] = ("public", "internal", "personal", "secret")
Provider = Literal["ray_vllm", "openai_http", "azure_openai", "anthropic", "stand_in"]
OUTSIDE: frozenset[Provider] = frozenset({"openai_http", "azure_openai", "anthropic"})
MOST_NANO = 10**15  # a million dollars: no amount of one request or budget is above it
CHOOSES = frozenset(
    {
        "strategy",
        "arm",
        "arms",
        "slo_ms",
        "latency_weight",
        "alpha",
        "explore",
        "floor",
        "least_gain",
        "switch_gain",
    }
)
"""What may differ between two policies that serve a route side by side: how it is chosen. All else is the whole route's: what may be asked,
learnt, kept and spent."""


class Price(Strict):
    """What an arm costs from a time on, nano-USD; the newest that has begun counts. Own arms are paid by the engine second."""

    arm: str = Field(pattern=ID_PATTERN)
    since_ms: int = Field(default=0, ge=0, lt=1 << 53, description="From when it counts, Unix epoch milliseconds.")
    nano_usd_in: int = Field(default=0, ge=0, le=10**9, description="An input token.")
    nano_usd_cached: int | None = Field(default=None, ge=0, le=10**9, description="A cached one; None: as any other.")
    nano_usd_out: int = Field(default=0, ge=0, le=10**9, description="An output token.")
    nano_usd_engine_s: int = Field(default=0, ge=0, le=10**12, description="A second of the engine.")


class BudgetSettings(Strict):
    """What answers may cost. The pacer aims at the mean; at the period's whole budget dear arms are masked."""

    nano_usd: int | None = Field(
        default=None, ge=1, le=MOST_NANO, description="Mean cost of a request; None: no limit."
    )
    period_s: int = Field(default=86_400, ge=60, le=31 * 86_400, description="Over which it must hold.")
    requests: int = Field(default=10_000, ge=1, le=10**9, description="Requests expected in a period.")

    def period_at(self, at_ms: int) -> int:
        """The number of the period in which a time lies."""
        return at_ms // (self.period_s * 1000)


class CacheSettings(Strict):
    """Answers given before. Only what was released and never rejected; a promotion, rollback or rejection empties it."""

    exact: bool = Field(default=False, description="The same messages get the same answer.")
    semantic: bool = Field(default=False, description="Nearly the same ones too, where it has proven to be right.")
    ttl_s: int = Field(default=3600, ge=1, le=31 * 86_400)


class QuotaSettings(Strict):
    """What a tenant may ask of the route. 0: no limit."""

    requests_per_s: float = Field(default=0.0, ge=0, le=1e6)
    burst: int = Field(default=0, ge=0, le=10**6, description="Requests at once; 0: those of one second.")
    tokens_per_min: int = Field(default=0, ge=0, le=10**9, description="Estimated input tokens.")


class CascadeSettings(Strict):
    """A second, last answer where the first is scored too low."""

    below: float = Field(default=0.0, ge=0, le=1, description="Scores below it escalate; 0: none does.")
    arms: tuple[str, ...] = Field(default=(), max_length=15, description="From weak to strong: the next one answers.")


class EmergencySettings(Strict):
    """An outside arm, last in the chain, when nothing else can answer; under its own budget."""

    arm: str = ""
    share: float = Field(default=0.01, gt=0, le=0.5, description="Most of the requests of 24 hours.")
    nano_usd: int = Field(default=10**9, ge=0, le=MOST_NANO, description="Most that it may cost in 24 hours.")


class RoutingSettings(Strict):
    """Which arm answers. The champion is always among them; a rollout of the judge goes before.

    `fixed`, `privacy_first`, `cost_optimized` and `quality_optimized` do not explore, so their log cannot judge another policy.
    """

    strategy: Strategy = "fixed"
    arm: str = Field(default="", description="Of `fixed`: which one; empty: the champion.")
    arms: tuple[str, ...] = Field(default=(), max_length=15, description="Chosen among, beside the champion.")
    sensitivity: Sensitivity = Field(default="internal", description="The least that a request of the route has.")
    regions: tuple[str, ...] = Field(default=(), description="Where arms may compute; empty: anywhere.")
    basis: str = Field(default="", max_length=80, description="Digest of the text basis; empty: a random one.")
    slo_ms: int | None = Field(default=None, ge=1, description="Latency that is good enough.")
    latency_weight: float = Field(default=0.05, ge=0, le=10, description="Quality that twice the SLO is worth.")
    budget: BudgetSettings = BudgetSettings()
    prices: tuple[Price, ...] = Field(default=(), max_length=256)
    alpha: float = Field(default=0.02, ge=0, le=1, description="How much of its deviation an estimate is drawn with.")
    explore: float = Field(default=0.05, ge=0, le=0.2, description="Most of the requests that explore.")
    floor: float = Field(default=0.01, ge=0, le=0.05, description="Least share of a plausible arm while it explores.")
    warm_share: float = Field(
        default=0.1, ge=0, le=1, description="Of requests that the other arms answer too until then."
    )
    warm_labels: int = Field(default=300, ge=10, description="Of each arm; until then the champion serves.")
    forget: float = Field(default=0.9995, gt=0.9, le=1, description="What is left of a case's weight at the next.")
    ridge: float = Field(
        default=1.0,
        ge=2**-10,
        le=2**4,
        description="How tightly an arm's quality is held equal on all texts, against the default. 1 suits arms that differ a little "
        "everywhere; 1/32 arms that know some kinds of text and others not at all.",
    )
    least_gain: float = Field(default=-0.02, ge=-1, le=0, description="Of `cost_optimized`: most quality given away.")
    guard: float = Field(default=-0.01, ge=-1, lt=0, description="Lower bound of router - champion that stops it.")
    switch_gain: float = Field(default=0.01, ge=0, le=1, description="Least gain for which the preferred arm changes.")
    cache: CacheSettings = CacheSettings()
    quota: QuotaSettings = QuotaSettings()
    cascade: CascadeSettings = CascadeSettings()
    emergency: EmergencySettings = EmergencySettings()
    hedge_share: float = Field(
        default=0.0, ge=0, le=0.05, description="Calls asked of a second arm when late; 0: none."
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.arm and self.strategy != "fixed":
            raise ValueError("arm: only the strategy fixed names one")
        seen = [(price.arm, price.since_ms) for price in self.prices]
        if len(set(seen)) != len(seen):
            raise ValueError("prices: two of one arm begin at the same time")
        return self

    def named(self) -> dict[str, str]:
        """Field -> arm, for every arm that is named here."""
        found = {f"arms[{number}]": arm for number, arm in enumerate(self.arms)}
        found |= {f"cascade.arms[{number}]": arm for number, arm in enumerate(self.cascade.arms)}
        found |= {f"prices[{number}].arm": price.arm for number, price in enumerate(self.prices)}
        found |= {"arm": self.arm} if self.arm else {}
        return found | ({"emergency.arm": self.emergency.arm} if self.emergency.arm else {})

    def shared_with(self, other: "RoutingSettings") -> tuple[str, ...]:
        """The fields in which the two differ though both must have the same to serve side by side; () where they may."""
        every = type(self).model_fields
        found = [name for name in every if name not in CHOOSES and getattr(self, name) != getattr(other, name)]
        masks = "privacy_first" in (self.strategy, other.strategy) and self.strategy != other.strategy
        return tuple([*found, "strategy"] if masks else found)  # privacy_first is a mask, and masks are the route's

    def chosen_from(self, champion: str) -> tuple[str, ...]:
        """The arms that the strategy chooses among, sorted."""
        named = {champion, *self.arms, *((self.arm,) if self.arm else ())}
        return tuple(sorted(named))
