"""Another policy in the cases of the log: it chooses what the router would have chosen, and is judged by what came of it."""

import pytest
import routed
from routed import NOW, RUNNING, big_is_better, big_is_worse, case_of, decided, log, policies, today

from agents.router.hindsight import Today, look_back, newest
from agents.router.model import model_of
from agents.router.observed import Observed
from agents.router.ope import judge
from schemas.events import CaseAmended, CaseArm
from schemas.routing import BudgetSettings, Price, RoutingSettings

WHOLE = 65_536


def settings(**changes):
    return RoutingSettings(**(RUNNING.model_dump() | changes))


OTHERS = [
    routed.NEW,
    settings(latency_weight=0.01),
    settings(slo_ms=150),
    settings(slo_ms=None),
    settings(explore=0.05, floor=0.01),
    settings(alpha=0.02),
    settings(arms=()),
    settings(strategy="quality_optimized"),
    settings(strategy="cost_optimized"),
    settings(strategy="privacy_first"),
    settings(strategy="fixed", arm="big"),
    settings(regions=("eu",)),
    settings(prices=(Price(arm="big", nano_usd_out=7), Price(arm="small", nano_usd_out=9))),
]


@pytest.mark.parametrize("new", OTHERS)
def test_it_chooses_what_the_router_would_have(new):
    """For each case the router, given the new settings, logs the very shares; where it would refuse, the case is left out."""
    told = log(6, big_is_better)
    found = look_back(told, new, today())
    if new.regions:  # no arm computes there
        assert found.left_out == {"no arm was left": 6}
        return
    again = policies(routed.route(new))
    for row, case in zip(found.rows, told, strict=True):
        made = decided(again, case.request_id, at_ms=case.assigned_at_ms)
        assert {arm: share for arm, share in row.target.items() if share} == {
            one.arm: one.propensity for one in made.arms if one.propensity
        }


def test_the_running_policy_chooses_again_what_it_chose():
    """Its shares are the logged ones, and nothing is left out."""
    told = log(20, big_is_better)
    found = look_back(told, routed.NEW, today())
    assert (found.cases, len(found.rows), found.left_out) == (20, 20, {})
    assert all(row.current == row.propensities for row in found.rows)
    assert [row.arm for row in found.rows] == [case.arm for case in told]
    assert {row.reward for row in found.rows} <= {450_000, 550_000, 850_000, 950_000}


def test_a_log_that_favours_the_new_policy_passes():
    """It prefers the arm that was graded higher: the gain is found, within what sampling allows."""
    found = look_back(log(1500, big_is_better), routed.NEW, today())
    verdict = judge(found.rows)
    assert verdict.may_roll_out
    gain = 0.4 * (52_429 - 13_107) / WHOLE
    assert verdict.dr.difference.low < gain < verdict.dr.difference.high
    assert verdict.snips.difference.low > 0
    assert verdict.cost_nano.difference.value > 0
    tight = judge(found.rows, budget_nano=100)
    assert any("the budget is 100" in why for why in tight.holds)


def test_a_worse_policy_fails():
    """Though the log carries it."""
    verdict = judge(look_back(log(1500, big_is_worse), routed.NEW, today()).rows)
    assert verdict.tells == ()
    assert len(verdict.holds) == 1
    assert "quality may fall" in verdict.holds[0]


def test_a_trials_log_carries_both_policies():
    """Half of it was decided by each: the same 400 cases that could not tell without a trial can now, and find the gain."""
    made = routed.route(trial=routed.NEW, trial_share=0.5)
    found = look_back(log(400, big_is_better, policies(made)), routed.NEW, today(made))
    verdict = judge(found.rows)
    assert all(abs(row.propensities["big"] - WHOLE // 2) <= 1 for row in found.rows)
    assert verdict.may_roll_out
    assert verdict.dr.difference.low < 0.24 < verdict.dr.difference.high
    alone = judge(look_back(log(400, big_is_better), routed.NEW, today()).rows)
    assert any("at least 200 are needed" in why for why in alone.tells)


def test_a_log_without_support_is_refused():
    """One that never draws the other arm, and one that is too short."""
    still = settings(explore=0.0)
    found = look_back(log(400, big_is_better, policies(routed.route(still))), routed.NEW, today(routed.route(still)))
    verdict = judge(found.rows)
    assert any("could not be drawn in this log" in why for why in verdict.tells)
    assert any("does not explore" in note for note in found.notes)
    short = judge(look_back(log(50, big_is_better), routed.NEW, today()).rows)
    assert any("at least 200 are needed" in why for why in short.tells)
    assert not judge(look_back([], routed.NEW, today()).rows).may_roll_out


def test_another_ridge_cannot_be_judged():
    """Its predictions were never made."""
    found = look_back(log(3, big_is_better), settings(ridge=0.5), today())
    assert not found.rows
    assert "ridge" in found.holds[0]


def test_another_basis_cannot_be_judged():
    """Nothing learnt carries over to it."""
    found = look_back(log(3, big_is_better), settings(basis="sha256:other"), today())
    assert (found.rows, len(found.holds)) == ((), 1)


def test_what_is_left_out_is_counted_by_reason():
    """Cache, personal, an unlearnt router, an emergency, an arm that was another model: all known before the draw."""
    (case,) = log(1, big_is_better)
    terms = case.routing
    fleet = today().fleet
    replaced = Today(
        today().route,
        fleet.model_copy(
            update={"arms": tuple(arm.model_copy(update={"adapter": "sha256:new"}) for arm in fleet.arms)}
        ),
        today().router,
        NOW,
    )
    for changes, why, known in (
        ({"source": "cache", "strategy": "cache"}, "answered by the cache", today()),
        ({"routing": None}, "nothing was weighed", today()),
        ({"routing": terms.model_copy(update={"sensitivity": "personal", "features": ""})}, "personal", today()),
        ({"routing": terms.model_copy(update={"basis": "x"})}, "another text basis", today()),
        ({"routing": terms.model_copy(update={"features": ""})}, "without features", today()),
        ({"routing": terms.model_copy(update={"warm": False})}, "the champion served", today()),
        ({"routing": terms.model_copy(update={"guarded": True})}, "the champion served", today()),
        ({"routing": terms.model_copy(update={"frozen": True})}, "the champion served", today()),
        ({"routing": terms.model_copy(update={"emergency": True})}, "no arm was left", today()),
        ({}, "was another model", replaced),
    ):
        found = look_back([case.model_copy(update=changes)], routed.NEW, known)
        ((said, count),) = found.left_out.items()
        assert (why in said, count, found.rows) == (True, 1, ())


def test_a_later_turn_stands_under_its_sessions_draw():
    """It is sticky; where its first turn lies before the log it is left out, and nothing else is."""
    told = policies(routed.route())
    first = decided(told, "q1", seen=Observed(NOW, "d", session="s"))
    second = decided(told, "q2", at_ms=NOW + 9, seen=Observed(NOW + 9, "d", session="s", session_arm=first.arm))
    assert second.strategy == "session"
    both = [case_of(first, 900), case_of(second, 800)]
    found = look_back(both, routed.NEW, today())
    assert [(row.cluster, row.sticky) for row in found.rows] == [("s", False), ("s", True)]
    assert found.rows[1].target == {"big": WHOLE, "small": 0}  # a later turn explores nothing
    late = look_back(both[1:], routed.NEW, today())
    assert (late.rows, late.left_out) == ((), {"its session began before these cases": 1})


def test_the_newest_amendment_is_the_case():
    """Wherever in the log it stands; cases are in the order in which they were assigned."""
    one, other = log(2, lambda arm, number: 500)
    fields = one.model_dump() | {"amends": "x", "arms": (one.arms[0].model_copy(update={"grade": 0}).model_dump(),)}
    amended = CaseAmended.model_validate(fields)
    assert [case.request_id for case in newest([other, one, amended])] == ["q0", "q1"]
    assert [row.reward for row in look_back([other, one, amended], routed.NEW, today()).rows] == [0, 500_000]


def test_a_fallbacks_answer_counts_for_the_arm_that_was_drawn():
    """The grade of who served, of what was paid in all; a request that nobody answered has no grade."""
    made = decided(policies(routed.route()), "q1")
    other = "small" if made.arm == "big" else "big"
    fell = (
        CaseArm(arm=other, shadow=False, status="completed", grade=700),
        CaseArm(arm=made.arm, shadow=False, status="failed"),
    )
    (row,) = look_back([case_of(made, 1, arm=other, arms=fell, cost_nano_usd=5)], routed.NEW, today()).rows
    assert (row.arm, row.reward, row.cost_nano) == (made.arm, 700_000, 5)
    (lost,) = look_back([case_of(made, 1, arms=fell[1:], cost_nano_usd=None)], routed.NEW, today()).rows
    assert (lost.reward, lost.cost_nano) == (None, 0)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, (900_000, WHOLE)),
        ({"verdict_kind": "person", "sampled": True, "label_propensity": 0.25}, (900_000, WHOLE // 4)),
        ({"verdict_kind": "person", "sampled": False, "label_propensity": 0.25}, (None, WHOLE)),
        (
            {"verdict_kind": "person", "grader": "model", "human_share": 0.5, "human_sampled": True},
            (900_000, WHOLE // 2),
        ),
        ({"verdict_kind": "person", "grader": "model", "human_share": 0.5, "sampled": True}, (None, WHOLE)),
        (
            {
                "verdict_kind": "person",
                "grader": "model",
                "human_share": 0.5,
                "action": "hold",
                "settled": "released",
                "sampled": True,
                "label_propensity": 1.0,
            },
            (900_000, WHOLE),
        ),
        ({"verdict_kind": "reference", "settled": "withheld", "withheld": "gate"}, (None, WHOLE)),
        ({"verdict_kind": "reference", "action": "hold", "settled": ""}, (None, WHOLE)),
    ],
)
def test_a_grade_counts_by_the_chance_it_was_asked_with(changes, label):
    """A reference always; people by the coin of review or, beside a judge model, by theirs; what nobody drew or got not at all."""
    made = decided(policies(routed.route()), "q1")
    (row,) = look_back([case_of(made, 900, **changes)], routed.NEW, today()).rows
    assert (row.reward, row.label_propensity) == label


def test_other_prices_change_what_both_cost():
    """What answers took, by the new table; the shares follow."""
    told = log(40, big_is_better)
    prices = (Price(arm="big", nano_usd_in=1, nano_usd_out=2), Price(arm="small", nano_usd_out=3))
    found = look_back(told, settings(prices=prices), today())
    assert {(row.arm, row.cost_nano) for row in found.rows} == {("big", 10 + 16), ("small", 24)}
    assert any("prices differ" in note for note in found.notes)


def test_another_budget_is_paced_anew():
    """λ settles where the policy's expected cost is the budget's, though none was logged; a mask for money spent then does not count."""
    free = settings(latency_weight=0.0, slo_ms=None)
    told = log(1200, big_is_better, policies(routed.route(free)))
    assert all(case.routing.preferred == "big" for case in told)
    known = today(routed.route(free))
    tight = settings(latency_weight=0.0, slo_ms=None, budget=BudgetSettings(nano_usd=300))
    found = look_back(told, tight, known)
    late = found.rows[600:]
    expected = sum((800 * row.target["big"] + 80 * row.target["small"]) / WHOLE for row in late) / len(late)
    assert expected == pytest.approx(300, rel=0.1)
    assert any("λ is paced anew" in note for note in found.notes)


def test_a_mask_holds_in_hindsight():
    """What was observed always; that a budget was spent only where the budget is the same."""
    made = decided(policies(routed.route()), "q1")
    budget, other = BudgetSettings(nano_usd=10**6), BudgetSettings(nano_usd=10**7)
    known = today(routed.route(settings(budget=budget)))
    for code, new, shut in (
        ("breaker", settings(latency_weight=0.0, budget=other), True),
        ("not_live", routed.NEW, True),
        ("budget", settings(latency_weight=0.0, budget=budget), True),
        ("budget", settings(latency_weight=0.0, budget=other), False),
    ):
        choices = tuple(row.model_copy(update={"masks": (code,)} if row.arm == "big" else {}) for row in made.arms)
        (row,) = look_back([case_of(made, 900, choices=choices)], new, known).rows
        assert (row.target["big"] == 0) == shut
        assert row.current["big"] == 0


def test_predictions_may_be_the_newest_snapshots():
    """In place of the logged ones; by default nothing of a later model is used."""
    told = log(5, big_is_better)
    router, blob = routed.learnt(big=100_000)
    later = Today(today().route, today().fleet, router, NOW, model_of(router, routed.BASIS, blob))
    assert {row.target["big"] for row in look_back(told, routed.NEW, later).rows} == {0}
    kept = Today(later.route, later.fleet, later.router, NOW)
    assert {row.target["big"] for row in look_back(told, routed.NEW, kept).rows} == {52_429}


def test_calibration_is_of_the_arm_that_answered():
    """What was predicted of it against its grade."""
    gaps = list(look_back(log(300, big_is_better), routed.NEW, today()).calibration.gaps())
    by_arm = {gap.arm: gap for gap in gaps}
    assert by_arm["small"].gap == pytest.approx(-97_000, abs=5_000)
    assert by_arm["big"].gap > 250_000
    assert sum(gap.n for gap in gaps) == 300
