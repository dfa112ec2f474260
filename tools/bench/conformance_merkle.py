"""Published trees against `schemas.tlog`: proof probes, roots, paths of tiles, and whole logs on disk."""

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, cast

from schemas.tlog import merkle, note, tiles
from schemas.tlog.strict import Malformed
from tools.bench.conformance_files import Case, Fault, File, Folder, Node, faulted
from tools.bench.conformance_notes import opened

_ABOUT = {"desc", "description", "name", "comment", "wantErr"}
_INCLUSION = {"leafIdx", "treeSize", "root", "leafHash", "proof"}
_CONSISTENCY = {"size1", "size2", "root1", "root2", "proof"}
_PATH = re.compile(r"tile/(?:-?[0-9]+|data|entries)/")
_WITH_HEIGHT = re.compile(r"tile/[0-9]+/(-?[0-9]{1,2}|data)/(.+)")  # golang.org/x/mod's form, our height is always 8


def probes(file: File, node: Node) -> Iterator[Case]:
    """Inclusion and consistency proofs, each with whether it must be refused, in the form of transparency-dev/merkle."""
    if (row := node.row) is None:
        return
    for family, wanted in (("inclusion", _INCLUSION), ("consistency", _CONSISTENCY)):
        if wanted | {"wantErr"} <= row.keys() and not row.keys() - wanted - _ABOUT:
            where = f"{file.name} {row.get('name') or row.get('desc') or ''}".strip()
            yield Case(family, where, _probe(family, row))


def _probe(family: str, row: Mapping[str, Any]) -> Fault:
    def check() -> None:
        proof = [_hash(text) for text in cast("list[str]", row["proof"] or [])]
        if family == "inclusion":
            index, size = int(row["leafIdx"]), int(row["treeSize"])
            merkle.verify_inclusion(index, size, _hash(row["leafHash"]), proof, _hash(row["root"]))
        else:
            size1, size2 = int(row["size1"]), int(row["size2"])
            merkle.verify_consistency(size1, size2, _hash(row["root1"]), _hash(row["root2"]), proof)

    return faulted(check, merkle.ProofRefused, binascii.Error, TypeError, ValueError, refused=bool(row["wantErr"]))


def _hash(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def roots(file: File, node: Node) -> Iterator[Case]:
    """Leaf inputs as hex and, for each size up to their number, the root."""
    lists = _hex_lists(node.row or {})
    for (_, leaves), (name, heads) in permutations(lists.items(), 2):
        if len(leaves) == len(heads) > 1 and _are_roots(leaves, heads):
            for size, head in enumerate(heads, 1):
                got = _root_of(leaves[:size])
                yield Case(
                    "roots", f"{file.name} {name} size {size}", None if got == head else f"our root is {got.hex()}"
                )


def _hex_lists(row: Mapping[str, Any]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for key, item in row.items():
        if isinstance(item, list) and all(isinstance(text, str) for text in cast("list[Any]", item)):
            try:
                found[key] = [bytes.fromhex(text) for text in cast("list[str]", item)]
            except ValueError:
                continue
    return found


def _are_roots(leaves: Sequence[bytes], heads: Sequence[bytes]) -> bool:
    """Roots are hashes, and at least one of them is that of our reading: two other lists of hex are not judged."""
    hashes = all(len(head) == merkle.HASH_SIZE for head in heads)
    return hashes and any(_root_of(leaves[:size]) == head for size, head in enumerate(heads, 1))


def _root_of(leaves: Sequence[bytes]) -> bytes:
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    return merkle.root(
        len(hashes), lambda level, index: merkle.perfect_root(hashes[index << level : index + 1 << level])
    )


def paths(file: File, node: Node) -> Iterator[Case]:
    """Paths of tiles, each with whether it is one."""
    for path, good in _judged_paths(node):
        match = _WITH_HEIGHT.fullmatch(path)
        ours = path if match is None else f"tile/{match[1].replace('data', tiles.ENTRIES)}/{match[2]}"
        fault = faulted(partial(_same_path, ours), Malformed, refused=not good)
        yield Case("tile-paths", f"{file.name} {path}", fault)


def _judged_paths(node: Node) -> Iterator[tuple[str, bool]]:
    if isinstance(node.value, str) and _PATH.match(node.value) and node.keys[-1:] == ("path",):
        yield node.value, not node.refused
    for path, good in (node.row or {}).items():
        if isinstance(good, bool) and _PATH.match(path):
            yield path, good


def _same_path(path: str) -> None:
    if tiles.parse_path(path).path != path:
        raise Malformed(f"{path!r} is written otherwise")


def logs(folder: Folder, taken: set[str]) -> Iterator[Case]:
    """Folders with checkpoints and tiles: each checkpoint a case. The files that are a log's are added to `taken`."""
    for place in dict.fromkeys(file.path.parent for file in folder.files):
        points = [file for file in folder.beside(place) if file.path.name.startswith("checkpoint")]
        if not points or not (place / "tile").is_dir():
            continue
        name = str(place.relative_to(folder.root))
        paths = [str(path.relative_to(place)) for path in (place / "tile").rglob("*") if path.is_file()]
        if paths and not any(_is_tile(path) for path in paths):
            folder.left_out[name] = "its tiles are not laid out as tlog-tiles"
            continue
        keys = folder.keys_near(place)
        if not keys:
            folder.left_out[name] = "no verifier key in a text file of the folder or of the one above"
            continue
        log = _Log(place, paths)
        known: list[note.Checkpoint] = []
        for point in points:
            taken.add(point.name)
            yield Case("logs", point.name, _point(log, point, keys, known))
        known.sort(key=lambda one: one.size)
        for old, new in pairwise(known):
            if 0 < old.size < new.size:
                yield Case("logs", f"{name} from {old.size} to {new.size}", log.extends(old, new))


def _is_tile(path: str) -> bool:
    try:
        return bool(tiles.parse_path(path))
    except Malformed:
        return False


def _point(log: "_Log", file: File, keys: Sequence[note.VerifierKey], known: list[note.Checkpoint]) -> Fault:
    """Signed by a key near by, and the tiles have its root; then it is added to `known`."""
    try:
        checkpoint = note.parse_checkpoint(opened(file.data, keys))
        log.check(checkpoint)
    except (Malformed, note.Untrusted, merkle.ProofRefused) as fault:
        return str(fault)
    known.append(checkpoint)
    return None


class _Log:
    """A log's tiles on disk. A partial tile that is not there is cut from a wider one."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        def read(path: str) -> bytes:
            return (root / path).read_bytes()

        self._read: Callable[[str], bytes] = lru_cache(maxsize=1024)(read)
        self._paths: dict[tuple[int | None, int], dict[int, str]] = {}
        for path in filter(_is_tile, paths):
            tile = tiles.parse_path(path)
            self._paths.setdefault((tile.level, tile.number), {})[tile.width] = path

    def check(self, checkpoint: note.Checkpoint) -> None:
        """Root, every tile, every entry that is there, a proof of the first and the last. Raises ProofRefused, Malformed."""
        size = checkpoint.size
        if merkle.root(size, self._reader(size)) != checkpoint.root:
            raise merkle.ProofRefused(f"the tiles of {size} entries do not have the root")
        for tile in tiles.tiles_of(size):
            if tile.level is None:
                self._check_entries(tile)
            elif tile.level > 0:
                below = [self._hashes(tiles.Tile(tile.level - 1, (tile.number << 8) + at)) for at in range(tile.width)]
                if [merkle.perfect_root(row) for row in below] != self._hashes(tile):
                    raise merkle.ProofRefused(f"{tile.path} does not hold the roots of the tiles below")
        for index in {0, size - 1} if size else ():
            proof = merkle.inclusion_proof(index, size, self._reader(size))
            leaf = self._reader(size)(0, index)
            merkle.verify_inclusion(index, size, leaf, proof, checkpoint.root)

    def extends(self, old: note.Checkpoint, new: note.Checkpoint) -> Fault:
        """The newer tree extends the older, by the proof that we make from the tiles."""
        proof = merkle.consistency_proof(old.size, new.size, self._reader(new.size))
        return faulted(
            lambda: merkle.verify_consistency(old.size, new.size, old.root, new.root, proof), merkle.ProofRefused
        )

    def _reader(self, size: int) -> merkle.ReadSubtree:
        return tiles.subtree_reader(size, self._hashes)

    def _file(self, tile: tiles.Tile) -> tuple[int, bytes] | None:
        """The narrowest that holds the tile: its width and bytes."""
        made = self._paths.get((tile.level, tile.number), {})
        wide = min((width for width in made if width >= tile.width), default=None)
        return None if wide is None else (wide, self._read(made[wide]))

    def _hashes(self, tile: tiles.Tile) -> list[bytes]:
        found = self._file(tile)
        if found is None:
            raise Malformed(f"{tile.path} is missing")
        return tiles.decode_tile(found[1], found[0])[: tile.width]

    def _check_entries(self, tile: tiles.Tile) -> None:
        found = self._file(tile)
        if found is None:
            if any(level is None for level, _ in self._paths):
                raise Malformed(f"{tile.path} is missing")
            return  # a log may be published without its entries
        wide, data = found
        leaves = [merkle.leaf_hash(entry) for entry in tiles.decode_bundle(_plain(data), wide)]
        if leaves[: tile.width] != self._hashes(tiles.Tile(0, tile.number, tile.width)):
            raise merkle.ProofRefused(f"{tile.path} does not have the hashes of its tile")


def _plain(bundle: bytes) -> bytes:
    """The bundle itself, where a static server keeps it compressed. Raises Malformed."""
    if bundle[:3] != b"\x1f\x8b\x08":
        return bundle
    try:
        return gzip.decompress(bundle)
    except (OSError, EOFError, zlib.error) as exc:
        raise Malformed("a compressed bundle cannot be read") from exc
