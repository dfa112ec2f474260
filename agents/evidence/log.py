"""The log's directory: durable files and nothing else.

    checkpoint            the published signed note
    policy.txt            who must have signed it
    tile/                 hash tiles and entry bundles (tlog-tiles)
    payloads/             records of subjects, sealed: no part of any bundle
    attestations/         DSSE envelopes about entries, named after them
    state/intent          what is being signed: binding
    state/signed          the highest signed note
    state/stopped         what a witness refused for good: until a person has looked
    state/lock            held by the one writer
    state/aside/          files of batches that a crash left unsigned
    state/temp/           files before they have their name

A file under `tile/` is never overwritten with other bytes. One that is there has all its bytes: it is written and
synced under another name, then linked.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.artifacts import sync_folder
from schemas.errors import Unavailable
from schemas.tlog import note, tiles
from schemas.tlog.strict import Malformed

CHECKPOINT = "checkpoint"
POLICY = "policy.txt"
INTENT = "state/intent"
SIGNED = "state/signed"
STOPPED = "state/stopped"


class LogLocked(RuntimeError):
    """Another process holds the log's directory."""


class LogDamaged(RuntimeError):
    """The files on disk contradict each other. A person must look: nothing is signed until then."""


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""What an operator cures from outside while we wait. A disk that fails (EIO) is none of these: its syncs cannot be repeated."""
_SYNCS = 8


@contextlib.contextmanager
def _writable(place: Path) -> Generator[None]:
    """Say of a disk that is full, or closed to us, that the world is away."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _NO_ROOM:
            raise
        raise Unavailable(
            f"{exc.filename or place}: {exc.strerror}; accepted: a folder that takes our writes, with room for them"
        ) from exc


class LogDirectory:
    """The open directory of a log; holds its lock until `close`.

    Raises LogLocked, Unavailable when the folder takes no writes. After Unavailable the same call completes what it began.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temp = root / "state" / "temp"
        self._numbers = itertools.count()
        self._closing = threading.Lock()
        self._closed = False
        self._safe: set[Path] = set()  # folders whose own place is durable
        with _writable(root):
            self._temp.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "state" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _writable(root):
                self._take()
        except BaseException:
            os.close(self._lock)
            raise
        self._pool = ThreadPoolExecutor(_SYNCS, thread_name_prefix="evidence-sync")

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise LogLocked(f"{self.root} is written by another process; accepted: one writer") from exc
        shutil.rmtree(self._temp)
        self._temp.mkdir()
        for folder in (self.root, self.root / "state"):
            sync_folder(folder)

    def close(self) -> None:
        """Give up the lock. A `replace` that is under way ends before, none begins after."""
        with self._closing:
            self._closed = True
            self._pool.shutdown()
            os.close(self._lock)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None when there is none."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes) -> None:
        """Give a file new bytes: after a crash it has the old ones or the new ones."""
        target = self.root / name
        with self._closing:
            if self._closed:
                raise LogLocked(f"{self.root} was closed")
            with _writable(target), self._temporary([data]) as (temp,):
                temp.rename(target)
                sync_folder(target.parent)

    def add(self, files: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """Make files that never change again, and yield each name once it stands. Durable when the iteration ends.

        A name that stands already must have the same bytes, else LogDamaged.
        """
        rows = list(files)
        with _writable(self.root), self._temporary([data for _, data in rows]) as temps:
            touched: dict[Path, None] = {}
            for (name, data), temp in zip(rows, temps, strict=True):
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(temp, target)
                except FileExistsError:
                    if target.read_bytes() != data:
                        raise LogDamaged(f"{name} stands already with other bytes") from None
                touched |= dict.fromkeys(self._to_sync(target.parent))
                yield name
            list(self._pool.map(sync_folder, touched))
            self._safe |= touched.keys()

    def set_aside(self, names: Sequence[str]) -> None:
        """Take unsigned files out of the log, keeping them for a person to look at. Durable."""
        if not names:
            return
        aside = self.root / "state" / "aside"
        with _writable(aside):
            aside.mkdir(exist_ok=True)
            box = aside / f"{sum(1 for _ in aside.iterdir()):06d}"
            touched: dict[Path, None] = {box.parent: None, self.root / "state": None}
            for name in names:
                target = box / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).rename(target)
                touched[(self.root / name).parent] = None
            for folder in touched:
                sync_folder(folder)

    def names(self, folder: str) -> list[str]:
        """The names of a folder's files; empty where there is none."""
        place = self.root / folder
        return sorted(item.name for item in place.iterdir()) if place.is_dir() else []

    def remove(self, names: Sequence[str]) -> None:
        """Remove files. One that is gone already is no error."""
        with _writable(self.root):
            for name in names:
                (self.root / name).unlink(missing_ok=True)
            for folder in {(self.root / name).parent for name in names}:
                sync_folder(folder)

    def drop_partials(self, tile: tiles.Tile) -> None:
        """Remove the partial versions of a tile that is full. Never raises: what is left is dropped by the next start."""
        shutil.rmtree(self.root / f"{tile.path}.p", ignore_errors=True)

    def hashes(self, tile: tiles.Tile) -> list[bytes]:
        """A tile's hashes, from disk: of a partial one that was completed and dropped, its part of the full one."""
        data = self.read(tile.path)
        full = self.read(tiles.Tile(tile.level, tile.number).path) if data is None else None
        try:
            if full is not None:
                return tiles.decode_tile(full, tiles.WIDTH)[: tile.width]
            if data is not None:
                return tiles.decode_tile(data, tile.width)
        except Malformed as exc:
            raise LogDamaged(f"{tile.path}: {exc}") from exc
        raise LogDamaged(f"{tile.path} is missing")

    def entries(self, size: int, number: int) -> list[bytes]:
        """The entries of bundle `number` in a log of `size`, from disk, as `hashes`."""
        width = min(tiles.WIDTH, size - number * tiles.WIDTH)
        path = tiles.Tile(None, number, width).path
        data = self.read(path)
        full = self.read(tiles.Tile(None, number).path) if data is None else None
        try:
            if full is not None:
                return tiles.decode_bundle(full, tiles.WIDTH)[:width]
            if data is not None:
                return tiles.decode_bundle(data, width)
        except Malformed as exc:
            raise LogDamaged(f"{path}: {exc}") from exc
        raise LogDamaged(f"{path} is missing")

    def newest_first(self, size: int) -> Iterator[bytes]:
        """Every entry, from the last one back."""
        for number in range((size - 1) // tiles.WIDTH, -1, -1) if size else ():
            yield from reversed(self.entries(size, number))

    def beyond(self, size: int, room: int) -> list[str]:
        """Files under `tile/` that a log of `size` does not have, at most `room` entries past it."""
        names: list[str] = []
        level = 0
        while (end := (size + room) >> (tiles.HEIGHT * level)) > 0:
            names += self._beyond_row(level, size >> (tiles.HEIGHT * level), end)
            level += 1
        return [*names, *self._beyond_row(None, size, size + room)]

    def _beyond_row(self, level: int | None, count: int, end: int) -> Iterator[str]:
        for number in range(count >> tiles.HEIGHT, (end >> tiles.HEIGHT) + 1):
            full = tiles.Tile(level, number).path
            if (self.root / full).exists():
                yield full
            edge = count % tiles.WIDTH if number == count >> tiles.HEIGHT else 0
            partials = self.root / f"{full}.p"
            if partials.is_dir():
                yield from (f"{full}.p/{item.name}" for item in partials.iterdir() if int(item.name) > edge)

    @contextlib.contextmanager
    def _temporary(self, contents: Sequence[bytes]) -> Generator[list[Path]]:
        """Synced files without a name of the log; gone at the end. Never written again: one may be linked by then."""
        temps = [self._temp / str(next(self._numbers)) for _ in contents]
        try:
            writes = [self._pool.submit(_write, temp, data) for temp, data in zip(temps, contents, strict=True)]
            for failure in [write.exception() for write in writes]:  # all have ended: none writes behind our back
                if failure is not None:
                    raise failure
            yield temps
        finally:
            for temp in temps:
                with contextlib.suppress(OSError):
                    temp.unlink()

    def _to_sync(self, folder: Path) -> Iterator[Path]:
        """The folder, and those above it whose place in theirs may not be durable yet."""
        yield folder
        while folder != self.root and folder not in self._safe:
            folder = folder.parent
            yield folder


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def published(log_dir: Path) -> tuple[bytes, bytes]:
    """The published checkpoint and the policy as they lay beside each other. Safe beside a running writer."""
    while True:
        data, policy = (log_dir / CHECKPOINT).read_bytes(), (log_dir / POLICY).read_bytes()
        if (log_dir / CHECKPOINT).read_bytes() == data:
            return data, policy


def export(log_dir: Path, out_dir: Path) -> note.Checkpoint:
    """Copy what the published checkpoint covers, and nothing else, into a folder that a stranger can verify.

    Safe beside a running writer. `out_dir` must not exist or be empty.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if any(out_dir.iterdir()):
        raise FileExistsError(f"{out_dir} is not empty; accepted: a new or empty folder")
    data, policy = published(log_dir)
    checkpoint = note.parse_checkpoint(note.parse_note(data)[0])
    for tile in tiles.tiles_of(checkpoint.size):
        target = out_dir / tile.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(tile_bytes(log_dir, tile))
    (out_dir / POLICY).write_bytes(policy)
    (out_dir / CHECKPOINT).write_bytes(data)
    return checkpoint


def tile_bytes(log_dir: Path, tile: tiles.Tile) -> bytes:
    """A tile's bytes. A partial one that the writer has meanwhile completed and dropped is cut from the full one."""
    try:
        return (log_dir / tile.path).read_bytes()
    except FileNotFoundError:
        full = (log_dir / tiles.Tile(tile.level, tile.number).path).read_bytes()
    if tile.level is not None:
        return full[: tile.width * 32]
    return tiles.encode_bundle(tiles.decode_bundle(full, tiles.WIDTH)[: tile.width])
