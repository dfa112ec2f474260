"""Jobs: a Transform that starts the job which an order names, or finds it running. The job itself reports, as facts."""

from collections.abc import Sequence
from typing import Protocol

from schemas.events import TrainingCancelled, TrainingFailed, TrainingOrdered
from schemas.payload import Payload
from streams.shapes import Emit, Event, Out, Record


class JobsPort(Protocol):
    """Where training jobs run. Idempotent by order and attempt."""

    async def start(self, order: TrainingOrdered, cause: str, traceparent: str) -> None:
        """Start the job, or find it running or done. Raises `Unavailable` when the cluster does not answer."""
        ...

    async def stop(self, order_id: str) -> None:
        """Stop every attempt of the order."""
        ...


class Jobs:
    """See the module."""

    name = "jobs"
    inputs: Sequence[str] = ("ratchet.training",)

    def __init__(self, jobs: JobsPort) -> None:
        self._jobs = jobs

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if isinstance(event.data, TrainingOrdered):
            await self._jobs.start(event.data, event.id, event.traceparent)
        elif isinstance(event.data, TrainingCancelled):
            await self._jobs.stop(event.data.order_id)
        return ()

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        """No job could be started: the order has failed, and says why."""
        order = event.data
        if not isinstance(order, TrainingOrdered):
            return ()
        return (
            Emit(
                TrainingFailed(
                    tenant=order.tenant,
                    at_ms=order.at_ms,
                    route=order.route,
                    order_id=order.order_id,
                    reason=f"the job could not be started: {error}"[:500],
                )
            ),
        )
