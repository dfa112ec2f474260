"""A case while it is joined: its record, its parts, and what is known of them. Pure; the rules are the fold's."""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agents.rules.grading import heads
from schemas.events import DecisionRouted, ResultCompleted, ResultFailed, ScoreAssigned, VerdictGiven
from schemas.payload import Payload
from streams.shapes import DeadLetter, Emit, Held, Out


class CaseRecord(BaseModel):
    """How far a case has come."""

    model_config = ConfigDict(frozen=True)

    first_ms: int
    route: str
    answered: bool = False
    review: bool = False
    settled: Literal["", "released", "withheld"] = ""
    closed_id: str = ""
    verdicts: int = 0


class CasePart(BaseModel):
    """One event of a case, under its own entry so that only new parts are written.

    `result_id`: the id of the result's event, or the verdict's. `held`: the verdict's untouched record.
    """

    model_config = ConfigDict(frozen=True)

    decision: DecisionRouted | None = None
    completed: ResultCompleted | None = None
    failed: ResultFailed | None = None
    result_id: str = ""
    decision_id: str = ""
    score: ScoreAssigned | None = None
    verdict: VerdictGiven | None = None
    after_score: bool = False
    held: Held | None = None

    @property
    def by_model(self) -> bool:
        return self.verdict is not None and self.verdict.kind == "model"


Result = ResultCompleted | ResultFailed


def part_of(result: Result) -> str:
    """The entry of a result: a fallback may be the arm that also answers in the shadow."""
    return f"{'shadow' if result.shadow else 'result'}/{result.arm}"


def human_sampled(decision: DecisionRouted) -> bool:
    """Whether a person judges beside the model: by a coin that looks at nothing but the request's id."""
    return heads(decision.request_id, "human", decision.human_share)


def asks_people(decision: DecisionRouted, score: ScoreAssigned) -> bool:
    """Whether a person is asked beside a judge model: by that coin, or because the answer waits for one."""
    return human_sampled(decision) or (score.review and score.action == "hold")


@dataclass(slots=True)
class Joined:
    """A case while one event is folded: what is known, and what will be emitted."""

    key: str
    now_ms: int
    cause: str
    record: CaseRecord
    parts: dict[str, CasePart]
    put: dict[str, CasePart] = field(default_factory=dict[str, CasePart])
    drop: list[str] = field(default_factory=list[str])
    emits: list[Out] = field(default_factory=list[Out])

    # what is known

    @property
    def decision(self) -> DecisionRouted | None:
        part = self.parts.get("decision")
        return None if part is None else part.decision

    def score(self) -> ScoreAssigned | None:
        part = self.parts.get("score")
        return None if part is None else part.score

    def _results(self) -> list[tuple[Result, str]]:
        """Every result with its event's id, the shadows' first."""
        rows = [self.parts[name] for name in sorted(self.parts)]
        found = [(row.completed or row.failed, row.result_id) for row in rows]
        whole = [(result, result_id) for result, result_id in found if result is not None]
        return sorted(whole, key=lambda row: not row[0].shadow)

    def finals(self) -> dict[str, tuple[Result, str]]:
        """Arm -> its final result and that event's id; an arm that both served and shadowed has what it served."""
        return {result.arm: (result, result_id) for result, result_id in self._results() if result.final}

    def tried(self) -> dict[str, tuple[Result, str]]:
        """As `finals`, with the arms that failed before the chain went on to the next. An arm that was let go has failed nothing."""
        found = {
            result.arm: (result, result_id)
            for result, result_id in self._results()
            if not (isinstance(result, ResultFailed) and result.kind == "hedge_lost")
        }
        return found | self.finals()

    def serving(self, decision: DecisionRouted) -> tuple[Result, str] | None:
        """The result that ended the serving chain."""
        return next((row for row in self._results() if row[0].final and not row[0].shadow), None)

    def arms_done(self, decision: DecisionRouted) -> bool:
        finals = self.finals()
        return self.serving(decision) is not None and all(arm in finals for arm in decision.shadows)

    def texts(self) -> dict[str, str]:
        """Arm -> text of every arm that answered."""
        return {arm: row.text for arm, (row, _) in self.finals().items() if isinstance(row, ResultCompleted)}

    def verdict_parts(self) -> list[tuple[str, CasePart]]:
        return [(name, self.parts[name]) for name in sorted(self.parts) if name.startswith("verdict/")]

    def first(self, *, model: bool) -> CasePart | None:
        """The first verdict of a judge model, or the decisive one: the first of a person or a reference."""
        rows = (part for _, part in self.verdict_parts() if part.verdict is not None)
        return next((part for part in rows if part.by_model == model), None)

    # what happens

    def add(self, name: str, part: CasePart) -> None:
        self.parts[name] = part
        self.put[name] = part

    def change(self, **fields: object) -> None:
        self.record = self.record.model_copy(update=fields)

    def emit(self, payload: Payload, identity: str) -> None:
        self.emits.append(Emit(payload, identity))

    def dead(self, part: CasePart, kind: str, message: str) -> None:
        if part.held is not None:
            self.emits.append(DeadLetter(part.held.record(), kind, message))
