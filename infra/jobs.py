"""Training jobs on Ray: one named job per order and attempt. The order itself travels through the artifact store."""

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infra.artifacts import ArtifactStore, DirectoryStore
from infra.cluster import stop_job, submit_job
from schemas.events import TrainingOrdered

ATTEMPTS = 3
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class JobOrder(BaseModel):
    """What lies in the artifact store for a job: the order, its event's id, and the trace that it belongs to."""

    model_config = ConfigDict(frozen=True)

    order: TrainingOrdered
    cause: str
    traceparent: str


def read_order(artifacts: ArtifactStore, digest: str) -> JobOrder:
    """The order under `digest`. Raises Unavailable where the store does not have it."""
    return JobOrder.model_validate_json(artifacts.get_bytes(digest))


class RayJobs:
    """Starts `python -m agents train DIGEST` as the job `ORDER-ATTEMPT`; a job that runs or is done is left alone."""

    def __init__(self, state_dir: Path, environment: Mapping[str, str], gpus: float = 0.0) -> None:
        self._artifacts = DirectoryStore(state_dir / "artifacts")
        self._logs = state_dir / "logs"
        self._environment = dict(environment) | THREADS | {"RATCHET_METRICS_PORT": "0"}
        self._gpus = gpus

    async def start(self, order: TrainingOrdered, cause: str, traceparent: str) -> None:
        """Raises Unavailable when the cluster does not answer."""
        named = JobOrder(order=order, cause=cause, traceparent=traceparent)
        digest = self._artifacts.put_bytes(named.model_dump_json().encode())
        await submit_job(
            f"{order.order_id}-{order.attempt}",
            [sys.executable, "-m", "agents", "train", digest],
            self._environment,
            log=self._logs / f"training-{order.order_id}.log",
            cwd=Path(__file__).parents[1],
            gpus=self._gpus,
        )

    async def stop(self, order_id: str) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            await stop_job(f"{order_id}-{attempt}")
