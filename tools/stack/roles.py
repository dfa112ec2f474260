"""Who may do what in the stack's own Vault: an AppRole for each kind of process, and two kinds of token that no agent has.

A role signs with the keys of its own work and with no other: who takes over an agent signs no checkpoint, and who takes over the
witness reads no secret of the log that it watches. docs/security.md says the same for a Vault of the user's own.
"""

from collections.abc import Sequence

from schemas.errors import Refused

MOUNT = "ratchet"
# The names that infra/secrets.py has for them: not imported, for it brings Vault's client into every command.
NOTARY, ATTESTER, MANIFESTS, WITNESS = SIGNING_KEYS = ("notary", "attestations", "adapters", "witness")
ROLE = "ratchet"
EVIDENCE_ROLE = "ratchet-evidence"
TRAINING_ROLE = "ratchet-training"
WITNESS_ROLE = "ratchet-witness"
GATE_ROLE = "ratchet-gate"
SHREDDER_ROLE = "ratchet-shredder"
EVIDENCE_PASSWORD = "kafka/evidence"  # noqa: S105  where it lies, not what it is
SHREDDER_PASSWORD = "kafka/shredder"  # noqa: S105  likewise
GATE_SECRET = "gate"  # noqa: S105  the path of the master of mask maps' and marks' keys
SUBJECT_KEYS = "kek-*"  # a tenant's key, which wraps its subjects' keys: in transit, and it never leaves
_OF = {
    "router": GATE_ROLE,
    "trust": GATE_ROLE,
    "evidence": EVIDENCE_ROLE,
    "jobs": TRAINING_ROLE,
    "shredder": SHREDDER_ROLE,
}
_ALONE = {"evidence": "signs", "shredder": "erases"}


def role_of(agents: Sequence[str]) -> str:
    """The role of a process with these agents. Who signs the log and who erases share their process with nobody: else the role were
    theirs too."""
    for agent, does in _ALONE.items():
        if agent in agents and len(agents) > 1:
            raise Refused(
                f"agents {', '.join(agents)} in one process: with Vault, {agent} {does} by a role of its own and runs alone",
                kind="usage",
            )
    found = {_OF[agent] for agent in agents if agent in _OF} or {ROLE}
    if len(found) > 1:
        raise Refused(
            f"agents {', '.join(agents)} in one process: with Vault they log in by {', '.join(sorted(found))}, one role a process; "
            f"give {' and '.join(sorted(agent for agent in agents if agent in _OF))} processes of their own",
            kind="usage",
        )
    return found.pop()


def policies(evidence_password: str = EVIDENCE_PASSWORD, shredder_password: str = SHREDDER_PASSWORD) -> dict[str, str]:
    """Every policy's text by its name. The passwords: the paths of those Kafka passwords that these two processes have."""
    every = _path(f"{MOUNT}/data/*", "read")
    kv = every + _path(f"{MOUNT}/data/{GATE_SECRET}", "deny")  # what opens mask maps is the gate's alone
    public = _path("transit/keys/*", "read")
    return {
        "ratchet-agent": kv + public,
        # The router seals what it masked, trust opens it for who asked.
        GATE_ROLE: every + public,
        # A training job opens the keys of subjects whose rows it seals; it makes none.
        TRAINING_ROLE: kv + public + _signing(MANIFESTS) + _path(f"transit/decrypt/{SUBJECT_KEYS}", "update"),
        # It hears who commands, proves what it tells trainers, and lets go of keys that it cannot read: it opens none.
        SHREDDER_ROLE: _path(f"{MOUNT}/data/{shredder_password}", "read")
        + _path(f"{MOUNT}/data/principals", "read")
        + _path(f"{MOUNT}/data/principals/*", "read"),
        # It reads what it pseudonymises and commits with, and its own password: no principal's key, no provider's.
        EVIDENCE_ROLE: _path(f"{MOUNT}/data/commitment", "read")
        + _path(f"{MOUNT}/data/{evidence_password}", "read")
        + _signing(NOTARY, ATTESTER)
        + _wrapping(),
        WITNESS_ROLE: _signing(WITNESS),
        "ratchet-issuer": _issuing(ROLE, GATE_ROLE, EVIDENCE_ROLE, TRAINING_ROLE, SHREDDER_ROLE, WITNESS_ROLE),
        "ratchet-training-issuer": _issuing(TRAINING_ROLE),
        # Of `ratchet access` and `erase` alone: makes pseudonyms, opens texts, proves what it commands. It makes and signs nothing.
        "ratchet-privacy": _path(f"{MOUNT}/data/commitment", "read")
        + _path(f"{MOUNT}/data/kafka/privacy", "read")
        + _path(f"transit/decrypt/{SUBJECT_KEYS}", "update"),
        # The command line's, whose user owns this stack: hands out principals' keys, proves with them, puts providers' keys there,
        # connects as Kafka's users, rotates the gate's keys unread, checks signatures. It signs nothing, and removes nothing but those.
        "ratchet-operator": _path(f"{MOUNT}/data/principals", "create", "read", "update")
        + _path(f"{MOUNT}/data/principals/*", "create", "read", "update")
        + _path(f"{MOUNT}/data/kafka/*", "read")
        + _path(f"{MOUNT}/data/providers/*", "create", "update")
        + _path(f"{MOUNT}/subkeys/{GATE_SECRET}", "read")  # the names of the gate's keys
        + _path(f"{MOUNT}/data/{GATE_SECRET}", "patch")  # adds and retires them, and reads none
        + public,
    }


ROLES = {ROLE: "ratchet-agent"} | {
    role: role for role in (GATE_ROLE, EVIDENCE_ROLE, TRAINING_ROLE, SHREDDER_ROLE, WITNESS_ROLE)
}
"""AppRole -> its policy."""


def _signing(*keys: str) -> str:
    return "".join(_path(f"transit/sign/{key}", "update") + _path(f"transit/keys/{key}", "read") for key in keys)


def _wrapping() -> str:
    """Wrap and unwrap subjects' keys. To encrypt under a tenant's key makes it; no right on the keys could make one exportable."""
    return (
        _path(f"transit/encrypt/{SUBJECT_KEYS}", "create", "update")
        + _path(f"transit/decrypt/{SUBJECT_KEYS}", "update")
        + _path(f"transit/keys/{SUBJECT_KEYS}", "read")
    )


def _issuing(*roles: str) -> str:
    """Hand out secret ids of these roles, and only wrapped ones: whoever starts an agent never sees what it logs in with."""
    wrapped = '\n  min_wrapping_ttl = "1s"\n  max_wrapping_ttl = "600s"'
    rows = (_path(f"auth/approle/role/{role}/secret-id", "update", more=wrapped) for role in roles)
    return "".join(rows) + _path("auth/token/renew-self", "update")


def _path(path: str, *capabilities: str, more: str = "") -> str:
    able = ", ".join(f'"{word}"' for word in capabilities)
    return f'path "{path}" {{\n  capabilities = [{able}]{more}\n}}\n'
