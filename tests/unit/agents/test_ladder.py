"""The ladder learns when an answer is right, and a label counts once, blind, and never for a scorer that was fitted on it."""

import math
from dataclasses import replace
from typing import Any

import pytest
from folding import Folding
from hypothesis import given
from hypothesis import strategies as st
from trusting import NOW, QUICK, Trusted, apply, case, customers, said, signals

from agents.rules.text import normalise, same
from agents.trust.fold import PUBLISH_EVERY, Ladder
from agents.trust.labels import label_of, scored
from agents.trust.protocol import FIRST_FIT
from agents.trust.score import Learner, Platt, Scorer, exp, log1p_about, logistic, shown
from agents.trust.state import CANDIDATE, RUNNING, Agreement, Version
from schemas.events import CaseAmended, CaseClosed
from schemas.policies import SIGNALS, PolicyTrust


def test_the_first_apply_publishes_the_prior() -> None:
    """One policy, version 1, SHADOW, at the route's threshold; the same settings again change nothing."""
    ladder = Folding(Ladder())
    [policy] = ladder.take(apply(trust_threshold=0.8))
    assert isinstance(policy, PolicyTrust)
    assert (policy.version, policy.mode, policy.threshold, policy.labels) == (1, "SHADOW", 0.8, 0)
    assert (policy.scorer, policy.signals, policy.arm, policy.tau) == ("prior", SIGNALS, "a", ())
    assert ladder.take(apply(trust_threshold=0.8)) == []
    [policy] = ladder.take(apply(trust_threshold=0.7))
    assert (policy.version, policy.threshold) == (2, 0.7)


def test_it_learns_and_publishes_every_25_labels() -> None:
    """After 1,000 labels what would be frozen has a log-loss near the best possible; the map of the prior is right on average."""
    ladder, learner = Trusted(), Learner()
    for number, (told, right, _) in enumerate(customers(1000)):
        ladder.take(case(number, told, right))
        learner = learner.add(told, right=right)
    policies = ladder.of(PolicyTrust)
    assert [row.version for row in policies] == list(range(1, 2 + 1000 // PUBLISH_EVERY))
    assert [row.labels for row in policies] == list(range(0, 1001, PUBLISH_EVERY))
    assert ladder.standing.learner == learner
    fresh = list(customers(1000, seed=4))

    def loss(scorer: Scorer, platt: Platt) -> float:
        told = [(shown(scorer.z(row[0]), platt.a, platt.b), row[1]) for row in fresh]
        return -sum(math.log(chance if right else 1 - chance) for chance, right in told) / len(told)

    best = -sum(math.log(chance if right else 1 - chance) for _, right, chance in fresh) / len(fresh)
    learnt, prior = learner.freeze("l"), Scorer()
    assert loss(learnt, Platt()) < best + 0.03
    assert loss(learnt, Platt()) < loss(prior, Platt()) - 0.02
    running = ladder.standing.running
    mean = sum(shown(prior.z(row[0]), running.platt.a, running.platt.b) for row in fresh) / len(fresh)
    assert abs(mean - sum(row[1] for row in fresh) / len(fresh)) < 0.05


def test_a_case_counts_once_and_only_where_it_may_teach() -> None:
    """Repeats, amendments, ungraded, failed, another arm's, a model's, verdicts before the score (but a reference's) change nothing; nor
    does what the gate withheld, whoever approved it."""
    ladder = Trusted()
    first = case(1, signals(), True)
    ladder.take(first)
    before = ladder.record
    ladder.take(first)
    [arm] = first.arms
    changed: list[dict[str, Any]] = [
        {"verdict_after_score": False},
        {"verdict_kind": "model"},
        {"signals": ()},
        {"grader": "reference"},
        {"arm": "b", "arms": (arm.model_copy(update={"arm": "b"}),)},
        {"arms": (arm.model_copy(update={"status": "failed"}),)},
        {"arms": (arm.model_copy(update={"shadow": True}),)},
        {"action": "hold", "settled": "withheld", "withheld": "gate"},
        {"action": "release", "settled": "withheld", "withheld": "gate", "verdict_kind": "reference"},
        {"action": "hold", "settled": ""},
    ]
    for number, change in enumerate(changed):
        told = first.model_copy(update={"request_id": f"x{number}"} | change)
        assert label_of(told) is None or not scored(told, before)
        ladder.take(told)
    assert ladder.standing.learner.labels == 1
    assert ladder.standing.running.counted == 0
    assert label_of(first.model_copy(update={"verdict_kind": "reference", "verdict_after_score": False})) is True
    assert label_of(first.model_copy(update={"arms": (arm.model_copy(update={"grade": 499}),)})) is False


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e7])
def test_a_signal_that_is_no_number_in_range_is_never_folded(bad: float) -> None:
    """Also where the schema was not asked."""
    ladder = Trusted()
    before = ladder.cells["bank"]
    good = case(1, signals(), True)
    told = CaseClosed.model_construct(**good.__dict__ | {"signals": (bad, *good.signals[1:])})
    ladder._fold("bank", replace(ladder.event(good), data=told))
    assert ladder.cells["bank"] is before
    assert (ladder.record.told, before.entries) == (0, {})


def test_labels_count_only_where_the_coin_drew_the_case() -> None:
    """What somebody judged on his own teaches the map, and certifies nothing; neither does a verdict from before the ladder began."""
    ladder = Trusted(trust=QUICK)
    ladder.label(30)
    counted = ladder.standing.running.counted
    ladder.label(5, sampled=False)
    ladder.label(5, label_propensity=0.0)
    ladder.take(said("reset", at_ms=NOW + 10))
    ladder.label(30, right=None, at_ms=NOW + 20)
    ladder.label(5, at_ms=NOW + 20, verdict_at_ms=NOW + 9)
    assert (counted, ladder.standing.running.counted) == (30, 0)
    ladder.label(5, at_ms=NOW + 20, verdict_at_ms=NOW + 10)
    assert ladder.standing.running.counted == 5


def test_labels_that_came_with_the_scores_count_once_the_rungs_are_cut() -> None:
    """Of the 20 scores that the rungs are cut from, those above a threshold that is one answer's alone."""
    ladder = Trusted(trust=QUICK)
    ladder.label(20)
    rungs = ladder.standing.running.rungs
    assert rungs is not None
    assert rungs.n == (1, 3, 5, 7, 9, 11, 13, 15, 17, 20)
    assert not [name for name in ladder.cells["bank"].entries if name.startswith("running/")]


def test_labels_from_before_the_cut_do_not_count_where_scores_are_equal() -> None:
    """Only for the rung of all: which of equal answers lies above a threshold, the scores cannot say."""
    ladder = Trusted(trust=QUICK)
    ladder.label(20, mean=-0.1)
    rungs = ladder.standing.running.rungs
    assert rungs is not None
    assert rungs.n == (*(0,) * 9, 20)
    ladder.label(1, mean=-0.1)
    rungs = ladder.standing.running.rungs
    assert rungs is not None
    assert rungs.n == (*(1,) * 9, 21)


def test_labels_that_fitted_a_scorer_never_count_for_it() -> None:
    """A candidate is frozen from 200 labels; its own ladder begins with the next."""
    ladder = Trusted(trust=QUICK)
    rows = list(customers(FIRST_FIT + 50))
    for number, (told, right, _) in enumerate(rows[:FIRST_FIT]):
        ladder.take(case(number, told, right))
    candidate = ladder.standing.candidate
    assert candidate is not None
    assert (candidate.collected, candidate.counted, candidate.rungs) == (0, 0, None)
    learner = Learner()
    for told, right, _ in rows[:FIRST_FIT]:
        learner = learner.add(told, right=right)
    assert candidate.scorer == learner.freeze("logistic/2")
    for number, (told, right, _) in enumerate(rows[FIRST_FIT:]):
        ladder.take(case(f"later{number}", told, right))
    after = ladder.standing.candidate
    assert after is not None
    assert (after.counted, after.scorer) == (50, candidate.scorer)
    assert ladder.standing.running.scorer == Scorer()


def test_a_refit_takes_over_only_once_it_covers_more() -> None:
    """With one that ranks the wrong way round nothing changes; a better one takes its place, and its ladder with it."""
    ladder = Trusted(trust=QUICK)
    told = [signals(-(n * 7 % 20) / 10) for n in range(400)]
    for number, row in enumerate(told):  # likely answers are wrong here: the prior ranks the wrong way round
        ladder.take(case(number, row, row[0] < -0.45))
        candidate = ladder.standing.candidate
        if candidate is None or (candidate.scorer.name == "logistic/2" and candidate.covers() == 0):
            assert ladder.standing.running.scorer.name == "prior"
    running = ladder.standing.running
    assert running.scorer.name == "logistic/2"
    assert running.covers() > 0
    changes = [row.reason for row in ladder.emitted if row.TYPE == "trust.changed"]
    assert any("logistic/2 covers" in reason and "prior 0 %" in reason for reason in changes)
    assert ladder.policy.scorer == "logistic/2"
    follower = ladder.standing.candidate
    assert follower is not None
    assert follower.scorer.name == "logistic/3"


def amended(number: int, right: bool, **changes: Any) -> CaseAmended:
    told = case(number, signals(), right, **changes).model_dump()
    return CaseAmended.model_validate(told | {"amends": "e", "contradicts": False} | changes)


def test_second_labels_make_a_kappa() -> None:
    """Pairs by two people of remembered cases; the same person, and cases that are not known, add none."""
    ladder = Trusted()
    for number in range(40):
        ladder.take(case(number, signals(), number % 4 != 0))
        ladder.take(amended(number, number % 4 != 0 if number % 8 else True, same_person=False))
    ladder.take(amended(3, False, same_person=True))
    ladder.take(amended(99, False, same_person=False))
    assert ladder.record.agreement == Agreement(both_right=30, second_only=5, both_wrong=5)
    kappa = ladder.record.agreement.kappa()
    assert kappa is not None
    chance = (30 / 40) * (35 / 40) + (10 / 40) * (5 / 40)
    assert math.isclose(kappa, (35 / 40 - chance) / (1 - chance))
    assert Agreement().kappa() is None
    assert Agreement(both_right=9).kappa() is None
    ladder.label(25)
    assert ladder.policy.kappa == kappa


def test_the_record_of_a_route_stays_small() -> None:
    """After 1,500 cases: no entry above 1.6 kB, few entries, the record below 1 kB."""
    ladder = Trusted()
    for number, (told, right, _) in enumerate(customers(1500)):
        ladder.take(case(number, told, right))
    cell = ladder.cells["bank"]
    assert len(ladder.record.model_dump_json()) < 1_300
    assert max(len(part.model_dump_json(exclude_none=True)) for part in cell.entries.values()) < 1_600
    names = {name.partition("/")[0] for name in cell.entries}
    assert names == {RUNNING, CANDIDATE, "learner", "told"}
    assert len([name for name in cell.entries if name.startswith("told/")]) == 32


@given(st.floats(-700, 700))
def test_the_exponential_is_the_libraries_to_the_last_digits(x: float) -> None:
    """Made of arithmetic alone, so that it has the same bits everywhere."""
    assert math.isclose(exp(x), math.exp(x), rel_tol=1e-15)
    assert 0.0 <= logistic(x) <= 1.0


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_the_logarithm_of_a_length_is_about_right_and_increasing(one: int, other: int) -> None:
    """Never more than 0.06 beside; longer is never less."""
    assert abs(log1p_about(one) - math.log1p(min(one, 1 << 52))) < 0.06
    assert (log1p_about(one) <= log1p_about(other)) or one > other


@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), max_size=60), st.floats(-30, 30), st.floats(-30, 30))
def test_the_shown_probability_is_monotone_in_z(labels: list[tuple[float, bool]], one: float, other: float) -> None:
    """Whatever was learnt: it changes no order, so it resets nothing."""
    platt = Platt()
    for z, right in labels:
        platt = platt.add(z, right=right)
    low, high = sorted((one, other))
    assert shown(low, platt.a, platt.b) <= shown(high, platt.a, platt.b)
    assert Version(platt=platt).covers() == 0


def test_texts_are_the_same_but_for_case_spaces_and_composition() -> None:
    """NFC, case-folded, spaces folded; normalising twice changes nothing."""
    assert same("Card  Not\tworking ", "card not working")
    assert same("Caf\u00e9", "CAFE\u0301")
    assert same("Stra\u00dfe", "STRASSE")
    assert not same("card", "cards")
    odd = "\u1e9e \u0130\u0345 x"
    assert normalise(normalise(odd)) == normalise(odd)
