"""What became of a request: one answer, and a case that says the same, whatever happened on the way."""

from collections import Counter, defaultdict
from typing import Any

from fates import WINDOW_S, Setting, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.cases.fold import GRACE_MS, UNTOLD_MS
from agents.router.fold import labels_of
from agents.rules.curation import usable
from schemas.events import AnswerRefused, AnswerReleased, AnswerWithheld, CaseAnswered, CaseClosed

SETTINGS = st.builds(
    Setting,
    gated=st.booleans(),
    gate=st.booleans(),
    grader=st.sampled_from(("verdict", "reference", "rubric")),
    review_share=st.sampled_from((0.0, 1.0)),
    cascade=st.booleans(),
    cached=st.booleans(),
    shadowed=st.booleans(),
    emergency=st.booleans(),
    mode=st.sampled_from(("SHADOW", "ENFORCE", "GRANTED")),
)
ADAPTERS: dict[str, str | None] = dict.fromkeys(("old", "new", "last"))


async def lived(world: World) -> None:
    """Requests come, agents take what lies there in whatever order, people speak, time passes; then all comes to its end."""
    draw = world.draw
    for _ in range(draw.randint(10, 120)):
        match draw.choice(("ask", "judge", "judge", "again", "change", "time", *("step",) * 18)):
            case "ask":
                world.ask()
            case "judge":
                world.judge()
            case "again":
                world.again()
            case "change":
                world.change()
            case "time":
                await world.clock.advance(draw.choice((0.5, 5.0, 20.0)))
                await world.tick()
            case _:
                if pending := world.pending():
                    await world.step(draw.choice(pending), twice=draw.random() < 0.1)
    await world.rest()
    for seconds in (WINDOW_S + GRACE_MS / 1000, UNTOLD_MS / 1000):
        await world.clock.advance(seconds)
        await world.tick()
        await world.rest()


@given(SETTINGS, st.randoms(use_true_random=True))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_each_request_has_one_answer_and_a_case_that_says_the_same(setting: Setting, draw: Any) -> None:
    """Released, withheld or refused, once; the case agrees, with the reason. What the gate withheld is learnt nowhere, and the verdict that
    would have let it out is known."""
    world = World(setting, draw)
    await lived(world)
    answers: dict[str, list[Any]] = defaultdict(list)
    for answer in world.data("answers"):
        answers[answer.request_id].append(answer)
    asked = {row.request_id for row in world.data("requests")}
    assert {name: len(rows) for name, rows in answers.items()} == dict.fromkeys(asked, 1)
    judged = {
        row.request_id for row in world.data("reviews") if getattr(row, "reason", "") in ("approved", "corrected")
    }
    cases: dict[str, list[Any]] = defaultdict(list)
    for case in world.data("cases"):
        cases[case.request_id].append(case)
    for name, (answer,) in answers.items():
        kinds = Counter(type(case) for case in cases[name])
        if isinstance(answer, AnswerRefused):
            assert not kinds
            continue
        assert (kinds[CaseAnswered], kinds[CaseClosed]) == (1, 1)
        for case in cases[name]:
            agrees(answer, case)
            if name in judged and not isinstance(case, CaseAnswered):
                assert case.verdict_kind in ("person", "reference", "model")
                assert any(row.grade is not None for row in case.arms)
        if isinstance(answer, AnswerReleased):
            assert answer.marked
    assert world.cases.cells == {}, "nothing waits for ever"


def agrees(answer: AnswerReleased | AnswerWithheld, case: Any) -> None:
    if isinstance(case, CaseAnswered):
        assert not case.released or isinstance(answer, AnswerReleased)
        return
    if isinstance(answer, AnswerReleased):
        assert case.withheld == ""
        assert case.settled == ("" if case.action == "release" else "released")
        return
    assert (case.settled, case.withheld) == ("withheld", answer.reason)
    if answer.reason == "gate":
        assert not usable(case)
        assert labels_of(case, ADAPTERS) == {}
