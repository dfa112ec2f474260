"""The log under one published checkpoint, read only: a running log's folder or an exported one.

Nothing of it is verified here: whoever does not trust the folder runs the verifier. Safe beside the writer, whose full tiles
take the place of the partial ones that a snapshot names.
"""

import hashlib
import heapq
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import orjson

from agents.evidence.log import CHECKPOINT, published, tile_bytes
from schemas.errors import Refused, Unavailable
from schemas.tlog import merkle, note, tiles
from schemas.tlog.proof import Proof
from schemas.tlog.strict import Malformed

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BY_INDEX = re.compile(r"entry-(0|[1-9][0-9]{0,17})")
_TRUST = b'"type":"trust"'
SHORT = 8
"""So many characters of an event's id may stand for it."""
Say = Callable[[str], None]
"""Told how far long work is."""


def silent(_: str) -> None:
    """Nobody watches."""


class Snapshot:
    """`checkpoint` and `note` as they were when the folder was opened."""

    def __init__(self, folder: Path, data: bytes, policy: bytes) -> None:
        self.folder = folder
        self.note = data
        self.policy = policy
        self.checkpoint = note.parse_checkpoint(note.parse_note(data)[0])
        self._tile = lru_cache(maxsize=64)(self._read_tile)

    @classmethod
    def open(cls, folder: Path) -> "Snapshot":
        """Checkpoint and policy as they lay beside each other. Raises Unavailable before the first checkpoint, Refused."""
        try:
            data, policy = published(folder)
            return cls(folder, data, policy)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise Unavailable(f"{folder} holds no {Path(exc.filename).name}: nothing was signed there yet") from exc
        except Malformed as exc:
            raise Refused(f"{folder / CHECKPOINT}: {exc}", kind="log-damaged") from exc

    @property
    def size(self) -> int:
        return self.checkpoint.size

    def bundles(self, start: int = 0) -> Iterator[tuple[int, list[bytes]]]:
        """(index of the first, entries) of each bundle, from the one that holds `start` on."""
        for number in range(start // tiles.WIDTH, -(-self.size // tiles.WIDTH)):
            yield number * tiles.WIDTH, self._bundle(number)

    def entries(self, start: int = 0, say: Say = silent) -> Iterator[tuple[int, bytes]]:
        """(index, entry) from `start` on."""
        for first, found in self.bundles(start):
            if first % 65_536 == 0 and first:
                say(f"entry {first:,} of {self.size:,}")
            for index, entry in enumerate(found, first):
                if index >= start:
                    yield index, entry

    def newest_first(self) -> Iterator[bytes]:
        """Every entry, from the last one back."""
        for number in range((self.size - 1) // tiles.WIDTH, -1, -1) if self.size else ():
            yield from reversed(self._bundle(number))

    def entry(self, index: int) -> bytes:
        return self._bundle(index // tiles.WIDTH)[index % tiles.WIDTH]

    def proof(self, index: int) -> Proof:
        """The inclusion proof of an entry under this snapshot's checkpoint."""
        read = tiles.subtree_reader(self.size, self._tile)
        return Proof(index, tuple(merkle.inclusion_proof(index, self.size, read)), self.note)

    def find(self, names: Collection[str], say: Say = silent) -> dict[str, list[int]]:
        """The indices of each name, oldest first: an event's id, else `entry-INDEX`. A name that is neither is left out."""
        found = self.ids(names, range(-(-self.size // tiles.WIDTH)), say)
        for name in set(names) - set(found):
            match = _BY_INDEX.fullmatch(name)
            if match is not None and int(match[1]) < self.size:
                found[name] = [int(match[1])]
        return found

    def begins(self, start: str, say: Say = silent) -> dict[str, list[int]]:
        """The indices of each event id that begins so. Of fewer than eight characters: none, they are too many."""
        whole = range(-(-self.size // tiles.WIDTH))
        return self._standing([start], whole, say, lambda name: name.startswith(start)) if len(start) >= SHORT else {}

    def ids(self, wanted: Collection[str], numbers: range, say: Say = silent) -> dict[str, list[int]]:
        """The indices of each event id that stands in one of these bundles, ascending."""
        return self._standing(wanted, numbers, say, lambda name: name in wanted)

    def _standing(
        self, starts: Collection[str], numbers: range, say: Say, meant: Callable[[str], bool]
    ) -> dict[str, list[int]]:
        marks = [b'"id":' + json.dumps(one, ensure_ascii=False).encode("utf-8", "replace")[:-1] for one in starts]
        found: dict[str, list[int]] = {}
        for number in numbers:
            if number % 256 == 0 and number:
                say(f"looked at {number * tiles.WIDTH:,} of {self.size:,} entries")
            if not any(mark in self._bundle_bytes(number) for mark in marks):
                continue
            for index, entry in enumerate(self._bundle(number), number * tiles.WIDTH):
                if any(mark in entry for mark in marks) and meant(name := str(parsed(entry).get("id"))):
                    found.setdefault(name, []).append(index)
        return {name: sorted(places) for name, places in found.items()}

    def sample(self, count: int, seed: str) -> list[int]:
        """The `count` indices with the lowest SHA-256(root ‖ seed ‖ index), lowest first.

        Neither side can choose them where the seed is named by who already holds the checkpoint.
        """
        start = hashlib.sha256(self.checkpoint.root + seed.encode())

        def rank(index: int) -> bytes:
            state = start.copy()
            state.update(index.to_bytes(8, "big"))
            return state.digest()

        return heapq.nsmallest(count, range(self.size), key=rank)

    def trusted_policy(self, start: int = 0) -> str | None:
        """The policy digest of the last `trust` entry from `start` on, None where none stands there."""
        last: str | None = None
        for number in range(start // tiles.WIDTH, -(-self.size // tiles.WIDTH)):
            if _TRUST not in self._bundle_bytes(number):
                continue
            for index, entry in enumerate(self._bundle(number), number * tiles.WIDTH):
                if index >= start and _TRUST in entry and (value := parsed(entry)).get("type") == "trust":
                    last = str(value["policy"])
        return last

    def _bundle_bytes(self, number: int) -> bytes:
        width = min(tiles.WIDTH, self.size - number * tiles.WIDTH)
        return self._read(tiles.Tile(None, number, width))

    def _bundle(self, number: int) -> list[bytes]:
        width = min(tiles.WIDTH, self.size - number * tiles.WIDTH)
        try:
            return tiles.decode_bundle(self._bundle_bytes(number), width)
        except Malformed as exc:
            raise self._damaged(tiles.Tile(None, number, width), exc) from exc

    def _read_tile(self, tile: tiles.Tile) -> Sequence[bytes]:
        try:
            return tiles.decode_tile(self._read(tile), tile.width)
        except Malformed as exc:
            raise self._damaged(tile, exc) from exc

    def _read(self, tile: tiles.Tile) -> bytes:
        try:
            return tile_bytes(self.folder, tile)
        except FileNotFoundError as exc:
            withheld = tile.level is None and (self.folder / "disclosed").is_dir()
            why = "a tenant's bundle withholds entries: ask a whole one" if withheld else f"{tile.path} is missing"
            raise Refused(f"{self.folder}: {why}", kind="log-damaged") from exc
        except Malformed as exc:
            raise self._damaged(tile, exc) from exc

    def _damaged(self, tile: tiles.Tile, exc: Malformed) -> Refused:
        return Refused(f"{self.folder / tile.path}: {exc}; the verifier says more", kind="log-damaged")


def name_of(index: int, entry: Mapping[str, Any]) -> str:
    """What an entry's proof is called: its event's id where that is a plain name, else `entry-INDEX`."""
    found = entry.get("id")
    return found if isinstance(found, str) and _NAME.fullmatch(found) else f"entry-{index}"


def parsed(entry: bytes) -> dict[str, Any]:
    """An entry's value; whether it is canonical is the verifier's to say."""
    try:
        value: object = orjson.loads(entry)
    except orjson.JSONDecodeError as exc:
        raise Refused("an entry of the log is not JSON; the verifier says more", kind="log-damaged") from exc
    if not isinstance(value, dict):
        raise Refused("an entry of the log is no object; the verifier says more", kind="log-damaged")
    return cast("dict[str, Any]", value)
