"""Inference follows the estimator: it wishes for so many engines as all routes need together, and loads those that came."""

from collections.abc import Mapping, Sequence
from typing import Any

from agents.inference.actor import Inference
from agents.ports import ArmSpec, Generation, LoadOutcome
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.payload import Payload
from schemas.policies import CapacityArm, PolicyCapacity, PolicyFleet
from schemas.routes import Arm
from streams.shapes import Event, Place, Record

NOW = 1_700_000_000_000


class Table:
    """A view that holds what it was given."""

    def __init__(self) -> None:
        self.rows: dict[str, Event[Any]] = {}

    def put(self, policy: Payload) -> None:
        record = Record("ratchet.policies", 0, 1, policy.event_key().encode(), b"", (), NOW)
        self.rows[policy.event_key()] = Event("e", policy.event_key(), policy, "test", "", Place("p", 0, 1), record)

    def get(self, model: type[Payload], key: str) -> Event[Any] | None:
        return self.rows.get(key)

    def items(self, model: type[Payload]) -> Mapping[str, Event[Any]]:
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self) -> float:
        return 0.0


class Pool:
    """Engines that come and go at once; every load is told per replica."""

    def __init__(self) -> None:
        self.replicas = 1
        self.loads: list[int] = []

    async def scale(self, replicas: int) -> bool:
        changed, self.replicas = replicas != self.replicas, replicas
        return changed

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        self.loads.append(self.replicas)
        return [
            LoadOutcome(arm.arm, arm.adapter, f"rep{number}", True, "", 1.0)
            for arm in arms
            for number in range(self.replicas)
        ]

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        raise AssertionError("nobody asks here")

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        """Nothing to let go of."""


class Silence:
    async def send(self, payload: Payload, identity: str) -> None:
        """Facts are not of interest here."""


def capacity(route: str, *replicas: int) -> PolicyCapacity:
    rows = tuple(
        CapacityArm(arm=f"a{n}", rate_milli=1000, tokens_s=1, p95_ms=1, busy_milli=1, replicas=need, warm=True)
        for n, need in enumerate(replicas)
    )
    return PolicyCapacity(at_ms=NOW, route=route, version=1, arms=rows, window_s=300)


async def test_engines_follow_what_all_routes_need() -> None:
    """As many as they need together; a change is followed by a load, else nothing is loaded again."""
    table, pool = Table(), Pool()
    table.put(PolicyFleet(at_ms=NOW, route="bank", version=1, arms=(Arm(arm="a", base="b"),), champion="a"))
    clock = ManualClock(NOW)
    agent = Inference(table, pool, MemoryStore(clock), Silence(), clock, "i1", scaling=pool)
    await agent.load_once()
    assert pool.loads == [1]
    table.put(capacity("bank", 3))
    table.put(capacity("shop", 2, 1))
    for _ in range(3):
        await agent.load_once()
    assert pool.loads == [1, 5]
    table.put(capacity("bank", 1))
    await agent.load_once()
    assert pool.loads == [1, 5, 3]


async def test_without_a_pool_it_is_advice() -> None:
    """Nothing is wished for where one engine is all there may be."""
    table, pool = Table(), Pool()
    table.put(capacity("bank", 3))
    clock = ManualClock(NOW)
    await Inference(table, pool, MemoryStore(clock), Silence(), clock, "i1").load_once()
    assert pool.replicas == 1
