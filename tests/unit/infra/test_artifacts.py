"""The artifact store: names are digests, and what is read is what was named."""

import os
from pathlib import Path

import pytest

from infra.artifacts import ArtifactCorrupt, DirectoryStore
from schemas.errors import Refused, Unavailable


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "inner").mkdir(parents=True)
    (made / "config.json").write_bytes(b"{}")
    (made / "inner" / "weights").write_bytes(bytes(range(256)))
    return made


def _flip(file: Path, at: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(data))


def _everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_bytes_come_back_under_their_sha256(store: DirectoryStore) -> None:
    """The digest of bytes is SHA-256, as anyone computes it."""
    digest = store.put_bytes(b"abc")
    assert digest == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.get_bytes(digest) == b"abc"


def test_putting_again_changes_nothing(store: DirectoryStore, folder: Path, tmp_path: Path) -> None:
    """The same content has the same digest and leaves the store as it was."""
    first = store.put_bytes(b"abc"), store.put_tree(folder)
    before = _everything(tmp_path / "store")
    assert (store.put_bytes(b"abc"), store.put_tree(folder)) == first
    assert _everything(tmp_path / "store") == before
    assert not list((tmp_path / "store" / "tmp").iterdir())


def test_what_expires_goes_and_nothing_else(store: DirectoryStore, folder: Path, tmp_path: Path) -> None:
    """Blobs that begin so and are old, and what a crash left half done; others, young ones, trees and what is being written stay."""
    root = tmp_path / "store"
    kept = [store.put_bytes(b"{'other'"), store.put_bytes(b'{"agent": "young"}')]
    old = store.put_bytes(b'{"agent": "cases", "partition": 0}\n')
    tree = store.put_tree(folder)
    for name in ("crashed", "writing"):
        (root / "tmp" / name / "inner").mkdir(parents=True)
        (root / "tmp" / name / "inner" / "text").write_bytes(b"half")
    (root / "tmp" / "file").write_bytes(b"half")
    young = (root / "blobs" / kept[1][7:9] / kept[1][7:], root / "tmp" / "writing" / "inner" / "text")
    for path in root.rglob("*"):
        if path not in young:
            os.utime(path, (1.0, 1.0))
    assert store.expire(b'{"agent": "', 1000.0) == 3
    assert not (root / "blobs" / old[7:9] / old[7:]).exists()
    assert sorted(path.name for path in (root / "tmp").iterdir()) == ["writing"]
    assert [store.get_bytes(digest) for digest in kept]
    assert store.verify_tree(tree)
    assert store.expire(b'{"agent": "', 1000.0) == 0


def test_one_flipped_byte_of_a_blob_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    """Bytes that no longer match their digest are never returned."""
    digest = store.put_bytes(b"abc")
    _flip(tmp_path / "store" / "blobs" / digest[7:9] / digest[7:])
    with pytest.raises(ArtifactCorrupt) as refused:
        store.get_bytes(digest)
    assert digest in str(refused.value)


def test_a_tree_comes_back_whole(store: DirectoryStore, folder: Path) -> None:
    """A tree holds the folder's files under their relative names, read-only."""
    path = store.verify_tree(store.put_tree(folder))
    assert _everything(path) == _everything(folder)
    assert (path / "config.json").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("damage", ["flip", "add", "remove"])
def test_a_damaged_tree_names_the_file(store: DirectoryStore, folder: Path, damage: str) -> None:
    """One flipped byte, a file too many or one too few: refused, naming the file."""
    digest = store.put_tree(folder)
    path = store.open_tree(digest)
    weights = path / "inner" / "weights"
    if damage == "flip":
        _flip(weights, 200)
    elif damage == "add":
        (path / "inner" / "more").write_bytes(b"")
    else:
        weights.unlink()
    with pytest.raises(ArtifactCorrupt) as refused:
        store.verify_tree(digest)
    assert refused.value.field == ("inner/more" if damage == "add" else "inner/weights")


def test_links_and_empty_folders_are_refused(store: DirectoryStore, folder: Path, tmp_path: Path) -> None:
    """A link could point outside the tree: refused by name, and nothing is stored."""
    (folder / "link").symlink_to("/")
    with pytest.raises(Refused) as refused:
        store.put_tree(folder)
    assert refused.value.field == "link"
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="empty holds no file"):
        store.put_tree(tmp_path / "empty")
    assert _everything(tmp_path / "store") == {}


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "g" * 64, "../" * 5, "sha256:" + "a" * 63 + "/"])
def test_what_is_no_digest_is_refused(store: DirectoryStore, digest: str) -> None:
    """A digest never becomes a path unless it is 64 hex digits."""
    with pytest.raises(Refused):
        store.get_bytes(digest)
    with pytest.raises(Refused):
        store.open_tree(digest)


def test_what_is_not_stored_is_unavailable(store: DirectoryStore) -> None:
    """A digest that the store has not may arrive later: the world is away, the sender is not wrong."""
    with pytest.raises(Unavailable):
        store.get_bytes("sha256:" + "0" * 64)
    with pytest.raises(Unavailable):
        store.open_tree("sha256:" + "0" * 64)
