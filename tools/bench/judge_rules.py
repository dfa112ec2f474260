"""The rules of `ratchet bench judge`: ours in its vectorised form, and what others decide by, on the same pairs at the same looks.

`ratchet` reads wealths that `twin` made to the product's bits, so its decisions are the product's; `judge_replay` checks it. The
competitors look as often as we do, as someone does who watches a dashboard: none of them was made for that, except the last two.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from math import log

import numpy as np
from numpy.typing import NDArray

from agents.judge.arena import GUARDS, PROCESSES, nulls_of
from agents.judge.decide import HARM_LEVEL
from agents.rules.metrics import gain_of
from schemas.routes import JudgeSettings
from tools.bench.exact import beta_share
from tools.bench.judge_draws import COUNTED, Flags, Pairs
from tools.bench.twin import Reals, Whole, at_looks, count_looks, mean_looks, value_looks

SETTINGS = JudgeSettings(min_time_s=0, novelty_pairs=0, once_a_day=False, max_pairs=100_000)
"""The defaults, without the times and without an end: how many pairs there are is the benchmark's to say."""
NULLS = nulls_of(SETTINGS, None)
ALPHA, EVERY, LEAST = SETTINGS.alpha, SETTINGS.evaluate_every, SETTINGS.min_pairs
ALONE, UNION = 1.0 / ALPHA, len(SETTINGS.win_by) / ALPHA
NEEDED = {"margin": 1.0 / ALPHA, "harm": HARM_LEVEL, "worse": len(GUARDS) / ALPHA}
MOST_ERRORS, MOST_P95, LEAST_QUALITY = 0.02, 1.5, 0.95  # of `point_estimate`
GLR_DELTA = 0.05
CS_TUNED_AT = 500  # pairs, where the asymptotic confidence sequence is narrowest


def wealths(pairs: Pairs) -> dict[str, Reals]:
    """Every e-process of an arena at every look, by the product's names of them."""
    found: dict[str, Reals] = {}
    for track, nulls in NULLS.items():
        looks = (
            count_looks(nulls.bets, pairs.counts(track), EVERY)
            if track in COUNTED
            else value_looks(nulls, pairs.values(track), EVERY)
        )
        found |= {row.name: looks[row.null] for row in PROCESSES if row.track == track}
    return found


def ever(wealth: Reals, level: float) -> Flags:
    """Whether each replicate has reached the level by each look."""
    return np.maximum.accumulate(wealth, axis=0) >= level


def passed(found: Mapping[str, Reals], guard: str) -> Flags:
    """Whether a guardrail has been passed, by look: not worse by the margin, and surely not by the harm line."""
    holds = [
        ever(found[f"{guard}_{null}"], NEEDED[null]) & (found[f"{guard}_{null}"] >= 1.0) for null in ("margin", "harm")
    ]
    return holds[0] & holds[1]


def whole(found: Mapping[str, Reals], bars: Mapping[str, Flags] | None, guards: Sequence[str] = GUARDS) -> Flags:
    """Where the whole rule would promote, by look: a superiority proved and its bar met now, every guardrail passed, no harm proved.

    Without `bars` a proved superiority is enough: what Ville's inequality alone promises. What `found` does not have counts nothing.
    """
    promoting = np.zeros_like(next(iter(found.values())), dtype=bool)
    for gain in SETTINGS.win_by:
        if gain in found:
            proved = ever(found[gain], UNION)
            promoting |= proved if bars is None else proved & bars[gain]
    for guard in guards:
        promoting &= passed(found, guard) & ~ever(found[f"{guard}_worse"], NEEDED["worse"])
    return enough(promoting)


def enough(promoting: Flags) -> Flags:
    """Not before the least number of pairs."""
    promoting[: LEAST // EVERY - 1] = False
    return promoting


def bars(pairs: Pairs) -> dict[str, Flags]:
    """Whether each superiority's estimate meets its bar, by look. Costs are the totals of pairs in which neither arm failed."""
    sound = ~(pairs.champion_failed | pairs.challenger_failed)
    before, after = sums(np.where(sound, pairs.champion_cost, 0)), sums(np.where(sound, pairs.challenger_cost, 0))
    return {
        "quality": mean_looks(pairs.values("quality"), EVERY) >= SETTINGS.quality_bar,
        "latency": mean_looks(pairs.values("latency"), EVERY) >= gain_of(SETTINGS.latency_bar),
        "cost": cheaper(before, after),
    }


def cheaper(before: Whole, after: Whole) -> Flags:
    """Whether the ratio of the totals meets the bar; none of nothing."""
    return (before > 0) & (after / np.maximum(before, 1) <= SETTINGS.cost_bar)


def sums(values: Whole) -> Whole:
    """The total so far at every look."""
    looks = len(values) // EVERY
    return np.cumsum(values[: looks * EVERY].reshape(looks, EVERY, -1).sum(axis=1, dtype=np.int64), axis=0)


def running_p95(values: Whole) -> Whole:
    """The p95 (nearest rank) of all so far, at every look, exactly: only the greatest 5 % are kept in order."""
    pairs, columns = values.shape
    kept = pairs - -(-pairs * 19 // 20) + 1
    top = np.full((columns, kept), np.iinfo(np.int64).min)
    found = np.empty((pairs // EVERY, columns), dtype=np.int64)
    for look in range(pairs // EVERY):
        fresh = values[look * EVERY : (look + 1) * EVERY].T
        top = np.sort(np.concatenate([top, fresh], axis=1), axis=1)[:, -kept:]
        n = (look + 1) * EVERY
        found[look] = top[:, -(n - -(-n * 19 // 20) + 1)]
    return found


def fixed_p95(champion_us: Whole, challenger_us: Whole) -> Flags:
    """p95 at most 0.9 times the champion's."""
    return enough(running_p95(challenger_us) <= SETTINGS.latency_bar * running_p95(champion_us))


def point_estimate(pairs: Pairs) -> Flags:
    """Thresholds on what has been seen so far, as canary tools have them."""
    n = _seen(len(pairs.champion_good) // EVERY)
    good, other = (at_looks(flags, EVERY) / n for flags in (pairs.champion_good, pairs.challenger_good))
    p95, other_p95 = running_p95(pairs.champion_us), running_p95(pairs.challenger_us)
    saved = cheaper(sums(pairs.champion_cost), sums(pairs.challenger_cost))
    better = (other_p95 <= SETTINGS.latency_bar * p95) | saved | (other - good >= SETTINGS.quality_bar)
    errors = at_looks(pairs.challenger_failed, EVERY) / n
    sound = (other >= LEAST_QUALITY * good) & (errors <= MOST_ERRORS) & (other_p95 <= MOST_P95 * p95)
    return enough(better & sound)


def _seen(looks: int) -> Reals:
    return (EVERY * np.arange(1, looks + 1)).astype(np.float64)[:, None]


def _moments(champion: Flags, challenger: Flags) -> tuple[Reals, Reals, Reals, Reals, Reals]:
    """n, the gap of the means, the unbiased variances of champion, challenger and D."""
    first, second = at_looks(champion, EVERY), at_looks(challenger, EVERY)
    both = at_looks(champion & challenger, EVERY)
    n = _seen(len(first))
    gap = (second - first) / n
    discordant = first + second - 2 * both
    spare = n / (n - 1.0)
    variance = (discordant / n - gap**2) * spare
    return n, gap, (first / n) * (1 - first / n) * spare, (second / n) * (1 - second / n) * spare, variance


@cache
def t_quantile(freedom: int, alpha: float) -> float:
    """The 1-alpha quantile of Student's t, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2.0
        beyond = beta_share(freedom / 2.0, 0.5, freedom / (freedom + middle**2)) / 2.0
        low, high = (middle, high) if beyond > alpha else (low, middle)
    return high


def _critical(n: Reals) -> Reals:
    return np.array([t_quantile(int(count) - 1, ALPHA) for count in n.ravel()])[:, None]


def paired_t(champion: Flags, challenger: Flags, margin: float = 0.0) -> Flags:
    """Student's paired t against "mean D ≤ -margin", one-sided at alpha, at every look."""
    n, gap, _, _, variance = _moments(champion, challenger)
    return gap + margin > _critical(n) * np.sqrt(np.maximum(variance, 0.0) / n)


def welch(champion: Flags, challenger: Flags) -> Flags:
    """Welch's t of two samples, one-sided at alpha, at every look; with n - 1 degrees of freedom, the least it may have."""
    n, gap, first, second, _ = _moments(champion, challenger)
    return gap > _critical(n) * np.sqrt((first + second) / n)


def glr(champion: Flags, challenger: Flags) -> Flags:
    """gap²/(2(v1/n1+v2/n2)) > ln((1+ln(n1+n2))/δ), as TensorZero stops an experiment."""
    n, gap, first, second, _ = _moments(champion, challenger)
    spread = np.maximum((first + second) / n, 1e-300)
    return (gap > 0) & (gap**2 / (2.0 * spread) > np.log((1.0 + np.log(2.0 * n)) / GLR_DELTA))


def asymptotic_cs(champion: Flags, challenger: Flags, margin: float = 0.0) -> Flags:
    """The asymptotic confidence sequence of mean D lies above -margin (Waudby-Smith et al. 2021, arXiv 2103.06476)."""
    n, gap, _, _, variance = _moments(champion, challenger)
    rho2 = (-2.0 * log(2.0 * ALPHA) + log(1.0 - 2.0 * log(2.0 * ALPHA))) / CS_TUNED_AT
    inner = n * rho2 + 1.0
    reach = np.log(1.0 + np.sqrt(inner) / (2.0 * ALPHA))
    return gap + margin > np.sqrt(2.0 * np.maximum(variance, 0.0) * inner / (n**2 * rho2) * reach)


QUALITY_RULES = {"welch": welch, "paired_t": paired_t, "glr": glr, "asymptotic_cs": asymptotic_cs}


def first_looks(promoting: Flags) -> NDArray[np.float64]:
    """The number of pairs at which each replicate would first be promoted; inf where never."""
    hit = promoting.any(axis=0)
    return np.where(hit, (promoting.argmax(axis=0) + 1.0) * EVERY, np.inf)
