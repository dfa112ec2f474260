"""Without the store: all routers together let through no more than one bucket would, and spend no more than was left."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.limits import PARTS, Limit, Taken
from infra.local_limits import MOST_HELD, MOST_KEYS, Known, LocalBudget, LocalQuota
from infra.store import MemoryStore
from schemas.errors import Unavailable


@given(
    routers=st.integers(1, 7),
    limit=st.builds(Limit, per_minute=st.integers(1, 5000), burst=st.integers(1, 100)),
    asks=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 6), st.integers(0, 120)), max_size=60),
)
def test_all_shares_together_are_one_bucket(routers: int, limit: Limit, asks: list[tuple[int, int, int]]) -> None:
    """All routers together take at most burst + rate · time, beyond that one debt of less than a burst each."""
    shares, now, taken = [LocalQuota(routers) for _ in range(routers)], 0, 0
    for wait, which, amount in asks:
        now += wait
        taken += amount * shares[which % routers].take("t", (limit,), (amount,), now).ok
    assert taken * PARTS <= limit.burst * PARTS + now * limit.per_minute + routers * limit.burst * PARTS


def test_a_share_of_rate_and_burst() -> None:
    """One of four routers grants a quarter at once, and then a quarter of the rate."""
    quota, limits = LocalQuota(4), (Limit(60, 40),)
    assert [quota.take("t", limits, (1,), 0).ok for _ in range(12)] == [True] * 10 + [False] * 2
    assert quota.take("t", limits, (1,), 0).retry_after_ms == 4000
    assert not quota.take("t", limits, (1,), 3999).ok
    assert quota.take("t", limits, (1,), 4000) == Taken(True, (0,), 0)


def test_a_slow_rate_is_not_rounded_away() -> None:
    """Asked every millisecond, a thirtieth of a token a minute still flows."""
    quota, limits = LocalQuota(30), (Limit(1, 30),)
    assert quota.take("t", limits, (1,), 0).ok
    granted = [now for now in range(1, 1_800_002, 10) if quota.take("t", limits, (1,), now).ok]
    assert granted == [1_800_001]


def test_a_large_ask_is_paid_off() -> None:
    """More than the share of a burst goes through from a full bucket, and is waited off; more than the burst never does."""
    quota, limits = LocalQuota(10), (Limit(6000, 1000),)
    assert quota.take("t", limits, (1001,), 0) == Taken(False, (100,), None)
    assert quota.take("t", limits, (500,), 0).ok
    assert quota.take("t", limits, (1,), 0).retry_after_ms == 401 * 100
    assert quota.take("t", limits, (1,), 401 * 100).ok


def test_keys_are_bounded() -> None:
    """The tenant that was seen longest ago is forgotten first."""
    quota, limits = LocalQuota(1), (Limit(1, 1),)
    for index in range(MOST_KEYS + 1):
        quota.take(f"t{index}", limits, (1,), 0)
    assert quota.take("t0", limits, (1,), 0).ok
    assert not quota.take(f"t{MOST_KEYS}", limits, (1,), 0).ok


def test_room_is_a_share_of_the_last_known_budget() -> None:
    """A router spends its share of what was left; of a period that it never heard of, nothing."""
    budget = LocalBudget(4)
    assert budget.room("day", 1000) == 0
    budget.heard("day", 600, 5)
    assert budget.room("day", 1000) == 100
    budget.reserve("day", "r1", 60, 10)
    budget.reserve("day", "r1", 60, 10)
    assert budget.room("day", 1000) == 40
    assert budget.room("day", 500) == 0


def test_reservations_without_end_are_masked() -> None:
    """More than can be kept for the store is not spent."""
    budget = LocalBudget(1)
    budget.heard("day", 0, 0)
    for index in range(MOST_HELD):
        budget.reserve("day", f"r{index}", 1, 10)
    assert budget.room("day", 10**12) == 0


def test_what_is_due() -> None:
    """The ledger is asked for what is unknown, too old, or from a clock that went back."""
    budget = LocalBudget(1)
    budget.heard("a", 1, 1000)
    assert budget.due(["a", "b"], 1099, 100) == ["b"]
    assert budget.due(["a"], 1100, 100) == ["a"]
    assert budget.due(["a"], 999, 100) == ["a"]


async def test_handed_over_once() -> None:
    """What was reserved without the store is in the ledger once, however often it is handed over."""
    store, budget = MemoryStore(), LocalBudget(2)
    await budget.meet(store, "t1", 0, 10)
    budget.heard("day", await store.reserve("day", "r0", 5, 10), 0)
    budget.reserve("day", "r0", 5, 10)  # its reply was lost
    budget.reserve("day", "r1", 7, 10)
    for token in ("t2", "t3"):
        await budget.meet(store, token, 1, 10)
    assert await store.spent(["day"]) == [12]
    assert (budget.held(), budget.known("day")) == ((), Known(12, 1))
    assert budget.room("day", 100) == 44


async def test_a_store_that_forgot_is_told() -> None:
    """A store that comes back empty has the sum again, what was reserved meanwhile on top; two routers do not double it."""
    store, budgets = MemoryStore(), [LocalBudget(2), LocalBudget(2)]
    for index, budget in enumerate(budgets):
        await budget.meet(store, f"start{index}", 0, 10)
    told = await store.reserve("day", "r0", 500, 10)
    for budget in budgets:
        budget.heard("day", told, 0)
    store.cut()
    with pytest.raises(Unavailable):
        await budgets[0].meet(store, "cut", 1, 10)
    budgets[0].reserve("day", "r1", 20, 10)
    store.mend()
    for index, budget in enumerate(budgets):
        await budget.meet(store, f"back{index}", 2, 10)
    assert await store.spent(["day"]) == [520]


async def test_a_store_that_did_not_forget_is_not_told() -> None:
    """A sum that sank meanwhile, because requests were settled, stays as it is."""
    store, budget = MemoryStore(), LocalBudget(1)
    await budget.meet(store, "start", 0, 10)
    budget.heard("day", await store.reserve("day", "r0", 500, 10), 0)
    await store.settle("day", "r0", 100, 10)
    await budget.meet(store, "back", 1, 10)
    assert await store.spent(["day"]) == [100]


@pytest.mark.parametrize("made", [LocalQuota, LocalBudget])
def test_at_least_one_router(made: type[LocalQuota] | type[LocalBudget]) -> None:
    """A share of nobody is no share."""
    with pytest.raises(ValueError, match="accepted"):
        made(0)


class SlowStore(MemoryStore):
    """Gives way to others before each reservation, as one behind a network does."""

    async def reserve(self, period: str, request: str, nano_usd: int, ttl_s: float) -> int:
        await asyncio.sleep(0)
        return await super().reserve(period, request, nano_usd, ttl_s)


async def test_two_that_meet_the_store_at_once_hand_over_once() -> None:
    """Requests that are decided side by side find the store back together: each reservation is charged once, none is left."""
    budget, store = LocalBudget(1), SlowStore()
    for number in range(5):
        budget.reserve("p", f"r{number}", 10, 100)
    await asyncio.gather(*(budget.meet(store, "t", 0, 100) for _ in range(3)))
    assert budget.held() == ()
    assert await store.spent(["p"]) == [50]
    assert budget.known("p") == Known(50, 0)
    budget.reserve("p", "r9", 10, 100)
    await budget.meet(store, "t", 0, 100)
    assert await store.spent(["p"]) == [60]
