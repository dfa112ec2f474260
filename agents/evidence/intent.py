"""What the sequencer writes down before it signs, and what it has signed. Pure."""

from dataclasses import dataclass
from typing import Any, cast

from agents.evidence.log import INTENT, LogDamaged
from agents.evidence.trust import Trust
from schemas import canonical
from schemas.tlog import note
from schemas.tlog.policy import parse_policy
from schemas.tlog.strict import Malformed, decode_base64, encode_base64


@dataclass(frozen=True, slots=True)
class Intent:
    """What is being signed, by which key versions, and what its readers are asked to trust."""

    checkpoint: note.Checkpoint
    versions: tuple[int, ...]
    trust: Trust
    trust_index: int
    """Where the last `trust` entry below this checkpoint is."""
    away: bool
    """Whether the last entry about the witnesses says that they are away."""

    def encode(self) -> bytes:
        return canonical.encode(
            {
                "body": self.checkpoint.text,
                "versions": self.versions,
                "policy": self.trust.text,
                "attester": encode_base64(self.trust.attester),
                "trust": self.trust_index,
                "away": self.away,
            }
        )

    @staticmethod
    def decode(data: bytes) -> "Intent":
        """Raises LogDamaged."""
        try:
            value = cast("dict[str, Any]", canonical.decode(data))
            trust = Trust(parse_policy(value["policy"]), decode_base64(value["attester"], "the attester"))
            checkpoint = note.parse_checkpoint(value["body"])
            return Intent(checkpoint, tuple(value["versions"]), trust, int(value["trust"]), bool(value["away"]))
        except (canonical.NotCanonical, Malformed, KeyError, TypeError) as exc:
            raise LogDamaged(f"{INTENT} is not one of ours: {exc!r}") from exc


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and the note that carries it."""

    checkpoint: note.Checkpoint
    note: bytes
