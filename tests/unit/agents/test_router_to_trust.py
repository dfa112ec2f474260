"""Router, inference, trust and ladder on the real runtime over the broker in memory: every request has one answer."""

import asyncio
from collections import Counter

from answering import trust
from living import working

from agents.inference.actor import Inference
from agents.router.actor import Router
from agents.router.around import StoreAround
from agents.trust.fold import Ladder
from infra.clock import SystemClock
from infra.engine_scripted import ScriptedEngine
from infra.store import MemoryStore
from schemas import ids
from schemas.events import CommandApply, Message, RequestSubmitted
from schemas.policies import PolicyFleet, PolicyRoute, PolicyTrust
from schemas.routes import Arm, Route
from streams.memory import MemoryBroker
from streams.reader import ByPlace
from streams.runner import Runner

ROUTE = Route(
    route="bank",
    arms=(Arm(arm="a", base="sha256:0"), Arm(arm="b", base="sha256:1")),
    champion="a",
    challengers=("b",),
    release="immediate",
    compliance="off",
)


class Facts:
    """Appends facts to the broker in memory."""

    def __init__(self, broker):
        self.broker = broker

    async def send(self, payload, identity):
        self.broker.publish(payload, event_id=ids.derive(identity, "inference", 0))


async def test_good_and_bad_requests_each_have_one_answer_or_dead_letter():
    """Requests wait for the first load, pairs are made, and nothing is answered twice."""
    broker, clock, store = MemoryBroker(4), SystemClock(), MemoryStore()
    runner = Runner(broker, clock)
    view = runner.view("ratchet.policies")
    inference = Inference(view, ScriptedEngine(), store, Facts(broker), clock, "i1")
    runner.add_transform(Router(view, store, StoreAround(store, clock), ByPlace(broker), clock, lambda tenant: b"key"))
    runner.add_transform(inference)
    runner.add_transform(trust(view, clock))
    runner.add_fold(Ladder())
    now = clock.now_ms()
    broker.publish(PolicyRoute(at_ms=now, version=1, route="bank", settings=ROUTE))
    broker.publish(
        PolicyFleet(
            at_ms=now,
            version=1,
            route="bank",
            arms=ROUTE.arms,
            champion="a",
            challenger="b",
            rollout_bp=3_000,
            shadow_bp=10_000,
        )
    )
    broker.publish(CommandApply(at_ms=now, route="bank", operator="op", settings=ROUTE))
    said = (Message(role="user", content="hello"),)
    for number in range(60):
        broker.publish(RequestSubmitted(at_ms=now, route="bank", request_id=f"r{number}", messages=said))
    broker.publish(RequestSubmitted(at_ms=now, route="bank", request_id="r1", messages=said))  # again: dropped
    broker.publish(RequestSubmitted(at_ms=now, route="nowhere", request_id="bad1", messages=said))
    headers = (("ce_type", RequestSubmitted.ce_type().encode()),)
    broker.put("ratchet.requests", b"bad2", b'{"route":"bank"}', headers)
    broker.put("ratchet.requests", b"bad3", b"{", headers)
    async with working(runner.run(), inference.follow()):
        async with asyncio.timeout(20):
            while len(broker.records("ratchet.scores")) < 120 or len(broker.records("ratchet.answers")) < 62:  # noqa: ASYNC110  watched from outside
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
    answers = broker.events("ratchet.answers")
    assert Counter(event.data.request_id for event in answers) == Counter(
        [f"r{n}" for n in range(60)] + ["bad1", "bad2"]
    )
    assert Counter(event.data.TYPE for event in answers) == {"answer.released": 60, "answer.refused": 2}
    assert [record.key for record in broker.records("ratchet.requests.dlq")] == [b"bad3"]
    decisions = {event.id: event.data for event in broker.events("ratchet.decisions")}
    results = [event.data for event in broker.events("ratchet.results")]
    assert {result.decision_id for result in results} == set(decisions)
    assert all({"a", "b"} == {row.arm for row in results if row.decision_id == one} for one in decisions)
    assert 5 <= sum(made.arm == "b" for made in decisions.values()) <= 32
    policies = [event.data for event in broker.events("ratchet.policies")]
    assert [policy.version for policy in policies if isinstance(policy, PolicyTrust)] == [1]
