"""How sure an answer is: signals to z by a frozen scorer, z to the probability that is shown, and what learns the next scorer.

Rules (replay to the bit):
1. float64 in plain Python order: + - × ÷, compare, fsum, ldexp, sqrt (IEEE 754 rounds it correctly). Libraries' exp and log differ
   between machines, so `exp` is made here.
2. A scorer never changes. z alone decides; the probability is for people and for an operator's own threshold.
"""

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict

from agents.rules.wealth import Floats
from schemas.policies import SIGNALS

Z_LIMIT: Final = 30.0
PRIOR_NAME: Final = "prior"
PRIOR_WEIGHTS: Final = (1.5, 0.5, -0.1, 0.5, 2.0, -1.0)  # without a second arm the last two add nothing
PRIOR_CENTER: Final = (-0.3, -1.5, 1.5, 0.9, 0.0, 0.0)
PRIOR_SCALE: Final = (0.4, 1.5, 1.0, 0.4, 1.0, 1.0)
PRIOR_COUNT: Final = 20.0
_RATE = 0.3
_SCALE_FLOOR = 0.05
_NEWTON_RATE = 1.0
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # fdlibm's: k·high is exact
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))


def exp(x: float) -> float:
    """e^x for |x| ≤ 700, the same bits everywhere; relative error below 1e-15. Taylor to the 14th power after x = k·ln 2 + r."""
    k = math.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    value = 0.0
    for term in _TAYLOR:
        value = value * r + term
    return math.ldexp(value, k)


def logistic(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + exp(-min(700.0, max(-700.0, x))))


def log1p_about(count: int) -> float:
    """About ln(1 + count), exact and increasing: ln 2 times the straight lines between the powers of 2."""
    mantissa, exponent = math.frexp(float(min(count, 1 << 52) + 1))
    return 0.6931471805599453 * (exponent - 1 + (2.0 * mantissa - 1.0))


def z_of(
    signals: Sequence[float], weights: Sequence[float], center: Sequence[float], scale: Sequence[float], bias: float
) -> float:
    """The raw score: a weighted sum of the standardised signals, kept within ±30."""
    rows = zip(signals, weights, center or [0.0] * len(weights), scale or [1.0] * len(weights), strict=True)
    z = bias + math.fsum(weight * (signal - middle) / width for signal, weight, middle, width in rows)
    return min(Z_LIMIT, max(-Z_LIMIT, z))


def shown(z: float, platt_a: float, platt_b: float) -> float:
    """The probability that is shown: the logistic function of platt_a·z + platt_b."""
    return logistic(platt_a * z + platt_b)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Scorer(_Frozen):
    """One version of the score: a logistic regression's weights over standardised signals."""

    name: str = PRIOR_NAME
    weights: Floats = PRIOR_WEIGHTS
    center: Floats = PRIOR_CENTER
    scale: Floats = PRIOR_SCALE
    bias: float = 0.0

    def z(self, signals: Sequence[float]) -> float:
        """The raw score of these signals."""
        return z_of(signals, self.weights, self.center, self.scale, self.bias)


class Platt(_Frozen):
    """The map from z to the probability that is shown, learnt online. Monotone (a > 0): it changes no order and resets nothing.

    An online Newton step on log-loss (Gupta & Ramdas 2023, arXiv 2305.00070).
    """

    a: float = 1.0
    b: float = 0.0
    newton: tuple[float, float, float] = (10.0, 0.0, 10.0)

    def add(self, z: float, *, right: bool) -> "Platt":
        """The map after one label."""
        gap = logistic(self.a * z + self.b) - (1.0 if right else 0.0)
        ga, gb = gap * z, gap
        aa, ab, bb = self.newton
        aa, ab, bb = aa + ga * ga, ab + ga * gb, bb + gb * gb
        det = aa * bb - ab * ab
        a = self.a - _NEWTON_RATE * (bb * ga - ab * gb) / det
        b = self.b - _NEWTON_RATE * (aa * gb - ab * ga) / det
        return Platt(a=min(10.0, max(0.1, a)), b=min(10.0, max(-10.0, b)), newton=(aa, ab, bb))


class Learner(_Frozen):
    """What learns beside the running scorer: AdaGrad (Duchi, Hazan & Singer 2011) on log-loss over running means and deviations."""

    labels: int = 0
    count: float = PRIOR_COUNT
    mean: Floats = PRIOR_CENTER
    spread: Floats = tuple(PRIOR_COUNT * width * width for width in PRIOR_SCALE)
    weights: Floats = PRIOR_WEIGHTS
    bias: float = 0.0
    squares: Floats = (1.0,) * (len(SIGNALS) + 1)

    def scale(self) -> tuple[float, ...]:
        """The standard deviation of each signal so far."""
        return tuple(max(_SCALE_FLOOR, math.sqrt(spread / self.count)) for spread in self.spread)

    def add(self, signals: Sequence[float], *, right: bool) -> "Learner":
        """The learner after one label: the error is that of the map before the step."""
        count = self.count + 1.0
        mean = tuple(m + (x - m) / count for m, x in zip(self.mean, signals, strict=True))
        spread = tuple(
            s + (x - old) * (x - new) for s, x, old, new in zip(self.spread, signals, self.mean, mean, strict=True)
        )
        scale = self.scale()
        gap = logistic(z_of(signals, self.weights, self.mean, scale, self.bias)) - (1.0 if right else 0.0)
        inputs = (*((x - m) / s for x, m, s in zip(signals, self.mean, scale, strict=True)), 1.0)
        steps = tuple(gap * min(5.0, max(-5.0, x)) for x in inputs)
        squares = tuple(q + g * g for q, g in zip(self.squares, steps, strict=True))
        moved = tuple(
            w - _RATE * g / math.sqrt(q) for w, g, q in zip((*self.weights, self.bias), steps, squares, strict=True)
        )
        return Learner(
            labels=self.labels + 1,
            count=count,
            mean=mean,
            spread=spread,
            weights=moved[:-1],
            bias=moved[-1],
            squares=squares,
        )

    def restart(self) -> "Learner":
        """Another model answers: the map stays as a start and learns fast again."""
        spread = tuple(PRIOR_COUNT * width * width for width in self.scale())
        return Learner(mean=self.mean, spread=spread, weights=self.weights, bias=self.bias)

    def freeze(self, name: str) -> Scorer:
        """A scorer of what is learnt by now."""
        return Scorer(name=name, weights=self.weights, center=self.mean, scale=self.scale(), bias=self.bias)
