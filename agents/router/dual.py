"""λ by solving again: the least price at which the last requests, chosen anew, would have cost no more than the target. Pure.

The primal-dual steps of `pacer` begin at 0 and need thousands of requests to come near; at each publication the dual of what was just
seen is solved instead, against a budget that the debt has already changed (re-solving: Jasin & Kumar 2012). A new price or another
budget is felt at the next publication, an arm that is down for a while is counted as if it were there, so its return finds λ in place.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from agents.router.masks import CODES, TRANSIENT
from agents.router.pacer import MICRO, MOST_PRICE
from agents.router.state import ArmCounts, Near
from agents.rules.prices import cost_nano, price_at
from schemas.events import CaseClosed
from schemas.routing import Price

ROWS, LEAST_ROWS = 128, 32
LASTING = frozenset(CODES) - TRANSIENT - {"slo", "budget"}  # masks that no waiting and no price takes back
MOST_SHARE = 1_000_000_000  # of the budget, in millionths: a thousand of it
MOST_COST = 10**15
NO_ARM = -(2**62)


def near_of(case: CaseClosed) -> Near | None:
    """What the decision compared; None where fewer than two arms could be."""
    if case.routing is None:
        return None
    told = {
        row.arm: (row.terms.quality, row.terms.cost_nano_usd)
        for row in case.choices
        if row.terms is not None and not LASTING.intersection(row.masks)
    }
    arms = {arm: (quality, cost) for arm, (quality, cost) in told.items() if quality is not None and cost is not None}
    return Near(tokens_in=case.routing.tokens_in, arms=arms) if len(arms) > 1 else None


def today(near: Near, prices: Sequence[Price], counts: Mapping[str, ArmCounts], now_ms: int) -> Near:
    """The same comparison at the prices of `now_ms`, where the route has a table of them."""
    arms = dict(near.arms)
    for arm, (quality, _) in near.arms.items():
        tariff, taken = price_at(prices, arm, now_ms), counts.get(arm)
        if tariff is not None and taken is not None and taken.cases:
            arms[arm] = (quality, cost_nano(tariff, near.tokens_in, 0, taken.tokens_out, taken.engine_ms))
    return Near(tokens_in=near.tokens_in, arms=arms)


def solved(rows: Sequence[Near], among: Sequence[str], budget: int, target: int) -> int | None:
    """λ in millionths; None where too few rows compare two arms of `among`.

    `budget`: what costs are scaled by, `target`: what a request may cost. Where not even the cheapest arms keep it: the least λ at which
    all requests go to them.
    """
    names = sorted(among)
    told = [row for row in rows if sum(name in row.arms for name in names) > 1]
    if len(told) < LEAST_ROWS:
        return None
    quality = np.array([[row.arms.get(name, (NO_ARM, 0))[0] for name in names] for row in told], dtype=np.int64)
    cost = np.array([[row.arms.get(name, (0, 0))[1] for name in names] for row in told], dtype=np.int64)
    share = np.array([[min(one * MICRO // budget, MOST_SHARE) for one in row] for row in cost.tolist()], dtype=np.int64)
    known = quality != NO_ARM
    least = int(np.where(known, cost, MOST_COST).min(axis=1).sum())
    allowed = max(target * len(told), least)
    each = np.arange(len(told))

    def costs(price: int) -> int:
        scores = np.where(known, quality - price * share // MICRO, NO_ARM)
        return int(cost[each, scores.argmax(axis=1)].sum())

    low, high = 0, MOST_PRICE
    while low < high:
        middle = (low + high) // 2
        if costs(middle) <= allowed:
            high = middle
        else:
            low = middle + 1
    return low
