"""Entries in, signed checkpoints out; a crash at any line leaves a log that resumes to the same root.

0. keys on the keyring; payloads on disk    crash: harmless, they are read and sealed again
1. bundles and tiles on disk       crash: files beyond the signed size, no intent: set aside, read again
2. intent (body, versions, trust)  crash: binding, the resume finishes exactly this body
3. consistency from disk; fence; sign; `signed` on disk    crash: sign again, Ed25519 gives the same bytes

Steps 4 and 5 are `publication`'s. Signing does not wait for them: a checkpoint without its quorum stays unpublished, and the
next one covers it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agents.evidence import disk, resume
from agents.evidence.edge import Edge
from agents.evidence.intent import Intent, Signed
from agents.evidence.log import INTENT, SIGNED, LogDamaged
from agents.evidence.ports import Fence, LogStore, Notary
from agents.evidence.publication import Passed, Publication
from agents.evidence.quorum import Quorum
from agents.evidence.trust import Trust, renewed
from schemas.errors import Refused, Unavailable
from schemas.tlog import merkle, note, tiles

MAX_BATCH = 4096
"""Records of one checkpoint; findings, violations and coverage come on top."""
_ROOM = 5 * MAX_BATCH  # of one read at most four entries, findings and violations, and then the coverage
_OWN = 2  # what the log itself may say before a batch: whom to trust, how its witnesses are
Beside = Sequence[tuple[str, bytes]]
"""Names and bytes of files."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Batch:
    """Entries on their way under a checkpoint. `bound` once the intent is durable."""

    intent: Intent
    edge: Edge
    tail: list[bytes]
    files: Sequence[tuple[str, bytes]] = ()
    bound: bool = False


class Sequencer:
    """The one writer of a log. `open` it; `append` batches, and if that leaves one `pending`, `finish` it; `publish`.

    One call of `append` or `finish` and one of `publish` at a time; the two kinds may overlap.
    """

    def __init__(
        self,
        store: LogStore,
        notary: Notary,
        fence: Fence,
        check: note.SignatureCheck,
        attester: bytes,
        quorum: Quorum | None,
        passed: Passed,
    ) -> None:
        self._store = store
        self._notary = notary
        self._fence = fence
        self._check = check
        self._attester = attester
        self._publication = Publication(store, quorum, check, passed)
        self._passed = passed
        self._signed: Signed | None = None
        self._last: Intent | None = None  # that of `_signed`
        self._batch: _Batch | None = None
        self._edge = Edge(0, [])
        self._tail: list[bytes] = []  # the entries of the bundle that is not full

    @classmethod
    async def open(
        cls,
        store: LogStore,
        *,
        notary: Notary,
        fence: Fence,
        check: note.SignatureCheck,
        attester: bytes,
        quorum: Quorum | None = None,
        passed: Passed = lambda _: None,
    ) -> "Sequencer":
        """Believe the highest signed checkpoint, ask where the witnesses stand, finish a bound batch, set the rest aside.

        `attester` is the public key of attestations; without `quorum` nobody has to witness. Raises LogDamaged, RolledBack,
        SplitView (a person must look), Unavailable (notary or disk are away). Owns the store: closes it also when it raises.
        """
        self = cls(store, notary, fence, check, attester, quorum, passed)
        try:
            await asyncio.to_thread(self._load)
            await self._stand()
            if self._batch is not None:
                await self.finish()
        except BaseException:
            store.close()
            raise
        return self

    def close(self) -> None:
        """Release the store."""
        self._store.close()

    def prune(self, folder: str, gone: Callable[[str], bool]) -> None:
        """Remove the files of a folder beside the log that are `gone` by their names, whole. Raises Unavailable."""
        self._store.remove([f"{folder}/{name}" for name in self._store.names(folder) if gone(name)])

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._notary.name

    @property
    def size(self) -> int:
        """Entries under the last signed checkpoint."""
        return self._signed.checkpoint.size if self._signed else 0

    @property
    def pending(self) -> bool:
        """Whether a batch waits for its signature: `finish` it."""
        return self._batch is not None

    @property
    def signed(self) -> Signed | None:
        """The last signed checkpoint, None before the first."""
        return self._signed

    @property
    def published(self) -> Signed | None:
        """The last published checkpoint with all its signatures, None before the first."""
        return self._publication.published

    @property
    def trust(self) -> Trust | None:
        """What the log asks its readers to trust, None before its first checkpoint."""
        return self._last.trust if self._last else None

    def newest_first(self) -> Iterator[bytes]:
        """Every signed entry, from the last one back, from disk."""
        return self._store.newest_first(self.size)

    def entries(self, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The signed entries [first, end) with their indices, from disk."""
        for number in range(first // tiles.WIDTH, (end + tiles.WIDTH - 1) // tiles.WIDTH):
            for index, entry in enumerate(self._store.entries(self.size, number), number * tiles.WIDTH):
                if first <= index < end:
                    yield index, entry

    def attached(self, name: str) -> bool:
        """Whether a file stands beside the log."""
        return self._store.read(name) is not None

    def attach(self, name: str, data: bytes) -> None:
        """Put a file beside the log, durably and for ever with these bytes."""
        for _ in self._store.add([(name, data)]):
            self._passed("attached")

    async def commit(self, entries: Sequence[bytes], beside: Beside = ()) -> Signed:
        """`append`, and `publish` once: what cannot be published yet is with a later checkpoint."""
        signed = await self.append(entries, beside)
        try:
            await self.publish()
        except Unavailable as exc:
            _log.warning("the checkpoint of %d entries is signed but not published: %s", self.size, exc)
        return signed

    async def append(self, entries: Sequence[bytes], beside: Beside = ()) -> Signed:
        """Append the entries, all or none, and sign the checkpoint over them; before them stand the log's own.

        The files `beside` the log are durable before anything of the batch is written. When this raises Unavailable the
        batch is `pending`, then `finish` it, or it is not in the log.
        """
        if self._batch is not None:
            raise RuntimeError("a batch is still to be signed; accepted: finish() first")
        if not 0 < len(entries) <= _ROOM - _OWN:
            raise ValueError(f"{len(entries)} entries; accepted: 1 to {_ROOM - _OWN}")
        self._publication.go_on()
        await asyncio.to_thread(self._keep, beside)
        self._batch = await asyncio.to_thread(self._prepare, entries)
        return await self.finish()

    async def finish(self) -> Signed:
        """Steps 1 to 3 for the pending batch. May be repeated until it succeeds."""
        batch = self._batch
        if batch is None:
            raise RuntimeError("there is no batch to sign")
        self._publication.go_on()
        if not batch.bound:
            await asyncio.to_thread(self._write, batch)
        await asyncio.to_thread(self._verify, batch.intent)
        self._passed("consistent")
        await self._fence.commit()
        self._passed("fenced")
        signed = await asyncio.to_thread(self._sign, batch)
        before, self._signed, self._last = self.size, signed, batch.intent
        self._edge, self._tail, self._batch = batch.edge, batch.tail, None
        await asyncio.to_thread(self._drop_partials, before, signed.checkpoint.size)
        self._passed("dropped")
        return signed

    async def publish(self) -> Signed | None:
        """Steps 4 and 5 for the last signed checkpoint, unless it is published or the witnesses are not to be asked yet.

        Returns the last published one. Raises Unavailable (the disk), RolledBack, SplitView: then nothing is signed any more.
        """
        if self._signed is not None and self._last is not None:
            await self._publication.publish(self._signed, self._last.trust)
        return self.published

    def _keep(self, beside: Beside) -> None:
        for _ in self._store.add(beside):
            self._passed("payload")
        self._passed("payloads")

    def _prepare(self, entries: Sequence[bytes]) -> _Batch:
        able = self._able()  # away? then before anything is written
        last = self._last
        before = last.trust if last else None
        trust = renewed(before, self._publication.policy, self._attester, list(able.values()))
        own: list[bytes] = []
        index = last.trust_index if last else 0
        if before is None or not trust.says_as_much_as(before):
            own.append(trust.entry())
            index = self.size
        away = last is not None and last.away
        finding = self._publication.finding(said_away=away)
        if finding is not None:
            own.append(finding)
            away = not away
        edge, tail, files = self._tree([*own, *entries])
        intent = Intent(
            note.Checkpoint(self._notary.name, edge.size, edge.root()),
            _announced(able, before or trust),
            trust,
            index,
            away,
        )
        return _Batch(intent, edge, tail, files)

    def _able(self) -> dict[int, str]:
        """The verifier keys of the versions that may sign."""
        return {version: self._notary.vkey(version) for version in self._notary.signing()}

    def _tree(self, entries: Sequence[bytes]) -> tuple[Edge, list[bytes], list[tuple[str, bytes]]]:
        """The edge, the open bundle and the new files after these entries."""
        edge, hash_tiles = self._edge.extended([merkle.leaf_hash(entry) for entry in entries])
        rest = self._tail + list(entries)
        first = self._edge.size // tiles.WIDTH
        bundles: list[tuple[tiles.Tile, bytes]] = []
        for number, at in enumerate(range(0, len(rest), tiles.WIDTH), first):
            some = rest[at : at + tiles.WIDTH]
            bundles.append((tiles.Tile(None, number, len(some)), tiles.encode_bundle(some)))
        tail = rest[len(rest) - len(rest) % tiles.WIDTH :]
        return edge, tail, [(tile.path, data) for tile, data in (*bundles, *hash_tiles)]

    def _write(self, batch: _Batch) -> None:
        for _ in self._store.add(batch.files):
            self._passed("file")
        self._passed("tiles")
        self._store.replace(INTENT, batch.intent.encode())
        batch.bound, batch.files = True, ()
        self._passed("intent")

    def _verify(self, intent: Intent) -> None:
        if intent.checkpoint.origin != self._notary.name:
            raise LogDamaged(
                f"the intent is for {intent.checkpoint.origin!r}, the notary signs for {self._notary.name!r}"
            )
        disk.extends(self._store, self._signed.checkpoint if self._signed else None, intent.checkpoint)

    def _sign(self, batch: _Batch) -> Signed:
        intent = batch.intent
        lines = [self._line(intent.checkpoint, intent.trust, version) for version in intent.versions]
        if not any(lines):
            raise Refused(
                f"versions {list(intent.versions)} of the notary's key are bound to sign {intent.checkpoint.size} entries, "
                "and all are retired; accepted: one of them (lower min_encryption_version)",
                kind="notary-version",
            )
        signed = _noted(intent.checkpoint, [line for line in lines if line])
        self._passed("signing")
        self._store.replace(SIGNED, signed.note)
        self._passed("signed")
        return signed

    def _line(self, checkpoint: note.Checkpoint, trust: Trust, version: int) -> str | None:
        """One version's signature line; None when it was retired since it was bound."""
        body = checkpoint.text.encode()
        try:
            vkey, signature = self._notary.vkey(version), self._notary.sign(body, version)
        except Refused as exc:
            if exc.kind != "notary-version":
                raise
            _log.warning("version %d of the notary's key signs no more: %s", version, exc)
            return None
        key = next((key for key in trust.policy.logs if str(key) == vkey), None)
        if key is None:
            raise LogDamaged(f"version {version} of the notary's key is another than the one that was bound: {vkey}")
        if not self._check(key.public_key, body, signature):
            raise LogDamaged(f"the notary's signature does not verify under its own key {key}")
        return note.sign_line(key, signature)

    async def _stand(self) -> None:
        """Ask where the witnesses stand, before anything new is signed; who is away is not waited for."""
        if self._signed is not None and self._last is not None:
            await self._publication.renew(self._signed, self._last.trust)
        elif self._signed is not None:
            await self._publication.ask(self._signed)
        elif self._publication.witnessed:
            await self._fence.commit()
            await self._publication.ask(await asyncio.to_thread(self._nothing))

    def _nothing(self) -> Signed:
        """The empty log, signed only to be asked with: a witness that has seen more refuses it."""
        checkpoint = note.Checkpoint(self._notary.name, 0, merkle.EMPTY_ROOT)
        able = self._able()
        trust = renewed(None, self._publication.policy, self._attester, list(able.values()))
        lines = [self._line(checkpoint, trust, version) for version in able]
        return _noted(checkpoint, [line for line in lines if line])

    def _load(self) -> None:
        self._publication.check_stopped()
        found = resume.found(self._store, self._notary, self._check)
        self._signed, self._publication.published = found.signed, found.published
        size = found.intent.checkpoint.size if found.intent else 0
        self._store.set_aside(self._store.beyond(size, _ROOM))
        self._edge, self._tail = disk.edge(self._store, size)
        if found.intent is not None and size > self.size:
            self._batch = _Batch(found.intent, self._edge, self._tail, bound=True)
        else:
            self._last = found.intent
        self._drop_partials(max(0, self.size - _ROOM), self.size)

    def _drop_partials(self, before: int, after: int) -> None:
        for tile in _completed(before, after):
            self._store.drop_partials(tile)


def _announced(able: Mapping[int, str], trust: Trust) -> tuple[int, ...]:
    """The versions that may sign and that readers know: a new one only after an entry under the old ones named it."""
    versions = tuple(version for version, vkey in able.items() if vkey in trust.logs)
    if not versions:
        raise Refused(
            f"versions {list(able)} of the notary's key may sign, and the log has announced none of them; accepted: "
            "a rotation announced before the old version is retired (lower min_encryption_version until it is)",
            kind="notary-version",
        )
    return versions


def _noted(checkpoint: note.Checkpoint, lines: Sequence[str]) -> Signed:
    return Signed(checkpoint, f"{checkpoint.text}\n{''.join(lines)}".encode())


def _completed(before: int, after: int) -> Iterator[tiles.Tile]:
    """The tiles that are full in the log of `after` entries and were not in that of `before`."""
    yield from (tiles.Tile(None, number) for number in range(before >> tiles.HEIGHT, after >> tiles.HEIGHT))
    level = 0
    while (end := after >> (tiles.HEIGHT * (level + 1))) > 0:
        yield from (tiles.Tile(level, number) for number in range(before >> (tiles.HEIGHT * (level + 1)), end))
        level += 1
