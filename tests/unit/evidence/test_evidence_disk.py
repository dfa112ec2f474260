"""A disk that is full or takes no writes: said, nothing unsigned published, and gone on by itself when there is room."""

import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sequencing import Disk

from agents.evidence.actor import Collector
from agents.evidence.log import CHECKPOINT, POLICY, LogDamaged, LogDirectory, LogLocked
from infra.notary import verify
from schemas.errors import Unavailable
from schemas.tlog import tiles
from schemas.tlog.policy import open_checkpoint, parse_policy

BATCHES = (250, 300)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under everything that this test writes."""
    return Disk(monkeypatch)


def batch(number: int) -> list[bytes]:
    return [f'{{"batch":{number},"n":{n}}}'.encode() for n in range(BATCHES[number])]


def published(root: Path) -> int:
    """The size of the published checkpoint, which the policy beside it accepts."""
    policy = parse_policy((root / POLICY).read_text())
    return open_checkpoint((root / CHECKPOINT).read_bytes(), policy, verify).checkpoint.size


async def undisturbed(lab: Any) -> bytes:
    sequencer = await lab.open()
    for number in range(2):
        await sequencer.commit(batch(number))
    sequencer.close()
    return sequencer.signed.checkpoint.root


async def go_on(sequencer: Any) -> None:
    """What the collector does after Unavailable."""
    if sequencer.pending:
        await sequencer.finish()
    elif sequencer.size == 1 + BATCHES[0]:
        await sequencer.append(batch(1))
    await sequencer.publish()


@pytest.mark.parametrize(
    ("error", "step"), [(errno.ENOSPC, 1), (errno.EROFS, 7), (errno.EACCES, 7)], ids=["full", "read-only", "forbidden"]
)
@pytest.mark.parametrize("again", ["the same process", "another process"])
async def test_each_write_may_fail(lab: Any, disk: Disk, error: int, step: int, again: str) -> None:
    """From whichever write on the disk fails: Unavailable or unpublished, never unsigned; with room the same root follows."""
    root, failures, nth = await undisturbed(lab.beside("undisturbed")), 0, 1
    while True:
        log = lab.beside(f"log-{nth}")
        sequencer = await log.open()
        await sequencer.commit(batch(0))
        disk.fail(nth, error)
        with suppress(Unavailable):
            await sequencer.commit(batch(1))
        assert published(log.root) in (1 + BATCHES[0], 1 + sum(BATCHES))
        if not disk.failed:
            break
        failures += 1
        disk.room()
        if again == "another process":
            sequencer.close()
            sequencer = await log.open()
        await go_on(sequencer)
        assert sequencer.signed.checkpoint.root == root
        assert published(log.root) == sequencer.size
        sequencer.close()
        nth += step
    sequencer.close()
    assert failures > 40 / step


async def test_it_may_fail_again_and_again(lab: Any, disk: Disk) -> None:
    """A disk that has room for one more write each time is survived as well: what stands is not written twice."""
    root = await undisturbed(lab.beside("undisturbed"))
    sequencer = await lab.open()
    await sequencer.commit(batch(0))
    for nth in range(1, 300):
        disk.fail(nth)
        with suppress(Unavailable):
            await go_on(sequencer)
        if not disk.failed:
            break
    disk.room()
    assert sequencer.signed.checkpoint.root == root
    sequencer.close()


async def test_a_failing_disk_is_no_full_one(lab: Any, disk: Disk) -> None:
    """An I/O error is not waited out: what was synced may be lost, so the process ends."""
    sequencer = await lab.open()
    disk.fail(1, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await sequencer.commit([b"{}"])
    disk.room()
    sequencer.close()


def test_a_folder_that_takes_no_writes(tmp_path: Path, disk: Disk) -> None:
    """Opened where nothing can be written: which folder, why, what would be accepted; later it opens."""
    disk.fail(1, errno.EROFS)
    with pytest.raises(Unavailable, match=r"log.*Read-only.*accepted"):
        LogDirectory(tmp_path / "log")
    disk.room()
    LogDirectory(tmp_path / "log").close()


async def test_the_collector_waits_for_room(lab: Any, disk: Disk) -> None:
    """A full disk while it runs is retried: with room everything read is in the log and announced, without an operator."""
    reader = lab.reader([lab.request(offset) for offset in range(500)], lab.clock)
    sequencer = await lab.open()
    stop = asyncio.Event()
    reader.at_end = stop.set
    collector = Collector(sequencer, reader, lab.keys, lab.subjects, lab.publisher, lab.clock)
    disk.fail(10)
    running = asyncio.create_task(collector.run(stop))
    for _ in range(50):
        await lab.clock.advance(0.1)
        await asyncio.sleep(0.001)
    assert disk.failed
    assert lab.publisher.sent == []
    disk.room()
    while not running.done():
        await lab.clock.advance(1)
        await asyncio.sleep(0.001)
    await running
    assert collector.frontiers["ratchet.requests", 0].next == 500
    assert published(lab.root) == sequencer.size
    assert lab.publisher.cursor == sequencer.size
    sequencer.close()


def test_added_files_keep_their_bytes(tmp_path: Path) -> None:
    """The same bytes may be added again, others never; and no name stands that has not all its bytes."""
    store = LogDirectory(tmp_path)
    rows = [(f"attestations/{number}", bytes([number]) * 70_000) for number in range(20)]
    assert list(store.add(rows)) == [name for name, _ in rows]
    list(store.add(rows))
    with pytest.raises(LogDamaged, match="attestations/3 stands already"):
        list(store.add([("attestations/3", b"x")]))
    assert all(store.read(name) == data for name, data in rows)
    assert list((tmp_path / "state/temp").iterdir()) == []
    store.close()


def test_a_dropped_partial_is_read_from_the_full_one(tmp_path: Path) -> None:
    """Who still reads a smaller log finds its tiles after they were completed: their part of the full ones."""
    store = LogDirectory(tmp_path)
    full, entries = [bytes([n]) * 32 for n in range(256)], [b"%d" % n for n in range(256)]
    list(store.add([("tile/0/000", b"".join(full)), ("tile/entries/000", tiles.encode_bundle(entries))]))
    assert store.hashes(tiles.Tile(0, 0, 7)) == full[:7]
    assert store.entries(9, 0) == entries[:9]
    with pytest.raises(LogDamaged, match="missing"):
        store.hashes(tiles.Tile(0, 1, 7))
    store.close()


def test_nothing_is_published_after_close(tmp_path: Path) -> None:
    """A writer that has let go of the directory changes nothing there any more, not even from another thread."""
    store = LogDirectory(tmp_path)
    store.replace(CHECKPOINT, b"one")
    store.close()
    raised: list[Exception] = []

    def late() -> None:
        try:
            store.replace(CHECKPOINT, b"two")
        except LogLocked as exc:
            raised.append(exc)

    thread = threading.Thread(target=late)
    thread.start()
    thread.join()
    assert (len(raised), (tmp_path / CHECKPOINT).read_bytes()) == (1, b"one")
