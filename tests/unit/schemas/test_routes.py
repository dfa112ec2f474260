"""A route file is validated whole: every wrong field is named at once."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.codec import first_errors
from schemas.events import CommandApply
from schemas.routes import Arm, Route

ROOT = Path(__file__).resolve().parents[3]
ARM: dict[str, Any] = {"arm": "base", "base": "sha256:" + "0" * 64}
GOOD: dict[str, Any] = {"route": "banking.intent", "arms": [ARM], "champion": "base"}


JUDGE: dict[str, Any] = {"arm": "judge", "base": "sha256:" + "1" * 64}


def judged(**grading: Any) -> dict[str, Any]:
    """A route's fields with a judge model."""
    return {"arms": [ARM, JUDGE], "grader": "model", "grading": {"arm": "judge"} | grading}


def errors(**change: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Route.model_validate(GOOD | change)
    return dict(first_errors(caught.value))


def test_a_small_route_is_enough() -> None:
    """A route, an arm and a champion: the rest has defaults that are careful (a person decides first)."""
    route = Route.model_validate(GOOD)
    assert route.release == "gated"
    assert route.arms == (Arm(arm="base", base=ARM["base"]),)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"champion": "other"}, "", "'other' is not an arm of this route"),
        ({"challengers": ["other"]}, "", "challengers: 'other' is not an arm"),
        ({"challengers": ["my secret " * 9]}, "", "challengers: a text that is no name is not an arm"),
        ({"challengers": ["base"]}, "", "'base' is the champion"),
        ({"arms": [ARM, ARM]}, "", "names must differ"),
        ({"arms": []}, "arms", "at least 1 item"),
        ({"arms": [ARM | {"template": "no place"}]}, "arms.0", "template must contain {text}"),
        ({"route": "a b"}, "route", "match pattern"),
        ({"release": "maybe"}, "release", "'gated' or 'immediate'"),
        ({"deadline_s": 3600, "window_s": 60}, "", "deadline_s must not exceed window_s"),
        ({"judge": {"quality_margin": 0.1}}, "judge", "quality_harm must be greater than quality_margin"),
        ({"judge": {"alpha": 0.5}}, "judge.alpha", "less than or equal to 0.2"),
        ({"grader": "oracle"}, "grader", "'rubric' or 'model'"),
        ({"grader": "model"}, "", "grading.arm: grader 'model' needs an arm that judges"),
        (judged(arm="nobody"), "", "grading.arm: 'nobody' is not an arm of this route; arms are ['base', 'judge']"),
        (judged(arm="my secret " * 9), "", "grading.arm: a text that is no name is not an arm"),
        (judged(arm="base"), "", "grading.arm: 'base' is champion or challenger; the judge model never serves"),
        (judged() | {"challengers": ["judge"]}, "", "grading.arm: 'judge' is champion or challenger"),
        (judged() | {"arms": [ARM, JUDGE | {"base": ARM["base"]}]}, "", "'judge' has the same base as ['base']"),
        (judged(human_share=0), "", "grading.human_share: must be above 0, a model never grades alone"),
        (judged(human_share=1.5), "grading.human_share", "less than or equal to 1"),
        (judged() | {"grader": "rubric"}, "", "grading.rubric: grader 'rubric' needs the text to rate by"),
        (judged(rubric=" \n") | {"grader": "rubric"}, "", "grading.rubric: grader 'rubric' needs the text"),
        (judged(typo=1), "grading.typo", "Extra inputs are not permitted"),
        ({"typo": 1}, "typo", "Extra inputs are not permitted"),
        ({"window_s": float("inf")}, "window_s", "finite"),
    ],
)
def test_a_wrong_route_says_which_field(change: dict[str, Any], field: str, said: str) -> None:
    """The field's path and what would be accepted stand in the error."""
    found = errors(**change)
    assert field in found
    assert said in found[field]


@pytest.mark.parametrize("change", [judged(), judged(rubric="Is it right?") | {"grader": "rubric"}])
def test_a_route_with_a_judge_model_has_careful_shares(change: dict[str, Any]) -> None:
    """A person judges 5 % too, a second one 5 % of what people see, and 2 % of the gradings have a canary."""
    route = Route.model_validate(GOOD | change)
    shares = (route.grading.human_share, route.grading.double_share, route.grading.canary_share)
    assert shares == (0.05, 0.05, 0.02)


def test_all_wrong_fields_are_named_at_once() -> None:
    """One look at the message is enough to repair a file."""
    assert errors(release="maybe", typo=1, max_chars=0).keys() == {"release", "typo", "max_chars"}


def test_the_example_in_the_documents_is_a_route() -> None:
    """`docs/examples/banking.toml` becomes a command.apply as it stands."""
    table = tomllib.loads((ROOT / "docs" / "examples" / "banking.toml").read_text(encoding="utf-8"))
    route = Route.model_validate(table)
    command = CommandApply(at_ms=0, route=route.route, operator="me", settings=route)
    assert CommandApply.model_validate_json(command.model_dump_json()) == command
