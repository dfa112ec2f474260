"""A log's tree as it lies in its store: nothing here believes what memory says."""

from collections.abc import Sequence

from agents.evidence.edge import Edge
from agents.evidence.log import LogDamaged
from agents.evidence.ports import LogStore
from schemas.tlog import merkle, tiles
from schemas.tlog.note import Checkpoint


class _Read:
    """Tiles, each read once: for one look at a tree."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._held: dict[tiles.Tile, list[bytes]] = {}

    def __call__(self, tile: tiles.Tile) -> Sequence[bytes]:
        if tile not in self._held:
            self._held[tile] = self._store.hashes(tile)
        return self._held[tile]


def reader(store: LogStore, size: int) -> merkle.ReadSubtree:
    """Subtree hashes of a log of `size`."""
    return tiles.subtree_reader(size, _Read(store))


def edge(store: LogStore, size: int) -> tuple[Edge, list[bytes]]:
    """The right edge of a log of `size`, and the entries of its bundle that is not full."""
    rows: list[list[bytes]] = []
    level = 0
    while (count := size >> (tiles.HEIGHT * level)) > 0:
        width = count % tiles.WIDTH
        rows.append(store.hashes(tiles.Tile(level, count >> tiles.HEIGHT, width)) if width else [])
        level += 1
    tail = store.entries(size, size // tiles.WIDTH) if size % tiles.WIDTH else []
    return Edge(size, rows), tail


def extends(store: LogStore, old: Checkpoint | None, new: Checkpoint) -> None:
    """Raise LogDamaged unless the entries, hashed again, give every new hash up to the root of `new`, and extend `old`."""
    tile = _Read(store)
    read = tiles.subtree_reader(new.size, tile)
    if merkle.root(new.size, read) != new.root:
        raise LogDamaged(f"the tiles of {new.size} entries do not have the root that was to be signed")
    size = old.size if old else 0
    for number in range(size // tiles.WIDTH, (new.size + tiles.WIDTH - 1) // tiles.WIDTH):
        entries = store.entries(new.size, number)
        if [merkle.leaf_hash(entry) for entry in entries] != tile(tiles.Tile(0, number, len(entries))):
            raise LogDamaged(f"bundle {number} does not have the hashes of its tile")
    level = 0
    while (count := new.size >> (tiles.HEIGHT * (level + 1))) > 0:
        for number in range(size >> (tiles.HEIGHT * (level + 1)), count):
            first = number - number % tiles.WIDTH
            above = tile(tiles.Tile(level + 1, first >> tiles.HEIGHT, min(tiles.WIDTH, count - first)))
            if merkle.perfect_root(tile(tiles.Tile(level, number))) != above[number - first]:
                raise LogDamaged(f"{tiles.Tile(level, number).path} does not have the hash that stands above it")
        level += 1
    if old is not None:
        proof = merkle.consistency_proof(old.size, new.size, read)
        try:
            merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)
        except merkle.ProofRefused as exc:
            raise LogDamaged(f"{new.size} entries do not extend the {old.size} signed ones: {exc}") from exc
