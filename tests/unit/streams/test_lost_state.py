"""A Fold whose changelog is gone, or says nothing of an input that was folded: nothing opens on an empty state."""

import asyncio
import json

import pytest
from streams_contract import FAST, Count, chain_of, request

from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.events import AnswerRefused
from schemas.topics import order_topic, state_topic
from streams.lane import AgentCrashed
from streams.memory import MemoryBroker, run_until
from streams.order import Position
from streams.port import NONE, Outgoing
from streams.repair import fold_rows, skip
from streams.runner import Runner
from streams.shapes import Place
from streams.state import torn

CLOCK = SystemClock()
REQUESTS, OTHER = ("ratchet.requests", 0), ("ratchet.results", 0)
STATE, ORDER = (state_topic("probe"), 0), (order_topic("probe"), 0)


class Both(Count):
    """The same Fold with one more input."""

    inputs = ("requests", "results")


@pytest.fixture
def broker() -> MemoryBroker:
    """Three requests, and a group that begins where the log does."""
    made = MemoryBroker(1, clock=CLOCK, offsets=False)
    made.committed["ratchet.probe", REQUESTS] = 0
    for name in ("a", "b", "a"):
        made.publish(request(name), event_id=f"{name}{made.log(REQUESTS).stable()}")
    return made


def runner_of(broker: MemoryBroker, fold: Count) -> Runner:
    made = Runner(broker, CLOCK, settings=FAST)
    made.add_fold(fold)
    return made


async def answered(broker: MemoryBroker, count: int, fold: Count | None = None) -> None:
    await run_until(runner_of(broker, fold or Count("probe")), lambda: len(broker.records("answers")) == count)
    broker.groups.clear()


async def crash_of(broker: MemoryBroker, fold: Count | None = None) -> str:
    """What the runner says when it ends; nothing more is answered."""
    answers = len(broker.records("answers"))
    with pytest.raises(AgentCrashed, match=r"probe crashed at partition 0") as error:
        await asyncio.wait_for(runner_of(broker, fold or Count("probe")).run(), 5)
    broker.groups.clear()
    assert len(broker.records("answers")) == answers
    return str(error.value.__cause__)


async def test_a_lost_changelog_is_told_and_not_begun_anew(broker: MemoryBroker) -> None:
    """Topic, offsets and what to do are said; with the changelog back the lane goes on as if nothing had been."""
    await answered(broker, 3)
    kept = broker.logs.pop(STATE)
    broker.publish(request("a"), event_id="last")
    said = await crash_of(broker)
    assert "ratchet.requests: no state, offset 3, the log begins at 0" in said
    assert "put ratchet.probe.state back" in said
    broker.logs[STATE] = kept
    await answered(broker, 4)
    last = broker.events("answers")[-1].data
    assert isinstance(last, AnswerRefused)
    assert last.reason == chain_of(["a0", "a2", "last"])[-1]


async def test_an_input_that_the_position_does_not_name_is_told(broker: MemoryBroker) -> None:
    """Part of the state is as missing as all of it."""
    broker.committed["ratchet.probe", OTHER] = 0
    await answered(broker, 3, Both("probe"))
    broker.put(OTHER[0], b"k", b"not an event", partition=0)
    position = next(r for r in reversed(broker.records(STATE[0])) if r.key == b"~position")
    said = json.loads(position.value or b"")
    del said["next"][OTHER[0]]
    broker.append(STATE, Outgoing(b"~position", json.dumps(said).encode()), None)
    broker.committed["ratchet.probe", OTHER] = 1
    found = await crash_of(broker, Both("probe"))
    assert "ratchet.results: no state, offset 1, the log begins at 0" in found
    assert "ratchet.requests" not in found


async def test_a_new_input_is_begun_where_its_log_begins(broker: MemoryBroker) -> None:
    """The group got its start from `ratchet up`; what came since is folded."""
    await answered(broker, 3)
    for _ in range(3):
        broker.put(OTHER[0], b"k", b"not an event", partition=0)
    broker.truncate(OTHER, 2)
    broker.committed["ratchet.probe", OTHER] = 2
    await run_until(runner_of(broker, Both("probe")), lambda: len(broker.records("results.dlq")) == 1)
    assert broker.committed["ratchet.probe", OTHER] == 3


async def test_a_group_that_has_folded_nothing_opens(broker: MemoryBroker) -> None:
    """At its first opening it stands at the log's start, wherever retention has moved that before the group was made."""
    broker.truncate(REQUESTS, 1)
    broker.committed["ratchet.probe", REQUESTS] = 1
    await answered(broker, 2)


@pytest.mark.parametrize(("start", "wrong"), [(2, True), (3, False), (4, False)])
def test_only_an_offset_behind_the_start_tells_of_lost_state(start: int, wrong: bool) -> None:
    """At the start nothing was folded, and before it retention has removed what was not read: that is no lost state."""
    assert bool(torn(Position({}), {"t": 3}, {"t": start})) is wrong


def test_a_position_elsewhere_is_torn() -> None:
    """Where the position names an input, the log's start decides nothing."""
    assert torn(Position({"t": 2}), {"t": 3}, {}) == ["t: state at 2, offset 3"]
    assert torn(Position({"t": 3, "gone": 1}), {"t": 3}, {}) == []


async def test_nothing_is_repaired_on_lost_state(broker: MemoryBroker) -> None:
    """`~position` is not made up for a state that is not there: neither a skip nor a move changes anything."""
    await answered(broker, 3)
    broker.publish(request("c"), event_id="c")
    del broker.logs[STATE]
    before = dict(broker.committed)
    with pytest.raises(Refused, match="no state, offset 3, the log begins at 0") as error:
        await skip(broker, CLOCK, "probe", (REQUESTS[0],), Place(*REQUESTS, 3), fold=True, reason="r")
    assert (error.value.kind, error.value.accepted) == ("torn-state", "ratchet.probe.state as it was at those offsets")
    assert broker.committed == before
    assert broker.records(STATE[0]) == []


async def test_before_the_first_fold_a_repair_writes_the_first_position(broker: MemoryBroker) -> None:
    """A group at the log's start has no state to lose."""
    rows = await fold_rows(broker, broker.admin(), "probe", 0, {REQUESTS: 0}, {REQUESTS[0]: 1}, 1)
    assert [(row.topic, row.partition) for row in rows] == [STATE, ORDER]
    assert Position.of(rows[0].record.value).following == {REQUESTS[0]: 1}


async def test_a_position_names_no_input_without_an_offset(broker: MemoryBroker) -> None:
    """An input that `ratchet up` has not reached yet: refused, for -1 in a position would never fit again."""
    with pytest.raises(Refused, match=r"no offset on partition 0 of ratchet\.results"):
        await fold_rows(broker, broker.admin(), "probe", 0, {REQUESTS: 0, OTHER: NONE}, {REQUESTS[0]: 1}, 1)
