"""Reading a partition from an offset to an end that was asked for: what restoring and repairing share."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from streams.order import Position
from streams.port import TP, Admin, Broker
from streams.shapes import Record

POSITION = b"~position"
SNAPSHOT = b"~snapshot"
RECORDS = 5000
Take = Callable[[Sequence[Record], int], Awaitable[bool]]


async def read_to(broker: Broker, tp: TP, start: int, end: int, take: Take) -> None:
    """Give `take` committed records in order, and the position behind them, until `end` or until it says False.

    However this ends, by cancellation too, the reader is stopped.
    """
    if end <= start:
        return
    reader = broker.reader({tp: start})
    try:
        await reader.start()
        position = start
        while position < end:
            rows = (await reader.poll(timeout_s=0.2, max_records=RECORDS)).get(tp, ())
            position = await reader.position(tp)
            if not await take(rows, position):
                return
    finally:
        await reader.stop()


async def last_under(broker: Broker, tp: TP, start: int, end: int, key: bytes) -> bytes | None:
    """The newest value under `key`, None where there is none."""
    found: list[bytes | None] = [None]

    async def take(rows: Sequence[Record], position: int) -> bool:
        found[0] = next((row.value for row in reversed(rows) if row.key == key), found[0])
        return True

    await read_to(broker, tp, start, end, take)
    return found[0]


async def first_from(broker: Broker, tp: TP, start: int, end: int) -> Record | None:
    """The first committed record at or after `start`, before `end`."""
    found: list[Record] = []

    async def take(rows: Sequence[Record], position: int) -> bool:
        found.extend(rows[:1])
        return not rows

    await read_to(broker, tp, start, end, take)
    return found[0] if found else None


async def unnamed_starts(admin: Admin, position: Position, inputs: Iterable[TP]) -> dict[str, int]:
    """Where those inputs of one partition begin that the position does not name; what `streams.state.torn` needs."""
    tps = [tp for tp in inputs if tp[0] not in position.following]
    return {topic: at for (topic, _), at in (await admin.starts(tps)).items()} if tps else {}
