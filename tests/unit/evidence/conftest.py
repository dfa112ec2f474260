"""What the tests of evidence share: a real local notary, a scripted reader, a fence that can be taken away."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.evidence import coverage
from agents.evidence.keyring import Keyring
from agents.evidence.log import LogDirectory
from agents.evidence.ports import Frontier, Gap, Notary, Read, Source
from agents.evidence.quorum import Quorum
from agents.evidence.record import Draft, pseudonym
from agents.evidence.sequencer import Passed, Sequencer
from infra.clock import ManualClock
from infra.kek import LocalKek
from infra.notary import LocalNotary, verify
from schemas.errors import Unavailable
from schemas.payload import Payload
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.shapes import Record

KEY = bytes(range(32))
TEXT = "canary-text-7d1e: my card does not work"
EMAIL = "canary.person@example.org"
ATTESTER = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()


class Fenced(Exception):
    """Another process has our transactional id."""


@dataclass
class FakeFence:
    """Counts its commits; raises once it was taken."""

    commits: int = 0
    taken: bool = False
    error: Exception | None = None

    async def commit(self) -> None:
        if self.taken:
            raise Fenced
        if self.error is not None:
            raise self.error
        self.commits += 1


@dataclass
class FakeReader:
    """A reader over lists of reads per partition. Fails the test when polled before it was told where to begin."""

    reads: Sequence[Read]
    clock: ManualClock
    at_once: int = 100
    positions: Mapping[Source, Frontier] | None = None
    at_end: Callable[[], None] = lambda: None
    _left: list[Read] = field(default_factory=list[Read])

    async def seek(self, frontiers: Mapping[Source, Frontier]) -> None:
        assert self.positions is None, "seek is called once"
        self.positions = dict(frontiers)
        self._left = [read for read in self.reads if _last(read) >= _next(frontiers, read)]

    async def poll(self, timeout_s: float) -> Sequence[Read]:
        assert self.positions is not None, "polled before seek"
        await self.clock.advance(timeout_s if len(self._left) < self.at_once else 0.01)
        if not self._left:
            self.at_end()
        taken, self._left = self._left[: self.at_once], self._left[self.at_once :]
        return taken


def _next(frontiers: Mapping[Source, Frontier], read: Read) -> int:
    return frontiers.get((read.topic, read.partition), Frontier(0, 0)).next


def _last(read: Read) -> int:
    assert isinstance(read, Record | Gap), "the script of a reader that begins again has no resets"
    return read.offset if isinstance(read, Record) else read.last


@dataclass
class FakeKeys:
    """One key for every tenant; a tenant that is no token fails the test."""

    def commitment_key(self, tenant: str) -> bytes:
        assert tenant
        assert "@" not in tenant
        return KEY

    pseudonym_key = commitment_key


@dataclass
class FakePublisher:
    """Keeps what was published, and the cursor."""

    sent: list[tuple[Payload, str]] = field(default_factory=list[tuple[Payload, str]])
    cursor: int | None = None
    lose_answer: bool = False
    crash: tuple[str, int, type[BaseException]] | None = None
    """Die `before` or `after` the nth transaction."""

    async def start(self) -> int | None:
        return self.cursor

    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None:
        assert self.cursor is None or cursor > self.cursor, "published again"
        self._die("before")
        self.sent += payloads
        self.cursor = cursor
        self._die("after")
        if self.lose_answer:
            self.lose_answer = False
            raise Unavailable("the outcome is unknown")

    def _die(self, when: str) -> None:
        if self.crash is not None and self.crash[0] == when:
            when, nth, error = self.crash
            self.crash = (when, nth - 1, error)
            if nth == 1:
                raise error


def request_record(offset: int, *, partition: int = 0, topic: str = "ratchet.requests", text: str = TEXT) -> Record:
    """A request as it lies on Kafka."""
    request = f"q{partition}-{offset}"
    value = {
        "tenant": "acme",
        "route": "banking.intent",
        "request_id": request,
        "at_ms": 1_700_000_000_000 + offset,
        "subject": "customer-4711",
        "session_id": "session-9",
        "messages": [{"role": "user", "content": f"{text} {offset}, {EMAIL}"}],
    }
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"event-{partition}-{offset}".encode()),
        ("ce_type", b"ratchet.request.submitted.v1"),
        ("ce_source", EMAIL.encode()),
        ("ce_time", b"2026-08-01T10:00:00.000Z"),
    )
    return Record(topic, partition, offset, request.encode(), json.dumps(value).encode(), headers, 1_700_000_000_500)


def batch_entries(reads: Sequence[Read], frontiers: dict[Source, Frontier], *, full: bool = False) -> list[bytes]:
    """The entries of a batch as the collector makes them; moves `frontiers` on."""
    batch = coverage.Batch(frontiers)
    for read in reads:
        batch.add(read)
    entries = [Draft(record, inc).build(KEY, KEY) for record, inc in batch.records]
    tags = {pseudonym(KEY, "tenant", "acme"): len(entries)} if entries else {}
    frontiers.update(batch.next())
    return entries + batch.closing(tags, full=full)


def keyring_over(broker: MemoryBroker, clock: ManualClock) -> Keyring:
    """A keyring that makes keys, over a broker in memory and the local wrapping key."""
    return Keyring(broker, LocalKek(KEY), clock, Publisher(broker, broker.count, owner="keys"))


@dataclass
class Lab:
    """A log in a folder, and what its parts need."""

    root: Path
    notary: Notary
    fence: FakeFence
    clock: ManualClock
    keys: FakeKeys
    publisher: FakePublisher
    broker: MemoryBroker
    subjects: Keyring
    request: Callable[..., Record] = request_record
    entries: Callable[..., list[bytes]] = batch_entries
    reader: Callable[..., FakeReader] = FakeReader
    fenced: type[Exception] = Fenced
    canaries: tuple[str, ...] = (TEXT, "canary", EMAIL, "customer-4711", "session-9", "example.org")
    key: bytes = KEY
    attester: bytes = ATTESTER
    quorum: Callable[[], Quorum | None] = lambda: None

    def beside(self, name: str) -> "Lab":
        """Another empty log with the same parts."""
        return replace(self, root=self.root.parent / name)

    async def open(self, passed: Passed = lambda _: None) -> Sequencer:
        return await Sequencer.open(
            LogDirectory(self.root),
            notary=self.notary,
            fence=self.fence,
            check=verify,
            attester=self.attester,
            quorum=self.quorum(),
            passed=passed,
        )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty log."""
    notary = LocalNotary.create(tmp_path / "notary.key", "dev.ratchet.test")
    clock, broker = ManualClock(), MemoryBroker()
    return Lab(
        tmp_path / "log", notary, FakeFence(), clock, FakeKeys(), FakePublisher(), broker, keyring_over(broker, clock)
    )
