"""What a dollar costs in quality: the price λ that keeps a route within its budget, by primal-dual steps (Balseiro, Lu & Mirrokni 2020).

A request's score is quality less λ · cost ÷ budget, all in integers: quality and λ in millionths, money in nano-dollars. `budget` is what
one request may cost on average. Scaled by it, and not by the dearest arm, one step size serves any budget.

1. λ ← max(0, λ + η·(min(cost ÷ target, 8) - 1)) at each request. What is cut off is carried to the next one, and so is the difference of
   a result's cost to what was reserved: a cut-off that forgets lets rare dear requests spend up to their cost ÷ 8 too much.
2. The target steers the rest: the budget less what was overspent, spread over the horizon or what is left of the period.
3. Nothing is lost: `spent` holds each nano-dollar.
"""

from dataclasses import dataclass, replace

from schemas.errors import Refused

MICRO = 1_000_000
MOST_RATIO = 8
MOST_PRICE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """`budget`: nano-dollars a request may cost on average. `eta`: step in millionths of λ, `relative`: in millionths of λ itself on top.
    `horizon`: requests over which a debt is made up for. `most`: the largest factor by which the ledger corrects λ, in millionths."""

    budget: int
    eta: int = 200
    relative: int = 10_000
    horizon: int = 256
    most: int = 2 * MICRO

    def __post_init__(self) -> None:
        limits = {
            "budget": (self.budget, 1, 10**15),
            "eta": (self.eta, 0, MICRO),
            "relative": (self.relative, 0, MICRO // 8),
            "horizon": (self.horizon, 1, 10**9),
            "most": (self.most, MICRO, 100 * MICRO),
        }
        wrong = [
            f"{name} {value!r}, accepted: {least} to {most}"
            for name, (value, least, most) in limits.items()
            if not least <= value <= most
        ]
        if wrong:
            raise Refused("pace: " + "; ".join(wrong), kind="invalid", field="pace")


@dataclass(frozen=True, slots=True)
class Pacer:
    """`price`: λ in millionths. `requests`, `spent`: of this period, nano-dollars with what is reserved. `carried`: of it, what λ has
    not felt yet; negative where less was needed than reserved."""

    price: int = 0
    requests: int = 0
    spent: int = 0
    carried: int = 0


def reserved(pacer: Pacer, pace: Pace, cost: int, left: int | None = None) -> Pacer:
    """After a decision whose cost is expected to be `cost`. `left`: the period's requests still to come, None where nobody knows."""
    target = target_of(pacer, pace, left)
    pool = pacer.carried + cost
    taken = max(0, min(pool, MOST_RATIO * target))
    price = pacer.price + _divided(_step(pacer, pace) * (taken - target), target)
    return Pacer(max(0, min(price, MOST_PRICE)), pacer.requests + 1, pacer.spent + cost, pool - taken)


def settled(pacer: Pacer, expected: int, actual: int) -> Pacer:
    """After the result of a request that was reserved at `expected` cost `actual`."""
    more = actual - expected
    return replace(pacer, spent=pacer.spent + more, carried=pacer.carried + more)


def renewed(pacer: Pacer) -> Pacer:
    """A new period: λ stays and what it has not felt, what was spent does not."""
    return Pacer(pacer.price, carried=pacer.carried)


def corrected(pacer: Pacer, pace: Pace, spent: int, due: int) -> int:
    """λ for a decision by the shared ledger: `spent` (reservations too) against `due`, what the period may have cost by now.

    λ times spent ÷ due, at most `most` times as much or as little. The ledger is younger than the pacer of a snapshot, so it wins.
    """
    ratio = spent * MICRO // due if due > 0 else (pace.most if spent > 0 else MICRO)
    clipped = max(MICRO * MICRO // pace.most, min(ratio, pace.most))
    return min(pacer.price * clipped // MICRO, MOST_PRICE)


def felt(pacer: Pacer, pace: Pace, left: int | None = None) -> int:
    """λ with what it has yet to feel: the price to publish, from which `corrected` starts."""
    target = target_of(pacer, pace, left)
    return max(0, min(pacer.price + _divided(_step(pacer, pace) * pacer.carried, target), MOST_PRICE))


def steered(pacer: Pacer, pace: Pace, left: int | None = None) -> int:
    """λ for a decision by the pacer's own account: `felt`, times what a request should cost over what it may for the rest."""
    ratio = pace.budget * MICRO // target_of(pacer, pace, left)
    clipped = max(MICRO * MICRO // pace.most, min(ratio, pace.most))
    return min(felt(pacer, pace, left) * clipped // MICRO, MOST_PRICE)


def score(quality: int, cost: int, pace: Pace, price: int) -> int:
    """Quality less price · cost ÷ budget, in millionths. Latency has its own term, `late`."""
    return quality - price * cost // pace.budget


def late(latency_ms: int, slo_ms: int, weight: int) -> int:
    """What a latency above the SLO costs: weight · max(0, latency - SLO) ÷ SLO, in millionths as `weight` is."""
    return weight * max(0, latency_ms - slo_ms) // slo_ms


def affordable(pacer: Pacer, cost: int, limit: int) -> bool:
    """Whether a request of this cost stays within the period's `limit`: where not, `budget` is a mask."""
    return pacer.spent + cost <= limit


def target_of(pacer: Pacer, pace: Pace, left: int | None = None) -> int:
    """What a request may cost while the debt is made up for: from a quarter to four times the budget."""
    over = max(1, pace.horizon if left is None else min(pace.horizon, left))
    debt = pacer.spent - pacer.requests * pace.budget
    return max(pace.budget // 4, 1, min(pace.budget - _divided(debt, over), 4 * pace.budget))


def _step(pacer: Pacer, pace: Pace) -> int:
    return pace.eta + pacer.price * pace.relative // MICRO


def _divided(value: int, by: int) -> int:
    """Rounded to the nearest, halves upwards."""
    return (2 * value + by) // (2 * by)
