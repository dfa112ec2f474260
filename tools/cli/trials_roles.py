"""Roles, tried: with the credentials of one Kafka user or Vault role, what only another may do. It must be refused.

Nothing is left behind where it is not: a record that is tried to be written is larger than the topic takes, so that the broker says
whether it may be written and then refuses it all the same; a key that is tried to be destroyed does not exist.
"""

import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.errors import Refused, Unavailable
from schemas.topics import full
from streams.port import Broker, BrokerError, Denied, Outgoing, OutOfRange, Rejected, ShutOut
from streams.wire import BROKER_BYTES
from tools.cli.trials import Trial
from tools.stack.roles import EVIDENCE_ROLE, MOUNT, ROLE, TRAINING_ROLE, WITNESS_ROLE

OVERSIZE = BROKER_BYTES + 4_096
POLLS = 20
SECURE = "`ratchet down`, then `ratchet up --secure`; for a cluster of your own docs/security.md"
VAULT = "`ratchet down`, then `ratchet up --vault`; for a Vault of your own docs/security.md"
RIGHTS = "`ratchet acl check` says what differs, `ratchet acl apply` mends it"
POLICIES = "Vault's policies differ from tools/stack/roles.py: `ratchet up` puts them there; docs/security.md has them"


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a Kafka user has no business to do."""

    user: str
    verb: Literal["read", "write"]
    topic: str

    @property
    def what(self) -> str:
        return f"{self.user}-{self.verb}s-{self.topic}"


KAFKA = (
    Foreign("upstream", "write", "answers"),
    Foreign("upstream", "read", "decisions"),
    Foreign("reviewer", "write", "commands"),
    Foreign("auditor", "read", "requests"),
    Foreign("operator", "write", "verdicts"),
    Foreign("operator", "read", "keyring"),
    Foreign("privacy", "read", "requests"),
    Foreign("evidence", "write", "decisions"),
    Foreign("observer", "write", "audit"),
    Foreign("inference", "write", "answers"),
    Foreign("inference", "read", "requests"),
    Foreign("shredder", "read", "requests"),
    Foreign("shredder", "read", "answers"),
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a Vault role has no business to do: a call of Vault's HTTP API."""

    what: str
    role: str
    method: str
    path: str
    body: Mapping[str, str] | None = None


_NOBODYS = "kek-of-nobody"  # no tenant is called so: there is no such key, and nothing to lose
_BODY = {"input": b64encode(b"a trial of ratchet evidence check").decode()}
_CIPHERTEXT = {"ciphertext": "vault:v1:" + b64encode(bytes(44)).decode()}
SHREDDER_ROLE = "ratchet-shredder"
VAULTED = (
    Sealed("agent-signs-checkpoints", ROLE, "POST", "transit/sign/notary", _BODY),
    Sealed("training-signs-checkpoints", TRAINING_ROLE, "POST", "transit/sign/notary", _BODY),
    Sealed("witness-signs-checkpoints", WITNESS_ROLE, "POST", "transit/sign/notary", _BODY),
    Sealed("agent-cosigns", ROLE, "POST", "transit/sign/witness", _BODY),
    Sealed("agent-reads-gate-keys", ROLE, "GET", f"{MOUNT}/data/gate"),
    Sealed("evidence-reads-gate-keys", EVIDENCE_ROLE, "GET", f"{MOUNT}/data/gate"),
    Sealed("evidence-reads-principals", EVIDENCE_ROLE, "GET", f"{MOUNT}/data/principals/operator"),
    Sealed("witness-reads-commitments", WITNESS_ROLE, "GET", f"{MOUNT}/data/commitment"),
    Sealed("agent-opens-payloads", ROLE, "POST", f"transit/decrypt/{_NOBODYS}", _CIPHERTEXT),
    Sealed("agent-destroys-keys", ROLE, "DELETE", f"transit/keys/{_NOBODYS}"),
    Sealed("evidence-destroys-keys", EVIDENCE_ROLE, "DELETE", f"transit/keys/{_NOBODYS}"),
    Sealed("shredder-opens-payloads", SHREDDER_ROLE, "POST", f"transit/decrypt/{_NOBODYS}", _CIPHERTEXT),
    Sealed("shredder-reads-gate-keys", SHREDDER_ROLE, "GET", f"{MOUNT}/data/gate"),
)


def without_rights() -> tuple[Trial, ...]:
    """Kafka that asks nobody who he is: everybody may everything, and nothing needs to be tried."""
    words = "Kafka is open: who reaches it may do everything, so nothing was refused"
    return tuple(Trial("role", row.what, False, words, SECURE) for row in KAFKA if row.user != "shredder")


def without_roles() -> tuple[Trial, ...]:
    """Secrets in a local file: whoever runs an agent reads and signs everything."""
    words = "secrets are in a local file, which every process reads whole"
    return tuple(Trial("role", row.what, False, words, VAULT) for row in VAULTED if row.role != SHREDDER_ROLE)


async def kafka_role(row: Foreign, opened: Callable[[], Awaitable[Broker]]) -> Trial:
    """Try it as that user. Refused is a pass; so is nothing else."""
    try:
        broker = await opened()
        await (_written(broker, full(row.topic)) if row.verb == "write" else _read(broker, full(row.topic)))
    except ShutOut as fault:
        return Trial("role", row.what, None, f"user {row.user} was not let in: {fault}", RIGHTS)
    except Denied:
        return Trial("role", row.what, True, f"{row.user} may not {row.verb} {full(row.topic)}: refused")
    except (BrokerError, Refused, Unavailable) as fault:
        return Trial("role", row.what, None, f"could not be tried: {fault}", RIGHTS)
    return Trial("role", row.what, False, f"{row.user} may {row.verb} {full(row.topic)}", RIGHTS)


async def _written(broker: Broker, topic: str) -> None:
    """Return where the user may write; no record stays."""
    producer = broker.producer()
    try:
        await producer.start()
        await producer.send(topic, 0, [Outgoing(b"trial", secrets.token_bytes(OVERSIZE))])
    except Rejected:
        return  # it may, and only the size was refused
    finally:
        await producer.stop()


async def _read(broker: Broker, topic: str) -> None:
    """Return where the user may read."""
    reader = broker.reader({(topic, 0): 0})
    try:
        await reader.start()
        for _ in range(POLLS):
            if await reader.poll(timeout_s=0.1, max_records=1):
                return
    except OutOfRange:
        return  # it may: the first records are gone
    finally:
        await reader.stop()


def vault_role(row: Sealed, call: Callable[[Sealed], object]) -> Trial:
    """Try it as that role. Only Vault's "permission denied" is a pass: that there is no such thing it tells who may look."""
    try:
        call(row)
    except Refused as fault:
        if "permission denied" in str(fault):
            return Trial("role", row.what, True, f"role {row.role}: {row.method} {row.path} was refused")
    except Unavailable as fault:
        return Trial("role", row.what, None, f"could not be tried: {fault}", POLICIES)
    return Trial("role", row.what, False, f"role {row.role} may {row.method} {row.path}", POLICIES)
