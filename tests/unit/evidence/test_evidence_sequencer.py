"""A crash at any step leaves a log that resumes to the same root."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.evidence import coverage
from agents.evidence.log import LogDamaged, LogLocked, export
from schemas.errors import Unavailable
from tools import verify_evidence

SIZES = (3, 254, 2, 40)
STEPS = ("file", "tiles", "intent", "consistent", "fenced", "signing", "signed", "checkpoint", "dropped")


class Crash(BaseException):
    """The process dies here."""


def crash_at(step: str, nth: int = 1) -> Callable[[str], None]:
    left = nth

    def passed(name: str) -> None:
        nonlocal left
        left -= name == step
        if name == step and left == 0:
            raise Crash(step)

    return passed


async def fill(lab: Any, sizes: Sequence[int], passed: Callable[[str], None] = lambda _: None) -> bytes:
    """Record batches of these sizes as a collector would, going on where the log says; the root."""
    sequencer = await lab.open(passed)
    try:
        frontiers = coverage.frontiers(sequencer.newest_first())
        first = frontiers[source].next if (source := ("ratchet.requests", 0)) in frontiers else 0
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        for end in ends:
            if end > first:
                reads = [lab.request(offset) for offset in range(first, end)]
                await sequencer.commit(lab.entries(reads, frontiers))
                first = end
        return sequencer.signed.checkpoint.root
    finally:
        sequencer.close()


def verified(lab: Any, folder: Path) -> verify_evidence.Report:
    shutil.rmtree(folder, ignore_errors=True)
    export(lab.root, folder)
    return verify_evidence.verify(folder)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 3])
async def test_killed_at_each_step(lab: Any, tmp_path: Path, step: str, nth: int) -> None:
    """Killed at any step of any batch, the log resumes: same root as without a crash, each offset once."""
    undisturbed = type(lab)(tmp_path / "other", lab.notary, lab.fence, lab.clock, lab.keys, lab.publisher)
    root = await fill(undisturbed, SIZES)
    with pytest.raises(Crash):
        await fill(lab, SIZES, crash_at(step, nth))
    assert await fill(lab, SIZES) == root
    report = verified(lab, tmp_path / "export")
    assert report.problems == []
    assert report.partitions["ratchet.requests/0"].entries == sum(SIZES)


async def test_two_crashes_in_a_row(lab: Any, tmp_path: Path) -> None:
    """A crash while resuming from a crash changes nothing either."""
    with pytest.raises(Crash):
        await fill(lab, SIZES, crash_at("intent", 2))
    for step in ("consistent", "fenced", "signing", "signed"):
        with pytest.raises(Crash):
            await fill(lab, SIZES, crash_at(step))
    await fill(lab, SIZES)
    assert verified(lab, tmp_path / "export").valid


async def test_an_intent_is_binding(lab: Any) -> None:
    """After a crash behind the intent the resume signs exactly that body, before anything else."""
    with pytest.raises(Crash):
        await fill(lab, (7,), crash_at("intent"))
    sequencer = await lab.open()
    assert sequencer.signed is not None
    assert sequencer.size == 8
    sequencer.close()


async def test_unsigned_files_are_set_aside(lab: Any) -> None:
    """Files of a batch without an intent leave the log, and stay to be looked at."""
    with pytest.raises(Crash):
        await fill(lab, (7,), crash_at("tiles"))
    sequencer = await lab.open()
    assert sequencer.size == 0
    assert not [path for path in (lab.root / "tile").rglob("*") if path.is_file()]
    assert [path for path in (lab.root / "state/aside").rglob("*") if path.is_file()]
    sequencer.close()


async def test_the_second_sequencer_is_refused(lab: Any) -> None:
    """One writer: a second one on the same folder is refused, and may start when the first has gone."""
    first = await lab.open()
    with pytest.raises(LogLocked):
        await lab.open()
    first.close()
    (await lab.open()).close()


async def test_a_fenced_sequencer_signs_nothing(lab: Any) -> None:
    """When the fence is lost between staging and signing, no checkpoint appears."""
    await fill(lab, (5,))
    before = (lab.root / "checkpoint").read_bytes()
    lab.fence.taken = True
    with pytest.raises(lab.fenced):
        await fill(lab, (5, 5))
    assert (lab.root / "checkpoint").read_bytes() == (lab.root / "state/signed").read_bytes() == before


async def test_finish_after_the_world_was_away(lab: Any) -> None:
    """What raises Unavailable is finished later, with the same body, and nothing else may come in between."""
    sequencer = await lab.open()
    lab.fence.error = Unavailable("the broker is away")
    entries = lab.entries([lab.request(0)], {})
    with pytest.raises(Unavailable):
        await sequencer.commit(entries)
    assert sequencer.pending
    with pytest.raises(RuntimeError):
        await sequencer.commit(entries)
    lab.fence.error = None
    assert (await sequencer.finish()).checkpoint.size == len(entries)
    sequencer.close()


async def test_no_file_is_ever_overwritten(lab: Any) -> None:
    """A tile that stands with other bytes stops the sequencer."""
    await fill(lab, (5,))
    sequencer = await lab.open()
    other = lab.root / "tile/0/000.p/8"
    other.write_bytes(b"x" * 256)
    with pytest.raises(LogDamaged, match="other bytes"):
        await sequencer.commit([b"{}", b"{}"])
    sequencer.close()


@pytest.mark.parametrize("path", ["tile/0/000.p/6", "tile/entries/000.p/6", "state/signed"])
async def test_a_damaged_log_does_not_start(lab: Any, path: str) -> None:
    """Bytes that contradict the signed root, or the signature, stop the start or the next checkpoint."""
    await fill(lab, (5,))
    target = lab.root / path
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(LogDamaged):
        await fill(lab, (5, 5))


async def test_an_old_state_is_refused(lab: Any, tmp_path: Path) -> None:
    """A state folder from a backup, behind the published checkpoint, does not start."""
    await fill(lab, (5,))
    old = (lab.root / "state/signed").read_bytes()
    await fill(lab, (5, 5))
    (lab.root / "state/signed").write_bytes(old)
    with pytest.raises(LogDamaged, match="rolled back"):
        await lab.open()


async def test_partial_tiles_go_when_they_are_full(lab: Any) -> None:
    """Under a published checkpoint no partial version of a full tile is left."""
    await fill(lab, (300, 300, 500))
    left = {path.parent.name for path in (lab.root / "tile").rglob("*") if path.parent.name.endswith(".p")}
    assert left == {"000.p", "004.p"}  # the level-1 tile, and the right edge of level 0 and of the bundles
