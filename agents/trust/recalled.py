"""Trust again from the log, by whoever has not its keys: what only a key gives is taken as recorded, all else is derived.

That is the binding of a mark, and of a text the values in the places of its placeholders. What stands around them is compared.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agents.rules.masking import MaskMap, literals
from agents.trust.actor import Trust
from agents.trust.release import UNOPENED
from schemas.errors import Refused
from schemas.events import AiMark, AnswerReleased, ResultCompleted, ReviewSettled
from schemas.payload import Payload
from streams.shapes import Emit, Event, Out, Record

BOUND = "marks of answers, which only the tenant's key binds: taken as recorded"
PUT_BACK = "answers with values put back, which only the tenant's key opens: those taken as recorded"


class NoKeys:
    """Opens a map to nothing, or not at all where the recorded answer says so."""

    def __init__(self) -> None:
        self.opens = True

    def mark_key(self, tenant: str) -> bytes:
        return bytes(32)

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        if not self.opens:
            raise Refused("it did not open", kind="sealed")
        return MaskMap().encode()


class AsRecorded:
    """Transform `trust` without its keys."""

    def __init__(self, trust: Trust, keys: NoKeys, notes: Counter[str]) -> None:
        self.name = trust.name
        self.inputs = trust.inputs
        self._trust = trust
        self._keys = keys
        self._notes = notes
        self._answer: Mapping[str, Any] = {}

    def recall(self, told: Sequence[Mapping[str, Any]]) -> None:
        """What is recorded of the next event."""
        self._answer = next((said for said in told if "gate" in said), dict[str, Any]())
        self._keys.opens = UNOPENED not in (self._part("gate").get("rules") or ())

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        return [self._taken(out, event.data) for out in await self._trust(event)]

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return self._trust.refused(record, error)

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return self._trust.deadline_ms(event)

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return self._trust.expired(event, error)

    def _part(self, name: str) -> Mapping[str, Any]:
        """An object inside the recorded answer; empty where there is none."""
        found: object = self._answer.get(name)
        return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}

    def _taken(self, out: Out, cause: Payload) -> Out:
        if not isinstance(out, Emit) or not isinstance(out.payload, AnswerReleased) or out.payload.mark is None:
            return out
        answer, mark = out.payload, out.payload.mark
        text, binding = self._answer.get("text"), self._part("mark").get("binding")
        masked = isinstance(cause, ResultCompleted | ReviewSettled) and cause.mask_map != ""
        if masked and isinstance(text, str) and _fits(literals(answer.text), text):
            self._notes[PUT_BACK] += 1
            answer = answer.model_copy(update={"text": text})
        if isinstance(binding, str):
            self._notes[BOUND] += 1
            answer = answer.model_copy(update={"mark": AiMark(statement=mark.statement, binding=binding)})
        return Emit(answer, out.identity)


def _fits(parts: Sequence[str], text: str) -> bool:
    """Whether a text has these parts in their order, the first at its beginning and the last at its end."""
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return text.startswith(first) and text.endswith(last) and at <= len(text) - len(last)
