"""The state of a Fold's lane: the port that a lane needs, and the one store that there is, in memory.

Changelog `<agent>.state`, one partition per lane:
* key `K`: the record as JSON (`null` when only entries or a due time are known), header `due` when a tick is due
* key `K\\0E`: entry E of K as JSON
* key `~position`: where the lane stands (`streams.order.Position`), in every transaction
* key `~snapshot`: `{"at": ms, "digest": …}`, the last daily snapshot; `at` alone when the lane first opened
A tombstone deletes. Header `version` says by which version of the state a row was written, none is version 1. All rows of a key are
of one version: a key that was migrated is written whole with its first change.
"""

import heapq
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from pydantic import BaseModel

from schemas.errors import Refused
from streams.order import Position
from streams.port import Outgoing
from streams.shapes import AnyFold, Change, Headers, KeyState, Migrating, RawState, Record, Unchanged

DUE, VERSION = "due", "version"
YIELD_EVERY = 500


class StateStore(Protocol):
    """What a lane keeps of its keys. Synchronous: a Fold waits for nothing. One owner, dropped with its lane."""

    def load(self, row: Record) -> None:
        """One changelog row but those under `~`, newest wins."""
        ...

    def settle(self) -> Iterator[None]:
        """After the last `load`: migrate what is older. Yields now and then, so that the loop is not held up."""
        ...

    def view(self, key: str) -> KeyState[Any, Any]:
        """What the Fold may see of a key, good until the next `apply`."""
        ...

    def apply(self, key: str, change: Change[Any, Any]) -> None: ...
    def next_due_ms(self) -> int | None:
        """The earliest due time of any key."""
        ...

    def due(self, at_ms: int) -> list[tuple[int, str]]:
        """Keys whose time has come, by (time, key), each once."""
        ...

    def keep_due(self, key: str, due_ms: int) -> None:
        """After its tick: a key whose time was left alone comes again with the next tick."""
        ...

    def changes(self) -> list[Outgoing]:
        """The changelog rows of what changed since the last call."""
        ...

    def rows(self) -> Iterator[Outgoing]:
        """The whole state as changelog rows, sorted by key. Nothing may be applied meanwhile."""
        ...

    def __len__(self) -> int:
        """How many keys there are."""
        ...


def state_version(fold: AnyFold) -> int:
    """The version of a Fold's state; 1 where it says none."""
    return int(getattr(fold, "state_version", 1))


def torn(position: Position, committed: Mapping[str, int], starts: Mapping[str, int]) -> list[str]:
    """In what a changelog's `~position` and a group's offsets cannot be of one transaction; nothing where they can.

    `starts`: where the inputs begin that the position does not name. Of those nothing was folded, so their offset must be the start that
    the group was given; retention only moves a start on. An offset behind it means state that is not there.
    """
    known = position.following
    wrong = [f"{t}: state at {at}, offset {committed[t]}" for t, at in known.items() if committed.get(t, at) != at]
    lost = [t for t, at in committed.items() if t not in known and at > starts.get(t, at)]
    return wrong + [f"{t}: no state, offset {committed[t]}, the log begins at {starts[t]}" for t in lost]


class Cell:
    """What is known of one key. After a restore the JSON is kept as it came and read at first use."""

    __slots__ = ("due_ms", "entries", "raw_entries", "raw_record", "record")

    def __init__(self) -> None:
        self.record: BaseModel | None = None
        self.entries: dict[str, BaseModel] = {}
        self.due_ms: int | None = None
        self.raw_record: bytes | None = None
        self.raw_entries: dict[str, bytes] = {}

    def read(self, record_type: type[BaseModel], entry_type: type[BaseModel]) -> None:
        """Turn raw JSON into models."""
        if self.raw_record is not None:
            if self.raw_record != b"null":
                self.record = record_type.__pydantic_validator__.validate_json(self.raw_record)
            self.raw_record = None
        if self.raw_entries:
            for name, raw in self.raw_entries.items():
                self.entries[name] = entry_type.__pydantic_validator__.validate_json(raw)
            self.raw_entries = {}


def _json(model: BaseModel) -> bytes:
    return model.__pydantic_serializer__.to_json(model)


def split_key(key: bytes) -> tuple[str, str | None]:
    """State key and entry name of a changelog key."""
    name, zero, entry = key.partition(b"\0")
    return name.decode(), entry.decode() if zero else None


class MemoryState:
    """All keys in memory: cells, the heap of due keys, and what the open transaction has changed."""

    def __init__(self, fold: AnyFold) -> None:
        self.fold = fold
        self.version = state_version(fold)
        self.cells: dict[str, Cell] = {}
        self.heap: list[tuple[int, str]] = []
        self.dirty: dict[bytes, BaseModel | Cell | None] = {}
        self._older: dict[str, int] = {}  # keys whose rows are of an older version, while loading
        self._stale: dict[str, set[bytes]] = {}  # migrated keys not written since: their rows in the changelog
        self._mark: Headers = () if self.version == 1 else ((VERSION, str(self.version).encode()),)

    def __len__(self) -> int:
        return len(self.cells)

    def load(self, row: Record) -> None:
        name, entry = split_key(row.key or b"")
        due_ms, version = None, 1
        for header, said in row.headers:
            if header == DUE:
                due_ms = int(said)
            elif header == VERSION:
                version = int(said)
        value, cell = row.value, self.cells.get(name)
        if cell is None:
            if value is None:
                return
            cell = self.cells[name] = Cell()
        if entry is None:
            cell.raw_record, cell.due_ms = value, due_ms
        elif value is None:
            cell.raw_entries.pop(entry, None)
        else:
            cell.raw_entries[entry] = value
        if version != self.version and value is not None:
            self._older[name] = version
        elif self._older and value is not None:
            self._older.pop(name, None)
        if cell.raw_record is None and not cell.raw_entries:
            del self.cells[name]
            self._older.pop(name, None)

    def settle(self) -> Iterator[None]:
        for count, name in enumerate(sorted(self._older)):
            self._migrate(name, self._older[name])
            if count % YIELD_EVERY == YIELD_EVERY - 1:
                yield
        self._older = {}
        self.heap = [(cell.due_ms, name) for name, cell in self.cells.items() if cell.due_ms is not None]
        heapq.heapify(self.heap)

    def _migrate(self, name: str, version: int) -> None:
        if not isinstance(self.fold, Migrating):
            raise Refused(
                f"{self.fold.name}: state of version {version} cannot be read, its code says no `migrate`",
                kind="state-version",
            )
        cell, key = self.cells[name], name.encode()
        self._stale[name] = {key} | {key + b"\0" + entry.encode() for entry in cell.raw_entries}
        record = None if cell.raw_record is None else json.loads(cell.raw_record)
        entries = {entry: json.loads(cell.raw_entries[entry]) for entry in sorted(cell.raw_entries)}
        new = self.fold.migrate(version, RawState(name, record, entries, cell.due_ms))
        if new.record is None and not new.entries:
            del self.cells[name]
            self.dirty |= dict.fromkeys(sorted(self._stale.pop(name)))
            return
        cell.raw_record, cell.due_ms = json.dumps(new.record).encode(), new.due_ms
        cell.raw_entries = {entry: json.dumps(value).encode() for entry, value in new.entries.items()}

    def rows(self) -> Iterator[Outgoing]:
        for name in sorted(self.cells):
            cell, key = self.cells[name], name.encode()
            raw = cell.raw_record or (b"null" if cell.record is None else _json(cell.record))
            yield Outgoing(key, raw, self._headers(cell))
            for entry in sorted(cell.entries.keys() | cell.raw_entries.keys()):
                known = cell.raw_entries.get(entry) or _json(cell.entries[entry])
                yield Outgoing(key + b"\0" + entry.encode(), known, self._mark)

    def _headers(self, cell: Cell) -> Headers:
        return self._mark if cell.due_ms is None else ((DUE, str(cell.due_ms).encode()), *self._mark)

    def view(self, key: str) -> KeyState[Any, Any]:
        cell = self.cells.get(key)
        if cell is None:
            return KeyState(key, None, MappingProxyType({}), None)
        if cell.raw_record is not None or cell.raw_entries:
            cell.read(self.fold.record_type, self.fold.entry_type)
        return KeyState(key, cell.record, MappingProxyType(cell.entries), cell.due_ms)

    def apply(self, key: str, change: Change[Any, Any]) -> None:
        before = len(self.dirty)
        self._apply(key, change)
        if self._stale and len(self.dirty) > before and key in self._stale:
            self._rewrite(key)

    def _rewrite(self, key: str) -> None:
        """Write a migrated key whole, and delete what its older version has left behind."""
        cell, name = self.cells.get(key), key.encode()
        for row in sorted(self._stale.pop(key)):
            self.dirty.setdefault(row, None)
        if cell is not None:
            self.dirty[name] = cell
            self.dirty |= {name + b"\0" + entry.encode(): model for entry, model in cell.entries.items()}

    def _apply(self, key: str, change: Change[Any, Any]) -> None:
        name = key.encode()
        cell = self.cells.get(key)
        if change.forget:
            if cell is not None:
                for entry in cell.entries:
                    self.dirty[name + b"\0" + entry.encode()] = None
                del self.cells[key]
                self.dirty[name] = None
            return
        record, due = change.record, change.due_ms
        same_record, same_due = isinstance(record, Unchanged), isinstance(due, Unchanged)
        if same_record and same_due and not change.put and not change.drop:
            return
        if cell is None:
            cell = self.cells[key] = Cell()
            self.dirty[name] = cell
        if not isinstance(record, Unchanged):
            cell.record = record
            self.dirty[name] = cell
        if not isinstance(due, Unchanged) and due != cell.due_ms:
            cell.due_ms = due
            self.dirty[name] = cell
            if due is not None:
                heapq.heappush(self.heap, (due, key))
        for entry, model in change.put.items():
            cell.entries[entry] = model
            self.dirty[name + b"\0" + entry.encode()] = model
        for entry in change.drop:
            if cell.entries.pop(entry, None) is not None:
                self.dirty[name + b"\0" + entry.encode()] = None

    def next_due_ms(self) -> int | None:
        heap = self.heap
        while heap:
            due_ms, key = heap[0]
            cell = self.cells.get(key)
            if cell is not None and cell.due_ms == due_ms:
                return due_ms
            heapq.heappop(heap)
        return None

    def due(self, at_ms: int) -> list[tuple[int, str]]:
        found: dict[str, int] = {}
        while self.heap and self.heap[0][0] <= at_ms:
            due_ms, key = heapq.heappop(self.heap)
            cell = self.cells.get(key)
            if cell is not None and cell.due_ms == due_ms:
                found[key] = due_ms
        return sorted((due_ms, key) for key, due_ms in found.items())

    def keep_due(self, key: str, due_ms: int) -> None:
        cell = self.cells.get(key)
        if cell is not None and cell.due_ms == due_ms:
            heapq.heappush(self.heap, (due_ms, key))

    def changes(self) -> list[Outgoing]:
        dirty, self.dirty = self.dirty, {}
        rows: list[Outgoing] = []
        for key, thing in dirty.items():
            if thing is None:
                rows.append(Outgoing(key, None))
            elif isinstance(thing, Cell):
                value = b"null" if thing.record is None else _json(thing.record)
                rows.append(Outgoing(key, value, self._headers(thing)))
            else:
                rows.append(Outgoing(key, _json(thing), self._mark))
        return rows
