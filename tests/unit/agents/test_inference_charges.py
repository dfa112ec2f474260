"""What inference tells the ledger of shadows: what they cost in the end takes the place of what was expected."""

from agents.inference.charges import settle
from agents.rules.ledger import charge_of, ledger_of
from infra.store import MemoryStore
from schemas.events import ArmTerms, CachedAnswer, Message, ResultCompleted, ResultFailed, ShadowOrdered

NOW = 1_790_000_000_000
PLACE = {"route": "r", "request_id": "q", "request_partition": 2, "request_offset": 7}


def order(**changes):
    told = {
        **PLACE, "at_ms": NOW, "request_at_ms": NOW, "messages": (Message(role="user", content="t"),), "arm": "big",
        "decision_id": "d", "deadline_at_ms": NOW + 1, "assigned_at_ms": NOW, "window_end_ms": NOW + 1, "policies": (),
        "terms": ArmTerms(cost_nano_usd=9_000, nano_usd_in=1, nano_usd_out=10), "period": 5,
    }  # fmt: skip
    return ShadowOrdered(**told | changes)


def result(kind=ResultCompleted, **changes):
    told = {
        **PLACE, "at_ms": NOW, "arm": "big", "shadow": True, "final": True, "decision_id": "d", "assigned_at_ms": NOW,
        "window_end_ms": NOW + 1, "latency_ms": 1,
    }  # fmt: skip
    if kind is ResultCompleted:
        told |= {
            "text": "t", "tokens_in": 3, "tokens_out": 2, "ttft_ms": 1, "engine_ms": 1, "finish_reason": "stop", "logprobs": (),
            "engine": "e", "cost_nano_usd": 23,
        }  # fmt: skip
    else:
        told |= {"kind": "unavailable", "reason": "gone"}
    return kind(**told | changes)


async def spent(store):
    return (await store.spent([ledger_of("r", 5)]))[0]


async def reserved():
    store = MemoryStore()
    await store.reserve(ledger_of("r", 5), charge_of(2, 7, "big"), 9_000, 60)
    return store


async def test_a_shadow_is_settled_once():
    store = await reserved()
    for _ in range(2):
        await settle(store, order(), [result()])
    assert await spent(store) == 23


async def test_one_that_failed_costs_nothing():
    store = await reserved()
    await settle(store, order(), [result(ResultFailed)])
    assert await spent(store) == 0


async def test_without_a_budget_or_as_a_check_of_the_cache_nothing_is_told():
    """The check was never reserved; it has the very place of the answer that was."""
    store = await reserved()
    kept = CachedAnswer(key="k", kind="exact", result_id="x", text="t", arm="big", at_ms=NOW)
    await settle(store, order(period=None), [result()])
    await settle(store, order(trial=kept), [result()])
    assert await spent(store) == 9_000
