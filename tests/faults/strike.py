"""A fault at a named point: which pass of it, and what happens there. The same in a process of its own and in ours."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from streams.lane import Notice
from streams.port import POINTS, Lost

OPENING = ("fenced", "committed", "restored", "opened")
INSIDE = ("begun", "sent", "offsets", "acknowledged")  # a transaction is open
ACTIONS = ("exit", "stop", "raise", "delay")
TOLD = frozenset({"opened", "fenced", "dropped", "halted", "dead_letter", "deferred"})


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table: the `nth` pass of `point` from now on."""

    point: str
    nth: int
    action: str
    delay_s: float = 2.0

    def __post_init__(self) -> None:
        if self.point not in POINTS or self.action not in ACTIONS:
            raise ValueError(f"{self}: points are {', '.join(POINTS)}; actions are {', '.join(ACTIONS)}")

    def dump(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that a worker said, at its monotonic time (one clock for all processes of a machine)."""

    t: float
    kind: str
    partition: int = -1
    text: str = ""


class Strike:
    """The runner's fault hook. `die` and `freeze` are what exit and stop are where the runner lives.

    An opening point is passed when a lane opens: until it has struck, lanes are dropped at what they accept next.
    """

    def __init__(
        self, say: Callable[..., None], die: Callable[[], Awaitable[None]], freeze: Callable[[], Awaitable[None]]
    ) -> None:
        self._say, self._die, self._freeze = say, die, freeze
        self._step: Step | None = None
        self._left = 0

    def arm(self, step: Step) -> None:
        self._step, self._left = step, step.nth

    async def __call__(self, point: str, agent: str, partition: int) -> None:
        step = self._step
        if step is None:
            return
        if point != step.point:
            if point == "accepted" and step.point in OPENING:
                raise Lost("dropped, so that it opens again")
            return
        self._left -= 1
        if self._left:
            return
        self._step = None
        self._say("struck", partition, point)
        if step.action == "exit":
            await self._die()
        elif step.action == "stop":
            await self._freeze()
        elif step.action == "raise":
            raise Lost(f"by the test, at {point}")
        else:
            await asyncio.sleep(step.delay_s)


class Observer:
    """Passes on what a harness needs of the runtime's notices: of commits the first after each opening and strike."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._fresh: set[int] = set()

    def again(self) -> None:
        """Tell the next commit of every lane."""
        self._fresh.update(range(64))

    def __call__(self, notice: Notice) -> None:
        if notice.kind == "committed":
            if notice.partition in self._fresh:
                self._fresh.discard(notice.partition)
                self._say("committed", notice.partition)
            return
        if notice.kind in TOLD:
            if notice.kind == "opened":
                self._fresh.add(notice.partition)
            self._say(notice.kind, notice.partition, notice.text[:200])
