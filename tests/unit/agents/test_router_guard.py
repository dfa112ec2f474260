"""The guard: it stops a router that harms, seldom one that does not, lifts when proven again, and freezes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router.guard import MARGIN, MICRO, WHOLE, Guard, difference, frozen, observed, paired, renewed, starting
from schemas.errors import RatchetError

CASES = 2_000


def after(guard: Guard, gain: float, *, seed: int = 0, cases: int = CASES, spread: float = 0.15) -> tuple[Guard, int]:
    """The guard after shadow pairs of this mean gain, and at which case who serves first changed (`cases`: never)."""
    rng, first = np.random.default_rng(seed), cases
    for at in range(cases):
        champion = int(MICRO * rng.uniform(0.3, 0.7))
        d = int(MICRO * (gain + spread * rng.uniform(-1, 1)))
        moved = observed(guard, paired(champion + d, champion))
        if moved.champion_serves != guard.champion_serves and first == cases:
            first = at
        guard = moved
    return guard, first


def test_a_router_that_harms_is_stopped() -> None:
    """Five points worse: the champion serves within 300 pairs, and goes on serving."""
    guard, first = after(starting(strict=False), -0.05)
    assert first < 300
    assert guard.champion_serves
    assert guard.trips == 1


def test_a_router_that_is_no_worse_is_seldom_stopped() -> None:
    """At a mean of exactly -margin at most 5 % are, at any time: 100 runs of 400 pairs, at most 12 (99.9 % point of 5 %)."""
    stopped = sum(after(starting(strict=False), -MARGIN, seed=seed, cases=400)[1] < 400 for seed in range(100))
    assert stopped <= 12
    assert not any(after(starting(strict=False), 0.002, seed=seed, cases=400)[0].trips for seed in range(20))


def test_a_stopped_router_comes_back_when_it_is_proven() -> None:
    """With a fresh track, once its lower bound is above -margin."""
    guard, _ = after(starting(strict=False), -0.08, cases=400)
    assert guard.champion_serves
    guard, first = after(guard, 0.03)
    assert not guard.champion_serves
    assert first < 1_000
    assert guard.trips == 1


def test_a_strict_guard_lets_the_champion_serve_first() -> None:
    """Until the router is proven; one that is worse never is."""
    assert starting(strict=True).champion_serves
    guard, first = after(starting(strict=True), 0.03)
    assert not guard.champion_serves
    assert 0 < first < 1_000
    assert after(starting(strict=True), -0.03)[0].champion_serves


def test_frozen_nothing_is_counted_nor_explored() -> None:
    """While trust is in ALARM; afterwards it goes on where it was."""
    guard = frozen(after(starting(strict=False), 0.0, cases=20)[0], alarm=True)
    assert not guard.explores
    assert observed(guard, -1.0) == guard
    assert observed(frozen(guard, alarm=False), -1.0).track.n == 21


def test_another_router_starts_anew() -> None:
    """What was seen does not count for it; a freeze stays."""
    guard = frozen(after(starting(strict=False), -0.08, cases=400)[0], alarm=True)
    fresh = renewed(guard, strict=False)
    assert (fresh.champion_serves, fresh.frozen, fresh.trips, fresh.track.n) == (False, True, 1, 0)


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, ...]:
    """Three shares of 65,536, each with some chance."""
    first = draw(st.integers(656, WHOLE - 2 * 656))
    second = draw(st.integers(656, WHOLE - first - 656))
    return first, second, WHOLE - first - second


@given(shares(), shares(), st.tuples(*[st.integers(0, MICRO)] * 3), st.integers(0, MICRO))
def test_the_difference_has_the_right_mean(
    router: tuple[int, ...], logged: tuple[int, ...], qualities: tuple[int, ...], expected: int
) -> None:
    """Over the logged draws D + margin is a positive multiple of router - champion + margin, whatever was expected."""
    parts = [difference(qualities[arm], expected, arm, 0, router, logged) for arm in range(3)]
    gain = (
        sum(share * quality for share, quality in zip(router, qualities, strict=True)) / WHOLE / MICRO
        - qualities[0] / MICRO
    )
    weights = [
        (share - WHOLE * (at == 0)) / chance for at, (share, chance) in enumerate(zip(router, logged, strict=True))
    ]
    scale = (1 - MARGIN) / max(1.0, *(abs(one) for one in weights))
    mean = sum(chance * d for chance, d in zip(logged, parts, strict=True)) / WHOLE
    assert mean + MARGIN == pytest.approx(scale * (gain + MARGIN), abs=1e-9)
    assert all(-1.0 <= d <= 1.0 for d in parts)


def test_where_the_log_cannot_tell_nothing_is_said() -> None:
    """The champion without a chance, or a router that chooses as it does."""
    assert difference(1, 1, 1, 0, (0, WHOLE), (0, WHOLE)) is None
    assert difference(1, 1, 0, 0, (WHOLE, 0), (WHOLE, 0)) is None
    guard = starting(strict=False)
    assert observed(guard, None) is guard


def test_a_value_that_is_none_changes_nothing() -> None:
    """Raised before the track is touched."""
    guard = after(starting(strict=False), 0.0, cases=5)[0]
    with pytest.raises(ValueError, match="accepted: -1 to 1") as fault:
        observed(guard, 1.5)
    assert guard.track.n == 5
    assert not isinstance(fault.value, RatchetError)


def test_the_same_cases_give_the_same_guard() -> None:
    """To the bit, from any run."""
    assert after(starting(strict=False), 0.01)[0] == after(starting(strict=False), 0.01)[0]
