"""Which arms may not answer a request now, and why: a code each, in the order in which an operator should read them.

1. A mask is a rule that nothing learnt can break: who is masked is not drawn, chained, hedged, shadowed or taken from a cache.
2. Where none is left, `slo`, then `budget` within its allotment are taken back; never another.
3. What may pass by itself (`TRANSIENT`) is worth waiting for; what the request itself causes is refused by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.policies import PolicyLive
from schemas.routes import Arm
from schemas.routing import SENSITIVITIES, RoutingSettings, Sensitivity
from streams.shapes import Event

CODES = (
    "gate",
    "privacy",
    "residency",
    "capability",
    "context",
    "not_live",
    "breaker",
    "busy",
    "slo",
    "price_unknown",
    "budget",
)
TRANSIENT = frozenset({"not_live", "breaker", "busy"})
ALLOTMENT_PCT = 110  # of its period's budget a route may spend where every arm costs something

WORDS = {
    "gate": "the gate does not let this text go there",
    "privacy": "it may not see what is so sensitive",
    "residency": "it computes in a region that the route does not allow",
    "capability": "it lacks what the request needs",
    "context": "messages and answer do not fit into it",
    "not_live": "nobody has it loaded",
    "breaker": "its breaker is open",
    "busy": "it has as many calls as it may",
    "slo": "it would not answer before the deadline",
    "price_unknown": "its price is not known, and the route has a budget",
    "budget": "the period's budget is spent",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What inference instances say of an arm: adapters that are proven live, and whether all of them are shut or full."""

    adapters: frozenset[str | None] = frozenset()
    broken: bool = False
    busy: bool = False


NOBODY = Load()


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a request decides where it may go. `left_ms`: until its deadline. `arms`: those that the gate leaves; None: no gate."""

    sensitivity: Sensitivity
    needs: tuple[str, ...]
    tokens_in: int
    left_ms: int
    arms: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Purse:
    """The budget as observed. `spent_pct`: of the period's budget; None where there is no budget or nobody knows. `away`: the ledger
    did not answer, and an outside arm may only spend this router's share of what was left when it last did."""

    limited: bool = False
    spent_pct: int | None = None
    away: bool = False

    def shuts(self, arm: Arm, cost: int | None) -> bool:
        """Whether the arm costs something that is no longer there."""
        spent = self.spent_pct is not None and self.spent_pct >= 100
        return spent and cost != 0 and not (self.away and arm.ours)


def loads(route: str, live: Sequence[Event[PolicyLive]], now_ms: int) -> dict[str, Load]:
    """Arm -> what is known of it; an announcement past its time does not count."""
    adapters: dict[str, set[str | None]] = {}
    shut: dict[str, list[tuple[bool, bool]]] = {}
    for event in live:
        if event.data.until_ms <= now_ms:
            continue
        for row in event.data.arms:
            if row.route == route and row.replicas > 0:
                adapters.setdefault(row.arm, set()).add(row.adapter)
                shut.setdefault(row.arm, []).append((row.open_until_ms > now_ms, row.busy))
    return {
        arm: Load(
            frozenset(found), all(broken for broken, _ in shut[arm]), all(broken or full for broken, full in shut[arm])
        )
        for arm, found in adapters.items()
    }


def masks_of(
    arm: Arm, wish: Wish, settings: RoutingSettings, load: Load, *, latency_ms: int, cost: int | None, purse: Purse
) -> tuple[str, ...]:
    """Why the arm may not answer now; () when it may. `cost`: expected nano-USD, None where the price is unknown."""
    found = {
        "gate": wish.arms is not None and arm.arm not in wish.arms,
        "privacy": rank(wish.sensitivity) > rank(arm.cleared)
        or (settings.strategy == "privacy_first" and not arm.ours),
        "residency": bool(settings.regions) and arm.region not in settings.regions,
        "capability": not set(wish.needs) <= set(arm.capabilities),
        "context": 0 < arm.context_tokens < wish.tokens_in + arm.max_tokens,
        "not_live": arm.adapter not in load.adapters,
        "breaker": load.broken,
        "busy": load.busy and not load.broken,
        "slo": latency_ms > wish.left_ms,
        "price_unknown": purse.limited and cost is None,
        "budget": purse.shuts(arm, cost),
    }
    return tuple(code for code in CODES if found[code])


def relaxed(masks: Mapping[str, tuple[str, ...]], purse: Purse) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The masks, and those that were taken back because no arm was left: `slo`, then `budget` too while its allotment lasts."""
    told = {arm: tuple(codes) for arm, codes in masks.items()}
    given_up: tuple[str, ...] = ()
    for code in ("slo", "budget"):
        if any(not codes for codes in told.values()):
            break
        if code == "budget" and (purse.away or (purse.spent_pct or 0) >= ALLOTMENT_PCT):
            break
        less = {arm: tuple(one for one in codes if one != code) for arm, codes in told.items()}
        if less != told:
            told, given_up = less, (*given_up, code)
    if any(not codes for codes in told.values()):
        return told, given_up
    return {arm: tuple(codes) for arm, codes in masks.items()}, ()


def rank(sensitivity: Sensitivity) -> int:
    """0 of what is public to 3 of what is secret."""
    return SENSITIVITIES.index(sensitivity)


def passing(masks: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether some arm is masked for what may pass by itself alone."""
    return any(codes and set(codes) <= TRANSIENT for codes in masks.values())
