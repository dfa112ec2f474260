"""What an answer costs, in whole nano-dollars: price tables with effective times, and the sum of a call. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.routing import Price


@dataclass(frozen=True, slots=True)
class Tariff:
    """What an arm costs at a time: nano-dollars for a token of each kind and for a second of the engine."""

    nano_usd_in: int
    nano_usd_cached: int
    nano_usd_out: int
    nano_usd_engine_s: int


def price_at(prices: Sequence[Price], arm: str, at_ms: int) -> Tariff | None:
    """The newest price of the arm that has begun by then; None where none has: the price is not known."""
    begun = [row for row in prices if row.arm == arm and row.since_ms <= at_ms]
    if not begun:
        return None
    row = max(begun, key=lambda row: row.since_ms)
    cached = row.nano_usd_in if row.nano_usd_cached is None else row.nano_usd_cached
    return Tariff(row.nano_usd_in, cached, row.nano_usd_out, row.nano_usd_engine_s)


def cost_nano(tariff: Tariff, tokens_in: int, cached: int, tokens_out: int, engine_ms: int) -> int:
    """The cost of a call, rounded up. `cached` of the input's tokens count at their own price; no count is below 0."""
    cached = max(0, min(cached, tokens_in))
    fresh = max(0, tokens_in) - cached
    tokens = fresh * tariff.nano_usd_in + cached * tariff.nano_usd_cached + max(0, tokens_out) * tariff.nano_usd_out
    return tokens + -(-tariff.nano_usd_engine_s * max(0, engine_ms) // 1000)
