"""The router among several arms: masks hold whatever is learnt, shares are what is drawn, a decision is the same everywhere."""

import base64
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router import choose, decide, learner, masks, model, snapshot
from agents.router.basis import Basis
from agents.router.observed import NEVER, Hit, Observed, Policies
from infra.settings import process_environment
from schemas import ids
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused, CachedAnswer, DecisionRouted, Message, Noticed, RequestSubmitted
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter, RouterArm
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, CacheSettings, EmergencySettings, Price, RoutingSettings
from streams.shapes import Event, Place, Record

NOW = 1_790_000_000_000
BASIS = Basis.random(1)
NAMES = ("big", "outside", "small", "spare")
STRATEGIES = ("fixed", "privacy_first", "cost_optimized", "quality_optimized", "balanced")


def event_of(payload, offset=7, topic="ratchet.requests"):
    key = payload.event_key()
    record = Record(topic, 1, offset, key.encode(), b"", (), NOW)
    return Event(f"id-{key}", key, payload, "test", "", Place(topic, 1, offset), record)


def arms(**changes):
    made = {
        "small": Arm(arm="small", base="sha256:s", nano_usd_out=10, context_tokens=0),
        "big": Arm(arm="big", base="sha256:b", nano_usd_out=100, capabilities=("tools",)),
        "spare": Arm(arm="spare", base="sha256:p", nano_usd_out=50, region="eu"),
        "outside": Arm(arm="outside", provider="openai_http", model="m", url="https://x", nano_usd_out=500),
    }
    return tuple((made | changes).values())


def route(**routing):
    told = {"strategy": "balanced", "arms": ("big", "spare", "outside"), "warm_share": 0.0} | routing
    return Route(route="r", compliance="off", arms=arms(), champion="small", routing=RoutingSettings(**told))


def learnt(qualities, warm=True, code=model.CODE, **changes):
    """`policy.router` in which each arm's quality is what is said, for every text; and its factors."""
    rows, factors = [], {}
    for arm, quality in qualities.items():
        posterior = learner.prior([(1, 1.0), (BASIS.size - 1, 1e6)])
        x = np.zeros(BASIS.size, np.int16)
        x[0] = learner.ONE
        for _ in range(200):
            posterior = learner.observe(posterior, x, quality)
        shot = snapshot.snapshot_of(posterior)
        rows.append(RouterArm(arm=arm, labels=400, mean=base64.b64encode(shot.mean.to_bytes()).decode(), tokens_out=8))
        factors[arm] = shot.factor.to_bytes()
    blob = model.factors_of(factors)
    told = {"dims": BASIS.size, "factors": ids.digest(blob), "warm": warm, "code": code} | changes
    return PolicyRouter(at_ms=NOW, route="r", version=3, champion="small", arms=tuple(rows), **told), blob


GOOD = {"small": 600_000, "big": 800_000, "spare": 700_000, "outside": 900_000}


def policies(made=None, *, live=NAMES, router=None, full=(), shut=(), **fleet):
    made = made or route()
    known, blob = router or learnt(GOOD)
    rows = tuple(
        LiveArm(
            route="r", arm=name, adapter=None, replicas=1, cap=1, in_flight=int(name in full),
            open_until_ms=NOW + 5_000 if name in shut else 0,
        )
        for name in live
    )  # fmt: skip
    told = {"champion": "small"} | fleet
    return Policies(
        event_of(PolicyRoute(at_ms=NOW, version=1, route="r", settings=made)),
        event_of(PolicyFleet(at_ms=NOW, version=2, route="r", arms=made.arms, **told)),
        (event_of(PolicyLive(at_ms=NOW, version=5, instance="i", arms=rows, until_ms=NOW + 9_000)),),
        router=event_of(known),
        model=model.model_of(known, BASIS, blob),
    )


def request(name="q1", **changes):
    fields = {"at_ms": NOW, "route": "r", "request_id": name, "messages": (Message(role="user", content="why so?"),)}
    return RequestSubmitted(**(fields | changes))


def decided(told=None, seen=None, **changes):
    emits = decide.decide(event_of(request(**changes)), told or policies(), seen or Observed(NOW, "d"))
    return emits[0].payload


def test_each_strategy_chooses_what_it_says():
    """The named arm, the best of ours, the cheapest that is good enough, the best, and what is worth it."""
    assert decided(policies(route(strategy="fixed", arm="spare"))).arm == "spare"
    assert decided(policies(route(strategy="privacy_first"))).arm == "big"
    assert decided(policies(route(strategy="cost_optimized"))).arm == "small"
    assert decided(policies(route(strategy="quality_optimized"))).arm == "outside"
    assert decided(policies(route(strategy="balanced", explore=0.0))).arm == "outside"
    dear = BudgetSettings(nano_usd=1000)
    costly = learnt(GOOD, lambda_cost=100_000)
    made = decided(policies(route(budget=dear, explore=0.0), router=costly))
    assert made.arm == "big"
    terms = {row.arm: row.terms for row in made.arms}
    assert terms["outside"].cost_term == 100_000 * 8 * 500 // 1000
    assert terms["outside"].score == terms["outside"].quality - terms["outside"].cost_term


def test_the_cheapest_must_not_be_worse_than_the_champion():
    """An arm below the champion by more than the least gain is not taken however cheap it is."""
    made = Route(
        route="r",
        compliance="off",
        arms=arms(small=Arm(arm="small", base="sha256:s", nano_usd_out=80)),
        champion="small",
        routing=RoutingSettings(strategy="cost_optimized", arms=("big", "spare")),
    )
    assert decided(policies(made, router=learnt(GOOD | {"spare": 700_000}))).arm == "spare"
    assert decided(policies(made, router=learnt(GOOD | {"spare": 500_000}))).arm == "small"


@pytest.mark.parametrize("router", [learnt(GOOD, warm=False), learnt(GOOD, guarded=True)])
def test_the_champion_serves_until_the_learner_may(router):
    """Without labels enough, or with the guard shut."""
    made = decided(policies(router=router))
    assert (made.arm, made.strategy) == ("small", "champion")


def test_a_policy_of_a_later_learner_is_refused():
    """By name, and the decision goes on without it."""
    router, blob = learnt(GOOD, code="learner/2")
    with pytest.raises(Refused, match="learner/2"):
        model.model_of(router, BASIS, blob)
    with pytest.raises(Refused, match="damaged"):
        model.model_of(learnt(GOOD)[0], BASIS, blob[:-9])


@pytest.mark.parametrize(
    ("changes", "masked"),
    [
        ({"sensitivity": "personal"}, {"outside": ("privacy",)}),
        ({"needs": ("tools",)}, {"small": ("capability",), "spare": ("capability",), "outside": ("capability",)}),
    ],
)
def test_a_request_masks_the_arms_that_it_may_not_reach(changes, masked):
    """What is personal stays in house; who needs tools gets an arm that has them."""
    made = decided(**changes)
    assert {row.arm: row.masks for row in made.arms if row.masks} == masked


def test_what_engines_say_masks():
    """Not loaded, breaker open, at its cap."""
    made = decided(policies(live=("small", "big", "spare"), full=("big",), shut=("spare",)))
    assert {row.arm: row.masks for row in made.arms} == {
        "small": (), "big": ("busy",), "spare": ("breaker",), "outside": ("not_live",),
    }  # fmt: skip
    assert (made.arm, made.chain) == ("small", ())


def test_a_region_a_price_and_a_window_mask():
    """Residency, a price that nobody knows where there is a budget, a prompt that does not fit."""
    unpriced = Arm(arm="outside", provider="anthropic", model="m", region="eu", nano_usd_out=3)
    short = Arm(arm="spare", base="sha256:p", region="eu", context_tokens=70)
    eu = Arm(arm="small", base="sha256:s", region="eu")
    made = Route(
        route="r",
        compliance="off",
        arms=arms(outside=unpriced, spare=short, small=eu),
        champion="small",
        routing=RoutingSettings(
            strategy="balanced",
            arms=NAMES,
            regions=("eu",),
            budget=BudgetSettings(nano_usd=5),
            warm_share=0,
            prices=(Price(arm="outside", since_ms=NOW + 1),),
        ),
    )
    told = decided(policies(made), messages=(Message(role="user", content="x" * 40),))
    assert {row.arm: row.masks for row in told.arms} == {
        "small": (), "big": ("residency",), "spare": ("context",), "outside": ("price_unknown",),
    }  # fmt: skip


def spent(pct, **changes):
    return Observed(NOW, "d", told=Noticed(spent_nano_usd=pct * 10, requests=9, **changes))


def test_a_spent_budget_masks_what_costs_until_nothing_is_left():
    """At 100 % nothing that costs serves; where everything does, an allotment of a tenth more, then a refusal that says when."""
    made = route(budget=BudgetSettings(nano_usd=1, requests=1000, period_s=60), strategy="cost_optimized")
    free = Route(
        route="r",
        compliance="off",
        arms=arms(small=Arm(arm="small", base="sha256:s")),
        champion="small",
        routing=made.routing,
    )
    assert {row.arm: row.masks for row in decided(policies(free), spent(100)).arms}["big"] == ("budget",)
    late = decided(policies(made), spent(105))
    assert (late.arm, late.routing.relaxed) == ("small", ("budget",))
    refused = decided(policies(made), spent(110))
    assert isinstance(refused, AnswerRefused)
    assert (refused.kind, refused.retry_after_ms) == ("no-arm", 60_000 - NOW % 60_000)
    assert set(refused.masks["big"]) == {"budget"}


def test_while_the_ledger_is_away_only_outside_arms_are_shut():
    """Ours go on; an outside arm spends this router's share, then nothing."""
    made = route(budget=BudgetSettings(nano_usd=1, requests=1000))
    found = {row.arm: row.masks for row in decided(policies(made), spent(100, away=True)).arms}
    assert found == {"small": (), "big": (), "spare": (), "outside": ("budget",)}


def test_a_deadline_masks_what_is_too_slow_and_gives_way_when_none_is_left():
    """`slo` is taken back before the request is refused; a mask that may pass is waited for."""
    slow = {name: Arm(arm=name, base=f"sha256:{name}", expected_ms=900) for name in ("small", "big", "spare")}
    made = Route(
        route="r",
        compliance="off",
        arms=arms(**slow),
        champion="small",
        routing=RoutingSettings(strategy="balanced", arms=("big", "spare")),
    )
    told = decided(policies(made), deadline_ms=500)
    assert told.routing.relaxed == ("slo",)
    with pytest.raises(Unavailable, match="not_live"):
        decided(policies(made, live=()))


def test_the_emergency_arm_stands_last_and_only_within_its_ledger():
    """It is in no choice; it ends the chain, or serves alone, while its count and its money last."""
    made = route(arms=("big",), emergency=EmergencySettings(arm="outside", share=0.02, nano_usd=100_000))

    def at(count, nano=0):
        return Observed(NOW, "d", told=Noticed(emergency_count=count, emergency_nano_usd=nano, requests_24h=1000))

    assert decided(policies(made), at(3)).chain[-1] == "outside"
    alone = decided(policies(made, live=("outside",)), at(3))
    assert (alone.arm, alone.strategy, alone.routing.emergency) == ("outside", "emergency", True)
    for seen in (at(20), at(3, 99_999), Observed(NOW, "d")):
        assert "outside" not in decided(policies(made), seen).chain


def test_a_kept_answer_is_given_without_a_model():
    """A hit of an arm that may answer; of a masked one it is no hit. It counts for no learner: its strategy says cache."""
    made = route(cache=CacheSettings(exact=True))
    answer = CachedAnswer(key="k", kind="exact", result_id="res", text="so", arm="big")
    told = decided(policies(made), Observed(NOW, "d", hits=(Hit("big", answer),), keys={"big": "k", "small": "s"}))
    assert (told.arm, told.strategy, told.cached, told.cache_key, told.chain) == ("big", "cache", answer, "", ())
    shut = decided(policies(made, shut=("big",)), Observed(NOW, "d", hits=(Hit("big", answer),), keys={"small": "s"}))
    assert shut.cached is None


def test_a_used_up_quota_is_refused_with_the_time_to_wait():
    """The sender is told when to ask again."""
    refused = decided(seen=Observed(NOW, "d", quota_ms=1500))
    assert (refused.kind, refused.field, refused.retry_after_ms) == ("quota", "tenant", 1500)
    never = decided(seen=Observed(NOW, "d", quota_ms=NEVER))
    assert (never.field, never.retry_after_ms) == ("messages", None)


def test_shares_are_what_is_drawn():
    """Over 20,000 requests each arm is drawn as often as its logged propensity says (chi-square, 3 degrees, 0.1 %)."""
    told = policies(router=learnt({"small": 760_000, "big": 780_000, "spare": 770_000, "outside": 775_000}))
    first = decided(told)
    shares = {row.arm: row.propensity for row in first.arms}
    assert sum(shares.values()) == 65_536
    assert sum(1 for share in shares.values() if share) > 1
    drawn = Counter(choose.drawn(shares, ids.coin(f"id-q{number}", "arm")) for number in range(20_000))
    expected = {arm: 20_000 * share / 65_536 for arm, share in shares.items() if share}
    assert sum((drawn[arm] - mean) ** 2 / mean for arm, mean in expected.items()) < 16.3
    assert set(drawn) <= set(expected)


def test_a_rollout_is_in_the_marginal_and_monotone():
    """Part to the challenger, the rest as the strategy says; who had it keeps it when the share rises."""
    made = route(arms=("big", "outside"), strategy="quality_optimized")

    def at(share, name):
        return decided(policies(made, challenger="spare", rollout_bp=share, experiment="e"), request_id=name)

    low = {name: at(2000, name).arm for name in (f"n{number}" for number in range(60))}
    assert all(at(5000, name).arm == "spare" for name, arm in low.items() if arm == "spare")
    told = {row.arm: row.propensity for row in at(2000, "n1").arms}
    assert told["spare"] == 2000 * 65_536 // 10_000
    assert told["outside"] == 65_536 - told["spare"]


@settings(deadline=None, max_examples=150)
@given(
    strategy=st.sampled_from(STRATEGIES),
    live=st.sets(st.sampled_from(NAMES)),
    shut=st.sets(st.sampled_from(NAMES)),
    full=st.sets(st.sampled_from(NAMES)),
    qualities=st.lists(st.integers(-(10**6), 2 * 10**6), min_size=4, max_size=4),
    sensitivity=st.sampled_from([None, "public", "personal", "secret"]),
    needs=st.sampled_from([(), ("tools",)]),
    pct=st.integers(0, 130),
    rollout=st.integers(0, 10_000),
    name=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
    kept=st.sampled_from([None, *NAMES]),
)
def test_no_mask_is_ever_broken(strategy, live, shut, full, qualities, sensitivity, needs, pct, rollout, name, kept):
    """Whatever is learnt, observed or drawn: a masked arm does not serve, follow, hedge or shadow, and shares sum to 65,536."""
    made = route(
        strategy=strategy,
        hedge_share=0.05,
        budget=BudgetSettings(nano_usd=100, requests=10),
        emergency=EmergencySettings(arm="outside"),
        arms=("big", "spare"),
        warm_share=1.0,
    )
    told = policies(
        made, live=tuple(live), shut=tuple(shut), full=tuple(full), challenger="spare", rollout_bp=rollout,
        shadow_bp=5000, router=learnt(dict(zip(NAMES, qualities, strict=True))),
    )  # fmt: skip
    hit = CachedAnswer(key="k", kind="exact", result_id="x", text="t")
    seen = Observed(
        NOW, "d", session="s" if kept else None, session_arm=kept, hits=(Hit("big", hit),) if kept == "big" else (),
        told=Noticed(spent_nano_usd=pct * 10, requests=5, emergency_count=0, emergency_nano_usd=0, requests_24h=500),
    )  # fmt: skip
    event = event_of(request(name, sensitivity=sensitivity, needs=needs))
    try:
        emits = decide.decide(event, told, seen)
    except Unavailable:
        return
    assert decide.decide(event, told, seen) == emits
    out = emits[0].payload
    if isinstance(out, AnswerRefused):
        assert all(out.masks.values())
        return
    shut_arms = {row.arm for row in out.arms if row.masks}
    used = {out.arm, *out.chain, *out.shadows, *out.hedges, *(emit.payload.arm for emit in emits[1:])}
    assert not used & shut_arms
    shares = {row.arm: row.propensity for row in out.arms}
    assert sum(shares.values()) == 65_536
    assert all(not share or arm not in shut_arms for arm, share in shares.items())
    if sensitivity in ("personal", "secret"):
        assert "outside" not in used
        assert out.routing.features == ""
    never = {row.arm: set(row.masks) for row in out.arms}
    assert not any({"privacy", "capability"} & never[arm] for arm in used)


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import test_routing as t
for number in range(30):
    print(t.decided(t.policies(router=t.learnt({{"small": 760000, "big": 780000, "spare": 771000, "outside": 775000}})),
          request_id=f"n{{number}}", messages=(t.Message(role="user", content="Is 7 + %d prime? Show why." % number),)).model_dump_json())
"""


def test_the_same_event_and_policy_give_the_same_bytes_in_another_process():
    """With another hash seed and another number of threads."""
    source = PROGRAM.format(folder=os.path.dirname(__file__))  # noqa: PTH120
    said = []
    for seed, threads in (("1", "1"), ("77", "2")):
        env = process_environment() | {
            "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True)
        said.append(done.stdout)
    assert said[0] == said[1]
    rows = [json.loads(line) for line in said[0].splitlines()]
    assert len(rows) == 30
    assert all(len(base64.b64decode(row["routing"]["features"])) == 2 * BASIS.size for row in rows)


def test_every_mask_has_words():
    """What `trace` and a refusal say of it."""
    assert set(masks.WORDS) == set(masks.CODES)


def test_price_tables_take_effect_at_their_time():
    """The newest that has begun; before the first nobody knows the price."""
    prices = (
        Price(arm="big", since_ms=NOW - 10, nano_usd_out=7),
        Price(arm="big", since_ms=NOW + 10, nano_usd_out=70),
        Price(arm="spare", since_ms=NOW + 1, nano_usd_out=1),
    )
    made = decided(policies(route(prices=prices, budget=BudgetSettings(nano_usd=10**6))))
    told = {row.arm: (row.terms.nano_usd_out, row.terms.cost_nano_usd, row.masks) for row in made.arms}
    assert told["big"] == (7, 56, ())
    assert told["spare"] == (0, None, ("price_unknown",))
    assert isinstance(made, DecisionRouted)
