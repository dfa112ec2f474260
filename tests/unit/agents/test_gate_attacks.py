"""Ways past the gate that are no text: judge models, record keys, routes that nobody applied, dead letters, and rows of many values."""

from typing import Any

import pytest
from gatekeeping import ARMS, CARD, HEALTH, MAIL, Ward, event_of, policies, request, route
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.grading import grader_of, judges_of
from schemas.events import AnswerRefused
from schemas.routes import MODEL_GRADERS, Arm, Route

JUDGE: dict[str, Any] = {"model": "judging", "provider": "openai_http", "nano_usd_in": 1}


def judged(**arm: Any) -> Route:
    """The ward with a judge model of this kind beside its arms."""
    return route(
        arms=(*ARMS, Arm.model_validate({"arm": "judge"} | JUDGE | arm)),
        grader="rubric",
        grading={"arm": "judge", "rubric": "Is it right?"},
    )


@pytest.mark.parametrize(
    ("text", "arm", "grader"),
    [
        ("How do I reset my password?", {"region": "eu-west", "clearance": "secret"}, "rubric"),
        (HEALTH, {"region": "eu-west", "clearance": "secret"}, "verdict"),
        ("How do I reset my password?", {"region": "ap-south", "clearance": "secret"}, "verdict"),
        (f"write to {MAIL}", {"region": "eu-west", "clearance": "secret"}, "rubric"),
        (f"write to {MAIL}", {"region": "eu-west"}, "verdict"),
    ],
    ids=["may see it", "confined", "no flow leads there", "cleared for what is personal", "not cleared"],
)
async def test_a_judge_model_is_an_arm_to_the_gate(text: str, arm: dict[str, Any], grader: str) -> None:
    """Where the gate, a clearance or a region keeps a text from an arm, that arm does not judge the answer either: people do."""
    decision = await Ward(*policies(made=judged(**arm))).decided(text)
    assert decision.grader == grader
    assert (decision.human_share > 0) == (grader in MODEL_GRADERS)
    seeing = judges_of({row.arm: row.masks for row in decision.arms})
    assert ("judge" in seeing) == (grader == "rubric")


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.sampled_from(["gate", "privacy", "residency", "slo", "not_live"]))
    )
)
def test_only_who_may_see_it_judges(masks: dict[str, list[str]]) -> None:
    """A judge model that is masked for what it would see, or of which nothing is known, is nobody's; other masks keep none from judging."""
    for grader in ("rubric", "model"):
        asks = grader_of(grader, "a", masks) == grader
        assert asks == ("a" in masks and not {"gate", "privacy", "residency"} & {*masks["a"]})
    assert grader_of("reference", "a", masks) == "reference"


@pytest.mark.parametrize("name", ["4111111111111111", "card_4111111111111111", "ssn.536-22-8726"])
async def test_a_record_key_is_an_id_too(name: str) -> None:
    """A key that is not the id of its request is answered under itself: not where it is somebody's number."""
    ward = Ward()
    [told] = await ward.take(event_of(request("hi", request_id="r1"), key=name))
    assert isinstance(told, AnswerRefused)
    assert told.kind == "wrong-key"
    assert name not in told.model_dump_json() + ward.held()
    [told] = await ward.take(event_of(request("hi", request_id="r1"), key="r2"))
    assert isinstance(told, AnswerRefused)
    assert told.request_id == "r2"


@pytest.mark.parametrize("changes", [{"route": "nowhere"}, {"tenant": "bank"}])
async def test_what_no_route_takes_is_looked_at_all_the_same(changes: dict[str, Any]) -> None:
    """An id that is somebody's number is not repeated, nor a key of the store, where the route is not known or another tenant's."""
    ward = Ward()
    [told] = await ward.ask("hi", request_id=f"id-{CARD.replace(' ', '')}", **changes)
    assert isinstance(told, AnswerRefused)
    assert told.kind in ("unknown-route", "wrong-tenant")
    assert "4111" not in told.model_dump_json() + ward.held()
    [told] = await ward.ask("hi", request_id="order-7", **changes)
    assert isinstance(told, AnswerRefused)
    assert told.request_id == "order-7"
