"""What is told of each offset, on the broker in memory; and what only there can be done to a log."""

import pytest
from offsets_contract import *  # noqa: F403  the suite's tests are collected here
from offsets_contract import Logs, identity, kinds, read, values

from schemas.errors import Unavailable
from streams.memory import MemoryBroker
from streams.port import TP
from streams.reader import EveryOffset
from streams.shapes import Frontier, Gap, Last, Record, Reset


class Memory:
    """Does at once what a broker does in its own time."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def evict(self, tp: TP, before: int) -> None:
        self.broker.truncate(tp, before)

    async def delete(self, topic: str) -> None:
        self.broker.delete(topic)

    async def compact(self, topic: str) -> None:
        self.broker.compact(topic)


@pytest.fixture
async def logs() -> Logs:
    """A fresh broker in memory."""
    broker = MemoryBroker()
    return Logs(broker, broker.admin(), broker.producer(), Memory(broker))


@pytest.fixture
def broker(logs: Logs) -> MemoryBroker:
    assert isinstance(logs.broker, MemoryBroker)
    return logs.broker


async def test_an_offset_taken_out_of_the_log_is_unknown(logs: Logs, broker: MemoryBroker) -> None:
    """No broker removes a single record of a topic that is not compacted: nobody explains it."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")
    broker.remove((topic, 0), 1)
    found = await read(logs, topic, 3)
    assert (found[1], values(found)) == (Gap(topic, 0, 1, 1, "unknown"), [b"a", b"c"])


async def test_a_record_with_the_same_name_and_another_time_is_another(logs: Logs, broker: MemoryBroker) -> None:
    """The broker's time of the newest record counts as much as its id."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b")
    stamped = broker.logs[topic, 0].entries[1].record
    assert stamped is not None
    at_ms = stamped.timestamp_ms
    await logs.plain(topic, b"c")
    assert values(await read(logs, topic, 3, Frontier(0, 2, Last(1, at_ms, "b")))) == [b"c"]
    for other in (Last(1, at_ms + 1, "b"), Last(1, at_ms, "c")):
        assert Reset(topic, 0, 2) in await read(logs, topic, 3, Frontier(0, 2, other), resets=1)


async def test_evicted_between_the_start_and_the_first_answer(logs: Logs, broker: MemoryBroker) -> None:
    """The position left the log after its bounds were looked at: they are looked at again."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b", b"c")

    async def evict() -> None:
        broker.truncate((topic, 0), 2)

    assert kinds(await read(logs, topic, 3, before=evict)) == {"lost": 2}


async def test_what_was_taken_is_told_after_the_broker_was_away(logs: Logs, broker: MemoryBroker) -> None:
    """An outage between two answers loses and repeats nothing; after it the newest record is looked at again."""
    topic = await logs.topic()
    await logs.plain(topic, b"a", b"b")
    reader = EveryOffset(broker, [topic], identity)
    await reader.seek({})
    assert values(await reader.poll(0.1)) == [b"a", b"b"]
    broker.away = True
    with pytest.raises(Unavailable, match="cannot read on"):
        await reader.poll(0.1)
    with pytest.raises(Unavailable):
        await reader.poll(0.1)
    broker.away = False
    await logs.plain(topic, b"c")
    assert values(await reader.poll(0.1)) == [b"c"]
    broker.away = True
    with pytest.raises(Unavailable):
        await reader.poll(0.1)
    broker.away = False
    await logs.again(topic)
    await logs.plain(topic, b"x", b"y", b"z", b"more")
    found = [*await reader.poll(0.1), *await reader.poll(0.1), *await reader.poll(0.1)]
    assert found[0] == Reset(topic, 0, 3)
    assert [row.value for row in found if isinstance(row, Record)] == [b"x", b"y", b"z", b"more"]
    await reader.stop()
