"""Who signs checkpoints: a local key file for a first look, Vault's transit engine for everything else.

Both give the raw 64 bytes of Ed25519 over the text; the note around them is made elsewhere. `verify` is the signature
check that the pure code in `schemas.tlog` is given.
"""

import base64
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import hvac
import hvac.exceptions
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.clock import Clock, SystemClock
from schemas.errors import Refused, Unavailable
from schemas.tlog.note import VerifierKey, valid_name

_KEY_FILE = re.compile(r"ratchet notary key, for a first look only\n(?P<seed>[A-Za-z0-9+/]{43}=)\n")
_SIGNATURE = re.compile(r"vault:v([1-9][0-9]*):([A-Za-z0-9+/]{86}==)")
VERSIONS_S = 60.0


class Notary(Protocol):
    """Signs checkpoints. Its private key never leaves it."""

    @property
    def name(self) -> str:
        """The key name, which is the log's origin."""
        ...

    def signing(self) -> Sequence[int]:
        """The key versions that may sign now, oldest first. Raises Unavailable.

        A rotation shows here within a minute: the newer version signs besides the older, until that one is retired.
        """
        ...

    def latest(self) -> int:
        """The newest key version."""
        ...

    def sign(self, body: bytes, key_version: int | None = None) -> bytes:
        """The 64 bytes of Ed25519 over `body`. Raises Unavailable; the same body and version give the same bytes.

        Refused with the kind `notary-version` when that version is retired or never was.
        """
        ...

    def vkey(self, key_version: int) -> str:
        """The verifier key of one version."""
        ...

    def vkeys(self) -> list[str]:
        """Every version's verifier key, oldest first."""
        ...


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature fits. The caller has checked that the key is of prime order."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class LocalNotary:
    """An Ed25519 key in a file, for a first look: whoever reads the file can sign as the log.

    Its origin begins with `dev.`, so that nobody takes its logs for more. One key version.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self._name = _dev_origin(origin)
        self._key = Ed25519PrivateKey.from_private_bytes(_read_seed(path))

    @classmethod
    def create(cls, path: Path, origin: str) -> "LocalNotary":
        """Make the key file (0600) unless it stands, and open it."""
        _dev_origin(origin)
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return cls(path, origin)
        with os.fdopen(handle, "w") as file:
            file.write(f"ratchet notary key, for a first look only\n{seed}\n")
            file.flush()
            os.fsync(file.fileno())
        return cls(path, origin)

    @property
    def name(self) -> str:
        return self._name

    def signing(self) -> Sequence[int]:
        return (1,)

    def latest(self) -> int:
        return 1

    def sign(self, body: bytes, key_version: int | None = None) -> bytes:
        if key_version not in (None, 1):
            raise Refused(f"key version {key_version}; the local notary has only 1", kind="notary-version")
        return self._key.sign(body)

    def vkey(self, key_version: int) -> str:
        if key_version != 1:
            raise Refused(f"key version {key_version}; the local notary has only 1", kind="notary-version")
        return str(VerifierKey(self._name, self._key.public_key().public_bytes_raw()))

    def vkeys(self) -> list[str]:
        return [self.vkey(1)]


class VaultNotary:
    """An Ed25519 key of Vault's transit engine. Its role needs `update` on sign/KEY and `read` on keys/KEY, no more.

    Its versions are read again every minute: a rotation, and an old version's retirement (`min_encryption_version`), are
    taken up while running.
    """

    def __init__(
        self, client: hvac.Client, *, key: str, origin: str, mount: str = "transit", clock: Clock | None = None
    ) -> None:
        if not valid_name(origin) or origin.startswith("dev."):
            raise Refused(
                f"origin {origin!r}; accepted: a name without spaces or plus that does not begin with dev.",
                kind="notary-origin",
                field="origin",
            )
        self._client = client
        self._key = key
        self._name = origin
        self._mount = mount
        self._clock = clock or SystemClock()
        self._versions: dict[int, str] = {}
        self._oldest = 1  # that may still sign
        self._read_again_at = 0.0

    @property
    def name(self) -> str:
        return self._name

    def signing(self) -> Sequence[int]:
        versions = self._read_versions(again=self._clock.monotonic() >= self._read_again_at)
        return [version for version in sorted(versions) if version >= self._oldest]

    def latest(self) -> int:
        return max(self._read_versions())

    def sign(self, body: bytes, key_version: int | None = None) -> bytes:
        """One call. The version is pinned: the default jumps on rotation. No hash options: they are a 400."""
        version = self.latest() if key_version is None else key_version
        text = base64.b64encode(body).decode()
        reply = self._call("sign", {"input": text, "key_version": version})
        match = _SIGNATURE.fullmatch(str(reply.get("signature")))
        if match is None or int(match[1]) != version:
            raise Unavailable(f"transit key {self._key!r} answered something else than a version {version} signature")
        return base64.b64decode(match[2], validate=True)

    def vkey(self, key_version: int) -> str:
        versions = self._read_versions()
        if key_version not in versions:
            raise Refused(
                f"transit key {self._key!r} has no version {key_version}; it has {sorted(versions)}",
                kind="notary-version",
            )
        return versions[key_version]

    def vkeys(self) -> list[str]:
        versions = self._read_versions()
        return [versions[version] for version in sorted(versions)]

    def _read_versions(self, *, again: bool = False) -> Mapping[int, str]:
        if again or not self._versions:
            reply = self._call("keys", None)
            if reply.get("type") != "ed25519":
                raise Refused(
                    f"transit key {self._key!r} is of type {reply.get('type')!r}; accepted: ed25519", kind="notary-key"
                )
            keys = cast("Mapping[str, Mapping[str, str]]", reply["keys"])
            for version, row in keys.items():
                public = base64.b64decode(row["public_key"], validate=True)
                self._versions[int(version)] = str(VerifierKey(self._name, public))
            self._oldest = max(int(reply["min_encryption_version"]), min(map(int, keys)))  # 0: any that is there
            self._read_again_at = self._clock.monotonic() + VERSIONS_S
        return self._versions

    def _call(self, verb: str, body: dict[str, Any] | None) -> Mapping[str, Any]:
        path = f"/v1/{self._mount}/{verb}/{self._key}"
        adapter = cast("Any", self._client).adapter
        try:
            reply = adapter.get(path) if body is None else adapter.post(path, json=body)
        except hvac.exceptions.Forbidden as exc:
            raise Refused(
                f"Vault forbids {verb} of transit key {self._key!r} to our role", kind="notary-forbidden"
            ) from exc
        except hvac.exceptions.InvalidPath as exc:
            raise Refused(f"Vault has no transit key {self._key!r} under {self._mount!r}", kind="notary-key") from exc
        except hvac.exceptions.InvalidRequest as exc:
            raise Refused(f"Vault refused {verb} of transit key {self._key!r}: {exc}", kind="notary-key") from exc
        except hvac.exceptions.InternalServerError as exc:
            if "version" in str(exc):
                self._read_again_at = 0.0  # what we hold is stale
                raise Refused(
                    f"transit key {self._key!r}: the version is retired: {exc}", kind="notary-version"
                ) from exc
            raise Unavailable(f"Vault failed to {verb} with transit key {self._key!r}: {exc}") from exc
        except (hvac.exceptions.VaultError, requests.exceptions.RequestException) as exc:
            raise Unavailable(f"Vault is away or sealed: {verb} of transit key {self._key!r}: {exc}") from exc
        return cast("Mapping[str, Any]", reply["data"])


def _dev_origin(origin: str) -> str:
    if not valid_name(origin) or not origin.startswith("dev."):
        raise Refused(
            f"origin {origin!r} of a local key; accepted: a name that begins with dev.",
            kind="notary-origin",
            field="origin",
        )
    return origin


def _read_seed(path: Path) -> bytes:
    """The key file's seed. Refused unless it is a plain file of ours that nobody else can open."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "r") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) != 0o600:
            mode = f"{stat.S_IMODE(state.st_mode):04o}"
            raise Refused(
                f"{path}: mode {mode}, owner {state.st_uid}; accepted: a plain file of our own with mode 0600",
                kind="notary-key-file",
            )
        match = _KEY_FILE.fullmatch(file.read())
    if match is None:
        raise Refused(f"{path} is not a notary key file; accepted: one made by `ratchet up`", kind="notary-key-file")
    return base64.b64decode(match["seed"], validate=True)
