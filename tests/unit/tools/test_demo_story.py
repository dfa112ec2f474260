"""What the demonstration makes of the log: arenas, phases, the damage, and whether a run showed what it should."""

from typing import Any

import pytest
from gatekeeping import event_of

from agents.router import gate
from agents.router.observed import Policies
from agents.rules.gate_check import without_effect
from agents.rules.gate_standard import STANDARD
from infra import banking77
from infra.detect import detect
from schemas.compliance import PolicyGate
from schemas.errors import Refused
from schemas.events import (
    EProcess,
    Message,
    ModelPromoted,
    ModelRolledBack,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
    PromotionStaged,
    RequestSubmitted,
)
from schemas.gate import Scan
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm
from tools.cli.gating import warnings
from tools.demo import Shown, main
from tools.demo.champion import SMALL, Scale
from tools.demo.decline import TEMPERATURE, damaged
from tools.demo.ledger import Asked, Ledger
from tools.demo.report import passed
from tools.demo.route import PERMITTED, ROUTE, demo_route


def about(arena: str, challenger: str, at_ms: int) -> dict[str, Any]:
    """What every event of an arena says."""
    return {"route": "r", "at_ms": at_ms, "arena": arena, "champion": "base", "challenger": challenger}


def look(arena: str, challenger: str, at_ms: int, pairs: int, log_e: float, *, holdback: bool = False) -> Payload:
    """An evaluation whose quality has this log E."""

    def process(name: str, log_e: float) -> EProcess:
        return EProcess(name=name, log_e=log_e, max_log_e=log_e, needed=3.0, n=pairs, estimate=0.1, crossed=False)

    names = (
        "quality",
        *(f"{guard}_{null}" for guard in ("quality", "latency", "error", "cost") for null in ("margin", "worse")),
    )
    rows = tuple(
        process(name, -log_e if name == "quality_worse" else log_e if name == "quality" else -9.0) for name in names
    )
    return PromotionEvaluated(
        **about(arena, challenger, at_ms), pairs=pairs, quality_pairs=pairs, wins=1, losses=0, champion_grade=0.5,
        challenger_grade=0.6, processes=rows, conditions={"enough pairs": False}, decision="continue", holdback=holdback,
    )  # fmt: skip


def lived() -> Ledger:
    """The log of a run that rejects one challenger, promotes the next and takes it back."""
    events: list[Payload] = [
        PromotionOpened(**about("a", "bad", 10), settings={}),
        look("a", "bad", 20, 10, -4.0),
        PromotionRejected(**about("a", "bad", 21), reason="harmful: worse in quality", pairs=10),
        PromotionOpened(**about("b", "good", 30), settings={}),
        look("b", "good", 40, 100, 5.0),
        PromotionStaged(**about("b", "good", 41), stage=1, rollout_bp=2000, pairs=100),
        ModelPromoted(**about("b", "good", 50), pairs=120, log_e=6.0, fleet_version=4, evaluation="e"),
        look("h", "good", 60, 10, -2.0, holdback=True),
        ModelRolledBack(**about("h", "good", 70), reason="breaker: quality", by="", fleet_version=5),
    ]
    ledger = Ledger()
    for index, event in enumerate(events):
        ledger.take(str(index), event)
        ledger.take(str(index), event)  # told again
    return ledger


def test_every_arena_has_its_own_history() -> None:
    """Two challengers and a holdback in one log are kept apart; an event told twice counts once."""
    ledger = lived()
    bad, good = ledger.contests.values()
    assert (bad.challenger, bad.pairs, bad.looks[0].worse, len(bad.looks)) == ("bad", 10, 4.0, 1)
    assert bad.verdict() == "not promoted: harmful: worse in quality after 10 pairs"
    assert ([row.rollout_bp for row in good.stages], good.pairs) == ([2000], 100)
    assert good.verdict() == "promoted after 120 pairs: every condition held"
    assert [row.pairs for row in ledger.holdback] == [10]
    assert ledger.contest is good
    assert ledger.promoted is good.promoted
    assert ledger.rolled_back is not None
    assert ledger.rolled_back.reason == "breaker: quality"


def test_accuracy_is_told_of_who_answered_then() -> None:
    """Before the promotion the champion's answers count, during the damage the challenger's, trained messages never."""
    ledger = lived()
    rows = [
        ("new", "base", True, False), ("shadow", "base", True, True), ("stages", "good", False, True),
        ("stages", "base", False, True), ("after", "good", True, True), ("degraded", "good", False, True),
        ("degraded", "base", True, True), ("back", "base", True, True),
    ]  # fmt: skip
    for index, (phase, arm, right, held_out) in enumerate(rows):
        ledger.asked[str(index)] = Asked(phase, "intent", True, held_out, 0, right=right, arm=arm)
    said = {name: (row["all"], row["messages"]) for name, row in ledger.accuracy("base").items()}
    assert said == {"before": (0.5, 2), "after": (1.0, 1), "degraded": (0.0, 1), "back": (1.0, 1)}
    assert list(ledger.phase_table()) == ["new", "shadow", "stages", "after", "degraded", "back"]


def test_the_damage_changes_the_serving_arm_and_nothing_else() -> None:
    """Every loaded arm is named as inference names it; only the champion's sampling differs."""
    arms = (Arm(arm="base", base="b"), Arm(arm="good", base="b", adapter="sha256:1"), Arm(arm="idle", base="b"))
    fleet = PolicyFleet(route="r", at_ms=1, version=1, arms=arms, champion="good", rollback="base")
    specs = {spec.arm: (spec.adapter, spec.temperature) for spec in damaged(fleet)}
    assert specs == {"r/base": (None, 0.0), "r/good": ("sha256:1", TEMPERATURE)}


@pytest.mark.parametrize("scale", [Scale(), SMALL], ids=["full", "small"])
@pytest.mark.parametrize("chaos", [False, True])
def test_the_route_of_every_scale_is_one_that_the_product_accepts(scale: Scale, chaos: bool) -> None:
    """Deadline within the window, margins below harm lines, one way to win."""
    route = demo_route("b", scale, labels="true", chaos=chaos)
    assert route.deadline_s <= route.window_s
    assert route.judge.win_by == ("quality",)
    assert not route.training.shuffle_labels
    assert demo_route("b", scale, labels="shuffled", chaos=chaos).training.shuffle_labels


def test_the_gate_lets_every_customer_through() -> None:
    """What the demonstration permits its bank has effect, and covers each text that its customers send and rows of training."""
    assert without_effect(PERMITTED, STANDARD) == ()
    route = demo_route("b", Scale(), labels="true", chaos=False)
    assert warnings(route, PERMITTED, 1) == []
    texts = [row.text for row in banking77.load()[::20]]
    known = Policies(
        event_of(PolicyRoute(at_ms=1, version=1, route=ROUTE, settings=route)),
        None,
        gate=event_of(PolicyGate(at_ms=1, version=1, settings=PERMITTED)),
    )
    for text in texts:
        request = RequestSubmitted(at_ms=1, route=ROUTE, request_id="r", messages=(Message(role="user", content=text),))
        scan = Scan(tuple(tuple(detect(one)) for one in gate.texts_of(request, request.request_id)), len(text), 1)
        told = gate.gated(request, known, scan, 1, request.request_id)
        assert told.denied is None, told.denied
        assert told.request.messages == request.messages


def report(**changes: Any) -> dict[str, Any]:
    """A report of a rollback that showed all it should, with changes."""
    rows = [{"labels": "shuffled", "outcome": "rejected"}, {"labels": "true", "outcome": "promoted"}]
    whole = {"lost": 0, "duplicated": 0, "evidence_verified": True, "shown": "rollback", "challengers": rows}
    shares = {"after": {"all": 0.8}, "degraded": {"all": 0.1}, "back": {"all": 0.5}}
    return whole | {"rollback": {"on_its_own": True, "trust": "SHADOW"}, "accuracy": shares} | changes


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"lost": 1}, False),
        ({"duplicated": 1}, False),
        ({"evidence_verified": False}, False),
        ({"rollback": {"on_its_own": False, "trust": "SHADOW"}}, False),
        ({"rollback": {"on_its_own": True, "trust": None}}, False),
        ({"challengers": [{"labels": "true", "outcome": "promoted"}]}, False),
        ({"accuracy": {"after": {"all": 0.8}, "degraded": {"all": 0.1}, "back": {"all": None}}}, False),
        ({"shown": "promotion", "challengers": [{"labels": "true", "outcome": "promoted"}], "rollback": None}, True),
        ({"shown": "useless", "challengers": [{"labels": "shuffled", "outcome": "rejected"}]}, True),
        ({"shown": "useless", "challengers": [{"labels": "shuffled", "outcome": "promoted"}]}, False),
    ],
)
def test_a_run_passes_only_when_it_showed_what_it_should(changes: dict[str, Any], good: bool) -> None:
    """Each thing that a run is there to show is needed."""
    assert passed(report(**changes)) is good


def test_a_rollback_is_shown_alone() -> None:
    """It shows a useless adapter itself; other damage would hide which one the judge answered."""
    with pytest.raises(Refused, match="--rollback goes alone"):
        main(shown=Shown(rollback=True, chaos=True), keep=False, as_json=False)
