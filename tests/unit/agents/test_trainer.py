"""The trainer: what becomes a row, when a training is ordered, and what a job does with the order."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from folding import Folding
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.curation import Row, curate, part_of
from agents.rules.text import normalise
from agents.trainer import job
from agents.trainer.actor import Jobs
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
from schemas.payload import Payload
from schemas.routes import Arm, Route, TrainingSettings

T = 1_700_000_000_000
BY: dict[str, Any] = {"route": "r", "operator": "ann"}


def case(
    index: int, label: str | None, text: str | None = None, right: bool = True, at: int | None = None
) -> CaseClosed:
    at = T + index if at is None else at
    return CaseClosed(
        route="r",
        request_id=f"q{index}",
        request_partition=0,
        request_offset=index,
        decision_id=f"d{index}",
        assigned_at_ms=at,
        window_end_ms=at + 1000,
        at_ms=at,
        arm="old",
        why="complete",
        messages=(Message(role="user", content=text or f"text {index}"),),
        arms=(CaseArm(arm="old", shadow=False, status="completed", text="a", grade=1000 if right else 0),),
        choices=(),
        grader="reference",
        label=label,
        verdict_by="ann" if label else "",
        verdict_kind="reference" if label else "",
        verdict_at_ms=at if label else None,
    )


def route(**training: Any) -> Route:
    numbers = {"min_rows": 20, "min_new_rows": 20, "min_rows_per_class": 2, "min_interval_s": 100}
    return Route(
        route="r",
        compliance="off",
        arms=(Arm(arm="old", base="sha256:base"),),
        champion="old",
        training=TrainingSettings.model_validate(numbers | training),
    )


def trainer(**training: Any) -> Folding:
    folding = Folding(Trainer())
    folding.take(CommandApply(**BY, at_ms=T, settings=route(**training)))
    return folding


def feed(folding: Folding, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        folding.take(case(index, f"class {index % 4}"))


def completed(order: TrainingOrdered, at: int) -> TrainingCompleted:
    return TrainingCompleted(
        route="r", at_ms=at, order_id=order.order_id, adapter="sha256:0123456789", tree="t", dataset="d", rows=20,
        cutoff_ms=T, seconds=1, metrics={"test_adapter": 0.9},
    )  # fmt: skip


def test_a_training_is_ordered_once_when_rows_suffice() -> None:
    """At the twentieth usable row, with the range of its cases; not again while the order is open."""
    folding = trainer()
    feed(folding, 19)
    folding.take(case(100, None))
    folding.take(case(101, "class 1", text="TEXT  1"))
    assert folding.of(TrainingOrdered) == [], "neither an unlabelled case nor a known text is a new row"
    feed(folding, 60, start=19)
    (order,) = folding.of(TrainingOrdered)
    assert (order.rows, order.classes, order.base, order.champion) == (20, 4, "sha256:base", "old")
    assert order.cases_first < order.cases_last


def test_an_order_completed_registers_one_adapter() -> None:
    """Its arm is named by the adapter; facts repeated or of another order change nothing; no order while its arena is open."""
    folding = trainer(min_interval_s=0)
    feed(folding, 20)
    (order,) = folding.of(TrainingOrdered)
    folding.take(completed(order.model_copy(update={"order_id": "other"}), T + 100))
    folding.take(completed(order, T + 101))
    folding.take(completed(order, T + 102))
    (registered,) = folding.of(AdapterRegistered)
    assert registered.arm == "lora-01234567"
    arena: dict[str, Any] = {"route": "r", "arena": "a", "champion": "old", "challenger": "lora-01234567"}
    folding.take(PromotionOpened(**arena, at_ms=T + 103, settings={}))
    feed(folding, 40, start=200)
    assert len(folding.of(TrainingOrdered)) == 1
    folding.take(PromotionRejected(**arena, at_ms=T + 400, reason="x", pairs=1))
    assert len(folding.of(TrainingOrdered)) == 2


def test_the_next_adapter_grows_from_the_promoted_one() -> None:
    """After a promotion an order names the new champion and its adapter as parent."""
    folding = trainer(min_interval_s=0)
    feed(folding, 20)
    folding.take(completed(folding.of(TrainingOrdered)[0], T + 101))
    promoted = ModelPromoted(
        route="r", arena="a", champion="old", challenger="lora-01234567", at_ms=T + 150, pairs=100, log_e=5, fleet_version=2,
        evaluation="e",
    )  # fmt: skip
    folding.take(promoted)
    feed(folding, 20, start=200)
    order = folding.of(TrainingOrdered)[-1]
    assert (order.champion, order.parent_adapter, order.base) == ("lora-01234567", "sha256:0123456789", "sha256:base")


def test_silence_orders_again_then_fails() -> None:
    """Ten silent minutes: the next attempt; progress keeps it alive; after the third the training has failed."""
    folding = trainer()
    feed(folding, 20)
    (order,) = folding.of(TrainingOrdered)
    heard = T + 300_000
    folding.take(TrainingProgressed(route="r", at_ms=heard, order_id=order.order_id, step=1, steps=9, epoch=0.1))
    folding.tick(heard + SILENT_MS - 1)
    assert len(folding.of(TrainingOrdered)) == 1
    for attempt in (2, 3):
        heard += SILENT_MS
        folding.tick(heard)
        assert folding.of(TrainingOrdered)[-1].attempt == attempt
        assert folding.of(TrainingOrdered)[-1].order_id == order.order_id
    folding.tick(heard + SILENT_MS)
    assert len(folding.of(TrainingFailed)) == 1
    assert len(folding.of(TrainingOrdered)) == 3


def test_commands_train_and_cancel() -> None:
    """A command skips the counts, not common sense: one class is refused with the reason. Cancel ends the order."""
    folding = trainer(min_rows=1000)
    feed(folding, 1)
    folding.take(CommandTrain(**BY, at_ms=T + 50))
    assert "two" in folding.of(TrainingFailed)[0].reason
    feed(folding, 30, start=10)
    folding.take(CommandTrain(**BY, at_ms=T + 60))
    (order,) = folding.of(TrainingOrdered)
    assert order.reason == "by command"
    folding.take(CommandCancel(**BY, at_ms=T + 70))
    assert folding.of(TrainingCancelled)[0].order_id == order.order_id


ROWS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", "c", None]), st.integers(0, 12)), min_size=1, max_size=40
)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_curation_is_order_free_and_keeps_a_text_once(rows: list[tuple[int, str | None, int]], random: Any) -> None:
    """Any order gives the same dataset; no text twice; every row is in the part that its request id says; the newest wins."""
    cases = [case(i, label, text=f"Text {text}") for i, (_, label, text) in enumerate(rows)]
    one = curate(cases, min_rows_per_class=2, max_rows=20)
    random.shuffle(cases)
    two = curate(cases, min_rows_per_class=2, max_rows=20)
    assert one.rows == two.rows
    texts = [normalise(row.text) for row in one.rows]
    assert len(texts) == len(set(texts)) <= 20
    for name, part in (("train", one.train), ("validation", one.validation), ("test", one.test)):
        assert all(part_of(row.request_id) == name for row in part)
    newest = {normalise(c.messages[0].content): c for c in sorted(cases, key=lambda c: c.at_ms) if c.label}
    assert all(newest[normalise(row.text)].label == row.label for row in one.rows)


def test_shuffled_labels_are_a_permutation() -> None:
    """Shuffling on purpose moves labels among training rows and leaves the test part alone."""
    cases = [case(i, f"class {i % 5}") for i in range(200)]
    plain = curate(cases, min_rows_per_class=1, max_rows=1000)
    mixed = curate(cases, min_rows_per_class=1, max_rows=1000, shuffle_labels=True, seed=3)
    assert [row.text for row in plain.train] == [row.text for row in mixed.train]
    assert Counter(row.label for row in plain.train) == Counter(row.label for row in mixed.train)
    assert sum(p.label != m.label for p, m in zip(plain.train, mixed.train, strict=True)) > len(plain.train) // 2
    assert plain.test == mixed.test


class FakeCases:
    async def read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]:
        return [case(i, f"class {i % 4}", right=i % 4 < 2) for i in range(200)]


class FakeArtifacts:
    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.trees: list[set[str]] = []

    def put_bytes(self, data: bytes) -> str:
        self.blobs.append(data)
        return "sha256:blob"

    def put_tree(self, path: Path) -> str:
        self.trees.append({file.name for file in path.iterdir()})
        return f"sha256:tree{len(self.trees)}"


def forgetting(until: float) -> Callable[[Row, float], bool]:
    """An adapter that knows all new classes and forgets `class 0`, unless it is as weak as `until`."""
    return lambda row, strength: strength <= until or not row.champion_right or row.label != "class 0"


class FakeTrainings:
    """`adapter_right(row, strength)` says how good the adapter is."""

    def __init__(self, adapter_right: Any) -> None:
        self.adapter_right = adapter_right
        self.about: Mapping[str, Any] = {}

    async def train(self, order: TrainingOrdered, rows: Sequence[Row], out: Path, progress: job.Progress) -> float:
        assert rows
        out.mkdir()  # noqa: ASYNC240  a fake need not be quick
        (out / "weights").write_text("1.0")
        await progress("training", 1, 1, 1.0, 0.5)
        return 2.0

    async def weaken(self, adapter: Path, strength: float, out: Path) -> None:
        out.mkdir()  # noqa: ASYNC240
        (out / "weights").write_text(str(strength))

    async def right(self, order: TrainingOrdered, adapter: Path | None, rows: Sequence[Row]) -> Sequence[bool]:
        if adapter is None:
            return [row.champion_right for row in rows]
        strength = float((adapter / "weights").read_text())
        return [self.adapter_right(row, strength) for row in rows]

    async def probe(self, order: TrainingOrdered, adapter: Path, rows: Sequence[Row]) -> None:
        assert rows

    async def sign(self, order: TrainingOrdered, adapter: Path, about: Mapping[str, Any]) -> bytes:
        self.about = about
        return json.dumps({"tree": about["tree"]}).encode()


class FakeFacts:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Payload]] = []

    async def send(self, payload: Payload, identity: str) -> None:
        self.sent.append((identity, payload))


class FakeClock:
    def now_ms(self) -> int:
        return T

    def monotonic(self) -> float:
        return 0.0


def order(**changes: Any) -> TrainingOrdered:
    return TrainingOrdered(
        route="r", at_ms=T, order_id="o1", reason="x", base="sha256:base", champion="old", cases_partition=0, cases_first=0,
        cases_last=10, rows=200, classes=4, template="{text}", max_tokens=8,
        settings=TrainingSettings.model_validate({"min_rows_per_class": 2} | changes).model_dump(),
    )  # fmt: skip


async def run(adapter_right: Any, **changes: Any) -> tuple[bool, FakeFacts, FakeArtifacts]:
    facts, artifacts = FakeFacts(), FakeArtifacts()
    done = await job.run(order(**changes), FakeCases(), artifacts, FakeTrainings(adapter_right), facts, FakeClock())
    return done, facts, artifacts


async def test_a_job_reports_what_it_does_and_what_came_out() -> None:
    """Dataset and adapter are stored, the statement too; phases in order; identities come from order and attempt."""
    done, facts, artifacts = await run(lambda row, _: True)
    assert done
    phases = [fact.phase for _, fact in facts.sent if isinstance(fact, TrainingProgressed)]
    assert phases == ["curating", "training", "evaluating", "signing"]
    identity, last = facts.sent[-1]
    assert isinstance(last, TrainingCompleted)
    assert identity == "o1/1/completed"
    assert (last.adapter, last.tree, last.dataset) == ("sha256:blob", "sha256:tree2", "sha256:tree1")
    assert artifacts.trees[0] == {"train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json"}
    assert last.metrics["test_champion"] < last.metrics["test_adapter"] == 1.0
    assert last.metrics["known_good_champion"] == 1.0
    assert last.energy_estimated


@pytest.mark.parametrize(("until", "strength"), [(1.0, 1.0), (0.9, 0.9), (0.75, 0.7)])
async def test_an_adapter_that_forgets_is_weakened_as_little_as_helps(until: float, strength: float) -> None:
    """The strongest that keeps what the champion has mastered is the one that is evaluated, stored and signed."""
    done, facts, artifacts = await run(forgetting(until))
    assert done
    last = facts.sent[-1][1]
    assert isinstance(last, TrainingCompleted)
    assert last.metrics["strength"] == strength
    assert last.metrics["known_good_adapter"] == 1.0
    assert artifacts.trees[-1] == {"weights"}


async def test_what_is_only_reported_is_not_weakened() -> None:
    """With holdout `report` the adapter is judged as it was trained."""
    done, facts, _ = await run(forgetting(0.9), holdout="report")
    assert done
    last = facts.sent[-1][1]
    assert isinstance(last, TrainingCompleted)
    assert "strength" not in last.metrics
    assert last.metrics["known_good_adapter"] < 1.0


@pytest.mark.parametrize(
    ("adapter_right", "reason"),
    [
        (lambda row, _: False, "worse than the champion"),
        (lambda row, _: not row.champion_right or row.label == "class 0", "forgets what the champion has mastered"),
    ],
)
async def test_a_bad_adapter_never_leaves_the_job(adapter_right: Any, reason: str) -> None:
    """Worse on the held-out split, or forgetful: training.failed says so with the figures, and no statement is stored."""
    done, facts, artifacts = await run(adapter_right)
    assert not done
    last = facts.sent[-1][1]
    assert isinstance(last, TrainingFailed)
    assert reason in last.reason
    assert last.metrics
    assert artifacts.blobs == []


async def test_a_route_may_only_report_the_held_out_check() -> None:
    """With holdout `report` the same adapter goes to the judge, its figures with it."""
    done, facts, _ = await run(lambda row, _: False, holdout="report")
    assert done
    last = facts.sent[-1][1]
    assert isinstance(last, TrainingCompleted)
    assert last.metrics["test_adapter"] == 0.0


class FakeJobs:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def start(self, order: TrainingOrdered, cause: str, traceparent: str) -> None:
        self.calls.append(("start", order.order_id))

    async def stop(self, order_id: str) -> None:
        self.calls.append(("stop", order_id))


async def test_jobs_start_and_stop_what_is_ordered() -> None:
    """An order starts its job, a cancellation stops it, other training events start nothing; a lost cluster fails the order."""
    fake = FakeJobs()
    jobs, folding = Jobs(fake), Folding(Trainer())
    ordered = folding.event(order())
    assert await jobs(ordered) == ()
    await jobs(folding.event(TrainingCancelled(route="r", at_ms=T, order_id="o1", reason="x")))
    await jobs(folding.event(completed(order(), T)))
    assert fake.calls == [("start", "o1"), ("stop", "o1")]
    (failed,) = jobs.expired(ordered, RuntimeError("no cluster"))
    assert "no cluster" in failed.payload.reason  # type: ignore[union-attr]
