"""What goes wrong inside a Fold's lane: emits that fit no topic, and errors that no record has caused."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streams_contract import FAST, Chain, Count, answer, chain_of, request

from infra.clock import SystemClock
from schemas.events import AnswerRefused
from schemas.payload import Payload
from streams.lane import AgentCrashed, RuntimeSettings
from streams.memory import MemoryBroker, run_until
from streams.recorded import Collector
from streams.replay import Window, refold
from streams.runner import Runner
from streams.shapes import Change, Event, KeyState, Tick

TOO_MUCH = "x" * 1_100_000
TOPICS = ["ratchet.requests", "ratchet.answers", "ratchet.requests.dlq", "ratchet.probe.state"]


class Bulky(Count):
    """Answers the text `huge` with more than a topic takes, and a tick with what `at_tick` gives."""

    def __init__(
        self, name: str, at_tick: Callable[[Change[Chain, Chain]], Change[Chain, Chain]] | None = None
    ) -> None:
        super().__init__(name, ticks=at_tick is not None)
        self.at_tick = at_tick

    def fold(self, state: KeyState[Chain, Chain], event: Event[Payload] | Tick) -> Change[Chain, Chain]:
        change = super().fold(state, event)
        if isinstance(event, Tick):
            return change if self.at_tick is None else self.at_tick(change)
        huge = event.data.model_dump()["messages"][0]["content"] == "huge"
        return replace(change, emits=[answer(event, TOO_MUCH)]) if huge else change


class Full:
    """An artifact store that fails as none should."""

    def put_bytes(self, data: bytes) -> str:
        raise ZeroDivisionError


def runner_of(
    broker: MemoryBroker, fold: Count, folder: Path | None = None, settings: RuntimeSettings = FAST
) -> Runner:
    store = Full() if settings.snapshot_s < 1 else None
    made = Runner(broker, SystemClock(), settings=settings, state_dir=folder, artifacts=store)
    made.add_fold(fold)
    return made


async def test_an_emit_too_large_leaves_the_state_as_it_was() -> None:
    """Its cause is a dead letter, the key's next event follows the one before it, and a replay says the same."""
    broker = MemoryBroker(1)
    for n, text in enumerate(("a", "huge", "b")):
        broker.publish(request("k", text), event_id=str(n))
    await run_until(runner_of(broker, Bulky("probe")), lambda: len(broker.records("answers")) == 2)
    answers = [event.data.reason for event in broker.events("answers") if isinstance(event.data, AnswerRefused)]
    assert answers == chain_of(["0", "2"])
    letters = [dict(row.headers) for row in broker.records("requests.dlq")]
    assert [(row["ratchet-dlq-kind"], row["ratchet-dlq-offset"]) for row in letters] == [(b"oversize", b"1")]
    log = await Collector(broker).collect(["ratchet.probe.order"], TOPICS, {})
    gave = await refold(Bulky("probe"), log, Window())
    assert (gave.found, gave.events, gave.keys) == ([], 3, 3)
    assert not gave.notes


def bulky(change: Change[Chain, Chain]) -> Change[Chain, Chain]:
    (emit,) = change.emits
    return replace(change, emits=[replace(emit, payload=emit.payload.model_copy(update={"reason": TOO_MUCH}))])  # pyright: ignore[reportAttributeAccessIssue]


def fragile(change: Change[Chain, Chain]) -> Change[Chain, Chain]:
    raise ZeroDivisionError


@pytest.mark.parametrize("at_tick", [bulky, fragile])
async def test_a_crash_at_a_tick_names_the_key_and_the_time(
    at_tick: Callable[[Change[Chain, Chain]], Change[Chain, Chain]], tmp_path: Path
) -> None:
    """A tick has no place to halt at: it crashes after each start, and says where to look. It is not counted."""
    broker = MemoryBroker(1)
    broker.publish(request("key-1"))
    for _ in range(2):
        with pytest.raises(AgentCrashed, match=r"^probe crashed at ~tick of 'key-1'\[0\]@\d{13}$"):
            await asyncio.wait_for(runner_of(broker, Bulky("probe", at_tick), tmp_path).run(), 5)
        broker.groups.clear()
    assert not (tmp_path / "crashes").exists()


async def test_an_error_between_two_folds_is_blamed_on_no_record(tmp_path: Path) -> None:
    """What a snapshot raises is the lane's: the record that was folded last neither is named nor counted."""
    broker = MemoryBroker(1)
    broker.publish(request("k"))
    with pytest.raises(AgentCrashed, match="probe crashed at partition 0") as error:
        await asyncio.wait_for(runner_of(broker, Count("probe"), tmp_path, replace(FAST, snapshot_s=0.0)).run(), 5)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert not (tmp_path / "crashes").exists()
