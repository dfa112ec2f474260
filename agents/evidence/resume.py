"""What a log's store says of itself when a sequencer starts, believed only where its parts agree."""

from dataclasses import dataclass

from agents.evidence import disk
from agents.evidence.intent import Intent, Signed
from agents.evidence.log import CHECKPOINT, INTENT, POLICY, SIGNED, LogDamaged
from agents.evidence.ports import LogStore, Notary
from agents.evidence.trust import Trust
from schemas.tlog import merkle, note, tiles
from schemas.tlog.policy import open_checkpoint
from schemas.tlog.strict import Malformed


@dataclass(frozen=True, slots=True)
class Found:
    """The highest signed checkpoint, the last intent (of that, or of what is to be signed next), what is published."""

    signed: Signed | None
    intent: Intent | None
    published: Signed | None


def found(store: LogStore, notary: Notary, check: note.SignatureCheck) -> Found:
    """Read it. Raises LogDamaged when tiles, signatures, intent and published checkpoint do not fit together."""
    data = store.read(SIGNED)
    signed = _believed(store, notary, check, data) if data is not None else None
    size = signed.checkpoint.size if signed else 0
    published = _published(store, size)
    data = store.read(INTENT)
    intent = Intent.decode(data) if data is not None else None
    if (intent.checkpoint.size if intent else 0) < size:
        raise LogDamaged(f"{INTENT} is older than {SIGNED}: they are not of one crash")
    if intent is None:
        return Found(None, None, None)
    _check_trust(store, intent)
    if signed is not None and intent.checkpoint.size == size and intent.checkpoint != signed.checkpoint:
        raise LogDamaged(f"{INTENT} and {SIGNED} are both of {size} entries, but of other roots")
    newest = published is not None and published.checkpoint.size == size
    if published is not None and newest and not _stands(store, published, intent.trust, check):
        published = None
    return Found(signed, intent, published)


def _believed(store: LogStore, notary: Notary, check: note.SignatureCheck, data: bytes) -> Signed:
    keys = [note.parse_vkey(vkey) for vkey in notary.vkeys()]
    try:
        text, _ = note.open_note(data, keys, check)
        checkpoint = note.parse_checkpoint(text)
    except (Malformed, note.Untrusted) as exc:
        raise LogDamaged(f"{SIGNED}: {exc}") from exc
    if checkpoint.origin != notary.name:
        raise LogDamaged(f"{SIGNED} is for {checkpoint.origin!r}, the notary signs for {notary.name!r}")
    if merkle.root(checkpoint.size, disk.reader(store, checkpoint.size)) != checkpoint.root:
        raise LogDamaged(f"the tiles of {checkpoint.size} entries do not have the signed root")
    return Signed(checkpoint, data)


def _published(store: LogStore, size: int) -> Signed | None:
    """The published checkpoint is one of ours and not ahead of the signed one: else an old `state` came back."""
    data = store.read(CHECKPOINT)
    if data is None:
        return None
    try:
        checkpoint = note.parse_checkpoint(note.parse_note(data)[0])
    except Malformed as exc:
        raise LogDamaged(f"{CHECKPOINT}: {exc}") from exc
    if checkpoint.size > size:
        raise LogDamaged(f"{CHECKPOINT} has {checkpoint.size} entries, {SIGNED} only {size}: rolled back")
    if merkle.root(checkpoint.size, disk.reader(store, size)) != checkpoint.root:
        raise LogDamaged(f"{CHECKPOINT} and {SIGNED} are of two histories: a split view")
    return Signed(checkpoint, data)


def _check_trust(store: LogStore, intent: Intent) -> None:
    index, size = intent.trust_index, intent.checkpoint.size
    if not 0 <= index < size or store.entries(size, index // tiles.WIDTH)[index % tiles.WIDTH] != intent.trust.entry():
        raise LogDamaged(f"entry {index} is not the trust entry that {INTENT} names")


def _stands(store: LogStore, published: Signed, trust: Trust, check: note.SignatureCheck) -> bool:
    """Whether the published checkpoint is what would be published again, but for the witnesses' times."""
    try:
        open_checkpoint(published.note, trust.policy, check)
    except note.Untrusted:
        return False
    return store.read(POLICY) == trust.text.encode()
