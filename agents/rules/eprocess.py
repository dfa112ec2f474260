"""E-processes: evidence against a null that may be looked at every second.

Each starts at 1 and has mean at most 1 under its null at any stopping time; so P(ever ≥ 1/α) ≤ α (Ville 1939).

Rules (replay to the bit):
1. Only + - × ÷, compare, frexp, ldexp and integers, in plain Python order. No log, exp or pow decides anything.
2. A wealth is (mantissa in [1/2, 1), exponent): it never under- or overflows.
3. `log_e` is for display.
"""

import math

from pydantic import BaseModel, ConfigDict

from agents.rules.bets import F1_P, F1_W, F2_MARGIN, F2_ZERO

Wealth = tuple[float, int]
ONE: Wealth = (0.5, 1)
_HALF_DIGITS = 2200  # beyond this difference of exponents the smaller summand is nothing


def times(one: Wealth, other: Wealth) -> Wealth:
    """The product."""
    mantissa, shift = math.frexp(one[0] * other[0])
    return mantissa, one[1] + other[1] + shift


def power(base: float, exponent: int) -> Wealth:
    """`base ** exponent` by binary exponentiation, exponent ≥ 0."""
    result, square = ONE, math.frexp(base)
    while exponent:
        if exponent & 1:
            result = times(result, square)
        square = times(square, square)
        exponent >>= 1
    return result


def total(parts: "list[Wealth] | tuple[Wealth, ...]") -> Wealth:
    """The sum, aligned to the largest exponent, in the order given."""
    top = max(exponent for mantissa, exponent in parts if mantissa != 0.0)
    value = 0.0
    for mantissa, exponent in parts:
        if top - exponent < _HALF_DIGITS:
            value += math.ldexp(mantissa, exponent - top)
    mantissa, shift = math.frexp(value)
    return mantissa, top + shift


def at_least(wealth: Wealth, level: float) -> bool:
    """Whether the wealth is ≥ `level` (a positive float)."""
    mantissa, exponent = math.frexp(level)
    return (wealth[1], wealth[0]) >= (exponent, mantissa)


def log_of(wealth: Wealth) -> float:
    """Natural logarithm, for display only; -inf for zero."""
    return -math.inf if wealth[0] == 0 else math.log(wealth[0]) + wealth[1] * math.log(2)


class Discordant(BaseModel):
    """F1, counts: null P(win | discordant) ≤ 1/2. Mixture over 48 bets, E = Σ w (2p)^W (2-2p)^L.

    The beta-binomial e-process with a Beta(6, 6) prior cut to (1/2, 1) (Robbins 1970, mixture of likelihood ratios).
    """

    model_config = ConfigDict(frozen=True)

    wins: int = 0
    losses: int = 0

    def add(self, difference: float) -> "Discordant":
        """One pair: challenger minus champion; ties change nothing."""
        if difference > 0:
            return Discordant(wins=self.wins + 1, losses=self.losses)
        if difference < 0:
            return Discordant(wins=self.wins, losses=self.losses + 1)
        return self

    def wealth(self) -> Wealth:
        return total(
            [
                times(math.frexp(w), times(power(2 * p, self.wins), power(2 - 2 * p, self.losses)))
                for p, w in zip(F1_P, F1_W, strict=True)
            ]
        )


class Betting(BaseModel):
    """F2, value process: D in [-1, 1], null mean(D) ≤ -d. E = mean over 16 bets of Π (1 + f·(D + d)).

    Betting with a mixture of fixed fractions (Waudby-Smith & Ramdas 2023, arXiv 2010.09686). In order: not mergeable to
    the bit. `max_*` is the largest wealth ever seen at a look.
    """

    model_config = ConfigDict(frozen=True)

    margin: float
    mantissas: tuple[float, ...] = (0.5,) * 16
    exponents: tuple[int, ...] = (1,) * 16
    n: int = 0
    total: float = 0.0

    def add(self, difference: float) -> "Betting":
        """One value D. Raises ValueError outside [-1, 1]."""
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"D is {difference!r}; accepted: -1 to 1")
        x = difference + self.margin
        divisor = 1.0 - self.margin
        bets = F2_MARGIN if self.margin > 0 else F2_ZERO
        mantissas: list[float] = []
        exponents: list[int] = []
        for mantissa, exponent, bet in zip(self.mantissas, self.exponents, bets, strict=True):
            grown, shift = math.frexp(mantissa * (1.0 + bet / divisor * x))
            mantissas.append(grown)
            exponents.append(exponent + shift)
        return Betting(
            margin=self.margin,
            mantissas=tuple(mantissas),
            exponents=tuple(exponents),
            n=self.n + 1,
            total=self.total + difference,
        )

    def wealth(self) -> Wealth:
        mantissa, exponent = total(tuple(zip(self.mantissas, self.exponents, strict=True)))
        return mantissa, exponent - 4  # the mean of 16


class Worse(BaseModel):
    """The harm process: null "the challenger is worse by at most `a`" (mean(D) ≥ -a). x = -D - a, bets over (1 + a)."""

    model_config = ConfigDict(frozen=True)

    allowance: float
    mantissas: tuple[float, ...] = (0.5,) * 16
    exponents: tuple[int, ...] = (1,) * 16

    def add(self, difference: float) -> "Worse":
        """One value D in [-1, 1]."""
        x = -difference - self.allowance
        divisor = 1.0 + self.allowance
        mantissas: list[float] = []
        exponents: list[int] = []
        for mantissa, exponent, bet in zip(self.mantissas, self.exponents, F2_ZERO, strict=True):
            grown, shift = math.frexp(mantissa * (1.0 + bet / divisor * x))
            mantissas.append(grown)
            exponents.append(exponent + shift)
        return Worse(allowance=self.allowance, mantissas=tuple(mantissas), exponents=tuple(exponents))

    def wealth(self) -> Wealth:
        mantissa, exponent = total(tuple(zip(self.mantissas, self.exponents, strict=True)))
        return mantissa, exponent - 4
