"""What an answer costs: price tables with effective times, in integers of nano-USD (10⁻⁹ $).

A price counts from its `since_ms` on, until a newer one of its arm begins: a decision is priced by its own time, so a replay years
later says the same. An arm without a price costs nobody-knows-what, which is None and the mask `price_unknown`, never 0.
"""

from collections.abc import Iterable

from schemas.routing import Price

SECOND_MS = 1000


def price_at(prices: Iterable[Price], arm: str, at_ms: int) -> Price | None:
    """The newest price of the arm that has begun at `at_ms`; None where none has."""
    begun = [price for price in prices if price.arm == arm and price.since_ms <= at_ms]
    return max(begun, key=lambda price: price.since_ms, default=None)


def cost_nano(price: Price, tokens_in: int, cached: int, tokens_out: int, engine_ms: int) -> int:
    """What an answer cost. `cached` of `tokens_in` came from the provider's cache; engine time is rounded up to a nano-dollar."""
    if min(tokens_in, cached, tokens_out, engine_ms) < 0:
        raise ValueError(f"no amounts: {tokens_in}, {cached}, {tokens_out} tokens, {engine_ms} ms")
    held = min(cached, tokens_in)
    of_cached = price.nano_usd_in if price.nano_usd_cached is None else price.nano_usd_cached
    tokens = (tokens_in - held) * price.nano_usd_in + held * of_cached + tokens_out * price.nano_usd_out
    return tokens - (-engine_ms * price.nano_usd_engine_s // SECOND_MS)


def expected_nano(price: Price | None, tokens_in: int, tokens_out: int, engine_ms: int) -> int | None:
    """What an answer of so many tokens will cost where nothing of it is cached; None where the price is unknown."""
    return None if price is None else cost_nano(price, tokens_in, 0, tokens_out, engine_ms)
