"""One replicate by the product's own code, pair by pair in pure Python: what the vectorised run must equal, and what a decision costs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agents.judge.arena import PROCESSES, Arena, take
from agents.judge.decide import Around, look
from agents.judge.pairs import Outcome, Pending
from agents.rules.eprocess import Track
from agents.rules.wealth import capped
from tools.bench.judge_draws import X0_US, Pairs
from tools.bench.judge_rules import ALPHA, EVERY, LEAST, NULLS, SETTINGS

CHAMPION, CHALLENGER, ARENA = "champion", "challenger", "bench"
_AROUND = Around(settings=SETTINGS, now_ms=1)


@dataclass(frozen=True)
class Replay:
    """Every wealth at every look, the number of pairs at which the arena is promoted (with and without bars), and its last state."""

    wealths: dict[str, list[float]]
    promoted: float
    proved: float
    arena: Arena


def outcomes(pairs: Pairs, column: int) -> Iterator[Pending]:
    """A replicate's pairs as the judge folds them: closed and graded."""
    arms = zip(
        pairs.champion_good[:, column].tolist(), pairs.challenger_good[:, column].tolist(),
        pairs.champion_us[:, column].tolist(), pairs.challenger_us[:, column].tolist(),
        pairs.champion_cost[:, column].tolist(), pairs.challenger_cost[:, column].tolist(),
        pairs.champion_failed[:, column].tolist(), pairs.challenger_failed[:, column].tolist(), strict=True,
    )  # fmt: skip
    for good, other_good, us, other_us, cost, other_cost, failed, other_failed in arms:
        yield Pending(
            window_end_ms=0,
            arenas=(ARENA,),
            closed=True,
            sampled=True,
            outcomes={
                CHAMPION: Outcome(ok=not failed, words=0, grade=1000 * good, latency_us=us, nano_usd=cost),
                CHALLENGER: Outcome(
                    ok=not other_failed, words=1, grade=1000 * other_good, latency_us=other_us, nano_usd=other_cost
                ),
            },
        )


def opened() -> Arena:
    """An arena of arms that have a price, x0 frozen, at the default numbers."""
    return Arena(
        key=ARENA,
        champion=CHAMPION,
        challenger=CHALLENGER,
        opened_ms=0,
        alpha=ALPHA,
        priced=True,
        x0_us=X0_US,
    )


def replay(pairs: Pairs, column: int) -> Replay:
    """One replicate through `take` and `look`."""
    arena, promoted, proved = opened(), float("inf"), float("inf")
    wealths: dict[str, list[float]] = {process.name: [] for process in PROCESSES}
    for pending in outcomes(pairs, column):
        arena = take(arena, SETTINGS, pending)
        if arena.pairs % EVERY:
            continue
        arena, seen = look(arena, _AROUND)
        for process in seen.processes:
            wealths[process.name].append(capped((process.mantissa or 0.0, process.exponent or 0)))
        if seen.decision == "promote":
            promoted = min(promoted, float(arena.pairs))
        won = any(gain.reached for gain in seen.gains) and seen.guards_hold and seen.decision != "reject"
        if won and arena.pairs >= LEAST:
            proved = min(proved, float(arena.pairs))
    return Replay(wealths, promoted, proved, arena)


def decision_cost(pairs: Pairs, column: int) -> tuple[dict[str, float], float]:
    """Microseconds per pair of each metric (a track's step, and every 10 pairs its wealth against each null); and per pair and metric
    of the whole arena, with the forming of D, all conditions and what `promotion.evaluated` shows."""
    ready = list(outcomes(pairs, column))
    found: dict[str, float] = {}
    for track in NULLS:
        found[track] = _stepped(track, pairs.values(track)[:, column].tolist())
    started, arena = time.process_time(), opened()
    for pending in ready:
        arena = take(arena, SETTINGS, pending)
        if arena.pairs % EVERY == 0:
            arena, _ = look(arena, _AROUND)
    return found, 1e6 * (time.process_time() - started) / len(ready) / len(NULLS)


def _stepped(name: str, values: Sequence[float]) -> float:
    nulls, track = NULLS[name], Track()
    for null in nulls.bets:
        track.wealth(null, nulls)  # the tables of powers are made once per process
    started = time.process_time()
    for n, value in enumerate(values, start=1):
        track = track.add(value, nulls)
        if n % EVERY == 0:
            for null in nulls.bets:
                track.wealth(null, nulls)
    return 1e6 * (time.process_time() - started) / len(values)


def mean_cost(by_metric: Mapping[str, float]) -> float:
    """Over the metrics."""
    return sum(by_metric.values()) / len(by_metric)
