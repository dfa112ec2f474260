"""Topics and groups on a real broker."""

import itertools

import pytest

from schemas.errors import Refused
from schemas.topics import TopicPlan
from streams.admin import cluster_alive, ensure_groups, ensure_topics, lag
from streams.kafka import KafkaBroker
from streams.port import Outgoing

NAMES = itertools.count()


async def test_topics_are_made_once_and_differences_named(kafka: str) -> None:
    """A second call creates nothing; another partition count and another setting are both named."""
    name = f"admin.topic.{next(NAMES)}"
    plan = [TopicPlan(name, {"cleanup.policy": "compact"})]
    assert (await ensure_topics(kafka, 4, 1, wanted=plan)).created == (name,)
    assert (await ensure_topics(kafka, 4, 1, wanted=plan)).created == ()
    with pytest.raises(Refused, match=r"4 partitions, wanted 3"):
        await ensure_topics(kafka, 3, 1, wanted=plan)
    with pytest.raises(Refused, match=r"cleanup.policy=compact, wanted delete"):
        await ensure_topics(kafka, 4, 1, wanted=[TopicPlan(name, {"cleanup.policy": "delete"})])


async def test_groups_get_explicit_offsets_once(kafka: str) -> None:
    """A new group starts at the log's start; what it has committed since is never moved."""
    name, group = f"admin.topic.{next(NAMES)}", f"admin.group.{next(NAMES)}"
    await ensure_topics(kafka, 2, 1, wanted=[TopicPlan(name, {})])
    producer = KafkaBroker(kafka).producer()
    await producer.start()
    await producer.send(name, 0, [Outgoing(b"k", b"v")] * 3)
    await producer.stop()
    assert await ensure_groups(kafka, {group: [name]}) == {group: 2}
    assert [row.records for row in await lag(kafka, group, [name])] == [3, 0]
    admin = KafkaBroker(kafka).admin()
    await admin.start()
    await admin.set_offsets(group, {(name, 0): 2})
    await admin.stop()
    assert await ensure_groups(kafka, {group: [name]}) == {group: 0}
    assert [row.records for row in await lag(kafka, group, [name])] == [1, 0]


async def test_a_broker_that_is_away_is_not_alive(kafka: str) -> None:
    """Alive means that a broker answers."""
    assert await cluster_alive(kafka)
    assert not await cluster_alive("127.0.0.1:1", timeout_s=2.0)
