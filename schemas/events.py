"""Every event that the loop uses, by topic. Names, keys and topics are those of the topics table."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.gate import PURPOSE_PATTERN, Action
from schemas.payload import ID_PATTERN, TOPIC_PATTERN, DerivedEvent, Incoming, Payload, RequestEvent, RouteEvent
from schemas.policies import BreakerState, PolicyRef
from schemas.routes import Grader, Route
from schemas.routing import Sensitivity


class Part(BaseModel):
    """A part of a payload made by our agents."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class IncomingPart(BaseModel):
    """A part of a payload that people or upstream send."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Message(IncomingPart):
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


# requests: by upstream


class RequestSubmitted(RequestEvent, Incoming):
    """A request. `deadline_ms` is the longest acceptable latency, counted from `at_ms`."""

    TYPE = "request.submitted"
    TOPIC = "requests"

    messages: tuple[Message, ...] = Field(min_length=1, max_length=64)
    session_id: str | None = Field(default=None, pattern=ID_PATTERN)
    subject: str | None = Field(
        default=None, pattern=ID_PATTERN, description="Whose data it is; goes no further than the router."
    )
    deadline_ms: int | None = Field(default=None, ge=1)
    sensitivity: Sensitivity | None = Field(default=None, description="What upstream knows of it; only ever raises it.")
    needs: tuple[str, ...] = Field(default=(), max_length=16, description="Capabilities that the arm must have.")
    purpose: str | None = Field(
        default=None, pattern=PURPOSE_PATTERN, description="What it is for; None: as the tenant says."
    )
    legal_basis: str | None = Field(
        default=None, pattern=PURPOSE_PATTERN, description="Legal basis; None: as the tenant says."
    )
    notice: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="The privacy notice that the person was shown; None: as the tenant says.",
    )
    origin: str | None = Field(
        default=None, pattern=PURPOSE_PATTERN, description="Region the data comes from; None: as the tenant says."
    )
    classes: tuple[str, ...] = Field(
        default=(), max_length=16, description="Data classes that upstream knows to be in it, such as religion."
    )

    @field_validator("classes")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(PURPOSE_PATTERN, name) is None for name in value):
            raise ValueError(f"names of data classes match {PURPOSE_PATTERN}")
        return value


# decisions, shadows: by the router


class ArmTerms(Part):
    """What an arm was worth. Quality and its deviation in millionths, None where nothing is learnt; `score` is what arms were compared by.

    score = quality - cost_term - latency_term, of the strategy `balanced`. `cost_nano_usd`: expected, None where the price is unknown.
    """

    quality: int | None = None
    deviation: int | None = None
    cost_nano_usd: int | None = None
    latency_ms: int = 0
    cost_term: int = 0
    latency_term: int = 0
    score: int | None = None
    nano_usd_in: int = 0
    nano_usd_cached: int = 0
    nano_usd_out: int = 0
    nano_usd_engine_s: int = 0


class GateSeen(Part):
    """What the gate decided, and why. `rules`: ids of those that fired. `found`: kinds and how often; never what was found.

    `registered`: the tenant's register names purpose, basis and flow. `scan`: what the shell observed of the detectors, which a replay
    does not run against a clock.
    """

    action: Action
    rules: tuple[str, ...] = ()
    exemptions: tuple[str, ...] = ()
    rules_digest: str = ""
    tenant_version: int = Field(default=0, ge=0, description="Of the tenant's configuration; 0: none.")
    purpose: str = ""
    legal_basis: str = ""
    origin: str = ""
    registered: bool = False
    found: dict[str, int] = Field(default_factory=dict)
    masked: tuple[str, ...] = Field(default=(), description="Kinds that were replaced.")
    scan: Literal["whole", "failed", "late"] = "whole"


class ArmChoice(Part):
    """How the router saw one arm. `propensity` is out of 65,536; a masked arm has 0 and says why."""

    arm: str
    adapter: str | None
    propensity: int = Field(ge=0, le=65_536)
    masks: tuple[str, ...] = ()
    terms: ArmTerms | None = None


class CachedAnswer(Part):
    """An answer that was released before; which arm gave it, and how like the earlier request this one is (thousandths)."""

    key: str
    kind: Literal["exact", "semantic", "kept"]
    result_id: str
    text: str
    arm: str = ""
    adapter: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = ""
    logprobs: tuple[float, ...] = ()
    engine: str = ""
    at_ms: int = 0
    likeness_milli: int = 1000
    counted: str = Field(default="", description="Where comparisons with a fresh answer are counted.")


class Noticed(Part):
    """What the router observed beside the request and its policies: all that a replay cannot know otherwise."""

    spent_nano_usd: int | None = Field(default=None, description="Of the period's budget, reserved ones included.")
    spent_age_ms: int = 0
    away: bool = Field(default=False, description="The ledger did not answer: what this router may still spend counts.")
    requests: int | None = Field(default=None, description="Of the period so far.")
    emergency_nano_usd: int | None = None
    emergency_count: int | None = None
    requests_24h: int | None = None
    probe: Literal["", "off", "miss", "hit", "away"] = Field(default="", description="What the cache said.")
    vetoes: tuple[str, ...] = Field(default=(), description="Why the nearest question's answer is not this one's.")


class RoutingTerms(Part):
    """Why this arm: all that the strategy weighed. `features`: base64 of little-endian int16, left out from `personal` up.

    `points`: what made the complexity. `relaxed`: masks that were taken back because nothing was left. `preferred`: who was best.
    """

    strategy: str
    sensitivity: Sensitivity
    complexity: str = ""
    points: dict[str, int] = Field(default_factory=dict)
    basis: str = ""
    features: str = ""
    lambda_cost: int = 0
    preferred: str = ""
    explored: bool = False
    emergency: bool = False
    emergency_arm: str = Field(default="", description="Where it is the one chosen, or last in the chain.")
    relaxed: tuple[str, ...] = ()
    period: int | None = Field(default=None, description="Number of the budget's period.")
    reserved_nano_usd: int = 0
    tokens_in: int = Field(default=0, ge=0, description="Estimated input.")
    observed: Noticed = Noticed()
    warm: bool = False
    frozen: bool = False
    guarded: bool = False
    notes: tuple[str, ...] = Field(default=(), description="In words, what else had a part in it.")
    trial: bool = Field(default=False, description="The route's trial decided; propensities are over both.")


class DecisionRouted(DerivedEvent):
    """The write-ahead decision: inference acts on nothing else. All that recomputes it is in it."""

    TYPE = "decision.routed"
    TOPIC = "decisions"

    messages: tuple[Message, ...]
    arm: str
    chain: tuple[str, ...] = Field(default=(), description="Fallback arms, in order, after `arm`.")
    shadows: tuple[str, ...] = ()
    second_arm: str | None = Field(default=None, description="Asked too, only to see whether it agrees.")
    arms: tuple[ArmChoice, ...]
    strategy: str
    draw: int = Field(ge=0, le=65_535)
    draw_identity: str
    experiment: str = ""
    arenas: tuple[str, ...] = Field(default=(), description="Keys of the arenas that the fleet named.")
    bucket: int = Field(default=0, ge=0, lt=10_000)
    rollout_bp: int = 0
    shadow_probability: int = Field(default=0, ge=0, le=65_536)
    attempt: int = 1
    assigned_at_ms: int
    window_end_ms: int
    deadline_at_ms: int
    grader: Grader
    human_share: float = Field(default=0.0, ge=0, le=1, description="Share that a person judges where a model grades.")
    double_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of reviews that a second person is offered."
    )
    session: str | None = Field(default=None, description="Hash of the session id.")
    session_arm: str | None = Field(default=None, description="The arm the session had, as observed.")
    policies: tuple[PolicyRef, ...]
    store_seen: bool = Field(default=True, description="Whether the store answered (sessions, ids seen before).")
    code: str = ""
    routing: RoutingTerms | None = Field(default=None, description="None where nothing was weighed.")
    cached: CachedAnswer | None = Field(default=None, description="Given without a model.")
    cache_key: str = Field(default="", description="Under which the answer is kept once it is released.")
    hedges: tuple[str, ...] = Field(default=(), description="Arms that may be asked too when the answer is late.")
    kept_result: str = Field(
        default="", description="Of a second decision: the first result, where no arm is stronger."
    )
    trial: CachedAnswer | None = Field(default=None, description="Of a like question: to be compared with this answer.")
    gate: GateSeen | None = Field(default=None, description="None where the route has no gate.")
    mask_map: str = Field(
        default="",
        description="What the placeholders stand for, sealed for router and trust; empty: nothing was replaced.",
    )


class ShadowOrdered(DerivedEvent):
    """A challenger answers too; no answer waits for it."""

    TYPE = "shadow.ordered"
    TOPIC = "shadows"

    messages: tuple[Message, ...]
    arm: str
    decision_id: str
    deadline_at_ms: int
    assigned_at_ms: int
    window_end_ms: int
    policies: tuple[PolicyRef, ...]
    terms: ArmTerms | None = Field(default=None, description="What the decision knew of the arm's price.")
    period: int | None = Field(default=None, description="Number of the budget's period that it is charged to.")
    trial: CachedAnswer | None = Field(
        default=None, description="What was served meanwhile: to be compared with this answer."
    )


# results: by inference


class ResultEvent(DerivedEvent):
    TOPIC = "results"

    arm: str
    adapter: str | None = None
    shadow: bool
    final: bool = Field(description="This decision's chain ends here.")
    attempt: int = 1
    decision_id: str
    assigned_at_ms: int
    window_end_ms: int
    latency_ms: float = Field(ge=0, description="From decision to result.")
    instance: str = ""


class ResultCompleted(ResultEvent):
    TYPE = "result.completed"

    text: str
    tokens_in: int = Field(ge=0)
    tokens_out: int = Field(ge=0)
    ttft_ms: float = Field(ge=0, description="Time to first token, inside the engine.")
    engine_ms: float = Field(ge=0, description="Inside the engine, queueing included.")
    finish_reason: str
    logprobs: tuple[float, ...] = Field(description="Of the chosen tokens, natural log.")
    agreement: float | None = Field(
        default=None, ge=0, le=1, description="1: the second arm said the same; None: unknown."
    )
    engine: str
    replica: str = ""
    source: Literal["model", "cache", "kept"] = "model"
    cached_tokens: int = Field(default=0, ge=0, description="Of the input's, those that the provider had cached.")
    cost_nano_usd: int | None = Field(default=None, ge=0, description="By the decision's price; None: not known.")
    cache_key: str = ""
    mask_map: str = Field(
        default="",
        description="What the placeholders stand for, sealed for router and trust; empty: nothing was replaced.",
    )


class ResultFailed(ResultEvent):
    TYPE = "result.failed"

    kind: Literal["unavailable", "deadline", "refused", "hedge_lost"] = Field(
        description="hedge_lost: another arm answered first and this one was let go; no failure of the arm."
    )
    reason: str


# scores, answers: by trust


class ScoreAssigned(DerivedEvent):
    """`action` release: the answer went out with this score; hold: the case settles it; escalate: a decision follows.

    A shadow's score never releases. `review` says that a person shall see the answers. `result_partition`,
    `result_offset`: where the result lies that escalates, for the router reads it again.
    """

    TYPE = "score.assigned"
    TOPIC = "scores"

    arm: str
    shadow: bool
    decision_id: str
    result_id: str
    failed: bool = False
    action: Literal["release", "hold", "escalate"]
    score: float = Field(ge=0, le=1)
    z: float
    signals: tuple[float, ...] = ()
    scorer: str
    threshold: float
    certified: bool
    review: bool
    sampled: bool
    label_propensity: float = Field(ge=0, le=1)
    gated: bool
    assigned_at_ms: int
    window_end_ms: int
    policies: tuple[PolicyRef, ...] = ()
    attempt: int = 1
    result_partition: int | None = Field(default=None, ge=0)
    result_offset: int | None = Field(default=None, ge=0)
    withheld: bool = Field(
        default=False, description="Released by its score, and withheld by the gate: nothing goes out."
    )


class AiMark(Part):
    """A machine made this answer: the statement, and what binds it to the text (docs/gate.md)."""

    statement: str
    binding: str


class AnswerReleased(DerivedEvent):
    TYPE = "answer.released"
    TOPIC = "answers"

    text: str
    arm: str
    score: float | None = None
    certified: bool
    reviewed: bool = Field(description="A person decided before it went out.")
    decision_id: str
    result_id: str = ""
    latency_ms: float = Field(ge=0, description="From the request's event time.")
    marked: bool = Field(default=False, description="Whether `mark` is there.")
    mark: AiMark | None = None
    gate: GateSeen | None = Field(default=None, description="What the gate said of the answer's text.")
    policies: tuple[PolicyRef, ...] = Field(default=(), description="What trust knew, where no score says so.")


class AnswerWithheld(DerivedEvent):
    TYPE = "answer.withheld"
    TOPIC = "answers"

    reason: Literal["rejected", "failed", "window_ended", "gate"]
    detail: str = ""
    decision_id: str = ""
    gate: GateSeen | None = None
    policies: tuple[PolicyRef, ...] = Field(default=(), description="What trust knew, where no score says so.")


class AnswerRefused(RequestEvent):
    """By the router: the request cannot be taken. Names the field and what would be accepted."""

    TYPE = "answer.refused"
    TOPIC = "answers"

    route: str = ""
    request_id: str = Field(max_length=1024)
    kind: str
    field: str
    reason: str
    accepted: str
    request_partition: int
    request_offset: int
    policies: tuple[PolicyRef, ...] = Field(default=(), description="What the router knew when it refused.")
    retry_after_ms: int | None = Field(default=None, ge=0, description="When the same may be asked again.")
    masks: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Arm -> why it may not answer.")
    gate: GateSeen | None = Field(default=None, description="Where the gate refused it, or had seen it before.")
    subject: str | None = Field(default=None, description="Pseudonym.")


# reviews: by cases


class BlindAnswer(Part):
    """One arm's answer under a letter; which arm it is, only the case knows."""

    label: str
    text: str


class ReviewRequested(DerivedEvent):
    """Every arm's answer, blind. A judge model is asked where the grader is one (`rubric`, `model`), people where `people`.

    `double`: once a person has judged, it is offered to another one too.
    """

    TYPE = "review.requested"
    TOPIC = "reviews"

    messages: tuple[Message, ...]
    answers: tuple[BlindAnswer, ...]
    grader: Grader
    gated: bool
    due_ms: int
    people: bool = True
    double: bool = False
    judges: tuple[str, ...] | None = Field(
        default=None, description="Arms that may see the texts, where a judge model is asked; null: nothing is said."
    )


class ReviewSettled(DerivedEvent):
    """What trust shall do with an answer that it held: release `text`, or withhold it with the reason.

    The gate looks at what is to be released: what went out, the answer's own event says.
    """

    TYPE = "review.settled"
    TOPIC = "reviews"

    outcome: Literal["released", "withheld"]
    reason: Literal["approved", "corrected", "rejected", "failed", "window_ended"]
    text: str = ""
    arm: str = ""
    adapter: str | None = None
    result_id: str = ""
    decision_id: str = ""
    score: float | None = None
    detail: str = ""
    request_at_ms: int = 0
    mask_map: str = Field(
        default="",
        description="What the placeholders stand for, sealed for router and trust; empty: nothing was replaced.",
    )


# verdicts: by people, upstream, graders


class ArmVerdict(IncomingPart):
    """A judgement of one answer, by the letter that the review showed. `A` alone where only one answer is known."""

    label: str = Field(default="A", pattern=r"^[A-Z]$")
    decision: Literal["approve", "reject"] | None = None
    rating: float | None = Field(default=None, ge=0, le=1)


class VerdictGiven(RequestEvent, Incoming):
    """What a person, a reference or a judge model says of a request's answers.

    `corrected` is the right answer's text: under the grader `reference` every arm is graded by equality with it
    (Unicode NFC, case-folded, spaces folded). A person gives `answers` or `corrected`, a reference `corrected`.
    """

    TYPE = "verdict.given"
    TOPIC = "verdicts"

    by: str = Field(pattern=ID_PATTERN)
    kind: Literal["person", "reference", "model"] = "person"
    answers: tuple[ArmVerdict, ...] = Field(default=(), max_length=26)
    corrected: str | None = Field(default=None, min_length=1, max_length=100_000)
    seconds_spent: float | None = Field(default=None, ge=0)
    subject: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{32}$", description="As the review said: whose data it is, a pseudonym."
    )


# cases: by cases, keyed by route


class CaseArm(Part):
    """One arm's part of a case. Grades 0..1000 (thousandths), None where nobody graded it.

    `grade` is decisive: the first person's or reference's. `model_grade` is the judge model's, and decides nothing alone.
    """

    arm: str
    adapter: str | None = None
    shadow: bool
    status: Literal["completed", "failed", "missing"]
    result_id: str = ""
    text: str = ""
    grade: int | None = Field(default=None, ge=0, le=1000)
    model_grade: int | None = Field(default=None, ge=0, le=1000)
    latency_us: int = Field(default=0, ge=0)
    ttft_us: int = Field(default=0, ge=0)
    tokens_in: int = 0
    tokens_out: int = 0
    reason: str = ""
    cost_nano_usd: int | None = None
    engine_us: int = 0
    source: Literal["model", "cache", "kept"] = "model"


class CaseEvent(RouteEvent):
    TOPIC = "cases"

    request_id: str
    request_partition: int
    request_offset: int
    decision_id: str
    assigned_at_ms: int
    window_end_ms: int
    request_at_ms: int = 0
    arm: str = Field(description="The serving arm, of the last attempt.")
    drawn: str = Field(default="", description="The arm that the first decision drew, whoever answered in the end.")
    experiment: str = ""
    arenas: tuple[str, ...] = Field(default=(), description="Keys of the arenas that the decision's fleet named.")
    subject: str | None = None


class CaseAnswered(CaseEvent):
    """The serving arm is done; at once, without text. `shadows` announces the pairs to come."""

    TYPE = "case.answered"

    ok: bool
    latency_us: int
    tokens_out: int = 0
    released: bool = Field(description="Out already, by its score: false of what trust held, however that ends.")
    shadows: tuple[str, ...] = ()
    reason: str = ""
    source: Literal["model", "cache", "kept"] = "model"
    cost_nano_usd: int | None = Field(default=None, description="Of all attempts, as far as known; shadows not.")
    strategy: str = Field(default="", description="Of the first decision.")
    lost: tuple[str, ...] = Field(default=(), description="Arms that were asked and failed before it.")


class Escalated(Part):
    """A first attempt's score, which was too low. Its answer is among the case's arms."""

    arm: str
    score: float
    z: float
    signals: tuple[float, ...] = ()
    scorer: str = ""


Withheld = Literal["", "rejected", "failed", "window_ended", "gate"]


class CaseClosed(CaseEvent):
    """The request joined once: decision, every arm's result, score as it stood before the verdict, verdict, grades.

    `verdict_*` tell the decisive verdict, a person's or a reference's. Where a model grades (`rubric`, `model`), a person
    was asked by a coin: `human_sampled`, with the exact probability `human_share` (F10's ξ and r). `choices`, `routing` and
    `strategy` are of the first decision, arm and score of the last attempt; `cost_nano_usd` is what both have cost.
    """

    TYPE = "case.closed"

    why: Literal["complete", "window_ended"]
    messages: tuple[Message, ...]
    arms: tuple[CaseArm, ...]
    choices: tuple[ArmChoice, ...]
    grader: Grader
    human_share: float = Field(default=0.0, ge=0, le=1)
    human_sampled: bool = False
    model_by: str = Field(default="", description="Which judge model graded.")
    label: str | None = Field(
        default=None, description="The right answer's text: the correction, else the approved text."
    )
    verdict_by: str = ""
    verdict_kind: Literal["", "person", "reference", "model"] = ""
    verdict_after_score: bool = False
    verdict_at_ms: int | None = None
    score: float | None = None
    z: float | None = None
    signals: tuple[float, ...] = ()
    scorer: str = ""
    certified: bool = False
    action: Literal["", "release", "hold", "escalate"] = ""
    sampled: bool = False
    label_propensity: float = 0.0
    settled: Literal["", "released", "withheld"] = Field(
        default="",
        description="What became of an answer that trust held, or the gate withheld; empty: its score let it out.",
    )
    withheld: Withheld = Field(default="", description="Why nothing went out, as the answer's own event says.")
    routing: RoutingTerms | None = Field(default=None, description="Of the first decision.")
    strategy: str = ""
    attempt: int = Field(default=1, description="Of the decision whose answer this is: 2 after an escalation.")
    session: str | None = None
    source: Literal["model", "cache", "kept"] = "model"
    cost_nano_usd: int | None = None
    escalated: Escalated | None = None


class CaseAmended(CaseClosed):
    """A later verdict on a closed case: the whole case again with the new verdict; the first verdict stays decisive.

    `contradicts`, `same_person`: against the first of its kind, a judge model's verdict against the judge model's.
    """

    TYPE = "case.amended"

    amends: str = Field(description="Id of the case.closed event.")
    contradicts: bool = False
    same_person: bool = False


# promotions: by the judge, the ladder


class EProcess(Part):
    """One e-process as it stands: wealth = mantissa·2^exponent summed over bets; `log_e` is for display only."""

    name: str
    log_e: float
    max_log_e: float
    needed: float
    n: int
    estimate: float | None = None
    crossed: bool
    mantissa: float | None = Field(default=None, description="Wealth now: mantissa·2^exponent.")
    exponent: int | None = None
    peak: float | None = Field(default=None, description="Greatest wealth at a look, at most 2^1000.")


class PromotionEvent(RouteEvent):
    TOPIC = "promotions"

    arena: str = Field(description="The version key's digest: arms, grader, numbers.")
    champion: str
    challenger: str
    adapter: str | None = None


class PromotionOpened(PromotionEvent):
    TYPE = "promotion.opened"

    resumed: bool = False
    settings: dict[str, float | int | str | None]


class PromotionEvaluated(PromotionEvent):
    """The judge's look at the evidence, with every number that the decision needs."""

    TYPE = "promotion.evaluated"

    pairs: int
    quality_pairs: int
    wins: int
    losses: int
    champion_grade: float | None
    challenger_grade: float | None
    processes: tuple[EProcess, ...]
    conditions: dict[str, bool]
    decision: Literal["continue", "promote", "request_approval", "reject"]
    reason: str = ""
    stage: int = Field(default=0, description="0: shadow; from 1 on: on its way to all requests.")
    holdback: bool = Field(default=False, description="After the promotion: challenger is who serves now.")
    late: int = Field(default=0, description="Pairs that were announced after their place in the order.")
    basis: str = Field(default="", description="JSON of all that the decision was made from: see docs/statistics.md.")


class PromotionStaged(PromotionEvent):
    """The challenger serves `rollout_bp` of 10,000 buckets from now on; 0: it is in the shadow again."""

    TYPE = "promotion.staged"

    stage: int
    rollout_bp: int = Field(ge=0, le=10_000)
    pairs: int
    reason: str = ""


class PromotionApprovalRequested(PromotionEvent):
    TYPE = "promotion.approval_requested"

    pairs: int
    log_e: float


class PromotionRejected(PromotionEvent):
    TYPE = "promotion.rejected"

    reason: str
    pairs: int
    log_e: float = 0.0


class ModelPromoted(PromotionEvent):
    TYPE = "model.promoted"

    pairs: int
    log_e: float
    approved_by: str = ""
    fleet_version: int
    evaluation: str = Field(description="Id of the deciding promotion.evaluated, or of the operator's command.")


class ModelRolledBack(PromotionEvent):
    """`challenger` is the arm that was taken out, `champion` the one that serves again."""

    TYPE = "model.rolled_back"

    reason: str
    by: str
    fleet_version: int


class TrustChanged(RouteEvent):
    TYPE = "trust.changed"
    TOPIC = "promotions"

    before: str
    after: str
    reason: str
    by: str = ""
    refused: bool = Field(default=False, description="A grant that was asked for and is not given; nothing changed.")
    alarm: bool = Field(default=False, description="The detector of what is released raised it: the router freezes.")


# training: by trainer (Fold), jobs and inference (facts)


class TrainingEvent(RouteEvent):
    TOPIC = "training"

    order_id: str


class TrainingOrdered(TrainingEvent):
    """Train an adapter from the cases in a range of `ratchet.cases`, folded by the trainer's own rules."""

    TYPE = "training.ordered"

    reason: str
    base: str
    champion: str
    parent_adapter: str | None = None
    cases_partition: int
    cases_first: int
    cases_last: int
    rows: int
    classes: int
    template: str
    stop: tuple[str, ...] = ()
    max_tokens: int
    settings: dict[str, float | int | str | bool | None]
    attempt: int = 1
    compliance: Literal["standard", "off"] = Field(default="standard", description="Of the route; off: no gate looks.")
    region: str = Field(default="", description="Where the champion computes, and the rows are used.")


class TrainingCancelled(TrainingEvent):
    TYPE = "training.cancelled"

    reason: str
    by: str = ""


class UsedRow(Part):
    """A row of a data set that is about somebody: a pseudonym, and where its request lies."""

    subject: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class TrainingProgressed(TrainingEvent):
    """`used`: some of the data set's rows that have a subject. The job names each in one of these before it trains on any."""

    TYPE = "training.progressed"

    step: int
    steps: int
    epoch: float
    loss: float | None = None
    phase: Literal["curating", "training", "evaluating", "signing"] = "training"
    used: tuple[UsedRow, ...] = ()


class TrainingCompleted(TrainingEvent):
    """`adapter` is the digest of the signed statement; metrics are on fixed sets."""

    TYPE = "training.completed"

    adapter: str
    tree: str
    dataset: str
    rows: int
    cutoff_ms: int
    seconds: float
    metrics: dict[str, float]
    energy_j: float | None = None
    energy_estimated: bool = True
    denied: int = Field(default=0, ge=0, description="Rows that the gate left out.")


class TrainingFailed(TrainingEvent):
    TYPE = "training.failed"

    reason: str
    metrics: dict[str, float] = Field(default_factory=dict)


class AdapterRegistered(TrainingEvent):
    TYPE = "adapter.registered"

    adapter: str
    base: str
    parent: str | None = None
    dataset: str
    cutoff_ms: int
    metrics: dict[str, float]
    arm: str


class AdapterFact(RouteEvent):
    TOPIC = "training"

    arm: str
    adapter: str | None
    instance: str
    replica: str = ""


class AdapterLive(AdapterFact):
    TYPE = "adapter.live"

    load_ms: float


class AdapterRefused(AdapterFact):
    TYPE = "adapter.refused"

    reason: str


# commands: by operators


class Command(Incoming):
    TOPIC = "commands"

    route: str = Field(pattern=ID_PATTERN)
    operator: str = Field(pattern=ID_PATTERN)
    reason: str = Field(default="", max_length=2000)

    def event_key(self) -> str:
        return self.route


class CommandApply(Command):
    TYPE = "command.apply"

    settings: Route


class CommandPromote(Command):
    """Approve what the judge asks for; refused when the guardrails fail by then."""

    TYPE = "command.promote"

    challenger: str


class CommandReject(Command):
    TYPE = "command.reject"

    challenger: str


class CommandRollback(Command):
    TYPE = "command.rollback"


class CommandPause(Command):
    TYPE = "command.pause"


class CommandResume(Command):
    TYPE = "command.resume"


class CommandTrust(Command):
    """Grant: what the ladder certified is released; with a threshold, scores at or above it are, uncertified. Withdraw, the kill
    switch: SHADOW, and every answer waits for a person. Drill: tests the kill switch. Reset: the ladder begins anew.
    """

    TYPE = "command.trust"

    action: Literal["grant", "withdraw", "drill", "reset"]
    threshold: float | None = Field(default=None, ge=0, le=1)


class CommandTrain(Command):
    TYPE = "command.train"


class CommandCancel(Command):
    """Stop the training that is under way."""

    TYPE = "command.cancel"


# commands about records: by operators, each in one transaction with the deed that it tells of


class TenantCommand(Incoming):
    """Keyed by tenant."""

    TOPIC = "commands"

    operator: str = Field(pattern=ID_PATTERN)
    reason: str = Field(default="", max_length=2000)

    def event_key(self) -> str:
        return self.tenant


class RepairCommand(TenantCommand):
    """What an operator did to records. No agent acts on it: what became of a dead letter is read from these."""

    agent: str = Field(pattern=ID_PATTERN, description="Whose dead letter, lane or group.")
    topic: str = Field(pattern=TOPIC_PATTERN, description="The agent's input.")
    partition: int = Field(ge=0)


class LetterCommand(RepairCommand):
    """About one dead letter: `letter_*` is its place, topic, partition and `offset` are of the record that it was."""

    offset: int = Field(ge=0)
    letter_topic: str = Field(pattern=TOPIC_PATTERN)
    letter_partition: int = Field(ge=0)
    letter_offset: int = Field(ge=0)


class CommandResend(LetterCommand):
    """A dead letter went back to its topic. `sent_id` is the id of what was sent; `again`: it had been sent or discarded before."""

    TYPE = "command.resend"

    sent_id: str = Field(max_length=1024)
    edited: bool
    again: bool = False


class CommandDiscard(LetterCommand):
    """A dead letter is not to be sent: settled, with the reason."""

    TYPE = "command.discard"


class CommandSkip(RepairCommand):
    """The record at which a lane had halted became a dead letter, and the lane goes on behind it."""

    TYPE = "command.skip"

    offset: int = Field(ge=0)


class CommandOffsets(RepairCommand):
    """A group's offset was moved: back (`to_offset` < `from_offset`) reads again, forth leaves out."""

    TYPE = "command.offsets"

    from_offset: int = Field(ge=0)
    to_offset: int = Field(ge=0)


# observations: facts of how the system itself is doing


class Observation(Payload):
    TOPIC = "observations"

    def event_key(self) -> str:
        return self.tenant


class BreakerChanged(Observation):
    """A breaker of one inference instance changed its state."""

    TYPE = "breaker.changed"

    route: str = Field(pattern=ID_PATTERN)
    arm: str
    engine: str = Field(description="The replica or provider before which it stands.")
    instance: str
    before: BreakerState
    after: BreakerState
    until_ms: int = Field(default=0, ge=0, description="Open until then; 0 in another state.")
    calls: int = Field(default=0, ge=0, description="Counted calls of the 30 s before the change.")
    failed: int = Field(default=0, ge=0, description="How many of them failed.")


class ExportMade(Observation, Incoming):
    """An operator made a bundle for auditors. `tenant` is whose bundle it is, the default tenant for one of everything."""

    TYPE = "export.made"

    manifest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bundle's manifest.")
    kind: Literal["full", "tenant", "subject"]
    files: int = Field(ge=0, lt=1 << 53, description="How many files the manifest names.")
    entries: int = Field(default=0, ge=0, lt=1 << 53, description="Of a subject's: how many entries it holds.")
    expected: int = Field(default=0, ge=0, lt=1 << 53, description="Of a subject's: how many the log had.")
    by: str = Field(pattern=ID_PATTERN, description="The operator.")


# audit: by the evidence publisher


class AuditEvent(Payload):
    TOPIC = "audit"

    log_index: int

    def event_key(self) -> str:
        return self.tenant


class AuditCheckpoint(AuditEvent):
    TYPE = "audit.checkpoint"

    origin: str
    size: int
    root: str
    note: str


class AuditFinding(AuditEvent):
    TYPE = "audit.finding"

    kind: str
    detail: str
