"""A share of a sweep over exports, in a process of its own: `evidence_sweep.py SWEEP SHARE SHARES FOLDER` prints how many it tried.

Each change belongs to one share, so that all shares together are the whole sweep, and as many cores can work on it.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import evidence_bundle as made
import evidence_mutants as mutants

from tools import verify_evidence as verifier

T = TypeVar("T")
Mine = Callable[[Iterable[T]], Iterator[T]]


def flips(data: bytes) -> Iterator[bytes]:
    """The bytes with each bit changed, one after the other."""
    changed = bytearray(data)
    for bit in range(len(data) * 8):
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
        changed[bit // 8] ^= 1 << bit % 8


def entries(folder: Path, mine: Mine[bytes]) -> int:
    """A flip in a bundle of more than 260 entries breaks the bundle's form, or the hash of the one entry that it is in.

    What the verifier does with a bundle and its tile, but that of 256 entries only the changed ones are hashed again.
    """
    export, tried = made.Export(), 0
    assert len(export.log.entries) >= 260
    files = export.log.files()
    for bundle, tile in (("tile/entries/000", "tile/0/000"), ("tile/entries/001.p/20", "tile/0/001.p/20")):
        width = len(files[tile]) // 32
        rows = verifier.split_bundle(files[bundle], width, bundle)
        hashes = [hashlib.sha256(b"\0" + row).digest() for row in rows]
        assert b"".join(hashes) == files[tile]
        for changed in mine(flips(files[bundle])):
            tried += 1
            try:
                found = verifier.split_bundle(changed, width, bundle)
            except verifier.Invalid:
                continue
            at = next(at for at, (old, new) in enumerate(zip(rows, found, strict=True)) if old != new)
            assert hashlib.sha256(b"\0" + found[at]).digest() != files[tile][32 * at : 32 * at + 32]
        for changed in mine(flips(files[tile])):
            tried += 1
            assert changed != b"".join(hashes)
    return tried


def files(folder: Path, mine: Mine[bytes]) -> int:
    """Whole runs of the verifier, over each bit of a bundle with all kinds of files."""
    whole, tried = made.Export(count=1).files(), 0
    made.write(folder, whole)
    assert verifier.verify(folder).valid
    for name, data in whole.items():
        for changed in mine(flips(data)):
            (folder / name).write_bytes(changed)
            assert not verifier.verify(folder).valid, (name, changed)
            tried += 1
        (folder / name).write_bytes(data)
    return tried


def mutations(folder: Path, mine: Mine[tuple[str, bytes]], *, tenant: str | None, count: int) -> int:
    """Bytes changed in any file, by anybody."""
    draws, tried = mutants.Draws(1), 0
    whole = made.Export(count=4, tenant=tenant).files()
    names = sorted(whole)
    made.write(folder, whole)
    drawn = ((name := draws.of(names), mutants.changed_bytes(whole[name], draws)) for _ in range(count))
    for name, changed in mine(drawn):
        (folder / name).write_bytes(changed)
        report = verifier.verify(folder)
        assert not report.valid, (name, changed)
        assert not report.problems[0].startswith("cannot be read"), report.problems
        (folder / name).write_bytes(whole[name])
        tried += 1
    return tried


def signed(folder: Path, mine: Mine[list[bytes]], *, count: int) -> int:
    """Values changed in any entry, properly signed by the log: never a traceback, and each refusal has its reason."""
    tried = 0
    for mutant in mine(mutants.signed_mutants(mutants.small_log(), 2, count)):
        for path in folder.rglob("*.p/*"):  # the log's size, and so these names, changes
            path.unlink()
        report = verifier.verify(made.write(folder, made.Log(mutant).files()))
        assert all(not problem.startswith("cannot be read") for problem in report.problems), (report.problems, mutant)
        tried += 1
    return tried


SWEEPS: dict[str, Callable[[Path, Mine[object]], int]] = {
    "entries": entries,
    "files": files,
    "mutations": partial(mutations, tenant=None, count=45_000),
    "mutations-of-a-tenant": partial(mutations, tenant="acme", count=45_000),
    "signed": partial(signed, count=10_000),
}  # pyright: ignore[reportAssignmentType]


def main(sweep: str, share: int, shares: int, folder: Path) -> int:
    """How many changes of this share were tried."""

    def mine(changes: Iterable[T]) -> Iterator[T]:
        return (change for number, change in enumerate(changes) if number % shares == share)

    folder.mkdir()
    return SWEEPS[sweep](folder, mine)


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))  # noqa: T201  a program of its own
