"""Every agent, standing ready to take one record at once: the lanes' own code on a broker in memory that is never asked."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from agents.evidence.record import Draft
from agents.inference.actor import Inference
from agents.observer.app import decode as observed
from agents.observer.fold import Views
from agents.replay import Policies
from agents.router.actor import Gatekeeper, Router
from agents.router.around import StoreAround
from agents.screen import Screen
from agents.trainer.actor import Jobs
from agents.trust.actor import Trust
from agents.wiring import FOLDS
from infra.detect import detect, named
from infra.engine import ArmSpec
from infra.engine_scripted import ScriptedEngine
from infra.sealing import GateKeys
from infra.store import MemoryStore
from schemas import canonical
from schemas.errors import Refused
from schemas.events import AnswerRefused, TrainingOrdered
from schemas.payload import Payload
from schemas.topics import full, recorded
from streams.fold import FoldLane
from streams.memory import MemoryBroker
from streams.recorded import RecordedLog
from streams.replay import StillClock
from streams.shapes import AnyFold, Place, Record, Tick, Transform
from streams.surroundings import RuntimeSettings, Surroundings
from streams.transform import TransformLane
from streams.wire import Decoder, Sent, decode, largest, size_of

DAY_MS = 86_400_000
FRESH_EVERY = 400  # records until a Fold begins anew: what is held stays small, and restoring is tried
CUT_EVERY = 25
LANE = 0


class WrongOutput(Exception):
    """An agent gave what no agent may give."""


class Nowhere:
    """No record can be read again: every escalation is left to its case."""

    async def read(self, place: Place) -> Record | None:
        return None


class _Jobs:
    """A cluster that starts every job."""

    async def start(self, order: TrainingOrdered, cause: str, traceparent: str) -> None:
        order.model_dump_json()

    async def stop(self, order_id: str) -> None:
        order_id.encode()


class _Facts:
    async def send(self, payload: Payload, identity: str) -> None:
        identity.encode()


def _fatal(error: BaseException, agent: str, partition: int, place: Place | None) -> None:
    raise error


class Stand:
    """Give it a record: each agent that reads the record's topic takes it. What an agent raises comes out."""

    def __init__(self, log: RecordedLog) -> None:
        self._log = log
        self.clock = StillClock()
        self.steps: dict[str, int] = {}
        self.letters = 0
        self.emits = 0
        self._partitions = log.partitions
        broker, decoder = MemoryBroker(log.partitions), Decoder()
        decoder.partitions = log.partitions
        self._around = Surroundings(
            broker, broker.admin(), self.clock, RuntimeSettings(retry_s=0, rounds=0), asyncio.Semaphore(1), decoder,
            lambda _: None, _fatal, None, None,
        )  # fmt: skip
        self._around.partitions = log.partitions
        self._policies = Policies(log)
        self._engine = ScriptedEngine()
        self._store = MemoryStore(self.clock.monotonic)
        self._transforms = [self._transform(one) for one in self._shells()]
        self._folds = [self._fold(make()) for make in FOLDS.values()]
        self._views = Views()
        self._recorded = frozenset(recorded())
        self._taken = 0

    def _shells(self) -> tuple[Transform, ...]:
        policies, clock, store = self._policies, self.clock, self._store
        inference = Inference(policies, self._engine, store, _Facts(), clock, "fuzz")
        inference._loading = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  nothing is loaded here: `start` has named the arms
        screen, keys = Screen(detect, clock.monotonic, named), GateKeys(bytes(32))
        around, keeper = StoreAround(store, clock), Gatekeeper(screen, keys.seal_map)
        return (
            Router(policies, store, around, Nowhere(), clock, lambda tenant: tenant.encode(), gatekeeper=keeper),
            inference,
            Trust(policies, clock, screen, keys),
            Jobs(_Jobs()),
        )

    async def start(self) -> None:
        """Name the arms that the corpus asks for, and let the Folds take what is known of the routes."""
        self.clock.at_ms = max(row.timestamp_ms for row in self._log.all())
        self._policies.as_of(self.clock.at_ms)
        arms = sorted({arm for row in self._log.topic("ratchet.decisions") for arm in self._arms(row)})
        await self._engine.ensure([ArmSpec(arm=arm, base="b", adapter=None) for arm in arms])
        for lane in self._folds:
            self._warm(lane)

    def _arms(self, row: Record) -> Sequence[str]:
        data = cast("Any", decode(row, self._partitions).data)
        return (data.arm, *(f"{data.route}/{data.arm}", *data.chain))

    def _transform(self, shell: Transform) -> TransformLane:
        inputs = tuple(full(topic) for topic in shell.inputs)
        return TransformLane(self._around, shell, inputs, 1, LANE, self._around.broker.reader({}))

    def _fold(self, fold: AnyFold) -> FoldLane:
        inputs = tuple(full(topic) for topic in fold.inputs)
        return FoldLane(self._around, fold, inputs, LANE, self._around.broker.reader({}))

    def _warm(self, lane: FoldLane) -> None:
        """The commands of the corpus, and a little of the rest."""
        for topic in sorted(lane.inputs, key=lambda name: name != "ratchet.commands"):
            for number, row in enumerate(self._log.topic(topic)):
                if number < 12:
                    lane.fold_now(row)
        self._look(lane, lane.cut().sent)

    async def take(self, record: Record) -> None:
        """One record to all who read its topic, evidence and observer included."""
        self._taken += 1
        self.clock.at_ms = max(record.timestamp_ms, 0)
        for lane in self._transforms:
            if record.topic in lane.inputs:
                sent = await lane.answer(record)
                self._look(lane, sent)
                self._answered(lane, record, sent)
        for number, fold in enumerate(self._folds):
            if record.topic in fold.inputs:
                self._folds[number] = self._refold(fold, record)
        if record.topic in self._recorded:
            self._count("evidence")
            canonical.decode(Draft(record).build(b"c" * 32, b"p" * 32))
        self._count("observer")
        row = (record.topic, record.partition, record.offset, record.headers, record.value, record.timestamp_ms)
        self._views.take(observed(*row))
        if self._taken % FRESH_EVERY == 0:
            self._views.forget(self.clock.at_ms)
            self._views.snapshot(self.clock.at_ms)

    def _refold(self, lane: FoldLane, record: Record) -> FoldLane:
        lane.fold_now(record)
        steps = self._count(lane.agent)
        if steps % CUT_EVERY == 0:
            lane.fold_now(Tick(lane.last_tick_ms + 1000 if steps % 2 else record.timestamp_ms + 3 * DAY_MS, "", ""))
            self._look(lane, lane.cut().sent)
        if steps % FRESH_EVERY:
            return lane
        self._restored(lane)
        fresh = self._fold(lane.fold)
        self._warm(fresh)
        return fresh

    def _restored(self, lane: FoldLane) -> None:
        """The state can be read back, and says the same."""
        rows = list(lane.table.rows())
        again = self._around.state(lane.fold)
        for row in rows:
            again.load(Record(lane.state, LANE, 0, row.key, row.value, row.headers, 0))
        for _ in again.settle():
            pass
        for key in {(row.key or b"").partition(b"\0")[0].decode() for row in rows}:
            again.view(key)
        if list(again.rows()) != rows:
            raise WrongOutput(f"{lane.agent}: its state, restored, is another")

    def _count(self, agent: str) -> int:
        self.steps[agent] = self.steps.get(agent, 0) + 1
        return self.steps[agent]

    def _look(self, lane: TransformLane | FoldLane, sent: Sequence[Sent]) -> None:
        """What an agent sends can be sent, and read by the next one."""
        if isinstance(lane, TransformLane):
            self._count(lane.agent)
        for one in sent:
            if isinstance(lane, FoldLane) and one.topic in (lane.state, lane.order):
                continue
            row = one.record
            if size_of(row) > largest(one.topic):
                raise WrongOutput(f"{lane.agent} sends {size_of(row)} bytes to {one.topic}")
            if one.topic.endswith(".dlq"):
                self.letters += 1
                _check_letter(row.headers)
                continue
            self.emits += 1
            try:
                decode(Record(one.topic, one.partition, 0, row.key, row.value, row.headers, 0), self._partitions)
            except Refused as error:
                raise WrongOutput(f"{lane.agent} sends to {one.topic} what cannot be read: {error}") from error

    def _answered(self, lane: TransformLane, record: Record, sent: Sequence[Sent]) -> None:
        """A request whose key is not its id is refused, whatever else it says."""
        if lane.agent != "router" or record.topic == lane.parking:
            return
        types = {
            dict(one.record.headers).get("ce_type", b"").decode() for one in sent if not one.topic.endswith(".dlq")
        }
        if types - {AnswerRefused.ce_type()}:
            data = cast("Any", decode(record, self._partitions).data)
            if (record.key or b"").decode() != data.request_id:
                raise WrongOutput(f"the router decides {data.request_id!r} under the key {record.key!r}")


def _check_letter(headers: Sequence[tuple[str, bytes]]) -> None:
    told = dict(headers)
    for name in ("topic", "partition", "offset", "agent", "kind", "message", "attempts", "at"):
        if not told.get(f"ratchet-dlq-{name}", b"").decode():
            raise WrongOutput(f"a dead letter without ratchet-dlq-{name}")
