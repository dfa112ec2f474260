"""A broker in memory behind the same port: for tests of the runtime's promises, and to run whole agents in-process.

It is as unkind as a real one: transaction markers and aborted records take offsets, readers stop at the last stable offset,
`start` of a transactional id decides its former transaction and fences it, offset commits of memberless zombies are accepted,
a refused batch does not fail its transaction, offsets can be unknown while loading, sessions and transactions time out by the
injected clock, a rebalance takes all partitions away and gives whole columns.

    broker = MemoryBroker(partitions=4)                 # topics exist on first use; groups start at the log's start
    broker.publish(RequestSubmitted(...), event_id="r-1")
    runner = Runner(broker, SystemClock()); runner.add_transform(Router(runner.view("policies")))
    await run_until(runner, lambda: len(broker.events("ratchet.decisions")) == 1)
    decision = broker.events("decisions")[0].data       # decoded, committed ones only, in the order they were written

`MemoryBroker(offsets=False)` knows no group offsets until `set_offsets`; `loading = True` makes offsets unknown; `away = True`
makes every call raise `Lost`; `refuse = {topic}` refuses batches; `compact(topic)` keeps the newest per key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from schemas import ids
from schemas.codec import encode
from schemas.payload import Payload
from schemas.topics import PREFIX
from streams.port import NONE, TP, BrokerError, Clock, Fenced, Listener, Lost, Outgoing, OutOfRange, Rejected, TopicSpec
from streams.runner import Runner
from streams.shapes import Event, Gap, Headers, Record
from streams.wire import decode, largest, partition_of, size_of, valued

SESSION_S = 6.0
TRANSACTION_S = 10.0
START_MS = 1_700_000_000_000


class LoopClock:
    """Time of the running event loop, the wall clock counted from a fixed instant."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return START_MS + int(self.monotonic() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class Entry:
    """One offset of a log: a record, a marker, or (compacted) nothing."""

    seq: int
    record: Record | None
    owner: str | None = None  # transactional id
    fate: str = "plain"  # plain, open, committed, aborted, marker, gone


@dataclass(slots=True)
class Log:
    entries: list[Entry] = field(default_factory=list[Entry])
    start: int = 0
    open_from: dict[str, int] = field(default_factory=dict[str, int])  # transactional id -> first open offset

    def stable(self) -> int:
        """The last stable offset."""
        return min(self.open_from.values(), default=len(self.entries))


@dataclass(slots=True)
class Transactions:
    """The coordinator's word on one transactional id."""

    epoch: int = 0
    ongoing: bool = False
    began_s: float = 0.0
    parts: set[TP] = field(default_factory=set[TP])
    offsets: dict[tuple[str, TP], int] = field(default_factory=dict[tuple[str, TP], int])


@dataclass(slots=True)
class Group:
    members: dict[str, "MemoryReader"] = field(default_factory=dict[str, "MemoryReader"])
    seen_s: dict[str, float] = field(default_factory=dict[str, float])
    generation: int = 0


class MemoryBroker:
    """See the module's docstring."""

    def __init__(self, partitions: int = 4, *, clock: Clock | None = None, offsets: bool = True) -> None:
        self.count = partitions
        self.clock: Clock = clock or LoopClock()
        self.logs: dict[TP, Log] = {}
        self.committed: dict[tuple[str, TP], int] = {}
        self.groups: dict[str, Group] = {}
        self.transactions: dict[str, Transactions] = {}
        self.counts: dict[str, int] = {}  # where a topic differs from `count`
        self.specs: dict[str, TopicSpec] = {}  # of topics that were created
        self.away = False
        self.loading = False
        self.refuse: set[str] = set()
        self.aborted_copies = 0  # records that a reader of uncommitted data would have seen
        self._explicit = not offsets
        self._seq = 0
        self._waiters: set[asyncio.Future[None]] = set()

    # for tests

    def publish(
        self, payload: Payload, *, event_id: str | None = None, key: str | None = None, extra: Headers = ()
    ) -> Record:
        """Append an event as an outside producer would, placed by murmur2 of its key."""
        event_id = event_id or ids.derive(f"{payload.event_key()}/{self._seq}", "test", 0)
        row = encode(payload, event_id=event_id, source="test", traceparent="", extra=extra)
        return self.put(PREFIX + payload.TOPIC, row.key if key is None else key.encode(), row.value, row.headers)

    def put(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> Record:
        """Append a raw record."""
        if partition is None:
            partition = partition_of(key or b"", self.partitions_of(topic))
        return self.append((topic, partition), Outgoing(key, value, headers), None)

    def records(self, topic: str) -> list[Record]:
        """Committed records of a topic, in the order in which they were written."""
        topic = topic if topic.startswith(PREFIX) else PREFIX + topic
        found = [
            (entry.seq, entry.record)
            for (name, _), log in self.logs.items()
            if name == topic
            for entry in log.entries
            if entry.record is not None and entry.fate in ("plain", "committed")
        ]
        return [record for _, record in sorted(found, key=lambda row: row[0])]

    def events(self, topic: str) -> list[Event[Payload]]:
        """The same, decoded."""
        return [decode(record, self.count) for record in self.records(topic) if record.value is not None]

    def compact(self, topic: str) -> None:
        """Keep the newest record of each key, as the cleaner would; the rest leaves gaps."""
        for (name, _), log in self.logs.items():
            newest: dict[bytes | None, int] = {}
            for offset, entry in enumerate(log.entries):
                if name == topic and entry.record is not None and entry.fate in ("plain", "committed"):
                    before = newest.get(entry.record.key)
                    if before is not None:
                        log.entries[before].fate = "gone"
                    newest[entry.record.key] = offset

    def rebalance(self) -> None:
        """Every group takes its partitions away and gives them again, as when a member joins and leaves."""
        for group in self.groups.values():
            group.generation += 1
        self.changed()

    def truncate(self, tp: TP, start: int) -> None:
        """Retention: offsets below `start` are gone."""
        self.log(tp).start = start

    def remove(self, tp: TP, offset: int) -> None:
        """Take one offset out of the log, as no broker does."""
        self.log(tp).entries[offset].fate = "gone"

    def delete(self, topic: str) -> None:
        """Remove a topic with all that is in it, until it is created again."""
        for tp in [tp for tp in self.logs if tp[0] == topic]:
            del self.logs[tp]
        self.specs.pop(topic, None)
        self.counts[topic] = 0
        self.changed()

    # the port

    def group_reader(self, topics: Collection[str], group: str, instance: str, listener: Listener) -> "MemoryReader":
        return MemoryReader(self, {}, tuple(sorted(topics)), group, instance, listener)

    def reader(self, positions: Mapping[TP, int]) -> "MemoryReader":
        return MemoryReader(self, dict(positions))

    def whole_reader(self, positions: Mapping[TP, int]) -> "MemoryWholeReader":
        return MemoryWholeReader(self, dict(positions))

    def transactional(self, transactional_id: str) -> "MemoryTransactionalProducer":
        return MemoryTransactionalProducer(self, transactional_id)

    def producer(self) -> "MemoryProducer":
        return MemoryProducer(self)

    def admin(self) -> "MemoryAdmin":
        return MemoryAdmin(self)

    # inside

    def partitions_of(self, topic: str) -> int:
        return self.counts.get(topic, self.count)

    def log(self, tp: TP) -> Log:
        if not 0 <= tp[1] < self.partitions_of(tp[0]):
            raise Lost(f"{tp} does not exist")
        found = self.logs.get(tp)
        if found is None:
            found = self.logs[tp] = Log()
        return found

    def reachable(self) -> None:
        if self.away:
            raise Lost("the broker is away")
        now = self.clock.monotonic()
        for name, state in self.transactions.items():
            if state.ongoing and now - state.began_s > TRANSACTION_S:
                state.epoch += 1
                self.decide(name, commit=False)
        for group in self.groups.values():
            for name in [name for name, seen in group.seen_s.items() if now - seen > SESSION_S]:
                del group.members[name], group.seen_s[name]
                group.generation += 1

    def append(self, tp: TP, row: Outgoing, owner: str | None) -> Record:
        log = self.log(tp)
        offset = len(log.entries)
        record = Record(tp[0], tp[1], offset, row.key, row.value, valued(row.headers), self.clock.now_ms())
        self._seq += 1
        if owner is not None:
            log.open_from.setdefault(owner, offset)
        log.entries.append(Entry(self._seq, record, owner, "plain" if owner is None else "open"))
        self.changed()
        return record

    def decide(self, name: str, *, commit: bool) -> None:
        """End a transaction: fates, markers, offsets."""
        state = self.transactions[name]
        for tp in sorted(state.parts):
            log = self.log(tp)
            for entry in log.entries[log.open_from.pop(name, len(log.entries)) :]:
                if entry.owner == name and entry.fate == "open":
                    entry.fate = "committed" if commit else "aborted"
                    self.aborted_copies += not commit
            self._seq += 1
            log.entries.append(Entry(self._seq, None, name, "marker"))
        if commit:
            self.committed |= state.offsets
        state.ongoing = False
        state.parts, state.offsets = set(), {}
        self.changed()

    def changed(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for future in waiters:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await future
        self._waiters.discard(future)

    def offset_of(self, group: str, tp: TP) -> int:
        found = self.committed.get((group, tp))
        if found is not None:
            return found
        return NONE if self._explicit else self.log(tp).start


class MemoryReader:
    """A consumer; its heartbeats are its polls."""

    def __init__(
        self,
        broker: MemoryBroker,
        positions: dict[TP, int],
        topics: tuple[str, ...] = (),
        group: str | None = None,
        instance: str = "",
        listener: Listener | None = None,
    ) -> None:
        self.broker = broker
        self.positions = positions
        self.topics = topics
        self.group = group
        self.instance = instance
        self.listener = listener
        self.generation = -1
        self.paused: set[TP] = set()
        self.stopped = True

    def _group(self) -> Group:
        return self.broker.groups.setdefault(self.group or "", Group())

    async def start(self) -> None:
        self.broker.reachable()
        self.stopped = False
        if self.group is not None:
            group = self._group()
            if self.instance not in group.members:
                group.generation += 1  # a static member that comes back makes no rebalance
            group.members[self.instance] = self
            group.seen_s[self.instance] = self.broker.clock.monotonic()
            await self._rebalance()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self.stopped = True  # a static member does not leave: its session must end first
        self.broker.changed()
        await asyncio.sleep(0)

    def _assigned(self) -> dict[TP, int]:
        """Whole columns, dealt in ranges to the members in the order of their names."""
        members = sorted(self._group().members)
        count = min(self.broker.partitions_of(topic) for topic in self.topics)
        each, rest = divmod(count, len(members))
        mine = members.index(self.instance)
        first = mine * each + min(mine, rest)
        numbers = range(first, first + each + (1 if mine < rest else 0))
        return {(topic, number): 0 for topic in self.topics for number in numbers}

    async def _rebalance(self) -> None:
        group = self._group()
        if group.members.get(self.instance) is not self:
            if self.instance not in group.members:  # the session ended while we were away: join again
                group.members[self.instance] = self
                group.generation += 1
            else:
                raise Lost(f"{self.instance} was replaced by its twin")
        group.seen_s[self.instance] = self.broker.clock.monotonic()
        if self.generation == group.generation or self.listener is None:
            return
        if self.positions:
            await self.listener.revoked(list(self.positions))
        self.generation = group.generation
        self.positions = self._assigned()
        self.paused = set(self.positions)
        await self.listener.assigned(list(self.positions))

    def seek(self, tp: TP, offset: int) -> None:
        self._mine(tp)
        self.positions[tp] = offset

    def pause(self, partitions: Collection[TP]) -> None:
        for tp in partitions:
            self._mine(tp)
        self.paused |= set(partitions)

    def resume(self, partitions: Collection[TP]) -> None:
        for tp in partitions:
            self._mine(tp)
        self.paused -= set(partitions)
        self.broker.changed()

    def _mine(self, tp: TP) -> None:
        if tp not in self.positions:
            raise Lost(f"{tp} is not assigned")

    async def position(self, tp: TP) -> int:
        self._mine(tp)
        return self.positions[tp]

    async def poll(self, *, timeout_s: float, max_records: int) -> Mapping[TP, Sequence[Record]]:
        await asyncio.sleep(0)
        self._check()
        if self.group is not None:
            await self._rebalance()
        found = self._take(max_records)
        if not found:
            await self.broker.wait(timeout_s)
            self._check()
            if self.group is None or self._group().generation == self.generation:
                found = self._take(max_records)
        return found

    def _check(self) -> None:
        self.broker.reachable()
        if self.stopped:
            raise Lost("the reader is stopped")

    def _take(self, max_records: int) -> dict[TP, list[Record]]:
        found: dict[TP, list[Record]] = {}
        left = max_records
        for tp, position in self.positions.items():
            if tp in self.paused or left <= 0:
                continue
            log = self.broker.log(tp)
            if position < log.start:
                raise OutOfRange(f"{tp} begins at {log.start}, position {position} is gone")
            rows: list[Record] = []
            at, end = position, log.stable()
            while at < end and left > 0:
                entry = log.entries[at]
                at += 1
                if entry.record is not None and entry.fate in ("plain", "committed"):
                    rows.append(entry.record)
                    left -= 1
            self.positions[tp] = at
            if rows:
                found[tp] = rows
        return found


class MemoryWholeReader:
    """Each offset, alone at positions given. The kind of a gap is the fate of its entries."""

    def __init__(self, broker: MemoryBroker, positions: dict[TP, int]) -> None:
        self.broker = broker
        self.positions = positions
        self.stopped = True

    async def start(self) -> None:
        self.broker.reachable()
        self.stopped = False
        await asyncio.sleep(0)

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.sleep(0)

    async def poll(self, *, timeout_s: float, max_items: int) -> Mapping[TP, Sequence[Record | Gap]]:
        await asyncio.sleep(0)
        found = self._take(max_items)
        if not found:
            await self.broker.wait(timeout_s)
            found = self._take(max_items)
        return found

    def _take(self, max_items: int) -> dict[TP, list[Record | Gap]]:
        self.broker.reachable()
        if self.stopped:
            raise Lost("the reader is stopped")
        found: dict[TP, list[Record | Gap]] = {}
        for tp, position in self.positions.items():
            log = self.broker.log(tp)
            if not log.start <= position <= len(log.entries):
                raise OutOfRange(f"{tp} is from {log.start} to {len(log.entries)}, not at {position}")
            rows = [self._told(tp, at, log.entries[at]) for at in range(position, log.stable())[:max_items]]
            max_items -= len(rows)
            self.positions[tp] = position + len(rows)
            if rows:
                found[tp] = rows
        return found

    def _told(self, tp: TP, offset: int, entry: Entry) -> Record | Gap:
        if entry.record is not None and entry.fate in ("plain", "committed"):
            return entry.record
        return Gap(*tp, offset, offset, "missing" if entry.fate == "gone" else entry.fate)


class MemoryProducer:
    """Idempotent, no transaction."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def start(self) -> None:
        self.broker.reachable()

    async def stop(self) -> None:
        """Nothing is held."""

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
        self.broker.reachable()
        if topic in self.broker.refuse or any(size_of(row) > largest(topic) for row in records):
            raise Rejected(f"a batch for {topic}[{partition}] is refused")
        for row in records:
            self.broker.append((topic, partition), row, None)
        await asyncio.sleep(0)


class MemoryTransactionalProducer:
    """One transactional id, at the epoch of its start."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self.broker = broker
        self.id = transactional_id
        self.epoch = -1

    def _state(self) -> Transactions:
        self.broker.reachable()
        state = self.broker.transactions[self.id]
        if state.epoch != self.epoch:
            raise Fenced(f"{self.id}: epoch {self.epoch} is not {state.epoch}")
        return state

    async def start(self) -> None:
        await asyncio.sleep(0)
        self.broker.reachable()
        state = self.broker.transactions.setdefault(self.id, Transactions())
        state.epoch += 1
        if state.ongoing:
            self.broker.decide(self.id, commit=False)
        self.epoch = state.epoch

    async def stop(self, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def begin(self) -> None:
        await asyncio.sleep(0)
        self._state()

    def _ongoing(self) -> Transactions:
        state = self._state()
        if not state.ongoing:
            state.ongoing, state.began_s = True, self.broker.clock.monotonic()
        return state

    async def send(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Sequence[Awaitable[object]]:
        await asyncio.sleep(0)
        state = self._ongoing()
        if topic in self.broker.refuse or any(size_of(row) > largest(topic) for row in records):
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(Rejected(f"a batch for {topic}[{partition}] is refused"))
            refused.exception()  # seen: a lane that drops awaits nothing more
            return [refused]
        state.parts.add((topic, partition))
        for row in records:
            self.broker.append((topic, partition), row, self.id)
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        taken.set_result(None)
        return [taken]

    async def offsets(self, following: Mapping[TP, int], group: str) -> None:
        """Members or not: nobody asks for a generation."""
        await asyncio.sleep(0)
        state = self._ongoing()
        state.offsets |= {(group, tp): offset for tp, offset in following.items()}

    async def commit(self) -> None:
        await asyncio.sleep(0)
        self._state()
        self.broker.decide(self.id, commit=True)

    async def abort(self) -> None:
        await asyncio.sleep(0)
        self._state()
        self.broker.decide(self.id, commit=False)


class MemoryAdmin:
    """Topics, offsets, ends."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def start(self) -> None:
        self.broker.reachable()

    async def stop(self) -> None:
        """Nothing is held."""

    async def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, int]:
        await self._ask()
        if self.broker.loading:
            return {}
        return {tp: self.broker.offset_of(group, tp) for tp in partitions}

    async def members(self, group: str) -> tuple[str, ...]:
        await self._ask()
        known = self.broker.groups.get(group)
        return () if known is None else tuple(sorted(known.members))

    async def set_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        await self._ask()
        self.broker.committed |= {(group, tp): offset for tp, offset in offsets.items()}

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        await self._ask()
        return {tp: self.broker.log(tp).stable() for tp in partitions}

    async def starts(self, partitions: Collection[TP]) -> dict[TP, int]:
        await self._ask()
        return {tp: self.broker.log(tp).start for tp in partitions}

    async def offsets_at(self, partitions: Collection[TP], at_ms: int) -> dict[TP, int]:
        await self._ask()
        found: dict[TP, int] = {}
        for tp in partitions:
            entries = self.broker.log(tp).entries
            later = (i for i, row in enumerate(entries) if row.record is not None and row.record.timestamp_ms >= at_ms)
            found[tp] = next(later, len(entries))
        return found

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        await self._ask()
        return {topic: self.broker.partitions_of(topic) for topic in topics if self.broker.partitions_of(topic)}

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        await self._ask()
        specs = self.broker.specs
        return {topic: dict(specs[topic].config) if topic in specs else {} for topic in topics}

    async def replication(self, topics: Collection[str]) -> dict[str, int]:
        await self._ask()
        specs = self.broker.specs
        return {topic: specs[topic].replication if topic in specs else 1 for topic in topics}

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        await self._ask()
        fresh = [row for row in topics if row.name not in self.broker.specs]
        self.broker.specs |= {row.name: row for row in fresh}
        self.broker.counts |= {row.name: row.partitions for row in fresh if not self.broker.counts.get(row.name)}

    async def brokers(self) -> int:
        await self._ask()
        return 1

    async def _ask(self) -> None:
        await asyncio.sleep(0)
        self.broker.reachable()


async def run_until(runner: Runner, condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Run until the condition holds, then stop gracefully. Raises what ends the runner, TimeoutError at the timeout."""
    task = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                if task.done():
                    await task
                    raise AssertionError("the runner ended before the condition held")
                await asyncio.sleep(0.002)
        await runner.stop()
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, BrokerError):
            await task
