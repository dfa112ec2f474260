"""The reward model of the doubly robust estimator: what each arm's answer would be worth. Pure.

1. A row is predicted by a model that saw earlier blocks only, and nothing of the row's own session: what the router learnt from the
   row's outcome, and then drew by, is never used to explain it.
2. The same bits for any number of threads: sums of whole numbers, and no library's solver.
3. A wrong model costs width, never truth: the estimator adds the weighted residuals.
"""

from itertools import pairwise

import numpy as np

from agents.router.ope_rows import MICRO, ONE, Columns, Floats, Ints

TAUGHT = 1 / 64  # the share of the rows, the earliest, that only teach: they have no earlier model
EDGES = (
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    3 / 8,
    1 / 2,
    5 / 8,
    3 / 4,
    7 / 8,
)  # where later blocks begin: few rows wait for little
PRIOR = 0.5  # of a reward, before any row
MOST_ROWS = 20_000  # of the latest labelled rows in one fit: bounds the work
RIDGE_ALL, RIDGE_ARM = 4.0, 16.0
WEIGHT_ONE, GRAIN = 16, 32_768  # in a fit, weights are sixteenths and rewards 2^-15


def predictions(log: Columns) -> tuple[int, Floats]:
    """The first row that an earlier model predicts, and from it on, rows × arms: each arm's expected reward, in [0, 1].

    Whole millionths: what a summation's order changes in the last bits is gone. Needs two rows.
    """
    first = max(1, int(TAUGHT * log.rows))
    starts = sorted({first, log.rows, *(max(first, int(edge * log.rows)) for edge in EDGES)})
    made = np.empty((log.rows, len(log.arms)))
    for start, stop in pairwise(starts):
        own = np.zeros(log.sessions, dtype=np.bool_)
        own[log.session[start:stop]] = True
        seen = np.flatnonzero(log.labelled[:start] & ~own[log.session[:start]])[-MOST_ROWS:]
        made[start:stop] = _told(log.x[start:stop], _fit(log, seen)) + PRIOR
    return first, np.rint(np.clip(made[first:], 0.0, 1.0) * MICRO) / MICRO


def _fit(log: Columns, seen: Ints) -> Floats:
    """d, k: ridge regression of reward - ½, of all arms together, then of each arm's residual, weighted by inverse label propensity."""
    x, y, drawn = log.x[seen], log.reward[seen] - PRIOR, log.drawn[seen]
    weight = np.rint(log.label_weight[seen] * WEIGHT_ONE)
    common = _ridge(x, y, weight, RIDGE_ALL)
    rest = y - _told(x, common[:, None])[:, 0]
    made = np.repeat(common[:, None], len(log.arms), axis=1)
    for arm in range(len(log.arms)):
        own = drawn == arm
        if own.any():
            made[:, arm] += _ridge(x[own], rest[own], weight[own], RIDGE_ARM)
    return made


def _told(x: Floats, weights: Floats) -> Floats:
    return np.asarray(np.einsum("nd,dk->nk", x, weights), np.float64) / ONE


def _ridge(x: Floats, y: Floats, weight: Floats, strength: float) -> Floats:
    """argmin Σ weight (y - x·b)² + strength |b|² (Hoerl & Kennard 1970); the bias, x[0] = 1, is held only lightly.

    Whole numbers of which all sums stay below 2^53 (20,000 rows, |x| ≤ 2^15, weight ≤ 320): exact in any order.
    """
    held = np.full(x.shape[1], strength)
    held[:1] = 1.0
    scaled = x * weight[:, None]
    gram = (scaled.T @ x) / (WEIGHT_ONE * ONE * ONE) + np.diag(held)
    pull = (scaled.T @ np.rint(np.clip(y, -1.0, 1.0) * GRAIN)) / (WEIGHT_ONE * ONE * GRAIN)
    return _solved(gram, pull)


def _solved(a: Floats, b: Floats) -> Floats:
    """a⁻¹b, a positive definite, by elimination: LAPACK's last bits depend on its threads."""
    size = len(b)
    wide = np.concatenate([a, b[:, None]], axis=1)
    for at in range(size - 1):
        below = wide[at + 1 :, at] / wide[at, at]
        wide[at + 1 :, at + 1 :] -= below[:, None] * wide[at, at + 1 :]
    found = np.zeros(size)
    for at in range(size - 1, -1, -1):
        found[at] = wide[at, size] / wide[at, at]
        wide[:at, size] -= wide[:at, at] * found[at]
    return found
