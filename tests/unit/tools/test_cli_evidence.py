"""`ratchet evidence` on a log in a folder: proofs, samples, exports, what is said and with which exit code."""

import asyncio
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidenced import ADAPTER, KNOWN_TAGS, Book, local_tags, told

from infra.artifacts import DirectoryStore
from infra.notary import verify
from infra.secrets import LocalSecrets
from schemas.tlog.policy import parse_policy
from schemas.tlog.proof import open_proof
from streams.memory import MemoryBroker
from streams.port import TP, Outgoing
from streams.shapes import Record
from tools.cli import evidence
from tools.cli.trace import draw, logged

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ratchet(cli: Run) -> Run:
    """`ratchet evidence …` in this process."""
    return functools.partial(cli, "evidence")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A log where the command line looks for it, and the adapter's statement in the store."""
    made = asyncio.run(told(tmp_path))
    DirectoryStore(tmp_path / "artifacts").put_bytes(ADAPTER)
    return made


class Collected(MemoryBroker):
    """A broker whose observations a collector writes into the log, a moment later."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book
        self.collecting = True
        self.before: Callable[[], None] = lambda: None
        self._work: set[asyncio.Task[None]] = set()

    def append(self, tp: TP, row: Outgoing, owner: str | None) -> Record:
        record = super().append(tp, row, owner)
        if self.collecting:
            assert tp[0] == "ratchet.observations"
            work = asyncio.get_running_loop().create_task(self._collect(record))
            self._work.add(work)
        return record

    async def _collect(self, record: Record) -> None:
        await asyncio.sleep(0.05)
        self.before()
        self.book.request(len(self._work) + 1000)
        self.book.record(record)
        self.book.close()
        await self.book.commit()


@pytest.fixture
def broker(book: Book, monkeypatch: pytest.MonkeyPatch) -> Collected:
    """Where `export.made` goes."""
    made = Collected(book)

    async def opened() -> Collected:
        return made

    monkeypatch.setattr(evidence, "open_broker", opened)
    return made


def test_without_a_log_something_is_away(ratchet: Run) -> None:
    """Exit 3, and what makes one."""
    for words in (("prove", "x"), ("export", "bundle"), ("sample", "-n", "3", "--seed", "s"), ("findings",)):
        code, _, said = ratchet(*words)
        assert (code, "`ratchet up` starts it" in said) == (3, True), words


def test_a_proof_and_its_entry(ratchet: Run, book: Book, tmp_path: Path) -> None:
    """Two files that verify under the log's policy; the words say where, in what, under which root, and how to check."""
    code, said, _ = ratchet("prove", "request-3", "--out", "proofs")
    index = book.index["request-3"]
    assert code == 0
    for words in (f"entry    {index} of {book.size}", "request.submitted ratchet.requests[0]@3", "verify   python"):
        assert words in said
    entry = (tmp_path / "proofs/request-3.json").read_bytes()
    policy = parse_policy((book.root / "policy.txt").read_text())
    proof, _ = open_proof((tmp_path / "proofs/request-3.tlog-proof").read_bytes(), entry, policy, verify)
    assert proof.index == index
    assert ratchet("verify", "proofs/request-3.tlog-proof", "--policy", str(book.root / "policy.txt"))[0] == 0
    row = json.loads(ratchet("prove", f"entry-{index}", "--json")[1])
    assert (row["name"], row["index"], row["size"], row["also"]) == ("request-3", index, book.size, [])
    assert (tmp_path / "request-3.tlog-proof").exists()


def test_an_unknown_event_is_a_no(ratchet: Run, book: Book, tmp_path: Path) -> None:
    """Exit 1 with a clear word, in JSON too; nothing is written."""
    for words in (("prove", "nobody"), ("export", "bundle", "--log-only", "--proof", "nobody")):
        code, said, _ = ratchet(*words)
        assert (code, "'nobody'" in said) == (1, True)
        code, said, _ = ratchet(*words, "--json")
        assert (code, json.loads(said)["kind"]) == (1, "unknown-event")
    assert not list(tmp_path.glob("*.tlog-proof"))
    assert not (tmp_path / "bundle").exists()


def test_the_beginning_of_an_id(ratchet: Run, book: Book, tmp_path: Path) -> None:
    """Eight characters or more stand for the one event that begins so; where several do, or fewer are given, the answer is no."""
    alone = next(name for name in book.index if sum(other.startswith(name[:-1]) for other in book.index) == 1)
    assert json.loads(ratchet("prove", alone[:-1], "--json")[1])["name"] == alone
    code, said, _ = ratchet("prove", "request-")
    assert (code, "events begin with 'request-'" in said) == (1, True)
    assert ratchet("prove", alone[:7])[0] == 1
    assert [path.stem for path in tmp_path.glob("*.tlog-proof")] == [alone]


def test_the_log_alone(ratchet: Run, book: Book, tmp_path: Path) -> None:
    """Needs no Kafka, verifies, and says loudly what it lacks. A folder that is there is left alone."""
    code, said, _ = ratchet("export", "bundle", "--log-only")
    assert (code, "the log alone" in said, "no manifest" in said) == (0, True, True)
    code, said, _ = ratchet("verify", "bundle", "--policy", str(book.root / "policy.txt"), "--json")
    assert (code, json.loads(said)["valid"]) == (0, True), said
    code, _, said = ratchet("export", "bundle", "--log-only")
    assert (code, "exists" in said) == (2, True)
    assert ratchet("export", "other", "--log-only", "--tenant", "acme")[0] == 2


def test_a_whole_bundle(ratchet: Run, book: Book, broker: Collected, tmp_path: Path) -> None:
    """It is announced by the operator before it is written, and the log vouches for its manifest."""
    code, said, _ = ratchet("export", "bundle", "--proof", "answer-5", "--as", "ann", "--wait", "9")
    assert code == 0, said
    (event,) = broker.events("observations")
    manifest = (tmp_path / "bundle/manifest.json").read_bytes()
    payload: Any = event.data
    assert (payload.manifest, payload.kind, payload.by) == (hashlib.sha256(manifest).hexdigest(), "full", "ann")
    assert payload.files == len(json.loads(manifest)["files"]) == 6
    assert payload.manifest in said
    assert "oscal.json" in said
    assert "lacks" not in said
    assert json.loads(manifest)["proofs"] == ["answer-5.tlog-proof"]
    policy = str(book.root / "policy.txt")
    assert ratchet("verify", "bundle", "--policy", policy)[0] == 0
    code, said, _ = ratchet("verify", "bundle", "--policy", policy, "--json")
    assert (code, [json.loads(line)["valid"] for line in said.splitlines()]) == (0, [True])
    part = tmp_path / "bundle/attestations" / sorted((tmp_path / "bundle/attestations").iterdir())[0].name
    part.write_bytes(part.read_bytes().replace(b"e", b"d", 1))
    assert ratchet("verify", "bundle", "--policy", policy)[0] == 1


def test_a_tenants_bundle(ratchet: Run, book: Book, broker: Collected, tmp_path: Path) -> None:
    """In JSON: whose it is, its manifest; an unknown tenant is a no, and nothing was announced for it."""
    code, said, _ = ratchet("export", "bundle", "--tenant", "nobody")
    assert (code, "no entry of tenant 'nobody'" in said, broker.records("observations")) == (1, True, [])
    code, said, _ = ratchet("export", "bundle", "--tenant", "globex", "--json")
    row = json.loads(said)
    assert (code, row["kind"], row["tenant"]) == (0, "tenant", "globex")
    assert json.loads((tmp_path / "bundle/manifest.json").read_bytes())["tag"] == KNOWN_TAGS["globex"]
    (event,) = broker.events("observations")
    assert event.data.tenant == "globex"
    assert ratchet("verify", "bundle", "--policy", str(book.root / "policy.txt"))[0] == 0


def test_every_tenants_bundle_holds_the_violations(ratchet: Run, book: Book, broker: Collected, tmp_path: Path) -> None:
    """They are the log's own, as findings are: disclosed to each tenant, and verified there."""
    source = {"topic": "ratchet.requests", "partition": 0, "inc": 0}
    book.raw({"v": 1, "type": "finding", "kind": "offset-gap", "from": 4, "to": 6, "src": source})
    book.raw({"v": 1, "type": "violation", "finding": "offset-gap", "controls": ["hipaa-164.312.b"]})
    book.close()
    asyncio.run(book.commit())
    assert ratchet("export", "bundle", "--tenant", "globex", "--as", "ann")[0] == 0
    code, said, _ = ratchet("verify", "bundle", "--policy", str(book.root / "policy.txt"), "--json")
    assert (code, [row["finding"] for row in json.loads(said)["violations"]]) == (0, ["offset-gap"])


def test_tenants_alike_are_told_apart_by_their_key(
    ratchet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two tenants count alike in every batch, the secret store says which tag is whose."""
    store = LocalSecrets.open(tmp_path / "secrets.json")
    made = Book.new(tmp_path)
    made.tags = asyncio.run(local_tags(store, ("acme", "globex")))
    for tenant in made.tags:
        made.add("requests", "request.submitted", {}, tenant=tenant)
    made.close()
    asyncio.run(made.commit())
    broker = Collected(made)
    broker.before = lambda: made.add("requests", "request.submitted", {}, tenant="globex") and None

    async def opened() -> Collected:
        return broker

    monkeypatch.setattr(evidence, "open_broker", opened)
    for tenant, tag in made.tags.items():
        assert ratchet("export", tenant, "--tenant", tenant, "--as", "ann")[0] == 0
        assert json.loads((tmp_path / tenant / "manifest.json").read_bytes())["tag"] == tag


def test_kafka_away(ratchet: Run, book: Book, broker: Collected, tmp_path: Path) -> None:
    """Exit 3: what must be, and what can be done without; no folder is left."""
    broker.away = True
    code, _, said = ratchet("export", "bundle")
    assert (code, "--log-only" in said) == (3, True)
    broker.away, broker.collecting = False, False
    code, _, said = ratchet("export", "bundle", "--wait", "0.1")
    assert (code, "the evidence agent does not run" in said) == (3, True)
    assert not list(tmp_path.glob("*bundle*"))


def test_no_stack(ratchet: Run, book: Book) -> None:
    """No Kafka is known at all: the same advice."""
    code, _, said = ratchet("export", "bundle")
    assert (code, "--log-only" in said, "`ratchet up`" in said) == (3, True, True)


def test_a_rotation_meanwhile(ratchet: Run, book: Book, broker: Collected, tmp_path: Path) -> None:
    """Keys that change while it waits: the bundle is planned and announced again, and has the new policy."""
    policy = book.root / "policy.txt"
    text = policy.read_bytes().replace(b"quorum none", b"quorum  none")

    def rotate() -> None:
        if len(broker.records("observations")) == 1:
            book.raw({"v": 1, "type": "trust", "policy": hashlib.sha256(text).hexdigest()})

    async def collect(record: Record) -> None:
        await Collected._collect(broker, record)
        policy.write_bytes(text)

    broker.before = rotate
    broker._collect = collect  # type: ignore[method-assign]
    code, said, _ = ratchet("export", "bundle", "--wait", "9")
    assert (code, len(broker.records("observations"))) == (0, 2), said
    assert (tmp_path / "bundle/policy.txt").read_bytes() == text


def test_a_sample(ratchet: Run, book: Book, tmp_path: Path) -> None:
    """The same of the running log and of its export; with --out each has its proof."""
    row = json.loads(ratchet("sample", "-n", "4", "--seed", "audit 2026", "--json")[1])
    assert (len(row["sample"]), row["size"]) == (4, book.size)
    assert ratchet("export", "bundle", "--log-only")[0] == 0
    again = json.loads(ratchet("sample", "bundle", "-n", "4", "--seed", "audit 2026", "--out", "drawn", "--json")[1])
    assert [one["index"] for one in again["sample"]] == [one["index"] for one in row["sample"]]
    assert sorted(path.stem for path in (tmp_path / "drawn").glob("*.tlog-proof")) == sorted(
        one["name"] for one in row["sample"]
    )
    said = ratchet("sample", "-n", "4", "--seed", "audit 2026")[1]
    assert all(one["name"] in said for one in row["sample"])
    assert ratchet("sample", "-n", "0", "--seed", "x")[0] == 2


def test_findings(ratchet: Run, book: Book) -> None:
    """None is a 0; one is a 1 and says where."""
    assert ratchet("findings")[0] == 0
    book.raw(
        {"v": 1, "type": "finding", "kind": "offset-gap", "from": 4, "to": 6,
         "src": {"topic": "ratchet.requests", "partition": 0, "inc": 0}}
    )  # fmt: skip
    book.raw({"v": 1, "type": "violation", "finding": "offset-gap", "controls": ["hipaa-164.312.b"]})
    book.raw({"v": 1, "type": "finding", "kind": "witness-away", "detail": {"witness": "w1"}})
    book.close()
    asyncio.run(book.commit())
    code, said, _ = ratchet("findings")
    assert (code, "offset-gap ratchet.requests[0] offsets 4 to 6" in said, "witness-away" in said) == (1, True, True)
    at = book.size - 4
    assert f"violates hipaa-164.312.b (entry {at + 1})" in said
    rows = [json.loads(line) for line in ratchet("findings", "--json")[1].splitlines()]
    assert [(row["index"], row["kind"], row["violates"], row["violation"]) for row in rows] == [
        (at, "offset-gap", ["hipaa-164.312.b"], at + 1), (at + 2, "witness-away", [], None),
    ]  # fmt: skip


def test_what_does_not_exist_is_not_verified(ratchet: Run) -> None:
    """Used wrongly: exit 2, and what would be accepted."""
    code, _, said = ratchet("verify", "nowhere")
    assert (code, ".tlog-proof" in said) == (2, True)


@pytest.mark.parametrize("words", [("sample", "nowhere", "-n", "1", "--seed", "s"), ("findings", "nowhere")])
def test_an_export_that_does_not_exist_is_used_wrongly(ratchet: Run, words: tuple[str, ...]) -> None:
    """Nothing is away, so exit 2."""
    code, _, said = ratchet(*words)
    assert (code, "nowhere is no folder" in said) == (2, True)


def test_trace_names_entries(book: Book, tmp_path: Path) -> None:
    """An event that the local log holds has its entry's number; another has none; without a log nobody has."""
    rows: list[dict[str, Any]] = [
        {"place": "ratchet.requests[0]@3", "id": "request-3", "type": "request.submitted", "cause": "", "written_ms": 1,
         "data": None},
        {"place": "ratchet.requests.dlq[0]@0", "id": "request-3", "type": "request.submitted", "cause": "",
         "written_ms": 2, "data": None},
        {"place": "ratchet.answers[0]@99", "id": "later", "type": "answer.released", "cause": "", "written_ms": 3,
         "data": None},
    ]  # fmt: skip
    assert logged(book.root, rows) == {"ratchet.requests[0]@3": book.index["request-3"]}
    assert logged(tmp_path / "nowhere", rows) == {}
    rows[0]["log_index"] = 7
    labels = [str(child.label) for child in draw("q", rows).children]
    assert "request-3" in labels[0]
    assert "@3 entry 7" in labels[0]
    assert "entry" not in labels[1]
