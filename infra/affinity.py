"""Which replica an arm is asked at: always the same ones while they have room, so that its adapter and prompts stay warm there.

Rendezvous hashing (Thaler, Ravishankar 1998) orders the replicas for an arm; one that leaves or comes moves only the arms that it
was or becomes the first of. Bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): none takes more than 1.25 times the mean.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

HOT = 4  # calls of one arm at the same time, from which it is spread over its first two replicas


def order(key: str, loads: Mapping[str, int], own: int) -> tuple[str, ...]:
    """The replicas (name -> calls under way) in the order in which one more call of `key`, of which there are `own`, may go to them.

    First those with room by their rank, of a hot key the less loaded of its first two in front; then the full ones, the least loaded
    first.
    """
    names = ranked(key, tuple(sorted(loads)))
    if len(names) < 2:
        return names
    if own >= HOT and loads[names[1]] < loads[names[0]]:
        names = (names[1], names[0], *names[2:])
    most = -(-5 * (sum(loads.values()) + 1) // (4 * len(names)))  # ceil(1.25 * mean), this call counted
    free = tuple(name for name in names if loads[name] < most)
    return free + tuple(sorted((name for name in names if loads[name] >= most), key=lambda name: loads[name]))


@lru_cache(4096)
def ranked(key: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names by the hash that each has with the key, greatest first."""
    return tuple(sorted(names, key=lambda name: hashlib.sha256(f"{key}\x1f{name}".encode()).digest(), reverse=True))
