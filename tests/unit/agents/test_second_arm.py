"""A second arm is asked beside the answer, only to see whether it agrees; nothing else depends on it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agents.inference.actor import SECOND_S, Inference
from agents.ports import Generation
from agents.router import decide as router
from agents.trust import decide as trust
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.errors import Refused, Unavailable
from schemas.events import ArmChoice, DecisionRouted, Message, RequestSubmitted, ResultCompleted, ShadowOrdered
from schemas.payload import Payload
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute
from schemas.routes import Arm, Route
from streams.shapes import Emit, Event, Place, Record

NOW = 1_700_000_000_000
BASE: dict[str, Any] = {
    "at_ms": NOW, "route": "bank", "request_id": "r1", "request_partition": 0, "request_offset": 4,
    "messages": (Message(role="user", content="last"),), "assigned_at_ms": NOW, "window_end_ms": NOW + 60_000,
    "deadline_at_ms": NOW + 10_000, "policies": (),
}  # fmt: skip
Word = str | Exception | Callable[[], Awaitable[str]]


class Views:
    """No policies."""

    def get(self, model: object, key: str) -> None:
        return None

    def items(self, model: object) -> dict[str, Any]:
        return {}

    def age_s(self) -> float:
        return 0.0


class Engine:
    """Says what was given for an arm; notes every call and the most at once."""

    def __init__(self, **words: Word) -> None:
        self.words = words
        self.calls: list[tuple[str, str, str]] = []
        self.running = 0
        self.together = 0

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        assert timeout_s > 0
        self.calls.append((arm, text, request_id))
        self.running += 1
        self.together = max(self.together, self.running)
        try:
            await asyncio.sleep(0)
            word = self.words[arm.partition("/")[2]]
            if isinstance(word, Exception):
                raise word
            said = word if isinstance(word, str) else await word()
            return Generation(said, 3, 2, 12.0, 4.0, "stop", (-0.1,), None, "scripted", "rep1")
        finally:
            self.running -= 1


def event_of(payload: Payload) -> Event[Any]:
    place = Place("ratchet." + payload.TOPIC, 0, 1)
    record = Record(place.topic, 0, 1, payload.event_key().encode(), payload.model_dump_json().encode(), (), NOW)
    return Event("d1", payload.event_key(), payload, "test", "", place, record)


def decision(**changes: Any) -> DecisionRouted:
    arms = (ArmChoice(arm="a", adapter=None, propensity=65_536),)
    told = {"arm": "a", "arms": arms, "strategy": "champion", "draw": 1, "draw_identity": "d", "grader": "verdict"}
    return DecisionRouted.model_validate(BASE | told | {"second_arm": "b"} | changes)


def agent(engine: Engine, clock: ManualClock | None = None) -> Inference:
    class NoFacts:
        async def send(self, payload: Payload, identity: str) -> None:
            raise AssertionError("no fact is due")

    made = Inference(Views(), engine, MemoryStore(), NoFacts(), clock or ManualClock(NOW), "i1")  # type: ignore[arg-type]
    made._loading = False
    return made


async def result(engine: Engine, told: Payload) -> ResultCompleted:
    emits = await agent(engine)(event_of(told))
    assert isinstance(emits[-1], Emit)
    made = emits[-1].payload
    assert isinstance(made, ResultCompleted)
    return made


@pytest.mark.parametrize(("other", "agreement"), [("Yes ", 1.0), ("no", 0.0)])
async def test_both_arms_are_asked_at_once_and_compared(other: str, agreement: float) -> None:
    """The same prompt under an id of its own; same means equal but for case and spaces. The answer is the first arm's."""
    engine = Engine(a="yes", b=other)
    made = await result(engine, decision())
    assert (made.text, made.arm, made.agreement) == ("yes", "a", agreement)
    assert sorted(engine.calls) == [("bank/a", "last", "d1"), ("bank/b", "last", "d1/second")]
    assert engine.together == 2


@pytest.mark.parametrize("why", [Unavailable("away"), Refused("no", kind="unknown_arm", field="arm")])
async def test_a_second_arm_that_fails_or_is_away_costs_nothing(why: Exception) -> None:
    """Agreement is unknown, the answer is as it would be, and the engine is not doubted."""
    engine = Engine(a="yes", b=why)
    inference = agent(engine)
    [emit] = await inference(event_of(decision()))
    assert isinstance(emit, Emit)
    made = emit.payload
    assert isinstance(made, ResultCompleted)
    assert (made.text, made.agreement, inference._doubt) == ("yes", None, False)


async def test_an_answer_waits_a_second_for_the_other_arm_and_no_longer() -> None:
    """One that hangs is let go."""
    gone = asyncio.Event()

    async def hang() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return "never"

    clock = ManualClock(NOW)
    call = asyncio.create_task(agent(Engine(a="yes", b=hang), clock)(event_of(decision())))
    for _ in range(20):  # the first arm answers, and the waiting begins
        await asyncio.sleep(0)
    await clock.advance(SECOND_S - 0.1)
    assert not call.done()
    await clock.advance(0.2)
    [emit] = await asyncio.wait_for(call, 5)
    assert isinstance(emit, Emit)
    assert isinstance(emit.payload, ResultCompleted)
    assert emit.payload.agreement is None
    await asyncio.wait_for(gone.wait(), 1)


async def test_where_the_first_arm_fails_the_second_is_let_go() -> None:
    """It never answers in its place."""
    with pytest.raises(Unavailable):
        await agent(Engine(a=Unavailable("away"), b="yes"))(event_of(decision()))


async def test_no_second_arm_is_asked_for_a_shadow_or_beside_itself() -> None:
    """Nor where the decision names none."""
    shadow = ShadowOrdered.model_validate(BASE | {"arm": "a", "decision_id": "d1"})
    for told in (shadow, decision(second_arm="a"), decision(second_arm=None)):
        engine = Engine(a="yes", b="yes")
        made = await result(engine, told)
        assert (made.agreement, len(engine.calls)) == (None, 1)


def routed(second: str | None, *, live: tuple[str, ...] = ("a", "b"), champion: str = "a") -> DecisionRouted:
    arms = (Arm(arm="a", base="sha256:0"), Arm(arm="b", base="sha256:1"))
    settings = Route.model_validate(
        {"route": "bank", "arms": arms, "champion": champion, "compliance": "off", "trust": {"second_arm": second}}
    )
    rows = tuple(LiveArm(route="bank", arm=name, adapter=None, replicas=1) for name in live)
    policies = router.Policies(
        event_of(PolicyRoute(at_ms=NOW, version=1, route="bank", settings=settings)),
        event_of(PolicyFleet(at_ms=NOW, version=1, route="bank", arms=arms, champion=champion)),
        (event_of(PolicyLive(at_ms=NOW, version=1, instance="i1", arms=rows, until_ms=NOW + 9_000)),),
        (),
    )
    request = RequestSubmitted(at_ms=NOW, route="bank", request_id="r1", messages=(Message(role="user", content="hi"),))
    observed = router.Observed(NOW, "digest")
    [emit] = router.decide(event_of(request), policies, observed)
    assert isinstance(emit.payload, DecisionRouted)
    return emit.payload


def test_the_router_puts_the_second_arm_into_the_decision() -> None:
    """Where it is live and is not the arm that answers."""
    assert routed("b").second_arm == "b"
    assert routed(None).second_arm is None
    assert routed("b", live=("a",)).second_arm is None
    assert routed("b", champion="b").second_arm is None


def test_a_second_arm_that_the_route_does_not_have_is_refused() -> None:
    """By name."""
    with pytest.raises(ValueError, match=r"trust\.second_arm: 'c' is not an arm of this route"):
        routed("c")


def test_agreement_becomes_two_signals() -> None:
    """Whether it agrees, and whether it was asked at all."""
    common = BASE | {
        "arm": "a", "shadow": False, "final": True, "decision_id": "d1", "latency_ms": 1.0, "text": "x", "tokens_in": 1,
        "tokens_out": 1, "ttft_ms": 1.0, "engine_ms": 1.0, "finish_reason": "stop", "logprobs": (-0.1,), "engine": "e",
    }  # fmt: skip
    told = [ResultCompleted.model_validate(common | {"agreement": value}) for value in (None, 0.0, 1.0)]
    assert [trust.signals_of(row)[4:] for row in told] == [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
