"""`ratchet bench conformance`: every family is found wherever it lies, and one wrong byte in any vector is a failure."""

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.tlog import merkle, note, tiles
from schemas.tlog.proof import Proof
from tools.bench import main
from tools.bench.conformance import judged

DATA = Path(__file__).parents[2] / "data"
PUBLISHED = {
    "checkpoints": 1, "consistency": 98, "inclusion": 98, "jcs": 6, "notes": 3, "roots": 8, "tile-paths": 8, "vkeys": 4,
    "wycheproof": 151,
}  # fmt: skip
HASH = base64.b64encode(bytes(32)).decode()
SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG = note.VerifierKey("dev.log", SECRET.public_key().public_bytes_raw())
WITNESS = note.VerifierKey("dev.witness", SECRET.public_key().public_bytes_raw(), note.COSIGNER)
NO_PROOF = {"size1": 1, "size2": 2, "root1": HASH, "root2": HASH, "proof": [HASH], "wantErr": False}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """The project's own copies of published vectors."""
    root = tmp_path / "vectors"
    for name in ("ed25519", "jcs", "tlog"):
        shutil.copytree(DATA / name, root / name)
    return root


def spread(vectors: Path, out: Path) -> None:
    """The JCS documents as the publisher has them: a folder of inputs, of outputs, of hex."""
    for name, row in json.loads((vectors / "jcs/vectors.json").read_text()).items():
        form = bytes.fromhex(row["output_hex"])
        files = {f"input/{name}": row["input"].encode(), f"output/{name}": form}
        files[f"outhex/{Path(name).stem}.txt"] = form.hex(" ").encode() + b"\n"
        for path, data in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(data)


def signed(text: str) -> bytes:
    return f"{text}\n{note.sign_line(LOG, SECRET.sign(text.encode()))}".encode()


def make_log(root: Path, sizes: tuple[int, ...], *, zipped: bool = False) -> None:
    """A log with a checkpoint for each size, its verifier key in a script one folder up."""
    entries = [f"entry {number}".encode() for number in range(max(sizes))]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    full = [merkle.perfect_root(leaves[at : at + 256]) for at in range(0, len(leaves) - 255, 256)]
    rows: dict[int | None, Any] = {0: leaves, 1: full}
    for size in sizes:
        for tile in tiles.tiles_of(size):
            first = tile.number * 256
            data = b"".join(rows[tile.level][first : first + tile.width]) if tile.level is not None else b""
            if tile.level is None:
                data = tiles.encode_bundle(entries[first : first + tile.width])
                data = gzip.compress(data) if zipped else data
            path = root / tile.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        read = tiles.subtree_reader(size, lambda tile: rows[tile.level][tile.number * 256 :][: tile.width])
        checkpoint = note.Checkpoint(LOG.name, size, merkle.root(size, read))
        (root / f"checkpoint.{size}").write_bytes(signed(checkpoint.text))
    (root.parent / "build.sh").write_text(f'#!/bin/sh\nexport LOG_KEY="{LOG}"\n')


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_all_of_the_projects_vectors(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the design names, and the report has its keys."""
    assert main("conformance", ["--data", str(vectors)], as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["families"] == {name: {"passed": count, "failed": 0} for name, count in PUBLISHED.items()}
    assert (found["failures"], found["left_out"]) == ([], {})
    assert {"bench", "commit", "machine", "versions", "elapsed_s", "summary"} <= found.keys()


def test_names_and_folders_mean_nothing(vectors: Path, tmp_path: Path) -> None:
    """The same files under names that say nothing, all in one folder, beside others that are no vectors."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(path for path in vectors.rglob("*.json"))):
        shutil.copy(path, flat / f"{number}")
    spread(vectors, tmp_path / "spread")
    for number, path in enumerate(sorted(path for path in (tmp_path / "spread").rglob("*.*"))):
        shutil.copy(path, flat / f"x{number}.data")
    for name, data in (("a.bin", bytes(range(256))), ("b.json", b"{"), ("c.json", b'{"proof":1}'), ("d.txt", b"dead")):
        (flat / name).write_bytes(data)
    found = judged(flat)
    assert found["families"] == {
        name: {"passed": count + 6 * (name == "jcs"), "failed": 0} for name, count in PUBLISHED.items()
    }


@pytest.mark.parametrize("data", [[], ["--data", "nowhere"], ["--data", str(Path(__file__))], ["--fast"]])
def test_what_is_no_folder_is_refused(data: list[str]) -> None:
    """Used wrongly: exit 2."""
    assert main("conformance", data, as_json=True) == 2


def test_nothing_found_is_a_failure(tmp_path: Path) -> None:
    """A folder without vectors shows nothing: exit 1."""
    (tmp_path / "a.txt").write_text("nothing here")
    assert main("conformance", ["--data", str(tmp_path)], as_json=True) == 1


@pytest.mark.parametrize(("family", "file", "old", "new"), [
    ("inclusion", "tlog/merkle.json", '"wantErr":false', '"wantErr":true'),
    ("inclusion", "tlog/merkle.json", '"wantErr":true', '"wantErr":false'),
    ("consistency", "tlog/merkle.json", '"consistency"', f'"more":{json.dumps(NO_PROOF)},"consistency"'),
    ("roots", "tlog/roots.json", "5dc9da79a70659a9", "5dc9da79a70659a8"),
    ("roots", "tlog/roots.json", '"2021"', '"2022"'),
    ("notes", "tlog/c2sp_signed_note_example.json", "example message", "Example message"),
    ("notes", "tlog/c2sp_signed_note_example.json", "foo Uw2QOk", "foo Uw2QOl"),
    ("notes", "tlog/c2sp_signed_note_example.json", "\u2014 example.com/foo", "\u2014 example.com/fob"),
    ("vkeys", "tlog/c2sp_signed_note_example.json", "530d903a", "530d903b"),
    ("vkeys", "tlog/sumdb_values.json", '"bad_vkeys"', '"good_vkeys"'),
    ("checkpoints", "tlog/sumdb_values.json", '"n": 123456789012', '"n": 123456789013'),
    ("tile-paths", "tlog/sumdb_values.json", '/001": true', '/001": false'),
    ("tile-paths", "tlog/sumdb_values.json", '078": false', '078": true'),
    ("wycheproof", "ed25519/ed25519_test.json", '"result": "valid"', '"result": "invalid"'),
    ("wycheproof", "ed25519/ed25519_test.json", '"result": "invalid"', '"result": "valid"'),
    ("wycheproof", "ed25519/ed25519_test.json", '"sig": "d4fbdb52', '"sig": "d4fbdb53'),
    ("wycheproof", "ed25519/ed25519_test.json", '"msg": "78"', '"msg": "7"'),
    ("jcs", "jcs/vectors.json", "5b35362c", "5b35372c"),
])  # fmt: skip
def test_a_wrong_vector_is_a_failure(vectors: Path, family: str, file: str, old: str, new: str) -> None:
    """Whatever we and a vector disagree about is named with family and file, and the exit is 1."""
    swap(vectors / file, old, new)
    found = judged(vectors)
    assert found["families"][family]["failed"] >= 1
    assert any(one.startswith(f"{family}: {file}") for one in found["failures"])
    assert main("conformance", ["--data", str(vectors)], as_json=True) == 1


@pytest.mark.parametrize(("file", "at"), [
    ("input/values.json", 20), ("output/values.json", 20), ("outhex/values.txt", 30), ("outhex/weird.txt", 4),
    ("output/arrays.json", 2), ("input/unicode.json", 6),
])  # fmt: skip
def test_a_wrong_triple_is_a_failure(vectors: Path, tmp_path: Path, file: str, at: int) -> None:
    """A byte changed in a document, its form or the hex of it is found, also where it changes the value."""
    root = tmp_path / "triples"
    spread(vectors, root)
    assert judged(root)["families"] == {"jcs": {"passed": 6, "failed": 0}}
    flip(root / file, at)
    assert judged(root)["families"]["jcs"] == {"passed": 5, "failed": 1}


def test_documents_and_forms_without_hex(vectors: Path, tmp_path: Path) -> None:
    """The compact one of two documents of a name is the form; a form in another order is a failure."""
    root = tmp_path / "pairs"
    spread(vectors, root)
    shutil.rmtree(root / "outhex")
    assert judged(root)["families"]["jcs"]["passed"] >= 5
    (root / "output/arrays.json").write_bytes(b'[56,{"10":null,"1":[],"d":true}]')
    assert judged(root)["families"]["jcs"]["failed"] == 1


def test_lines_of_numbers(tmp_path: Path) -> None:
    """A file of doubles and what ECMAScript writes for them; one wrong line fails it."""
    path = tmp_path / "numbers"
    path.write_text("4340000000000001,9007199254740994\n444b1ae4d6e2ef50,1e+21\n0,0\n")
    assert judged(tmp_path)["families"] == {"numbers": {"passed": 1, "failed": 0}}
    path.write_text(path.read_text() + "3eb0c6f7a0b5ed8d,1e-6\n")
    assert "line 4" in judged(tmp_path)["failures"][0]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_log_on_disk(tmp_path: Path, zipped: bool) -> None:
    """Each checkpoint against tiles and entries, each against the one before; other files beside it are ignored."""
    root = tmp_path / "some" / "log"
    make_log(root, (1, 255, 256, 300), zipped=zipped)
    (root / ".state").mkdir()
    (root / ".state/version").write_text("1")
    assert judged(tmp_path)["families"] == {"logs": {"passed": 4 + 3, "failed": 0}}
    whole = (root / "tile/entries/000").read_bytes()
    (root / "tile/entries/000").write_bytes(whole[: len(whole) // 2])
    assert judged(tmp_path)["families"]["logs"]["failed"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: flip(root / "tile/0/000"),
        lambda root: flip(root / "tile/1/000.p/1"),
        lambda root: flip(root / "tile/entries/000"),
        lambda root: flip(root / "tile/entries/001.p/44"),
        lambda root: (root / "tile/entries/001.p/44").unlink(),
        lambda root: (root / "tile/0/001.p/44").unlink(),
        lambda root: swap(root / "checkpoint.300", "300", "299"),
        lambda root: swap(root / "checkpoint.300", "dev.log\n", "dev.logs\n"),
        lambda root: shutil.copy(root / "checkpoint.256", root / "checkpoint.300.bak") and flip(root / "checkpoint.256", -9),
        lambda root: swap(root.parent / "build.sh", "dev.log", "dev.lag"),
    ],
)  # fmt: skip
def test_a_damaged_log_is_a_failure(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """A bit in a tile, an entry, a signature; a file gone; the key of somebody else."""
    root = tmp_path / "log"
    make_log(root, (256, 300))
    other = note.VerifierKey("dev.other", LOG.public_key)
    (tmp_path / "other.txt").write_text(f"{other}\n")
    damage(root)
    assert judged(tmp_path)["families"]["logs"]["failed"] >= 1


def test_a_log_without_a_key_is_left_out(tmp_path: Path) -> None:
    """Nobody can judge its signatures: named, not passed."""
    root = tmp_path / "a" / "log"
    make_log(root, (3,))
    (root.parent / "build.sh").unlink()
    found = judged(tmp_path)
    assert (found["families"], list(found["left_out"])) == ({}, ["a/log"])
    assert found["summary"]["families"]["pass"] is False


def test_notes_in_text_and_cosignatures(tmp_path: Path) -> None:
    """A fenced example with its key in the text around it; a witness's line under a key of its own kind."""
    body = note.Checkpoint("dev.log", 5, bytes(32)).text
    line = note.cosign_line(WITNESS, 9, SECRET.sign(note.cosigned(9, body.encode())))
    (tmp_path / "spec.md").write_text(f"The key `{LOG}` signs\n\n```\n{signed(body).decode()}{line}```\nand more.\n")
    assert judged(tmp_path)["families"] == {"notes": {"passed": 1, "failed": 0}}
    (tmp_path / "witness.json").write_text(json.dumps({"verifier_keys": [str(WITNESS)]}))
    (tmp_path / "seen").write_bytes(signed(body) + line.encode())
    found = judged(tmp_path)["families"]
    assert found["cosignatures"] == {"passed": 1, "failed": 0}
    swap(tmp_path / "seen", "\n5\n", "\n6\n")
    assert judged(tmp_path)["families"]["cosignatures"] == {"passed": 0, "failed": 1}


def test_proof_files(tmp_path: Path) -> None:
    """A proof with its entry beside it; with `extra` it must be refused; with another entry it fails."""
    entries = [b"one", b"two", b"three"]
    hashes = [merkle.leaf_hash(entry) for entry in entries]

    def read(level: int, index: int) -> bytes:
        return merkle.perfect_root(hashes[index << level : index + 1 << level])

    text = note.Checkpoint("dev.log", 3, merkle.root(3, read)).text
    proof = Proof(1, tuple(merkle.inclusion_proof(1, 3, read)), signed(text)).encode()
    (tmp_path / "key.txt").write_text(str(LOG))
    (tmp_path / "two.tlog-proof").write_bytes(proof)
    (tmp_path / "two.bin").write_bytes(b"two")
    extra = base64.b64encode(b"more")
    (tmp_path / "extra.tlog-proof").write_bytes(proof.replace(b"index 1\n", b"extra " + extra + b"\nindex 1\n"))
    assert judged(tmp_path)["families"] == {"proofs": {"passed": 2, "failed": 0}}
    (tmp_path / "two.bin").write_bytes(b"too")
    assert judged(tmp_path)["families"]["proofs"] == {"passed": 1, "failed": 1}
