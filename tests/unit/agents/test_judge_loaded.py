"""Which arms the fleet keeps loaded: whatever the router may choose, once, and never because it serves already."""

from typing import Any

from court import Court

from agents.judge.bench import others
from schemas.routes import Arm, Route

ARMS = tuple(Arm(arm=name, base=f"sha256:{number}") for number, name in enumerate("abcdef"))


def settings(**changes: Any) -> Route:
    """A route of six arms whose champion is a."""
    return Route.model_validate({"route": "bank", "arms": ARMS, "champion": "a"} | changes)


def test_a_route_that_chooses_nothing_keeps_nothing_besides() -> None:
    """The default strategy names no arm."""
    assert others(settings()) == ()


def test_every_arm_that_routing_names_is_kept() -> None:
    """Those chosen among, the fixed one, the cascade's and the emergency's, each once."""
    routing = {"strategy": "balanced", "arms": ("b", "c"), "cascade": {"below": 0.5, "arms": ("c", "d")}}
    assert others(settings(routing=routing | {"emergency": {"arm": "e"}})) == ("b", "c", "d", "e")
    assert others(settings(routing={"strategy": "fixed", "arm": "f", "arms": ("f",)})) == ("f",)


def test_the_judge_model_and_the_second_opinion_are_kept_once() -> None:
    """Also where routing names them again."""
    graded = {"grader": "rubric", "grading": {"arm": "f", "rubric": "good?"}, "trust": {"second_arm": "b"}}
    routing = {"strategy": "balanced", "arms": ("b", "f", "c")}
    assert others(settings(**graded, routing=routing)) == ("f", "b", "c")


def test_the_fleet_names_them() -> None:
    """The champion stands under its own name alone."""
    arms = (Arm(arm="old", base="sha256:9"), *ARMS)
    routing = {"strategy": "balanced", "arms": ("old", "b"), "cascade": {"arms": ("c",)}}
    fleet = Court(alone=True, arms=arms, routing=routing).fleet
    assert (fleet.champion, fleet.loaded) == ("old", ("b", "c"))
    assert {"old", "b", "c"} <= {arm.arm for arm in fleet.arms}
