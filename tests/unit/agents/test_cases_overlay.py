"""The case where a model grades: who is asked, when it closes, and what of each verdict stands in it (F10)."""

from typing import Any

import pytest
from casing import Casing
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cases.fold import grace_ms
from agents.rules.grading import heads
from schemas.events import (
    ArmChoice,
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
TIMES = {"assigned_at_ms": T, "window_end_ms": T + 30_000}
END = T + 40_000_000


def found(label: str, share: float, *, shows: bool) -> str:
    """A request id whose coin shows that."""
    return next(f"q{n}" for n in range(10_000) if heads(f"q{n}", label, share) == shows)


SEEN, UNSEEN = found("human", 0.5, shows=True), found("human", 0.5, shows=False)


def common(request_id: str) -> dict[str, Any]:
    return {"route": "r", "request_id": request_id, "request_partition": 0, "request_offset": 7}


def decision(request_id: str = UNSEEN, grader: str = "model", **more: Any) -> DecisionRouted:
    return DecisionRouted.model_validate(
        common(request_id) | TIMES
        | {
            "at_ms": T, "messages": (Message(role="user", content="hello"),), "arm": "old", "shadows": ("new",),
            "arms": (ArmChoice(arm="old", adapter=None, propensity=65_536),), "strategy": "fixed", "draw": 1,
            "draw_identity": "q1", "deadline_at_ms": T + 20_000, "grader": grader, "human_share": 0.5, "policies": (),
        }
        | more
    )  # fmt: skip


def answered(arm: str, text: str, request_id: str = UNSEEN) -> ResultCompleted:
    return ResultCompleted.model_validate(
        common(request_id) | TIMES
        | {"at_ms": T + 100, "arm": arm, "shadow": arm == "new", "final": True, "decision_id": "d", "latency_ms": 50}
        | {"text": text, "tokens_in": 3, "tokens_out": 2, "ttft_ms": 5, "engine_ms": 40, "finish_reason": "stop"}
        | {"logprobs": (-0.1,), "engine": "scripted"}
    )  # fmt: skip


def failed(arm: str, request_id: str = UNSEEN) -> ResultFailed:
    return ResultFailed.model_validate(
        common(request_id) | TIMES
        | {"at_ms": T + 90, "arm": arm, "shadow": arm == "new", "final": True, "decision_id": "d", "latency_ms": 40}
        | {"kind": "unavailable", "reason": "the engine is away"}
    )  # fmt: skip


def score(action: str = "release", request_id: str = UNSEEN, **more: Any) -> ScoreAssigned:
    return ScoreAssigned.model_validate(
        common(request_id) | TIMES
        | {"at_ms": T + 120, "arm": "old", "shadow": False, "decision_id": "d", "result_id": "x", "action": action}
        | {"score": 0.5, "z": 0.0, "scorer": "s", "threshold": 0.9, "certified": False, "review": action == "hold"}
        | {"sampled": True, "label_propensity": 1.0, "gated": action == "hold"}
        | more
    )  # fmt: skip


def said(kind: str, request_id: str = UNSEEN, at: int = 200, by: str = "", **what: Any) -> VerdictGiven:
    what = what or {"answers": [{"label": "A", "rating": 1.0}, {"label": "B", "rating": 0.0}]}
    return VerdictGiven.model_validate(
        {"route": "r", "request_id": request_id, "at_ms": T + at, "by": by or f"a.{kind}", "kind": kind} | what
    )


def folded(*events: Payload) -> Casing:
    folding = Casing()
    for event in events:
        folding.take(event)
    return folding


def parts(request_id: str, action: str = "release", grader: str = "model") -> list[Payload]:
    return [
        decision(request_id, grader),
        answered("old", "one", request_id),
        answered("new", "two", request_id),
        score(action, request_id),
    ]


# who is asked


@pytest.mark.parametrize(
    ("request_id", "action", "people"),
    [(UNSEEN, "release", False), (UNSEEN, "hold", True), (SEEN, "release", True), (SEEN, "hold", True)],
)
@pytest.mark.parametrize("grader", ["model", "rubric"])
def test_people_are_asked_where_the_coin_says_so_or_an_answer_is_held(
    request_id: str, action: str, people: bool, grader: str
) -> None:
    """The model is asked about every pair; people about their share, and about what waits for them."""
    (review,) = folded(*parts(request_id, action, grader)).of(ReviewRequested)
    assert (review.grader, review.people) == (grader, people)
    assert len(review.answers) == 2


@pytest.mark.parametrize(
    ("grader", "request_id", "asked"),
    [("model", UNSEEN, False), ("model", SEEN, True), ("rubric", UNSEEN, True), ("rubric", SEEN, True)],
)
def test_equal_answers_are_no_question_of_comparison(grader: str, request_id: str, asked: bool) -> None:
    """One letter: a rubric rates it, a comparison has nothing to say, and then nobody is asked but the people's share."""
    folding = folded(
        decision(request_id, grader), answered("old", "one", request_id), answered("new", " ONE", request_id),
        score("release", request_id),
    )  # fmt: skip
    assert len(folding.of(ReviewRequested)) == asked
    closed = [] if asked else folding.of(CaseClosed)
    assert [(case.why, case.arms[0].grade, case.arms[0].model_grade) for case in closed] == (
        [] if asked else [("complete", None, None)]
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("grader", ["verdict", "model"])
def test_a_second_person_is_offered_a_share_of_what_people_see(share: float, grader: str) -> None:
    """Whatever the grader; what only the model sees is offered to nobody."""
    held = [decision(UNSEEN, grader, double_share=share), *parts(UNSEEN, "hold", grader)[1:]]
    (review,) = folded(*held).of(ReviewRequested)
    assert review.double == (share == 1.0)
    unseen = [decision(UNSEEN, "model", double_share=share), *parts(UNSEEN)[1:]]
    (review,) = folded(*unseen).of(ReviewRequested)
    assert not review.double


def test_where_people_grade_nothing_has_changed() -> None:
    """Trust says who is reviewed; a released answer that it did not pick asks nobody."""
    assert folded(*parts(UNSEEN, "release", "verdict")).of(ReviewRequested) == []
    (review,) = folded(*parts(UNSEEN, "hold", "verdict")).of(ReviewRequested)
    assert (review.people, review.double) == (True, False)


# when it closes

CASES = [
    # request, action, verdicts, closes before the window's end
    (UNSEEN, "release", (), False),
    (UNSEEN, "release", ("model",), True),
    (UNSEEN, "release", ("person",), False),
    (UNSEEN, "release", ("person", "model"), True),
    (SEEN, "release", ("model",), False),
    (SEEN, "release", ("person",), False),
    (SEEN, "release", ("model", "person"), True),
    (SEEN, "release", ("model", "reference"), True),
    (UNSEEN, "hold", ("model",), False),
    (UNSEEN, "hold", ("person",), False),
    (UNSEEN, "hold", ("model", "person"), True),
    (SEEN, "hold", ("person", "model"), True),
]


@pytest.mark.parametrize(("request_id", "action", "verdicts", "early"), CASES)
@pytest.mark.parametrize("grader", ["model", "rubric"])
def test_it_closes_when_everyone_who_was_asked_has_spoken(
    request_id: str, action: str, verdicts: tuple[str, ...], early: bool, grader: str
) -> None:
    """The model always, a person where the coin or a held answer asks for one; else the window's end closes it, once."""
    what = {"reference": {"corrected": "one"}}
    given = [said(kind, request_id, 200 + at, **what.get(kind, {})) for at, kind in enumerate(verdicts)]
    folding = folded(*parts(request_id, action, grader), *given)
    assert len(folding.of(CaseClosed)) == early
    folding.tick(END)
    (closed,) = folding.of(CaseClosed)
    assert closed.why == ("complete" if early else "window_ended")
    grades = {arm.arm: (arm.grade is not None, arm.model_grade is not None) for arm in closed.arms}
    people = bool(set(verdicts) & {"person", "reference"})
    assert grades == dict.fromkeys(("old", "new"), (people, "model" in verdicts))
    assert closed.human_sampled == (request_id == SEEN)
    assert closed.human_share == 0.5
    assert closed.model_by == ("a.model" if "model" in verdicts else "")
    assert closed.verdict_kind == next((kind for kind in verdicts if kind != "model"), "")
    assert (closed.label is not None) == people, "no training label comes from a model"


def test_a_model_releases_nothing() -> None:
    """A held answer that only the model judged is withheld at the window's end; the first person's word would have settled it."""
    folding = folded(*parts(UNSEEN, "hold"), said("model"))
    assert folding.of(ReviewSettled) == []
    folding.tick(END)
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason) == ("withheld", "window_ended")


def test_a_model_decides_nothing_where_people_grade() -> None:
    """On a route graded by verdicts a model's is kept beside, and the case waits for the person's."""
    folding = folded(*parts(UNSEEN, "release", "verdict"), said("model"))
    assert folding.of(CaseClosed) == []
    folding.take(said("person", answers=[{"label": "A", "decision": "reject"}]))
    (closed,) = folding.of(CaseClosed)
    assert closed.verdict_kind == "person"
    assert sorted((arm.grade, arm.model_grade) for arm in closed.arms if arm.grade is not None) == [(0, 1000)]


def test_a_failed_arm_leaves_one_answer_and_no_comparison() -> None:
    """The champion alone answered: nothing is asked of the model, the case closes, the failure stands in it."""
    folding = folded(decision(), answered("old", "one"), failed("new"), score())
    assert folding.of(ReviewRequested) == []
    (closed,) = folding.of(CaseClosed)
    assert [(arm.arm, arm.status) for arm in closed.arms] == [("old", "completed"), ("new", "failed")]


def test_past_the_window_no_model_is_asked() -> None:
    """A result that comes in the grace closes nothing early and asks nobody in vain."""
    late = answered("new", "two").model_copy(update={"at_ms": T + 30_001})
    folding = folded(decision(), answered("old", "one"), score(), late)
    assert folding.of(ReviewRequested) == []
    folding.tick(T + 30_000 + grace_ms(decision()))
    assert len(folding.of(CaseClosed)) == 1


# what comes later


@pytest.mark.parametrize("kind", ["person", "model"])
def test_a_verdict_after_the_window_amends_and_changes_no_case(kind: str) -> None:
    """It is told as `case.amended`, against the first of its own kind; the closed case is not written again."""
    folding = folded(*parts(SEEN), said("model", SEEN), said("person", SEEN, 201))
    (closed,) = folding.of(CaseClosed)
    other = [{"label": "A", "rating": 0.0}, {"label": "B", "rating": 1.0}]
    folding.take(said(kind, SEEN, 31_000, by="b", answers=other))
    assert folding.of(CaseClosed) == [closed]
    (amended,) = folding.of(CaseAmended)
    assert (amended.contradicts, amended.same_person) == (True, False)
    assert (amended.verdict_kind, amended.verdict_by) == (kind, "b")
    before, after = ({arm.arm: (arm.grade, arm.model_grade) for arm in case.arms} for case in (closed, amended))
    changed, kept = (0, 1) if kind == "person" else (1, 0)
    assert all(after[arm][changed] == 1000 - before[arm][changed] for arm in after)
    assert all(after[arm][kept] == before[arm][kept] for arm in after)


def test_a_first_human_word_on_a_closed_case_contradicts_nobody() -> None:
    """The model's verdict is no person's: it is not what a person is compared with."""
    folding = folded(
        *parts(UNSEEN), said("model"), said("person", at=300, answers=[{"label": "A", "decision": "reject"}])
    )
    (amended,) = folding.of(CaseAmended)
    assert not amended.contradicts


def test_a_second_verdict_before_the_case_closes_amends_it() -> None:
    """Two people and two models: the first of each are the case's, the others are told."""
    folding = folded(
        *parts(SEEN), said("person", SEEN, by="ann"), said("person", SEEN, 201, by="bob"), said("model", SEEN, 202),
        said("model", SEEN, 203, by="m2"),
    )  # fmt: skip
    (closed,) = folding.of(CaseClosed)
    assert (closed.verdict_by, closed.model_by) == ("ann", "a.model")
    assert [(row.verdict_by, row.contradicts) for row in folding.of(CaseAmended)] == [("bob", False), ("m2", False)]


def test_the_arenas_of_the_decision_stand_in_its_case() -> None:
    """Which arenas a request belongs to was decided when it was routed."""
    folding = folded(decision(arenas=("k1", "k2")), *parts(UNSEEN)[1:], said("model"))
    assert [case.arenas for case in (*folding.of(CaseAnswered), *folding.of(CaseClosed))] == [("k1", "k2")] * 2


EVENTS = {
    "decision": lambda q, a, g: decision(q, g),
    "old": lambda q, a, g: answered("old", "one", q),
    "new": lambda q, a, g: answered("new", "two", q),
    "score": lambda q, a, g: score(a, q),
    "model": lambda q, a, g: said("model", q),
    "model again": lambda q, a, g: said("model", q, 210, by="m2"),
    "person": lambda q, a, g: said("person", q, 205),
    "another person": lambda q, a, g: said("person", q, 206, by="bob", answers=[{"label": "B", "decision": "approve"}]),
    "tick": lambda q, a, g: None,
}


@given(
    st.permutations(sorted(EVENTS)),
    st.sets(st.sampled_from(sorted(set(EVENTS) - {"decision"}))),
    st.sampled_from((SEEN, UNSEEN)),
    st.sampled_from(("release", "hold")),
    st.sampled_from(("model", "rubric", "verdict", "reference")),
)
@settings(max_examples=100, deadline=None)
def test_a_case_closes_exactly_once_under_any_interleaving(
    order: list[str], missing: set[str], request_id: str, action: str, grader: str
) -> None:
    """Whatever is missing, comes twice or in another order, whoever grades: one answer announced, one case, one settling."""
    folding = Casing()
    for name in order:
        if name in missing:
            continue
        event = EVENTS[name](request_id, action, grader)
        if event is None:
            folding.tick(T + 500)
        else:
            folding.take(event)
    folding.tick(END)
    (closed,) = folding.of(CaseClosed)
    assert len(folding.of(CaseAnswered)) == 1
    assert len(folding.of(ReviewRequested)) <= 1
    released = action == "release" and "score" not in missing
    assert len(folding.of(ReviewSettled)) == (0 if released else 1)
    verdicts = {"model", "model again", "person", "another person"} - missing
    told = {closed.verdict_by, closed.model_by} - {""}
    assert len(folding.of(CaseAmended)) == len(verdicts) - len(told)
    assert closed.verdict_kind in ("", "person")
    folding.tick(END * 2)
    assert folding.cells == {}
    assert folding.letters == []
