"""What inference tells the store of an order's answers: what they cost, and whether they are what a like question was answered."""

import asyncio
from collections.abc import Sequence

from agents.ports import Store
from agents.rules.answers import trial_keys
from agents.rules.ledger import charge_of, counted, emergency_of, ledger_of
from agents.rules.text import same
from schemas.errors import Unavailable
from schemas.events import CachedAnswer, DecisionRouted, ResultCompleted, ResultFailed, ShadowOrdered
from schemas.payload import Payload

TRIALS_S = 7 * 86_400.0
LIFE_S = 2 * 86_400.0  # a ledger lives at least so long after its last settlement


def charges(order: DecisionRouted | ShadowOrdered, outs: Sequence[Payload]) -> list[tuple[str, str, int]]:
    """(ledger, charge, nano-USD) of what came of a decision or a shadow's order. An arm that failed cost nothing that anybody knows of."""
    terms = order.routing if isinstance(order, DecisionRouted) else None
    period = order.period if isinstance(order, ShadowOrdered) else None if terms is None else terms.period
    costs: dict[str, int] = {}
    for out in outs:
        if isinstance(out, ResultFailed):
            costs.setdefault(out.arm, 0)
        elif isinstance(out, ResultCompleted):
            costs[out.arm] = (out.cost_nano_usd or 0) if out.source == "model" else 0
    found: list[tuple[str, str, int]] = []
    place = (order.request_partition, order.request_offset)
    if period is not None and not _asked_beside(order):
        ledger = ledger_of(order.route, period)
        found += [(ledger, charge_of(*place, arm), cost) for arm, cost in costs.items()]
    answered = {out.arm for out in outs if isinstance(out, ResultCompleted)}
    if terms is not None and terms.emergency_arm in answered:
        ledger, charge = emergency_of(order.route, order.assigned_at_ms), charge_of(*place, "emergency")
        found += [(ledger, charge, costs[terms.emergency_arm]), (counted(ledger), charge, 1)]
    return found


def _asked_beside(order: DecisionRouted | ShadowOrdered) -> bool:
    """Whether it only checks an answer of the cache: nothing was reserved for it."""
    return isinstance(order, ShadowOrdered) and order.trial is not None


async def settle(store: Store, order: DecisionRouted | ShadowOrdered, outs: Sequence[Payload]) -> None:
    """Tell the ledger. One that is away keeps what was reserved: the period then counts too much, never too little."""

    async def tell(ledger: str, charge: str, nano_usd: int) -> None:
        try:
            await store.settle(ledger, charge, nano_usd, LIFE_S)
        except Unavailable:
            return

    await asyncio.gather(*(tell(*one) for one in charges(order, outs)))


async def compare(store: Store, trial: CachedAnswer | None, decision_id: str, outs: Sequence[Payload]) -> None:
    """Count whether the same arm, asked afresh, says the same; once for each decision. Only what a model answered counts."""
    fresh = next((out for out in outs if isinstance(out, ResultCompleted) and out.source == "model"), None)
    if trial is None or fresh is None or (fresh.arm, fresh.adapter) != (trial.arm, trial.adapter):
        return
    alike, other = trial_keys(trial.counted)
    try:
        await store.add(alike if same(fresh.text, trial.text) else other, 1, TRIALS_S, once=decision_id)
    except Unavailable:
        return
