"""`ratchet trace` says in plain words why a request went where it went."""

import json

from schemas.events import ArmChoice, ArmTerms, CachedAnswer, Noticed, RoutingTerms
from tools.cli.reasons import reasons, usd

TERMS = RoutingTerms(
    strategy="balanced",
    sensitivity="internal",
    complexity="simple",
    points={"questions": 1},
    lambda_cost=100_000,
    preferred="big",
    explored=True,
    period=7,
    reserved_nano_usd=4_500,
    tokens_in=12,
    observed=Noticed(spent_nano_usd=2_000_000),
    warm=True,
    notes=("a note",),
)
ARMS = (
    ArmChoice(
        arm="big",
        adapter=None,
        propensity=62_260,
        terms=ArmTerms(
            quality=800_000, deviation=30_000, cost_nano_usd=4_500, latency_ms=40, cost_term=45_000, score=755_000
        ),
    ),
    ArmChoice(arm="small", adapter=None, propensity=3_276, terms=ArmTerms()),
    ArmChoice(arm="out", adapter=None, propensity=0, masks=("privacy",)),
)


def decision(**changes):
    told = {"arm": "small", "strategy": "balanced", "draw": 65_000, "arms": ARMS, "routing": TERMS, "cached": None}
    return json.loads(json.dumps(told | changes, default=lambda part: part.model_dump()))


def test_every_term_of_the_score_is_said():
    """Chance, draw, budget, masks and each term, of every arm."""
    said = reasons(decision())
    assert said[0] == (
        "small: quality less what cost and latency are worth, exploring; it had a chance of 5.0% (draw 65000 of 65536)"
    )
    assert "preferred was big" in said
    assert "internal, simple (questions 1), about 12 tokens in" in said
    assert any("spent $0.002; a budget's cost is worth 0.100 of quality; reserved $0.0000045" in line for line in said)
    assert "big: 95.0%, score 0.755 = quality 0.800 (± 0.030) - cost 0.045 ($0.0000045) - latency 0.000 (40 ms)" in said
    assert "small: 5.0%, not learnt yet, price unknown, 0 ms" in said
    assert "out: 0.0%, masked: privacy (it may not see what is so sensitive)" in said
    assert said[-1] == "a note"


def test_a_cached_answer_and_a_cold_learner_are_said():
    """What was given without a model, and why the champion serves."""
    cold = TERMS.model_copy(update={"warm": False, "frozen": True, "explored": False})
    answer = CachedAnswer(key="k", kind="exact", result_id="res-1", text="private words")
    said = reasons(decision(strategy="cache", cached=answer, routing=cold))
    assert "the learner is not warm yet and is frozen" in said
    assert "exact answer of res-1: no model is asked" in said
    assert not any("private" in line for line in said)


def test_a_decision_that_weighed_nothing_says_nothing():
    """As every decision before this one."""
    assert reasons(decision(routing=None)) == []
    assert usd(0) == "$0"
