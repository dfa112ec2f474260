"""Erasure in training: no erased row is used again, and what used one is marked, row by row, whatever comes in between."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from folding import Folding
from hypothesis import given, settings
from hypothesis import strategies as st
from trained import Keys, Library, Range, Sent, T, ports

from agents.trainer import job
from agents.trainer.fold import SILENT_MS, Trainer
from agents.trainer.forget import MOST_ERASURES
from agents.trainer.state import ERASED, KEPT_ADAPTERS, KEPT_OTHERS, ORDER, USED, Slot, Trains
from schemas.compliance import AdapterMarked, CommandForget, Cut
from schemas.events import (
    AdapterRegistered,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandCancel,
    CommandTrain,
    Message,
    PromotionOpened,
    PromotionRejected,
    TrainingCancelled,
    TrainingCompleted,
    TrainingFailed,
    TrainingOrdered,
    TrainingProgressed,
    UsedRow,
)
from schemas.payload import Payload
from schemas.routes import Arm, Route, TrainingSettings
from schemas.topics import DAY_MS

BY: dict[str, Any] = {"route": "r", "operator": "ann"}
ANN, BEN = "a" * 32, "b" * 32


def case(number: int, subject: str | None = None, **changes: Any) -> CaseClosed:
    told: dict[str, Any] = {
        "at_ms": T + number, "route": "r", "request_id": f"q{number}", "request_partition": 0, "request_offset": number,
        "decision_id": f"d{number}", "assigned_at_ms": T + number, "window_end_ms": T, "arm": "old", "why": "complete",
        "messages": (Message(role="user", content=f"text {number}"),), "subject": subject,
        "arms": (CaseArm(arm="old", shadow=False, status="completed", grade=0),), "choices": (), "grader": "reference",
        "label": f"class {number % 2}", "verdict_kind": "reference", "verdict_at_ms": T + number,
    }  # fmt: skip
    return CaseClosed.model_validate(told | changes)


def lane(**training: Any) -> Folding:
    numbers = {"min_rows": 6, "min_new_rows": 4, "min_interval_s": 0}
    route = Route(
        route="r",
        compliance="off",
        arms=(Arm(arm="old", base="sha256:b"),),
        champion="old",
        training=TrainingSettings.model_validate(numbers | training),
    )
    folding = Folding(Trainer())
    folding.take(CommandApply(at_ms=T, settings=route, **BY))
    return folding


def forget(subject: str, below: int, erasure: str = "e1", **changes: Any) -> CommandForget:
    told: dict[str, Any] = {"route": "r", "at_ms": T + 1000, "subject": subject, "erasure": erasure}
    return CommandForget.model_validate(told | {"cut": (Cut(partition=0, offset=below),)} | changes)


def used(order: TrainingOrdered, *rows: tuple[str, int], step: int = 1) -> TrainingProgressed:
    return TrainingProgressed(
        route="r", at_ms=T + 50, order_id=order.order_id, step=step, steps=1, epoch=0, phase="curating",
        used=tuple(UsedRow(subject=subject, partition=0, offset=offset) for subject, offset in rows),
    )  # fmt: skip


def completed(order: TrainingOrdered, adapter: str = "abcdefgh12") -> TrainingCompleted:
    return TrainingCompleted(
        route="r", at_ms=T + 60, order_id=order.order_id, adapter=f"sha256:{adapter}", tree="t", dataset=f"rows {adapter}",
        rows=6, cutoff_ms=T, seconds=1, metrics={},
    )  # fmt: skip


def rejected(challenger: str = "lora-abcdefgh") -> PromotionRejected:
    return PromotionRejected(
        route="r", arena="x", champion="old", challenger=challenger, at_ms=T + 70, reason="no better", pairs=1
    )


def ordered(folding: Folding) -> TrainingOrdered:
    return folding.of(TrainingOrdered)[-1]


def with_order(**training: Any) -> Folding:
    """Six rows of two people in turns, and the order for them."""
    folding = lane(**training)
    for number in range(6):
        folding.take(case(number, ANN if number % 2 else BEN))
    assert len(folding.of(TrainingOrdered)) == 1
    return folding


def index_of(folding: Folding) -> Any:
    return folding.cells["r"].entries["index"].index


def test_rows_below_the_cut_leave_the_index() -> None:
    """Three of four rows of the subject go, with their classes; the range begins at the oldest that is left; others stay."""
    folding = lane(min_rows=100)
    for number in range(4):
        folding.take(case(number, ANN))
    folding.take(case(4, BEN))
    before = index_of(folding)
    folding.take(forget(ANN, below=3))
    index = index_of(folding)
    assert (before.rows, index.rows) == (5, 2)
    assert sorted(index.classes.values()) == [1, 1]
    assert index.first == before.first + 3
    assert folding.emitted == []


def test_a_case_that_closes_after_its_erasure_is_no_row() -> None:
    """Its text's digest, beside the pseudonym, would stay in the state and confirm a guess; from the cut on, and others', are rows."""
    folding = lane(min_rows=100)
    folding.take(forget(ANN, below=3))
    folding.take(forget(ANN, below=2, erasure="e0"))  # a later one with a lower cut takes nothing back
    before = dict(folding.cells["r"].entries)
    folding.take(case(1, ANN))
    folding.take(case(2, ANN))
    assert folding.cells["r"].entries == before
    folding.take(case(2, BEN))
    folding.take(case(3, ANN))
    assert index_of(folding).rows == 2


def test_an_erasure_is_remembered_as_long_as_its_cases_may_come() -> None:
    """Twice the window, and the longest outage; then the next erasure lets go of it."""
    folding = lane(min_rows=100)
    folding.take(forget(ANN, below=3))
    known = folding.cells["r"].record
    assert isinstance(known, Trains)
    kept_ms = 2 * int(known.settings.window_s * 1000) + 31 * DAY_MS
    folding.take(forget(BEN, below=3, at_ms=T + 1000 + kept_ms))
    assert {name for name in folding.cells["r"].entries if name.startswith(ERASED)} == {ERASED + ANN, ERASED + BEN}
    folding.take(forget(BEN, below=3, at_ms=T + 1001 + kept_ms))
    assert {name for name in folding.cells["r"].entries if name.startswith(ERASED)} == {ERASED + BEN}


@pytest.mark.parametrize("changes", [{"tenant": "other"}, {"subject": BEN}, {"cut": (Cut(partition=1, offset=99),)}])
def test_what_is_somebody_elses_stays(changes: dict[str, Any]) -> None:
    """Another tenant's command, another subject, another partition: the state is as it was."""
    folding = lane(min_rows=100)
    folding.take(case(1, ANN))
    before = index_of(folding)
    assert folding.take(forget(ANN, below=99).model_copy(update=changes)) == []
    assert index_of(folding) == before


def test_an_adapter_that_is_judged_is_marked_and_trained_again_after_its_arena() -> None:
    """The mark counts the rows below the cut; the new order waits until the arena is closed, and says why it was given."""
    folding = with_order()
    first = ordered(folding)
    folding.take(used(first, (ANN, 1), (BEN, 2), (ANN, 3), (ANN, 5)))
    folding.take(completed(first))
    folding.take(forget(ANN, below=4))
    [mark] = folding.of(AdapterMarked)
    assert (mark.adapter, mark.dataset, mark.order_id) == ("sha256:abcdefgh12", "rows abcdefgh12", first.order_id)
    assert (mark.subject, mark.erasure, mark.rows, mark.ordered) == (ANN, "e1", 2, True)
    assert len(folding.of(TrainingOrdered)) == 1
    folding.take(rejected())
    again = ordered(folding)
    assert (again.order_id != first.order_id, again.reason) == (True, "without an erased subject's rows")


def test_an_adapter_that_is_not_at_work_is_only_marked() -> None:
    """Rejected before: nothing is ordered for it. The same erasure told again marks nothing; a later one marks the rest."""
    folding = with_order()
    first = ordered(folding)
    folding.take(used(first, (ANN, 1), (ANN, 5)))
    folding.take(completed(first))
    folding.take(rejected())
    folding.take(forget(ANN, below=4))
    folding.take(forget(ANN, below=4))
    folding.take(forget(ANN, below=9, erasure="e2"))
    assert [(mark.erasure, mark.rows, mark.ordered) for mark in folding.of(AdapterMarked)] == [
        ("e1", 1, False),
        ("e2", 1, False),
    ]
    assert len(folding.of(TrainingOrdered)) == 1


def test_an_open_order_that_uses_the_rows_begins_again() -> None:
    """Cancelled with the reason, ordered anew in the same breath; what its job still makes is marked and not registered."""
    folding = with_order(min_rows=2)
    first = ordered(folding)
    folding.take(used(first, (ANN, 1), (BEN, 2)))
    folding.take(used(first, (ANN, 3), step=2))
    out = folding.take(forget(BEN, below=99))
    assert [type(one) for one in out] == [TrainingCancelled, TrainingFailed], "one class is left: nothing to order"
    folding.take(case(20, ANN))
    folding.take(CommandTrain(at_ms=T + 90, **BY))
    second = ordered(folding)
    folding.take(used(second, (ANN, 1)))
    folding.take(forget(ANN, below=1, erasure="e2"))
    assert ordered(folding) == second, "an erasure that does not reach its rows does not touch it"
    folding.take(completed(first))
    [mark] = folding.of(AdapterMarked)
    assert (mark.subject, mark.rows, mark.ordered) == (BEN, 1, False)
    assert folding.of(AdapterRegistered) == []


def test_a_job_that_names_the_rows_after_the_erasure_is_cancelled_too() -> None:
    """It had read the keyring before: what it names counts against erasures since its order, twice named is counted once."""
    folding = with_order()
    first = ordered(folding)
    folding.take(case(6))
    folding.take(case(7))
    folding.take(forget(ANN, below=99))
    assert folding.of(TrainingCancelled) == []
    folding.take(used(first, (ANN, 1), (BEN, 2)))
    folding.take(used(first, (ANN, 1), (BEN, 2)))
    folding.take(used(first, (ANN, 3), step=2))
    [cancelled] = folding.of(TrainingCancelled)
    second = ordered(folding)
    assert (cancelled.order_id, cancelled.reason) == (first.order_id, "it uses rows of an erased subject")
    assert second.order_id != first.order_id
    folding.take(completed(first))
    [mark] = folding.of(AdapterMarked)
    assert mark.rows == 2


def test_an_open_order_without_the_rows_is_the_retraining() -> None:
    """A marked champion asks for a training; the one under way uses none of the rows, so that it suffices."""
    folding = with_order(min_new_rows=1)
    first = ordered(folding)
    folding.take(used(first, (ANN, 1)))
    folding.take(completed(first))
    arena: dict[str, Any] = {"route": "r", "arena": "x", "champion": "old", "challenger": "lora-abcdefgh"}
    folding.take(rejected())
    folding.take(case(8, BEN))
    second = ordered(folding)
    folding.take(PromotionOpened(at_ms=T + 80, settings={}, **arena))
    folding.take(forget(ANN, below=99))
    assert folding.of(AdapterMarked)[0].ordered
    folding.take(completed(second, "zyxwvuts98"))
    folding.take(rejected("lora-zyxwvuts"))
    assert ordered(folding) == second


def test_silence_and_a_persons_cancel_keep_what_was_named() -> None:
    """The next attempt is the same order; a job that ends though it was cancelled is marked for an erasure since."""
    folding = with_order()
    first = ordered(folding)
    folding.take(used(first, (ANN, 1)))
    folding.tick(T + 50 + SILENT_MS)
    assert ordered(folding).attempt == 2
    folding.take(CommandCancel(at_ms=T + 90, **BY))
    folding.take(forget(ANN, below=99))
    folding.take(completed(first))
    assert [mark.rows for mark in folding.of(AdapterMarked)] == [1]


def test_too_many_erasures_for_an_order_that_has_named_nothing() -> None:
    """Past what is remembered nobody can say what its job uses: it begins again."""
    folding = with_order()
    for number in range(MOST_ERASURES):
        folding.take(forget(f"{number:032x}", below=99, erasure=f"e{number}"))
    assert folding.of(TrainingCancelled) == []
    folding.take(forget("f" * 32, below=99, erasure="last"))
    assert len(folding.of(TrainingCancelled)) == 1


def test_the_memory_of_orders_is_bounded() -> None:
    """Of many trainings the newest are known with whose rows they used, older ones not at all."""
    folding = with_order(min_new_rows=1)
    for number in range(2 * KEPT_ADAPTERS):
        order = ordered(folding)
        folding.take(used(order, (ANN, number)))
        folding.take(completed(order, f"{number:010d}"))
        folding.take(rejected(f"lora-{number:08d}"))
        folding.take(case(100 + number, at_ms=T + 200 + number))
    names = list(folding.cells["r"].entries)
    assert sum(name.startswith(ORDER) for name in names) <= KEPT_ADAPTERS + KEPT_OTHERS + 1
    assert sum(name.startswith(USED) for name in names) <= KEPT_ADAPTERS + KEPT_OTHERS + 1


def test_folding_twice_gives_the_same_marks() -> None:
    """The same log, the same events under the same ids."""

    def played() -> Folding:
        folding = with_order()
        order = ordered(folding)
        folding.take(used(order, (ANN, 1), (BEN, 2)))
        folding.take(forget(ANN, below=99))
        folding.take(forget(BEN, below=99, erasure="e2"))
        folding.take(completed(order))
        return folding

    one, other = played(), played()
    assert (one.emitted, one.ids) == (other.emitted, other.ids)
    assert len(one.of(AdapterMarked)) == 2


def test_a_state_from_before_goes_on() -> None:
    """Rows, record and an open order as an earlier version wrote them, when no case named a subject: an erasure finds nothing to mark."""
    folding = with_order()
    cell = folding.cells["r"]
    former = {"adapters", "arena_open", "asked", "champion", "commands", "heard_ms", "order", "settings"}
    cell.record = Trains.model_validate_json(cell.record.model_dump_json(include=former))  # type: ignore[union-attr]
    for name, slot in list(cell.entries.items()):
        if name.startswith(ORDER):
            del cell.entries[name]
        else:
            text = slot.model_dump_json(include={"index", "label", "offset"})
            cell.entries[name] = Slot.model_validate_json(text)
    first = ordered(folding)
    assert folding.take(forget(ANN, below=99)) == []
    folding.take(used(first, (ANN, 1)))
    folding.take(completed(first))
    assert folding.of(AdapterMarked) == [], "nobody knows of that order since when it was under way"
    assert len(folding.of(AdapterRegistered)) == 1


class Trees:
    """An artifact store in memory."""

    def __init__(self) -> None:
        self.trees: dict[str, dict[str, str]] = {}
        self.blobs = count()

    def name_tree(self, path: Path) -> str:
        return f"tree {sorted((file.name, file.read_text()) for file in path.iterdir())}"

    def put_tree(self, path: Path) -> str:
        name = self.name_tree(path)
        self.trees[name] = {file.name: file.read_text() for file in path.iterdir()}
        return name

    def put_bytes(self, data: bytes) -> str:
        return f"sha256:{next(self.blobs):010d}"


@dataclass
class World:
    """The trainer, a keyring, and jobs whose facts arrive one by one, while people come, go and are erased. Time stands still."""

    folding: Folding = field(default_factory=lambda: lane(min_rows=20, min_new_rows=3))
    keys: Keys = field(default_factory=Keys)
    trees: Trees = field(default_factory=Trees)
    cases: dict[int, CaseClosed] = field(default_factory=dict[int, CaseClosed])
    erasures: list[CommandForget] = field(default_factory=list[CommandForget])
    started: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    mail: list[list[Payload]] = field(default_factory=list[list[Payload]])
    made: list[TrainingCompleted] = field(default_factory=list[TrainingCompleted])
    requests: int = 0

    def ask(self, subject: str | None, text: int, label: int) -> None:
        number, self.requests = self.requests, self.requests + 1
        message = Message(role="user", content=f"text {text}")
        told = case(number, subject, at_ms=T, messages=(message,), label=f"class {label}")
        self.folding.take(told)
        self.cases[self.folding.offset] = told

    def erase(self, subject: str, back: int) -> None:
        """Up to a request that may lie some way back: the newest ones are not erased."""
        command = forget(subject, below=self.requests - back, erasure=f"e{len(self.erasures)}", at_ms=T)
        self.erasures.append(command)
        self.keys.erase(command)
        self.folding.take(command)

    def start(self) -> None:
        """Run the newest order's job to its end; its facts are on their way."""
        orders = self.folding.of(TrainingOrdered)
        if not orders or (orders[-1].order_id, orders[-1].attempt) in self.started:
            return
        self.started.add((orders[-1].order_id, orders[-1].attempt))
        sent, library = Sent(), Library()
        erased = {subject: max(cuts) for subject, cuts in self.keys.cuts.items()}
        work = ports(cases=Range(self.cases), artifacts=self.trees, trainings=library, keys=self.keys, facts=sent)
        asyncio.run(job.run(orders[-1], work))
        for row in library.trained:
            assert row.subject is None or row.offset >= erased.get(row.subject, 0), "an erased row was trained on"
        self.mail.append(sent.facts)

    def deliver(self, which: int, most: int) -> None:
        """Some facts of one of the jobs, in their order."""
        waiting = [facts for facts in self.mail if facts]
        for _ in range(min(most, len(waiting[which % len(waiting)])) if waiting else 0):
            self.arrive(waiting[which % len(waiting)])

    def arrive(self, facts: list[Payload]) -> None:
        fact = facts.pop(0)
        registered = [one for one in self.folding.take(fact) if isinstance(one, AdapterRegistered)]
        if isinstance(fact, TrainingCompleted):
            self.made.append(fact)
            if registered:
                assert not any(map(self.covering, self.kept(fact.dataset))), "it uses an erased row and was registered"
                self.folding.take(rejected(registered[0].arm))

    def covering(self, row: tuple[str, int]) -> CommandForget | None:
        """The first erasure of a row."""
        return next((one for one in self.erasures if one.subject == row[0] and row[1] < one.cut[0].offset), None)

    def kept(self, dataset: str) -> list[tuple[str, int]]:
        """Whose rows a stored data set holds."""
        files = self.trees.trees[dataset]
        lines = [json.loads(line) for name in files if name.endswith("jsonl") for line in files[name].splitlines()]
        return [(line["subject"], line["offset"]) for line in lines if "sealed" in line]


PEOPLE = ("a" * 32, "b" * 32, "c" * 32)
DO = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from([None, *PEOPLE]), st.integers(0, 40), st.integers(0, 1)),
    st.tuples(st.just("erase"), st.sampled_from(PEOPLE), st.integers(0, 12)),
    st.tuples(st.just("start")),
    st.tuples(st.just("deliver"), st.integers(0, 2), st.integers(1, 8)),
    st.tuples(st.just("deliver"), st.integers(0, 2), st.integers(1, 8)),
)


@given(st.lists(DO, max_size=30))
@settings(max_examples=40, deadline=None)
def test_no_erased_row_is_used_again_and_what_is_marked_is_what_was_used(steps: list[tuple[Any, ...]]) -> None:
    """Over any interleaving of cases, erasures, jobs and late facts: each adapter is marked with exactly its erased rows, once."""
    world = World()
    for number in range(24):
        world.ask(None if number % 4 == 0 else "abc"[number % 3] * 32, number, number % 2)
    for name, *given_to in steps:
        getattr(world, name)(*given_to)
    world.start()
    while any(world.mail):
        world.deliver(0, 1)
    expected = Counter(
        (fact.adapter, erasure.erasure)
        for fact in world.made
        for row in world.kept(fact.dataset)
        if (erasure := world.covering(row)) is not None
    )
    marks = world.folding.of(AdapterMarked)
    assert {(mark.adapter, mark.erasure): mark.rows for mark in marks} == expected
    assert len(marks) == len(expected)
