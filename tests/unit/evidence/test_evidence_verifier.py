"""The offline verifier finds every change, and says how far its word goes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.log import export, policy_text
from infra.notary import LocalNotary
from schemas.tlog.note import VerifierKey
from streams.shapes import Frontier, Gap
from tools import verify_evidence

PROGRAM = Path(verify_evidence.__file__)


@pytest.fixture
async def exported(lab: Any, tmp_path: Path) -> Path:
    """An export of 263 entries: a full tile and a partial one at level 0, one at level 1."""
    sequencer = await lab.open()
    frontiers: dict[tuple[str, int], Frontier] = {}
    await sequencer.commit(lab.entries([lab.request(offset) for offset in range(200)], frontiers, full=True))
    gap = Gap("ratchet.requests", 0, 200, 201, "aborted")
    await sequencer.commit(lab.entries([gap, *(lab.request(offset) for offset in range(202, 263))], frontiers))
    sequencer.close()
    export(lab.root, tmp_path / "out")
    return tmp_path / "out"


def flipped(path: Path, bit: int, check: Callable[[], bool]) -> bool:
    """Whether `check` holds while one bit of the file is flipped."""
    data = path.read_bytes()
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        return check()
    finally:
        path.write_bytes(data)


def test_a_sound_export_is_valid(exported: Path) -> None:
    """The export as made is valid, by the bundle's keys and by given ones."""
    report = verify_evidence.verify(exported)
    assert (report.problems, report.size, report.trust) == ([], 263, "bundle")
    assert report.partitions["ratchet.requests/0"].skips == {"aborted": 2}
    assert verify_evidence.verify(exported, (exported / "policy.txt").read_text()).trust == "given"


def test_every_bit_of_the_checkpoint(exported: Path) -> None:
    """No single bit of the checkpoint can change unseen."""
    path = exported / "checkpoint"
    keys = verify_evidence.parse_policy((exported / "policy.txt").read_text(), strict=True)

    def refused() -> bool:
        try:
            verify_evidence.parse_checkpoint(path.read_bytes(), keys)
        except verify_evidence.Invalid:
            return True
        return False

    assert not refused()
    assert [bit for bit in range(path.stat().st_size * 8) if not flipped(path, bit, refused)] == []


def test_every_bit_of_the_policy(exported: Path) -> None:
    """No single bit of the bundle's own policy can change unseen."""
    path = exported / "policy.txt"

    def refused() -> bool:
        try:
            keys = verify_evidence.parse_policy(path.read_bytes().decode("utf-8"), strict=True)
            verify_evidence.parse_checkpoint((exported / "checkpoint").read_bytes(), keys)
        except (verify_evidence.Invalid, UnicodeDecodeError):
            return True
        return False

    assert [bit for bit in range(path.stat().st_size * 8) if not flipped(path, bit, refused)] == []


def test_bits_of_tiles_and_bundles(exported: Path) -> None:
    """Bits all over every tile and bundle: each flip is found (a sample; every one is the same comparison)."""
    files = [path for path in sorted((exported / "tile").rglob("*")) if path.is_file()]
    assert len(files) == 5
    for path in files:
        bits = path.stat().st_size * 8
        for bit in {0, bits - 1, *range(7, bits, max(1, bits // 9))}:
            assert flipped(path, bit, lambda: not verify_evidence.verify(exported).valid), (path, bit)


@pytest.mark.parametrize("name", ["extra", "tile/0/001.p/5", "tile/2/000.p/1", "state/signed", "tile/entries/001"])
def test_added_files(exported: Path, name: str) -> None:
    """A file that the checkpoint does not call for is refused, and so is an empty folder."""
    (exported / name).parent.mkdir(parents=True, exist_ok=True)
    (exported / name).write_bytes(b"")
    assert "unknown file" in verify_evidence.verify(exported).problems[0]
    (exported / name).unlink()
    (exported / "empty").mkdir()
    assert not verify_evidence.verify(exported).valid


@pytest.mark.parametrize("name", ["checkpoint", "policy.txt", "tile/0/000", "tile/1/000.p/1", "tile/entries/001.p/7"])
def test_dropped_and_linked_files(exported: Path, name: str) -> None:
    """A missing file is refused; so is a link in its place."""
    (exported / name).rename(exported.parent / "taken")
    assert not verify_evidence.verify(exported).valid
    (exported / name).symlink_to(exported.parent / "taken")
    assert not verify_evidence.verify(exported).valid


def test_swapped_tiles(exported: Path) -> None:
    """Tiles and bundles of other places do not pass."""
    for first, second in (("tile/0/000", "tile/entries/000"), ("tile/0/001.p/7", "tile/entries/001.p/7")):
        a, b = (exported / first).read_bytes(), (exported / second).read_bytes()
        (exported / first).write_bytes(b)
        (exported / second).write_bytes(a)
        assert not verify_evidence.verify(exported).valid


async def build(lab: Any, out: Path, entries: list[bytes]) -> verify_evidence.Report:
    """A log signed by us over whatever entries."""
    sequencer = await lab.open()
    await sequencer.commit(entries)
    sequencer.close()
    export(lab.root, out)
    return verify_evidence.verify(out)


def edited(entries: list[bytes], change: Callable[[Any], None]) -> list[bytes]:
    last = json.loads(entries[-1])
    change(last["partitions"]["ratchet.requests/0"])
    return [*entries[:-1], json.dumps(last, sort_keys=True, separators=(",", ":")).encode()]


@pytest.mark.parametrize(("name", "spoil"), [
    ("an entry removed", lambda e: e[:3] + e[4:]),
    ("an entry twice", lambda e: [*e[:3], e[2], *e[3:]]),
    ("entries swapped", lambda e: [e[1], e[0], *e[2:]]),
    ("no coverage", lambda e: e[:-1]),
    ("a skip removed", lambda e: edited(e, lambda p: p["skips"].clear())),
    ("a skip over an entry", lambda e: edited(e, lambda p: p.update(skips=[[3, 5, "aborted"]], entries=7))),
    ("a skip of no kind", lambda e: edited(e, lambda p: p.update(skips=[[5, 6, "because"]]))),
    ("an unannounced unknown", lambda e: edited(e, lambda p: p.update(skips=[[5, 6, "unknown"]]))),
    ("a later start", lambda e: edited(e, lambda p: p.update({"from": 1}))),
    ("a further end", lambda e: edited(e, lambda p: p.update({"next": 11}))),
    ("not canonical", lambda e: [e[0].replace(b'":', b'": ', 1), *e[1:]]),
    ("a float", lambda e: [e[0].replace(b'"inc":0', b'"inc":0.5', 1), *e[1:]]),
    ("no JSON", lambda e: [b"\xff", *e[1:]]),
])  # fmt: skip
async def test_signed_but_incomplete_logs(lab: Any, tmp_path: Path, name: str, spoil: Any) -> None:
    """The signer's own word does not help a log with a gap that nothing explains, or with other JSON."""
    reads = [lab.request(offset) for offset in (0, 1, 2, 3, 4, 7, 8, 9)]
    sound = lab.entries([*reads[:5], Gap("ratchet.requests", 0, 5, 6, "marker"), *reads[5:]], {})
    assert not (await build(lab, tmp_path / "out", spoil(sound))).valid, name


async def test_recorded_findings_do_not_fail_it(lab: Any, tmp_path: Path) -> None:
    """A gap that the log itself names as a finding is shown, and the export is valid."""
    entries = lab.entries([lab.request(0), Gap("ratchet.requests", 0, 1, 3, "lost"), lab.request(4)], {})
    report = await build(lab, tmp_path / "out", entries)
    assert (report.valid, [finding["kind"] for finding in report.findings]) == (True, ["range-lost"])


def test_a_foreign_key_is_refused(exported: Path, tmp_path: Path) -> None:
    """Under a policy with another key the export is not valid, though it agrees with itself."""
    other = LocalNotary.create(tmp_path / "other.key", "dev.ratchet.test")
    assert not verify_evidence.verify(exported, policy_text(other.vkeys())).valid


def test_low_order_keys_are_refused(exported: Path) -> None:
    """A key of low order is refused before any signature is looked at."""
    for point in (
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    ):
        text = policy_text([str(VerifierKey("dev.ratchet.test", point))])
        with pytest.raises(verify_evidence.Invalid, match=r"order|canonical|curve"):
            verify_evidence.parse_policy(text, strict=False)


def test_exit_codes_and_words(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 valid, 1 not valid, 2 used wrongly; a bundle's own keys and a first-look key are said loudly."""
    policy = tmp_path / "policy"
    shutil.copy(exported / "policy.txt", policy)
    assert verify_evidence.main([str(exported)]) == 0
    said = capsys.readouterr().out
    assert [words for words in ("SELF-CONSISTENT ONLY", "first look") if words not in said] == []
    assert verify_evidence.main([str(exported), "--policy", str(policy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], said["trust"], said["size"], said["first_look_key"]) == (True, "given", 263, True)
    (exported / "extra").touch()
    assert verify_evidence.main([str(exported)]) == 1
    for wrong in ([], [str(tmp_path / "nowhere")], [str(exported), "--policy", str(exported / "checkpoint")]):
        with pytest.raises(SystemExit, match="2"):
            verify_evidence.main(wrong)


def test_it_runs_alone(exported: Path, tmp_path: Path) -> None:
    """Copied elsewhere and run without our packages, it says valid; without its library it exits 3."""
    alone = tmp_path / "alone" / "verify_evidence.py"
    alone.parent.mkdir()
    shutil.copy(PROGRAM, alone)
    run = [sys.executable, "-I", str(alone), str(exported)]
    assert subprocess.run(run, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    bare = [sys.executable, "-I", "-S", str(alone), str(exported)]
    done = subprocess.run(bare, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, "cryptography" in done.stderr) == (3, True)
