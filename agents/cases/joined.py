"""A case while it is joined: its record, its parts, and what is known of them. Pure; the rules are the fold's.

A request is decided once, or twice where trust escalated the first answer. The entries of the second attempt begin with `second/`.
"""

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from agents.rules.grading import heads
from schemas.events import DecisionRouted, ResultCompleted, ResultFailed, ScoreAssigned, VerdictGiven, Withheld
from schemas.payload import Payload
from streams.shapes import DeadLetter, Emit, Held, Out


class CaseRecord(BaseModel):
    """How far a case has come.

    `settled`: what trust was told to do with an answer that it held; `told`: it has said what became of it; `withheld`: why it was, if it
    was. `untold_until_ms`: until when that is waited for, once the window is over.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    first_ms: int
    route: str
    answered: bool = False
    review: bool = False
    settled: Literal["", "released", "withheld"] = ""
    told: bool = False
    withheld: Withheld = ""
    untold_until_ms: int | None = None
    closed_id: str = ""
    verdicts: int = 0


class CasePart(BaseModel):
    """One event of a case, under its own entry so that only new parts are written.

    `result_id`: the id of the result's event, or the verdict's. `held`: the verdict's untouched record.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

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
SECOND = "second/"


def place_of(name: str, attempt: int) -> str:
    """The entry of an attempt's decision, score or result."""
    return f"{SECOND}{name}" if attempt > 1 else name


def part_of(result: Result) -> str:
    """The entry of a result: a fallback may be the arm that also answers in the shadow, and an arm may answer in both attempts."""
    return f"shadow/{result.arm}" if result.shadow else place_of(f"result/{result.arm}", result.attempt)


def human_sampled(decision: DecisionRouted) -> bool:
    """Whether a person judges beside the model: by a coin that looks at nothing but the request's id."""
    return heads(decision.request_id, "human", decision.human_share)


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
        """The first decision: its window, grader, shadows and propensities are the case's."""
        return self.decision_of(1)

    @property
    def attempt(self) -> int:
        """The last attempt that anything is known of, 1 or 2."""
        return 2 if any(name.startswith(SECOND) for name in self.parts) else 1

    def decision_of(self, attempt: int) -> DecisionRouted | None:
        part = self.parts.get(place_of("decision", attempt))
        return None if part is None else part.decision

    def map_of(self, attempt: int) -> str:
        """What the placeholders stand for in an attempt's messages and answers, shadows' too: sealed."""
        decision = self.decision_of(attempt)
        return "" if decision is None else decision.mask_map

    def score_of(self, attempt: int) -> ScoreAssigned | None:
        part = self.parts.get(place_of("score", attempt))
        return None if part is None else part.score

    def score(self) -> ScoreAssigned | None:
        """Of the last attempt's answer."""
        return self.score_of(self.attempt)

    def scored(self) -> bool:
        """Whether the last attempt is scored, none is under way, and all is in that leads to it."""
        score = self.score()
        if score is None or score.action == "escalate":
            return False
        known = {place_of("decision", 2), "score"} <= self.parts.keys() and self.served(1) is not None
        return known or self.attempt == 1

    def _results(self) -> list[tuple[Result, str]]:
        """Every result with its event's id: the shadows', then the first attempt's, then the second's."""
        rows = [self.parts[name] for name in sorted(self.parts)]
        found = [(row.completed or row.failed, row.result_id) for row in rows]
        whole = [(result, result_id) for result, result_id in found if result is not None]
        return sorted(whole, key=lambda row: (not row[0].shadow, row[0].attempt))

    def finals(self) -> dict[str, tuple[Result, str]]:
        """Arm -> its final result and that event's id: the last one that it served, else its shadow.

        A first answer that was kept stands as its arm gave it, with what it took and cost.
        """
        found: dict[str, tuple[Result, str]] = {}
        for result, result_id in self._results():
            kept = isinstance(result, ResultCompleted) and result.source == "kept" and result.arm in found
            if result.final and not kept:
                found[result.arm] = (result, result_id)
        return found

    def tried(self) -> dict[str, tuple[Result, str]]:
        """As `finals`, with the arms that failed before the chain went on to the next. An arm that was let go has failed nothing."""
        found = {
            result.arm: (result, result_id)
            for result, result_id in self._results()
            if not (isinstance(result, ResultFailed) and result.kind == "hedge_lost")
        }
        return found | self.finals()

    def served(self, attempt: int) -> tuple[Result, str] | None:
        """The result that ended an attempt's serving chain."""
        rows = (row for row in self._results() if row[0].final and not row[0].shadow)
        return next((row for row in rows if (row[0].attempt > 1) == (attempt > 1)), None)

    def serving(self) -> tuple[Result, str] | None:
        """The result that ended the last attempt's chain."""
        return self.served(self.attempt)

    def standing_in(self) -> tuple[ResultCompleted, str] | None:
        """The first attempt's answer where the second failed: it was only to be bettered."""
        first, last = self.served(1), self.serving()
        if self.attempt == 1 or first is None or last is None or not isinstance(last[0], ResultFailed):
            return None
        return (first[0], first[1]) if isinstance(first[0], ResultCompleted) else None

    def shadows(self) -> tuple[str, ...]:
        """The shadow arms of every decision."""
        found = (self.decision_of(attempt) for attempt in (1, 2))
        return tuple(dict.fromkeys(arm for decision in found if decision is not None for arm in decision.shadows))

    def results_in(self) -> bool:
        finals = self.finals()
        return self.serving() is not None and all(arm in finals for arm in self.shadows())

    def arms_done(self) -> bool:
        """Whether every answer is known that this case will have: only then are its letters."""
        return self.scored() and self.results_in()

    def texts(self) -> dict[str, str]:
        """Arm -> text of every arm that answered."""
        return {arm: row.text for arm, (row, _) in self.finals().items() if isinstance(row, ResultCompleted)}

    def paid(self) -> int | None:
        """What the answer cost in nano-USD, both attempts, as far as it is known; a cached or kept one costs nothing more."""
        made = [row for row, _ in self._results() if isinstance(row, ResultCompleted) and not row.shadow]
        own = [row for row in made if row.source == "model"]
        known = [row.cost_nano_usd for row in own if row.cost_nano_usd is not None]
        return sum(known) if known or (made and not own) else None

    def lost(self) -> tuple[str, ...]:
        """The arms that were asked and failed before the one that ended the last chain, in the order in which they were asked."""
        serving, found = self.serving(), list[str]()
        last = "" if serving is None else part_of(serving[0])
        for attempt in (1, 2):
            decision = self.decision_of(attempt)
            for arm in () if decision is None else (decision.arm, *decision.chain):
                name = place_of(f"result/{arm}", attempt)
                part = self.parts.get(name)
                if name != last and part is not None and part.failed is not None:
                    found.append(arm)
        return tuple(dict.fromkeys(found))

    def asks_people(self, decision: DecisionRouted, score: ScoreAssigned) -> bool:
        """Whether a person is asked beside a judge model: by the coin, or because the answer waits for one."""
        return human_sampled(decision) or (self.reviewed(score) and score.action == "hold")

    def reviewed(self, score: ScoreAssigned) -> bool:
        """Whether people are asked: trust says so, and of a first answer that waits for them since the second attempt failed."""
        in_time = score.at_ms <= score.window_end_ms
        return score.review or (score.gated and in_time and self.standing_in() is not None)

    def untold(self) -> bool:
        """Whether trust was told to release an answer and has not said yet what became of it: the gate may withhold it."""
        return self.record.settled == "released" and not self.record.told

    def over(self) -> bool:
        """Whether the window's end has settled what this case joins; it may still wait for its answer."""
        return self.record.closed_id != "" or self.record.untold_until_ms is not None

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
