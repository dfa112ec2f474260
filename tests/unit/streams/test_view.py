"""Views: whole before the agents, followed, typed; decoded once."""

import asyncio
from collections.abc import Sequence

import pytest
from streams_contract import FAST, Echo, answer, request, until

from infra.clock import SystemClock
from schemas.events import AnswerRefused
from schemas.payload import Payload
from schemas.policies import LiveArm, PolicyLive, PolicyTrust
from streams.memory import MemoryBroker, run_until
from streams.runner import Runner
from streams.shapes import Event, Out
from streams.view import TopicView


def live(version: int, instance: str = "i") -> PolicyLive:
    arm = LiveArm(route="r", arm="r/a", adapter=None, replicas=1)
    return PolicyLive(at_ms=1, version=version, instance=instance, arms=(arm,), until_ms=9)


class Seeing(Echo):
    """Answers with the version that it sees in the view."""

    def __init__(self, name: str, view: TopicView) -> None:
        super().__init__(name)
        self.view = view

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        found = self.view.get(PolicyLive, "live/i")
        return [answer(event, "none" if found is None else str(found.data.version))]


def reasons(broker: MemoryBroker) -> list[str]:
    return [e.data.reason for e in broker.events("answers") if isinstance(e.data, AnswerRefused)]


async def test_a_view_is_whole_before_the_first_event_and_follows() -> None:
    """The first event sees the newest version, later ones what came meanwhile, and a tombstone takes away."""
    broker = MemoryBroker(2)
    for version in range(1, 300):
        broker.publish(live(version))
    broker.publish(request("a"))
    runner = Runner(broker, SystemClock(), settings=FAST)
    view = runner.view("policies")
    assert view.age_s() == float("inf")
    runner.add_transform(Seeing("seeing", view))
    task = asyncio.create_task(runner.run())
    await until(lambda: len(reasons(broker)) == 1)
    broker.publish(live(300))
    await until(lambda: view.items(PolicyLive)["live/i"].data.version == 300)
    broker.publish(request("b"))
    await until(lambda: len(reasons(broker)) == 2)
    broker.put("ratchet.policies", b"live/i", None)
    await until(lambda: view.get(PolicyLive, "live/i") is None)
    await runner.stop()
    await task
    assert reasons(broker) == ["299", "300"]
    assert view.age_s() < 5


async def test_a_view_refuses_the_wrong_class() -> None:
    """A key that holds another class is our mistake, said so."""
    broker = MemoryBroker(2)
    broker.publish(live(1))
    runner = Runner(broker, SystemClock(), settings=FAST)
    view = runner.view("ratchet.policies")
    await run_until(runner, view.whole.is_set)
    with pytest.raises(TypeError, match="PolicyLive, not a PolicyTrust"):
        view.get(PolicyTrust, "live/i")
    assert view.items(PolicyTrust) == {}
    assert view.get(PolicyTrust, "trust/x") is None


async def test_topics_with_unequal_partitions_are_refused() -> None:
    """Co-partitioning is checked at the start."""
    broker = MemoryBroker(2)
    broker.counts["ratchet.requests"] = 3
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(Echo("echo"))
    with pytest.raises(Exception, match="equally many partitions"):
        await runner.run()
