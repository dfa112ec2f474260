"""A log's key is rotated with overlap: announced under the old version, signed by both, then by the new one alone."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sequencing import TurningNotary

from agents.evidence.log import CHECKPOINT, POLICY, SIGNED, LogDamaged
from infra.notary import verify
from schemas.errors import Refused, Unavailable
from schemas.tlog.note import open_note, parse_vkey
from schemas.tlog.policy import open_checkpoint, parse_policy

STEPS = ("file", "tiles", "intent", "consistent", "fenced", "signing", "signed", "dropped", "policy", "checkpoint")
Passed = Callable[[str], None]


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture
def notary(lab: Any) -> TurningNotary:
    """The lab's notary from now on."""
    lab.notary = TurningNotary()
    return lab.notary


def signers(notary: TurningNotary, data: bytes) -> list[int]:
    """The versions whose signatures a note carries, in its order."""
    keys = {parse_vkey(notary.vkey(version)): version for version in range(1, notary.latest() + 1)}
    return [keys[key] for key in open_note(data, list(keys), verify)[1]]


async def trusted(sequencer: Any) -> list[list[str]]:
    """The log keys of each trust entry."""
    said = [json.loads(entry) for _, entry in sequencer.entries(0, sequencer.size)]
    return [entry["logs"] for entry in said if entry.get("type") == "trust"]


async def turn(lab: Any, notary: TurningNotary, passed: Passed = lambda _: None) -> None:
    """Six batches: the key is rotated before the third, the old version retired before the fifth. Goes on after a crash."""
    sequencer = await lab.open(passed)
    try:
        entries = [json.loads(entry) for _, entry in sequencer.entries(0, sequencer.size)]
        for number in range(sum("number" in entry for entry in entries), 6):
            if number >= 2 and notary.latest() == 1:
                notary.rotate()
            notary.oldest = 2 if number >= 4 else 1
            await sequencer.commit([json.dumps({"number": number}).encode()])
    finally:
        sequencer.close()


async def test_overlap(lab: Any, notary: TurningNotary) -> None:
    """Old alone announces the new key; then both sign, oldest first; then the new one alone. Each is valid on its own."""
    sequencer = await lab.open()
    seen: list[list[int]] = []
    for number in range(6):
        if number == 2:
            notary.rotate()
        notary.oldest = 2 if number >= 4 else 1
        await sequencer.commit([b"{}"])
        policy = parse_policy((lab.root / POLICY).read_text())
        open_checkpoint((lab.root / CHECKPOINT).read_bytes(), policy, verify)
        seen.append(signers(notary, (lab.root / CHECKPOINT).read_bytes()))
    assert seen == [[1], [1], [1], [1, 2], [2], [2]]
    assert await trusted(sequencer) == [[notary.vkey(1)], [notary.vkey(1), notary.vkey(2)]]
    assert (lab.root / POLICY).read_text().count("log ") == 2
    sequencer.close()


@pytest.mark.parametrize(
    ("step", "nth"), [(step, nth) for step in STEPS for nth in range(1, 6) if step != "policy" or nth < 3]
)
async def test_killed_while_rotating(lab: Any, notary: TurningNotary, step: str, nth: int) -> None:
    """Killed at any step around a rotation, the log resumes to the same root, the same signed note and the same policy."""
    other, undisturbed = lab.beside("other"), TurningNotary()
    other.notary = undisturbed
    await turn(other, undisturbed)
    left = nth

    def crash(name: str) -> None:
        nonlocal left
        left -= name == step
        if name == step and left == 0:
            raise Crash

    with pytest.raises(Crash):
        await turn(lab, notary, crash)
    await turn(lab, notary)
    for name in (SIGNED, CHECKPOINT, POLICY):
        assert (lab.root / name).read_bytes() == (other.root / name).read_bytes()


async def test_a_bound_version_is_retired(lab: Any, notary: TurningNotary) -> None:
    """Both versions were bound, then the old one was retired: the new one signs that very body alone."""
    sequencer = await lab.open()
    notary.rotate()
    await sequencer.commit([b"{}"])
    lab.fence.error = Unavailable("the broker is away")
    with pytest.raises(Unavailable):
        await sequencer.commit([b"{}"])
    lab.fence.error, notary.oldest = None, 2
    await sequencer.finish()
    await sequencer.publish()
    assert signers(notary, (lab.root / CHECKPOINT).read_bytes()) == [2]
    sequencer.close()


async def test_the_only_bound_version_is_retired(lab: Any, notary: TurningNotary) -> None:
    """Retired before its successor was announced: it stops, says what to do, and goes on when that is done."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    lab.fence.error = Unavailable("the broker is away")
    with pytest.raises(Unavailable):
        await sequencer.commit([b"{}"])
    before, lab.fence.error = (lab.root / SIGNED).read_bytes(), None
    notary.rotate()
    notary.oldest = 2
    with pytest.raises(Refused, match="min_encryption_version"):
        await sequencer.finish()
    sequencer.close()
    with pytest.raises(Refused, match="min_encryption_version"):
        await lab.open()
    assert (lab.root / SIGNED).read_bytes() == before
    notary.oldest = 1
    sequencer = await lab.open()
    assert sequencer.size == 3
    sequencer.close()


async def test_a_rotation_without_overlap_is_refused(lab: Any, notary: TurningNotary) -> None:
    """A new key that no entry under the old one announced signs nothing: readers would not believe it."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    notary.rotate()
    notary.oldest = 2
    with pytest.raises(Refused, match="announced none"):
        await sequencer.commit([b"{}"])
    assert (sequencer.pending, sequencer.size) == (False, 2)
    sequencer.close()


async def test_another_key_under_the_same_name(lab: Any, notary: TurningNotary) -> None:
    """A notary with other keys than those that signed the log is not believed."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    sequencer.close()
    lab.notary = TurningNotary(seed=99)
    with pytest.raises(LogDamaged, match=SIGNED):
        await lab.open()


async def test_a_sealed_notary_writes_nothing(lab: Any, notary: TurningNotary) -> None:
    """Away before a batch: nothing is written and nothing bound. Away after: the batch is bound, and signed when it is back."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    before = sorted(path for path in lab.root.rglob("*"))
    notary.away = True
    with pytest.raises(Unavailable):
        await sequencer.commit([b"{}"])
    assert (sequencer.pending, sorted(lab.root.rglob("*"))) == (False, before)
    notary.away = False
    await sequencer.commit([b"{}"])
    assert len(notary.signed) == 2
    sequencer.close()
