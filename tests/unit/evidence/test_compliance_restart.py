"""Compliance on the real runtime over the broker in memory: a restart in the middle, and a replay of what it wrote."""

from collections.abc import Callable, Sequence

from complying import HOUR, WHOLE, configured, step, violation
from streams_contract import FAST

from agents.evidence.compliance import Compliance
from schemas.payload import Payload
from streams.memory import START_MS, MemoryBroker, run_until
from streams.recorded import Collector
from streams.replay import Window, refold
from streams.runner import Runner

LONG_AGO = START_MS - 100 * HOUR
TOPICS = ("audit", "commands", "commands.dlq", "observations", "policies", "compliance.state")


async def alive(broker: MemoryBroker, said: Sequence[Payload], done: Callable[[], bool]) -> None:
    """A process of the agent that takes these, until something is there; then it is stopped."""
    runner = Runner(broker, broker.clock, settings=FAST)
    runner.add_fold(Compliance())
    for payload in said:
        broker.publish(payload)
    await run_until(runner, done)


def types(broker: MemoryBroker) -> list[str]:
    return [event.data.TYPE.removeprefix("incident.") for event in broker.events("observations")]


async def test_a_restart_loses_no_clock_and_says_nothing_twice() -> None:
    """What was open is open, what was overdue is not said again, and the version goes on; a replay gives the same bytes."""
    broker = MemoryBroker(2)
    first = [configured(), step("detect", aware_at_ms=LONG_AGO), violation(3, START_MS), violation(4, START_MS)]
    await alive(broker, first, lambda: sorted(types(broker)) == ["detected", "detected", "overdue"])
    steps = [
        step("assess", personal_data=True, high_risk=False),
        step("notify", notice=WHOLE),
        step("contain"),
        step("close"),
        step("close"),
        violation(5, START_MS),
        configured(of="shop"),
        configured(notify_hours=48),
    ]
    await alive(broker, steps, lambda: len(broker.events("policies")) == 2 and types(broker)[-1] == "refused")
    assert types(broker)[3:] == ["assessed", "notified", "contained", "closed", "refused"]
    notified = next(
        event.data.model_dump() for event in broker.events("observations") if event.data.TYPE == "incident.notified"
    )
    assert (notified["late"], notified["missing"]) == (True, ("delay_reason",))
    assert [event.data.model_dump()["version"] for event in broker.events("policies")] == [1, 2]
    assert len(broker.records("commands.dlq")) == 1
    log = await Collector(broker).collect(["ratchet.compliance.order"], [f"ratchet.{name}" for name in TOPICS], {})
    gave = await refold(Compliance(), log, Window())
    assert (gave.found, gave.keys) == ([], 3)  # the tenant and its incidents
    assert gave.events >= len(first) + len(steps)
