"""Routes, cases and commands for the ladder's tests; every coin is a hash, so the same seed makes the same customers."""

import math
from collections.abc import Iterator
from typing import Any

from folding import Folding

from agents.trust.fold import Ladder
from agents.trust.state import SPAN_MS, Part, RouteTrust, Standing
from schemas import ids
from schemas.events import CaseArm, CaseClosed, CommandApply, CommandTrust, Message, ModelPromoted, ModelRolledBack
from schemas.payload import Payload
from schemas.policies import PolicyTrust
from schemas.routes import Arm, Route

NOW = 1_700_000_000_000
QUICK = {"risk": 0.2, "delta": 0.2, "min_scores": 20}  # certified after some 20 labels without a reject


def route(**changes: Any) -> Route:
    arms = (Arm(arm="a", base="sha256:0"), Arm(arm="b", base="sha256:1"))
    return Route.model_validate({"route": "bank", "arms": arms, "champion": "a", "compliance": "off"} | changes)


def apply(**changes: Any) -> CommandApply:
    return CommandApply(at_ms=NOW, route="bank", operator="op", settings=route(**changes))


def said(action: str, **more: Any) -> CommandTrust:
    return CommandTrust.model_validate({"at_ms": NOW, "route": "bank", "operator": "op", "action": action} | more)


def promoted() -> ModelPromoted:
    told = {"at_ms": NOW, "route": "bank", "arena": "x", "fleet_version": 2, "champion": "a", "challenger": "b"}
    return ModelPromoted.model_validate(told | {"pairs": 1, "log_e": 5.0, "evaluation": "e"})


def rolled_back() -> ModelRolledBack:
    told = {"at_ms": NOW, "route": "bank", "arena": "x", "fleet_version": 2, "champion": "a", "challenger": "b"}
    return ModelRolledBack.model_validate(told | {"reason": "r", "by": "op"})


def signals(mean: float = 0.0) -> tuple[float, ...]:
    """Of an answer with that mean log-probability, without a second arm."""
    return (mean, 2 * mean, 1.5, 1.0, 0.0, 0.0)


def case(number: int | str, told: tuple[float, ...], right: bool | None, **changes: Any) -> CaseClosed:
    """A closed case that was drawn for review; `right` None: nobody judged it."""
    grade = None if right is None else 1000 if right else 0
    arm = CaseArm(arm="a", shadow=False, status="completed", grade=grade)
    fields: dict[str, Any] = {
        "at_ms": NOW + 1, "route": "bank", "request_id": f"r{number}", "request_partition": 0, "request_offset": 1,
        "decision_id": "d", "assigned_at_ms": NOW, "window_end_ms": NOW, "arm": "a", "why": "complete",
        "messages": (Message(role="user", content="x"),), "arms": (arm,), "choices": (), "grader": "verdict",
        "verdict_kind": "" if right is None else "person", "verdict_after_score": right is not None,
        "verdict_by": "ann", "signals": told, "sampled": True, "label_propensity": 1.0,
    }  # fmt: skip
    return CaseClosed.model_validate(fields | changes)


def customers(count: int, seed: int = 3) -> Iterator[tuple[tuple[float, ...], bool, float]]:
    """Answers whose chance to be right follows their likelihood."""
    for number in range(count):
        even = [(ids.coin(f"{seed}/{number}", label) + 0.5) / 65_536 for label in ("mean", "min", "tokens", "right")]
        mean = math.log(even[0]) / 2.0
        told = (mean, 2 * mean - even[1], math.log1p(1 + int(8 * even[2])), 1.0, 0.0, 0.0)
        chance = 1 / (1 + math.exp(-(1.0 + 4.0 * (mean + 0.5))))
        yield told, even[3] < chance, chance


class Trusted(Folding):
    """The ladder of one route; every state survives a JSON round trip."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(Ladder())
        self.given = 0
        self.passed_ms = 0
        self.take(apply(**changes))

    def take(self, payload: Payload, event_id: str | None = None) -> list[Payload]:
        """A case is assigned after the one before, and event time goes on until it has its turn."""
        if type(payload) is not CaseClosed:
            return super().take(payload, event_id)
        self.passed_ms += SPAN_MS
        at = {"assigned_at_ms": NOW + self.passed_ms, "window_end_ms": NOW + self.passed_ms}
        found = super().take(payload.model_copy(update=at), event_id)
        return found + self.tick(NOW + self.passed_ms + SPAN_MS + 2_000)

    def label(self, count: int = 1, *, right: bool | None = True, mean: float | None = None, **changes: Any) -> None:
        """So many more cases; scores spread evenly unless a mean is given."""
        for _ in range(count):
            self.given += 1
            spread = -(self.given * 7 % 20) / 100 if mean is None else mean
            self.take(case(self.given, signals(spread), right, **changes))

    def certify(self, **changes: Any) -> None:
        """Label until every rung is certified."""
        for _ in range(40):
            if self.standing.running.covers() == 100:
                return
            self.label(10, **changes)
        raise AssertionError("never certified")

    @property
    def record(self) -> RouteTrust:
        record = self.cells["bank"].record
        assert isinstance(record, RouteTrust)
        return record

    @property
    def standing(self) -> Standing:
        entries: dict[str, Part] = dict(self.cells["bank"].entries)
        return Standing("bank", self.record, entries)

    @property
    def policy(self) -> PolicyTrust:
        return self.of(PolicyTrust)[-1]
