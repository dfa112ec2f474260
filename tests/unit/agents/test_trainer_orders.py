"""The trainer: an order when it is worth one, never during an arena, never two, and an end to silence."""

from typing import Any

import pytest
from folding import Folding

from agents.trainer.fold import SILENT_MS, Trainer
from schemas.events import (
    AdapterRegistered,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandCancel,
    CommandTrain,
    Message,
    ModelPromoted,
    PromotionOpened,
    PromotionRejected,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    TrainingOrdered,
    TrainingProgressed,
)
from schemas.routes import Arm, Route, TrainingSettings

T = 1_700_000_000_000
BY: dict[str, Any] = {"route": "r", "operator": "ann"}
ARENA: dict[str, Any] = {"route": "r", "arena": "x", "champion": "old", "challenger": "new"}


def applied(**changes: Any) -> CommandApply:
    numbers = {"min_rows": 6, "min_new_rows": 4, "min_interval_s": 60}
    training = TrainingSettings.model_validate(numbers | changes)
    arms = (Arm(arm="old", base="sha256:b", template="Q: {text}", max_tokens=9),)
    return CommandApply(
        at_ms=T, settings=Route(route="r", compliance="off", arms=arms, champion="old", training=training), **BY
    )


def case(number: int, label: str = "", **changes: Any) -> CaseClosed:
    told: dict[str, Any] = {
        "at_ms": T + number, "route": "r", "request_id": f"q{number}", "request_partition": 0,
        "request_offset": number, "decision_id": f"d{number}", "assigned_at_ms": T + number, "window_end_ms": T,
        "arm": "old", "why": "complete", "messages": (Message(role="user", content=f"text {number}"),),
        "arms": (CaseArm(arm="old", shadow=False, status="completed", grade=1000),), "choices": (),
        "grader": "reference", "label": label or f"class {number % 2}", "verdict_kind": "reference",
        "verdict_at_ms": T + number,
    }  # fmt: skip
    return CaseClosed.model_validate(told | changes)


def lane(cases: int = 0, **changes: Any) -> Folding:
    folding = Folding(Trainer())
    folding.take(applied(**changes))
    for number in range(1, cases + 1):
        folding.take(case(number))
    return folding


def the_order(folding: Folding) -> TrainingOrdered:
    return folding.of(TrainingOrdered)[-1]


def completed(order: TrainingOrdered, at: int = 100) -> TrainingCompleted:
    return TrainingCompleted(
        route="r", at_ms=T + at, order_id=order.order_id, adapter="sha256:abcdefghij", tree="t", dataset="d",
        rows=6, cutoff_ms=T + 6, seconds=1, metrics={"test_adapter": 0.9},
    )  # fmt: skip


def failed(order: TrainingOrdered, at: int = 100) -> TrainingFailed:
    return TrainingFailed(route="r", at_ms=T + at, order_id=order.order_id, reason="because")


def test_it_orders_once_when_the_rows_suffice() -> None:
    """Not at five rows, once at six, and no second one while that is under way; the range names the cases."""
    folding = lane(5)
    assert folding.of(TrainingOrdered) == []
    for number in range(6, 30):
        folding.take(case(number))
    [order] = folding.of(TrainingOrdered)
    assert (order.rows, order.classes, order.base, order.champion) == (6, 2, "sha256:b", "old")
    assert (order.cases_first, order.cases_last) == (2, 7)  # the apply lies at 1
    assert (order.template, order.max_tokens, order.attempt) == ("Q: {text}", 9, 1)
    assert order.settings["min_rows"] == 6


def test_only_usable_new_texts_are_rows() -> None:
    """The same text again, a case without label, a model's verdict: none is a row; a new label moves the text."""
    folding = lane(5)
    folding.take(case(1, messages=(Message(role="user", content=" TEXT 1"),)))
    folding.take(case(7, verdict_kind="model"))
    folding.take(case(8, label="x").model_copy(update={"label": None}))
    assert folding.of(TrainingOrdered) == []
    index = folding.cells["r"].entries["index"].index
    assert (index.rows, sum(index.classes.values())) == (5, 5)
    folding.take(case(1, label="class 0"))
    index = folding.cells["r"].entries["index"].index
    assert sorted(index.classes.values()) == [2, 3]


def test_none_while_an_arena_is_open() -> None:
    """Rows and even a command wait for the arena's end; then the order goes out."""
    folding = lane()
    folding.take(PromotionOpened(at_ms=T, settings={}, **ARENA))
    for number in range(1, 10):
        folding.take(case(number))
    folding.take(CommandTrain(at_ms=T + 20, **BY))
    assert folding.of(TrainingOrdered) == []
    folding.take(PromotionRejected(at_ms=T + 30, reason="inconclusive", pairs=1, **ARENA))
    assert len(folding.of(TrainingOrdered)) == 1


def test_after_a_failure_it_waits_for_interval_and_new_rows() -> None:
    """A minute and four new rows, both: only then a second order."""
    folding = lane(6)
    folding.take(failed(the_order(folding)))
    for number in range(7, 12):
        folding.take(case(number))
    assert len(folding.of(TrainingOrdered)) == 1
    folding.take(case(12, at_ms=T + 70_000))
    first, second = folding.of(TrainingOrdered)
    assert first.order_id != second.order_id


def test_a_command_skips_interval_and_count() -> None:
    """`train` orders at once from two classes of rows, and says that it was commanded."""
    folding = lane(3)
    folding.take(CommandTrain(at_ms=T + 10, **BY))
    [order] = folding.of(TrainingOrdered)
    assert (order.reason, order.rows) == ("by command", 3)


@pytest.mark.parametrize(("cases", "classes"), [(0, "0 classes"), (1, "1 classes")])
def test_a_command_without_two_classes_fails_and_says_why(cases: int, classes: str) -> None:
    """No order, one `training.failed` that counts the classes, and nothing is left under way."""
    folding = lane(cases)
    folding.take(CommandTrain(at_ms=T + 10, **BY))
    [answer] = folding.of(TrainingFailed)
    assert classes in answer.reason
    assert "a training needs two" in answer.reason
    assert folding.of(TrainingOrdered) == []
    folding.take(case(20))
    assert len(folding.of(TrainingFailed)) == 1


def test_silence_orders_again_and_the_third_fails() -> None:
    """Ten silent minutes, the same order as its next attempt, twice; then it has failed, and stays so."""
    folding = lane(6)
    at = T + 6
    for _ in range(3):
        assert folding.tick(at + SILENT_MS - 1) == []
        at += SILENT_MS
        folding.tick(at)
    orders = folding.of(TrainingOrdered)
    assert [row.attempt for row in orders] == [1, 2, 3]
    assert len({row.order_id for row in orders}) == 1
    [end] = folding.of(TrainingFailed)
    assert end.reason == "silent for ten minutes, three times"
    assert folding.tick(at + 10 * SILENT_MS) == []


def test_progress_postpones_the_silence() -> None:
    """A job that reports is not ordered again; another order's report changes nothing."""
    folding = lane(6)
    order = the_order(folding)
    told: dict[str, Any] = {"route": "r", "step": 1, "steps": 9, "epoch": 0.1}
    folding.take(TrainingProgressed(at_ms=T + SILENT_MS - 1, order_id=order.order_id, **told))
    folding.take(TrainingProgressed(at_ms=T + 2 * SILENT_MS - 2, order_id="another", **told))
    assert folding.tick(T + 2 * SILENT_MS - 2) == []
    assert [row.attempt for row in folding.tick(T + 2 * SILENT_MS)] == [2]


def test_what_was_trained_is_registered_once() -> None:
    """One `adapter.registered` with the arm's name from its digest; a repeat of the report adds none."""
    folding = lane(6)
    order = the_order(folding)
    folding.take(completed(order))
    folding.take(completed(order))
    [row] = folding.of(AdapterRegistered)
    assert (row.arm, row.adapter, row.base, row.parent) == ("lora-abcdefgh", "sha256:abcdefghij", "sha256:b", None)
    assert (row.order_id, row.cutoff_ms, row.metrics) == (order.order_id, T + 6, {"test_adapter": 0.9})


def test_a_promoted_adapter_is_the_next_parent() -> None:
    """After its promotion the next order names the learnt arm and trains on from its adapter."""
    folding = lane(6)
    folding.take(completed(the_order(folding)))
    arena = ARENA | {"challenger": "lora-abcdefgh", "at_ms": T + 200}
    folding.take(ModelPromoted(pairs=1, log_e=5, fleet_version=2, evaluation="e", **arena))
    folding.take(CommandTrain(at_ms=T + 300, **BY))
    order = the_order(folding)
    assert (order.champion, order.parent_adapter, order.template) == ("lora-abcdefgh", "sha256:abcdefghij", "Q: {text}")


def test_cancel_ends_the_order() -> None:
    """Cancelled once; what the job still reports is heard by nobody; with nothing under way nothing happens."""
    folding = lane(6)
    order = the_order(folding)
    folding.take(CommandCancel(at_ms=T + 10, reason="dear", **BY))
    folding.take(CommandCancel(at_ms=T + 11, **BY))
    [row] = folding.of(TrainingCancelled)
    assert (row.order_id, row.reason, row.by) == (order.order_id, "dear", "ann")
    folding.take(completed(order))
    assert folding.of(AdapterRegistered) == []


def test_disabled_or_never_applied_it_does_nothing() -> None:
    """`enabled = false` orders nothing; events of an unknown route leave no state."""
    assert lane(9, enabled=False).of(TrainingOrdered) == []
    folding = Folding(Trainer())
    folding.take(case(1))
    assert folding.cells == {}


def test_folding_twice_gives_the_same_events() -> None:
    """The same log, the same orders under the same ids."""
    one, other = lane(20), lane(20)
    assert one.emitted == other.emitted
    assert one.ids == other.ids
