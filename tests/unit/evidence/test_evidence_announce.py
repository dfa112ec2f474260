"""What the log tells `ratchet.audit`: each finding and each checkpoint once, whatever crashes between."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.evidence import announce
from agents.evidence.announce import Announcer
from agents.evidence.ports import RolledBack
from agents.evidence.violations import VIOLATES, with_violation
from schemas import canonical
from schemas.compliance import AuditRecorded, ComplianceViolation
from schemas.errors import Unavailable
from schemas.events import AuditCheckpoint, AuditFinding


class Crash(BaseException):
    """The process dies here."""


@dataclass
class FakeAttestor:
    """Makes envelopes that say how often they were asked for: asked twice for one entry it would give other bytes."""

    asked: list[int] = field(default_factory=list[int])
    away: bool = False

    async def attest(self, index: int, entry: bytes) -> bytes:
        if self.away:
            raise Unavailable("the attester's key is away")
        assert index not in self.asked, "attested twice"
        self.asked.append(index)
        return canonical.encode({"index": index, "type": json.loads(entry)["type"]})


def finding(number: int) -> bytes:
    src = {"topic": "ratchet.requests", "partition": 0, "inc": 0}
    return canonical.encode({"v": 1, "type": "finding", "kind": "offset-gap", "src": src, "from": number, "to": number})


def recorded(kind: str, **facts: Any) -> bytes:
    return canonical.encode({"v": 1, "id": f"id-{kind}", "tenant": "acme", "type": kind, "facts": facts})


async def log_of(lab: Any, *batches: Sequence[bytes]) -> Any:
    """A sequencer whose log has these batches."""
    sequencer = await lab.open()
    for entries in batches:
        await sequencer.commit(entries)
    return sequencer


async def test_findings_then_their_checkpoint(lab: Any) -> None:
    """Each finding under its index, with what the entry says; then the checkpoint; the cursor is its size."""
    sequencer = await log_of(lab, [b'{"type":"x","v":1}', finding(7), finding(8)])
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    *found, last = [payload for payload, _ in lab.publisher.sent]
    assert [identity for _, identity in lab.publisher.sent] == [f"dev.ratchet.test/{number}" for number in (2, 3, 4)]
    assert [(payload.log_index, payload.kind) for payload in found] == [(2, "offset-gap"), (3, "offset-gap")]
    assert json.loads(found[0].detail) == {
        "from": 7,
        "to": 7,
        "src": {"inc": 0, "partition": 0, "topic": "ratchet.requests"},
    }
    assert isinstance(last, AuditCheckpoint)
    assert last.note.encode() == (lab.root / "checkpoint").read_bytes()
    assert (last.size, lab.publisher.cursor) == (4, 4)
    sequencer.close()


async def test_a_violation_is_announced_behind_its_finding(lab: Any) -> None:
    """Each under its own index; of a violation its finding's kind and the controls, for the default tenant."""
    sequencer = await log_of(lab, with_violation("offset-gap", finding(7)))
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    found, violation, _ = [payload for payload, _ in lab.publisher.sent]
    assert isinstance(found, AuditFinding)
    assert violation == ComplianceViolation(
        at_ms=lab.clock.now_ms(), log_index=2, finding="offset-gap", controls=VIOLATES["offset-gap"]
    )
    assert violation.tenant == "default"
    sequencer.close()


async def test_erasures_and_incidents_are_repeated(lab: Any) -> None:
    """Each receipt and each step stands in the audit with its tenant, its id and its index; other observations do not."""
    kinds = ["subject.erased", "subject.kept", "incident.detected", "incident.overdue", "access.checked"]
    sequencer = await log_of(lab, [recorded(kind) for kind in kinds])
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    *told, _ = [payload for payload, _ in lab.publisher.sent]
    assert told == [
        AuditRecorded(at_ms=lab.clock.now_ms(), tenant="acme", log_index=index, id=f"id-{kind}", of=kind)
        for index, kind in ((1, "subject.erased"), (3, "incident.detected"), (4, "incident.overdue"))
    ]
    sequencer.close()


async def test_what_only_looks_like_a_finding(lab: Any) -> None:
    """A record of somebody's that is called a finding, or holds one, is not announced as ours."""
    inside = {"type": "finding", "text": '"type":"violation"'}
    sequencer = await log_of(
        lab, [recorded("finding", text="x"), recorded("violation"), recorded("score.assigned", a=inside)]
    )
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    assert [type(payload) for payload, _ in lab.publisher.sent] == [AuditCheckpoint]
    sequencer.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_killed_between_transactions(lab: Any, monkeypatch: pytest.MonkeyPatch, when: str, nth: int) -> None:
    """Many findings take several transactions: killed before or after any, the next start announces exactly the missing."""
    monkeypatch.setattr(announce, "_AT_ONCE", 3)
    numbers = range(10)
    sequencer = await log_of(lab, [finding(number) for number in numbers])
    lab.publisher.crash = (when, nth, Crash)
    with pytest.raises(Crash):
        await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    lab.publisher.crash = None
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    said = [
        json.loads(payload.detail)["from"] for payload, _ in lab.publisher.sent if isinstance(payload, AuditFinding)
    ]
    assert said == list(numbers)
    assert [type(payload) for payload, _ in lab.publisher.sent].count(AuditCheckpoint) == 1
    sequencer.close()


async def test_nothing_new_is_nothing_said(lab: Any) -> None:
    """Asked again over the same checkpoint, also after a restart, it says nothing."""
    sequencer = await log_of(lab, [finding(1)])
    announcer = Announcer(sequencer, lab.publisher, lab.clock)
    for _ in range(2):
        await announcer.catch_up()
    await Announcer(sequencer, lab.publisher, lab.clock).catch_up()
    assert len(lab.publisher.sent) == 2
    sequencer.close()


async def test_an_old_directory_is_refused(lab: Any) -> None:
    """When more was announced than the directory holds it is an old one: refused before anything is signed."""
    sequencer = await log_of(lab, [b"{}"])
    lab.publisher.cursor = 3
    with pytest.raises(RolledBack, match=r"3 entries.*has 2"):
        await Announcer(sequencer, lab.publisher, lab.clock).check()
    lab.publisher.cursor = 2
    await Announcer(sequencer, lab.publisher, lab.clock).check()
    sequencer.close()


ENTRIES = [b"{}", recorded("training.completed", order_id="o"), finding(1), recorded("model.promoted", arena="a")]


def statements(root: Path) -> dict[str, Any]:
    folder = root / "attestations"
    return {path.name: json.loads(path.read_bytes()) for path in folder.iterdir()} if folder.exists() else {}


async def test_statements_lie_beside_the_log(lab: Any) -> None:
    """A finished training and a promotion each have their statement, named after the entry."""
    sequencer, attestor = await log_of(lab, ENTRIES), FakeAttestor()
    await Announcer(sequencer, lab.publisher, lab.clock, attestor).catch_up()
    assert statements(lab.root) == {
        "2-training.dsse.json": {"index": 2, "type": "training.completed"},
        "4-promotion.dsse.json": {"index": 4, "type": "model.promoted"},
    }
    sequencer.close()


async def test_the_cursor_waits_for_the_statement(lab: Any) -> None:
    """While the attester is away nothing at or behind its entry is announced; later each is made once."""
    sequencer, attestor = await log_of(lab, ENTRIES), FakeAttestor(away=True)
    announcer = Announcer(sequencer, lab.publisher, lab.clock, attestor)
    with pytest.raises(Unavailable):
        await announcer.catch_up()
    assert (lab.publisher.cursor, statements(lab.root)) == (None, {})
    attestor.away = False
    await announcer.catch_up()
    assert (lab.publisher.cursor, len(statements(lab.root))) == (5, 2)
    sequencer.close()


@pytest.mark.parametrize("step", ["attested", "file", "published"])
async def test_killed_around_a_statement(lab: Any, step: str) -> None:
    """Killed after signing, after the file, before the cursor: the next walk ends with one statement each, unchanged."""
    attestor = FakeAttestor()
    crash: Callable[[str], None] = _crash_at("attached") if step == "file" else lambda _: None
    sequencer = await lab.open(crash)
    await sequencer.commit(ENTRIES)
    if step == "published":
        lab.publisher.crash = ("before", 1, Crash)
    lost = attestor
    if step == "attested":
        lost = _Dying()
    with pytest.raises(Crash):
        await Announcer(sequencer, lab.publisher, lab.clock, lost).catch_up()
    lab.publisher.crash = None
    sequencer.close()
    sequencer = await lab.open()
    await Announcer(sequencer, lab.publisher, lab.clock, attestor).catch_up()
    assert attestor.asked == [2, 4]
    assert len(statements(lab.root)) == 2
    sequencer.close()


class _Dying:
    """Signs, and then the process is gone."""

    async def attest(self, index: int, entry: bytes) -> bytes:
        raise Crash


def _crash_at(step: str) -> Callable[[str], None]:
    def passed(name: str) -> None:
        if name == step:
            raise Crash

    return passed
