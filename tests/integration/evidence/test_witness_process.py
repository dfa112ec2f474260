"""The witness as it runs: `python -m agents witness`, over HTTP, killed and started again, with a local key and with a real Vault's."""

import asyncio
import hashlib
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from witnessed import LOG, ORIGIN, Signer, Tree

from infra.notary import verify
from infra.settings import process_environment
from infra.witness_client import HttpWitnesses, RolledBack, SplitView
from schemas.tlog.note import COSIGNER, VerifierKey, parse_vkey
from schemas.tlog.policy import Policy, Witness, open_checkpoint
from schemas.tlog.witnessing import MAX_REQUEST, SIZE_TYPE, AddCheckpoint
from tools.stack.ports import free_ports

ROOT = Path(__file__).parents[3]
TREE = Tree.of(30)
FORK = Tree(TREE.entries[:3] + Tree.of(27, "fork").entries)
WITNESS_ONLY = """
path "transit/sign/witness" { capabilities = ["update"] }
path "transit/keys/witness" { capabilities = ["read"] }
"""


class Place:
    """A witness's folder, its settings, and the process when it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs.policy"
        self.logs.write_text(f"log {LOG.key}\nquorum none\n")
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.login: Callable[[], dict[str, str]] = lambda: {"RATCHET_WITNESS_NAME": "dev.witness/process"}

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in process_environment().items() if not k.startswith(("RATCHET_", "VAULT_"))}
        return {
            **inherited,
            "RATCHET_STATE_DIR": str(self.folder / "state"),
            "RATCHET_WITNESS_DIR": str(self.folder / "witness"),
            "RATCHET_WITNESS_LOGS": str(self.logs),
            "RATCHET_WITNESS_LISTEN": f"127.0.0.1:{self.port}",
            **self.login(),
        }

    async def start(self, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agents", "witness", *more, cwd=ROOT, env=self.environment(),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def vkey(self) -> VerifierKey:
        """What `--vkey` prints."""
        process = await self.start("--vkey")
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, err.decode()
        return parse_vkey(out.decode().removesuffix("\n"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process once it answers; killed at the end if it still runs."""
        process = await self.start()
        try:
            async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
                while True:
                    assert process.returncode is None, (await process.communicate())[1].decode()
                    try:
                        await client.get(f"{self.url}/{'0' * 64}/checkpoint")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    def client(self, key: VerifierKey) -> HttpWitnesses:
        return HttpWitnesses(self.policy(key), verify)

    def policy(self, key: VerifierKey) -> Policy:
        return Policy((LOG.key,), {"w": Witness(key, self.url)}, {}, "w")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def vault_place(tmp_path: Path, vault: Any) -> Place:
    """A place whose key is in Vault, and whose role can do nothing but sign with it."""
    vault.configure()
    vault.call("POST", "transit/keys/witness", {"type": "ed25519"})
    policy = f"witness-{secrets.token_hex(4)}"
    vault.call("PUT", f"sys/policies/acl/{policy}", {"policy": WITNESS_ONLY})
    made = Place(tmp_path)

    def login() -> dict[str, str]:
        role_id, wrapped = vault.new_approle([policy])
        return {
            "RATCHET_SECRETS": "vault",
            "VAULT_ADDR": vault.addr,
            "RATCHET_VAULT_ROLE_ID": role_id,
            "RATCHET_VAULT_WRAPPED_SECRET_ID": wrapped,
            "RATCHET_WITNESS_NAME": "witness.example/process",
        }

    made.login = login
    return made


async def grow(witnesses: HttpWitnesses, size: int, tree: Tree = TREE) -> bytes:
    """The note of `size` entries with the witness's line."""
    said = await witnesses.cosign(tree.checkpoint(size), tree.signed(size), tree.prove(size))
    assert said.missing == {}
    return tree.signed(size) + "".join(said.lines).encode()


@pytest.mark.parametrize("kind", ["place", "vault_place"])
async def test_a_killed_witness_remembers(kind: str, request: pytest.FixtureRequest) -> None:
    """Killed between requests and started again it has the same key and answers, and knows a rollback and a split view."""
    place: Place = request.getfixturevalue(kind)
    key = await place.vkey()
    assert key.kind == COSIGNER
    witnesses = place.client(key)
    async with place.running() as process:
        await grow(witnesses, 5)
        note = await grow(witnesses, 9)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with place.running():
        await witnesses.close()
        witnesses = place.client(key)
        async with httpx.AsyncClient(base_url=place.url, trust_env=False) as http:
            kept = await http.get(f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
            assert (kept.status_code, kept.content) == (200, note)
            asked = await http.post("/add-checkpoint", content=AddCheckpoint(0, (), TREE.signed(3)).encode())
            assert (asked.status_code, asked.content) == (409, b"9\n")
            assert asked.headers["content-type"] == SIZE_TYPE
        with pytest.raises(RolledBack):
            await grow(witnesses, 8)
        for size in (9, 12):
            with pytest.raises(SplitView):
                await grow(witnesses, size, FORK)
        opened = open_checkpoint(await grow(witnesses, 30), place.policy(key), verify)
        assert opened.checkpoint == TREE.checkpoint(30)
    await witnesses.close()


async def test_it_ends_on_request(place: Place) -> None:
    """SIGTERM ends it within two seconds, with exit code 0, also while a connection is kept alive."""
    async with place.running() as process, httpx.AsyncClient(base_url=place.url, trust_env=False) as http:
        assert (await http.get(f"/{'0' * 64}/checkpoint")).status_code == 404
        process.terminate()
        _, err = await asyncio.wait_for(process.communicate(), 2)
        assert process.returncode == 0
        said = [json.loads(line)["event"] for line in err.decode().splitlines()]
        vkey = str(await place.vkey())
        assert any(vkey in line for line in said)


async def test_known_logs_are_read_again(place: Place) -> None:
    """A log's new key is taken without a restart."""
    key = await place.vkey()
    new = Signer(ORIGIN, 8)
    async with place.running(), httpx.AsyncClient(base_url=place.url, trust_env=False) as http:
        body = AddCheckpoint(0, (), TREE.signed(3, new)).encode()
        assert (await http.post("/add-checkpoint", content=body)).status_code == 403
        place.logs.write_text(f"log {LOG.key}\nlog {new.key}\nquorum none\n")
        answer = await http.post("/add-checkpoint", content=body)
        assert answer.status_code == 200
        assert answer.text.startswith(f"— {key.name} ")


async def test_bounds_of_a_request(place: Place) -> None:
    """More than 64 KiB is refused; other paths and methods are not there."""
    async with place.running(), httpx.AsyncClient(base_url=place.url, trust_env=False) as http:
        assert (await http.post("/add-checkpoint", content=b"x" * (MAX_REQUEST + 2))).status_code == 413
        assert (await http.post("/add-checkpoint", content=b"x" * MAX_REQUEST)).status_code == 400
        assert (await http.get("/add-checkpoint")).status_code == 405
        for path in ("/", "/seen", f"/{'A' * 64}/checkpoint", "/../key", f"/{'0' * 64}/seen"):
            assert (await http.get(path)).status_code == 404


async def test_starts_that_are_refused(place: Place) -> None:
    """No logs named, a second process on the same folder, a local key that does not say so: exit 2, with words."""
    async with place.running():
        second = await place.start()
        _, err = await asyncio.wait_for(second.communicate(), 30)
        assert (second.returncode, "another witness" in err.decode()) == (2, True)
    place.login = lambda: {"RATCHET_WITNESS_NAME": "witness.example/process"}
    process = await place.start()
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, "dev." in err.decode()) == (2, True)
    place.logs.unlink()
    place.login = dict
    process = await place.start()
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2


async def test_the_role_can_do_nothing_else(vault_place: Place, vault: Any) -> None:
    """The witness's login signs as the witness; as the notary, or out of the log's secrets, nothing."""
    login = vault_place.login()
    secret_id = vault.call("POST", "sys/wrapping/unwrap", token=login["RATCHET_VAULT_WRAPPED_SECRET_ID"])["data"]
    body = {"role_id": login["RATCHET_VAULT_ROLE_ID"], "secret_id": secret_id["secret_id"]}
    token = vault.call("POST", "auth/approle/login", body)["auth"]["client_token"]
    assert vault.call("POST", "transit/sign/witness", {"input": "eA=="}, token=token)["data"]["signature"]
    for method, path in (
        ("POST", "transit/sign/notary"),
        ("GET", "transit/keys/notary"),
        ("GET", "ratchet/data/commitment"),
        ("POST", "transit/keys/witness/rotate"),
    ):
        with pytest.raises(Exception, match=r"403|permission denied"):
            vault.call(method, path, {"input": "eA=="} if method == "POST" else None, token=token)


async def test_a_sealed_vault_answers_503(vault_place: Place, vault: Any) -> None:
    """While Vault is sealed nothing is signed and the log is told to come again; afterwards it goes on without a restart."""
    key = await vault_place.vkey()
    witnesses = vault_place.client(key)
    async with vault_place.running():
        await grow(witnesses, 5)
        vault.seal()
        try:
            said = await witnesses.cosign(TREE.checkpoint(9), TREE.signed(9), TREE.prove(9))
        finally:
            vault.unseal()
        assert said.missing == {"w": "it answered 503"}
        await grow(witnesses, 9)
    await witnesses.close()
