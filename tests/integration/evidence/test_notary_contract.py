"""One contract for every notary: the local key file and a real Vault's transit engine."""

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hvac
import pytest
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.evidence.actor import Collector
from agents.evidence.keyring import Keyring
from agents.evidence.log import LogDirectory, export
from agents.evidence.ports import Frontier, Notary, Source
from agents.evidence.sequencer import Sequencer
from infra.clock import ManualClock, SystemClock
from infra.kek import LocalKek
from infra.notary import VERSIONS_S, LocalNotary, VaultNotary, verify
from schemas.errors import Refused, Unavailable
from schemas.events import AuditCheckpoint
from schemas.payload import Payload
from schemas.tlog.note import VerifierKey, parse_vkey, sign_line
from schemas.tlog.policy import open_checkpoint, parse_policy
from streams.memory import MemoryBroker
from streams.shapes import Record
from tools import verify_evidence

SUMDB = json.loads((Path(__file__).parents[2] / "data/tlog/sumdb_values.json").read_text())
ATTESTER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
SEED = base64.b64decode(SUMDB["note_skey_test"].split("+", 4)[4])[1:]


class Admin:
    """A Vault that the test may change, and a key of its own in it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.client = hvac.Client(url=server.addr, token=server.root_token, timeout=10)
        if "transit/" not in self.client.sys.list_mounted_secrets_engines()["data"]:
            self.client.sys.enable_secrets_engine("transit")
        self.key = f"notary-{secrets.token_hex(6)}"

    def write(self, path: str, **body: Any) -> Any:
        return self.client.write_data(path, data=body)

    def notary(self, origin: str = "ratchet.example", token: str = "", clock: ManualClock | None = None) -> VaultNotary:
        client = hvac.Client(url=self.server.addr, token=token or self.server.root_token, timeout=10)
        return VaultNotary(client, key=self.key, origin=origin, clock=clock)

    def import_key(self, seed: bytes) -> None:
        """Bring our own key into transit, wrapped as Vault asks for it."""
        pem = self.client.read("transit/wrapping_key")["data"]["public_key"]
        wrapping = serialization.load_pem_public_key(pem.encode())
        assert isinstance(wrapping, rsa.RSAPublicKey)
        private = Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        ephemeral = secrets.token_bytes(32)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        parts = wrapping.encrypt(ephemeral, oaep) + keywrap.aes_key_wrap_with_padding(ephemeral, private)
        text = base64.b64encode(parts).decode()
        self.write(f"transit/keys/{self.key}/import", ciphertext=text, type="ed25519", hash_function="SHA256")


@pytest.fixture
def admin(vault: Any) -> Admin:
    """A fresh Ed25519 transit key in the real Vault."""
    made = Admin(vault)
    made.write(f"transit/keys/{made.key}", type="ed25519")
    return made


@pytest.fixture(params=["local", "vault"])
def make_notary(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Notary]:
    """Opens a notary over the same key, each time it is called."""
    if request.param == "local":
        return lambda: LocalNotary.create(tmp_path / "key", "dev.ratchet")
    return request.getfixturevalue("admin").notary


class NoFence:
    """Only this test writes."""

    async def commit(self) -> None:
        return


def test_signatures_fit_the_verifier_key(make_notary: Callable[[], Notary]) -> None:
    """64 raw bytes over the body itself, under the key that the notary names, of prime order."""
    notary = make_notary()
    signature = notary.sign(b"body\n", notary.latest())
    key = parse_vkey(notary.vkey(notary.latest()))
    assert (len(signature), key.name) == (64, notary.name)
    assert verify(key.public_key, b"body\n", signature)
    assert str(key) in notary.vkeys()


def test_the_same_body_gives_the_same_bytes(make_notary: Callable[[], Notary]) -> None:
    """A resume that signs again makes the same note, from another process, too."""
    assert make_notary().sign(b"body") == make_notary().sign(b"body", 1)


def test_a_version_that_never_was_is_refused(make_notary: Callable[[], Notary]) -> None:
    """An unknown key version is ours to correct, not the world's to bring back."""
    with pytest.raises(Refused):
        make_notary().sign(b"body", 7)
    with pytest.raises(Refused):
        make_notary().vkey(7)


def test_every_version_that_may_sign_does(make_notary: Callable[[], Notary]) -> None:
    """What `signing` names signs, and its key is among the verifier keys; the last of them is the latest."""
    notary = make_notary()
    versions = list(notary.signing())
    assert versions == sorted(versions)
    assert versions[-1] == notary.latest()
    for version in versions:
        assert verify(parse_vkey(notary.vkey(version)).public_key, b"body", notary.sign(b"body", version))
        assert notary.vkey(version) in notary.vkeys()


def test_empty_and_large_bodies(make_notary: Callable[[], Notary]) -> None:
    """Any bytes are signed as they are."""
    notary = make_notary()
    key = parse_vkey(notary.vkeys()[0]).public_key
    assert all(verify(key, body, notary.sign(body)) for body in (b"\n", bytes(60_000), "ß—\n".encode()))


def test_vault_reproduces_the_golden_note(vault: Any) -> None:
    """The published key, imported into transit, gives the published note byte for byte."""
    admin = Admin(vault)
    admin.import_key(SEED)
    notary = admin.notary("PeterNeumann")
    text = SUMDB["note_text"]
    assert notary.vkeys() == [SUMDB["note_vkey"]]
    assert (
        text + "\n" + sign_line(parse_vkey(notary.vkey(1)), notary.sign(text.encode(), 1))
        == SUMDB["note_signed_golden"]
    )


def test_rotation_keeps_pinned_versions(admin: Admin) -> None:
    """After a rotation version 1 still signs as before; the new version is the latest; retired ones are refused."""
    before = admin.notary().sign(b"body", 1)
    admin.write(f"transit/keys/{admin.key}/rotate")
    notary = admin.notary()
    assert (notary.latest(), len(notary.vkeys()), notary.sign(b"body", 1)) == (2, 2, before)
    assert notary.sign(b"body") != before
    assert all(isinstance(parse_vkey(vkey), VerifierKey) for vkey in notary.vkeys())
    admin.write(f"transit/keys/{admin.key}/config", min_encryption_version=2)
    with pytest.raises(Refused):
        notary.sign(b"body", 1)


async def test_a_rotation_is_seen_while_running(admin: Admin) -> None:
    """Within a minute the new version signs besides the old one; retired, the old one is gone from what may sign, at once
    where its signature was refused."""
    clock = ManualClock()
    notary = admin.notary(clock=clock)
    assert list(notary.signing()) == [1]
    admin.write(f"transit/keys/{admin.key}/rotate")
    assert list(notary.signing()) == [1]
    await clock.advance(VERSIONS_S)
    assert list(notary.signing()) == [1, 2]
    admin.write(f"transit/keys/{admin.key}/config", min_encryption_version=2)
    assert list(notary.signing()) == [1, 2]
    with pytest.raises(Refused) as refused:
        notary.sign(b"body", 1)
    assert refused.value.kind == "notary-version"
    assert list(notary.signing()) == [2]
    assert len(notary.vkeys()) == 2


async def test_a_sealed_vault_forgets_no_versions(admin: Admin) -> None:
    """Sealed when the minute is over: `signing` says so, what was known stays known, and it goes on when unsealed."""
    clock = ManualClock()
    notary = admin.notary(clock=clock)
    vkey = notary.vkey(1)
    await clock.advance(VERSIONS_S)
    admin.server.seal()
    try:
        with pytest.raises(Unavailable):
            notary.signing()
        assert notary.vkey(1) == vkey
    finally:
        admin.server.unseal()
    assert list(notary.signing()) == [1]


def test_missing_and_wrong_keys_are_refused(admin: Admin) -> None:
    """A key that is not there, or not Ed25519, is refused by name."""
    name, admin.key = admin.key, "no-such-key"
    with pytest.raises(Refused, match="no-such-key"):
        admin.notary().vkeys()
    with pytest.raises(Refused, match="no-such-key"):
        admin.notary().sign(b"body", 1)
    admin.key = f"{name}-p256"
    admin.write(f"transit/keys/{admin.key}", type="ecdsa-p256")
    with pytest.raises(Refused, match="ed25519"):
        admin.notary().latest()


def test_a_role_that_may_only_sign_and_read(admin: Admin) -> None:
    """The policy that the notary needs suffices, and opens nothing else; without it we are told so."""
    rules = (
        f'path "transit/sign/{admin.key}" {{ capabilities = ["update"] }}\n'
        f'path "transit/keys/{admin.key}" {{ capabilities = ["read"] }}'
    )
    admin.client.sys.create_or_update_policy(admin.key, rules)
    token = admin.write("auth/token/create", policies=[admin.key], no_default_policy=True)["auth"]["client_token"]
    notary = admin.notary(token=token)
    assert verify(parse_vkey(notary.vkey(1)).public_key, b"body", notary.sign(b"body"))
    admin.key = "notary-of-another"
    with pytest.raises(Refused, match="forbids"):
        admin.notary(token=token).latest()


def test_an_address_where_nobody_listens_is_unavailable() -> None:
    """No server is the world's trouble, to be tried again."""
    notary = VaultNotary(hvac.Client(url="http://127.0.0.1:9", token="x"), key="k", origin="ratchet.example")
    with pytest.raises(Unavailable):
        notary.latest()


async def test_sealed_vault_nothing_unsigned_is_published(admin: Admin, tmp_path: Path) -> None:
    """While Vault is sealed no checkpoint appears; unsealed, the bound batch is signed and the export verifies."""
    notary, root = admin.notary(), tmp_path / "log"
    sequencer = await Sequencer.open(
        LogDirectory(root), notary=notary, fence=NoFence(), check=verify, attester=ATTESTER
    )
    coverage = b'{"full":true,"partitions":{},"tenants":{},"type":"coverage","v":1}'
    first = await sequencer.commit([coverage])
    admin.server.seal()
    try:
        with pytest.raises(Unavailable):
            await sequencer.commit([coverage])
        assert (root / "checkpoint").read_bytes() == first.note
        assert (root / "state/signed").read_bytes() == first.note
    finally:
        admin.server.unseal()
    assert (await sequencer.finish()).checkpoint.size == 3
    await sequencer.publish()
    sequencer.close()
    export(root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (root / "policy.txt").read_text())
    assert (report.problems, report.size, report.as_json()["first_look_key"]) == ([], 3, False)


class Feed:
    """A topic that grows while it is read. Fails the test when polled before it was told where to begin."""

    def __init__(self, clock: SystemClock | ManualClock) -> None:
        self.grown = 0
        self._next: int | None = None
        self._clock = clock

    async def seek(self, frontiers: Mapping[Source, Frontier]) -> None:
        self._next = frontiers.get(("ratchet.requests", 0), Frontier(0, 0)).next

    async def poll(self, timeout_s: float) -> Sequence[Record]:
        assert self._next is not None, "polled before seek"
        if self._next >= self.grown:
            await asyncio.sleep(0.01)
            if isinstance(self._clock, ManualClock):
                await self._clock.advance(timeout_s)
        rows = [Record("ratchet.requests", 0, at, b"q", b"{}", (), 1) for at in range(self._next, self.grown)]
        self._next = self.grown
        return rows


class Keys:
    """One key for every tenant."""

    def commitment_key(self, tenant: str) -> bytes:
        return bytes(32)

    pseudonym_key = commitment_key


class Audit:
    """Keeps what was announced, and its cursor."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        self.sizes: list[int] = []

    async def start(self) -> int | None:
        return self.cursor

    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None:
        assert self.cursor is None or cursor > self.cursor, "announced again"
        self.cursor = cursor
        self.sizes += [payload.size for payload, _ in payloads if isinstance(payload, AuditCheckpoint)]


class Running:
    """A collector over a real Vault, until the test ends it."""

    def __init__(self, root: Path, notary: VaultNotary, clock: SystemClock | ManualClock) -> None:
        self.root, self.notary, self.clock = root, notary, clock
        self.feed, self.audit = Feed(clock), Audit()
        self.stop = asyncio.Event()

    async def __aenter__(self) -> "Running":
        self.sequencer = await Sequencer.open(
            LogDirectory(self.root), notary=self.notary, fence=NoFence(), check=verify, attester=ATTESTER
        )
        subjects = Keyring(MemoryBroker(), LocalKek(bytes(32)), self.clock)  # nobody's records: no key is made
        self.collector = Collector(self.sequencer, self.feed, Keys(), subjects, self.audit, self.clock)
        self.task = asyncio.create_task(self.collector.run(self.stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        try:
            await self.task
        finally:
            self.sequencer.close()

    async def grow(self, count: int) -> None:
        """More records, and wait until they are signed, published and announced."""
        self.feed.grown += count
        async with asyncio.timeout(60):
            while self.offsets() != list(range(self.feed.grown)) or self.audit.cursor != self.sequencer.size:
                assert not self.task.done()
                await asyncio.sleep(0.01)

    def offsets(self) -> list[int]:
        """Of every record in the log, in its order."""
        entries = [json.loads(entry) for _, entry in self.sequencer.entries(0, self.sequencer.size)]
        return [entry["src"]["offset"] for entry in entries if "src" in entry]

    def checkpoint(self) -> bytes:
        return (self.root / "checkpoint").read_bytes()

    def verified(self, out: Path) -> verify_evidence.Report:
        export(self.root, out)
        return verify_evidence.verify(out, (self.root / "policy.txt").read_text())


async def test_sealed_while_collecting(admin: Admin, tmp_path: Path) -> None:
    """Vault is sealed under a running collector: nothing new is signed, published or announced; unsealed, it goes on by
    itself, and everything that came meanwhile is in the log once."""
    async with Running(tmp_path / "log", admin.notary(), SystemClock()) as running:
        await running.grow(10)
        before, said = running.checkpoint(), list(running.audit.sizes)
        admin.server.seal()
        try:
            running.feed.grown += 50
            await asyncio.sleep(2.0)
            assert not running.task.done()
            assert running.checkpoint() == (running.root / "state/signed").read_bytes() == before
            assert running.audit.sizes == said
        finally:
            admin.server.unseal()
        await running.grow(10)
    report = running.verified(tmp_path / "out")
    assert (report.problems, report.partitions["ratchet.requests/0"][0].entries) == ([], 70)


async def test_rotation_with_overlap_while_collecting(admin: Admin, tmp_path: Path) -> None:
    """A running collector takes a rotation up without a restart: announced under the old version, signed by both, and by
    the new one alone when `min_encryption_version` has retired the old. Every checkpoint is valid under the log's policy."""
    clock, seen = ManualClock(), list[list[str]]()
    notary = admin.notary(clock=clock)
    async with Running(tmp_path / "log", notary, clock) as running:

        async def signers() -> list[str]:
            await running.grow(5)
            policy = parse_policy((running.root / "policy.txt").read_text())
            return [str(key) for key in open_checkpoint(running.checkpoint(), policy, verify).log_keys]

        seen.append(await signers())
        admin.write(f"transit/keys/{admin.key}/rotate")
        await clock.advance(VERSIONS_S)
        seen += [await signers(), await signers()]
        admin.write(f"transit/keys/{admin.key}/config", min_encryption_version=2)
        seen += [await signers(), await signers()]
    old, new = notary.vkeys()
    assert seen == [[old], [old], [old, new], [new], [new]]
    report = running.verified(tmp_path / "out")
    assert (report.problems, report.types["trust"]) == ([], 2)
    async with Running(tmp_path / "log", admin.notary(), SystemClock()) as again:
        again.feed.grown, again.audit.cursor = running.feed.grown, running.audit.cursor
        await again.grow(1)
    assert again.sequencer.size > running.sequencer.size
