"""The runner: agents of one process, their group members, poll loops and lanes; the crash policy; graceful stop.

It is the only place that meets an agent's unexpected error: one log line with agent and place, then the process ends.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import Refused
from schemas.topics import deferred_topic, full, order_topic, state_topic
from streams.fold import FoldLane
from streams.lane import AgentCrashed, Lane, MissingOffset, Notice, Observe, RuntimeSettings, Surroundings
from streams.port import TP, Admin, Artifacts, Broker, BrokerError, Clock, Fault, OutOfRange, Reader, ShutOut
from streams.shapes import AnyFold, Place, Transform
from streams.state import MemoryState, StateStore
from streams.transform import TransformLane
from streams.view import TopicView
from streams.wire import Decoder

log = logging.getLogger("streams")
POLL_S = 0.2
POLL_RECORDS = 500
RETRY_S = 0.5
STALL_S = 0.05


def collect_rarely() -> None:
    """Tell Python's collector that what is there stays and that most of what comes is soon gone. Once per process, when it is built.

    A lane makes some twenty objects per event and holds hundreds of events: with the defaults every seven hundredth allocation
    walks through them, a sixth of a lane's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _ignore(notice: Notice) -> None:
    """Observes nothing."""


@dataclass(slots=True)
class Member:
    """One agent of this process: its group member and its lanes. Also the listener of its rebalances."""

    name: str
    inputs: tuple[str, ...]  # all that the group reads, the deferred topic included
    make: Callable[[int, Reader], Lane]
    around: Surroundings
    instance: str
    reader: Reader | None = None
    lanes: dict[int, Lane] = field(default_factory=dict[int, Lane])
    stopping: bool = False  # from `drain` or `close` on no lane is started

    async def revoked(self, partitions: Collection[TP]) -> None:
        """Everything is revoked at once (the client rebalances eagerly)."""
        until_s = asyncio.get_running_loop().time() + self.around.settings.revoke_bound_s
        lanes, self.lanes = list(self.lanes.values()), {}
        await asyncio.gather(*(lane.release(until_s) for lane in lanes))

    async def assigned(self, partitions: Collection[TP]) -> None:
        """Note the partitions, open lanes in the background, return: no heartbeats run inside this callback."""
        if self.stopping:  # the reader still rejoins until it is stopped: nobody would close these lanes
            return
        columns: dict[int, set[str]] = {}
        for topic, number in partitions:
            columns.setdefault(number, set()).add(topic)
        torn = {number: sorted(set(self.inputs) - found) for number, found in columns.items()}
        torn = {number: missing for number, missing in torn.items() if missing}
        if torn or self.reader is None:
            error = AssertionError(f"{self.name} was given torn columns, missing {torn}")
            self.around.fatal(error, self.name, min(torn, default=0), None)
            return
        for number in sorted(columns):
            lane = self.lanes[number] = self.make(number, self.reader)
            lane.start()

    async def close(self) -> None:
        self.stopping = True
        lanes, self.lanes = list(self.lanes.values()), {}
        for lane in lanes:
            lane.shut()
        await asyncio.gather(*(lane.close() for lane in lanes))

    async def run(self) -> None:
        """Join the group and poll until cancelled. What a poll returns enters the lanes with nothing awaited between."""
        reader = await self._join()
        while True:
            try:
                found = await reader.poll(timeout_s=POLL_S, max_records=POLL_RECORDS)
            except OutOfRange:
                raise
            except BrokerError as error:
                log.warning("%s waits for the broker: %s", self.name, error)
                await self.around.clock.sleep(RETRY_S)
                continue
            for (topic, number), records in found.items():
                lane = self.lanes.get(number)
                if lane is not None:
                    lane.accept(topic, records)
            await asyncio.sleep(0)

    async def _join(self) -> Reader:
        while True:
            reader = self.around.broker.group_reader(self.inputs, f"ratchet.{self.name}", self.instance, self)
            self.reader = reader
            try:
                await reader.start()
            except ShutOut as error:
                raise Refused(str(error), kind="forbidden") from error
            except BrokerError as error:
                log.warning("%s cannot join its group yet: %s", self.name, error)
                await self.around.clock.sleep(RETRY_S)
            else:
                return reader

    async def drain(self) -> None:
        """Accept no more; wait until what was accepted is committed."""
        self.stopping = True
        for lane in self.lanes.values():
            lane.draining = True
            lane.moved()
        while not all(lane.idle() for lane in self.lanes.values()):  # noqa: ASYNC110  many lanes, once
            await asyncio.sleep(0.01)


class Runner:
    """Runs agents on a broker until stopped.

    `instance` names this deployment's process set, `ordinal` this process among its equals: start each ordinal once,
    twins fence each other. `observe` gets every `Notice`; `fault` is the seam of the fault tests; `state_dir` remembers
    crashes (three at one place halt that lane). `decoder` is the composition root's where records are verified too, and
    a benchmark's where the codec is switched off.
    """

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        ordinal: int = 0,
        settings: RuntimeSettings | None = None,
        observe: Observe = _ignore,
        fault: Fault | None = None,
        state_dir: Path | None = None,
        artifacts: Artifacts | None = None,
        state: Callable[[AnyFold], StateStore] = MemoryState,
        decoder: Decoder | None = None,
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.ordinal = ordinal
        self.settings = settings or RuntimeSettings()
        self.views: dict[str, TopicView] = {}
        self.ready = asyncio.Event()  # views are whole and the members have been started
        self._observe = observe
        self._fault = fault
        self._state_dir = state_dir
        self._artifacts = artifacts
        self._state = state
        self._decoder = decoder or Decoder()
        self._transforms: list[tuple[Transform, int | None]] = []
        self._folds: list[AnyFold] = []
        self._members: list[Member] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._admin: Admin | None = None
        self._failed: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()

    def add_transform(self, transform: Transform, *, workers: int | None = None) -> None:
        """Run a Transform; `workers` is how many events of one topic and lane are in work at once."""
        self._transforms.append((transform, workers))

    def add_fold(self, fold: AnyFold) -> None:
        """Run a Fold."""
        self._folds.append(fold)

    def view(self, topic: str) -> TopicView:
        """The view of a topic, to be given to agents' constructors; one per topic. Whole before any lane opens."""
        return self.views.setdefault(full(topic), TopicView(full(topic)))

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group id -> full input topics of every agent added: what `ensure_groups` takes."""
        rows = {
            f"ratchet.{t.name}": (*(full(topic) for topic in t.inputs), deferred_topic(t.name))
            for t, _ in self._transforms
        }
        return rows | {f"ratchet.{f.name}": tuple(full(topic) for topic in f.inputs) for f in self._folds}

    async def run(self) -> None:
        """Until `stop()`, cancellation or a fatal error, which is raised (`AgentCrashed`, `MissingOffset`, …)."""
        self._failed = asyncio.get_running_loop().create_future()
        try:
            await self._unless_stopped(self._start())
            await self._unless_stopped(self._stop.wait())
            await self._drain()
        finally:
            await self._close()

    async def stop(self) -> None:
        """Graceful: accept no more, let accepted work finish within the bound, commit it, leave; `run()` then returns."""
        self._stop.set()

    def kill(self) -> None:
        """For tests: as if by SIGKILL. Nothing is committed, aborted, left or told."""
        for member in self._members:
            for lane in member.lanes.values():
                lane.kill()
            member.lanes = {}
            member.reader = None
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._members = []
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)

    async def _start(self) -> None:
        """The broker, the topics and whole views, each waited for as long as it takes; then the members."""
        around = Surroundings(
            self.broker,
            await self._reach(),
            self.clock,
            self.settings,
            asyncio.Semaphore(self.settings.transactions),
            self._decoder,
            self._observe,
            self._fatal,
            self._fault,
            self._state_dir,
            self._state,
            self._artifacts,
        )
        self._members = self._make_members(around)
        around.partitions = self._decoder.partitions = await self._check_topics(around)
        await self._run_views(around)
        for member in self._members:
            self._spawn(member.run())
        self._spawn(self._look_after(around))
        self._spawn(self._measure_stalls())
        self.ready.set()

    async def _reach(self) -> Admin:
        """An admin that the broker has answered."""
        while True:
            self._admin = self.broker.admin()  # at once, so that it is stopped however this ends
            try:
                await self._admin.start()
            except ShutOut as error:  # waiting mends no password; a fresh start reads the secret again
                raise Refused(str(error), kind="forbidden") from error
            except BrokerError as error:
                log.warning("waiting for the broker: %s", error)
                await self._admin.stop()
                await self.clock.sleep(RETRY_S)
            else:
                return self._admin

    def _make_members(self, around: Surroundings) -> list[Member]:
        members: list[Member] = []
        for transform, workers in self._transforms:
            inputs = tuple(full(topic) for topic in transform.inputs)

            def make_transform(
                number: int,
                reader: Reader,
                t: Transform = transform,
                i: tuple[str, ...] = inputs,
                w: int = workers or self.settings.workers,
            ) -> Lane:
                return TransformLane(around, t, i, w, number, reader)

            members.append(
                self._member(transform.name, (*inputs, deferred_topic(transform.name)), make_transform, around)
            )
        for fold in self._folds:
            inputs = tuple(full(topic) for topic in fold.inputs)

            def make_fold(number: int, reader: Reader, f: AnyFold = fold, i: tuple[str, ...] = inputs) -> Lane:
                return FoldLane(around, f, i, number, reader)

            members.append(self._member(fold.name, inputs, make_fold, around))
        for member in members:
            for topic in member.inputs:
                self._decoder.add_reader(topic)
        return members

    def _member(
        self, name: str, inputs: tuple[str, ...], make: Callable[[int, Reader], Lane], around: Surroundings
    ) -> Member:
        return Member(name, inputs, make, around, f"{name}-{self.ordinal}")

    async def _check_topics(self, around: Surroundings) -> int:
        """The one partition count of every topic that lanes and views read and that Folds keep their state and order in.

        Refuses where one is missing or differs. Topics that are only written, of emits and dead letters, are known when they
        are: `ratchet doctor` compares all of them with the table.
        """
        names = {topic for member in self._members for topic in member.inputs} | set(self.views)
        for fold in self._folds:
            names |= {state_topic(fold.name), order_topic(fold.name)}
        while True:
            try:
                counts = await around.admin.partitions(names)
                break
            except BrokerError as error:
                log.warning("waiting for the topics: %s", error)
                await self.clock.sleep(RETRY_S)
        missing = sorted(names - set(counts))
        if missing:
            raise Refused(f"topics are missing: {', '.join(missing)}; `ratchet up` creates them", kind="missing-topic")
        if len(set(counts.values())) > 1:
            raise Refused(f"topics must have equally many partitions, found {counts}", kind="torn-topics")
        return next(iter(counts.values()), 1)

    async def _run_views(self, around: Surroundings) -> None:
        for view in self.views.values():
            self._spawn(view.follow(self.broker, self.clock, self._decoder, around.partitions))
        for view in self.views.values():
            await view.whole.wait()

    async def _look_after(self, around: Surroundings) -> None:
        """Every few seconds: how far each lane is behind, and whether halted lanes were freed."""
        while True:
            await self.clock.sleep(self.settings.look_s)
            for member in self._members:
                lanes = [lane for lane in member.lanes.values() if lane.open]
                if not lanes:
                    continue
                try:
                    async with asyncio.timeout(self.settings.commit_bound_s):
                        ends = await around.admin.ends([(t, lane.partition) for lane in lanes for t in member.inputs])
                        for lane in lanes:
                            if lane.open:
                                await lane.tell(ends)
                                await lane.look_if_freed()
                except (BrokerError, TimeoutError) as error:
                    log.debug("%s is not looked after: %s", member.name, error)

    async def _measure_stalls(self) -> None:
        """The longest time that something kept the event loop from everything else: heartbeats share it."""
        loop = asyncio.get_running_loop()
        while True:
            worst_s, until_s = 0.0, loop.time() + self.settings.look_s
            while (began_s := loop.time()) < until_s:
                await asyncio.sleep(STALL_S)
                worst_s = max(worst_s, loop.time() - began_s - STALL_S)
            self._observe(Notice("stall_s", "runner", -1, worst_s))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fatal(error, "runner", -1, None)

    def _fatal(self, error: BaseException, agent: str, partition: int, place: Place | None) -> None:
        if self._failed is None or self._failed.done():
            return
        if isinstance(error, (Refused, OutOfRange)) or not isinstance(error, Exception):
            log.error("%s[%d] cannot go on: %s", agent, partition, error)
            self._failed.set_exception(error)
            return
        where = str(place) if place is not None else f"partition {partition}"
        log.error("%s crashes at %s: %r", agent, where, error, exc_info=error)
        crash = AgentCrashed(agent, where)
        crash.__cause__ = error
        self._failed.set_exception(crash)

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for `work` or for `stop()`, which ends `work`; or raise what ended the process."""
        failed = self._failed
        if failed is None:
            raise AssertionError("not running")
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([task, stopped, failed], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            elif task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.wait([task, stopped])

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                await asyncio.gather(*(member.drain() for member in self._members))

    async def _close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(member.close() for member in self._members))
        readers = [member.reader for member in self._members if member.reader is not None]
        self._members = []
        clients = readers if self._admin is None else [*readers, self._admin]
        for error in await asyncio.gather(*(client.stop() for client in clients), return_exceptions=True):
            if error is not None and not isinstance(error, BrokerError):
                raise error


__all__ = ["AgentCrashed", "MissingOffset", "Notice", "Observe", "Runner", "RuntimeSettings", "collect_rarely"]
