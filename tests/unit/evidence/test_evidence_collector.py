"""From Kafka's records to a verified export: what the collector promises."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.actor import Collector
from agents.evidence.log import export
from schemas.compliance import ComplianceViolation
from schemas.errors import Unavailable
from schemas.events import AuditCheckpoint
from streams.shapes import Frontier, Gap, Last
from tools import verify_evidence


async def collect(lab: Any, reads: list[Any], **options: Any) -> Any:
    """Run a collector until the reader is empty; the reader."""
    reader = lab.reader(reads, lab.clock, **options)
    sequencer = await lab.open()
    stop = asyncio.Event()
    collector = Collector(sequencer, reader, lab.keys, lab.subjects, lab.publisher, lab.clock)
    try:
        reader.at_end = stop.set
        await collector.run(stop)
        return reader
    finally:
        sequencer.close()


async def pass_time(lab: Any) -> None:
    """Let the retries' waits end."""
    while True:
        await lab.clock.advance(5)
        await asyncio.sleep(0.001)


async def test_everything_read_is_in_the_export(lab: Any, tmp_path: Path) -> None:
    """Records, markers and duplicates of three partitions: the export verifies and counts each record once."""
    reads = [lab.request(offset, partition=partition) for offset in range(400) for partition in range(3)]
    reads += [Gap("ratchet.requests", 0, 400, 401, "marker"), lab.request(402), lab.request(3)]
    await collect(lab, reads)
    export(lab.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (lab.root / "policy.txt").read_text())
    assert (report.problems, report.trust) == ([], "given")
    assert report.types["request.submitted"] == 1201
    assert report.partitions["ratchet.requests/0"][0].skips == {"marker": 2}
    assert report.partitions["ratchet.requests/0"][0].next == 403


async def test_a_violation_follows_its_finding(lab: Any, tmp_path: Path) -> None:
    """A record that somebody took out of a topic: finding and violation are in one batch, announced, and the export verifies."""
    await collect(lab, [lab.request(0), lab.request(2)])
    export(lab.root, tmp_path / "out")
    report = verify_evidence.verify(tmp_path / "out", (lab.root / "policy.txt").read_text())
    assert report.problems == []
    (violation,) = report.violations
    assert (violation["finding"], violation["controls"]) == ("offset-gap", ["hipaa-164.312.b"])
    told = [payload for payload, _ in lab.publisher.sent if isinstance(payload, ComplianceViolation)]
    assert [(payload.log_index, payload.finding) for payload in told] == [(violation["entry"], "offset-gap")]


async def test_it_goes_on_where_the_log_ends(lab: Any) -> None:
    """A restart seeks to the frontiers that the log itself holds, and announces no checkpoint twice."""
    await collect(lab, [lab.request(offset) for offset in range(10)])
    reader = await collect(lab, [lab.request(offset) for offset in range(25)])
    assert reader.positions == {("ratchet.requests", 0): Frontier(0, 10, Last(9, 1_700_000_000_500, "event-0-9"))}
    identities = [identity for _, identity in lab.publisher.sent]
    assert len(identities) == len(set(identities)) == 2


async def test_an_announcement_of_unknown_outcome(lab: Any) -> None:
    """When the answer of the publishing transaction is lost, its cursor tells, and nothing is announced twice."""
    lab.publisher.lose_answer = True
    passing = asyncio.create_task(pass_time(lab))
    await collect(lab, [lab.request(0)])
    passing.cancel()
    assert len(lab.publisher.sent) == 1


async def test_signed_but_not_announced(lab: Any) -> None:
    """A crash between signing and announcing: the next start announces."""
    sequencer = await lab.open()
    await sequencer.commit(lab.entries([lab.request(0)], {}, full=True))
    sequencer.close()
    await collect(lab, [])
    assert [identity for _, identity in lab.publisher.sent] == ["dev.ratchet.test/3"]


async def test_checkpoints_are_announced(lab: Any) -> None:
    """Each checkpoint becomes an `audit.checkpoint` with the note itself."""
    await collect(lab, [lab.request(0)])
    payload, identity = lab.publisher.sent[-1]
    assert isinstance(payload, AuditCheckpoint)
    assert payload.note.encode() == (lab.root / "checkpoint").read_bytes()
    assert (payload.log_index, identity) == (payload.size - 1, f"dev.ratchet.test/{payload.size}")


async def test_no_text_and_no_person_in_any_file(lab: Any) -> None:
    """Canary text, e-mail, subject and session are in no file of the log."""
    await collect(lab, [lab.request(offset) for offset in range(300)])
    files = [path for path in lab.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        data = path.read_bytes().lower()
        assert not [canary for canary in lab.canaries if canary.encode() in data], path


async def test_nothing_unsigned_is_announced(lab: Any) -> None:
    """While the fence's broker stays away no checkpoint appears; when the retries end, it says so."""
    lab.fence.error = Unavailable("the broker is away")

    passing = asyncio.create_task(pass_time(lab))
    with pytest.raises(Unavailable):
        await collect(lab, [lab.request(0)])
    passing.cancel()
    assert (lab.publisher.sent, (lab.root / "checkpoint").exists()) == ([], False)


async def test_batches_are_bounded(lab: Any, tmp_path: Path) -> None:
    """More than 4,096 reads at once become more than one checkpoint, and nothing is lost between them."""
    await collect(lab, [lab.request(offset, text="t") for offset in range(5000)], at_once=5000)
    assert len(lab.publisher.sent) == 2
    export(lab.root, tmp_path / "out")
    assert verify_evidence.verify(tmp_path / "out").partitions["ratchet.requests/0"][0].entries == 5000
