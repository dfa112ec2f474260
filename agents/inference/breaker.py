"""Circuit breakers: whether an arm may be asked at an engine now. Pure: the time is passed in and never steps back.

1. Closed, every call passes. Of at least 20 counted calls within 30 s half or more failed: open.
2. Open, none passes: 5 s at first, twice as long after each failed probe, at most 60 s.
3. Half-open, one call at a time passes, the probe. Its slot is taken in the same step that finds it free: between two awaits
   nobody else can. Two probes that were answered close the breaker, one that failed opens it again.
4. Void calls count nowhere: what the sender must change (4xx), what was cancelled, a hedge that lost. A void probe frees its slot.
5. A call that was let pass before the last change of state says nothing about the state after it.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.policies import BreakerState

CALLS = 20
WINDOW_S = 30
PAUSE_MS = 5_000
PAUSE_MOST_MS = 60_000
PROBES = 2
KEPT = 1_024  # breakers at most: arms come from committed decisions and engines from ours, so this is never reached

End = Literal["answered", "failed", "void"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state. `calls` and `failed` are what was counted within 30 s before it; `until_ms`: of the open state."""

    before: BreakerState
    after: BreakerState
    at_ms: int
    until_ms: int
    calls: int
    failed: int


@dataclass(frozen=True, slots=True)
class Permit:
    """A call that was let pass. Handed back once, to `Breaker.end`."""

    epoch: int
    probe: bool


class Window:
    """Counts of the last 30 s by the second, so that its size does not depend on the traffic."""

    __slots__ = ("_calls", "_failed", "_second", "calls", "failed")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._calls = [0] * WINDOW_S
        self._failed = [0] * WINDOW_S
        self._second = 0
        self.calls = self.failed = 0

    def move(self, now_ms: int) -> None:
        """Forget the seconds that the window has left."""
        second = now_ms // 1000
        if second <= self._second:
            return
        for gone in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            place = gone % WINDOW_S
            self.calls -= self._calls[place]
            self.failed -= self._failed[place]
            self._calls[place] = self._failed[place] = 0
        self._second = second

    def count(self, now_ms: int, *, failed: bool) -> None:
        self.move(now_ms)
        place = self._second % WINDOW_S
        self._calls[place] += 1
        self.calls += 1
        if failed:
            self._failed[place] += 1
            self.failed += 1


class Breaker:
    """One arm at one engine. `tell` is called with each change, in the step that makes it."""

    __slots__ = ("_answered", "_epoch", "_now_ms", "_pause_ms", "_probing", "_tell", "_until_ms", "_window", "state")

    def __init__(self, tell: Callable[[Change], None]) -> None:
        self.state: BreakerState = "closed"
        self._tell = tell
        self._window = Window()
        self._epoch = 0
        self._now_ms = 0
        self._pause_ms = PAUSE_MS
        self._until_ms = 0
        self._probing = False
        self._answered = 0

    @property
    def until_ms(self) -> int:
        """Until when it is open; 0 in any other state."""
        return self._until_ms if self.state == "open" else 0

    @property
    def pause_ms(self) -> int:
        """How long it stays open, this time or the next."""
        return self._pause_ms

    @property
    def counted(self) -> tuple[int, int]:
        """(calls, failed) of the window as it was last moved."""
        return self._window.calls, self._window.failed

    def look(self, now_ms: int) -> BreakerState:
        """The state at this time."""
        self._now_ms = max(self._now_ms, now_ms)
        if self.state == "open" and self._now_ms >= self._until_ms:
            self._become("half_open")
        return self.state

    def passes(self, now_ms: int) -> bool:
        """Whether a call would be let pass now. Takes nothing."""
        state = self.look(now_ms)
        return state == "closed" or (state == "half_open" and not self._probing)

    def admit(self, now_ms: int) -> Permit | None:
        """Let a call pass, or None. Test and set in one step."""
        if not self.passes(now_ms):
            return None
        probe = self.state == "half_open"
        if probe:
            self._probing = True
        return Permit(self._epoch, probe)

    def end(self, permit: Permit, how: End, now_ms: int) -> None:
        """What came of a call that was let pass."""
        self.look(now_ms)
        if permit.epoch != self._epoch:
            return
        if permit.probe:
            self._probed(how)
        elif how != "void":
            self._window.count(self._now_ms, failed=how == "failed")
            if self._window.calls >= CALLS and 2 * self._window.failed >= self._window.calls:
                self._open()

    def revived(self, now_ms: int) -> None:
        """The engine has just proven the arm live: the next call may try, however long the pause would still be."""
        if self.look(now_ms) == "open":
            self._until_ms = self._now_ms
            self.look(now_ms)

    def _probed(self, how: End) -> None:
        self._probing = False
        if how == "failed":
            self._pause_ms = min(2 * self._pause_ms, PAUSE_MOST_MS)
            self._open()
        elif how == "answered":
            self._answered += 1
            if self._answered >= PROBES:
                self._pause_ms = PAUSE_MS
                self._become("closed")

    def _open(self) -> None:
        self._until_ms = self._now_ms + self._pause_ms
        self._become("open")

    def _become(self, state: BreakerState) -> None:
        calls, failed = self.counted
        before, self.state = self.state, state
        self._epoch += 1
        self._probing = False
        self._answered = 0
        self._window.clear()
        self._tell(Change(before, state, self._now_ms, self.until_ms, calls, failed))


Key = tuple[str, str]  # the engine's name of an arm, and where it is asked


class Breakers:
    """The breakers of one process, made as calls come. `tell` is called with each change of any."""

    def __init__(self, tell: Callable[[Key, Change], None]) -> None:
        self._tell = tell
        self._held: dict[Key, Breaker] = {}

    def at(self, arm: str, engine: str) -> Breaker:
        key = (arm, engine)
        found = self._held.get(key)
        if found is None:
            if len(self._held) >= KEPT:
                del self._held[
                    next((old for old, row in self._held.items() if row.state == "closed"), next(iter(self._held)))
                ]
            found = self._held[key] = Breaker(lambda change: self._tell(key, change))
        return found

    def held(self) -> Mapping[Key, Breaker]:
        return self._held

    def keep(self, arms: Container[str]) -> None:
        """Forget those of other arms."""
        self._held = {key: row for key, row in self._held.items() if key[0] in arms}

    def look(self, now_ms: int) -> None:
        """Let time pass for all of them."""
        for breaker in list(self._held.values()):
            breaker.look(now_ms)

    def revived(self, arm: str, engine: str, now_ms: int) -> None:
        found = self._held.get((arm, engine))
        if found is not None:
            found.revived(now_ms)

    def open_until_ms(self, arm: str, engines: tuple[str, ...], now_ms: int) -> int:
        """Until when the arm can be asked nowhere, each of its breakers being open; 0 where it can be asked."""
        until: list[int] = []
        for engine in engines:
            found = self._held.get((arm, engine))
            if found is None or found.look(now_ms) != "open":
                return 0
            until.append(found.until_ms)
        return min(until, default=0)
