"""Subjects' keys on a real Kafka, wrapped by a real Vault: a restart, a full replay, an erasure, a second process."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from recorded_events import OneKey

from agents.evidence.actor import Collector
from agents.evidence.keyring import TOPIC, Keyring, open_rows_key
from agents.evidence.keytable import Erased, SubjectKey, Wanted
from agents.evidence.log import LogDirectory, export
from agents.evidence.payloads import FOLDER, Payloads, opening_key
from agents.evidence.ports import Frontier
from agents.evidence.record import Draft
from agents.evidence.sequencer import Sequencer
from infra.clock import SystemClock
from infra.kek import VaultKek
from infra.notary import LocalNotary, verify
from infra.secrets import VaultSecrets
from schemas.compliance import Cut, KeyErased, KeyRemoved
from schemas.errors import Refused, SubjectErased
from schemas.payload import Payload
from schemas.tlog.note import parse_vkey
from schemas.topics import state_topic
from streams.admin import ensure_topics
from streams.fence import Fence, Publisher
from streams.kafka import KafkaBroker
from streams.port import Fenced, Outgoing, TopicSpec
from streams.reader import EveryOffset
from tools import verify_evidence
from tools.cli.texts import open_texts
from tools.stack.roles import EVIDENCE_ROLE, TRAINING_ROLE
from tools.stack.vault import VaultServer

PARTITIONS = 4  # of the table's topics on the shared broker, the same for every test
ANNA, BERT = "a" * 32, "b" * 32
TEXT = "hush-5c1d"


@dataclass
class World:
    """A topic and a tenant of the test's own on real servers; every keyring is another process."""

    broker: KafkaBroker
    vault: VaultServer
    name: str
    root: Path
    opened: list[Any] = field(default_factory=list[Any])

    @property
    def topic(self) -> str:
        return f"ratchet.{self.name}"

    async def keyring(self, role: str = EVIDENCE_ROLE) -> Keyring:
        """With nothing in memory; only the evidence role's makes keys."""
        source = await VaultSecrets.open(
            self.vault.addr,
            role_id=self.vault.role_id(role),
            wrapped_secret_id=self.vault.wrapped_secret_id(role),
        )
        publisher = Publisher(self.broker, PARTITIONS, self.name, owner="keys") if role == EVIDENCE_ROLE else None
        made = Keyring(self.broker, VaultKek(source.client), SystemClock(), publisher)
        self.opened += [made.stop, source.close] + ([publisher.stop] if publisher is not None else [])
        return made

    async def create(self) -> None:
        admin = self.broker.admin()
        await admin.start()
        await admin.create([TopicSpec(state_topic(self.name), 1, 1, {"cleanup.policy": "compact"})])
        await admin.create([TopicSpec(self.topic, 1, 1, {})])
        async with asyncio.timeout(20):  # the broker answers before every part of it knows of the topic
            while await admin.partitions([self.topic]) != {self.topic: 1}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await admin.stop()

    async def send(self, *requests: tuple[str, int]) -> None:
        """An answer each to the request of that subject at that offset of partition 0."""
        producer = self.broker.producer()
        await producer.start()
        rows = [
            Outgoing(
                b"q",
                json.dumps(
                    {
                        "tenant": self.name, "route": "r", "request_id": f"q{offset}", "at_ms": 1, "subject": subject,
                        "request_partition": 0, "request_offset": offset, "text": f"{TEXT} {offset}",
                    }
                ).encode(),
                (("ce_id", f"id-{secrets.token_hex(4)}".encode()), ("ce_type", b"ratchet.result.completed.v1")),
            )
            for subject, offset in requests
        ]  # fmt: skip
        await producer.send(self.topic, 0, rows)
        await producer.stop()

    async def erase(self, subject: str, epoch: int, cut: int) -> None:
        """As the shredder does: the key taken away and the marker, in one transaction."""
        about: dict[str, Any] = {"tenant": self.name, "at_ms": 1, "subject": subject, "epoch": epoch}
        events: list[tuple[Payload, str]] = [
            (KeyRemoved(**about), f"removed-{self.name}-{epoch}"),
            (KeyErased(**about, cut=(Cut(partition=0, offset=cut),), erasure="e-1"), f"erased-{self.name}-{epoch}"),
        ]
        publisher = Publisher(self.broker, PARTITIONS, self.name, owner="shredder")
        await publisher.publish(events, 0)
        await publisher.stop()

    async def collect(self, until: int) -> None:
        """Record the topic up to that offset, as a fresh process."""
        notary = LocalNotary.create(self.root.parent / "key", "dev.ratchet.test")
        fence = Fence(self.broker, self.name)
        publisher = Publisher(self.broker, PARTITIONS, self.name)
        reader = EveryOffset(self.broker, [self.topic], lambda record: Draft(record).id)
        await fence.start()
        attester = parse_vkey(notary.vkey(1)).public_key
        sequencer = await Sequencer.open(
            LogDirectory(self.root), notary=notary, fence=fence, check=verify, attester=attester
        )
        collector = Collector(sequencer, reader, OneKey(), await self.keyring(), publisher, SystemClock())
        stop = asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        try:
            async with asyncio.timeout(60):
                while not running.done() and collector.frontiers.get((self.topic, 0), Frontier(0, 0)).next < until:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            stop.set()
            await running
        finally:
            running.cancel()
            sequencer.close()
            for part in (reader, publisher, fence):
                await part.stop()

    def entries(self) -> dict[int, tuple[int, dict[str, Any]]]:
        """The log's records by offset, each with its index."""
        size = int((self.root / "checkpoint").read_text().splitlines()[1])
        directory = LogDirectory(self.root)
        rows = [json.loads(entry) for entry in directory.newest_first(size)][::-1]
        directory.close()
        return {row["src"]["offset"]: (index, row) for index, row in enumerate(rows) if "offset" in row.get("src", {})}


@pytest.fixture
async def world(kafka: str, vault: VaultServer, tmp_path: Path) -> AsyncIterator[World]:
    """Fresh topics on the real broker; a tenant of whom Vault has no key."""
    await ensure_topics(kafka, PARTITIONS, 1)
    made = World(KafkaBroker(kafka), vault, f"subjects-{secrets.token_hex(4)}", tmp_path / "log")
    await made.create()
    yield made
    for stop in made.opened:
        await stop()


async def test_erased_stays_erased(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Readable; then erased for the running process, for fresh ones, for a training job; a later request readable again."""
    caplog.set_level(logging.DEBUG)
    await world.send((ANNA, 1), (BERT, 2))
    await world.collect(2)
    running = await world.keyring()
    for index, entry in world.entries().values():
        assert TEXT.encode() in await Payloads(world.root, running).open(index, entry)
        assert await opening_key(entry, "text", OneKey(), running)
    await world.erase(ANNA, 1, cut=5)
    for keyring in (running, await world.keyring()):
        index, entry = world.entries()[0]
        with pytest.raises(SubjectErased):
            await Payloads(world.root, keyring).open(index, entry)
        with pytest.raises(SubjectErased):
            await opening_key(entry, "text", OneKey(), keyring)
        assert await Payloads(world.root, keyring).open(*world.entries()[1])
    job = await world.keyring(TRAINING_ROLE)
    with pytest.raises(SubjectErased):
        await open_rows_key(job, world.name, ANNA, (0, 1))
    assert len(await open_rows_key(job, world.name, BERT, (0, 2))) == 32
    await world.send((ANNA, 1), (ANNA, 5))
    await world.collect(4)
    keyring = await world.keyring()
    with pytest.raises(SubjectErased):
        await Payloads(world.root, keyring).open(*world.entries()[2])
    assert f"{TEXT} 5".encode() in await Payloads(world.root, keyring).open(*world.entries()[3])
    second = await keyring.key(Wanted(world.name, ANNA, (0, 5)))
    assert second.epoch == 2
    export(world.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (world.root / "policy.txt").read_text())
    assert report.problems == []
    assert not (tmp_path / "out" / FOLDER).exists()
    files = [path for path in world.root.rglob("*") if path.is_file()]
    assert not [path for path in files if TEXT.encode() in path.read_bytes()]
    assert TEXT not in caplog.text
    assert second.commit.hex() not in caplog.text


async def test_a_second_process_takes_over(world: World) -> None:
    """The first makes no more keys; what it made, the second opens."""
    first, second = await world.keyring(), await world.keyring()
    wanted = Wanted(world.name, ANNA, (0, 0))
    made = (await first.make([wanted]))[wanted]
    other = Wanted(world.name, BERT, (0, 0))
    assert isinstance((await second.make([other]))[other], SubjectKey)
    assert isinstance(made, SubjectKey)
    assert (await second.key(wanted)).commit == made.commit
    with pytest.raises(Fenced):
        await first.make([Wanted(world.name, "c" * 32, (0, 0))])


async def test_many_subjects(world: World) -> None:
    """Thousands of new subjects in one batch: each has its key, on the topic once, opened again by a fresh process."""
    wanted = [Wanted(world.name, f"{n:032x}", (0, n)) for n in range(4096)]
    found = await (await world.keyring()).make(wanted)
    fresh = await world.keyring()
    again = await fresh.make(wanted)
    for one in wanted:
        key, same = found[one], again[one]
        assert isinstance(key, SubjectKey)
        assert isinstance(same, SubjectKey)
        assert key.commit == same.commit
    await world.erase(wanted[7].subject, 1, cut=100)
    assert isinstance((await fresh.held(wanted[:8]))[wanted[7]], Erased)
    assert TOPIC == "ratchet.keyring"


async def test_the_agents_role_makes_none(world: World) -> None:
    """Without the right to wrap it is refused, and nothing is on the topic."""
    keyring = await world.keyring()
    source = await VaultSecrets.open(
        world.vault.addr, role_id=world.vault.role_id(), wrapped_secret_id=world.vault.wrapped_secret_id()
    )
    keyring._kek = VaultKek(source.client)
    wanted = Wanted(world.name, ANNA, (0, 0))
    with pytest.raises(Refused, match="forbids"):
        await keyring.make([wanted])
    await source.close()
    assert not isinstance((await (await world.keyring()).held([wanted]))[wanted], SubjectKey)


async def test_the_command_line_opens_texts_where_it_may(
    world: World, kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right to decrypt each record as it was; with the operator's token none, and it says who forbids it; erased: counted."""
    await world.send((ANNA, 1), (ANNA, 2))
    await world.collect(2)
    found = dict(world.entries().values())
    body = {"policies": [EVIDENCE_ROLE], "period": "1h", "no_parent": True}
    able = world.vault.call("POST", "auth/token/create", body)["auth"]["client_token"]
    for name, text in (
        ("RATCHET_STATE_DIR", str(tmp_path)), ("KAFKA_BOOTSTRAP", kafka), ("RATCHET_SECRETS", "vault"), ("VAULT_ADDR", world.vault.addr),
    ):  # fmt: skip
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("RATCHET_VAULT_TOKEN", able)
    texts = await open_texts(world.root, found, lambda _: None)
    assert (texts.why, sorted(texts.opened)) == ("", sorted(found))
    assert all(TEXT.encode() in data for data in texts.opened.values())
    monkeypatch.setenv("RATCHET_VAULT_TOKEN", world.vault.operator_token())
    texts = await open_texts(world.root, found, lambda _: None)
    assert (texts.opened, "forbids" in texts.why) == ({}, True)
    monkeypatch.setenv("RATCHET_VAULT_TOKEN", able)
    await world.erase(ANNA, 1, cut=2)
    texts = await open_texts(world.root, found, lambda _: None)
    assert (len(texts.erased), texts.opened) == (1, {})
