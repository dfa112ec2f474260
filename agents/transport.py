"""How a process of ours reaches Kafka: as which user, with which password of the secret store. Light, for the command line waits on it."""

import logging

from infra.secrets import SecretSource, open_secrets
from infra.settings import Settings
from schemas.errors import Refused
from streams.security import PLAINTEXT, Security

log = logging.getLogger("ratchet")


async def transport(settings: Settings, secrets: SecretSource, user: str) -> Security:
    """How this process reaches Kafka: as `user`, unless the settings name another, with the password of the secret store.

    Raises `Refused` that names the secret where it has none.
    """
    if settings.kafka_security == "plaintext":
        return PLAINTEXT
    name = settings.kafka_user or user
    path = f"{settings.kafka_credentials}/{name}"
    held = await secrets.get(path)
    if "password" not in held:
        raise Refused(
            f"the secret store has no {path} with a field password: Kafka user {name!r} cannot prove itself; `ratchet up "
            "--secure` makes the local stack's, `ratchet acl apply` an agent's",
            kind="secrets",
        )
    return Security("sasl_ssl", settings.kafka_ca, name, held["password"])


async def open_transport(settings: Settings, user: str) -> Security:
    """The same for a process that needs nothing else of the secret store."""
    if settings.kafka_security == "plaintext":
        return PLAINTEXT
    secrets = await open_secrets(settings, log.debug)
    try:
        return await transport(settings, secrets, user)
    finally:
        await secrets.close()
