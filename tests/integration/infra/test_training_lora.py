"""Training for real, tiny: a base from nothing, an adapter on it, stopped and resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.artifacts import tree_manifest
from infra.clock import ManualClock
from infra.training import (
    BaseSettings,
    Example,
    LoraSettings,
    Progress,
    TrainingStopped,
    evaluate,
    golden_probes,
    train_base,
    train_lora,
    weaken,
)
from schemas.errors import Refused

OLD = [Example(f"Customer: {thing} {i}\nIntent:", thing) for i in range(16) for thing in ("card", "money")]
NEW = [
    Example(f"Customer: {thing} {thing} {i}\nIntent:", f"{thing} {thing}")
    for i in range(16)
    for thing in ("card", "money")
]
LORA = LoraSettings(rank=8, lora_alpha=16, epochs=25, batch=8, learning_rate=5e-3, dropout=0.0, threads=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of some thousand weights that knows two intents."""
    folder = tmp_path_factory.mktemp("model") / "base"
    settings = BaseSettings(
        vocabulary=320, layers=1, width=64, heads=2, inner=64, epochs=40, batch=8, learning_rate=5e-3, threads=1
    )
    train_base(OLD, folder, settings)
    return folder


pytestmark = pytest.mark.timeout(300)


def test_the_base_learns_what_it_was_shown_and_no_more(base: Path) -> None:
    """Greedy decoding gives the intents that it was trained on, none of the others."""
    assert sum(evaluate(base, None, OLD, threads=1)) == len(OLD)
    assert sum(evaluate(base, None, NEW, threads=1)) == 0


def test_an_adapter_learns_the_new_intents(base: Path, tmp_path: Path) -> None:
    """The adapter answers what the base could not, its probes show that, and no path of this machine is in its files."""
    seen: list[Progress] = []
    trained = train_lora(base, [*OLD, *NEW], tmp_path / "lora", LORA, progress=seen.append)
    assert seen[-1].step == trained.steps == 8 * LORA.epochs
    assert trained.losses[-1] < trained.losses[0]
    assert sum(evaluate(base, tmp_path / "lora", NEW, threads=1)) >= len(NEW) * 0.9
    probes = golden_probes(base, tmp_path / "lora", [e.prompt for e in NEW[:4]], count=2, margin=0.1)
    assert {p.text for p in probes} <= {"card card", "money money"}
    for file in (tmp_path / "lora").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert str(base).encode() not in file.read_bytes()


def test_a_weakened_adapter_is_between_the_base_and_itself(base: Path, tmp_path: Path) -> None:
    """At nothing it answers as the base does, whole as itself; its files are named alike, and what it came from is not changed."""
    whole = tmp_path / "whole"
    train_lora(base, [*OLD, *NEW], whole, LORA)
    manifest = tree_manifest(whole)
    for strength, like in ((0.0, None), (1.0, whole)):
        weaken(whole, strength, tmp_path / "weak")
        assert {file.name for file in (tmp_path / "weak").iterdir()} == {file.name for file in whole.iterdir()}
        for rows in (OLD, NEW):
            assert evaluate(base, tmp_path / "weak", rows, threads=1) == evaluate(base, like, rows, threads=1)
    assert tree_manifest(whole) == manifest
    weaken(whole, 0.5, tmp_path / "weak")
    assert tree_manifest(tmp_path / "weak") != manifest


def _cancel_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_a_resumed_run_ends_with_the_same_bytes(base: Path, tmp_path: Path) -> None:
    """Cancelled in its third epoch and started again, a run gives the adapter that it would have given uninterrupted."""
    rows = [*OLD, *NEW]
    train_lora(base, rows, tmp_path / "whole", LORA)
    with pytest.raises(TrainingStopped) as stopped:
        train_lora(
            base, rows, tmp_path / "resumed", LORA, checkpoint_dir=tmp_path / "checkpoint", stop=_cancel_after(20)
        )
    assert stopped.value.reason == "cancelled"
    assert not (tmp_path / "resumed").exists()
    trained = train_lora(base, rows, tmp_path / "resumed", LORA, checkpoint_dir=tmp_path / "checkpoint")
    assert trained.resumed_at_epoch == 2
    assert tree_manifest(tmp_path / "resumed") == tree_manifest(tmp_path / "whole")


def test_a_checkpoint_of_other_rows_is_not_used(base: Path, tmp_path: Path) -> None:
    """A changed dataset starts from the beginning."""
    short = LoraSettings(rank=4, epochs=1, batch=8, threads=1)
    train_lora(base, OLD, tmp_path / "a", short, checkpoint_dir=tmp_path / "checkpoint")
    assert train_lora(base, NEW, tmp_path / "b", short, checkpoint_dir=tmp_path / "checkpoint").resumed_at_epoch == 0


def test_the_time_limit_stops_a_run(base: Path, tmp_path: Path) -> None:
    """Past its limit a run stops, says so and leaves no half adapter."""

    class Racing(ManualClock):
        def monotonic(self) -> float:
            self._elapsed += 100.0
            return self._elapsed

    with pytest.raises(TrainingStopped) as stopped:
        train_lora(base, NEW, tmp_path / "lora", LoraSettings(time_limit_s=250, threads=1), clock=Racing())
    assert stopped.value.reason == "time_limit"
    assert not (tmp_path / "lora").exists()


def test_no_examples_are_refused(base: Path, tmp_path: Path) -> None:
    """An empty dataset is the sender's error, not a crash."""
    with pytest.raises(Refused):
        train_lora(base, [], tmp_path / "lora", LORA)
