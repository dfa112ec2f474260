"""The index of like questions over the store in memory: what is nearest, exactly, and what is passed over."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.semantic import MOST_DIMS, PAGE, Near, SemanticIndex
from infra.store import MemoryStore
from schemas.errors import Unavailable

VECTORS = st.lists(st.integers(-127, 127), min_size=6, max_size=6).map(lambda row: np.array(row, dtype=np.int8))


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def index(store: MemoryStore, clock: Time | None = None, *, dims: int = 6, most: int = 10_000) -> SemanticIndex:
    """An index as another process would have it."""
    return SemanticIndex(store, clock or Time(), dims=dims, most=most)


def unit(at: int, dims: int = 6) -> NDArray[np.int8]:
    """A vector along one axis."""
    return (np.arange(dims) == at).astype(np.int8) * np.int8(100)


@given(rows=st.lists(VECTORS, max_size=12), asked=VECTORS, least=st.integers(1, 1000))
async def test_the_nearest_by_exact_cosine(rows: list[NDArray[np.int8]], asked: NDArray[np.int8], least: int) -> None:
    """All rows at or above the bound and no other, each with its cosine in thousandths, the nearest first."""
    made = index(MemoryStore())
    for number, row in enumerate(rows):
        await made.add("p", f"{number:02}", f"q{number}", row)
    due: list[Near] = []
    for number, row in enumerate(rows):
        left, right = [int(one) for one in row], [int(one) for one in asked]
        product, norm = (
            sum(map(int.__mul__, left, right)),
            sum(one * one for one in left) * sum(one * one for one in right),
        )
        likeness = math.isqrt(product**2 * 10**6 // norm) if norm and product > 0 else 0
        if likeness >= least:
            due.append(Near(f"{number:02}", f"q{number}", likeness))
    due.sort(key=lambda near: (-near.likeness_milli, near.identity))
    assert await made.nearest("p", asked, least_milli=least, most=20) == tuple(due)


async def test_the_greatest_vectors_are_exact() -> None:
    """At 1,024 dimensions of 127 the product is still a whole number: alike is 1000, one step off is less."""
    made = index(MemoryStore(), dims=MOST_DIMS)
    full = np.full(MOST_DIMS, 127, dtype=np.int8)
    off = full.copy()
    off[0] = -127
    await made.add("p", "a", "q", full)
    assert (await made.nearest("p", full, least_milli=1))[0].likeness_milli == 1000
    assert (await made.nearest("p", off, least_milli=1))[0].likeness_milli == 998


async def test_partitions_are_apart() -> None:
    """What was asked in one partition is near nothing in another."""
    made = index(MemoryStore())
    await made.add("p", "a", "q", unit(0))
    assert await made.nearest("other", unit(0), least_milli=1) == ()


async def test_another_process_sees_it_after_its_next_read() -> None:
    """A copy is read anew once a second, not with every question."""
    store, clock = MemoryStore(), Time()
    one, other = index(store), index(store, clock)
    assert await other.nearest("p", unit(0), least_milli=950) == ()
    await one.add("p", "a", "q", unit(0))
    assert await other.nearest("p", unit(0), least_milli=950) == ()
    clock.now = 1.0
    assert await other.nearest("p", unit(0), least_milli=950) == (Near("a", "q", 1000),)


async def test_a_large_partition_is_read_page_by_page() -> None:
    """A page per question until the copy is whole; then once a second again."""
    store = MemoryStore()
    one, other = index(store), index(store)
    for number in range(2 * PAGE + 1):
        await one.add("p", f"{number:04}", "q", unit(number % 6))
    sizes = [len(await other.nearest("p", unit(0), least_milli=950, most=10_000)) for _ in range(4)]
    assert sizes == [math.ceil(count / 6) for count in (PAGE, 2 * PAGE, 2 * PAGE + 1, 2 * PAGE + 1)]


async def test_bounded_by_the_latest() -> None:
    """Beyond the most the oldest rows are gone, from the store and from a copy that was there all along."""
    store, clock = MemoryStore(), Time()
    made = index(store, clock, most=4)
    for number in range(11):
        clock.now += 1.0
        await made.add("p", f"{number:02}", "q", unit(0))
        await made.nearest("p", unit(0), least_milli=950)
    for one in (made, index(store, most=4)):
        clock.now += 1.0
        assert [near.identity for near in await one.nearest("p", unit(0), least_milli=950)] == ["07", "08", "09", "10"]


async def test_a_known_or_empty_question_is_not_added() -> None:
    """Asked again it is one row; a text that says nothing is none."""
    store, clock = MemoryStore(), Time()
    made = index(store, clock)
    assert await made.add("p", "a", "q", unit(0))
    await made.nearest("p", unit(0), least_milli=950)
    assert not await made.add("p", "a", "q", unit(0))
    assert not await made.add("p", "b", "q", np.zeros(6, dtype=np.int8))
    assert len(await store.tail("p", "", 10)) == 1
    assert await made.nearest("p", np.zeros(6, dtype=np.int8), least_milli=0) == ()


@given(junk=st.binary(max_size=30))
async def test_foreign_rows_are_passed_over(junk: bytes) -> None:
    """Rows that are cut, of other dimensions or no rows at all do not hide the good ones."""
    store = MemoryStore()
    await index(store, dims=3).add("p", "a", "q", np.array([1, 2, 3], dtype=np.int8))
    ((_, other),) = await store.tail("p", "", 1)
    for row in (junk, other, other[:-4]):
        await store.append("p", row, 100, 10)
    made = index(store)
    await made.add("p", "good", "q", unit(0))
    assert await made.nearest("p", unit(0), least_milli=950) == (Near("good", "q", 1000),)


async def test_copies_are_bounded() -> None:
    """The partition that was used longest ago is read anew when it is asked for again."""
    store = MemoryStore()
    made = SemanticIndex(store, Time(), dims=6, partitions=2)
    for name in ("a", "b", "c"):
        await made.add(name, name, "q", unit(0))
        await made.nearest(name, unit(0), least_milli=950)
    assert await made.nearest("a", unit(0), least_milli=950) == (Near("a", "q", 1000),)


async def test_the_store_away() -> None:
    """Without the store there is nothing to find: Unavailable, and afterwards it goes on, cold."""
    store, clock = MemoryStore(), Time()
    made = index(store, clock)
    await made.add("p", "a", "q", unit(0))
    store.cut()
    with pytest.raises(Unavailable):
        await made.nearest("p", unit(0), least_milli=950)
    store.mend()
    assert await made.nearest("p", unit(0), least_milli=950) == ()


@pytest.mark.parametrize("wrong", [np.zeros(5, dtype=np.int8) + 1, np.zeros(6, dtype=np.int16) + 1])
async def test_a_vector_of_another_shape_is_ours_to_mend(wrong: NDArray[np.int8]) -> None:
    """The index has one embedder; another's vectors are a fault."""
    with pytest.raises(ValueError, match="accepted: int8"):
        await index(MemoryStore()).add("p", "a", "q", wrong)
    with pytest.raises(ValueError, match="accepted: dims"):
        index(MemoryStore(), dims=MOST_DIMS + 1)
