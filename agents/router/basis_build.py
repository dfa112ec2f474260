"""Makes a basis from a route's unlabelled texts: offline, in floats, by a seed. What it makes is frozen into integers.

Truncated SVD of the tf-idf rows by a randomised range finder with power iterations (Halko, Martinsson, Tropp, 2011), landmarks
drawn from the texts, features by the Nyström method (Williams, Seeger, 2001).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.router import features
from agents.router.basis import DIRECTIONS, KERNEL_STEPS, UNIT, Basis, Kernel, grams
from agents.router.features import ONE, Scale
from schemas.errors import Refused

LEAST = 5  # texts in which a gram must be, to weigh anything
LEAST_TEXTS = 100
LANDMARKS = 128
OVERSAMPLED, ITERATIONS = 16, 2
SPREAD = 3.5  # root mean square length of the kernel features, in units of a surface number
SMALLEST = 1e-3  # eigenvalues below this share of the greatest are noise
AT_ONCE = 1 << 17
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a basis is made of: a text's raw surface numbers, and how often each of its grams is in it."""

    measures: tuple[int, ...]
    grams: NDArray[np.int64]
    counts: NDArray[np.int64]


def count(text: str) -> Counted:
    """Read a text once; `build_of` takes what comes."""
    reading = features.read(text)
    found = Counter(grams(reading.words))
    return Counted(
        features.measures(reading), np.array(list(found.keys()), np.int64), np.array(list(found.values()), np.int64)
    )


def build(texts: Sequence[str], seed: int) -> Basis:
    """The basis of these texts, at least `LEAST_TEXTS`; the same texts and seed give the same one on one build of numpy."""
    return build_of([count(text) for text in texts], seed)


def build_of(texts: Sequence[Counted], seed: int) -> Basis:
    """As `build`, of texts that were counted already. Raises `Refused` for too few, or for those that have nothing in common."""
    if len(texts) < LEAST_TEXTS:
        raise Refused(f"a basis of {len(texts)} texts; accepted: at least {LEAST_TEXTS}", kind="basis")
    rng = np.random.default_rng(seed)
    rows = _rows(texts)
    directions = _directions(rows, rng)
    weights, mantissas = _frozen(directions * rows.idf[:, None])
    units = _times(rows, (mantissas * weights[:, None] / rows.idf[:, None]).astype(np.float32))
    return Basis(
        known=rows.known,
        weights=weights.astype(np.uint16),
        rows=mantissas.astype(np.int8),
        scale=_scale(texts),
        kernel=_kernel(_normalised(units.astype(np.float64)), rng),
        gain=0,
    )


@dataclass(frozen=True)
class _Rows:
    """Texts as sparse rows of (1 + log tf) · idf, unit length: `values` at `columns`, row i from `starts[i]`."""

    starts: NDArray[np.int64]
    owners: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Floats
    known: NDArray[np.uint32]
    idf: Floats


def _rows(texts: Sequence[Counted]) -> _Rows:
    held = np.concatenate([text.grams for text in texts])
    counts = np.concatenate([text.counts for text in texts])
    owners = np.repeat(np.arange(len(texts)), [len(text.grams) for text in texts])
    found, at, document = np.unique(held, return_inverse=True, return_counts=True)
    often = document >= LEAST
    known, document = found[often], document[often]
    if len(known) < 2 * DIRECTIONS:
        raise Refused(
            f"a basis of texts with {len(known)} grams in common; accepted: at least {2 * DIRECTIONS} that are in {LEAST} texts",
            kind="basis",
        )
    kept = often[at]
    held, counts, owners = (np.cumsum(often) - 1)[at[kept]], counts[kept], owners[kept]
    idf = 1.0 + np.log((1 + len(texts)) / (1 + document))
    values = (1.0 + np.log(counts)) * idf[held]
    lengths = np.sqrt(np.bincount(owners, values * values, minlength=len(texts)))
    values /= lengths[owners]
    starts = np.searchsorted(owners, np.arange(len(texts) + 1))
    return _Rows(
        starts, owners, held, values.astype(np.float32), known.astype(np.uint32), idf.astype(np.float32)
    )  # fmt: skip


def _runs(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows in runs of about `AT_ONCE` values."""
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + AT_ONCE, "right")) - 1)
        yield first, last
        first = last


def _gathered(starts: NDArray[np.int64], columns: NDArray[np.int64], values: Floats, right: Floats) -> Floats:
    """Sparse rows times a matrix."""
    found = np.zeros((len(starts) - 1, right.shape[1]), np.float32)
    for first, last in _runs(starts):
        low, high = int(starts[first]), int(starts[last])
        if low == high:
            continue
        parts = right[columns[low:high]] * values[low:high, None]
        filled = np.flatnonzero(np.diff(starts[first : last + 1]))
        found[first + filled] = np.add.reduceat(parts, starts[first + filled] - low, axis=0)
    return found


def _times(rows: _Rows, right: Floats) -> Floats:
    return _gathered(rows.starts, rows.columns, rows.values, right)


def _directions(rows: _Rows, rng: np.random.Generator) -> Floats:
    """(grams, 64): right singular vectors of the rows."""
    order = np.argsort(rows.columns, kind="stable")
    turned = np.searchsorted(rows.columns[order], np.arange(len(rows.known) + 1))
    owners, values = rows.owners[order], rows.values[order]
    drawn = rng.standard_normal((len(rows.known), DIRECTIONS + OVERSAMPLED)).astype(np.float32)
    for _ in range(ITERATIONS):
        left, _ = np.linalg.qr(_times(rows, drawn))
        drawn, _ = np.linalg.qr(_gathered(turned, owners, values, left))
    left, _ = np.linalg.qr(_times(rows, drawn))
    small = _gathered(turned, owners, values, left)  # its right singular vectors are those of the rows
    found, _, _ = np.linalg.svd(small, full_matrices=False)
    return found[:, :DIRECTIONS].astype(np.float32)


def _frozen(directions: Floats) -> tuple[Doubles, Doubles]:
    """Each gram's direction as 64 numbers of 8 bits and a weight of 16 bits."""
    greatest = np.abs(directions).max(axis=1)
    weights = np.maximum(1.0, np.rint(greatest / greatest.max() * 65_535.0))
    return weights, np.rint(directions / np.maximum(greatest, 1e-30)[:, None] * 127.0)


def _normalised(vectors: Doubles) -> Doubles:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _scale(texts: Sequence[Counted]) -> Scale:
    measured = np.array([text.measures for text in texts], np.float64)
    means, deviations = measured.mean(axis=0), np.maximum(measured.std(axis=0), ONE / 64)
    return Scale(tuple(int(value) for value in np.rint(means)), tuple(int(value) for value in np.rint(deviations)))


def _landmarks(units: Doubles, rng: np.random.Generator) -> Doubles:
    """Different texts, drawn evenly: as many as there are of each kind."""
    marks = np.rint(units[rng.permutation(len(units))[: 2 * LANDMARKS]] * UNIT) / UNIT
    _, first = np.unique(marks, axis=0, return_index=True)
    return marks[np.sort(first)[:LANDMARKS]]


def _distances(one: Doubles, other: Doubles) -> Doubles:
    return np.maximum(0.0, (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1) - 2.0 * one @ other.T)


def _kernel(units: Doubles, rng: np.random.Generator) -> Kernel:
    """Directions weighted by the root of their spread; width by the median heuristic; whitened to the landmarks' principal axes."""
    spread = np.sqrt(np.sqrt((units * units).mean(axis=0)))
    axes = np.maximum(1.0, np.rint(spread / spread.max() * UNIT))
    units = _normalised(units * axes)
    marks = _landmarks(units, rng)
    distances = _distances(units, marks)
    width = float(np.median(distances))
    between = np.exp(-_distances(marks, marks) / width)
    values, vectors = np.linalg.eigh(between)
    values = np.maximum(values, SMALLEST * values[-1])
    whiten = (vectors / np.sqrt(values)).T[::-1]
    felt = np.exp(-distances / width)
    means = felt.mean(axis=0)
    found = (felt - means) @ whiten.T
    whiten *= SPREAD / np.sqrt((found * found).sum(axis=1).mean())
    table = np.minimum(32_767.0, np.exp(-(np.arange(KERNEL_STEPS) + 0.5) * 4.0 / KERNEL_STEPS / width) * 32_768.0)
    shift = 0
    while shift < 30 and np.abs(whiten).max() * 2.0 ** (shift + 1) * ONE / 32_768.0 < 2.0**30:
        shift += 1
    mix = np.rint(whiten * 2.0**shift * ONE / 32_768.0)
    return Kernel(
        axes.astype(np.int16), (marks * UNIT).astype(np.int16), np.rint(table).astype(np.int16), np.rint(means * 32_768.0).astype(np.int16),
        mix.astype(np.int32), shift,
    )  # fmt: skip
