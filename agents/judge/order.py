"""The order of pairs: (assigned_at, request id), whatever came first. Pure.

1. `case.answered` announces a pair, `case.closed` fills it. It is folded when it is closed, every pair before it was folded, and
   a tick is past the end of its window: then nothing that belongs before it can still be announced in time.
2. A pair announced after its place is late: counted, never folded. So is none lost to how long its verdict took.
3. At most 50,000 wait: then no more are taken, whoever they are, until some were folded.
"""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from agents.judge.pairs import Pending
from schemas.events import CaseEvent

MOST_PENDING = 50_000
MOST_A_TICK = 5_000
STUCK_MS = 86_400_000  # past its window a case that never closed counts as failed
PAIR, SEEN = "pair/", "seen/"
DAY_MS = 86_400_000


class Place(BaseModel):
    """How far the order has been folded: the entry of the last pair. `waiting`: pairs behind it; `late`, `overflow`: those not taken."""

    model_config = ConfigDict(frozen=True)

    last: str = ""
    waiting: int = 0
    late: int = 0
    overflow: int = 0


def entry_of(case: CaseEvent) -> str:
    """The pair's entry: entries sort as pairs do."""
    return f"{PAIR}{case.assigned_at_ms:016d}/{case.request_id}"


def assigned_ms(entry: str) -> int:
    """When the pair of an entry was assigned."""
    return int(entry[len(PAIR) : len(PAIR) + 16])


def seen_entry(entry: str, arena: str, subject: str) -> str:
    """The entry that says that a subject had its pair of that day in the arena."""
    return f"{SEEN}{assigned_ms(entry) // DAY_MS:08d}/{arena}/{subject}"


def stale_seen(entries: Iterable[str], entry: str) -> list[str]:
    """What was seen on days before the pair of `entry`."""
    today = f"{SEEN}{assigned_ms(entry) // DAY_MS:08d}/"
    return sorted(name for name in entries if name.startswith(SEEN) and name < today)


def ripe(waiting: Mapping[str, Pending], now_ms: int) -> list[str]:
    """Which pairs may be folded at this tick, in order; it ends before the first that may not."""
    found: list[str] = []
    for name in sorted(waiting):
        pending = waiting[name]
        if now_ms < pending.window_end_ms or len(found) == MOST_A_TICK:
            break
        if not pending.closed and now_ms < pending.window_end_ms + STUCK_MS:
            break
        found.append(name)
    return found
