"""Keys of tenants that wrap keys of subjects (KEK): a key of Vault's transit engine each, or one derived from the local file.

A wrapped key belongs to its tenant, subject and epoch: with any other of these it does not open. A tenant's key never leaves
Vault: it is made there at first use, not exportable, and no role of ours may change or delete it.
"""

import asyncio
import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import hvac
import hvac.exceptions
import requests

from infra.sealing import open_sealed, seal
from schemas import canonical
from schemas.errors import Refused, Unavailable

KEK_PREFIX: Final = "kek-"
KEY_TYPE: Final = "aes256-gcm96"
MOST: Final = 2000
"""Keys in one call of Vault."""
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")  # what Vault takes for a key's name
_WRAPPED = re.compile(r"vault:v[1-9][0-9]*:[A-Za-z0-9+/]+={0,2}")


class Kek(Protocol):
    """Wraps and unwraps keys of subjects. Raises Unavailable, and Refused (kind `kek`) for what never will work."""

    async def wrap(self, tenant: str, keys: Sequence[tuple[str, int, bytes]]) -> list[str]:
        """`(subject, epoch, key)` each, wrapped, in that order. Makes the tenant's key where there is none."""
        ...

    async def unwrap(self, tenant: str, wrapped: Sequence[tuple[str, int, str]]) -> list[bytes]:
        """`(subject, epoch, wrapped)` each, as `wrap` took them, opened."""
        ...


def key_name(tenant: str) -> str:
    """The name of a tenant's transit key, different for each: `kek-acme`; in hex where Vault takes no such name."""
    return KEK_PREFIX + (tenant if _PLAIN.fullmatch(tenant) else f"-{tenant.encode().hex()}")


def belonging(tenant: str, subject: str, epoch: int) -> bytes:
    """What a wrapped key belongs to: associated data."""
    return canonical.encode({"tenant": tenant, "subject": subject, "epoch": epoch})


class LocalKek:
    """Derives tenants' keys from a master, for a first look: whoever reads the local secrets opens everything."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    def __repr__(self) -> str:
        return "LocalKek()"

    async def wrap(self, tenant: str, keys: Sequence[tuple[str, int, bytes]]) -> list[str]:
        key = self._key(tenant)
        return [
            base64.b64encode(seal(key, data, belonging(tenant, subject, epoch))).decode()
            for subject, epoch, data in keys
        ]

    async def unwrap(self, tenant: str, wrapped: Sequence[tuple[str, int, str]]) -> list[bytes]:
        key = self._key(tenant)
        try:
            return [
                open_sealed(key, base64.b64decode(text, validate=True), belonging(tenant, subject, epoch))
                for subject, epoch, text in wrapped
            ]
        except (ValueError, Refused):
            raise _unopened(tenant) from None

    def _key(self, tenant: str) -> bytes:
        return hmac.digest(self._master, f"kek\x1f{tenant}".encode(), "sha256")


class VaultKek:
    """A transit key per tenant. The role needs `create` and `update` on encrypt/kek-*, `update` on decrypt/kek-*, `read` on keys/kek-*.

    Encrypting under a key that is not there makes it: so no role has a right on `keys/kek-*` by which it could make a key exportable.
    """

    def __init__(self, client: hvac.Client, mount: str = "transit") -> None:
        self._client = client
        self._mount = mount
        self._sound: set[str] = set()

    def __repr__(self) -> str:
        return f"VaultKek({self._mount!r})"

    async def wrap(self, tenant: str, keys: Sequence[tuple[str, int, bytes]]) -> list[str]:
        rows = [_row(tenant, subject, epoch, "plaintext", _text(data)) for subject, epoch, data in keys]
        found = await self._batches("encrypt", tenant, rows, "ciphertext")
        if not all(_WRAPPED.fullmatch(text) for text in found):
            raise Unavailable(f"transit key {key_name(tenant)!r} answered something else than wrapped keys")
        await self._check(tenant)
        return found

    async def unwrap(self, tenant: str, wrapped: Sequence[tuple[str, int, str]]) -> list[bytes]:
        rows = [_row(tenant, subject, epoch, "ciphertext", text) for subject, epoch, text in wrapped]
        return [
            base64.b64decode(text, validate=True) for text in await self._batches("decrypt", tenant, rows, "plaintext")
        ]

    async def _batches(self, verb: str, tenant: str, rows: Sequence[Mapping[str, str]], field: str) -> list[str]:
        path = f"{verb}/{key_name(tenant)}"
        found: list[str] = []
        for at in range(0, len(rows), MOST):
            some = rows[at : at + MOST]
            reply = await asyncio.to_thread(self._call, path, {"batch_input": some})
            answers = cast("Sequence[Mapping[str, Any]]", reply["batch_results"])
            if len(answers) != len(some) or any(row.get("error") or field not in row for row in answers):
                raise _unopened(tenant)
            found += [str(row[field]) for row in answers]
        return found

    async def _check(self, tenant: str) -> None:
        """A key that somebody else made beforehand may be one that leaves Vault, or that can be deleted: with it nothing is wrapped."""
        name = key_name(tenant)
        if name in self._sound:
            return
        found = await asyncio.to_thread(self._call, f"keys/{name}", None)
        if (found.get("type"), found.get("exportable"), found.get("deletion_allowed")) != (KEY_TYPE, False, False):
            raise Refused(
                f"transit key {name!r} is of type {found.get('type')!r}, exportable {found.get('exportable')}, deletion_allowed "
                f"{found.get('deletion_allowed')}; accepted: {KEY_TYPE}, which cannot be exported or deleted",
                kind="kek",
            )
        self._sound.add(name)

    def _call(self, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Nothing of what Vault says of a body is repeated: it may quote what it was sent."""
        adapter = cast("Any", self._client).adapter
        url = f"/v1/{self._mount}/{path}"
        try:
            reply = adapter.get(url) if body is None else adapter.post(url, json=body)
        except hvac.exceptions.Forbidden as exc:
            raise Refused(
                f"Vault forbids {path} to our role: `ratchet up` renews the stack's own policies; docs/security.md lists what it "
                "needs",
                kind="kek",
            ) from exc
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            raise Refused(f"Vault refused {path}: {_WRONG}", kind="kek") from None
        except (hvac.exceptions.VaultError, requests.exceptions.RequestException) as exc:
            raise Unavailable(f"Vault is away or sealed: {path}: {type(exc).__name__}", retry_after_s=1.0) from None
        return cast("Mapping[str, Any]", reply["data"])


_WRONG = "the tenant's key is gone, or a wrapped key is not that tenant's, subject's and epoch's, or damaged; accepted: as it was wrapped"


def _row(tenant: str, subject: str, epoch: int, field: str, text: str) -> dict[str, str]:
    return {field: text, "associated_data": _text(belonging(tenant, subject, epoch))}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unopened(tenant: str) -> Refused:
    return Refused(f"keys of tenant {tenant!r}: {_WRONG}", kind="kek")
