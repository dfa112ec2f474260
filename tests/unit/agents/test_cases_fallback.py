"""The case where a chain falls back, where a shadow never answers, and what that means for a pair."""

from typing import Any

import pytest
from casing import Casing
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.judge.pairs import Pending, filled
from schemas.events import (
    ArmChoice,
    CaseClosed,
    DecisionRouted,
    Message,
    ResultCompleted,
    ResultFailed,
    ReviewSettled,
    ScoreAssigned,
    VerdictGiven,
)
from schemas.payload import Payload
from schemas.routes import Arm, Route

T = 1_700_000_000_000
COMMON: dict[str, Any] = {"route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7}
TIMES = {"assigned_at_ms": T, "window_end_ms": T + 30_000}


def decision(arm: str = "old", chain: tuple[str, ...] = (), shadows: tuple[str, ...] = ("new",)) -> DecisionRouted:
    return DecisionRouted(
        **COMMON,
        **TIMES,
        at_ms=T,
        messages=(Message(role="user", content="hello"),),
        arm=arm,
        chain=chain,
        shadows=shadows,
        arms=(ArmChoice(arm=arm, adapter=None, propensity=65_536),),
        strategy="rollout",
        draw=1,
        draw_identity="q1",
        deadline_at_ms=T + 20_000,
        grader="reference",
        policies=(),
    )


def answered(arm: str, text: str, *, shadow: bool = False) -> ResultCompleted:
    return ResultCompleted.model_validate(
        COMMON
        | TIMES
        | {"at_ms": T + 100, "arm": arm, "shadow": shadow, "final": True, "decision_id": "d", "latency_ms": 50}
        | {"text": text, "tokens_in": 3, "tokens_out": 2, "ttft_ms": 5, "engine_ms": 40, "finish_reason": "stop"}
        | {"logprobs": (-0.1,), "engine": "scripted"}
    )


def failed(arm: str, *, final: bool) -> ResultFailed:
    return ResultFailed.model_validate(
        COMMON
        | TIMES
        | {"at_ms": T + 90, "arm": arm, "shadow": False, "final": final, "decision_id": "d", "latency_ms": 40}
        | {"kind": "unavailable", "reason": "the engine is away"}
    )


def score(action: str = "release") -> ScoreAssigned:
    return ScoreAssigned.model_validate(
        COMMON
        | TIMES
        | {"at_ms": T + 120, "arm": "old", "shadow": False, "decision_id": "d", "result_id": "x", "action": action}
        | {"score": 0.5, "z": 0.0, "scorer": "s", "threshold": 0.9, "certified": False, "review": action == "hold"}
        | {"sampled": True, "label_propensity": 1.0, "gated": action == "hold"}
    )


def verdict(**said: Any) -> VerdictGiven:
    return VerdictGiven.model_validate({"route": "r", "request_id": "q1", "at_ms": T + 200, "by": "ann"} | said)


def folded(*events: Payload) -> Casing:
    folding = Casing()
    for event in events:
        folding.take(event)
    return folding


FALLEN = (
    decision(arm="new", chain=("old",), shadows=("old",)),
    failed("new", final=False),
    answered("old", "served"),
    answered("old", "shadowed", shadow=True),
    score(),
    verdict(kind="reference", corrected="served"),
)


@given(st.permutations(FALLEN))
@settings(max_examples=60, deadline=None)
def test_a_challenger_that_fails_while_serving_stays_in_the_pair(order: list[Payload]) -> None:
    """The champion took over and was its shadow too: one row each, the served text counts, the failure is seen."""
    folding = folded(*order)
    (closed,) = folding.of(CaseClosed)
    assert closed.why == "complete"
    rows = [(arm.arm, arm.shadow, arm.text, arm.grade) for arm in closed.arms]
    assert rows == [("old", False, "served", 1000), ("new", False, "", None)]
    assert closed.arms[1].status != "completed", "failed, or missing where the case had closed before its failure came"
    route = Route(
        route="r", compliance="off", arms=(Arm(arm="old", base="b"), Arm(arm="new", base="b")), champion="old"
    )
    pair = filled(Pending(window_end_ms=T, arenas=()), closed, {arm.arm: arm for arm in route.arms})
    assert {name: row.ok for name, row in pair.outcomes.items()} == {"old": True, "new": False}


def test_a_correction_does_not_wait_for_a_shadow() -> None:
    """What trust held goes out with the correction at once; the case itself waits for the shadow."""
    folding = folded(decision(), answered("old", "one"), score("hold"), verdict(corrected="three"))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason, settled.text) == ("released", "corrected", "three")
    assert folding.of(CaseClosed) == []
    folding.take(answered("new", "three", shadow=True))
    (closed,) = folding.of(CaseClosed)
    assert {arm.arm: arm.grade for arm in closed.arms} == {"old": 0, "new": 1000}
    assert len(folding.of(ReviewSettled)) == 1


@pytest.mark.parametrize(("said", "reason"), [("approve", "approved"), ("reject", "rejected")])
def test_a_verdict_counts_at_the_end_though_a_shadow_is_missing(said: str, reason: str) -> None:
    """Where only one answer exists its letter is certain: the window's end does not throw the person's word away."""
    folding = folded(
        decision(), answered("old", "one"), score("hold"), verdict(answers=[{"label": "A", "decision": said}])
    )
    assert folding.of(ReviewSettled) == [], "the letters are not known before the shadow is done"
    folding.tick(T + 10_000_000)
    (settled,) = folding.of(ReviewSettled)
    assert settled.reason == reason
    assert len(folding.of(CaseClosed)) == 1
