"""The synthetic suites of `ratchet bench trust`: the ladder and the detector.

How labels are made: an answer's probability of approval is Beta(4, .6), and it is the score; the label is a coin of that probability. Rungs
are the quantiles 10 to 100 % of 1,000 scores without labels, drawn anew for each replicate. A rung's true risk and coverage are exact,
by the incomplete beta function. `useless`: the score says nothing, every answer is rejected with 6 %.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.rules.detector import ALARM, Detector
from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import at_least
from tools.bench import figure
from tools.bench.exact import beta_share, interval
from tools.bench.rows import Row, quantile
from tools.bench.trust_ladder import DELTA, MAIN_SHARE, RULES, RUNGS, count, most_by_wealth, released

SHAPE = (4.0, 0.6)
UNLABELLED = 1000
RISK, USELESS = 0.05, 0.06
AT = (500, 1000, 2000, 5000)
WARM = 1000
PATIENCE = 20_000
RUN_LENGTH = 120_000
CHANGES = (("2→10 %", 0.05, 0.02, 0.10), ("20→25 %", 0.21, 0.20, 0.25), (".5→3 %", 0.02, 0.005, 0.03))
_DETECTOR_LIMIT = 300

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Ladders:
    """What the replicates of one scenario did, by rule: ever over the risk, true coverage by label, first release."""

    over: dict[str, NDArray[np.bool_]]
    coverage: dict[str, Reals]
    first: dict[str, Reals]


def truth(threshold: float) -> tuple[float, float]:
    """True coverage and risk of what has a score of at least the threshold, of Beta(4, .6)."""
    a, b = SHAPE
    share = 1.0 - beta_share(a, b, threshold)
    good = a / (a + b) * (1.0 - beta_share(a + 1.0, b, threshold))
    return share, 1.0 - good / share if share > 0.0 else 0.0


def ladders(seed: int, scenario: int, replicates: int, labels: int, *, useless: bool) -> Ladders:
    """Run every rule on the same labels."""
    rng, names = np.random.default_rng([seed, 11, scenario]), RULES
    marks = [n for n in AT if n <= labels]
    over = {name: np.zeros(replicates, dtype=bool) for name in names}
    coverage = {name: np.zeros((replicates, len(marks))) for name in names}
    first = {name: np.full(replicates, np.inf) for name in names}
    for index in range(replicates):
        scores, thresholds = rng.beta(*SHAPE, labels), rungs_of(rng.beta(*SHAPE, UNLABELLED))
        rejects = rng.random(labels) < (USELESS if useless else 1.0 - scores)
        known = [truth(float(threshold)) for threshold in thresholds]
        share = np.array([0.0, *(one for one, _ in known)])
        risk = np.array([0.0, *(USELESS if useless else other for _, other in known)])
        for name, rungs in released(count(scores, rejects, thresholds), RISK).items():
            over[name][index] = bool((risk[rungs] > RISK).any())
            coverage[name][index] = share[rungs[[n - 1 for n in marks]]]
            first[name][index] = np.argmax(rungs > 0) + 1 if rungs.any() else np.inf
    return Ladders(over, coverage, first)


def rungs_of(scores: Reals) -> Reals:
    """The rungs' thresholds, the strictest first: rung j lets the best j/10 of these scores through."""
    ordered = np.sort(scores)[::-1]
    places = [max(0, round(len(ordered) * (rung + 1) / RUNGS) - 1) for rung in range(RUNGS)]
    return np.append(ordered[places[:-1]], -np.inf)


def rows(suite: str, scenario: str, found: Ladders, labels: int) -> list[Row]:
    """A row per rule: `share` is that of replicates in which the released rung's true risk was ever over the target."""
    made: list[Row] = []
    for name, over in found.over.items():
        low, high = interval(int(over.sum()), len(over))
        made.append(
            {
                "suite": suite,
                "scenario": scenario,
                "rule": name,
                "replicates": len(over),
                "share": float(over.mean()),
                "share_low": low,
                "share_high": high,
                "median_pairs": quantile(found.first[name], 0.5),
                "p90_pairs": quantile(found.first[name], 0.9),
                "first_release": quantile(found.first[name], 0.5),
                "coverage": {
                    str(n): round(float(found.coverage[name][:, at].mean()), 4)
                    for at, n in enumerate(n for n in AT if n <= labels)
                },
            }
        )
    return made


class Detectors:
    """Many detectors at once, to the bit: `Detector.add` and `level`, a column per replicate."""

    def __init__(self, p0: float, replicates: int) -> None:
        first = Detector.at(p0)  # from 0, its sums after one label are the factors themselves
        self.good, self.bad = (np.array(first.add(x).sums) for x in (0.0, 1.0))
        self.sums = np.zeros((len(self.good), replicates))

    def add(self, rejects: NDArray[np.bool_]) -> None:
        """One label each."""
        self.sums += 1.0
        self.sums *= np.where(rejects[None, :], self.bad[:, None], self.good[:, None])
        np.minimum(self.sums, 1e300, out=self.sums)

    def level(self) -> Reals:
        """The mean of R, summed in the order of the bets."""
        value = np.zeros(self.sums.shape[1])
        for row in self.sums:
            value += row
        return value / len(self.sums)


def delays(
    rng: np.random.Generator, p0: float, before: float, after: float, replicates: int, warm: int
) -> tuple[Reals, int]:
    """Labels from the change to the alarm (inf: not within `PATIENCE`), and how many cried before it: those start again."""
    many, early = Detectors(p0, replicates), 0
    for _ in range(warm):
        many.add(rng.random(replicates) < before)
        false = many.level() >= ALARM
        early += int(false.sum())
        many.sums[:, false] = 0.0
    found = np.full(replicates, np.inf)
    for n in range(1, PATIENCE + 1):
        many.add(rng.random(replicates) < after)
        found[(many.level() >= ALARM) & np.isinf(found)] = n
        if np.isfinite(found).all():
            break
    return found, early


def run_length(
    rng: np.random.Generator, p0: float, replicates: int, most: int = RUN_LENGTH
) -> tuple[float, float, int]:
    """Mean number of labels to a false alarm at a rate of exactly p0, stopped at `most` (so at least this), its standard error, and how
    many were stopped."""
    many, found = Detectors(p0, replicates), np.full(replicates, np.inf)
    for n in range(1, most + 1):
        many.add(rng.random(replicates) < p0)
        found[(many.level() >= ALARM) & np.isinf(found)] = n
        if np.isfinite(found).all():
            break
    stopped = int(np.isinf(found).sum())
    times = np.minimum(found, most)
    return float(times.mean()), float(times.std() / replicates**0.5), stopped


def differing(seed: int, replicates: int = 3, labels: int = 3000) -> list[str]:
    """Where the detectors and the ladder here differ from the product's own; nothing, if all is well."""
    found: list[str] = []
    for scenario, p0, before, after in CHANGES:
        rng = np.random.default_rng([seed, 12])
        many, own = Detectors(p0, replicates), [Detector.at(p0) for _ in range(replicates)]
        for n in range(labels):
            rejects = rng.random(replicates) < (before if n < labels // 2 else after)
            many.add(rejects)
            own = [one.add(float(reject)) for one, reject in zip(own, rejects, strict=True)]
            if [one.level() for one in own] != many.level().tolist():
                found.append(f"detector, {scenario}, label {n + 1}")
                break
    rng = np.random.default_rng([seed, 15])
    for level in (1.0 / (MAIN_SHARE * DELTA), 1.0 / ((1.0 - MAIN_SHARE) * DELTA), 1.0 / DELTA):
        most = most_by_wealth(RISK, level, labels)
        for n in rng.integers(0, labels + 1, 200).tolist():
            bad = int(rng.integers(0, max(1, n // 10) + 1))
            if bad <= n and at_least(risk_wealth(bad, n, RISK), level) != (bad <= most[n]):
                found.append(f"ladder, level {level:g}, {bad} of {n}")
    return found


def detector(seed: int, replicates: int, lengths: int) -> dict[str, Any]:
    """Median delays of the three changes, and the run length."""
    found: list[dict[str, Any]] = []
    for index, (scenario, p0, before, after) in enumerate(CHANGES):
        rng = np.random.default_rng([seed, 13, index])
        fresh, _ = delays(rng, p0, before, after, replicates, 0)
        warm, early = delays(rng, p0, before, after, replicates, WARM)
        found.append(
            {
                "change": scenario,
                "p0": p0,
                "replicates": replicates,
                "median_labels": quantile(fresh, 0.5),
                "p90_labels": quantile(fresh, 0.9),
                "median_labels_warm": quantile(warm, 0.5),
                "early_alarms": early,
            }
        )
    mean, error, stopped = run_length(np.random.default_rng([seed, 14]), CHANGES[0][1], lengths)
    return {
        "changes": found,
        "run_length": {
            "p0": CHANGES[0][1], "replicates": lengths, "mean_at_least": round(mean), "lower_95": round(mean - 1.645 * error),
            "stopped": stopped,
        },
    }  # fmt: skip


def summary(found: list[Row], watched: dict[str, Any]) -> dict[str, Any]:
    """The figures of section 8 with their limits."""
    ours = next(one for one in found if one["suite"] == "ladder" and one["rule"] == "two_chains")
    useless = next(one for one in found if one["suite"] == "useless" and one["rule"] == "two_chains")
    made: dict[str, Any] = {
        "violation": figure(ours["share"], at_most=0.05),
        "violation_upper": figure(ours["share_high"]),
        "coverage_5000": figure(ours["coverage"].get("5000"), at_least=0.54),
        "first_release": figure(ours["first_release"], at_most=500),
        "useless_released": figure(useless["share"], at_most=0.05),
        "useless_released_upper": figure(useless["share_high"]),
    }
    for name, change in zip(("2_to_10", "20_to_25", "half_to_3"), watched["changes"], strict=True):
        limit = _DETECTOR_LIMIT if name == "2_to_10" else None
        made[f"detector_{name}_median"] = figure(change["median_labels"], at_most=limit)
    made["detector_run_length"] = figure(watched["run_length"]["mean_at_least"], at_least=ALARM)
    made["detector_run_length_lower"] = figure(watched["run_length"]["lower_95"])
    return made
