"""Ways past the gate that are no disguise of a value: judge models, record keys, routes that nobody applied, names of fields,
answers that are confined, forged placeholders."""

import json
from dataclasses import replace
from typing import Any

import pytest
from gatekeeping import ARMS, CARD, HEALTH, MAIL, Ward, event_of, policies, request, route
from gates import CARE, CLINIC, LATER, scan
from gates import NOW as AT
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.gate import Book
from agents.rules.gate import decide as decide_gate
from agents.rules.gate_standard import STANDARD
from agents.rules.grading import grader_of, judges_of
from agents.rules.masking import Unmasker, mask, unmask
from infra.detect import detect
from schemas import codec
from schemas.errors import Refused
from schemas.events import AnswerRefused, RequestSubmitted
from schemas.gate import Exemption, KindRule, RuleSet
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


@given(st.sampled_from(["answer", "request", "curation"]), st.sampled_from(["allow", "mask", "confine", "deny"]))
def test_an_answer_is_never_confined(where: Any, then: Any) -> None:
    """An exemption that confines weakens nothing of an answer: no arm follows it, and it would go out as it is."""
    kind = KindRule(id="own", family="special", words="x", kinds=("health",), at={"request": "deny", "answer": "deny"})
    rest = tuple(rule for rule in STANDARD.rules if rule.id not in ("gdpr-9", "hipaa-164.312.e"))
    exemption = Exemption(id="e", rule="own", then=then, until_ms=LATER)
    tenant = CLINIC.model_copy(update={"exemptions": (exemption,)})
    told = decide_gate(replace(CARE, where=where), scan("health"), tenant, Book.of(RuleSet(rules=(*rest, kind))), AT)
    if where == "answer":
        assert told.action == ("deny" if then in ("confine", "deny") else then)


@pytest.mark.parametrize(
    "name",
    ["ann.smith@example.org", "4111111111111111", "536-22-8726", "DE89370400440532013000", "Ann Smith", "x" * 65],
)
async def test_a_senders_own_field_name_is_not_repeated(name: str) -> None:
    """A name that no field has is somebody's text: it is said that it is there, and where, not what it is."""
    body = json.loads(request("hi").model_dump_json())
    for said in (body | {name: 1}, body | {"messages": [{"role": "user", "content": "x", name: 1}]}):
        with pytest.raises(Refused) as error:
            codec.decode_payload(RequestSubmitted, json.dumps(said).encode())
        assert name[:20] not in f"{error.value} {error.value.field} {error.value.accepted}"
        assert "Extra inputs" in str(error.value)
    with pytest.raises(Refused, match="temperature_2"):
        codec.decode_payload(RequestSubmitted, json.dumps(body | {"temperature_2": 1}).encode())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3000), st.sampled_from(["[EMAIL_{}] ", "u{}@example.org ", "[[EMAIL_{}]", "[EMAIL_{}"]))
def test_many_values_and_forged_placeholders_come_back(count: int, piece: str) -> None:
    """However many values, whatever is typed like a placeholder: the text comes back as it was, in pieces too; no address goes on."""
    text = "".join(piece.format(number) for number in range(1, count + 1))
    done = mask((text,), (detect(text),), {"email"})
    assert "@" not in done.texts[0]
    assert unmask(done.texts[0], done.map) == text
    pieces = Unmasker(done.map)
    assert (
        "".join(pieces.feed(done.texts[0][at : at + 7]) for at in range(0, len(done.texts[0]), 7)) + pieces.finish()
        == text
    )
