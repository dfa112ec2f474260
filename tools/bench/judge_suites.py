"""The synthetic suites of `ratchet bench judge`: quality alone, latency alone, the whole decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench import Say, figure
from tools.bench.judge_draws import ERRORS, Pairs, Scenario, draw, latencies, qualities
from tools.bench.judge_replay import Replay, replay
from tools.bench.judge_rules import (
    ALONE,
    EVERY,
    NULLS,
    QUALITY_RULES,
    bars,
    ever,
    first_looks,
    fixed_p95,
    point_estimate,
    wealths,
    whole,
)
from tools.bench.rows import Row, at_most, power, row
from tools.bench.twin import Reals, count_looks, value_looks

BLOCK = 250
NO_BARS = "ratchet, no bars"
QUALITY = {"A/A": 0.0, "+5 pt": 0.05, "+2 pt": 0.02}
LATENCY = {"A/A": 1.0, "-10 %": 0.9}
WHOLE = (
    Scenario("A/A"),
    Scenario("-5 pt, cost -30 %", quality=-0.05, cost=0.7),
    Scenario("errors x5, latency -20 %", errors=5 * ERRORS, latency=0.8),
    Scenario("-3 pt, else better", quality=-0.03, latency=0.8, cost=0.7),
    Scenario("errors +1 pt, else better", quality=0.05, errors=ERRORS + 0.01, latency=0.8, cost=0.7),
    Scenario("+5 pt", quality=0.05),
    Scenario("cost -15 %", cost=0.85),
    Scenario("latency -15 %", latency=0.85),
)

Firsts = dict[str, list[NDArray[np.float64]]]


@dataclass
class Run:
    """What a run gathers: rows, and where the vectorised run and the product's own code differed."""

    seed: int
    pairs: int
    replicates: int
    replayed: int
    rows: list[Row] = field(default_factory=list[Row])
    checked: int = 0
    differing: list[str] = field(default_factory=list[str])

    def blocks(
        self, suite: int, scenario: int, work: Callable[[np.random.Generator, int, int], Mapping[str, Any]]
    ) -> Firsts:
        """All replicates in blocks, of a generator that only seed, suite and scenario decide."""
        rng = np.random.default_rng([self.seed, suite, scenario])
        found: Firsts = {}
        for at in range(0, self.replicates, BLOCK):
            for rule, firsts in work(rng, min(BLOCK, self.replicates - at), at).items():
                found.setdefault(rule, []).append(firsts)
        return found

    def keep(self, suite: str, scenario: str, found: Firsts) -> None:
        """The rows of one scenario."""
        self.rows.extend(row(suite, scenario, rule, np.concatenate(firsts)) for rule, firsts in found.items())

    def row(self, suite: str, scenario: str, rule: str = "ratchet") -> Row:
        """The row of that name."""
        wanted = (suite, scenario, rule)
        return next(one for one in self.rows if (one["suite"], one["scenario"], one["rule"]) == wanted)

    def compare(
        self, where: str, pairs: Pairs, found: Mapping[str, Reals], firsts: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Replay the first replicates by the product's own code: every wealth at every look, and the decisions."""
        for column in range(min(self.replayed, pairs.champion_us.shape[1])):
            own = replay(pairs, column)
            self.checked += 1
            self.differing.extend(
                f"{where}, replicate {column}: {what}" for what in differing(own, column, found, firsts)
            )


def differing(
    own: Replay, column: int, found: Mapping[str, Reals], firsts: Mapping[str, NDArray[np.float64]]
) -> list[str]:
    """What is not the same, to the bit."""
    names = [name for name, values in own.wealths.items() if values != found[name][:, column].tolist()]
    decided = {"ratchet": own.promoted, NO_BARS: own.proved}
    return names + [rule for rule, at in decided.items() if at != firsts[rule][column]]


def quality(run: Run, say: Say) -> None:
    """Suite `quality`: F1 alone at 1/α."""
    nulls = {"better": NULLS["quality"].bets["better"]}
    for index, (scenario, by) in enumerate(QUALITY.items()):

        def work(rng: np.random.Generator, count: int, at: int, by: float = by) -> dict[str, NDArray[np.float64]]:
            del at
            champion, challenger = qualities(rng, by, (run.pairs, count))
            wealth = count_looks(nulls, challenger.astype(np.int8) - champion.astype(np.int8), EVERY)["better"]
            others = {name: first_looks(rule(champion, challenger)) for name, rule in QUALITY_RULES.items()}
            return {"ratchet": first_looks(ever(wealth, ALONE)), **others}

        run.keep("quality", scenario, run.blocks(1, index, work))
    say("quality alone: done")


def latency(run: Run, say: Say) -> None:
    """Suite `latency`: F4 alone at 1/α."""
    for index, (scenario, ratio) in enumerate(LATENCY.items()):

        def work(rng: np.random.Generator, count: int, at: int, ratio: float = ratio) -> dict[str, NDArray[np.float64]]:
            del at
            champion, challenger = latencies(rng, ratio, (run.pairs, count))
            d = (champion - challenger) / (champion + challenger)
            wealth = value_looks(NULLS["latency"], d, EVERY)["better"]
            fixed = fixed_p95(champion, challenger)
            return {"ratchet": first_looks(ever(wealth, ALONE)), "fixed_p95": first_looks(fixed)}

        run.keep("latency", scenario, run.blocks(2, index, work))
    say("latency alone: done")


def all_of_it(run: Run, say: Say) -> None:
    """Suite `whole`: section 3 as it stands, without its times."""
    for index, scenario in enumerate(WHOLE):

        def work(
            rng: np.random.Generator, count: int, at: int, scenario: Scenario = scenario
        ) -> dict[str, NDArray[np.float64]]:
            pairs = draw(rng, scenario, run.pairs, count)
            found = wealths(pairs)
            firsts = {
                "ratchet": first_looks(whole(found, bars(pairs))),
                NO_BARS: first_looks(whole(found, None)),
            }
            if not at:
                run.compare(scenario.name, pairs, found, firsts)
            return {**firsts, "point_estimate": first_looks(point_estimate(pairs))}

        run.keep("whole", scenario.name, run.blocks(3, index, work))
        say(f"whole, {scenario.name}: done")


def summary(run: Run) -> dict[str, Any]:
    """The figures of section 8 with their limits."""
    better = {"whole_plus5": "+5 pt", "whole_cost15": "cost -15 %", "whole_latency15": "latency -15 %"}
    found: dict[str, Any] = {
        **at_most("quality_aa", run.row("quality", "A/A"), 0.05),
        "quality_plus5_median": figure(run.row("quality", "+5 pt")["median_pairs"], at_most=400),
        **power("quality_plus2_power", run.row("quality", "+2 pt"), 0.80),
        **at_most("latency_aa", run.row("latency", "A/A"), 0.05),
        "latency_minus10_median": figure(run.row("latency", "-10 %")["median_pairs"], at_most=250),
        **at_most("whole_aa", run.row("whole", "A/A"), 0.05),
        **at_most("whole_aa_no_bars", run.row("whole", "A/A", NO_BARS), 0.05),
        **at_most("harmful_quality", run.row("whole", WHOLE[1].name), 0.01),
        **at_most("harmful_errors", run.row("whole", WHOLE[2].name), 0.01),
        **at_most("margin_quality", run.row("whole", WHOLE[3].name), 0.05),
        **at_most("margin_errors", run.row("whole", WHOLE[4].name), 0.05),
    }
    for name, scenario in better.items():
        one = run.row("whole", scenario)
        found |= {f"{name}_median": figure(one["median_pairs"], at_most=1600), **power(f"{name}_power", one)}
    return found
