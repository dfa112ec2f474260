"""The roles of the stack's own Vault, on a real one: each does its work, and nothing of another's."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable

import pytest
from hvac.exceptions import Forbidden

from agents.rules.masking import MaskMap
from infra import gate_keys
from infra.clock import SystemClock
from infra.gate_keys import GateKeyring
from infra.notary import VaultNotary
from infra.sealing import GateKeys, map_key
from infra.secrets import ATTESTER_KEY, MANIFEST_KEY, NOTARY_KEY, WITNESS_KEY, VaultSecrets
from schemas.errors import Refused, Unavailable
from tools.stack.roles import (
    EVIDENCE_ROLE,
    GATE_ROLE,
    ROLE,
    ROLES,
    SHREDDER_ROLE,
    SIGNING_KEYS,
    TRAINING_ROLE,
    WITNESS_ROLE,
)
from tools.stack.vault import VaultServer

SECRETS = (
    "commitment",
    "gate",
    "principals",
    "principals/operator",
    "providers/example",
    "kafka/router",
    "kafka/evidence",
    "kafka/shredder",
)
ALL_SECRETS = frozenset(SECRETS)
NOT_THE_GATES = ALL_SECRETS - {"gate"}
SIGNS = {
    ROLE: frozenset[str](),
    GATE_ROLE: frozenset[str](),
    SHREDDER_ROLE: frozenset[str](),
    EVIDENCE_ROLE: frozenset({NOTARY_KEY, ATTESTER_KEY}),
    TRAINING_ROLE: frozenset({MANIFEST_KEY}),
    WITNESS_ROLE: frozenset({WITNESS_KEY}),
}
READS = {
    ROLE: NOT_THE_GATES,
    GATE_ROLE: ALL_SECRETS,
    SHREDDER_ROLE: frozenset({"principals", "principals/operator", "kafka/shredder"}),
    EVIDENCE_ROLE: frozenset({"commitment", "kafka/evidence"}),
    TRAINING_ROLE: NOT_THE_GATES,
    WITNESS_ROLE: frozenset[str](),
}
PUBLIC = {role: frozenset(SIGNING_KEYS) for role in (ROLE, GATE_ROLE, TRAINING_ROLE)}
KEK = "kek-roles"
MAP = MaskMap({"[EMAIL_1]": "anna@example.org"})
OPENS = {EVIDENCE_ROLE: {"encrypt", "decrypt"}, TRAINING_ROLE: {"decrypt"}}


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
    for role in (ROLE, GATE_ROLE, TRAINING_ROLE, SHREDDER_ROLE, WITNESS_ROLE):
        with pytest.raises(Refused, match="Vault forbids sign of transit key 'notary'"):
            await sign(role)


@pytest.mark.parametrize("role", ROLES)
async def test_a_tenants_key_wraps_for_evidence_and_training_and_is_destroyed_by_nobody(
    vault: VaultServer, role: str
) -> None:
    """Each way to use, read out or end a tenant's key, tried by every role: the shredder can neither unwrap nor destroy one."""
    maker = await logged_in(vault, EVIDENCE_ROLE)
    plain = {"plaintext": b64encode(b"k" * 32).decode()}
    made = await asyncio.to_thread(maker.client.write_data, f"transit/encrypt/{KEK}", data=plain)
    await maker.close()
    wrapped = {"ciphertext": made["data"]["ciphertext"]}
    trials: dict[str, tuple[str, str, object]] = {
        "encrypt": ("POST", f"transit/encrypt/{KEK}", plain),
        "decrypt": ("POST", f"transit/decrypt/{KEK}", wrapped),
        "rewrap": ("POST", f"transit/rewrap/{KEK}", wrapped),
        "datakey": ("POST", f"transit/datakey/plaintext/{KEK}", {}),
        "make": ("POST", "transit/keys/kek-another", {"exportable": True}),
        "rotate": ("POST", f"transit/keys/{KEK}/rotate", {}),
        "config": ("POST", f"transit/keys/{KEK}/config", {"deletion_allowed": True, "exportable": True}),
        "trim": ("POST", f"transit/keys/{KEK}/trim", {"min_available_version": 1}),
        "export": ("GET", f"transit/export/encryption-key/{KEK}", None),
        "backup": ("GET", f"transit/backup/{KEK}", None),
        "restore": ("POST", f"transit/restore/{KEK}", {"backup": "x", "force": True}),
        "delete": ("DELETE", f"transit/keys/{KEK}", None),
    }
    source = await logged_in(vault, role)
    token = source.client.token
    for name, (method, path, body) in trials.items():
        if name in OPENS.get(role, ()):
            await asyncio.to_thread(vault.call, method, path, body, token=token)
            continue
        with pytest.raises(Refused, match="permission denied"):
            await asyncio.to_thread(vault.call, method, path, body, token=token)
    await source.close()
    assert vault.call("GET", f"transit/keys/{KEK}")["data"]["deletion_allowed"] is False


@pytest.mark.parametrize("role", [GATE_ROLE, ROLE, SHREDDER_ROLE])
async def test_what_the_gate_seals_with(vault: VaultServer, role: str) -> None:
    """Routers and trust read it; inference and all others are told no, though a pattern opens the rest to them."""
    source = await logged_in(vault, role)
    try:
        if role == GATE_ROLE:
            assert len((await source.get("gate"))["key"]) == 64
        else:
            with pytest.raises(Refused, match="Vault's policy does not let this role do that"):
                await source.get("gate")
            with pytest.raises(Refused, match="permission denied"):
                vault.call("GET", "ratchet/metadata/gate", token=source.client.token)
    finally:
        await source.close()


async def test_the_operator_rotates_the_gates_keys_unread_and_router_and_trust_learn_them(vault: VaultServer) -> None:
    """Its token adds and retires, and reads none; who seals and opens reads all, and changes none."""
    before = vault.call("GET", "ratchet/data/gate")["data"]["data"]
    operator = await VaultSecrets.open(vault.addr, token=vault.operator_token())
    agent = await logged_in(vault, GATE_ROLE)
    now_ms = SystemClock().now_ms()
    try:
        ring = await GateKeyring.open(agent)
        first = ring.seal_map("clinic", "r1", "e1", MAP, now_ms)
        with pytest.raises(Refused, match="Vault's policy does not let this role do that"):
            await operator.get("gate")
        made = [await gate_keys.rotate(operator, now_ms - ago_ms) for ago_ms in (120_000, 60_000)]
        other = await GateKeyring.open(agent)  # another process, which was started later
        second = other.seal_map("clinic", "r1", "e1", MAP, now_ms)
        assert map_key(second) == made[-1].key_id
        await ring.learn(second)
        assert [ring.open_map("clinic", "r1", sealed) for sealed in (first, second)] == [MAP.encode()] * 2
        for name in (made[0].name, "key"):
            assert (await gate_keys.retire(operator, name, now_ms)).state == "retired"
        await ring.refresh()
        with pytest.raises(Refused, match="The gate's key was retired"):
            ring.open_map("clinic", "r1", first)
        assert ring.open_map("clinic", "r1", second) == MAP.encode()
        for role in ROLES:
            source = await logged_in(vault, role)
            for act in (gate_keys.rotate(source, now_ms + 1), source.patch("gate", [made[-1].name], {"x": "y"})):
                with pytest.raises(Refused, match="Vault's policy does not let this role do that"):
                    await act
            merged = {"json": {"data": {"x": "y"}}, "headers": {"Content-Type": "application/merge-patch+json"}}
            with pytest.raises(Forbidden):
                source.client.adapter.request("patch", "/v1/ratchet/data/gate", **merged)
            for method, path in (("POST", "data"), ("DELETE", "data"), ("DELETE", "metadata")):
                with pytest.raises(Refused, match="permission denied"):
                    vault.call(method, f"ratchet/{path}/gate", {"data": {"x": "y"}}, token=source.client.token)
            await source.close()
        vault.seal()
        try:
            with pytest.raises(Unavailable, match="sealed"):
                await ring.learn(
                    GateKeys(None, {now_ms + 1: bytes(32)}).seal_map("clinic", "r1", "e1", MAP, now_ms + 1)
                )
        finally:
            vault.unseal()
    finally:
        await agent.close()
        await operator.close()
        vault.put("gate", before)


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
