"""Jobs hands orders to where training runs, and nothing else."""

import pytest

from agents.trainer.actor import Jobs
from infra.artifacts import DirectoryStore
from infra.jobs import JobOrder, read_order
from schemas.errors import Unavailable
from schemas.events import TrainingCancelled, TrainingFailed, TrainingOrdered, TrainingProgressed
from streams.shapes import Event, Record

COMMON = {"at_ms": 5, "route": "bank", "order_id": "o1"}
ORDER = TrainingOrdered(
    **COMMON, reason="enough", base="b", champion="base", cases_partition=0, cases_first=0, cases_last=9, rows=9,
    classes=2, template="{text}", max_tokens=8, settings={},
)  # fmt: skip


class Cluster:
    """A cluster that starts a job once per order and attempt."""

    def __init__(self):
        self.jobs, self.stopped = {}, []

    async def start(self, order, cause, traceparent):
        self.jobs.setdefault((order.order_id, order.attempt), (cause, traceparent))

    async def stop(self, order_id):
        self.stopped.append(order_id)


def event_of(payload):
    record = Record("ratchet.training", 0, 1, b"bank", b"", (), 5)
    return Event("cause", "bank", payload, "test", "trace", record.place, record)


async def test_an_order_starts_one_job_per_attempt():
    """The same order again finds its job; the next attempt is another; a cancellation stops the order; nothing is emitted."""
    cluster = Cluster()
    jobs = Jobs(cluster)
    for _ in range(3):
        assert await jobs(event_of(ORDER)) == ()
    assert cluster.jobs == {("o1", 1): ("cause", "trace")}
    await jobs(event_of(ORDER.model_copy(update={"attempt": 2})))
    assert len(cluster.jobs) == 2
    await jobs(event_of(TrainingProgressed(**COMMON, step=1, steps=2, epoch=0.1)))
    assert (len(cluster.jobs), cluster.stopped) == (2, [])
    await jobs(event_of(TrainingCancelled(**COMMON, reason="by command")))
    assert cluster.stopped == ["o1"]


def test_an_order_that_cannot_start_has_failed():
    """When the retries are used up the order fails with the reason; other events leave nothing."""
    jobs = Jobs(Cluster())
    [out] = jobs.expired(event_of(ORDER), Unavailable("Ray does not answer"))
    assert isinstance(out.payload, TrainingFailed)
    assert "Ray does not answer" in out.payload.reason
    assert jobs.expired(event_of(TrainingCancelled(**COMMON, reason="x")), Unavailable("away")) == ()


def test_the_order_travels_through_the_store(tmp_path):
    """What was put is what the job reads; an unknown digest is Unavailable."""
    store = DirectoryStore(tmp_path)
    named = JobOrder(order=ORDER, cause="cause", traceparent="trace")
    assert read_order(store, store.put_bytes(named.model_dump_json().encode())) == named
    with pytest.raises(Unavailable):
        read_order(store, "sha256:" + "0" * 64)
