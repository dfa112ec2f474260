"""What `ratchet doctor` says of topics: each difference from the table with what is and what should be."""

from infra.clock import SystemClock
from schemas.topics import TopicPlan, plans
from streams.admin import specs_of, topic_problems
from streams.memory import MemoryBroker
from streams.port import TopicSpec

WANTED = [TopicPlan("ratchet.a", {"cleanup.policy": "delete", "retention.ms": "1000"}), TopicPlan("ratchet.b", {})]


async def test_topics_as_the_table_says_have_no_problem() -> None:
    """The whole table, created as it says, on a cluster of three."""
    broker = MemoryBroker(4, clock=SystemClock())
    specs = specs_of(list(plans()), 4, 3)
    await broker.admin().create(specs)
    assert await topic_problems(broker.admin(), specs) == []


async def test_every_difference_is_named() -> None:
    """Missing, partitions, replicas, min.insync, compaction, retention: what is, what should be."""
    broker = MemoryBroker(4, clock=SystemClock())
    await broker.admin().create([TopicSpec("ratchet.a", 2, 1, {"cleanup.policy": "compact", "retention.ms": "5"})])
    broker.counts["ratchet.b"] = 0
    assert sorted(await topic_problems(broker.admin(), specs_of(WANTED, 4, 3))) == [
        "ratchet.a: 1 replicas, wanted 3",
        "ratchet.a: 2 partitions, wanted 4",
        "ratchet.a: cleanup.policy=compact, wanted delete",
        "ratchet.a: min.insync.replicas=None, wanted 2",
        "ratchet.a: retention.ms=5, wanted 1000",
        "ratchet.b is missing",
    ]


async def test_more_replicas_than_asked_for_are_no_problem() -> None:
    """A cluster may keep more copies."""
    broker = MemoryBroker(4, clock=SystemClock())
    specs = specs_of(WANTED, 4, 1)
    await broker.admin().create([TopicSpec(spec.name, 4, 3, spec.config) for spec in specs])
    assert await topic_problems(broker.admin(), specs) == []
