"""Trust again from the log, with whatever keys are at hand: what only a key gives that is not is taken as recorded, all else derived.

That is the binding of a mark, and of a text the values in the places of its placeholders. What stands around them is compared. Which
of several keys marked is taken as recorded too: it hangs on when a process had learned of a newer one.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, cast

from agents.rules import ai_mark
from agents.rules.ai_mark import key_of
from agents.rules.masking import MaskMap, literals
from agents.trust.actor import Trust
from agents.trust.release import NOT_OPENED, UNOPENED
from schemas.errors import Refused
from schemas.events import AiMark, AnswerReleased, ResultCompleted, ReviewSettled
from schemas.gate import FIRST_KEY, KEY_GONE
from schemas.payload import Payload
from streams.shapes import Emit, Event, Out, Record

BOUND = "marks of answers, which only the tenant's key binds: taken as recorded"
PUT_BACK = "answers with values put back, which only the tenant's key opens: those taken as recorded"


class Held(Protocol):
    """The keys at hand."""

    @property
    def retired(self) -> Collection[int]: ...
    def __contains__(self, key_id: object) -> bool: ...
    def key_at(self, at_ms: int) -> int: ...
    def mark_key(self, tenant: str, key_id: int) -> bytes: ...
    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes: ...


class RecalledKeys:
    """The keys at hand; in the place of one that is away a map opens to nothing, or not at all where the recorded answer says so.

    `map_key`: the id of the key that a sealed map names.
    """

    def __init__(self, held: Held | None, map_key: Callable[[str], int]) -> None:
        self._held = held
        self._map_key = map_key
        self.marked_by: int | None = None  # by the recorded mark
        self.unopened: str | None = None  # what the recorded answer says of a map that did not open

    def away(self, key_id: int) -> bool:
        """Whether a key was retired, or none is at hand. One that is unknown beside others was never there."""
        return self._held is None or key_id in self._held.retired

    def shut(self, sealed: str) -> bool:
        """Whether the key of a map is away."""
        return self.away(self._map_key(sealed))

    def key_at(self, at_ms: int) -> int:
        by = self.marked_by
        if self._held is None or (by is not None and (by in self._held or self.away(by))):
            return by or FIRST_KEY
        return self._held.key_at(at_ms)

    def mark_key(self, tenant: str, key_id: int) -> bytes:
        return bytes(32) if self._held is None or self.away(key_id) else self._held.mark_key(tenant, key_id)

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        if self._held is not None and not self.shut(sealed):
            return self._held.open_map(tenant, request_id, sealed)
        if self.unopened is not None:
            raise Refused(self.unopened, kind=KEY_GONE)
        return MaskMap().encode()


class AsRecorded:
    """Transform `trust` with what keys there are."""

    def __init__(self, trust: Trust, keys: RecalledKeys, notes: Counter[str]) -> None:
        self.name = trust.name
        self.inputs = trust.inputs
        self._trust = trust
        self._keys = keys
        self._notes = notes
        self._answer: Mapping[str, Any] = {}

    def recall(self, told: Sequence[Mapping[str, Any]]) -> None:
        """What is recorded of the next event."""
        self._answer = next((said for said in told if "gate" in said), dict[str, Any]())
        binding, why = self._part("mark").get("binding"), self._answer.get("detail")
        self._keys.marked_by = _key_named(binding) if isinstance(binding, str) else None
        unopened = UNOPENED in (self._part("gate").get("rules") or ())
        self._keys.unopened = str(why or "").removeprefix(NOT_OPENED).strip() if unopened else None

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
        sealed = cause.mask_map if isinstance(cause, ResultCompleted | ReviewSettled) else ""
        shut = sealed != "" and self._keys.shut(sealed)
        if shut and isinstance(text, str) and _fits(literals(answer.text), text):
            self._notes[PUT_BACK] += 1
            answer = answer.model_copy(update={"text": text, "mark": self._marked(mark, answer.tenant, text)})
        if isinstance(binding, str) and self._keys.away(key_of(mark.binding)):
            self._notes[BOUND] += 1
            answer = answer.model_copy(update={"mark": AiMark(statement=mark.statement, binding=binding)})
        return Emit(answer, out.identity)

    def _marked(self, mark: AiMark, tenant: str, text: str) -> AiMark:
        """The mark of this text in the place of another's."""
        key_id = key_of(mark.binding)
        origins = ai_mark.origins_of(ai_mark.Mark(mark.statement, mark.binding))
        made = ai_mark.mark(origins, text, self._keys.mark_key(tenant, key_id), key_id)
        return AiMark(statement=made.statement, binding=made.binding)


def _key_named(binding: str) -> int | None:
    try:
        return key_of(binding)
    except ValueError:
        return None  # damaged: the difference will show


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
