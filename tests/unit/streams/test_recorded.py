"""A recorded log: what is kept, how it comes back from its file, what is refused, and what retention may have taken."""

import asyncio
import lzma
from pathlib import Path

import pytest
from replayed import LOOP, changed
from streams_contract import request

from schemas.errors import Refused, Unavailable
from schemas.topics import DAY_MS
from streams.memory import MemoryBroker
from streams.port import Outgoing
from streams.recorded import Collector, RecordedLog, read_file, write_file
from streams.shapes import Record

ODD = Record("ratchet.requests", 1, 7, b"\xff key", None, (("a", b"\x00\xff"), ("a", b""), ("ü", "é".encode())), 12)


def test_records_come_back_byte_for_byte(tmp_path: Path) -> None:
    """Bytes that are no text, no value, repeated headers; starts, commits and snapshots too."""
    log = RecordedLog(4, {("ratchet.requests", 1): 7}, {"ratchet.router": {("ratchet.requests", 1): 8}})
    plain = Record("ratchet.requests", 1, 9, b"k", b'{"text":"\\ud83d \xe2\x80\xa8"}', (), 13)
    log.add([ODD, plain])
    log.artifacts["sha256:ab"] = b"\x80 bytes"
    write_file(log, tmp_path / "log.xz")
    back = read_file(tmp_path / "log.xz")
    assert list(back.all()) == [ODD, plain]
    assert (back.partitions, back.starts, back.committed, back.artifacts) == (
        4, log.starts, log.committed, {"sha256:ab": b"\x80 bytes"},
    )  # fmt: skip


def test_the_same_log_is_the_same_file(tmp_path: Path) -> None:
    """Reading and writing the recorded log of the repository changes no byte of what is compressed."""
    write_file(read_file(LOOP), tmp_path / "again.xz")
    assert lzma.decompress((tmp_path / "again.xz").read_bytes()) == lzma.decompress(LOOP.read_bytes())
    with pytest.raises(Refused, match="exists"):
        write_file(read_file(LOOP), tmp_path / "again.xz")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "is not a recorded log"),
        (b'{"format":"other"}\n', "is not a recorded log"),
        (b'{"format":"ratchet-log/1"}\n', "partitions"),
        (b'{"format":"ratchet-log/1","partitions":1,"starts":{},"committed":{}}\n{"topic":"t"}\n', "line 2"),
        (b'{"format":"ratchet-log/1","partitions":1,"starts":{},"committed":{}}\nx\n', "line 2"),
    ],
)
def test_what_is_no_log_is_refused(text: bytes, told: str, tmp_path: Path) -> None:
    """With the file, and the line where there is one."""
    file = tmp_path / "bad.xz"
    file.write_bytes(lzma.compress(text))
    with pytest.raises(Refused, match=told) as refused:
        read_file(file)
    assert str(file) in str(refused.value)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    """Cut off, and not compressed at all."""
    for number, data in enumerate((LOOP.read_bytes()[:-100], b"plain text")):
        file = tmp_path / f"torn-{number}.xz"
        file.write_bytes(data)
        with pytest.raises(Refused, match="is damaged"):
            read_file(file)


def test_a_place_is_there_once() -> None:
    """Two records at one place are no log."""
    log = RecordedLog(2)
    log.add([ODD])
    with pytest.raises(ValueError, match="there already"):
        log.add([ODD])


def test_outputs_are_found_by_agent_and_cause() -> None:
    """Dead letters by the place of the record they were; what lies in deferred or internal topics is nobody's output."""
    log = changed(lambda record: (record,))
    found = log.outputs("router", "ratchet.requests[2]@1")
    (decision,) = [row for row in found if row.topic == "ratchet.decisions"]
    assert decision.place.offset == 0
    letters = [row for number in range(4) for row in log.letters("cases", "ratchet.verdicts", number)]
    assert {row.topic for row in letters} == {"ratchet.verdicts.dlq"}
    parked = Record("ratchet.trust.deferred", 0, 1, decision.key, decision.value, decision.headers, 1)
    log.add([parked])
    assert log.outputs("router", "ratchet.requests[2]@1") == found
    assert log.outputs("", "") == []


def test_what_retention_may_have_taken() -> None:
    """Nothing where the log begins at its start; else what is older than what is there; compacted topics after their lag."""
    log = RecordedLog(1, {("ratchet.scores", 0): 5})
    log.add(
        [Record("ratchet.scores", 0, 6, None, None, (), 1000), Record("ratchet.answers", 0, 0, None, None, (), 1000)]
    )
    log.add([Record("ratchet.policies", 0, 0, None, None, (), 40 * DAY_MS)])
    assert log.gone("ratchet.scores", 0, 1000)
    assert not log.gone("ratchet.scores", 0, 1001)
    assert not log.gone("ratchet.answers", 0, 1)
    assert log.gone("ratchet.policies", 0, DAY_MS)
    assert not log.gone("ratchet.policies", 0, 39 * DAY_MS)


async def test_a_collector_reads_what_is_committed_and_commits_nothing() -> None:
    """Aborted and open transactions are not read; what is added later is read from there on."""
    broker = MemoryBroker(1)
    broker.publish(request("a", "1"), event_id="1")
    producer, tp = broker.transactional("someone"), ("ratchet.requests", 0)
    await producer.start()
    await producer.begin()
    await producer.send(*tp, [Outgoing(b"open", b"{}")])
    broker.publish(request("b", "2"), event_id="2")
    collector = Collector(broker)
    log = await collector.collect([], [tp[0]], {"ratchet.router": [tp[0]]})
    assert [row.key for row in log.all()] == [b"a"]
    assert log.committed == {"ratchet.router": {tp: 0}}
    await producer.abort()
    await collector.more(log, [tp[0]])
    assert [row.key for row in log.all()] == [b"a", b"b"]
    assert broker.offset_of("ratchet.router", tp) == 0


async def test_a_topic_that_is_not_there_is_named() -> None:
    """Before anything is read."""
    broker = MemoryBroker(1)
    broker.counts["ratchet.nothing"] = 0
    with pytest.raises(Unavailable, match=r"there is no topic ratchet\.nothing"):
        await Collector(broker).collect([], ["ratchet.nothing"], {})


async def test_offsets_that_are_still_loading_are_waited_for() -> None:
    """A broker that has just started knows them in a moment."""
    broker = MemoryBroker(1)
    broker.publish(request("a", "1"), event_id="1")
    broker.loading = True
    reading = asyncio.create_task(Collector(broker).collect([], ["ratchet.requests"], {"g": ["ratchet.requests"]}))
    await asyncio.sleep(0.05)
    assert not reading.done()
    broker.loading = False
    assert (await reading).committed == {"g": {("ratchet.requests", 0): 0}}
