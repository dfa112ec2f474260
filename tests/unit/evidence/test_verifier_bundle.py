"""What stands beside the log: manifest, proofs, attestations, OSCAL results, and one tenant's part of a log."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence_bundle as made
import pytest

from schemas.tlog import tiles
from tools import verify_evidence as verifier

EXPORT = made.Export()
TENANT = made.Export(tenant="acme")
Files = dict[str, bytes]


def judged(tmp_path: Path, files: Files, given: str | None = None) -> verifier.Report:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    return verifier.verify(made.write(folder, files), given)


def rebuilt(attached: Files, **more: Any) -> Files:
    """The whole bundle with other files beside the log, properly listed, announced and signed."""
    entries = EXPORT.log.entries[:-2]
    manifest = made.manifest(attached, **more)
    return made.Log(made.announced(entries, manifest)).files() | attached | {"manifest.json": manifest}


def attestation(kind: str) -> tuple[str, int]:
    name = next(name for name in EXPORT.attached if kind in name)
    return name, int(name.split("/")[1].split("-")[0]) if "adapter" not in name else 0


# manifest


def test_a_rebuilt_bundle_is_valid(tmp_path: Path) -> None:
    """The way in which the next tests spoil a bundle does not spoil it itself."""
    assert judged(tmp_path, rebuilt(EXPORT.attached)).problems == []


@pytest.mark.parametrize(("name", "change"), [
    ("another version", {"v": 2}),
    ("a version of true", {"v": True}),
    ("another kind", {"kind": "evidence"}),
    ("another origin", {"origin": "ratchet.test/other"}),
    ("a tenant without a tag", {"tenant": "acme"}),
    ("a tag without a tenant", {"tag": made.tag("acme")}),
    ("an unknown member", {"more": 1}),
    ("files as a list", {"files": []}),
    ("no files", {"files": {}}),
    ("a file outside", {"files": {"../x": "0" * 64, "policy.txt": made.sha256(EXPORT.policy.encode())}}),
    ("the log as a file", {"files": {"checkpoint": "0" * 64, "policy.txt": made.sha256(EXPORT.policy.encode())}}),
    ("digests in upper case", {"files": {"policy.txt": made.sha256(EXPORT.policy.encode()).upper()}}),
    ("proofs that are not there", {"proofs": ["entry-1.tlog-proof"]}),
    ("proofs as numbers", {"proofs": [1]}),
])  # fmt: skip
def test_manifests_of_another_form(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    """Though announced in the log, what is not as specified is refused."""
    report = judged(tmp_path, rebuilt({"policy.txt": EXPORT.policy.encode()}, **change))
    assert not report.valid, name
    assert not report.problems[0].startswith("cannot be read"), report.problems


def test_a_manifest_that_the_log_does_not_announce(tmp_path: Path) -> None:
    """Self-made manifests, and ones announced for another kind of bundle, are refused."""
    files = EXPORT.files()
    listed = {name: data for name, data in EXPORT.attached.items() if name != "oscal.json"}
    names = sorted(name[7:] for name in files if name.startswith("proofs/"))
    fewer = {name: data for name, data in files.items() if name != "oscal.json"}
    report = judged(tmp_path, fewer | {"manifest.json": made.manifest(listed, names)})
    assert report.problems == ["manifest.json: no export.made entry of the log holds its digest"]
    manifest = made.manifest({"policy.txt": EXPORT.policy.encode()})
    log = made.Log(made.announced(EXPORT.log.entries, manifest, kind="tenant"))
    assert judged(tmp_path, log.files() | {"manifest.json": manifest}).problems == report.problems


def test_without_its_manifest_a_bundle_is_none(tmp_path: Path) -> None:
    """What only a manifest can vouch for is unknown without one."""
    files = EXPORT.files()
    del files["manifest.json"]
    assert "unknown file" in judged(tmp_path, files).problems[0]


# proofs


def test_proofs_beside_a_log_alone(tmp_path: Path) -> None:
    """A log without a manifest may have proofs, by event id or by index; own entries only by index."""
    log = EXPORT.log
    event = json.loads(log.entries[5])["id"]
    good = {f"proofs/{event}.tlog-proof": log.proof(5), "proofs/entry-6.tlog-proof": log.proof(6)}
    good["proofs/entry-0.tlog-proof"] = log.proof(0)
    report = judged(tmp_path, log.files() | good)
    assert (report.problems, sorted(proof["index"] for proof in report.proofs)) == ([], [0, 5, 6])


def _proof(change: Callable[[bytes], bytes], name: str = "entry-5") -> Files:
    return {f"proofs/{name}.tlog-proof": change(EXPORT.log.proof(5))}


LARGER = made.Log([*EXPORT.log.entries, made.jcs({"v": 1, "type": "finding", "kind": "witness-away", "detail": {}})])


@pytest.mark.parametrize(("name", "proof"), [
    ("another name", _proof(lambda p: p, "entry-6")),
    ("another event's name", _proof(lambda p: p, "event-x")),
    ("another suffix", {"proofs/entry-5.proof": EXPORT.log.proof(5)}),
    ("a folder below", {"proofs/x/entry-5.tlog-proof": EXPORT.log.proof(5)}),
    ("another index", _proof(lambda p: p.replace(b"index 5", b"index 4"))),
    ("an index beyond", _proof(lambda p: p.replace(b"index 5", b"index 99999999999"))),
    ("an index of another spelling", _proof(lambda p: p.replace(b"index 5", b"index 05"))),
    ("an extra line", _proof(lambda p: p.replace(b"index", b"extra AAAA\nindex"))),
    ("a hash fewer", _proof(lambda p: p[:35] + p[80:])),
    ("hashes without end", _proof(lambda p: p.replace(b"index 5\n", b"index 5\n" + 100 * (b"A" * 43 + b"=\n")))),
    ("another version", _proof(lambda p: p.replace(b"@v1", b"@v2"))),
    ("nothing", _proof(lambda _: b"")),
    ("NUL bytes", _proof(lambda p: p.replace(b"\n", b"\0"))),
    ("a later checkpoint", {"proofs/entry-5.tlog-proof": LARGER.proof(5)}),
    ("an index with digits of another script", _proof(lambda p: p.replace(b"index 5", "index ٥".encode()))),
])  # fmt: skip
def test_proofs_that_do_not_hold(tmp_path: Path, name: str, proof: Files) -> None:
    """Refused for their form, name, place, or checkpoint."""
    assert proof["proofs/entry-5.tlog-proof"] != EXPORT.log.proof(5) if "proofs/entry-5.tlog-proof" in proof else True
    report = judged(tmp_path, EXPORT.log.files() | proof)
    assert not report.valid, name
    assert not report.problems[0].startswith("cannot be read"), report.problems


def test_every_entry_of_trees_of_many_sizes() -> None:
    """Proofs of all entries in all trees up to 40 hold, and hold for no other index."""
    for size in range(1, 41):
        log = made.Log([b"%d" % number for number in range(size)])
        head = verifier.Checkpoint(made.ORIGIN, size, log.root, b"", [], [])
        for index in range(size):
            proof = verifier.parse_proof(log.proof(index), "proof")
            verifier.check_inclusion(proof, head, log.entries[index], "proof")
            for other in {0, size - 1, size, index ^ 1, index + 1} - {index}:
                with pytest.raises(verifier.Invalid):
                    verifier.check_inclusion(
                        verifier.Proof(other, proof.hashes, b""), head, log.entries[index], "proof"
                    )


def test_a_single_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proof, entry and the auditor's policy are enough; any of them changed is refused."""
    proof, entry, policy = tmp_path / "x.tlog-proof", tmp_path / "x.json", tmp_path / "policy"
    proof.write_bytes(EXPORT.log.proof(5))
    entry.write_bytes(EXPORT.log.entries[5])
    policy.write_text(made.policy_text())
    assert verifier.main([str(proof), "--policy", str(policy)]) == 0
    assert "proof       entry 5, request.submitted" in capsys.readouterr().out
    other = tmp_path / "other"
    other.write_bytes(EXPORT.log.entries[6])
    assert verifier.main([str(proof), "--policy", str(policy), "--entry", str(other)]) == 1
    policy.write_text(made.policy_text(witnesses=made.WITNESSES[:1], k=1))
    assert verifier.main([str(proof), "--policy", str(policy)]) == 1
    entry.unlink()
    assert verifier.main([str(proof), "--policy", str(policy), "--json"]) == 1


def test_a_folder_of_single_proofs(tmp_path: Path) -> None:
    """NAME.tlog-proof and NAME.json side by side, checked together against a given policy; nothing else may lie there."""
    folder = tmp_path / "proofs"
    pairs: Files = {}
    for index in (0, 5, 9):
        pairs |= {f"p{index}.tlog-proof": EXPORT.log.proof(index), f"p{index}.json": EXPORT.log.entries[index]}
    made.write(folder, pairs)
    report = verifier.verify(folder, made.policy_text())
    assert (report.problems, report.kind, [proof["index"] for proof in report.proofs]) == ([], "proof", [0, 5, 9])
    assert not verifier.verify(folder).valid
    for name in ("p5.json", "p5.tlog-proof"):
        (folder / name).unlink()
        assert not verifier.verify(folder, made.policy_text()).valid
        (folder / name).write_bytes(pairs[name])
    (folder / "p0.json").write_bytes(pairs["p5.json"])
    assert not verifier.verify(folder, made.policy_text()).valid


# attestations


@pytest.mark.parametrize(("name", "change"), [
    ("signed by a stranger", lambda s, at: made.envelope(s, made.Signer("stranger"))),
    ("in the attester's name", lambda s, at: made.envelope(
        s, made.Signer("stranger"), made.sha256(made.ATTESTER.public)[:16]
    )),
    ("of another entry", lambda s, at: made.envelope(_bound(s, uri=f"{made.ORIGIN}#{at + 1}"))),
    ("of another log", lambda s, at: made.envelope(_bound(s, uri=f"ratchet.test/other#{at}"))),
    ("of an index in another spelling", lambda s, at: made.envelope(_bound(s, uri=f"{made.ORIGIN}#0{at}"))),
    ("of another digest", lambda s, at: made.envelope(_bound(s, digest={"sha256": "0" * 64}))),
    ("of two digests", lambda s, at: made.envelope(s | {"x": _bound(s, digest={"sha256": "0" * 64})["predicate"]})),
    ("of no entry", lambda s, at: made.envelope(_bound(s, name="entry"))),
    ("of a list", lambda s, at: made.envelope(_bound(s, uri=["x"]))),
    ("no in-toto statement", lambda s, at: made.envelope(s | {"_type": "other"})),
    ("without a subject", lambda s, at: made.envelope(s | {"subject": []})),
    ("subject without a digest", lambda s, at: made.envelope(s | {"subject": [{"name": "x"}]})),
    ("not signed", lambda s, at: _enveloped(s, signatures=[])),
    ("another payload type", lambda s, at: _enveloped(s, payloadType="application/json")),
    ("an unknown member", lambda s, at: _enveloped(s, more=1)),
    ("a key twice", lambda s, at: b'{"payload":"",' + made.envelope(s)[1:]),
    ("no JSON", lambda s, at: b"\xff"),
    ("deep JSON", lambda s, at: b"[" * 100_000),
    ("a number", lambda s, at: b"1"),
])  # fmt: skip
def test_statements_that_do_not_hold(tmp_path: Path, name: str, change: Any) -> None:
    """Though listed and announced, each is refused: the attester's key and the entry decide."""
    path, at = attestation("training")
    statement = json.loads(verifier.parse_envelope(EXPORT.attached[path], "x")[1].split(b" ", 4)[4])
    data = change(statement, at)
    assert data != EXPORT.attached[path]
    report = judged(tmp_path, rebuilt(EXPORT.attached | {path: data}))
    assert not report.valid, name
    assert not report.problems[0].startswith("cannot be read"), report.problems


def _bound(statement: dict[str, Any], **more: Any) -> dict[str, Any]:
    resource = statement["predicate"]["resolvedDependencies"][0] | more
    return statement | {"predicate": {"resolvedDependencies": [resource]}}


def _enveloped(statement: dict[str, Any], **more: Any) -> bytes:
    return made.jcs(json.loads(made.envelope(statement)) | more)


@pytest.mark.parametrize("name", [
    "attestations/{at}-promotion.dsse.json",
    "attestations/0{at}-training.dsse.json",
    "attestations/{at}-training.json",
    "attestations/{at}-decision.dsse.json",
    "attestations/999999-training.dsse.json",
])  # fmt: skip
def test_statements_under_another_name(tmp_path: Path, name: str) -> None:
    """The name says the entry and what it is."""
    path, at = attestation("training")
    attached = dict(EXPORT.attached)
    attached[name.format(at=at)] = attached.pop(path)
    assert not judged(tmp_path, rebuilt(attached)).valid


def test_adapters_that_the_log_does_not_register(tmp_path: Path) -> None:
    """An adapter's envelope is known by its digest, which an adapter.registered entry names."""
    other = made.envelope({"predicateType": "x"}, made.Signer("trainer"))
    name, _ = attestation("adapter-")
    foreign = EXPORT.attached | {f"attestations/adapter-{made.sha256(other)}.dsse.json": other}
    assert "no adapter.registered entry" in judged(tmp_path, rebuilt(foreign)).problems[0]
    assert "not the envelope" in judged(tmp_path, rebuilt(EXPORT.attached | {name: other})).problems[0]


@pytest.mark.parametrize("data", [
    b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"assessment-results":1}', b'{"assessment-results":{"uuid":""}}',
    made.oscal().replace(b"-4c0e-", b"-1c0e-"), made.oscal().replace(b'"results":[', b'"results":{"x":[')[:-2] + b"}}}",
])  # fmt: skip
def test_oscal_results_that_are_none(tmp_path: Path, data: bytes) -> None:
    """JSON of assessment results, their uuids of version 4 or 5."""
    report = judged(tmp_path, rebuilt(EXPORT.attached | {"oscal.json": data}))
    assert "oscal.json" in report.problems[0]
    assert not report.problems[0].startswith("cannot be read")


# a tenant's part


def test_a_tenants_bundle(tmp_path: Path) -> None:
    """Its entries and the collector's own are there, the others are hashes, and the counts are told."""
    files = TENANT.files()
    assert not any(b"globex" in data for data in files.values())
    report = judged(tmp_path, files, made.policy_text())
    assert (report.problems, report.kind, report.tenant) == ([], "tenant", "acme")
    assert report.of_tenant == sum(b'"tenant":"acme"' in entry for entry in TENANT.log.entries)


def reopened(spoil: Callable[[int, bytes], bytes]) -> Files:
    """The tenant's bundle with other entries disclosed."""
    files = TENANT.files()
    for name in [name for name in files if name.startswith("disclosed/")]:
        width = int(name.split("/")[-1]) if ".p/" in name else 256
        first = 256 * int(name.split("/")[1][:3])
        entries = [spoil(first + at, entry) for at, entry in enumerate(tiles.decode_bundle(files[name], width))]
        files[name] = tiles.encode_bundle(entries)
    return files


def test_each_entry_of_the_tenant_held_back(tmp_path: Path) -> None:
    """Any one of its entries, or of the collector's, left out is noticed by the counts of its batch."""
    shown: list[int] = []
    reopened(lambda at, entry: shown.append(at) or entry if entry else entry)
    assert len(shown) > 140
    for held in shown[::7] + shown[-3:]:
        report = judged(tmp_path, reopened(lambda at, entry, held=held: b"" if at == held else entry))
        assert not report.valid, held


def test_a_foreign_entry_in_a_tenants_place(tmp_path: Path) -> None:
    """Other bytes than those hashed, or an entry at another place, are refused."""
    index = next(at for at, entry in enumerate(TENANT.log.entries) if b'"tenant":"globex"' in entry)
    forged = made.record(999)
    assert not judged(tmp_path, reopened(lambda at, entry: forged if at == index else entry)).valid
    assert not judged(tmp_path, reopened(lambda at, entry: TENANT.log.entries[2] if at == 1 else entry)).valid


def test_a_tenants_bundle_may_disclose_more(tmp_path: Path) -> None:
    """An entry of another tenant, properly hashed, is no contradiction."""
    index = next(at for at, entry in enumerate(TENANT.log.entries) if b'"tenant":"globex"' in entry)
    log = TENANT.log.entries
    assert judged(tmp_path, reopened(lambda at, entry: log[at] if at == index else entry)).problems == []


def test_a_tenants_bundle_with_files_of_a_whole_one(tmp_path: Path) -> None:
    """Entry bundles do not belong there; a missing manifest, an empty bundle, a missing hash tile are refused."""
    files = TENANT.files()
    bundle = TENANT.log.files()["tile/entries/000"]
    assert "unknown file" in judged(tmp_path, files | {"tile/entries/000": bundle}).problems[0]
    for name in ("manifest.json", "tile/0/000", "disclosed/000"):
        assert not judged(tmp_path, {other: data for other, data in files.items() if other != name}).valid, name
    assert "discloses nothing" in judged(tmp_path, files | {"disclosed/000": bytes(512)}).problems[0]


def test_a_whole_batch_of_others_needs_no_bundle(tmp_path: Path) -> None:
    """A bundle of which nothing concerns the tenant is absent, and the bundle is valid."""
    policy = made.policy_text()
    spans = made.Spans()
    others = [made.record(offset, tenant="globex") for offset in range(600)]
    mine = [made.record(0, partition=1)]
    entries = [made.trust(policy), *others, spans.close(others), *mine, spans.close(mine)]
    manifest = made.manifest({"policy.txt": policy.encode()}, of="acme")
    log = made.Log(made.announced(entries, manifest, kind="tenant"))
    files = log.files() | {"manifest.json": manifest}
    files = {name: data for name, data in files.items() if not name.startswith("tile/entries/")}
    shown = made.disclosed(log.entries, "acme")
    assert "disclosed/001" not in shown
    report = judged(tmp_path, files | shown)
    assert (report.problems, report.of_tenant) == ([], 2)
    assert list(itertools.islice(report.partitions, 2)) == ["ratchet.requests/0", "ratchet.requests/1"]
