"""One lane: one agent's work on one partition number, over all its input topics. Opening, committing, dropping.

Rules:
1. One transactional producer per lane, its id shared by all owners: only the epoch of such an id fences a zombie.
2. Committed offsets are asked for only after fencing, and missing is never zero.
3. A transaction holds outputs, state and offsets of a finished prefix; every send is awaited before the commit.
4. After any error the outcome is unknown: drop producer, windows and state, reopen; never retry or abort on the old producer.
5. Between a poll and the windows nothing is awaited. Memory moves only after Kafka has.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import Refused, Unavailable
from streams.crashes import POISON_AFTER, Crashes
from streams.port import (
    NONE,
    TP,
    BrokerError,
    Fenced,
    Lost,
    Outgoing,
    Reader,
    ShutOut,
    TransactionalProducer,
)
from streams.shapes import Place, Record
from streams.surroundings import AgentCrashed, Fatal, MissingOffset, Notice, Observe, RuntimeSettings, Surroundings
from streams.wire import Sent

log = logging.getLogger("streams")
COMMIT_SHARE = 0.75  # of the time to let go, for finished work; the rest is the producer's
CANCEL_AGAIN_S = 0.25
LEAST_S = 0.05


@dataclass(slots=True)
class Prefix:
    """What one transaction holds."""

    events: int
    following: dict[TP, int]  # next offsets of the inputs that moved
    sent: list[Sent] = field(default_factory=list[Sent])
    worked_s: float = 0.0

    def grouped(self) -> dict[TP, list[Outgoing]]:
        found: dict[TP, list[Outgoing]] = {}
        for row in self.sent:
            found.setdefault((row.topic, row.partition), []).append(row.record)
        return found


class Lane(ABC):
    """Shared life of Transform and Fold lanes. `accept` is called by the agent's poll loop, the rest by the lane's task."""

    def __init__(self, around: Surroundings, agent: str, inputs: Sequence[str], partition: int, reader: Reader) -> None:
        self.around = around
        self.settings = around.settings
        self.agent = agent
        self.group = f"ratchet.{agent}"
        self.inputs = tuple(inputs)
        self.partition = partition
        self.reader = reader
        self.open = False
        self.draining = False
        self.leaving = False
        self.done: dict[str, int] = {}  # committed next offsets
        self.expected: dict[str, int] = {}
        self.halt_at: str | None = None
        self.halted: Place | None = None
        self._crashes = Crashes(around.state_dir, agent, partition)
        self._crashed = False
        self.working: Place | None = None
        self._producer: TransactionalProducer | None = None
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._broken: BaseException | None = None
        self._accepted = False
        self._paused: set[str] = set()
        self._backoff_s = self.settings.backoff_s

    # what a shape defines

    async def restore(self, committed: Mapping[str, int]) -> None:  # noqa: B027  a shape without state has nothing to do
        """Bring the state to what the committed offsets say."""

    @abstractmethod
    def begin_work(self) -> None:
        """Start tasks; the lane is open."""

    @abstractmethod
    def take(self, record: Record) -> None:
        """Let one accepted record in."""

    @abstractmethod
    def held(self, topic: str) -> int:
        """Events of a topic that are not committed yet."""

    @abstractmethod
    def finished(self) -> int:
        """Events that the next transaction could take."""

    @abstractmethod
    def cut(self) -> Prefix:
        """Take the finished prefix out."""

    @abstractmethod
    def rest(self) -> None:
        """Cancel work, keep what is finished. Synchronous."""

    @abstractmethod
    def forget(self) -> None:
        """Cancel work, drop windows and state. Synchronous."""

    # life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"{self.agent}-{self.partition}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.around.fatal(error, self.agent, self.partition, self.working)

    def crash(self, error: BaseException, place: Place | None) -> None:
        """An agent's own fault: remembered for the count of crashes at one place, then fatal, counted or not.

        Only a lane's first crash counts: of several bad records in its windows each would begin the count anew. One at a tick never
        does, for there is no record to halt before.
        """
        try:
            if place is not None and place.topic in self.inputs and not self._crashed:
                self._crashed = True
                self._crashes.count(place)
        except OSError as uncounted:
            log.error("%s[%d]: the crash at %s is not counted: %r", self.agent, self.partition, place, uncounted)  # noqa: TRY400  the crash's own trace follows
        finally:
            self.around.fatal(error, self.agent, self.partition, place)

    async def _run(self) -> None:
        while not self.leaving:
            wait_s = 0.0
            try:
                async with asyncio.timeout(self.settings.open_bound_s):
                    await self._open()
                await self._commit_on()
            except Fenced as error:
                self._notice("fenced", text=str(error))
                wait_s = self.settings.fenced_wait_s
                log.warning("%s[%d] fenced, waits %.1f s: %s", self.agent, self.partition, wait_s, error)
            except ShutOut as error:
                raise Refused(str(error), kind="forbidden") from error
            except (BrokerError, TimeoutError) as error:
                wait_s = self._backoff_s
                self._backoff_s = min(2 * wait_s, self.settings.backoff_max_s)
                self._notice("dropped", text=repr(error))
                log.warning(
                    "%s[%d] dropped at %s, reopens in %.1f s: %r",
                    self.agent,
                    self.partition,
                    self.expected,
                    wait_s,
                    error,
                )
            else:
                return
            if self.leaving:
                return
            await self._drop()
            if not self.leaving:
                await self.around.clock.sleep(wait_s)

    async def _open(self) -> None:
        """Fence, committed, restore, seek: in this order, and nothing awaited between seek and accepting."""
        around = self.around
        self._producer = around.broker.transactional(f"{self.group}-{self.partition}")
        await self._producer.start()
        await self.point("fenced")
        committed = await self._committed()
        await self.point("committed")
        await self.restore(committed)
        await self.point("restored")
        if self.leaving:
            raise Lost("let go while it opened")
        self.halt_at, self.halted = self._crashes.halted_at(), None
        self._broken = None
        self._due.clear()
        self._paused.clear()
        self.expected, self.done = dict(committed), dict(committed)
        tps = [(topic, self.partition) for topic in self.inputs]
        for topic, partition in tps:
            self.reader.seek((topic, partition), committed[topic])
        if not self.draining:  # whoever was asked to drain stays so, however often it opens
            self.reader.resume(tps)
        self.open = True
        self.begin_work()
        self._notice("opened")
        await self.point("opened")

    async def _committed(self) -> dict[str, int]:
        """Committed offsets of every input. Asks again while the broker does not know; refuses where there is none."""
        tps = [(topic, self.partition) for topic in self.inputs]
        while True:
            found = await self.around.admin.committed(self.group, tps)
            missing = [topic for topic, _ in tps if found.get((topic, self.partition)) == NONE]
            if missing:
                raise MissingOffset(
                    f"group {self.group} has no committed offset for {', '.join(missing)} partition {self.partition}: "
                    "create the groups with explicit offsets (`ratchet up`); a missing offset is never read as zero",
                    kind="missing-offset",
                )
            if len(found) == len(tps):
                return {topic: offset for (topic, _), offset in found.items()}
            await self.around.clock.sleep(0.1)

    def accept(self, topic: str, records: Sequence[Record]) -> None:
        """Let polled records into the windows. Synchronous, so that no rebalance falls between."""
        if not self._lets_in():
            return
        accepted = 0
        for record in records:
            if record.offset < self.expected[topic]:
                raise AssertionError(f"{record.place} is below the expected {self.expected[topic]}")
            if self.halt_at is not None and str(record.place) == self.halt_at:
                self._halt(record.place)
                break
            self.expected[topic] = record.offset + 1
            self.take(record)
            accepted += 1
        self._accepted = True
        self._notice("accepted", accepted)
        if self.held(topic) >= self.settings.window and topic not in self._paused:
            self._paused.add(topic)
            self.reader.pause([(topic, self.partition)])
        if self.around.fault is not None:
            self._due.set()

    def _lets_in(self) -> bool:
        """Whether new records are taken: the lane is open, was not asked to drain, and has not halted."""
        return self.open and not self.draining and self.halted is None

    def _halt(self, place: Place) -> None:
        self.halted = place  # what is in the windows still commits; the rest of the process goes on
        self.reader.pause([(name, self.partition) for name in self.inputs])
        self._notice("halted", text=str(place))
        log.error(
            "%s[%d] halts: %s crashed it %d times; see `ratchet dlq`", self.agent, self.partition, place, POISON_AFTER
        )

    async def look_if_freed(self) -> None:
        """Reopen a halted lane whose record was skipped (`streams.repair`): its group's offset has passed it."""
        halted = self.halted
        if halted is not None and self.open:
            tp = (halted.topic, self.partition)
            if (await self.around.admin.committed(self.group, [tp])).get(tp, NONE) > halted.offset:
                self.broken(Lost(f"{halted} was skipped"))

    def moved(self) -> None:
        """To be called when an event has been finished: starts the linger, or commits at once when a batch is full or no more comes."""
        if self._due.is_set():
            return
        if self.finished() >= self.settings.batch or (not self._lets_in() and self.finished()):
            self._due.set()
        elif self._timer is None and self.finished():
            self._timer = asyncio.get_running_loop().call_later(self.settings.linger_s, self._due.set)

    def broken(self, error: BaseException) -> None:
        """Make the lane's task raise `error`."""
        self._broken = error
        self._due.set()

    async def _commit_on(self) -> None:
        """Until an error, or until nothing is finished on a lane that leaves."""
        while self.finished() or not self.leaving:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._broken is not None:
                raise self._broken
            if self._accepted:
                self._accepted = False
                await self.point("accepted")
            if self.finished():
                await self._commit(self.cut())
                self._backoff_s = self.settings.backoff_s
                self._resume()
                self.moved()

    async def _commit(self, prefix: Prefix) -> None:
        """One transaction: outputs, state, order, offsets. After any error the outcome is unknown: the lane drops."""
        producer, clock = self._producer, self.around.clock
        if producer is None:
            raise Lost("no producer")
        await self._keep_blobs(prefix)
        async with self.around.gate, asyncio.timeout(self.settings.commit_bound_s):
            began = clock.monotonic()
            await producer.begin()
            await self.point("begun")
            waiting = [
                future
                for (topic, partition), records in prefix.grouped().items()
                for future in await producer.send(topic, partition, records)
            ]
            await self.point("sent")
            await producer.offsets(prefix.following, self.group)
            await self.point("offsets")
            for future in waiting:
                await future  # a refused batch does not fail the commit by itself
            await self.point("acknowledged")
            await producer.commit()
            await self.point("ended")
        await self.point("done")
        self.done |= {topic: offset for (topic, _), offset in prefix.following.items()}
        self.advance(prefix)
        self._notice("committed", prefix.events)
        self._notice("emitted", len(prefix.sent))
        self._notice("worked_s", prefix.worked_s)
        self._notice("commit_s", clock.monotonic() - began)

    async def _keep_blobs(self, prefix: Prefix) -> None:
        """What emits carry goes into the artifact store before the transaction that names it."""
        blobs = [row.blob for row in prefix.sent if row.blob is not None]
        if blobs:
            async with asyncio.timeout(self.settings.commit_bound_s):
                for blob in blobs:
                    await self.keep(blob)

    async def keep(self, data: bytes) -> str:
        """Put bytes into the artifact store; Lost where it does not take them."""
        store = self.around.artifacts
        if store is None:
            raise AssertionError(f"{self.agent} emits a blob, and its runner was given no artifact store")
        try:
            return await asyncio.to_thread(store.put_bytes, data)
        except (OSError, Unavailable) as error:
            raise Lost(f"the artifact store does not take {len(data)} bytes: {error}") from error

    @abstractmethod
    def advance(self, prefix: Prefix) -> None:
        """Memory moves: Kafka has."""

    def _resume(self) -> None:
        for topic in [name for name in self._paused if self.held(name) <= self.settings.window // 2]:
            self._paused.discard(topic)
            if self._lets_in():
                self.reader.resume([(topic, self.partition)])

    def shut(self) -> None:
        """Stop accepting and working, at once."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.forget()

    async def _drop(self) -> None:
        self.shut()
        try:
            self.reader.pause([(topic, self.partition) for topic in self.inputs])
        except BrokerError:
            log.debug("%s[%d] was taken away while dropping", self.agent, self.partition)
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop(self.settings.revoke_bound_s)

    async def release(self, until_s: float) -> None:
        """Revoked: let no more in, stop working, commit what is finished while the time lasts, let go. Nothing is committed after.

        `until_s` (loop time) bounds all of it. What was not finished is worked on again by the next owner.
        """
        task = self._task
        if self.open and task is not None:
            self.draining = self.leaving = True
            self.rest()
            self._due.set()
            await asyncio.wait([task], timeout=COMMIT_SHARE * self._left(until_s))
        await self.close(until_s)

    async def close(self, until_s: float | None = None) -> None:
        """Cancel all, let the producer go, commit nothing more, never open again.

        The client, when it stops, takes a cancellation of its caller for one of its own task and goes on: so the lane's task is
        told twice over. A lane that lived on would fence its successor each time it opened.
        """
        self.leaving = True
        self.shut()
        until_s = until_s or asyncio.get_running_loop().time() + self.settings.revoke_bound_s
        task = self._task
        if task is not None:
            task.cancel()
            while not (await asyncio.wait([task], timeout=min(CANCEL_AGAIN_S, self._left(until_s))))[0]:
                if self._left(until_s) <= LEAST_S:
                    break
                task.cancel()
        producer, self._producer = self._producer, None
        try:
            if producer is not None:
                await producer.stop(self._left(until_s))
            await self.point("revoked")
        except BrokerError as error:
            log.warning("%s[%d] let go with %s", self.agent, self.partition, error)
        self._notice("closed")

    @staticmethod
    def _left(until_s: float) -> float:
        return max(LEAST_S, until_s - asyncio.get_running_loop().time())

    def kill(self) -> None:
        """For tests: the process is gone; nothing is told to the broker."""
        self.shut()
        if self._task is not None:
            self._task.cancel()

    def idle(self) -> bool:
        """Nothing accepted is uncommitted."""
        return not self.open or not any(self.held(topic) for topic in self.inputs)

    async def tell(self, ends: Mapping[TP, int]) -> None:
        """How far behind the last stable offsets the lane is. Markers behind the last record are not counted as such."""
        lag = 0
        for topic in self.inputs:
            at = self.done.get(topic, 0)
            if self.halted is None and not self.held(topic):
                at = max(at, await self.reader.position((topic, self.partition)))
            lag += max(0, ends.get((topic, self.partition), 0) - at)
        self._notice("lag", lag)

    async def point(self, name: str) -> None:
        if self.around.fault is not None:
            await self.around.fault(name, self.agent, self.partition)

    def _notice(self, kind: str, value: float = 1.0, text: str = "") -> None:
        self.around.observe(Notice(kind, self.agent, self.partition, value, text))


__all__ = [
    "AgentCrashed",
    "Fatal",
    "Lane",
    "MissingOffset",
    "Notice",
    "Observe",
    "Prefix",
    "RuntimeSettings",
    "Surroundings",
]
