"""The judge's small machines: breaker, order, arena. Whatever they are given."""

from court import route
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.judge.arena import LEAST_FOR_P95, Arena, hold_back, open_arena, p95, take
from agents.judge.breaker import Breaker
from agents.judge.decide import Around, basis_of, look, looked_again
from agents.judge.order import MOST_A_TICK, STUCK_MS, assigned_ms, ripe
from agents.judge.pairs import Outcome, Pending
from schemas.routes import Arm, JudgeSettings

OLD, NEW = Arm(arm="old", base="b"), Arm(arm="new", base="b")
X0 = 1000
ANSWER = st.tuples(st.booleans(), st.sampled_from([10, 1400, 1600, 10**9]))
GRADE = st.sampled_from([0, 400, 1000])

# the breaker


@settings(deadline=None)
@given(st.lists(st.one_of(ANSWER, GRADE), max_size=120), st.lists(st.one_of(ANSWER, GRADE), max_size=60), st.data())
def test_the_breaker_knows_the_last_window_only(before: list, after: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    """Two breakers that differ in what came before the last `breaker_window` answers and grades trip for the same reason or not at all."""
    judge = JudgeSettings(breaker_window=20)
    last = [data.draw(ANSWER) for _ in range(20)] + [data.draw(GRADE) for _ in range(20)]
    said = [run(judge, [*early, *last]).tripped(judge) for early in (before, after, [])]
    assert said[0] == said[1] == said[2]
    breaker = run(judge, [*before, *last])
    assert len(breaker.answers) <= 20
    assert len(breaker.grades) <= 20


def run(judge: JudgeSettings, rows: list) -> Breaker:  # type: ignore[type-arg]
    """A breaker after these answers and grades."""
    breaker = Breaker(arm="new", x0_us=X0, base_grade=600)
    for row in rows:
        if isinstance(row, int):
            breaker = breaker.graded(judge, row)
            continue
        breaker = breaker.answered(judge, ok=row[0], latency_us=row[1])
    return breaker


@settings(deadline=None)
@given(st.lists(st.one_of(ANSWER, GRADE), max_size=80))
def test_a_breaker_only_speaks_up(rows: list) -> None:  # type: ignore[type-arg]
    """It says why it has tripped or nothing; good answers and full grades alone never trip it; saved and loaded it is the same."""
    judge = JudgeSettings(breaker_window=20)
    breaker = run(judge, rows).detecting()
    again = Breaker.model_validate_json(breaker.model_dump_json())
    assert again == breaker
    assert again.tripped(judge) == breaker.tripped(judge)
    assert run(judge, [(True, 10), 1000] * len(rows)).tripped(judge) == ""


# the order

WAITING = st.dictionaries(
    st.tuples(st.integers(0, 10**6), st.integers(0, 9)).map(lambda row: f"pair/{row[0]:016d}/q{row[1]}"),
    st.tuples(st.integers(0, 10**6), st.booleans()),
    max_size=40,
).map(
    lambda rows: {
        name: Pending(window_end_ms=assigned_ms(name) + more, arenas=(), closed=closed)
        for name, (more, closed) in rows.items()
    }
)


@settings(deadline=None)
@given(WAITING, st.integers(0, 3 * 10**6), st.integers(0, 2 * STUCK_MS))
def test_what_is_ripe_is_the_head_of_the_line(waiting: dict[str, Pending], now_ms: int, later_ms: int) -> None:
    """In order, from the first on; at a later time the same and perhaps more; nothing unclosed before a day past its window."""
    found = ripe(waiting, now_ms)
    assert found == sorted(waiting)[: len(found)]
    assert ripe(waiting, now_ms + later_ms)[: len(found)] == found
    for name in found:
        assert now_ms >= waiting[name].window_end_ms
        assert waiting[name].closed or now_ms >= waiting[name].window_end_ms + STUCK_MS
    assert ripe(waiting, 10**15) == sorted(waiting)


def test_a_tick_folds_no_more_than_its_share() -> None:
    """What is left comes with the next tick, in its order."""
    waiting = {f"pair/{n:016d}/q": Pending(window_end_ms=n, arenas=(), closed=True) for n in range(MOST_A_TICK + 7)}
    found = ripe(waiting, 10**9)
    assert found == sorted(waiting)[:MOST_A_TICK]


# the arena

OUTCOME = st.builds(
    Outcome,
    strange=st.sampled_from([False, False, False, True]),
    ok=st.booleans() | st.just(True),
    words=st.integers(0, 1),
    grade=st.none() | st.integers(0, 1000) | st.sampled_from([0, 1000]),
    latency_us=st.integers(0, 10**8),
    nano_usd=st.integers(0, 10**12),
)
PAIR = st.builds(
    Pending,
    window_end_ms=st.just(1),
    arenas=st.just(("a",)),
    closed=st.just(True),
    sampled=st.booleans(),
    outcomes=st.fixed_dictionaries({"old": OUTCOME}, optional={"new": OUTCOME, "third": OUTCOME}),
)


def opened(**judge: object) -> tuple[Arena, JudgeSettings]:
    """A new arena and its numbers."""
    numbers = JudgeSettings.model_validate(judge)
    made = route().model_copy(update={"judge": numbers})
    return open_arena(OLD, NEW, made, now_ms=5, fresh_after_ms=0, alpha=numbers.alpha), numbers


@settings(max_examples=60, deadline=None)
@given(st.lists(PAIR, max_size=90), st.integers(0, 20), st.sampled_from([None, 1000]))
def test_an_arena_only_grows(rows: list[Pending], novelty: int, slo: int | None) -> None:
    """Each pair is one of novelty, stranger or counted; novelty first, x0 frozen once before pair 1 and never moved."""
    arena, judge = opened(novelty_pairs=novelty, latency_slo_ms=slo)
    for number, row in enumerate(rows, start=1):
        before, arena = arena, take(arena, judge, row)
        assert arena.novelty + arena.strangers + arena.pairs == number
        assert (arena.novelty >= before.novelty, arena.pairs >= before.pairs) == (True, True)
        assert before.x0_us is None or arena.x0_us == before.x0_us
        if arena.pairs > before.pairs:
            assert before.x0_us is not None
            assert arena.novelty == before.novelty >= novelty
            assert {track.n for track in (arena.latency, arena.slowness, arena.error, arena.cost)} == {arena.pairs}
        assert arena.quality.n <= arena.pairs
        assert len(arena.warmup) < LEAST_FOR_P95 or arena.x0_us is None


@settings(max_examples=60, deadline=None)
@given(st.lists(PAIR, max_size=60), st.integers(0, 60), st.sampled_from([0.05, 0.2]))
def test_a_look_is_made_again_from_its_basis_and_from_a_saved_arena(
    rows: list[Pending], cut: int, alpha: float
) -> None:
    """The same bits: looked at twice, through JSON after any pair, and from the basis alone; peaks never fall."""
    arena, judge = opened(novelty_pairs=0, latency_slo_ms=50, min_time_s=0, alpha=alpha)
    saved = arena
    peaks: tuple[float, ...] = (0.0,) * 15
    for number, row in enumerate(rows):
        arena, saved = take(arena, judge, row), take(saved, judge, row)
        around = Around(settings=judge, now_ms=10 + number)
        arena, seen = look(arena, around)
        saved, again = look(saved, around)
        assert again == seen == look(arena, around)[1] == looked_again(basis_of(arena, around))
        assert all(new >= old for new, old in zip(arena.peaks, peaks, strict=True))
        peaks = arena.peaks
        if number == cut:
            saved = Arena.model_validate_json(saved.model_dump_json())
    assert saved.model_dump_json() == arena.model_dump_json()


@settings(deadline=None)
@given(st.lists(PAIR, min_size=1, max_size=20), st.integers(0, 10**6))
def test_a_holdback_begins_with_nothing(rows: list[Pending], now_ms: int) -> None:
    """Whatever was collected before: every wealth at 1, no pair, the same arms and the same x0, only requests from now on."""
    arena, judge = opened(novelty_pairs=0, latency_slo_ms=50)
    for row in rows:
        arena = take(arena, judge, row)
    watch = hold_back(arena, now_ms, arena.overlay, priced=arena.priced)
    assert (watch.pairs, watch.quality.n, watch.peaks, watch.stage) == (0, 0, (), 0)
    assert (watch.champion, watch.challenger, watch.x0_us) == (arena.champion, arena.challenger, arena.x0_us)
    assert watch.fresh_after_ms == now_ms
    assert watch.key != arena.key


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200))
def test_p95_is_one_of_them_and_no_more_than_a_twentieth_lies_above(latencies: list[int]) -> None:
    """And it is at least a microsecond, for it is divided by."""
    found = p95(tuple(latencies))
    assert found >= 1
    assert found in latencies or found == 1
    assert sum(one > found for one in latencies) * 20 <= len(latencies)
