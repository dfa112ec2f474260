"""The cascade in trust: which first answers escalate, and that nothing else does."""

from typing import Any

import pytest
from answering import looked
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.grading import heads
from agents.trust import decide
from schemas.events import AnswerReleased, ResultCompleted, ResultFailed, ScoreAssigned
from schemas.policies import SIGNALS, PolicyRoute, PolicyTrust
from schemas.routes import Arm, Route
from schemas.routing import CascadeSettings, RoutingSettings
from streams.shapes import Event, Record

NOW = 1_700_000_000_000
ARMS = (Arm(arm="weak", base="sha256:0"), Arm(arm="strong", base="sha256:1"))
RESULT: dict[str, Any] = {
    "at_ms": NOW, "route": "bank", "request_id": "r1", "request_partition": 0, "request_offset": 4,
    "request_at_ms": NOW - 70, "arm": "weak", "shadow": False, "final": True, "decision_id": "d1",
    "assigned_at_ms": NOW - 50, "window_end_ms": NOW + 600_000, "latency_ms": 50.0,
}  # fmt: skip
DONE: dict[str, Any] = {
    "text": "42", "tokens_in": 3, "tokens_out": 2, "ttft_ms": 1.0, "engine_ms": 2.0, "finish_reason": "stop",
    "logprobs": (-0.1, -0.3), "engine": "e",
}  # fmt: skip


def event_of(payload: Any) -> Event[Any]:
    record = Record("ratchet." + payload.TOPIC, 2, 9, payload.event_key().encode(), b"", (), NOW)
    return Event("x1", payload.event_key(), payload, "test", "", record.place, record)


def completed(**more: Any) -> ResultCompleted:
    return ResultCompleted.model_validate(RESULT | DONE | more)


def route(below: float = 1.0, release: str = "immediate", **more: Any) -> PolicyRoute:
    routing = RoutingSettings(cascade=CascadeSettings(below=below, arms=("weak", "strong")))
    told = {"route": "bank", "arms": ARMS, "champion": "weak", "release": release, "routing": routing} | more
    return PolicyRoute(at_ms=NOW, version=1, route="bank", settings=Route.model_validate({"compliance": "off"} | told))


def trust(mode: str, **more: Any) -> PolicyTrust:
    """z is the mean log-probability: -0.2 of an answer that says no other."""
    told = {
        "at_ms": NOW, "version": 2, "route": "bank", "scorer": "s", "signals": SIGNALS, "mode": mode, "arm": "weak",
        "weights": (1.0, *(0.0,) * 5),
    }  # fmt: skip
    return PolicyTrust.model_validate(told | more)


def decided(result: Any, settings: PolicyRoute | None, policy: PolicyTrust | None = None, now: int = NOW) -> list[Any]:
    view = decide.Policies(
        None if settings is None else event_of(settings), None if policy is None else event_of(policy)
    )
    return [emit.payload for emit in decide.decide(event_of(result), view, now, looked())]


@pytest.mark.parametrize("release", ["immediate", "gated"])
def test_a_first_answer_scored_too_low_escalates(release: str) -> None:
    """A score and nothing else: no answer, no review, no label; it says where the router finds the result."""
    (score,) = decided(completed(), route(release=release))
    assert isinstance(score, ScoreAssigned)
    assert (score.action, score.review, score.sampled, score.label_propensity) == ("escalate", False, False, 0.0)
    assert (score.attempt, score.result_partition, score.result_offset) == (1, 2, 9)
    assert (score.certified, score.gated, score.window_end_ms) == (False, release == "gated", NOW + 600_000)


def test_a_score_at_the_limit_does_not_escalate() -> None:
    """`below` means below; 0, the default, lets none escalate."""
    (score, _) = decided(completed(), route(below=0.0))
    assert score.action == "release"
    (score, _) = decided(completed(), route(below=score.score))
    assert (score.action, score.result_partition, score.result_offset) == ("release", None, None)
    assert decided(completed(), route(below=score.score + 1e-9))[0].action == "escalate"


@pytest.mark.parametrize(
    "more", [{"attempt": 2}, {"attempt": 2, "source": "kept"}, {"source": "cache"}, {"shadow": True}, {"final": False}]
)
@pytest.mark.parametrize("release", ["immediate", "gated"])
def test_nothing_else_escalates(more: dict[str, Any], release: str) -> None:
    """A second attempt is the last; a cached answer was released before; a shadow answers nobody."""
    first, *rest = decided(completed(**more), route(release=release))
    answers = release == "immediate" and "shadow" not in more and "final" not in more
    assert first.action == ("release" if answers else "hold")
    assert first.attempt == more.get("attempt", 1)
    assert [type(one) for one in rest] == [AnswerReleased] * answers


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_failure_does_not_escalate(attempt: int) -> None:
    """Its chain was the way to another arm; the case settles it."""
    failed = ResultFailed.model_validate(RESULT | {"kind": "unavailable", "reason": "away", "attempt": attempt})
    (score,) = decided(failed, route())
    assert (score.action, score.failed, score.attempt) == ("hold", True, attempt)


@pytest.mark.parametrize(("late_ms", "action"), [(59_949, "escalate"), (59_950, "release"), (599_999, "release")])
def test_past_the_deadline_the_first_answer_goes_as_ever(late_ms: int, action: str) -> None:
    """A second answer would come too late for whoever asked: 60 s after the decision the first one is better."""
    assert decided(completed(), route(), now=NOW + late_ms)[0].action == action


def test_at_the_windows_end_nothing_escalates() -> None:
    """The case is about to settle; a window shorter than the deadline counts."""
    score = decided(completed(window_end_ms=NOW), route())[0]
    assert score.action == "release"


def test_a_route_that_is_not_known_is_held() -> None:
    """Without settings nothing says that a second answer is wanted."""
    (score,) = decided(completed(), None)
    assert (score.action, score.review) == ("hold", True)


@pytest.mark.parametrize("release", ["immediate", "gated"])
def test_what_is_certified_is_released(release: str) -> None:
    """The ladder's word goes before the cascade's, and an answer drawn by the audit in its place is held, not escalated."""
    policy = trust("ENFORCE", floor=-1.0, rung=50)
    words = {True: set[str](), False: set[str]()}
    for n in range(300):
        result = completed(request_id=f"r{n}")
        told = route(release=release, trust={"audit_share": 0.3})
        score = decided(result, told, policy)[0]
        words[heads(f"r{n}", "audit", 0.3)].add(score.action)
        assert score.certified
    assert words == {False: {"release"}, True: {"hold" if release == "gated" else "release"}}


def test_below_the_rung_it_escalates() -> None:
    """What the ladder does not let out goes to the stronger arm, audited or not; another arm's answer is never the ladder's."""
    policy = trust("ENFORCE", floor=-0.1, rung=50)
    told = route(release="gated", trust={"audit_share": 0.3})
    assert {decided(completed(request_id=f"r{n}"), told, policy)[0].action for n in range(50)} == {"escalate"}
    policy = trust("ENFORCE", floor=-1.0, rung=50, arm="strong")
    assert decided(completed(), told, policy)[0].action == "escalate"


def test_a_grant_goes_before_the_cascade() -> None:
    """An operator's threshold releases what reaches it; below it the cascade has its say."""
    told = route(release="gated", trust={"audit_share": 1e-9})
    assert decided(completed(), told, trust("GRANTED", threshold=0.0))[0].action in ("release", "hold")
    assert decided(completed(), told, trust("GRANTED", threshold=1.0))[0].action == "escalate"


@given(
    below=st.floats(0, 1),
    release=st.sampled_from(["immediate", "gated"]),
    mode=st.sampled_from(["SHADOW", "ENFORCE", "GRANTED"]),
    floor=st.one_of(st.none(), st.floats(-2, 0)),
    gate=st.booleans(),
    changes=st.fixed_dictionaries(
        {
            "attempt": st.integers(1, 2),
            "shadow": st.booleans(),
            "source": st.sampled_from(["model", "cache", "kept"]),
            "logprobs": st.lists(st.floats(-5, 0), max_size=3).map(tuple),
            "request_id": st.sampled_from([f"r{n}" for n in range(20)]),
        }
    ),
    late_ms=st.integers(0, 700_000),
)
def test_escalated_means_neither_answered_nor_asked(
    below: float, release: str, mode: str, floor: float | None, gate: bool, changes: dict[str, Any], late_ms: int
) -> None:
    """Whatever the policies: an escalating score is of a first answer below the limit, in time, and goes out alone; a second never is."""
    policy = trust(mode, floor=floor, rung=0 if floor is None else 50, gate=gate, threshold=0.5)
    score, *rest = decided(completed(**changes), route(below=below, release=release), policy, NOW + late_ms)
    assert (score.action == "release") == (len(rest) == 1)
    if score.action == "escalate":
        assert score.score < below
        assert (changes["attempt"], changes["source"], changes["shadow"]) == (1, "model", False)
        assert late_ms < 60_000
        assert (score.review, score.sampled, score.certified) == (False, False, False)
