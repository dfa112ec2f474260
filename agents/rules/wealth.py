"""The arithmetic of evidence: a wealth is a float of any size, and its bits are the same on every machine.

Rules (replay to the bit):
1. Only + - × ÷, compare, frexp, ldexp and integers, in plain Python order. No log, exp or pow decides anything.
2. A wealth is (mantissa in [1/2, 1), exponent), or (0.0, 0) for nothing: it never under- or overflows.
3. `log_of` is for display.
"""

import base64
import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from math import frexp, ldexp
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

Wealth = tuple[float, int]
ONE: Wealth = (0.5, 1)
_HALF_DIGITS = 2200  # beyond this difference of exponents the smaller summand is nothing
_NEVER = 1 << 62  # no exponent is so large
_STEP = 64  # a power is small[n % 64] · large[n // 64]
_BASES = 8192  # far more than one process ever asks for


def times(one: Wealth, other: Wealth) -> Wealth:
    """The product."""
    mantissa, shift = math.frexp(one[0] * other[0])
    return (mantissa, one[1] + other[1] + shift) if mantissa else (0.0, 0)


class Powers:
    """The powers of one base, made as they are needed. What a power is does not depend on what was asked before."""

    __slots__ = ("large", "small")

    def __init__(self, base: float) -> None:
        self.small: list[Wealth] = [ONE]
        unit = math.frexp(base)
        for _ in range(_STEP):
            self.small.append(times(self.small[-1], unit))
        self.large: list[Wealth] = [ONE]

    def large_at(self, steps: int) -> Wealth:
        """The base to the power of 64·`steps`."""
        large = self.large
        while len(large) <= steps:
            large.append(times(large[-1], self.small[_STEP]))
        return large[steps]


@lru_cache(maxsize=_BASES)
def powers(base: float) -> Powers:
    """The table of a base > 0. Raises ValueError of any other."""
    if not 0.0 < base < math.inf:
        raise ValueError(f"a power of {base!r}; accepted: a finite base above 0")
    return Powers(base)


def power(base: float, exponent: int) -> Wealth:
    """`base ** exponent` in steps of 64. Relative error below 1.02·(n + 64)·2^-53. Raises ValueError unless base > 0, exponent ≥ 0."""
    if exponent < 0:
        raise ValueError(f"a power to the {exponent!r}; accepted: an exponent of 0 or more")
    steps, rest = divmod(exponent, _STEP)
    table = powers(base)
    return times(table.large_at(steps), table.small[rest])


def total(parts: "list[Wealth] | tuple[Wealth, ...]") -> Wealth:
    """The sum, aligned to the largest exponent, in the order given."""
    top = -_NEVER
    for mantissa, exponent in parts:
        if exponent > top and mantissa:
            top = exponent
    value = 0.0
    for mantissa, exponent in parts:
        if top - exponent < _HALF_DIGITS:
            value += ldexp(mantissa, exponent - top)
    if not value:
        return 0.0, 0
    mantissa, shift = frexp(value)
    return mantissa, top + shift


def mixed(mantissas: Sequence[float], exponents: Sequence[int]) -> Wealth:
    """`total` of wealths whose mantissas and exponents stand side by side, all above 0."""
    top = max(exponents)
    value = 0.0
    for mantissa, exponent in zip(mantissas, exponents, strict=True):
        value += ldexp(mantissa, exponent - top)
    mantissa, shift = frexp(value)
    return mantissa, top + shift


def at_least(wealth: Wealth, level: float) -> bool:
    """Whether the wealth is ≥ `level`, exactly. Raises ValueError unless `level` is positive and finite."""
    if not 0.0 < level < math.inf:
        raise ValueError(f"the level is {level!r}; accepted: a finite number above 0")
    if not wealth[0]:
        return False
    mantissa, exponent = math.frexp(level)
    return (wealth[1], wealth[0]) >= (exponent, mantissa)


def capped(wealth: Wealth) -> float:
    """The wealth as a float, at most 2^1000 and 0.0 below 2^-1000: for a peak that is kept."""
    if wealth[1] > 1000:
        return math.ldexp(1.0, 1000)
    return math.ldexp(wealth[0], wealth[1]) if wealth[1] > -1000 else 0.0


def floored(value: float) -> float:
    """A number from 0 on in 21 binary digits, rounded down: what is kept of a peak. Exact for what `floored` gave."""
    mantissa, exponent = frexp(value)
    return ldexp(float(int(ldexp(mantissa, 21))), exponent - 21)


def log_of(wealth: Wealth) -> float:
    """Natural logarithm, for display only; -inf for zero."""
    return -math.inf if wealth[0] == 0 else math.log(wealth[0]) + wealth[1] * math.log(2)


def _unpacked(value: Any) -> Any:
    """Floats from their packed text. ValueError where it is none."""
    if not isinstance(value, str):
        return value
    if len(value) % 10:
        raise ValueError(f"packed floats in {len(value)} characters; accepted: ten for each")
    raw = base64.b85decode(value)
    return struct.unpack(f"<{len(raw) // 8}d", raw)


def _packed(values: tuple[float, ...]) -> str:
    return base64.b85encode(struct.pack(f"<{len(values)}d", *values)).decode("ascii")


Floats = Annotated[
    tuple[float, ...], BeforeValidator(_unpacked), PlainSerializer(_packed, return_type=str, when_used="json")
]
"""Floats whose JSON is their bits (IEEE 754 binary64, little-endian, base 85): ten characters each, read back to the bit."""


def _peaks_read(value: Any) -> Any:
    """Peaks from their packed text. ValueError where it is none."""
    if not isinstance(value, str):
        return value
    if len(value) % 5:
        raise ValueError(f"packed peaks in {len(value)} characters; accepted: five for each")
    raw = base64.b85decode(value)
    return tuple(struct.unpack(">d", raw[at : at + 4] + b"\0\0\0\0")[0] for at in range(0, len(raw), 4))


def _peaks_written(values: tuple[float, ...]) -> str:
    return base64.b85encode(b"".join(struct.pack(">d", value)[:4] for value in values)).decode("ascii")


Peaks = Annotated[
    tuple[float, ...], BeforeValidator(_peaks_read), PlainSerializer(_peaks_written, return_type=str, when_used="json")
]
"""What `floored` gives: the upper half of each float's bits is all of it. Five characters each."""
