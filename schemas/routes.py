"""What a route is: its arms, grader, release mode, window, shares, margins and training settings.

Declared in TOML by an operator, carried whole by `command.apply`, published by the judge as `policy.route`.
"""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.payload import ID_PATTERN, Strict
from schemas.routing import OUTSIDE, Provider, RoutingSettings, Sensitivity


class Arm(Strict):
    """A model that may answer: base model, adapter, sampling. Changing any field makes another arm.

    `base` is a content digest in the artifact store, `adapter` the digest of a signed adapter statement or None.
    `template` holds `{text}`, replaced by the last user message. An arm that our engines do not run has a provider: `model`, `url`
    and `secret` (the name of its key in the secret store, never the key) say how it is asked.
    """

    arm: str = Field(pattern=ID_PATTERN)
    base: str = Field(default="", max_length=256)
    adapter: str | None = None
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=64, ge=1, le=8192)
    stop: tuple[str, ...] = ()
    template: str = "{text}"
    nano_usd_in: int = Field(default=0, ge=0, le=10**9, description="Price of an input token, nano-USD.")
    nano_usd_out: int = Field(default=0, ge=0, le=10**9, description="Price of an output token, nano-USD.")
    provider: Provider = "ray_vllm"
    model: str = Field(default="", max_length=256, description="The provider's name of the model.")
    url: str = Field(default="", max_length=512, description="Where the provider answers.")
    secret: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,64}$", description="Name of its key.")
    api_version: str = Field(default="", max_length=32)
    clearance: Sensitivity | None = Field(
        default=None, description="The most sensitive it may see; None: secret in house, internal outside."
    )
    outside: bool | None = Field(default=None, description="Not ours; None: as its provider is.")
    region: str = Field(default="", max_length=64, description="Where it computes.")
    context_tokens: int = Field(default=0, ge=0, le=10**8, description="Longest prompt and answer; 0: not limited.")
    capabilities: tuple[str, ...] = Field(default=(), max_length=16, description="What a request may need.")
    max_in_flight: int | None = Field(default=None, ge=1, le=100_000, description="Calls at once per instance.")
    expected_ms: int = Field(default=0, ge=0, le=3_600_000, description="Its latency until it has been measured.")

    @model_validator(mode="after")
    def _template(self) -> Self:
        if "{text}" not in self.template:
            raise ValueError("template must contain {text}")
        if self.provider == "ray_vllm" and not self.base:
            raise ValueError("base: an arm of our engines needs the digest of its base model")
        if self.provider in OUTSIDE and not self.model:
            raise ValueError(f"model: provider {self.provider} needs its name of the model")
        return self

    @property
    def ours(self) -> bool:
        """Whether it computes in house."""
        return self.provider not in OUTSIDE if self.outside is None else not self.outside

    @property
    def cleared(self) -> Sensitivity:
        """The most sensitive that it may see."""
        return self.clearance or ("secret" if self.ours else "internal")


Grader = Literal["reference", "verdict", "rubric", "model"]
MODEL_GRADERS: frozenset[Grader] = frozenset({"rubric", "model"})  # a judge model grades, people a share of it


class GraderSettings(Strict):
    """Who grades a route's answers beside its people: a judge model, never alone (docs/grading.md)."""

    arm: str = Field(default="", description="The judge model: an arm that never serves. Of graders rubric and model.")
    rubric: str = Field(
        default="", max_length=20_000, description="What the judge model rates by. Of the grader rubric."
    )
    human_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of cases that a person judges too (F10's r), where a model grades."
    )
    double_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of the reviews people see that a second person is offered."
    )
    canary_share: float = Field(
        default=0.02, ge=0, le=1, description="Share of gradings where an empty answer must lose, or they do not count."
    )


class JudgeSettings(Strict):
    """The judge's numbers. Part of an arena's version key, frozen when it opens.

    `*_margin`: what a guardrail must prove not to be lost; `*_harm`: what it must prove a hundredfold. Quality and errors are shares,
    latency is F5's exceedance, cost a share more. `*_bar`: what a gain must also look like when it is promoted.
    """

    alpha: float = Field(default=0.05, gt=0, le=0.2)
    min_pairs: int = Field(default=100, ge=10)
    max_pairs: int = Field(default=5000, ge=10, description="Futility: rejected as inconclusive here.")
    min_time_s: int = Field(default=86_400, ge=0, description="Least event time from opening to promotion.")
    cooldown_s: int = Field(default=86_400, ge=0, description="After a promotion, rollback or rejection.")
    evaluate_every: int = Field(default=10, ge=1)
    latency_slo_ms: int | None = Field(default=None, ge=1, description="x0 of F5; None: champion p95, frozen.")
    latency_margin: float = Field(default=0.02, gt=0, lt=1)
    latency_harm: float = Field(default=0.05, gt=0, lt=1)
    latency_bar: float = Field(default=0.9, gt=0, le=1, description="Mean F4 at promotion: that of this ratio.")
    error_margin: float = Field(default=0.01, gt=0, lt=1)
    error_harm: float = Field(default=0.02, gt=0, lt=1)
    quality_margin: float = Field(default=0.03, gt=0, lt=1)
    quality_harm: float = Field(default=0.05, gt=0, lt=1)
    quality_bar: float = Field(default=0.02, ge=0, lt=1, description="Least estimated gain at promotion.")
    cost_margin: float = Field(default=0.05, gt=0, lt=1, description="At most this share dearer.")
    cost_harm: float = Field(default=0.15, gt=0, lt=1)
    cost_bar: float = Field(default=0.9, gt=0, le=1, description="Most of the champion's total cost at promotion.")
    win_by: tuple[Literal["quality", "latency", "cost"], ...] = Field(
        default=("quality", "latency", "cost"), min_length=1, description="What a challenger may be promoted for."
    )
    novelty_pairs: int = Field(default=50, ge=0, le=5000, description="First pairs after opening that count nothing.")
    once_a_day: bool = Field(default=True, description="One pair per subject and day.")
    at_once: int = Field(default=2, ge=1, le=4, description="Arenas open at the same time.")
    fdr: bool = Field(default=False, description="e-LOND over the route's arenas instead of alpha for each.")
    stages: tuple[float, ...] = Field(default=(0.2, 0.5, 0.8), max_length=8, description="Shares served before all.")
    stage_time_s: int = Field(default=3600, ge=0, description="Least event time of a stage.")
    stage_pair_share: float = Field(default=0.1, gt=0, le=1, description="Both arms answer, while one is on its way.")
    holdback_share: float = Field(default=0.05, ge=0, le=1, description="The old champion also answers, afterwards.")
    holdback_time_s: int = Field(default=14 * 86_400, ge=0)
    holdback_pairs: int = Field(default=5000, ge=10)
    breaker_window: int = Field(default=200, ge=20, le=1000, description="Answers that the breaker looks back on.")
    breaker_latency: float = Field(default=0.5, gt=0, description="p95 above x0 by this share trips.")
    breaker_error: float = Field(default=0.02, gt=0, lt=1, description="More failures than this share trip.")
    breaker_quality: float = Field(
        default=0.05, gt=0, lt=1, description="Quality below the old champion's by this trips."
    )

    @field_validator("win_by")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each of quality, latency and cost at most once")
        return value

    @field_validator("stages")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in value) or list(value) != sorted(set(value)):
            raise ValueError("shares between 0 and 1 that rise, as 0.2, 0.5, 0.8")
        return value

    @model_validator(mode="after")
    def _harm_past_margin(self) -> Self:
        for name in ("latency", "error", "quality", "cost"):
            if getattr(self, f"{name}_harm") <= getattr(self, f"{name}_margin"):
                raise ValueError(f"{name}_harm must be greater than {name}_margin")
        return self


class TrustSettings(Strict):
    """The ladder's numbers. A change of `risk` or `delta` begins the ladder anew."""

    enforce: Literal["automatic", "operator", "off"] = Field(
        default="operator", description="Who lets certified answers out without a person."
    )
    risk: float = Field(default=0.05, gt=0, lt=0.5, description="Most of what is released that may be wrong.")
    delta: float = Field(
        default=0.05, gt=0, le=0.2, description="Chance that the ladder ever certifies more than that."
    )
    audit_share: float = Field(default=0.05, gt=0, le=1, description="Of what could be released, judged blind instead.")
    min_scores: int = Field(default=1000, ge=20, le=10_000, description="Scores that the rungs are cut from.")
    second_arm: str | None = Field(
        default=None, pattern=ID_PATTERN, description="An arm that is asked too: whether it agrees is a signal."
    )


class TrainingSettings(Strict):
    """When and how the trainer trains. `shuffle_labels` makes a useless challenger on purpose (a test of the judge)."""

    enabled: bool = True
    min_rows: int = Field(default=500, ge=1, description="Least usable rows of the whole dataset.")
    min_new_rows: int = Field(default=200, ge=1, description="Least rows since the last order.")
    min_rows_per_class: int = Field(default=1, ge=1, description="A class with fewer rows is dropped and counted.")
    min_interval_s: int = Field(default=3600, ge=0)
    max_rows: int = Field(default=20_000, ge=1)
    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    rank: int = Field(default=16, ge=1, le=64)
    lora_alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 17
    time_limit_s: int = Field(default=1800, ge=10)
    holdout: Literal["refuse", "report"] = "refuse"
    shuffle_labels: bool = False


class Route(Strict):
    """One task with its own models, policy and statistics."""

    route: str = Field(pattern=ID_PATTERN)
    tenant: str = Field(default="default", pattern=ID_PATTERN)
    compliance: Literal["standard", "off"] = Field(
        default="standard", description="off: no gate looks at requests, answers and rows for training."
    )
    release: Literal["gated", "immediate"] = "gated"
    on_alarm: Literal["gate", "notify"] = "gate"
    approval: Literal["automatic", "operator"] = "automatic"
    grader: Grader = "verdict"
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=16)
    champion: str = Field(pattern=ID_PATTERN)
    challengers: tuple[str, ...] = Field(
        default=(), max_length=4, description="Arms to judge against the champion now."
    )
    window_s: float = Field(default=86_400, gt=0, le=31 * 86_400, description="How long a verdict may take.")
    deadline_s: float = Field(default=60, gt=0, le=3600, description="How long an answer may take.")
    max_chars: int = Field(default=20_000, ge=1, le=500_000)
    review_share: float = Field(default=1.0, ge=0, le=1, description="Share of released answers shown to a person.")
    shadow_share: float = Field(default=1.0, ge=0, le=1, description="Share of requests that a challenger answers too.")
    rollout: float = Field(
        default=0.0, ge=0, le=1, description="Share of sessions that a challenger serves while it is in the shadow."
    )
    sticky: bool = True
    trial: RoutingSettings | None = Field(
        default=None, description="Another routing policy, which decides for a share; `ratchet preview --router` first."
    )
    trial_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of sessions (else requests) that the trial decides for."
    )
    trust_threshold: float = Field(default=0.9, ge=0, le=1, description="Least score released under a grant.")
    judge: JudgeSettings = JudgeSettings()
    grading: GraderSettings = GraderSettings()
    trust: TrustSettings = TrustSettings()
    training: TrainingSettings = TrainingSettings()
    routing: RoutingSettings = RoutingSettings()

    @model_validator(mode="after")
    def _arms(self) -> Self:
        names = [arm.arm for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms: names must differ, got {names}")
        for field, arm in (
            ("champion", self.champion),
            *(("challengers", name) for name in self.challengers),
            *(("trust.second_arm", name) for name in (self.trust.second_arm,) if name is not None),
            *((f"routing.{field}", name) for field, name in self.routing.named().items()),
            *((f"trial.{field}", name) for field, name in ({} if self.trial is None else self.trial.named()).items()),
        ):
            if arm not in names:
                told = repr(arm) if re.fullmatch(ID_PATTERN, arm) else "a text that is no name"
                raise ValueError(f"{field}: {told} is not an arm of this route; arms are {names}")
        if self.champion in self.challengers:
            raise ValueError(f"challengers: {self.champion!r} is the champion")
        if self.deadline_s > self.window_s:
            raise ValueError("deadline_s must not exceed window_s")
        return self

    @model_validator(mode="after")
    def _routable(self) -> Self:
        """What would never be chosen is said when it is written, not when a request comes."""
        told, by_name = self.routing, {arm.arm: arm for arm in self.arms}
        champion = by_name[self.champion]
        if told.regions and champion.region not in told.regions:
            where = repr(champion.region) if champion.region else "no region"
            raise ValueError(
                f"routing.regions: the champion computes in {where}; accepted: one of {list(told.regions)}"
            )
        priced = {row.arm for row in told.prices}
        for name in told.chosen_from(self.champion):
            arm = by_name[name]
            free = not arm.ours and not arm.nano_usd_in and not arm.nano_usd_out and name not in priced
            if told.budget.nano_usd is not None and free:
                raise ValueError(
                    f"routing.prices: {name!r} is an outside arm without a price; with a budget it is never asked"
                )
        if told.emergency.arm in told.chosen_from(self.champion):
            raise ValueError(
                f"routing.emergency.arm: {told.emergency.arm!r} is chosen from as well; accepted: an arm of no other use"
            )
        return self

    @model_validator(mode="after")
    def _tried(self) -> Self:
        """A trial chooses otherwise, and nothing else."""
        if self.trial is None:
            if self.trial_share:
                raise ValueError("trial_share: there is no table trial that would decide for it")
            return self
        wrong = self.trial.shared_with(self.routing)
        if wrong:
            named = ", ".join(f"trial.{field}" for field in wrong)
            raise ValueError(f"{named}: the whole route's, not a share's; accepted: what routing says of it")
        return self

    @model_validator(mode="after")
    def _judge_model(self) -> Self:
        """A judge model grades nothing of its own family, and never without people."""
        told = self.grading
        if self.grader in MODEL_GRADERS:
            if not told.arm:
                raise ValueError(f"grading.arm: grader {self.grader!r} needs an arm that judges")
            if told.human_share <= 0:
                raise ValueError("grading.human_share: must be above 0, a model never grades alone")
        if self.grader == "rubric" and not told.rubric.strip():
            raise ValueError("grading.rubric: grader 'rubric' needs the text to rate by")
        if not told.arm:
            return self
        by_name = {arm.arm: arm for arm in self.arms}
        if told.arm not in by_name:
            said = repr(told.arm) if re.fullmatch(ID_PATTERN, told.arm) else "a text that is no name"
            raise ValueError(f"grading.arm: {said} is not an arm of this route; arms are {list(by_name)}")
        if told.arm == self.champion or told.arm in self.challengers:
            raise ValueError(f"grading.arm: {told.arm!r} is champion or challenger; the judge model never serves")
        family = (by_name[told.arm].base, by_name[told.arm].model)
        kin = [arm.arm for arm in self.arms if arm.arm != told.arm and (arm.base, arm.model) == family]
        if kin:
            raise ValueError(f"grading.arm: {told.arm!r} has the same base as {kin}; accepted: a base of no other arm")
        return self

    @property
    def has_gate(self) -> bool:
        """Whether anybody looks at requests, answers and rows."""
        return self.compliance != "off"
