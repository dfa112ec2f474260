"""The shell of trust: one read of the view and the clock per event."""

from collections.abc import Sequence

from agents.ports import Clock
from agents.trust import decide
from schemas.events import ResultCompleted, ResultFailed, ReviewSettled
from schemas.payload import Payload
from schemas.policies import PolicyRoute, PolicyTrust
from streams.shapes import Event, Out, P, Record, View


class Trust:
    """Transform `trust`. Keeps nothing."""

    name = decide.NAME
    inputs: Sequence[str] = ("ratchet.results", "ratchet.reviews")

    def __init__(self, policies: View, clock: Clock) -> None:
        self._policies = policies
        self._clock = clock

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        data, now = event.data, self._clock.now_ms()
        if isinstance(data, ResultCompleted):
            return decide.decide(_as(event, data), self._read(data.route), now)
        if isinstance(data, ResultFailed):
            return decide.decide(_as(event, data), self._read(data.route), now)
        if isinstance(data, ReviewSettled):
            return decide.settle(_as(event, data), now)
        return ()  # a requested review is for people

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return ()

    def _read(self, route: str) -> decide.Policies:
        return decide.Policies(
            self._policies.get(PolicyRoute, f"route/{route}"), self._policies.get(PolicyTrust, f"trust/{route}")
        )


def _as(event: Event[Payload], data: P) -> Event[P]:
    """The event with its payload's class known to the type checker."""
    return Event(event.id, event.key, data, event.source, event.traceparent, event.place, event.record)
