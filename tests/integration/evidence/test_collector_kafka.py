"""From a real Kafka to an export that verifies: markers, aborted records, a restart, a second collector."""

import asyncio
import json
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from recorded_events import OneKey

from agents.evidence.actor import Collector
from agents.evidence.coverage import frontiers
from agents.evidence.keyring import Keyring
from agents.evidence.log import LogDirectory, LogLocked, export
from agents.evidence.ports import Frontier
from agents.evidence.record import Draft
from agents.evidence.sequencer import Sequencer
from infra.clock import SystemClock
from infra.kek import LocalKek
from infra.notary import LocalNotary, verify
from schemas.tlog.note import parse_vkey
from schemas.topics import state_topic
from streams.admin import ensure_topics
from streams.fence import Fence, Publisher
from streams.kafka import KafkaBroker
from streams.port import Fenced, Outgoing, TopicSpec
from streams.reader import EveryOffset
from tools import verify_evidence

PARTITIONS = 2
TABLE_PARTITIONS = 4  # of the table's topics on the shared broker, the same for every test


@dataclass
class Source:
    """A topic of the test's own, and an agent name for its fence."""

    broker: KafkaBroker
    topic: str
    agent: str
    sent: int = 0

    async def create(self) -> None:
        admin = self.broker.admin()
        await admin.start()
        await admin.create([TopicSpec(self.topic, PARTITIONS, 1, {})])
        async with asyncio.timeout(20):  # the broker answers before every part of it knows of the topic
            while await admin.partitions([self.topic]) != {self.topic: PARTITIONS}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await admin.stop()

    def row(self) -> Outgoing:
        self.sent += 1
        request = f"q{self.sent}"
        payload = {"tenant": "acme", "route": "r", "request_id": request, "at_ms": 1, "messages": [{"content": "hush"}]}
        headers = (("ce_id", f"id-{request}".encode()), ("ce_type", b"ratchet.request.submitted.v1"))
        return Outgoing(request.encode(), json.dumps(payload).encode(), headers)

    async def send(self, count: int, *, aborted: int = 0) -> None:
        """`count` transactions of 10 records on each partition; then `aborted` records that never count."""
        producer = self.broker.transactional(f"{self.agent}-source")
        await producer.start()
        for number in range(count + bool(aborted)):
            await producer.begin()
            rows = [self.row() for _ in range(10 if number < count else aborted)]
            for partition in range(PARTITIONS):
                for future in await producer.send(self.topic, partition, rows):
                    await future
            await (producer.commit() if number < count else producer.abort())
        await producer.stop(2.0)


@pytest.fixture
async def source(kafka: str) -> Source:
    """Fresh topics on the real broker."""
    name = f"evidence-{secrets.token_hex(4)}"
    made = Source(KafkaBroker(kafka), f"ratchet.{name}", name)
    await ensure_topics(kafka, TABLE_PARTITIONS, 1)
    admin = made.broker.admin()
    await admin.start()
    await admin.create([TopicSpec(state_topic(name), 1, 1, {"cleanup.policy": "compact"})])
    await admin.stop()
    await made.create()
    return made


async def open_log(root: Path, notary: LocalNotary, fence: Fence) -> Sequencer:
    attester = parse_vkey(notary.vkey(1)).public_key
    return await Sequencer.open(LogDirectory(root), notary=notary, fence=fence, check=verify, attester=attester)


async def collect(source: Source, root: Path, until: dict[tuple[str, int], int]) -> None:
    """Run a collector until its frontiers reach `until`."""
    notary = LocalNotary.create(root.parent / "key", "dev.ratchet.test")
    fence = Fence(source.broker, source.agent)
    publisher = Publisher(source.broker, TABLE_PARTITIONS, source.agent)
    reader = EveryOffset(source.broker, [source.topic], lambda record: Draft(record).id)
    await fence.start()
    sequencer = await open_log(root, notary, fence)
    keyring = Keyring(source.broker, LocalKek(bytes(32)), SystemClock())
    collector = Collector(sequencer, reader, OneKey(), keyring, publisher, SystemClock())
    stop = asyncio.Event()
    running = asyncio.create_task(collector.run(stop))
    try:
        async with asyncio.timeout(60):  # a collector never says that it has caught up: it follows
            none = Frontier(0, 0)
            while not running.done() and any(collector.frontiers.get(tp, none).next < end for tp, end in until.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        stop.set()
        await running
    finally:
        running.cancel()
        sequencer.close()
        for part in (reader, publisher, fence, keyring):
            await part.stop()


async def ends(source: Source) -> dict[tuple[str, int], int]:
    admin = source.broker.admin()
    await admin.start()
    try:
        return await admin.ends([(source.topic, partition) for partition in range(PARTITIONS)])
    finally:
        await admin.stop()


async def test_each_offset_once_over_a_restart(source: Source, tmp_path: Path) -> None:
    """Committed records are entries, markers and aborted ones are skips, before and after a restart."""
    root = tmp_path / "log"
    await source.send(5, aborted=7)
    await collect(source, root, await ends(source))
    await source.send(3)
    last = await ends(source)
    await collect(source, root, last)
    export(root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (root / "policy.txt").read_text())
    assert report.problems == []
    for (topic, partition), end in last.items():
        (state,) = report.partitions[f"{topic}/{partition}"]
        assert (state.entries, state.next, dict(state.skips)) == (80, end, {"marker": 9, "aborted": 7})
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hush" in path.read_bytes()]


async def test_a_topic_made_anew_is_recorded_from_its_first_offset(source: Source, tmp_path: Path, kafka: str) -> None:
    """Deleted and made anew while the collector was away, with more in it than before: a finding, and the next incarnation."""
    root = tmp_path / "log"
    await source.send(2)
    await collect(source, root, await ends(source))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_topics([source.topic])
    await admin.close()
    await source.create()
    await source.send(5, aborted=1)
    last = await ends(source)
    await collect(source, root, last)
    size = export(root, tmp_path / "out").size
    directory = LogDirectory(tmp_path / "out")
    entries = [json.loads(data) for data in directory.newest_first(size)]
    assert {tp: (at.inc, at.next) for tp, at in frontiers(directory.newest_first(size)).items()} == {
        tp: (1, end) for tp, end in last.items()
    }
    directory.close()
    found = [(row["kind"], row["src"]["inc"], row["to"]) for row in entries if row["type"] == "finding"]
    assert found == [("source-reset", 1, 22)] * PARTITIONS
    recorded = Counter(row["src"]["inc"] for row in entries if row["type"] == "request.submitted")
    assert recorded == {0: 20 * PARTITIONS, 1: 50 * PARTITIONS}


async def test_a_second_owner_fences_the_first(source: Source, tmp_path: Path) -> None:
    """On the same folder the second is refused; on a copy elsewhere it takes the fence, and the first signs no more."""
    await source.send(1)
    notary = LocalNotary.create(tmp_path / "key", "dev.ratchet.test")
    first_fence, second_fence = Fence(source.broker, source.agent), Fence(source.broker, source.agent)
    await first_fence.start()
    first = await open_log(tmp_path / "log", notary, first_fence)
    signed = await first.commit([b"{}"])
    with pytest.raises(LogLocked):
        await open_log(tmp_path / "log", notary, second_fence)
    await second_fence.start()
    second = await open_log(tmp_path / "copy", notary, second_fence)
    await second.commit([b"{}"])
    with pytest.raises(Fenced):
        await first.commit([b"{}"])
    assert (tmp_path / "log/checkpoint").read_bytes() == signed.note
    for sequencer, fence in ((first, first_fence), (second, second_fence)):
        sequencer.close()
        await fence.stop()
