"""A request's text as the vector `x` on which arms are learnt: a frozen, content-addressed basis, used in integers only.

Words and pairs of words → CRC32 → (1 + log tf) · idf → 64 frozen directions, unit length → kernel features at the landmarks, whitened.
Beside them the bias and the 20 surface numbers.

1. At use there is no float: sums are int64, the root is integer, logarithm and kernel come from tables. So the same basis and
   text give the same bytes in any process, on any machine. `basis_build` makes bases, in floats.
2. A basis never changes: its name is the digest of its bytes. Damaged bytes are `Refused`.
3. A gram is known by all 32 bits of its hash, so what was in few texts weighs nothing: it never shares another's direction.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agents.router import features
from agents.router.features import ONE, Reading, Scale
from schemas import ids
from schemas.errors import Refused

GRAMS = 1 << 16
DIRECTIONS = 64
UNIT = 1 << 14  # 1.0 of a direction
LIMIT = 8 * ONE  # features are clipped at ±8
KERNEL_STEPS = 1 << 12  # of the kernel's table, over squared distances 0 … 4
FORMAT = "ratchet-basis/1"
RIDGE_BIAS, RIDGE_SURFACE, RIDGE_TEXT = 0.01, 8000.0, 1000.0
Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]

_MOST_TF = 255
# 2^8 · (1 + ln tf), from log2 in 2^-12: ln 2 = 45426/2^16 to 17 bits
_TF = np.array([0, *(256 + (features.log2(n) * 45_426 >> 20) for n in range(1, _MOST_TF + 1))], np.int64)


def grams(words: Sequence[str]) -> list[int]:
    """The hashes of a text's words and of its pairs of neighbours: CRC32."""
    crc32 = zlib.crc32
    coded = [word.encode() for word in words]
    single = [crc32(word) for word in coded]
    return single + list(map(crc32, coded[1:], single))  # a pair goes on from its first word's hash


def unit(total: Int64) -> Int64:
    """The vector at length 1, 2^-14; zero stays zero. Its entries lie within 2^43."""
    total = total >> max(0, int(np.abs(total).max()).bit_length() - 24)
    length = isqrt(int(total @ total))
    return total * UNIT // length if length else total


@dataclass(frozen=True, eq=False)
class Kernel:
    """Gaussian kernel at landmarks, on directions weighted by `axes` (2^-14).

    `table` gives 2^-15 k by squared distance, `mix` whitens what is left of it after `means`, `shift` brings that to 2^-12.
    """

    axes: Int16
    landmarks: Int16
    table: Int16
    means: Int16
    mix: NDArray[np.int32]
    shift: int

    @cached_property
    def _wide(self) -> tuple[Int64, Int64, Int64, Int64, Int64, Int64]:
        marks = self.landmarks.astype(np.int64)
        rest = (self.axes, self.table, self.means, self.mix)
        axes, table, means, mix = (part.astype(np.int64) for part in rest)
        return axes, marks, (marks * marks).sum(axis=1), table, means, mix

    def at(self, text: Int64) -> Int64:
        """The kernel features of a unit text vector, 2^-12."""
        axes, marks, squares, table, means, mix = self._wide
        turned = unit(text * axes)
        distance = squares + int(turned @ turned) - 2 * (marks @ turned)  # 2^-28, 0 … 4
        step = np.minimum(np.maximum(distance >> 18, 0), KERNEL_STEPS - 1)
        return mix @ (table[step] - means) >> self.shift


@dataclass(frozen=True, eq=False)
class Basis:
    """What turns a text into `x`. `rows[g]` is the direction of gram `known[g]`, of which `weights[g]` carries length and idf.

    `gain` scales the 64 directions in `x`, in 2^-4; 0 leaves them out. A basis without history has a `seed`: its rows are derived from
    hashes, and grams are known by 16 bits.
    """

    known: NDArray[np.uint32]
    weights: NDArray[np.uint16]
    rows: Int8
    scale: Scale
    kernel: Kernel | None
    gain: int
    seed: int | None = None

    @classmethod
    def random(cls, seed: int) -> "Basis":
        """For a route without history: each gram's direction is 64 signs from SHAKE-256 of the seed; no kernel."""
        drawn = hashlib.shake_256(f"{FORMAT}\x1f{seed}".encode()).digest(GRAMS * DIRECTIONS // 8)
        signs = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(GRAMS, DIRECTIONS)
        rows = (signs.astype(np.int8) << 1) - 1
        known = np.arange(GRAMS, dtype=np.uint32)
        return cls(known, np.full(GRAMS, 256, np.uint16), rows, features.USUAL, None, gain=56, seed=seed)

    @cached_property
    def size(self) -> int:
        """The length of `x`."""
        return sum(length for length, _ in self.blocks)

    @cached_property
    def blocks(self) -> tuple[tuple[int, float], ...]:
        """`x` block by block: its length, and the ridge that suits it (inverse variance of a weight in units of a label's noise)."""
        marks = () if self.kernel is None else ((len(self.kernel.landmarks), RIDGE_TEXT),)
        directions = ((DIRECTIONS, RIDGE_TEXT),) if self.gain else ()
        return ((1, RIDGE_BIAS), (len(features.NAMES), RIDGE_SURFACE), *marks, *directions)

    @cached_property
    def digest(self) -> str:
        """The basis' name."""
        return ids.digest(self.to_bytes())

    def vector(self, text: str) -> Int16:
        """`x` of a text: bias, 20 surface numbers, kernel features, directions; int16, 2^-12, clipped at ±8."""
        return self.vector_of(features.read(text))

    def vector_of(self, reading: Reading) -> Int16:
        """As `vector`, of a text that was read already."""
        text = self._unit(reading)
        found = np.empty(self.size, np.int64)
        found[0] = ONE
        found[1:21] = features.scores(features.measures(reading), self.scale)
        end = 21
        if self.kernel is not None:
            end += len(self.kernel.landmarks)
            found[21:end] = self.kernel.at(text)
        if self.gain:
            found[end:] = text * self.gain >> 6  # from 2^-14 · 2^-4 to 2^-12
        return np.minimum(np.maximum(found, -LIMIT), LIMIT - 1).astype(np.int16)

    def directions(self, text: str) -> Int16:
        """The text's unit vector over the 64 directions, 2^-14; zero where no gram is known."""
        return self._unit(features.read(text)).astype(np.int16)

    def _unit(self, reading: Reading) -> Int64:
        hashes = np.array(grams(reading.words), np.uint32)
        if self.seed is not None:
            hashes &= np.uint32(GRAMS - 1)
        rows = np.minimum(np.searchsorted(self.known, hashes), len(self.known) - 1)
        rows, counts = np.unique(rows[self.known[rows] == hashes], return_counts=True)
        weights = self.weights[rows] * _TF[np.minimum(counts, _MOST_TF)] >> 6  # below 2^21
        return unit(weights @ self.rows[rows].astype(np.int64))  # below 2^43: at most 2^15 grams are read

    def to_bytes(self) -> bytes:
        """The whole basis; equal bases give equal bytes."""
        parts: dict[str, NDArray[Any]] = {}
        if self.seed is None:
            parts = {"known": self.known, "weights": self.weights, "rows": self.rows}
            if self.kernel is not None:
                kernel = self.kernel
                parts |= {name: getattr(kernel, name) for name in _KERNEL}
        header = {
            "format": FORMAT,
            "seed": self.seed,
            "gain": self.gain,
            "shift": 0 if self.kernel is None else self.kernel.shift,
            "means": self.scale.means,
            "deviations": self.scale.deviations,
            "parts": {name: list(part.shape) for name, part in parts.items()},
        }
        told = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
        body = told + b"\n" + b"".join(_little(name, part).tobytes() for name, part in parts.items())
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Basis":
        """The basis of these bytes. Raises `Refused` for damaged ones, or those of another format."""
        body, seal = data[:-32], data[-32:]
        if len(data) < 34 or hashlib.sha256(body).digest() != seal:
            raise _refused("the bytes are damaged: they do not hash to their seal")
        told, _, rest = body.partition(b"\n")
        try:
            header = cast("dict[str, Any]", json.loads(told))
            if header["format"] != FORMAT:
                raise _refused(f"format {header['format']!r}")
            if header["seed"] is not None:
                return cls.random(int(header["seed"]))
            return _decoded(header, rest)
        except (KeyError, TypeError, ValueError, IndexError) as fault:
            raise _refused(f"a part is missing or of another shape ({type(fault).__name__})") from fault


_KERNEL = ("axes", "landmarks", "table", "means", "mix")
_TYPES: dict[str, str] = {
    "known": "<u4", "weights": "<u2", "rows": "|i1",
    "axes": "<i2", "landmarks": "<i2", "table": "<i2", "means": "<i2", "mix": "<i4",
}  # fmt: skip


def _little(name: str, part: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(part, _TYPES[name])


def _refused(why: str) -> Refused:
    return Refused(f"basis: {why}; accepted: the bytes of a basis of format {FORMAT}", kind="basis")


def _decoded(header: dict[str, Any], rest: bytes) -> Basis:
    parts: dict[str, NDArray[Any]] = {}
    shapes = cast("dict[str, list[int]]", header["parts"])
    start = 0
    for name in _TYPES:
        shape = shapes.get(name)
        if shape is None:
            continue
        dtype = np.dtype(_TYPES[name])
        size = prod(shape) * dtype.itemsize
        parts[name] = np.frombuffer(rest[start : start + size], dtype).reshape(shape).astype(dtype.newbyteorder("="))
        start += size
    if start != len(rest):
        raise _refused(f"{len(rest)} bytes of numbers where the header tells of {start}")
    kernel = None
    if "landmarks" in parts:
        kernel = Kernel(*(parts[name] for name in _KERNEL), shift=int(header["shift"]))
        marks = len(kernel.landmarks)
        _shaped(kernel.axes, DIRECTIONS)
        _shaped(kernel.landmarks, marks, DIRECTIONS)
        _shaped(kernel.table, KERNEL_STEPS)
        _shaped(kernel.means, marks)
        _shaped(kernel.mix, marks, marks)
    known = parts["known"]
    _shaped(parts["weights"], len(known))
    _shaped(parts["rows"], len(known), DIRECTIONS)
    scale = Scale(tuple(map(int, header["means"])), tuple(map(int, header["deviations"])))
    if len(scale.means) != len(features.NAMES) or len(scale.deviations) != len(features.NAMES):
        raise _refused(f"{len(scale.means)} surface means, not {len(features.NAMES)}")
    if min(scale.deviations) < 1 or (np.diff(known.astype(np.int64)) < 1).any():
        raise _refused("a deviation below 1, or grams out of order")
    return Basis(known, parts["weights"], parts["rows"], scale, kernel, int(header["gain"]))


def _shaped(part: NDArray[Any], *shape: int) -> None:
    if part.shape != shape:
        raise _refused(f"a part of shape {part.shape}, not {shape}")
