"""What a pair says of each metric: failures never drop it, a missing verdict is nobody's luck."""

from dataclasses import replace

import pytest
from court import Court, T, route
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.judge import pairs
from agents.judge.arena import nulls_of, open_arena, take
from agents.judge.decide import Around, look
from agents.judge.pairs import Outcome, Pending, Quality
from schemas.events import CaseArm
from schemas.routes import Arm, JudgeSettings

OLD, NEW = Arm(arm="old", base="b"), Arm(arm="new", base="b")


def outcome(grade: int | None, *, ok: bool = True, words: int = 0, latency_us: int = 1000, nano: int = 0) -> Outcome:
    return Outcome(ok=ok, words=words, grade=grade, latency_us=latency_us, nano_usd=nano)


FAILED = Outcome(ok=False, words=-1)


@pytest.mark.parametrize(
    ("old", "new", "sampled", "said"),
    [
        (outcome(0), outcome(1000, words=1), True, Quality(1.0)),
        (outcome(1000), outcome(400, words=1), True, Quality(-0.6)),
        (outcome(None), outcome(None), True, Quality(0.0)),
        (outcome(None), outcome(None, words=1), True, Quality(None)),
        (outcome(None), outcome(None, words=1), False, None),
        (FAILED, outcome(1000), True, Quality(1.0)),
        (outcome(1000), FAILED, True, Quality(-1.0)),
        (FAILED, FAILED, False, Quality(0.0)),
        (outcome(None), FAILED, True, Quality(None)),
    ],
)
def test_quality_of_a_pair(old: Outcome, new: Outcome, sampled: bool, said: Quality | None) -> None:
    """Graded, tied by equal words, missing, not asked about, failed: each as the design says."""
    assert pairs.quality(old, new, sampled=sampled, overlay=None, asked=False) == said


def test_a_model_s_grades_are_corrected_by_people() -> None:
    """F10: the model's difference where nobody was asked, corrected by 1/r where a person was; a missing person is never a gain."""
    old = replace(outcome(None), model_grade=0)
    new = replace(outcome(None, words=1), model_grade=1000)
    told = {"sampled": True, "overlay": 0.5}
    assert pairs.quality(old, new, asked=False, **told) == Quality(0.2)
    missing = pairs.quality(old, new, asked=True, **told)
    assert missing == Quality(None, {"better": -0.2, "margin": -0.6, "harm": -0.6, "worse": 0.0})
    graded = replace(old, grade=1000), replace(new, grade=0)
    assert pairs.quality(*graded, asked=True, **told) == Quality((1.0 + (-1.0 - 1.0) / 0.5) / 5.0)


def test_latency_error_and_cost_of_failures() -> None:
    """Only one failed: its latency, cost and error are without end. Both: nobody gains."""
    fine = outcome(0, nano=10)
    assert (pairs.latency(fine, FAILED), pairs.cost(fine, FAILED), pairs.error(fine, FAILED)) == (-1.0, -1.0, -1.0)
    assert (pairs.latency(FAILED, fine), pairs.cost(FAILED, fine), pairs.error(FAILED, fine)) == (1.0, 1.0, 1.0)
    assert (pairs.latency(FAILED, FAILED), pairs.error(FAILED, FAILED)) == (0.0, 0.0)
    assert (pairs.slowness(fine, FAILED, 10_000), pairs.slowness(FAILED, fine, 10_000)) == (-1.0, 1.0)


@given(
    *(
        st.builds(
            Outcome,
            ok=st.booleans(),
            words=st.integers(0, 1),
            grade=st.none() | st.integers(0, 1000),
            latency_us=st.integers(0, 10**12),
            nano_usd=st.integers(0, 10**15),
        ),
    )
    * 2,
    st.booleans(),
    st.integers(1, 10**9),
)
def test_every_difference_is_between_minus_one_and_one(old: Outcome, new: Outcome, sampled: bool, x0: int) -> None:
    """Whatever two arms did, no metric leaves [-1, 1], and arms exchanged give the opposite sign but for what only one side pays."""
    said = pairs.quality(old, new, sampled=sampled, overlay=None, asked=False)
    values = [pairs.latency(old, new), pairs.slowness(old, new, x0), pairs.error(old, new), pairs.cost(old, new)]
    values += [] if said is None or said.d is None else [said.d]
    assert all(-1.0 <= value <= 1.0 for value in values)
    assert pairs.error(old, new) == -pairs.error(new, old)
    assert pairs.slowness(old, new, x0) == -pairs.slowness(new, old, x0)


@pytest.mark.parametrize("grade", [-1, 1001, 0.5])
def test_a_grade_outside_its_range_is_no_case(grade: float) -> None:
    """A grade below 0, above 1000 or between thousandths never becomes a case."""
    with pytest.raises(ValidationError, match="grade"):
        CaseArm.model_validate({"arm": "a", "shadow": False, "status": "completed", "grade": grade})


def test_a_pair_of_another_version_counts_nothing() -> None:
    """An arm that answered with another adapter, or did not answer at all: counted as a stranger, no evidence moves."""
    judge = JudgeSettings(latency_slo_ms=100, novelty_pairs=0)
    arena = open_arena(OLD, NEW, route().model_copy(update={"judge": judge}), now_ms=0, fresh_after_ms=0, alpha=0.05)
    other = replace(outcome(1000, words=1), strange=True)
    for outcomes in ({"old": outcome(0), "new": other}, {"old": outcome(0)}):
        arena = take(arena, judge, Pending(window_end_ms=1, arenas=(arena.key,), outcomes=outcomes))
    assert (arena.pairs, arena.strangers) == (0, 2)
    assert arena.quality.n == 0


def test_a_pair_of_another_arena_is_not_folded() -> None:
    """A decision made for another arena, or before this one opened, moves nothing here."""
    court = Court()
    court.pair(0, 0, 1000, arenas=("another",))
    court.pair(1, 0, 1000, assigned_at_ms=T)
    court.pair(2, 0, 1000)
    court.tick(T + 10_000)
    (arena,) = [entry.arena for name, entry in court.folding.cells["r"].entries.items() if name.startswith("arena/")]
    assert arena.pairs == 1


def test_novelty_counts_nothing_and_freezes_x0() -> None:
    """The first pairs are novelty; where no objective is set x0 is the champion's p95 over them, frozen before pair 1."""
    judge = JudgeSettings(novelty_pairs=60)
    arena = open_arena(OLD, NEW, route().model_copy(update={"judge": judge}), now_ms=0, fresh_after_ms=0, alpha=0.05)
    for index in range(80):
        outcomes = {"old": outcome(0, latency_us=1000 + index), "new": outcome(1000, words=1)}
        before = arena
        arena = take(arena, judge, Pending(window_end_ms=1, arenas=(arena.key,), closed=True, outcomes=outcomes))
        if index == 59:
            assert (before.x0_us, arena.x0_us, arena.pairs) == (None, 1057, 0)
    assert (arena.x0_us, arena.pairs, arena.novelty, arena.warmup) == (1057, 20, 60, ())


def test_equal_and_unjudged_pairs_dilute_the_gain() -> None:
    """One win among one tie and two pairs without a verdict is a gain of a quarter; one that nobody was asked about says nothing."""
    judge = JudgeSettings(latency_slo_ms=100, novelty_pairs=0)
    arena = open_arena(OLD, NEW, route().model_copy(update={"judge": judge}), now_ms=0, fresh_after_ms=0, alpha=0.05)
    rows = [(outcome(0), outcome(1000, words=1), True), (outcome(None), outcome(None), True)]
    rows += [(outcome(None), outcome(None, words=1), True)] * 2 + [(outcome(None), outcome(None, words=1), False)]
    for old, new, sampled in rows:
        told = {"old": old, "new": new}
        arena = take(arena, judge, Pending(window_end_ms=1, arenas=(), closed=True, sampled=sampled, outcomes=told))
    _, seen = look(arena, Around(settings=judge, now_ms=1))
    assert seen.gains[0].estimate == 0.25
    assert (arena.quality.wins, arena.quality.losses, arena.quality.missing) == (1, 0, 2)


def test_the_cost_of_a_pair_is_priced_by_its_arms() -> None:
    """Tokens times the arm's prices; the ratio of the totals is what the bar asks."""
    arms = (OLD.model_copy(update={"nano_usd_in": 10, "nano_usd_out": 100}),)
    court = Court(arms=arms)
    for index in range(20):
        rows = [court.arm("old", 0, tokens_in=100, tokens_out=10), court.arm("new", 0, tokens_in=100, tokens_out=5)]
        court.folding.take(court.announced(index))
        court.folding.take(court.closed(index, rows))
    court.tick(T + 20_000)
    (arena,) = [entry.arena for name, entry in court.folding.cells["r"].entries.items() if name.startswith("arena/")]
    assert (arena.champion_nano, arena.challenger_nano) == (20 * 2000, 20 * 1500)
    assert arena.cost.mean == pytest.approx(500 / 3500)


def test_every_track_is_read_against_the_nulls_that_the_route_sets() -> None:
    """Margins and harm lines are the route's; cost's are a share, turned into F8's scale; F10's are divided by its scale."""
    nulls = nulls_of(JudgeSettings(), None)
    assert nulls["quality"].bets["margin"].offset == 0.03
    assert nulls["cost"].bets["harm"].offset == 0.15 / 2.15
    assert nulls_of(JudgeSettings(), 0.05)["quality"].bets["harm"].offset == 0.05 / 41
