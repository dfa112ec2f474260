"""Not a sample: every bit of every file of an export, and 10^5 mutations: each is refused, with a reason."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import evidence_bundle as made
import evidence_mutants as mutants
import pytest

from tools import verify_evidence as verifier


def flips(data: bytes) -> Iterator[bytes]:
    changed = bytearray(data)
    for bit in range(len(data) * 8):
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
        changed[bit // 8] ^= 1 << bit % 8


def test_every_bit_of_the_entry_bundles_and_their_tiles() -> None:
    """Of more than 260 entries: a flip breaks the bundle's form, or the hash of the one entry that it is in.

    What the verifier does with a bundle and its tile, but that of 256 entries only the changed ones are hashed again.
    """
    export = made.Export()
    assert len(export.log.entries) >= 260
    files = export.log.files()
    for bundle, tile in (("tile/entries/000", "tile/0/000"), ("tile/entries/001.p/20", "tile/0/001.p/20")):
        width = len(files[tile]) // 32
        entries = verifier.split_bundle(files[bundle], width, bundle)
        hashes = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
        assert b"".join(hashes) == files[tile]
        for changed in flips(files[bundle]):
            try:
                found = verifier.split_bundle(changed, width, bundle)
            except verifier.Invalid:
                continue
            at = next(at for at, (old, new) in enumerate(zip(entries, found, strict=True)) if old != new)
            assert hashlib.sha256(b"\0" + found[at]).digest() != files[tile][32 * at : 32 * at + 32]
        for changed in flips(files[tile]):
            assert changed != b"".join(hashes)


def test_every_bit_of_every_file_of_a_small_bundle(tmp_path: Path) -> None:
    """Whole runs of the verifier, over each bit of a bundle with all kinds of files."""
    files = made.Export(count=1).files()
    made.write(tmp_path, files)
    assert verifier.verify(tmp_path).valid
    for name, data in files.items():
        for changed in flips(data):
            (tmp_path / name).write_bytes(changed)
            assert not verifier.verify(tmp_path).valid, (name, changed)
        (tmp_path / name).write_bytes(data)


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_ninety_thousand_mutations_of_bytes(tmp_path: Path, tenant: str | None) -> None:
    """Half of them each: bytes changed in any file, by anybody, of a whole bundle and of a tenant's."""
    draws = mutants.Draws(1)
    files = made.Export(count=4, tenant=tenant).files()
    names = sorted(files)
    made.write(tmp_path, files)
    for _ in range(45_000):
        name = draws.of(names)
        (tmp_path / name).write_bytes(changed := mutants.changed_bytes(files[name], draws))
        report = verifier.verify(tmp_path)
        assert not report.valid, (name, changed)
        assert not report.problems[0].startswith("cannot be read"), report.problems
        (tmp_path / name).write_bytes(files[name])


def test_ten_thousand_mutations_that_the_log_signs(tmp_path: Path) -> None:
    """Values changed in any entry, properly signed: never a traceback, and each refusal has its reason."""
    for mutant in mutants.signed_mutants(mutants.small_log(), 2, 10_000):
        for path in tmp_path.rglob("*.p/*"):  # the log's size, and so these names, changes
            path.unlink()
        report = verifier.verify(made.write(tmp_path, made.Log(mutant).files()))
        assert all(not problem.startswith("cannot be read") for problem in report.problems), (report.problems, mutant)
