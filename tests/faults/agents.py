"""The two agents that every fault is tried on, and the reference that says what they must have done.

The Transform finishes out of order and must come out in order. The Fold takes two topics and ticks; its state is a count and
a hash chain per key, so that one event lost, repeated or out of turn changes everything after it.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from schemas import ids
from schemas.events import AnswerRefused, RequestSubmitted
from schemas.payload import Payload
from streams.order import TICK, Position, Run, decode_order
from streams.restore import POSITION
from streams.shapes import Change, Emit, Event, KeyState, Out, Record, Tick
from streams.state import DUE
from streams.wire import decode

TICK_AFTER_MS = 300
ENTRIES = 4


def output_type(world: str) -> type[AnswerRefused]:
    """An answer that goes to the world's own output topic."""
    return type("Answer", (AnswerRefused,), {"TOPIC": f"{world}.out", "__module__": __name__})


def _answer(
    model: type[AnswerRefused], key: str, at_ms: int, kind: str, reason: str, place: tuple[int, int] = (0, 0)
) -> Emit:
    return Emit(
        model(
            at_ms=at_ms,
            request_id=key,
            kind=kind,
            field="",
            reason=reason,
            accepted="",
            request_partition=place[0],
            request_offset=place[1],
        )
    )


class Echo:
    """A Transform: answers with the text after up to 5 ms that differ by event."""

    def __init__(self, world: str) -> None:
        self.name = world
        self.inputs: Sequence[str] = (f"ratchet.{world}.a", f"ratchet.{world}.b")
        self._model = output_type(world)

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        await asyncio.sleep(ids.coin(event.id, "work") / 65_536 * 0.005)
        return [self.answer(event)]

    def answer(self, event: Event[Payload]) -> Emit:
        """What an event must be answered with."""
        if not isinstance(event.data, RequestSubmitted):
            raise TypeError(type(event.data))
        place = (event.place.partition, event.place.offset)
        return _answer(self._model, event.key, event.data.at_ms, "echo", event.data.messages[0].content, place)

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        raise AssertionError("nothing expires here")


class Link(BaseModel):
    """A key's events so far, its ticks, and the chain over both."""

    n: int = 0
    ticks: int = 0
    chain: str = ""


class Chain:
    """A Fold over two topics; every key asks for a tick some time after its newest event."""

    record_type = Link
    entry_type = Link

    def __init__(self, world: str) -> None:
        self.name = world
        self.inputs: Sequence[str] = (f"ratchet.{world}.a", f"ratchet.{world}.b")
        self._model = output_type(world)

    def state_key(self, event: Event[Payload]) -> str | None:
        return event.key

    def fold(self, state: KeyState[Link, Link], event: Event[Payload] | Tick) -> Change[Link, Link]:
        old = state.record or Link()
        if isinstance(event, Tick):
            new = Link(n=old.n, ticks=old.ticks + 1, chain=_hash(old.chain, f"tick {event.at_ms}"))
            emit = _answer(self._model, state.key, event.at_ms, "tick", new.chain)
            return Change([emit], new, drop=(str(old.n % ENTRIES),), due_ms=None)
        new = Link(n=old.n + 1, ticks=old.ticks, chain=_hash(old.chain, event.id))
        place = (event.place.partition, event.place.offset)
        emit = _answer(self._model, event.key, event.data.at_ms, f"n{new.n}", new.chain, place)
        return Change([emit], new, {str(new.n % ENTRIES): new}, due_ms=event.data.at_ms + TICK_AFTER_MS)


def _hash(chain: str, word: str) -> str:
    return hashlib.sha256(f"{chain}/{word}".encode()).hexdigest()[:32]


@dataclass
class Findings:
    """What differs from the reference, counted by key, and in words."""

    lost: Counter[str] = field(default_factory=Counter[str])
    duplicated: Counter[str] = field(default_factory=Counter[str])
    wrong: Counter[str] = field(default_factory=Counter[str])
    words: list[str] = field(default_factory=list[str])

    def of(self, prefix: str) -> tuple[int, int, int]:
        """Lost, duplicated and wrong among the keys with a prefix."""
        return tuple(  # pyright: ignore[reportReturnType]
            sum(count for key, count in counter.items() if key.startswith(prefix))
            for counter in (self.lost, self.duplicated, self.wrong)
        )

    def compare(self, expected: Iterable[tuple[str, object]], found: Iterable[tuple[str, object]]) -> None:
        """Rows of (key, anything): missing ones are lost, others too many; the same rows in another order are wrong."""
        left, right = list(expected), list(found)
        if left == right:
            return
        missing, extra = Counter(left) - Counter(right), Counter(right) - Counter(left)
        for counter, rows, word in ((self.lost, missing, "lost"), (self.duplicated, extra, "too many")):
            for (key, what), count in rows.items():
                counter[key] += count
                self.words.append(f"{word} {count}: {key} {what}"[:200])
        if not missing and not extra:
            key = next(a[0] for a, b in zip(left, right, strict=True) if a != b)
            self.wrong[key] += 1
            self.words.append(f"another order from {key}")

    def differ(self, key: str, expected: object, found: object) -> None:
        if expected != found:
            self.wrong[key] += 1
            self.words.append(f"{key}: expected {expected}, found {found}"[:300])


def _text(key: bytes | None) -> str:
    return (key or b"").decode()


def _row(record: Record) -> tuple[str, object]:
    return _text(record.key), record.value


def _lines(records: Sequence[Record]) -> dict[tuple[str, int], list[Record]]:
    found: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        found.setdefault((record.topic, record.partition), []).append(record)
    return found


def check_echo(echo: Echo, inputs: Sequence[Record], outputs: Sequence[Record]) -> Findings:
    """Each input is answered once, with its own text, in the order of its topic and partition."""
    findings = Findings()
    answers: dict[tuple[str, int], list[Record]] = {}
    for record in outputs:
        topic, _, rest = dict(record.headers)["ratchet-at"].decode().partition("[")
        answers.setdefault((topic, int(rest.partition("]")[0])), []).append(record)
    for line, records in _lines(inputs).items():
        wanted = [(e.key, _json(echo.answer(e))) for e in (decode(record, 1) for record in records)]
        findings.compare(wanted, [_row(record) for record in answers.pop(line, [])])
    findings.compare([], [_row(record) for rows in answers.values() for record in rows])
    return findings


def _json(emit: Out) -> bytes:
    if not isinstance(emit, Emit):
        raise TypeError(type(emit))
    return emit.payload.model_dump_json().encode()


def check_chain(
    chain: Chain,
    inputs: Sequence[Record],
    outputs: Sequence[Record],
    order: Sequence[Record],
    state: Sequence[Record],
    committed: Mapping[tuple[str, int], int],
) -> Findings:
    """Fold the inputs again in the order that the order topic tells: the same bytes out, the same state, every input once."""
    findings = Findings()
    by_line = _lines(inputs)
    out, told, changelog = _lines(outputs), _lines(order), _lines(state)
    numbers = sorted({record.partition for record in inputs})
    for number in numbers:
        lines = {topic: by_line.get((topic, number), []) for topic in chain.inputs}
        replay = _Replay(chain, lines)
        for record in told.get((f"ratchet.{chain.name}.order", number), []):
            for run in decode_order(record.value):
                if isinstance(run, Run):
                    replay.run(run.topic, run.first, run.last)
        every = [(_text(r.key), str(r.place)) for rows in lines.values() for r in rows]
        findings.compare(sorted(every), sorted(replay.taken))
        findings.compare(replay.emitted, [_row(r) for r in out.get((f"ratchet.{chain.name}.out", number), [])])
        findings.differ(f"ticks of {number}", sorted(replay.ticks), replay.ticks)
        rows = changelog.get((f"ratchet.{chain.name}.state", number), [])
        _check_state(findings, replay, rows, {t: committed.get((t, number), 0) for t in chain.inputs})
        counts = Counter(_text(record.key) for rows in lines.values() for record in rows)
        for key, count in counts.items():
            findings.differ(key, count, replay.links[key].n if key in replay.links else 0)
    return findings


def _check_state(
    findings: Findings, replay: "_Replay", changelog: Sequence[Record], committed: Mapping[str, int]
) -> None:
    newest = {record.key or b"": record for record in changelog}
    position = newest.pop(POSITION, None)
    if position is not None:
        findings.differ("~position", dict(committed), dict(Position.of(position.value).following))
    wanted: dict[str, tuple[object, object]] = {}
    for key, link in replay.links.items():
        due = replay.due.get(key)
        wanted[key] = (link.model_dump_json().encode(), None if due is None else str(due).encode())
        wanted |= {f"{key}\0{name}": (e.model_dump_json().encode(), None) for name, e in replay.entries[key].items()}
    found = {
        _text(key): (record.value, dict(record.headers).get(DUE))
        for key, record in newest.items()
        if record.value is not None
    }
    for key in sorted(wanted.keys() | found.keys()):
        findings.differ(key, wanted.get(key), found.get(key))


class _Replay:
    """The Fold again, on plain dictionaries."""

    def __init__(self, chain: Chain, lines: Mapping[str, Sequence[Record]]) -> None:
        self.chain = chain
        self.lines = lines
        self.links: dict[str, Link] = {}
        self.entries: dict[str, dict[str, Link]] = {}
        self.due: dict[str, int] = {}
        self.taken: list[tuple[str, object]] = []
        self.emitted: list[tuple[str, object]] = []
        self.ticks: list[int] = []

    def run(self, topic: str, first: int, last: int) -> None:
        if topic == TICK:
            self.ticks.append(first)
            for _, key in sorted((due, key) for key, due in self.due.items() if due <= first):
                self._fold(key, Tick(first, "", ""))
            return
        for record in self.lines.get(topic, ()):
            if first <= record.offset <= last:
                self.taken.append((_text(record.key), str(record.place)))
                self._fold(_text(record.key), decode(record, 1))

    def _fold(self, key: str, event: Event[Payload] | Tick) -> None:
        entries = self.entries.setdefault(key, {})
        change = self.chain.fold(KeyState(key, self.links.get(key), entries, self.due.get(key)), event)
        if isinstance(change.record, Link):
            self.links[key] = change.record
        entries |= change.put
        for name in change.drop:
            entries.pop(name, None)
        if change.due_ms is None:
            self.due.pop(key, None)
        elif isinstance(change.due_ms, int):
            self.due[key] = change.due_ms
        self.emitted += [(key, _json(emit)) for emit in change.emits]
