"""Scores of recorded answers, made as trust makes them: logistic on what is known before anyone has looked, by plain numpy.

Signals of an answer of the target model: which of the panel gave the same answer, its length, the number of options, the category.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.bench.outcomes import NONE, Outcomes

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]
_STEPS = 50
_RIDGE = 1.0
_CLOSE = 1e-10
_BINS = 15
_PRIOR = 10.0  # answers at the overall rate, that a category's rate starts with


@dataclass(frozen=True)
class Signals:
    """A row per question: what a scorer may see, and whether the answer was right. `agreement`: a column per model of the panel."""

    agreement: Reals
    length: Reals
    options: Reals
    category: NDArray[np.int64]
    right: Flags


def signals(file: Outcomes, target: str, panel: Sequence[str]) -> Signals:
    """Those of the target's answers. A panel answers nothing that agrees with an empty `pred`."""
    answers = file.models[target]
    names = sorted(set(file.category))
    same = [(file.models[name].pred == answers.pred) & (answers.pred != NONE) for name in panel]
    return Signals(
        agreement=np.stack(same, axis=1).astype(np.float64),
        length=np.log1p(answers.chars),
        options=file.options.astype(np.float64),
        category=np.array([names.index(name) for name in file.category]),
        right=answers.right,
    )


def _columns(known: Signals, parts: Sequence[str]) -> Reals:
    kinds = int(known.category.max()) + 1
    columns = {
        "agreement": known.agreement,
        "length": known.length[:, None],
        "options": known.options[:, None],
        "category": (known.category[:, None] == np.arange(1, kinds)).astype(np.float64),
    }
    return np.concatenate([columns[part] for part in parts], axis=1)


def logistic(known: Signals, fit: NDArray[np.int64], parts: Sequence[str]) -> Reals:
    """Probabilities of all rows by a ridge logistic regression (Newton) on the rows of `fit`, columns scaled on them."""
    columns = _columns(known, parts)
    spread = columns[fit].std(axis=0)
    scaled = (columns - columns[fit].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    x = np.concatenate([np.ones((len(scaled), 1)), scaled], axis=1)
    seen, right = x[fit], known.right[fit].astype(np.float64)
    penalty = np.full(x.shape[1], _RIDGE)
    penalty[0] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = probability(seen @ weights)
        slope = seen.T @ (right - p) - penalty * weights
        curve = (seen * (p * (1.0 - p))[:, None]).T @ seen + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights += step
        if float(np.abs(step).max()) < _CLOSE:
            break
    return probability(x @ weights)


def probability(z: Reals) -> Reals:
    """The logistic function."""
    return 1.0 / (1.0 + np.exp(-np.clip(z, -500.0, 500.0)))


def rate_by_category(known: Signals, fit: NDArray[np.int64]) -> Reals:
    """What people show instead of a score: the share right of the same category, so far."""
    overall = float(known.right[fit].mean())
    rates = [
        (known.right[fit][known.category[fit] == n].sum() + _PRIOR * overall)
        / ((known.category[fit] == n).sum() + _PRIOR)
        for n in range(int(known.category.max()) + 1)
    ]
    return np.array(rates)[known.category]


PARTS = ("agreement", "length", "options", "category")


def scorers(known: Signals, fit: NDArray[np.int64]) -> dict[str, Reals]:
    """Probabilities of all rows, by scorer. `logistic` is the one that the ladder reads."""
    return {
        "logistic": logistic(known, fit, PARTS),
        "agreement": logistic(known, fit, ("agreement",)),
        "length": logistic(known, fit, ("length",)),
        "category_rate": rate_by_category(known, fit),
        "base_rate": np.full(len(known.right), float(known.right[fit].mean())),
    }


def figures(p: Reals, right: Flags) -> dict[str, float | None]:
    """AUROC (None where all are right or none), AURC, ECE in 15 bins of equal width, Brier."""
    return {
        "auroc": auroc(p, right),
        "aurc": aurc(p, right),
        "ece15": ece(p, right),
        "brier": float(np.mean((p - right) ** 2)),
    }


def auroc(p: Reals, right: Flags) -> float | None:
    """The probability that a right answer scores above a wrong one, ties half (Mann & Whitney)."""
    good, bad = int(right.sum()), int((~right).sum())
    if not good or not bad:
        return None
    _, back, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[back]
    return float((ranks[right].sum() - good * (good + 1) / 2.0) / (good * bad))


def aurc(p: Reals, right: Flags) -> float:
    """The mean risk of the best 1, 2, … n answers; among equal scores, as if in random order."""
    _, back, counts = np.unique(-p, return_inverse=True, return_counts=True)
    wrong = np.bincount(back, weights=(~right).astype(np.float64), minlength=len(counts)) / counts
    return float(np.mean(np.cumsum(np.repeat(wrong, counts)) / np.arange(1, len(p) + 1)))


def ece(p: Reals, right: Flags) -> float:
    """Expected calibration error: |said - happened| by bin, weighted by its answers."""
    bins = np.minimum((p * _BINS).astype(np.int64), _BINS - 1)
    said, happened = (np.bincount(bins, weights=values, minlength=_BINS) for values in (p, right.astype(np.float64)))
    return float(np.abs(said - happened).sum() / len(p))
