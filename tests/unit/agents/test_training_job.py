"""The training job, beyond its good day: what is stored, and that a repeat says the same."""

from pathlib import Path

import pytest
from trained import Library, Range, Sent, T, Tenants, order, ports

from agents.trainer import job
from infra.artifacts import DirectoryStore
from schemas.errors import Unavailable
from schemas.events import CaseArm, CaseClosed, Message, TrainingCompleted, TrainingFailed, TrainingOrdered


def case(number: int) -> CaseClosed:
    return CaseClosed.model_validate({
        "at_ms": T, "route": "r", "request_id": f"q{number}", "request_partition": 0, "request_offset": number,
        "decision_id": f"d{number}", "assigned_at_ms": T + number, "window_end_ms": T, "arm": "old", "why": "complete",
        "messages": (Message(role="user", content=f"text {number}"),), "choices": (), "grader": "reference",
        "arms": (CaseArm(arm="old", shadow=False, status="completed", grade=1000 * (number % 2)),),
        "label": f"class {number % 2}", "verdict_kind": "reference", "verdict_at_ms": T + number,
    })  # fmt: skip


async def ran(folder: Path, library: Library, told: TrainingOrdered, count: int = 100) -> tuple[bool, Sent]:
    sent = Sent()
    cases = {number: case(number) for number in range(count)}
    work = ports(
        cases=Range(cases),
        artifacts=DirectoryStore(folder),
        trainings=library,
        facts=sent,
        tenants=Tenants(off=True),
    )
    done = await job.run(told, work)
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


@pytest.mark.parametrize(
    ("library", "count", "reason"),
    [
        (Library(), 0, "nothing to train on"),
        (Library(error=Unavailable("stopped at its time limit")), 100, "stopped at its time limit"),
        (Library(good=False), 100, "worse than the champion"),
        (Library(unsigned=Unavailable("the secret store is sealed")), 100, "sealed"),
    ],
)
async def test_what_ends_a_job_is_reported_and_leaves_nothing(
    tmp_path: Path, library: Library, count: int, reason: str
) -> None:
    """One `training.failed` with the reason, under its own identity; neither rows nor weights nor probes are in the store."""
    done, sent = await ran(tmp_path / "store", library, order(), count)
    name, fact = sent.rows[-1]
    assert not done
    assert name == "o1/1/failed"
    assert isinstance(fact, TrainingFailed)
    assert reason in fact.reason
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
