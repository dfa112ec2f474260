"""Frozen-draw Thompson sampling: the probability of each arm, exact, because the table of draws is part of the policy.

1. An arm's share is the share of the table's 256 vectors in which score + α·deviation·z is highest; equal ones go to the arm sorted first.
   Nothing is estimated by drawing: the same scores give the same shares, so what is logged is the probability it was drawn with.
2. Shares are integers that sum to 65,536. A masked arm's is 0.
3. All arms but the preferred one together have at most the cap: that is exploration. Each *plausible* one has at least the floor.
4. Integers only: the same bits on any machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

WHOLE = 65_536
MICRO = 1_000_000
MOST = 1_000_000_000
TABLE = "normal-256/1"
ROWS = 256
ONE_Z = 4096  # a z of 1.0
_OUT = -(1 << 62)
_MOST_ARMS = 64

_HALF = """
       20    60   101   141   181   221   262   302   342   383   423   463   504   544   585   626
      666   707   748   789   830   871   912   953   995  1036  1078  1119  1161  1203  1245  1287
     1330  1372  1415  1457  1500  1543  1587  1630  1674  1717  1761  1806  1850  1895  1939  1984
     2030  2075  2121  2167  2214  2260  2307  2354  2402  2450  2498  2547  2595  2645  2694  2744
     2795  2846  2897  2949  3001  3054  3107  3161  3215  3270  3326  3382  3439  3496  3554  3613
     3673  3733  3794  3856  3919  3983  4048  4114  4181  4249  4318  4389  4461  4534  4609  4685
     4763  4843  4924  5008  5093  5181  5272  5365  5460  5559  5662  5768  5877  5992  6111  6235
     6366  6503  6648  6801  6965  7141  7331  7538  7766  8021  8311  8650  9061  9589 10350 11849
"""
_QUANTILES = tuple(int(word) for word in _HALF.split())
"""Upper half of the normal quantiles at (k + 1/2)/256, over their own standard deviation, in 4,096ths."""


@lru_cache(maxsize=_MOST_ARMS)
def table(arms: int) -> NDArray[np.int64]:
    """`normal-256/1` for so many arms, [256, arms] in 4,096ths: column k holds the 256 quantiles in the order of SHA-256(name, k, i).

    In each column: mean exactly 0, variance 1 to 1e-5, fourth moment 2.92, largest 2.89.
    More arms leave the columns of the former ones as they were. Two of the first eight columns correlate by less than 0.2.
    """
    if not 1 <= arms <= _MOST_ARMS:
        raise ValueError(f"{arms!r} arms; accepted: 1 to {_MOST_ARMS}")
    values = tuple(-one for one in reversed(_QUANTILES)) + _QUANTILES
    values = np.array([-one for one in reversed(_QUANTILES)] + list(_QUANTILES), np.int64)
    made = np.stack([values[_order(arm)] for arm in range(arms)], axis=1)
    made.flags.writeable = False
    return made


def _order(arm: int) -> list[int]:
    return sorted(range(ROWS), key=lambda row: hashlib.sha256(f"{TABLE}\x1f{arm}\x1f{row}".encode()).digest())


@dataclass(frozen=True, slots=True)
class Rule:
    """How much is explored. Scores and gaps in millionths, shares out of 65,536.

    `alpha`: what a deviation counts. `width`: a bound lies this many α·deviations away. `gap`: an arm further behind is not plausible.
    `floor`: the least share of a plausible arm. `cap`: the most that all but the preferred arm have together, `cap_complex` of complex
    requests. `switch`: what an arm must gain over the one held to be preferred in its place.
    """

    alpha: int = 20_000
    width: int = 2
    gap: int = 100_000
    floor: int = 656
    cap: int = 3_276
    cap_complex: int = 1_310
    switch: int = 10_000

    def __post_init__(self) -> None:
        limits = {
            "alpha": (self.alpha, 10 * MICRO),
            "width": (self.width, 10),
            "gap": (self.gap, MOST),
            "floor": (self.floor, WHOLE // 2),
            "cap": (self.cap, WHOLE // 2),
            "cap_complex": (self.cap_complex, WHOLE // 2),
            "switch": (self.switch, MOST),
        }
        wrong = [
            f"{name} {value!r}, accepted: 0 to {most}"
            for name, (value, most) in limits.items()
            if not 0 <= value <= most
        ]
        if wrong:
            raise Refused("thompson: " + "; ".join(wrong), kind="invalid", field="thompson")


@dataclass(frozen=True, slots=True)
class Shares:
    """`propensities`: out of 65,536, in the order of the arms. `preferred`: the arm's place. `plausible`: by arm."""

    propensities: tuple[int, ...]
    preferred: int
    plausible: tuple[bool, ...]

    @property
    def explores(self) -> tuple[bool, ...]:
        """By arm: whether drawing it is exploration."""
        return tuple(bool(share) and at != self.preferred for at, share in enumerate(self.propensities))


def probabilities(
    scores: Sequence[int],
    deviations: Sequence[int],
    rule: Rule,
    *,
    masked: Sequence[bool],
    explore: bool = True,
    complex_tier: bool = False,
    held: int | None = None,
) -> Shares:
    """The shares of arms sorted by id. `scores`: quality less what price and latency cost it; `deviations`: of the quality.

    `explore` False (from `personal` up, after a session's first turn, in a tool loop, frozen): all is the preferred arm's. `held`: the arm
    preferred so far. Raises ValueError where every arm is masked, or where a number is beyond ±10^9 (a deviation below 0).
    """
    _check(scores, deviations, masked)
    best = _preferred(scores, masked, rule, held)
    spread = [rule.alpha * one // MICRO for one in deviations]
    low = scores[best] - rule.width * spread[best]
    plausible = tuple(
        not out and score + rule.width * wide >= low and scores[best] - score <= rule.gap
        for score, wide, out in zip(scores, spread, masked, strict=True)
    )
    shares = [0] * len(scores)
    if explore:
        wins = _wins(scores, spread, masked)
        cap = rule.cap_complex if complex_tier else rule.cap
        shares = _bounded(wins, plausible, best, rule.floor, min(cap, rule.cap))
    shares[best] = WHOLE - sum(shares)
    return Shares(tuple(shares), best, plausible)


def drawn(propensities: Sequence[int], coin: int) -> int:
    """The place of the arm on which a coin of 0 to 65,535 falls, never one of share 0. ValueError where the shares are not of 65,536."""
    if sum(propensities) != WHOLE or not 0 <= coin < WHOLE or min(propensities) < 0:
        raise ValueError(
            f"propensities {list(propensities)!r}, coin {coin!r}; accepted: shares of {WHOLE}, a coin below it"
        )
    at, end = 0, propensities[0]
    while coin >= end:
        at += 1
        end += propensities[at]
    return at


def _preferred(scores: Sequence[int], masked: Sequence[bool], rule: Rule, held: int | None) -> int:
    """The highest score, the first of equal ones; the arm held where that gains less than a switch needs."""
    best = max((at for at, out in enumerate(masked) if not out), key=lambda at: (scores[at], -at))
    if held is None or masked[held] or scores[best] - scores[held] >= rule.switch:
        return best
    return held


def _wins(scores: Sequence[int], spread: Sequence[int], masked: Sequence[bool]) -> list[int]:
    """The share of the table in which each arm wins, out of 65,536."""
    drawn = table(len(scores)) * np.array(spread, np.int64)
    drawn += np.array([score * ONE_Z for score in scores], np.int64)
    drawn[:, np.array(masked, np.bool_)] = _OUT
    counts: list[int] = np.bincount(drawn.argmax(axis=1), minlength=len(scores)).tolist()
    return [count * (WHOLE // ROWS) for count in counts]


def _bounded(wins: Sequence[int], plausible: Sequence[bool], best: int, floor: int, cap: int) -> list[int]:
    """What each arm but the preferred one has: its wins, at least the floor where it is plausible, together at most the cap.

    Where the cap is too low for all floors they share it; what is left above the floors is shared by the wins above them.
    """
    others = [at for at in range(len(wins)) if at != best]
    likely = sum(plausible[at] for at in others)
    least = min(floor, cap // likely) if likely else 0
    floors = {at: least if plausible[at] else 0 for at in others}
    over = {at: max(wins[at] - floors[at], 0) for at in others}
    wanted, room = sum(over.values()), cap - sum(floors.values())
    shares = [0] * len(wins)
    for at in others:
        shares[at] = floors[at] + (over[at] if wanted <= room else over[at] * room // wanted)
    return shares


def _check(scores: Sequence[int], deviations: Sequence[int], masked: Sequence[bool]) -> None:
    if all(masked):
        raise ValueError("every arm is masked; accepted: at least one that may be drawn")
    if any(not -MOST <= one <= MOST for one in scores) or any(not 0 <= one <= MOST for one in deviations):
        raise ValueError(
            f"scores {list(scores)!r}, deviations {list(deviations)!r}; accepted: up to {MOST}, deviations from 0"
        )
