"""How many calls an arm has under way, and who waits for one of them to end."""

import asyncio
from collections import deque

from agents.ports import Clock


class Slots:
    """Slots of one arm, given out in the order they were asked for. `cap` None: as many as are asked for."""

    __slots__ = ("_clock", "_waiting", "cap", "in_flight")

    def __init__(self, clock: Clock) -> None:
        self.cap: int | None = None
        self.in_flight = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def busy(self) -> bool:
        return self.cap is not None and self.in_flight >= self.cap

    async def take(self, patience_s: float) -> bool:
        """Whether a slot was free within this time. Who was given one gives it back, once."""
        if not self.busy and not self._waiting:
            self.in_flight += 1
            return True
        if patience_s <= 0:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        late = asyncio.ensure_future(self._clock.sleep(patience_s))
        try:
            await asyncio.wait({turn, late}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._withdraw(turn, keep=False)
            raise
        finally:
            late.cancel()
        return self._withdraw(turn, keep=True)

    def give_back(self) -> None:
        self.in_flight -= 1
        self.wake()

    def wake(self) -> None:
        """Let in who waits, as far as there is room: after a slot was given back, or the cap was raised."""
        while self._waiting and not self.busy:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _withdraw(self, turn: "asyncio.Future[None]", *, keep: bool) -> bool:
        """Whether the turn came; one that came and is not kept goes to the next."""
        if turn.done():
            if not keep:
                self.give_back()
            return keep
        self._waiting.remove(turn)
        return False
