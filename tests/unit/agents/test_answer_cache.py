"""Released answers in the store: what an entry says, when trust writes one, and what follows when the store is away."""

from typing import Any

import pytest
from answering import trust
from hypothesis import given
from hypothesis import strategies as st

from agents.rules import answers
from agents.trust.actor import AWAY_S
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.events import AnswerReleased, ResultCompleted
from schemas.policies import PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, CascadeSettings, RoutingSettings
from streams.shapes import Event, Record

T = 1_700_000_000_000


def result(**more: Any) -> ResultCompleted:
    return ResultCompleted.model_validate(
        {
            "at_ms": T, "route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7, "arm": "a",
            "adapter": "sha256:1", "shadow": False, "final": True, "decision_id": "d", "assigned_at_ms": T,
            "window_end_ms": T + 60_000, "latency_ms": 5, "text": "forty-two", "tokens_in": 3, "tokens_out": 2,
            "ttft_ms": 1, "engine_ms": 4, "finish_reason": "stop", "logprobs": (-0.1, -0.2), "engine": "scripted",
            "cache_key": "answer:1",
        }
        | more
    )  # fmt: skip


def test_an_entry_says_what_the_result_said() -> None:
    """Text, arm, adapter, tokens, logprobs and which result it was come back as they went in."""
    found = answers.decode(answers.encode(result(), "x1"), "answer:1")
    assert found is not None
    assert (found.key, found.kind, found.result_id, found.text) == ("answer:1", "exact", "x1", "forty-two")
    assert (found.arm, found.adapter, found.engine, found.at_ms) == ("a", "sha256:1", "scripted", T)
    assert (found.tokens_in, found.tokens_out, found.finish_reason) == (3, 2, "stop")
    assert found.logprobs == (-0.1, -0.2)


@given(st.data())
def test_a_damaged_entry_is_none(data: st.DataObject) -> None:
    """Whatever byte is another one, missing or too many: nobody is answered from it."""
    entry = bytearray(answers.encode(result(), "x1"))
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    assert answers.decode(bytes(entry)) is None
    assert answers.decode(bytes(entry[:at])) is None
    assert answers.decode(answers.encode(result(), "x1") + b" ") is None


@given(st.binary(max_size=200))
def test_strange_bytes_are_none(entry: bytes) -> None:
    """Another version's entry, or another program's value, is no answer."""
    assert answers.decode(entry) is None
    assert answers.decode(answers.VERSION + entry) is None


def test_an_entry_under_another_key_is_none() -> None:
    """An entry that was written under one key answers no request of another."""
    entry = answers.encode(result(), "x1")
    assert answers.decode(entry, "answer:2") is None
    assert answers.decode(entry) is not None


@pytest.mark.parametrize("more", [{"cache_key": ""}, {"source": "cache"}, {"source": "kept"}, {"shadow": True}])
def test_only_a_models_own_answer_is_kept(more: dict[str, Any]) -> None:
    """What came from the store is not put there again, nor what no decision named a key for."""
    assert answers.keeps(result())
    assert not answers.keeps(result(**more))


# who writes them


class Table:
    """A view that holds what it was given."""

    def __init__(self, **settings: Any) -> None:
        told = {
            "route": "r",
            "arms": (Arm(arm="a", base="sha256:0"),),
            "champion": "a",
            "release": "immediate",
            "compliance": "off",
        }
        self.row = event_of(PolicyRoute(at_ms=T, version=1, route="r", settings=Route.model_validate(told | settings)))

    def get(self, model: type[Any], key: str) -> Event[Any] | None:
        return self.row if model is PolicyRoute and key == "route/r" else None


def event_of(payload: Any) -> Event[Any]:
    record = Record("ratchet." + payload.TOPIC, 0, 1, payload.event_key().encode(), b"", (), T)
    return Event("x1", payload.event_key(), payload, "test", "", record.place, record)


def routing(**more: Any) -> RoutingSettings:
    return RoutingSettings(cache=CacheSettings(exact=True, ttl_s=100), **more)


async def kept(store: MemoryStore, made: ResultCompleted, **settings: Any) -> bool:
    """Whether the store has the answer after trust saw the result."""
    agent: Any = trust(Table(routing=routing(), **settings), ManualClock(T), store)
    await agent(event_of(made))
    return await store.get("answer:1") is not None


async def test_a_released_answer_is_kept_for_the_routes_time() -> None:
    """Under the decision's key, as the router will decode it, until it expires."""
    seconds = [0.0]
    store = MemoryStore(lambda: seconds[0])
    assert await kept(store, result())
    entry = await store.get("answer:1")
    found = None if entry is None else answers.decode(entry, "answer:1")
    assert found is not None
    assert (found.text, found.result_id) == ("forty-two", "x1")
    seconds[0] = 100.1
    assert await store.get("answer:1") is None


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({"cache_key": ""}, {}),
        ({"source": "cache"}, {}),
        ({"attempt": 2, "source": "kept"}, {}),
        ({"shadow": True}, {}),
        ({}, {"release": "gated"}),
        ({"window_end_ms": T - 1}, {}),
        ({"text": "a" * answers.MOST_BYTES}, {}),
    ],
)
async def test_what_is_not_released_by_a_model_is_not_kept(more: dict[str, Any], settings: dict[str, Any]) -> None:
    """Held, repeated, shadowed, late or too long: no request is answered from it."""
    assert not await kept(MemoryStore(), result(**more), **settings)


async def test_an_escalated_answer_is_not_kept() -> None:
    """It was not released."""
    store = MemoryStore()
    told = RoutingSettings(cascade=CascadeSettings(below=1.0))
    agent: Any = trust(Table(routing=told), ManualClock(T), store)
    assert [emit.payload.action for emit in await agent(event_of(result()))] == ["escalate"]
    assert await store.get("answer:1") is None


class Counting(MemoryStore):
    """Counts what it is asked."""

    puts = 0

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.puts += 1
        await super().put(key, value, ttl_s)


@pytest.mark.parametrize("there", [True, False])
async def test_a_store_that_is_away_or_none_changes_no_answer(there: bool) -> None:
    """Every answer goes out; the store is asked again once the pause is over, not before."""
    store, clock = Counting(), ManualClock(T)
    store.cut()
    agent: Any = trust(Table(routing=routing()), clock, store if there else None)
    for _ in range(3):
        assert isinstance((await agent(event_of(result())))[1].payload, AnswerReleased)
    assert store.puts == there
    store.mend()
    await clock.advance(AWAY_S)
    await agent(event_of(result()))
    assert (await store.get("answer:1") is not None) == there
