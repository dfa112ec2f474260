"""What a log and its witness say to each other (C2SP tlog-witness 1.0.0)."""

from dataclasses import dataclass

from schemas.tlog import note
from schemas.tlog.note import Checkpoint, SignatureCheck, VerifierKey, Vouched, cosigned
from schemas.tlog.proof import decode_hashes
from schemas.tlog.strict import Malformed, decode_decimal, encode_base64

MAX_REQUEST = 64 * 1024
SIZE_TYPE = "text/x.tlog.size"
"""The content type of a 409's body: the size that the witness holds."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A log's request: cosign this note. `proof` shows that its tree extends that of the first `old` entries."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        lines = [f"old {self.old}", *map(encode_base64, self.proof)]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint


def parse_add_checkpoint(data: bytes) -> AddCheckpoint:
    """The request, its note not yet looked at. Raises Malformed."""
    if len(data) > MAX_REQUEST:
        raise Malformed(f"the request is longer than {MAX_REQUEST} bytes")
    head, found, checkpoint = data.partition(b"\n\n")
    if not found or not head.isascii() or not head.startswith(b"old "):
        raise Malformed("not a request; accepted: old N, hashes, empty line, checkpoint")
    first, *lines = head.decode().split("\n")
    return AddCheckpoint(decode_decimal(first.removeprefix("old "), "the old size"), decode_hashes(lines), checkpoint)


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest checkpoint of a log that a witness has cosigned or is about to, and when, in seconds since the epoch."""

    checkpoint: Checkpoint
    timestamp: int

    def encode(self) -> bytes:
        """The message that the witness signs: what it keeps is what it says."""
        return cosigned(self.timestamp, self.checkpoint.text.encode())


def parse_seen(data: bytes) -> Seen:
    """What `Seen.encode` wrote. Raises Malformed."""
    lines = data.decode(errors="replace").split("\n", 2)
    if len(lines) != 3 or not lines[1].startswith("time "):
        raise Malformed("not what a witness keeps; accepted: cosignature/v1, time N, checkpoint")
    seen = Seen(note.parse_checkpoint(lines[2]), decode_decimal(lines[1].removeprefix("time "), "the time"))
    if seen.encode() != data:
        raise Malformed("what the witness keeps is in another spelling")
    return seen


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness says to a request."""

    status: int
    body: bytes
    content_type: str = "text/plain"


def encode_size(size: int) -> bytes:
    return f"{size}\n".encode()


def parse_size(data: bytes) -> int:
    """The size of a 409's body. Raises Malformed."""
    if len(data) > 20 or not data.isascii() or not data.endswith(b"\n"):
        raise Malformed("not a tree size; accepted: a decimal number and a newline")
    return decode_decimal(data[:-1].decode(), "the tree size")


def open_cosignature(text: str, lines: bytes, key: VerifierKey, check: SignatureCheck) -> Vouched:
    """The witness's own among the signature lines that it answered; those of unknown keys are ignored.

    Raises Malformed; Untrusted when there is none of `key`, or one that does not verify.
    """
    before, signatures = note.parse_note(f"{text}\n".encode() + lines)
    if before != text:
        raise Malformed("the answer holds an empty line; accepted: signature lines")
    found = note.vouched(text, signatures, [key], check)
    if not found:
        raise note.Untrusted(f"no signature of {key.name}+{key.key_id.hex()} in the answer")
    return found[0]
