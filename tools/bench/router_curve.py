"""The curve of recovered gap over the share of strong calls, and what is read from it (Ong et al., RouteLLM, 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 10
CALLS = 1000  # steps in which the least share for a level is looked for
Reals = NDArray[np.float64]


def recovered(scores: Reals, gain: NDArray[np.int8]) -> Reals:
    """Gains taken up after each further call of the strong model, the greatest score first; equal scores share theirs evenly.

    From 0 to the whole sum: entry i is at the share i / n.
    """
    order = np.argsort(-scores, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(gain[order].astype(np.float64))])
    ends = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0, [True]]))
    return np.interp(np.arange(len(sums)), ends, sums[ends])


@dataclass(frozen=True)
class Figures:
    """`apgr`: trapezoid at 0, 10 … 100 %; `cpt50`, `cpt80`: the least share of strong calls that recovers so much, None if none does."""

    apgr: float
    cpt50: float
    cpt80: float


def figures(curves: Sequence[Reals]) -> Figures:
    """Over the folds together: at each share every fold calls the strong model for that share of its own rows."""
    shares = np.linspace(0.0, 1.0, CALLS + 1)
    total = np.sum([np.interp(shares, np.linspace(0.0, 1.0, len(curve)), curve) for curve in curves], axis=0)
    share = total / total[-1]
    points = share[:: CALLS // STEPS]
    return Figures(float(np.trapezoid(points, dx=1.0 / STEPS)), _least(share, shares, 0.5), _least(share, shares, 0.8))


def _least(share: Reals, shares: Reals, level: float) -> float:
    """The first share at which the level is reached, between two steps by a straight line."""
    at = int(np.argmax(share >= level - 1e-12))
    if at == 0:
        return 0.0
    below, above = share[at - 1], share[at]
    return float(shares[at - 1] + (level - below) / (above - below) * (shares[at] - shares[at - 1]))
