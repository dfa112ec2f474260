"""What the router's demonstration reads from the topics: a row per case, prices, breakers; and the figures made from them."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from schemas.events import BreakerChanged, CaseAmended, CaseClosed
from schemas.payload import Payload
from schemas.policies import PolicyRoute, PolicyRouter
from tools.demo.ledger import Asked, Ledger, Phase

WHOLE = 65_536
RIGHT = 500


@dataclass(frozen=True, slots=True)
class Row:
    """One closed case. `arm` answered, `drawn` was to; `cost` in nano-USD, shadows left out. `price`: λ in millionths.

    By arm, `right`: whether its answer was, shadows too; `shares`: the logged propensity; `expected`: nano-USD.
    """

    request_id: str
    at_ms: int
    arm: str
    drawn: str
    cost: int | None
    right: dict[str, bool]
    shares: dict[str, float]
    expected: dict[str, int]
    strategy: str
    explored: bool
    price: int
    period: int | None
    failed: tuple[str, ...]

    @property
    def good(self) -> bool | None:
        """Whether the answer that went out was right; None where it was not graded."""
        return self.right.get(self.arm)


def row_of(case: CaseClosed) -> Row:
    """The case as a row."""
    terms = case.routing
    return Row(
        request_id=case.request_id,
        at_ms=case.assigned_at_ms,
        arm=case.arm,
        drawn=case.drawn,
        cost=case.cost_nano_usd,
        right={one.arm: one.grade >= RIGHT for one in case.arms if one.grade is not None},
        shares={one.arm: one.propensity / WHOLE for one in case.choices},
        expected={
            one.arm: one.terms.cost_nano_usd
            for one in case.choices
            if one.terms is not None and one.terms.cost_nano_usd is not None
        },
        strategy=case.strategy,
        explored=terms is not None and terms.explored,
        price=0 if terms is None else terms.lambda_cost,
        period=None if terms is None else terms.period,
        failed=tuple(one.arm for one in case.arms if one.status == "failed"),
    )


@dataclass
class RoutingLedger(Ledger):
    """The demonstration's ledger, and what only the router's needs."""

    closed: dict[str, Row] = field(default_factory=dict[str, Row])
    breakers: list[BreakerChanged] = field(default_factory=list[BreakerChanged])
    router: PolicyRouter | None = None
    routers: int = 0
    warm_ms: int | None = None
    routes: list[PolicyRoute] = field(default_factory=list[PolicyRoute])

    def take(self, event_id: str, payload: Payload) -> Asked | None:
        """As the ledger's."""
        if event_id not in self.seen:
            self._routing(payload)
        return super().take(event_id, payload)

    def _routing(self, payload: Payload) -> None:
        match payload:
            case CaseAmended():
                pass
            case CaseClosed() if payload.request_id in self.asked:
                self.closed.setdefault(payload.request_id, row_of(payload))
            case BreakerChanged():
                self.breakers.append(payload)
            case PolicyRouter():
                self.router, self.routers = payload, self.routers + 1
                if payload.warm and self.warm_ms is None:
                    self.warm_ms = payload.at_ms
            case PolicyRoute():
                self.routes.append(payload)
            case _:
                pass

    def rows(self, *phases: Phase) -> list[Row]:
        """Closed cases in the order of their decisions; of these phases, or all."""
        found = (row for key, row in self.closed.items() if not phases or self.asked[key].phase in phases)
        return sorted(found, key=lambda row: (row.at_ms, row.request_id))

    def breaker(self, arm: str, after: str) -> list[BreakerChanged]:
        """The arm's changes to a state, in their order."""
        return sorted((row for row in self.breakers if (row.arm, row.after) == (arm, after)), key=lambda row: row.at_ms)


# figures


def share(values: Iterable[bool]) -> float | None:
    """The share of truths; None of nothing."""
    told = list(values)
    return sum(told) / len(told) if told else None


def rolling(rows: Sequence[Row], value: Callable[[Row], float | None], window: int) -> list[tuple[int, float]]:
    """(time, mean of the last `window` that have a value), from the first whole window on."""
    told = [(row.at_ms, found) for row in rows if (found := value(row)) is not None]
    points: list[tuple[int, float]] = []
    total = 0.0
    for index, (at_ms, found) in enumerate(told):
        total += found
        if index >= window:
            total -= told[index - window][1]
        if index >= window - 1:
            points.append((at_ms, total / window))
    return points


def good(row: Row) -> float | None:
    """1 for a right answer, 0 for a wrong one."""
    return None if row.good is None else float(row.good)


def cost(row: Row) -> float | None:
    """What the answer cost, nano-USD."""
    return None if row.cost is None else float(row.cost)


def answered_by(arm: str) -> Callable[[Row], float | None]:
    """1 where the arm answered."""
    return lambda row: float(row.arm == arm)


def alone(rows: Iterable[Row], arm: str, beside: str) -> list[bool]:
    """Whether the arm was right, of the requests that both arms answered: who serves when cannot bend it."""
    return [row.right[arm] for row in rows if arm in row.right and beside in row.right]


def mixed(rows: Iterable[Row], small: str, large: str, large_share: float) -> float | None:
    """What drawing the large arm at random with this share would reach, by the requests that both answered."""
    told = list(rows)
    of_small, of_large = share(alone(told, small, large)), share(alone(told, large, small))
    return None if of_small is None or of_large is None else of_small + large_share * (of_large - of_small)


def periods(rows: Iterable[Row], period_s: int) -> list[tuple[int, float, int]]:
    """(begin of the budget's period in ms, mean cost of its requests, how many), in order."""
    found: dict[int, list[int]] = {}
    for row in rows:
        if row.period is not None and row.cost is not None:
            found.setdefault(row.period, []).append(row.cost)
    return [(at * period_s * 1000, statistics.fmean(found[at]), len(found[at])) for at in sorted(found)]
