"""What a judge makes of bad input, of odd routes, and of two things at once."""

from typing import Any

import pytest
from court import GAP_MS, SHARED, WINDOW_MS, Court, T, coin, registered
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.judge.arena import Arena
from agents.judge.bench import ARENA, BREAKER
from agents.judge.breaker import Breaker
from schemas.codec import decode_payload
from schemas.errors import Undecodable
from schemas.events import (
    AdapterRefused,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandReject,
    CommandRollback,
    ModelPromoted,
    ModelRolledBack,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
)
from schemas.routes import Arm

QUICK: dict[str, Any] = {
    "stages": (),
    "holdback_share": 0.2,
    "holdback_time_s": 3600,
    "cooldown_s": 0,
    "breaker_window": 40,
    "breaker_quality": 0.39,
    "min_pairs": 50,
}


def arena_of(court: Court) -> Arena:
    """The newest open arena, or the holdback."""
    bench: Any = court.folding.cells["r"].record
    key = (*bench.open, *((bench.watch,) if bench.watch else ()))[-1]
    found = court.folding.cells["r"].entries[ARENA + key].arena
    assert isinstance(found, Arena)
    return found


def breaker_of(court: Court) -> Breaker:
    """The one breaker."""
    (found,) = [row.breaker for name, row in court.folding.cells["r"].entries.items() if name.startswith(BREAKER)]
    assert isinstance(found, Breaker)
    return found


def carried(court: Court, start: int = 0) -> int:
    """Pairs that the challenger wins, until it is promoted or on its way; the next number."""
    fleets, index = court.fleet.champion, start
    challenger = court.fleet.challenger
    assert challenger is not None
    while court.fleet.champion == fleets and not court.fleet.rollout_bp:
        rows = [court.arm(fleets, 0), court.arm(challenger, 1000)]
        rows = [
            row.model_copy(update={"grade": 1000 * (coin(7, index, row.arm) < 0.4 + row.grade / 2000)}) for row in rows
        ]
        rows += [court.arm(name, 0) for name in court.fleet.shadows if name != challenger]
        court.folding.take(court.announced(index, arm=fleets))
        court.folding.take(court.closed(index, rows, arm=fleets))
        index += 1
        if index % 10 == 0:
            court.tick(T + 1000 + index * GAP_MS + WINDOW_MS)
        assert index < start + 2000
    return index


# two things at once


def test_who_is_promoted_while_a_rollback_waits_stays() -> None:
    """The rollback was from the champion before: the new one is not sent back to that one when an engine next proves an arm."""
    court = Court(judge=QUICK)
    index = carried(court)
    court.folding.take(registered("third", court.now - T, cutoff=court.now - T))
    told: dict[str, Any] = {"route": "r", "instance": "i", "reason": "gone"}
    court.folding.take(AdapterRefused(at_ms=court.now, arm="old", adapter=None, **told))
    court.folding.take(CommandRollback(**SHARED, at_ms=court.now + 1))
    court.live("new", "sha256:new")
    carried(court, index + 20)
    assert court.fleet.champion == "third"
    court.live("third", "sha256:third")
    court.live("new", "sha256:new")
    assert (court.fleet.champion, court.of(ModelRolledBack)) == ("third", [])


def test_without_stages_the_breaker_watches_each_new_champion() -> None:
    """Promoted out of the shadow, one after the other: the breaker is the newest one's, with the grade of who was before it."""
    court = Court(judge=QUICK)
    index = carried(court)
    first = breaker_of(court)
    assert first.arm == "new"
    assert first.base_grade is not None
    court.folding.take(registered("third", court.now - T, cutoff=court.now - T))
    carried(court, index + 20)
    second = breaker_of(court)
    assert (second.arm, second.answers, second.detector is not None) == ("third", "", True)


def test_answers_of_a_cache_are_not_the_arm_s() -> None:
    """However many come, the breaker has seen none of them: a cache neither fails nor is slow."""
    court = Court(judge=QUICK)
    index = carried(court)
    before = breaker_of(court).answers
    for number in range(50):
        court.folding.take(court.announced(index + number, arm="new", shadows=(), source="cache"))
    assert breaker_of(court).answers == before
    court.folding.take(court.announced(index + 50, arm="new", shadows=()))
    assert breaker_of(court).answers != before


def test_the_end_of_a_holdback_leaves_the_next_one_s_breaker() -> None:
    """A challenger is on its way when the holdback of the one before ends: it is watched as before."""
    court = Court(judge=QUICK)
    index = carried(court)
    settings = court.folding.cells["r"].record.settings  # type: ignore[union-attr]  # the bench
    judge = settings.judge.model_copy(update={"stages": (0.2,), "stage_time_s": 100_000})
    court.folding.take(CommandApply(**SHARED, at_ms=court.now, settings=settings.model_copy(update={"judge": judge})))
    court.folding.take(registered("third", court.now - T, cutoff=court.now - T))
    carried(court, index + 20)
    assert {"breaker/new", "breaker/third"} <= set(court.folding.cells["r"].entries), (
        "the fresh champion is watched as well"
    )
    court.tick(court.now + 3_700_000)
    assert "holdback of old ended" in court.fleet.reason
    assert court.fleet.rollout_bp == 2000
    assert breaker_of(court).arm == "third"


def test_a_holdback_begins_again_with_another_version_of_an_arm() -> None:
    """The arm to return to gets another price: its pairs of now are not added to those of before."""
    court = Court(judge=QUICK)
    carried(court)
    before = arena_of(court)
    settings = court.folding.cells["r"].record.settings  # type: ignore[union-attr]  # the bench
    arms = tuple(arm.model_copy(update={"nano_usd_in": 5}) for arm in settings.arms)
    same = CommandApply(**SHARED, at_ms=court.now + 1, settings=settings.model_copy(update={"shadow_share": 0.3}))
    court.folding.take(same)
    assert arena_of(court) == before
    court.folding.take(CommandApply(**SHARED, at_ms=court.now + 2, settings=settings.model_copy(update={"arms": arms})))
    after = arena_of(court)
    assert after.holdback
    assert after.key != before.key
    assert (after.pairs, after.priced, before.priced) == (0, True, False)


# odd routes (STATISTICS 9.6)


def test_ties_only_are_never_promoted() -> None:
    """Equal answers throughout: not worse is proven, no gain ever is; it ends as inconclusive."""
    court = Court(judge={"max_pairs": 1500, "evaluate_every": 100})
    for index in range(1500):
        rows = [court.arm(name, 1000, text="same") for name in ("old", "new")]
        court.folding.take(court.announced(index))
        court.folding.take(court.closed(index, rows))
    court.tick(T + 1000 + 1500 * GAP_MS + WINDOW_MS)
    (ended,), last = court.of(PromotionRejected), court.of(PromotionEvaluated)[-1]
    assert (ended.reason, court.of(ModelPromoted)) == ("inconclusive", [])
    assert all(last.conditions[name] for name in last.conditions if name.endswith("not worse"))
    assert {row.estimate for row in last.processes if row.n} == {0.0}


def test_what_costs_nothing_is_neither_gain_nor_harm() -> None:
    """Priced arms that used no token: cost says 0 of every pair, the ratio of nothing meets no bar."""
    court = Court(arms=(Arm(arm="old", base="b", nano_usd_in=10, nano_usd_out=10),))
    court.pairs(120, 0.5, 0.5)
    (gains,) = [arena_of(court)]
    last = court.of(PromotionEvaluated)[-1]
    assert (gains.champion_nano, gains.challenger_nano, gains.cost.mean) == (0, 0, 0.0)
    (cost,) = [row for row in last.processes if row.name == "cost"]
    assert (cost.estimate, cost.crossed) == (0.0, False)


def test_both_arms_failing_throughout_proves_nothing_good() -> None:
    """No answer from either: ties in quality and errors, no gain; x0 is never frozen, so where none is set no pair counts."""
    court = Court(judge={"latency_slo_ms": None, "novelty_pairs": 10, "max_pairs": 300})
    for index in range(400):
        court.pair(index, None, None)
    court.tick(T + 60_000)
    assert (arena_of(court).pairs, arena_of(court).x0_us) == (0, None)
    court = Court(judge={"max_pairs": 300})
    for index in range(400):
        court.pair(index, None, None)
    court.tick(T + 60_000)
    assert [row.reason for row in court.of(PromotionRejected)] == ["inconclusive"]


def test_a_new_key_begins_at_one_and_the_old_key_goes_on() -> None:
    """Other numbers open another arena with nothing in it; back at the first numbers the first arena resumes with all it had."""
    court = Court(judge={"cooldown_s": 0})
    court.pairs(60, 0.5, 0.5)
    first = arena_of(court)
    settings = court.folding.cells["r"].record.settings  # type: ignore[union-attr]  # the bench
    other = settings.judge.model_copy(update={"alpha": 0.01})
    for at, judge, pairs in ((1, other, 0), (20_000, settings.judge, 60)):
        now = court.now + at
        court.folding.take(CommandApply(**SHARED, at_ms=now, settings=settings.model_copy(update={"judge": judge})))
        court.folding.take(registered(at=now + 1 - T, cutoff=now + 1 - T))
        assert arena_of(court).pairs == pairs
    assert arena_of(court).key == first.key
    assert (arena_of(court).quality, arena_of(court).peaks) == (first.quality, first.peaks)
    assert [row.resumed for row in court.of(PromotionOpened)] == [False, False, True]


def test_what_one_key_has_collected_is_not_another_s() -> None:
    """A pair that names a closed arena's key is folded into no arena that is open now."""
    court = Court(judge={"cooldown_s": 0})
    old_key = court.fleet.arenas
    court.folding.take(CommandReject(**SHARED, at_ms=T + 20, challenger="new"))
    court.folding.take(registered("next", 30, cutoff=30))
    court.pair(0, 0, 1000, arenas=old_key)
    court.tick(T + 10_000)
    assert arena_of(court).challenger == "next"
    assert (arena_of(court).pairs, arena_of(court).strangers) == (0, 0)


# bad input


@pytest.mark.parametrize("said", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"1.5", b'"5"', b"1" + b"0" * 30])
@pytest.mark.parametrize("field", ["grade", "latency_us"])
def test_a_number_that_is_none_never_becomes_a_case(field: str, said: bytes) -> None:
    """Not finite, below 0, between whole numbers, a text, of thirty digits: undecodable, by name."""
    court = Court()
    good = court.closed(0, [court.arm("old", 7, latency_us=7), court.arm("new", 7, latency_us=7)])
    value = good.model_dump_json().encode()
    assert decode_payload(CaseClosed, value) == good
    bad = value.replace(b'"%b":7' % field.encode(), b'"%b":%b' % (field.encode(), said))
    assert bad != value
    with pytest.raises(Undecodable, match=rf"case\.closed: .*({field}|value)"):
        decode_payload(CaseClosed, bad)


@pytest.mark.parametrize("grade", [1001, 2**31])
def test_a_grade_above_one_never_becomes_a_case(grade: int) -> None:
    """Thousandths end at 1000."""
    with pytest.raises(ValidationError, match="grade"):
        CaseArm(arm="a", shadow=False, status="completed", grade=grade)


def test_tokens_below_nothing_are_refused_and_hold_nobody_up() -> None:
    """A dead letter; the pair is nobody's, and those behind it are folded."""
    court = Court()
    for index in range(3):
        tokens = -5 if index == 1 else 5
        court.folding.take(court.announced(index))
        rows = [court.arm("old", 0), court.arm("new", 1000, tokens_out=tokens)]
        court.folding.take(court.closed(index, rows))
    court.tick(T + 10_000)
    (letter,) = court.folding.letters
    assert (letter.kind, "tokens" in letter.message) == ("invalid", True)
    assert (arena_of(court).pairs, arena_of(court).strangers) == (2, 1)


def test_a_case_that_closes_after_its_pair_was_given_up_is_not_folded() -> None:
    """A verdict a day after its window: the pair had been folded as nobody's, nothing moves."""
    court = Court()
    court.folding.take(court.announced(0))
    court.tick(T + 86_400_000 + 10_000)
    before = arena_of(court)
    assert (before.pairs, before.strangers) == (0, 1)
    court.folding.take(court.closed(0, [court.arm("old", 0), court.arm("new", 1000)]))
    court.tick(T + 86_400_000 + 20_000)
    assert arena_of(court) == before


@pytest.mark.parametrize("window_ms", [WINDOW_MS, -(10**12)])
def test_a_pair_from_a_clock_far_ahead_holds_up_only_those_behind_it(window_ms: int) -> None:
    """Ten years ahead of all others: it waits at the end of the line, and nobody is late for it, whatever its window says."""
    court = Court()
    ahead = T + 10 * 365 * 86_400_000
    at = {"assigned_at_ms": ahead, "window_end_ms": ahead + window_ms}
    court.folding.take(court.announced(0, **at))
    court.folding.take(court.closed(0, [court.arm("old", 0), court.arm("new", 1000)], **at))
    for index in range(1, 6):
        court.pair(index, 0, 1000)
        court.tick(T + 10_000 + index)
    assert arena_of(court).pairs == 5


@settings(deadline=None)
@given(st.integers(-(10**18), 10**18), st.integers(-(10**18), 10**18))
def test_no_time_of_an_answer_stops_the_judge(assigned_ms: int, end_ms: int) -> None:
    """Before the epoch, past the year 300,000, a window that ends before it begins: ordered or late, never an error."""
    court = Court()
    court.folding.take(court.announced(0, assigned_at_ms=assigned_ms, window_end_ms=end_ms))
    court.pair(1, 0, 1000)
    court.tick(T + 10_000)
    court.pair(2, 0, 1000)
    court.tick(T + 2 * 86_400_000)
    assert arena_of(court).pairs <= 2
    assert isinstance(court.announced(3), CaseAnswered)
