"""One suite for the broker in memory and for Kafka: what the port promises, and what the runtime promises on it.

A test file gives the fixture `world` and imports everything from here.
"""

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel

from infra.clock import SystemClock
from schemas.codec import encode
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused, Message, RequestSubmitted
from schemas.payload import Payload
from schemas.topics import deferred_topic, order_topic, state_topic
from streams.facts import Facts
from streams.fence import Fence, Publisher
from streams.lane import MissingOffset, RuntimeSettings
from streams.order import Position
from streams.port import NONE, Broker, Fenced, Outgoing, Rejected, TopicSpec
from streams.restore import POSITION
from streams.runner import Runner
from streams.shapes import Change, Emit, Event, KeyState, Out, Record, Tick
from streams.wire import BROKER_BYTES, LETTER_BYTES, decode, partition_of, size_of

__all__ = [
    "AWAY",
    "FAST",
    "Chain",
    "Count",
    "Echo",
    "World",
    "answer",
    "chain_of",
    "request",
    "run_agents",
    "test_a_fact_has_the_same_id_when_it_is_sent_again",
    "test_a_fenced_producer_can_do_nothing_more",
    "test_a_fold_restores_its_state_and_records_its_order",
    "test_a_group_without_an_offset_is_refused_by_name",
    "test_a_memberless_commit_is_accepted",
    "test_a_missing_offset_is_told_from_a_known_one",
    "test_a_paused_partition_rests_and_goes_on_where_it_was",
    "test_a_poison_record_becomes_a_dead_letter_and_the_rest_goes_on",
    "test_a_publisher_knows_its_cursor_after_a_restart",
    "test_a_record_at_the_limit_is_answered_and_one_above_is_refused_where_it_is_sent",
    "test_a_refused_record_fails_its_future_and_not_the_commit",
    "test_a_starting_producer_decides_the_former_transaction",
    "test_a_transaction_found_fenced_says_so_at_each_later_step",
    "test_a_transform_commits_in_order_what_finishes_out_of_order",
    "test_aborted_records_are_invisible_and_their_offsets_passed",
    "test_an_emit_too_large_dead_letters_its_cause",
    "test_markers_take_offsets",
    "test_offsets_move_only_with_the_commit",
    "test_readers_stop_at_the_last_stable_offset",
    "test_the_newest_fence_holds_and_the_older_one_never_comes_back",
    "test_unavailable_is_deferred_and_comes_again",
    "test_whole_columns_are_assigned_paused",
    "until",
]

PARTITIONS = 4
AWAY = "away"
FAST = RuntimeSettings(
    linger_s=0.003,
    batch=16,
    fenced_wait_s=0.02,
    backoff_s=0.01,
    backoff_max_s=0.1,
    retry_s=0.2,
    defer_s=0.3,
    tick_s=0.1,
    look_s=0.05,
)
NAMES = itertools.count()


@dataclass
class World:
    """A broker with the topics that the tests use, and what has come since the world began."""

    broker: Broker
    tag: str
    marks: dict[tuple[str, int], int] = field(default_factory=dict)

    async def start(self) -> "World":
        self.admin = self.broker.admin()
        await self.admin.start()
        self.producer = self.broker.producer()
        await self.producer.start()
        await self.topics("ratchet.requests", "ratchet.answers", "ratchet.requests.dlq", "ratchet.evidence.state")
        return self

    async def stop(self) -> None:
        await self.producer.stop()
        await self.admin.stop()

    async def topics(self, *names: str) -> None:
        """Create what is missing; remember where each topic ended."""
        known = await self.admin.partitions(names)
        letters = {"max.message.bytes": str(LETTER_BYTES)}
        wanted = [
            TopicSpec(name, PARTITIONS, 1, letters if name.endswith(".dlq") else {})
            for name in names
            if name not in known
        ]
        if wanted:
            await self.admin.create(wanted)
        await soon(lambda: self.admin.partitions(names), dict.fromkeys(names, PARTITIONS))
        tps = [(name, number) for name in names for number in range(PARTITIONS)]
        self.marks |= await self.admin.ends(tps)

    async def end(self, topic: str, partition: int = 0) -> int:
        return (await self.admin.ends([(topic, partition)]))[topic, partition]

    async def values(self, topic: str) -> list[bytes | None]:
        return [row.value for row in await self.read(topic)]

    async def fresh(self, label: str) -> str:
        """A new topic of this test's own."""
        name = f"test.{self.tag}.{label}.{next(NAMES)}"
        await self.topics(name)
        return name

    def agent(self, label: str) -> str:
        return f"{label}-{self.tag}-{next(NAMES)}"

    async def join(self, agent: str, *, fold: bool = False) -> None:
        """The agent's own topics, and its group's offsets at the present ends."""
        inputs = ["ratchet.requests"]
        if fold:
            await self.topics(state_topic(agent), order_topic(agent))
        else:
            await self.topics(deferred_topic(agent))
            inputs.append(deferred_topic(agent))
        ends = await self.admin.ends([(topic, number) for topic in inputs for number in range(PARTITIONS)])
        await self.admin.set_offsets(f"ratchet.{agent}", ends)
        for (topic, number), end in ends.items() if fold else ():  # a Fold behind the log's start must have a state
            row = Outgoing(POSITION, Position({topic: end}).encode())
            await self.producer.send(state_topic(agent), number, [row])

    async def publish(self, *payloads: RequestSubmitted) -> list[str]:
        """Send requests; the id of each is its text's digest."""
        names: list[str] = []
        for payload in payloads:
            names.append(hashlib.sha256(f"{self.tag}{payload.request_id}{payload.messages}".encode()).hexdigest())
            row = encode(payload, event_id=names[-1], source="test", traceparent="")
            place = partition_of(row.key, PARTITIONS)
            await self.producer.send("ratchet.requests", place, [Outgoing(row.key, row.value, row.headers)])
        return names

    async def read(self, topic: str) -> list[Record]:
        """Committed records since the world first heard of the topic, by partition and offset."""
        tps = [(topic, number) for number in range(PARTITIONS)]
        ends = await self.admin.ends(tps)
        reader = self.broker.reader({tp: self.marks[tp] for tp in tps})
        await reader.start()
        found: list[Record] = []
        try:
            while any([await reader.position(tp) < ends[tp] for tp in tps]):
                for rows in (await reader.poll(timeout_s=0.05, max_records=5000)).values():
                    found += rows
        finally:
            await reader.stop()
        return sorted(found, key=lambda row: (row.partition, row.offset))

    async def answers(self, agent: str) -> list[Event[Payload]]:
        """What the agent has answered."""
        events = [decode(row, PARTITIONS) for row in await self.read("ratchet.answers")]
        return [event for event in events if event.source == f"ratchet/{agent}"]


class Faults:
    """Raises `error` at the nth pass of one point, once."""

    def __init__(self, point: str, nth: int, error: BaseException) -> None:
        self.point, self.left, self.error, self.struck = point, nth, error, False

    async def __call__(self, point: str, agent: str, partition: int) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                self.struck = True
                raise self.error


async def until(held: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition, TimeoutError when it does not come."""
    async with asyncio.timeout(timeout_s):
        while not held():  # noqa: ASYNC110  the condition is the broker's, nobody signals it
            await asyncio.sleep(0.01)


async def soon(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """What `ask` answers within seconds: a commit is answered before its markers are written everywhere."""
    found = await ask()
    for _ in range(200):
        if found == expected:
            break
        await asyncio.sleep(0.02)
        found = await ask()
    assert found == expected


def request(name: str, text: str = "hello") -> RequestSubmitted:
    return RequestSubmitted(
        at_ms=1_700_000_000_000, route="r", request_id=name, messages=(Message(role="user", content=text),)
    )


def answer(event: Event[Payload], reason: str, kind: str = "echo") -> Emit:
    place = event.place
    return Emit(
        AnswerRefused(
            at_ms=event.data.at_ms,
            route="r",
            request_id=event.key,
            kind=kind,
            field="",
            reason=reason,
            accepted="",
            request_partition=place.partition,
            request_offset=place.offset,
        )
    )


class Echo:
    """A Transform that answers with the text; some texts make it slow, away, wrong or too long."""

    inputs: Sequence[str] = ("requests",)

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        assert isinstance(event.data, RequestSubmitted)
        self.calls += 1
        text = event.data.messages[0].content
        if text == AWAY and self.calls < 6:
            raise Unavailable("the world is away")
        if text == "refused":
            raise Refused("not like this", kind="test", field="messages")
        if text.startswith("slow"):
            await asyncio.sleep(float(text.removeprefix("slow")))
        if text.startswith("long"):
            text = "long"
        return [answer(event, "x" * 1_100_000 if text == "huge" else text)]

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return [answer(event, "expired")]


class Chain(BaseModel):
    """How many events a key has had, and the hash chain over their ids."""

    n: int
    chain: str


class Count:
    """A Fold that chains the ids of a key's events and tells each link."""

    inputs: Sequence[str] = ("requests",)
    record_type = Chain
    entry_type = Chain

    def __init__(self, name: str, *, ticks: bool = False) -> None:
        self.name = name
        self.ticks = ticks

    def state_key(self, event: Event[Payload]) -> str | None:
        return event.key

    def fold(self, state: KeyState[Chain, Chain], event: Event[Payload] | Tick) -> Change[Chain, Chain]:
        if isinstance(event, Tick):
            emit = AnswerRefused(
                at_ms=event.at_ms,
                route="r",
                request_id=state.key,
                kind="tick",
                field="",
                reason=str(0 if state.record is None else state.record.n),
                accepted="",
                request_partition=0,
                request_offset=0,
            )
            return Change([Emit(emit)], forget=True)
        old = state.record or Chain(n=0, chain="")
        new = Chain(n=old.n + 1, chain=hashlib.sha256((old.chain + event.id).encode()).hexdigest())
        assert self.ticks or sorted(state.entries) == sorted(str(n + 1) for n in range(old.n))
        due = event.data.at_ms if self.ticks else None
        return Change([answer(event, new.chain, f"n{new.n}")], new, {str(new.n): new}, due_ms=due)


def chain_of(names: Sequence[str]) -> list[str]:
    """The reference: the chain after each event of one key."""
    chain, found = "", list[str]()
    for name in names:
        chain = hashlib.sha256((chain + name).encode()).hexdigest()
        found.append(chain)
    return found


async def run_agents(
    world: World, held: Callable[[], object], *agents: Echo | Count, timeout_s: float = 30.0, **options: object
) -> None:
    """Run the agents until `held` (sync or async) is true, then stop gracefully; a fatal error is raised."""
    runner = Runner(world.broker, SystemClock(), settings=FAST, **options)  # pyright: ignore[reportArgumentType]
    for agent in agents:
        if isinstance(agent, Echo):
            runner.add_transform(agent)
        else:
            runner.add_fold(agent)
    task = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(timeout_s):
            while not task.done():
                found = held()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    break
                await asyncio.sleep(0.01)
        await runner.stop()
        await task
    finally:
        task.cancel()
        with suppress(BaseException):
            await task


# the port


async def test_markers_take_offsets(world: World) -> None:
    """Two transactions of one record each fill four offsets, and a position at the end has passed the last marker."""
    topic = await world.fresh("markers")
    producer = world.broker.transactional(world.agent("t"))
    await producer.start()
    for _ in range(2):
        await producer.begin()
        for future in await producer.send(topic, 0, [Outgoing(b"k", b"v")]):
            await future
        await producer.commit()
    await producer.stop(2.0)
    await soon(lambda: world.end(topic), 4)
    assert [row.offset for row in await world.read(topic)] == [0, 2]


async def test_aborted_records_are_invisible_and_their_offsets_passed(world: World) -> None:
    """An aborted record is read by nobody and the end moves past it."""
    topic = await world.fresh("aborted")
    producer = world.broker.transactional(world.agent("t"))
    await producer.start()
    await producer.begin()
    for future in await producer.send(topic, 0, [Outgoing(b"k", b"v")]):
        await future
    await producer.abort()
    await producer.stop(2.0)
    await soon(lambda: world.end(topic), 2)
    assert await world.read(topic) == []


async def test_readers_stop_at_the_last_stable_offset(world: World) -> None:
    """A record behind an open transaction is not read before that is decided."""
    topic = await world.fresh("stable")
    producer = world.broker.transactional(world.agent("t"))
    await producer.start()
    await producer.begin()
    for future in await producer.send(topic, 0, [Outgoing(b"k", b"open")]):
        await future
    await world.producer.send(topic, 0, [Outgoing(b"k", b"plain")])
    assert await world.end(topic) == 0
    assert await world.read(topic) == []
    await producer.commit()
    await producer.stop(2.0)
    await soon(lambda: world.values(topic), [b"open", b"plain"])


async def test_a_fenced_producer_can_do_nothing_more(world: World) -> None:
    """The epoch of a shared transactional id fences: the old owner's transaction never commits."""
    topic, name = await world.fresh("fenced"), world.agent("t")
    old, new = world.broker.transactional(name), world.broker.transactional(name)
    await old.start()
    await old.begin()
    for future in await old.send(topic, 0, [Outgoing(b"k", b"old")]):
        await future
    await new.start()
    with pytest.raises(Fenced):
        await old.commit()
    await old.stop(2.0)
    await new.stop(2.0)
    assert await world.read(topic) == []


async def test_a_transaction_found_fenced_says_so_at_each_later_step(world: World) -> None:
    """What a send learnt is told by every call after it: not as another error, after which a lane would reopen too soon."""
    topic, name = await world.fresh("learnt"), world.agent("t")
    old, new = world.broker.transactional(name), world.broker.transactional(name)

    async def send(number: int) -> None:
        for future in await old.send(topic, number, [Outgoing(b"k", b"old")]):
            await future

    await old.start()
    await old.begin()
    await new.start()
    for number in (0, 1):
        with pytest.raises(Fenced):
            await send(number)
    with pytest.raises(Fenced):
        await old.offsets({(topic, 0): 1}, world.agent("g"))
    with pytest.raises(Fenced):
        await old.commit()
    with pytest.raises(Fenced):
        await old.begin()
    await old.stop(2.0)
    await new.stop(2.0)
    assert await world.read(topic) == []


async def test_a_starting_producer_decides_the_former_transaction(world: World) -> None:
    """After `start` nothing of the id's former transaction is open: the end has moved, the records are aborted."""
    topic, name = await world.fresh("decides"), world.agent("t")
    old, new = world.broker.transactional(name), world.broker.transactional(name)
    await old.start()
    await old.begin()
    for future in await old.send(topic, 0, [Outgoing(b"k", b"old")]):
        await future
    await new.start()
    assert await world.end(topic) == 2
    assert await world.read(topic) == []
    await old.stop(2.0)
    await new.stop(2.0)


async def test_a_refused_record_fails_its_future_and_not_the_commit(world: World) -> None:
    """Who does not await the sends commits the offset and loses the output."""
    topic, group = await world.fresh("refused"), world.agent("g")
    producer = world.broker.transactional(world.agent("t"))
    await producer.start()
    await producer.begin()
    for future in await producer.send(topic, 0, [Outgoing(b"k", b"fits")]):
        await future
    waiting = await producer.send(topic, 1, [Outgoing(b"k", bytes(1_200_000))])
    await producer.offsets({(topic, 0): 1}, group)
    assert len(waiting) == 1
    with pytest.raises(Rejected):
        await waiting[0]
    await producer.commit()
    await producer.stop(2.0)
    await soon(lambda: world.values(topic), [b"fits"])
    await soon(lambda: world.admin.committed(group, [(topic, 0)]), {(topic, 0): 1})


async def test_a_missing_offset_is_told_from_a_known_one(world: World) -> None:
    """A group without an offset answers NONE, one with an explicit offset answers it, zero included."""
    topic, group = await world.fresh("missing"), world.agent("g")
    tp = (topic, 0)
    found = await world.admin.committed(group, [tp])
    assert found.get(tp, NONE) == NONE or world.broker.__class__.__name__ == "MemoryBroker"
    await world.admin.set_offsets(group, {tp: 0})
    assert await world.admin.committed(group, [tp]) == {tp: 0}


async def test_offsets_move_only_with_the_commit(world: World) -> None:
    """Offsets of an aborted transaction are not committed."""
    topic, group = await world.fresh("offsets"), world.agent("g")
    tp = (topic, 0)
    await world.admin.set_offsets(group, {tp: 3})
    producer = world.broker.transactional(world.agent("t"))
    await producer.start()
    for decide, expected in ((producer.abort, 3), (producer.commit, 9)):
        await producer.begin()
        await producer.offsets({tp: 9}, group)
        await decide()
        await soon(lambda: world.admin.committed(group, [tp]), {tp: expected})
    await producer.stop(2.0)


class Noted:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.held: set[tuple[str, int]] = set()

    async def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.held -= set(partitions)

    async def assigned(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.held |= set(partitions)


async def test_a_memberless_commit_is_accepted(world: World) -> None:
    """The broker asks no transactional offset commit for a membership: only a shared id fences."""
    topic, group = await world.fresh("zombie"), world.agent("g")
    await world.admin.set_offsets(group, {(topic, number): 0 for number in range(PARTITIONS)})
    noted = Noted()
    member = world.broker.group_reader([topic], group, f"{group}-0", noted)  # pyright: ignore[reportArgumentType]
    await member.start()
    producer = world.broker.transactional(world.agent("zombie"))
    await producer.start()
    await producer.begin()
    await producer.offsets({(topic, 0): 7}, group)
    await producer.commit()
    await producer.stop(2.0)
    await member.stop()
    await soon(lambda: world.admin.committed(group, [(topic, 0)]), {(topic, 0): 7})


async def test_whole_columns_are_assigned_paused(world: World) -> None:
    """Two members of a group over two topics hold whole columns, and nothing is read before a seek and resume."""
    topics, group = [await world.fresh("a"), await world.fresh("b")], world.agent("g")
    await world.producer.send(topics[0], 0, [Outgoing(b"k", b"v")])
    await world.admin.set_offsets(group, {(topic, n): 0 for topic in topics for n in range(PARTITIONS)})
    notes = [Noted(), Noted()]
    members = [
        world.broker.group_reader(topics, group, f"{group}-{i}", note)  # pyright: ignore[reportArgumentType]
        for i, note in enumerate(notes)
    ]
    for member in members:
        await member.start()
    async with asyncio.timeout(20):
        while not all(len(note.held) == PARTITIONS for note in notes):
            for member in members:
                assert await member.poll(timeout_s=0.05, max_records=10) == {}
    for note in notes:
        numbers = {number for _, number in note.held}
        assert note.held == {(topic, number) for topic in topics for number in numbers}
    owner = next(i for i, note in enumerate(notes) if (topics[0], 0) in note.held)
    members[owner].seek((topics[0], 0), 0)
    members[owner].resume([(topics[0], 0)])
    async with asyncio.timeout(10):
        found: dict[tuple[str, int], Sequence[Record]] = {}
        while not found:
            found = dict(await members[owner].poll(timeout_s=0.1, max_records=10))
    assert [row.value for row in found[topics[0], 0]] == [b"v"]
    for member in members:
        await member.stop()


async def test_a_paused_partition_rests_and_goes_on_where_it_was(world: World) -> None:
    """It gives nothing while others do; a poll that waits is woken when it is resumed; nothing of it is lost or repeated."""
    topic = await world.fresh("resting")
    rests, goes_on = (topic, 0), (topic, 1)
    await world.producer.send(*rests, [Outgoing(b"k", str(n).encode()) for n in range(200)])
    reader = world.broker.reader({rests: 0, goes_on: 0})
    await reader.start()
    found: dict[tuple[str, int], list[Record]] = {rests: [], goes_on: []}

    async def poll(timeout_s: float) -> None:
        for tp, rows in (await reader.poll(timeout_s=timeout_s, max_records=50)).items():
            found[tp] += rows

    async with asyncio.timeout(20):
        while not found[rests]:
            await poll(0.1)
        reader.pause([rests])
        had = len(found[rests])
        await world.producer.send(*goes_on, [Outgoing(b"k", b"v")] * 3)
        while len(found[goes_on]) < 3:
            await poll(0.1)
        waiting = asyncio.create_task(poll(20.0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert len(found[rests]) == had
        reader.resume([rests])
        async with asyncio.timeout(5):
            await waiting
        while len(found[rests]) < 200:
            await poll(0.1)
    await reader.stop()
    assert [row.value for row in found[rests]] == [str(n).encode() for n in range(200)]


# beside the shapes


async def test_the_newest_fence_holds_and_the_older_one_never_comes_back(world: World) -> None:
    """A second owner takes the fence; the first is fenced for good, the second goes on."""
    agent = world.agent("seal")
    await world.topics(state_topic(agent))
    old, new = Fence(world.broker, agent), Fence(world.broker, agent)
    await old.start()
    await old.commit()
    await new.start()
    for _ in range(2):
        with pytest.raises(Fenced):
            await old.commit()
    await new.commit()
    await new.commit()
    await new.stop()


async def test_a_publisher_knows_its_cursor_after_a_restart(world: World) -> None:
    """Events and cursor are one transaction: a new owner reads the cursor of the last one."""
    agent = world.agent("pub")
    await world.topics(state_topic(agent))
    first = Publisher(world.broker, PARTITIONS, agent)
    assert await first.start() is None
    payload = AnswerRefused(
        at_ms=1, request_id="p", kind="k", field="", reason="", accepted="", request_partition=0, request_offset=0
    )
    await first.publish([(payload, "one"), (payload, "two")], 41)
    await first.stop()
    second = Publisher(world.broker, PARTITIONS, agent)
    assert await second.start() == 41
    await second.stop()

    async def count() -> int:
        return len({event.id for event in await world.answers(agent)})

    await soon(count, 2)


async def test_a_fact_has_the_same_id_when_it_is_sent_again(world: World) -> None:
    """Facts are at-least-once with equal ids."""
    agent = world.agent("facts")
    facts = Facts(world.broker, agent)
    payload = AnswerRefused(
        at_ms=1, request_id="f", kind="k", field="", reason="", accepted="", request_partition=0, request_offset=0
    )
    await facts.send(payload, "the-fact")
    await facts.send(payload, "the-fact")
    await facts.stop()
    found = await world.answers(agent)
    assert len(found) == 2
    assert found[0].id == found[1].id


# the runtime


async def test_a_transform_commits_in_order_what_finishes_out_of_order(world: World) -> None:
    """One key's events, the first slow: outputs come once each, in the order of the inputs."""
    echo = Echo(world.agent("echo"))
    await world.join(echo.name)
    texts = ["slow0.3", *(f"t{n}" for n in range(20))]
    await world.publish(*(request("same", text) for text in texts))

    async def done() -> bool:
        return len(await world.answers(echo.name)) >= len(texts)

    await run_agents(world, done, echo)
    found = await world.answers(echo.name)
    assert [event.data.reason for event in found if isinstance(event.data, AnswerRefused)] == texts
    assert dict(found[0].record.headers)["ratchet-at"].startswith(b"ratchet.requests[")


async def test_a_fold_restores_its_state_and_records_its_order(world: World) -> None:
    """A second run goes on with the state of the first; the order topic covers every input once."""
    name = world.agent("count")
    await world.join(name, fold=True)
    keys, ids_of = [f"{world.tag}-{n}" for n in range(6)], dict[str, list[str]]()
    for count, total in ((5, 30), (5, 60)):
        for n in range(count):
            for key in keys:
                ids_of.setdefault(key, []).extend(await world.publish(request(key, f"{total}.{n}")))

        async def done(wanted: int = total) -> bool:
            return len(await world.answers(name)) >= wanted

        await run_agents(world, done, Count(name))
    answers = await world.answers(name)
    for key in keys:
        reasons = [e.data.reason for e in answers if e.key == key and isinstance(e.data, AnswerRefused)]
        assert reasons == chain_of(ids_of[key])
    order = await world.read(order_topic(name))
    assert all(row.value is not None and b"ratchet.requests" in row.value for row in order)
    assert any(row.key == b"~position" for row in await world.read(state_topic(name)))


async def test_unavailable_is_deferred_and_comes_again(world: World) -> None:
    """After retries an event goes to the deferred topic in the same transaction; the window moves on; later it is done."""
    echo = Echo(world.agent("away"))
    await world.join(echo.name)
    await world.publish(request("one", AWAY), request("one", "after"))

    async def done() -> bool:
        return len(await world.answers(echo.name)) >= 2

    await run_agents(world, done, echo)
    found = await world.answers(echo.name)
    assert [e.data.reason for e in found if isinstance(e.data, AnswerRefused)] == ["after", AWAY]
    parked = await world.read(deferred_topic(echo.name))
    assert dict(parked[0].headers)["ratchet-attempt"] == b"1"
    assert dict(found[1].record.headers)["ratchet-at"].startswith(b"ratchet.requests[")


async def test_a_poison_record_becomes_a_dead_letter_and_the_rest_goes_on(world: World) -> None:
    """What is no event, misplaced or refused lands in the dead letters, untouched and with the reason."""
    echo = Echo(world.agent("dead"))
    await world.join(echo.name)
    tag = world.tag.encode()
    place = partition_of(tag, PARTITIONS)
    await world.producer.send("ratchet.requests", place, [Outgoing(tag, b"\xff no json")])
    await world.producer.send("ratchet.requests", (place + 1) % PARTITIONS, [Outgoing(tag, b"{}")])
    await world.publish(request("fine", "refused"), request("fine", "good"))

    async def letters() -> list[dict[str, bytes]]:
        found = [dict(row.headers) for row in await world.read("ratchet.requests.dlq")]
        return [row for row in found if row["ratchet-dlq-agent"] == echo.name.encode()]

    async def done() -> bool:
        return len(await world.answers(echo.name)) >= 1 and len(await letters()) >= 3

    await run_agents(world, done, echo)
    assert sorted(row["ratchet-dlq-kind"] for row in await letters()) == [b"misplaced", b"no-type", b"test"]
    assert len(await world.answers(echo.name)) == 1


async def test_an_emit_too_large_dead_letters_its_cause(world: World) -> None:
    """An output that its topic does not take is found before sending; the cause becomes a dead letter."""
    echo = Echo(world.agent("huge"))
    await world.join(echo.name)
    await world.publish(request("big", "huge"), request("big", "small"))

    async def done() -> bool:
        return len(await world.answers(echo.name)) >= 1

    await run_agents(world, done, echo)
    rows = [dict(row.headers) for row in await world.read("ratchet.requests.dlq")]
    assert [r["ratchet-dlq-kind"] for r in rows if r["ratchet-dlq-agent"] == echo.name.encode()] == [b"oversize"]
    assert len(await world.answers(echo.name)) == 1


def sized(name: str, prefix: str, size: int) -> Outgoing:
    """A request whose record has this size."""

    def made(text: str) -> Outgoing:
        row = encode(request(name, text), event_id=f"e-{name}", source="test", traceparent="")
        return Outgoing(row.key, row.value, row.headers)

    return made(prefix + "x" * (size - size_of(made(prefix))))


async def test_a_record_at_the_limit_is_answered_and_one_above_is_refused_where_it_is_sent(world: World) -> None:
    """At the limit: answered, or, where the answer would be above it, a dead letter with the whole record. Above: nothing is taken."""
    echo = Echo(world.agent("limit"))
    await world.join(echo.name)
    fits = {name: sized(f"{world.tag}-{name}", name, BROKER_BYTES) for name in ("long", "echo")}
    over = sized(f"{world.tag}-over", "long", BROKER_BYTES + 200)
    for row in (over, *fits.values()):
        place = "ratchet.requests", partition_of(row.key or b"", PARTITIONS)
        if row is over:
            with pytest.raises(Rejected, match=r"ratchet\.requests"):
                await world.producer.send(*place, [row])
        else:
            assert size_of(row) == BROKER_BYTES
            await world.producer.send(*place, [row])

    async def done() -> bool:
        letters = [row for row in await world.read("ratchet.requests.dlq") if row.key == fits["echo"].key]
        return bool(letters) and len(await world.answers(echo.name)) >= 1

    await run_agents(world, done, echo)
    letter = next(row for row in await world.read("ratchet.requests.dlq") if row.key == fits["echo"].key)
    assert letter.value == fits["echo"].value
    assert dict(letter.headers)["ratchet-dlq-kind"] == b"oversize"
    assert [event.key.encode() for event in await world.answers(echo.name)] == [fits["long"].key]


async def test_a_group_without_an_offset_is_refused_by_name(world: World) -> None:
    """A missing committed offset ends the start with a sentence; it is never read as zero."""
    echo = Echo(world.agent("nogroup"))
    await world.topics(deferred_topic(echo.name))
    with pytest.raises(MissingOffset, match="no committed offset"):
        await run_agents(world, lambda: False, echo)
    assert echo.calls == 0
