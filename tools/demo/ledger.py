"""What the demonstration has sent and seen: plain facts by request id and by arena, and the figures made from them.

It knows only what any outsider can read from the topics. Lost and duplicated are counted here, from the log itself.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from schemas.compliance import PolicyGate
from schemas.events import (
    AdapterLive,
    AdapterRefused,
    AnswerRefused,
    AnswerReleased,
    AnswerWithheld,
    CaseClosed,
    ModelPromoted,
    ModelRolledBack,
    PromotionEvaluated,
    PromotionEvent,
    PromotionOpened,
    PromotionRejected,
    PromotionStaged,
    TrainingCompleted,
    TrainingFailed,
    TrainingOrdered,
    TrainingProgressed,
    TrustChanged,
)
from schemas.payload import Payload
from schemas.policies import PolicyFleet

Phase = Literal[
    "known", "new", "shadow", "stages", "after", "degraded", "back",
    "warm-up", "learnt", "dearer", "failure", "returned", "rollout", "whole",
]  # fmt: skip
ROLLING = 50
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(slots=True)
class Asked:
    """One request: what was asked, in which phase, and all that came back."""

    phase: Phase
    intent: str
    known: bool
    held_out: bool
    sent_ms: int
    answers: list[str] = field(default_factory=list[str])
    right: bool | None = None
    arm: str = ""
    latency_ms: float = 0.0
    answered_ms: int = 0
    cases: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """One evaluation by the judge. `log_e`: that quality is better; `worse`: the greatest log E of harm, of any metric."""

    at_ms: int
    pairs: int
    log_e: float
    needed: float
    worse: float
    worse_needed: float
    decision: str
    champion: float | None
    challenger: float | None
    conditions: dict[str, bool]
    reason: str
    estimates: dict[str, float | None]


@dataclass(slots=True)
class Contest:
    """One challenger's arena, from its opening to its end."""

    challenger: str
    opened_ms: int
    asked_before: int
    looks: list[Look] = field(default_factory=list[Look])
    stages: list[PromotionStaged] = field(default_factory=list[PromotionStaged])
    promoted: ModelPromoted | None = None
    rejected: PromotionRejected | None = None

    @property
    def decided(self) -> bool:
        return self.promoted is not None or self.rejected is not None

    @property
    def pairs(self) -> int:
        """Folded pairs, as last told."""
        return self.looks[-1].pairs if self.looks else 0

    def verdict(self) -> str:
        """What became of it, in words."""
        if self.promoted is not None:
            return f"promoted after {self.promoted.pairs} pairs: every condition held"
        if self.rejected is not None:
            return f"not promoted: {self.rejected.reason} after {self.rejected.pairs} pairs"
        if not self.looks:
            return "not promoted: the judge saw no pairs"
        missing = [name for name, met in self.looks[-1].conditions.items() if not met]
        return f"not promoted: not met are {', '.join(missing)}"


def _share(rows: Iterable[Asked]) -> float | None:
    right = [bool(row.right) for row in rows]
    return round(sum(right) / len(right), 4) if right else None


def _shares(rows: list[Asked]) -> dict[str, float | int | None]:
    return {
        "known": _share(row for row in rows if row.known),
        "new": _share(row for row in rows if not row.known),
        "all": _share(rows),
    }


def _look(payload: PromotionEvaluated) -> Look:
    rows = {row.name: row for row in payload.processes}
    quality = rows.get("quality")
    worse = max((row for row in payload.processes if row.name.endswith("_worse")), key=lambda row: row.log_e)
    return Look(
        at_ms=payload.at_ms,
        pairs=payload.pairs,
        log_e=quality.log_e if quality else 0.0,
        needed=quality.needed if quality else 0.0,
        worse=worse.log_e,
        worse_needed=worse.needed,
        decision=payload.decision,
        champion=payload.champion_grade,
        challenger=payload.challenger_grade,
        conditions=payload.conditions,
        reason=payload.reason,
        estimates={name: rows[f"{name}_margin"].estimate for name in ("quality", "latency", "error", "cost")},
    )


@dataclass(slots=True)
class Ledger:
    """Facts as they arrive. `take` is idempotent per event id."""

    asked: dict[str, Asked] = field(default_factory=dict[str, Asked])
    contests: dict[str, Contest] = field(default_factory=dict[str, Contest])
    holdback: list[Look] = field(default_factory=list[Look])
    seen: set[str] = field(default_factory=set[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    ordered: list[TrainingOrdered] = field(default_factory=list[TrainingOrdered])
    trained: list[TrainingCompleted] = field(default_factory=list[TrainingCompleted])
    progress: TrainingProgressed | None = None
    failed: TrainingFailed | None = None
    rolled_back: ModelRolledBack | None = None
    trust: list[TrustChanged] = field(default_factory=list[TrustChanged])
    fleets: list[PolicyFleet] = field(default_factory=list[PolicyFleet])
    live: list[str] = field(default_factory=list[str])
    gates: list[PolicyGate] = field(default_factory=list[PolicyGate])
    repeats: int = 0

    def take(self, event_id: str, payload: Payload) -> Asked | None:
        """Note an event. Returns the request that has just got its first answer, if this is that."""
        if event_id in self.seen:
            if isinstance(payload, AnswerReleased | AnswerWithheld | AnswerRefused | CaseClosed):
                self.repeats += 1
            return None
        self.seen.add(event_id)
        match payload:
            case AnswerReleased() | AnswerWithheld() | AnswerRefused():
                return self._answer(payload)
            case CaseClosed():
                asked = self.asked.get(payload.request_id)
                if asked is not None:
                    asked.cases += 1
            case PromotionEvent():
                self._promotion(payload)
            case _:
                self._milestone(payload)
        return None

    def _answer(self, payload: AnswerReleased | AnswerWithheld | AnswerRefused) -> Asked | None:
        asked = self.asked.get(payload.request_id)
        if asked is None:
            return None
        asked.answers.append(payload.TYPE)
        if len(asked.answers) > 1:
            return None
        asked.answered_ms = payload.at_ms
        if isinstance(payload, AnswerReleased):
            asked.right = payload.text.strip().casefold() == asked.intent.casefold()
            asked.arm = payload.arm
            asked.latency_ms = payload.latency_ms
        elif isinstance(payload, AnswerRefused):
            self.refused[payload.kind] += 1
        else:
            asked.right = False
        return asked

    def _promotion(self, payload: PromotionEvent) -> None:
        if isinstance(payload, PromotionOpened):
            self.contests.setdefault(payload.arena, Contest(payload.challenger, payload.at_ms, len(self.asked)))
        if isinstance(payload, ModelRolledBack):
            self.rolled_back = payload
        contest = self.contests.get(payload.arena)
        match payload:
            case PromotionEvaluated() if payload.holdback:
                self.holdback.append(_look(payload))
            case PromotionEvaluated() if contest is not None:
                contest.looks.append(_look(payload))
            case PromotionStaged() if contest is not None:
                contest.stages.append(payload)
            case ModelPromoted() if contest is not None:
                contest.promoted = payload
            case PromotionRejected() if contest is not None:
                contest.rejected = payload
            case _:
                pass

    def _milestone(self, payload: Payload) -> None:
        match payload:
            case TrainingOrdered():
                self.ordered.append(payload)
                self.progress = None
            case TrainingProgressed():
                self.progress = payload
            case TrainingCompleted():
                self.trained.append(payload)
            case TrainingFailed():
                self.failed = payload
            case TrustChanged():
                self.trust.append(payload)
            case PolicyFleet():
                self.fleets.append(payload)
            case PolicyGate():
                self.gates.append(payload)
            case AdapterLive():
                self.live.append(payload.arm)
            case AdapterRefused():
                self.refused[f"adapter: {payload.reason[:80]}"] += 1
            case _:
                pass

    @property
    def contest(self) -> Contest | None:
        """The arena that was opened last."""
        return next(reversed(self.contests.values()), None)

    @property
    def promoted(self) -> ModelPromoted | None:
        """The promotion, if there was one."""
        return next((row.promoted for row in self.contests.values() if row.promoted is not None), None)

    # figures

    def unanswered(self) -> list[str]:
        """Ids that have no answer yet."""
        return [key for key, asked in self.asked.items() if not asked.answers]

    def lost(self) -> int:
        """Requests without an answer, plus accepted requests without a closed case."""
        no_case = sum(
            1 for row in self.asked.values() if row.answers and "answer.refused" not in row.answers and not row.cases
        )
        return len(self.unanswered()) + no_case

    def duplicated(self) -> int:
        """Answers and cases past the first of each request, under other ids or the same."""
        extra = sum(max(0, len(row.answers) - 1) + max(0, row.cases - 1) for row in self.asked.values())
        return extra + self.repeats

    def of(self, *phases: Phase) -> list[Asked]:
        """Requests of these phases that have an answer."""
        return [row for row in self.asked.values() if row.phase in phases and row.right is not None]

    def accuracy(self, champion: str) -> dict[str, dict[str, float | int | None]]:
        """Shares of right answers on held-out messages: of `champion` before the promotion, then of whoever serves, phase by phase."""
        challenger = "" if self.promoted is None else self.promoted.challenger
        found = {
            "before": [row for row in self.of("shadow", "stages") if row.arm == champion],
            "after": self.of("after"),
            "degraded": [row for row in self.of("degraded") if row.arm == challenger],
            "back": self.of("back"),
        }
        held_out = {name: [row for row in rows if row.held_out] for name, rows in found.items()}
        return {
            name: _shares(rows) | {"messages": len(rows)}
            for name, rows in held_out.items()
            if rows or name in ("before", "after")
        }

    def last_answered(self) -> str:
        """The request id of the newest request that has its answer."""
        return next(request for request, row in reversed(self.asked.items()) if row.answers)

    def phase_table(self) -> dict[Phase, dict[str, float | int | None]]:
        """Per phase that there was: requests, accuracy on known and new intents, latency."""
        table: dict[Phase, dict[str, float | int | None]] = {}
        asked: Counter[Phase] = Counter(row.phase for row in self.asked.values())
        phases: tuple[Phase, ...] = PHASES
        for phase in phases:
            if not asked[phase]:
                continue
            rows = self.of(phase)
            latencies = sorted(row.latency_ms for row in rows if row.latency_ms)
            table[phase] = {
                "requests": asked[phase],
                **_shares(rows),
                "p50_ms": round(statistics.median(latencies), 1) if latencies else None,
                "p95_ms": round(latencies[int(0.95 * (len(latencies) - 1))], 1) if latencies else None,
            }
        return table

    def rolling(self, window: int = ROLLING) -> list[tuple[int, float]]:
        """(time, share right) over the last `window` answers, in order of answering."""
        rows = sorted((row for row in self.asked.values() if row.right is not None), key=lambda row: row.answered_ms)
        points: list[tuple[int, float]] = []
        right = 0
        for index, row in enumerate(rows):
            right += bool(row.right)
            if index >= window:
                right -= bool(rows[index - window].right)
            if index >= window - 1:
                points.append((row.answered_ms, right / window))
        return points
