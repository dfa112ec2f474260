"""The offline verifier takes exports of every kind, and says how far its word goes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evidence_bundle as made
import pytest

from agents.evidence.log import export
from streams.shapes import Frontier, Gap, Reset
from tools import verify_evidence

PROGRAM = Path(verify_evidence.__file__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle of more than 260 entries; tests do not change it."""
    return made.write(tmp_path_factory.mktemp("whole") / "out", made.Export().files())


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def test_a_sound_bundle_is_valid(whole: Path) -> None:
    """The bundle as made is valid, by its own keys and by given ones, and everything in it is told."""
    report = verify_evidence.verify(whole)
    assert (report.problems, report.kind, report.size, report.trust) == ([], "full", 276, "bundle")
    assert report.partitions["ratchet.requests/0"][0].skips == {"aborted": 2}
    assert (len(report.proofs), len(report.attestations), report.types["coverage"]) == (2, 3, 7)
    assert verify_evidence.verify(whole, made.policy_text()).trust == "given"


def test_a_log_alone_is_valid(tmp_path: Path) -> None:
    """Logs of sizes around whole tiles need neither manifest nor attestations."""
    for count in (1, 100, 251, 252, 260, 600):
        log = made.Log(made.sound_log(count, made.policy_text()))
        report = verify_evidence.verify(made.write(tmp_path / str(count), log.files()))
        assert (report.problems, report.kind, report.size) == ([], "log", len(log.entries))


def test_an_empty_log_is_not_evidence(tmp_path: Path) -> None:
    """A checkpoint over nothing binds no policy, so it is refused."""
    report = verify_evidence.verify(made.write(tmp_path, made.Log([]).files()))
    assert report.problems == ["the log has no trust entry: nothing binds its policy.txt"]


async def test_the_real_sequencer_writes_what_is_read(lab: Any, tmp_path: Path) -> None:
    """A log of the real sequencer, record and coverage is valid."""
    sequencer = await lab.open()
    frontiers: dict[tuple[str, int], Frontier] = {}
    await sequencer.commit(lab.entries([lab.request(offset) for offset in range(200)], frontiers, full=True))
    gap = Gap("ratchet.requests", 0, 200, 201, "aborted")
    await sequencer.commit(lab.entries([gap, *(lab.request(offset) for offset in range(202, 263))], frontiers))
    sequencer.close()
    export(lab.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (lab.root / "policy.txt").read_text())
    assert (report.problems, report.size, report.as_json()["first_look_key"]) == ([], 264, True)
    assert report.partitions["ratchet.requests/0"][0].skips == {"aborted": 2}


@pytest.mark.parametrize(
    "name", ["extra", "tile/0/001.p/5", "tile/2/000.p/1", "state/signed", "tile/entries/001", "disclosed/000", "tile/x"]
)
def test_added_files(copied: Path, name: str) -> None:
    """A file that neither checkpoint nor manifest calls for is refused."""
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_bytes(b"")
    assert "unknown file" in verify_evidence.verify(copied).problems[0]


def test_an_empty_folder(copied: Path) -> None:
    """Nothing may lie about, not even a folder without files."""
    (copied / "tile" / "2").mkdir()
    assert verify_evidence.verify(copied).problems == ["tile/2/: an empty folder"]


def test_files_dropped_emptied_doubled_renamed_swapped(copied: Path) -> None:
    """Whatever is done to a file of the bundle, it is refused."""
    names = sorted(str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file())
    assert len(names) == 14
    files = {name: (copied / name).read_bytes() for name in names}
    for number, name in enumerate(names):
        path, data = copied / name, files[name]
        other = names[(number + 1) % len(names)]
        for changed in (b"", data + data, data[:-1], data + b"\n", files[other]):
            path.write_bytes(changed)
            assert not verify_evidence.verify(copied).valid, (name, len(changed))
        path.write_bytes(data)
        path.rename(path.with_name("renamed"))
        assert not verify_evidence.verify(copied).valid, name
        path.with_name("renamed").rename(copied.parent / "taken")
        assert not verify_evidence.verify(copied).valid, name
        path.symlink_to(copied.parent / "taken")
        assert not verify_evidence.verify(copied).valid, name
        path.unlink()
        (copied.parent / "taken").rename(path)
    assert verify_evidence.verify(copied).valid


def test_two_valid_exports_mixed(copied: Path, tmp_path: Path) -> None:
    """Any one file of another valid export of the same log, keys and policy is refused."""
    other = made.Export(count=270).files()
    assert verify_evidence.verify(made.write(tmp_path / "other", other)).valid
    for path in [path for path in copied.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        foreign = other.get(str(path.relative_to(copied)))
        if foreign is not None and foreign != data:
            path.write_bytes(foreign)
            assert not verify_evidence.verify(copied).valid, path
            path.write_bytes(data)


def test_rolled_back_tiles(tmp_path: Path) -> None:
    """The tiles of a smaller state of the log do not fit a later checkpoint, nor an earlier checkpoint later tiles."""
    entries = made.sound_log(300, made.policy_text())
    new, old = made.Log(entries).files(), made.Log(entries[:66]).files()
    assert verify_evidence.verify(made.write(tmp_path / "old", old)).valid
    made.write(tmp_path / "a", old | {"checkpoint": new["checkpoint"]})
    made.write(tmp_path / "b", new | {"checkpoint": old["checkpoint"]})
    assert not verify_evidence.verify(tmp_path / "a").valid
    assert not verify_evidence.verify(tmp_path / "b").valid


def test_pipes_links_and_folders_are_refused_at_once(copied: Path) -> None:
    """A pipe where a file should be is no reason to wait; a folder, a link, a loop of links are refused."""
    for name in ("checkpoint", "policy.txt", "tile/0/000", "tile/entries/000", "oscal.json", "tile"):
        path = copied / name
        path.rename(copied.parent / "taken")
        for put in (os.mkfifo, Path.mkdir, lambda link: Path(link).symlink_to(link)):
            put(path)
            start = time.monotonic()
            assert not verify_evidence.verify(copied).valid, name
            assert time.monotonic() - start < 2
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        (copied.parent / "taken").rename(path)
    assert verify_evidence.verify(copied).valid


@pytest.mark.parametrize("size", [2**63 - 1, 10**18, 2**40, 0])
def test_giant_sizes_cost_nothing(copied: Path, size: int) -> None:
    """A signed checkpoint of any size is refused as soon as a file is missing: no loop, no allocation."""
    body = f"{made.ORIGIN}\n{size}\n{made.b64(bytes(32))}\n"
    lines = "".join(signer.line(body.encode()) for signer in (made.LOG, *made.WITNESSES))
    (copied / "checkpoint").write_text(f"{body}\n{lines}")
    start = time.monotonic()
    assert "file: " in verify_evidence.verify(copied).problems[0]
    assert time.monotonic() - start < 2


def test_exit_codes_and_words(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 valid, 1 not valid, 2 used wrongly; a bundle's own keys are said loudly."""
    policy = tmp_path / "policy"
    policy.write_text("# from the operator\n" + made.policy_text())
    assert verify_evidence.main([str(copied)]) == 0
    assert "SELF-CONSISTENT ONLY" in capsys.readouterr().out
    assert verify_evidence.main([str(copied), "--policy", str(policy), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], said["trust"], said["size"], said["first_look_key"]) == (True, "given", 276, False)
    assert [witness["utc"] for witness in said["witnesses"]] == ["2026-09-21T14:13:20Z"] * 3
    (copied / "extra\x1b[2J\udcff").touch()
    assert verify_evidence.main([str(copied)]) == 1
    assert "\x1b" not in capsys.readouterr().out
    proof = copied / "proofs" / "event-ratchet.requests-0-0-0.tlog-proof"
    for wrong in (
        [],
        [str(tmp_path / "nowhere")],
        [str(copied), "--policy", str(copied / "checkpoint")],
        [str(copied), "--entry", str(policy)],
        [str(proof)],
        [str(policy), "--policy", str(policy)],
    ):
        with pytest.raises(SystemExit, match="2"):
            verify_evidence.main(wrong)


def test_it_runs_alone(whole: Path, tmp_path: Path) -> None:
    """Copied elsewhere and run without our packages, it says valid; without its library it exits 3."""
    alone = tmp_path / "alone" / "verify_evidence.py"
    alone.parent.mkdir()
    shutil.copy(PROGRAM, alone)
    run = [sys.executable, "-I", str(alone), str(whole)]
    assert subprocess.run(run, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    bare = [sys.executable, "-I", "-S", str(alone), str(whole)]
    done = subprocess.run(bare, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, "cryptography" in done.stderr) == (3, True)


def test_learned_patterns_judge_as_full_reading_does(tmp_path: Path) -> None:
    """Behind a hundred entries of one shape, one that is nearly of that shape is refused as the first would be."""
    records = [made.record(offset) for offset in range(120)]
    offset = b'"offset":100'
    for old, new in (
        (offset, b'"offset":0100'),
        (offset, b'"offset":-100'),
        (offset, b'"offset":1e2'),
        (offset, b'"offset":99'),
        (offset, b'"offset":9007199254740993'),
        (b'"v":1', b'"v":01'),
        (b'"inc":0', b'"inc":1'),
        (b'"bytes":271', b'"bytes":271.0'),
        (b'"bytes":271', b'"bytes":-0'),
        (b'"retention":"time"', b'"retention":"t\\u0069me"'),
        (b'"retention":"time"', b'"retention":"t\ttime"'),
        (b'"retention":"time"', b'"retention":"t\xfftime"'),
        (b'"retention":"time",', b'"retention":"time","retention":"time",'),
        (b'"retention":"time",', b'"retention": "time",'),
    ):
        assert records[100].count(old) == 1, old
        changed = [*records[:100], records[100].replace(old, new), *records[101:]]
        log = [made.trust(made.policy_text()), *changed, made.Spans().close(records)]
        report = verify_evidence.verify(made.write(tmp_path / hashlib.sha256(new).hexdigest(), made.Log(log).files()))
        assert not report.valid, new
        assert report.problems[0].startswith(("entry 101: ", "entry 102: ")), report.problems


async def test_two_resets_in_one_batch(lab: Any, tmp_path: Path) -> None:
    """An incarnation of which nothing was read lies between two others, and its findings too."""
    sequencer = await lab.open()
    frontiers: dict[tuple[str, int], Frontier] = {}
    await sequencer.commit(lab.entries([lab.request(offset) for offset in range(10)], frontiers, full=True))
    place = ("ratchet.requests", 0)
    reads = [Reset(*place, 10), Reset(*place, 0), lab.request(0), lab.request(1)]
    await sequencer.commit(lab.entries(reads, frontiers))
    sequencer.close()
    export(lab.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out")
    assert report.problems == []
    streams = report.partitions["ratchet.requests/0"]
    assert [(stream.inc, stream.next) for stream in streams] == [(0, 10), (1, 0), (2, 2)]
    assert [finding["kind"] for finding in report.findings] == ["source-reset", "source-reset"]
