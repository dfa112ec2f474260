"""A witness of logs (C2SP tlog-witness 1.0.0): it signs that a log has shown it one history and nothing else.

Rules:
1. What it signs it has kept before: (size, root, time) is durable first, so a crash forgets a signature, never a size.
2. Reading and keeping are one step: who was overtaken between them decides again on what is kept now.
3. The kept size never falls, nor does the time, whatever the clock does.
4. Of a log that it does not know it keeps nothing.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from schemas.errors import Unavailable
from schemas.tlog import merkle, note
from schemas.tlog.note import Checkpoint, SignatureCheck, Untrusted, VerifierKey
from schemas.tlog.strict import Malformed
from schemas.tlog.witnessing import SIZE_TYPE, AddCheckpoint, Answer, Seen, encode_size, parse_add_checkpoint


class Store(Protocol):
    """What a witness remembers of each log. Safe between threads; one process holds it. All raise OSError."""

    def read(self, origin: str) -> Seen | None:
        """What was kept last."""
        ...

    def advance(self, origin: str, before: Seen | None, after: Seen) -> bool:
        """Keep `after` if `before` is what is kept now, durably; False, and nothing changed, where it is not."""
        ...

    def publish(self, seen: Seen, cosigned_note: bytes) -> None:
        """Show this note to monitors, unless more than `seen` is kept by now."""
        ...

    def published(self, origin_hash: str) -> bytes | None:
        """The note last published of the origin with this SHA-256 in hex."""
        ...


class Witness:
    """Answers requests, from any thread. `sign` gives the 64 bytes of Ed25519 and raises Unavailable; `accuse` hears, in words
    and with the signed note that proves it, when a log shows another history."""

    def __init__(
        self,
        key: VerifierKey,
        sign: Callable[[bytes], bytes],
        store: Store,
        now_s: Callable[[], int],
        check: SignatureCheck,
        accuse: Callable[[str, bytes], None],
    ) -> None:
        self._key = key
        self._sign = sign
        self._store = store
        self._now_s = now_s
        self._check = check
        self._accuse = accuse

    def add_checkpoint(self, body: bytes, logs: Sequence[VerifierKey]) -> Answer:
        """The cosignature of one of these logs' checkpoint, or why not. When the store or the key is away: 503, ask again."""
        try:
            request = parse_add_checkpoint(body)
            text, signatures = note.parse_note(request.checkpoint)
            checkpoint = note.parse_checkpoint(text)
        except Malformed as error:
            return _refused(400, str(error))
        keys = [key for key in logs if key.name == checkpoint.origin]
        if not keys:
            return _refused(404, "the log's origin is not known here")
        try:
            vouched = note.vouched(text, signatures, keys, self._check)
        except Untrusted as error:
            return _refused(403, str(error))
        if not vouched:
            return _refused(403, "no key of the log that is known here signed the checkpoint")
        lines = "".join(note.sign_line(one.key, one.line.signature) for one in vouched)
        try:
            return self._cosign(request, checkpoint, lines)
        except OSError as error:
            return _refused(503, f"the witness cannot keep what it would sign: {error.strerror or error}")
        except Unavailable as error:
            return _refused(503, f"the witness's key is away: {error}")

    def checkpoint(self, origin_hash: str) -> Answer:
        """The newest cosigned checkpoint of a log, for monitors."""
        found = self._store.published(origin_hash)
        return _refused(404, "no checkpoint of that origin was cosigned") if found is None else Answer(200, found)

    def _cosign(self, request: AddCheckpoint, checkpoint: Checkpoint, log_lines: str) -> Answer:
        while True:  # each turn but the last means that another request has advanced the log
            seen = self._store.read(checkpoint.origin)
            decided = decide(request, checkpoint, seen, self._now_s())
            if isinstance(decided, Answer):
                if _contradicts(decided, request, seen):
                    self._accuse(f"{checkpoint.origin} shows another history than {seen}", request.checkpoint)
                return decided
            if self._store.advance(checkpoint.origin, seen, decided):
                break
        line = note.cosign_line(self._key, decided.timestamp, self._sign(decided.encode()))
        self._store.publish(decided, f"{checkpoint.text}\n{log_lines}{line}".encode())
        return Answer(200, line.encode())


def decide(request: AddCheckpoint, checkpoint: Checkpoint, seen: Seen | None, now_s: int) -> Seen | Answer:
    """What to keep and sign of a checkpoint that the log signed, after `seen`; or the refusal."""
    known = seen.checkpoint.size if seen else 0
    if request.old > checkpoint.size:
        return _refused(400, f"old {request.old} is above the checkpoint's size {checkpoint.size}")
    if request.old != known:
        return _conflict(known)
    if request.old == 0:  # RFC 6962 has no proof from the empty tree: it is in every other
        if request.proof or (checkpoint.size == 0 and checkpoint.root != merkle.EMPTY_ROOT):
            return _refused(422, "from old 0 no proof is accepted, and of size 0 only the empty tree's root")
    elif seen is not None:
        if checkpoint.size == known and checkpoint.root != seen.checkpoint.root:
            return _conflict(known)
        try:
            merkle.verify_consistency(known, checkpoint.size, seen.checkpoint.root, checkpoint.root, request.proof)
        except merkle.ProofRefused as error:
            return _refused(422, f"the checkpoint does not extend the {known} entries known here: {error}")
    return Seen(checkpoint, max(now_s, seen.timestamp if seen else 1))


def _contradicts(refusal: Answer, request: AddCheckpoint, seen: Seen | None) -> bool:
    """Whether the log knew what is kept here and yet shows something else; asking with an old size is no crime."""
    return seen is not None and request.old == seen.checkpoint.size and refusal.status in (409, 422)


def _conflict(size: int) -> Answer:
    return Answer(409, encode_size(size), SIZE_TYPE)


def _refused(status: int, why: str) -> Answer:
    return Answer(status, f"{why}\n".encode())
