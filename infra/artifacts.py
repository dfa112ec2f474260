"""Artifacts: bytes and folders named by what they hold. A directory here; a bucket would stand behind the same port.

A digest is `sha256:<hex>`. A folder (tree) is named by the digest of its manifest, a canonical JSON object of relative path
and digest per file. What a digest names never changes: writing it again changes nothing, and files are read-only.

    blobs/<first two>/<hex>     the bytes
    trees/<hex>/                the files of the tree; the manifest itself is a blob
    tmp/                        what a crash left half done: never read

Nothing is removed but what `expire` is asked to.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from schemas import canonical
from schemas.errors import Refused, Unavailable

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_CHUNK = 1 << 20


class ArtifactCorrupt(Refused):
    """What is stored is not what its digest says. The message names the file; nothing of it may be used."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message, kind="artifact_corrupt", field=file, accepted="the bytes that the digest names")


class ArtifactStore(Protocol):
    """Content-addressed and durable: when a `put` returns, the content survives a crash."""

    def put_bytes(self, data: bytes) -> str: ...

    def get_bytes(self, digest: str) -> bytes:
        """Raises ArtifactCorrupt, and Unavailable for a digest that the store has not (yet)."""
        ...

    def name_tree(self, path: Path) -> str:
        """The digest that `put_tree` would give now. Nothing is stored."""
        ...

    def put_tree(self, path: Path) -> str:
        """Copy the regular files under `path`. Refused: an empty folder, links, names that are not plain ASCII."""
        ...

    def open_tree(self, digest: str) -> Path:
        """The folder, unverified. Whoever trusts its content uses `verify_tree`."""
        ...

    def verify_tree(self, digest: str) -> Path:
        """The folder after every file was read and found as named, nothing missing, nothing more."""
        ...


class DirectoryStore:
    """The store in a directory, shared by any number of processes of a machine (or of a network file system)."""

    _names = itertools.count()

    def __init__(self, root: Path) -> None:
        self._root = root
        for name in ("blobs", "trees", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def put_bytes(self, data: bytes) -> str:
        hexdigest = hashlib.sha256(data).hexdigest()
        target = self._blob(hexdigest)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            part = self._temporary()
            _write(part, data)
            part.replace(target)
            sync_folder(target.parent)
        return f"sha256:{hexdigest}"

    def get_bytes(self, digest: str) -> bytes:
        hexdigest = _hex(digest)
        try:
            data = self._blob(hexdigest).read_bytes()
        except FileNotFoundError as exc:
            raise Unavailable(f"artifact {digest} is not in the store") from exc
        if hashlib.sha256(data).hexdigest() != hexdigest:
            raise ArtifactCorrupt(f"artifact {digest} holds other bytes than its digest names", digest)
        return data

    def name_tree(self, path: Path) -> str:
        return f"sha256:{hashlib.sha256(canonical.encode(tree_manifest(path))).hexdigest()}"

    def put_tree(self, path: Path) -> str:
        manifest = tree_manifest(path)
        encoded = canonical.encode(manifest)
        digest = f"sha256:{hashlib.sha256(encoded).hexdigest()}"
        target = self._tree(_hex(digest))
        if not target.exists():
            part = self._temporary()
            for name in manifest:
                copy = part / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                _write(copy, (path / name).read_bytes())
            for folder in {part, *(p for p in part.rglob("*") if p.is_dir())}:
                sync_folder(folder)
            if tree_manifest(part) != manifest:
                shutil.rmtree(part)
                raise Refused(f"{path.name} changed while it was stored", kind="artifact_changed")
            try:
                part.rename(target)
            except OSError:  # another process stored the same tree first: its content is the same by name
                shutil.rmtree(part)
                if not target.exists():
                    raise
            sync_folder(target.parent)
        self.put_bytes(encoded)
        return digest

    def open_tree(self, digest: str) -> Path:
        target = self._tree(_hex(digest))
        if not target.is_dir():
            raise Unavailable(f"artifact tree {digest} is not in the store")
        return target

    def verify_tree(self, digest: str) -> Path:
        target = self.open_tree(digest)
        found = tree_manifest(target)
        if hashlib.sha256(canonical.encode(found)).hexdigest() != _hex(digest):
            expected = canonical.decode(self.get_bytes(digest))
            name = _first_difference(expected if isinstance(expected, Mapping) else {}, found)
            raise ArtifactCorrupt(f"artifact tree {digest}: {name} is not as its digest names it", name)
        return target

    def expire(self, begins: bytes, before_s: float) -> int:
        """Remove the blobs that begin so and were written before that time (seconds since 1970), and what was left half done before it.

        For content that is never put twice: what is there already does not become younger. Says how many went; may be repeated.
        """
        blobs = [path for path in self._root.glob("blobs/*/*") if _written_s(path) < before_s and _begins(path, begins)]
        parts = [path for path in self._root.glob("tmp/*") if _written_s(path, *path.rglob("*")) < before_s]
        for path in (*blobs, *parts):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(blobs) + len(parts)

    def _blob(self, hexdigest: str) -> Path:
        return self._root / "blobs" / hexdigest[:2] / hexdigest

    def _tree(self, hexdigest: str) -> Path:
        return self._root / "trees" / hexdigest

    def _temporary(self) -> Path:
        return self._root / "tmp" / f"{os.getpid()}-{next(self._names)}"


def tree_manifest(path: Path) -> dict[str, str]:
    """Relative path (with `/`) to `sha256:<hex>` for every file under `path`, read now."""
    manifest = {name: hash_file(path / name) for name in _files(path)}
    if not manifest:
        raise Refused(f"{path.name} holds no file", kind="artifact_empty", accepted="a folder with at least one file")
    return manifest


def hash_file(path: Path) -> str:
    """The digest of a file, read in pieces."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return f"sha256:{state.hexdigest()}"


def _files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        raise Unavailable(f"{path.name} is not a folder")
    for item in sorted(path.rglob("*")):
        name = PurePosixPath(item.relative_to(path)).as_posix()
        if item.is_symlink() or not (item.is_file() or item.is_dir()):
            raise Refused(f"{name} is a link or a device", kind="artifact_link", field=name, accepted="regular files")
        if not name.isascii() or not name.isprintable():
            raise Refused(f"{name!r} is no plain name", kind="artifact_name", field=name, accepted="printable ASCII")
        if item.is_file():
            yield name


def _first_difference(expected: Mapping[str, object], found: dict[str, str]) -> str:
    return min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Refused(f"{digest[:80]!r} is no digest", kind="digest", field="digest", accepted="sha256:<64 hex digits>")
    return match.group(1)


def _written_s(*paths: Path) -> float:
    """When the newest of them was written; what is gone meanwhile never was."""
    found = [0.0]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.append(path.stat().st_mtime)
    return max(found)


def _begins(path: Path, begins: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(begins)) == begins
    except FileNotFoundError:
        return False


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
