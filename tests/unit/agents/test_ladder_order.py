"""Labels enter the ladder in the order in which requests were assigned: a reject that takes longer hides nothing."""

from folding import Folding
from hypothesis import given, settings
from hypothesis import strategies as st
from trusting import NOW, QUICK, apply, case, said, signals

from agents.trust.fold import Ladder
from agents.trust.labels import turn_ms
from agents.trust.state import MOST_WAITING, SPAN_MS, RouteTrust, Row, Standing
from schemas import ids
from schemas.events import CaseClosed

WINDOW_MS = 600_000


def asked(number: int, right: bool, closed_ms: int) -> CaseClosed:
    """Assigned one second after the one before; closed when its verdict was in."""
    at = NOW + 1_000 * number
    told = case(f"{number:05d}", signals(-(number * 7 % 20) / 100), right, at_ms=at + closed_ms)
    return told.model_copy(update={"assigned_at_ms": at, "window_end_ms": at + WINDOW_MS})


def standing(ladder: Folding) -> Standing:
    record = ladder.cells["bank"].record
    assert isinstance(record, RouteTrust)
    return Standing("bank", record, dict(ladder.cells["bank"].entries))


def test_rejects_that_come_late_certify_nothing() -> None:
    """A quarter is wrong and said so nine minutes later, at a risk of 20 %: in the order of arrival the first 200 are all right."""
    ladder = Folding(Ladder())
    ladder.take(apply(trust=QUICK))
    drawn = [ids.coin(str(number), "right") >= 16_384 for number in range(800)]
    rows = [asked(number, right, 1_000 if right else 540_000) for number, right in enumerate(drawn)]
    rows.sort(key=lambda row: (row.at_ms, row.request_id))
    assert not any(map(_wrong, rows[:200]))
    for row in rows:
        ladder.tick(row.at_ms)
        ladder.take(row)
        assert standing(ladder).running.covers() == 0
    ladder.tick(NOW + 10 * WINDOW_MS)
    rungs = standing(ladder).running.rungs
    assert rungs is not None
    assert (rungs.n[9], rungs.bad[9]) == (800, sum(map(_wrong, rows)))
    assert standing(ladder).record.left_out == 0


def _wrong(row: CaseClosed) -> bool:
    return row.arms[0].grade == 0


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(40)), st.integers(0, 39))
def test_the_order_of_arrival_changes_nothing(order: list[int], late: int) -> None:
    """Any interleaving within the window: the same rungs, bit for bit. What comes after its turn is left out, and counted."""
    rows = [asked(n, n % 9 != 0, 1_000) for n in range(40)]
    found: list[str] = []
    for turn in (range(40), order):
        ladder = Folding(Ladder())
        ladder.take(apply(trust=QUICK))
        for number in turn:
            ladder.take(rows[number])
        ladder.tick(NOW + 10 * WINDOW_MS)
        running = standing(ladder).running
        assert running.rungs is not None
        found.append(running.rungs.model_dump_json())
    assert found[0] == found[1]
    again = rows[late].model_copy(update={"request_id": "late"})
    ladder.take(again)
    ladder.tick(NOW + 20 * WINDOW_MS)
    after = standing(ladder)
    assert after.running.rungs is not None
    assert (after.running.rungs.model_dump_json(), after.record.left_out) == (found[0], 1)


def test_a_turn_comes_once_all_from_before_have_closed() -> None:
    """Not before the window's end, the grace of `cases` and as much again."""
    row = asked(1, True, 1_000)
    assert turn_ms(row) == NOW + 1_000 + WINDOW_MS + 120_000
    ladder = Folding(Ladder())
    ladder.take(apply(trust=QUICK))
    ladder.take(row)
    due = ladder.cells["bank"].due_ms
    assert due is not None
    assert turn_ms(row) < due <= turn_ms(row) + SPAN_MS
    ladder.tick(due - 1)
    assert standing(ladder).record.waiting == 1
    ladder.tick(due)
    assert (standing(ladder).record.waiting, ladder.cells["bank"].due_ms) == (0, None)
    assert standing(ladder).running.collected == 1


def test_a_reset_forgets_what_waits() -> None:
    """It was said of another champion, or by other people."""
    ladder = Folding(Ladder())
    ladder.take(apply(trust=QUICK))
    for number in range(40):
        ladder.take(asked(number, True, 1_000))
    assert standing(ladder).record.waiting == 40
    ladder.take(said("reset"))
    ladder.tick(NOW + 10 * WINDOW_MS)
    assert (standing(ladder).record.waiting, standing(ladder).running.collected) == (0, 0)


def test_no_more_than_so_many_wait() -> None:
    """The rest is left out, and counted: the state of a route has an end."""
    ladder = Folding(Ladder())
    ladder.take(apply())
    full = standing(ladder)
    full.change(waiting=MOST_WAITING)
    full.wait(Row(assigned_at_ms=NOW, id="r", seq=1, signals=signals(), said="right"), NOW)
    assert (full.record.left_out, full.put) == (1, {})
