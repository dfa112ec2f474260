"""The shredder on the broker in memory: whole or not at all, once, and only what is proven."""

import asyncio
from contextlib import suppress

import pytest
from erasing import ANN, PARTITIONS, TENANT, World, command, hold, policy
from living import living
from spoken import Ears, credential, encoded, ring_of
from streams_contract import Faults, until

from schemas import ids
from schemas.compliance import CommandForget, KeyErased, KeyRemoved, SubjectErased, SubjectKept
from schemas.errors import Unavailable
from schemas.payload import Payload
from schemas.topics import DAY_MS
from streams.port import POINTS, Fenced, Lost, Outgoing
from streams.standing import TOUCH
from streams.wire import decode, partition_of

RING = ring_of({"op": ("operator",), "shredder": ("shredder",), "trainer": ("upstream",)})


class Exit(BaseException):
    """The process is gone."""


async def test_an_erasure() -> None:
    """Marker, removal, receipt and what trainers are told, with where requests ended when the command had been read."""
    async with living(World()) as world:
        ends = await world.standing.ends("requests")
        world.broker.publish(command(), event_id="c-1")
        (receipt,) = await world.answered(1)
        assert isinstance(receipt, SubjectErased)
        assert {row.partition: row.offset for row in receipt.cut} == ends
        assert (receipt.keys, receipt.routes, receipt.by) == (1, ("cards",), "op")
        assert len(world.of("keyring", KeyErased)) == len(world.of("keyring", KeyRemoved)) == 1
        (told,) = [event for event in world.broker.events("commands") if isinstance(event.data, CommandForget)]
        assert told.key == "cards"
        assert [event.id for event in world.broker.events("observations")] == [ids.derive("c-1", "shredder", "receipt")]


async def test_a_command_said_twice_and_another_at_once() -> None:
    """The same one makes nothing more; the next says that it is erased, by whom, though it was read before the first was committed."""
    async with living(World()) as world:
        for name in ("c-1", "c-1", "c-2"):
            world.broker.publish(command(), event_id=name)
        first, second = await world.answered(2)
        assert isinstance(first, SubjectErased)
        assert isinstance(second, SubjectKept)
        assert (second.reason, second.earlier) == ("erased", "c-1")
        await asyncio.sleep(0.1)
        assert len(world.answers()) == 2


async def test_an_unknown_subject_leaves_a_cut() -> None:
    """Nothing is found; what came until then gets no key that lasts, and no receipt is claimed, however often it is said."""
    other = "c" * 32
    async with living(World()) as world:
        ends = await world.standing.ends("requests")
        for name in ("c-1", "c-2"):
            world.broker.publish(command(other), event_id=name)
        for row in await world.answered(2):
            assert isinstance(row, SubjectKept)
            assert (row.reason, row.earlier) == ("unknown", "")
        markers = [row for row in world.of("keyring", KeyErased) if isinstance(row, KeyErased)]
        assert [(row.epoch, row.receipt) for row in markers] == [(1, False), (2, False)]
        assert {row.partition: row.offset for row in markers[0].cut} == ends
        assert len(world.of("keyring", KeyRemoved)) == 2


async def test_a_hold_and_its_end() -> None:
    """The newest policy of the tenant counts; what was held is erased when it is said again."""
    async with living(World()) as world:
        world.broker.publish(policy(hold(), version=2))
        world.broker.publish(command(), event_id="c-1")
        (first,) = await world.answered(1)
        assert isinstance(first, SubjectKept)
        assert first.holds == ("case-7",)
        assert world.of("keyring", KeyErased) == []
        world.broker.publish(policy(version=3))
        world.broker.publish(command(), event_id="c-2")
        assert isinstance((await world.answered(2))[1], SubjectErased)


@pytest.mark.parametrize("action", ["exit", "lost", "fenced"])
@pytest.mark.parametrize("point", POINTS)
async def test_whole_or_not_at_all_wherever_it_breaks(point: str, action: str) -> None:
    """Whatever breaks at any step of the transaction: after a restart each command's marker, removal, answer and forget is there once."""
    error = {"exit": Exit(), "lost": Lost("the answer is lost"), "fenced": Fenced("another owner")}[action]
    world = World(faults=Faults(point, 1, error))
    await world.start()
    world.broker.publish(command(), event_id="c-1")
    world.broker.publish(command(), event_id="c-2")
    deadline = asyncio.get_running_loop().time() + 20
    try:
        while len(world.answers()) < 2 and asyncio.get_running_loop().time() < deadline:
            parts = (
                world.of("keyring", KeyErased),
                world.of("keyring", KeyRemoved),
                world.of("observations", SubjectErased),
            )
            assert {bool(rows) for rows in parts} in ({True}, {False})
            if world.task.done():
                with suppress(Exit, Exception):
                    await world.task
                world.make()
                world.task = asyncio.create_task(world.runner.run())
            await asyncio.sleep(0.003)
        erased, kept = world.answers()
        assert isinstance(erased, SubjectErased)
        assert isinstance(kept, SubjectKept)
        assert len(world.of("keyring", KeyRemoved)) == 2
        assert [row.erasure for row in world.of("keyring", KeyErased) if isinstance(row, KeyErased)] == ["c-1", "c-1"]
        assert len(world.of("commands", CommandForget)) == 2
    finally:
        world.runner.kill()
        world.task.cancel()
        with suppress(asyncio.CancelledError, Exit, Exception):
            await world.task


async def test_only_an_operator_is_heard_and_only_the_shredder_tells_trainers() -> None:
    """An unproven command is a dead letter, and so is a forget that anybody else says; its own is proven."""
    ears = Ears(RING)
    async with living(World(ears=ears)) as world:
        now = world.broker.clock.now_ms()

        async def say(payload: Payload, name: str, by: str | None) -> None:
            row = encoded(payload, name)
            row = row if by is None else credential(by).prove(row, at_ms=now)
            tp = ("ratchet.commands", partition_of(row.key, PARTITIONS))
            producer = world.broker.producer()
            await producer.start()
            await producer.send(*tp, [Outgoing(row.key, row.value, row.headers)])

        forget = CommandForget(tenant=TENANT, at_ms=now, route="cards", subject=ANN, erasure="c-0", cut=())
        await say(command(), "c-1", None)
        await say(forget, "f-1", "op")
        await say(command(), "c-2", "shredder")
        await say(command(), "c-3", "op")
        (receipt,) = await world.answered(1)
        assert isinstance(receipt, SubjectErased)
        assert receipt.erasure == "c-3"
        told = [dict(record.headers) for record in world.broker.records("commands.dlq")]
        found = {row["ce_id"].decode(): row["ratchet-dlq-kind"].decode() for row in told}
        assert {name: found.get(name) for name in ("c-1", "f-1", "c-2")} == {
            "c-1": "unproven", "f-1": "wrong-role", "c-2": "wrong-role",
        }  # fmt: skip
        own = [
            event for event in world.broker.events("commands")
            if isinstance(event.data, CommandForget) and event.source == "ratchet/shredder"
        ]  # fmt: skip
        assert len(own) == 1
        speaker = ears(own[0].record)
        assert speaker is not None
        assert speaker.name == "shredder"


async def test_a_broker_that_does_not_answer_erases_nothing() -> None:
    """Where requests end cannot be told: the command waits, and is done when it can."""
    async with living(World()) as world:
        ends, failing = world.standing.ends, True

        async def away(topic: str) -> dict[int, int]:
            if failing and topic == "ratchet.requests":
                raise Unavailable("away")
            return await ends(topic)

        world.standing.ends = away
        world.broker.publish(command(), event_id="c-1")
        await asyncio.sleep(0.2)
        assert world.of("keyring", KeyErased) == []
        failing = False
        assert isinstance((await world.answered(1))[0], SubjectErased)


async def test_an_id_that_no_receipt_could_name_is_refused() -> None:
    """A dead letter that says how long it may be."""
    async with living(World()) as world:
        world.broker.publish(command(), event_id="c" * 65)
        await until(lambda: len(world.broker.records("commands.dlq")) == 1)
        assert world.answers() == []


async def test_a_touch_ends_segments_and_is_nobodys_key() -> None:
    """One tombstone a partition, which the views of the keyring leave out."""
    async with living(World()) as world:
        before = await world.standing.ends("keyring")
        await world.standing.touch("keyring")
        after = await world.standing.ends("keyring")
        assert after == {number: end + 1 for number, end in before.items()}
        assert [row.key for row in world.broker.records("keyring") if row.value is None] == [TOUCH] * PARTITIONS
        world.broker.publish(command(), event_id="c-1")
        assert isinstance((await world.answered(1))[0], SubjectErased)


async def test_snapshots_go_when_no_topic_names_them_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """As long as the order topics keep what they hold, and for ever where they do; a store that is away is asked again."""
    async with living(World()) as world:
        asked: list[float] = []

        def expire(before_s: float) -> None:
            asked.append(before_s)
            if len(asked) == 1:
                raise OSError(5, "away")

        world.broker.specs["ratchet.cases.order"].config["retention.ms"] = str(40 * DAY_MS)  # type: ignore[index]
        task = asyncio.create_task(world.agent.keep_expiring(expire))
        await until(lambda: len(asked) == 1)
        task.cancel()
        assert asked[0] == pytest.approx(world.broker.clock.now_ms() / 1000 - 40 * 86_400, abs=60)
        assert "kept longer than receipts say" in caplog.text
        world.broker.specs["ratchet.judge.order"].config["retention.ms"] = "-1"  # type: ignore[index]
        task = asyncio.create_task(world.agent.keep_expiring(expire))
        await asyncio.sleep(0.05)
        task.cancel()
        assert len(asked) == 1


async def test_a_view_says_how_far_it_has_come() -> None:
    """Not before it has read; at the end; not when there is more."""
    async with living(World()) as world:
        view = world.runner.view("keyring")
        async with asyncio.timeout(5):
            await view.whole.wait()
        ends = await world.standing.ends("keyring")
        assert view.reached(ends)
        assert not view.reached({number: end + 1 for number, end in ends.items()})
        assert not view.reached({99: 0})
        assert decode(world.broker.records("keyring")[0], PARTITIONS).key == f"{TENANT}/{ANN}"
