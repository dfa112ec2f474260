"""The View: a read-only table of a compacted topic, whole before the lanes open, then followed. No group, no commits."""

import asyncio
import logging
from collections.abc import Mapping

from schemas.errors import Refused
from schemas.payload import Payload
from streams.port import Broker, BrokerError, Clock
from streams.shapes import Event, P, Record
from streams.wire import Decoder

log = logging.getLogger("streams")
RETRY_S = 0.5


class TopicView:
    """Made before the agents that read it; filled by the runner. While the topic is away it keeps what it holds."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.whole = asyncio.Event()
        self._events: dict[str, Event[Payload]] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._clock: Clock | None = None
        self._current_s = 0.0

    def get(self, model: type[P], key: str) -> Event[P] | None:
        """The newest event under `key`, or None. Raises TypeError when it is not a `model`."""
        found = self._events.get(key)
        if found is None:
            return None
        if not isinstance(found.data, model):
            raise TypeError(f"{self.topic}: {key!r} is a {type(found.data).__name__}, not a {model.__name__}")
        return found  # pyright: ignore[reportReturnType]  the check above says what pyright cannot see

    def items(self, model: type[P]) -> Mapping[str, Event[P]]:
        """All newest events of that payload class by key."""
        events = self._events.items()
        return {key: event for key, event in events if isinstance(event.data, model)}  # pyright: ignore[reportReturnType]

    def age_s(self) -> float:
        """Seconds since the view last knew itself to be at the end of its topic; infinite before it was whole."""
        if self._clock is None or not self.whole.is_set():
            return float("inf")
        return self._clock.monotonic() - self._current_s

    def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether all that lies below these offsets, by partition, was taken in. Not while one of the partitions is unknown."""
        return all(self._positions.get((self.topic, number), -1) >= offset for number, offset in ends.items())

    async def follow(self, broker: Broker, clock: Clock, decoder: Decoder, partitions: int) -> None:
        """Read the topic from its start, for ever."""
        self._clock = clock
        while True:
            try:
                await self._follow(broker, clock, decoder, partitions)
            except (BrokerError, TimeoutError) as error:
                log.warning("view of %s waits for the broker: %s", self.topic, error)
            await clock.sleep(RETRY_S)

    async def _follow(self, broker: Broker, clock: Clock, decoder: Decoder, partitions: int) -> None:
        tps = [(self.topic, number) for number in range(partitions)]
        admin = broker.admin()
        await admin.start()
        try:
            starts, ends = await admin.starts(tps), await admin.ends(tps)
            if not self._positions:
                self._positions = starts
            reader = broker.reader({tp: max(self._positions[tp], starts[tp]) for tp in tps})
            await reader.start()
            try:
                while True:
                    found = await reader.poll(timeout_s=1.0, max_records=5000)
                    for rows in found.values():
                        for row in rows:
                            self._put(row, decoder)
                    for tp in tps:
                        self._positions[tp] = await reader.position(tp)
                    if all(self._positions[tp] >= ends[tp] for tp in tps):
                        self._current_s = clock.monotonic()
                        self.whole.set()
                        if not found:
                            ends = await admin.ends(tps)
            finally:
                await reader.stop()
        finally:
            await admin.stop()

    def _put(self, record: Record, decoder: Decoder) -> None:
        if record.key is None:
            return
        key = record.key.decode("utf-8", "replace")
        if record.value is None:
            self._events.pop(key, None)
            return
        try:
            self._events[key] = decoder(record)
        except Refused as error:
            log.error("view of %s leaves out %s: %s", self.topic, record.place, error)  # noqa: TRY400  no traceback
