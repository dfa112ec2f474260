"""Writes evidence exports of every kind, as their formats are specified, with keys of its own.

A second writer beside the collector's, on purpose: what it writes is what the offline verifier must take, and a test
may make it write what no collector would.
"""

import base64
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.tlog import merkle, tiles

ORIGIN = "ratchet.test/log"
TOPIC = "ratchet.requests"
TIME = 1_790_000_000
UUID = "8a1f3e60-5a5b-4c0e-9f5e-0123456789ab"


def jcs(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Signer:
    """A key pair that may sign as `name`; `kind` 1 is a log, 4 a witness."""

    name: str
    kind: int = 1
    seed: bytes = bytes(32)

    @cached_property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(self.name.encode() + self.seed).digest())

    @cached_property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @cached_property
    def key_id(self) -> bytes:
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public).digest()[:4]

    @cached_property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def line(self, body: bytes, time: int = TIME) -> str:
        """The signature line over a checkpoint's text."""
        stamp = b""
        if self.kind == 4:
            stamp = time.to_bytes(8, "big")
            body = b"cosignature/v1\ntime %d\n" % time + body
        return f"\u2014 {self.name} {b64(self.key_id + stamp + self.key.sign(body))}\n"


LOG = Signer(ORIGIN)
WITNESSES = (Signer("witness.test/a", 4), Signer("witness.test/b", 4), Signer("witness.test/c", 4))
ATTESTER = Signer("attester")


def policy_text(
    logs: Sequence[Signer] = (LOG,), witnesses: Sequence[Signer] = WITNESSES, k: int = 2, quorum: str | None = None
) -> str:
    """A policy as an export spells it: k of the witnesses w1, w2, …"""
    names = [f"w{number}" for number in range(1, len(witnesses) + 1)]
    lines = [f"log {log.vkey}" for log in logs]
    lines += [f"witness {name} {witness.vkey}" for name, witness in zip(names, witnesses, strict=True)]
    if witnesses:
        lines.append(f"group all-of-them {k} {' '.join(names)}")
    lines.append(f"quorum {quorum or ('all-of-them' if witnesses else 'none')}")
    return "\n".join(lines) + "\n"


def trust(policy: str, logs: Sequence[Signer] = (LOG,), witnesses: Sequence[Signer] = WITNESSES) -> bytes:
    """The entry that binds a policy file and the attester's key."""
    return jcs({
        "v": 1,
        "type": "trust",
        "policy": sha256(policy.encode()),
        "logs": [log.vkey for log in logs],
        "witnesses": [witness.vkey for witness in witnesses],
        "attester": {"keyid": sha256(ATTESTER.public)[:16], "key": b64(ATTESTER.public)},
    })  # fmt: skip


def record(
    offset: int,
    *,
    tenant: str = "acme",
    kind: str = "request.submitted",
    topic: str = TOPIC,
    partition: int = 0,
    inc: int = 0,
    facts: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    """An entry about a Kafka record."""
    place = f"{topic}-{partition}-{inc}-{offset}"
    return jcs({
        "v": 1,
        "id": f"event-{place}",
        "type": kind,
        "time": "2026-08-01T10:00:00.000Z",
        "src": {"topic": topic, "partition": partition, "inc": inc, "offset": offset, "broker_ms": TIME * 1000 + offset},
        "tenant": tenant,
        "request": f"q-{offset}",
        "route": "banking.intent",
        "facts": {"bytes": 261 + offset % 90, "final": True, "arms": [{"arm": "small", "propensity": "0.5"}]},
        "commit": {"value": sha256(place.encode()), "messages": sha256(place.encode() + b"m")},
        "retention": "time",
        **({} if facts is None else {"facts": facts}),
        **more,
    })  # fmt: skip


def tag(tenant: str) -> str:
    return sha256(b"key" + tenant.encode())[:32]


def finding(kind: str, first: int, last: int, *, partition: int = 0, inc: int = 0, topic: str = TOPIC) -> bytes:
    source = {"topic": topic, "partition": partition, "inc": inc}
    return jcs({"v": 1, "type": "finding", "kind": kind, "src": source, "from": first, "to": last})


@dataclass
class Spans:
    """Makes the coverage entries of batch after batch: what a batch's records leave out is a skip."""

    next: dict[str, int] = field(default_factory=dict[str, int])
    incs: dict[str, int] = field(default_factory=dict[str, int])
    last: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    def close(self, batch: Iterable[bytes], skips: Mapping[str, Sequence[Sequence[Any]]] | None = None) -> bytes:
        """The coverage entry of a batch; of `skips` per place [first, last, kind]."""
        values = [json.loads(entry) for entry in batch]
        records = [value for value in values if "offset" in value.get("src", {})]
        skipped = skips or {}
        partitions: dict[str, Any] = {}
        for value in records:
            place = f"{value['src']['topic']}/{value['src']['partition']}"
            source = value["src"]
            if source["inc"] != self.incs.get(place, 0):
                self.incs[place], self.next[place] = source["inc"], 0
            span = partitions.setdefault(place, self._span(place, skipped.get(place, ())))
            span["entries"] += 1
            span["next"] = max(span["next"], source["offset"] + 1)
            span["last"] = self.last[place] = [source["offset"], source["broker_ms"], value["id"]]
        for place in skipped:
            partitions.setdefault(place, self._span(place, skipped[place]))
        for place, span in partitions.items():
            self.next[place] = span["next"]
        tenants = Counter(tag(value["tenant"]) for value in records)
        return jcs({"v": 1, "type": "coverage", "full": False, "partitions": partitions, "tenants": dict(tenants)})

    def _span(self, place: str, skips: Sequence[Sequence[Any]]) -> dict[str, Any]:
        start = self.next.get(place, 0)
        end = max((skip[1] + 1 for skip in skips), default=start)
        span = {"inc": self.incs.get(place, 0), "from": start, "next": end, "entries": 0, "skips": [*map(list, skips)]}
        return span | ({"last": self.last[place]} if place in self.last else {})


def sound_log(count: int, policy: str, *, tenants: Sequence[str] = ("acme", "globex"), batch: int = 64) -> list[bytes]:
    """A log of `count` records of two partitions and several tenants, with a legal gap, in batches."""
    spans = Spans()
    log = [trust(policy)]
    numbers = itertools.count()
    left = count
    while left:
        size = min(batch, left)
        left -= size
        records = [
            record(number // 2 + 2 * (number >= 40), partition=number % 2, tenant=tenants[number // 3 % len(tenants)])
            for number in itertools.islice(numbers, size)
        ]
        gap = [[20, 21, "aborted"]] if log[1:] == [] and size >= 42 else []
        both = {f"{TOPIC}/0": gap, f"{TOPIC}/1": gap} if gap else {}
        log += [*records, spans.close(records, both)]
    return log


@dataclass
class Log:
    """Entries, and who signs them."""

    entries: list[bytes]
    policy: str = field(default_factory=policy_text)
    logs: Sequence[Signer] = (LOG,)
    witnesses: Sequence[Signer] = WITNESSES
    time: int = TIME

    def __post_init__(self) -> None:
        self._leaves = [merkle.leaf_hash(entry) for entry in self.entries]
        self._nodes: dict[tuple[int, int], bytes] = {}

    def read(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaves[index]
        if (level, index) not in self._nodes:
            pair = self.read(level - 1, 2 * index), self.read(level - 1, 2 * index + 1)
            self._nodes[level, index] = merkle.node_hash(*pair)
        return self._nodes[level, index]

    @property
    def root(self) -> bytes:
        return merkle.root(len(self.entries), self.read)

    @property
    def checkpoint(self) -> bytes:
        body = f"{self.logs[0].name}\n{len(self.entries)}\n{b64(self.root)}\n"
        lines = [signer.line(body.encode(), self.time) for signer in (*self.logs, *self.witnesses)]
        return (body + "\n" + "".join(lines)).encode()

    def files(self) -> dict[str, bytes]:
        """The log alone."""
        made = {"checkpoint": self.checkpoint, "policy.txt": self.policy.encode()}
        for tile in tiles.tiles_of(len(self.entries)):
            first = tile.number * tiles.WIDTH
            if tile.level is None:
                made[tile.path] = tiles.encode_bundle(self.entries[first : first + tile.width])
            else:
                made[tile.path] = b"".join(self.read(8 * tile.level, first + at) for at in range(tile.width))
        return made

    def proof(self, index: int) -> bytes:
        hashes = merkle.inclusion_proof(index, len(self.entries), self.read)
        head = "".join(["c2sp.org/tlog-proof@v1\n", f"index {index}\n", *(f"{b64(item)}\n" for item in hashes), "\n"])
        return head.encode() + self.checkpoint

    def statement(self, index: int, **more: Any) -> bytes:
        """A signed statement that speaks of one entry."""
        bound = {
            "name": "evidence-log-entry",
            "uri": f"{ORIGIN}#{index}",
            "digest": {"sha256": sha256(self.entries[index])},
        }
        return envelope({"predicate": {"resolvedDependencies": [bound]}, **more})


def envelope(statement: Mapping[str, Any], signer: Signer = ATTESTER, keyid: str | None = None) -> bytes:
    """An in-toto statement in DSSE."""
    payload = jcs({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "adapter", "digest": {"sha256": sha256(b"weights")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        **statement,
    })  # fmt: skip
    kind = b"application/vnd.in-toto+json"
    signature = signer.key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    return jcs({
        "payload": b64(payload),
        "payloadType": kind.decode(),
        "signatures": [{"keyid": keyid or sha256(signer.public)[:16], "sig": b64(signature)}],
    })  # fmt: skip


def oscal() -> bytes:
    results = {"uuid": UUID, "metadata": {}, "import-ap": {"href": "#"}, "results": [{"uuid": UUID}]}
    return jcs({"assessment-results": results})


def manifest(attached: Mapping[str, bytes], names: Sequence[str] = (), of: str | None = None, **more: Any) -> bytes:
    listed = {name: sha256(data) for name, data in attached.items()}
    return jcs({
        "v": 1,
        "kind": "ratchet-evidence",
        "origin": ORIGIN,
        "tenant": of,
        "tag": None if of is None else tag(of),
        "files": listed,
        "proofs": list(names),
        **more,
    })  # fmt: skip


def announced(entries: Sequence[bytes], manifest: bytes, kind: str = "full", tenant: str = "acme") -> list[bytes]:
    """The log that goes on with the entry that holds the manifest's digest."""
    facts = {"manifest": sha256(manifest), "kind": kind, "files": 1, "by": "0" * 32}
    offset = sum(b'"topic":"ratchet.observations"' in entry for entry in entries)
    made = [record(offset, topic="ratchet.observations", kind="export.made", tenant=tenant, facts=facts)]
    spans = Spans({"ratchet.observations/0": offset})
    return [*entries, *made, spans.close(made)]


@dataclass
class Export:
    """A whole bundle in the making: what the log says of training comes first, the manifest and its entry last."""

    count: int = 264
    tenant: str | None = None

    def __post_init__(self) -> None:
        self.policy = policy_text()
        adapter = envelope({"predicateType": "https://model_signing/signature/v1.0"}, Signer("trainer"), "trainer")
        log = sound_log(self.count, self.policy)
        spans = Spans()
        facts = {"adapter": f"sha256:{sha256(adapter)}"}
        trained = [
            record(0, topic="ratchet.training", kind="training.completed", facts={"rows": 12}),
            record(1, topic="ratchet.training", kind="adapter.registered", facts=facts),
            record(2, topic="ratchet.training", kind="model.promoted", facts={"pairs": 80}),
        ]
        at = len(log)
        log += [*trained, spans.close(trained)]
        early = Log(log, self.policy)
        self.attached = {"policy.txt": self.policy.encode(), "oscal.json": oscal()}
        if self.tenant is None:
            self.attached |= {
                f"attestations/{at}-training.dsse.json": early.statement(at),
                f"attestations/{at + 2}-promotion.dsse.json": early.statement(at + 2),
                f"attestations/adapter-{sha256(adapter)}.dsse.json": adapter,
            }
        self.proven = (1, at)
        names = sorted(f"{json.loads(log[index])['id']}.tlog-proof" for index in self.proven)
        self.manifest = manifest(self.attached, names, self.tenant)
        kind = "full" if self.tenant is None else "tenant"
        self.log = Log(announced(log, self.manifest, kind, self.tenant or "acme"), self.policy)

    def files(self) -> dict[str, bytes]:
        """Every file of the bundle."""
        made = self.log.files() | self.attached | {"manifest.json": self.manifest}
        for index in self.proven:
            made[f"proofs/{json.loads(self.log.entries[index])['id']}.tlog-proof"] = self.log.proof(index)
        if self.tenant is None:
            return made
        kept = {name: data for name, data in made.items() if not name.startswith("tile/entries/")}
        return kept | disclosed(self.log.entries, self.tenant)


def disclosed(entries: Sequence[bytes], tenant: str) -> dict[str, bytes]:
    """The bundles of a tenant: the entries of others have length 0."""
    made: dict[str, bytes] = {}
    for first in range(0, len(entries), tiles.WIDTH):
        shown = [
            entry if _is_shown(json.loads(entry), tenant) else b"" for entry in entries[first : first + tiles.WIDTH]
        ]
        if any(shown):
            path = tiles.Tile(None, first // tiles.WIDTH, len(shown)).path
            made[path.replace("tile/entries/", "disclosed/")] = tiles.encode_bundle(shown)
    return made


def _is_shown(value: Mapping[str, Any], tenant: str) -> bool:
    return value["type"] in ("coverage", "finding", "trust", "violation") or value.get("tenant") == tenant


def write(directory: Path, files: Mapping[str, bytes]) -> Path:
    """The files as a folder."""
    for name, data in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return directory
