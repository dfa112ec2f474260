"""A late arm and another beside it: who answers first serves, the other is let go and has failed nothing."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferring import Stand, Word, event_of, never, settle

from agents.cases.joined import CasePart, CaseRecord, Joined, part_of
from agents.inference.hedge import MILLION, Bucket, Latencies
from schemas.errors import Refused, Unavailable
from schemas.events import ShadowOrdered
from streams.shapes import Emit

P95_S = 0.1


async def warm(words: dict[str, Word], *, share: float = 0.05, calls: int = 32) -> Stand:
    """A route that hedges, whose arm a took 100 ms for each of its first answers."""
    stand = Stand(words, hedge_share=share)

    async def slow() -> str:
        await stand.clock.sleep(P95_S)
        return "a says"

    stand.engine.words = {"a": slow, "b": "b says", "c": "c says"}
    await stand.load()
    for _ in range(calls):
        order = stand.begin(hedges=("b",))
        await settle()
        await stand.clock.advance(P95_S)
        assert [row.arm for row in await order] == ["a"]
    stand.engine.words |= words
    stand.engine.calls.clear()
    return stand


async def late(stand: Stand, by_s: float = P95_S, **changes: Any) -> "asyncio.Task[list[Any]]":
    """An order whose first arm has not answered for that long."""
    order = stand.begin(**({"hedges": ("b",)} | changes))
    await settle()
    await stand.clock.advance(by_s)
    await settle()
    return order


async def test_the_arm_beside_answers_first_and_serves() -> None:
    """Asked after the first arm's p95 under an id of its own; the first is aborted, told as `hedge_lost`, and no breaker hears of it."""
    stand = await warm({"a": never})
    order = await late(stand, P95_S - 0.01)
    assert (stand.engine.asked("b"), order.done()) == (0, False)
    await stand.clock.advance(0.02)
    lost, made = await asyncio.wait_for(order, 5)
    assert (lost.arm, lost.kind, lost.final, lost.reason) == ("a", "hedge_lost", False, "another arm answered first")
    assert (made.arm, made.text, made.final) == ("b", "b says", True)
    assert [call for call, _ in stand.engine.calls] == ["a", "b"]
    assert stand.engine.calls[1][1] == stand.engine.calls[0][1] + "/hedge"
    await settle()
    assert stand.engine.let_go == ["a"]
    breaker = stand.agent._calls.breakers.at("bank/a", "rep1")
    assert breaker.counted == (32, 0)
    assert stand.agent._calls.slots("bank/a").in_flight == 0


async def test_the_first_arm_answers_first_after_all() -> None:
    """Then the one beside is let go."""
    gate = asyncio.Event()

    async def at_last() -> str:
        await gate.wait()
        return "a says"

    stand = await warm({"a": at_last, "b": never})
    order = await late(stand)
    assert stand.engine.asked("b") == 1
    gate.set()
    lost, made = await asyncio.wait_for(order, 5)
    assert (lost.arm, lost.kind, lost.final) == ("b", "hedge_lost", False)
    assert (made.arm, made.final) == ("a", True)
    await settle()
    assert stand.engine.let_go == ["b"]
    assert stand.agent._calls.breakers.at("bank/b", "rep1").counted == (0, 0)


async def test_a_second_owner_emits_the_winners_answer() -> None:
    """The result is kept under the order's own arm, whoever gave it; nothing is called again."""
    stand = await warm({"a": never})
    _, made = await asyncio.wait_for(await late(stand), 5)
    calls = len(stand.engine.calls)
    told = stand.decision(stand._asked, hedges=("b",), deadline_at_ms=made.at_ms + 1_000)
    (again,) = await stand.agent(event_of(told, f"d{stand._asked}"))
    assert isinstance(again, Emit)
    assert (again.payload, again.identity) == (made, "completed/b")
    assert len(stand.engine.calls) == calls


async def test_a_failure_is_not_a_lost_hedge() -> None:
    """The first arm fails while the other is asked: it has failed, and counts; the other answers."""
    gate = asyncio.Event()
    other = asyncio.Event()

    async def fails() -> str:
        await gate.wait()
        raise Unavailable("connection reset")

    async def answers() -> str:
        await other.wait()
        return "b says"

    stand = await warm({"a": fails, "b": answers})
    order = await late(stand)
    gate.set()
    await settle()
    assert not order.done()
    other.set()
    failed, made = await asyncio.wait_for(order, 5)
    assert (failed.arm, failed.kind, failed.reason, made.arm) == ("a", "unavailable", "connection reset", "b")
    assert stand.agent._calls.breakers.at("bank/a", "rep1").counted == (33, 1)


async def test_a_hedge_that_fails_changes_nothing_but_its_own_record() -> None:
    """The first arm is waited for; where it fails too the chain goes on, with an id of its own for each result."""
    gate = asyncio.Event()

    async def at_last() -> str:
        await gate.wait()
        return "a says"

    stand = await warm({"a": at_last, "b": Unavailable("away")})
    order = await late(stand)
    gate.set()
    failed, made = await asyncio.wait_for(order, 5)
    assert (failed.arm, failed.kind, failed.final, made.arm) == ("b", "unavailable", False, "a")

    async def fails() -> str:
        await gate.wait()
        raise Unavailable("reset")

    stand = await warm({"a": fails, "b": Unavailable("away")})
    order = await late(stand, chain=("b", "c"))
    rows = await asyncio.wait_for(order, 5)
    assert [(row.arm, row.final) for row in rows] == [("a", False), ("b", False), ("c", True)]


async def test_what_the_sender_must_change_ends_both() -> None:
    """The first arm refuses: that is the answer, whatever the other would have said."""
    gate = asyncio.Event()

    async def refuses() -> str:
        await gate.wait()
        raise Refused("4,000 tokens; accepted: 2,048")

    stand = await warm({"a": refuses, "b": never})
    order = await late(stand)
    gate.set()
    (row,) = await asyncio.wait_for(order, 5)
    assert (row.arm, row.kind, row.final) == ("a", "refused", True)
    await settle()
    assert stand.engine.let_go == ["b"]


@pytest.mark.parametrize(
    "changes",
    [
        {"hedges": ()},
        {"hedges": ("a",)},
        {"hedges": ("unknown",)},
        {"hedges": ("b",), "second_arm": "b"},
        {"hedges": ("b",), "shadows": ("c",)},
    ],
)
async def test_no_arm_is_asked_that_the_decision_does_not_allow(changes: dict[str, Any]) -> None:
    """Nor itself, nor one that is not live, nor the second opinion, nor where the answers are compared."""
    stand = await warm({"a": never})
    order = await late(stand, 0.5, **changes)
    assert stand.engine.asked("b") == (1 if "second_arm" in changes else 0)
    assert not any(call_id.endswith("/hedge") for _, call_id in stand.engine.calls)
    assert not order.done()
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)


async def test_a_shadow_and_an_arm_without_a_known_p95_are_not_hedged() -> None:
    """Nobody waits for a shadow; and what is late is not known yet."""
    for stand in (await warm({"a": never}, calls=3), await warm({"a": never}, share=0.0)):
        order = await late(stand, 0.5)
        assert (stand.engine.asked("b"), order.done()) == (0, False)
        order.cancel()
        await asyncio.gather(order, return_exceptions=True)
    stand = await warm({"a": never})
    told = stand.decision(99).model_dump() | {"decision_id": "d99"}
    shadow = ShadowOrdered.model_validate(told)
    task = asyncio.create_task(_call(stand, shadow))
    await settle()
    await stand.clock.advance(0.5)
    assert stand.engine.asked("b") == 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _call(stand: Stand, told: ShadowOrdered) -> None:
    await stand.agent(event_of(told, "d99"))


async def test_at_most_the_share_of_calls_is_hedged() -> None:
    """Five in a hundred at most, though every call is late; none at all before there were twenty."""
    stand = await warm({"a": never}, calls=20)
    orders = [await late(stand, deadline_at_ms=stand.clock.now_ms() + 10**9) for _ in range(180)]
    await settle()
    assert stand.engine.asked("b") == 10  # 5 % of 20 + 180
    assert sum(order.done() for order in orders) == 10
    for order in orders:
        order.cancel()
    await asyncio.gather(*orders, return_exceptions=True)


async def test_a_cancelled_order_lets_go_of_both() -> None:
    """Nothing goes on alone."""
    stand = await warm({"a": never, "b": never})
    order = await late(stand)
    assert (stand.engine.running["a"], stand.engine.running["b"]) == (1, 1)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)
    await settle()
    assert sum(stand.engine.running.values()) == 0


async def test_a_busy_arm_or_an_open_breaker_is_no_hedge() -> None:
    """A token is kept for one that can answer."""
    stand = await warm({"a": never})
    slots = stand.agent._calls.slots("bank/b")
    slots.cap, slots.in_flight = 1, 1
    order = await late(stand)
    assert (stand.engine.asked("b"), order.done()) == (0, False)
    order.cancel()
    await asyncio.gather(order, return_exceptions=True)


async def test_a_lost_hedge_is_no_failure_of_a_case() -> None:
    """Cases do not count the arm among those that failed on the way."""
    stand = await warm({"a": never})
    lost, made = await asyncio.wait_for(await late(stand), 5)
    parts = {
        part_of(lost): CasePart(failed=lost, result_id="x"),
        part_of(made): CasePart(completed=made, result_id="y"),
    }
    case = Joined("r1", 0, "", CaseRecord(first_ms=0, route="bank"), parts)
    assert list(case.tried()) == ["b"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=200), st.integers(MILLION // 100, MILLION // 20))
def test_the_bucket_never_gives_more_than_the_share(asks: list[bool], share: int) -> None:
    """Of the calls so far, at any time."""
    bucket, given_out = Bucket(), 0
    for calls, asked in enumerate(asks, start=1):
        bucket.called(share)
        given_out += asked and bucket.take()
        assert given_out * MILLION <= calls * share


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=20, max_size=50))
def test_the_percentile_is_that_of_the_last_answers(some: list[int]) -> None:
    """At least 95 % of the last 128 do not exceed it, and it is one of them; at most sixteen answers old."""
    latencies, found = [value + turn for turn in range(5) for value in some], Latencies()
    for number, latency in enumerate(latencies, start=1):
        found.add(latency)
        if number >= 20 and (number - 20) % 16 == 0:
            last = sorted(latencies[max(0, number - 128) : number])
            assert found.p95_ms in last
            assert sum(one <= found.p95_ms for one in last) * 20 >= 19 * len(last)
            assert sum(one < found.p95_ms for one in last) * 20 < 19 * len(last)
