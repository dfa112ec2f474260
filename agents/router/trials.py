"""When a similar question's answer has proven itself, and when a partition's answers have failed: exact binomial sums in integers.

A trial answers afresh and compares; a check does so beside an answer that was served. Both end as counts of same and other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from schemas import ids

ERROR = 50  # an entry may be wrong in one of 50: 2 %
DOUBT = 20  # with a chance of one in 20 that it is wrong more often
SLO = 100  # served answers that a fresh one contradicts: one of 100
CHECK_SHARE = 1311  # of 65,536: 2 %
EXACT_UP_TO = 50


@dataclass(frozen=True, slots=True)
class Counts:
    """How often a fresh answer was the same, and another."""

    same: int = 0
    other: int = 0


def proven(trials: Counts) -> bool:
    """Whether P(error > 2 %) < 5 %, the error's rate being Beta(1 + other, 1 + same): uniform before the first trial.

    An entry with more than 50 contradictions is never proven.
    """
    return trials.other <= EXACT_UP_TO and trials.same >= _needed(trials.other)


def keeps_slo(checks: Counts) -> bool:
    """Whether the checks leave open that at most 1 % of the served answers are false: P(so many | 1 %) is at least 5 %.

    Asked after each check, so a partition that just keeps the SLO is switched off in the end too: off is the safe side, and lasts
    until the generation rises. Beyond 50 false ones the plain share counts.
    """
    if checks.other > EXACT_UP_TO:
        return checks.other * SLO <= checks.same + checks.other
    return checks.same + checks.other >= _allowed(checks.other)


def checked(event_id: str) -> bool:
    """Whether the answer served to this request is asked again, beside it: a coin of its id."""
    return ids.coin(event_id, "cache-check") < CHECK_SHARE


@cache
def _needed(other: int) -> int:
    """The least number of same answers that proves an entry with so many others.

    P(Beta(a, b) > x) = P(Binomial(a + b - 1, x) < a) for whole a, b (the incomplete beta function as a binomial sum).
    """
    return _first(lambda same: DOUBT * _below(same + other + 1, other + 1, ERROR) < ERROR ** (same + other + 1))


@cache
def _allowed(other: int) -> int:
    """The least number of checks among which so many others are no breach."""

    def open_still(n: int) -> bool:
        whole = SLO**n
        return DOUBT * (whole - _below(n, other, SLO)) >= whole

    return _first(open_still) if other else 0


def _below(n: int, k: int, odds: int) -> int:
    """odds^n · P(Binomial(n, 1/odds) < k), a whole number."""
    term, total = (odds - 1) ** n, 0
    for i in range(min(k, n + 1)):
        total += term
        term = term * (n - i) // ((i + 1) * (odds - 1))  # C(n, i + 1)·(odds - 1)^(n - i - 1): divides without a rest
    return total


def _first(holds: Callable[[int], bool]) -> int:
    """The least number from 0 at which a condition holds that then holds for all greater ones."""
    high = 1
    while not holds(high):
        high *= 2
    low = 0
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
