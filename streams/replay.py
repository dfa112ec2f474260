"""Agents again, on a log instead of a broker: the lanes' own code, opened never, given what the log says was taken.

Rules:
1. A Fold takes what `<agent>.order` says, ticks included, from the log's start or a snapshot; nothing else decides its order.
2. A Transform takes each record that its group has committed. What it asked outside the log, its composition recalls from the
   recorded output (`Recall`); what it gives is compared with that output.
3. Nothing is written and no model is called.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.errors import Refused
from schemas.payload import Payload
from schemas.topics import PREFIX, deferred_topic, order_topic
from streams.difference import EXCLUDED, SKIPPED, Difference, Field, Rederived, agrees, cause_at, values, written_by
from streams.fold import FoldLane
from streams.lane import RuntimeSettings, Surroundings
from streams.memory import MemoryBroker
from streams.order import TICK, Position, Run, decode_order
from streams.port import TP, Clock, Outgoing
from streams.recorded import RecordedLog
from streams.restore import POSITION
from streams.shapes import AnyFold, Event, Place, Record, Tick, Transform
from streams.transform import TransformLane
from streams.wire import Decoder, unparked

YIELD_EVERY = 200
Told = Callable[[int, int], None]
"""Called now and then with (done, of)."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which events are compared: from a time or from offsets on, and to a time. What lies before is replayed all the same."""

    from_ms: int = 0
    to_ms: int | None = None
    first: Mapping[TP, int] = field(default_factory=dict[TP, int])

    def holds(self, place: Place, at_ms: int) -> bool:
        return at_ms >= self.from_ms and place.offset >= self.first.get((place.topic, place.partition), 0)

    def past(self, at_ms: int) -> bool:
        return self.to_ms is not None and at_ms > self.to_ms


class Recall(Protocol):
    """What the composition knows of one Transform: its parts, all of which answer as they did when the output was recorded."""

    @property
    def transform(self) -> Transform: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def decode(self) -> Callable[[Record], Event[Payload]]: ...
    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        """Make the parts answer as they did for this record; why it cannot be replayed, else None."""
        ...

    def otherwise(self, record: Record, recorded: Sequence[Record]) -> str | None:
        """After a difference: make a part that may lose its memory answer as if it had; what it was, None where none did."""
        ...

    def ended(self) -> tuple[Mapping[str, int], Sequence[Difference]]:
        """At the end: what was taken as recorded, counted, and what of it cannot have been."""
        ...


class _Place:
    """Names the place in what an agent raises while it is replayed."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.at: object = "its start"

    def __enter__(self) -> "_Place":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            error.add_note(f"while {self.agent} was replayed at {self.at}")


def _around(log: RecordedLog, clock: Clock, decode: Callable[[Record], Event[Payload]] | None = None) -> Surroundings:
    """What a lane needs to be made. Nothing asks its broker."""

    def fatal(error: BaseException, agent: str, partition: int, place: Place | None) -> None:
        raise error

    class Decoding(Decoder):
        def __call__(self, record: Record) -> Event[Payload]:
            return super().__call__(record) if decode is None else decode(record)

    decoder = Decoding()
    decoder.partitions = log.partitions
    broker, gate = MemoryBroker(log.partitions), asyncio.Semaphore(1)
    settings = RuntimeSettings(retry_s=0, rounds=0)  # what was unavailable stays so: at once the agent's `expired`
    return Surroundings(
        broker, broker.admin(), clock, settings, gate, decoder, lambda _: None, fatal, None, None, log.partitions
    )


class StillClock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.at_ms = 0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def full(topic: str) -> str:
    return topic if topic.startswith(PREFIX) else PREFIX + topic


async def refold(fold: AnyFold, log: RecordedLog, window: Window, told: Told = lambda done, of: None) -> Rederived:
    """A Fold over every partition in the order it took. Raises `Refused` where the log's beginning is gone."""
    gave = Rederived(fold.name)
    orders = [log.of(order_topic(fold.name), number) for number in range(log.partitions)]
    done, of = 0, sum(len(rows) for rows in orders)
    for number, rows in enumerate(orders):
        for _ in _refold(fold, log, number, rows, window, gave):
            done += 1
            if done % YIELD_EVERY == 0:
                told(done, of)
                await asyncio.sleep(0)
    return gave


def _refold(
    fold: AnyFold, log: RecordedLog, number: int, rows: Sequence[Record], window: Window, gave: Rederived
) -> Iterator[None]:
    inputs = tuple(full(topic) for topic in fold.inputs)
    around = _around(log, StillClock())
    lane = FoldLane(around, fold, inputs, number, around.broker.reader({}))
    lane.position = {topic: log.start((topic, number)) for topic in inputs}
    state: dict[bytes, Outgoing] = {}
    if log.start((lane.order, number)) > 0:
        raise Refused(
            f"{lane.order}[{number}] begins at offset {log.start((lane.order, number))}: retention has removed what {fold.name} "
            "took before, and there is no snapshot to begin from",
            kind="cut",
        )
    whole = True
    with _Place(fold.name) as here:
        for row in rows:
            if window.past(row.timestamp_ms):
                whole = False
                break
            for line in decode_order(row.value):
                if isinstance(line, Run):
                    for item in _taken(log, fold.name, number, line):
                        place = item.place if isinstance(item, Record) else Place(TICK, number, item.at_ms)
                        here.at = place
                        gave.covered.add(str(place))
                        if not window.holds(place, row.timestamp_ms):
                            gave.outside.add(str(place))
                        lane.fold_now(item)
            prefix = lane.cut()
            gave.until_ms[number] = row.timestamp_ms
            own = [one for one in prefix.sent if one.topic == lane.state]
            state |= {one.record.key: one.record for one in own if one.record.key is not None}
            gave.give(
                (one for one in prefix.sent if one.topic not in (lane.state, lane.order)), f"{fold.name}[{number}]"
            )
            yield
    if whole:
        _compare_state(gave, log, lane, state)


def _taken(log: RecordedLog, agent: str, number: int, run: Run) -> Sequence[Record | Tick]:
    """What a run of the order topic names. Its first and last are records that were folded, so they must be there."""
    if run.topic == TICK:
        return (Tick(run.first, "", ""),)
    found = log.run(run.topic, number, run.first, run.last)
    if not found or found[0].offset != run.first or found[-1].offset != run.last:
        raise Refused(
            f"{agent} took {run.topic}[{number}]@{run.first} to {run.last}, and the log does not hold them (it begins at "
            f"{log.start((run.topic, number))}): retention has removed them, and there is no snapshot to begin from",
            kind="cut",
        )
    return found


def _compare_state(gave: Rederived, log: RecordedLog, lane: FoldLane, state: Mapping[bytes, Outgoing]) -> None:
    """The state at the end against the newest of the changelog, where that stands at the same position."""
    newest = {row.key: row for row in log.of(lane.state, lane.partition) if row.key is not None}
    said = newest.get(POSITION)
    if said is None and not state:
        return
    following = Position.of(None if said is None else said.value).following
    if any(following.get(topic, at) != at for topic, at in lane.position.items()):
        gave.notes["partitions whose state has moved on: not compared"] += 1
        return
    for key in sorted(newest.keys() | state.keys()):
        there, here = newest.get(key), state.get(key)
        if key == POSITION:
            continue
        gave.keys += 1
        fields = list(values(None if there is None else there.value, None if here is None else here.value))
        due, own = (() if one is None else one.headers for one in (there, here))
        if due != own:
            fields.append(Field("due", [value.decode() for _, value in due], [value.decode() for _, value in own]))
        if fields:
            place = f"{lane.state}[{lane.partition}]" if there is None else str(there.place)
            name = key.decode("utf-8", "replace").replace("\0", "/")
            gave.found.append(Difference(gave.agent, "state", "", place, "state", name, tuple(fields)))


async def redecide(
    recalling: Recall, log: RecordedLog, window: Window, told: Told = lambda done, of: None
) -> Rederived:
    """A Transform over every record that its group has committed."""
    transform = recalling.transform
    agent, inputs, parking = transform.name, tuple(full(t) for t in transform.inputs), deferred_topic(transform.name)
    gave = Rederived(agent, frozenset(EXCLUDED))
    committed = log.committed.get(f"ratchet.{agent}", {})
    outputs: dict[str, list[Record]] = {}
    for rows in log.records.values():
        for row in rows:
            if written_by(row) == agent:
                outputs.setdefault(cause_at(row.topic, row.headers), []).append(row)
    parked = {str(unparked(row)[0].place): row for row in log.topic(parking)}  # the last round of each
    around = _around(log, recalling.clock, recalling.decode)
    done, of = 0, sum(len(log.of(topic, number)) for topic in inputs for number in range(log.partitions))
    with _Place(agent) as here:
        for number in range(log.partitions):
            lane = TransformLane(around, transform, inputs, 1, number, around.broker.reader({}))
            for topic in inputs:
                for record in log.of(topic, number):
                    done += 1
                    if done % YIELD_EVERY == 0:
                        told(done, of)
                        await asyncio.sleep(0)
                    if record.offset >= committed.get((topic, number), 0) or window.past(record.timestamp_ms):
                        continue
                    here.at = record.place
                    place = str(record.place)
                    late = parked.get(place)
                    if late is not None and late.offset >= committed.get((parking, number), 0):
                        gave.notes["deferred and not decided yet"] += 1
                        continue
                    if not window.holds(record.place, record.timestamp_ms):
                        gave.outside.add(place)
                    recorded = outputs.get(place, [])
                    line = "" if late is not None else f"{agent}/{topic}[{number}]"
                    await _redecide(recalling, lane, record, recorded, line, gave)
    notes, found = recalling.ended()
    gave.notes.update(notes)
    gave.found += [one for one in found if one.cause not in gave.outside]
    return gave


async def _redecide(
    recalling: Recall, lane: TransformLane, record: Record, recorded: Sequence[Record], line: str, gave: Rederived
) -> None:
    place = str(record.place)
    gave.covered.add(place)
    if any(dict(row.headers).get("ratchet-dlq-kind") == SKIPPED.encode() for row in recorded):
        gave.notes["skipped by an operator: not decided"] += 1
        gave.outside.add(place)
        return
    why = recalling.recall(record, recorded)
    if why is not None:
        gave.notes[why] += 1
        gave.outside.add(place)
        return
    sent = await lane.answer(record)
    if not agrees(sent, recorded, gave.excluded):
        lost = recalling.otherwise(record, recorded)
        if lost is not None:
            again = await lane.answer(record)
            if agrees(again, recorded, gave.excluded):
                gave.notes[lost] += 1
                sent = again
    gave.give(sent, line)
