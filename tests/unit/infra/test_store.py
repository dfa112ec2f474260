"""The store in memory: expiry by its clock, misuse, and being cut off. The contract itself runs beside real Redis."""

import pytest

from infra.store import Limit, MemoryStore
from schemas.errors import Unavailable


async def test_expiry_follows_the_clock() -> None:
    """A value lives until its time, then the key is free again."""
    now = [0.0]
    store = MemoryStore(lambda: now[0])
    await store.put("k", b"v", 10)
    now[0] = 9.9
    assert await store.get("k") == b"v"
    now[0] = 10.0
    assert await store.get("k") is None
    assert await store.set_if_absent("k", b"w", 10) == b"w"


async def test_cut_off_and_mended_cold() -> None:
    """Cut off, every call is Unavailable; mended, it answers and remembers nothing."""
    store = MemoryStore()
    await store.put("k", b"v", 10)
    store.cut()
    for call in (
        store.get("k"),
        store.mget(["k"]),
        store.put("k", b"", 1),
        store.set_if_absent("k", b"", 1),
        store.delete("k"),
        store.add("n", 1, 1),
        store.counts(["n"]),
        store.acquire("l", "t", 1),
        store.release("l", "t"),
        store.take("t", (Limit(1, 1),), (1,)),
        store.reserve("p", "r", 1, 1),
        store.settle("p", "r", 1, 1),
        store.spent(["p"]),
        store.lift("p", 1, 1),
        store.append("log", b"", 1, 1),
        store.tail("log", "", 1),
        store.ping(),
    ):
        with pytest.raises(Unavailable):
            await call
    store.mend()
    assert await store.get("k") is None


async def test_use_after_close_fails_the_test() -> None:
    """The fake is as strict as it can be: a closed store is not used."""
    store = MemoryStore()
    await store.close()
    with pytest.raises(AssertionError):
        await store.get("k")
