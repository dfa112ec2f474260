"""The local stack's secured Kafka: its users with passwords in the secret store, and their ACLs.

A user's password is made once and stays in the store; the broker is told it salted. Nothing here prints or logs one.
"""

import contextlib
import json
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from infra.settings import Settings
from schemas.errors import Refused
from streams.acl import compare
from streams.security import PLAINTEXT, Security

from .kafka import administrator
from .roles import MOUNT
from .tls import Certificates
from .vault import VaultServer

IN_THE_CLEAR = "Kafka's transport is open: who reaches it reads and writes everything, in the clear; `ratchet up --secure` closes it"
SECURED = "Kafka is reached over TLS, each process as a user of its own"
INNER = "kafka-inner"  # the broker's listener for certificates, in the stack's record


def certificates(state_dir: Path) -> Path:
    """The folder of the stack's certificates."""
    return state_dir / "data" / "tls"


def administration(state_dir: Path, bootstrap: str | None = None) -> tuple[str, Security] | None:
    """Where and as whom the administrator of this stack's Kafka connects; None where the stack has no secured Kafka of its own.

    None too where `bootstrap` is given and is another Kafka's address.
    """
    folder = certificates(state_dir)
    try:
        record = json.loads((state_dir / "stack.json").read_bytes())
        where, own = (str(record["services"][name]["address"]) for name in (INNER, "kafka"))
    except (OSError, ValueError, KeyError):
        return None
    if bootstrap not in (None, own):
        return None
    return where, administrator(Certificates(folder / "ca.pem", folder / "broker.pem", folder / "administrator.pem"))


def with_credentials(settings: Settings) -> Settings:
    """The same settings, able to open the secret store: with the stack's own Vault, by its issuer."""
    issuer = settings.state_dir / "data" / "vault" / "issuer"
    if settings.secrets != "vault" or settings.vault_issuer is not None or not issuer.exists():
        return settings
    return settings.model_copy(update={"vault_issuer": issuer})


async def open_security(settings: Settings, user: str) -> Security:
    """How the command line reaches Kafka: as `user`, unless the settings name another. Raises `Refused`, `Unavailable`."""
    if settings.kafka_security == "plaintext":
        return PLAINTEXT
    from agents.transport import open_transport

    return await open_transport(with_credentials(settings), user)


async def ensure_passwords(
    settings: Settings, users: Collection[str], *, rotate: Collection[str] = ()
) -> dict[str, str]:
    """The users' passwords: those in the secret store; made there, or made anew for those to `rotate`, where it is ours to write.

    `Refused` names all that lack.
    """
    from infra.secrets import LocalSecrets, open_secrets  # heavy: clients of Vault

    folder = settings.kafka_credentials
    found: dict[str, str] = {}
    source = await open_secrets(with_credentials(settings), lambda _: None)
    try:
        for user in users:
            held = await source.get(f"{folder}/{user}")
            if "password" in held and user not in rotate:
                found[user] = held["password"]
        lacking = [user for user in users if user not in found]
        fresh = {user: secrets.token_urlsafe(32) for user in lacking}
        if isinstance(source, LocalSecrets):
            for user, password in fresh.items():
                await source.put(f"{folder}/{user}", {"password": password})
        elif server := own_vault(settings):
            for user, password in fresh.items():
                server.put(f"{folder}/{user}", {"password": password})
        elif lacking:
            paths = ", ".join(f"{settings.vault_mount}/{folder}/{user}" for user in lacking)
            raise Refused(
                f"Vault's operator writes a field password into each of {paths} (`vault kv put -mount=MOUNT PATH password=-` reads "
                "it from standard input); then `ratchet acl apply` again tells the cluster",
                kind="secrets",
            )
    finally:
        await source.close()
    return found | fresh


async def establish(
    settings: Settings,
    where: str,
    security: Security,
    processes: Sequence[Sequence[str]],
    *,
    rotate: Collection[str] = (),
) -> tuple[int, int]:
    """Users and ACLs as the code declares them. Safe to repeat. How many users there are, and how many ACLs were changed.

    The store has a password before the cluster: who starts between the two is refused, and starts again.
    """
    from streams.kafka_acl import KafkaAccess
    from tools.access import generated, principals

    users = principals(processes)
    passwords = await ensure_passwords(settings, users, rotate=rotate)
    async with KafkaAccess(where, security) as access:
        await access.set_passwords(passwords)
        found = compare(generated(processes), await access.acls())
        await access.allow(found.missing)
        await access.withdraw(found.extra)
    return len(users), len(found.missing) + len(found.extra)


def own_vault(settings: Settings) -> VaultServer | None:
    """The stack's own Vault, which we may administer."""
    keys = settings.state_dir / "data" / "vault" / "keys.json"
    if settings.vault_mount != MOUNT or settings.vault_addr is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        return VaultServer(addr=settings.vault_addr, root_token=json.loads(keys.read_bytes())["root_token"])
    return None
