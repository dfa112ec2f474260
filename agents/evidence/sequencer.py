"""Entries in, signed checkpoints out; a crash at any line leaves a log that resumes to the same root.

1. bundles and tiles on disk       crash: files beyond the signed size, no intent: set aside, read again
2. intent (size, root, version)    crash: binding, the resume finishes exactly this body
3. consistency from disk; fence; sign; `signed` on disk    crash: sign again, Ed25519 gives the same bytes
4. (witnesses: not yet)
5. `checkpoint`                    crash: made again from `signed`
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agents.evidence.log import CHECKPOINT, INTENT, POLICY, SIGNED, LogDamaged, LogDirectory, policy_text
from agents.evidence.ports import Fence, Notary
from schemas import canonical
from schemas.tlog import merkle, note, tiles
from schemas.tlog.strict import Malformed

MAX_BATCH = 4096
"""Records of one checkpoint; findings and coverage come on top."""
_ROOM = 4 * MAX_BATCH
Passed = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Intent:
    """What is being signed."""

    checkpoint: note.Checkpoint
    key_version: int

    def encode(self) -> bytes:
        return canonical.encode({"body": self.checkpoint.text, "key_version": self.key_version})

    @staticmethod
    def decode(data: bytes) -> "Intent":
        value = cast("dict[str, Any]", canonical.decode(data))
        return Intent(note.parse_checkpoint(value["body"]), int(value["key_version"]))


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and the note that carries it."""

    checkpoint: note.Checkpoint
    note: bytes


class Edge:
    """The right edge of the tree: per level the hashes of the last tile that is not full."""

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
            while len(row) >= tiles.WIDTH:
                made.append((tiles.Tile(level, first), b"".join(row[: tiles.WIDTH])))
                up.append(merkle.perfect_root(row[: tiles.WIDTH]))
                row = row[tiles.WIDTH :]
                first += 1
            if row and fresh:
                made.append((tiles.Tile(level, first, len(row)), b"".join(row)))
            rows.append(row)
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


class Sequencer:
    """The one writer of a log. `open` it; `commit` batches; if that raises Unavailable, `finish` again later."""

    def __init__(
        self, directory: LogDirectory, notary: Notary, fence: Fence, check: note.SignatureCheck, passed: Passed
    ) -> None:
        self._directory = directory
        self._notary = notary
        self._fence = fence
        self._check = check
        self._passed = passed
        self._signed: Signed | None = None
        self._intent: Intent | None = None
        self._edge = Edge(0, [])
        self._tail: list[bytes] = []  # the entries of the bundle that is not full
        self._staged: tuple[Edge, list[bytes]] | None = None

    @classmethod
    async def open(
        cls,
        root: Path,
        *,
        notary: Notary,
        fence: Fence,
        check: note.SignatureCheck,
        passed: Passed = lambda _: None,
    ) -> "Sequencer":
        """Take the directory, believe the highest signed checkpoint, finish a bound intent, set the rest aside.

        Raises LogLocked, LogDamaged (a person must look), Unavailable (the notary is away).
        """
        directory = LogDirectory(root)
        self = cls(directory, notary, fence, check, passed)
        try:
            await asyncio.to_thread(self._load)
            if self._intent is not None:
                await self.finish()
        except BaseException:
            directory.close()
            raise
        return self

    def close(self) -> None:
        """Release the directory."""
        self._directory.close()

    @property
    def size(self) -> int:
        """Entries under the last signed checkpoint."""
        return self._signed.checkpoint.size if self._signed else 0

    @property
    def pending(self) -> bool:
        """Whether a batch is bound but not yet signed: `finish` it."""
        return self._intent is not None

    @property
    def signed(self) -> Signed | None:
        """The last signed checkpoint, None before the first."""
        return self._signed

    def newest_first(self) -> Iterator[bytes]:
        """Every signed entry, from the last one back, from disk."""
        return self._directory.newest_first(self.size)

    async def commit(self, entries: Sequence[bytes]) -> Signed:
        """Append the entries, all or none, and sign the checkpoint over them.

        When this raises, the batch is on disk and bound or it is not in the log; `finish`, or a new `open`, tells.
        """
        if self._intent is not None:
            raise RuntimeError("a batch is still to be signed; accepted: finish() first")
        if not 0 < len(entries) <= _ROOM:
            raise ValueError(f"{len(entries)} entries; accepted: 1 to {_ROOM}")
        await asyncio.to_thread(self._stage, entries)
        return await self.finish()

    async def finish(self) -> Signed:
        """Sign the bound batch (steps 3 to 5). May be repeated until it succeeds."""
        intent = self._intent
        if intent is None:
            raise RuntimeError("there is no batch to sign")
        await asyncio.to_thread(self._extends, intent)
        self._passed("consistent")
        await self._fence.commit()
        self._passed("fenced")
        signed = await asyncio.to_thread(self._sign, intent)
        await asyncio.to_thread(self._publish, signed)
        return signed

    def _stage(self, entries: Sequence[bytes]) -> None:
        key_version = self._notary.latest()  # away? then before anything is written
        edge, hash_tiles = self._edge.extended([merkle.leaf_hash(entry) for entry in entries])
        bundles, tail = self._bundles(entries)
        files = [(tile.path, data) for tile, data in (*bundles, *hash_tiles)]
        for _ in self._directory.add(files):
            self._passed("file")
        self._passed("tiles")
        intent = Intent(note.Checkpoint(self._notary.name, edge.size, edge.root()), key_version)
        self._directory.replace(INTENT, intent.encode())
        self._intent, self._staged = intent, (edge, tail)
        self._passed("intent")

    def _bundles(self, entries: Sequence[bytes]) -> tuple[list[tuple[tiles.Tile, bytes]], list[bytes]]:
        rest = self._tail + list(entries)
        number = self._edge.size // tiles.WIDTH
        made: list[tuple[tiles.Tile, bytes]] = []
        while len(rest) >= tiles.WIDTH:
            made.append((tiles.Tile(None, number), tiles.encode_bundle(rest[: tiles.WIDTH])))
            rest = rest[tiles.WIDTH :]
            number += 1
        if rest:
            made.append((tiles.Tile(None, number, len(rest)), tiles.encode_bundle(rest)))
        return made, rest

    def _root_on_disk(self, size: int) -> bytes:
        return merkle.root(size, self._reader(size))

    def _reader(self, size: int) -> merkle.ReadSubtree:
        return tiles.subtree_reader(size, self._directory.hashes)

    def _extends(self, intent: Intent) -> None:
        """The tiles on disk have the intent's root, new leaves are the bundles', and they extend the signed tree."""
        new = intent.checkpoint
        if new.origin != self._notary.name:
            raise LogDamaged(f"the intent is for {new.origin!r}, the notary signs for {self._notary.name!r}")
        read = self._reader(new.size)
        if merkle.root(new.size, read) != new.root:
            raise LogDamaged(f"the tiles of {new.size} entries do not have the root that was to be signed")
        first = self.size // tiles.WIDTH
        for number in range(first, (new.size + tiles.WIDTH - 1) // tiles.WIDTH):
            entries = self._directory.entries(new.size, number)
            leaves = self._directory.hashes(tiles.Tile(0, number, len(entries)))
            if [merkle.leaf_hash(entry) for entry in entries] != leaves:
                raise LogDamaged(f"bundle {number} does not have the hashes of its tile")
        old = self._signed.checkpoint if self._signed else None
        if old is not None:
            proof = merkle.consistency_proof(old.size, new.size, read)
            try:
                merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)
            except merkle.ProofRefused as exc:
                raise LogDamaged(f"{new.size} entries do not extend the {old.size} signed ones: {exc}") from exc

    def _sign(self, intent: Intent) -> Signed:
        body = intent.checkpoint.text
        signature = self._notary.sign(body.encode(), intent.key_version)
        key = note.parse_vkey(self._notary.vkey(intent.key_version))
        if not self._check(key.public_key, body.encode(), signature):
            raise LogDamaged(f"the notary's signature does not verify under its own key {key}")
        signed = Signed(intent.checkpoint, (body + "\n" + note.sign_line(key, signature)).encode())
        self._passed("signing")
        self._directory.replace(SIGNED, signed.note)
        self._passed("signed")
        return signed

    def _publish(self, signed: Signed) -> None:
        before = self.size
        self._replace_published(signed)
        self._passed("checkpoint")
        if self._staged is not None:
            self._edge, self._tail = self._staged
        self._signed, self._intent, self._staged = signed, None, None
        for tile in _completed(before, signed.checkpoint.size):
            self._directory.drop_partials(tile)
        self._passed("dropped")

    def _replace_published(self, signed: Signed) -> None:
        policy = policy_text(self._notary.vkeys()).encode()
        if self._directory.read(POLICY) != policy:
            self._directory.replace(POLICY, policy)
        self._directory.replace(CHECKPOINT, signed.note)

    def _load(self) -> None:
        data = self._directory.read(SIGNED)
        if data is not None:
            self._signed = self._believe(data)
        self._check_published()
        intent_data = self._directory.read(INTENT)
        intent = Intent.decode(intent_data) if intent_data is not None else None
        if intent is not None and intent.checkpoint.size > self.size:
            self._intent = intent
        size = self._intent.checkpoint.size if self._intent else self.size
        self._directory.set_aside(self._directory.beyond(size, _ROOM))
        self._load_edge(size)
        if self._signed is not None and self._directory.read(CHECKPOINT) != self._signed.note:
            self._replace_published(self._signed)

    def _believe(self, data: bytes) -> Signed:
        keys = [note.parse_vkey(vkey) for vkey in self._notary.vkeys()]
        try:
            text, _ = note.open_note(data, keys, self._check)
            checkpoint = note.parse_checkpoint(text)
        except (Malformed, note.Untrusted) as exc:
            raise LogDamaged(f"{SIGNED}: {exc}") from exc
        if checkpoint.origin != self._notary.name:
            raise LogDamaged(f"{SIGNED} is for {checkpoint.origin!r}, the notary signs for {self._notary.name!r}")
        if self._root_on_disk(checkpoint.size) != checkpoint.root:
            raise LogDamaged(f"the tiles of {checkpoint.size} entries do not have the signed root")
        return Signed(checkpoint, data)

    def _check_published(self) -> None:
        """The published checkpoint never runs ahead of the signed one: else an old `state` came back from a backup."""
        data = self._directory.read(CHECKPOINT)
        if data is None:
            return
        try:
            published = note.parse_checkpoint(note.parse_note(data)[0])
        except Malformed as exc:
            raise LogDamaged(f"{CHECKPOINT}: {exc}") from exc
        if self._signed is None or published.size > self.size:
            raise LogDamaged(f"{CHECKPOINT} has {published.size} entries, {SIGNED} only {self.size}: rolled back")

    def _load_edge(self, size: int) -> None:
        rows: list[list[bytes]] = []
        level = 0
        while (count := size >> (tiles.HEIGHT * level)) > 0:
            width = count % tiles.WIDTH
            rows.append(self._directory.hashes(tiles.Tile(level, count >> tiles.HEIGHT, width)) if width else [])
            level += 1
        self._edge = Edge(size, rows)
        self._tail = self._directory.entries(size, size // tiles.WIDTH) if size % tiles.WIDTH else []


def _completed(before: int, after: int) -> Iterator[tiles.Tile]:
    """The tiles that were partial in the log of `before` entries and are full in that of `after`."""
    for level in (None, 0, 1, 2, 3, 4, 5, 6, 7):
        shift = tiles.HEIGHT * (level or 0)
        old, new = before >> shift, after >> shift
        if old % tiles.WIDTH and new >> tiles.HEIGHT > old >> tiles.HEIGHT:
            yield tiles.Tile(level, old >> tiles.HEIGHT)
