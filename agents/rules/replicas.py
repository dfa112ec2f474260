"""How many engines a pool shall have, given what each arm needs. Every engine of a pool holds every arm.

An arm's need is told in whole replicas, and its last one is used by half on average: n arms that need one each ask for n/2 engines
together, an arm that needs several for nearly as many.
"""

from collections.abc import Iterable
from typing import Protocol


class Needed(Protocol):
    """What is said of an arm."""

    @property
    def rate_milli(self) -> int: ...
    @property
    def replicas(self) -> int: ...


def pooled(arms: Iterable[Needed]) -> int:
    """Engines for all of these arms, of whichever routes; at least one. An arm that nobody asks takes part in none."""
    asked = [arm.replicas for arm in arms if arm.rate_milli > 0 and arm.replicas > 0]
    halves = sum(2 * replicas - 1 for replicas in asked)
    return max(1, (halves + 1) // 2, *asked) if asked else 1
