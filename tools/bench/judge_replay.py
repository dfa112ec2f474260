"""One replicate by the product's own code, pair by pair in pure Python: what the vectorised run must equal, and what a decision costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.rules.eprocess import Nulls, Track
from agents.rules.metrics import contrast, exceedance, gain_of
from agents.rules.wealth import Wealth, at_least, capped
from tools.bench.judge_draws import X0_US, Pairs
from tools.bench.judge_rules import (
    EVERY,
    LEAST,
    METRICS,
    NOT_HARMED,
    NOT_WORSE,
    QUALITY_BAR,
    RATIO_BAR,
    UNION,
)


@dataclass
class Book:
    """One metric's track and how high each of its wealths has been at a look."""

    nulls: Nulls
    track: Track = field(default_factory=Track)
    now: dict[str, Wealth] = field(default_factory=dict[str, Wealth])
    highest: dict[str, float] = field(default_factory=dict[str, float])

    def look(self) -> None:
        """Read the track against its nulls."""
        for null in self.nulls.bets:
            self.now[null] = self.track.wealth(null, self.nulls)
            self.highest[null] = max(self.highest.get(null, 0.0), capped(self.now[null]))

    def passes(self) -> bool:
        """Whether the guardrail does."""
        return (
            self.highest["ni"] >= NOT_WORSE and at_least(self.now["ni"], 1.0) and self.highest["harm"] >= NOT_HARMED
        )


def differences(pairs: Pairs, column: int) -> dict[str, list[float]]:
    """D of each metric, by the product's formulas."""
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    arms = zip(
        pairs.champion_good[:, column].tolist(), pairs.challenger_good[:, column].tolist(),
        pairs.champion_us[:, column].tolist(), pairs.challenger_us[:, column].tolist(),
        pairs.champion_cost[:, column].tolist(), pairs.challenger_cost[:, column].tolist(),
        pairs.champion_failed[:, column].tolist(), pairs.challenger_failed[:, column].tolist(), strict=True,
    )  # fmt: skip
    for good, other_good, us, other_us, cost, other_cost, failed, other_failed in arms:
        found["quality"].append(float(other_good) - float(good))
        found["errors"].append(float(failed) - float(other_failed))
        tail = 1.0 if failed else exceedance(us, X0_US)
        found["tail"].append(tail - (1.0 if other_failed else exceedance(other_us, X0_US)))
        lost = -1.0 if other_failed else 0.0
        either = failed or other_failed
        found["latency"].append(lost if either else contrast(us, other_us))
        found["cost"].append(lost if either else contrast(cost, other_cost))
    return found


@dataclass(frozen=True)
class Replay:
    """Every wealth at every look, and the number of pairs at which the whole rule promotes (with and without bars)."""

    wealths: dict[str, list[float]]
    promoted: float
    proved: float


def replay(pairs: Pairs, column: int) -> Replay:
    """The whole rule on one replicate."""
    d = differences(pairs, column)
    cost, other = pairs.champion_cost[:, column].tolist(), pairs.challenger_cost[:, column].tolist()
    books = {metric: Book(nulls) for metric, nulls in METRICS.items()}
    wealths: dict[str, list[float]] = {f"{metric} {null}": [] for metric in METRICS for null in METRICS[metric].bets}
    promoted = proved = float("inf")
    for n in range(EVERY, len(pairs.champion_us) + 1, EVERY):
        for metric, book in books.items():
            for value in d[metric][n - EVERY : n]:
                book.track = book.track.add(value, book.nulls)
            book.look()
            for null, wealth in book.now.items():
                wealths[f"{metric} {null}"].append(capped(wealth))
        guarded = all(book.passes() for metric, book in books.items() if metric != "latency")
        if n >= LEAST and guarded:
            bars = _bars(books, sum(cost[:n]), sum(other[:n]))
            better = [metric for metric in bars if books[metric].highest["gain"] >= UNION]
            proved = min(proved, float(n)) if better else proved
            promoted = min(promoted, float(n)) if any(bars[metric] for metric in better) else promoted
    return Replay(wealths, promoted, proved)


def _bars(books: dict[str, Book], cost: int, other: int) -> dict[str, bool]:
    return {
        "quality": (books["quality"].track.mean or 0.0) >= QUALITY_BAR,
        "latency": (books["latency"].track.mean or 0.0) >= gain_of(RATIO_BAR),
        "cost": other <= RATIO_BAR * cost,
    }


def decision_cost(d: dict[str, Sequence[float]]) -> dict[str, float]:
    """Microseconds per pair of each metric: the track's step, and a look at all its nulls every 10 pairs."""
    found: dict[str, float] = {}
    for metric, values in d.items():
        book = Book(METRICS[metric])
        book.look()  # the tables of powers are made once per process
        started = time.perf_counter()
        for n, value in enumerate(values, start=1):
            book.track = book.track.add(value, book.nulls)
            if n % EVERY == 0:
                book.look()
        found[metric] = 1e6 * (time.perf_counter() - started) / len(values)
    return found


