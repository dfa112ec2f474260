"""When to train: a Fold keyed by route that keeps an index of usable rows and orders a training when it is worth one.

Rules:
1. One order at a time, none while an arena of the route is open or the interval has not passed. An operator's command skips the
   interval, the counts and `enabled`; it waits for an open arena to close, and says nothing new where an order is open.
2. An order names a range of cases: whoever runs it folds them by the same rules (`agents.rules.curation`).
3. Ten silent minutes and the order goes out again, as its next attempt; after three it has failed.
4. The index holds at most twice `max_rows` texts: past that the oldest go, down to `max_rows`.
5. What becomes of an erased subject's rows is in `forget`.
"""

import hashlib
from collections.abc import Collection

from agents.rules.commands import objection, remembered
from agents.rules.curation import text_of, usable
from agents.rules.text import normalise
from agents.trainer import forget
from agents.trainer.state import Slot, Step, Trains
from schemas.compliance import CommandForget
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
from streams.shapes import UNCHANGED, Change, Event, KeyState, Tick

NAME = "trainer"
SILENT_MS = 600_000
ATTEMPTS = 3
MOST_CHALLENGERS = 16  # more than are judged at a time; one that never comes to be judged falls out


def _short(text: str) -> str:
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:20]


class Trainer:
    """See the module."""

    name = NAME
    inputs = ("cases", "training", "promotions", "commands")
    record_type = Trains
    entry_type = Slot

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CaseClosed | TrainingEvent | PromotionEvent | Command | CommandForget):
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
        step = Step(state, record, event, now)
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

    def _take(self, step: Step, data: Payload) -> None:
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
            case CommandForget() if data.tenant == step.record.settings.tenant:
                self._leave(step, forget.forget(step, data))
            case PromotionOpened():
                step.change(arena_open=True, challengers=_with(step.record.challengers, data.challenger))
            case PromotionRejected():
                step.change(arena_open=False, challengers=_without(step.record.challengers, data.challenger))
            case ModelPromoted():
                rest = _without(step.record.challengers, data.challenger)
                step.change(arena_open=False, champion=data.challenger, challengers=rest)
            case ModelRolledBack():
                rest = _without(step.record.challengers, data.challenger)
                step.change(arena_open=False, champion=data.champion, challengers=rest)
            case TrainingProgressed() | TrainingCompleted() | TrainingFailed():
                self._heard(step, data)
            case _:
                pass

    def _row(self, step: Step, case: CaseClosed) -> None:
        if not usable(case) or isinstance(step.event, Tick) or forget.is_gone(step, case):
            return
        place = step.event.place
        key, label = _short(text_of(case)), _short(case.label or "")
        held = step.state.entries.get(key)
        self._leave(step, self._oldest(step, key), coming=(key, place.offset))
        classes = dict(step.index.classes)
        if held is not None:
            classes[held.label] = classes.get(held.label, 1) - 1
        classes[label] = classes.get(label, 0) + 1
        step.put[key] = Slot(
            label=label,
            offset=place.offset,
            subject=case.subject,
            request=(case.request_partition, case.request_offset),
        )
        step.reindex(
            rows=step.index.rows + (held is None),
            classes={name: count for name, count in classes.items() if count > 0},
            partition=place.partition,
            first=place.offset if step.index.first < 0 else step.index.first,
            last=place.offset,
        )

    def _leave(self, step: Step, names: Collection[str], coming: tuple[str, int] | None = None) -> None:
        """These rows leave the index. They count as ones that had been trained on: the rest is no newer for it.

        `coming`: the row that comes instead, under its name, and its offset.
        """
        if not names:
            return
        classes = dict(step.index.classes)
        for name in names:
            label = step.state.entries[name].label
            classes[label] = classes.get(label, 1) - 1
        step.drop += names
        gone = {*names, *(coming or ())}
        kept = (slot.offset for name, slot in step.rows() if name not in gone)
        step.reindex(
            rows=step.index.rows - len(names),
            rows_at_order=step.index.rows_at_order - len(names),
            classes={name: count for name, count in classes.items() if count > 0},
            first=min(kept, default=coming[1] if coming else -1),
        )

    def _oldest(self, step: Step, key: str) -> list[str]:
        """The rows that must go before `key` comes in; mostly none."""
        most = step.record.settings.training.max_rows
        if step.index.rows - (key in step.state.entries) < 2 * most:
            return []
        rows = [(slot.offset, name) for name, slot in step.rows() if name != key]
        return [name for _, name in sorted(rows)[: len(rows) - (most - 1)]]

    def _heard(self, step: Step, data: TrainingProgressed | TrainingCompleted | TrainingFailed) -> None:
        arm = f"lora-{data.adapter.removeprefix('sha256:')[:8]}" if isinstance(data, TrainingCompleted) else ""
        order = step.record.order
        current = order is not None and order.order_id == data.order_id
        if current and isinstance(data, TrainingProgressed):
            step.change(heard_ms=step.now_ms)
        if isinstance(data, TrainingProgressed):
            forget.named(step, data)
            return
        if isinstance(data, TrainingCompleted):
            forget.completed(step, data, arm)
        if order is None or not current:
            return
        step.change(order=None)
        if isinstance(data, TrainingCompleted):
            new = arm not in step.record.adapters  # the judge may know the same files already, and open nothing
            step.change(
                adapters={**step.record.adapters, arm: data.adapter},
                arena_open=new,
                challengers=_with(step.record.challengers, arm) if new else step.record.challengers,
                retrain=False,  # of what this adapter was trained on nothing is erased, or it had been cancelled
            )
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

    def _silence(self, step: Step) -> None:
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

    def _decide(self, step: Step) -> None:
        """Order a training when it is worth one."""
        record, index = step.record, step.index
        training = record.settings.training
        asked = record.asked or record.retrain
        if record.order is not None or record.arena_open or not (training.enabled or asked):
            return
        enough = sum(count for count in index.classes.values() if count >= training.min_rows_per_class)
        classes = sum(1 for count in index.classes.values() if count >= training.min_rows_per_class)
        due = index.last_order_ms == 0 or step.now_ms - index.last_order_ms >= training.min_interval_s * 1000
        new = index.rows - index.rows_at_order
        worth = training.enabled and enough >= training.min_rows and new >= training.min_new_rows and due
        if not (worth or asked):
            return
        step.change(asked=False, retrain=False)
        arm = record.champion_arm()
        order_id = derive(step.event.id, NAME, "order")
        order = TrainingOrdered(
            tenant=record.settings.tenant,
            at_ms=step.now_ms,
            route=record.settings.route,
            order_id=order_id,
            reason="enough new rows" if worth else "by command" if record.asked else "without an erased subject's rows",
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
            compliance=record.settings.compliance,
            region=arm.region,
        )
        if classes < 2:
            reason = f"{classes} classes with at least {training.min_rows_per_class} rows; a training needs two"
            step.emit(TrainingFailed(**step.common(order), reason=reason), "failed")
            return
        step.reindex(rows_at_order=index.rows, last_order_ms=step.now_ms)
        step.change(order=order, heard_ms=step.now_ms)
        forget.ordered(step, order_id)
        step.emit(order, "ordered")


def _with(arms: tuple[str, ...], arm: str) -> tuple[str, ...]:
    return (*_without(arms, arm), arm)[-MOST_CHALLENGERS:]


def _without(arms: tuple[str, ...], arm: str) -> tuple[str, ...]:
    return tuple(one for one in arms if one != arm)
