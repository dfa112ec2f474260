"""A route of two arms that explores, decided by the real router, and the cases that come of it: grades are what a test says they are."""

import base64
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from agents.router import decide, learner, model, snapshot
from agents.router.basis import Basis
from agents.router.hindsight import Today
from agents.router.observed import Observed, Policies
from schemas import ids
from schemas.events import CaseArm, CaseClosed, DecisionRouted, Message, RequestSubmitted
from schemas.payload import Payload
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter, RouterArm
from schemas.routes import Arm, Route
from schemas.routing import RoutingSettings
from streams.shapes import Event, Place, Record

NOW = 1_790_000_000_000
BASIS = Basis.random(1)
EXPLORES: dict[str, Any] = {"strategy": "balanced", "arms": ("big",), "alpha": 1.0, "explore": 0.2, "floor": 0.05}
RUNNING = RoutingSettings(**EXPLORES, slo_ms=100, latency_weight=0.05, warm_share=0.0)
NEW = RoutingSettings(**EXPLORES, slo_ms=100, latency_weight=0.0, warm_share=0.0)  # it does not mind that big is slow
Grade = Callable[[str, int], int | None]


def route(routing: RoutingSettings = RUNNING, **changes: Any) -> Route:
    """`small` is the champion, `big` twice as slow as the SLO, and dearer."""
    arms = (
        Arm(arm="small", base="sha256:s", nano_usd_out=10, expected_ms=100),
        Arm(arm="big", base="sha256:b", nano_usd_out=100, expected_ms=200),
    )
    return Route(route="r", compliance="off", arms=arms, champion="small", routing=routing, **changes)


@cache
def learnt(big: int = 620_000, small: int = 600_000) -> tuple[PolicyRouter, bytes]:
    """`policy.router` in which an arm is worth the same for every text, and its factors."""
    rows: list[RouterArm] = []
    factors: dict[str, bytes] = {}
    x = np.zeros(BASIS.size, np.int16)
    x[0] = learner.ONE
    for arm, quality in (("big", big), ("small", small)):
        posterior = learner.prior([(1, 1.0), (BASIS.size - 1, 1e6)])
        for _ in range(200):
            posterior = learner.observe(posterior, x, quality)
        shot = snapshot.snapshot_of(posterior)
        rows.append(RouterArm(arm=arm, labels=400, mean=base64.b64encode(shot.mean.to_bytes()).decode(), tokens_out=8))
        factors[arm] = shot.factor.to_bytes()
    blob = model.factors_of(factors)
    told = {"dims": BASIS.size, "factors": ids.digest(blob), "warm": True, "code": model.CODE}
    return PolicyRouter(at_ms=NOW, route="r", version=3, champion="small", arms=tuple(rows), **told), blob


def event_of(payload: Any, topic: str = "ratchet.requests") -> Event[Any]:
    """A payload as a record of its topic gives it."""
    key = payload.event_key() if isinstance(payload, Payload) else ""
    record = Record(topic, 1, 7, key.encode(), b"", (), NOW)
    return Event(f"id-{key}", key, payload, "test", "", Place(topic, 1, 7), record)


def policies(made: Route, **fleet: Any) -> Policies:
    """All arms are live."""
    router, blob = learnt()
    rows = tuple(LiveArm(route="r", arm=arm.arm, adapter=None, replicas=1) for arm in made.arms)
    return Policies(
        event_of(PolicyRoute(at_ms=NOW, version=1, route="r", settings=made)),
        event_of(PolicyFleet(at_ms=NOW, version=2, route="r", arms=made.arms, champion="small", **fleet)),
        (event_of(PolicyLive(at_ms=NOW, version=5, instance="i", arms=rows, until_ms=NOW + 10**9)),),
        router=event_of(router),
        model=model.model_of(router, BASIS, blob),
    )


def today(made: Route | None = None) -> Today:
    """The running policy."""
    told = policies(made or route())
    assert told.route is not None
    assert told.fleet is not None
    assert told.router is not None
    return Today(told.route.data.settings, told.fleet.data, told.router.data, NOW)


def decided(
    told: Policies, name: str, *, at_ms: int = NOW, seen: Observed | None = None, **changes: Any
) -> DecisionRouted:
    """The real router's decision."""
    fields = {"messages": (Message(role="user", content=f"why is {name} so?"),)} | changes
    request = RequestSubmitted(at_ms=at_ms, route="r", request_id=name, **fields)
    made = decide.decide(event_of(request), told, seen or Observed(at_ms, "d"))[0].payload
    assert isinstance(made, DecisionRouted)
    return made


def case_of(decision: DecisionRouted, grade: int | None, **changes: Any) -> CaseClosed:
    """What came of a decision: its arm answered, and a reference graded it (thousandths)."""
    served = CaseArm(
        arm=decision.arm,
        shadow=False,
        status="completed",
        grade=grade,
        tokens_in=10,
        tokens_out=8,
        cost_nano_usd=800 if decision.arm == "big" else 80,
    )
    fields: dict[str, Any] = {
        "at_ms": decision.at_ms + 1000,
        "route": "r",
        "request_id": decision.request_id,
        "request_partition": 0,
        "request_offset": 0,
        "decision_id": f"d-{decision.request_id}",
        "assigned_at_ms": decision.assigned_at_ms,
        "window_end_ms": decision.window_end_ms,
        "arm": decision.arm,
        "drawn": decision.arm,
        "why": "complete",
        "messages": decision.messages,
        "arms": (served,),
        "choices": decision.arms,
        "grader": "reference",
        "verdict_kind": "" if grade is None else "reference",
        "routing": decision.routing,
        "strategy": decision.strategy,
        "session": decision.session,
        "cost_nano_usd": served.cost_nano_usd,
        "source": "cache" if decision.cached is not None else "model",
    }
    return CaseClosed.model_validate(fields | changes)


def log(count: int, grade: Grade, told: Policies | None = None) -> list[CaseClosed]:
    """So many cases a second apart, each graded by its arm and number."""
    known = told or policies(route())
    made = [decided(known, f"q{number}", at_ms=NOW + 1000 * number) for number in range(count)]
    return [case_of(row, grade(row.arm, number)) for number, row in enumerate(made)]


def big_is_better(arm: str, number: int) -> int:
    """900 against 500, give or take."""
    return (900 if arm == "big" else 500) + (50 if number % 2 else -50)


def big_is_worse(arm: str, number: int) -> int:
    """The other way round."""
    return big_is_better("small" if arm == "big" else "big", number)
