"""One contract, two sources: the local file and a real Vault. And what only Vault can do: leases, wraps, seals, policies."""

import asyncio
import secrets as entropy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.sealing import open_gate_keys
from infra.secrets import (
    ATTESTER_KEY,
    MANIFEST_KEY,
    NOTARY_KEY,
    LocalSecrets,
    SecretSource,
    VaultSecrets,
    open_secrets,
    verify_signature,
)
from infra.settings import load
from schemas.errors import Refused, Unavailable
from tools.stack.roles import EVIDENCE_ROLE, TRAINING_ROLE
from tools.stack.supervise import Issuer, renew
from tools.stack.vault import VaultServer

Put = Callable[[str, dict[str, str]], Awaitable[None]]


@dataclass
class Side:
    """A source under test and the operator's way to put a secret into it."""

    source: SecretSource
    put: Put
    server: VaultServer | None = None


@pytest.fixture(params=["local", "vault"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    """Either source, opened."""
    if request.param == "local":
        local = LocalSecrets.open(tmp_path / "secrets.json")
        yield Side(local, local.put)
        return
    server: VaultServer = request.getfixturevalue("vault")
    source = await opened(server)

    async def put(path: str, values: dict[str, str]) -> None:
        await asyncio.to_thread(server.put, path, values)

    yield Side(source, put, server)
    await source.close()


async def keeper_of(side: Side) -> SecretSource:
    """A source that may write: for Vault with an operator's token, for agents may only read."""
    if isinstance(side.source, LocalSecrets):
        return side.source
    assert side.server is not None
    with pytest.raises(Refused, match="policy does not let"):
        await side.source.swap("principals", await side.source.get("principals"), {"x": "y"})
    return await VaultSecrets.open(side.server.addr, token=side.server.operator_token())


async def opened(server: VaultServer, **options: int) -> VaultSecrets:
    """Vault's source with a fresh AppRole that may do what agents, evidence and training jobs may together."""
    role_id, wrapped = server.new_approle(["ratchet-agent", EVIDENCE_ROLE, TRAINING_ROLE], **options)
    return await VaultSecrets.open(server.addr, role_id=role_id, wrapped_secret_id=wrapped)


async def test_absent_is_empty_and_present_is_whole(side: Side) -> None:
    """A path with nothing is empty; what was put is read as it was put."""
    path = f"things/{entropy.token_hex(4)}"
    assert dict(await side.source.get(path)) == {}
    await side.put(path, {"a": "1", "b": "zwei"})
    assert dict(await side.source.get(path)) == {"a": "1", "b": "zwei"}


async def test_commitment_keys_are_fixed_and_per_tenant(side: Side) -> None:
    """32 bytes, the same at every call, another for another tenant."""
    key = await side.source.commitment_key("t")
    assert len(key) == 32
    assert key == await side.source.commitment_key("t")
    assert key != await side.source.commitment_key("u")


async def test_swap_keeps_only_what_nobody_changed(side: Side) -> None:
    """What is there is replaced when it is what was expected, absent included; else nothing changes and the answer is no."""
    path = f"principals/{entropy.token_hex(4)}"
    keeper = await keeper_of(side)
    assert await keeper.swap(path, {}, {"a": "1"})
    assert not await keeper.swap(path, {}, {"a": "2"})
    assert not await keeper.swap(path, {"a": "0"}, {"a": "2"})
    assert dict(await side.source.get(path)) == {"a": "1"}
    assert await keeper.swap(path, {"a": "1"}, {"a": "2", "b": "3"})
    assert dict(await side.source.get(path)) == {"a": "2", "b": "3"}
    await keeper.close()


async def test_a_patch_changes_fields_unread(side: Side) -> None:
    """Those that it names, where the fields are as they were said to be; what is in the others stays, and need not be known."""
    path = f"things/{entropy.token_hex(4)}"
    keeper = side.source
    if side.server is not None:
        keeper = await VaultSecrets.open(side.server.addr, token=side.server.root_token)
    assert await keeper.fields(path) == frozenset()
    assert not await keeper.patch(path, ["a"], {"a": "1"})
    await side.put(path, {"a": "1", "b": "2"})
    assert await keeper.fields(path) == {"a", "b"}
    assert await keeper.patch(path, ["b", "a"], {"c": "3", "a": None})
    assert dict(await side.source.latest(path)) == {"b": "2", "c": "3"}
    assert not await keeper.patch(path, ["a", "b"], {"d": "4"})
    assert dict(await side.source.get(path)) == {"b": "2", "c": "3"}
    if keeper is not side.source:
        await keeper.close()


@pytest.mark.parametrize("key", [NOTARY_KEY, ATTESTER_KEY, MANIFEST_KEY])
async def test_signatures_verify_offline(side: Side, key: str) -> None:
    """Raw ed25519 over the very bytes, checked with the public key alone."""
    body = "a note — with a dash\n".encode()
    signature = await side.source.sign(key, body)
    assert len(signature) == 64
    assert verify_signature(await side.source.public_key(key), body, signature)
    assert not verify_signature(await side.source.public_key(key), body + b"\n", signature)


async def test_status_is_usable(side: Side) -> None:
    """A freshly opened source is usable and says of what kind it is."""
    assert side.source.status().usable
    assert side.source.status().kind in {"local", "vault"}


async def test_wrapped_secret_id_is_good_once(vault: VaultServer) -> None:
    """A wrapped secret id that somebody has used is refused, and the refusal says that somebody has."""
    role_id, wrapped = vault.new_approle()
    source = await VaultSecrets.open(vault.addr, role_id=role_id, wrapped_secret_id=wrapped)
    await source.close()
    with pytest.raises(Refused, match="already used") as refused:
        await VaultSecrets.open(vault.addr, role_id=role_id, wrapped_secret_id=wrapped)
    assert wrapped not in str(refused.value)


async def test_settings_open_vault(vault: VaultServer) -> None:
    """The settings that `ratchet up --vault` gives an agent lead to a working source, with no warning."""
    role_id, wrapped = vault.role_id(), vault.wrapped_secret_id()
    settings = load(
        {
            "RATCHET_SECRETS": "vault",
            "VAULT_ADDR": vault.addr,
            "RATCHET_VAULT_ROLE_ID": role_id,
            "RATCHET_VAULT_WRAPPED_SECRET_ID": wrapped,
        }
    )
    heard: list[str] = []
    source = await open_secrets(settings, heard.append)
    assert heard == []
    assert source.status().kind == "vault"
    await source.close()


async def test_issuer_hands_out_wrapped_ids_and_nothing_else(vault: VaultServer) -> None:
    """The supervisor's token can make a wrapped secret id; it can neither have a bare one nor read a secret."""
    token = vault.issuer_token()
    assert vault.wrapped_secret_id(token=token)
    with pytest.raises(Refused):
        vault.call("POST", "auth/approle/role/ratchet/secret-id", {}, token=token)
    with pytest.raises(Refused):
        vault.call("GET", "ratchet/data/commitment", token=token)


async def test_the_gates_key_is_made_once(vault: VaultServer) -> None:
    """A configured Vault has one, setting it up again leaves it, and a source that may read it gives the same keys each time."""
    policy = 'path "ratchet/data/gate" { capabilities = ["read"] }'
    vault.call("PUT", "sys/policies/acl/reads-gate", {"policy": policy})
    role_id, wrapped = vault.new_approle(["reads-gate"])
    source = await VaultSecrets.open(vault.addr, role_id=role_id, wrapped_secret_id=wrapped)
    keys = await open_gate_keys(source)
    vault.configure()
    assert (await open_gate_keys(source)).mask_key("t") == keys.mask_key("t")
    await source.close()


async def test_lease_is_renewed(vault: VaultServer) -> None:
    """A lease of three seconds lives on for as long as somebody renews it."""
    source = await opened(vault, ttl_s=3)
    await asyncio.sleep(5)
    assert source.status().usable
    assert len(await source.commitment_key("t")) == 32
    await source.close()


async def test_lease_that_may_not_be_renewed_ends_and_says_so(vault: VaultServer) -> None:
    """At the end of a lease's longest life every call is Unavailable with the reason, also what was remembered."""
    source = await opened(vault, ttl_s=2, max_ttl_s=2)
    await source.commitment_key("t")
    await asyncio.sleep(3.2)
    assert not source.status().usable
    with pytest.raises(Unavailable, match="lease has ended"):
        await source.commitment_key("t")
    await source.close()


async def test_revoked_token_ends_at_once(vault: VaultServer) -> None:
    """A revoked token is found at the next call, and nothing is served on."""
    source = await opened(vault)
    await source.get("commitment")
    vault.call("POST", "auth/token/revoke", {"token": source.client.token})
    with pytest.raises(Unavailable, match="revoked"):
        await source.sign("notary", b"x")
    with pytest.raises(Unavailable, match="revoked"):
        await source.get("commitment")
    await source.close()


async def test_policy_that_says_no_is_refused_not_away(vault: VaultServer) -> None:
    """What the role may not do is a refusal; the lease lives on."""
    role_id, wrapped = vault.new_approle(["default"])
    source = await VaultSecrets.open(vault.addr, role_id=role_id, wrapped_secret_id=wrapped)
    with pytest.raises(Refused, match="policy"):
        await source.sign("notary", b"x")
    assert source.status().usable
    await source.close()


async def test_the_latest_is_never_what_is_remembered(vault: VaultServer) -> None:
    """Sealed: `get` serves on what it has read, `latest` says that nobody can be asked."""
    source = await opened(vault)
    held = await source.get("commitment")
    assert await source.latest("commitment") == held
    vault.seal()
    try:
        assert await source.get("commitment") == held
        with pytest.raises(Unavailable, match="sealed"):
            await source.latest("commitment")
    finally:
        vault.unseal()
    await source.close()


async def test_sealed_while_running(vault: VaultServer) -> None:
    """Sealed: what is held is served on, a signature is Unavailable and says why; unsealed: all is well again."""
    source = await opened(vault)
    key = await source.commitment_key("t")
    vault.seal()
    try:
        assert await source.commitment_key("t") == key
        with pytest.raises(Unavailable, match="sealed"):
            await source.sign("notary", b"x")
        assert source.status().usable
    finally:
        vault.unseal()
    assert len(await source.sign("notary", b"x")) == 64
    await source.close()


async def test_nobody_there_is_unavailable() -> None:
    """An address where nothing listens is Unavailable, not a crash."""
    with pytest.raises(Unavailable, match="did not answer"):
        await VaultSecrets.open("http://127.0.0.1:9", role_id="r", wrapped_secret_id="w")


async def test_an_issuer_lets_every_process_log_in_by_itself(vault: VaultServer, tmp_path: Path) -> None:
    """What training jobs are given: a file whose token issues a fresh wrapped secret id each time, and is renewed."""
    file = tmp_path / "issuer"
    file.write_text(vault.issuer_token("ratchet-training-issuer"))
    settings = load(
        {
            "RATCHET_SECRETS": "vault",
            "VAULT_ADDR": vault.addr,
            "RATCHET_VAULT_ROLE": TRAINING_ROLE,
            "RATCHET_VAULT_ROLE_ID": vault.role_id(TRAINING_ROLE),
            "RATCHET_VAULT_ISSUER": str(file),
        }
    )
    for _ in range(2):
        source = await open_secrets(settings, print)
        assert len(await source.commitment_key("t")) == 32
        await source.close()
    other = tmp_path / "other"
    other.write_text(vault.issuer_token())
    renew(Issuer(addr=vault.addr, token_file=other, lent=[file]))
    for token in (file.read_text(), other.read_text()):
        assert vault.call("POST", "auth/token/lookup", {"token": token})["data"]["ttl"] > 86_000


async def test_an_issuer_that_may_not_is_named(vault: VaultServer, tmp_path: Path) -> None:
    """A file that is away and a token that has ended, by name and never by content."""
    file = tmp_path / "issuer"
    known = {
        "RATCHET_SECRETS": "vault",
        "VAULT_ADDR": vault.addr,
        "RATCHET_VAULT_ROLE_ID": "r",
        "RATCHET_VAULT_ISSUER": str(file),
    }
    with pytest.raises(Refused, match=f"RATCHET_VAULT_ISSUER={file} cannot be read"):
        await open_secrets(load(known), print)
    file.write_text("hvs.ended")
    with pytest.raises(Refused, match="it has ended") as told:
        await open_secrets(load(known), print)
    assert "hvs.ended" not in str(told.value)
