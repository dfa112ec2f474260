"""The training job, beyond its good day: what is stored, and that a repeat says the same."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.rules.curation import Row
from agents.trainer import job
from infra.artifacts import DirectoryStore
from infra.clock import ManualClock
from schemas.errors import RatchetError, Unavailable
from schemas.events import CaseArm, CaseClosed, Message, TrainingCompleted, TrainingFailed, TrainingOrdered
from schemas.payload import Payload
from schemas.routes import TrainingSettings

T = 1_700_000_000_000


def case(number: int) -> CaseClosed:
    return CaseClosed.model_validate({
        "at_ms": T, "route": "r", "request_id": f"q{number}", "request_partition": 0, "request_offset": number,
        "decision_id": f"d{number}", "assigned_at_ms": T + number, "window_end_ms": T, "arm": "old", "why": "complete",
        "messages": (Message(role="user", content=f"text {number}"),), "choices": (), "grader": "reference",
        "arms": (CaseArm(arm="old", shadow=False, status="completed", grade=1000 * (number % 2)),),
        "label": f"class {number % 2}", "verdict_kind": "reference", "verdict_at_ms": T + number,
    })  # fmt: skip


class Range:
    """The cases of an order; `count` of them."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]:
        return [case(number) for number in range(self.count)]


class Library:
    """Trains at once; its adapter answers as well as `good` says. `error` is what training ends with."""

    def __init__(self, *, good: bool = True, error: RatchetError | None = None) -> None:
        self.good, self.error = good, error

    async def train(self, order: TrainingOrdered, rows: Sequence[Row], out: Path, progress: job.Progress) -> float:
        if self.error is not None:
            raise self.error
        await asyncio.to_thread(out.mkdir)
        await asyncio.to_thread((out / "weights").write_bytes, b"weights")
        for step in (1, 2):
            await progress("training", step, 2, step / 2, 0.5)
        return 2.0

    async def weaken(self, adapter: Path, strength: float, out: Path) -> None:
        await asyncio.to_thread(shutil.copytree, adapter, out)

    async def right(self, order: TrainingOrdered, adapter: Path | None, rows: Sequence[Row]) -> Sequence[bool]:
        return [row.champion_right if adapter is None else self.good for row in rows]

    async def probe(self, order: TrainingOrdered, adapter: Path, rows: Sequence[Row]) -> None:
        await asyncio.to_thread((adapter / "probes").write_text, rows[0].text)

    async def sign(self, order: TrainingOrdered, adapter: Path, about: Mapping[str, Any]) -> bytes:
        return f"statement of {about['tree']}".encode()


class Sent:
    def __init__(self) -> None:
        self.rows: list[tuple[str, Payload]] = []

    async def send(self, payload: Payload, identity: str) -> None:
        self.rows.append((identity, payload))


def order(attempt: int = 1, **changes: Any) -> TrainingOrdered:
    return TrainingOrdered(
        route="r", at_ms=T, order_id="o1", reason="x", base="sha256:b", champion="old", cases_partition=0, cases_first=0,
        cases_last=99, rows=100, classes=2, template="{text}", max_tokens=8, attempt=attempt,
        settings=TrainingSettings.model_validate(changes).model_dump(),
    )  # fmt: skip


async def ran(folder: Path, library: Library, told: TrainingOrdered, count: int = 100) -> tuple[bool, Sent]:
    sent = Sent()
    done = await job.run(told, Range(count), DirectoryStore(folder), library, sent, ManualClock(T))
    return done, sent


async def test_a_repeat_says_the_same_under_the_same_identities(tmp_path: Path) -> None:
    """Twice the same job: the same facts, digests and identities; the next attempt has identities of its own."""
    first, again, other = [(await ran(tmp_path / "store", Library(), order(attempt)))[1].rows for attempt in (1, 1, 2)]
    assert first == again
    assert [name for name, _ in first] == [
        "o1/1/curating/0", "o1/1/training/1", "o1/1/training/2", "o1/1/evaluating/0", "o1/1/signing/0", "o1/1/completed",
    ]  # fmt: skip
    assert not {name for name, _ in first} & {name for name, _ in other}


async def test_what_is_completed_lies_in_the_store(tmp_path: Path) -> None:
    """Statement, adapter and dataset are found under the digests that the fact names."""
    store = DirectoryStore(tmp_path / "store")
    done, sent = await ran(tmp_path / "store", Library(), order())
    fact = sent.rows[-1][1]
    assert done
    assert isinstance(fact, TrainingCompleted)
    assert store.get_bytes(fact.adapter) == f"statement of {fact.tree}".encode()
    assert {path.name for path in store.verify_tree(fact.tree).iterdir()} == {"weights", "probes"}
    assert (fact.rows, fact.cutoff_ms, fact.energy_j) == (100, T + 99, 30.0)


async def test_a_worse_adapter_is_nowhere_in_the_store(tmp_path: Path) -> None:
    """It fails on the held-out split: neither its weights nor a statement were stored, only the dataset."""
    done, sent = await ran(tmp_path / "store", Library(good=False), order())
    fact = sent.rows[-1][1]
    assert not done
    assert isinstance(fact, TrainingFailed)
    assert "worse than the champion" in fact.reason
    assert fact.metrics["test_adapter"] == 0.0
    stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert stored
    assert not any(path.read_bytes() == b"weights" or b"statement" in path.read_bytes() for path in stored)


@pytest.mark.parametrize(
    ("library", "count", "reason"),
    [
        (Library(), 0, "nothing to train on"),
        (Library(error=Unavailable("stopped at its time limit")), 100, "stopped at its time limit"),
    ],
)
async def test_what_ends_a_job_is_reported(tmp_path: Path, library: Library, count: int, reason: str) -> None:
    """No rows, or a training that was stopped: one `training.failed` with the reason, under its own identity."""
    done, sent = await ran(tmp_path / "store", library, order(), count)
    name, fact = sent.rows[-1]
    assert not done
    assert name == "o1/1/failed"
    assert isinstance(fact, TrainingFailed)
    assert reason in fact.reason
