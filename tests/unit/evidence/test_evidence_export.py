"""Bundles of a whole log and of one tenant: what is in them, what is withheld, and that they appear whole or not at all."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from evidenced import ADAPTER, ADAPTER_HEX, KNOWN_TAGS, Book, told

from agents.evidence import export as bundles
from agents.evidence.assess import Assessment
from agents.evidence.controls import sheet
from agents.evidence.export import Moved, Plan, announced, chosen, plan_all, plan_tenant, tags_of, write, write_log
from agents.evidence.snapshot import Snapshot, parsed
from infra.notary import verify
from schemas import canonical
from schemas.errors import Refused, Unavailable
from schemas.tlog import merkle, tiles
from schemas.tlog.policy import parse_policy
from schemas.tlog.proof import open_proof
from tools import verify_evidence


@pytest.fixture
async def book(tmp_path: Path) -> Book:
    return await told(tmp_path)


def kept(name: str) -> bytes | None:
    return ADAPTER if name == ADAPTER_HEX else None


def nothing(_: str) -> bytes | None:
    return None


async def tell_of(book: Book, plan: Plan) -> None:
    """The collector records the bundle."""
    facts = {"manifest": plan.digest, "kind": plan.kind, "files": len(plan.files)}
    book.add("observations", "export.made", facts, tenant=plan.tenant or "acme", event_id=f"made-{plan.digest[:8]}")
    book.close()
    await book.commit()


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_valid(out: Path, book: Book) -> None:
    """The verifier that auditors are given accepts the bundle under the log's policy."""
    assert verify_evidence.main([str(out), "--policy", str(book.root / "policy.txt"), "--json"]) == 0


def left(folder: Path) -> list[str]:
    """Bundles and what is left of them."""
    return [path.name for path in folder.iterdir() if "bundle" in path.name]


def tree(size: int) -> set[str]:
    return {tile.path for tile in tiles.tiles_of(size)}


async def test_a_full_bundle(book: Book, tmp_path: Path) -> None:
    """Everything that the manifest names, with its digest; the log at a checkpoint that covers the manifest's own."""
    log = Snapshot.open(book.root)
    plan = plan_all(log, kept, chosen(log, ["request-3", "entry-0"]))
    assert not announced(Snapshot.open(book.root), plan.digest, plan.size)
    await tell_of(book, plan)
    assert announced(Snapshot.open(book.root), plan.digest, plan.size)
    assert not announced(Snapshot.open(book.root), "0" * 64, plan.size)
    checkpoint = write(book.root, plan, tmp_path / "out" / "bundle")
    out = tmp_path / "out" / "bundle"
    manifest = canonical.decode((out / "manifest.json").read_bytes())
    assert isinstance(manifest, dict)
    named: Any = manifest["files"]
    statements = {
        f"attestations/{book.index['training.completed-0']}-training.dsse.json",
        f"attestations/{book.index['model.promoted-1']}-promotion.dsse.json",
        f"attestations/adapter-{ADAPTER_HEX}.dsse.json",
    }
    assert set(named) == {"policy.txt", "oscal.json", "controls.csv"} | statements
    assert {path: hashlib.sha256((out / path).read_bytes()).hexdigest() for path in named} == named
    assessment = Assessment(log)
    assert len([*assessment.entries()]) == log.size
    assert (out / "controls.csv").read_bytes() == sheet(assessment.results())
    assert manifest["proofs"] == ["entry-0.tlog-proof", "request-3.tlog-proof"]
    proofs = {"proofs/entry-0.tlog-proof", "proofs/request-3.tlog-proof"}
    assert files_of(out) == set(named) | proofs | tree(checkpoint.size) | {"checkpoint", "manifest.json"}
    assert checkpoint.size == book.size
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bundle"]
    policy = parse_policy((out / "policy.txt").read_text())
    entry = Snapshot.open(out).entry(book.index["request-3"])
    proof, opened = open_proof((out / "proofs/request-3.tlog-proof").read_bytes(), entry, policy, verify)
    assert (proof.index, opened.checkpoint) == (book.index["request-3"], checkpoint)
    assert_valid(out, book)


async def test_what_is_not_kept_is_said(book: Book) -> None:
    """A statement that is not signed yet and an adapter that is not in the store are named, not made up."""
    shutil.rmtree(book.root / "attestations")
    plan = plan_all(Snapshot.open(book.root), nothing, {})
    assert set(plan.files) == {"policy.txt", "oscal.json", "controls.csv"}
    assert [path.split("/")[1].split("-")[-1][:5] for path in plan.missing] == ["train", ADAPTER_HEX[:5], "promo"]


@pytest.mark.parametrize("adapter", ["../../etc/passwd", "sha256:" + "g" * 64, "", "sha256:../../../x"])
async def test_a_name_that_is_no_digest_is_no_path(tmp_path: Path, adapter: str) -> None:
    """What the log says of an adapter never becomes a place outside the bundle."""
    book = Book.new(tmp_path)
    book.add("training", "adapter.registered", {"adapter": adapter})
    book.close()
    await book.commit()

    def never(name: str) -> bytes | None:
        raise AssertionError(name)

    plan = plan_all(Snapshot.open(book.root), never, {})
    assert set(plan.files) == {"policy.txt", "oscal.json", "controls.csv"}


async def test_an_empty_log_has_nothing_to_assess(tmp_path: Path) -> None:
    """No checkpoint, or no record: Unavailable, for both come."""
    with pytest.raises(Unavailable, match="nothing was signed"):
        Snapshot.open(tmp_path)
    book = Book.new(tmp_path)
    book.close()
    await book.commit()
    with pytest.raises(Unavailable, match="no record"):
        plan_all(Snapshot.open(book.root), nothing, {})


async def test_tampered_entries_are_not_satisfied(book: Book) -> None:
    """Entries that no longer have the signed root: the document says so, it does not pass them."""
    bundle = book.root / "tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"bytes":3', b'"bytes":4', 1))
    results = json.loads(plan_all(Snapshot.open(book.root), kept, {}).files["oscal.json"])
    findings = results["assessment-results"]["results"][0]["findings"]
    status = {row["target"]["target-id"]: row["target"]["status"]["state"] for row in findings}
    assert status["hipaa-164.312.c"] == "not-satisfied"
    assert status["aiact-12"] == "satisfied"


@pytest.mark.parametrize("tenant", ["globex", "initech"])
async def test_a_tenants_bundle(book: Book, tmp_path: Path, tenant: str) -> None:
    """Its own entries and the collector's, every hash, nobody else's bytes; the count of each batch is coverage's."""
    log = Snapshot.open(book.root)
    count, tags = tags_of(log, tenant)
    assert (count, tags) == (90 if tenant == "globex" else 3, {KNOWN_TAGS[tenant]})
    plan = plan_tenant(log, kept, chosen(log, [], tenant=tenant), tenant, KNOWN_TAGS[tenant])
    assert (plan.kind, set(plan.files)) == ("tenant", {"policy.txt"})
    await tell_of(book, plan)
    out = tmp_path / "bundle"
    size = write(book.root, plan, out).size
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert (manifest["tenant"], manifest["tag"]) == (tenant, KNOWN_TAGS[tenant])
    disclosed = {path for path in files_of(out) if path.startswith("disclosed/")}
    hashes = {path for path in tree(size) if not path.startswith("tile/entries/")}
    assert files_of(out) == {"checkpoint", "policy.txt", "manifest.json"} | hashes | disclosed
    shown = read_disclosed(out, size)
    whole = [entry for _, entry in Snapshot.open(book.root).entries()]
    concern = [parsed(entry).get("tenant") == tenant or "tenant" not in parsed(entry) for entry in whole]
    assert [index for index, ours in enumerate(concern) if ours] == sorted(shown)
    assert shown == {index: whole[index] for index in shown}
    everything = b"".join((out / path).read_bytes() for path in files_of(out))
    assert_valid(out, book)
    assert not [other for other in KNOWN_TAGS if other != tenant and other.encode() in everything]


def read_disclosed(out: Path, size: int) -> dict[int, bytes]:
    """Index to disclosed entry, each under the hash of its tile."""
    found: dict[int, bytes] = {}
    for number in range(-(-size // tiles.WIDTH)):
        tile = tiles.Tile(None, number, min(tiles.WIDTH, size - number * tiles.WIDTH))
        path = out / bundles.disclosed_path(tile)
        if not path.exists():
            continue
        hashes = tiles.decode_tile((out / tiles.Tile(0, number, tile.width).path).read_bytes(), tile.width)
        for at, entry in enumerate(tiles.decode_bundle(path.read_bytes(), tile.width)):
            if entry:
                assert merkle.leaf_hash(entry) == hashes[at]
                found[number * tiles.WIDTH + at] = entry
    return found


async def test_a_tenant_gets_its_own_statements(book: Book, tmp_path: Path) -> None:
    """Those about its trainings and promotions, and no control results of the whole."""
    log = Snapshot.open(book.root)
    plan = plan_tenant(log, kept, chosen(log, ["request-1"], tenant="acme"), "acme", KNOWN_TAGS["acme"])
    assert sorted(path.split("-")[0] for path in plan.files if path != "policy.txt") == sorted(
        f"attestations/{word}"
        for word in (book.index["training.completed-0"], book.index["model.promoted-1"], "adapter")
    )
    assert "oscal.json" not in plan.files
    await tell_of(book, plan)
    write(book.root, plan, tmp_path / "bundle")
    assert_valid(tmp_path / "bundle", book)


async def test_tags_by_count(tmp_path: Path) -> None:
    """Tenants with equal counts in each batch cannot be told apart; one batch that differs tells; absent ones have none."""
    book = Book.new(tmp_path)
    for tenant in ("acme", "globex"):
        book.add("requests", "request.submitted", {}, tenant=tenant)
    book.close()
    await book.commit()
    assert tags_of(Snapshot.open(book.root), "acme") == (1, {KNOWN_TAGS["acme"], KNOWN_TAGS["globex"]})
    assert tags_of(Snapshot.open(book.root), "nobody") == (0, frozenset())
    book.add("requests", "request.submitted", {}, tenant="globex")
    book.close()
    await book.commit()
    for tenant, count in (("acme", 1), ("globex", 2)):
        assert tags_of(Snapshot.open(book.root), tenant) == (count, {KNOWN_TAGS[tenant]})


async def test_a_wrong_tag_begins_again(book: Book, tmp_path: Path) -> None:
    """A tag that does not count as the tenant does is not written into a bundle."""
    plan = plan_tenant(Snapshot.open(book.root), kept, {}, "globex", KNOWN_TAGS["acme"])
    with pytest.raises(Moved):
        write(book.root, plan, tmp_path / "bundle")
    assert not left(tmp_path)


async def test_changed_keys_begin_again(book: Book, tmp_path: Path) -> None:
    """A policy that is not the one of the last trust entry, or not the planned one, is never exported beside the log."""
    log = Snapshot.open(book.root)
    plan = plan_all(log, kept, {})
    policy = book.root / "policy.txt"
    text = policy.read_bytes()
    policy.write_bytes(text + b"log other\n")
    for attempt in (
        lambda: plan_all(Snapshot.open(book.root), kept, {}),
        lambda: plan_tenant(Snapshot.open(book.root), kept, {}, "acme", KNOWN_TAGS["acme"]),
        lambda: write(book.root, plan, tmp_path / "bundle"),
        lambda: write_log(book.root, tmp_path / "bundle", {}),
    ):
        with pytest.raises(Moved):
            attempt()
    assert not left(tmp_path)
    policy.write_bytes(text)
    book.raw({"v": 1, "type": "trust", "policy": hashlib.sha256(b"newer").hexdigest()})
    book.close()
    await book.commit()
    with pytest.raises(Moved):
        write(book.root, plan, tmp_path / "bundle")
    assert not left(tmp_path)


async def test_never_half_a_bundle(book: Book, tmp_path: Path) -> None:
    """What fails midway leaves neither the bundle nor the folder beside it."""
    plan = plan_all(Snapshot.open(book.root), kept, {"x": book.size + 7})
    with pytest.raises(ValueError, match="leaf"):
        write(book.root, plan, tmp_path / "bundle")
    assert not left(tmp_path)


@pytest.mark.parametrize("there", ["file", "full", "link"])
async def test_what_is_there_stays(book: Book, tmp_path: Path, there: str) -> None:
    """A file, a folder with something in it and a link are refused, untouched."""
    out = tmp_path / "bundle"
    if there == "full":
        out.mkdir()
        (out / "mine").touch()
    elif there == "file":
        out.touch()
    else:
        out.symlink_to(tmp_path)
    with pytest.raises(Refused, match="exists"):
        write_log(book.root, out, {})
    assert out.exists()
    assert left(tmp_path) == ["bundle"]


async def test_one_export_at_a_time(book: Book, tmp_path: Path) -> None:
    """A half-done one beside it, of a process that was killed or still runs, is named."""
    (tmp_path / ".bundle.partial").mkdir()
    with pytest.raises(Refused, match=r"\.bundle\.partial"):
        write_log(book.root, tmp_path / "bundle", {})
    (tmp_path / ".bundle.partial").rmdir()
    (tmp_path / "bundle").mkdir()  # an empty folder is taken
    assert write_log(book.root, tmp_path / "bundle", {"request-3": book.index["request-3"]}).size == book.size
    assert files_of(tmp_path / "bundle") >= {"checkpoint", "policy.txt", "proofs/request-3.tlog-proof"}
    assert_valid(tmp_path / "bundle", book)


async def test_events_by_name(book: Book) -> None:
    """By id, all its places, oldest first; by index; unknown ones, foreign ones and clashes are refused."""
    log = Snapshot.open(book.root)
    assert log.find(["request-3", "entry-2", "entry-99999", "no", "request-"]) == {
        "request-3": [book.index["request-3"]],
        "entry-2": [2],
    }
    with pytest.raises(Refused, match="'no'") as refused:
        chosen(log, ["request-3", "no"])
    assert refused.value.kind == "unknown-event"
    with pytest.raises(Refused, match="tenant globex"):
        chosen(log, ["request-1"], tenant="globex")
    assert chosen(log, ["entry-0"], tenant="globex") == {"entry-0": 0}
    book.add("verdicts", "verdict.given", {}, event_id="entry-0")
    book.add("verdicts", "verdict.given", {}, event_id="request-3")
    book.add("verdicts", "verdict.given", {}, event_id="ratchet.x[0]@5")
    book.close()
    await book.commit()
    log = Snapshot.open(book.root)
    again = log.find(["request-3", "entry-0", "ratchet.x[0]@5"])
    assert (len(again["request-3"]), again["entry-0"]) == (2, [book.index["entry-0"]])
    assert chosen(log, ["ratchet.x[0]@5"]) == {f"entry-{again['ratchet.x[0]@5'][0]}": again["ratchet.x[0]@5"][0]}
    clash = book.index["entry-0"]
    assert chosen(log, ["entry-0"]) == {"entry-0": clash}


async def test_a_sample_is_the_lowest_hashes(book: Book) -> None:
    """The rule, written out; another seed draws others; more than there are gives all."""
    log = Snapshot.open(book.root)

    def rank(index: int) -> bytes:
        return hashlib.sha256(log.checkpoint.root + "härte".encode() + index.to_bytes(8, "big")).digest()

    assert log.sample(5, "härte") == sorted(range(log.size), key=rank)[:5]
    assert log.sample(5, "other") != log.sample(5, "härte")
    assert sorted(log.sample(10_000, "x")) == list(range(log.size))


async def test_a_snapshot_beside_the_writer(book: Book, tmp_path: Path) -> None:
    """Entries, proofs and files stay what they were though the writer goes on and drops partial tiles."""
    log = Snapshot.open(book.root)
    entries = [entry for _, entry in log.entries()]
    for number in range(100, 200):
        book.request(number)
    book.close()
    await book.commit()
    policy = parse_policy(log.policy.decode())
    fresh = Snapshot(book.root, log.note, log.policy)
    assert [entry for _, entry in fresh.entries()] == entries
    for index in (0, 255, 256, log.size - 1):
        open_proof(fresh.proof(index).encode(), entries[index], policy, verify)


async def test_a_damaged_folder_is_named(book: Book, tmp_path: Path) -> None:
    """A missing tile, one of another length, a checkpoint that is none."""
    out = tmp_path / "bundle"
    write_log(book.root, out, {})
    log = Snapshot.open(out)
    (out / "tile/entries/000").write_bytes(b"\x00")
    with pytest.raises(Refused, match="tile/entries/000"):
        log.entry(3)
    (out / "tile/entries/000").unlink()
    with pytest.raises(Refused, match="missing"):
        log.entry(3)
    (out / "tile/0/000").write_bytes(b"\x00")
    with pytest.raises(Refused, match="tile/0/000"):
        log.proof(3)
    (out / "checkpoint").write_bytes(b"nothing")
    with pytest.raises(Refused, match="checkpoint"):
        Snapshot.open(out)
