"""A recording of a judge's inputs, and judges that take it: in this process, in another, from a saved state.

`recorded_cases.py FILE [PART ...]` prints what a judge says of a recording, saved and loaded again after each part (0.5: half of it).

A recording is gzip of lines `topic, event id, type, at, value` with tabs between, and `~tick, at` and `~barrier`: what stands before
these has been taken before anything after them is there. All records are of one partition and one route.
"""

import asyncio
import gzip
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agents.judge.fold import Judge
from schemas import codec, ids
from schemas.payload import Payload
from schemas.topics import full, order_topic, state_topic
from streams import snapshot
from streams.fold import FoldLane
from streams.memory import MemoryBroker
from streams.order import TICK, Position
from streams.replay import StillClock
from streams.restore import POSITION
from streams.shapes import Place, Record, Tick
from streams.state import MemoryState, StateStore
from streams.surroundings import RuntimeSettings, Surroundings
from streams.wire import Decoder, Sent

BARRIER = "~barrier"
CUT_EVERY = 500
Item = Record | Tick | None
"""None: a barrier."""


def headers(event_id: str, ce_type: str, at_ms: int) -> tuple[tuple[str, bytes], ...]:
    """As the codec writes them."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_source", b"recorded"),
        ("ce_time", codec.rfc3339(at_ms).encode()),
        ("content-type", codec.CONTENT_TYPE),
        ("traceparent", ids.trace_parent(None, event_id).encode()),
    )


class Writer:
    """Writes a recording, and gives each record as a reader will."""

    def __init__(self, file: Path, route: str) -> None:
        self._file, self._key = gzip.GzipFile(file, "wb", compresslevel=1), route.encode()
        self._next: Counter[str] = Counter()

    def record(self, payload: Payload, event_id: str) -> Record:
        """Write one event."""
        row = codec.encode(payload, event_id=event_id, source="recorded", traceparent="")
        topic, at_ms = full(payload.TOPIC), payload.at_ms
        line = f"{topic}\t{event_id}\t{payload.ce_type()}\t{at_ms}\t".encode()
        self._file.write(line + row.value + b"\n")
        offset = self._next[topic]
        self._next[topic] += 1
        return Record(topic, 0, offset, self._key, row.value, headers(event_id, payload.ce_type(), at_ms), at_ms)

    def tick(self, at_ms: int) -> Tick:
        """Write a tick."""
        self._file.write(f"{TICK}\t{at_ms}\n".encode())
        return Tick(at_ms, "", "")

    def barrier(self) -> None:
        """Write a barrier."""
        self._file.write(f"{BARRIER}\n".encode())

    def close(self) -> None:
        self._file.close()


def recorded(file: Path, route: str) -> Iterator[Item]:
    """What a recording holds, in its order."""
    key, following = route.encode(), Counter[str]()
    with gzip.open(file, "rb") as lines:
        for line in lines:
            kind, *rest = line.rstrip(b"\n").split(b"\t")
            topic = kind.decode()
            if topic == BARRIER:
                yield None
            elif topic == TICK:
                yield Tick(int(rest[0]), "", "")
            else:
                event_id, ce_type, at = (part.decode() for part in rest[:3])
                offset = following[topic]
                following[topic] += 1
                yield Record(topic, 0, offset, key, rest[3], headers(event_id, ce_type, int(at)), int(at))


class Heard:
    """What a judge has said, as digests: of every output of every topic in its order, and of the state at the end.

    `last`: the last value of each type.
    """

    def __init__(self) -> None:
        self.topics: dict[str, Any] = {}
        self.types: Counter[str] = Counter()
        self.last: dict[str, bytes] = {}

    def take(self, topic: str, key: bytes | None, value: bytes | None, row: Iterable[tuple[str, bytes]]) -> None:
        """One output: its key, its value and its headers count, bit for bit."""
        found = self.topics.setdefault(topic, hashlib.sha256())
        said = dict(row)
        ce_type = said["ce_type"].decode()
        self.types[ce_type] += 1
        self.last[ce_type] = value or b""
        found.update(json.dumps([(key or b"").decode(), sorted((n, v.decode()) for n, v in said.items())]).encode())
        found.update(b"\t" + (value or b"") + b"\n")

    def said(self, state: bytes) -> dict[str, Any]:
        """As JSON: equal where all was equal."""
        return {
            "topics": {topic: found.hexdigest() for topic, found in sorted(self.topics.items())},
            "types": dict(sorted(self.types.items())),
            "state": hashlib.sha256(state).hexdigest(),
        }


class Judging:
    """A judge's lane that never opens, given what the recording holds: the runtime's own code, and nothing of a broker."""

    def __init__(self) -> None:
        broker = MemoryBroker(1)
        around = Surroundings(
            broker, broker.admin(), StillClock(), RuntimeSettings(), asyncio.Semaphore(1), Decoder(), lambda _: None,
            self._fatal, None, None,
        )  # fmt: skip
        self.lane = FoldLane(around, Judge(), tuple(full(topic) for topic in Judge.inputs), 0, broker.reader({}))
        self.heard = Heard()
        self.taken = 0

    def _fatal(self, error: BaseException, agent: str, partition: int, place: Place | None) -> None:
        raise error

    def due(self, at_ms: int) -> bool:
        """Whether a runner would tick now."""
        due_ms = self.lane.table.next_due_ms()
        return due_ms is not None and due_ms <= at_ms

    def take(self, item: Item) -> list[Sent]:
        """Fold one item; what it gave comes with the next cut."""
        if item is not None:
            self.lane.fold_now(item)
        self.taken += 1
        return self.cut() if self.taken % CUT_EVERY == 0 or isinstance(item, Tick) else []

    def cut(self) -> list[Sent]:
        """What the next transaction would write, state and order left out."""
        own = (state_topic(Judge.name), order_topic(Judge.name))
        found = [row for row in self.lane.cut().sent if row.topic not in own]
        for row in found:
            self.heard.take(row.topic, row.record.key, row.record.value, row.record.headers)
        return found

    def saved(self) -> bytes:
        """The whole state, as a snapshot has it."""
        return _saved(self.lane.table, Position(self.lane.position, self.lane.last_tick_ms, self.lane.version))

    def go_on(self, saved: bytes) -> "Judging":
        """Another judge, which has only what was saved, and whose outputs are told with this one's."""
        other, found = Judging(), snapshot.decode(saved)
        for row in found.rows:
            other.lane.table.load(row)
        for _ in other.lane.table.settle():
            pass
        other.lane.stand_at(other.lane.table, found.position)
        other.heard, other.taken = self.heard, self.taken
        return other

    def end(self) -> dict[str, Any]:
        """What it has said in all."""
        self.cut()
        return self.heard.said(self.saved())


def _saved(table: StateStore, position: Position) -> bytes:
    return b"".join([snapshot.head(Judge.name, 0, position), *(snapshot.line(row) for row in table.rows())])


def state_of(changelog: Iterable[Record]) -> bytes:
    """The state that a judge's changelog holds, as `Judging.saved` gives it."""
    table, position = MemoryState(Judge()), Position({})
    for row in changelog:
        if row.key == POSITION:
            position = Position.of(row.value)
        else:
            table.load(row)
    for _ in table.settle():
        pass
    return _saved(table, position)


def judged(file: Path, route: str, parts: Iterable[float] = ()) -> dict[str, Any]:
    """A judge over a whole recording; after each part of it another goes on from what was saved."""
    judging = Judging()
    items = sum(1 for _ in recorded(file, route)) if (marks := sorted(parts)) else 0
    stops = {int(items * part) for part in marks}
    for number, item in enumerate(recorded(file, route)):
        if number in stops:
            judging.cut()
            judging = judging.go_on(judging.saved())
        judging.take(item)
    return judging.end()


if __name__ == "__main__":
    print(json.dumps(judged(Path(sys.argv[1]), "r", [float(part) for part in sys.argv[2:]])))  # noqa: T201  a program of its own
