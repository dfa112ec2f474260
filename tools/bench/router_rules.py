"""Who is scored by `ratchet bench router --format routellm`: our features and regression, and what others would do.

A rule sees the texts of the other folds, the labels of some of them, and the texts that it must score. A score orders requests: the
greatest goes to the strong model first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.router import features, learner
from agents.router.basis import Basis, grams
from agents.router.basis_build import Counted, build_of, count
from agents.router.features import Reading
from schemas.errors import Refused

Reals = NDArray[np.float64]
Right = NDArray[np.int8]
Rows = list[int]
PRIOR = 5.0  # labels that a subject's mean shares with all
LR_PENALTY, LR_STEPS = 1.0, 200


@dataclass(frozen=True)
class Split:
    """Rows of one fold of one seed: `labelled` of the `others`, and the `held` ones that are only scored."""

    seed: tuple[int, ...]
    others: Rows
    labelled: Rows
    held: Rows


class Texts:
    """Texts read once: what a basis counts, what a vector needs. Nothing of it depends on another text, or on a label."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.readings: list[Reading] = [features.read(prompt) for prompt in prompts]
        self.counted: list[Counted] = [count(prompt) for prompt in prompts]
        self.lengths = np.array([len(prompt) for prompt in prompts], np.float64)


def ours(texts: Texts, weak: Right, strong: Right, split: Split) -> Reals:
    """As in production: the basis of the other folds' texts, one posterior for each model, ordered by the difference of their means."""
    basis = _basis(texts, split)
    cases = [(basis.vector_of(texts.readings[row]), int(weak[row]), int(strong[row])) for row in split.labelled]
    less, more = learner.prior(basis.blocks), learner.prior(basis.blocks)
    for x, by_weak, by_strong in cases:
        less = learner.observe(less, x, by_weak * learner.MICRO)
        more = learner.observe(more, x, by_strong * learner.MICRO)
    gain = more.mean() - less.mean()
    return np.array([basis.vector_of(texts.readings[row]) for row in split.held], np.float64) @ gain


def _basis(texts: Texts, split: Split) -> Basis:
    """As for a route: of its history, or a random one where that says too little."""
    try:
        return build_of([texts.counted[row] for row in split.others], split.seed[0])
    except Refused:
        return Basis.random(split.seed[0])


def subject_mean(subjects: NDArray[np.int64], gain: Right, split: Split) -> Reals:
    """The mean gain among the labels of the same file, drawn towards that of all."""
    files = int(subjects.max()) + 1
    labels = gain[split.labelled].astype(np.float64)
    counts = np.bincount(subjects[split.labelled], minlength=files)
    sums = np.bincount(subjects[split.labelled], labels, minlength=files)
    return ((sums + PRIOR * labels.mean()) / (counts + PRIOR))[subjects[split.held]]


class _Sparse:
    """Rows of tf-idf as gathered sums."""

    def __init__(self, rows: Sequence[Mapping[int, float]]) -> None:
        self.owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        self.columns = np.array([column for row in rows for column in row], np.int64)
        self.values = np.array([value for row in rows for value in row.values()], np.float64)
        self.count = len(rows)

    def times(self, weights: Reals) -> Reals:
        return np.asarray(
            np.bincount(self.owners, self.values * weights[self.columns], minlength=self.count), np.float64
        )

    def turned(self, factors: Reals, width: int) -> Reals:
        return np.asarray(np.bincount(self.columns, self.values * factors[self.owners], minlength=width), np.float64)


def tfidf_lr_gain(words: Sequence[Counter[int]], gain: Right, split: Split) -> Reals:
    """Logistic regression on tf-idf of words and pairs: will the strong model alone be right? Ridge, by accelerated gradient steps."""
    document: Counter[int] = Counter()
    for row in split.others:
        document.update(words[row].keys())
    total = 1 + len(split.others)
    held = {gram for row in split.labelled for gram in words[row] if document[gram] > 1}
    at = {gram: (column, 1.0 + float(np.log(total / (1 + document[gram])))) for column, gram in enumerate(sorted(held))}

    def rows_of(rows: Rows) -> _Sparse:
        return _Sparse([_tfidf(words[row], at) for row in rows])

    x, y = rows_of(split.labelled), (gain[split.labelled] > 0).astype(np.float64)
    rate = float(np.clip(y.mean(), 0.5 / len(y), 1 - 0.5 / len(y)))
    bias = float(np.log(rate / (1 - rate)))
    weights = np.zeros(len(at))
    ahead, step = weights, 1.0 / (LR_PENALTY + 0.25 * _norm(x, len(at)))
    for turn in range(LR_STEPS):
        wrong = 1.0 / (1.0 + np.exp(-bias - x.times(ahead))) - y
        after = ahead - step * (x.turned(wrong, len(at)) + LR_PENALTY * ahead)
        ahead = after + turn / (turn + 3) * (after - weights)
        weights = after
    return rows_of(split.held).times(weights)


def _norm(x: _Sparse, width: int) -> float:
    """The greatest eigenvalue of XᵀX, by power iterations."""
    vector, found = np.ones(width), 1.0
    for _ in range(30):
        vector = x.turned(x.times(vector), width)
        found = float(np.linalg.norm(vector))
        vector /= max(found, 1e-12)
    return 1.1 * found


def _tfidf(counts: Counter[int], at: Mapping[int, tuple[int, float]]) -> dict[int, float]:
    found = {at[gram][0]: (1.0 + float(np.log(n))) * at[gram][1] for gram, n in counts.items() if gram in at}
    length = float(np.sqrt(sum(value * value for value in found.values()))) or 1.0
    return {column: value / length for column, value in found.items()}


def words_of(readings: Sequence[Reading]) -> list[Counter[int]]:
    """Each text's hashed words and pairs."""
    return [Counter(grams(reading.words)) for reading in readings]
