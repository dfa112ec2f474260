"""A Vault server as a process of this machine: `vault` or `bao` from the path, else built once from its Go module.

A real server with storage on disk, sealed at every start and unsealed with a key from the state folder: right for tests and a
developer's own machine, never for production, where the unseal key and the server are somebody else's.
"""

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from infra.settings import load
from schemas.errors import Refused, Unavailable

from .ports import LOOPBACK, free_ports, taken
from .processes import Running, kill, start, wait_until
from .roles import EVIDENCE_PASSWORD, GATE_SECRET, MOUNT, ROLE, ROLES, SHREDDER_PASSWORD, SIGNING_KEYS, policies

VERSION = "1.21.2"
_SOURCE = Path(__file__).parent / "vault"


class VaultServer(BaseModel):
    """A server that we may administer. Holds its root token: kept in a file of mode 0600, never printed."""

    model_config = ConfigDict(frozen=True)

    addr: str
    root_token: str
    unseal_key: str = ""

    def __repr__(self) -> str:
        return f"VaultServer({self.addr!r})"

    __str__ = __repr__

    def call(self, method: str, path: str, body: object = None, *, wrap_s: int = 0, token: str = "") -> Any:
        """One call of Vault's HTTP API with the root token (or `token`); None for an empty answer."""
        extra = {"X-Vault-Wrap-TTL": f"{wrap_s}s"} if wrap_s else {}
        return call(self.addr, method, path, body, token=token or self.root_token, headers=extra)

    def configure(self) -> None:
        """AppRole, KV v2, transit with our signing keys, policies, the commitment key and the gate's.

        Safe to repeat; keys that are there stay.
        """
        auth = self.call("GET", "sys/auth")["data"]
        mounts = self.call("GET", "sys/mounts")["data"]
        if "approle/" not in auth:
            self.call("POST", "sys/auth/approle", {"type": "approle"})
        if f"{MOUNT}/" not in mounts:
            self.call("POST", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})
        if "transit/" not in mounts:
            self.call("POST", "sys/mounts/transit", {"type": "transit"})
        for key in SIGNING_KEYS:
            self.call("POST", f"transit/keys/{key}", {"type": "ed25519"})
        self.allow()
        for role, policy in ROLES.items():
            self.role(role, [policy], period_s=3600)
        for path in ("commitment", GATE_SECRET):
            with contextlib.suppress(Refused):  # check-and-set 0: only where there is none yet
                self.put(path, {"key": secrets.token_hex(32)}, cas=0)

    def allow(self, evidence_password: str = EVIDENCE_PASSWORD, shredder_password: str = SHREDDER_PASSWORD) -> None:
        """Put the policies there, in place of those of that name. The passwords: where those of these two processes lie."""
        for name, text in policies(evidence_password, shredder_password).items():
            self.call("PUT", f"sys/policies/acl/{name}", {"policy": text})

    def role(
        self, name: str, policies: Sequence[str], *, period_s: int = 0, ttl_s: int = 0, max_ttl_s: int = 0
    ) -> None:
        """An AppRole whose secret ids are good for one login."""
        self.call(
            "POST",
            f"auth/approle/role/{name}",
            {
                "token_policies": list(policies),
                "token_period": period_s,
                "token_ttl": ttl_s,
                "token_max_ttl": max_ttl_s,
                "secret_id_num_uses": 1,
                "secret_id_ttl": "600s",
            },
        )

    def put(self, path: str, values: dict[str, str], *, cas: int | None = None) -> None:
        """Keep `values` under `path` of our KV mount."""
        options = {} if cas is None else {"cas": cas}
        wait_until(self._kv_ready, None, timeout_s=10, what="Vault's KV mount")
        self.call("POST", f"{MOUNT}/data/{path}", {"data": values, "options": options})

    def role_id(self, name: str = ROLE) -> str:
        return self.call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]

    def new_approle(
        self, policies: Sequence[str] = ("ratchet-agent",), *, ttl_s: int = 3600, max_ttl_s: int = 0
    ) -> tuple[str, str]:
        """A fresh AppRole; (role id, wrapped secret id)."""
        name = f"role-{secrets.token_hex(6)}"
        self.role(name, policies, ttl_s=ttl_s, max_ttl_s=max_ttl_s)
        return self.role_id(name), self.wrapped_secret_id(name)

    def wrapped_secret_id(self, role: str = ROLE, *, wrap_s: int = 120, token: str = "") -> str:
        """A response-wrapped secret id: whoever unwraps it first has it, and whoever comes second knows."""
        answer = self.call("POST", f"auth/approle/role/{role}/secret-id", {}, wrap_s=wrap_s, token=token)
        return answer["wrap_info"]["token"]

    def login(self, role: str) -> str:
        """A token of the role, as a process of it has; whoever asks revokes it."""
        secret_id = self.call("POST", f"auth/approle/role/{role}/secret-id", {})["data"]["secret_id"]
        said = {"role_id": self.role_id(role), "secret_id": secret_id}
        return call(self.addr, "POST", "auth/approle/login", said)["auth"]["client_token"]

    def issuer_token(self, policy: str = "ratchet-issuer") -> str:
        """A token that can do nothing but hand out wrapped secret ids: of every role, for the supervisor of the agents.

        `ratchet-training-issuer`: of training jobs' role alone, for whoever starts them.
        """
        body = {"policies": [policy], "period": "24h", "no_default_policy": True, "no_parent": True}
        return self.call("POST", "auth/token/create", body)["auth"]["client_token"]

    def privacy_token(self) -> str:
        """A token that makes pseudonyms and opens people's texts: for whoever answers people about themselves."""
        body = {"policies": ["ratchet-privacy"], "period": "768h", "no_parent": True}
        return self.call("POST", "auth/token/create", body)["auth"]["client_token"]

    def operator_token(self) -> str:
        """A token that can hand out principals' keys and read Kafka's passwords: for the command line of this machine's user."""
        body = {"policies": ["ratchet-operator"], "period": "768h", "no_parent": True}
        return self.call("POST", "auth/token/create", body)["auth"]["client_token"]

    def revoke_accessors(self) -> int:
        """Revoke every token but the root's; how many there were."""
        own = self.call("GET", "auth/token/lookup-self")["data"]["accessor"]
        others = [a for a in self.call("LIST", "auth/token/accessors")["data"]["keys"] if a != own]
        for accessor in others:
            self.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        return len(others)

    def seal(self) -> None:
        """From here Vault serves nothing until it is unsealed."""
        self.call("PUT", "sys/seal")

    def unseal(self) -> None:
        self.call("PUT", "sys/unseal", {"key": self.unseal_key})
        wait_until(lambda: health(self.addr) == 200, None, timeout_s=20, what="Vault after the unseal")

    def _kv_ready(self) -> bool:
        try:
            self.call("GET", f"{MOUNT}/config")
        except (Refused, Unavailable):  # a new KV v2 mount upgrades itself for a moment
            return False
        return True


def vault_program(cache_dir: Path, progress: Callable[[str], None] = lambda _: None) -> str:
    """The server's program, built from its Go module when it is not on the path; `Unavailable` says what to install."""
    for name in ("vault", "bao"):
        if found := shutil.which(name):
            return found
    home = cache_dir / f"vault-{VERSION}"
    program = home / "vault"
    if program.exists():
        return str(program)
    if shutil.which("go") is None:
        raise Unavailable(
            "Vault is not here: neither VAULT_ADDR, nor a Docker daemon, nor vault or bao on the path, nor Go to build it; "
            "install one of them"
        )
    progress("building the Vault server from its Go module: about 6 minutes, once")
    cache_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="vault-", dir=cache_dir))
    try:
        for name in ("main.go", "go.mod", "go.sum"):
            shutil.copy(_SOURCE / name, work / name)
        argv = ["nice", "go", "build", "-mod=readonly", "-tags", "minimal", "-ldflags", "-s -w", "-o", "vault", "."]
        done = subprocess.run(argv, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"the Vault server did not build; go ended with:\n{done.stderr.strip()[-800:]}")
        work.chmod(0o755)
        with contextlib.suppress(OSError):  # another run was faster: its build is as good as ours
            work.rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return str(program)


def start_vault(
    program: str, folder: Path, port: int, *, log: Path | None = None, tag: str = ""
) -> tuple[Running, VaultServer]:
    """Start a server on loopback with its storage in `folder`, initialised the first time, unsealed, configured."""
    if taken(port):
        raise Unavailable(
            f"port {port} is taken, Vault cannot listen there: stop what listens, or give another --vault-port"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    addr = f"http://{LOOPBACK}:{port}"
    config = folder / "vault.hcl"
    (cluster_port,) = free_ports(1)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    config.write_text(
        f'storage "raft" {{\n  path = "{data}"\n  node_id = "local"\n  performance_multiplier = 1\n}}\n'
        f'listener "tcp" {{\n  address = "{LOOPBACK}:{port}"\n  cluster_address = "{LOOPBACK}:{cluster_port}"\n'
        "  tls_disable = true\n}\n"
        f'disable_mlock = true\napi_addr = "{addr}"\ncluster_addr = "http://{LOOPBACK}:{cluster_port}"\n'
        'ui = false\nlog_level = "warn"\n',
        encoding="utf-8",
    )
    running = start("vault", [program, "server", f"-config={config}"], log=log or folder / "vault.log", tag=tag)
    try:
        wait_until(lambda: health(addr) in {200, 501, 503}, running, timeout_s=30, what="Vault")
        server = opened(addr, folder / "keys.json")
        server.configure()
    except (Unavailable, Refused):
        kill(running)
        raise
    return running, server


def health(addr: str) -> int:
    """The status of sys/health: 200 ready, 429 standby, 501 not initialised, 503 sealed; 0 when nothing answers."""
    parts = urlsplit(addr)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname or LOOPBACK, parts.port, timeout=3)
    try:
        connection.request("GET", "/v1/sys/health")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def call(
    addr: str, method: str, path: str, body: object = None, *, token: str = "", headers: dict[str, str] | None = None
) -> Any:
    """One call of Vault's HTTP API. `Refused` with Vault's own words for 4xx, `Unavailable` for anything it cannot do now."""
    parts = urlsplit(addr)
    made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = made(parts.hostname or LOOPBACK, parts.port, timeout=15)
    try:
        connection.request(
            method,
            f"/v1/{path}",
            None if body is None else json.dumps(body),
            {"X-Vault-Request": "true"} | ({"X-Vault-Token": token} if token else {}) | (headers or {}),
        )
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as fault:
        raise Unavailable(f"Vault at {addr} did not answer: {fault}") from fault
    finally:
        connection.close()
    if response.status >= 500:
        raise Unavailable(f"Vault at {addr} answered {response.status} to {method} {path}")
    if response.status >= 400:
        raise Refused(f"Vault refused {method} {path}: {answer.decode('utf-8', 'replace')[:300]}", kind="vault")
    return json.loads(answer) if answer else None


@contextlib.contextmanager
def running_vault(folder: Path, cache_dir: Path) -> Generator[VaultServer, None, None]:
    """A fresh, configured server for the length of a `with`."""
    (port,) = free_ports(1)
    running, server = start_vault(vault_program(cache_dir), folder, port)
    try:
        yield server
    finally:
        kill(running)


@contextlib.asynccontextmanager
async def vault_server(folder: Path, cache_dir: Path | None = None) -> AsyncGenerator[VaultServer, None]:
    """The same for asyncio."""
    context = running_vault(folder, cache_dir or load().resolved().cache_dir)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def opened(addr: str, keys: Path) -> VaultServer:
    """The server at `addr`, initialised where it is new (its keys go to the file `keys`, mode 0600), and unsealed."""
    if call(addr, "GET", "sys/init")["initialized"]:
        if not keys.exists():
            raise Refused(
                f"Vault's storage is initialised, but {keys} with its unseal key is gone: restore that file, or remove "
                f"{keys.parent} and lose what the Vault held",
                kind="vault",
            )
        held = json.loads(keys.read_bytes())
    else:
        made = call(addr, "PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        held = {"unseal_key": made["keys_base64"][0], "root_token": made["root_token"]}
        descriptor = os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as sink:
            json.dump(held, sink)
    server = VaultServer(addr=addr, root_token=held["root_token"], unseal_key=held["unseal_key"])
    server.unseal()
    return server
