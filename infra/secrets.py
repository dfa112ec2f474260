"""Secrets: where keys come from. One port, two adapters: HashiCorp Vault (or OpenBao), and a local file for a first look.

What is read is a mapping of names to texts under a path (`principals/alice`), and two mounts' worth of keys that never leave
here: ed25519 keys that sign by name. No secret is ever part of a repr, a log line or an error.

Vault away: what was read is served on until the token's lease ends, then everything raises `Unavailable` and says why; `status()`
tells before. A revoked token ends at once.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets as entropy
import stat
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import hvac
import hvac.exceptions
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultError

from infra.sealing import GATE_SECRET
from infra.settings import Settings
from schemas.errors import Refused, Unavailable

NOTARY_KEY = "notary"  # signs checkpoints of the evidence log
ATTESTER_KEY = "attestations"  # signs what the evidence log attests of trainings and promotions
MANIFEST_KEY = "adapters"  # signs adapters' manifests
WITNESS_KEY = "witness"  # cosigns checkpoints, for the witness alone
LOCAL_WARNING = (
    "secrets come from a local file: for a first look only, never for production; "
    "set RATCHET_SECRETS=vault for a real secret store"
)


@dataclass(frozen=True, slots=True)
class SecretsStatus:
    """How the secret source is: `detail` says in words why it is not `usable`, or what to know though it is."""

    kind: str
    usable: bool
    lease_left_s: float | None
    detail: str


class SecretSource(Protocol):
    """Keys by path. `close` ends the background work; a closed source is not used again."""

    async def get(self, path: str) -> Mapping[str, str]:
        """What is kept under `path`; empty when there is nothing. Remembered for as long as the adapter's lease allows."""
        ...

    async def latest(self, path: str) -> Mapping[str, str]:
        """As `get`, and never what is remembered: raises `Unavailable` where it cannot be asked for now."""
        ...

    async def commitment_key(self, tenant: str) -> bytes:
        """32 bytes, for ever the same for a tenant: the key of its commitments and pseudonyms."""
        ...

    async def swap(self, path: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """Keep `after` under `path` if `before` is what is there now; False where it is not. For operators: agents only read."""
        ...

    async def fields(self, path: str) -> frozenset[str]:
        """The names of the fields under `path`, for operators who may not read what is in them; empty when there is nothing."""
        ...

    async def patch(self, path: str, before: Collection[str], changes: Mapping[str, str | None]) -> bool:
        """Set fields (None: remove) and leave all others as they are, unread; False where `before` are not the fields there now."""
        ...

    async def sign(self, key: str, body: bytes) -> bytes:
        """The raw 64-byte ed25519 signature over `body` by the named key, one of those made when the source was set up."""
        ...

    async def public_key(self, key: str) -> bytes:
        """The raw 32-byte ed25519 public key that goes with `sign`."""
        ...

    def status(self) -> SecretsStatus: ...

    async def close(self) -> None: ...


def verify_signature(public_key: bytes, body: bytes, signature: bytes) -> bool:
    """Whether `signature` is the ed25519 signature over `body` by the key's owner."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True


async def open_secrets(settings: Settings, warn: Callable[[str], None]) -> "LocalSecrets | VaultSecrets":
    """The source that the settings name. `warn` hears, on every start, that the local one is for a first look only."""
    if settings.secrets == "local":
        warn(LOCAL_WARNING)
        return LocalSecrets.open(settings.state_dir / "secrets.json")
    return await VaultSecrets.open(
        settings.vault_addr or "",
        role_id=settings.vault_role_id,
        wrapped_secret_id=_reveal(settings.vault_wrapped_secret_id),
        token=_reveal(settings.vault_token),
        issuer=settings.vault_issuer,
        role=settings.vault_role,
        mount=settings.vault_mount,
        transit=settings.vault_transit,
        ca=settings.vault_ca,
    )


class LocalSecrets:
    """A JSON file that only its owner may read, made at first use. Refused when others may read it."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self._file = file
        self._content = content

    def __repr__(self) -> str:
        return f"LocalSecrets({str(self._file)!r})"

    @classmethod
    def open(cls, file: Path) -> "LocalSecrets":
        """Read the file, or make it with fresh keys. Several processes may do so at once: one of them wins."""
        if not file.exists():
            fresh = {
                "commitment": entropy.token_hex(32),
                "keys": {name: entropy.token_hex(32) for name in (NOTARY_KEY, MANIFEST_KEY)},
                "secrets": {},
            }
            _create_private(file, json.dumps(fresh, indent=1).encode())
        source = cls(file, _read_private(file))
        if GATE_SECRET not in source._content["secrets"]:
            source._make_gate_key()
        return source

    async def get(self, path: str) -> Mapping[str, str]:
        self._content = _read_private(self._file)  # another process may have added a principal
        return {str(k): str(v) for k, v in self._content["secrets"].get(path, {}).items()}

    async def put(self, path: str, values: Mapping[str, str]) -> None:
        """Keep `values` under `path`: what an operator does by hand or by `ratchet`. The file is replaced whole."""
        with _locked(self._file):
            self._put(path, values)

    async def swap(self, path: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        with _locked(self._file):
            if await self.get(path) != dict(before):
                return False
            self._put(path, after)
            return True

    async def latest(self, path: str) -> Mapping[str, str]:
        return await self.get(path)

    async def fields(self, path: str) -> frozenset[str]:
        return frozenset(await self.get(path))

    async def patch(self, path: str, before: Collection[str], changes: Mapping[str, str | None]) -> bool:
        with _locked(self._file):
            held = await self.get(path)
            if set(held) != set(before):
                return False
            merged = {**held, **changes}
            self._put(path, {name: text for name, text in merged.items() if text is not None})
            return True

    def _make_gate_key(self) -> None:
        """Once, whoever comes first."""
        with _locked(self._file):
            if GATE_SECRET not in _read_private(self._file)["secrets"]:
                self._put(GATE_SECRET, {"key": entropy.token_hex(32)})
        self._content = _read_private(self._file)

    def _put(self, path: str, values: Mapping[str, str]) -> None:
        content = _read_private(self._file)
        content["secrets"][path] = dict(values)
        _replace_private(self._file, json.dumps(content, indent=1).encode())
        self._content = content

    async def commitment_key(self, tenant: str) -> bytes:
        return _derived(bytes.fromhex(self._content["commitment"]), tenant)

    async def sign(self, key: str, body: bytes) -> bytes:
        return self._key(key).sign(body)

    async def public_key(self, key: str) -> bytes:
        return self._key(key).public_key().public_bytes_raw()

    def status(self) -> SecretsStatus:
        return SecretsStatus("local", True, None, LOCAL_WARNING)

    async def close(self) -> None:
        return

    def _key(self, name: str) -> Ed25519PrivateKey:
        seeds = self._content["keys"]
        # A name that the file does not list is derived from its notary seed: processes agree without writing.
        seed = bytes.fromhex(seeds[name]) if name in seeds else _derived(bytes.fromhex(seeds[NOTARY_KEY]), name)
        return Ed25519PrivateKey.from_private_bytes(seed)


class VaultSecrets:
    """Vault through hvac: AppRole with a wrapped secret id (unwrapped once, at the start), KV v2, transit, lease renewal.

    hvac blocks, so every call runs on a thread; calls are few (keys are remembered; a signature is one call).
    """

    def __init__(self, client: Any, mount: str, transit: str, lease_s: float, *, renewable: bool, ours: bool) -> None:
        self._client = client
        self._mount = mount
        self._transit = transit
        self._lease_s = lease_s
        self._renewable = renewable
        self._ours = ours  # the token came from our own login: given back at the end
        self._ends = time.monotonic() + lease_s
        self._why = ""  # why the lease is over, or why the last renewal failed
        self._revoked = False
        self._held: dict[str, Mapping[str, str]] = {}
        self._public: dict[str, bytes] = {}
        self._renewal: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"VaultSecrets({self._client.url!r}, mount={self._mount!r})"

    @property
    def client(self) -> Any:
        """The logged-in hvac client (its calls have no types), for the notary of this process. Blocking."""
        return self._client

    @classmethod
    async def open(
        cls,
        addr: str,
        *,
        role_id: str | None = None,
        wrapped_secret_id: str | None = None,
        token: str | None = None,
        issuer: Path | None = None,
        role: str = "ratchet",
        mount: str = "ratchet",
        transit: str = "transit",
        ca: Path | None = None,
        timeout_s: int = 5,
    ) -> "VaultSecrets":
        """Log in and start renewing. `Refused` when the credentials are not accepted, `Unavailable` when Vault is away.

        A token is used as it is; else a wrapped secret id; else the issuer's file gives one.
        """
        client: Any = hvac.Client(url=addr, timeout=timeout_s, verify=str(ca) if ca else True)
        if token is None and wrapped_secret_id is None and issuer is not None:
            wrapped_secret_id = await _on_thread(_issued, client, role, issuer)
        lease_s, renewable = await _on_thread(_log_in, client, role_id, wrapped_secret_id, token)
        source = cls(client, mount, transit, lease_s, renewable=renewable, ours=token is None)
        if lease_s != float("inf"):
            source._renewal = asyncio.create_task(source._renew_for_ever(), name="vault lease renewal")
        return source

    async def get(self, path: str) -> Mapping[str, str]:
        self._check()
        try:
            _, self._held[path] = await self._latest(path)
        except Unavailable:
            if path not in self._held:
                raise
        return self._held[path]

    async def latest(self, path: str) -> Mapping[str, str]:
        self._check()
        _, self._held[path] = await self._latest(path)
        return self._held[path]

    async def fields(self, path: str) -> frozenset[str]:
        self._check()
        return (await self._fields(path))[1]

    async def _fields(self, path: str) -> tuple[int, frozenset[str]]:
        """The secret's version and the names of its fields; version 0 where there is none."""
        url = f"/v1/{self._mount}/subkeys/{path}"
        try:
            answer = await self._call(self._client.adapter.get, url, params={"depth": 1})
        except InvalidPath:
            return 0, frozenset()
        return int(answer["data"]["metadata"]["version"]), frozenset(answer["data"]["subkeys"] or ())

    async def patch(self, path: str, before: Collection[str], changes: Mapping[str, str | None]) -> bool:
        """By Vault's check-and-set: the version that had the fields `before`."""
        self._check()
        version, held = await self._fields(path)
        if held != frozenset(before):
            return False
        try:
            await self._call(
                self._client.adapter.request,
                "patch",
                f"/v1/{self._mount}/data/{path}",
                json={"data": dict(changes), "options": {"cas": version}},
                headers={"Content-Type": "application/merge-patch+json"},
            )
        except (InvalidRequest, InvalidPath):  # another version meanwhile, or it is gone
            return False
        return True

    async def _latest(self, path: str) -> tuple[int, dict[str, str]]:
        """The secret's version and fields; version 0 where there is none."""
        try:
            answer = await self._call(
                self._client.secrets.kv.v2.read_secret_version,
                path=path,
                mount_point=self._mount,
                raise_on_deleted_version=True,
            )
        except InvalidPath:
            return 0, {}
        found = answer["data"]
        return int(found["metadata"]["version"]), {str(k): str(v) for k, v in found["data"].items()}

    async def commitment_key(self, tenant: str) -> bytes:
        held = self._held.get("commitment") or await self.get("commitment")
        self._check()
        if "key" not in held:
            raise Refused(
                f"Vault has no secret {self._mount}/commitment with a field key (64 hex digits)", kind="secrets"
            )
        return _derived(_hex_key(held["key"], "commitment"), tenant)

    async def swap(self, path: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """By Vault's check-and-set: the version that held `before`."""
        self._check()
        version, held = await self._latest(path)
        if held != dict(before):
            return False
        try:
            await self._call(
                self._client.secrets.kv.v2.create_or_update_secret,
                path=path,
                secret=dict(after),
                cas=version,
                mount_point=self._mount,
            )
        except InvalidRequest:  # another version meanwhile
            return False
        self._held[path] = dict(after)
        return True

    async def sign(self, key: str, body: bytes) -> bytes:
        self._check()
        answer = await self._call(
            self._client.write_data,
            f"{self._transit}/sign/{key}",
            data={"input": b64encode(body).decode()},
        )
        return b64decode(str(answer["data"]["signature"]).rpartition(":")[2])

    async def public_key(self, key: str) -> bytes:
        self._check()
        if key not in self._public:
            answer = await self._call(self._client.read, f"{self._transit}/keys/{key}")
            if answer is None:
                raise Refused(
                    f"Vault has no transit key {key!r} under {self._transit}: make it with type ed25519", kind="secrets"
                )
            data = answer["data"]
            if data["type"] != "ed25519":
                raise Refused(
                    f"Vault's transit key {key!r} is of type {data['type']}, ed25519 is accepted", kind="secrets"
                )
            self._public[key] = b64decode(data["keys"][str(data["latest_version"])]["public_key"])
        return self._public[key]

    def status(self) -> SecretsStatus:
        left = self._ends - time.monotonic()
        usable = left > 0 and not self._revoked
        return SecretsStatus("vault", usable, max(0.0, left), self._why)

    async def close(self) -> None:
        """Stop renewing and give the token back. What Vault says to that changes nothing any more."""
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
        if self._ours:
            with contextlib.suppress(Unavailable, VaultError):
                await _on_thread(self._client.auth.token.revoke_self)
        self._held.clear()
        self._client.adapter.close()

    def _check(self) -> None:
        if self._revoked or time.monotonic() >= self._ends:
            why = self._why or "it was not renewed in time"
            raise Unavailable(f"Vault's lease has ended: {why}; start again with a fresh wrapped secret id")

    async def _call(self, call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        try:
            return await _on_thread(call, *args, **kwargs)
        except Forbidden as fault:
            # 403 is said of a token that is gone and of a path that the policy does not open: ask which.
            await self._renew()
            self._check()
            raise Refused(
                "Vault's policy does not let this role do that; docs/security.md lists what it needs", kind="secrets"
            ) from fault

    async def _renew(self) -> None:
        try:
            if self._renewable:
                answer = await _on_thread(self._client.auth.token.renew_self)
                lease_s = float(answer["auth"]["lease_duration"])
            else:
                answer = await _on_thread(self._client.auth.token.lookup_self)
                lease_s = float(answer["data"]["ttl"]) or float("inf")
        except (Forbidden, InvalidRequest):  # 400, "token not found", where it ends between Vault's two looks at it
            self._revoked, self._why = True, "Vault no longer knows the token (revoked or expired)"
        except Unavailable as fault:
            self._why = str(fault)
        else:
            self._ends = time.monotonic() + lease_s
            self._why = ""

    async def _renew_for_ever(self) -> None:
        while not self._revoked:
            left = max(0.0, self._ends - time.monotonic())
            healthy = self._why == ""
            await asyncio.sleep(max(0.05, min(left / 3 if healthy else left / 10, self._lease_s / 3)))
            await self._renew()
            if time.monotonic() >= self._ends and not self._why:
                self._why = "its longest allowed life is over"


def _log_in(client: Any, role_id: str | None, wrapped_secret_id: str | None, token: str | None) -> tuple[float, bool]:
    """Seconds the token lives (infinite for a root token) and whether it can be renewed."""
    if token is not None:
        client.token = token
        try:
            data = client.auth.token.lookup_self()["data"]
        except Forbidden as fault:
            raise Refused("Vault does not accept the token RATCHET_VAULT_TOKEN", kind="secrets") from fault
        return float(data["ttl"]) or float("inf"), bool(data.get("renewable"))  # a root token does not say
    if role_id is None or wrapped_secret_id is None:
        raise Refused("Vault needs RATCHET_VAULT_ROLE_ID and RATCHET_VAULT_WRAPPED_SECRET_ID", kind="secrets")
    try:
        client.token = wrapped_secret_id  # Vault unwraps what it is called with, once
        unwrapped = client.sys.unwrap()
    except VaultError as fault:
        if _is_away(fault):
            raise
        raise Refused(
            "the wrapped secret id was already used, or has expired: if this process did not use it, somebody else did, so "
            "withdraw it; then start again with a fresh one (vault write -wrap-ttl=120s -f auth/approle/role/ROLE/secret-id)",
            kind="secrets",
        ) from fault
    try:
        auth = client.auth.approle.login(role_id=role_id, secret_id=unwrapped["data"]["secret_id"])["auth"]
    except VaultError as fault:
        if _is_away(fault):
            raise
        raise Refused("Vault does not accept the role id with this secret id", kind="secrets") from fault
    return float(auth["lease_duration"]), bool(auth["renewable"])


def _issued(client: Any, role: str, issuer: Path) -> str:
    """A wrapped secret id, good for one login, from the token in the file."""
    try:
        client.token = issuer.read_text(encoding="utf-8").strip()
        answer = client.auth.approle.generate_secret_id(role, wrap_ttl="120s")
    except OSError as fault:
        raise Refused(f"RATCHET_VAULT_ISSUER={issuer} cannot be read: {fault.strerror}", kind="secrets") from fault
    except Forbidden as fault:
        raise Refused(
            f"Vault lets the token in RATCHET_VAULT_ISSUER={issuer} issue no wrapped secret id of role {role!r}: it has ended, or its "
            f"policy lacks update on auth/approle/role/{role}/secret-id",
            kind="secrets",
        ) from fault
    return str(answer["wrap_info"]["token"])


def _is_away(fault: BaseException) -> bool:
    """Sealed, standby, overloaded or broken, rather than saying no."""
    return isinstance(
        fault,
        hvac.exceptions.VaultDown
        | hvac.exceptions.InternalServerError
        | hvac.exceptions.BadGateway
        | hvac.exceptions.RateLimitExceeded
        | hvac.exceptions.VaultNotInitialized,
    )


async def _on_thread(call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    """Run a blocking call of hvac; away is `Unavailable`, everything else stays what it is."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except requests.exceptions.RequestException as fault:
        raise Unavailable(f"Vault did not answer: {type(fault).__name__}", retry_after_s=1.0) from fault
    except VaultError as fault:
        if _is_away(fault):
            sealed = "it is sealed" if isinstance(fault, hvac.exceptions.VaultDown) else type(fault).__name__
            raise Unavailable(f"Vault does not serve: {sealed}", retry_after_s=1.0) from fault
        raise


def _derived(master: bytes, name: str) -> bytes:
    return hmac.new(master, name.encode(), hashlib.sha256).digest()


def _hex_key(text: str, path: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < 16:
        raise Refused(f"the field key of the secret {path!r} is not at least 32 hex digits", kind="secrets")
    return key


def _reveal(secret: Any) -> str | None:
    return None if secret is None else secret.get_secret_value()


@contextlib.contextmanager
def _locked(file: Path) -> Generator[None, None, None]:
    """One writer at a time, among processes too. The lock's file holds nothing and stays."""
    with file.with_name(f".{file.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _create_private(file: Path, content: bytes) -> None:
    """Make the file whole or not at all, mode 0600; leave one that another process made first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = _write_beside(file, content)
    with contextlib.suppress(FileExistsError):
        os.link(fresh, file)
    fresh.unlink()


def _replace_private(file: Path, content: bytes) -> None:
    _write_beside(file, content).replace(file)


def _write_beside(file: Path, content: bytes) -> Path:
    fresh = file.with_name(f".{file.name}.{entropy.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    return fresh


def _read_private(file: Path) -> dict[str, Any]:
    status = file.stat()
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Refused(
            f"{file} may be read by others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it, and make new keys if it "
            "was seen",
            kind="secrets",
        )
    try:
        content = json.loads(file.read_bytes())
        bytes.fromhex(content["commitment"])
        for seed in content["keys"].values():
            bytes.fromhex(seed)
        content["secrets"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        # No cause: the parser's message may quote what it read.
        raise Refused(
            f"{file} is not a secrets file of ours: restore it, or remove it to have new keys made", kind="secrets"
        ) from None
    return content
