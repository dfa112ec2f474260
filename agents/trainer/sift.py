"""The gate between cases and rows, as a job runs it: configuration, detectors, and what they leave of the rows.

Fail closed: a tenant for which nothing is configured trains nothing, a row that was not scanned whole is not used.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.rules import deid
from agents.rules.curation import Row
from agents.rules.curation_gate import asked_to_train, permitted, texts_of
from agents.rules.gate_seen import limits
from agents.rules.gate_standard import BOOK
from agents.screen import Screen
from schemas.errors import Refused
from schemas.events import TrainingOrdered
from schemas.gate import GateTenant

DENIED = "denied by the gate"
_AT_ONCE = 200  # rows between two looks at the event loop


class Tenants(Protocol):
    """Where the gate's configuration lies."""

    async def settings(self, tenant: str) -> GateTenant | None:
        """What the tenant is permitted now; None where nothing is configured. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Sifted:
    """The rows that may be used, as they may be. `masked`: the ids of those in which something was replaced.

    `unsupported`: under HIPAA the classes of identifiers that are not removed; None: the tenant is not under HIPAA, or no gate looked.
    """

    rows: Sequence[Row]
    masked: frozenset[str] = frozenset()
    denied: int = 0
    unsupported: tuple[str, ...] | None = None


async def sift(
    rows: Sequence[Row], counts: Counter[str], order: TrainingOrdered, tenants: Tenants, screen: Screen
) -> Sifted:
    """What the order's tenant may train on, as of the order's time. Raises Refused where nothing is configured for it."""
    if order.compliance == "off":
        return Sifted(rows)
    tenant = await tenants.settings(order.tenant)
    if tenant is None:
        raise Refused(
            f"nothing is configured for tenant {order.tenant!r}, so its rows may not be trained on; accepted: "
            "`ratchet tenant apply` with a purpose `training`, or a route with compliance `off`",
            kind="gate-tenant",
        )
    asked = asked_to_train(tenant, order.region, BOOK, order.at_ms)
    characters, budget_us = limits(BOOK, order.at_ms)
    kept: list[Row] = []
    masked: set[str] = set()
    for number, row in enumerate(rows):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        scan = await screen.scan(texts_of(row), most_characters=characters, budget_us=budget_us)
        left = permitted(row, scan, asked, tenant, BOOK, order.at_ms)
        if left is not None:
            kept.append(left)
            if left != row:
                masked.add(row.request_id)
    counts[DENIED] = len(rows) - len(kept)
    lacking = deid.unsupported(asked, tenant, BOOK, order.at_ms) if tenant.hipaa else None
    return Sifted(kept, frozenset(masked), len(rows) - len(kept), lacking)
