"""A Fold again from its order topic: from the log's start, or from a snapshot where the beginning is gone or not asked for."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest
from streams_contract import FAST, PARTITIONS, Count, request, until

from infra.clock import SystemClock
from schemas import ids
from schemas.errors import Refused, Unavailable
from streams.difference import Rederived
from streams.memory import MemoryBroker
from streams.order import Position, Skipped, SnapshotTaken, decode_order, encode_skip
from streams.port import Outgoing
from streams.recorded import Collector, RecordedLog
from streams.replay import Window, refold, where_to_begin
from streams.runner import Runner
from streams.shapes import Record
from streams.wire import letter

TOPICS = ["ratchet.requests", "ratchet.answers", "ratchet.requests.dlq", "ratchet.probe.state"]


class Shelf(dict[str, bytes]):
    """An artifact store in memory."""

    def put_bytes(self, data: bytes) -> str:
        self[ids.digest(data)] = data
        return ids.digest(data)

    def get(self, digest: str) -> bytes:  # type: ignore[override]
        if digest not in self:
            raise Unavailable(f"{digest} is not here")
        return self[digest]


async def run(shelf: Shelf, snapshot_s: float) -> RecordedLog:
    """191 events folded while snapshots are taken, with ticks; read as `ratchet replay` reads."""
    broker = MemoryBroker(PARTITIONS)
    runner = Runner(broker, SystemClock(), settings=replace(FAST, snapshot_s=snapshot_s), artifacts=shelf)
    runner.add_fold(Count("probe", ticks=True))
    task = asyncio.create_task(runner.run())
    for n in range(150):
        broker.publish(request(f"k{n % 9}-{n // 50}", str(n)), event_id=str(n))
        await asyncio.sleep(0.001)
    await until(lambda: kinds(broker).count("tick") >= 18)
    for n in range(40):
        broker.publish(request(f"last-{n}", str(n)), event_id=f"last-{n}")
    held = request("held", "x").model_copy(update={"at_ms": SystemClock().now_ms() + 3_600_000})
    broker.publish(held, event_id="held")  # due in an hour: in the state, however many ticks there are before the end
    await until(lambda: len(kinds(broker)) - kinds(broker).count("tick") == 191)
    await runner.stop()
    await task
    broker.publish(request("later", "x"), event_id="later")
    return await Collector(broker).collect(["ratchet.probe.order"], TOPICS[:2] + TOPICS[3:], {})


def kinds(broker: MemoryBroker) -> list[str]:
    return [event.data.model_dump()["kind"] for event in broker.events("answers")]


def cut(log: RecordedLog, keep: Collection[str] = ()) -> RecordedLog:
    """The log after retention: in each partition nothing before the last snapshot's position is left."""
    starts = dict(log.starts)
    for number in range(log.partitions):
        taken = [(row, line) for row in log.of("ratchet.probe.order", number) for line in decode_order(row.value)]
        row, last = next(pair for pair in reversed(taken) if isinstance(pair[1], SnapshotTaken))
        assert isinstance(last, SnapshotTaken)
        starts["ratchet.probe.order", number] = row.offset
        starts["ratchet.requests", number] = last.position.following["ratchet.requests"]
    made = RecordedLog(log.partitions, starts)
    made.add(row for row in log.all() if row.offset >= starts.get((row.topic, row.partition), 0) or row.topic in keep)
    return made


Recording = tuple[RecordedLog, Shelf]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """One run for all tests, none of which changes it."""
    shelf = Shelf()
    return asyncio.run(run(shelf, 0.05)), shelf


async def test_the_whole_log_and_each_snapshot_agree(recording: Recording) -> None:
    """Every snapshot's digest is that of the replayed state; outputs and state come out as they are."""
    log, shelf = recording
    gave = await refold(Count("probe", ticks=True), log, Window(), artifact=shelf.get)
    assert not gave.found
    assert gave.records >= 209
    assert gave.events >= 192
    assert len(shelf) >= PARTITIONS
    assert gave.keys > 0
    assert not gave.notes


async def test_where_the_beginning_is_gone_a_snapshot_is_begun_from(recording: Recording) -> None:
    """The rest comes out the same; without the artifact, or without a snapshot, it is refused with the reason."""
    log, shelf = recording
    short = cut(log)
    gave = await refold(Count("probe", ticks=True), short, Window(), artifact=shelf.get)
    assert not gave.found
    assert gave.notes["partitions begun from a snapshot"] == PARTITIONS
    with pytest.raises(Unavailable):
        await refold(Count("probe", ticks=True), short, Window(), artifact=Shelf().get)
    bare = RecordedLog(short.partitions, short.starts)
    bare.add(row for row in short.all() if b"snapshot" not in (row.value or b""))
    with pytest.raises(Refused, match="retention has removed the beginning of"):
        await refold(Count("probe", ticks=True), bare, Window(), artifact=shelf.get)


async def test_from_a_time_on_the_snapshot_before_it_is_enough(recording: Recording) -> None:
    """With `--from` nothing before the newest earlier snapshot is folded; a snapshot that is away costs time only."""
    log, shelf = recording
    late = max(row.timestamp_ms for row in log.topic("ratchet.probe.order"))
    from_ms = [row.timestamp_ms for row in log.topic("ratchet.requests")][100]
    whole: Rederived = await refold(Count("probe", ticks=True), log, Window(), artifact=shelf.get)
    some = await refold(Count("probe", ticks=True), log, Window(from_ms=from_ms), artifact=shelf.get)
    away = await refold(Count("probe", ticks=True), log, Window(from_ms=from_ms), artifact=Shelf().get)
    assert some.records < whole.records == away.records
    assert 0 < some.events == away.events < whole.events
    assert not some.found
    assert not away.found
    assert away.notes["snapshots that are not at hand: begun earlier"] > 0
    assert where_to_begin(log, "probe", ("ratchet.requests",), 0, late + 1)[1] is not None
    assert where_to_begin(log, "probe", ("ratchet.requests",), 0) == (0, None)


async def test_a_snapshot_of_another_state_is_found(recording: Recording) -> None:
    """A digest in the order topic that the replayed state does not have."""
    log, _ = recording
    wrong = RecordedLog(log.partitions, log.starts)
    wrong.add(map(other_digest, log.all()))
    gave = await refold(Count("probe", ticks=True), wrong, Window())
    assert gave.kinds["state"] > 0
    assert {field.path for row in gave.found for field in row.fields} == {"snapshot"}


def other_digest(row: Record) -> Record:
    if row.value is None or not row.topic.endswith(".order"):
        return row
    return replace(row, value=row.value.replace(b'"snapshot": "sha256:', b'"snapshot": "sha256:f'))


async def test_a_hole_in_the_inputs_is_refused(recording: Recording) -> None:
    """A record that the order topic names and the log has not: no replay goes over it in silence."""
    log, _ = recording
    short = RecordedLog(log.partitions, log.starts)
    short.add(row for row in log.all() if (row.topic, row.offset) != ("ratchet.requests", 0))
    with pytest.raises(Refused, match="does not hold them all"):
        await refold(Count("probe", ticks=True), short, Window())


async def test_what_an_operator_skipped_moves_the_position_only(recording: Recording) -> None:
    """The order topic tells of it; its dead letter is no output of the agent, and the state stands behind it."""
    log, shelf = recording
    whole = await refold(Count("probe", ticks=True), log, Window(), artifact=shelf.get)
    (later,) = (row for row in log.topic("ratchet.requests") if row.key == b"later")
    positions = [row for row in log.of("ratchet.probe.state", later.partition) if row.key == b"~position"]
    said = Position.of(positions[-1].value)
    moved = Position({later.topic: later.offset + 1}, said.tick_ms, said.version)
    cut_short = encode_skip(Skipped(later.topic, later.offset, 1))
    made = RecordedLog(log.partitions, log.starts)
    made.add(log.all())
    letter_of = letter(later, agent="probe", kind="skipped", message="by hand", attempts=1, at_ms=1)
    for topic, row in (
        ("ratchet.probe.order", Outgoing(b"0", cut_short)),
        ("ratchet.probe.state", Outgoing(b"~position", moved.encode())),
        (letter_of.topic, letter_of.record),
    ):
        at_ms = positions[-1].timestamp_ms
        made.add([Record(topic, later.partition, 1_000_000, row.key, row.value, row.headers, at_ms)])
    gave = await refold(Count("probe", ticks=True), made, Window(), artifact=shelf.get)
    assert not gave.found
    assert not gave.notes
    assert gave.keys == whole.keys
