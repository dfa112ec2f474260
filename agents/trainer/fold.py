"""When to train: a Fold keyed by route that keeps an index of usable rows and orders a training when it is worth one.

Rules:
1. One order at a time, none while an arena of the route is open or the interval has not passed. An operator's command skips the
   interval, the counts and `enabled`; it waits for an open arena to close, and says nothing new where an order is open.
2. An order names a range of cases: whoever runs it folds them by the same rules (`agents.rules.curation`).
3. Ten silent minutes and the order goes out again, as its next attempt; after three it has failed.
4. The index holds at most twice `max_rows` texts: past that the oldest go, down to `max_rows`.
"""

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.rules.commands import objection, remembered
from agents.rules.curation import text_of, usable
from agents.rules.text import normalise
from schemas.events import (
    AdapterRegistered,
    CaseClosed,
    Command,
    CommandApply,
    CommandCancel,
    CommandTrain,
    ModelPromoted,
    ModelRolledBack,
    PromotionEvent,
    PromotionOpened,
    PromotionRejected,
    TrainingCancelled,
    TrainingCompleted,
    TrainingEvent,
    TrainingFailed,
    TrainingOrdered,
    TrainingProgressed,
)
from schemas.ids import derive
from schemas.payload import Payload
from schemas.routes import Arm, Route
from streams.shapes import UNCHANGED, Change, Emit, Event, KeyState, Out, Tick

NAME = "trainer"
SILENT_MS = 600_000
ATTEMPTS = 3
INDEX = "index"


def _short(text: str) -> str:
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:20]


class Index(BaseModel):
    """What is known of the rows: counts, and where their cases lie."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    classes: dict[str, int] = {}
    partition: int = 0
    first: int = -1
    last: int = -1
    rows_at_order: int = 0
    last_order_ms: int = 0


class Slot(BaseModel):
    """An entry: the index, or one text's label and the offset of its newest case (under the text's hash)."""

    model_config = ConfigDict(frozen=True)

    index: Index | None = None
    label: str = ""
    offset: int = -1


class Trains(BaseModel):
    """What the trainer knows of one route besides its rows."""

    model_config = ConfigDict(frozen=True)

    settings: Route
    champion: str
    adapters: dict[str, str] = {}
    arena_open: bool = False
    order: TrainingOrdered | None = None
    heard_ms: int = 0
    asked: bool = False
    commands: tuple[str, ...] = ()

    def champion_arm(self) -> Arm:
        """The serving arm; a learnt one has the first arm's prompt and its own adapter."""
        declared = {arm.arm: arm for arm in self.settings.arms}
        if self.champion in declared:
            return declared[self.champion]
        first = declared[self.settings.champion]
        return first.model_copy(update={"arm": self.champion, "adapter": self.adapters.get(self.champion)})


class _Step:
    """One event being folded."""

    def __init__(
        self, state: KeyState[Trains, Slot], record: Trains, event: Event[Payload] | Tick, now_ms: int
    ) -> None:
        self.state, self.record, self.event, self.now_ms = state, record, event, now_ms
        slot = state.entries.get(INDEX)
        self.index = slot.index if slot is not None and slot.index is not None else Index()
        self.put: dict[str, Slot] = {}
        self.drop: list[str] = []
        self.emits: list[Out] = []

    def change(self, **fields: Any) -> None:
        self.record = self.record.model_copy(update=fields)

    def reindex(self, **fields: Any) -> None:
        self.index = self.index.model_copy(update=fields)
        self.put[INDEX] = Slot(index=self.index)

    def emit(self, payload: Payload, identity: str) -> None:
        self.emits.append(Emit(payload, identity))

    def common(self, order: TrainingOrdered) -> dict[str, Any]:
        return {"tenant": order.tenant, "at_ms": self.now_ms, "route": order.route, "order_id": order.order_id}


class Trainer:
    """See the module."""

    name = NAME
    inputs = ("cases", "training", "promotions", "commands")
    record_type = Trains
    entry_type = Slot

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CaseClosed | TrainingEvent | PromotionEvent | Command):
            return data.route
        return None

    def fold(self, state: KeyState[Trains, Slot], event: Event[Payload] | Tick) -> Change[Trains, Slot]:
        if isinstance(event, Tick):
            now, data = event.at_ms, None
        else:
            now, data = event.data.at_ms, event.data
        record = state.record
        if record is None:
            if not isinstance(data, CommandApply):
                return Change()
            record = Trains(settings=data.settings, champion=data.settings.champion)
        step = _Step(state, record, event, now)
        if isinstance(data, Command) and not isinstance(event, Tick):
            known = remembered(record.commands, event.id)
            tenant = None if state.record is None else record.settings.tenant
            if known is None or objection(data, event.key, tenant) is not None:
                return Change()  # done already; or not to be done, which the judge says
            step.change(commands=known)
        if data is None:
            self._silence(step)
        else:
            self._take(step, data)
        self._decide(step)
        due = step.record.heard_ms + SILENT_MS if step.record.order is not None else None
        return Change(
            emits=step.emits,
            record=UNCHANGED if step.record is state.record else step.record,
            put=step.put,
            drop=step.drop,
            due_ms=due,
        )

    def _take(self, step: _Step, data: Payload) -> None:
        match data:
            case CaseClosed():
                self._row(step, data)
            case CommandApply():
                champion = step.record.champion
                if data.settings.champion != step.record.settings.champion:
                    champion = data.settings.champion
                step.change(settings=data.settings, champion=champion)
            case CommandTrain() if step.record.order is None:
                step.change(asked=True)
            case CommandCancel() if step.record.order is not None:
                order = step.record.order
                step.emit(
                    TrainingCancelled(**step.common(order), reason=data.reason or "by command", by=data.operator),
                    "cancelled",
                )
                step.change(order=None)
            case PromotionOpened():
                step.change(arena_open=True)
            case PromotionRejected():
                step.change(arena_open=False)
            case ModelPromoted():
                step.change(arena_open=False, champion=data.challenger)
            case ModelRolledBack():
                step.change(arena_open=False, champion=data.champion)
            case TrainingProgressed() | TrainingCompleted() | TrainingFailed():
                self._heard(step, data)
            case _:
                pass

    def _row(self, step: _Step, case: CaseClosed) -> None:
        if not usable(case) or isinstance(step.event, Tick):
            return
        place = step.event.place
        key, label = _short(text_of(case)), _short(case.label or "")
        held = step.state.entries.get(key)
        classes = dict(step.index.classes)
        if held is not None:
            classes[held.label] = classes.get(held.label, 1) - 1
        classes[label] = classes.get(label, 0) + 1
        oldest = self._oldest(step, key)
        for name, slot in oldest:
            classes[slot.label] = classes.get(slot.label, 1) - 1
            step.drop.append(name)
        first = place.offset if step.index.first < 0 else step.index.first
        if oldest:
            gone = {name for name, _ in oldest} | {INDEX, key}
            kept = (slot.offset for name, slot in step.state.entries.items() if name not in gone)
            first = min(kept, default=place.offset)
        step.put[key] = Slot(label=label, offset=place.offset)
        step.reindex(
            rows=step.index.rows + (held is None) - len(oldest),
            rows_at_order=step.index.rows_at_order - len(oldest),
            classes={name: count for name, count in classes.items() if count > 0},
            partition=place.partition,
            first=first,
            last=place.offset,
        )

    def _oldest(self, step: _Step, key: str) -> list[tuple[str, Slot]]:
        """The entries that must go before `key` comes in; mostly none."""
        most = step.record.settings.training.max_rows
        entries = step.state.entries
        others = len(entries) - sum(name in entries for name in {INDEX, key})
        if others < 2 * most:
            return []
        rows = [(name, slot) for name, slot in step.state.entries.items() if name not in (INDEX, key)]
        rows.sort(key=lambda row: (row[1].offset, row[0]))
        return rows[: others - (most - 1)]

    def _heard(self, step: _Step, data: TrainingProgressed | TrainingCompleted | TrainingFailed) -> None:
        order = step.record.order
        if order is None or order.order_id != data.order_id:
            return
        if isinstance(data, TrainingProgressed):
            step.change(heard_ms=step.now_ms)
            return
        step.change(order=None)
        if isinstance(data, TrainingCompleted):
            arm = f"lora-{data.adapter.removeprefix('sha256:')[:8]}"
            new = arm not in step.record.adapters  # the judge may know the same files already, and open nothing
            step.change(adapters={**step.record.adapters, arm: data.adapter}, arena_open=new)
            step.emit(
                AdapterRegistered(
                    **step.common(order),
                    adapter=data.adapter,
                    base=order.base,
                    parent=order.parent_adapter,
                    dataset=data.dataset,
                    cutoff_ms=data.cutoff_ms,
                    metrics=data.metrics,
                    arm=arm,
                ),
                "registered",
            )

    def _silence(self, step: _Step) -> None:
        order = step.record.order
        if order is None or step.now_ms < step.record.heard_ms + SILENT_MS:
            return
        if order.attempt >= ATTEMPTS:
            step.change(order=None)
            step.emit(TrainingFailed(**step.common(order), reason="silent for ten minutes, three times"), "failed")
            return
        again = order.model_copy(update={"attempt": order.attempt + 1, "at_ms": step.now_ms, "reason": "silent"})
        step.change(order=again, heard_ms=step.now_ms)
        step.emit(again, "ordered")

    def _decide(self, step: _Step) -> None:
        """Order a training when it is worth one."""
        record, index = step.record, step.index
        training = record.settings.training
        if record.order is not None or record.arena_open or not (training.enabled or record.asked):
            return
        enough = sum(count for count in index.classes.values() if count >= training.min_rows_per_class)
        classes = sum(1 for count in index.classes.values() if count >= training.min_rows_per_class)
        due = index.last_order_ms == 0 or step.now_ms - index.last_order_ms >= training.min_interval_s * 1000
        new = index.rows - index.rows_at_order
        worth = training.enabled and enough >= training.min_rows and new >= training.min_new_rows and due
        if not (worth or record.asked):
            return
        step.change(asked=False)
        arm = record.champion_arm()
        order_id = derive(step.event.id, NAME, "order")
        order = TrainingOrdered(
            tenant=record.settings.tenant,
            at_ms=step.now_ms,
            route=record.settings.route,
            order_id=order_id,
            reason="enough new rows" if worth else "by command",
            base=arm.base,
            champion=arm.arm,
            parent_adapter=arm.adapter,
            cases_partition=index.partition,
            cases_first=max(0, index.first),
            cases_last=max(0, index.last),
            rows=enough,
            classes=classes,
            template=arm.template,
            stop=arm.stop,
            max_tokens=arm.max_tokens,
            settings=training.model_dump(),
        )
        if classes < 2:
            reason = f"{classes} classes with at least {training.min_rows_per_class} rows; a training needs two"
            step.emit(TrainingFailed(**step.common(order), reason=reason), "failed")
            return
        step.reindex(rows_at_order=index.rows, last_order_ms=step.now_ms)
        step.change(order=order, heard_ms=step.now_ms)
        step.emit(order, "ordered")
