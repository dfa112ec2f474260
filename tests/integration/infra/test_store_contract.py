"""One contract, two stores, memory and a real Redis: values and their expiry."""

import asyncio

import pytest

from infra.store import SharedStore


async def test_put_get_overwrite(store: SharedStore) -> None:
    """The last value put is read, any bytes; a key never put is None."""
    assert await store.get("k") is None
    await store.put("k", b"\x00\xff\n", 10)
    await store.put("k", b"second", 10)
    assert await store.get("k") == b"second"


async def test_mget_keeps_the_order(store: SharedStore) -> None:
    """One answer per key, in the order asked, None for what is absent; no keys, no answers."""
    await store.put("a", b"1", 10)
    await store.put("c", b"3", 10)
    assert await store.mget(["c", "b", "a", "c"]) == [b"3", None, b"1", b"3"]
    assert await store.mget([]) == []


async def test_delete(store: SharedStore) -> None:
    """A deleted key is absent; deleting it again is no fault."""
    await store.put("k", b"v", 10)
    await store.delete("k")
    await store.delete("k")
    assert await store.get("k") is None


async def test_set_if_absent_has_one_winner(store: SharedStore) -> None:
    """Of many at once, one wins and all are told its value."""
    held = await asyncio.gather(*(store.set_if_absent("k", str(i).encode(), 10) for i in range(50)))
    assert len(set(held)) == 1
    assert await store.get("k") == held[0]


async def test_expiry(store: SharedStore) -> None:
    """A value is gone after its time, and the key may be set again."""
    await store.put("k", b"v", 0.05)
    await asyncio.sleep(0.15)
    assert await store.get("k") is None
    assert await store.set_if_absent("k", b"w", 10) == b"w"


async def test_set_if_absent_does_not_lengthen_a_life(store: SharedStore) -> None:
    """The loser's time to live changes nothing."""
    await store.put("k", b"v", 0.1)
    assert await store.set_if_absent("k", b"w", 100) == b"v"
    await asyncio.sleep(0.25)
    assert await store.get("k") is None


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan")])
async def test_no_life_is_ours_to_mend(store: SharedStore, ttl_s: float) -> None:
    """A time to live that is not above zero is a fault of the caller."""
    with pytest.raises(ValueError, match="above 0"):
        await store.put("k", b"v", ttl_s)
