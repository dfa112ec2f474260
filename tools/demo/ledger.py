"""What the demonstration has sent and seen: plain facts by request id, and the figures made from them.

It knows only what any outsider can read from the topics. Lost and duplicated are counted here, from the log itself.
"""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from schemas.events import (
    AdapterLive,
    AdapterRefused,
    AnswerRefused,
    AnswerReleased,
    AnswerWithheld,
    CaseClosed,
    ModelPromoted,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
    TrainingCompleted,
    TrainingFailed,
    TrainingOrdered,
    TrainingProgressed,
)
from schemas.payload import Payload

Phase = Literal["known", "new", "after"]


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
    """One evaluation by the judge."""

    at_ms: int
    pairs: int
    log_e: float
    needed: float
    decision: str
    champion: float | None
    challenger: float | None
    conditions: dict[str, bool]
    reason: str


def _share(rows: list[bool]) -> float | None:
    return round(sum(rows) / len(rows), 4) if rows else None


@dataclass(slots=True)
class Ledger:
    """Facts as they arrive. `take` is idempotent per event id."""

    asked: dict[str, Asked] = field(default_factory=dict[str, Asked])
    looks: list[Look] = field(default_factory=list[Look])
    seen: set[str] = field(default_factory=set[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    ordered: TrainingOrdered | None = None
    progress: TrainingProgressed | None = None
    trained: TrainingCompleted | None = None
    opened: PromotionOpened | None = None
    promoted: ModelPromoted | None = None
    rejected: PromotionRejected | None = None
    failed: TrainingFailed | None = None
    live: list[str] = field(default_factory=list[str])
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
            case PromotionEvaluated():
                self._look(payload)
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

    def _look(self, payload: PromotionEvaluated) -> None:
        quality = next((row for row in payload.processes if row.name == "quality"), None)
        self.looks.append(
            Look(
                at_ms=payload.at_ms,
                pairs=payload.pairs,
                log_e=quality.log_e if quality else 0.0,
                needed=quality.needed if quality else 0.0,
                decision=payload.decision,
                champion=payload.champion_grade,
                challenger=payload.challenger_grade,
                conditions=payload.conditions,
                reason=payload.reason,
            )
        )

    def _milestone(self, payload: Payload) -> None:
        match payload:
            case TrainingOrdered():
                self.ordered = payload
            case TrainingProgressed():
                self.progress = payload
            case TrainingCompleted():
                self.trained = payload
            case TrainingFailed():
                self.failed = payload
            case PromotionOpened():
                self.opened = payload
            case ModelPromoted():
                self.promoted = payload
            case PromotionRejected():
                self.rejected = payload
            case AdapterLive():
                self.live.append(payload.arm)
            case AdapterRefused():
                self.refused[f"adapter: {payload.reason[:80]}"] += 1
            case _:
                pass

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

    def accuracy(self, when: Literal["before", "after"]) -> dict[str, float | int | None]:
        """Share of right answers on held-out messages: of known intents, new ones, all."""
        rows = [row for row in self.asked.values() if row.held_out and row.right is not None]
        rows = [row for row in rows if (row.phase == "after") == (when == "after") and row.phase != "known"]
        return {
            "known": _share([bool(row.right) for row in rows if row.known]),
            "new": _share([bool(row.right) for row in rows if not row.known]),
            "all": _share([bool(row.right) for row in rows]),
            "messages": len(rows),
        }

    def phase_table(self) -> dict[Phase, dict[str, float | int | None]]:
        """Per phase: requests, accuracy on known and new intents, latency."""
        table: dict[Phase, dict[str, float | int | None]] = {}
        phases: tuple[Phase, ...] = ("known", "new", "after")
        for phase in phases:
            rows = [row for row in self.asked.values() if row.phase == phase and row.right is not None]
            latencies = sorted(row.latency_ms for row in rows if row.latency_ms)
            table[phase] = {
                "requests": sum(1 for row in self.asked.values() if row.phase == phase),
                "known": _share([bool(row.right) for row in rows if row.known]),
                "new": _share([bool(row.right) for row in rows if not row.known]),
                "all": _share([bool(row.right) for row in rows]),
                "p50_ms": round(statistics.median(latencies), 1) if latencies else None,
                "p95_ms": round(latencies[int(0.95 * (len(latencies) - 1))], 1) if latencies else None,
            }
        return table

    def rolling(self, window: int = 150) -> list[tuple[int, float]]:
        """(time, share right) over the last `window` answers, in order of answering."""
        rows = sorted((row for row in self.asked.values() if row.right is not None), key=lambda row: row.answered_ms)
        points: list[tuple[int, float]] = []
        right = 0
        for index, row in enumerate(rows):
            right += bool(row.right)
            if index >= window:
                right -= bool(rows[index - window].right)
            if index >= min(window, 40) - 1:
                points.append((row.answered_ms, right / min(window, index + 1)))
        return points
