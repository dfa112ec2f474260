"""The roles of the stack's own Vault, on a real one: each does its work, and nothing of another's."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hvac.exceptions import Forbidden

from infra.notary import VaultNotary
from infra.secrets import ATTESTER_KEY, MANIFEST_KEY, NOTARY_KEY, WITNESS_KEY, VaultSecrets
from schemas.errors import Refused
from tools.stack.roles import EVIDENCE_ROLE, ROLE, ROLES, SIGNING_KEYS, TRAINING_ROLE, WITNESS_ROLE
from tools.stack.vault import VaultServer

SECRETS = ("commitment", "principals", "principals/operator", "providers/example", "kafka/router", "kafka/evidence")
ALL_SECRETS = frozenset(SECRETS)
SIGNS = {
    ROLE: frozenset[str](),
    EVIDENCE_ROLE: frozenset({NOTARY_KEY, ATTESTER_KEY}),
    TRAINING_ROLE: frozenset({MANIFEST_KEY}),
    WITNESS_ROLE: frozenset({WITNESS_KEY}),
}
READS = {
    ROLE: ALL_SECRETS,
    EVIDENCE_ROLE: frozenset({"commitment", "kafka/evidence"}),
    TRAINING_ROLE: ALL_SECRETS,
    WITNESS_ROLE: frozenset[str](),
}
PUBLIC = {ROLE: frozenset(SIGNING_KEYS), TRAINING_ROLE: frozenset(SIGNING_KEYS)}


async def logged_in(server: VaultServer, role: str) -> VaultSecrets:
    """As the supervisor's child: with a wrapped secret id out of the supervisor's token."""
    wrapped = server.wrapped_secret_id(role, token=server.issuer_token())
    return await VaultSecrets.open(server.addr, role_id=server.role_id(role), wrapped_secret_id=wrapped)


async def allowed(names: tuple[str, ...], act: Callable[[str], Awaitable[object]]) -> frozenset[str]:
    """For which of the names the act is not refused."""
    found: set[str] = set()
    for name in names:
        try:
            await act(name)
        except Refused:
            continue
        found.add(name)
    return frozenset(found)


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_does_its_own_work_and_no_others(vault: VaultServer, role: str) -> None:
    """Every key and every kind of secret, tried by every role: exactly what the table says is signed and read."""
    source = await logged_in(vault, role)
    assert await allowed(SIGNING_KEYS, lambda key: source.sign(key, b"body")) == SIGNS[role]
    assert await allowed(SIGNING_KEYS, source.public_key) == PUBLIC.get(role, SIGNS[role])
    assert await allowed(SECRETS, source.get) == READS[role]
    with pytest.raises(Forbidden):
        await asyncio.to_thread(source.client.write_data, "ratchet/data/new", data={"data": {"a": "b"}})
    with pytest.raises(Forbidden):
        await asyncio.to_thread(source.client.write_data, "transit/keys/notary/rotate", data={})
    await source.close()


async def test_only_the_evidence_process_signs_as_the_log(vault: VaultServer) -> None:
    """The notary of an agent of another role is refused by Vault at its first signature."""

    async def sign(role: str) -> bytes:
        source = await logged_in(vault, role)
        try:
            return await asyncio.to_thread(VaultNotary(source.client, key=NOTARY_KEY, origin="o").sign, b"body", 1)
        finally:
            await source.close()

    assert len(await sign(EVIDENCE_ROLE)) == 64
    for role in (ROLE, TRAINING_ROLE, WITNESS_ROLE):
        with pytest.raises(Refused, match="Vault forbids sign of transit key 'notary'"):
            await sign(role)


@pytest.mark.parametrize("role", [*ROLES, "administrator"])
def test_who_starts_training_jobs_hands_out_their_role_alone(vault: VaultServer, role: str) -> None:
    """Its token makes no secret id of another role, nor does the supervisor's of a role that is not the stack's."""
    vault.role("administrator", ["ratchet-operator"])
    training, supervisor = vault.issuer_token("ratchet-training-issuer"), vault.issuer_token()
    for token, able in ((training, role == TRAINING_ROLE), (supervisor, role in ROLES)):
        if able:
            assert vault.wrapped_secret_id(role, token=token)
        else:
            with pytest.raises(Refused, match="permission denied"):
                vault.wrapped_secret_id(role, token=token)
