"""The router's demonstration: its texts, its routes, its figures, its picture, and when it has shown what it should."""

from pathlib import Path
from typing import Any

import pytest

from agents.rules.prices import price_at
from schemas.errors import Refused
from schemas.events import (
    ArmChoice,
    ArmTerms,
    BreakerChanged,
    CaseAmended,
    CaseArm,
    CaseClosed,
    Message,
    RoutingTerms,
)
from schemas.policies import PolicyRouter
from schemas.routing import RoutingSettings
from tools.cli.delegate import demo
from tools.cli.screen import Screen
from tools.demo.ledger import Asked
from tools.demo.routing.log import (
    RoutingLedger,
    Row,
    alone,
    answered_by,
    cost,
    good,
    mixed,
    periods,
    rolling,
    row_of,
    share,
)
from tools.demo.routing.picture import Drawn, draw
from tools.demo.routing.preview import in_words
from tools.demo.routing.report import acts, passed
from tools.demo.routing.route import (
    LARGE,
    SMALL,
    dearer,
    frugal,
    routed,
    settled,
    with_routing,
    without_large,
)
from tools.demo.routing.story import Story, texts
from tools.demo.run import Mark
from tools.routes import read_routing, table

BASE = "sha256:" + "a" * 64


def case(number: int, *, arm: str = SMALL, drawn: str = "", grades: dict[str, int], cost: int = 500) -> CaseClosed:
    """A case that was answered by `arm`; other arms in `grades` answered beside it."""
    rows = tuple(
        CaseArm(arm=name, shadow=name != arm, status="completed", grade=grade, cost_nano_usd=cost)
        for name, grade in grades.items()
    )
    terms = ArmTerms(quality=1, cost_nano_usd=9000)
    return CaseClosed(
        route="r", at_ms=number * 1000, request_id=f"q{number}", request_partition=0, request_offset=number,
        decision_id="d", assigned_at_ms=number * 1000, window_end_ms=number * 1000 + 30_000, arm=arm,
        drawn=drawn or arm, why="complete", messages=(Message(role="user", content="x"),), arms=rows,
        choices=(
            ArmChoice(arm=LARGE, adapter=None, propensity=16_384, terms=terms),
            ArmChoice(arm=SMALL, adapter=None, propensity=49_152),
        ),
        grader="reference", routing=RoutingTerms(strategy="balanced", sensitivity="internal", lambda_cost=250_000, period=number // 60),
        strategy="balanced", cost_nano_usd=cost,
    )  # fmt: skip


def row(number: int, arm: str, *, right: bool, paid: int = 500, both: bool = False) -> Row:
    """A row; with `both`, the other arm was right beside it."""
    beside = {SMALL: right, LARGE: True} if both else {arm: right}
    shares, expected = {SMALL: 0.5, LARGE: 0.5}, {SMALL: 500, LARGE: 9000}
    return Row(
        f"q{number}", number * 1000, arm, arm, paid, beside, shares, expected, "balanced", False, 0, number // 60, ()
    )


def test_nobody_was_trained_on_what_customers_ask() -> None:
    """The small model knows half of the intents, the large one all; the texts asked are in neither's training."""
    told = texts(Story())
    small, large = {m.text for m in told.small}, {m.text for m in told.large}
    asked = {customer.text for customer in told.asked}
    assert {m.intent for m in told.small} == told.known
    assert len({m.intent for m in told.large}) == Story().intents == 2 * len(told.known)
    assert small < large
    assert not asked & large
    assert len(asked) == len(told.asked)
    by_known = share(customer.known for customer in told.asked[:500])
    assert by_known is not None
    assert 0.3 < by_known < 0.7


def test_the_story_has_customers_for_every_act() -> None:
    """The acts that count their requests leave as many for the two that wait for something."""
    story = Story()
    counted = story.learnt + story.dear + story.gap + story.returned + 3 * story.stage + story.whole
    assert counted < 0.7 * len(texts(story).asked)


def test_the_price_rises_at_its_time_and_nothing_else_changes() -> None:
    """Before it begins the former price counts; the rest of the route is as it was."""
    story = Story()
    route = routed(story, BASE, "http://127.0.0.1:1/v1", "")
    later = dearer(route, story, since_ms=10_000)
    prices = [price_at(later.routing.prices, LARGE, at) for at in (9_999, 10_000)]
    assert [None if one is None else one.nano_usd_in for one in prices] == [400, 800]
    assert later.model_copy(update={"routing": route.routing}) == route


def test_the_small_model_serves_until_the_large_one_is_there() -> None:
    """One arm, nothing to choose from; all else is the route's."""
    route = routed(Story(), BASE, "http://127.0.0.1:1/v1", "")
    first = without_large(route)
    assert [arm.arm for arm in first.arms] == [first.champion] == [SMALL]
    assert first.routing == RoutingSettings()
    assert first.model_copy(update={"arms": route.arms, "routing": route.routing}) == route


def test_router_files_say_what_their_settings_are(tmp_path: Path) -> None:
    """A file read back is the settings it was made of, prices and budget too."""
    routing = dearer(routed(Story(), BASE, "http://127.0.0.1:1/v1", "sha256:b"), Story(), since_ms=7).routing
    for made in (routing, frugal(routing), settled(routing, Story())):
        file = tmp_path / "router.toml"
        file.write_text(table("routing", made))
        assert read_routing(file) == made


def test_settings_of_another_kind_are_refused() -> None:
    """Changed settings are checked as a file's are."""
    route = routed(Story(), BASE, "http://127.0.0.1:1/v1", "")
    with pytest.raises(ValueError, match="is not an arm of this route"):
        with_routing(route, route.routing.model_copy(update={"arms": ("other",)}))


def test_a_case_is_told_once_and_by_who_answered() -> None:
    """Grades of every arm, the propensities, λ; an amended case and one of another run change nothing."""
    ledger = RoutingLedger()
    ledger.asked["q1"] = Asked("learnt", "intent", True, True, 0)
    first = case(1, arm=SMALL, drawn=LARGE, grades={SMALL: 1000, LARGE: 0})
    ledger.take("a", first)
    ledger.take("a", first)
    ledger.take("b", case(2, grades={SMALL: 1000}))
    ledger.take("c", CaseAmended(**(first.model_dump() | {"amends": "a", "arm": LARGE})))
    assert list(ledger.closed) == ["q1"]
    told = ledger.closed["q1"]
    assert told == row_of(first)
    assert (told.arm, told.drawn, told.good, told.right) == (SMALL, LARGE, True, {SMALL: True, LARGE: False})
    assert (told.shares, told.expected, told.price) == ({LARGE: 0.25, SMALL: 0.75}, {LARGE: 9000}, 250_000)
    act = acts(ledger)["learnt"]
    assert (act["requests"], act["right"], act["large"], act["fell_back"]) == (1, 1.0, 0.0, 1)


def test_warmth_and_breakers_are_noted_when_they_came() -> None:
    """The first warm policy counts; changes of another arm are not this one's."""
    ledger = RoutingLedger()
    for at_ms, warm in ((1, False), (5, True), (9, True)):
        ledger.take(f"p{at_ms}", PolicyRouter(route="r", at_ms=at_ms, version=at_ms, champion=SMALL, warm=warm))
    for at_ms, arm, after in ((30, LARGE, "closed"), (10, LARGE, "open"), (20, SMALL, "open")):
        ledger.take(
            f"b{at_ms}",
            BreakerChanged(
                at_ms=at_ms, route="r", arm=arm, engine="e", instance="i", before="closed", after=after
            ),
        )  # fmt: skip
    assert (ledger.warm_ms, ledger.routers) == (5, 3)
    assert [one.at_ms for one in ledger.breaker(LARGE, "open")] == [10]


def test_figures_are_those_of_the_rows() -> None:
    """Rolling means begin with a whole window; an arm alone is told by what both answered; periods are the budget's."""
    rows = [row(n, LARGE if n % 2 else SMALL, right=n % 4 < 3, paid=100 * n, both=n < 4) for n in range(1, 9)]
    assert rolling(rows, good, 4) == [(4000, 1.0), (5000, 1.0), (6000, 1.0), (7000, 0.75), (8000, 0.75)]
    assert rolling(rows, cost, 8) == [(8000, 450.0)]
    assert rolling(rows, answered_by(LARGE), 2)[0] == (2000, 0.5)
    assert alone(rows, SMALL, LARGE) == [True, True, False]
    assert mixed(rows, SMALL, LARGE, 0.5) == pytest.approx((2 / 3 + 1) / 2)
    assert mixed([], SMALL, LARGE, 0.5) is None
    assert share([]) is None
    late = [row(61, SMALL, right=True, paid=900)]
    assert periods([*rows, *late], 60) == [(0, 450.0, 8), (60_000, 900.0, 1)]


def test_the_picture_is_drawn_from_rows_alone(tmp_path: Path) -> None:
    """A run of a few hundred rows, with marks and a failure, and one in which nothing happened."""
    rows = [row(n, LARGE if n % 3 else SMALL, right=n % 5 > 0, paid=5000, both=n < 40) for n in range(200)]
    marks = [Mark(20_000, "price × 2"), Mark(80_000, "killed"), Mark(199_000, "100 %")]
    drawn = Drawn(SMALL, LARGE, 6000, 60, 50, marks, [(80_000, 120_000)], "a title")
    draw(rows, 0, drawn, tmp_path / "full.png")
    draw([], 0, Drawn(SMALL, LARGE, 6000, 60, 50, (), (), "nothing"), tmp_path / "empty.png")
    assert (tmp_path / "full.png").stat().st_size > 20_000
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_a_preview_is_told_with_its_reasons() -> None:
    """Quality of both with the difference's interval; then what holds it back."""
    apart = {"value": 0.02, "low": -0.01, "high": 0.05}
    dr = {"target": {"value": 0.8}, "current": {"value": 0.78}, "difference": apart}
    told = {"verdict": {"dr": dr}, "holds": ["too few"]}
    assert in_words(told) == "quality 0.800 for 0.780, difference +0.020 (-0.010 to +0.050); too few"
    assert in_words({"verdict": {"dr": None}, "holds": ["no rows"]}) == "no rows"


def report(**changes: Any) -> dict[str, Any]:
    """A report of a run that showed all it should, with changes."""
    return {
        "lost": 0, "duplicated": 0, "requests": 9, "answers": 9, "cases": 9, "evidence_verified": True,
        "chosen": {"right": 0.8, "at_random": 0.7, "over_budget": 0.02}, "alone": {SMALL: 0.4},
        "acts": {"learnt": {"large": 0.6}, "dearer": {"large": 0.3}, "returned": {"large": 0.2}},
        "breaker": {"open_at_s": [1.0], "closed_at_s": [2.0]}, "may_roll_out": {"frugal": False, "settled": True}, "staged": True,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"lost": 1}, False),
        ({"duplicated": 1}, False),
        ({"answers": 10}, False),
        ({"cases": 8}, False),
        ({"evidence_verified": False}, False),
        ({"chosen": {"right": 0.69, "at_random": 0.7, "over_budget": 0.02}}, False),
        ({"chosen": {"right": 0.8, "at_random": None, "over_budget": 0.02}}, False),
        ({"chosen": {"right": 0.8, "at_random": 0.7, "over_budget": 0.2}}, False),
        ({"alone": {SMALL: 0.9}}, False),
        ({"acts": {"learnt": {"large": 0.6}, "dearer": {"large": 0.6}, "returned": {"large": 0.2}}}, False),
        ({"acts": {"learnt": {"large": 0.6}, "dearer": {"large": 0.3}, "returned": {"large": 0.0}}}, False),
        ({"breaker": {"open_at_s": [1.0], "closed_at_s": []}}, False),
        ({"may_roll_out": {"frugal": True, "settled": True}}, False),
        ({"may_roll_out": {}}, False),
        ({"may_roll_out": {"frugal": False, "settled": False}}, False),
        ({"staged": False}, False),
    ],
)
def test_a_run_passes_only_when_it_showed_what_it_should(changes: dict[str, Any], whole: bool) -> None:
    """Each thing that the run is there to show is needed."""
    assert passed(report(**changes)) is whole


@pytest.mark.parametrize(
    ("shown", "alone"),
    [
        ({"routing", "chaos"}, "--routing"),
        ({"compliance", "useless"}, "--compliance"),
        ({"compliance", "routing"}, "--compliance"),
    ],
)
def test_router_and_compliance_are_shown_alone(shown: set[str], alone: str) -> None:
    """Other damage would hide what the router answered, or the gate."""
    flags = {name: name in shown for name in ("useless", "chaos", "rollback", "routing", "compliance")}
    with pytest.raises(Refused, match=f"{alone} goes alone") as refused:
        demo(Screen(as_json=True), **flags, keep=False)
    assert refused.value.kind == "usage"
