"""Agents again, on a log instead of a broker: the lanes' own code, opened never, given what the log says was taken.

Rules:
1. A Fold takes what `<agent>.order` says, ticks included, from the log's start or a snapshot; nothing else decides its order.
2. A Transform takes each record that its group has committed. What it asked outside the log, its composition recalls from the
   recorded output (`Recall`); what it gives is compared with that output.
3. Nothing is written and no model is called.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas import ids, principal
from schemas.errors import Refused, Unavailable, Undecodable
from schemas.events import AnswerRefused
from schemas.topics import deferred_topic, full, order_topic
from streams import snapshot
from streams.difference import (
    EXCLUDED,
    SKIPPED,
    Difference,
    Field,
    Rederived,
    agrees,
    cause_at,
    is_letter,
    values,
)
from streams.fold import FoldLane
from streams.memory import MemoryBroker
from streams.order import TICK, Position, Run, SnapshotTaken, decode_order
from streams.port import TP, Clock, Outgoing
from streams.recorded import RecordedLog
from streams.restore import POSITION, SNAPSHOT
from streams.shapes import AnyFold, Place, Record, Tick, Transform
from streams.surroundings import RuntimeSettings, Surroundings
from streams.transform import TransformLane
from streams.wire import Decoder, Sent, unparked

YIELD_EVERY = 200
Told = Callable[[int, int], None]
"""Called now and then with (done, of)."""
Artifact = Callable[[str], bytes]
"""The bytes of a digest; raises `Refused` where they are not to be had."""


def _silent(done: int, of: int) -> None:
    """Tells nobody."""


def _no_artifact(digest: str) -> bytes:
    raise Refused(f"the snapshot {digest} is not at hand", kind="cut")


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
    def recall(self, record: Record, recorded: Sequence[Record]) -> str | None:
        """Make the parts answer as they did for this record; why it cannot be replayed, else None."""
        ...

    def otherwise(self, record: Record, recorded: Sequence[Record]) -> str | None:
        """After a difference: make a part that may lose its memory answer as if it had; what it was, None where none did."""
        ...

    def ended(self, gave: Rederived) -> None:
        """At the end: tell what was taken as recorded, counted, and what of it cannot have been."""
        ...


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


def unproven(row: Record) -> Refused | None:
    """The refusal that an output tells of, where it is one of `schemas.principal`."""
    said = {name: value.decode("utf-8", "replace") for name, value in row.headers}
    if is_letter(row.topic):
        kind = said.get("ratchet-dlq-kind", "")
        return Refused(said.get("ratchet-dlq-message", ""), kind=kind) if kind in principal.KINDS else None
    if said.get("ce_type") != AnswerRefused.ce_type():
        return None
    try:
        told = AnswerRefused.model_validate_json(row.value or b"")
    except ValueError:
        return None
    if told.kind not in principal.KINDS or told.policies:  # with policies the router refused it, by its route
        return None
    return Refused(told.reason, kind=told.kind, field=told.field, accepted=told.accepted)


def _around(log: RecordedLog, clock: Clock, gave: Rederived) -> Surroundings:
    """What a lane needs to be made. Nothing asks its broker. Whether a proof held is taken as recorded: the keys are not here."""

    def fatal(error: BaseException, agent: str, partition: int, place: Place | None) -> None:
        raise error

    def verify(record: Record) -> None:
        for row in log.outputs(gave.agent, str(record.place)):
            refused = unproven(row)
            if refused is not None:
                gave.notes["records refused for want of a proof: as recorded"] += 1
                raise refused

    decoder = Decoder(verify)
    decoder.partitions = log.partitions
    broker, gate = MemoryBroker(log.partitions), asyncio.Semaphore(1)
    settings = RuntimeSettings(retry_s=0, rounds=0)  # what was unavailable stays so: at once the agent's `expired`
    around = Surroundings(broker, broker.admin(), clock, settings, gate, decoder, lambda _: None, fatal, None, None)
    around.partitions = log.partitions
    return around


async def refold(
    fold: AnyFold, log: RecordedLog, window: Window, *, artifact: Artifact = _no_artifact, told: Told = _silent
) -> Rederived:
    """A Fold over every partition in the order it took.

    Raises `Refused` where the log's beginning is gone and no snapshot is there to begin from. `artifact` gives the bytes of a digest.
    """
    gave = Rederived(fold.name, gone=log.gone)
    around = _around(log, StillClock(), gave)
    done, of = 0, log.size((order_topic(fold.name),))
    for number in range(log.partitions):
        lane = FoldLane(around, fold, tuple(full(t) for t in fold.inputs), number, around.broker.reader({}))
        first = _begin(log, lane, window.from_ms, gave, artifact)
        refolding = _Refolding(log, lane, window, gave)
        for row in log.of(lane.order, number, first):
            if window.past(row.timestamp_ms):
                break
            refolding.take(row)
            done += 1
            if done % YIELD_EVERY == 0:
                told(done, of)
                await asyncio.sleep(0)
        refolding.end()
    return gave


def where_to_begin(
    log: RecordedLog, agent: str, inputs: Sequence[str], number: int, from_ms: int = 0
) -> tuple[int, SnapshotTaken | None]:
    """The order topic's offset to go on at, and the snapshot to begin from; None: the log's start.

    It is the newest snapshot before `from_ms`, else the start where the log is whole, else the first snapshot from which it is.
    """
    order = order_topic(agent)
    needed: dict[str, int] = {}
    taken: list[tuple[Record, SnapshotTaken]] = []
    for row in log.of(order, number):
        for line in decode_order(row.value):
            if isinstance(line, Run) and line.topic != TICK:
                needed.setdefault(line.topic, line.first)
            elif isinstance(line, SnapshotTaken) and all(
                line.position.following.get(topic, 0) >= log.start((topic, number)) for topic in inputs
            ):
                taken.append((row, line))
    earlier = [found for found in taken if found[0].timestamp_ms < from_ms]
    if earlier:
        return earlier[-1][0].offset + 1, earlier[-1][1]
    cut = [topic for topic, first in needed.items() if first < log.start((topic, number))]
    if not cut and log.start((order, number)) == 0:
        return 0, None
    if taken:
        return taken[0][0].offset + 1, taken[0][1]
    raise Refused(
        f"{agent}[{number}] cannot be replayed: retention has removed the beginning of {', '.join(cut) or order}, "
        "and there is no snapshot after it to begin from",
        kind="cut",
    )


def _begin(log: RecordedLog, lane: FoldLane, from_ms: int, gave: Rederived, artifact: Artifact) -> int:
    """Put the lane where its replay begins; the order topic's offset to go on at."""
    offset, taken = where_to_begin(log, lane.agent, lane.inputs, lane.partition, from_ms)
    try:
        data = None if taken is None else artifact(taken.digest)
    except (Refused, Unavailable):
        if not from_ms:
            raise
        gave.notes["snapshots that are not at hand: begun earlier"] += 1
        return _begin(log, lane, 0, gave, artifact)
    if taken is None or data is None:
        lane.position = {topic: log.start((topic, lane.partition)) for topic in lane.inputs}
        return 0
    for row in snapshot.decode(data).rows:
        lane.table.load(row)
    for _ in lane.table.settle():
        pass
    lane.stand_at(lane.table, taken.position)
    gave.notes["partitions begun from a snapshot"] += 1
    return offset


class _Refolding:
    """One lane of a Fold that stands where it begins, transaction by transaction as its order topic tells them.

    A Fold may give up an event that it held long after it took it: dead letters are compared when they are given, and what the log
    holds beside those at the end.
    """

    def __init__(self, log: RecordedLog, lane: FoldLane, window: Window, gave: Rederived) -> None:
        self.log, self.lane, self.window, self.gave = log, lane, window, gave
        self._state = {row.key: row for row in lane.table.rows() if row.key is not None}
        self._line = f"{lane.agent}[{lane.partition}]"
        self._until_ms = 0
        self._letters: set[str] = set()  # places of the records given up
        self._first = dict(lane.position)

    def take(self, row: Record) -> None:
        """Fold one transaction and compare what it wrote."""
        places = self._fold(row)
        outs: dict[str, list[Sent]] = {place: [] for place in places}
        for one in self.lane.cut().sent:
            if one.topic == self.lane.state:
                if one.record.key is not None:
                    self._state[one.record.key] = one.record
            elif one.topic != self.lane.order:
                self.gave.count((one,))
                outs.setdefault(cause_at(one.topic, one.record.headers), []).append(one)
        for place, sent in outs.items():
            gives_up = any(is_letter(one.topic) for one in sent)
            if gives_up:
                self._letters.add(place)
            if places.get(place, row.timestamp_ms >= self.window.from_ms):
                self.gave.events += place in places
                recorded = self.log.outputs(self.lane.agent, place)
                mine = [one for one in recorded if (gives_up if is_letter(one.topic) else place in places)]
                self.gave.compare(sent, mine, self._line, row.timestamp_ms)

    def _fold(self, row: Record) -> dict[str, bool]:
        """The places taken, and whether they are to be compared."""
        lane = self.lane
        places: dict[str, bool] = {}
        self._until_ms = row.timestamp_ms
        with _Place(lane.agent) as here:
            for line in decode_order(row.value):
                if isinstance(line, SnapshotTaken):
                    _check_snapshot(self.gave, lane, row, line)
                elif isinstance(line, Run):
                    for item in _taken(self.log, lane.agent, lane.partition, line):
                        place = item.place if isinstance(item, Record) else Place(TICK, lane.partition, item.at_ms)
                        here.at = place
                        places[str(place)] = self.window.holds(place, row.timestamp_ms)
                        lane.fold_now(item)
                else:
                    lane.position[line.topic] = line.offset + 1
        return places

    def end(self) -> None:
        """Dead letters that the replay did not give, and the state."""
        for topic in self.lane.inputs:
            for row in self.log.letters(self.lane.agent, topic, self.lane.partition):
                place = cause_at(row.topic, row.headers)
                at = int(place.rpartition("@")[2])
                if (
                    place not in self._letters
                    and self._first.get(topic, 0) <= at < self.lane.position.get(topic, 0)
                    and self.window.from_ms <= row.timestamp_ms <= self._until_ms
                ):
                    self.gave.unexpected(row)
        _compare_state(self.gave, self.log, self.lane, self._state)


def _taken(log: RecordedLog, agent: str, number: int, run: Run) -> Sequence[Record | Tick]:
    """What a run of the order topic names. Its first and last are records that were folded, so they must be there."""
    if run.topic == TICK:
        return (Tick(run.first, "", ""),)
    found = log.run(run.topic, number, run.first, run.last)
    if not found or found[0].offset != run.first or found[-1].offset != run.last:
        raise Refused(
            f"{agent} took {run.topic}[{number}]@{run.first} to {run.last}, and the log does not hold them all",
            kind="cut",
        )
    return found


def _check_snapshot(gave: Rederived, lane: FoldLane, row: Record, taken: SnapshotTaken) -> None:
    """A snapshot's digest is that of the state which the replay has come to."""
    if taken.position.version != lane.version:
        gave.notes["snapshots of another version of the state: not compared"] += 1
        return
    lines = [snapshot.head(lane.agent, lane.partition, taken.position), *map(snapshot.line, lane.table.rows())]
    own = ids.digest(b"".join(lines))
    if own != taken.digest:
        fields = (Field("snapshot", taken.digest, own),)
        gave.differ(Difference(gave.agent, "state", "", str(row.place), "snapshot", taken.digest, fields))


def _compare_state(gave: Rederived, log: RecordedLog, lane: FoldLane, state: Mapping[bytes, Outgoing]) -> None:
    """The state at the end against the changelog as it was when it stood there."""
    stood = Position(lane.position, lane.last_tick_ms, lane.version)
    newest: dict[bytes, Record] = {}
    later: set[bytes] = set()
    there_yet = False
    for row in log.of(lane.state, lane.partition):
        if there_yet:
            later.add(row.key or b"")
        elif row.key == POSITION:
            there_yet = _stands(Position.of(row.value), stood)
        elif row.key is not None:
            newest[row.key] = row
    if not there_yet:
        if state or newest:
            gave.notes["partitions whose state has moved on: not compared"] += 1
        return
    for key in sorted((newest.keys() | state.keys()) - {POSITION, SNAPSHOT}):
        there, here = newest.get(key), state.get(key)
        if (there is None or there.value is None) and (here is None or here.value is None):
            continue  # of a key that is gone compaction may have removed the tombstone
        if there is None and key in later:
            gave.notes["keys of state that compaction may have removed: not compared"] += 1
            continue
        gave.keys += 1
        fields = list(values(None if there is None else there.value, None if here is None else here.value))
        due, own = (() if one is None else one.headers for one in (there, here))
        if due != own:
            fields.append(Field("due", [value.decode() for _, value in due], [value.decode() for _, value in own]))
        if fields:
            place = f"{lane.state}[{lane.partition}]" if there is None else str(there.place)
            name = key.decode("utf-8", "replace").replace("\0", "/")
            gave.differ(Difference(gave.agent, "state", "", place, "state", name, tuple(fields)))


def _stands(position: Position, at: Position) -> bool:
    moved = any(position.following.get(topic, offset) != offset for topic, offset in at.following.items())
    return not moved and (position.tick_ms, position.version) == (at.tick_ms, at.version)


def _parked_from(row: Record) -> str | None:
    """The place of the record that was deferred; None where no agent wrote this, and it became a dead letter."""
    try:
        return str(unparked(row)[0].place)
    except Undecodable:
        return None


async def redecide(recalling: Recall, log: RecordedLog, window: Window, *, told: Told = _silent) -> Rederived:
    """A Transform over every record that its group has committed."""
    transform = recalling.transform
    agent, inputs = transform.name, tuple(full(topic) for topic in transform.inputs)
    gave, parking = Rederived(agent, frozenset(EXCLUDED), log.gone), deferred_topic(agent)
    committed = log.committed.get(f"ratchet.{agent}", {})
    parked = {place: row.offset for row in log.topic(parking) if (place := _parked_from(row))}  # the last round of each
    around = _around(log, recalling.clock, gave)
    done, of = 0, log.size(inputs)
    with _Place(agent) as here:
        for number in range(log.partitions):
            lane = TransformLane(around, transform, inputs, 1, number, around.broker.reader({}))
            for record in (row for topic in inputs for row in log.of(topic, number)):
                done += 1
                if done % YIELD_EVERY == 0:
                    told(done, of)
                    await asyncio.sleep(0)
                here.at = record.place
                if record.offset >= committed.get((record.topic, number), 0) or window.past(record.timestamp_ms):
                    continue
                late = parked.get(str(record.place))
                if late is not None and late >= committed.get((parking, number), 0):
                    gave.notes["deferred and not decided yet"] += 1
                    continue
                line = "" if late is not None else f"{agent}/{record.topic}[{number}]"
                held = window.holds(record.place, record.timestamp_ms)
                await _redecide(recalling, lane, record, log.outputs(agent, str(record.place)), line, gave, held)
    recalling.ended(gave)
    return gave


async def _redecide(
    recalling: Recall,
    lane: TransformLane,
    record: Record,
    recorded: Sequence[Record],
    line: str,
    gave: Rederived,
    held: bool,
) -> None:
    if any(dict(row.headers).get("ratchet-dlq-kind") == SKIPPED.encode() for row in recorded):
        gave.notes["skipped by an operator: not decided"] += 1
        return
    why = recalling.recall(record, recorded)
    if why is not None:
        gave.notes[why] += 1
        return
    sent = await lane.answer(record)
    if not agrees(sent, recorded, gave.excluded):
        lost = recalling.otherwise(record, recorded)
        if lost is not None:
            again = await lane.answer(record)
            if agrees(again, recorded, gave.excluded):
                gave.notes[lost] += 1
                sent = again
    gave.count(sent)
    if held:
        gave.events += 1
        gave.compare(sent, recorded, line, record.timestamp_ms)
