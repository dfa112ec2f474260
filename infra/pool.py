"""How many replicas a pool of engines has, followed towards a number that somebody wishes for.

`RayEngines` (cluster.py) is both: `Scaling` for who wishes, `Members` for who does it. Joining and leaving happen beside the calls:
a replica takes traffic once its arms are live, and ends once its calls are answered. Replicas are named by number, the first ones
stay: a process that was restarted finds those that run, and ends those that nobody wishes for any more.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from schemas.errors import Unavailable

_LOG = logging.getLogger(__name__)


@runtime_checkable
class Scaling(Protocol):
    """A pool that can grow and shrink."""

    async def scale(self, replicas: int) -> bool:
        """Begin to have so many, within the pool's bounds. True where replicas came or went since the last call: `ensure` tells which.

        Idempotent, returns at once, raises nothing: what could not be done is tried at the next call.
        """
        ...


class Members(Protocol):
    """What a pool does to its replicas."""

    async def running(self, names: Sequence[str]) -> Sequence[str]:
        """Those of the names under which a replica runs, whoever started it. Raises `Unavailable`."""
        ...

    async def join(self, name: str) -> None:
        """Start or find the replica, load it, let it take traffic. Tries until that is done."""
        ...

    async def leave(self, name: str) -> None:
        """No more calls for it; end it when those under way are answered. A replica that never joined is ended too."""
        ...


class Pool:
    """Replicas `names`, of which the first `least` are always there and not in its care."""

    def __init__(self, names: Sequence[str], least: int, members: Members) -> None:
        self._names = tuple(names)
        self._least = least
        self._members = members
        self._joined: set[str] = set(self._names[:least])
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._looked = False
        self._changed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a replica of this pool can have."""
        return self._names

    async def scale(self, replicas: int) -> bool:
        """As `Scaling` says."""
        wanted = self._names[: max(self._least, replicas)]
        if not self._looked and not await self._look(wanted):
            return False
        for name in wanted:
            if not {name} & (self._joined | self._joining.keys() | self._leaving.keys()):
                _LOG.info("%s joins: %d replicas are wanted", name, len(wanted))
                self._joining[name] = asyncio.create_task(self._join(name))
        for name in self._names[len(wanted) :]:
            if {name} & (self._joined | self._joining.keys()):
                self._end(name, f"{len(wanted)} replicas are wanted")
        changed, self._changed = self._changed, False
        return changed

    async def close(self) -> None:
        """Stop coming and going; replicas stay as they are."""
        tasks = [*self._joining.values(), *self._leaving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, wanted: Sequence[str]) -> bool:
        """Replicas of an earlier process: those that are wanted are found when they join, the others end."""
        try:
            running = await self._members.running(self._names[self._least :])
        except Unavailable:
            return False
        self._looked = True
        for name in running:
            if name not in wanted:
                self._end(name, "an earlier process left it")
        return True

    async def _join(self, name: str) -> None:
        await self._members.join(name)
        del self._joining[name]
        self._joined.add(name)
        self._changed = True

    def _end(self, name: str, why: str) -> None:
        _LOG.info("%s leaves: %s", name, why)
        joining = self._joining.pop(name, None)
        self._changed = self._changed or name in self._joined
        self._joined.discard(name)
        self._leaving[name] = asyncio.create_task(self._leave(name, joining))

    async def _leave(self, name: str, joining: "asyncio.Task[None] | None") -> None:
        if joining is not None:
            joining.cancel()
            await asyncio.wait([joining])
        await self._members.leave(name)
        del self._leaving[name]
