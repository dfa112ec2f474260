"""A pool follows a wished number: joins and leaves beside the calls, finds what an earlier process left, drains what goes."""

import asyncio
from collections.abc import Sequence

from infra.pool import Pool
from schemas.errors import Unavailable

NAMES = ("e-0", "e-1", "e-2", "e-3")


class Cluster:
    """Replicas by name. A join or a leave waits until the test lets it go on; one name never joins and leaves at once."""

    def __init__(self, *running: str) -> None:
        self.there = {"e-0", *running}
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy: set[str] = set()

    async def running(self, names: Sequence[str]) -> Sequence[str]:
        if self.away:
            raise Unavailable("the cluster does not answer")
        return [name for name in names if name in self.there]

    async def join(self, name: str) -> None:
        self._begin(name)
        try:
            await self.gate.wait()
            self.there.add(name)
        finally:
            self.busy.discard(name)

    async def leave(self, name: str) -> None:
        self._begin(name)
        await self.gate.wait()
        self.there.discard(name)
        self.busy.discard(name)

    def _begin(self, name: str) -> None:
        assert name != "e-0", "the first replica is not in the pool's care"
        assert name not in self.busy, f"{name} joins and leaves at once"
        self.busy.add(name)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_grows_and_shrinks_within_its_bounds() -> None:
    """Every change is told once, after it happened; the first replica stays."""
    cluster = Cluster()
    pool = Pool(NAMES, 1, cluster)
    assert not await pool.scale(1)
    assert not await pool.scale(3)
    await settle()
    assert cluster.there == {"e-0", "e-1", "e-2"}
    assert await pool.scale(3)
    assert not await pool.scale(3)
    await pool.scale(99)
    await settle()
    assert cluster.there == set(NAMES)
    assert await pool.scale(0)
    await settle()
    assert cluster.there == {"e-0"}
    assert not await pool.scale(1)


async def test_what_is_joining_can_be_called_off_and_what_leaves_can_come_back() -> None:
    """A wish that changes faster than replicas do ends where the last wish said."""
    cluster = Cluster()
    pool = Pool(NAMES, 1, cluster)
    cluster.gate.clear()
    await pool.scale(3)
    await settle()
    await pool.scale(2)
    await settle()
    await pool.scale(4)
    cluster.gate.set()
    for _ in range(3):
        await settle()
        await pool.scale(4)
    await settle()
    assert cluster.there == set(NAMES)
    assert cluster.busy == set()
    await pool.close()


async def test_an_earlier_process_left_replicas() -> None:
    """Those that are wanted are found by joining, the others end."""
    cluster = Cluster("e-1", "e-3")
    pool = Pool(NAMES, 1, cluster)
    await pool.scale(2)
    await settle()
    assert cluster.there == {"e-0", "e-1"}
    assert await pool.scale(2)


async def test_a_cluster_that_is_away_is_asked_again() -> None:
    """Nothing is raised and nothing begun."""
    cluster = Cluster("e-2")
    cluster.away = True
    pool = Pool(NAMES, 1, cluster)
    assert not await pool.scale(2)
    cluster.away = False
    await pool.scale(2)
    await settle()
    assert cluster.there == {"e-0", "e-1"}


async def test_closing_leaves_replicas_as_they_are() -> None:
    """What is on its way is stopped."""
    cluster = Cluster()
    pool = Pool(NAMES, 1, cluster)
    cluster.gate.clear()
    await pool.scale(2)
    await settle()
    await pool.close()
    assert cluster.there == {"e-0"}
    assert pool.names == NAMES
