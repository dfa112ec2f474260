"""What of each event type stands in the log: facts, texts only as commitments, people only as pseudonyms. Pure.

Every field of every event is in one of these lists, or in `LEFT_OUT` with the reason; a test holds that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.evidence.facts import DIGEST, LABEL, NAME, SETTING, STANDING, TOKEN, UUID, VERSIONED, WORD, Kind


@dataclass(frozen=True, slots=True)
class Row:
    """What may be copied of one event type.

    `facts`: fields that have a kind (`facts`). `parts`: the same inside an object, or inside a list of objects, of which the first 64
    are shown. `commits`: texts. `people`: identifiers of persons, written as pseudonyms. `counts`: lists whose length is said.
    """

    facts: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    plain: frozenset[str] = field(init=False)
    lists: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", frozenset((*self.facts, *self.parts)))
        object.__setattr__(self, "lists", frozenset((*self.counts, *self.parts)))


_AT = ("request_partition", "request_offset", "request_at_ms")
_SPAN = ("assigned_at_ms", "window_end_ms")
_RESULT = (*_AT, *_SPAN, "arm", "adapter", "shadow", "final", "attempt", "decision_id", "latency_ms", "instance")
_CHOICES = ("arm", "adapter", "propensity", "masks")
_CASE_ARM = (
    "arm", "adapter", "shadow", "status", "result_id", "grade", "model_grade", "latency_us", "ttft_us", "tokens_in",
    "tokens_out", "cost_nano_usd", "source",
)  # fmt: skip
_CASE = (*_AT, *_SPAN, "decision_id", "arm", "drawn", "experiment", "arenas")
_LIVE = ("arm", "adapter", "instance", "replica")
_CLOSED = Row(
    (*_CASE, "why", "grader", "human_share", "human_sampled", "verdict_kind", "verdict_after_score", "verdict_at_ms",
     "score", "z", "scorer", "signals", "certified", "action", "sampled", "label_propensity", "settled",
     "withheld", "strategy", "attempt", "source", "cost_nano_usd"),
    ("messages", "label", "routing", "session", "escalated"),
    ("verdict_by", "model_by"),
    parts={"arms": _CASE_ARM, "choices": _CHOICES},
)  # fmt: skip
_ARENA = ("arena", "champion", "challenger", "adapter")
_POLICY_ARM = ("arm", "base", "adapter", "temperature", "max_tokens")
_GATE = {
    "gate": ("action", "rules", "exemptions", "rules_digest", "tenant_version", "purpose", "legal_basis", "origin", "registered", "found",
             "masked", "scan"),
}  # fmt: skip
_INCIDENT = ("incident", "aware_at_ms", "notify_by_ms", "personal_data", "high_risk")
_INCIDENT_ROW = Row(_INCIDENT, (), ("by",))
_NOTICE = ("nature", "contact", "consequences", "measures", "delay_reason")
_CUT = ("partition", "offset")
_COMMAND = Row((), ("reason",), ("operator",))
_RECORD = ("agent", "topic", "partition")
_LETTER = (*_RECORD, "offset", "letter_topic", "letter_partition", "letter_offset")

TABLE: Mapping[str, Row] = {
    "request.submitted": Row(
        ("deadline_ms", "sensitivity", "needs"),
        ("messages", "session_id", "notice", "purpose", "legal_basis", "origin", "classes"),
        counts=("messages",),
    ),
    "decision.routed": Row(
        (*_AT, *_SPAN, "arm", "chain", "shadows", "second_arm", "strategy", "draw", "experiment", "bucket",
         "rollout_bp", "shadow_probability", "attempt", "deadline_at_ms", "grader", "human_share", "double_share", "arenas",
         "session_arm", "store_seen", "code", "cache_key", "hedges", "kept_result"),
        ("messages", "draw_identity", "session", "routing", "cached", "trial", "mask_map"),
        counts=("messages",),
        parts={"arms": _CHOICES, "routing": ("sensitivity", "explored", "emergency", "relaxed"), **_GATE},
    ),
    "shadow.ordered": Row(
        (*_AT, *_SPAN, "arm", "decision_id", "deadline_at_ms", "period"), ("messages", "trial"), counts=("messages",)
    ),
    "result.completed": Row(
        (*_RESULT, "tokens_in", "tokens_out", "ttft_ms", "engine_ms", "finish_reason", "engine", "replica", "agreement",
         "source", "cached_tokens", "cost_nano_usd", "cache_key"), ("text", "mask_map")
    ),
    "result.failed": Row((*_RESULT, "kind"), ("reason",)),
    "score.assigned": Row(
        (*_AT, *_SPAN, "arm", "shadow", "decision_id", "result_id", "failed", "action", "score", "z", "signals",
         "scorer", "threshold", "certified", "review", "sampled", "label_propensity", "gated", "attempt", "result_partition",
         "result_offset", "withheld"),
    ),
    "answer.released": Row(
        (*_AT, "arm", "score", "certified", "reviewed", "decision_id", "result_id", "latency_ms", "marked"), ("text", "mark"),
        parts=_GATE,
    ),
    "answer.withheld": Row((*_AT, "reason", "decision_id"), ("detail",), parts=_GATE),
    "answer.refused": Row(
        ("request_partition", "request_offset", "kind", "retry_after_ms"), ("field", "reason", "accepted", "masks"), parts=_GATE
    ),
    "review.requested": Row(
        (*_AT, "grader", "gated", "due_ms", "people", "double"), ("messages", "answers"), counts=("answers",)
    ),
    "review.settled": Row(
        (*_AT, "outcome", "reason", "arm", "adapter", "result_id", "decision_id", "score"), ("text", "detail", "mask_map")
    ),
    "verdict.given": Row(
        ("kind", "seconds_spent"), ("corrected",), ("by",), parts={"answers": ("label", "decision", "rating")}
    ),
    "case.answered": Row((*_CASE, "ok", "latency_us", "tokens_out", "released", "shadows", "source",
                                    "cost_nano_usd", "strategy", "lost"), ("reason",)),
    "case.closed": _CLOSED,
    "case.amended": Row(
        (*_CLOSED.facts, "amends", "contradicts", "same_person"), _CLOSED.commits, _CLOSED.people, parts=_CLOSED.parts
    ),
    "policy.route": Row(("version",), ("settings",), ("author",)),
    "policy.fleet": Row(
        ("version", "champion", "challenger", "rollback", "rollout_bp", "shadow_bp", "experiment", "shadows", "loaded",
         "arenas", "paused"),
        ("reason",),
        parts={"arms": _POLICY_ARM},
    ),
    "policy.trust": Row(
        ("version", "scorer", "signals", "weights", "center", "scale", "bias", "platt_a", "platt_b",
         "threshold", "mode", "labels", "arm", "tau", "rung", "certified", "floor", "gate", "counted", "drilled", "kappa"),
        (),
        ("granted_by",),
    ),
    "policy.live": Row(
        ("version", "instance", "until_ms"),
        parts={"arms": ("route", "arm", "adapter", "replicas", "in_flight", "cap", "open_until_ms"),
               "breakers": ("route", "arm", "engine", "state", "until_ms")},
    ),
    "policy.router": Row(
        ("version", "champion", "basis", "dims", "factors", "warm", "frozen", "guarded", "lambda_cost", "preferred",
         "generation", "labels", "cases", "code"),
        ("alarms",),
        parts={"arms": ("arm", "adapter", "labels", "cases", "tokens_in_milli", "tokens_out", "latency_ms",
                        "engine_ms")},
    ),
    "policy.capacity": Row(
        ("version", "window_s"),
        parts={"arms": ("arm", "adapter", "rate_milli", "tokens_s", "p95_ms", "busy_milli", "replicas", "warm")},
    ),
    "promotion.opened": Row((*_ARENA, "resumed", "settings")),
    "promotion.evaluated": Row(
        (*_ARENA, "pairs", "quality_pairs", "wins", "losses", "champion_grade", "challenger_grade",
         "decision", "stage", "holdback", "late"),
        ("conditions", "reason", "basis"),  # the conditions' names are sentences
        parts={"processes": ("name", "log_e", "max_log_e", "needed", "n", "estimate", "crossed", "mantissa", "exponent",
                             "peak")},
    ),
    "promotion.staged": Row((*_ARENA, "stage", "rollout_bp", "pairs"), ("reason",)),
    "promotion.approval_requested": Row((*_ARENA, "pairs", "log_e")),
    "promotion.rejected": Row((*_ARENA, "pairs", "log_e"), ("reason",)),
    "model.promoted": Row((*_ARENA, "pairs", "log_e", "fleet_version", "evaluation"), (), ("approved_by",)),
    "model.rolled_back": Row((*_ARENA, "fleet_version"), ("reason",), ("by",)),
    "trust.changed": Row(("before", "after", "refused", "alarm"), ("reason",), ("by",)),
    "training.ordered": Row(
        ("order_id", "base", "champion", "parent_adapter", "cases_partition", "cases_first", "cases_last",
         "rows", "classes", "max_tokens", "settings", "attempt", "compliance"),
        ("reason", "template", "stop"),
    ),
    "training.cancelled": Row(("order_id",), ("reason",), ("by",)),
    "training.progressed": Row(("order_id", "step", "steps", "epoch", "loss", "phase"), counts=("used",)),
    "training.completed": Row(
        ("order_id", "adapter", "tree", "dataset", "rows", "cutoff_ms", "seconds", "metrics", "energy_j",
         "energy_estimated", "denied")
    ),
    "training.failed": Row(("order_id", "metrics"), ("reason",)),
    "adapter.registered": Row(
        ("order_id", "adapter", "base", "parent", "dataset", "cutoff_ms", "metrics", "arm")
    ),
    "adapter.live": Row((*_LIVE, "load_ms")),
    "adapter.refused": Row(_LIVE, ("reason",)),
    "breaker.changed": Row(("arm", "engine", "instance", "before", "after", "until_ms", "calls", "failed")),
    "export.made": Row(("manifest", "kind", "files", "entries", "expected"), (), ("by",)),
    "policy.gate": Row(("version",), ("settings",), ("author",)),
    "command.tenant": Row((), ("reason", "settings"), ("operator",)),
    "command.incident": Row(
        ("incident", "step", "aware_at_ms", "personal_data", "high_risk"), ("reason",), ("operator",), parts={"notice": _NOTICE}
    ),
    "command.erase": _COMMAND,
    "command.forget": Row(("erasure",), parts={"cut": _CUT}),
    "incident.detected": Row((*_INCIDENT, "violation", "controls", "log_index"), (), ("by",)),
    "incident.assessed": _INCIDENT_ROW,
    "incident.notified": Row((*_INCIDENT, "late", "missing"), (), ("by",)),
    "incident.told": _INCIDENT_ROW,
    "incident.not_notifiable": _INCIDENT_ROW,
    "incident.contained": _INCIDENT_ROW,
    "incident.closed": _INCIDENT_ROW,
    "incident.overdue": _INCIDENT_ROW,
    "incident.refused": Row((*_INCIDENT, "step", "why", "state"), (), ("by",)),
    "subject.erased": Row(
        ("erasure", "keys", "epoch", "hold_checked", "effective_at_ms", "routes"), (), ("by",),
        parts={"cut": _CUT, "horizons": ("backup_ms", "payload_ms", "compaction_ms", "cache_ms")},
    ),
    "subject.kept": Row(("erasure", "reason", "earlier", "holds", "settings")),
    "adapter.marked": Row(("adapter", "dataset", "order_id", "erasure", "rows", "ordered")),
    "access.checked": Row(("check", "what", "passed"), (), ("by",)),
    "config.observed": Row(("what", "passed"), (), ("by",)),
    "drill.completed": Row(("kind", "size", "root", "restored", "passed"), (), ("by",)),
    "deid.applied": Row(("order_id", "dataset", "classes", "unsupported", "rows", "masked", "denied")),
    "command.apply": Row((), ("reason", "settings"), ("operator",)),
    "command.promote": Row(("challenger",), ("reason",), ("operator",)),
    "command.reject": Row(("challenger",), ("reason",), ("operator",)),
    "command.rollback": _COMMAND,
    "command.pause": _COMMAND,
    "command.resume": _COMMAND,
    "command.trust": Row(("action", "threshold"), ("reason",), ("operator",)),
    "command.train": _COMMAND,
    "command.cancel": _COMMAND,
    "command.resend": Row((*_LETTER, "sent_id", "edited", "again"), ("reason",), ("operator",)),
    "command.discard": Row(_LETTER, ("reason",), ("operator",)),
    "command.skip": Row((*_RECORD, "offset"), ("reason",), ("operator",)),
    "command.offsets": Row((*_RECORD, "from_offset", "to_offset"), ("reason",), ("operator",)),
}  # fmt: skip


_ARMS = dict.fromkeys(
    ("arm", "chain", "shadows", "second_arm", "session_arm", "hedges", "lost", "drawn", "champion", "challenger", "rollback",
     "loaded", "preferred", "exemptions", "holds", "routes"), NAME
)  # fmt: skip
_ENGINES = dict.fromkeys(
    ("engine", "replica", "instance", "base", "sent_id", "evaluation", "topic", "letter_topic", "rules", "controls"),
    TOKEN,
)
_EVENTS = dict.fromkeys(("decision_id", "result_id", "kept_result", "amends", "order_id", "id"), UUID)
_DIGESTS = dict.fromkeys(
    (
        "adapter",
        "parent",
        "parent_adapter",
        "dataset",
        "tree",
        "arena",
        "arenas",
        "experiment",
        "cache_key",
        "basis",
        "factors",
    ),
    DIGEST,
)
_WORDS = dict.fromkeys(
    (
        "purpose",
        "legal_basis",
        "origin",
        "classes",
        "missing",
        "unsupported",
        "masked",
        "violation",
        "masks",
        "relaxed",
        "strategy",
        "finish_reason",
        "kind",
        "name",
        "signals",
        "needs",
    ),
    WORD,
)
_VERSIONS = dict.fromkeys(("scorer", "code"), VERSIONED)

_LABELS = dict.fromkeys(("purpose", "legal_basis", "origin", "classes"), LABEL)

STRINGS: Mapping[str, Kind] = {
    **_LABELS,
    **_ARMS, **_ENGINES, **_EVENTS, **_DIGESTS, **_WORDS, **_VERSIONS,
    "route": NAME, "rules_digest": DIGEST, "erasure": UUID, "earlier": UUID, "before": STANDING, "after": STANDING, "settings": SETTING,
}  # fmt: skip
"""Kinds of strings that the models leave free, by the field's name."""

ENVELOPE = frozenset({"tenant", "at_ms", "route", "request_id", "subject", "policies"})
"""Fields of every event that the entry says itself."""

_TERMS = "recomputed by replay, and long"
_CONFIGURED = "as the route's settings say, to which policy.route commits"
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "decision.routed": {"arms.terms": _TERMS, **dict.fromkeys(
        ("routing.strategy", "routing.complexity", "routing.points", "routing.basis", "routing.features", "routing.lambda_cost",
         "routing.preferred", "routing.emergency_arm", "routing.period", "routing.reserved_nano_usd", "routing.tokens_in",
         "routing.observed", "routing.warm", "routing.frozen", "routing.guarded", "routing.notes", "routing.trial"),
        "under the commitment `routing`",
    )},
    "shadow.ordered": {"terms": _TERMS},
    "result.completed": {"logprobs": "one number for each token: it tells of the text"},
    "case.closed": {
        "arms.text": "of result.completed, which commits to it", "arms.reason": "of result.failed, which commits to it",
        "arms.engine_us": "of result.completed", "choices.terms": _TERMS,
    },
    "policy.fleet": dict.fromkeys(
        ("arms.stop", "arms.template", "arms.nano_usd_in", "arms.nano_usd_out", "arms.provider", "arms.model", "arms.url", "arms.secret",
         "arms.api_version", "arms.clearance", "arms.outside", "arms.region", "arms.context_tokens", "arms.capabilities",
         "arms.max_in_flight", "arms.expected_ms"),
        _CONFIGURED,
    ),
    "policy.router": {"arms.mean": "one weight for each feature: read by replay alone"},
    "policy.capacity": {"arms.why": "in words"},
    "review.requested": {"judges": "the arms of its decision without a mask that says so"},
    "training.ordered": {"region": _CONFIGURED},
    "training.progressed": dict.fromkeys(
        ("used.subject", "used.partition", "used.offset"), "pseudonyms of many people: adapter.marked says of each what counts"
    ),
}  # fmt: skip
"""Fields, or fields of parts, that stand nowhere but under the commitment to the whole record, and why."""
