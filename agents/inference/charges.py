"""What an order's answers cost, put in place of what the router reserved: once for each arm, however often it is told."""

import asyncio
from collections.abc import Sequence

from agents.ports import Store
from agents.rules.ledger import charge_of, counted, emergency_of, ledger_of
from schemas.errors import Unavailable
from schemas.events import DecisionRouted, ResultCompleted, ResultFailed
from schemas.payload import Payload

LIFE_S = 2 * 86_400.0  # a ledger lives at least so long after its last settlement


def charges(decision: DecisionRouted, outs: Sequence[Payload]) -> list[tuple[str, str, int]]:
    """(ledger, charge, nano-USD) of what came of a decision. An arm that failed cost nothing that anybody knows of."""
    terms = decision.routing
    if terms is None:
        return []
    costs: dict[str, int] = {}
    for out in outs:
        if isinstance(out, ResultFailed):
            costs.setdefault(out.arm, 0)
        elif isinstance(out, ResultCompleted):
            costs[out.arm] = (out.cost_nano_usd or 0) if out.source == "model" else 0
    found: list[tuple[str, str, int]] = []
    place = (decision.request_partition, decision.request_offset)
    if terms.period is not None:
        ledger = ledger_of(decision.route, terms.period)
        found += [(ledger, charge_of(*place, arm), cost) for arm, cost in costs.items()]
    answered = {out.arm for out in outs if isinstance(out, ResultCompleted)}
    if terms.emergency_arm in answered:
        ledger, charge = emergency_of(decision.route, decision.assigned_at_ms), charge_of(*place, "emergency")
        found += [(ledger, charge, costs[terms.emergency_arm]), (counted(ledger), charge, 1)]
    return found


async def settle(store: Store, decision: DecisionRouted, outs: Sequence[Payload]) -> None:
    """Tell the ledger. One that is away keeps what was reserved: the period then counts too much, never too little."""

    async def tell(ledger: str, charge: str, nano_usd: int) -> None:
        try:
            await store.settle(ledger, charge, nano_usd, LIFE_S)
        except Unavailable:
            return

    await asyncio.gather(*(tell(*one) for one in charges(decision, outs)))
