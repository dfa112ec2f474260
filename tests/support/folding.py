"""Folds events into a Fold the way the runtime does, without a broker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from schemas import codec, ids
from schemas.payload import Payload
from streams.shapes import Change, DeadLetter, Emit, Event, KeyState, Place, Record, Tick, Unchanged


@dataclass
class Cell:
    record: BaseModel | None = None
    entries: dict[str, Any] = field(default_factory=dict)
    due_ms: int | None = None


class Folding:
    """State by key; `take` folds one event, `tick` folds what is due. Every state survives a JSON round trip."""

    def __init__(self, fold: Any) -> None:
        self.fold = fold
        self.cells: dict[str, Cell] = {}
        self.emitted: list[Payload] = []
        self.ids: list[str] = []
        self.letters: list[DeadLetter] = []
        self._offset = 0

    @property
    def offset(self) -> int:
        """Where the newest event lies."""
        return self._offset

    def event(self, payload: Payload, event_id: str | None = None) -> Event[Payload]:
        self._offset += 1
        event_id = event_id or ids.derive(f"test-{self._offset}", "test", 0)
        row = codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))
        place = Place("ratchet." + payload.TOPIC, 0, self._offset)
        record = Record(place.topic, 0, place.offset, row.key, row.value, row.headers, payload.at_ms)
        return Event(event_id, row.key.decode(), payload, "test", ids.trace_parent(None, event_id), place, record)

    def take(self, payload: Payload, event_id: str | None = None) -> list[Payload]:
        event = self.event(payload, event_id)
        key = self.fold.state_key(event)
        return [] if key is None else self._fold(key, event)

    def tick(self, at_ms: int) -> list[Payload]:
        out: list[Payload] = []
        due = sorted((c.due_ms, k) for k, c in self.cells.items() if c.due_ms is not None and c.due_ms <= at_ms)
        for _, key in due:
            tick_id = ids.derive(f"tick-{at_ms}", self.fold.name, key)
            self.cells[key].due_ms = None
            out += self._fold(key, Tick(at_ms, tick_id, ids.trace_parent(None, tick_id)))
        return out

    def _fold(self, key: str, event: Event[Payload] | Tick) -> list[Payload]:
        cell = self.cells.get(key, Cell())
        change: Change[Any, Any] = self.fold.fold(KeyState(key, cell.record, dict(cell.entries), cell.due_ms), event)
        if change.forget:
            self.cells.pop(key, None)
        else:
            if not isinstance(change.record, Unchanged) and change.record is not None:
                cell.record = self.fold.record_type.model_validate_json(change.record.model_dump_json())
            for name, entry in change.put.items():
                cell.entries[name] = self.fold.entry_type.model_validate_json(entry.model_dump_json())
            for name in change.drop:
                cell.entries.pop(name, None)
            if not isinstance(change.due_ms, Unchanged):
                cell.due_ms = change.due_ms
            if cell.record is not None or cell.entries:
                self.cells[key] = cell
        return self._out(change.emits, event.id)

    def _out(self, emits: Sequence[Emit | DeadLetter], cause: str) -> list[Payload]:
        out: list[Payload] = []
        for index, emit in enumerate(emits):
            if isinstance(emit, DeadLetter):
                self.letters.append(emit)
            else:
                out.append(emit.payload)
                self.ids.append(ids.derive(cause, self.fold.name, emit.identity or index))
        self.emitted += out
        return out

    def of(self, kind: type[Payload]) -> list[Any]:
        """Every emitted payload of exactly that class."""
        return [payload for payload in self.emitted if type(payload) is kind]
