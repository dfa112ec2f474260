"""Signed notes (C2SP signed-note 1.0.0) with Ed25519 keys, the checkpoints in them (tlog-checkpoint 1.0.0) and what
witnesses add to those (tlog-cosignature 1.0.1, its Ed25519 kind).

A signature check is passed in: `(public key, message, signature) -> bool`.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.tlog.curve import has_prime_order
from schemas.tlog.merkle import HASH_SIZE
from schemas.tlog.strict import Malformed, decode_base64, decode_decimal, encode_base64

SignatureCheck = Callable[[bytes, bytes, bytes], bool]
ED25519 = 0x01
"""Signs the text itself: a log."""
COSIGNER = 0x04
"""Signs the text after a time: a witness."""
_KINDS = (ED25519, COSIGNER)
_SIGNATURE_SIZE = {ED25519: 64, COSIGNER: 72}
_DASH = "\u2014"
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_MAX_NOTE = 1_000_000


class Untrusted(ValueError):
    """The note is well formed, but no known key vouches for it, or one of them vouches for something else."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 key that may sign under `name`. The `kind` says what it signs: texts, or texts at a time."""

    name: str
    public_key: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name ‖ newline ‖ kind ‖ key)."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public_key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.kind]) + self.public_key)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Vouched:
    """A signature line that verifies, and the key it is of."""

    key: VerifierKey
    line: Signature

    @property
    def timestamp(self) -> int:
        """When a witness says that it signed, in seconds since the epoch. A log says nothing: 0."""
        return _timestamp(self.line.signature) if self.key.kind == COSIGNER else 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself. `text` is the note's text that is signed."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def valid_name(name: str) -> bool:
    """A key name or origin: not empty, printable, no space, no plus."""
    return bool(name) and name.isprintable() and not any(char.isspace() or char == "+" for char in name)


def parse_vkey(text: str) -> VerifierKey:
    """A verifier key in its one spelling, its point of prime order. Raises Malformed."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not valid_name(parts[0]) or _KEY_ID.fullmatch(parts[1]) is None:
        raise Malformed("not a verifier key; accepted: <name>+<8 lower-case hex>+<base64>")
    data = decode_base64(parts[2], f"the key of {parts[0]}")
    if len(data) != 33 or data[0] not in _KINDS:
        raise Malformed(
            f"the key of {parts[0]} has another type or length; accepted: Ed25519 of a log (0x01) or a witness (0x04), 32 bytes"
        )
    key = VerifierKey(parts[0], data[1:], data[0])
    if key.key_id.hex() != parts[1]:
        raise Malformed(f"the key id of {parts[0]} is not that of its key")
    if not has_prime_order(key.public_key):
        raise Malformed(f"the key of {parts[0]} is not a point of prime order")
    return key


def sign_line(key: VerifierKey, signature: bytes) -> str:
    """The line that says: `key` signed the text with `signature`."""
    return f"{_DASH} {key.name} {encode_base64(key.key_id + signature)}\n"


def cosigned(timestamp: int, body: bytes) -> bytes:
    """What a witness signs: its time in seconds and the checkpoint's text, with nothing of its own name in it."""
    return f"cosignature/v1\ntime {timestamp}\n".encode() + body


def cosign_line(key: VerifierKey, timestamp: int, signature: bytes) -> str:
    """The line that says: the witness `key` signed `cosigned(timestamp, text)`."""
    if key.kind != COSIGNER or not 0 < timestamp < 1 << 63:
        raise ValueError(
            f"{key.name}, time {timestamp}; accepted: a witness's key (0x04), a time above 0 and below 2^63"
        )
    return sign_line(key, timestamp.to_bytes(8, "big") + signature)


def parse_note(data: bytes) -> tuple[str, list[Signature]]:
    """Text (with its last newline) and signatures. Raises Malformed."""
    try:
        whole = data.decode()
    except UnicodeDecodeError as exc:
        raise Malformed("the note is not UTF-8") from exc
    if len(data) > _MAX_NOTE or any(char < " " and char != "\n" for char in whole):
        raise Malformed("the note is too long or holds control characters")
    body, found, tail = whole.rpartition("\n\n")
    if not found or not tail.endswith("\n"):
        raise Malformed("the note has no signature block; accepted: text, empty line, signature lines, newline")
    return body + "\n", [_signature(line) for line in tail[:-1].split("\n")]


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not valid_name(parts[1]):
        raise Malformed("not a signature line; accepted: — <name> <base64>")
    data = decode_base64(parts[2], f"the signature of {parts[1]}")
    if len(data) < 5:
        raise Malformed(f"the signature of {parts[1]} is too short")
    return Signature(parts[1], data[:4], data[4:])


def vouched(
    text: str, signatures: Sequence[Signature], keys: Sequence[VerifierKey], check: SignatureCheck
) -> list[Vouched]:
    """The signature lines that are of `keys`, in their order; lines of unknown keys are left out.

    Raises Untrusted when one of `keys` has a line that does not verify, or two.
    """
    found: list[Vouched] = []
    for line in signatures:
        for key in keys:
            if (key.name, key.key_id) != (line.name, line.key_id):
                continue
            if any(key == other.key for other in found) or not _verifies(key, text.encode(), line.signature, check):
                raise Untrusted(f"the signature of {key.name}+{key.key_id.hex()} does not verify")
            found.append(Vouched(key, line))
    return found


def open_note(data: bytes, keys: Sequence[VerifierKey], check: SignatureCheck) -> tuple[str, list[VerifierKey]]:
    """The text and the keys that signed it.

    Raises Untrusted when none of `keys` did, when one of them has a signature that does not verify, or signed twice.
    Lines of unknown keys are ignored, as the specification wants.
    """
    text, signatures = parse_note(data)
    signers = [found.key for found in vouched(text, signatures, keys, check)]
    if not signers:
        raise Untrusted("no known key signed the note")
    return text, signers


def _verifies(key: VerifierKey, body: bytes, signature: bytes, check: SignatureCheck) -> bool:
    if len(signature) != _SIGNATURE_SIZE[key.kind]:
        return False
    if key.kind == ED25519:
        return check(key.public_key, body, signature)
    timestamp = _timestamp(signature)
    return 0 < timestamp < 1 << 63 and check(key.public_key, cosigned(timestamp, body), signature[8:])


def _timestamp(signature: bytes) -> int:
    return int.from_bytes(signature[:8], "big")


def parse_checkpoint(text: str) -> Checkpoint:
    """Origin, size and root of a checkpoint's text without extension lines. Raises Malformed."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0] or not lines[0].isprintable():
        raise Malformed("not a checkpoint; accepted: origin, size, root, one line each")
    root = decode_base64(lines[2], "the root")
    if len(root) != HASH_SIZE:
        raise Malformed(f"the root has {len(root)} bytes; accepted: {HASH_SIZE}")
    return Checkpoint(lines[0], decode_decimal(lines[1], "size"), root)
