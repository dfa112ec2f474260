"""A log of three tenants in a folder, made entry by entry as the specification has them, with every kind of statement in it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.evidence.attest import SigningAttestor, kind_of, path_of
from agents.evidence.log import LogDirectory
from agents.evidence.record import Draft
from agents.evidence.sequencer import Sequencer
from infra.notary import LocalNotary, verify
from infra.secrets import LocalSecrets
from schemas import canonical, codec, topics
from schemas.dsse import PAYLOAD_TYPE, STATEMENT_TYPE, envelope, pae
from schemas.payload import Payload
from streams.shapes import Record

ATTESTER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ATTESTER_KEY = ATTESTER.public_key().public_bytes_raw()
KEY_ID = hashlib.sha256(ATTESTER_KEY).hexdigest()[:16]
_ABOUT = {
    "_type": STATEMENT_TYPE,
    "subject": [{"name": "banking", "digest": {"sha256": "4" * 64}}],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {"resources": []},
}
_PAYLOAD = canonical.encode(_ABOUT)
ADAPTER = envelope(_PAYLOAD, "adapters", ATTESTER.sign(pae(PAYLOAD_TYPE, _PAYLOAD)))
"""An adapter's statement, as the artifact store has it."""
ADAPTER_HEX = hashlib.sha256(ADAPTER).hexdigest()
AT_MS = 1_790_000_000_000
TENANTS = ("acme", "globex", "initech")
DEFAULT = "default"
KNOWN_TAGS = {tenant: hashlib.sha256(tenant.encode()).hexdigest()[:32] for tenant in (*TENANTS, DEFAULT)}


class NoFence:
    """Nobody else writes this log."""

    async def commit(self) -> None:
        return


@dataclass
class Book:
    """A log that grows by whole batches; every record is covered, every batch counted per tenant."""

    root: Path
    notary: LocalNotary
    tags: Mapping[str, str] = field(default_factory=lambda: dict(KNOWN_TAGS))
    offsets: Counter[str] = field(default_factory=Counter[str])
    covered: Counter[str] = field(default_factory=Counter[str])
    batch: list[bytes] = field(default_factory=list[bytes])
    counts: Counter[str] = field(default_factory=Counter[str])
    last: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    index: dict[str, int] = field(default_factory=dict[str, int])
    keys: Callable[[str], tuple[bytes, bytes]] = lambda _: (bytes(range(32)), bytes(range(32)))
    """Of a tenant: commitments, pseudonyms."""
    size: int = 1
    """With the batch that is not written yet; 1 for the `trust` entry that the sequencer puts first."""

    @classmethod
    def new(cls, folder: Path) -> "Book":
        """An empty log in `folder`/evidence."""
        return cls(folder / "evidence", LocalNotary.create(folder / "notary.key", "dev.ratchet.test"))

    def add(
        self,
        topic: str,
        kind: str,
        facts: Mapping[str, Any],
        *,
        tenant: str = "acme",
        event_id: str = "",
        skip: int = 0,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """A record at the next offset of a topic (`skip` of them left out), with `more` in its envelope; its event id."""
        full = f"ratchet.{topic}"
        offset = self.offsets[full] + skip
        self.offsets[full] = offset + 1
        event_id = event_id or f"{kind}-{offset}"
        self.last[full] = [offset, AT_MS + self.size, event_id]
        self.raw(
            {
                "v": 1, "id": event_id, "type": kind, "tenant": tenant, "retention": "time", "time": "2026-09-21T14:13:20Z",
                "src": {"topic": full, "partition": 0, "inc": 0, "offset": offset, "broker_ms": AT_MS + self.size},
                "route": "banking", "facts": dict(facts), "commit": {"value": "0" * 64},
            } | dict(more or {})
        )  # fmt: skip
        self.counts[tenant] += 1
        self.index.setdefault(event_id, self.size - 1)
        return event_id

    def raw(self, entry: Mapping[str, Any]) -> None:
        """An entry as it is given."""
        self.batch.append(canonical.encode(entry))
        self.size += 1

    def event(self, payload: Payload, name: str) -> int:
        """A real event, as the collector writes it; its id is `name`. The entry's index."""
        topic = topics.full(payload.TOPIC)
        made = codec.encode(payload, event_id=name, source="ratchet/test", traceparent="")
        offset = self.offsets[topic]
        self.offsets[topic] = offset + 1
        self.last[topic] = [offset, AT_MS + self.size, name]
        record = Record(topic, 0, offset, made.key, made.value, made.headers, AT_MS + self.size)
        self.batch.append(Draft(record).build(*self.keys(payload.tenant)))
        self.size += 1
        self.counts[payload.tenant] += 1
        self.index[name] = self.size - 1
        return self.size - 1

    def record(self, record: Record) -> None:
        """A record of a broker, as the collector would take it."""
        headers = dict(record.headers)
        value = json.loads(record.value or b"{}")
        facts = {name: value[name] for name in ("manifest", "kind", "files", "entries", "expected")}
        self.offsets[record.topic] = record.offset
        kind = headers["ce_type"].decode().removeprefix("ratchet.").removesuffix(".v1")
        topic = record.topic.removeprefix("ratchet.")
        self.add(topic, kind, facts, tenant=value["tenant"], event_id=headers["ce_id"].decode())

    def request(self, number: int, *, tenant: str = "acme", parts: str = "rda") -> None:
        """A request with its decision and answer, or with those of `parts`."""
        offset = self.offsets["ratchet.requests"]
        place = {"request_partition": 0, "request_offset": offset}
        if "r" in parts:
            self.add("requests", "request.submitted", {"bytes": 3}, tenant=tenant, event_id=f"request-{number}")
        if "d" in parts:
            self.add("decisions", "decision.routed", place, tenant=tenant, event_id=f"decision-{number}")
        if "a" in parts:
            self.add("answers", "answer.released", place, tenant=tenant, event_id=f"answer-{number}")

    def close(self, skips: Mapping[str, Sequence[tuple[int, int, str]]] | None = None) -> None:
        """The batch's coverage entry."""
        partitions: dict[str, Any] = {}
        for topic in sorted(self.offsets):
            known = (skips or {}).get(topic, ())
            first, end = self.covered[topic], self.offsets[topic]
            entries = end - first - sum(b - a + 1 for a, b, _ in known)
            span: dict[str, Any] = {
                "inc": 0,
                "from": first,
                "next": end,
                "entries": entries,
                "skips": [list(skip) for skip in known],
            }
            if topic in self.last:
                span["last"] = self.last[topic]
            partitions[f"{topic}/0"] = span
            self.covered[topic] = end
        tenants = {self.tags[tenant]: count for tenant, count in self.counts.items()}
        self.raw({"v": 1, "type": "coverage", "full": True, "partitions": partitions, "tenants": tenants})
        self.counts.clear()

    async def commit(self) -> None:
        """Append the batch, sign it, sign the statements that its entries make."""
        sequencer = await Sequencer.open(
            LogDirectory(self.root), notary=self.notary, fence=NoFence(), check=verify, attester=ATTESTER_KEY
        )
        first = sequencer.size or 1
        await sequencer.commit(self.batch)
        sequencer.close()

        async def sign(body: bytes) -> bytes:
            return ATTESTER.sign(body)

        attestor = SigningAttestor(self.notary.name, KEY_ID, sign)
        for index, entry in enumerate(self.batch, first):
            if (kind := kind_of(entry)) is not None:
                path = self.root / path_of(index, kind)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(await attestor.attest(index, entry))
        self.batch = []


def tell(book: Book) -> None:
    """A loop's whole story: requests of three tenants, a training, a promotion. Not closed yet."""
    for number in range(90):
        book.request(number, tenant=TENANTS[0] if number % 3 else TENANTS[1])
    book.request(90, tenant=TENANTS[2])
    learn(book)


def learn(book: Book) -> None:
    """A training and a promotion of acme's."""
    book.add(
        "training", "training.completed",
        {"order_id": "order-1", "adapter": f"sha256:{ADAPTER_HEX}", "tree": "sha256:" + "1" * 64,
         "dataset": "sha256:" + "2" * 64, "rows": 120, "cutoff_ms": AT_MS, "seconds": "41.5",
         "metrics": {"test_accuracy": "0.81"}, "energy_j": "900.0", "energy_estimated": True},
    )  # fmt: skip
    book.add("training", "adapter.registered", {"adapter": f"sha256:{ADAPTER_HEX}", "base": "sha256:" + "3" * 64})
    ground = book.add("promotions", "promotion.evaluated", {"arena": "a" * 32, "decision": "promote"})
    book.add(
        "promotions", "model.promoted",
        {"arena": "a" * 32, "champion": "base", "challenger": "tuned", "adapter": f"sha256:{ADAPTER_HEX}", "pairs": 212,
         "log_e": "3.4", "fleet_version": 4, "evaluation": ground, "approved_by": "f" * 32},
    )  # fmt: skip


async def told(folder: Path) -> Book:
    """The story, closed and signed, in two batches: more than one bundle, more than one coverage entry."""
    book = Book.new(folder)
    tell(book)
    book.close()
    await book.commit()
    for number in range(91, 100):
        book.request(number)
    book.close()
    await book.commit()
    return book


async def local_tags(secrets: LocalSecrets, tenants: Sequence[str]) -> dict[str, str]:
    """The tags that the collector of a stack with this secret store would write."""
    from agents.evidence.record import pseudonym
    from agents.wiring import TenantKeys

    keys = TenantKeys(await secrets.commitment_key("tenants"))
    return {tenant: pseudonym(keys.pseudonym_key(tenant), "tenant", tenant) for tenant in tenants}
