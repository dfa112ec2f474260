"""Parts of `ratchet bench gateway` without Kafka: microseconds of each part of a decision, decisions per second of one core, the store's
share."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agents.ports import Store
from agents.router import choose, decide, features, model, route
from agents.router.actor import Router, keyed
from agents.router.around import StoreAround
from agents.router.models import Models
from agents.router.observed import Observed, Policies, Seen
from agents.router.weigh import weigh
from infra.clock import SystemClock
from infra.store import MemoryStore
from schemas.events import Noticed, RequestSubmitted
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter
from schemas.topics import BY_NAME
from streams.shapes import Emit, Event, P, Place, Record
from streams.wire import cause_of, decode, outgoing
from tools.bench.gateway_world import FULL, World, record, request

REQUESTS = BY_NAME["requests"].full
KEY = b"0" * 32
AT_WORK = 32  # of a closed loop: as many as a lane's workers
ROUNDS = 3


class Table:
    """A View of policies that stay."""

    def __init__(self, policies: Sequence[Payload]) -> None:
        topic = BY_NAME["policies"].full
        self._events: dict[str, Event[Any]] = {
            one.event_key(): Event(
                f"id-{one.event_key()}",
                one.event_key(),
                one,
                "ratchet/bench",
                "",
                Place(topic, 0, number),
                Record(topic, 0, number, one.event_key().encode(), b"", (), one.at_ms),
            )
            for number, one in enumerate(policies)
        }

    def get(self, model: type[P], key: str) -> Event[P] | None:
        return self._events.get(key)

    def items(self, model: type[P]) -> dict[str, Event[P]]:
        return {key: event for key, event in self._events.items() if isinstance(event.data, model)}

    def age_s(self) -> float:
        return 0.0


class Nowhere:
    """Reads no record again."""

    async def read(self, place: Place) -> Record | None:
        return None


def events_of(world: World, count: int, at_ms: int, route: str, word: str) -> list[Record]:
    """Requests as they would lie in one partition."""
    found: list[Record] = []
    for n in range(count):
        _, row = record(request(word, n, route, world.texts, at_ms), 1)
        found.append(Record(REQUESTS, 0, n, row.key, row.value, row.headers, at_ms))
    return found


def decoded(records: Sequence[Record]) -> list[Event[RequestSubmitted]]:
    """Their events."""
    return [_request(decode(row, 1)) for row in records]


def _request(event: Event[Any]) -> Event[RequestSubmitted]:
    return event


async def policies_of(world: World, route: str) -> Policies:
    """One read of the view, its model unfolded."""
    table = Table(world.policies)
    live = table.items(PolicyLive)
    told = Policies(
        table.get(PolicyRoute, f"route/{route}"),
        table.get(PolicyFleet, f"fleet/{route}"),
        tuple(live.values()),
        router=table.get(PolicyRouter, f"router/{route}"),
    )
    return await Models(world.artifact).unfolded(told)


async def parts(world: World, count: int = 400) -> dict[str, float]:
    """Microseconds per decision of each part, the best of three rounds over the same requests. Parts of parts are named `whole: part`."""
    now_ms = SystemClock().now_ms()
    records = events_of(world, count, now_ms, FULL, "parts")
    policies = await policies_of(world, FULL)
    unfolded, told, fleet, router = policies.model, policies.route, policies.fleet, policies.router
    if unfolded is None or told is None or fleet is None or router is None:
        raise AssertionError("the world has no such route")
    settings = told.data.settings
    events = decoded(records)
    digests = [keyed(KEY, "content", event.data.model_dump_json()) for event in events]
    seen = [
        Observed(now_ms, digest, Seen(str(event.place), digest), told=Noticed(spent_nano_usd=1, requests=1))
        for event, digest in zip(events, digests, strict=True)
    ]
    xs = [unfolded.basis.vector(model.text_of(event.data.messages)) for event in events]
    weighed = [weigh(e.data, settings, fleet.data, policies, o, 60_000) for e, o in zip(events, seen, strict=True)]
    choices = [
        choose.choose(e.data, e.id, settings, fleet.data, router.data, w, o)
        for e, w, o in zip(events, weighed, seen, strict=True)
    ]
    outs = [decide.decide(e, policies, o) for e, o in zip(events, seen, strict=True)]

    def emitted(n: int) -> object:
        choice = choices[n]
        if choice is None:
            raise AssertionError("no arm may answer")
        return route.emits(events[n], settings, fleet.data, policies, seen[n], weighed[n], choice)

    steps: dict[str, Callable[[int], object]] = {
        "decode": lambda n: decode(records[n], 1),
        "digest of the content": lambda n: keyed(KEY, "content", events[n].data.model_dump_json()),
        "decide": lambda n: decide.decide(events[n], policies, seen[n]),
        "decide: weigh": lambda n: weigh(events[n].data, settings, fleet.data, policies, seen[n], 60_000),
        "decide: weigh: features": lambda n: unfolded.basis.vector(model.text_of(events[n].data.messages)),
        "decide: weigh: complexity": lambda n: features.complexity(model.text_of(events[n].data.messages)),
        "decide: weigh: predict": lambda n: unfolded.predict(xs[n]),
        "decide: choose": lambda n: choose.choose(
            events[n].data, events[n].id, settings, fleet.data, router.data, weighed[n], seen[n]
        ),
        "decide: build the event": emitted,
        "encode": lambda n: sent(outs[n], events[n]),
    }
    return {name: round(_best_us(step, count), 1) for name, step in steps.items()}


def sent(outs: Sequence[Emit], event: Event[Any]) -> object:
    """The records of a decision, as the lane makes them."""
    return outgoing(outs, cause_of(event), agent=decide.NAME, partitions=1, now_ms=lambda: 0)


def _best_us(step: Callable[[int], object], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for n in range(count):
            step(n)
        best = min(best, time.perf_counter() - began)
    return 1e6 * best / count


async def alone(world: World, store: Store, count: int, word: str, route: str = FULL) -> dict[str, float]:
    """A router without Kafka, `AT_WORK` requests at work at all times: decisions per second, and CPU of each, decoding and encoding too."""
    clock = SystemClock()
    records = events_of(world, count, clock.now_ms(), route, word)
    table = Table(world.policies)
    router = Router(
        table, store, StoreAround(store, clock), Nowhere(), clock, lambda tenant: KEY, artifact=world.artifact
    )
    for row in events_of(world, AT_WORK, clock.now_ms(), route, f"{word}-warm"):
        await router(decode(row, 1))
    left = iter(records)

    async def work() -> None:
        for row in left:
            event = decode(row, 1)
            sent([out for out in await router(event) if isinstance(out, Emit)], _request(event))

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(AT_WORK)))
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {
        "decisions": count,
        "decisions_per_s": round(count / wall_s, 1),
        "cpu_us_per_decision": round(1e6 * cpu_s / count, 1),
    }


async def pure(world: World, count: int) -> dict[str, float]:
    """`decide` alone, in a loop: what its rules cost where everything that it needs is at hand."""
    now_ms = SystemClock().now_ms()
    policies = await policies_of(world, FULL)
    events = decoded(events_of(world, count, now_ms, FULL, "pure"))
    observed = Observed(now_ms, "", told=Noticed(spent_nano_usd=1, requests=1))
    seen = [replace(observed, digest="d", first=Seen(str(event.place), "d")) for event in events]
    began = time.perf_counter()
    for event, one in zip(events, seen, strict=True):
        decide.decide(event, policies, one)
    wall_s = time.perf_counter() - began
    return {"decisions": count, "decisions_per_s": round(count / wall_s, 1)}


async def in_process(world: World, store: Store, count: int) -> list[dict[str, Any]]:
    """Decisions per second of one process, from the rules alone to everything but Kafka."""
    return [
        {"what": "rules alone", **await pure(world, count)},
        {"what": "router, store in memory", **await alone(world, MemoryStore(), count, "memory")},
        {"what": "router, Redis", **await alone(world, store, count, "redis")},
    ]
