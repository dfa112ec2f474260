"""What the router has learnt of one arm: a Bayesian linear regression of quality on the features, in information form.

A `Posterior` is kept in floats and is folded (rules of the fold: exact on one build and CPU family, else to 1e-9). What a decision reads
is a `agents.router.snapshot.Snapshot` of it: integers only.

1. A = A₀ + Σ w·x·xᵀ, b = b₀ + Σ w·y·x; mean A⁻¹b, deviation √(xᵀA⁻¹x) (Lindley & Smith 1972). (A₀, b₀) is the warm start: what is kept
   of the cases is only the difference to it, so forgetting is one product and always ends there.
2. Without forgetting the order of the cases is nothing: weights are whole 1,024ths, features 4,096ths, qualities whole millionths, so the
   sums are exact below 2^53.
3. An amended case equals the right one folded: x, the weight and the count of cases at its folding are logged with it.
4. Everything is a new value; nothing changes a `Posterior` in place.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.router.packing import Reader, sealed
from schemas.errors import Refused

ONE = 4096  # a feature of 1.0: fixed point 2^-12
MICRO = 1_000_000
KEEP = 0.9995  # what a case counts for one case later
MOST_DIMS = 1024
VERDICT, TRUST = 1.0, 0.25  # weights of a label: a grader's verdict, a calibrated trust score
MOST_IMPORTANCE = 20.0
_GRAIN = 1024
_MAGIC = b"RLPO"

Reals = NDArray[np.float64]
Features = NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """One arm's regression. `warm_a`, `warm_b`: the warm start; `a`, `b`: what cases added, qualities in millionths of features of 1.0.

    `n`: cases folded; `cases`: cases of the route gone by (`forget`); `mass`: the sum of weights, forgotten as the sums are.
    """

    warm_a: Reals
    warm_b: Reals
    a: Reals
    b: Reals
    n: int = 0
    cases: int = 0
    mass: float = 0.0

    @property
    def dims(self) -> int:
        """Length of the features."""
        return len(self.b)

    def mean(self) -> Reals:
        """The weights, in millionths of quality for a feature of 1.0."""
        return np.asarray(np.linalg.solve(self.warm_a + self.a, self.warm_b + self.b), np.float64)

    def to_bytes(self) -> bytes:
        """All of it: little-endian, triangles packed by rows, sealed."""
        rows, columns = _triangle(self.dims)
        head = struct.pack("<HQQd", self.dims, self.n, self.cases, self.mass)
        parts = (self.warm_a[rows, columns], self.warm_b, self.a[rows, columns], self.b)
        return sealed(_MAGIC, head + b"".join(np.ascontiguousarray(part, "<f8").tobytes() for part in parts))

    @classmethod
    def from_bytes(cls, data: bytes, dims: int | None = None) -> "Posterior":
        """Back to the bit. Raises `Refused` for bytes that are damaged, of other dimensions or of a later version."""
        reader = Reader(_MAGIC, "posterior", data)
        found, n, cases, mass = reader.head("<HQQd")
        reader.dims(found, dims, MOST_DIMS)
        rows, columns = _triangle(found)
        packed = len(rows)
        sums = reader.array("<f8", 2 * (packed + found)).astype(np.float64)
        reader.end()
        if not np.isfinite(sums).all() or not 0.0 <= mass < float("inf"):
            raise Refused("posterior: holds a number that is not finite; accepted: finite sums", kind="damaged")

        def square(values: Reals) -> Reals:
            full = np.zeros((found, found))
            full[rows, columns] = values
            full[columns, rows] = values
            return full

        warm_a, warm_b, a, b = np.split(sums, np.cumsum([packed, found, packed]))
        return cls(square(warm_a), warm_b.copy(), square(a), b.copy(), n, cases, mass)


def prior(blocks: Sequence[tuple[int, float]], mean: Sequence[int] | None = None) -> Posterior:
    """Nothing seen yet. `blocks`: (length, ridge) in the order of the features, a ridge being the inverse variance of its weights in units
    of one label's noise. `mean`: the weights before any case, in millionths for a feature of 1.0; 0 without.

    Raises ValueError for a ridge that is not positive or dimensions outside 1 to 1,024.
    """
    ridge = np.array([scale for length, scale in blocks for _ in range(length)])
    if not 1 <= len(ridge) <= MOST_DIMS or not (np.isfinite(ridge) & (ridge > 0.0)).all():
        raise ValueError(f"blocks {list(blocks)!r}; accepted: 1 to {MOST_DIMS} features, ridges above 0")
    start = np.zeros(len(ridge)) if mean is None else np.array(mean, dtype=np.float64)
    if start.shape != ridge.shape:
        raise ValueError(f"a mean of {len(start)} weights; accepted: {len(ridge)}")
    return Posterior(np.diag(ridge), ridge * start, np.zeros((len(ridge), len(ridge))), np.zeros(len(ridge)))


def held(posterior: Posterior, blocks: Sequence[tuple[int, float]], ridge: float) -> Posterior:
    """The same cases under a prior whose ridges, the first block's (the bias) aside, are `ridge` times as large."""
    if ridge == 1.0:
        return posterior
    (bias, _), *rest = blocks
    scale = np.array([0.0] * bias + [(ridge - 1.0) * one for length, one in rest for _ in range(length)])
    return replace(posterior, warm_a=posterior.warm_a + np.diag(scale))


def rebased(posterior: Posterior, strength: float = 1.0) -> Posterior:
    """What was learnt becomes the warm start, counting `strength` (0 to 1) of the cases; forgetting then ends here."""
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength!r}; accepted: 0 to 1")
    mean = posterior.mean()
    warm_a = posterior.warm_a + strength * posterior.a
    nothing = np.zeros_like(posterior.a)
    return Posterior(warm_a, warm_a @ mean, nothing, np.zeros_like(mean), posterior.n, posterior.cases)


def pooled(posteriors: Sequence[Posterior], strength: float, blocks: Sequence[tuple[int, float]]) -> Posterior:
    """A warm start for an arm that has none: the other arms' cases together, counting `strength`, above the prior of `blocks`."""
    start = prior(blocks)
    a, b = np.zeros_like(start.a), np.zeros_like(start.b)
    for one in posteriors:
        a, b = a + one.a, b + one.b
    return replace(start, warm_a=start.warm_a + strength * a, warm_b=start.warm_b + strength * b)


def weight_of(verdict: bool, label_propensity: int) -> float:
    """A label's weight: a verdict 1, a calibrated trust score 0.25; times 65,536 ÷ label_propensity (out of 65,536), clipped at 20.

    Raises ValueError for a propensity outside 1 to 65,536: what could not be labelled was not.
    """
    if not 0 < label_propensity <= 65_536:
        raise ValueError(f"label_propensity is {label_propensity!r}; accepted: 1 to 65536")
    return (VERDICT if verdict else TRUST) * min(65_536 / label_propensity, MOST_IMPORTANCE)


def observe(posterior: Posterior, x: Features, quality: int, weight: float = 1.0) -> Posterior:
    """The posterior after a case: its features, its quality in millionths, its weight. Raises `Refused` for features of another basis."""
    real, grain = _real(posterior, x), _grained(weight)
    weighted = grain * real
    return replace(
        posterior,
        a=posterior.a + np.outer(weighted, real),
        b=posterior.b + quality * weighted,
        n=posterior.n + 1,
        mass=posterior.mass + grain,
    )


def amend(
    posterior: Posterior,
    x: Features,
    old: int,
    new: int,
    weight: float = 1.0,
    *,
    since: int | None = None,
    keep: float = KEEP,
) -> Posterior:
    """The posterior as if the case had said `new` instead of `old`: only `b` changes.

    `since`: what `cases` was when the case was folded; None where nothing was forgotten since.
    """
    real = _real(posterior, x)
    gone = 0 if since is None else posterior.cases - since
    if gone < 0:
        raise ValueError(f"since is {since!r}; accepted: at most {posterior.cases}")
    return replace(posterior, b=posterior.b + (new - old) * (_grained(weight) * keep**gone) * real)


def forget(posterior: Posterior, cases: int = 1, keep: float = KEEP) -> Posterior:
    """The posterior after `cases` further cases of the route: what it learnt counts `keep` to that power, the warm start as ever."""
    if cases < 0 or not 0.0 < keep <= 1.0:
        raise ValueError(f"cases {cases!r}, keep {keep!r}; accepted: cases from 0, 0 < keep <= 1")
    if not cases:
        return posterior
    share = keep**cases
    return replace(
        posterior,
        a=posterior.a * share,
        b=posterior.b * share,
        cases=posterior.cases + cases,
        mass=posterior.mass * share,
    )


def _grained(weight: float) -> float:
    """The weight in whole 1,024ths, at least one."""
    if not 0.0 < weight <= MOST_IMPORTANCE:
        raise ValueError(f"weight is {weight!r}; accepted: above 0, at most {MOST_IMPORTANCE:g}")
    return max(round(weight * _GRAIN), 1) / _GRAIN


def _real(posterior: Posterior, x: Features) -> Reals:
    if x.dtype != np.int16 or x.shape != (posterior.dims,):
        raise Refused(
            f"features: {x.dtype.name} of shape {x.shape}; accepted: int16 of shape ({posterior.dims},), those of this basis",
            kind="wrong-dims",
            field="features",
        )
    return x / ONE


@lru_cache(maxsize=16)
def _triangle(dims: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.tril_indices(dims)
