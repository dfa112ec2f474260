"""A case whose first answer was escalated: one answer, one closed case, whatever comes first and whatever never comes."""

from typing import Any

import pytest
from casing import Casing
from folding import Folding
from hypothesis import given, settings
from hypothesis import strategies as st
from trusting import QUICK, apply, case, signals

from agents.cases.fold import grace_ms
from agents.rules.grading import blind_order
from agents.trust import labels
from agents.trust.fold import Ladder
from schemas.events import (
    ArmChoice,
    CaseAmended,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    DecisionRouted,
    Escalated,
    Message,
    ResultCompleted,
    ResultFailed,
    ReviewRequested,
    ReviewSettled,
    RoutingTerms,
    ScoreAssigned,
    VerdictGiven,
)
from schemas.payload import Payload

T = 1_700_000_000_000
COMMON: dict[str, Any] = {"route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7}
TIMES: dict[str, Any] = {"assigned_at_ms": T, "window_end_ms": T + 30_000}
END = T + 30_000 + 30_000
CHOICES = (
    ArmChoice(arm="strong", adapter=None, propensity=6_536),
    ArmChoice(arm="weak", adapter=None, propensity=59_000),
)


def decision(attempt: int = 1, arm: str = "", **more: Any) -> DecisionRouted:
    told = COMMON | TIMES | {
        "at_ms": T + 300 * (attempt - 1), "messages": (Message(role="user", content="hello"),), "attempt": attempt,
        "arm": arm or ("weak" if attempt == 1 else "strong"), "arms": CHOICES if attempt == 1 else (),
        "strategy": "balanced" if attempt == 1 else "cascade", "draw": 1, "draw_identity": "q1",
        "deadline_at_ms": T + 20_000, "grader": "reference", "policies": (),
        "routing": RoutingTerms(strategy="balanced", sensitivity="internal", features="AAA=") if attempt == 1 else None,
        "session": "s", "assigned_at_ms": T + 300 * (attempt - 1),
    }  # fmt: skip
    return DecisionRouted.model_validate(told | more)


def answered(arm: str, text: str, attempt: int = 1, **more: Any) -> ResultCompleted:
    told = {
        "at_ms": T + 100, "arm": arm, "shadow": False, "final": True, "attempt": attempt, "decision_id": f"d{attempt}",
        "latency_ms": 50 * attempt, "text": text, "tokens_in": 3, "tokens_out": 2, "ttft_ms": 5, "engine_ms": 40,
        "finish_reason": "stop", "logprobs": (-0.1,), "engine": "scripted", "cost_nano_usd": 10**attempt,
    }  # fmt: skip
    return ResultCompleted.model_validate(COMMON | TIMES | told | more)


def failed(arm: str, attempt: int = 1, *, final: bool = True) -> ResultFailed:
    told = {"at_ms": T + 90, "arm": arm, "shadow": False, "final": final, "attempt": attempt, "decision_id": "d"}
    return ResultFailed.model_validate(
        COMMON | TIMES | told | {"latency_ms": 40, "kind": "unavailable", "reason": "the engine is away"}
    )


def score(attempt: int = 1, action: str = "", **more: Any) -> ScoreAssigned:
    action = action or ("escalate" if attempt == 1 else "release")
    told = {
        "at_ms": T + 120, "arm": "weak" if attempt == 1 else "strong", "shadow": False, "decision_id": f"d{attempt}",
        "result_id": "x", "action": action, "score": 0.2 * attempt, "z": float(attempt), "signals": (float(attempt),),
        "scorer": "s", "threshold": 0.9, "certified": False, "review": action == "hold", "sampled": attempt == 2,
        "label_propensity": attempt - 1.0, "gated": action == "hold", "attempt": attempt,
    }  # fmt: skip
    return ScoreAssigned.model_validate(COMMON | TIMES | told | more)


def reference(text: str) -> VerdictGiven:
    return VerdictGiven.model_validate(
        {"route": "r", "request_id": "q1", "at_ms": T + 200, "by": "ref", "kind": "reference", "corrected": text}
    )


def judged(**answers: str) -> VerdictGiven:
    """A person's word by letter, of the two answers."""
    letters = {arms[0]: letter for letter, arms in blind_order("q1", {"weak": "one", "strong": "two"}).items()}
    said = [{"label": letters[arm], "decision": word} for arm, word in sorted(answers.items())]
    return VerdictGiven.model_validate(
        {"route": "r", "request_id": "q1", "at_ms": T + 200, "by": "ann", "kind": "person", "answers": said}
    )


def folded(*events: Payload) -> Casing:
    folding = Casing()
    for event in events:
        folding.take(event)
    return folding


FIRST = (decision(), answered("weak", "one"), score())
WHOLE = (*FIRST, decision(2), answered("strong", "two", 2), score(2), reference("two"))


@st.composite
def by_topic(draw: st.DrawFn, events: tuple[Payload, ...]) -> list[Payload]:
    """The events in an order that Kafka may give: within a topic as written, between topics any."""
    lanes: dict[str, list[Payload]] = {}
    for event in events:
        lanes.setdefault(event.TOPIC, []).append(event)
    order: list[Payload] = []
    while any(lanes.values()):
        order.append(lanes[draw(st.sampled_from(sorted(name for name, lane in lanes.items() if lane)))].pop(0))
    return order


def summed(folding: Casing) -> tuple[Any, ...]:
    """All that a case said, without what only says when or after what."""
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    when = {"at_ms", "decision_id", "verdict_after_score"}
    rows = [row.model_dump(exclude={"result_id"}) for row in closed.arms]
    settled = [row.model_dump(exclude={"at_ms", "decision_id", "result_id"}) for row in folding.of(ReviewSettled)]
    return told.model_dump(exclude=when), closed.model_dump(exclude=when | {"arms"}), rows, settled


# both attempts


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_order_gives_the_same_one_case(data: st.DataObject) -> None:
    """Decisions, results, scores and the verdict interleave as they like, events come twice: one case, the same one."""
    order = data.draw(by_topic(WHOLE))
    again = data.draw(st.lists(st.integers(0, len(order) - 1), max_size=3))
    folding = folded(*order, *(order[at] for at in again if not isinstance(order[at], VerdictGiven)))
    assert summed(folding) == summed(folded(*WHOLE))
    folding.tick(END)
    assert summed(folding) == summed(folded(*WHOLE))
    assert folding.of(ReviewSettled) == []
    assert not folding.letters


@given(st.permutations(WHOLE))
@settings(max_examples=150, deadline=None)
def test_even_an_impossible_order_closes_once(order: list[Payload]) -> None:
    """A second decision before the first, a second result before the first's: still one case that says the same."""
    folding = folded(*order)
    folding.tick(END)
    assert summed(folding) == summed(folded(*WHOLE))


def test_the_case_speaks_of_the_last_attempt_and_of_the_first_choice() -> None:
    """Arm, score and action are the second's; propensities, features, strategy, session and window the first's; cost is both's."""
    folding = folded(*WHOLE)
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (told.arm, told.drawn, told.ok, told.released, told.strategy) == ("strong", "weak", True, True, "balanced")
    assert (told.latency_us, told.cost_nano_usd, told.lost, told.source) == (100_000, 110, (), "model")
    assert (closed.arm, closed.drawn, closed.attempt, closed.why) == ("strong", "weak", 2, "complete")
    assert (closed.action, closed.score, closed.z, closed.sampled) == ("release", 0.4, 2.0, True)
    assert closed.choices == CHOICES
    assert closed.routing is not None
    assert (closed.routing.features, closed.strategy, closed.session) == ("AAA=", "balanced", "s")
    assert (closed.assigned_at_ms, closed.window_end_ms, closed.cost_nano_usd) == (T, T + 30_000, 110)
    assert closed.escalated == Escalated(arm="weak", score=0.2, z=1.0, signals=(1.0,), scorer="s")
    assert closed.messages == (Message(role="user", content="hello"),)
    rows = [(row.arm, row.shadow, row.text, row.grade, row.cost_nano_usd, row.source) for row in closed.arms]
    assert rows == [("strong", False, "two", 1000, 100, "model"), ("weak", False, "one", 0, 10, "model")]


@pytest.mark.parametrize("until", range(3, 6))
def test_nothing_is_said_while_the_escalation_is_under_way(until: int) -> None:
    """Neither answered nor asked nor settled nor closed, though a verdict is in and though the second decision has come."""
    folding = folded(*WHOLE[:until], reference("one"))
    assert folding.emitted == []
    folding.take(judged(weak="approve"))
    assert folding.emitted == []
    assert not folding.letters, "which letters there are is not known yet"


def test_the_review_shows_both_answers() -> None:
    """A held second answer waits for a person who sees both; an approved first one goes out where the second is rejected."""
    held = (*FIRST, decision(2), answered("strong", "two", 2), score(2, "hold"))
    folding = folded(*held)
    (review,) = folding.of(ReviewRequested)
    assert sorted(answer.text for answer in review.answers) == ["one", "two"]
    folding.take(judged(strong="reject", weak="approve"))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.text, settled.arm) == ("released", "one", "weak")
    assert len(folding.of(CaseClosed)) == 1
    both = folded(*held, judged(strong="approve", weak="approve"))
    assert both.of(ReviewSettled)[0].text == "two", "the serving arm's goes first"


def test_equal_answers_share_a_letter() -> None:
    """The stronger arm says the same: there is one answer to judge, and both arms have its grade."""
    folding = folded(*FIRST, decision(2), answered("strong", " ONE", 2), score(2, "hold"))
    (review,) = folding.of(ReviewRequested)
    assert [answer.label for answer in review.answers] == ["A"]
    one = {"label": "A", "decision": "approve"}
    folding.take(judged().model_copy(update={"answers": VerdictGiven.model_validate(
        {"route": "r", "request_id": "q1", "at_ms": T, "by": "ann", "answers": [one]}).answers}))  # fmt: skip
    assert [row.grade for row in folding.of(CaseClosed)[0].arms] == [1000, 1000]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_shadow_of_the_first_decision_stays_in_the_case(data: st.DataObject) -> None:
    """The judge's pair is announced and closed as without a cascade; the champion's first answer is in it, graded."""
    events = (
        decision(shadows=("new",)), answered("weak", "one"), answered("new", "two", shadow=True), score(),
        decision(2), answered("strong", "two", 2), score(2), reference("two"),
    )  # fmt: skip
    folding = folded(*data.draw(by_topic(events)))
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert told.shadows == ("new",)
    rows = [(row.arm, row.shadow, row.grade) for row in closed.arms]
    assert rows == [("strong", False, 1000), ("weak", False, 0), ("new", True, 1000)]


def test_the_shadow_arm_may_be_the_stronger_one() -> None:
    """It answered twice: one row, what it served."""
    folding = folded(
        decision(shadows=("strong",)), answered("weak", "one"), answered("strong", "zero", shadow=True), score(),
        *WHOLE[3:],
    )  # fmt: skip
    rows = [(row.arm, row.shadow, row.text) for row in folding.of(CaseClosed)[0].arms]
    assert rows == [("strong", False, "two"), ("weak", False, "one")]


def test_all_that_failed_on_the_way_is_told() -> None:
    """The chain of either attempt: who failed before the answer, each once, and never who gave it."""
    folding = folded(
        decision(arm="gone", chain=("weak",)), failed("gone", final=False), answered("weak", "one"), score(),
        decision(2, chain=("other",)), failed("strong", 2, final=False), answered("other", "two", 2),
        score(2), reference("two"),
    )  # fmt: skip
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (told.arm, told.drawn, told.lost) == ("other", "gone", ("gone", "strong"))
    assert [(row.arm, row.status) for row in closed.arms] == [
        ("other", "completed"), ("strong", "failed"), ("weak", "completed"), ("gone", "failed"),
    ]  # fmt: skip


def test_an_arm_that_answered_twice_has_what_it_served_last() -> None:
    """The second chain ended at the first arm again: one row, its second answer, the money of both."""
    folding = folded(
        *FIRST, decision(2, chain=("weak",)), failed("strong", 2, final=False), answered("weak", "two", 2),
        score(2), reference("two"),
    )  # fmt: skip
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert [(row.arm, row.text, row.grade) for row in closed.arms] == [("weak", "two", 1000), ("strong", "", None)]
    assert (told.lost, told.cost_nano_usd) == (("strong",), 110)


# kept, cached


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_kept_answer_is_the_first_one(data: st.DataObject) -> None:
    """No stronger arm was left: the answer is told as kept, its row is what the arm did, and nothing is paid twice."""
    kept = answered("weak", "one", 2, source="kept", latency_ms=1, tokens_out=0)
    second = decision(2, arm="weak", kept_result="x")
    folding = folded(*data.draw(by_topic((*FIRST, second, kept, score(2, arm="weak"), reference("one")))))
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (told.source, told.arm, told.cost_nano_usd) == ("kept", "weak", 10)
    assert (closed.source, closed.attempt, closed.cost_nano_usd) == ("kept", 2, 10)
    (row,) = closed.arms
    assert (row.source, row.text, row.grade, row.latency_us, row.tokens_out) == ("model", "one", 1000, 50_000, 2)


@pytest.mark.parametrize("cost", [None, 0])
def test_a_cached_answer_says_so_and_costs_nothing(cost: int | None) -> None:
    """Whoever learns leaves it out by `source`."""
    cached = answered("weak", "one", source="cache", cost_nano_usd=cost)
    folding = folded(decision(), cached, score(action="release"), reference("one"))
    (told,), (closed,) = folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (told.source, told.cost_nano_usd, closed.source) == ("cache", 0, "cache")
    assert (closed.arms[0].source, closed.attempt, closed.escalated) == ("cache", 1, None)


@pytest.mark.parametrize(("costs", "paid"), [((None, None), None), ((None, 7), 7), ((5, None), 5), ((5, 7), 12)])
def test_what_is_not_known_is_not_counted(costs: tuple[int | None, int | None], paid: int | None) -> None:
    """The sum of what is known; None where nothing is. A shadow's cost is not the answer's."""
    folding = folded(
        decision(shadows=("new",)), answered("weak", "one", cost_nano_usd=costs[0]),
        answered("new", "x", shadow=True, cost_nano_usd=1000), score(), decision(2),
        answered("strong", "two", 2, cost_nano_usd=costs[1]), score(2),
    )  # fmt: skip
    assert folding.of(CaseAnswered)[0].cost_nano_usd == paid


# what never comes


@pytest.mark.parametrize("said", [None, "one", "three"])
def test_a_second_decision_that_never_comes_leaves_it_to_the_windows_end(said: str | None) -> None:
    """Withheld, or settled by the verdict that came meanwhile; the case speaks of the first attempt, as escalated."""
    folding = folded(*FIRST, *(() if said is None else (reference(said),)))
    folding.tick(T + 30_000 + grace_ms(decision()) - 1)
    assert folding.emitted == []
    folding.tick(END)
    (settled,), (told,), (closed,) = folding.of(ReviewSettled), folding.of(CaseAnswered), folding.of(CaseClosed)
    outcomes = {None: ("withheld", "window_ended"), "one": ("released", "approved"), "three": ("released", "corrected")}
    assert (settled.outcome, settled.reason) == outcomes[said]
    assert (told.arm, told.ok, told.released) == ("weak", True, False)
    assert (closed.action, closed.attempt, closed.escalated, closed.why) == ("escalate", 1, None, "window_ended")
    assert [row.grade for row in closed.arms] == [None if said is None else 1000 if said == "one" else 0]
    folding.take(decision(2))
    folding.take(answered("strong", "two", 2))
    folding.take(score(2, "hold"))
    folding.tick(T + 10_000_000)
    assert [len(folding.of(kind)) for kind in (ReviewSettled, CaseAnswered, CaseClosed)] == [1, 1, 1]


def test_a_second_result_that_never_comes_is_missing() -> None:
    """The decision is known: its arm is who did not answer; the first answer stays in the case."""
    folding = folded(*FIRST, decision(2))
    folding.tick(END)
    (settled,), (told,), (closed,) = folding.of(ReviewSettled), folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (settled.reason, settled.decision_id) == ("window_ended", folding_id(closed, settled))
    assert (told.arm, told.ok, told.reason) == ("strong", False, "missing")
    assert [(row.arm, row.status) for row in closed.arms] == [("strong", "missing"), ("weak", "completed")]


def folding_id(closed: CaseClosed, settled: ReviewSettled) -> str:
    """What is settled names the second decision, the case the first."""
    assert closed.decision_id != settled.decision_id
    return settled.decision_id


def failure(**more: Any) -> ScoreAssigned:
    """Trust's word on a failed second attempt."""
    return score(2, "hold", **({"failed": True, "review": False, "sampled": False, "score": 0.0} | more))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_where_the_second_attempt_fails_the_first_answer_goes_out(data: st.DataObject) -> None:
    """On an immediate route an outage of the strong arm costs its betterment, not the answer."""
    events = (*FIRST, decision(2), failed("strong", 2), failure(gated=False), reference("one"))
    folding = folded(*data.draw(by_topic(events)))
    (settled,), (told,), (closed,) = folding.of(ReviewSettled), folding.of(CaseAnswered), folding.of(CaseClosed)
    assert (settled.outcome, settled.reason, settled.text, settled.arm) == ("released", "failed", "one", "weak")
    assert settled.score in (0.2, None), "None where the first score is read after the second"
    assert (told.arm, told.ok, told.released, told.lost) == ("strong", False, False, ())
    assert (closed.settled, closed.cost_nano_usd) == ("released", 10)
    assert [(row.arm, row.status, row.grade) for row in closed.arms] == [
        ("strong", "failed", None), ("weak", "completed", 1000),
    ]  # fmt: skip


def test_on_a_gated_route_people_judge_the_answer_that_is_left() -> None:
    """It is asked about as any held answer, and goes out when a person approves it."""
    folding = folded(*FIRST, decision(2), failed("strong", 2), failure(gated=True))
    (review,) = folding.of(ReviewRequested)
    assert [(answer.text, review.people) for answer in review.answers] == [("one", True)]
    assert folding.of(ReviewSettled) == []
    said = {"route": "r", "request_id": "q1", "at_ms": T + 200, "by": "ann"}
    folding.take(VerdictGiven.model_validate(said | {"answers": [{"label": "A", "decision": "approve"}]}))
    (settled,) = folding.of(ReviewSettled)
    assert (settled.outcome, settled.reason, settled.text) == ("released", "approved", "one")
    assert len(folding.of(CaseClosed)) == 1


def test_past_the_window_a_left_answer_stays() -> None:
    """What fails in the grace releases nothing at once: the window's end withholds it."""
    folding = folded(*FIRST, decision(2), failed("strong", 2), failure(gated=False, at_ms=T + 30_001))
    folding.tick(END)
    assert [row.reason for row in folding.of(ReviewSettled)] == ["window_ended"]


def test_where_both_attempts_fail_it_is_withheld_at_once() -> None:
    """A failed first attempt never escalates, so this is the last word of a chain."""
    folding = folded(decision(), failed("weak"), score(1, "hold", failed=True, review=False))
    assert [(row.outcome, row.reason) for row in folding.of(ReviewSettled)] == [("withheld", "failed")]


def test_a_later_verdict_amends_the_whole_case() -> None:
    """With both arms, both scores, and what was closed untouched."""
    folding = folded(*WHOLE, judged(strong="reject", weak="approve"))
    (closed,), (amended,) = folding.of(CaseClosed), folding.of(CaseAmended)
    assert amended.contradicts
    assert (amended.escalated, amended.attempt, amended.cost_nano_usd) == (closed.escalated, 2, 110)


# what the ladder learns of it


def escalated(number: int, mean: float, right: bool | None, **changes: Any) -> CaseClosed:
    """A case of the ladder's arm that escalated to `b`."""
    grade = None if right is None else 1000 if right else 0
    rows = (CaseArm(arm="b", shadow=False, status="completed", grade=1000),)
    rows += (CaseArm(arm="a", shadow=False, status="completed", grade=grade),)
    first = Escalated(arm="a", score=0.1, z=-3.0, signals=signals(mean), scorer="prior")
    return case(number, signals(0.0), right, arm="b", arms=rows, attempt=2, escalated=first, **changes)


def test_an_escalated_answer_counts_in_the_ladder_with_its_own_score() -> None:
    """Wrong answers that escalate keep the rungs that reach so low from being certified, exactly as if they had gone out."""
    told = {True: Folding(Ladder()), False: Folding(Ladder())}
    for cascade, folding in told.items():
        folding.take(apply(trust=QUICK))
        for number in range(400):
            bad = number % 2 == 0
            mean = (-1.0 if bad else -0.1) - (number * 37 % 400) / 1e6
            made = escalated(number, mean, right=False) if bad and cascade else case(number, signals(mean), not bad)
            folding.take(made.model_copy(update={"at_ms": made.at_ms + number}))
        folding.tick(T + 10_000_000)
    one, other = (folding.cells["bank"] for folding in told.values())
    assert one.record == other.record
    assert one.entries == other.entries
    assert 0 < one.entries["running"].version.covers() <= 50


def test_other_arms_of_a_case_are_not_the_ladders() -> None:
    """A case that did not escalate, or escalated from another arm, or was kept, is read as it stands."""
    kept = escalated(1, -1.0, right=True).model_copy(update={"arm": "a"})
    for one in (case(1, signals(), True), kept, escalated(1, -1.0, right=True)):
        assert labels.of_arm(one, "c") is one
    assert labels.of_arm(kept, "a") is kept
    assert labels.of_arm(escalated(1, -1.0, right=True), "a").signals == signals(-1.0)
