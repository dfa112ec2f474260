"""`ratchet access` against what really came in: events of several people through a broker, collector, keyring and sealed payloads."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from evidenced import ATTESTER_KEY, NoFence
from recorded_events import AT_MS, complete

from agents.evidence.actor import Collector
from agents.evidence.keyring import Keyring
from agents.evidence.log import LogDirectory
from agents.evidence.record import Draft, pseudonym
from agents.evidence.sequencer import Sequencer
from agents.wiring import TenantKeys
from infra.clock import SystemClock
from infra.kek import LocalKek
from infra.notary import LocalNotary, verify
from infra.secrets import LocalSecrets
from schemas import codec, topics
from schemas.compliance import Cut, Horizons, IncidentDetected, KeyErased, KeyRemoved, SubjectErased
from schemas.events import AnswerReleased, DecisionRouted, GateSeen, Message, RequestSubmitted
from schemas.payload import Payload
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.port import TP, Outgoing
from streams.reader import EveryOffset
from streams.shapes import Record
from tools.cli import evidence

Run = Callable[..., tuple[int, str, str]]
MARY, ADAM = "customer-4711", "customer-0815"
SEEN = GateSeen(action="mask", purpose="support", legal_basis="contract", registered=True, masked=("email",))


class Quiet:
    """Nobody listens to the audit."""

    async def start(self) -> int | None:
        return None

    async def publish(self, payloads: Any, cursor: int) -> None: ...


class Recording(MemoryBroker):
    """A broker beside which the evidence agent runs: what the command line says stands in the log a moment later."""

    collect: Callable[[], Coroutine[Any, Any, None]] | None = None

    def append(self, tp: TP, row: Outgoing, owner: str | None) -> Record:
        record = super().append(tp, row, owner)
        if self.collect is not None and tp[0] == "ratchet.observations":
            self.work = asyncio.get_running_loop().create_task(self.collect())
        return record


@dataclass
class Stack:
    """A broker, a secret store and a log, as `ratchet` finds them. `said`: every event by the person whom it is about."""

    root: Path
    broker: Recording = field(default_factory=lambda: Recording(1, clock=SystemClock()))
    said: list[tuple[str, str, Payload]] = field(default_factory=list[tuple[str, str, Payload]])
    users: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.secrets = LocalSecrets.open(self.root / "secrets.json")
        self.keys = TenantKeys(asyncio.run(self.secrets.commitment_key("tenants")))
        self.broker.collect = self.collect

    def subject(self, person: str, tenant: str) -> str:
        return pseudonym(self.keys.pseudonym_key(tenant), "subject", person)

    def say(self, payload: Payload, person: str = "") -> int:
        """An event; its offset."""
        name = f"{payload.tenant}-{len(self.said)}"
        made = codec.encode(payload, event_id=name, source="ratchet/test", traceparent="")
        row = Outgoing(made.key, made.value, made.headers)
        record = MemoryBroker.append(self.broker, (topics.full(payload.TOPIC), 0), row, None)
        self.said.append((person, name, payload))
        return record.offset

    def ask(self, request: str, person: str, tenant: str = "acme") -> None:
        """A request with its decision and answer; the decision names the person, the answer only the request."""
        about: dict[str, Any] = {"tenant": tenant, "at_ms": AT_MS, "route": "banking", "request_id": request}
        message = Message(role="user", content=f"why, asks {person}?")
        offset = self.say(RequestSubmitted(**about, subject=person, messages=(message,)), person)
        at = {"request_partition": 0, "request_offset": offset}
        subject = self.subject(person, tenant)
        self.say(
            complete(DecisionRouted, **about, **at, subject=subject, arm="house", gate=SEEN, grader="verdict"), person
        )
        self.say(complete(AnswerReleased, **about, **at, arm="house", text="because"), person)

    async def collect(self) -> None:
        """The evidence agent, until it has read everything."""
        clock = SystemClock()
        reader = EveryOffset(self.broker, topics.recorded(), lambda record: Draft(record).id, topics.compacted())
        kek = LocalKek(await self.secrets.commitment_key("kek"))
        keyring = Keyring(self.broker, kek, clock, Publisher(self.broker, self.broker.count, owner="keys"))
        notary = LocalNotary.create(self.root / "notary.key", "dev.ratchet.test")
        sequencer = await Sequencer.open(
            LogDirectory(self.root / "evidence"), notary=notary, fence=NoFence(), check=verify, attester=ATTESTER_KEY
        )
        collector = Collector(sequencer, reader, self.keys, keyring, Quiet(), clock)
        stop = asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        ends = {topic: len(self.broker.records(topic.removeprefix("ratchet."))) for topic in topics.recorded()}
        while any(
            collector.frontiers[topic, 0].next < end if (topic, 0) in collector.frontiers else end
            for topic, end in ends.items()
        ):
            await asyncio.sleep(0.02)
            assert not running.done(), running.result()
        stop.set()
        await running
        await reader.stop()
        await keyring.stop()
        sequencer.close()

    def truth(self, person: str, tenant: str = "acme") -> list[str]:
        """Ids of all that is about a person."""
        return sorted(name for whose, name, payload in self.said if (whose, payload.tenant) == (person, tenant))


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Requests of two people, of one of them at two tenants; an incident of the tenant's; all of it in the log."""
    made = Stack(tmp_path)

    async def opened(_: object = None, *, user: str = "operator") -> Recording:
        made.users.append(user)
        return made.broker

    monkeypatch.setattr(evidence, "open_broker", opened)
    for number in range(3):
        made.ask(f"mary-{number}", MARY)
        made.ask(f"adam-{number}", ADAM)
    made.ask("mary-0", MARY, "globex")
    made.say(IncidentDetected(tenant="acme", at_ms=AT_MS, incident="i1", aware_at_ms=AT_MS))
    asyncio.run(made.collect())
    return made


def accessed(cli: Run, person: str, *words: str, tenant: str = "acme") -> dict[str, Any]:
    code, said, fault = cli("access", person, "--tenant", tenant, "--out", "given", "--json", *words)
    assert code == 0, (said, fault)
    return json.loads(said)


def test_it_equals_what_came_in(cli: Run, stack: Stack, tmp_path: Path) -> None:
    """Exactly the person's events at this tenant, each with its text as it was; purposes with their bases; incidents are not in it."""
    row = accessed(cli, MARY, "--as", "ann", "--wait", "20")
    assert sorted(one["name"] for one in row["entries"]) == stack.truth(MARY)
    for whose, name, payload in stack.said:
        path = tmp_path / "given/texts" / f"{name}.json"
        about_person = (whose, payload.tenant) == (MARY, "acme") and payload.TYPE != "answer.released"
        assert path.exists() == about_person, name
        if about_person:
            assert json.loads(path.read_text()) == json.loads(payload.model_dump_json())
    assert row["requests"] == ["mary-0", "mary-1", "mary-2"]
    assert row["purposes"] == [{"purpose": "support", "legal_basis": "contract", "requests": 3}]
    assert row["texts"] == {"opened": 6, "erased": 0, "not_kept": 0, "why": ""}
    assert row["expected"] == len(row["entries"]) == 9
    assert (tmp_path / "given").stat().st_mode & 0o777 == 0o700  # a person's texts, for whoever made it alone
    everything = b"".join(path.read_bytes() for path in (tmp_path / "given").rglob("*") if path.is_file())
    assert ADAM.encode() not in everything


def test_the_log_records_what_was_handed_out(cli: Run, stack: Stack, tmp_path: Path) -> None:
    """`export.made` with the digest of the summary and both counts: the control holds, by who made it."""
    row = accessed(cli, MARY, "--as", "ann", "--wait", "20")
    assert (row["recorded_by"], stack.users) == ("ann", ["privacy", "operator"])
    (record,) = stack.broker.records("observations")[1:]
    said = json.loads(record.value or b"")
    assert (said["kind"], said["tenant"], said["entries"], said["expected"]) == ("subject", "acme", 9, 9)
    files = [path for path in (tmp_path / "given").rglob("*") if path.is_file()]
    assert (said["manifest"], said["files"]) == (row["manifest"], len(files))
    controls = json.loads(cli("evidence", "controls", "--json")[1])["controls"]
    (control,) = (one for one in controls if one["control"] == "gdpr-15")
    assert (control["state"], control["population"]) == ("satisfied", 1)


def test_unrecorded(cli: Run, stack: Stack) -> None:
    """It is said, and the log knows nothing of it."""
    before = len(stack.broker.records("observations"))
    assert accessed(cli, ADAM, "--unrecorded")["recorded_by"] == ""
    assert len(stack.broker.records("observations")) == before


def test_an_erased_person(cli: Run, stack: Stack, tmp_path: Path) -> None:
    """No text below the cut opens, the receipt's day is said; a later request of theirs opens as before."""
    subject = stack.subject(MARY, "acme")
    about: dict[str, Any] = {"tenant": "acme", "at_ms": AT_MS, "subject": subject}
    cut = (Cut(partition=0, offset=len(stack.broker.records("requests"))),)
    stack.say(KeyRemoved(**about, epoch=1))
    stack.say(KeyErased(**about, epoch=1, cut=cut, erasure="e-1"))
    stack.say(
        SubjectErased(
            **about,
            erasure="e-1",
            keys=1,
            epoch=1,
            cut=cut,
            hold_checked=True,
            effective_at_ms=AT_MS,
            horizons=Horizons(),
        ),
        MARY,
    )
    stack.ask("mary-9", MARY)
    asyncio.run(stack.collect())
    row = accessed(cli, MARY, "--unrecorded")
    assert sorted(one["name"] for one in row["entries"]) == stack.truth(MARY)
    assert row["texts"] == {"opened": 2, "erased": 6, "not_kept": 0, "why": ""}
    assert [one["day"] for one in row["erased"]] == ["2026-09-21"]
    told = {
        name: json.loads((tmp_path / f"given/explanations/{name}.json").read_text()) for name in ("mary-0", "mary-9")
    }
    assert {name: any(line.startswith("erased") for line in said["sections"]["data"]) for name, said in told.items()} == {
        "mary-0": True, "mary-9": False,
    }  # fmt: skip
    assert "erased: from 2026-09-21" in cli("access", MARY, "--tenant", "acme", "--unrecorded", "--out", "again")[1]


def test_without_the_right_to_open(cli: Run, stack: Stack, tmp_path: Path) -> None:
    """Another key in the store: no text is written, the rest is, and it says why."""
    (tmp_path / "secrets.json").unlink()
    subject = stack.subject(MARY, "acme")
    row = accessed(cli, subject, "--pseudonym", "--unrecorded")
    assert (len(row["entries"]), row["texts"]["opened"], bool(row["texts"]["why"])) == (9, 0, True)
    assert not (tmp_path / "given/texts").exists()
