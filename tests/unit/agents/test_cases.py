"""The case: one closed case per request, whatever order its parts arrive in."""

from typing import Any

import pytest
from casing import Casing, gates, lets_out
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cases.fold import UNKNOWN_MS, UNTOLD_MS, grace_ms
from schemas.events import (
    ArmChoice,
    ArmVerdict,
    CaseAmended,
    CaseAnswered,
    CaseClosed,
    DecisionRouted,
    Message,
    ResultCompleted,
    ResultFailed,
    ReviewRequested,
    ReviewSettled,
    ScoreAssigned,
    VerdictGiven,
)
from schemas.payload import Payload

T = 1_700_000_000_000
COMMON: dict[str, Any] = {"route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7}
TIMES = {"assigned_at_ms": T, "window_end_ms": T + 30_000}


def decision(shadows: tuple[str, ...] = ("new",)) -> DecisionRouted:
    return DecisionRouted(
        **COMMON,
        **TIMES,
        at_ms=T,
        messages=(Message(role="user", content="hello"),),
        arm="old",
        shadows=shadows,
        arms=(ArmChoice(arm="old", adapter=None, propensity=65_536),),
        strategy="fixed",
        draw=1,
        draw_identity="q1",
        deadline_at_ms=T + 20_000,
        grader="reference",
        policies=(),
    )


def result(arm: str, text: str, *, shadow: bool, at: int = 100) -> ResultCompleted:
    return ResultCompleted(
        **COMMON,
        **TIMES,
        at_ms=T + at,
        arm=arm,
        shadow=shadow,
        final=True,
        decision_id="d",
        latency_ms=50,
        text=text,
        tokens_in=3,
        tokens_out=2,
        ttft_ms=5,
        engine_ms=40,
        finish_reason="stop",
        logprobs=(-0.1, -0.2),
        engine="scripted",
    )


def failure(arm: str, *, shadow: bool) -> ResultFailed:
    return ResultFailed(
        **COMMON,
        **TIMES,
        at_ms=T + 100,
        arm=arm,
        shadow=shadow,
        final=True,
        decision_id="d",
        latency_ms=50,
        kind="unavailable",
        reason="the engine is away",
    )


def score(action: str = "release", *, failed: bool = False, at: int = 120) -> ScoreAssigned:
    return ScoreAssigned.model_validate(
        COMMON
        | TIMES
        | {
            "at_ms": T + at,
            "arm": "old",
            "shadow": False,
            "decision_id": "d",
            "result_id": "x",
            "failed": failed,
            "action": action,
            "score": 0.5,
            "z": 0.0,
            "scorer": "s",
            "threshold": 0.9,
            "certified": False,
            "review": action == "hold" and not failed,
            "sampled": False,
            "label_propensity": 1.0,
            "gated": action == "hold",
        }
    )


def verdict(at: int = 200, by: str = "ann", kind: str = "person", **said: Any) -> VerdictGiven:
    return VerdictGiven.model_validate(
        {"route": "r", "request_id": "q1", "at_ms": T + at, "by": by, "kind": kind, **said}
    )


def folded(*events: Payload) -> Casing:
    folding = Casing()
    for event in events:
        folding.take(event)
    return folding


PARTS = (
    decision(),
    result("old", "one", shadow=False),
    result("new", "two", shadow=True),
    score(),
    verdict(kind="reference", corrected="Two"),
)


@given(st.permutations(PARTS))
@settings(max_examples=120, deadline=None)
def test_any_order_closes_exactly_once(order: list[Payload]) -> None:
    """Whatever the order of its parts, a case is answered once and closed once with the same grades."""
    folding = folded(*order)
    folding.tick(T + 10_000_000)
    (closed,) = folding.of(CaseClosed)
    assert {arm.arm: arm.grade for arm in closed.arms} == {"old": 0, "new": 1000}
    assert closed.label == "Two"
    assert len(folding.of(CaseAnswered)) == 1
    assert folding.of(ReviewSettled) == []
    assert folding.letters == []
    assert folding.cells == {}, "forgotten after twice the window"


@given(
    st.permutations([decision(), result("old", "one", shadow=False), result("new", "two", shadow=True), score("hold")])
)
@settings(max_examples=40, deadline=None)
def test_what_trust_held_is_settled_once_by_the_first_verdict(order: list[Payload]) -> None:
    """A held answer waits for a person; the approval releases it once, a second verdict only amends."""
    folding = folded(*order)
    (review,) = folding.of(ReviewRequested)
    assert {answer.text for answer in review.answers} == {"one", "two"}
    assert {answer.label for answer in review.answers} == {"A", "B"}
    label = next(answer.label for answer in review.answers if answer.text == "one")
    folding.take(verdict(answers=[ArmVerdict(label=label, decision="approve").model_dump()]))
    folding.take(verdict(300, by="bob", answers=[ArmVerdict(label=label, decision="reject").model_dump()]))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason, settled.text, settled.arm) == ("released", "approved", "one", "old")
    assert len(folding.of(CaseClosed)) == 1
    (amended,) = folding.of(CaseAmended)
    assert amended.contradicts
    assert not amended.same_person


@pytest.mark.parametrize(
    ("said", "outcome", "reason", "text"),
    [
        ({"corrected": "three"}, "released", "corrected", "three"),
        ({"corrected": "ONE"}, "released", "approved", "one"),
        ({"answers": [{"label": "A", "decision": "reject"}]}, "withheld", "rejected", ""),
    ],
)
def test_a_person_settles(said: dict[str, Any], outcome: str, reason: str, text: str) -> None:
    """A correction goes out in the answer's place, a rejection withholds it."""
    folding = folded(decision(()), result("old", "one", shadow=False), score("hold"), verdict(**said))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason, settled.text) == (outcome, reason, text)
    assert len(folding.of(CaseClosed)) == 1


@pytest.mark.parametrize("said", [{"corrected": "three"}, {"answers": [{"label": "A", "decision": "approve"}]}])
def test_what_the_gate_withholds_after_a_review_is_not_released(said: dict[str, Any]) -> None:
    """The case says what the answer says and why; who judged, the grades and the right text stay known."""
    folding = Casing(gates)
    for event in (decision(()), result("old", "one", shadow=False), score("hold"), verdict(**said)):
        folding.take(event)
    (settled,), (closed,) = folding.of(ReviewSettled), folding.of(CaseClosed)
    assert settled.outcome == "released"
    assert (closed.settled, closed.withheld, closed.why) == ("withheld", "gate", "complete")
    assert (closed.verdict_by, closed.verdict_kind) == ("ann", "person")
    assert closed.arms[0].grade == (0 if "corrected" in said else 1000)
    assert closed.label == said.get("corrected", "one")
    folding.take(verdict(400, by="bob", corrected="two"))
    (amended,) = folding.of(CaseAmended)
    assert (amended.settled, amended.withheld) == ("withheld", "gate")


UNTOLD = (decision(()), result("old", "one", shadow=False), score("hold"), verdict(corrected="three"))


def test_a_case_waits_for_what_trust_was_to_release() -> None:
    """However long that takes within the window; then it closes with the answer and at once."""
    folding = Casing(None)
    for event in UNTOLD:
        folding.take(event)
    assert folding.of(CaseClosed) == []
    (settled,) = folding.of(ReviewSettled)
    folding.take(lets_out(settled))
    folding.take(gates(settled))
    (closed,) = folding.of(CaseClosed)
    assert (closed.settled, closed.withheld) == ("released", "")


def test_it_waits_ten_minutes_past_the_windows_end_and_then_says_neither() -> None:
    """Never for ever: trust may be away. What comes later changes nothing, and an answer in between still says what became of it."""
    end = T + 30_000 + grace_ms(decision())
    for comes in (False, True):
        folding = Casing(None)
        for event in UNTOLD:
            folding.take(event)
        folding.tick(end)
        folding.take(verdict(31_000, by="bob", corrected="two"))
        folding.tick(end + UNTOLD_MS - 1)
        assert folding.of(CaseClosed) == []
        (settled,) = folding.of(ReviewSettled)
        if comes:
            folding.take(gates(settled))
        folding.tick(end + UNTOLD_MS)
        (closed,) = folding.of(CaseClosed)
        assert (closed.settled, closed.withheld, closed.action) == (
            ("withheld", "gate", "hold") if comes else ("", "", "hold")
        )
        assert len(folding.of(CaseAmended)) == 1
        folding.take(lets_out(settled))
        folding.tick(end + 3 * UNTOLD_MS)
        assert len(folding.of(CaseClosed)) == len(folding.of(ReviewSettled)) == 1
        assert folding.cells == {}


def test_what_comes_while_only_the_answer_is_waited_for_is_not_joined() -> None:
    """A shadow that answers after the end would make other letters of those that the verdict named."""
    said = verdict(answers=[{"label": "A", "decision": "approve"}])
    folding = Casing(None)
    for event in (decision(), result("old", "one", shadow=False), score("hold"), said):
        folding.take(event)
    folding.tick(T + 30_000 + grace_ms(decision()))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.text) == ("released", "one")
    folding.take(result("new", "two", shadow=True, at=31_000))
    folding.take(lets_out(settled))
    (closed,) = folding.of(CaseClosed)
    assert [(arm.arm, arm.status, arm.grade) for arm in closed.arms] == [
        ("old", "completed", 1000),
        ("new", "missing", None),
    ]
    assert (closed.settled, folding.letters) == ("released", [])


def test_an_answer_alone_makes_no_case() -> None:
    """Of a request that is not known, or no longer, nothing is kept."""
    folding = Casing(None)
    folding.take(
        gates(ReviewSettled.model_validate(COMMON | {"at_ms": T, "outcome": "released", "reason": "approved"}))
    )
    assert folding.cells == {}


def test_a_failure_is_withheld_once() -> None:
    """When the serving arm failed, what trust held is withheld at once and the case still waits for its verdict."""
    folding = folded(decision(()), failure("old", shadow=False), score("hold", failed=True))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason) == ("withheld", "failed")
    assert folding.of(CaseClosed) == []
    folding.tick(T + 10_000_000)
    (closed,) = folding.of(CaseClosed)
    assert closed.arms[0].status == "failed"
    assert len(folding.of(ReviewSettled)) == 1


def test_the_window_closes_what_nobody_judged() -> None:
    """At the window's end plus the grace a case closes with what is there; a missing arm is marked missing."""
    folding = folded(decision(), result("old", "one", shadow=False), score())
    end = T + 30_000 + grace_ms(decision())
    folding.tick(end - 1)
    assert folding.of(CaseClosed) == []
    folding.tick(end)
    (closed,) = folding.of(CaseClosed)
    assert closed.why == "window_ended"
    assert {arm.arm: arm.status for arm in closed.arms} == {"old": "completed", "new": "missing"}
    assert closed.label is None


def test_a_request_that_nobody_answered_is_withheld_at_the_end() -> None:
    """Without a result the window's end withholds the answer, announces the case and closes it."""
    folding = folded(decision(()))
    folding.tick(T + 10_000_000)
    (settled,) = folding.of(ReviewSettled)
    assert settled.reason == "window_ended"
    assert [case.ok for case in folding.of(CaseAnswered)] == [False]
    assert len(folding.of(CaseClosed)) == 1


def test_a_verdict_for_an_unknown_request_becomes_a_dead_letter() -> None:
    """It waits ten minutes for its decision, then is a dead letter untouched, with the reason."""
    folding = folded(verdict(corrected="x"))
    folding.tick(T + 200 + UNKNOWN_MS - 1)
    assert folding.letters == []
    folding.tick(T + 200 + UNKNOWN_MS)
    (letter,) = folding.letters
    assert letter.kind == "unknown-request"
    assert letter.record.topic == "ratchet.verdicts"
    assert b"corrected" in (letter.record.value or b"")
    assert folding.cells == {}
    assert folding.emitted == []


def test_a_contradiction_by_the_same_person_amends_and_says_so() -> None:
    """The first verdict stays decisive; the second names the closed case and is marked."""
    folding = folded(
        *PARTS[:4], verdict(kind="reference", corrected="two"), verdict(400, kind="reference", corrected="one")
    )
    (closed,), (amended,) = folding.of(CaseClosed), folding.of(CaseAmended)
    assert closed.label == "two"
    assert amended.label == "one"
    assert amended.contradicts
    assert amended.same_person
    assert amended.amends == folding.ids[folding.emitted.index(closed)]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"kind": "reference"}, "corrected"),
        ({"kind": "person"}, "answers"),
        ({"answers": [{"label": "Z", "decision": "approve"}]}, "answers"),
    ],
)
def test_a_verdict_that_lacks_something_is_a_dead_letter(said: dict[str, Any], field: str) -> None:
    """It names the field, and the case goes on without it."""
    folding = folded(decision(()), result("old", "one", shadow=False), score(), verdict(**said))
    (letter,) = folding.letters
    assert f"verdict.given: {field}" in letter.message
    assert folding.of(CaseClosed) == []
    folding.take(verdict(500, corrected="one"))
    assert len(folding.of(CaseClosed)) == 1


def test_a_late_verdict_meets_a_forgotten_case() -> None:
    """After twice the window the case is forgotten: a verdict then ends as a dead letter, and nothing closes twice."""
    folding = folded(*PARTS)
    folding.tick(T + 10_000_000)
    folding.take(verdict(10_000_001, corrected="one"))
    folding.tick(T + 20_000_000)
    assert len(folding.of(CaseClosed)) == 1
    assert [letter.kind for letter in folding.letters] == ["unknown-request"]


@pytest.mark.parametrize("at", [0, 1, 4, 5], ids=["before its decision", "open", "complete", "closed"])
def test_a_verdict_of_another_tenant_is_a_dead_letter(at: int) -> None:
    """Whenever it comes, it decides nothing, amends nothing and ends as a dead letter; the tenant's own verdict counts."""
    parts = list(PARTS)
    parts.insert(at, verdict(150, by="mallory", tenant="other", kind="reference", corrected="wrong"))
    folding = folded(*parts)
    [letter] = folding.letters
    assert (letter.kind, letter.record.topic) == ("wrong-tenant", "ratchet.verdicts")
    [closed] = folding.of(CaseClosed)
    assert (closed.verdict_by, closed.label) == ("ann", "Two")
    assert folding.of(CaseAmended) == []


def test_a_verdict_sent_again_amends_nothing() -> None:
    """The same record twice is one verdict, before and after the case closes."""
    folding = folded(*PARTS[:4])
    for _ in range(2):
        folding.take(verdict(kind="reference", corrected="Two"), "v1")
    assert len(folding.of(CaseClosed)) == 1
    assert folding.of(CaseAmended) == []
    folding.take(verdict(kind="reference", corrected="Two"), "v2")
    assert len(folding.of(CaseAmended)) == 1
