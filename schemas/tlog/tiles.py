"""The layout of tlog-tiles 0.1.0: paths of tiles and entry bundles, and their bytes.

A tile of level L holds up to 256 hashes of subtrees of height 8·L; tile N begins at subtree N·256. A bundle holds the
entries of the level-0 tile of its number, each after its length in two bytes. Partial ones say their width in the path.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from schemas.tlog.merkle import HASH_SIZE, perfect_root
from schemas.tlog.strict import Malformed

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_ENTRY = 65_535
ENTRIES = "entries"
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<number>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One file: `level` None is an entry bundle; `width` 256 is a full one."""

    level: int | None
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`, the number in groups of three digits, all but the last behind an x."""
        groups = [f"{self.number % 1000:03d}"]
        rest = self.number // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = ENTRIES if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_path(path: str) -> Tile:
    """The tile of a path. Raises Malformed for any other spelling of it."""
    match = _PATH.fullmatch(path)
    if match is not None:
        level = None if match["level"] == ENTRIES else int(match["level"])
        number = int(match["number"].replace("x", "").replace("/", ""))
        tile = Tile(level, number, int(match["width"] or WIDTH))
        if tile.path == path and (level is None or level <= 63 // HEIGHT):
            return tile
    raise Malformed(f"{path!r} is not a tile's path; accepted: tile/<level>/<number>[.p/<width>]")


def tiles_of(size: int) -> Iterator[Tile]:
    """Every file that a log of `size` entries consists of, bundles last, partial ones only at the right edge."""
    level = 0
    while (count := size >> (HEIGHT * level)) > 0:
        yield from _row(level, count)
        level += 1
    yield from _row(None, size)


def _row(level: int | None, count: int) -> Iterator[Tile]:
    yield from (Tile(level, number) for number in range(count >> HEIGHT))
    if count % WIDTH:
        yield Tile(level, count >> HEIGHT, count % WIDTH)


def subtree_reader(size: int, read: Callable[[Tile], Sequence[bytes]]) -> Callable[[int, int], bytes]:
    """A `merkle.ReadSubtree` over the tiles of a log of `size`; `read` gives a tile's hashes."""

    def subtree(level: int, index: int) -> bytes:
        tile_level, inside = divmod(level, HEIGHT)
        first = index << inside
        count = size >> (HEIGHT * tile_level)
        number = first >> HEIGHT
        hashes = read(Tile(tile_level, number, min(WIDTH, count - (number << HEIGHT))))
        start = first % WIDTH
        return perfect_root(hashes[start : start + (1 << inside)])

    return subtree


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Each entry after its length, big-endian. An entry that is too long is refused, never cut."""
    if any(len(entry) > MAX_ENTRY for entry in entries):
        raise ValueError(f"an entry is longer than {MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Exactly `width` entries and nothing after them, else Malformed."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise Malformed("the bundle ends inside an entry")
        entries.append(data[at + 2 : end])
        at = end
    if len(entries) != width:
        raise Malformed(f"the bundle holds {len(entries)} entries; accepted: {width}")
    return entries


def decode_tile(data: bytes, width: int) -> list[bytes]:
    """Exactly `width` hashes, else Malformed."""
    if len(data) != width * HASH_SIZE:
        raise Malformed(f"the tile holds {len(data)} bytes; accepted: {width} hashes of {HASH_SIZE}")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
