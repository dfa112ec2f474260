"""Names in the ledger that router and inference share, and what a call cost by its decision's price. Pure."""

from agents.rules.prices import Tariff, cost_nano
from schemas.events import ArmTerms

DAY_MS = 86_400_000


def ledger_of(route: str, period: int) -> str:
    """The ledger's name for a budget's period: the router reserves under it, inference settles."""
    return f"ledger:{route}:{period}"


def charge_of(partition: int, offset: int, arm: str) -> str:
    """Under which name an arm's answer to a request is charged."""
    return f"{partition}-{offset}:{arm}"


def emergency_of(route: str, at_ms: int) -> str:
    """The emergency arm's own ledger of a day; `:n` counts its answers, `:all` the route's requests."""
    return f"emergency:{route}:{at_ms // DAY_MS}"


def counted(ledger: str) -> str:
    """Where a ledger counts what it charges."""
    return ledger + ":n"


def paid(terms: ArmTerms | None, tokens_in: int, cached: int, tokens_out: int, engine_ms: float) -> int | None:
    """What a call cost, nano-USD; None where the decision did not know the price."""
    if terms is None or terms.cost_nano_usd is None:
        return None
    tariff = Tariff(terms.nano_usd_in, terms.nano_usd_cached, terms.nano_usd_out, terms.nano_usd_engine_s)
    return cost_nano(tariff, tokens_in, cached, tokens_out, max(0, round(engine_ms)))
