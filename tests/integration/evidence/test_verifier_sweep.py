"""Not a sample: every bit of every file of an export, and 10^5 mutations: each is refused, with a reason. In two processes: two cores."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import evidence_bundle as made
import evidence_mutants as mutants
import pytest

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests/support"
SHARES = 2


async def swept(sweep: str, folder: Path) -> int:
    """How many changes all shares of a sweep have tried; a share that finds something fails with it."""

    async def share(number: int) -> int:
        words = [str(SUPPORT / "evidence_sweep.py"), sweep, str(number), str(SHARES), str(folder / str(number))]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{SUPPORT}"}  # noqa: TID251  a child of the test
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return int(out)

    return sum(await asyncio.gather(*(share(number) for number in range(SHARES))))


async def test_every_bit_of_the_entry_bundles_and_their_tiles(tmp_path: Path) -> None:
    """Of more than 260 entries: a flip breaks the bundle's form, or the hash of the one entry that it is in."""
    files = made.Export().log.files()
    looked = ("tile/entries/000", "tile/0/000", "tile/entries/001.p/20", "tile/0/001.p/20")
    assert await swept("entries", tmp_path) == 8 * sum(len(files[name]) for name in looked)


async def test_every_bit_of_every_file_of_a_small_bundle(tmp_path: Path) -> None:
    """Whole runs of the verifier, over each bit of a bundle with all kinds of files."""
    assert await swept("files", tmp_path) == 8 * sum(map(len, made.Export(count=1).files().values()))


@pytest.mark.parametrize("sweep", ["mutations", "mutations-of-a-tenant"])
async def test_ninety_thousand_mutations_of_bytes(tmp_path: Path, sweep: str) -> None:
    """Half of them each: bytes changed in any file, by anybody, of a whole bundle and of a tenant's."""
    assert await swept(sweep, tmp_path) == 45_000


async def test_ten_thousand_mutations_that_the_log_signs(tmp_path: Path) -> None:
    """Values changed in any entry, properly signed: never a traceback, and each refusal has its reason."""
    known = sum(1 for _ in mutants.signed_mutants(mutants.small_log(), 2, 10_000))
    assert await swept("signed", tmp_path) == known > 9_000
