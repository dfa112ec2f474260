"""Records of subjects: committed to under their own keys, sealed beside the log, gone with the key."""

import asyncio
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.actor import Collector
from agents.evidence.keyring import Keyring
from agents.evidence.keytable import Wanted, wanted_of
from agents.evidence.log import LogDirectory, export
from agents.evidence.payloads import FOLDER, Payloads, opening_key
from agents.evidence.record import Draft, committed_bytes, pseudonym
from infra.kek import LocalKek
from schemas.compliance import Cut, KeyErased, KeyRemoved
from schemas.errors import Refused, SubjectErased, Unavailable
from schemas.topics import DAY_MS
from streams.fence import Publisher
from streams.shapes import Record
from tools import verify_evidence

KEY = bytes(range(32))
SUBJECT = pseudonym(KEY, "subject", "customer-4711")
OTHER = "0f" * 16
STEPS = ("payload", "payloads", "file", "tiles", "intent", "signed", "dropped")


class Crash(BaseException):
    """The process dies here."""


def crash_at(step: str) -> Callable[[str], None]:
    def passed(name: str) -> None:
        if name == step:
            raise Crash(step)

    return passed


def fresh(lab: Any) -> Keyring:
    """A keyring with nothing in memory."""
    return Keyring(lab.broker, LocalKek(KEY), lab.clock, Publisher(lab.broker, lab.broker.count, owner="keys"))


async def collect(lab: Any, reads: list[Any], passed: Callable[[str], None] = lambda _: None, **more: Any) -> None:
    """Run a collector until the reader is empty, as a fresh process."""
    reader = lab.reader(reads, lab.clock)
    sequencer = await lab.open(passed)
    stop = asyncio.Event()
    collector = Collector(
        sequencer, reader, lab.keys, more.pop("subjects", fresh(lab)), lab.publisher, lab.clock, **more
    )
    try:
        reader.at_end = stop.set
        await collector.run(stop)
    finally:
        sequencer.close()


def erase(lab: Any, epoch: int, cut: int, subject: str = SUBJECT) -> None:
    """As the shredder does, for requests of partition 0 below the cut."""
    about: dict[str, Any] = {"tenant": "acme", "at_ms": 1, "subject": subject, "epoch": epoch}
    lab.broker.publish(KeyRemoved(**about))
    lab.broker.publish(KeyErased(**about, cut=(Cut(partition=0, offset=cut),), erasure="e-1"))


def derived(offset: int, request_offset: int | None, subject: str = SUBJECT, *, text: str = "the answer") -> Record:
    """An event about a request, as an agent writes it."""
    value: dict[str, Any] = {
        "tenant": "acme", "route": "banking.intent", "request_id": f"q0-{request_offset}", "at_ms": 1, "subject": subject,
        "text": text,
    }  # fmt: skip
    if request_offset is not None:
        value |= {"request_partition": 0, "request_offset": request_offset}
    headers = (("ce_id", f"result-{offset}".encode()), ("ce_type", b"ratchet.result.completed.v1"))
    return Record("ratchet.results", 0, offset, b"q", json.dumps(value).encode(), headers, 1_700_000_000_500)


def entries_of(lab: Any) -> dict[tuple[str, int], tuple[int, dict[str, Any]]]:
    """The log's records by topic and offset, each with its index."""
    size = int((lab.root / "checkpoint").read_text().splitlines()[1])
    directory = LogDirectory(lab.root)
    try:
        rows = [json.loads(entry) for entry in directory.newest_first(size)]
    finally:
        directory.close()
    rows.reverse()
    return {
        (row["src"]["topic"], row["src"]["offset"]): (index, row)
        for index, row in enumerate(rows)
        if "offset" in row.get("src", {})
    }


def payloads(lab: Any) -> Payloads:
    return Payloads(lab.root, fresh(lab))


def opens(commitment: str, key: bytes, data: bytes) -> bool:
    return hmac.digest(key, data, "sha256").hex() == commitment


async def test_a_payload_opens_and_so_does_each_commitment(lab: Any) -> None:
    """The record as it was, by its entry; each commitment of the entry by its own key, from the subject's."""
    records = [lab.request(0), derived(0, 0)]
    await collect(lab, records)
    found = entries_of(lab)
    for record in records:
        index, entry = found[record.topic, record.offset]
        assert entry["subject"] == SUBJECT
        data = await payloads(lab).open(index, entry)
        assert data == record.value
        value = json.loads(data)
        for name, commitment in entry["commit"].items():
            key = await opening_key(entry, name, lab.keys, fresh(lab))
            assert opens(commitment, key, data if name == "value" else committed_bytes(value[name]))


async def test_equal_texts_have_different_commitments(lab: Any) -> None:
    """Of one subject in two records, of two subjects, and of a subject and nobody."""
    nobody = derived(3, 0)
    value = {name: item for name, item in json.loads(nobody.value or b"").items() if name != "subject"}
    nobody = replace(nobody, value=json.dumps(value).encode())
    await collect(lab, [derived(0, 0), derived(1, 0), derived(2, 0, OTHER), nobody])
    texts = [entry["commit"]["text"] for _, entry in entries_of(lab).values()]
    assert len(set(texts)) == 4


async def test_without_a_subject_the_tenants_key_commits_and_nothing_is_kept(lab: Any) -> None:
    """As before: opened by the tenant's key, no payload, no key made."""
    value = {"tenant": "acme", "route": "r", "request_id": "q", "at_ms": 1, "messages": [{"content": "hush"}]}
    record = replace(lab.request(0), value=json.dumps(value).encode())
    await collect(lab, [record])
    index, entry = entries_of(lab)["ratchet.requests", 0]
    key = await opening_key(entry, "value", lab.keys, fresh(lab))
    assert opens(entry["commit"]["value"], key, record.value)
    with pytest.raises(Refused) as caught:
        await payloads(lab).open(index, entry)
    assert caught.value.kind == "no-payload"
    assert (lab.broker.records("keyring"), (lab.root / FOLDER).exists()) == ([], False)


async def test_what_is_recorded_about_a_subject_alone_makes_no_key(lab: Any) -> None:
    """A command that erases, and the receipt, stay readable under the tenant's key."""
    value = {"tenant": "acme", "at_ms": 1, "operator": "op", "subject": SUBJECT, "reason": "asked"}
    headers = (("ce_id", b"c-1"), ("ce_type", b"ratchet.command.erase.v1"))
    await collect(lab, [Record("ratchet.commands", 0, 0, b"acme", json.dumps(value).encode(), headers, 1)])
    _, entry = entries_of(lab)["ratchet.commands", 0]
    assert entry["subject"] == SUBJECT
    assert wanted_of(entry) is None
    assert lab.broker.records("keyring") == []


async def test_erased_is_erased(lab: Any, tmp_path: Path) -> None:
    """After the marker neither payload nor commitment opens, by any fresh process; the export verifies as before."""
    await collect(lab, [lab.request(0), lab.request(1)])
    erase(lab, 1, cut=2)
    for compacted in (False, True):
        for index, entry in entries_of(lab).values():
            with pytest.raises(SubjectErased):
                await payloads(lab).open(index, entry)
            with pytest.raises(SubjectErased):
                await opening_key(entry, "messages", lab.keys, fresh(lab))
        if not compacted:
            lab.broker.compact("ratchet.keyring")
    assert not [row for row in lab.broker.records("keyring") if b"key.wrapped" in dict(row.headers)["ce_type"]]
    export(lab.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (lab.root / "policy.txt").read_text())
    assert report.problems == []


async def test_a_record_that_comes_after_its_erasure(lab: Any) -> None:
    """What follows late from an erased request is committed to under a key that nobody keeps, and not sealed."""
    await collect(lab, [lab.request(0)])
    erase(lab, 1, cut=1)
    late = derived(0, 0)
    await collect(lab, [lab.request(0), late])
    index, entry = entries_of(lab)["ratchet.results", 0]
    assert not opens(entry["commit"]["text"], lab.keys.commitment_key("acme"), b"the answer")
    with pytest.raises(SubjectErased):
        await payloads(lab).open(index, entry)
    assert len(list((lab.root / FOLDER).iterdir())) == 1
    assert len([row for row in lab.broker.events("keyring") if row.data.TYPE == "key.wrapped"]) == 1


async def test_a_later_request_of_an_erased_person(lab: Any) -> None:
    """From the cut on it is readable under the next key, with what follows from it; what came before stays erased."""
    await collect(lab, [lab.request(0)])
    erase(lab, 1, cut=1)
    await collect(lab, [lab.request(0), lab.request(1), derived(0, 1), derived(1, 0)])
    found = entries_of(lab)
    for place in (("ratchet.requests", 1), ("ratchet.results", 0)):
        index, entry = found[place]
        assert await payloads(lab).open(index, entry)
        assert await opening_key(entry, "value", lab.keys, fresh(lab))
    for place in (("ratchet.requests", 0), ("ratchet.results", 1)):
        index, entry = found[place]
        with pytest.raises(SubjectErased):
            await payloads(lab).open(index, entry)


async def test_an_erasure_while_the_collector_runs(lab: Any) -> None:
    """The next batch sees the marker: the key in the collector's memory is used no more."""
    subjects = fresh(lab)
    wanted = Wanted("acme", SUBJECT, (0, 0))
    await subjects.make([wanted])
    erase(lab, 1, cut=5)
    await collect(lab, [lab.request(0)], subjects=subjects)
    index, entry = entries_of(lab)["ratchet.requests", 0]
    with pytest.raises(SubjectErased):
        await payloads(lab).open(index, entry)
    assert not (lab.root / FOLDER).exists()


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_each_step(lab: Any, step: str) -> None:
    """Killed at any step, the log resumes: each record once, each payload opens, one key on the topic."""
    reads = [lab.request(offset) for offset in range(5)]
    with pytest.raises(Crash):
        await collect(lab, reads, crash_at(step))
    await collect(lab, reads)
    found = entries_of(lab)
    assert sorted(place[1] for place in found) == list(range(5))
    for index, entry in found.values():
        assert await payloads(lab).open(index, entry) == lab.request(entry["src"]["offset"]).value
    assert len(lab.broker.events("keyring")) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_while_keys_are_made(lab: Any, when: str) -> None:
    """Before or after they are on the topic: nothing else is written; the next start has one key that counts."""

    class Dying(Publisher):
        async def publish(self, payloads: Any, cursor: int) -> None:
            if when == "after":
                await super().publish(payloads, cursor)
            raise Crash(when)

    subjects = Keyring(lab.broker, LocalKek(KEY), lab.clock, Dying(lab.broker, lab.broker.count, owner="keys"))
    with pytest.raises(Crash):
        await collect(lab, [lab.request(0)], subjects=subjects)
    assert not (lab.root / "tile").exists()
    assert not (lab.root / FOLDER).exists()
    await collect(lab, [lab.request(0)])
    index, entry = entries_of(lab)["ratchet.requests", 0]
    assert await payloads(lab).open(index, entry) == lab.request(0).value
    assert len(lab.broker.events("keyring")) == 1


async def test_nothing_is_recorded_without_keys(lab: Any) -> None:
    """While who wraps keys is away nothing is written; the collector says so when its retries end."""

    class Away(LocalKek):
        async def wrap(self, tenant: str, keys: Any) -> list[str]:
            raise Unavailable("Vault is sealed")

    async def pass_time() -> None:
        while True:
            await lab.clock.advance(5)
            await asyncio.sleep(0.001)

    passing = asyncio.create_task(pass_time())
    subjects = Keyring(lab.broker, Away(KEY), lab.clock, Publisher(lab.broker, lab.broker.count, owner="keys"))
    with pytest.raises(Unavailable):
        await collect(lab, [lab.request(0)], subjects=subjects)
    passing.cancel()
    assert not (lab.root / "checkpoint").exists()


async def test_payloads_go_when_their_time_is_over(lab: Any) -> None:
    """Whole files, by when they were written; the entries stay, and say so to whoever asks for the payload."""
    await collect(lab, [lab.request(0)], payload_days=2)
    await lab.clock.advance(DAY_MS / 1000)
    await collect(lab, [lab.request(0), lab.request(1)], payload_days=2)
    assert len(list((lab.root / FOLDER).iterdir())) == 2
    await lab.clock.advance(1.5 * DAY_MS / 1000)
    await collect(lab, [lab.request(0), lab.request(1)], payload_days=2)
    found = entries_of(lab)
    with pytest.raises(Refused) as caught:
        await payloads(lab).open(*found["ratchet.requests", 0])
    assert caught.value.kind == "no-payload"
    assert await payloads(lab).open(*found["ratchet.requests", 1]) == lab.request(1).value


async def test_a_payload_belongs_to_its_entry(lab: Any) -> None:
    """Under another tenant's or record's name it does not open, nor with a bit turned."""
    await collect(lab, [lab.request(0)])
    index, entry = entries_of(lab)["ratchet.requests", 0]
    with pytest.raises(Refused) as caught:
        await payloads(lab).open(index, entry | {"id": "another"})
    assert caught.value.kind == "sealed"
    (file,) = (lab.root / FOLDER).iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Refused) as caught:
        await payloads(lab).open(index, entry)
    assert caught.value.kind == "sealed"
    file.write_bytes(data[:-1])
    with pytest.raises(Refused) as caught:
        await payloads(lab).open(index, entry)
    assert caught.value.kind == "payloads-damaged"


async def test_no_text_beside_the_log(lab: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Canary text, e-mail and subject are in no file, sealed ones among them, and in no line of a log; nor is a subject's key."""
    caplog.set_level(logging.DEBUG)
    await collect(lab, [lab.request(offset) for offset in range(20)])
    key = (await fresh(lab).key(Wanted("acme", SUBJECT)))._dek
    files = [path for path in lab.root.rglob("*") if path.is_file()]
    assert [path for path in files if path.parent.name == FOLDER]
    for data in [path.read_bytes() for path in files] + [caplog.text.encode()]:
        assert not [canary for canary in lab.canaries if canary.encode() in data.lower()]
        assert key not in data
        assert key.hex().encode() not in data


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"subject": None},
        {"subject": ""},
        {"subject": "someone"},
        {"subject": SUBJECT},
        {"subject": SUBJECT, "request_id": ""},
        {"subject": SUBJECT, "request_id": "q 1"},
        {"subject": SUBJECT, "request_id": "q1", "request_partition": 1, "request_offset": 7},
        {"subject": SUBJECT, "request_id": "q1", "request_partition": -1, "request_offset": 7},
        {"subject": SUBJECT, "request_id": "q1", "request_partition": 1.0, "request_offset": 7},
        {"subject": SUBJECT, "request_id": "q1", "request_partition": True, "request_offset": 7},
        {"subject": SUBJECT, "request_id": "q1", "request_offset": 1 << 60},
    ],
)
@pytest.mark.parametrize(
    "kind", ["request.submitted", "result.completed", "verdict.given", "subject.erased", "strange"]
)
@pytest.mark.parametrize(
    "topic", ["ratchet.requests", "ratchet.results", "ratchet.requests.dlq", "ratchet.results.dlq"]
)
def test_an_entry_says_whose_key_it_was(value: Mapping[str, Any], kind: str, topic: str) -> None:
    """Who reads the entry finds the same key as who wrote it had."""
    headers = (
        ("ce_id", b"e"),
        ("ce_type", f"ratchet.{kind}.v1".encode()),
        ("ratchet-dlq-topic", topic.removesuffix(".dlq").encode()),
        ("ratchet-dlq-partition", b"3"),
        ("ratchet-dlq-offset", b"12"),
    )
    data = json.dumps({"tenant": "acme", "at_ms": 1} | value).encode()
    draft = Draft(Record(topic, 2, 5, None, data, headers, 1))
    wanted = draft.wanted(KEY)
    assert wanted == wanted_of(json.loads(draft.build(KEY, KEY)))
    if wanted is not None and topic == "ratchet.requests.dlq":
        assert wanted.place == (3, 12)
