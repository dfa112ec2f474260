"""Whom a log asks its readers to believe: the policy file and the key of its attestations, as a `trust` entry. Pure.

The first entry of a log is one; each change is another, announced under the keys that were trusted before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas import canonical
from schemas.tlog.policy import NONE, Policy
from schemas.tlog.strict import encode_base64

TRUST = "trust"
NO_WITNESS = Policy((), {}, {}, NONE)
"""The policy that asks for no witness; its logs are the caller's."""


def key_id(public_key: bytes) -> str:
    """How an attestation names the key that signed it: 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Trust:
    """What one `trust` entry says. `attester` is the raw public key of attestations."""

    policy: Policy
    attester: bytes

    @property
    def text(self) -> str:
        """The policy file, `policy.txt`, of every checkpoint from this entry to the next of its kind."""
        return self.policy.text()

    @property
    def logs(self) -> list[str]:
        """The verifier keys of the log."""
        return [str(key) for key in self.policy.logs]

    def entry(self) -> bytes:
        """The log entry."""
        return canonical.encode(
            {
                "v": 1,
                "type": TRUST,
                "policy": hashlib.sha256(self.text.encode()).hexdigest(),
                "logs": self.logs,
                "witnesses": [str(witness.key) for witness in self.policy.witnesses.values()],
                "attester": {"keyid": key_id(self.attester), "key": encode_base64(self.attester)},
            }
        )

    def says_as_much_as(self, other: "Trust") -> bool:
        """Whether their entries are the same."""
        return (self.text, self.attester) == (other.text, other.attester)


def renewed(before: Trust | None, policy: Policy, attester: bytes, vkeys: Sequence[str]) -> Trust:
    """What is to be trusted from now on: keys that signed once stay, new ones of `vkeys` come after them."""
    if before is None:
        return Trust(policy.with_logs(vkeys), attester)
    fresh = [vkey for vkey in vkeys if vkey not in before.logs]
    if fresh:
        return Trust(policy.with_logs([*before.logs, *fresh]), attester)
    return Trust(replace(policy, logs=before.policy.logs), attester)
