"""A trial of another routing policy: who is in stays in, the log says the marginal, and no mask is broken."""

import dataclasses
from collections import Counter
from itertools import pairwise

import pytest
import routed
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router import rollout
from agents.router.observed import Observed
from schemas.errors import Unavailable
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, EmergencySettings, Price, RoutingSettings

WHOLE = 65_536


def shares(decision):
    return {row.arm: row.propensity for row in decision.arms}


def trial(share, new=routed.NEW, **changes):
    return routed.policies(routed.route(trial=new, trial_share=share), **changes)


def test_raising_the_share_never_moves_a_session_back():
    """Whom the trial decides for at 20 % it decides for at 50 and 80 %; then nearly for all."""
    names = [f"s{number}" for number in range(400)]
    held = {
        share: {name for name in names if rollout.decides(routed.route(trial=routed.NEW, trial_share=share), name)}
        for share in (0.0, 0.2, 0.5, 0.8, 1.0)
    }
    rising = [held[share] for share in sorted(held)]
    assert all(one <= other for one, other in pairwise(rising))
    assert [len(one) for one in (rising[0], rising[-1])] == [0, len(names)]
    assert [round(len(one) / len(names), 1) for one in rising[1:4]] == [0.2, 0.5, 0.8]


def test_a_session_has_one_policy_whatever_it_asks():
    """The bucket is the session's, and of a request without one its own."""
    told = trial(0.5)
    said = [
        routed.decided(told, f"q{number}", seen=Observed(routed.NOW, "d", session="x")).routing.trial
        for number in range(20)
    ]
    assert len(set(said)) == 1
    alone = {routed.decided(told, f"q{number}").routing.trial for number in range(20)}
    assert alone == {True, False}


def test_what_is_logged_is_the_marginal_whichever_decided():
    """At a half, half of each policy's shares; the same for both kinds of request. Each arm is drawn as often (chi-square, 0.1 %)."""
    own, new = (
        shares(routed.decided(routed.policies(routed.route()), "q")),
        shares(routed.decided(routed.policies(routed.route(routed.NEW)), "q")),
    )
    made = [routed.decided(trial(0.5), f"q{number}") for number in range(3000)]
    logged = {tuple(sorted(shares(row).items())) for row in made}
    assert len(logged) == 1
    (both,) = (dict(row) for row in logged)
    assert sum(both.values()) == WHOLE
    assert all(abs(both[arm] - (own[arm] + new[arm]) / 2) <= 2 for arm in both)
    drawn = Counter(row.arm for row in made)
    assert sum((drawn[arm] - 3000 * share / WHOLE) ** 2 / (3000 * share / WHOLE) for arm, share in both.items()) < 10.8


def test_a_decision_says_who_made_it():
    """The word of its strategy, a mark, and what its own policy compared the arms by."""
    made = [routed.decided(trial(0.5), f"q{number}") for number in range(40)]
    tried = {row.strategy: row for row in made if row.routing.trial}
    own = {row.strategy: row for row in made if not row.routing.trial}
    assert set(tried) == {"trial/balanced"}
    assert set(own) == {"balanced"}
    late = {name: {row.arm: row.terms.latency_term for row in one.arms} for name, one in (tried | own).items()}
    assert late == {"trial/balanced": {"big": 0, "small": 0}, "balanced": {"big": 50_000, "small": 0}}
    assert tried["trial/balanced"].routing.preferred == "big"
    assert own["balanced"].routing.preferred == "small"


def test_without_a_share_nothing_changes():
    """A trial at 0 % decides as if there were none, to the byte."""
    plain, off = routed.policies(routed.route()), trial(0.0)
    for number in range(10):
        assert routed.decided(off, f"q{number}") == routed.decided(plain, f"q{number}")


def test_a_route_that_weighs_nothing_can_try_one_that_does():
    """Features are logged for both sides, so that the trial can learn."""
    bare = routed.policies(routed.route(RoutingSettings(warm_share=0.0), trial=routed.NEW, trial_share=0.5))
    made = [routed.decided(bare, f"q{number}") for number in range(20)]
    assert {row.routing.trial for row in made} == {True, False}
    assert all(row.routing.features for row in made)
    assert {row.arm for row in made if not row.routing.trial} == {"small"}


def test_a_trial_of_masked_arms_leaves_the_running_policy():
    """Where none of its arms may answer it decides for nobody, and has no share."""
    fixed = RoutingSettings(strategy="fixed", arm="big", warm_share=0.0)
    made = routed.route(trial=fixed, trial_share=0.5)
    both = routed.policies(made)
    live = tuple(row for row in both.live[0].data.arms if row.arm != "big")
    shut = dataclasses.replace(
        both, live=(dataclasses.replace(both.live[0], data=both.live[0].data.model_copy(update={"arms": live})),)
    )
    for number in range(20):
        one = routed.decided(shut, f"q{number}")
        assert (one.arm, shares(one)) == ("small", {"big": 0, "small": WHOLE})


def test_the_judge_goes_before_a_trial():
    """Its challenger has its share of all, the trial its part of the rest, and shares sum to the whole."""
    told = trial(0.5, challenger="big", rollout_bp=3000, experiment="e")
    made = [routed.decided(told, f"q{number}") for number in range(60)]
    (logged,) = {tuple(sorted(shares(row).items())) for row in made}
    assert sum(share for _, share in logged) == WHOLE
    assert {row.routing.trial for row in made if row.strategy == "rollout"} == {False}
    assert {"rollout", "balanced", "trial/balanced"} == {row.strategy for row in made}


@settings(deadline=None, max_examples=60)
@given(
    own=st.sampled_from(["fixed", "cost_optimized", "quality_optimized", "balanced"]),
    new=st.sampled_from(["fixed", "cost_optimized", "quality_optimized", "balanced"]),
    bp=st.integers(0, 10_000),
    judged=st.integers(0, 10_000),
    live=st.sets(st.sampled_from(["small", "big"])),
    kept=st.sampled_from([None, "small", "big"]),
    name=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
)
def test_no_mask_is_broken_by_a_trial(own, new, bp, judged, live, kept, name):
    """Whoever decides: a masked arm has no share, does not serve, follow or shadow; shares sum to 65,536."""
    made = routed.route(
        RoutingSettings(strategy=own, arms=("big",), warm_share=1.0),
        trial=RoutingSettings(strategy=new, arms=("big",), warm_share=1.0, alpha=1.0),
        trial_share=bp / 10_000,
    )
    both = routed.policies(made, challenger="big", rollout_bp=judged, experiment="e", shadow_bp=5000)
    rows = tuple(row for row in both.live[0].data.arms if row.arm in live)
    seen = dataclasses.replace(
        both, live=(dataclasses.replace(both.live[0], data=both.live[0].data.model_copy(update={"arms": rows})),)
    )
    at = Observed(routed.NOW, "d", session="s" if kept else None, session_arm=kept)
    try:
        one = routed.decided(seen, name, seen=at)
    except Unavailable:
        return
    shut = {row.arm for row in one.arms if row.masks}
    assert sum(shares(one).values()) == WHOLE
    assert shares(one)[one.arm] > 0
    assert not shut & {one.arm, *one.chain, *one.shadows, *(arm for arm, share in shares(one).items() if share)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget": BudgetSettings(nano_usd=5)}, "trial.budget"),
        ({"prices": (Price(arm="big", nano_usd_out=1),)}, "trial.prices"),
        ({"sensitivity": "public", "regions": ("eu",)}, "trial.sensitivity, trial.regions"),
        ({"basis": "sha256:x"}, "trial.basis"),
        ({"strategy": "privacy_first"}, "trial.strategy"),
        ({"emergency": EmergencySettings(arm="big")}, "trial.emergency"),
        ({"arms": ("nobody",)}, r"trial.arms\[0\]: 'nobody' is not an arm"),
    ],
)
def test_a_trial_chooses_otherwise_and_nothing_else(changes, named):
    """What is the whole route's is refused by name: what may be asked, learnt and spent."""
    new = RoutingSettings(**(routed.NEW.model_dump() | changes))
    with pytest.raises(ValueError, match=named):
        routed.route(trial=new, trial_share=0.2)


def test_a_share_needs_a_trial():
    """It is refused without one."""
    with pytest.raises(ValueError, match="trial_share: there is no table trial"):
        Route(route="r", compliance="off", arms=(Arm(arm="small", base="b"),), champion="small", trial_share=0.2)
