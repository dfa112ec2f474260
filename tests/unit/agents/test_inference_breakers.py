"""Engine calls: breakers go down the chain at once, are told at once, and caps let wait; what is not an engine's fault opens none."""

import asyncio
import contextlib

import pytest
from inferring import NOW, Stand, never, settle

from agents.inference.breaker import CALLS
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas.errors import Refused, Unavailable
from schemas.events import BreakerChanged
from schemas.policies import PolicyLive

AWAY = Unavailable("connection refused")


async def opened(stand: Stand) -> Stand:
    """After twenty failures of arm a, each answered by b."""
    await stand.load()
    for _ in range(CALLS):
        failed, made = await stand.ask()
        assert (failed.arm, made.arm) == ("a", "b")
    return stand


async def test_an_open_breaker_goes_to_the_next_arm_at_once() -> None:
    """Arm a is asked no more; the failure says unavailable and names the breaker."""
    stand = await opened(Stand({"a": AWAY, "b": "yes"}))
    asked = stand.engine.asked("a")
    assert asked == CALLS
    failed, made = await stand.ask()
    assert (failed.arm, failed.kind, failed.final) == ("a", "unavailable", False)
    assert failed.reason == "breaker of arm 'bank/a' at rep1: open for 5.0 s more"
    assert (made.arm, made.final, stand.engine.asked("a")) == ("b", True, asked)


async def test_a_change_is_a_fact_and_stands_in_the_announcement_at_once() -> None:
    """Without waiting for the next turn; it half-opens by time alone, and nothing is told twice."""
    stand = Stand({"a": AWAY, "b": "yes"})
    following = asyncio.create_task(stand.agent.follow())
    try:
        await settle()
        await opened(stand)
        await settle()  # the clock stands still
        (fact,) = stand.facts.of(BreakerChanged)
        assert (fact.tenant, fact.route, fact.arm, fact.engine) == ("acme", "bank", "a", "rep1")
        assert (fact.before, fact.after, fact.until_ms) == ("closed", "open", NOW + 5_000)
        assert (fact.calls, fact.failed) == (CALLS, CALLS)
        live = stand.facts.of(PolicyLive)[-1]
        assert [(row.arm, row.engine, row.state, row.until_ms) for row in live.breakers] == [
            ("a", "rep1", "open", NOW + 5_000)
        ]
        assert {row.arm: row.open_until_ms for row in live.arms} == {"a": NOW + 5_000, "b": 0, "c": 0}
        for _ in range(30):
            await stand.clock.advance(0.2)
        await settle()
        assert [fact.after for fact in stand.facts.of(BreakerChanged)] == ["open", "half_open"]
        live = stand.facts.of(PolicyLive)[-1]
        assert [row.state for row in live.breakers] == ["half_open"]
        assert {row.open_until_ms for row in live.arms} == {0}
        stand.engine.words["a"] = "well"
        for _ in range(2):
            (made,) = await stand.ask()
            assert made.arm == "a"
        await settle()
        assert stand.facts.of(PolicyLive)[-1].breakers == ()
        identities = [identity for _, identity in stand.facts.sent]
        assert len(set(identities)) == len(identities)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def test_a_change_is_told_when_the_broker_is_back() -> None:
    """In its order, and once."""
    stand = Stand({"a": AWAY, "b": "yes"})
    stand.facts.away = True
    await opened(stand)
    with pytest.raises(Unavailable):
        await stand.agent.announce_once()
    stand.facts.away = False
    await stand.agent.announce_once()
    await stand.agent.announce_once()
    assert [fact.after for fact in stand.facts.of(BreakerChanged)] == ["open"]


async def test_fifty_orders_at_half_open_make_one_call() -> None:
    """The others are answered by the next arm; the probe cancelled, the next order probes."""
    stand = await opened(Stand({"a": AWAY, "b": "yes"}))
    stand.engine.words["a"] = never
    await stand.clock.advance(5.0)
    before = stand.engine.asked("a")
    orders = [stand.begin() for _ in range(50)]
    await settle()
    assert stand.engine.asked("a") == before + 1
    assert sum(order.done() for order in orders) == 49
    rows = [order.result()[0] for order in orders if order.done()]
    assert {row.reason for row in rows} == {"breaker of arm 'bank/a' at rep1: half-open, and another call is its probe"}
    (probe,) = [order for order in orders if not order.done()]
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    stand.engine.words["a"] = "well"
    for _ in range(3):
        (made,) = await stand.ask()
        assert made.arm == "a"


async def test_two_processes_share_the_probe() -> None:
    """One store, one probe at a time; without the store each has its own."""
    store, clock = MemoryStore(), ManualClock(NOW)
    stands = [await opened(Stand({"a": AWAY, "b": "yes"}, store=store, clock=clock)) for _ in range(2)]
    await clock.advance(5.0)
    for number, stand in enumerate(stands):
        stand.engine.words["a"] = never
        stand.agent._calls._instance = f"i{number}"
    first = stands[0].begin()
    await settle()
    failed, made = await stands[1].ask(request_offset=77)
    assert (failed.arm, made.arm, stands[1].engine.asked("a")) == ("a", "b", CALLS)
    store.cut()
    second = stands[1].begin(request_offset=78)
    await settle()
    assert stands[1].engine.asked("a") == CALLS + 1
    store.mend()
    for order in (first, second):
        order.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    stands[0].engine.words["a"] = stands[1].engine.words["a"] = "well"
    for number, stand in enumerate(stands):
        (made,) = await stand.ask(request_offset=80 + number)
        assert made.arm == "a", "a cancelled probe freed its slot for other processes too"


@pytest.mark.parametrize("kind", ["prompt_too_long", "unknown_arm", "rate"])
async def test_a_storm_of_4xx_opens_nothing(kind: str) -> None:
    """Nor does an arm that is not loaded: whoever asked is wrong, not the engine."""
    stand = await Stand({"a": Refused("no", kind=kind), "b": "yes"}).load()
    for _ in range(5 * CALLS):
        await stand.ask()
    assert stand.engine.asked("a") == 5 * CALLS
    assert not stand.agent._calls.changes


async def test_calls_that_are_cancelled_open_nothing() -> None:
    """They were let go, they did not fail."""
    stand = await Stand({"a": never, "b": "yes"}).load()
    orders = [stand.begin() for _ in range(2 * CALLS)]
    await settle()
    for order in orders:
        order.cancel()
    await asyncio.gather(*orders, return_exceptions=True)
    assert len(stand.engine.let_go) == 2 * CALLS
    assert not stand.agent._calls.changes
    assert stand.agent._calls.slots("bank/a").in_flight == 0


async def test_an_engine_that_hangs_is_cut_at_the_deadline_and_counts() -> None:
    """Though it does not keep the deadline itself: twenty such calls open its breaker, and each order ends."""
    stand = await Stand({"a": never, "b": "yes"}).load()
    orders = [stand.begin(deadline_at_ms=stand.clock.now_ms() + 20, chain=()) for _ in range(CALLS)]
    await settle()
    await stand.clock.advance(0.02)
    for rows in await asyncio.wait_for(asyncio.gather(*orders), 5):
        assert [(row.arm, row.kind, row.final) for row in rows] == [("a", "deadline", True)]
    assert [change.after for _, change, _, _ in stand.agent._calls.changes] == ["open"]
    assert stand.engine.running["a"] == 0


async def test_a_deadline_too_near_for_the_arm_is_not_the_engines_fault() -> None:
    """An arm that takes a second for its answers is not blamed for what it was given ten milliseconds for."""
    stand = Stand({"a": "yes", "b": "yes"})

    async def slow() -> str:
        await stand.clock.sleep(0.5)
        return "yes"

    stand.engine.words["a"] = slow
    await stand.load()
    for _ in range(32):
        order = stand.begin()
        await settle()
        await stand.clock.advance(0.5)
        assert [row.arm for row in await order] == ["a"]
    assert stand.agent._calls.p95_ms("bank/a") == 500
    stand.engine.words["a"] = never
    orders = [stand.begin(deadline_at_ms=stand.clock.now_ms() + 10, chain=()) for _ in range(3 * CALLS)]
    await settle()
    await stand.clock.advance(0.01)
    await asyncio.wait_for(asyncio.gather(*orders), 5)
    assert not stand.agent._calls.changes


async def test_breakers_stand_before_each_replica() -> None:
    """One that is away is left out after twenty failures; the arm goes on at the other, and is barred nowhere."""
    stand = await Stand({"a": "yes", "b": "yes"}, "e0", "e1").load()
    stand.engine.away.add("e0")
    for _ in range(CALLS):
        with pytest.raises(Unavailable, match="e0 is away"):
            await stand.ask(chain=())
    assert [key for key, _, _, _ in stand.agent._calls.changes] == [("bank/a", "e0")]
    (made,) = await stand.ask()
    assert (made.arm, made.replica) == ("a", "e1")
    assert stand.engine.at["e0"] == CALLS
    assert stand.agent._calls.open_until_ms("bank/a") == 0


async def test_an_engine_proven_live_again_is_tried_at_once() -> None:
    """Its load probe answered: the rest of the pause is not waited for."""
    stand = await opened(Stand({"a": AWAY, "b": "yes"}))
    stand.engine.words["a"] = "well"
    stand.agent._hold(())
    stand.agent._checked_at = -1_000.0
    await stand.load()
    (made,) = await stand.ask()
    assert made.arm == "a"


async def test_beyond_its_cap_an_arm_is_waited_for_briefly_then_the_next_answers() -> None:
    """No more than its cap are under way; the failure says that it is busy, and no breaker hears of it."""
    stand = await Stand({"a": never, "b": "yes"}, caps={"a": 2}).load()
    orders = [stand.begin() for _ in range(5)]
    await settle()
    assert not any(order.done() for order in orders)
    await stand.clock.advance(0.3)
    await settle()
    done = [order.result() for order in orders if order.done()]
    assert [[row.arm for row in rows] for rows in done] == [["a", "b"]] * 3
    assert {rows[0].reason for rows in done} == {"arm 'bank/a' is busy: 2 of 2 calls under way"}
    assert (stand.engine.most["a"], stand.agent._doubt) == (2, False)
    assert not stand.agent._calls.changes
    for order in orders:
        order.cancel()
    await asyncio.gather(*orders, return_exceptions=True)


async def test_a_slot_that_becomes_free_goes_to_who_waited_longest() -> None:
    """The last arm of a chain is waited for until the deadline; who gives up takes no slot with him."""
    gate: list[asyncio.Future[str]] = []

    async def held() -> str:
        gate.append(asyncio.get_running_loop().create_future())
        return await gate[-1]

    stand = await Stand({"a": held}, caps={"a": 1}).load()
    orders = [stand.begin(chain=()) for _ in range(4)]
    await settle()
    await stand.clock.advance(0.9)
    orders[1].cancel()
    await settle()
    gate[0].set_result("first")
    await settle()
    assert (len(gate), orders[0].done(), orders[2].done()) == (2, True, False)
    gate[1].set_result("third")
    await settle()
    assert [order.done() for order in orders] == [True, True, True, False]
    await stand.clock.advance(0.2)
    gate[2].set_result("late")
    await settle()
    assert stand.agent._calls.slots("bank/a").in_flight == 0

    blocked = await Stand({"a": never}, caps={"a": 1}).load()
    first, second = blocked.begin(chain=()), blocked.begin(chain=())
    await settle()
    await blocked.clock.advance(1.0)
    assert [(row.kind, row.final) for row in await second] == [("deadline", True)]
    assert blocked.engine.asked("a") == 1
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_the_announcement_tells_what_is_under_way() -> None:
    """That an arm becomes busy is told within a turn, each call more is not."""
    stand = await Stand({"a": never}, caps={"a": 2}).load()
    await stand.agent.announce_once()
    orders = [stand.begin(chain=())]
    await settle()
    await stand.agent.announce_once()
    assert len(stand.facts.of(PolicyLive)) == 1
    orders.append(stand.begin(chain=()))
    await settle()
    await stand.agent.announce_once()
    row = stand.facts.of(PolicyLive)[-1].arms[0]
    assert (row.arm, row.in_flight, row.cap, row.busy) == ("a", 2, 2, True)
    for order in orders:
        order.cancel()
    await asyncio.gather(*orders, return_exceptions=True)
    await stand.agent.announce_once()
    assert [row.arms[0].in_flight for row in stand.facts.of(PolicyLive)] == [0, 2, 0]
