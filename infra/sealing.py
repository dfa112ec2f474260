"""Sealing: bytes that travel where others read, opened only by who holds the key. AES-256-GCM.

The form is a version byte, a 12-byte nonce, the ciphertext with its tag. Whoever opens says what it belongs to (the associated
data): sealed for one place, it opens in no other. What is wrong with sealed bytes is never said: key, place, damage look the same.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas import canonical
from schemas.errors import Refused
from schemas.hkdf import hkdf

GATE_SECRET: Final = "gate"  # noqa: S105  where it lies, not what it is
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_VERSION: Final = b"\x01"
_MOST_HELD: Final = 1024
_MAP: Final = "mask-map/1"


class Reads(Protocol):
    """What is needed of a secret source."""

    async def get(self, path: str) -> Mapping[str, str]: ...


class Encodes(Protocol):
    """What becomes bytes by itself, as a mask map does."""

    def encode(self) -> bytes: ...


def seal(key: bytes, data: bytes, aad: bytes, nonce: bytes | None = None) -> bytes:
    """The sealed bytes. `nonce`: never the same one for other data or another `aad` under one key; None: a random one."""
    chosen = os.urandom(NONCE_BYTES) if nonce is None else nonce
    if len(key) != KEY_BYTES or len(chosen) != NONCE_BYTES:
        raise ValueError(
            f"a key of {len(key)} and a nonce of {len(chosen)} bytes; accepted: {KEY_BYTES} and {NONCE_BYTES}"
        )
    return _VERSION + chosen + AESGCM(key).encrypt(chosen, data, aad)


def open_sealed(key: bytes, data: bytes, aad: bytes) -> bytes:
    """What was sealed under this key for this `aad`. Raises `Refused` of the kind `sealed` for anything else."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes; accepted: {KEY_BYTES}")
    if data[:1] == _VERSION and len(data) >= 1 + NONCE_BYTES + _TAG_BYTES:
        try:
            return AESGCM(key).decrypt(data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :], aad)
        except InvalidTag:
            pass
    raise Refused(
        "sealed bytes do not open: another key, another place, or damaged; accepted: as they were sealed, where they belong",
        kind="sealed",
    )


class GateKeys:
    """Keys of the gate per tenant, derived from one master (HKDF-SHA-256): a tenant never seen before has some too.

    For routers and trust alone: who holds the master reads what placeholders stand for, and marks answers.
    """

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise ValueError(f"a master key of {len(master)} bytes; accepted: {KEY_BYTES}")
        self._master = master
        self._held: dict[bytes, bytes] = {}  # derived before

    def __repr__(self) -> str:
        return "GateKeys()"

    def mask_key(self, tenant: str) -> bytes:
        """Seals what placeholders stand for."""
        return self._key("mask", tenant)

    def mark_key(self, tenant: str) -> bytes:
        """Binds the AI mark to an answer's text."""
        return self._key("mark", tenant)

    def seal_map(self, tenant: str, request_id: str, event_id: str, found: Encodes) -> str:
        """A request's mask map in base64. The same arguments give the same text, so a decision taken again is the same.

        Its nonce is a keyed digest of all that it seals (as in SIV modes): it comes again only with the very same content.
        """
        data, aad = found.encode(), _belonging(tenant, request_id)
        said = b"".join(len(part).to_bytes(8, "big") + part for part in (aad, event_id.encode(), data))
        nonce = hmac.new(self._key("mask-nonce", tenant), said, hashlib.sha256).digest()[:NONCE_BYTES]
        return base64.b64encode(seal(self.mask_key(tenant), data, aad, nonce)).decode()

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        """The bytes of a request's mask map. Raises `Refused` of the kind `sealed` where they do not open."""
        try:
            data = base64.b64decode(sealed.encode(), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            data = b""
        return open_sealed(self.mask_key(tenant), data, _belonging(tenant, request_id))

    def _key(self, purpose: str, tenant: str) -> bytes:
        info = canonical.encode({"purpose": purpose, "tenant": tenant, "v": 1})
        found = self._held.get(info)
        if found is None:
            found = hkdf(self._master, info)
            if len(self._held) >= _MOST_HELD:  # whoever names tenants must not fill the memory
                self._held.clear()
            self._held[info] = found
        return found


async def open_gate_keys(source: Reads) -> GateKeys:
    """The keys from the secret source. Raises `Refused` where it has none, or lets this role read none."""
    held = (await source.get(GATE_SECRET)).get("key", "")
    try:
        master = bytes.fromhex(held)
    except ValueError:
        master = b""
    if len(master) != KEY_BYTES:
        raise Refused(
            f"the secret {GATE_SECRET!r} has no field key of {2 * KEY_BYTES} hex digits: `ratchet up` makes it; in a Vault of "
            "your own put one there (docs/security.md)",
            kind="secrets",
        )
    return GateKeys(master)


def _belonging(tenant: str, request_id: str) -> bytes:
    return canonical.encode({"what": _MAP, "tenant": tenant, "request_id": request_id})
