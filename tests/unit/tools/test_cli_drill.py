"""`ratchet evidence drill`: a restore of a log in a folder, and of a damaged one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from evidenced import Book, told

from agents.evidence.snapshot import Snapshot, silent
from schemas.compliance import DrillCompleted
from schemas.errors import Unavailable
from streams.memory import MemoryBroker
from streams.port import Broker
from tools.cli import drill
from tools.cli.drill import NOTHING, restored

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A log where the command line looks for it."""
    return asyncio.run(told(tmp_path))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> MemoryBroker:
    """What the command publishes to."""
    made = MemoryBroker(2)

    async def open_broker() -> Broker:
        return made

    monkeypatch.setattr(drill, "open_broker", open_broker)
    return made


def first_bundle(book: Book) -> Path:
    """The file with the first entries."""
    return next(path for path in sorted((book.root / "tile" / "entries").rglob("*")) if path.is_file())


def test_what_is_restored_has_the_signed_root(book: Book, tmp_path: Path) -> None:
    """From a copy of the entries; no hash tile of it is read."""
    found = restored(book.root, tmp_path / "copy", silent)
    assert found.passed
    assert found.root == Snapshot.open(book.root).checkpoint.root.hex() == found.restored
    for tile in (tmp_path / "copy" / "tile").iterdir():
        if tile.name != "entries":
            for path in tile.rglob("*"):
                if path.is_file():
                    path.write_bytes(b"")
    assert drill.rebuilt(Snapshot.open(tmp_path / "copy"), silent).hex() == found.root


def test_one_changed_bit_gives_another_root(book: Book, tmp_path: Path) -> None:
    """Of an entry's text: both roots are told."""
    path = first_bundle(book)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    found = restored(book.root, tmp_path / "copy", silent)
    assert not found.passed
    assert found.restored != NOTHING
    assert found.restored != found.root


def test_entries_that_cannot_be_read_are_no_restore(book: Book, tmp_path: Path) -> None:
    """A bundle that ends in the middle: nothing was restored, and the reason is said."""
    path = first_bundle(book)
    path.write_bytes(path.read_bytes()[:-1])
    found = restored(book.root, tmp_path / "copy", silent)
    assert (found.passed, found.restored) == (False, NOTHING)
    assert "tile/entries" in found.why


def test_a_drill_is_recorded_and_its_copy_removed(
    cli: Run, book: Book, broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 0 with equal roots, 1 with others; one event each; the folder for temporary files is as it was."""
    temp = tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    code, out, _ = cli("evidence", "drill", "--as", "alice", "--json")
    assert (code, '"passed":true' in out) == (0, True)
    path = first_bundle(book)
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = cli("evidence", "drill", "--as", "alice")
    assert (code, "not restored" in out) == (1, True)
    first, second = [event.data for event in broker.events("observations")]
    assert isinstance(first, DrillCompleted)
    assert isinstance(second, DrillCompleted)
    assert (first.passed, first.size, first.by) == (True, Snapshot.open(book.root).size, "alice")
    assert (second.passed, second.restored) == (False, NOTHING)
    assert list(temp.iterdir()) == []


def test_a_log_that_was_never_signed(tmp_path: Path) -> None:
    """Is away, and no failed restore."""
    with pytest.raises(Unavailable, match="nothing was signed"):
        restored(tmp_path, tmp_path / "copy", silent)
