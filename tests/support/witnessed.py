"""Logs and witnesses with fixed keys: a small tree that one extends, its signed notes, cosignatures over them."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.tlog import merkle, note
from schemas.tlog.note import COSIGNER, ED25519, Checkpoint, VerifierKey
from schemas.tlog.policy import Group, Policy, Witness

ORIGIN = "dev.ratchet/witnessed"
TIME = 1_700_000_000


class Signer:
    """A key of either kind, from one byte."""

    def __init__(self, name: str, seed: int, kind: int = ED25519) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.key = VerifierKey(name, self._private.public_key().public_bytes_raw(), kind)

    def line(self, text: str, timestamp: int = TIME) -> str:
        """Its signature line under a checkpoint's text."""
        if self.key.kind == COSIGNER:
            return note.cosign_line(self.key, timestamp, self._private.sign(note.cosigned(timestamp, text.encode())))
        return note.sign_line(self.key, self._private.sign(text.encode()))


LOG = Signer(ORIGIN, 1)
WITNESSES = {f"w{number}": Signer(f"dev.witness/{number}", 10 + number, COSIGNER) for number in (1, 2)}


def policy(quorum: int = 1, *others: Signer) -> Policy:
    """The log (and other log keys), both witnesses, and how many of them are wanted."""
    witnesses = {name: Witness(signer.key, f"http://{name}") for name, signer in WITNESSES.items()}
    return Policy((LOG.key, *(other.key for other in others)), witnesses, {"q": Group(quorum, tuple(witnesses))}, "q")


@dataclass
class Tree:
    """The entries of a log, all hashes at hand."""

    entries: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, size: int, salt: str = "") -> "Tree":
        return cls([f"{salt}{number}".encode() for number in range(size)])

    def read(self, level: int, index: int) -> bytes:
        return merkle.perfect_root([merkle.leaf_hash(e) for e in self.entries[index << level : (index + 1) << level]])

    def checkpoint(self, size: int, origin: str = ORIGIN) -> Checkpoint:
        return Checkpoint(origin, size, merkle.root(size, self.read))

    def prove(self, size: int) -> "Prove":
        return Prove(self, size)

    def signed(self, size: int, *signers: Signer, origin: str = ORIGIN) -> bytes:
        """The note of the first `size` entries, by the log unless others are named."""
        text = self.checkpoint(size, origin).text
        return f"{text}\n{''.join(signer.line(text) for signer in signers or (LOG,))}".encode()


@dataclass(frozen=True)
class Prove:
    """Consistency proofs from smaller trees to that of `size`, as the client asks for them."""

    tree: Tree
    size: int

    def __call__(self, old: int) -> list[bytes]:
        return merkle.consistency_proof(old, self.size, self.tree.read) if old else []
