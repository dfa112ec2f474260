"""One contract, two stores, memory and a real Redis: what processes share, limits, budget, locks, counters, logs."""

import asyncio
import secrets
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.limits import Limit, Taken
from infra.store import MemoryStore, Store
from infra.store_redis import RedisStore

SLOW = Limit(1, 10)


async def test_take_is_all_or_nothing(store: Store) -> None:
    """Where the tokens do not suffice, no request is counted either; what is left is told per limit."""
    limits = (SLOW, Limit(1, 100))
    assert await store.take("t", limits, (1, 60)) == Taken(True, (9, 40), 0)
    over = await store.take("t", limits, (1, 60))
    assert (over.ok, over.left) == (False, (9, 40))
    assert over.retry_after_ms is not None
    assert 19 * 60_000 < over.retry_after_ms <= 20 * 60_000
    assert (await store.take("t", limits, (1, 40))).left == (8, 0)
    assert (await store.take("other", limits, (0, 0))).left == (10, 100)


async def test_more_than_the_burst_never_fits(store: Store) -> None:
    """Who asks for more than a bucket can hold is not told to come back."""
    assert await store.take("t", (SLOW, Limit(10**10, 5)), (1, 6)) == Taken(False, (10, 5), None)


async def test_fifty_at_once_take_what_there_is(store: Store) -> None:
    """Of fifty concurrent takers of a bucket of ten, ten get one."""
    taken = await asyncio.gather(*(store.take("t", (SLOW,), (1,)) for _ in range(50)))
    assert sum(one.ok for one in taken) == 10


async def test_buckets_refill(store: Store) -> None:
    """Tokens flow in with time: at 6,000 per minute one every ten milliseconds, up to the burst."""
    fast = (Limit(6000, 5),)
    assert (await store.take("t", fast, (5,))).ok
    over = await store.take("t", fast, (5,))
    assert over.retry_after_ms is not None
    await asyncio.sleep(over.retry_after_ms / 1000 + 0.05)
    assert await store.take("t", fast, (5,)) == Taken(True, (0,), 0)


async def test_a_repeated_take_takes_once(store: Store) -> None:
    """A request that is decided again, or whose reply was lost, pays once; one that was refused is asked anew."""
    assert (await store.take("t", (SLOW,), (10,), once="r1")).ok
    assert await store.take("t", (SLOW,), (10,), once="r1") == Taken(True, (0,), 0)
    assert not (await store.take("t", (SLOW,), (1,), once="r2")).ok
    assert not (await store.take("t", (SLOW,), (1,), once="r2")).ok


async def test_a_changed_limit_holds_at_once(store: Store) -> None:
    """A smaller burst cuts the level; a limit that is new to a bucket begins full."""
    await store.take("t", (Limit(1, 100),), (10,))
    assert (await store.take("t", (Limit(1, 20), Limit(1, 7)), (0, 0))).left == (20, 7)


@pytest.mark.parametrize("amounts", [(), (1, 1), (-1,)])
async def test_amounts_that_are_none(store: Store, amounts: tuple[int, ...]) -> None:
    """One amount from 0 per limit, else it is our fault."""
    with pytest.raises(ValueError, match="accepted"):
        await store.take("t", (SLOW,), amounts)


async def test_reserve_then_settle(store: Store) -> None:
    """A reservation counts until its request is settled; then the true cost does."""
    assert await store.reserve("d1", "r1", 500, 10) == 500
    assert await store.reserve("d1", "r2", 300, 10) == 800
    assert await store.settle("d1", "r1", 120, 10) == 420
    assert await store.spent(["d1", "d2"]) == [420, 0]


async def test_settled_before_reserved(store: Store) -> None:
    """A late reservation of a settled request changes nothing."""
    assert await store.settle("d", "r", 7, 10) == 7
    assert await store.reserve("d", "r", 500, 10) == 7


async def test_money_is_exact(store: Store) -> None:
    """Sums beyond what a double holds are exact to the nano-dollar."""
    most = 2**53 - 1
    for index in range(5):
        await store.reserve("d", f"r{index}", most, 10)
    assert await store.settle("d", "r0", 1, 10) == 4 * most + 1
    with pytest.raises(ValueError, match="accepted"):
        await store.reserve("d", "r9", -1, 10)


async def test_lift_never_lowers(store: Store) -> None:
    """What somebody saw spent before the store forgot it holds; less than is known changes nothing."""
    assert await store.lift("d", 900, 10) == 900
    assert await store.lift("d", 100, 10) == 900
    assert await store.reserve("d", "r", 5, 10) == 905


async def test_a_period_ends(store: Store) -> None:
    """A period's sum lives as long as its longest record."""
    await store.reserve("d", "r1", 5, 0.4)
    await store.reserve("d", "r2", 5, 0.05)
    await asyncio.sleep(0.15)
    assert await store.spent(["d"]) == [10]
    await asyncio.sleep(0.4)
    assert await store.spent(["d"]) == [0]


async def test_a_counter(store: Store) -> None:
    """It adds up, its life is that of its first count, and under a name it counts once."""
    assert await store.add("n", 2, 0.3) == 2
    assert await store.add("n", 3, 10, once="r1") == 5
    assert await store.add("n", 3, 10, once="r1") == 5
    assert await store.counts(["n", "m"]) == [5, 0]
    await asyncio.sleep(0.45)
    assert await store.add("n", -1, 10) == -1


async def test_one_of_fifty_holds_the_lock(store: Store) -> None:
    """One wins, may ask again, and only it lets go."""
    won = await asyncio.gather(*(store.acquire("probe", f"t{i}", 10) for i in range(50)))
    assert sum(won) == 1
    holder = f"t{won.index(True)}"
    assert await store.acquire("probe", holder, 10)
    assert not await store.release("probe", "another")
    assert not await store.acquire("probe", "another", 10)
    assert await store.release("probe", holder)
    assert not await store.release("probe", holder)
    assert await store.acquire("probe", "another", 10)


async def test_a_lock_ends_with_its_life(store: Store) -> None:
    """Who died holding it does not hold it for good."""
    assert await store.acquire("probe", "dead", 0.05)
    await asyncio.sleep(0.15)
    assert await store.acquire("probe", "next", 10)
    assert not await store.release("probe", "dead")


async def test_a_log_is_read_on(store: Store) -> None:
    """Entries come in order, page by page, after the last mark seen; the oldest beyond the most are gone."""
    assert await store.tail("log", "", 10) == []
    for index in range(12):
        await store.append("log", bytes([index, 255]), 10, 10)
    first = await store.tail("log", "", 4)
    assert [value[0] for _, value in first] == [2, 3, 4, 5]
    rest = await store.tail("log", first[-1][0], 100)
    assert [value[0] for _, value in rest] == [6, 7, 8, 9, 10, 11]
    assert await store.tail("log", rest[-1][0], 100) == []


async def test_a_log_ends_with_its_life(store: Store) -> None:
    """A log that nobody adds to is gone; one begun anew is read on from an older mark."""
    await store.append("log", b"old", 10, 0.05)
    ((mark, _),) = await store.tail("log", "", 10)
    await asyncio.sleep(0.15)
    assert await store.tail("log", "", 10) == []
    await store.append("log", b"new", 10, 10)
    assert [value for _, value in await store.tail("log", mark, 10)] == [b"new"]


CHARGES = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle"]), st.integers(0, 3), st.integers(0, 1000)), max_size=14
)


@settings(deadline=None, max_examples=40)
@given(charges=CHARGES)
def test_the_ledger_in_any_order_and_repetition(redis_url: str, charges: list[tuple[str, int, int]]) -> None:
    """Each request counts once: by its first settlement, else by its first reservation; in both stores, after each call."""

    async def play() -> None:
        redis = RedisStore(redis_url, timeout_s=5.0, prefix=f"test:{secrets.token_hex(6)}:")
        memory, reserved, settled = MemoryStore(), dict[int, int](), dict[int, int]()
        for deed, request, cost in charges:
            (reserved if deed == "reserve" else settled).setdefault(request, cost)
            due = sum({**reserved, **settled}.values())
            for one in (memory, redis):
                for _ in range(2):  # the reply was lost: once more
                    called: Any = getattr(one, deed)
                    assert await called("p", f"r{request}", cost, 10) == due
        await redis.close()

    asyncio.run(play())
