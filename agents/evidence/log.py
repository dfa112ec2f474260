"""The log's directory: durable files and nothing else.

    checkpoint            the published signed note
    policy.txt            the verifier keys
    tile/                 hash tiles and entry bundles (tlog-tiles)
    state/intent          the body that is being signed: binding
    state/signed          the highest signed note
    state/lock            held by the one writer
    state/aside/          files of batches that a crash left unsigned
    state/temp/           files before they have their name

A file under `tile/` is never overwritten with other bytes. One that is there has all its bytes: it is written and
synced under another name, then linked.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from schemas.tlog import note, tiles
from schemas.tlog.strict import Malformed

CHECKPOINT = "checkpoint"
POLICY = "policy.txt"
INTENT = "state/intent"
SIGNED = "state/signed"


class LogLocked(RuntimeError):
    """Another process holds the log's directory."""


class LogDamaged(RuntimeError):
    """The files on disk contradict each other. A person must look: nothing is signed until then."""


class LogDirectory:
    """The open directory of a log; holds its lock until `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temp = root / "state" / "temp"
        self._temp.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "state" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise LogLocked(f"{root} is written by another process; accepted: one writer") from exc
        shutil.rmtree(self._temp)
        self._temp.mkdir()
        self._sync([root, root / "state"])

    def close(self) -> None:
        """Give up the lock."""
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
        temp = self._write_temp(0, data)
        temp.rename(target)
        self._sync([target.parent])

    def add(self, files: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        """Make files that never change again, and yield each name once it stands. Durable when the iteration ends.

        A name that stands already must have the same bytes, else LogDamaged.
        """
        pending = [(name, self._write_temp(number, data), data) for number, (name, data) in enumerate(files)]
        touched: dict[Path, None] = {}
        for name, temp, data in pending:
            target = self.root / name
            self._make_parents(target.parent, touched)
            try:
                os.link(temp, target)
            except FileExistsError:
                if target.read_bytes() != data:
                    raise LogDamaged(f"{name} stands already with other bytes") from None
            touched[target.parent] = None
            yield name
        self._sync(touched)
        for _, temp, _ in pending:
            temp.unlink()

    def set_aside(self, names: Sequence[str]) -> None:
        """Take unsigned files out of the log, keeping them for a person to look at. Durable."""
        if not names:
            return
        aside = self.root / "state" / "aside"
        aside.mkdir(exist_ok=True)
        box = aside / f"{sum(1 for _ in aside.iterdir()):06d}"
        touched: dict[Path, None] = {box.parent: None, self.root / "state": None}
        for name in names:
            target = box / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).rename(target)
            touched[(self.root / name).parent] = None
        self._sync(touched)

    def drop_partials(self, tile: tiles.Tile) -> None:
        """Remove the partial versions of a tile that is full and under a published checkpoint."""
        shutil.rmtree(self.root / f"{tile.path}.p", ignore_errors=True)

    def hashes(self, tile: tiles.Tile) -> list[bytes]:
        """A tile's hashes, from disk. Raises LogDamaged."""
        data = self.read(tile.path)
        if data is None:
            raise LogDamaged(f"{tile.path} is missing")
        try:
            return tiles.decode_tile(data, tile.width)
        except Malformed as exc:
            raise LogDamaged(f"{tile.path}: {exc}") from exc

    def entries(self, size: int, number: int) -> list[bytes]:
        """The entries of bundle `number` in a log of `size`, from disk. Raises LogDamaged."""
        width = min(tiles.WIDTH, size - number * tiles.WIDTH)
        path = tiles.Tile(None, number, width).path
        data = self.read(path)
        if data is None:
            raise LogDamaged(f"{path} is missing")
        try:
            return tiles.decode_bundle(data, width)
        except Malformed as exc:
            raise LogDamaged(f"{path}: {exc}") from exc

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

    def _write_temp(self, number: int, data: bytes) -> Path:
        temp = self._temp / str(number)
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        return temp

    def _make_parents(self, folder: Path, touched: dict[Path, None]) -> None:
        if folder.is_dir():
            return
        self._make_parents(folder.parent, touched)
        folder.mkdir(exist_ok=True)
        touched[folder.parent] = None

    def _sync(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def policy_text(vkeys: Sequence[str]) -> str:
    """The trust policy (tlog-policy) that accepts these log keys and asks for no witness."""
    return "".join(f"log {vkey}\n" for vkey in vkeys) + "quorum none\n"


def export(log_dir: Path, out_dir: Path) -> note.Checkpoint:
    """Copy what the published checkpoint covers, and nothing else, into a folder that a stranger can verify.

    Safe beside a running writer. `out_dir` must not exist or be empty.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    if any(out_dir.iterdir()):
        raise FileExistsError(f"{out_dir} is not empty; accepted: a new or empty folder")
    while True:  # the policy as it lay beside this checkpoint
        data, policy = (log_dir / CHECKPOINT).read_bytes(), (log_dir / POLICY).read_bytes()
        if (log_dir / CHECKPOINT).read_bytes() == data:
            break
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
