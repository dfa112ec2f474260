"""One contract for whoever wraps subjects' keys: the local file and a real Vault. And what only Vault can do: refuse, seal."""

import asyncio
import base64
import os
import secrets as entropy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hvac.exceptions import Forbidden, VaultError

from agents.wiring import open_kek
from infra.kek import Kek, VaultKek, key_name
from infra.secrets import LocalSecrets, VaultSecrets
from infra.settings import Settings
from schemas.errors import Refused, Unavailable
from tools.stack.roles import EVIDENCE_ROLE, ROLE, TRAINING_ROLE, WITNESS_ROLE
from tools.stack.vault import VaultServer

ANNA, BERT = "a" * 32, "b" * 32


@dataclass
class Side:
    """A wrapper under test; `again` opens another one over the same keys."""

    kek: Kek
    again: Callable[[], Awaitable[Kek]]
    tenant: str


async def as_role(server: VaultServer, role: str) -> VaultSecrets:
    return await VaultSecrets.open(
        server.addr, role_id=server.role_id(role), wrapped_secret_id=server.wrapped_secret_id(role)
    )


@pytest.fixture(params=["local", "vault"])
async def side(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Side]:
    """Either wrapper, as the evidence process has it, for a tenant that nobody has seen."""
    tenant = f"acme-{entropy.token_hex(4)}"
    opened: list[VaultSecrets] = []

    async def again() -> Kek:
        if request.param == "local":
            return await open_kek(Settings(), LocalSecrets.open(tmp_path / "secrets.json"))
        opened.append(await as_role(request.getfixturevalue("vault"), EVIDENCE_ROLE))
        return await open_kek(Settings(), opened[-1])

    yield Side(await again(), again, tenant)
    for source in opened:
        await source.close()


async def test_what_is_wrapped_is_opened(side: Side) -> None:
    """More keys than one call of Vault takes, in their order, by another process; the tenant's key is made at first use."""
    keys = [(f"{n:032x}", 1 + n % 3, os.urandom(32)) for n in range(2100)]
    wrapped = await side.kek.wrap(side.tenant, keys)
    rows = [(subject, epoch, text) for (subject, epoch, _), text in zip(keys, wrapped, strict=True)]
    assert await (await side.again()).unwrap(side.tenant, rows) == [key for _, _, key in keys]
    assert len(set(wrapped)) == 2100
    assert max(map(len, wrapped)) <= 1024


async def test_a_wrapped_key_belongs_to_its_tenant_subject_and_epoch(side: Side) -> None:
    """With any other of these, or damaged, it does not open, not even beside one that does; the error repeats neither."""
    key = os.urandom(32)
    (text,) = await side.kek.wrap(side.tenant, [(ANNA, 1, key)])
    (other,) = await side.kek.wrap(f"{side.tenant}-2", [(ANNA, 1, key)])
    damaged = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    for subject, epoch, told in (
        (BERT, 1, text),
        (ANNA, 2, text),
        (ANNA, 1, other),
        (ANNA, 1, damaged),
        (ANNA, 1, "x"),
    ):
        for rows in ([(subject, epoch, told)], [(ANNA, 1, text), (subject, epoch, told)]):
            with pytest.raises(Refused) as caught:
                await side.kek.unwrap(side.tenant, rows)
            assert caught.value.kind == "kek"
            said = f"{caught.value!r} {caught.value.__cause__!r}"
            assert [secret for secret in (told + " ", base64.b64encode(key).decode()) if secret in said] == []
    assert await side.kek.unwrap(side.tenant, [(ANNA, 1, text)]) == [key]


async def test_every_tenants_name_will_do(side: Side) -> None:
    """Also one that Vault takes for no key's name."""
    for tenant in (f"{side.tenant}.", f".{side.tenant}", f"-{side.tenant}-", "..", "A" * 64, "-" * 64):
        (text,) = await side.kek.wrap(tenant, [(ANNA, 1, bytes(32))])
        assert await side.kek.unwrap(tenant, [(ANNA, 1, text)]) == [bytes(32)]


# Vault's alone


async def test_a_tenants_key_stays_in_vault(vault: VaultServer) -> None:
    """Made at first use: not exportable, not to be deleted. The evidence role can change neither, nor export, delete or rotate."""
    tenant = f"acme-{entropy.token_hex(4)}"
    source = await as_role(vault, EVIDENCE_ROLE)
    await VaultKek(source.client).wrap(tenant, [(ANNA, 1, bytes(32))])
    name = key_name(tenant)
    found = vault.call("GET", f"transit/keys/{name}")["data"]
    assert (found["type"], found["exportable"], found["deletion_allowed"], found["allow_plaintext_backup"]) == (
        "aes256-gcm96",
        False,
        False,
        False,
    )
    for path, body in (
        (f"transit/keys/{name}/config", {"deletion_allowed": True, "exportable": True}),
        (f"transit/keys/{name}/rotate", {}),
        (f"transit/keys/kek-{entropy.token_hex(4)}", {"exportable": True}),
        (f"transit/rewrap/{name}", {"ciphertext": "x"}),
        (f"transit/datakey/plaintext/{name}", {}),
    ):
        with pytest.raises(Forbidden):
            await asyncio.to_thread(source.client.write_data, path, data=body)
    with pytest.raises(Forbidden):
        await asyncio.to_thread(source.client.read, f"transit/export/encryption-key/{name}")
    with pytest.raises(Forbidden):
        await asyncio.to_thread(source.client.delete, f"transit/keys/{name}")
    with pytest.raises(Refused, match="error"):
        vault.call("DELETE", f"transit/keys/{name}")  # not even the administrator, as the key is
    await source.close()


async def test_a_key_that_can_leave_is_not_used(vault: VaultServer) -> None:
    """Somebody made the tenant's key exportable beforehand: nothing is wrapped with it."""
    tenant = f"acme-{entropy.token_hex(4)}"
    vault.call("POST", f"transit/keys/{key_name(tenant)}", {"type": "aes256-gcm96", "exportable": True})
    source = await as_role(vault, EVIDENCE_ROLE)
    with pytest.raises(Refused, match="exportable True"):
        await VaultKek(source.client).wrap(tenant, [(ANNA, 1, bytes(32))])
    await source.close()


@pytest.mark.parametrize("role", [ROLE, WITNESS_ROLE, TRAINING_ROLE])
async def test_other_roles_wrap_nothing(vault: VaultServer, role: str) -> None:
    """Only the evidence process makes keys; training jobs open them, agents and the witness do not."""
    tenant = f"acme-{entropy.token_hex(4)}"
    evidence, source = await as_role(vault, EVIDENCE_ROLE), await as_role(vault, role)
    (text,) = await VaultKek(evidence.client).wrap(tenant, [(ANNA, 1, bytes(32))])
    with pytest.raises(Refused, match="forbids"):
        await VaultKek(source.client).wrap(tenant, [(ANNA, 1, bytes(32))])
    if role == TRAINING_ROLE:
        assert await VaultKek(source.client).unwrap(tenant, [(ANNA, 1, text)]) == [bytes(32)]
    else:
        with pytest.raises(Refused, match="forbids"):
            await VaultKek(source.client).unwrap(tenant, [(ANNA, 1, text)])
    for one in (evidence, source):
        await one.close()


async def test_sealed(vault: VaultServer) -> None:
    """Away while Vault is sealed, and as before after it."""
    tenant = f"acme-{entropy.token_hex(4)}"
    source = await as_role(vault, EVIDENCE_ROLE)
    kek = VaultKek(source.client)
    (text,) = await kek.wrap(tenant, [(ANNA, 1, bytes(32))])
    vault.seal()
    try:
        with pytest.raises(Unavailable):
            await kek.unwrap(tenant, [(ANNA, 1, text)])
    finally:
        vault.unseal()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await kek.unwrap(tenant, [(ANNA, 1, text)]) == [bytes(32)]
                break
            except (Unavailable, VaultError):
                await asyncio.sleep(0.2)
    await source.close()
