"""Providers' keys: a field `key` under `providers/NAME` in the secret store (Vault, or the local file). Read, never written.

A key is remembered for `REMEMBER_S`, and forgotten when a provider refuses it: one that was rotated works with the next call.
"""

import asyncio
import re

from pydantic import SecretStr

from infra.clock import Clock
from infra.engine import Blameless
from infra.keys import Reads
from schemas.errors import Refused, Unavailable

FOLDER = "providers"
FIELD = "key"
REMEMBER_S = 60.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")  # what an HTTP header can carry: no blank, no line's end


async def provider_key(source: Reads, name: str) -> SecretStr:
    """The key named `name`. `Refused` where there is none that can be used, `Blameless` where the store is away."""
    if not NAME.fullmatch(name):
        raise Refused(
            f"the key's name {name!r} is not accepted",
            kind="provider_settings",
            field="secret",
            accepted="letters, digits, . _ and -, at most 64 of them, the first a letter or digit",
        )
    try:
        held = (await source.get(f"{FOLDER}/{name}")).get(FIELD, "")
    except Unavailable as away:
        raise Blameless(f"the key {name!r} cannot be read: {away}", retry_after_s=away.retry_after_s) from away
    if not _KEY.fullmatch(held):
        found = "holds no printable key" if held else "is not there"
        raise Refused(
            f"the secret {FOLDER}/{name} {found}",
            kind="provider_settings",
            field="secret",
            accepted=f"a secret {FOLDER}/{name} with a field {FIELD}: the provider's key, without blanks",
        )
    return SecretStr(held)


class ProviderKeys:
    """The keys of a process, each read once a minute."""

    def __init__(self, source: Reads, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._held: dict[str, tuple[float, SecretStr]] = {}
        self._reading = asyncio.Lock()

    async def get(self, name: str) -> SecretStr:
        """As `provider_key`; the empty name is the empty key: some servers ask for none."""
        if not name:
            return SecretStr("")
        async with self._reading:
            held = self._held.get(name)
            if held is None or self._clock.monotonic() - held[0] >= REMEMBER_S:
                held = self._clock.monotonic(), await provider_key(self._source, name)
                self._held[name] = held
            return held[1]

    def forget(self, name: str) -> None:
        """Read it anew at the next call."""
        self._held.pop(name, None)
