"""Cases of masked requests: whose data it is and the sealed map go along, and what the gate withheld is not released."""

from typing import Any

import pytest
from casing import Casing

from schemas.events import (
    ArmChoice,
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

T = 1_800_000_000_000
SUBJECT = "5" * 32
ABOUT: dict[str, Any] = {
    "route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7, "subject": SUBJECT,
    "assigned_at_ms": T, "window_end_ms": T + 30_000, "decision_id": "d",
}  # fmt: skip


def decision(attempt: int = 1, **more: Any) -> DecisionRouted:
    said = {"messages": (Message(role="user", content="I am [EMAIL_1]"),), "arm": "old", "strategy": "fixed", "draw": 1}
    said |= {"arms": (ArmChoice(arm="old", adapter=None, propensity=65_536),), "draw_identity": "q1"}
    said |= {"deadline_at_ms": T + 20_000, "grader": "verdict", "policies": (), "mask_map": f"map-{attempt}"}
    return DecisionRouted.model_validate(ABOUT | said | {"at_ms": T, "attempt": attempt} | more)


def result(arm: str, text: str, attempt: int = 1, **more: Any) -> ResultCompleted:
    said = {"arm": arm, "text": text, "shadow": False, "final": True, "latency_ms": 50, "tokens_in": 3, "tokens_out": 2}
    said |= {"ttft_ms": 5, "engine_ms": 40, "finish_reason": "stop", "logprobs": (-0.1,), "engine": "scripted"}
    told = ABOUT | said | {"at_ms": T + 100, "attempt": attempt, "adapter": f"sha256:{arm}"}
    return ResultCompleted.model_validate(told | {"mask_map": "" if more.get("shadow") else f"map-{attempt}"} | more)


def failure(attempt: int) -> ResultFailed:
    said = {"arm": "new", "shadow": False, "final": True, "latency_ms": 50, "kind": "unavailable", "reason": "away"}
    return ResultFailed.model_validate(ABOUT | said | {"at_ms": T + 100, "attempt": attempt})


def score(action: str, attempt: int = 1, **more: Any) -> ScoreAssigned:
    said = {"arm": "old", "shadow": False, "result_id": "x", "action": action, "score": 0.5, "z": 0.0, "scorer": "s"}
    said |= {
        "threshold": 0.9,
        "certified": False,
        "review": action == "hold",
        "sampled": False,
        "gated": action == "hold",
    }
    return ScoreAssigned.model_validate(
        ABOUT | said | {"at_ms": T + 120, "attempt": attempt, "label_propensity": 1.0} | more
    )


def verdict(**said: Any) -> VerdictGiven:
    return VerdictGiven.model_validate({"route": "r", "request_id": "q1", "at_ms": T + 200, "by": "ann", **said})


def folded(*events: Payload) -> Casing:
    folding = Casing()
    for event in events:
        folding.take(event)
    return folding


def settled(folding: Casing) -> ReviewSettled:
    (found,) = folding.of(ReviewSettled)
    assert found.subject == SUBJECT
    return found


def test_a_review_shows_placeholders_and_an_approval_carries_the_map() -> None:
    """Masked messages, masked answers; what is settled has the map, the adapter, and whose data it is."""
    folding = folded(decision(), result("old", "ask [EMAIL_1]"), score("hold"))
    (review,) = folding.of(ReviewRequested)
    assert (review.subject, review.messages[0].content) == (SUBJECT, "I am [EMAIL_1]")
    assert [answer.text for answer in review.answers] == ["ask [EMAIL_1]"]
    folding.take(verdict(answers=[{"label": "A", "decision": "approve"}]))
    found = settled(folding)
    assert (found.text, found.mask_map, found.adapter) == ("ask [EMAIL_1]", "map-1", "sha256:old")
    assert all(row.subject == SUBJECT for kind in (CaseAnswered, CaseClosed) for row in folding.of(kind))


def test_a_corrected_text_may_use_the_placeholders_that_the_person_saw() -> None:
    """It goes out with the map of the messages that were shown."""
    folding = folded(decision(), result("old", "no"), score("hold"), verdict(corrected="write to [EMAIL_1]"))
    found = settled(folding)
    assert (found.reason, found.text, found.mask_map) == ("corrected", "write to [EMAIL_1]", "map-1")


def test_an_approved_shadow_answer_has_the_decisions_map() -> None:
    """Its result has none: the decision's was masked alike."""
    folding = folded(decision(shadows=("new",)), result("old", "a"), result("new", "b", shadow=True), score("hold"))
    (review,) = folding.of(ReviewRequested)
    label = next(answer.label for answer in review.answers if answer.text == "b")
    folding.take(verdict(answers=[{"label": label, "decision": "approve"}]))
    assert (settled(folding).arm, settled(folding).mask_map) == ("new", "map-1")


@pytest.mark.parametrize(("text", "arm", "known"), [("first", "old", "map-1"), ("second", "new", "map-2")])
def test_each_attempts_answer_has_its_own_map(text: str, arm: str, known: str) -> None:
    """After an escalation the answer that is approved may be either's."""
    folding = folded(
        decision(), result("old", "first"), score("escalate"), decision(2, arm="new"),
        result("new", "second", 2), score("hold", 2),
    )  # fmt: skip
    (review,) = folding.of(ReviewRequested)
    said = [
        {"label": answer.label, "decision": "approve" if answer.text == text else "reject"} for answer in review.answers
    ]
    folding.take(verdict(answers=said))
    assert (settled(folding).arm, settled(folding).mask_map) == (arm, known)


def test_a_first_answer_that_stands_in_has_the_first_map() -> None:
    """The second attempt failed on a route that holds nothing."""
    folding = folded(
        decision(), result("old", "first"), score("escalate"), decision(2, arm="new"), failure(2),
        score("hold", 2, failed=True, gated=False, review=False),
    )  # fmt: skip
    assert (settled(folding).text, settled(folding).mask_map, settled(folding).adapter) == (
        "first", "map-1", "sha256:old",
    )  # fmt: skip


@pytest.mark.parametrize("grader", ["verdict", "rubric", "reference"])
def test_what_the_gate_withheld_is_answered_and_not_released(grader: str) -> None:
    """Nobody is asked about it, model or person, nothing is settled again, and the case closes at its end as withheld."""
    withheld = score("release", withheld=True, review=False)
    folding = folded(decision(grader=grader), result("old", "canary"), withheld)
    (answered,) = folding.of(CaseAnswered)
    assert (answered.ok, answered.released) == (True, False)
    folding.tick(T + 10_000_000)
    assert folding.of(ReviewRequested) == []
    assert folding.of(ReviewSettled) == []
    (closed,) = folding.of(CaseClosed)
    assert (closed.settled, closed.withheld, closed.action) == ("withheld", "gate", "release")
    assert closed.why == "window_ended"


def test_a_reference_closes_a_withheld_case() -> None:
    """It is graded as any other, and released by nothing."""
    folding = folded(
        decision(grader="reference"), result("old", "x"), score("release", withheld=True, review=False),
        verdict(kind="reference", corrected="x"),
    )  # fmt: skip
    (closed,) = folding.of(CaseClosed)
    assert (closed.why, closed.settled, closed.arms[0].grade) == ("complete", "withheld", 1000)
    assert folding.of(ReviewSettled) == []
