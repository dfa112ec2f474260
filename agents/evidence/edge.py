"""The right edge of a log's tree: all that is needed to append to it. Pure."""

from collections.abc import Sequence

from schemas.tlog import merkle, tiles


class Edge:
    """Per level the hashes of the last tile that is not full."""

    def __init__(self, size: int, rows: list[list[bytes]]) -> None:
        self.size = size
        self._rows = rows

    def extended(self, leaves: Sequence[bytes]) -> "tuple[Edge, list[tuple[tiles.Tile, bytes]]]":
        """The edge after these leaf hashes, and every hash tile that they complete or change."""
        size = self.size + len(leaves)
        rows: list[list[bytes]] = []
        made: list[tuple[tiles.Tile, bytes]] = []
        level, fresh = 0, list(leaves)
        while fresh or level < len(self._rows):
            row = (self._rows[level] if level < len(self._rows) else []) + fresh
            first = (self.size >> (tiles.HEIGHT * level)) >> tiles.HEIGHT
            up: list[bytes] = []
            whole = len(row) - len(row) % tiles.WIDTH
            for at in range(0, whole, tiles.WIDTH):
                full = row[at : at + tiles.WIDTH]
                made.append((tiles.Tile(level, first), b"".join(full)))
                up.append(merkle.perfect_root(full))
                first += 1
            rest = row[whole:]
            if rest and fresh:
                made.append((tiles.Tile(level, first, len(rest)), b"".join(rest)))
            rows.append(rest)
            level, fresh = level + 1, up
        return Edge(size, rows), made

    def root(self) -> bytes:
        """The tree's root, from the edge alone."""
        hashes: list[bytes] = []
        for row in reversed(self._rows):
            at = 0
            while at < len(row):
                step = 1 << ((len(row) - at).bit_length() - 1)
                hashes.append(merkle.perfect_root(row[at : at + step]))
                at += step
        return merkle.fold_root(hashes)
