"""Cases with a trust beside them that says at once what became of each answer that it was to release."""

from collections.abc import Callable

from folding import Folding

from agents.cases.fold import Cases
from schemas.events import AnswerReleased, AnswerWithheld, ReviewSettled
from schemas.payload import Payload
from streams.shapes import Event, Tick

Answer = AnswerReleased | AnswerWithheld


def lets_out(told: ReviewSettled) -> Answer:
    """The answer as it was settled."""
    said = {"text": told.text, "arm": told.arm, "certified": False, "reviewed": True, "latency_ms": 1.0}
    return AnswerReleased.model_validate(_about(told) | said)


def gates(told: ReviewSettled) -> Answer:
    """The gate has withheld it."""
    return AnswerWithheld.model_validate(_about(told) | {"reason": "gate"})


def _about(told: ReviewSettled) -> dict[str, object]:
    names = ("tenant", "at_ms", "route", "request_id", "request_partition", "request_offset", "decision_id")
    return {name: getattr(told, name) for name in names}


class Casing(Folding):
    """`says` None: trust is away."""

    def __init__(self, says: Callable[[ReviewSettled], Answer] | None = lets_out) -> None:
        super().__init__(Cases())
        self.says = says

    def _fold(self, key: str, event: Event[Payload] | Tick) -> list[Payload]:
        out = super()._fold(key, event)
        for told in list(out):
            if self.says is not None and isinstance(told, ReviewSettled) and told.outcome == "released":
                out += self.take(self.says(told))
        return out
