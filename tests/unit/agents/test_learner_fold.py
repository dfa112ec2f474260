"""The learner's fold: what a route's cases teach, when it is published, and that it is the same however it is told."""

import numpy as np
import pytest
from folding import Folding

from agents.router import learning, model
from agents.router.basis import Basis
from agents.router.fold import Learner
from agents.router.state import ARM, CASE
from schemas.events import (
    ArmChoice,
    ArmTerms,
    CaseAmended,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    CommandApply,
    Message,
    ModelPromoted,
    RoutingTerms,
    TrustChanged,
)
from schemas.policies import PolicyRouter
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, CacheSettings, RoutingSettings
from streams.shapes import Emit

T0 = 1_790_000_000_000
BASIS = Basis.random(1)
TEXTS = ("why is the sky blue", "what is 2 + 2", "list three steps to pay", "hello there", "is 91 not prime?")


def route(**changes):
    arms = (Arm(arm="small", base="sha256:s"), Arm(arm="big", base="sha256:b"))
    told = {"strategy": "balanced", "arms": ("big",), "warm_labels": 20} | changes
    return Route(route="r", compliance="off", arms=arms, champion="small", routing=RoutingSettings(**told))


def applied(made=None, at_ms=T0):
    made = made or route()
    return CommandApply(at_ms=at_ms, route="r", operator="op", settings=made)


def case(number, grades, *, kind=CaseClosed, arm="small", terms=True, strategy="balanced", **changes):
    """A closed case: `grades` by arm; the arm that is not `arm` answered in the shadow."""
    text = TEXTS[number % len(TEXTS)] + f" {number}"
    rows = tuple(
        CaseArm(
            arm=name, shadow=name != arm, status="completed", text="t", grade=grade, tokens_in=10, tokens_out=4,
            latency_us=50_000, engine_us=40_000,
        )
        for name, grade in grades.items()
    )  # fmt: skip
    told = RoutingTerms(
        strategy="balanced",
        sensitivity="internal",
        complexity="simple",
        features=model.encoded(BASIS.vector(text)),
        preferred=arm,
        warm=True,
    )
    choices = tuple(
        ArmChoice(
            arm=name, adapter=None, propensity=share, terms=ArmTerms(quality=600_000, deviation=1000, score=600_000)
        )
        for name, share in (("big", 3_276), ("small", 62_260))
    )
    fields = {
        "at_ms": T0 + 1000 * (number + 1), "route": "r", "request_id": f"q{number}", "request_partition": 0,
        "request_offset": number, "decision_id": f"d{number}", "assigned_at_ms": T0 + 1000 * number,
        "window_end_ms": T0 + 1000 * number + 600_000, "arm": arm, "why": "complete", "arms": rows, "choices": choices,
        "messages": (Message(role="user", content=text),), "grader": "reference", "verdict_kind": "reference",
        "routing": told if terms else None, "strategy": strategy,
    }  # fmt: skip
    if kind is CaseAmended:
        fields |= {"amends": "x"}
    return kind(**(fields | changes))


def grades_of(number):
    """The big arm is right on every text, the small one on those without a digit sum."""
    return {"small": 1000 if number % 5 in (0, 3) else 0, "big": 1000}


def taught(count=80, made=None):
    folding = Folding(Learner())
    folding.take(applied(made))
    for number in range(count):
        folding.take(case(number, grades_of(number)))
    return folding


def newest(folding):
    return folding.of(PolicyRouter)[-1]


class Keeping(Folding):
    """Keeps the blobs that the emits carry, as the artifact store does."""

    def __init__(self, fold):
        super().__init__(fold)
        self.blobs = {}

    def _out(self, emits, cause):
        for emit in emits:
            if isinstance(emit, Emit) and emit.blob is not None:
                self.blobs[emit.payload.factors] = emit.blob
        return super()._out(emits, cause)


def test_what_cases_teach_is_what_the_model_predicts():
    """After eighty labelled pairs every arm is warm, and the model that the policy makes ranks the arms by text."""
    folding = Keeping(Learner())
    folding.take(applied())
    for number in range(200):
        folding.take(case(number, grades_of(number)))
    folding.tick(T0 + 10**7)
    policy = newest(folding)
    assert policy.warm
    assert [(row.arm, row.labels) for row in policy.arms] == [("big", 200), ("small", 200)]
    made = model.model_of(policy, BASIS, folding.blobs[policy.factors])
    easy, hard = (made.predict(BASIS.vector(text)) for text in ("hello there 3", "what is 2 + 2 1"))
    assert hard["big"].quality - hard["small"].quality > easy["big"].quality - easy["small"].quality
    assert all(0 < row.deviation < 10**6 for row in easy.values())
    assert {row.tokens_out for row in policy.arms} == {4}
    assert {row.latency_ms for row in policy.arms} == {50}


def test_a_smaller_ridge_lets_texts_differ_more():
    """The same cases under another prior: at once when it is applied, factors too; what was learnt stays, and the old one comes back."""
    folding = Keeping(Learner())
    folding.take(applied())
    for number in range(100):
        folding.take(case(number, grades_of(number)))
    folding.tick(T0 + 10**7)

    def spread(at_ms, **changes):
        folding.take(applied(route(**changes), at_ms=at_ms))
        policy = newest(folding)
        made = model.model_of(policy, BASIS, folding.blobs[policy.factors])
        easy, hard = (made.predict(BASIS.vector(text)) for text in ("hello there 3", "what is 2 + 2 1"))
        return easy["small"].quality - hard["small"].quality, easy["small"].deviation

    before = spread(T0 + 2 * 10**7)
    loose = spread(T0 + 3 * 10**7, ridge=1 / 32)
    assert loose[0] > 2 * before[0] > 0
    assert loose[1] > before[1]
    assert spread(T0 + 4 * 10**7)[0] == before[0]


def test_policies_come_seldom():
    """One in 32 cases and two seconds of event time, and a last one at the tick; versions count up by one."""
    folding = taught(100)
    versions = [row.version for row in folding.of(PolicyRouter)]
    assert versions == list(range(1, len(versions) + 1))
    assert [row.cases for row in folding.of(PolicyRouter)] == [0, 32, 64, 96]
    folding.tick(T0 + 10**7)
    assert newest(folding).cases == 100


def test_the_written_posterior_and_the_waiting_cases_are_one(monkeypatch):
    """What is published does not depend on when posteriors are written to the state."""
    seldom = taught(200)
    state = seldom.cells["r"]
    assert any(name.startswith(ARM) for name in state.entries)
    waiting = [part for name, part in state.entries.items() if name.startswith(CASE) and part.features]
    assert 0 < len(waiting) < 200
    monkeypatch.setattr(learning, "FOLD_EVERY", 1)
    often = taught(200)
    for one, other in zip(seldom.of(PolicyRouter), often.of(PolicyRouter), strict=True):
        assert [row.mean for row in one.arms] == [row.mean for row in other.arms]


@pytest.mark.parametrize("late", [3, 90])
def test_an_amended_case_equals_the_right_one(late):
    """Whether the case was still waiting or long written: the weights are those of the case told rightly at first (to 1e-9)."""

    def run(*, wrong):
        folding = Keeping(Learner())
        folding.take(applied())
        for number in range(late + 1):
            folding.take(case(number, {"small": 0, "big": 0} if wrong and number == 0 else grades_of(number)))
        if wrong:
            folding.take(case(0, grades_of(0), kind=CaseAmended))
        folding.tick(T0 + 10**7)
        cell = folding.cells["r"]
        arms = {arm: cell.entries.get(ARM + arm, cell.entries["count/" + arm]) for arm in ("small", "big")}
        waiting = [part for part in cell.entries.values() if part.features]
        return learning.posteriors(cell.record, arms, waiting, BASIS.size)

    right, mended = run(wrong=False), run(wrong=True)
    for arm in ("small", "big"):
        assert np.allclose(right[arm].mean(), mended[arm].mean(), rtol=1e-9, atol=1e-6)


def test_what_says_nothing_teaches_nothing():
    """A cache's answer, a failure, another adapter, no features, a verdict that nobody drew, what the gate withheld or nobody knows of."""
    folding = Folding(Learner())
    folding.take(applied())
    rows = (
        CaseArm(arm="small", shadow=False, status="completed", grade=1000, source="cache"),
        CaseArm(arm="big", shadow=True, status="failed"),
        CaseArm(arm="big", shadow=True, status="completed", grade=1000, adapter="sha256:other"),
    )
    for number, row in enumerate(rows):
        folding.take(case(number, {}, arms=(row,)))
    folding.take(case(10, grades_of(0), terms=False))
    folding.take(case(11, grades_of(0), verdict_kind="person", sampled=False, label_propensity=0.0))
    folding.take(case(13, grades_of(0), settled="withheld", withheld="gate"))
    folding.take(case(14, grades_of(0), action="hold"))
    folding.tick(T0 + 10**7)
    assert newest(folding).labels == 0
    folding.take(case(12, grades_of(0), verdict_kind="person", sampled=True, label_propensity=0.05))
    folding.tick(T0 + 2 * 10**7)
    assert newest(folding).labels == 1
    labels = folding.cells["r"].entries[CASE + "q12"].labels
    assert labels["small"].weight == pytest.approx(20, rel=0.01)


def test_an_alarm_freezes_at_once_and_its_end_thaws():
    """`policy.router` says so in the same turn; frozen cases teach nothing."""
    folding = taught(10)
    said = folding.take(
        TrustChanged(
            at_ms=T0 + 50_000, route="r", before="ENFORCE", after="SHADOW, gated", reason="rejects", alarm=True
        )
    )
    assert said[0].frozen
    before = folding.cells["r"].record.labels
    folding.take(case(50, grades_of(0)))
    assert folding.cells["r"].record.labels == before
    refused = TrustChanged(
        at_ms=T0 + 80_000, route="r", before="SHADOW", after="SHADOW", reason="no rung", refused=True
    )
    assert not folding.take(refused)  # nothing changed, so the alarm lasts
    said = folding.take(TrustChanged(at_ms=T0 + 90_000, route="r", before="SHADOW", after="ENFORCE", reason="rung 50"))
    assert not said[0].frozen


def test_a_promotion_and_a_rejected_answer_empty_the_cache():
    """The generation rises, told at once."""
    folding = taught(5, route(cache=CacheSettings(exact=True)))
    generation = newest(folding).generation
    told = {"at_ms": T0 + 9_000, "route": "r", "arena": "a", "champion": "small", "challenger": "big", "adapter": None}
    said = folding.take(ModelPromoted(**told, pairs=100, log_e=3.0, fleet_version=2, evaluation="e"))
    assert (said[0].generation, said[0].champion) == (generation + 1, "big")
    said = folding.take(case(70, {"big": 0}, arm="big", action="release"))
    assert said[0].generation == generation + 2
    assert not folding.take(case(71, {"big": 1000}, arm="big", action="release"))


def test_the_price_of_the_budget_follows_what_is_paid():
    """Answers twice as dear as the budget raise lambda; free ones let it fall; a period's end keeps it."""
    made = route(budget=BudgetSettings(nano_usd=1000, period_s=3600, requests=1000))
    folding = Folding(Learner())
    folding.take(applied(made))

    def pay(first, count, cost):
        for number in range(first, first + count):
            told = case(number, {})
            fields = {name: getattr(told, name) for name in CaseAnswered.model_fields if hasattr(told, name)}
            fields |= {
                "ok": True,
                "latency_us": 1,
                "released": True,
                "cost_nano_usd": cost,
                "shadows": (),
                "reason": "",
            }
            folding.take(CaseAnswered.model_validate(fields))
        return folding.cells["r"].record.pace

    high = pay(0, 200, 2000)
    assert high.price > 0
    assert (high.spent, high.requests) == (400_000, 200)
    assert pay(200, 400, 0).price < high.price
    later = pay(4000, 1, 0)
    assert (later.requests, later.spent) == (1, 0)


def test_another_basis_begins_anew():
    """Weights belong to their features; counts of tokens stay."""
    folding = taught(40)
    folding.take(applied(route(basis="sha256:" + "0" * 64), at_ms=T0 + 10**6))
    policy = newest(folding)
    assert (policy.warm, policy.dims, policy.factors) == (False, 0, "")
    assert [row.mean for row in policy.arms] == ["", ""]
    assert {row.tokens_out for row in policy.arms} == {4}


def test_a_router_that_harms_is_shut_and_told_at_once():
    """The drawn arm fails where the champion was expected to do well: the guard shuts, and the champion serves."""
    folding = Folding(Learner())
    folding.take(applied())
    shut = []
    for number in range(400):
        shut = [row for row in folding.take(case(number, {"big": 0}, arm="big")) if row.guarded]
        if shut:
            break
    assert shut
    assert folding.cells["r"].record.guard.champion_serves


def test_predictions_that_do_not_come_true_are_an_alarm():
    """Six in ten predicted, none graded so: said in the policy, by arm and decile."""
    folding = Folding(Learner())
    folding.take(applied())
    for number in range(250):
        folding.take(case(number, {"small": 0}))
    folding.tick(T0 + 10**7)
    assert any(
        words.startswith("calibration of small: predicted 0.600, graded 0.000") for words in newest(folding).alarms
    )
