"""When a second arm may be asked before the first has answered. Pure: latencies and calls are passed in.

1. Never before the first arm's 95th percentile of its last answers, and never where that is not known.
2. Of a route's calls at most the share that the route allows: a token bucket filled by calls, not by time, empty at first.
3. Only arms that the decision names, and not the one whose agreement is asked: it would agree with itself.
"""

from collections import deque
from collections.abc import Iterable

ANSWERS = 128  # of an arm, remembered for its percentile
ENOUGH = 20
EVERY = 16  # answers between two looks at the percentile
MILLION = 1_000_000
BURST = 10 * MILLION  # hedges that calls without one may save up


class Latencies:
    """The 95th percentile of an arm's last 128 answers, in milliseconds, at most 16 answers old."""

    __slots__ = ("_last", "_since", "p95_ms")

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=ANSWERS)
        self._since = 0
        self.p95_ms: int | None = None

    def add(self, latency_ms: int) -> None:
        self._last.append(latency_ms)
        self._since += 1
        if self._since >= EVERY and len(self._last) >= ENOUGH:
            self._since = 0
            self.p95_ms = sorted(self._last)[(19 * len(self._last) - 1) // 20]  # the least that 95 % do not exceed


class Bucket:
    """Tokens for hedges: each call brings its share of one."""

    __slots__ = ("_micro",)

    def __init__(self) -> None:
        self._micro = 0

    def called(self, share_micro: int) -> None:
        self._micro = min(self._micro + share_micro, BURST)

    def take(self) -> bool:
        """Whether there was a token; it is gone."""
        if self._micro < MILLION:
            return False
        self._micro -= MILLION
        return True


def candidates(allowed: Iterable[str], asked: str, second: str | None) -> tuple[str, ...]:
    """The arms that may be asked too."""
    return tuple(arm for arm in allowed if arm not in (asked, second))
