"""The ladder: which share of a route's answers may go out without a person, as a pure state machine.

Rung j covers the answers with z ≥ τ_j, about 10·(j+1) per cent of all. Its null: "at least `risk` of what it covers is wrong".

Rules:
1. The thresholds are cut once from scores, before any label is looked at, and never move.
2. Each rung is an e-process on counts (`agents.rules.eprocess.risk_wealth`): it may be looked at after every label.
3. Fixed sequence (Maurer, Hothorn & Lehmacher 1995) in two chains, 30 → 100 % at level 1/(0.8·δ) and 10 → 20 % at 1/(0.2·δ). A rung is
   certified when it and all before it in its chain have ever crossed. So P(ever a certified rung that is too risky) ≤ 0.8·δ + 0.2·δ.
   Needs neither calibration nor monotony of the score. Assumed: labels are a random, blind part of what a rung covers.
4. Released is the loosest certified rung.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import Floats, Wealth, at_least, log_of

RUNGS = 10
CHAINS: tuple[tuple[range, float], ...] = ((range(2, RUNGS), 0.8), (range(2), 0.2))
SHARES = tuple(share for rung in range(RUNGS) for chain, share in CHAINS if rung in chain)
LOWEST = -1e300  # below any z: the last rung covers all


def thresholds(scores: Sequence[float]) -> tuple[float, ...]:
    """The least z of each rung: the score at its decile, counted from the best. Equal scores are on one side. ValueError for none."""
    if not scores:
        raise ValueError("no scores: the rungs are cut from at least one")
    ordered = sorted(scores, reverse=True)
    cuts = [ordered[-(-len(ordered) * (rung + 1) // RUNGS) - 1] for rung in range(RUNGS - 1)]
    return (*cuts, LOWEST)


def level_of(rung: int, delta: float) -> float:
    """What a rung's wealth must reach."""
    return 1.0 / (SHARES[rung] * delta)


@lru_cache(maxsize=256)
def _goods_per_doubling(risk: float) -> int:
    """How many labels without a reject raise no wealth by a factor of 2: each raises it by less than 1/(1 - risk)."""
    grown, count = 1.0 / (1.0 - risk), 0
    while grown < 2.0:
        grown, count = grown / (1.0 - risk), count + 1
    return count


def _next_look(wealth: Wealth, n: int, level: float, risk: float) -> int:
    """A number of labels before which the wealth cannot reach the level, whatever they say."""
    doublings = math.frexp(level)[1] - 1 - wealth[1] if wealth[0] else 1
    return n + max(1, doublings * _goods_per_doubling(risk))


class Rungs(BaseModel):
    """The ladder of one scorer version. `look`: the labels before which a rung cannot cross (an economy that changes no result)."""

    model_config = ConfigDict(frozen=True)

    risk: float = Field(gt=0, lt=1)
    delta: float = Field(gt=0, lt=1)
    tau: Floats = Field(min_length=RUNGS, max_length=RUNGS)
    n: tuple[int, ...] = (0,) * RUNGS
    bad: tuple[int, ...] = (0,) * RUNGS
    look: tuple[int, ...] = (1,) * RUNGS
    crossed: tuple[bool, ...] = (False,) * RUNGS

    @classmethod
    def cut(cls, scores: Sequence[float], risk: float, delta: float) -> "Rungs":
        """A ladder that has seen no label, its thresholds cut from these scores."""
        return cls(risk=risk, delta=delta, tau=thresholds(scores))

    def add(self, z: float, *, right: bool, only: Sequence[bool] | None = None) -> "Rungs":
        """The ladder after one label. `only`: the rungs that it may count for. Raises ValueError where z is no number."""
        if not math.isfinite(z):
            raise ValueError(f"z is {z!r}; accepted: a finite number")
        n, bad, look, crossed = list(self.n), list(self.bad), list(self.look), list(self.crossed)
        for rung, tau in enumerate(self.tau):
            if z < tau or (only is not None and not only[rung]):
                continue
            n[rung] += 1
            bad[rung] += not right
            if crossed[rung] or not right or n[rung] < look[rung]:
                continue  # a reject only lowers the wealth: every θ is below the risk
            level = level_of(rung, self.delta)
            wealth = risk_wealth(bad[rung], n[rung], self.risk)
            crossed[rung] = at_least(wealth, level)
            look[rung] = _next_look(wealth, n[rung], level, self.risk)
        return self.model_copy(
            update={"n": tuple(n), "bad": tuple(bad), "look": tuple(look), "crossed": tuple(crossed)}
        )

    def certified(self) -> tuple[bool, ...]:
        """Per rung whether it and all before it in its chain have ever crossed."""
        held = [False] * RUNGS
        for chain, _ in CHAINS:
            for rung in chain:
                if not self.crossed[rung]:
                    break
                held[rung] = True
        return tuple(held)

    def covers(self) -> int:
        """The loosest certified rung in per cent; 0 where none is."""
        return max((10 * (rung + 1) for rung, held in enumerate(self.certified()) if held), default=0)

    def floor(self, per_cent: int) -> float:
        """The least z of a rung. KeyError where there is no such rung."""
        if per_cent not in range(10, 10 * RUNGS + 1, 10):
            raise KeyError(per_cent)
        return self.tau[per_cent // 10 - 1]

    def demoted(self, per_cent: int) -> "Rungs":
        """The ladder after an alarm at a rung: that rung and all looser ones begin at E = 1."""
        keep = per_cent // 10 - 1
        gone = RUNGS - keep
        return self.model_copy(
            update={
                "n": (*self.n[:keep], *(0,) * gone),
                "bad": (*self.bad[:keep], *(0,) * gone),
                "look": (*self.look[:keep], *(1,) * gone),
                "crossed": (*self.crossed[:keep], *(False,) * gone),
            }
        )

    def wealth(self, rung: int) -> Wealth:
        """E of a rung as it stands."""
        return risk_wealth(self.bad[rung], self.n[rung], self.risk)

    def log_e(self, rung: int) -> float:
        """Its natural logarithm, for display."""
        return log_of(self.wealth(rung))
