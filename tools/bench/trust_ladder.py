"""Ladders for `ratchet bench trust`: ours by the product's own wealths, and two rules that people use, on the same labels.

A rule says of a rung with k rejects in n labels whether it holds; that is a greatest k for each n, made once per risk: ours from
`risk_wealth` itself, so that its decisions are the product's. All go through the rungs in order, from the strictest, and a rung that
has held once is passed: only ours may be read so.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import at_least
from tools.bench.exact import beta_share

DELTA = 0.05
RUNGS = 10  # score quantiles 10 to 100 %
STRICT = 2  # rungs of the second chain: 10 and 20 %
MAIN_SHARE = 0.8  # of delta, for the chain from 30 %
LAPLACE_LEAST = 50
EVERY = 10  # labels, between two looks of the rules that are re-run
NEVER = np.iinfo(np.int64).max

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]


@lru_cache(maxsize=64)
def most_by_wealth(risk: float, level: float, labels: int) -> Whole:
    """Per n the greatest k at which `risk_wealth` is at least the level; -1 where none is."""
    found, k = np.full(labels + 1, -1, dtype=np.int64), -1
    for n in range(labels + 1):
        while k + 1 <= n and at_least(risk_wealth(k + 1, n, risk), level):
            k += 1
        found[n] = k
    return found


@lru_cache(maxsize=64)
def most_by_clopper_pearson(risk: float, labels: int) -> Whole:
    """Per n the greatest k whose one-sided upper bound at 1 - delta is at most the risk."""
    found, k = np.full(labels + 1, -1, dtype=np.int64), -1
    for n in range(1, labels + 1):
        while k + 1 < n and 1.0 - beta_share(k + 2, n - k - 1, risk) <= DELTA:
            k += 1
        found[n] = k
    return found


@lru_cache(maxsize=64)
def most_by_laplace(risk: float, labels: int) -> Whole:
    """Per n the greatest k whose approval rate (a + 1)/(n + 2) is at least 1 - risk, of 50 labels or more."""
    n = np.arange(labels + 1)
    k = np.floor(n + 1 - (1.0 - risk) * (n + 2) + 1e-9).astype(np.int64)
    return np.where(n >= LAPLACE_LEAST, np.clip(k, -1, n), -1)


@dataclass(frozen=True)
class Labels:
    """One replicate: per rung (a column; the strictest first) the labels and the rejects so far, after each label."""

    seen: Whole
    rejects: Whole


def count(scores: Reals, rejects: NDArray[np.bool_], thresholds: Reals) -> Labels:
    """The labels in their order, by rung; thresholds fall."""
    inside = scores[:, None] >= thresholds[None, :]
    bad = inside & rejects[:, None]
    return Labels(np.cumsum(inside, axis=0, dtype=np.int64), np.cumsum(bad, axis=0, dtype=np.int64))


def crossings(labels: Labels, most: Whole) -> Whole:
    """Per rung the number of labels at which it first held, looked at after each; NEVER where it did not."""
    held = labels.rejects <= most[labels.seen]
    return np.where(held.any(axis=0), held.argmax(axis=0) + 1, NEVER)


def two_chains(labels: Labels, risk: float, last: int) -> Whole:
    """Per label how many rungs are released (0: none): 30 → 100 % at 1/(.8δ), 10 → 20 % at 1/(.2δ), ever crossed."""
    main = crossings(labels, most_by_wealth(risk, 1.0 / (MAIN_SHARE * DELTA), last))
    strict = crossings(labels, most_by_wealth(risk, 1.0 / ((1.0 - MAIN_SHARE) * DELTA), last))
    times = np.concatenate([np.maximum.accumulate(strict[:STRICT]), np.maximum.accumulate(main[STRICT:])])
    return _released(times, len(labels.seen))


def one_chain(labels: Labels, risk: float, last: int) -> Whole:
    """As `two_chains`, with one chain from 30 % at 1/δ."""
    times = np.maximum.accumulate(crossings(labels, most_by_wealth(risk, 1.0 / DELTA, last))[STRICT:])
    return _released(np.concatenate([np.full(STRICT, NEVER), times]), len(labels.seen))


def _released(times: Whole, labels: int) -> Whole:
    """Per label the loosest rung whose time has come, as its number from 1."""
    found = np.zeros(labels, dtype=np.int64)
    for rung, at in enumerate(times.tolist(), start=1):
        if at <= labels:
            found[at - 1 :] = rung
    return found


def rerun(labels: Labels, most: Whole) -> Whole:
    """Per label how many rungs in a row, from the strictest, have ever held; asked again after every 10 labels."""
    held = labels.rejects[EVERY - 1 :: EVERY] <= most[labels.seen[EVERY - 1 :: EVERY]]
    ever = np.maximum.accumulate(held, axis=0)
    rungs = np.minimum.accumulate(ever, axis=1).sum(axis=1)
    at = (np.arange(1, len(labels.seen) + 1) // EVERY) - 1
    return np.where(at >= 0, rungs[np.maximum(at, 0)], 0)


RULES = ("two_chains", "one_chain", "clopper_pearson", "laplace")
"""In the order of the tables."""


def released(labels: Labels, risk: float) -> dict[str, Whole]:
    """Per rule and label how many rungs are released."""
    last = len(labels.seen)
    return {
        "two_chains": two_chains(labels, risk, last),
        "one_chain": one_chain(labels, risk, last),
        "clopper_pearson": rerun(labels, most_by_clopper_pearson(risk, last)),
        "laplace": rerun(labels, most_by_laplace(risk, last)),
    }
