"""A crash at any step leaves a log that resumes to the same root."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sequencing import Stand

from agents.evidence import coverage
from agents.evidence.log import CHECKPOINT, INTENT, POLICY, SIGNED, LogDamaged, LogLocked, export
from infra.notary import verify
from schemas.errors import Unavailable
from schemas.tlog.policy import open_checkpoint, parse_policy
from tools import verify_evidence

SIZES = (3, 254, 2, 40)
STEPS = (
    "file", "tiles", "intent", "consistent", "fenced", "signing", "signed", "dropped", "asking", "answered", "policy",
    "checkpoint",
)  # fmt: skip


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


async def entries_of(lab: Any) -> list[dict[str, Any]]:
    """Everything that the log holds."""
    sequencer = await lab.open()
    try:
        return [json.loads(entry) for _, entry in sequencer.entries(0, sequencer.size)]
    finally:
        sequencer.close()


def verified(lab: Any, folder: Path) -> verify_evidence.Report:
    shutil.rmtree(folder, ignore_errors=True)
    export(lab.root, folder)
    return verify_evidence.verify(folder)


@pytest.mark.parametrize(
    ("step", "nth"), [(step, nth) for step in STEPS for nth in (1, 3) if (step, nth) != ("policy", 3)]
)
async def test_killed_at_each_step(lab: Any, tmp_path: Path, step: str, nth: int) -> None:
    """Killed at any step of any batch, the log resumes: same root, same checkpoint bytes as without a crash, each offset once."""
    other = lab.beside("other")
    for log in (other, lab):
        stand = Stand(tmp_path / f"witnesses-{log.root.name}", lab.notary.vkeys)
        log.quorum = partial(stand.quorum, lab.clock, 2)
    root = await fill(other, SIZES)
    with pytest.raises(Crash):
        await fill(lab, SIZES, crash_at(step, nth))
    assert await fill(lab, SIZES) == root
    for name in (CHECKPOINT, POLICY, SIGNED):
        assert (lab.root / name).read_bytes() == (other.root / name).read_bytes()
    offsets = [entry["src"]["offset"] for entry in await entries_of(lab) if "src" in entry]
    assert offsets == list(range(sum(SIZES)))


@pytest.mark.parametrize("step", STEPS)
async def test_published_is_what_the_policy_accepts(lab: Any, tmp_path: Path, step: str) -> None:
    """At no step is a checkpoint published that the policy beside it refuses: unsigned, or without its quorum."""
    stand = Stand(tmp_path / "witnesses", lab.notary.vkeys)
    lab.quorum = partial(stand.quorum, lab.clock, 2)
    with pytest.raises(Crash):
        await fill(lab, SIZES, crash_at(step))
    published = lab.root / CHECKPOINT
    assert published.exists() == (step == "checkpoint")
    if published.exists():
        policy = parse_policy((lab.root / POLICY).read_text())
        assert list(open_checkpoint(published.read_bytes(), policy, verify).witnessed) == ["w1", "w2"]


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
    bound = json.loads((lab.root / INTENT).read_bytes())["body"]
    sequencer = await lab.open()
    assert sequencer.signed.checkpoint.text == bound
    sequencer.close()


async def test_a_log_begins_with_whom_to_trust(lab: Any) -> None:
    """The first entry names policy, keys and attester; nothing else is said of them until they change."""
    await fill(lab, (5,))
    await fill(lab, (5, 5))
    first, *others = await entries_of(lab)
    policy = (lab.root / POLICY).read_bytes()
    assert first == {
        "v": 1,
        "type": "trust",
        "policy": hashlib.sha256(policy).hexdigest(),
        "logs": lab.notary.vkeys(),
        "witnesses": [],
        "attester": {
            "keyid": hashlib.sha256(lab.attester).hexdigest()[:16],
            "key": base64.b64encode(lab.attester).decode(),
        },
    }
    assert "trust" not in [entry["type"] for entry in others]


async def test_another_attester_is_announced(lab: Any) -> None:
    """With another key for attestations the next batch begins with another trust entry."""
    await fill(lab, (5,))
    lab.attester = bytes(31) + b"\x09"
    await fill(lab, (5, 5))
    said = [entry["attester"]["key"] for entry in await entries_of(lab) if entry["type"] == "trust"]
    assert said[1:] == [base64.b64encode(lab.attester).decode()]


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
    assert (await sequencer.finish()).checkpoint.size == 1 + len(entries)
    sequencer.close()


async def test_no_file_is_ever_overwritten(lab: Any) -> None:
    """A tile that stands with other bytes stops the sequencer."""
    await fill(lab, (5,))
    sequencer = await lab.open()
    other = lab.root / "tile/0/000.p/9"
    other.write_bytes(b"x" * 256)
    with pytest.raises(LogDamaged, match="other bytes"):
        await sequencer.commit([b"{}", b"{}"])
    sequencer.close()


@pytest.mark.parametrize("path", ["tile/0/000.p/7", "tile/entries/000.p/7", "state/signed", "state/intent"])
async def test_a_damaged_log_does_not_start(lab: Any, path: str) -> None:
    """Bytes that contradict the signed root, or the signature, stop the start or the next checkpoint."""
    await fill(lab, (5,))
    target = lab.root / path
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    with pytest.raises(LogDamaged):
        await fill(lab, (5, 5))


@pytest.mark.parametrize("name", [CHECKPOINT, POLICY])
async def test_what_is_published_is_made_again(lab: Any, name: str) -> None:
    """A published file that is gone, or has another signature or quorum in it, is made again from the signed state."""
    await fill(lab, (5,))
    sound = (lab.root / name).read_bytes()
    other = sound.replace(b"none", b"all") if name == POLICY else sound[:-9] + b"AAAAAA==\n"
    for damage in (None, other):
        (lab.root / name).unlink()
        if damage is not None:
            (lab.root / name).write_bytes(damage)
        await fill(lab, (5,))
        assert (lab.root / name).read_bytes() == sound


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
