"""Why the router decided as it did, in plain words: what the write-ahead decision carries, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from agents.router.masks import WORDS

Row = Mapping[str, Any]
WHOLE = 65_536
WHYS = {
    "champion": "the champion serves",
    "fixed": "the route names the arm",
    "privacy_first": "best quality in house",
    "cost_optimized": "cheapest that is not worse than the champion by more than the least gain",
    "quality_optimized": "best quality",
    "balanced": "quality less what cost and latency are worth",
    "rollout": "a rollout's bucket",
    "session": "the session keeps its arm",
    "cache": "an answer given before",
    "cascade": "the first answer was scored too low",
    "emergency": "nothing else may answer",
}


def reasons(decision: Row) -> list[str]:
    """A line each, for people; empty for a decision that weighed nothing."""
    terms: Row | None = decision.get("routing")
    if not terms:
        return []
    return [*_what(decision, terms), *_request(terms), *_money(terms), *map(_arm, decision["arms"]), *terms["notes"]]


def _what(decision: Row, terms: Row) -> Iterator[str]:
    word = str(decision["strategy"])
    shares = {row["arm"]: row["propensity"] / WHOLE for row in decision["arms"]}
    chance = shares.get(decision["arm"], 0.0)
    kind = ", exploring" if terms["explored"] else ", the emergency arm" if terms["emergency"] else ""
    yield f"{decision['arm']}: {WHYS.get(word, word)}{kind}; it had a chance of {chance:.1%} (draw {decision['draw']} of {WHOLE})"
    if terms["preferred"] and terms["preferred"] != decision["arm"]:
        yield f"preferred was {terms['preferred']}"
    states = [name for name in ("frozen", "guarded") if terms[name]]
    if states or not terms["warm"]:
        yield "the learner " + " and ".join(
            ["is not warm yet"] * (not terms["warm"]) + [f"is {name}" for name in states]
        )
    cached: Row | None = decision.get("cached")
    if cached:
        yield f"{cached['kind']} answer of {cached['result_id'] or 'the first attempt'}: no model is asked"


def _request(terms: Row) -> Iterator[str]:
    points = ", ".join(f"{name} {count}" for name, count in terms["points"].items()) or "no points"
    yield f"{terms['sensitivity']}, {terms['complexity'] or 'not read'} ({points}), about {terms['tokens_in']} tokens in"


def _money(terms: Row) -> Iterator[str]:
    seen: Row = terms["observed"]
    if terms["period"] is None:
        return
    spent = "unknown" if seen["spent_nano_usd"] is None else usd(seen["spent_nano_usd"])
    away = ", the ledger is away" if seen["away"] else ""
    yield (
        f"budget period {terms['period']}: spent {spent}{away}; a budget's cost is worth {terms['lambda_cost'] / 1e6:.3f} "
        f"of quality; reserved {usd(terms['reserved_nano_usd'])}"
    )


def _arm(row: Row) -> str:
    said = f"{row['arm']}: {row['propensity'] / WHOLE:.1%}"
    if row["masks"]:
        return f"{said}, masked: " + "; ".join(f"{code} ({WORDS.get(code, code)})" for code in row["masks"])
    terms: Row | None = row.get("terms")
    if not terms:
        return said
    cost = "price unknown" if terms["cost_nano_usd"] is None else usd(terms["cost_nano_usd"])
    if terms["quality"] is None:
        return f"{said}, not learnt yet, {cost}, {terms['latency_ms']} ms"
    return (
        f"{said}, score {micro(terms['score'])} = quality {micro(terms['quality'])} (± {micro(terms['deviation'])}) - cost "
        f"{micro(terms['cost_term'])} ({cost}) - latency {micro(terms['latency_term'])} ({terms['latency_ms']} ms)"
    )


def micro(value: int) -> str:
    """Millionths as a number."""
    return f"{value / 1e6:.3f}"


def usd(nano: int) -> str:
    """Nano-dollars as dollars, with as many digits as they need."""
    return f"${nano / 1e9:.9f}".rstrip("0").rstrip(".") if nano else "$0"
