"""The SR e-detector: notices that a rate has risen, without pairs, and seldom cries wolf."""

from functools import lru_cache
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from agents.rules.bets import SR_NARROW, SR_WIDE
from agents.rules.wealth import Floats

ALARM = 1e4
_WIDE_UP_TO = 0.1
_MOST = 0.95  # of 1/p0: 1 + λ(x - p0) stays positive


@lru_cache(maxsize=256)
def _bets(p0: float) -> tuple[float, ...]:
    cap = _MOST / p0
    return tuple(min(bet, cap) for bet in (SR_WIDE if p0 <= _WIDE_UP_TO else SR_NARROW))


class Detector(BaseModel):
    """Shiryaev-Roberts mixture of e-values (Shin, Ramdas & Rinaldo 2022, arXiv 2203.03532). Null: mean(x) ≤ p0 given the past.

    R_g ← (R_g + 1)(1 + λ_g(x - p0)) from 0, for 12 bets λ. Alarm when their mean is ≥ c: then the mean run length to a false alarm
    is at least c, by theorem. Twelve floats; values in order.
    """

    model_config = ConfigDict(frozen=True)

    p0: float = Field(gt=0, lt=1)
    sums: Floats = (0.0,) * 12
    n: int = 0

    @classmethod
    def at(cls, p0: float) -> Self:
        """A detector that has seen nothing. Raises ValueError unless 0 < p0 < 1."""
        return cls(p0=p0)

    def add(self, x: float) -> Self:
        """One value in [0, 1]: a reject is 1. Raises ValueError outside, and changes nothing."""
        if not 0.0 <= x <= 1.0:
            raise ValueError(f"x is {x!r}; accepted: 0 to 1")
        gap = x - self.p0
        sums = tuple((r + 1.0) * (1.0 + bet * gap) for r, bet in zip(self.sums, _bets(self.p0), strict=True))
        return self.model_copy(update={"sums": tuple(min(r, 1e300) for r in sums), "n": self.n + 1})

    def level(self) -> float:
        """The mean of R, in the order of the bets."""
        value = 0.0
        for r in self.sums:
            value += r
        return value / len(self.sums)

    def alarmed(self, c: float = ALARM) -> bool:
        """Whether the level has reached c."""
        return self.level() >= c
