"""Not one bit of an export can change unseen. Each kind of file is held against what checks it; whole runs are sampled."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import evidence_bundle as made
import pytest

from tools import verify_evidence as verifier

EXPORT = made.Export()
FILES = EXPORT.files()
POLICY = verifier.parse_policy(FILES["policy.txt"], strict=True)
HEAD = verifier.open_checkpoint(FILES["checkpoint"], POLICY)


def unseen(data: bytes, refused: Callable[[bytes], bool]) -> list[int]:
    """The bits whose flip is not refused."""
    assert not refused(data)
    found: list[int] = []
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        if not refused(bytes(changed)):
            found.append(bit)
    return found


def invalid(check: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    def refused(data: bytes) -> bool:
        try:
            check(data)
        except verifier.Invalid:
            return True
        return False

    return refused


def test_every_bit_of_the_checkpoint() -> None:
    """Neither of the text nor of any signature line, the witnesses' times among them."""
    assert unseen(FILES["checkpoint"], invalid(lambda data: verifier.open_checkpoint(data, POLICY))) == []


def test_every_bit_of_the_checkpoint_under_a_smaller_policy() -> None:
    """Nor of lines that count for nothing in the auditor's policy, because the export's names their keys."""
    given = verifier.parse_policy(made.policy_text(witnesses=made.WITNESSES[:1], k=1).encode(), strict=False)
    assert unseen(FILES["checkpoint"], invalid(lambda data: verifier.open_checkpoint(data, given, POLICY))) == []


def test_every_bit_of_the_policy() -> None:
    """The log's last trust entry names the file's digest."""
    trust = verifier.Trust()
    trust.take(0, verifier.canonical(EXPORT.log.entries[0]))
    assert unseen(FILES["policy.txt"], invalid(lambda data: trust.check(POLICY, data))) == []


def test_every_bit_of_a_proof() -> None:
    """Of the index, each hash and the checkpoint in it."""
    for name in [name for name in FILES if name.startswith("proofs/")]:

        def check(data: bytes, name: str = name) -> None:
            proof = verifier.parse_proof(data, name)
            if proof.checkpoint != HEAD.data or proof.index >= len(EXPORT.log.entries):
                raise verifier.Invalid
            entry = EXPORT.log.entries[proof.index]
            verifier.check_inclusion(proof, HEAD, entry, name)
            if name[7:-11] not in verifier.names_of(proof.index, verifier.canonical(entry)):
                raise verifier.Invalid

        assert unseen(FILES[name], invalid(check)) == []


def test_every_bit_of_a_single_proof() -> None:
    """Alone, without the export's checkpoint to compare with, too."""
    name = "proofs/event-ratchet.requests-0-0-0.tlog-proof"

    def check(data: bytes) -> None:
        proof = verifier.parse_proof(data, name)
        head = verifier.open_checkpoint(proof.checkpoint, POLICY)
        verifier.check_inclusion(proof, head, EXPORT.log.entries[1], name)

    assert unseen(FILES[name], invalid(check)) == []


def test_every_bit_of_an_envelope_even_without_a_manifest() -> None:
    """A statement's payload, key id and signature stand for themselves: the attester's key is in the log."""
    name = next(name for name in FILES if name.endswith("-training.dsse.json"))
    trust = verifier.Trust()
    trust.take(0, verifier.canonical(EXPORT.log.entries[0]))
    entries = dict(enumerate(EXPORT.log.entries))

    def check(data: bytes) -> None:
        verifier.check_statement(verifier.parse_statement(name, data, made.ORIGIN), entries, trust.attesters)

    assert unseen(FILES[name], invalid(check)) == []


def test_every_bit_of_the_hash_tiles(tmp_path: Path) -> None:
    """A tile is compared with the hashes of what lies below it."""
    made.write(tmp_path, FILES)
    leaves = [hashlib.sha256(b"\0" + entry).digest() for entry in EXPORT.log.entries]
    for name in ("tile/0/001.p/20", "tile/1/000.p/1"):
        path = tmp_path / name

        def check(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            tree = verifier.Tree(tmp_path)
            tree.add(b"".join(leaves[:256]))
            tree.add(b"".join(leaves[256:]))
            tree.root()

        assert unseen(FILES[name], invalid(check)) == []
        path.write_bytes(FILES[name])


def test_bits_all_over_every_file(tmp_path: Path) -> None:
    """Whole runs over a sample of the bits of each file, the first and the last among them."""
    made.write(tmp_path, FILES)
    assert len(FILES) == 14
    for name, data in FILES.items():
        bits = len(data) * 8
        for bit in sorted({0, bits - 1, *range(7, bits, max(1, bits // 12))}):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(changed)
            assert not verifier.verify(tmp_path).valid, (name, bit)
        (tmp_path / name).write_bytes(data)
    assert verifier.verify(tmp_path).valid


@pytest.mark.parametrize("name", ["disclosed/000", "disclosed/001.p/20", "tile/0/000", "tile/1/000.p/1"])
def test_bits_all_over_a_tenants_bundle(tmp_path: Path, name: str) -> None:
    """What is disclosed has the hash of its place, what is withheld has an unchanged hash."""
    files = made.Export(tenant="acme").files()
    made.write(tmp_path, files)
    assert verifier.verify(tmp_path).valid
    bits = len(files[name]) * 8
    for bit in sorted({0, bits - 1, *range(7, bits, max(1, bits // 40))}):
        changed = bytearray(files[name])
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(changed)
        assert not verifier.verify(tmp_path).valid, bit
