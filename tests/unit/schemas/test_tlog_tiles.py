"""Tile paths, bundles, and the hashes read back from tiles."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.tlog import merkle, tiles
from schemas.tlog.strict import Malformed


def test_published_numbers_have_our_paths() -> None:
    """Numbers are written in the groups that the published paths show."""
    published = json.loads((Path(__file__).parents[2] / "data/tlog/sumdb_values.json").read_text())["tile_paths"]
    groups = {path.split("/", 3)[3]: good for path, good in published.items()}  # there tile/<height>/<level>/<number>
    for number, good in groups.items():
        path = f"tile/0/{number}"
        if good:
            assert tiles.parse_path(path).path == path
        else:
            with pytest.raises(Malformed):
                tiles.parse_path(path)


@given(st.integers(0, 2**40), st.integers(1, 256), st.sampled_from([None, 0, 3]))
def test_paths_read_back(number: int, width: int, level: int | None) -> None:
    """Every tile's path names that tile."""
    tile = tiles.Tile(level, number, width)
    assert tiles.parse_path(tile.path) == tile


@pytest.mark.parametrize("path", [
    "tile/0/1", "tile/00/001", "tile/0/x000/001", "tile/0/001.p/0", "tile/0/001.p/256", "tile/0/001.p/05", "tile/8/001",
    "tile/entries/001/", "Tile/0/001", "tile/0/001x", "tile/data/001",
])  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    """A tile has one path."""
    with pytest.raises(Malformed):
        tiles.parse_path(path)


@given(st.lists(st.binary(max_size=40), max_size=12), st.data())
def test_bundles_read_back(entries: list[bytes], data: st.DataObject) -> None:
    """A bundle gives its entries back, and cut or with another count it is refused."""
    bundle = tiles.encode_bundle(entries)
    assert tiles.decode_bundle(bundle, len(entries)) == entries
    with pytest.raises(Malformed):
        tiles.decode_bundle(bundle, len(entries) + 1)
    if bundle:
        with pytest.raises(Malformed):
            tiles.decode_bundle(bundle[: data.draw(st.integers(0, len(bundle) - 1))], len(entries))


def test_an_entry_that_is_too_long_is_refused() -> None:
    """65,535 bytes fit, one more does not, and nothing is cut."""
    assert tiles.decode_bundle(tiles.encode_bundle([bytes(65_535)]), 1) == [bytes(65_535)]
    with pytest.raises(ValueError, match="longer"):
        tiles.encode_bundle([bytes(65_536)])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_536, 65_793])
def test_files_of_a_log(size: int) -> None:
    """Every level's widths add up to its number of hashes."""
    widths: dict[int | None, int] = {}
    for tile in tiles.tiles_of(size):
        widths[tile.level] = widths.get(tile.level, 0) + tile.width
    assert widths.pop(None) == size
    assert widths == {level: size >> 8 * level for level in range(3) if size >> 8 * level}


def test_subtrees_read_from_tiles() -> None:
    """Hashes at any height are those of the tree, read from tiles of two levels."""
    size = 700
    leaves = [merkle.leaf_hash(str(number).encode()) for number in range(size)]
    full = [merkle.perfect_root(leaves[at : at + 256]) for at in (0, 256)]

    def read(tile: tiles.Tile) -> list[bytes]:
        row = leaves if tile.level == 0 else full
        return row[tile.number * 256 : tile.number * 256 + tile.width]

    subtree = tiles.subtree_reader(size, read)
    assert subtree(9, 0) == merkle.node_hash(*full)
    assert subtree(8, 1) == full[1]
    assert subtree(2, 3) == merkle.perfect_root(leaves[12:16])
