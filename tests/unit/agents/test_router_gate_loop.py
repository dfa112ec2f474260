"""The gate on the real runtime over the broker in memory: what it denies is nowhere behind it, and a replay denies the same."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from answering import trust
from gatekeeping import CARD, HEALTH, KEYS, SECRET, TENANT
from living import working
from prometheus_client import generate_latest

from agents.cases.fold import Cases
from agents.inference.actor import Inference
from agents.router.actor import Gatekeeper, Router
from agents.router.around import StoreAround
from agents.screen import Screen
from infra.clock import SystemClock
from infra.detect import detect
from infra.engine_scripted import ScriptedEngine
from infra.store import MemoryStore
from infra.telemetry import Telemetry
from schemas import ids
from schemas.compliance import PolicyGate
from schemas.events import AnswerRefused, AnswerReleased, Message, RequestSubmitted
from schemas.findings import Finding
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, RoutingSettings
from streams.memory import MemoryBroker
from streams.reader import ByPlace
from streams.replay import Window
from streams.runner import Runner
from tools.cli.replay import replay_broker

CANARY = "canary5x7"
ARMS = (Arm(arm="own", base="sha256:0", region="eu-west"), Arm(arm="other", base="sha256:1", region="eu-west"))
ROUTE = Route(
    route="ward",
    tenant="clinic",
    arms=ARMS,
    champion="own",
    challengers=("other",),
    release="immediate",
    routing=RoutingSettings(cache=CacheSettings(exact=True, semantic=True)),
)
STRICT = TENANT.model_copy(update={"exemptions": ()})
REQUESTS: dict[str, dict[str, Any]] = {
    "secret": {"text": f"{CANARY} the key is {SECRET}"},
    "health": {"text": f"{CANARY} {HEALTH}"},
    "raises": {"text": f"{CANARY} raises"},
    "late": {"text": f"{CANARY} late"},
    "purpose": {"text": f"{CANARY} hello", "purpose": "marketing"},
    "session": {"text": f"{CANARY} hello", "session_id": "4111111111111111"},
    "card-5500000000000004": {"text": f"{CANARY} hello"},
    "fine": {"text": "hello"},
    "masked": {"text": f"pay with {CARD}"},
}
DENIED = set(REQUESTS) - {"fine", "masked"}


class Facts:
    """Appends facts to the broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def send(self, payload: Any, identity: str) -> None:
        self.broker.publish(payload, event_id=ids.derive(identity, "inference", 0))


class Slow:
    """Detectors of which one raises and one takes its time, and the clock that says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self, text: str) -> Sequence[Finding]:
        if text.endswith("raises"):
            raise RuntimeError(f"cannot read {text}")
        self.now += 0.021 if text.endswith("late") else 0.0
        return detect(text)


def key_of(tenant: str) -> bytes:
    return b"key-" + tenant.encode()


async def played() -> tuple[MemoryBroker, MemoryStore, Telemetry]:
    """All requests, until each has its answer."""
    broker, clock, store, telemetry, slow = MemoryBroker(2), SystemClock(), MemoryStore(), Telemetry("test"), Slow()
    runner = Runner(broker, clock, observe=telemetry.observe)
    view = runner.view("ratchet.policies")
    inference = Inference(view, ScriptedEngine(), store, Facts(broker), clock, "i1")
    keeper = Gatekeeper(Screen(slow, lambda: slow.now), KEYS.seal_map)
    again = ByPlace(broker)
    runner.add_transform(Router(view, store, StoreAround(store, clock), again, clock, key_of, gatekeeper=keeper))
    runner.add_transform(inference)
    runner.add_transform(trust(view, clock, store, monotonic=lambda: 0.0))
    runner.add_fold(Cases())
    now = clock.now_ms()
    broker.publish(PolicyGate(at_ms=now, version=3, tenant="clinic", settings=STRICT))
    broker.publish(PolicyRoute(at_ms=now, version=1, tenant="clinic", route="ward", settings=ROUTE))
    fleet = {"arms": ARMS, "champion": "own", "challenger": "other", "shadow_bp": 10_000}
    broker.publish(PolicyFleet.model_validate({"at_ms": now, "version": 1, "route": "ward"} | fleet))
    for name, asked in REQUESTS.items():
        told: dict[str, Any] = {
            "tenant": "clinic",
            "at_ms": now,
            "route": "ward",
            "request_id": name,
            "subject": "p-7",
        } | asked
        said = (Message(role="user", content=told.pop("text")),)
        broker.publish(RequestSubmitted.model_validate(told | {"messages": said}))
    async with working(runner.run(), inference.follow()):
        async with asyncio.timeout(25):
            while len(broker.records("answers")) < len(REQUESTS):  # noqa: ASYNC110  watched from outside
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
    return broker, store, telemetry


async def test_what_is_denied_is_nowhere_behind_the_gate(caplog: pytest.LogCaptureFixture) -> None:
    """Refused once each, by rule; no topic but the requests' own, no dead letter, log line, figure or key of the store has a word of it."""
    with caplog.at_level(logging.DEBUG):
        broker, store, telemetry = await played()
    answers = [event.data for event in broker.events("answers")]
    refused = [one for one in answers if isinstance(one, AnswerRefused)]
    assert {one.kind for one in refused} == {"gate"}
    assert len(refused) == len(DENIED)
    assert {one.request_id for one in answers if isinstance(one, AnswerReleased)} == {"fine", "masked"}
    assert len({one.subject for one in refused}) == 1
    scans = {one.request_id: one.gate.scan for one in refused if one.gate is not None}
    assert (scans["raises"], scans["late"], scans["secret"]) == ("failed", "late", "whole")
    written = {topic for (topic, _), log in broker.logs.items() if log.entries and not topic.endswith(".requests")}
    assert {"ratchet.decisions", "ratchet.shadows", "ratchet.results", "ratchet.answers", "ratchet.cases"} <= written
    everything = "".join(
        repr((row.key, row.value, row.headers)) for topic in sorted(written) for row in broker.records(topic)
    )
    figures = generate_latest(telemetry.registry).decode()
    for word in (CANARY, SECRET, "insulin", "4111111111111111", "5500000000000004", "p-7"):
        for place in (everything, figures, repr(vars(store)), caplog.text):
            assert word not in place, word
    for place in (figures, repr(vars(store)), caplog.text):
        assert CARD not in place
    assert "a detector failed with RuntimeError" in caplog.text


@pytest.mark.parametrize("known", [True, False], ids=["keys", "no keys"])
async def test_a_replay_denies_and_masks_the_same(known: bool) -> None:
    """Bit for bit, also where a scan had failed or was late; without keys maps and pseudonyms are taken as recorded, and it says so."""
    broker, _, _ = await played()
    keys: dict[str, Any] = {"key_of": key_of, "gate_keys": KEYS} if known else {}
    [gave] = await replay_broker(broker, ("router",), Window(), **keys)
    assert [str(row) for row in gave.found] == []
    assert gave.records >= len(REQUESTS)
    assert any("maps of placeholders" in note for note in gave.notes) == (not known)
