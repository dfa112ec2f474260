"""Token buckets in integers: never more than flows in, never a rounding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.limits import PARTS, Levels, Limit, Taken, take_from

LIMITS = st.builds(Limit, per_minute=st.integers(1, 10_000), burst=st.integers(1, 1000))
ASKS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 200)), max_size=40)


@given(limit=LIMITS, asks=ASKS)
def test_never_more_than_flows_in(limit: Limit, asks: list[tuple[int, int]]) -> None:
    """Over any stretch from a full bucket on, what was taken is at most the burst and the rate times the time."""
    held, now, taken = None, 1000, 0
    for wait, amount in asks:
        now += wait
        held, answer = take_from(held, now, (limit,), (amount,))
        taken += amount * answer.ok
        assert taken * PARTS <= limit.burst * PARTS + (now - 1000) * limit.per_minute
        assert 0 <= held.parts[0] <= limit.burst * PARTS


@given(limit=LIMITS, first=st.integers(0, 1000), second=st.integers(1, 1000))
def test_the_time_to_try_again_is_exact(limit: Limit, first: int, second: int) -> None:
    """At the time told the amount is there; a millisecond before it is not."""
    held, _ = take_from(None, 0, (limit,), (min(first, limit.burst),))
    held, answer = take_from(held, 0, (limit,), (second,))
    if answer.ok:
        assert answer.retry_after_ms == 0
    elif answer.retry_after_ms is None:
        assert second > limit.burst
    else:
        assert take_from(held, answer.retry_after_ms, (limit,), (second,))[1].ok
        assert not take_from(held, answer.retry_after_ms - 1, (limit,), (second,))[1].ok


def test_a_clock_that_goes_back_adds_nothing() -> None:
    """Neither the step back nor the way forward again to where it was is time twice."""
    limit = (Limit(60, 10),)
    held, _ = take_from(None, 100_000, limit, (10,))
    held, answer = take_from(held, 40_000, limit, (0,))
    assert answer == Taken(True, (0,), 0)
    assert take_from(held, 41_000, limit, (0,))[1].left == (1,)


def test_a_refused_take_changes_nothing() -> None:
    """All or nothing: of two limits that do not both suffice, neither is touched."""
    held = Levels(5, (3 * PARTS, 3 * PARTS))
    after, answer = take_from(held, 5, (Limit(1, 9), Limit(1, 9)), (1, 4))
    assert (after, answer) == (held, Taken(False, (3, 3), PARTS))


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (1, 0), (-1, 5), (10**10 + 1, 1)])
def test_a_limit_that_is_none(per_minute: int, burst: int) -> None:
    """Both numbers are at least 1."""
    with pytest.raises(ValueError, match="accepted"):
        Limit(per_minute, burst)
