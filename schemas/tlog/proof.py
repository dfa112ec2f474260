"""One entry's proof in one file (C2SP tlog-proof at 5ba5ee8): index, inclusion path, checkpoint.

`extra`, which nothing signs, is refused: whoever changed it would not be seen.
"""

from dataclasses import dataclass

from schemas.tlog import merkle, note
from schemas.tlog.note import SignatureCheck
from schemas.tlog.policy import Opened, Policy, open_checkpoint
from schemas.tlog.strict import Malformed, decode_base64, decode_decimal, encode_base64

MAX_HASHES = 63
"""A tree has fewer than 2^63 leaves."""
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Proof:
    """The entry at `index` is in the tree of the checkpoint, a signed note, if `hashes` lead there."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        lines = [_HEADER, f"index {self.index}", *map(encode_base64, self.hashes)]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint


def parse_proof(data: bytes) -> Proof:
    """The proof, well formed down to its checkpoint. Raises Malformed."""
    head, found, checkpoint = data.partition(b"\n\n")
    if not found or not head.isascii():
        raise Malformed("not a proof; accepted: header, index, hashes, empty line, checkpoint")
    header, *lines = head.decode().split("\n")
    if header != _HEADER:
        raise Malformed(f"the proof begins with {header!r}; accepted: {_HEADER}")
    if lines and lines[0].startswith("extra"):
        raise Malformed("the proof holds extra data, which nothing signs; accepted: none")
    if not lines or not lines[0].startswith("index "):
        raise Malformed("the proof's second line is not its index; accepted: index N")
    index = decode_decimal(lines[0].removeprefix("index "), "the proof's index")
    size = note.parse_checkpoint(note.parse_note(checkpoint)[0]).size
    if index >= size:
        raise Malformed(f"the proof is of entry {index}, its checkpoint has {size}")
    return Proof(index, decode_hashes(lines[1:]), checkpoint)


def decode_hashes(lines: list[str]) -> tuple[bytes, ...]:
    """The hashes of a proof's lines, at most 63. Raises Malformed."""
    if len(lines) > MAX_HASHES:
        raise Malformed(f"the proof has {len(lines)} hashes; accepted: at most {MAX_HASHES}")
    hashes = tuple(decode_base64(line, f"hash {number} of the proof") for number, line in enumerate(lines))
    for number, item in enumerate(hashes):
        if len(item) != merkle.HASH_SIZE:
            raise Malformed(f"hash {number} of the proof has {len(item)} bytes; accepted: {merkle.HASH_SIZE}")
    return hashes


def open_proof(data: bytes, entry: bytes, policy: Policy, check: SignatureCheck) -> tuple[Proof, Opened]:
    """The proof that `entry` is in a log that the policy accepts. Raises Malformed, Untrusted, ProofRefused."""
    proof = parse_proof(data)
    opened = open_checkpoint(proof.checkpoint, policy, check)
    checkpoint = opened.checkpoint
    merkle.verify_inclusion(proof.index, checkpoint.size, merkle.leaf_hash(entry), proof.hashes, checkpoint.root)
    return proof, opened
