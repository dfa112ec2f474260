"""The synthetic pairs of `ratchet bench judge`: what two arms answered to the same requests, many replicates at once.

How they are made, where the design leaves it open:
* Quality: a success or none. The correlation .5 is that of the two outcomes (the phi coefficient): .80 against .80 has 16 % discordant
  pairs. Rates and correlation are of all answers, failed ones included, at the champion's rate of errors.
* Latency: log-normal, median 800 ms, σ .5; cost: median 0.0002 USD, σ .6. The correlations (.5 and .7) are those of the logs. A scenario's
  ratio multiplies the challenger's. Both are rounded to whole µs and nano-USD, which is what events carry.
* Errors: either arm fails by its own coin. What a pair with a failure says is the product's rule (`agents.judge.pairs`).
* The four are independent of each other, and so are the pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.bench.twin import Reals, Whole

QUALITY, QUALITY_CORRELATION = 0.80, 0.5
LATENCY_US, LATENCY_SIGMA, LATENCY_CORRELATION = 800_000, 0.5, 0.5
COST_NANO_USD, COST_SIGMA, COST_CORRELATION = 200_000, 0.6, 0.7
ERRORS = 0.005
X0_US = round(LATENCY_US * float(np.exp(LATENCY_SIGMA * 1.6448536269514722)))
"""The champion's true p95, frozen before pair 1."""

Flags = NDArray[np.bool_]
COUNTED = frozenset({"quality", "error"})
"""Tracks whose D can only be -1, 0 or 1."""


@dataclass(frozen=True)
class Scenario:
    """What the challenger is, beside the champion: quality in points, latency and cost as ratios, errors as a rate."""

    name: str
    quality: float = 0.0
    latency: float = 1.0
    cost: float = 1.0
    errors: float = ERRORS


@dataclass(frozen=True)
class Pairs:
    """(pairs, replicates) each: good answers, latencies in µs, costs in nano-USD, failures."""

    champion_good: Flags
    challenger_good: Flags
    champion_us: Whole
    challenger_us: Whole
    champion_cost: Whole
    challenger_cost: Whole
    champion_failed: Flags
    challenger_failed: Flags

    def counts(self, track: str) -> NDArray[np.int8]:
        """D of a track of an arena that can only be -1, 0 or 1, by its name."""
        match track:
            case "quality":
                return self.challenger_good.astype(np.int8) - self.champion_good.astype(np.int8)
            case "error":
                return self.champion_failed.astype(np.int8) - self.challenger_failed.astype(np.int8)
            case _:
                raise ValueError(f"no track of counts {track!r}")

    def values(self, track: str) -> Reals:
        """D of any track."""
        match track:
            case "latency":
                return self._failing(contrasts(self.champion_us, self.challenger_us))
            case "cost":
                return self._failing(contrasts(self.champion_cost, self.challenger_cost))
            case "slowness":
                champion = np.where(self.champion_failed, 1.0, exceedances(self.champion_us))
                return champion - np.where(self.challenger_failed, 1.0, exceedances(self.challenger_us))
            case _:
                return self.counts(track).astype(np.float64)

    def _failing(self, d: Reals) -> Reals:
        either = self.champion_failed | self.challenger_failed
        return np.where(either, self.champion_failed.astype(float) - self.challenger_failed, d)


def contrasts(champion: Whole, challenger: Whole) -> Reals:
    """`metrics.contrast`, elementwise: the same bits."""
    both = champion + challenger
    return np.where(both == 0, 0.0, (champion - challenger) / np.where(both == 0, 1, both))


def exceedances(latency_us: Whole) -> Reals:
    """`metrics.exceedance` at X0_US, elementwise: the same bits."""
    return np.minimum(1.0, np.maximum(0.0, (6 * latency_us - 4 * X0_US) / (5 * X0_US)))


def agreement(champion: float, challenger: float, correlation: float) -> float:
    """P(both succeed) of two coins of these rates and this correlation (phi). Raises ValueError where no such coins exist."""
    both = champion * challenger + correlation * (champion * (1.0 - champion) * challenger * (1.0 - challenger)) ** 0.5
    if not max(0.0, champion + challenger - 1.0) <= both <= min(champion, challenger):
        raise ValueError(f"no coins of {champion!r} and {challenger!r} have correlation {correlation!r}")
    return both


def successes(
    rng: np.random.Generator, champion: float, challenger: float, both: float, shape: tuple[int, int]
) -> tuple[Flags, Flags]:
    """Two coins of these rates that both succeed with probability `both`."""
    u = rng.random(shape)
    return u < champion, (u < both) | ((u >= champion) & (u < champion + challenger - both))


def qualities(rng: np.random.Generator, gain: float, shape: tuple[int, int]) -> tuple[Flags, Flags]:
    """Champion and a challenger better by `gain`, of arms that never fail."""
    other = QUALITY + gain
    return successes(rng, QUALITY, other, agreement(QUALITY, other, QUALITY_CORRELATION), shape)


def latencies(rng: np.random.Generator, ratio: float, shape: tuple[int, int]) -> tuple[Whole, Whole]:
    """Champion and a challenger `ratio` times as slow, in µs."""
    return _lognormal(rng, LATENCY_US, LATENCY_SIGMA, LATENCY_CORRELATION, ratio, shape)


def _lognormal(
    rng: np.random.Generator, median: float, sigma: float, correlation: float, ratio: float, shape: tuple[int, int]
) -> tuple[Whole, Whole]:
    one = rng.standard_normal(shape)
    other = correlation * one + (1.0 - correlation**2) ** 0.5 * rng.standard_normal(shape)
    first, second = (np.rint(scale * np.exp(sigma * z)) for scale, z in ((median, one), (median * ratio, other)))
    return first.astype(np.int64), second.astype(np.int64)


def draw(rng: np.random.Generator, scenario: Scenario, pairs: int, replicates: int) -> Pairs:
    """The pairs of a scenario."""
    shape = (pairs, replicates)
    failed, other_failed = rng.random(shape) < ERRORS, rng.random(shape) < scenario.errors
    answered, other = 1.0 - ERRORS, QUALITY + scenario.quality
    both = agreement(QUALITY, other, QUALITY_CORRELATION) / answered**2
    good, other_good = successes(rng, QUALITY / answered, other / answered, both, shape)
    us, other_us = latencies(rng, scenario.latency, shape)
    cost, other_cost = _lognormal(rng, COST_NANO_USD, COST_SIGMA, COST_CORRELATION, scenario.cost, shape)
    return Pairs(good & ~failed, other_good & ~other_failed, us, other_us, cost, other_cost, failed, other_failed)
