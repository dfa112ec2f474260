"""Masks through the whole loop: models, reviewers, cases and caches see placeholders, who asked sees the own values again."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from answering import KEYS, SECRET, trust
from gates import SHOP
from living import working

from agents.cases.fold import Cases
from agents.inference.actor import Inference
from agents.router.actor import Gatekeeper, Router, keyed
from agents.router.around import StoreAround
from agents.rules import ai_mark
from agents.screen import Screen
from agents.trust.actor import Keys, Learn
from infra.clock import SystemClock
from infra.detect import detect
from infra.engine import Generation
from infra.engine_scripted import ScriptedEngine
from infra.gate_keys import GateKeyring
from infra.sealing import GateKeys, map_key
from infra.store import MemoryStore
from schemas import ids
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.events import CaseAnswered, CaseClosed, Message, RequestSubmitted, ReviewRequested
from schemas.gate import FIRST_KEY
from schemas.payload import REGISTRY, DerivedEvent
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import CascadeSettings, RoutingSettings
from streams.memory import MemoryBroker
from streams.reader import ByPlace
from streams.recorded import RecordedLog
from streams.replay import Window
from streams.runner import Runner
from streams.surroundings import RuntimeSettings
from tools.cli import letters
from tools.cli.bus import Bus
from tools.cli.marks import checked
from tools.cli.repairs import By
from tools.cli.replay import record_log, replay_broker, replay_log
from tools.cli.review_desk import verdict
from tools.cli.screen import Screen as Voice

TENANT = "shop"
KEY = {TENANT: b"key"}
ARMS = tuple(Arm(arm=name, base=f"sha256:{name}", region="eu-west", max_tokens=500) for name in ("old", "new"))
EMAIL, CARD, OWN = "anna.schmidt@example.org", "4111 1111 1111 1111", "helpdesk@example.com"
ASKED = f"I am {EMAIL} and pay with {CARD}."
SHOWN = "I am [EMAIL_1] and pay with [CARD_1]."
TEXTS = {
    "plain": "When do you open?",
    "masked": ASKED,
    "own": f"Whom do I write to? {EMAIL}",
    "leaks": "the deploy key?",
    "fails": "nobody can answer this",
    "denied": f"what is {SECRET}",
}
WHOLE: dict[str, dict[str, Any]] = {
    "quick": {"release": "immediate", "challengers": ("new",)},
    "held": {"release": "gated"},
    "twice": {
        "release": "immediate",
        "routing": RoutingSettings(cascade=CascadeSettings(below=1.0, arms=("old", "new"))),
    },
}


class Echo(ScriptedEngine):
    """Repeats what it was asked, and now and then says what it should not."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        self.asked.append(text)
        if text == TEXTS["fails"]:
            raise Refused("not this one", kind="refused")
        said = f"You said: {text}"
        if "deploy key" in text:
            said = f"It is {SECRET}."
        if "Whom do I write" in text:
            said = f"To {OWN}, as [EMAIL_1]."
        return replace(await super().generate(arm, text, request_id, timeout_s), text=said)


def still() -> float:
    """The time of scans: a busy machine is no reason to deny here."""
    return 0.0


@dataclass
class Loop:
    """The log, and agents that are started and stopped on it; what they are made of does not outlive a stop."""

    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(2))
    store: MemoryStore = field(default_factory=MemoryStore)
    engine: Echo = field(default_factory=Echo)
    seals: GateKeys = KEYS
    """The router's."""
    opens: Keys = KEYS
    """Those of trust."""
    learn: Learn | None = None
    patience: RuntimeSettings | None = None

    @contextlib.asynccontextmanager
    async def running(self, *names: str) -> AsyncGenerator[None, None]:
        broker, clock, store = self.broker, SystemClock(), self.store
        runner = Runner(broker, clock, settings=self.patience)
        view = runner.view("ratchet.policies")
        inference = Inference(view, self.engine, store, Facts(broker), clock, "i1")
        gatekeeper = Gatekeeper(Screen(detect, still), self.seals.seal_map)
        around = StoreAround(store, clock)
        router = Router(view, store, around, ByPlace(broker), clock, KEY.__getitem__, gatekeeper=gatekeeper)
        out = trust(view, clock, store, keys=self.opens, monotonic=still, learn=self.learn)
        for agent in (router, inference, out):
            if agent.name in names:
                runner.add_transform(agent)
        if "cases" in names:
            runner.add_fold(Cases())
        async with working(runner.run(), inference.follow()):
            yield

    def begin(self) -> None:
        now = SystemClock().now_ms()
        self.broker.publish(PolicyGate(at_ms=now, version=2, tenant=TENANT, settings=SHOP))
        for name, more in WHOLE.items():
            told = {"route": name, "tenant": TENANT, "arms": ARMS, "champion": "old", "review_share": 1.0} | more
            settings = Route.model_validate(told)
            about = {"at_ms": now, "version": 1, "route": name, "tenant": TENANT}
            self.broker.publish(PolicyRoute.model_validate(about | {"settings": settings}))
            fleet = {"arms": ARMS, "champion": "old", "loaded": ("new",)}
            fleet |= {"challenger": "new", "shadow_bp": 10_000} if settings.challengers else {}
            self.broker.publish(PolicyFleet.model_validate(about | fleet))

    def ask(self, route: str, name: str) -> None:
        said = (Message(role="system", content="Be kind."), Message(role="user", content=TEXTS[name]))
        told = {"at_ms": SystemClock().now_ms(), "tenant": TENANT, "route": route, "request_id": f"{route}-{name}"}
        self.broker.publish(RequestSubmitted.model_validate(told | {"messages": said, "subject": "customer-7"}))

    def events(self, topic: str) -> list[Any]:
        return [event.data for event in self.broker.events(f"ratchet.{topic}")]

    def answers(self) -> dict[str, Any]:
        found = self.events("answers")
        by_id = {answer.request_id: answer for answer in found}
        assert len(by_id) == len(found), "one answer for each request"
        return by_id

    def judge(self) -> None:
        """What the reviews' desk sends: the masked ones are corrected, all others approved."""
        for review in self.events("reviews"):
            if isinstance(review, ReviewRequested):
                labels = [answer.label for answer in review.answers]
                told: Any = {"approve": labels}
                if review.request_id == "held-own":
                    told = {"correct": f"Dear [EMAIL_1], write to {OWN}."}
                given = verdict(review, by="ann", at_ms=SystemClock().now_ms(), **told)
                self.broker.publish(given)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(50):
            while not true():  # noqa: ASYNC110  watched from outside
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)


class Facts:
    """Appends facts to the broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def send(self, payload: Any, identity: str) -> None:
        self.broker.publish(payload, event_id=ids.derive(identity, "inference", 0))


ROUTER_ON, ALL = ("router", "inference"), ("router", "inference", "trust", "cases")
ASKS = [(route, name) for route in WHOLE for name in ("plain", "masked", "own", "leaks", "fails", "denied")]


async def played(loop: Loop) -> Loop:
    """Requests are decided and answered, everything is stopped, trust and cases begin anew, people judge, all is stopped again."""
    loop.begin()
    for route, name in ASKS:
        loop.ask(route, name)
    async with loop.running(*ROUTER_ON):
        await loop.until(lambda: sum(not row.shadow for row in loop.events("results")) >= 15)
    async with loop.running(*ALL):
        await loop.until(lambda: len(loop.events("reviews")) >= 7 and len(loop.answers()) >= 14)
    loop.judge()
    async with loop.running(*ALL):
        await loop.until(lambda: len(loop.answers()) == len(ASKS))
        await loop.until(lambda: sum(isinstance(row, CaseClosed) for row in loop.events("cases")) >= 9)
    return loop


@pytest.fixture(scope="module")
def loop() -> Loop:
    return asyncio.run(played(Loop()))


def texts_in(loop: Loop, *topics: str) -> bytes:
    """All that these topics hold."""
    return b"\n".join(record.value or b"" for topic in topics for record in loop.broker.records(f"ratchet.{topic}"))


def topics_of(loop: Loop) -> set[str]:
    return {name.removeprefix("ratchet.") for name, _ in loop.broker.logs}


def test_values_come_back_to_who_asked(loop: Loop) -> None:
    """At once, after a person's approval, after an escalation: the answer has the request's own values in their places."""
    for route in WHOLE:
        answer = loop.answers()[f"{route}-masked"]
        assert (answer.TYPE, answer.text) == ("answer.released", f"You said: {ASKED}")
    assert loop.answers()["held-masked"].reviewed
    assert loop.answers()["twice-masked"].arm == "new"
    assert loop.answers()["quick-plain"].text == f"You said: {TEXTS['plain']}"


def test_models_see_placeholders_only(loop: Loop) -> None:
    """No arm was asked with a value; shadows, second attempts and second arms neither."""
    assert loop.engine.asked.count(SHOWN) >= 5
    assert not [text for text in loop.engine.asked if EMAIL in text or CARD in text]


def test_values_stand_in_requests_and_answers_alone(loop: Loop) -> None:
    """No other topic, state or dead letter holds one, in whatever event."""
    others = topics_of(loop) - {"requests", "answers"}
    assert {"decisions", "shadows", "results", "scores", "reviews", "verdicts", "cases"} <= others
    for value in (EMAIL, CARD):
        assert value.encode() not in texts_in(loop, *others)
        assert value.encode() in texts_in(loop, "answers")


def test_what_a_model_or_person_adds_is_redacted(loop: Loop) -> None:
    """An address that the request did not hold does not go out, whoever wrote it; the request's own does."""
    for route in ("quick", "twice"):
        assert loop.answers()[f"{route}-own"].text == f"To [EMAIL], as {EMAIL}."
    assert loop.answers()["held-own"].text == f"Dear {EMAIL}, write to [EMAIL]."
    assert OWN.encode() not in texts_in(loop, "answers")


def test_what_the_gate_denies_in_an_answer_goes_nowhere_near_who_asked(loop: Loop) -> None:
    """Withheld with the rule's words, on every kind of route; the case says that nothing was released, though a person approved it."""
    for route in WHOLE:
        answer = loop.answers()[f"{route}-leaks"]
        assert (answer.TYPE, answer.reason, answer.gate.rules) == ("answer.withheld", "gate", ("soc2-cc6.7",))
    assert SECRET.encode() not in texts_in(loop, "answers", "scores")
    told = [row for row in loop.events("cases") if isinstance(row, CaseAnswered)]
    released = {row.request_id: row.released for row in told}
    assert (released["quick-leaks"], released["twice-leaks"], released["quick-plain"]) == (False, False, True)
    closed = {row.request_id: row for row in loop.events("cases") if isinstance(row, CaseClosed)}
    approved, plain = closed["held-leaks"], closed["held-plain"]
    assert (approved.settled, approved.withheld, approved.verdict_by) == ("withheld", "gate", "ann")
    assert (plain.settled, plain.withheld) == ("released", "")


def test_what_the_gate_denies_in_a_request_goes_nowhere(loop: Loop) -> None:
    """Refused; no model was asked with it."""
    for route in WHOLE:
        assert loop.answers()[f"{route}-denied"].TYPE == "answer.refused"
    assert not [text for text in loop.engine.asked if SECRET in text]


def test_every_event_says_whose_data_it_is(loop: Loop) -> None:
    """From the decision on, each event of every type about a request has the pseudonym; none has the raw id."""
    subject = keyed(KEY[TENANT], "subject", "customer-7")
    seen: set[str] = set()
    for topic in topics_of(loop) - {"requests"}:
        if topic.endswith((".state", ".order", ".deferred", ".dlq")) or topic in (
            "policies",
            "observations",
            "training",
        ):
            continue
        for event in loop.events(topic):
            seen.add(event.TYPE)
            assert event.subject == subject, event.TYPE
    derived = {name for name, kind in REGISTRY.items() if issubclass(kind, DerivedEvent)}
    assert seen >= derived | {"answer.refused", "verdict.given", "case.answered", "case.closed"}
    assert b"customer-7" not in texts_in(loop, *(topics_of(loop) - {"requests"}))


def test_every_answer_is_marked(loop: Loop) -> None:
    """And whoever has the key can tell that it is this answer's mark, and who wrote it."""
    found = {name: answer for name, answer in loop.answers().items() if answer.TYPE == "answer.released"}
    assert len(found) == 9
    for name, answer in found.items():
        mark = ai_mark.Mark(answer.mark.statement, answer.mark.binding)
        assert checked(answer.model_dump(mode="json"), KEYS)[0] == "holds"
        by, review = ("person", "none") if name == "held-own" else ("model", "approved" if "held" in name else "none")
        assert (ai_mark.origins_of(mark).by, ai_mark.origins_of(mark).review) == (by, review)
        if by == "model":
            assert ai_mark.origins_of(mark).adapter == next(arm.adapter for arm in ARMS if arm.arm == answer.arm)


@pytest.mark.parametrize("keys", [KEYS, None])
async def test_a_replay_decides_the_same(loop: Loop, keys: Any) -> None:
    """Router, trust and cases again from the log, with the gate's keys and without: bit for bit."""
    key_of = None if keys is None else KEY.__getitem__
    agents: Sequence[str] = ("router", "trust", "cases")
    found = await replay_broker(loop.broker, agents, Window(), key_of=key_of, gate_keys=keys)  # type: ignore[arg-type]
    assert [str(row) for gave in found for row in gave.found] == []
    assert all(gave.records > 15 for gave in found)
    trusted = next(gave for gave in found if gave.agent == "trust")
    assert any("values put back" in note for note in trusted.notes) == (keys is None)


@dataclass
class Secret:
    """The secret `gate`, which nobody has read since the rotation."""

    fields: dict[str, str]

    async def get(self, path: str) -> Mapping[str, str]:
        raise AssertionError("not in this time")

    async def latest(self, path: str) -> Mapping[str, str]:
        return self.fields


NEW = bytes(range(32, 64))
FORMER = bytes(range(32))


async def rotated(first: str) -> tuple[Loop, int]:
    """Requests are masked and decided under one key, others under the next, which `first` learns of first; then all are answered."""
    loop = Loop()
    loop.begin()
    for route in ("quick", "held"):
        loop.ask(route, "masked")
    async with loop.running("router"):
        await loop.until(lambda: len(loop.events("decisions")) == 2)
    at_ms = SystemClock().now_ms()
    both = GateKeys(FORMER, {at_ms: NEW})
    if first == "trust":
        loop.opens = both
    else:
        ring = GateKeyring(Secret({"key": FORMER.hex(), f"key-{at_ms}": NEW.hex()}), KEYS)
        loop.opens, loop.learn = ring, ring.learn
        loop.seals = both
    for route in ("quick", "held"):
        loop.ask(route, "own")
    async with loop.running(*ROUTER_ON):
        await loop.until(lambda: sum(not row.shadow for row in loop.events("results")) == 4)
    loop.seals = both
    loop.ask("twice", "masked")
    async with loop.running(*ALL):
        await loop.until(lambda: len(loop.events("reviews")) >= 2 and len(loop.answers()) == 3)
    loop.judge()
    async with loop.running(*ALL):
        await loop.until(lambda: len(loop.answers()) == 5)
    return loop, at_ms


@pytest.mark.parametrize("first", ["trust", "router"])
async def test_a_rotation_loses_no_answer(first: str) -> None:
    """Whoever learns of the key first: what was under way under the former one comes back, what is new is under the new one, every mark
    holds; and a replay gives the same bytes, with both keys, without one that was retired, and with none."""
    loop, at_ms = await rotated(first)
    answers, both = loop.answers(), GateKeys(FORMER, {at_ms: NEW})
    assert {answer.TYPE for answer in answers.values()} == {"answer.released"}
    for name in ("quick-masked", "held-masked", "twice-masked"):
        assert answers[name].text == f"You said: {ASKED}"
    assert answers["held-own"].text == f"Dear {EMAIL}, write to [EMAIL]."
    under = {decision.request_id: map_key(decision.mask_map) for decision in loop.events("decisions")}
    owns = at_ms if first == "router" else FIRST_KEY
    assert under == {
        "quick-masked": FIRST_KEY,
        "held-masked": FIRST_KEY,
        "quick-own": owns,
        "held-own": owns,
        "twice-masked": at_ms,
    }
    for answer in answers.values():
        assert checked(answer.model_dump(mode="json"), both)[0] == "holds"
        assert checked(answer.model_dump(mode="json"), GateKeys(NEW))[0] == "broken"
    assert answers["twice-masked"].mark.binding.startswith(f"{at_ms}:")
    of_new = GateKeys(None, {at_ms: NEW}, [FIRST_KEY])
    for keys, noted in ((both, False), (of_new, True), (None, True)):
        found = await replay_broker(loop.broker, ("router", "trust"), Window(), key_of=KEY.__getitem__, gate_keys=keys)  # type: ignore[arg-type]
        assert [str(row) for gave in found for row in gave.found] == []
        assert any("taken as recorded" in note for gave in found for note in gave.notes) == noted
    found = await replay_broker(loop.broker, ("router", "trust"), Window(), key_of=KEY.__getitem__, gate_keys=KEYS)
    assert {gave.agent for gave in found if gave.kinds} == {"router", "trust"}, "a key that was never there is found"


async def test_an_answer_whose_key_nobody_can_look_up_can_be_sent_back() -> None:
    """It becomes a dead letter, which says why; a replay says the same; and when the store answers again it goes out."""
    at_ms = SystemClock().now_ms()
    both = GateKeys(FORMER, {at_ms: NEW})

    async def away(sealed: str) -> None:
        raise Unavailable("Vault does not serve: it is sealed")

    loop = Loop(seals=both, learn=away)
    loop.begin()
    loop.ask("quick", "masked")
    async with loop.running(*ROUTER_ON):
        await loop.until(lambda: any(not row.shadow for row in loop.events("results")))
    loop.patience = RuntimeSettings(retry_s=0, rounds=0)
    async with loop.running("trust"):
        await loop.until(lambda: len(loop.broker.records("ratchet.results.dlq")) == 1)
    (letter,) = loop.broker.records("ratchet.results.dlq")
    assert loop.answers() == {}
    said = "nothing was let out: Vault does not serve: it is sealed"
    assert (dict(letter.headers)["ratchet-dlq-kind"], dict(letter.headers)["ratchet-dlq-message"].decode()) == (
        b"unavailable", said,
    )  # fmt: skip
    for keys in (both, None):
        (gave,) = await replay_broker(loop.broker, ["trust"], Window(), gate_keys=keys)
        assert [str(row) for row in gave.found] == []
    loop.opens, loop.learn = both, None
    async with Bus(loop.broker, "memory") as bus:
        found, by = await letters.find(bus, letter.place), By("ann", "Vault is back")
        assert await letters.send(Voice(as_json=True), loop.broker, bus, found, by, None, edit=None, again=False) == 0
    async with loop.running("trust"):
        await loop.until(lambda: len(loop.answers()) == 1)
    assert loop.answers()["quick-masked"].text == f"You said: {ASKED}"
    (gave,) = await replay_broker(loop.broker, ["trust"], Window(), gate_keys=both)
    assert [str(row) for row in gave.found] == []


def other_key(said: dict[str, Any]) -> None:
    said["mark"]["binding"] = "1799999999999:" + said["mark"]["binding"]


def other_text(said: dict[str, Any]) -> None:
    said["text"] = said["text"].replace("You said", "They said")


def other_value(said: dict[str, Any]) -> None:
    said["text"] = said["text"].replace(EMAIL, "otto@example.org")


def other_binding(said: dict[str, Any]) -> None:
    said["mark"]["binding"] = "0" * 64


def other_statement(said: dict[str, Any]) -> None:
    said["mark"]["statement"] = said["mark"]["statement"].replace("model", "person")


@pytest.mark.parametrize(
    ("change", "found"),
    [(other_text, (True, True)), (other_statement, (True, True)), (other_value, (True, False)),
     (other_binding, (True, False)), (other_key, (True, False))],
)  # fmt: skip
async def test_a_replay_finds_a_changed_answer(
    loop: Loop, tmp_path: Path, change: Callable[[dict[str, Any]], None], found: tuple[bool, bool]
) -> None:
    """With the keys whatever was changed; without them all but what only they give."""
    log, _ = await record_log(loop.broker, tmp_path / "log.xz")
    made = RecordedLog(log.partitions, log.starts, log.committed)
    for record in log.all():
        if record.topic == "ratchet.answers" and record.key == b"held-masked":
            said = json.loads(record.value or b"")
            change(said)
            value = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
            made.add([replace(record, value=value)])
        else:
            made.add([record])
    for keys, differs in zip((KEYS, None), found, strict=True):
        (gave,) = await replay_log(made, ["trust"], Window(), gate_keys=keys)
        assert bool(gave.kinds) == differs, (keys, [str(row) for row in gave.found])


async def test_nothing_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At the loudest level, no line holds a value or what was denied."""
    with caplog.at_level(logging.DEBUG):
        loop = Loop()
        loop.begin()
        for name in ("masked", "leaks", "denied"):
            loop.ask("quick", name)
        async with loop.running(*ALL):
            await loop.until(lambda: len(loop.answers()) == 3)
    for value in (EMAIL, CARD, SECRET):
        assert value not in caplog.text
