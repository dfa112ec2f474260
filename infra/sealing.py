"""Sealing: bytes that travel where others read, opened only by who holds the key. AES-256-GCM.

The form is a version byte, a 12-byte nonce, the ciphertext with its tag. Whoever opens says what it belongs to (the associated
data): sealed for one place, it opens in no other. What is wrong with sealed bytes is never said: key, place, damage look the same.

A mask map says besides which of the gate's keys sealed it: the version byte 2 and the key's id (8 bytes) stand before that form. The
first key's maps have no more than the form, as they had when there was no other key.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas import canonical
from schemas.errors import Refused
from schemas.gate import FIRST_KEY, KEY_GONE
from schemas.hkdf import hkdf

GATE_SECRET: Final = "gate"  # noqa: S105  where it lies, not what it is
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_VERSION: Final = b"\x01"
_NAMES_KEY: Final = b"\x02"
_ID_BYTES: Final = 8
_MOST_HELD: Final = 1024
_MAP: Final = "mask-map/1"
_KEY, _RETIRED = "key", "retired"
_TIME_DIGITS: Final = 13


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
    """Keys of the gate per tenant, derived from masters (HKDF-SHA-256): a tenant never seen before has some too.

    The newest master whose time has come seals and marks, the others open and check: so who decides, and who decides again with the
    times of the log, choose the same one. `retired`: ids of those that were taken away on purpose.

    For routers and trust alone: who holds a master reads what placeholders stand for, and marks answers.
    """

    def __init__(
        self, first: bytes | None, later: Mapping[int, bytes] = MappingProxyType({}), retired: Collection[int] = ()
    ) -> None:
        self.masters: Mapping[int, bytes] = {**({} if first is None else {FIRST_KEY: first}), **later}
        self.retired = frozenset(retired) - self.masters.keys()
        for key_id, master in self.masters.items():
            if len(master) != KEY_BYTES or not FIRST_KEY <= key_id < 1 << 53:
                raise ValueError(f"a master key of {len(master)} bytes, id {key_id}; accepted: {KEY_BYTES}, a time")
        if not self.masters:
            raise ValueError("no master key; accepted: one or more")
        self._held: dict[tuple[int, bytes], bytes] = {}  # derived before

    def __repr__(self) -> str:
        return "GateKeys()"

    def __contains__(self, key_id: object) -> bool:
        return key_id in self.masters

    def key_at(self, at_ms: int) -> int:
        """The id of the key that seals and marks at a time; before the first one's time it is the first."""
        return max((key_id for key_id in self.masters if key_id <= at_ms), default=min(self.masters))

    def mask_key(self, tenant: str, key_id: int = FIRST_KEY) -> bytes:
        """Seals what placeholders stand for."""
        return self._key("mask", tenant, key_id)

    def mark_key(self, tenant: str, key_id: int = FIRST_KEY) -> bytes:
        """Binds the AI mark to an answer's text."""
        return self._key("mark", tenant, key_id)

    def seal_map(self, tenant: str, request_id: str, event_id: str, found: Encodes, at_ms: int = FIRST_KEY) -> str:
        """A request's mask map in base64, under the key of that time. The same arguments give the same text, so a decision taken
        again is the same.

        Its nonce is a keyed digest of all that it seals (as in SIV modes): it comes again only with the very same content.
        """
        key_id = self.key_at(at_ms)
        data, aad = found.encode(), _belonging(tenant, request_id)
        said = b"".join(len(part).to_bytes(8, "big") + part for part in (aad, event_id.encode(), data))
        nonce = hmac.new(self._key("mask-nonce", tenant, key_id), said, hashlib.sha256).digest()[:NONCE_BYTES]
        named = b"" if key_id == FIRST_KEY else _NAMES_KEY + key_id.to_bytes(_ID_BYTES, "big")
        return base64.b64encode(named + seal(self.mask_key(tenant, key_id), data, aad, nonce)).decode()

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        """The bytes of a request's mask map. Raises `Refused`: of the kind `gate-key` where its key is not held, else `sealed`."""
        key_id, data = _split(sealed)
        if key_id not in self:
            raise Refused(self.gone(key_id), kind=KEY_GONE)
        return open_sealed(self.mask_key(tenant, key_id), data, _belonging(tenant, request_id))

    def gone(self, key_id: int) -> str:
        """Of a key that is not held, why, in a sentence."""
        name = field_of(key_id)
        return f"The gate's {name} was retired." if key_id in self.retired else f"The gate has no {name}."

    def _key(self, purpose: str, tenant: str, key_id: int) -> bytes:
        info = canonical.encode({"purpose": purpose, "tenant": tenant, "v": 1})
        found = self._held.get((key_id, info))
        if found is None:
            found = hkdf(self.masters[key_id], info)
            if len(self._held) >= _MOST_HELD:  # whoever names tenants must not fill the memory
                self._held.clear()
            self._held[key_id, info] = found
        return found


def map_key(sealed: str) -> int:
    """The id of the key that sealed a mask map, by the map's own word; `FIRST_KEY` where it says none."""
    return _split(sealed)[0]


def _split(sealed: str) -> tuple[int, bytes]:
    try:
        data = base64.b64decode(sealed.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return FIRST_KEY, b""
    if data[:1] != _NAMES_KEY or len(data) <= 1 + _ID_BYTES:
        return FIRST_KEY, data
    key_id = int.from_bytes(data[1 : 1 + _ID_BYTES], "big")
    # The first key's maps name none: under another form of the same key nothing opens.
    return (FIRST_KEY, b"") if key_id == FIRST_KEY else (key_id, data[1 + _ID_BYTES :])


def field_of(key_id: int) -> str:
    """The secret's field that holds the key."""
    return _KEY if key_id == FIRST_KEY else f"{_KEY}-{key_id}"


def ids_of(fields: Collection[str]) -> tuple[list[int], list[int]]:
    """The ids of keys, and of retired ones, that the secret's fields name, oldest first. Raises `Refused` for one that names no time."""
    held = [_id_in(field, _KEY) for field in fields if field == _KEY or field.startswith(f"{_KEY}-")]
    gone = [_id_in(field, _RETIRED) for field in fields if field.startswith(f"{_RETIRED}-")]
    return sorted(held), sorted(set(gone) - {*held})


def retired_field(key_id: int) -> str:
    """The field that says of a key that it was retired."""
    return f"{_RETIRED}-{key_id}"


def _id_in(field: str, prefix: str) -> int:
    text = field.removeprefix(prefix).removeprefix("-")
    if field == _KEY or (prefix == _RETIRED and text == str(FIRST_KEY)):
        return FIRST_KEY
    if not (text.isascii() and text.isdecimal() and len(text) == _TIME_DIGITS and text[0] != "0"):
        raise Refused(
            f"the secret {GATE_SECRET!r} has a field {field!r}; accepted: {_KEY}, and {_KEY}-TIME with the time from which it "
            f"seals in {_TIME_DIGITS} digits of epoch milliseconds: `ratchet gate rotate` makes it (docs/gate.md)",
            kind="secrets",
        )
    return int(text)


async def open_gate_keys(source: Reads) -> GateKeys:
    """The keys from the secret source. Raises `Refused` where it has none, or lets this role read none."""
    return gate_keys(await source.get(GATE_SECRET))


def gate_keys(fields: Mapping[str, str]) -> GateKeys:
    """The keys that the secret's fields hold. Raises `Refused` that names the field, and nothing that is in it."""
    held, gone = ids_of(fields)
    masters: dict[int, bytes] = {}
    for key_id in held or [FIRST_KEY]:
        try:
            masters[key_id] = bytes.fromhex(fields.get(field_of(key_id), ""))
        except ValueError:
            masters[key_id] = b""
        if len(masters[key_id]) != KEY_BYTES:
            raise Refused(
                f"the secret {GATE_SECRET!r} has no field {field_of(key_id)} of {2 * KEY_BYTES} hex digits: `ratchet up` makes "
                "the first, `ratchet gate rotate` others; in a Vault of your own put one there (docs/security.md)",
                kind="secrets",
            )
    first = masters.pop(FIRST_KEY, None)
    return GateKeys(first, masters, gone)


def _belonging(tenant: str, request_id: str) -> bytes:
    return canonical.encode({"what": _MAP, "tenant": tenant, "request_id": request_id})
