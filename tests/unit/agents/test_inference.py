"""Inference emits one final result per order, remembers it, falls down the chain, and says what is live."""

import asyncio
import contextlib

import pytest

from agents.inference import decide
from agents.inference.actor import Inference
from agents.ports import Generation, LoadOutcome
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.errors import Refused, Unavailable
from schemas.events import (
    AdapterLive,
    AdapterRefused,
    ArmChoice,
    DecisionRouted,
    Message,
    ResultCompleted,
    ResultFailed,
    ShadowOrdered,
)
from schemas.policies import PolicyFleet, PolicyLive
from schemas.routes import Arm
from streams.shapes import Event, Place, Record

NOW = 1_700_000_000_000


class Table:
    """A view that holds what it was given."""

    def __init__(self):
        self.rows = {}

    def put(self, policy):
        self.rows[policy.event_key()] = event_of(policy)

    def get(self, model, key):
        return self.rows.get(key)

    def items(self, model):
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self):
        return 0.0


class ScriptedEngine:
    """Answers what was said for an arm; an arm without words is away. Fails the test on a call past the deadline."""

    def __init__(self, **words):
        self.words = words
        self.calls = []
        self.loads = []
        self.refuses = {}
        self.alive = True

    async def ensure(self, arms):
        if not self.alive:
            raise Unavailable("the engine is away")
        self.loads.append(tuple(spec.arm for spec in arms))
        return [
            LoadOutcome(s.arm, s.adapter, "rep1", s.arm not in self.refuses, self.refuses.get(s.arm, ""), 5.0)
            for s in arms
        ]

    async def generate(self, arm, text, request_id, timeout_s):
        assert timeout_s > 0
        self.calls.append((arm, text))
        word = self.words.get(arm.partition("/")[2])
        if word is None:
            raise Unavailable(f"{arm} is away")
        if isinstance(word, Exception):
            raise word
        return Generation(word, 3, 2, 12.0, 4.0, "stop", (-0.1, -0.2), "sha256:ad", "scripted", "rep1")

    async def healthy(self):
        return self.alive

    async def close(self):
        pass


class Loading(ScriptedEngine):
    """Knows an arm only once it was asked to load it, as real engines do."""

    async def generate(self, arm, *rest):
        if not any(arm in names for names in self.loads):
            raise Refused(f"arm {arm!r} is not loaded", kind="unknown_arm", field="arm")
        return await super().generate(arm, *rest)


class Told:
    """Facts as sent; `away` makes the broker refuse."""

    def __init__(self):
        self.sent = []
        self.away = False

    async def send(self, payload, identity):
        if self.away:
            raise Unavailable("the broker is away")
        self.sent.append((payload, identity))

    def of(self, model):
        return [payload for payload, _ in self.sent if isinstance(payload, model)]


def event_of(payload, event_id="d1"):
    topic = "ratchet." + payload.TOPIC
    key = payload.event_key()
    record = Record(topic, 0, 1, key.encode(), b"", (), NOW)
    return Event(event_id, key, payload, "test", "", Place(topic, 0, 1), record)


BASE = {
    "at_ms": NOW,
    "route": "bank",
    "request_id": "r1",
    "request_partition": 0,
    "request_offset": 4,
    "request_at_ms": NOW - 5,
    "messages": (Message(role="user", content="first"), Message(role="assistant", content="x"),
                 Message(role="user", content="last")),
    "assigned_at_ms": NOW,
    "window_end_ms": NOW + 60_000,
    "deadline_at_ms": NOW + 1_000,
    "policies": (),
}  # fmt: skip


def decision(**changes):
    arms = (ArmChoice(arm="a", adapter="ad-a", propensity=65_536), ArmChoice(arm="old", adapter=None, propensity=0))
    told = {"arm": "a", "chain": ("old",), "arms": arms, "strategy": "champion", "draw": 1, "draw_identity": "d",
            "grader": "reference"}  # fmt: skip
    return DecisionRouted(**(BASE | told | changes))


def inference(engine, *, store=None, clock=None, view=None, facts=None, loading=False):
    agent = Inference(view or Table(), engine, store or MemoryStore(), facts or Told(), clock or ManualClock(NOW), "i1")
    agent._loading = loading  # True until the first load has ended; most tests begin after it
    return agent


async def payloads(agent, payload):
    return [emit.payload for emit in await agent(event_of(payload))]


async def test_a_decision_becomes_a_completed_final_result():
    """The engine sees the last user message under `route/arm`; the result names the decision and its times."""
    engine, clock = ScriptedEngine(a="yes"), ManualClock(NOW + 30)
    [made] = await payloads(inference(engine, clock=clock), decision())
    assert isinstance(made, ResultCompleted)
    assert engine.calls == [("bank/a", "last")]
    assert (made.arm, made.text, made.final, made.shadow, made.decision_id) == ("a", "yes", True, False, "d1")
    assert (made.latency_ms, made.engine_ms, made.ttft_ms, made.request_at_ms) == (30.0, 12.0, 4.0, NOW - 5)
    assert made.adapter == "sha256:ad"


async def test_a_second_owner_emits_what_the_store_holds():
    """A re-run calls nothing and emits the same; two that raced emit the winner's."""
    engine, store = ScriptedEngine(a="first"), MemoryStore()
    first = await inference(engine, store=store)(event_of(decision()))
    later = ScriptedEngine(a="second")
    assert await inference(later, store=store)(event_of(decision())) == first
    assert later.calls == []
    other_place = decision(request_offset=5)
    [made] = await payloads(inference(later, store=store), other_place)
    assert made.text == "second"


async def test_of_two_that_raced_both_emit_the_winner():
    """Two owners call at once; each emits what the store holds afterwards."""
    store = MemoryStore()

    class Slow(ScriptedEngine):
        async def generate(self, *call):
            made = await super().generate(*call)
            await asyncio.sleep(0)
            return made

    both = [inference(Slow(a=word), store=store) for word in ("one", "two")]
    first, second = await asyncio.gather(*(agent(event_of(decision())) for agent in both))
    assert first == second


async def test_an_arm_that_is_being_loaded_is_waited_for():
    """A fresh instance holds its orders until the first load has ended, instead of failing them."""
    view, clock = Table(), ManualClock(NOW)
    view.put(fleet())
    engine = Loading(a="yes")
    agent = inference(engine, view=view, clock=clock, loading=True)
    call = asyncio.create_task(agent(event_of(decision(chain=()))))
    await clock.advance(0.3)
    assert not call.done()
    await agent.load_once()
    await clock.advance(0.1)
    [emit] = await call
    assert emit.payload.text == "yes"
    with pytest.raises(Unavailable):
        await agent(event_of(decision(arm="gone", chain=())))
    late = Loading(a="late")
    call = asyncio.create_task(inference(late, clock=clock, loading=True)(event_of(decision(chain=()))))
    await clock.advance(2.0)
    assert [emit.payload.kind for emit in await call] == ["deadline"]


async def test_without_the_store_the_call_is_made():
    """The store only saves a second call."""
    store = MemoryStore()
    store.cut()
    [made] = await payloads(inference(ScriptedEngine(a="yes"), store=store), decision())
    assert made.text == "yes"


async def test_a_shadow_order_is_answered_as_a_shadow():
    """Its result names the decision that it belongs to, not the order."""
    order = ShadowOrdered(**BASE, arm="b", decision_id="d0")
    [made] = await payloads(inference(ScriptedEngine(b="no")), order)
    assert (made.shadow, made.final, made.decision_id, made.arm) == (True, True, "d0", "b")


async def test_an_arm_that_is_away_falls_down_the_chain():
    """A failure that is not final, then the fallback's result."""
    failed, made = await payloads(inference(ScriptedEngine(old="plan b")), decision())
    assert (failed.arm, failed.kind, failed.final, failed.adapter) == ("a", "unavailable", False, "ad-a")
    assert (made.arm, made.text, made.final) == ("old", "plan b", True)


async def test_with_nobody_there_it_is_tried_again_until_the_deadline():
    """Before the deadline Unavailable; at it one final failure, by itself or when the runtime gives up."""
    clock = ManualClock(NOW)
    agent = inference(ScriptedEngine(), clock=clock)
    with pytest.raises(Unavailable) as caught:
        await agent(event_of(decision()))
    assert agent.deadline_ms(event_of(decision())) == NOW + 1_000
    given_up = [emit.payload for emit in agent.expired(event_of(decision()), caught.value)]
    assert [(row.arm, row.kind, row.final) for row in given_up] == [
        ("a", "unavailable", False),
        ("old", "unavailable", True),
    ]
    await clock.advance(1.0)
    late = await payloads(agent, decision())
    assert [(row.kind, row.final) for row in late] == [("deadline", False), ("deadline", True)]


async def test_past_the_deadline_no_engine_is_called():
    """Too late is told, not computed."""
    engine = ScriptedEngine(a="late")
    rows = await payloads(inference(engine, clock=ManualClock(NOW + 1_000)), decision(chain=()))
    assert [(row.kind, row.final) for row in rows] == [("deadline", True)]
    assert engine.calls == []


async def test_what_the_engine_refuses_ends_the_chain():
    """The sender's fault is no reason to ask another arm."""
    engine = ScriptedEngine(a=Refused("4,000 tokens; accepted: 2,048"), old="x")
    [made] = await payloads(inference(engine), decision())
    assert isinstance(made, ResultFailed)
    assert (made.kind, made.final) == ("refused", True)
    assert "2,048" in made.reason


def test_a_replica_that_is_away_refuses_no_adapter():
    """Only an outcome that is about the adapter becomes a fact."""
    away = LoadOutcome("bank/a", "ad-a", "rep1", False, "replica is away: TimeoutError", 0.0)
    assert not decide.tells(away)
    assert decide.tells(LoadOutcome("bank/a", "ad-a", "rep1", False, "digest differs", 0.0))


async def test_only_an_arm_that_some_replica_answers_for_is_live():
    """With the very adapter that is wanted; replicas are counted."""
    specs = decide.wanted([fleet(challenger=None)])
    rows = [LoadOutcome("bank/a", "ad-a", name, name != "rep3", "", 1.0) for name in ("rep1", "rep2", "rep3")]
    rows += [LoadOutcome("bank/old", "ad-x", "rep1", True, "", 1.0), LoadOutcome("bank/z", None, "rep1", True, "", 1.0)]
    assert [(row.arm, row.replicas) for row in decide.live_arms(rows, specs)] == [("a", 2)]


def fleet(**changes):
    arms = tuple(Arm(arm=name, base="sha256:0", adapter=f"ad-{name}") for name in ("a", "b", "old", "unused"))
    told = {"at_ms": NOW, "version": 1, "route": "bank", "arms": arms, "champion": "a", "challenger": "b"}
    return PolicyFleet(**(told | {"rollback": "old"} | changes))


def test_wanted_are_champion_challenger_and_rollback_of_all_routes():
    """Named by route, so that routes do not collide; an arm without a part is not loaded."""
    names = list(decide.wanted([fleet(), fleet(route="other", challenger=None, rollback=None)]))
    assert names == ["bank/a", "bank/b", "bank/old", "other/a"]


async def test_it_follows_the_fleet_and_says_what_is_live():
    """Facts once per change, policy.live on change and every two seconds, also while the engine is away."""
    engine, facts, clock, view = ScriptedEngine(), Told(), ManualClock(NOW), Table()
    view.put(PolicyLive(at_ms=NOW, version=8, instance="i1", arms=(), until_ms=NOW))
    view.put(fleet(challenger=None))
    engine.refuses["bank/old"] = "digest differs"
    agent = inference(engine, facts=facts, clock=clock, view=view, loading=True)
    task = asyncio.create_task(agent.follow())
    try:
        await asyncio.sleep(0)
        for _ in range(12):
            await clock.advance(0.2)
        assert [(row.arm, row.adapter) for row in facts.of(AdapterLive)] == [("a", "ad-a")]
        assert [(row.arm, row.reason) for row in facts.of(AdapterRefused)] == [("old", "digest differs")]
        announced = facts.of(PolicyLive)
        assert announced[-1].until_ms > clock.now_ms() + 12_000
        assert [row.version for row in announced] == list(range(9, 9 + len(announced)))
        assert [arm.arm for arm in announced[-1].arms] == ["a"]

        view.put(fleet())
        for _ in range(3):
            await clock.advance(0.2)
        assert [arm.arm for arm in facts.of(PolicyLive)[-1].arms] == ["a", "b"]

        engine.alive = False
        for _ in range(60):
            await clock.advance(0.2)
        assert facts.of(PolicyLive)[-1].arms == ()
        said = len(facts.of(PolicyLive))
        facts.away = True
        await clock.advance(3.0)
        facts.away, engine.alive = False, True
        for _ in range(60):
            await clock.advance(0.2)
        assert len(facts.of(PolicyLive)) > said
        assert [arm.arm for arm in facts.of(PolicyLive)[-1].arms] == ["a", "b"]
        identities = [identity for _, identity in facts.sent]
        assert len(set(identities)) == len(identities)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
