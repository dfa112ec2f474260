"""What a decision reads of the learner: integers, so that the same features give the same bits on any machine.

1. A sum is a sum of int64 that cannot overflow for any int16 features and any snapshot that `from_bytes` or `snapshot_of` lets pass:
   |mean| < 2^31, |factor| < 2^15, |x| ≤ 2^15, at most 2^10 features.
2. Roots are `math.isqrt` of whole numbers, shifts round down.
3. Quality and deviation are millionths, held within ±10^9: a thousand times what a quality can be.

Means and factors are apart: the means go into the policy at each version, the factor (D²/2 numbers) as a blob by its digest, seldom.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.router.learner import MICRO, MOST_DIMS, Features, Posterior, Reals
from agents.router.packing import Reader, sealed
from schemas.errors import Refused

Ints = NDArray[np.int64]

FEATURE_BITS = 12  # a feature of 1.0 is 2^12
MOST = 1_000_000_000
_LEAST_SHIFT, _MOST_SHIFT = -FEATURE_BITS, 40
_SQUARE_BITS = 26  # so that 2^10 squares stay below 2^63
_MEAN_MAGIC, _FACTOR_MAGIC, _MAGIC = b"RLME", b"RLFA", b"RLSN"


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """Weights: `values` ÷ 2^`shift` millionths of quality for a feature of 1.0. `n`: the cases they rest on."""

    values: NDArray[np.int32]
    shift: int
    n: int

    def to_bytes(self) -> bytes:
        """Little-endian, sealed."""
        head = struct.pack("<HbQ", len(self.values), self.shift, self.n)
        return sealed(_MEAN_MAGIC, head + self.values.astype("<i4").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes, dims: int | None = None) -> "Mean":
        """Back. Raises `Refused` for bytes that are damaged, of other dimensions or of a later version."""
        reader = Reader(_MEAN_MAGIC, "mean", data)
        found, shift, n = reader.head("<HbQ")
        reader.dims(found, dims, MOST_DIMS)
        values = reader.array("<i4", found).astype(np.int32)
        reader.end()
        if not _LEAST_SHIFT <= shift <= _MOST_SHIFT:
            raise reader.damaged(f"shift {shift}")
        return cls(values, shift, n)


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A square root R of the covariance, RᵀR = A⁻¹: the lower triangle by rows, in units of 2^-`shift`. `n`: the cases it rests on."""

    values: NDArray[np.int16]
    shift: int
    n: int

    @property
    def dims(self) -> int:
        """Length of the features."""
        return _side(len(self.values))

    def to_bytes(self) -> bytes:
        """Little-endian, sealed."""
        head = struct.pack("<HbQ", self.dims, self.shift, self.n)
        return sealed(_FACTOR_MAGIC, head + self.values.astype("<i2").tobytes())

    @classmethod
    def from_bytes(cls, data: bytes, dims: int | None = None) -> "Factor":
        """Back. Raises `Refused` for bytes that are damaged, of other dimensions or of a later version."""
        reader = Reader(_FACTOR_MAGIC, "factor", data)
        found, shift, n = reader.head("<HbQ")
        reader.dims(found, dims, MOST_DIMS)
        values = reader.array("<i2", found * (found + 1) // 2).astype(np.int16)
        reader.end()
        if not _LEAST_SHIFT <= shift <= _MOST_SHIFT:
            raise reader.damaged(f"shift {shift}")
        return cls(values, shift, n)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One arm's mean and factor; the factor may rest on fewer cases."""

    mean: Mean
    factor: Factor

    @property
    def dims(self) -> int:
        """Length of the features."""
        return len(self.mean.values)

    def to_bytes(self) -> bytes:
        """Both in one."""
        mean, factor = self.mean.to_bytes(), self.factor.to_bytes()
        return sealed(_MAGIC, struct.pack("<II", len(mean), len(factor)) + mean + factor)

    @classmethod
    def from_bytes(cls, data: bytes, dims: int | None = None) -> "Snapshot":
        """Back. Raises `Refused` for bytes that are damaged, of other dimensions or of a later version."""
        reader = Reader(_MAGIC, "snapshot", data)
        first, second = reader.head("<II")
        mean = Mean.from_bytes(reader.array("<u1", first).tobytes(), dims)
        factor = Factor.from_bytes(reader.array("<u1", second).tobytes(), len(mean.values))
        reader.end()
        return cls(mean, factor)


def snapshot_of(posterior: Posterior) -> Snapshot:
    """The posterior in integers. Floats end here."""
    root = root_of(posterior)
    weights = root.T @ (root @ (posterior.warm_b + posterior.b))
    return Snapshot(_mean(weights, posterior.n), _factor(root, posterior.n))


def mean_of(posterior: Posterior) -> Mean:
    """Its mean alone."""
    return _mean(posterior.mean(), posterior.n)


def root_of(posterior: Posterior) -> Reals:
    """R, lower triangular, with RᵀR = A⁻¹: the inverse of A's Cholesky factor."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(posterior.warm_a + posterior.a)), np.float64)


def _mean(weights: Reals, n: int) -> Mean:
    shift = _shift(weights, 31)
    return Mean(np.rint(np.ldexp(weights, shift)).astype(np.int32), shift, n)


def _factor(root: Reals, n: int) -> Factor:
    packed = root[_rows(len(root))]
    shift = _shift(packed, 15)
    return Factor(np.rint(np.ldexp(packed, shift)).astype(np.int16), shift, n)


def _shift(values: Reals, bits: int) -> int:
    """The most binary digits behind the point with which all values round below 2^`bits`. Raises ValueError where none are enough."""
    largest = float(np.abs(values).max())
    exponent = math.frexp(largest)[1] if largest else 0
    shift = min(bits - 1 - exponent, _MOST_SHIFT)
    if shift < _LEAST_SHIFT or not math.isfinite(largest):
        raise ValueError(f"a weight of {largest:g} is too large; accepted: below 2^{bits - 1 - _LEAST_SHIFT}")
    return shift


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The snapshots of several arms, in the order given, unfolded for decisions: made once for each version."""

    means: Ints
    roots: Ints
    mean_shifts: tuple[int, ...]
    root_shifts: tuple[int, ...]


def stacked(snapshots: Sequence[Snapshot]) -> Stack:
    """Raises `Refused` where the arms do not share their features' length."""
    dims = {one.dims for one in snapshots} | {one.factor.dims for one in snapshots}
    if len(dims) != 1:
        raise Refused(f"snapshots of {sorted(dims)} features; accepted: all of one basis", kind="wrong-dims")
    side = dims.pop()
    roots = np.zeros((len(snapshots), side, side), np.int64)
    for at, one in enumerate(snapshots):
        roots[at][_rows(side)] = one.factor.values
    return Stack(
        np.stack([one.mean.values for one in snapshots]).astype(np.int64),
        roots,
        tuple(one.mean.shift for one in snapshots),
        tuple(one.factor.shift for one in snapshots),
    )


def predict_all(stack: Stack, x: Features) -> tuple[list[int], list[int]]:
    """(qualities, deviations) of each arm in millionths; a deviation is that of the mean in units of one label's noise.

    Raises `Refused` for features of another basis.
    """
    dims = stack.means.shape[1]
    if x.dtype != np.int16 or x.shape != (dims,):
        raise Refused(
            f"features: {x.dtype.name} of shape {x.shape}; accepted: int16 of shape ({dims},), those of this basis",
            kind="wrong-dims",
            field="features",
        )
    wide = x.astype(np.int64)
    sums: list[int] = np.einsum("kj,j->k", stack.means, wide).tolist()
    qualities = [_within(total >> (shift + FEATURE_BITS)) for total, shift in zip(sums, stack.mean_shifts, strict=True)]
    turned = np.einsum("kij,j->ki", stack.roots, wide)
    far = np.abs(turned).max(axis=1)
    spare = [max(int(largest).bit_length() - _SQUARE_BITS, 0) for largest in far.tolist()]
    cut = turned >> np.array(spare, np.int64)[:, None]
    squares: list[int] = np.einsum("ki,ki->k", cut, cut).tolist()
    deviations = [
        _within(_root(square, 2 * (shift + FEATURE_BITS - less)))
        for square, shift, less in zip(squares, stack.root_shifts, spare, strict=True)
    ]
    return qualities, deviations


def predict(snapshot: Snapshot, x: Features) -> tuple[int, int]:
    """(quality, deviation) in millionths: `predict_all` of one arm."""
    qualities, deviations = predict_all(stacked((snapshot,)), x)
    return qualities[0], deviations[0]


def value_at(mean: Mean, x: Features) -> int:
    """What a mean alone says of these features, in the units of what was observed."""
    return _within(int(np.dot(mean.values.astype(np.int64), x.astype(np.int64))) >> (mean.shift + FEATURE_BITS))


def gains(qualities: Sequence[int], champion: int) -> list[int]:
    """Each arm's quality less the champion's: what ranks them."""
    return [one - qualities[champion] for one in qualities]


def _root(square: int, shift: int) -> int:
    """√(square ÷ 2^shift) in millionths."""
    scaled = square * MICRO * MICRO
    return math.isqrt(scaled >> shift if shift >= 0 else scaled << -shift)


def _within(value: int) -> int:
    return max(-MOST, min(value, MOST))


@lru_cache(maxsize=16)
def _rows(dims: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.tril_indices(dims)


def _side(packed: int) -> int:
    """The side of a triangle of so many numbers."""
    return (math.isqrt(8 * packed + 1) - 1) // 2
