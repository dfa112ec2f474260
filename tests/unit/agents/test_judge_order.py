"""The order of pairs: whatever came first, the same bits."""

import pytest
from court import GAP_MS, WINDOW_MS, Court, T, coin
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.judge.arena import Arena
from agents.judge.bench import ARENA
from agents.judge.fold import Judge
from agents.judge.order import MOST_PENDING, entry_of
from schemas.events import CaseAmended, CaseAnswered, CaseClosed, ModelPromoted, PromotionEvaluated
from schemas.payload import Payload


def arena_of(court: Court) -> Arena:
    """The one arena as it lies in the state."""
    (entry,) = [entry for name, entry in court.folding.cells["r"].entries.items() if name.startswith(ARENA)]
    return entry.arena


def events(court: Court, count: int) -> list[tuple[CaseAnswered, CaseClosed]]:
    """Pairs of every kind: ties, failures, missing verdicts, other latencies."""
    rows = []
    for index in range(count):
        old, new = (1000 * (coin(5, index, arm) < 0.6) for arm in ("old", "new"))
        kind = index % 9
        arms = [
            court.arm("old", old, latency_us=40_000 + 1000 * (index % 37)),
            court.arm(
                "new", None if kind == 3 else new, **({"latency_us": 45_000 + 900 * (index % 41)} if kind != 3 else {})
            ),
        ]
        if kind == 5:
            arms = [arm.model_copy(update={"grade": None}) for arm in arms]
        rows.append((court.announced(index), court.closed(index, arms, sampled=True)))
    return rows


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_any_interleaving_within_the_window_gives_the_same_bits(seed: int) -> None:
    """Announcements and closings in any order within the window: the same arena, bit for bit, as in plain order."""
    plain, mixed = Court(), Court()
    rows = events(plain, 60)
    for announced, closed in rows:
        plain.folding.take(announced)
        plain.folding.take(closed)
    plain.tick(T + 60 * GAP_MS + 3 * WINDOW_MS)
    order: list[tuple[float, Payload]] = []
    for index, (announced, closed) in enumerate(rows):
        first = 0.9 * coin(seed, index, "announced")
        then = first + coin(seed, index, "closed") * (0.99 - first)
        order += [
            (announced.assigned_at_ms + share * WINDOW_MS, row) for share, row in ((first, announced), (then, closed))
        ]
    last = 0
    for at, payload in sorted(order, key=lambda row: row[0]):
        mixed.folding.take(payload)
        if at - last > 300:
            mixed.tick(int(at))
            last = int(at)
    mixed.tick(T + 60 * GAP_MS + 3 * WINDOW_MS)
    assert arena_of(mixed).pairs == 60
    assert arena_of(mixed).model_dump_json() == arena_of(plain).model_dump_json()
    processes = [[row.processes for row in court.of(PromotionEvaluated)] for court in (plain, mixed)]
    assert processes[0] == processes[1]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 4000), max_size=12))
def test_whenever_ticks_come_the_looks_are_the_same(gaps: list[int]) -> None:
    """Ticks only say when pairs are folded: at each number of pairs the same processes and estimates, none left out, none twice."""
    plain, mixed = Court(), Court()
    following = iter(gaps)
    for court in (plain, mixed):
        due = T + 1000
        for announced, closed in events(court, 80):
            court.folding.take(announced)
            court.folding.take(closed)
            if court is mixed and announced.at_ms >= due:
                court.tick(announced.at_ms)
                due = announced.at_ms + next(following, 500)
        court.tick(T + 1000 + 80 * GAP_MS + WINDOW_MS)
    rows = [[(row.pairs, row.processes, row.late) for row in court.of(PromotionEvaluated)] for court in (plain, mixed)]
    assert [row[0] for row in rows[0]] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert rows[0] == rows[1]


def test_a_repeated_case_changes_nothing() -> None:
    """Announced and closed again, before its place and after: the same arena."""
    court = Court()
    rows = events(court, 20)
    for announced, closed in rows:
        for payload in (announced, announced, closed, closed):
            court.folding.take(payload)
    court.tick(T + 10_000)
    before = arena_of(court).model_dump_json()
    for announced, closed in rows:
        court.folding.take(announced)
        court.folding.take(closed)
    court.tick(T + 20_000)
    assert arena_of(court).pairs == 20
    assert arena_of(court).model_dump_json() == before


def test_an_unclosed_pair_holds_those_behind_it() -> None:
    """Nothing overtakes: pairs behind one whose case is still open wait, and come in order once it has closed."""
    court = Court()
    rows = events(court, 30)
    for index, (announced, closed) in enumerate(rows):
        court.folding.take(announced)
        if index != 4:
            court.folding.take(closed)
    court.tick(T + 30_000)
    assert arena_of(court).pairs == 4
    court.folding.take(rows[4][1])
    court.tick(T + 31_000)
    assert arena_of(court).pairs == 30


def test_a_case_that_never_closes_counts_as_failed_in_the_end() -> None:
    """A day past its window an open case no longer holds the others: the pair has no arms, so it is nobody's."""
    court = Court()
    rows = events(court, 3)
    for index, (announced, closed) in enumerate(rows):
        court.folding.take(announced)
        if index:
            court.folding.take(closed)
    court.tick(T + 10_000)
    assert arena_of(court).pairs == 0
    court.tick(T + 86_400_000 + 10_000)
    assert (arena_of(court).pairs, arena_of(court).strangers) == (2, 1)


def test_a_late_pair_is_counted_and_never_folded() -> None:
    """Announced after later pairs were folded: it moves no evidence, the next look says how many there were."""
    court = Court()
    rows = events(court, 40)
    for index, (announced, closed) in enumerate(rows[:20]):
        if index != 7:
            court.folding.take(announced)
            court.folding.take(closed)
    court.tick(T + 5_000)
    before = arena_of(court)
    court.folding.take(rows[7][0])
    court.folding.take(rows[7][1])
    court.tick(T + 5_500)
    assert arena_of(court) == before
    for announced, closed in rows[20:]:
        court.folding.take(announced)
        court.folding.take(closed)
    court.tick(T + 10_000)
    assert court.of(PromotionEvaluated)[-1].late == 1
    assert arena_of(court).pairs == 39


def test_a_verdict_after_the_window_never_rewrites() -> None:
    """`case.amended` is not the judge's: it reads closed cases only."""
    court = Court()
    ((announced, closed),) = events(court, 1)
    amended = CaseAmended.model_validate(closed.model_dump() | {"amends": "x", "contradicts": True})
    for payload in (announced, amended):
        court.folding.take(payload)
    court.tick(T + 10_000)
    assert arena_of(court).pairs == 0
    court.folding.take(closed)
    court.tick(T + 11_000)
    assert arena_of(court).pairs == 1


@pytest.mark.parametrize("back_ms", [1, 60_000, T])
def test_a_clock_that_goes_back_only_orders(back_ms: int) -> None:
    """A pair whose clock went back has its earlier place: in order while nothing later was folded, late afterwards."""
    court = Court()
    rows = events(court, 10)
    for announced, closed in rows[:5]:
        court.folding.take(announced)
        court.folding.take(closed)
    court.tick(T + 5_000)
    assert arena_of(court).pairs == 5
    at = {"assigned_at_ms": T - back_ms, "window_end_ms": T - back_ms + WINDOW_MS}
    court.folding.take(rows[7][0].model_copy(update=at))
    court.folding.take(rows[7][1].model_copy(update=at))
    court.tick(T + 6_000)
    assert arena_of(court).pairs == 5


def test_slower_losses_win_nothing() -> None:
    """A/A where losses take ten times as long to be told: entered in order, few of 10 arenas promote (by arrival two thirds would)."""
    promoted = 0
    for seed in range(10):
        court = Court(judge={"min_pairs": 50, "win_by": ("quality",)})
        waiting: list[tuple[int, CaseClosed]] = []
        for index in range(260):
            old, new = (court.graded(seed, index, arm, 0.6) for arm in ("old", "new"))
            court.folding.take(court.announced(index))
            slow = 900 if new < old else 90
            closed = court.closed(index, [court.arm("old", old), court.arm("new", new)])
            waiting.append((closed.assigned_at_ms + slow, closed))
            now = T + 1000 + index * GAP_MS
            for due, row in sorted(waiting, key=lambda item: item[0]):
                if due <= now:
                    court.folding.take(row)
            waiting = [item for item in waiting if item[0] > now]
            if index % 10 == 9:
                court.tick(now)
        promoted += bool(court.of(ModelPromoted))
    assert promoted <= 2


def test_no_more_than_the_most_wait() -> None:
    """At the cap further pairs are not taken, whoever they are, and are counted; folding makes room again."""
    assert MOST_PENDING == 50_000
    court = Court(judge_fold=Judge(most_pending=11))
    rows = events(court, 20)
    for announced, closed in rows:
        court.folding.take(announced)
        court.folding.take(closed)
    entries = court.folding.cells["r"].entries
    assert entries["order"].order.overflow == 9
    assert entry_of(rows[0][0]) in entries
    court.tick(T + 10_000)
    assert arena_of(court).pairs == 11


def test_a_subject_has_one_pair_a_day() -> None:
    """The second pair of a person on a day counts nothing; the next day it does; where the route says so all count."""
    for once, expected in ((True, 2), (False, 4)):
        court = Court(judge={"once_a_day": once})
        day = (T // 86_400_000 + 1) * 86_400_000
        for index, at in enumerate((day, day + 1000, day + 2000, day + 86_400_000)):
            court.pair(index, 0, 1000, subject="p-1", assigned_at_ms=at)
        court.tick(day + 2 * 86_400_000)
        assert arena_of(court).pairs == expected
    assert not [name for name in court.folding.cells["r"].entries if name.startswith("seen/")]
