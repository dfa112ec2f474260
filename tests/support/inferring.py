"""An inference agent by hand: its engine says what a test gave it, its clock stands still until it is moved."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agents.inference.actor import Inference
from agents.ports import ArmSpec, Generation, LoadOutcome
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.errors import Unavailable
from schemas.events import ArmChoice, DecisionRouted, Message
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import RoutingSettings
from streams.shapes import Emit, Event, Place, Record

NOW = 1_700_000_000_000
Word = str | Exception | Callable[[], Awaitable[str]]


def event_of(payload: Payload, event_id: str = "d1") -> Event[Any]:
    place = Place("ratchet." + payload.TOPIC, 0, 1)
    record = Record(place.topic, 0, 1, payload.event_key().encode(), b"", (), NOW)
    return Event(event_id, payload.event_key(), payload, "test", "", place, record)


class Table:
    """A view that holds what it was given."""

    def __init__(self) -> None:
        self.rows: dict[str, Event[Any]] = {}

    def put(self, policy: Payload) -> None:
        self.rows[policy.event_key()] = event_of(policy)

    def get(self, model: type[Any], key: str) -> Any:
        return self.rows.get(key)

    def items(self, model: type[Any]) -> dict[str, Any]:
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self) -> float:
        return 0.0


class Engine:
    """Says for an arm what a test gave; counts calls, those under way, and the let go. Loads whatever is named.

    Of several replicas, where some are given: `away` ones are down, each call is noted with its place.
    """

    def __init__(self, words: dict[str, Word], *names: str) -> None:
        self.words = words
        self.names = names or ("rep1",)
        self.away: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.at: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.let_go: list[str] = []

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        return [
            LoadOutcome(spec.arm, spec.adapter, name, name not in self.away, "", 1.0)
            for spec in arms
            for name in self.names
        ]

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None: ...

    def places(self, arm: str) -> Sequence[str]:
        return self.names

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        return await self.generate_at(self.names[0], arm, text, request_id, timeout_s)

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        assert timeout_s > 0, "no engine is asked past the deadline"
        name = arm.partition("/")[2]
        self.calls.append((name, request_id))
        self.at[place] += 1
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        try:
            await asyncio.sleep(0)
            if place in self.away:
                raise Unavailable(f"{place} is away")
            word = self.words[name]
            if isinstance(word, Exception):
                raise word
            said = word if isinstance(word, str) else await word()
            return Generation(said, 3, 2, 12.0, 4.0, "stop", (-0.1,), None, "scripted", place)
        except asyncio.CancelledError:
            self.let_go.append(name)
            raise
        finally:
            self.running[name] -= 1

    def asked(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


class Told:
    """Facts as sent; `away` makes the broker refuse."""

    def __init__(self) -> None:
        self.sent: list[tuple[Payload, str]] = []
        self.away = False

    async def send(self, payload: Payload, identity: str) -> None:
        if self.away:
            raise Unavailable("the broker is away")
        self.sent.append((payload, identity))

    def of(self, model: type[Any]) -> list[Any]:
        return [payload for payload, _ in self.sent if isinstance(payload, model)]


class Stand:
    """The agent `i1` with arms a, b, c of route `bank` loaded."""

    def __init__(
        self,
        words: dict[str, Word],
        *replicas: str,
        caps: dict[str, int] | None = None,
        hedge_share: float = 0.0,
        store: MemoryStore | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = clock or ManualClock(NOW)
        self.store = store or MemoryStore(self.clock.monotonic)
        self.engine, self.facts, self.view = Engine(words, *replicas), Told(), Table()
        arms = tuple(Arm(arm=name, base="sha256:0", max_in_flight=(caps or {}).get(name)) for name in "abc")
        routing = RoutingSettings(hedge_share=hedge_share)
        route = Route(route="bank", compliance="off", tenant="acme", arms=arms, champion="a", routing=routing)
        self.view.put(PolicyRoute(at_ms=NOW, version=1, route="bank", tenant="acme", settings=route))
        self.view.put(
            PolicyFleet(
                at_ms=NOW, version=1, route="bank", tenant="acme", arms=arms, champion="a", loaded=("a", "b", "c")
            )
        )
        pool = self.engine if replicas else None
        self.agent = Inference(self.view, self.engine, self.store, self.facts, self.clock, "i1", pool)
        self._asked = 0

    async def load(self) -> "Stand":
        await self.agent.load_once()
        return self

    def decision(self, number: int, **changes: Any) -> DecisionRouted:
        told: dict[str, Any] = {
            "at_ms": NOW, "tenant": "acme", "route": "bank", "request_id": f"r{number}", "request_partition": 0,
            "request_offset": number, "messages": (Message(role="user", content="last"),), "assigned_at_ms": NOW,
            "window_end_ms": NOW + 10_000_000, "deadline_at_ms": self.clock.now_ms() + 1_000, "policies": (), "arm": "a",
            "chain": ("b",), "arms": (ArmChoice(arm="a", adapter=None, propensity=65_536),), "strategy": "champion",
            "draw": 1, "draw_identity": "d", "grader": "reference",
        }  # fmt: skip
        return DecisionRouted.model_validate(told | changes)

    async def ask(self, **changes: Any) -> list[Any]:
        """What comes of a decision of its own."""
        self._asked += 1
        told = self.decision(self._asked, **changes)
        outs = await self.agent(event_of(told, f"d{self._asked}"))
        identities = [out.identity for out in outs if isinstance(out, Emit)]
        assert len(set(identities)) == len(outs), "each result has an id of its own"
        return [out.payload for out in outs if isinstance(out, Emit)]

    def begin(self, **changes: Any) -> "asyncio.Task[list[Any]]":
        return asyncio.create_task(self.ask(**changes))


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(30):
        await asyncio.sleep(0)


async def never() -> str:
    """An engine that hangs."""
    await asyncio.Event().wait()
    return "never"
