"""Router, inference, trust and cases over the broker in memory, every first answer escalated: one answer, one case each."""

import asyncio
from collections import Counter
from typing import Any

from answering import trust
from living import working

from agents.cases.fold import Cases
from agents.inference.actor import Inference
from agents.router.actor import Router
from agents.router.around import StoreAround
from infra.clock import SystemClock
from infra.engine_scripted import ScriptedEngine
from infra.store import MemoryStore
from schemas import ids
from schemas.events import Message, RequestSubmitted, VerdictGiven
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import CascadeSettings, RoutingSettings
from streams.memory import MemoryBroker
from streams.reader import ByPlace
from streams.runner import Runner

ARMS = (Arm(arm="weak", base="sha256:0"), Arm(arm="strong", base="sha256:1"))
ROUTE = Route(
    route="bank",
    arms=ARMS,
    champion="weak",
    release="immediate",
    compliance="off",
    review_share=0.0,
    routing=RoutingSettings(cascade=CascadeSettings(below=1.0, arms=("weak", "strong"))),
)


class Facts:
    """Appends facts to the broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker

    async def send(self, payload: Any, identity: str) -> None:
        self.broker.publish(payload, event_id=ids.derive(identity, "inference", 0))


async def test_every_escalated_request_has_one_answer_and_one_case() -> None:
    """The strong arm answers, the weak one's answer is graded beside it, and a case closes with its reference."""
    broker, clock, store = MemoryBroker(2), SystemClock(), MemoryStore()
    runner = Runner(broker, clock)
    view = runner.view("ratchet.policies")
    inference = Inference(view, ScriptedEngine(), store, Facts(broker), clock, "i1")
    runner.add_transform(Router(view, store, StoreAround(store, clock), ByPlace(broker), clock, lambda tenant: b"key"))
    runner.add_transform(inference)
    runner.add_transform(trust(view, clock, store))
    runner.add_fold(Cases())
    now = clock.now_ms()
    broker.publish(PolicyRoute(at_ms=now, version=1, route="bank", settings=ROUTE))
    fleet = {"at_ms": now, "version": 1, "route": "bank", "arms": ARMS, "champion": "weak", "loaded": ("strong",)}
    broker.publish(PolicyFleet.model_validate(fleet))
    said = (Message(role="user", content="hello"),)
    names = [f"r{number}" for number in range(20)]
    for name in names:
        broker.publish(RequestSubmitted(at_ms=now, route="bank", request_id=name, messages=said))
        told = {"at_ms": now, "route": "bank", "request_id": name, "by": "ref", "kind": "reference", "corrected": "x"}
        broker.publish(VerdictGiven.model_validate(told))
    async with working(runner.run(), inference.follow()):
        async with asyncio.timeout(25):
            while sum(event.data.TYPE == "case.closed" for event in broker.events("ratchet.cases")) < 20:  # noqa: ASYNC110  watched from outside
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
    told = [event.data for event in broker.events("ratchet.answers")]
    assert Counter(answer.request_id for answer in told) == Counter(names)
    assert {(answer.TYPE, answer.arm) for answer in told} == {("answer.released", "strong")}
    cases = [event.data for event in broker.events("ratchet.cases")]
    assert Counter((row.request_id, row.TYPE) for row in cases) == Counter(
        [(name, kind) for name in names for kind in ("case.answered", "case.closed")]
    )
    closed = [row for row in cases if row.TYPE == "case.closed"]
    assert {(row.attempt, row.arm, row.drawn, row.why) for row in closed} == {(2, "strong", "weak", "complete")}
    assert {tuple(arm.arm for arm in row.arms) for row in closed} == {("strong", "weak")}
    assert all(arm.grade is not None for row in closed for arm in row.arms)
