"""Witnesses hold up publishing and nothing else; what they refuse for good stops everything."""

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sequencing import Stand

from agents.evidence import actor, quorum
from agents.evidence.actor import Collector
from agents.evidence.log import CHECKPOINT, POLICY, SIGNED, LogDamaged
from agents.evidence.ports import RolledBack, SplitView
from infra.notary import verify
from schemas.events import AuditFinding
from schemas.tlog.note import parse_checkpoint, parse_note
from schemas.tlog.policy import open_checkpoint, parse_policy


@pytest.fixture
def stand(lab: Any, tmp_path: Path) -> Stand:
    """Two witnesses, both of which the lab's log needs from now on."""
    made = Stand(tmp_path / "witnesses", lab.notary.vkeys)
    lab.quorum = partial(made.quorum, lab.clock, 2)
    return made


def published(lab: Any) -> int:
    """The size of the published checkpoint, which the policy beside it accepts; 0 when there is none."""
    if not (lab.root / CHECKPOINT).exists():
        return 0
    policy = parse_policy((lab.root / POLICY).read_text())
    return open_checkpoint((lab.root / CHECKPOINT).read_bytes(), policy, verify).checkpoint.size


def signed(lab: Any) -> int:
    return parse_checkpoint(parse_note((lab.root / SIGNED).read_bytes())[0]).size


def kinds(sequencer: Any) -> list[str]:
    """Kinds of the findings in the log, in order."""
    said = [json.loads(entry) for _, entry in sequencer.entries(0, sequencer.size)]
    return [entry["kind"] for entry in said if entry.get("type") == "finding"]


async def test_log_lines_then_witnesses_in_order(lab: Any, stand: Stand) -> None:
    """A published checkpoint: text, the log's line, then each witness's in the policy's order; the policy names them all."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    _, lines = parse_note((lab.root / CHECKPOINT).read_bytes())
    assert [line.name for line in lines] == ["dev.ratchet.test", "dev.witness/1", "dev.witness/2"]
    assert (lab.root / SIGNED).read_bytes() == b"".join(
        (lab.root / CHECKPOINT).read_bytes().splitlines(keepends=True)[:5]
    )
    policy = parse_policy((lab.root / POLICY).read_text())
    assert ([str(key) for key in policy.logs], list(policy.witnesses)) == (lab.notary.vkeys(), ["w1", "w2"])
    assert [witness.url for witness in policy.witnesses.values()] == [None, None]
    sequencer.close()


async def test_away_at_the_start(lab: Any, stand: Stand) -> None:
    """Witnesses that are away when a log starts keep it from publishing, not from recording."""
    stand.away = {"w1", "w2"}
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    assert (signed(lab), published(lab)) == (2, 0)
    sequencer.close()


async def test_signing_goes_on_and_the_next_checkpoint_covers_all(lab: Any, stand: Stand) -> None:
    """Without its quorum a batch is signed and not published; when they are back, the newest checkpoint is."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    stand.away = {"w2"}
    for _ in range(3):
        await lab.clock.advance(20)
        await sequencer.commit([b"{}"])
    assert published(lab) == 2
    assert signed(lab) > 4
    stand.away = set()
    await lab.clock.advance(20)
    assert (await sequencer.publish()).checkpoint.size == published(lab) == signed(lab)
    sequencer.close()


async def test_enough_witnesses_are_enough(lab: Any, stand: Stand) -> None:
    """One of two suffices where the policy says so: nothing waits, and nothing is found."""
    lab.quorum = partial(stand.quorum, lab.clock, 1)
    stand.away = {"w1"}
    sequencer = await lab.open()
    for _ in range(3):
        await sequencer.commit([b"{}"])
        await lab.clock.advance(quorum.AWAY_S)
    assert published(lab) == signed(lab) == 4
    assert kinds(sequencer) == []
    sequencer.close()


async def test_who_is_away_is_asked_ever_more_rarely(lab: Any, stand: Stand) -> None:
    """A hundred batches in ten seconds ask a dead quorum a handful of times: it does not hold up the recording."""
    stand.away = {"w1", "w2"}
    sequencer = await lab.open()
    stand.asked = 0
    for _ in range(100):
        await sequencer.commit([b"{}"])
        await lab.clock.advance(0.1)
    assert 2 <= stand.asked / 2 <= 6
    stand.away, stand.asked = set(), 0
    await lab.clock.advance(quorum.LONGEST_WAIT_S)
    await sequencer.commit([b"{}"])
    assert published(lab) == signed(lab)
    sequencer.close()


async def test_an_outage_is_two_findings(lab: Any, stand: Stand) -> None:
    """An outage that lasts is one finding, however long and over restarts; its end is another."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    stand.away = {"w2"}
    for _ in range(6):
        await lab.clock.advance(quorum.AWAY_S / 2)
        await sequencer.commit([b"{}"])
    assert kinds(sequencer) == ["witness-away"]
    sequencer.close()
    sequencer = await lab.open()
    for _ in range(4):
        await sequencer.commit([b"{}"])
        await lab.clock.advance(quorum.AWAY_S)
    assert kinds(sequencer) == ["witness-away"]
    stand.away = set()
    for _ in range(3):
        await lab.clock.advance(quorum.LONGEST_WAIT_S)
        await sequencer.commit([b"{}"])
    assert kinds(sequencer) == ["witness-away", "witness-back"]
    details = [json.loads(entry).get("detail") for _, entry in sequencer.entries(0, sequencer.size)]
    assert {"missing": ["w2"], "published": 2} in details
    sequencer.close()


async def test_a_short_absence_is_no_finding(lab: Any, stand: Stand) -> None:
    """Who is back within the bound was never away."""
    sequencer = await lab.open()
    stand.away = {"w1"}
    await sequencer.commit([b"{}"])
    await lab.clock.advance(quorum.AWAY_S - 1)
    stand.away = set()
    for _ in range(3):
        await sequencer.commit([b"{}"])
        await lab.clock.advance(quorum.AWAY_S)
    assert kinds(sequencer) == []
    sequencer.close()


async def test_a_rolled_back_directory_does_not_start(lab: Any, stand: Stand, tmp_path: Path) -> None:
    """A directory from a backup, whole and consistent, is refused: a witness has seen more. Nothing is signed."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    shutil.copytree(lab.root, tmp_path / "backup")
    await sequencer.commit([b"{}"])
    sequencer.close()
    shutil.rmtree(lab.root)
    shutil.copytree(tmp_path / "backup", lab.root)
    with pytest.raises(RolledBack):
        await lab.open()
    assert signed(lab) == 2
    stand.away = {"w1", "w2"}
    with pytest.raises(LogDamaged, match=r"RolledBack: .*state/stopped"):
        await lab.open()


async def test_an_empty_directory_does_not_start(lab: Any, stand: Stand) -> None:
    """A lost directory is a rolled-back one: no second history of the same name begins."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    sequencer.close()
    shutil.rmtree(lab.root)
    with pytest.raises(RolledBack):
        await lab.open()
    assert not (lab.root / SIGNED).exists()


async def test_a_copy_stops_when_the_other_was_seen(lab: Any, stand: Stand) -> None:
    """Of two copies that go on apart the witnesses accept one: the other publishes nothing and signs nothing more."""
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    sequencer.close()
    copy = lab.beside("copy")
    shutil.copytree(lab.root, copy.root)
    first, second = await lab.open(), await copy.open()
    await first.commit([b'{"a":1}'])
    with pytest.raises(SplitView):
        await second.commit([b'{"b":1}'])
    before = (copy.root / SIGNED).read_bytes()
    for attempt in (second.commit, second.append):
        with pytest.raises(SplitView):
            await attempt([b"{}"])
    with pytest.raises(SplitView):
        await second.publish()
    assert ((copy.root / SIGNED).read_bytes(), published(copy)) == (before, 2)
    first.close()
    second.close()
    stand.away = {"w1", "w2"}
    with pytest.raises(LogDamaged, match=r"SplitView: .*state/stopped"):
        await copy.open()


async def test_another_quorum_is_announced(lab: Any, stand: Stand) -> None:
    """A changed witness policy is a trust entry, and from its checkpoint on the one that readers get."""
    lab.quorum = lambda: None
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    before = (lab.root / POLICY).read_bytes()
    sequencer.close()
    lab.quorum, stand.away = partial(stand.quorum, lab.clock, 2), {"w1"}
    sequencer = await lab.open()
    await sequencer.commit([b"{}"])
    assert ((lab.root / POLICY).read_bytes(), published(lab), signed(lab)) == (before, 2, 4)
    stand.away = set()
    await lab.clock.advance(quorum.LONGEST_WAIT_S)
    await sequencer.publish()
    assert b"witness w1" in (lab.root / POLICY).read_bytes()
    assert published(lab) == 4
    sequencer.close()


async def test_a_collector_does_not_wait_for_witnesses(lab: Any, stand: Stand) -> None:
    """While they are away everything read is signed, nothing is announced; when they are back all is, findings too."""
    stand.away = {"w1", "w2"}
    reader = lab.reader([lab.request(offset) for offset in range(900)], lab.clock, at_once=2)
    sequencer = await lab.open()
    stop = asyncio.Event()
    reader.at_end = stop.set
    await Collector(sequencer, reader, lab.keys, lab.subjects, lab.publisher, lab.clock).run(stop)
    assert lab.publisher.sent == []
    assert published(lab) == 0
    sequencer.close()
    stand.away = set()
    reader = lab.reader([lab.request(offset) for offset in range(901)], lab.clock)
    sequencer, stop = await lab.open(), asyncio.Event()
    reader.at_end = stop.set
    await Collector(sequencer, reader, lab.keys, lab.subjects, lab.publisher, lab.clock).run(stop)
    assert published(lab) == sequencer.size
    found = [payload.kind for payload, _ in lab.publisher.sent if isinstance(payload, AuditFinding)]
    assert found == kinds(sequencer)
    sequencer.close()


async def test_a_hanging_witness_holds_up_nothing(lab: Any, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a witness keeps a question open the next batches are signed; when it answers, the newest is published."""
    monkeypatch.setattr(actor, "LINGER_S", 0.01)
    sequencer = await lab.open()
    stand.open = asyncio.Event()
    reader = lab.reader([lab.request(offset) for offset in range(900)], lab.clock, at_once=5)
    stop = asyncio.Event()
    running = asyncio.create_task(
        Collector(sequencer, reader, lab.keys, lab.subjects, lab.publisher, lab.clock).run(stop)
    )
    async with asyncio.timeout(20):
        while sequencer.size < 900:  # noqa: ASYNC110  a collector never says that it has caught up
            await asyncio.sleep(0.01)
    assert published(lab) == 0
    stop.set()
    stand.open.set()
    await running
    assert published(lab) == sequencer.size == lab.publisher.cursor
    sequencer.close()


async def test_a_split_view_ends_the_collector(lab: Any, stand: Stand) -> None:
    """The process ends with what the witness said, and what follows is neither published nor announced."""
    sequencer = await lab.open()
    await sequencer.commit(lab.entries([lab.request(0)], {}, full=True))
    sequencer.close()
    copy = lab.beside("copy")
    shutil.copytree(lab.root, copy.root)
    first, second = await lab.open(), await copy.open()
    await first.commit([b"{}"])
    reader = lab.reader([lab.request(offset) for offset in range(3)], lab.clock)
    stop = asyncio.Event()
    reader.at_end = stop.set
    with pytest.raises(SplitView):
        await Collector(second, reader, lab.keys, lab.subjects, lab.publisher, lab.clock).run(stop)
    assert [identity for _, identity in lab.publisher.sent] == ["dev.ratchet.test/3"]
    first.close()
    second.close()
