"""As whom a tool of ours speaks: a principal of the secret store, by whose key it proves what it sends.

Where no key was ever set, what is sent is unproven, as agents take it then.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from infra import keys
from infra.clock import SystemClock
from infra.settings import Settings
from schemas.codec import Encoded
from schemas.errors import Unavailable
from schemas.principal import Credential, Role

if TYPE_CHECKING:
    from infra.secrets import LocalSecrets, VaultSecrets


def unproven(row: Encoded) -> Encoded:
    """The record as it is."""
    return row


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks; `prove` puts the proof on a record, made now."""

    name: str
    credential: Credential | None

    def prove(self, row: Encoded) -> Encoded:
        return row if self.credential is None else self.credential.prove(row, at_ms=SystemClock().now_ms())


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncGenerator["LocalSecrets | VaultSecrets | None", None]:
    """The stack's secret store; None where there is none yet. Raises `Unavailable` where it is Vault's and no token is set."""
    if settings.secrets == "local" and not (settings.state_dir / "secrets.json").exists():
        yield None
        return
    if settings.secrets == "vault" and settings.vault_token is None:
        raise Unavailable(
            "principals' keys are in Vault, and there is no token to read them with: set RATCHET_VAULT_TOKEN to one that may "
            f"read {settings.vault_mount}/data/principals"
        )
    from infra.secrets import open_secrets  # heavy: clients of Vault

    source = await open_secrets(settings, lambda _: None)
    try:
        yield source
    finally:
        await source.close()


async def open_voice(settings: Settings, role: Role, given: str | None, unproven_as: Callable[[], str]) -> Voice:
    """Who is `given`, else the one whom `ratchet up` added for the role. Raises `Refused` where that one has no key that counts.

    Where no key was ever set: `unproven_as`, which is not asked otherwise.
    """
    async with open_store(settings) as source:
        known = {} if source is None else await keys.principals(source)
        if source is None or not any(row.keys for row in known.values()):
            return Voice(unproven_as(), None)
        name = given if given is not None else next(name for name, roles in keys.LOCAL.items() if role in roles)
        return Voice(name, await keys.credential(source, name, role, SystemClock().now_ms()))


async def voices(settings: Settings) -> dict[str, Voice]:
    """Who of a local stack speaks on each topic: requests, verdicts, commands."""
    said: dict[str, Role] = {"requests": "upstream", "verdicts": "reviewer", "commands": "operator"}
    return {topic: await open_voice(settings, role, None, partial(str, role)) for topic, role in said.items()}
