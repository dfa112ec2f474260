"""The Fold lane: events one after the other into keyed state, whose changes go to a compacted changelog in the transaction.

`streams.state` says what the changelog `<agent>.state` holds, `streams.order` what the order topic says.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from schemas import ids
from schemas.errors import Refused
from schemas.topics import order_topic, state_topic
from streams import snapshot
from streams.lane import Lane, Prefix, Surroundings
from streams.order import TICK, Position, SnapshotTaken, encode_runs, encode_snapshot
from streams.port import BrokerError, Lost, Outgoing, Reader
from streams.restore import POSITION, SNAPSHOT, read_to, unnamed_starts
from streams.shapes import AnyFold, Change, Out, Place, Record, Tick
from streams.state import StateStore, state_version, torn
from streams.wire import Cause, Sent, TooLarge, cause_of, letter, outgoing

log = logging.getLogger("streams")
YIELD_EVERY = 100
SNAPSHOT_YIELD = 500
SNAPSHOT_RETRY_S = 600.0
LOOK_S = 0.25


class FoldLane(Lane):
    """Runs a Fold on one partition."""

    def __init__(
        self, around: Surroundings, fold: AnyFold, inputs: Sequence[str], partition: int, reader: Reader
    ) -> None:
        super().__init__(around, fold.name, inputs, partition, reader)
        self.fold = fold
        self.state = state_topic(fold.name)
        self.order = order_topic(fold.name)
        self.version = state_version(fold)
        self.table: StateStore = around.state(fold)
        self.queue: deque[Record | Tick] = deque()
        self.position: dict[str, int] = {}  # folded
        self.last_tick_ms = 0
        self.snapshot_ms = 0  # when the last one was taken; 0: not known
        self._pending = Prefix(0, {})
        self._runs: list[list[str | int]] = []
        self._orders: list[bytes] = []  # order records that stand before those runs
        self._kept: list[Outgoing] = []  # changelog rows of the lane itself
        self._ticked = False
        self._touch = False
        self._said_s = 0.0  # when the changelog was written last
        self._waiting: dict[str, int] = {}
        self._work_ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def restore(self, committed: Mapping[str, int]) -> None:
        """The changelog, start to end; its position must be the committed one, else ask again, then crash."""
        admin, tp = self.around.admin, (self.state, self.partition)
        start, end = (await admin.starts([tp]))[tp], (await admin.ends([tp]))[tp]
        state, raw = self.around.state(self.fold), dict[bytes, bytes | None]()
        began = self.around.clock.monotonic()

        async def take(rows: Sequence[Record], at: int) -> bool:
            for row in rows:
                if row.key in (POSITION, SNAPSHOT):
                    raw[row.key] = row.value
                elif row.key is not None:
                    state.load(row)
            self._notice("restoring", (at - start) / (end - start), f"{at - start} of {end - start}")
            return True

        await read_to(self.around.broker, tp, start, end, take)
        position = Position.of(raw.get(POSITION))
        self._check_version(position)
        for _ in state.settle():
            await asyncio.sleep(0)
        starts = await unnamed_starts(self.around.admin, position, [(topic, self.partition) for topic in self.inputs])
        if torn(position, committed, starts):
            again = await self._committed()
            wrong = torn(position, again, starts)
            if wrong or again != committed:
                found = "; ".join(wrong) or f"the group said {committed}, then {again}"
                raise AssertionError(
                    f"{self.agent}[{self.partition}]: changelog and committed offsets differ: {found}: "
                    f"put {self.state} back as it was at those offsets, else delete the group, {self.state} and {self.order} and "
                    "make them anew (`ratchet up`): the log is then folded again from its start and every output sent again"
                )
        self.stand_at(state, Position(committed, position.tick_ms))
        self.snapshot_ms = json.loads(raw.get(SNAPSHOT) or b'{"at": 0}')["at"]
        self._notice("restored", self.around.clock.monotonic() - began)

    def stand_at(self, state: StateStore, position: Position) -> None:
        """Go on from a state and its position: of the changelog, or, in a replay, of a snapshot."""
        self.table, self.position, self.last_tick_ms = state, dict(position.following), position.tick_ms

    def _check_version(self, position: Position) -> None:
        if position.version > self.version:
            raise Refused(
                f"{self.agent}[{self.partition}]: {self.state} holds state of version {position.version}, this code knows "
                f"version {self.version}: run the newer code again",
                kind="state-version",
                accepted=f"at most version {self.version}",
            )

    def begin_work(self) -> None:
        self.queue = deque()
        self._pending, self._runs, self._orders, self._kept = Prefix(0, {}), [], [], []
        if not self.snapshot_ms and self.around.artifacts is not None:
            spread = ids.coin(f"{self.agent}-{self.partition}", "snapshot") / 65_536  # not all lanes at once
            self._count_from(self.around.clock.now_ms() - int(spread * self.settings.snapshot_s * 1000))
        self._ticked = self._touch = False
        self._said_s = self.around.clock.monotonic()
        self._waiting = {}
        self._work_ready = asyncio.Event()
        self._tasks = [asyncio.create_task(self._fold_forever()), asyncio.create_task(self._tick_forever())]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, BrokerError):
            self.broken(error)
        else:
            self.crash(error, self.working)

    def take(self, record: Record) -> None:
        self.queue.append(record)
        self._waiting[record.topic] = self._waiting.get(record.topic, 0) + 1
        self._work_ready.set()

    async def _fold_forever(self) -> None:
        clock = self.around.clock
        while True:
            await self._work_ready.wait()
            began = clock.monotonic()
            for _ in range(min(YIELD_EVERY, len(self.queue))):
                self.fold_now(self.queue.popleft())
            self.working = None
            self._pending.worked_s += clock.monotonic() - began
            if not self.queue:
                self._work_ready.clear()
            self.moved()
            await asyncio.sleep(0)
            next_ms = self.snapshot_ms + self.settings.snapshot_s * 1000
            if self.around.artifacts is not None and clock.now_ms() >= next_ms:
                await self._snapshot(clock.now_ms())

    async def _snapshot(self, now_ms: int) -> None:
        """Leave the whole state in the artifact store; the next transaction says so in the order topic and in the changelog.

        Folding rests meanwhile, commits do not. An artifact store that is away costs this snapshot, not the lane.
        """
        began = self.around.clock.monotonic()
        position = Position(dict(self.position), self.last_tick_ms, self.version)
        lines = [snapshot.head(self.agent, self.partition, position)]
        for row in self.table.rows():
            lines.append(snapshot.line(row))
            if len(lines) % SNAPSHOT_YIELD == 0:
                await asyncio.sleep(0)
        try:
            digest = await self.keep(b"".join(lines))
        except Lost as error:
            log.warning("%s[%d] takes no snapshot: %s", self.agent, self.partition, error)
            self.snapshot_ms = now_ms - int(1000 * (self.settings.snapshot_s - SNAPSHOT_RETRY_S))
            return
        if self._runs:
            self._orders.append(encode_runs(self._runs))
            self._runs = []
        self._orders.append(encode_snapshot(SnapshotTaken(digest, position, now_ms)))
        self._count_from(now_ms, digest)
        self._notice("snapshot", self.around.clock.monotonic() - began, digest)
        self.moved()

    def _count_from(self, at_ms: int, digest: str = "") -> None:
        self.snapshot_ms = at_ms
        said = {"at": at_ms, "digest": digest} if digest else {"at": at_ms}
        self._kept.append(Outgoing(SNAPSHOT, json.dumps(said).encode()))

    def fold_now(self, item: Record | Tick) -> None:
        """Fold one record or tick; `cut` then says what it gave. A replay does only this, on a lane that never opens."""
        if isinstance(item, Tick):
            self._fold_tick(item)
        else:
            self._fold_record(item)

    def _fold_record(self, record: Record) -> None:
        self.working = record.place
        self.position[record.topic] = record.offset + 1
        run = self._runs[-1] if self._runs else None
        if run is not None and run[0] == record.topic:
            run[2] = record.offset
        else:
            self._runs.append([record.topic, record.offset, record.offset])
        pending = self._pending
        pending.events += 1
        pending.following[record.topic, self.partition] = record.offset + 1
        try:
            event = self.around.decoder(record)
        except Refused as error:
            self._dead(record, error.kind, str(error))
            return
        key = self.fold.state_key(event)
        if key is None:
            return
        change = self.fold.fold(self.table.view(key), event)
        self._apply(key, change, cause_of(event), record)

    def _fold_tick(self, tick: Tick) -> None:
        self.working = None
        self.last_tick_ms = tick.at_ms
        self._runs.append([TICK, tick.at_ms, tick.at_ms])
        self._ticked = False
        self._notice("tick")
        self._pending.events += 1
        for due_ms, key in self.table.due(tick.at_ms):
            self.working = Place(f"{TICK} of {key!r}", self.partition, tick.at_ms)
            tick_id = ids.derive(f"{TICK}/{key}", self.agent, str(tick.at_ms))
            own = Tick(tick.at_ms, tick_id, ids.trace_parent(None, tick_id))
            change = self.fold.fold(self.table.view(key), own)
            place = f"{TICK}[{self.partition}]@{tick.at_ms}"
            self._apply(key, change, Cause(tick_id, key.encode(), own.traceparent, place, self.partition), None)
            self.table.keep_due(key, due_ms)

    def _apply(self, key: str, change: Change[Any, Any], cause: Cause, record: Record | None) -> None:
        outs: Sequence[Out] = change.emits
        if outs:
            at_ms = record.timestamp_ms if record is not None else self.last_tick_ms
            try:
                self._pending.sent += outgoing(
                    outs, cause, agent=self.agent, partitions=self.around.partitions, now_ms=lambda: at_ms
                )
            except TooLarge as error:
                if record is None:
                    raise
                self._dead(record, "oversize", str(error))
                return  # the state moves with the outputs or not at all
        self.table.apply(key, change)

    def _dead(self, record: Record, kind: str, message: str) -> None:
        self._notice("dead_letter", text=kind)
        at_ms = record.timestamp_ms
        self._pending.sent.append(letter(record, agent=self.agent, kind=kind, message=message, attempts=1, at_ms=at_ms))

    async def _tick_forever(self) -> None:
        """Makes a tick when one is due, and holds it until every input has been read to the end it had then."""
        clock, tps = self.around.clock, [(topic, self.partition) for topic in self.inputs]
        while True:
            await clock.sleep(LOOK_S)
            if clock.monotonic() >= self._said_s + self.settings.touch_s and not self.finished():
                self._touch = True  # what was removed from a quiet state stays in it otherwise
                self.moved()
            now, due_ms = clock.now_ms(), self.table.next_due_ms()
            if due_ms is None or due_ms > now or now < self.last_tick_ms + self.settings.tick_s * 1000 or self._ticked:
                continue
            ends = await self.around.admin.ends(tps)
            while not await self._read_to(ends):
                await clock.sleep(LOOK_S / 5)
            self._ticked = True
            self.queue.append(Tick(now, "", ""))
            self._work_ready.set()

    async def _read_to(self, ends: Mapping[tuple[str, int], int]) -> bool:
        for tp, end in ends.items():
            if self.expected[tp[0]] < end and await self.reader.position(tp) < end:
                return False
        return True

    async def tell(self, ends: Mapping[tuple[str, int], int]) -> None:
        await super().tell(ends)
        self._notice("state_keys", len(self.table))

    def held(self, topic: str) -> int:
        return self._waiting.get(topic, 0)

    def finished(self) -> int:
        return self._pending.events + len(self._orders) + self._touch

    def idle(self) -> bool:
        return super().idle() and not self.finished()

    def cut(self) -> Prefix:
        prefix, self._pending = self._pending, Prefix(0, {})
        orders, self._orders = [*self._orders, *([encode_runs(self._runs)] if self._runs else [])], []
        kept, self._kept, self._runs, self._touch = self._kept, [], [], False
        if not prefix.following:  # a tick or a touch alone moves no offset; its transaction names them all the same
            prefix.following = {(topic, self.partition): self.position[topic] for topic in self.inputs}
        position = Position(self.position, self.last_tick_ms, self.version)
        rows = [*self.table.changes(), *kept, Outgoing(POSITION, position.encode())]
        prefix.sent += [Sent(self.state, self.partition, row) for row in rows]
        number = str(self.partition).encode()
        prefix.sent += [Sent(self.order, self.partition, Outgoing(number, said)) for said in orders]
        return prefix

    def advance(self, prefix: Prefix) -> None:
        self._said_s = self.around.clock.monotonic()
        self._waiting = {}
        for item in self.queue:
            if isinstance(item, Record):
                self._waiting[item.topic] = self._waiting.get(item.topic, 0) + 1

    def rest(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def forget(self) -> None:
        self.rest()
        self.working = None
        self.queue = deque()
        self._waiting = {}
        self._pending, self._runs, self._orders, self._kept = Prefix(0, {}), [], [], []
        self.table = self.around.state(self.fold)
