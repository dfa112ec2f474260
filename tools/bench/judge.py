"""`ratchet bench judge`: does the judge keep its promises, how many pairs does it need, and what would others have decided?

Synthetic suites, or with `--data` the recorded answers of real models: both run the decision at 500 looks, as if someone looked every 10
pairs. Nothing else is started: no broker, no engine.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench import judge_suites as suites
from tools.bench.judge_data import Orders, on_file
from tools.bench.judge_draws import Scenario, draw
from tools.bench.judge_fold import cases_per_second
from tools.bench.judge_replay import decision_cost, mean_cost
from tools.bench.options import parsed, parser_of
from tools.bench.rows import table

SEED = 1
PAIRS, REPLICATES, REPLAYED, ORDERS = 5000, 2000, 2, 300
MOST_US, MOST_BYTES, LEAST_CASES = 20.0, 2048, 10_000
USAGE = (
    "ratchet bench judge [--replicates N] [--data FILE [--pair CHAMPION,CHALLENGER]…]; N is 1 to 100000 (synthetic "
    f"replicates, default {REPLICATES}; with --data orders, default {ORDERS})"
)
NOTES = (
    "share: replicates in which the rule ever promotes within the pairs, looked at every 10; 95 % exact (Clopper-Pearson)",
    "median_pairs, p90_pairs: over all replicates, one that is never promoted counting as longer than any",
    "_upper: the upper end of the exact 95 % interval of the figure before it",
    "decision_us: mean over the metrics; arena_us: with D formed, every condition and what is shown; both and cases/s are CPU time",
    "`ratchet` is vectorised across replicates; `agrees`: on the replayed ones every wealth and decision is the product's, to the bit",
)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = parser_of("judge")
    parser.add_argument("--pair", action="append", default=[])
    chosen = parsed(parser, options, USAGE)
    if chosen.pair and chosen.data is None:
        raise Refused(f"--pair names two models of a file, and no --data is given; {USAGE}", kind="usage")
    return chosen


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options or a file that are not understood."""
    chosen = options_of(options)
    if chosen.data is not None:
        return on_file(chosen.data, chosen.pair, Orders(SEED, chosen.replicates or ORDERS, PAIRS), say)
    return synthetic(say, replicates=chosen.replicates or REPLICATES)


def synthetic(say: Say, *, replicates: int, pairs: int = PAIRS, replayed: int = REPLAYED) -> dict[str, Any]:
    """The synthetic suites and what a decision costs."""
    made = suites.Run(SEED, pairs, replicates, replayed)
    suites.quality(made, say)
    suites.latency(made, say)
    suites.all_of_it(made, say)
    cost = costs(pairs)
    return {
        "seed": SEED,
        "pairs": pairs,
        "rows": made.rows,
        "agrees": not made.differing,
        "replayed": made.checked,
        "differing": made.differing,
        "decision": cost,
        "tables": {"judge": table(made.rows, *made.rows[0])},
        "notes": list(NOTES),
        "summary": {
            **suites.summary(made),
            "differing_replays": figure(len(made.differing), at_most=0),
            "decision_us": figure(mean_cost(cost["us_by_metric"]), at_most=MOST_US),
            "arena_us": figure(cost["arena_us"]),
            "arena_bytes": figure(cost["arena_bytes"], at_most=MOST_BYTES),
            "fold_cases_per_s": figure(cost["fold"]["cases_per_s"], at_least=LEAST_CASES),
        },
    }


def costs(pairs: int) -> dict[str, Any]:
    """CPU microseconds per pair and metric in pure Python; after all pairs an arena's bytes; cases per second of CPU through the Fold."""
    drawn = draw(np.random.default_rng([SEED, 4]), Scenario("A/A"), pairs, 1)
    by_metric, whole = decision_cost(drawn, 0)
    fold = cases_per_second(drawn)
    return {
        "us_by_metric": {metric: round(value, 2) for metric, value in by_metric.items()},
        "arena_us": round(whole, 2),
        "arena_bytes": fold["arena_bytes"],
        "fold": fold,
    }
