"""Events: frozen, strict where strangers write, lenient between our agents, and keyed as the topics table says."""

import json

import pytest
from pydantic import ValidationError

from schemas.events import (
    CaseAnswered,
    CommandPause,
    Message,
    RequestSubmitted,
    TrainingFailed,
    VerdictGiven,
)
from schemas.payload import REGISTRY, Incoming, Payload, RequestEvent, RouteEvent
from schemas.policies import LiveArm, Policy, PolicyLive, PolicyTrust
from schemas.topics import BY_NAME

REQUEST = RequestSubmitted(at_ms=1, route="r", request_id="q", messages=(Message(role="user", content="x"),))
REQUEST_KEYED = {"requests", "decisions", "shadows", "results", "scores", "answers", "reviews", "verdicts"}


@pytest.mark.parametrize("model", [REGISTRY[name] for name in sorted(REGISTRY)], ids=sorted(REGISTRY))
def test_an_event_is_keyed_as_its_topic_says(model: type[Payload]) -> None:
    """Request topics carry events keyed by request id, route topics by route, policies by kind and name."""
    key = BY_NAME[model.TOPIC].key
    assert issubclass(model, RequestEvent) == (model.TOPIC in REQUEST_KEYED)
    assert (key == "request id") == (model.TOPIC in REQUEST_KEYED)
    assert issubclass(model, Policy) == (model.TOPIC == "policies")
    if key == "route":
        assert issubclass(model, RouteEvent)


@pytest.mark.parametrize("model", [REGISTRY[name] for name in sorted(REGISTRY)], ids=sorted(REGISTRY))
def test_an_error_about_an_event_repeats_nothing_of_it(model: type[Payload]) -> None:
    """A crash goes into a log, and of logs nobody erases anything."""
    with pytest.raises(ValidationError) as error:
        model.model_validate({"at_ms": "canary5x7", "messages": [{"role": "canary5x7"}], "text": {"canary5x7": 1}})
    assert "at_ms" in str(error.value)
    assert "canary5x7" not in str(error.value)


@pytest.mark.parametrize("model", [REGISTRY[name] for name in sorted(REGISTRY)], ids=sorted(REGISTRY))
def test_an_event_is_frozen_and_its_type_is_a_noun_and_a_verb(model: type[Payload]) -> None:
    """No event can be changed after it was made; the class name is the type name."""
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == ("forbid" if issubclass(model, Incoming) else "ignore")
    assert model.__name__.lower() == model.TYPE.replace(".", "").replace("_", "")


PSEUDONYMS = {("command.erase", "subject"), ("verdict.given", "subject")}
IDS = {"tenant", "route", "request_id", "session_id", "subject", "by", "operator", "agent"}


@pytest.mark.parametrize("name", sorted(name for name, model in REGISTRY.items() if issubclass(model, Incoming)))
@pytest.mark.parametrize(
    "value", ["mary@example.org", "Mary Jones", "a/b", "a:b", "+491701234567", "Jürgen", "q1\n", "", "x" * 65]
)
def test_ids_of_people_and_upstream_are_ids(name: str, value: str) -> None:
    """What is no `[A-Za-z0-9._-]{1,64}` is refused by the field, wherever a stranger names a thing or a person."""
    model = REGISTRY[name]
    for field in IDS & set(model.model_fields):
        assert field in _wrong(model, field, value)
        fine = "0f" * 16 if (name, field) in PSEUDONYMS else "Az0._-" + "x" * 58
        assert field not in _wrong(model, field, fine)


def _wrong(model: type[Payload], field: str, value: str) -> set[str]:
    """The fields that a payload of this one field says wrongly, those that it does not say left out."""
    try:
        model.model_validate_json(json.dumps({"at_ms": 1, field: value}), strict=True)
    except ValidationError as error:
        return {str(row["loc"][0]) for row in error.errors() if row["type"] != "missing"}
    return set()


def test_keys() -> None:
    """One example of each kind of key."""
    assert REQUEST.event_key() == "q"
    assert CommandPause(at_ms=1, route="r", operator="o").event_key() == "r"
    assert PolicyTrust(at_ms=1, route="r", version=1, scorer="s", weights=()).event_key() == "trust/r"
    live = PolicyLive(at_ms=1, version=1, instance="i", arms=(), until_ms=2)
    assert live.event_key() == "live/i"
    with pytest.raises(TypeError, match="no event key"):
        Payload(at_ms=1).event_key()


def test_a_stranger_s_field_is_refused_and_a_newer_agent_s_is_ignored() -> None:
    """Upstream learns of its slip of the pen; an older agent reads a newer one."""
    with pytest.raises(ValidationError, match="Extra inputs"):
        RequestSubmitted.model_validate(REQUEST.model_dump() | {"new": 1})
    fields = {"at_ms": 1, "route": "r", "order_id": "o", "reason": "x"}
    assert TrainingFailed.model_validate(fields | {"new": 1}) == TrainingFailed.model_validate(fields)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_event_holds_what_is_not_a_number(value: float) -> None:
    """NaN and infinity are no JSON, so no event takes them."""
    with pytest.raises(ValidationError, match="finite"):
        VerdictGiven(at_ms=1, route="r", request_id="q", by="me", corrected="x", seconds_spent=value)
    with pytest.raises(ValidationError, match="finite"):
        PolicyTrust(at_ms=1, route="r", version=1, scorer="s", weights=(value,))


def test_a_second_class_of_one_type_is_refused() -> None:
    """Two classes cannot answer to one type name; the registry stays as it was."""
    before = dict(REGISTRY)
    with pytest.raises(TypeError, match=r"two payload classes say TYPE 'case\.answered'"):
        type("Twin", (CaseAnswered,), {"TYPE": "case.answered", "__module__": __name__})
    assert before == REGISTRY


def test_a_failed_change_leaves_the_event_alone() -> None:
    """Assigning to a field raises and changes nothing."""
    arm = LiveArm(route="r", arm="a", adapter=None, replicas=1)
    with pytest.raises(ValidationError, match="frozen"):
        arm.replicas = 2
    assert arm.replicas == 1
