"""Requests, verdicts and commands meet the real agents on the broker in memory: the proven are done, the others said by name."""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from living import living
from spoken import Ears, credential, encoded, ring_of, secret

from agents.cases.fold import Cases
from agents.judge.fold import Judge
from agents.router.actor import Router
from agents.router.around import StoreAround
from agents.trust.fold import Ladder
from infra.store import MemoryStore
from schemas.codec import Encoded
from schemas.errors import Refused
from schemas.events import AnswerRefused, CommandApply, CommandPause, Message, RequestSubmitted, VerdictGiven
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.principal import EMPTY, Credential
from schemas.routes import Arm, Route
from schemas.topics import plans
from streams.admin import ensure_groups
from streams.memory import MemoryBroker
from streams.port import Outgoing, TopicSpec
from streams.reader import ByPlace
from streams.recorded import RecordedLog
from streams.replay import unproven
from streams.runner import Runner, RuntimeSettings
from streams.shapes import Record
from streams.wire import Decoder, Verify, decode, parked, partition_of, unparked

PARTITIONS = 2
ROLES = {"shop": ("upstream",), "ann": ("reviewer",), "op": ("operator",)}
ROUTE = Route(route="bank", compliance="off", arms=(Arm(arm="base", base="sha256:0"),), champion="base")
KINDS = ("forged", "unknown-key", "unproven", "proof-expired", "wrong-role")


class World:
    """Agents that listen, and what came of what they were told."""

    def __init__(self, ears: Ears) -> None:
        self.broker = MemoryBroker(PARTITIONS)
        self.ears = ears
        self.now = self.broker.clock.now_ms

    async def start(self) -> None:
        admin = self.broker.admin()
        await admin.start()
        await admin.create([TopicSpec(row.full, PARTITIONS, 1, row.config) for row in plans()])
        self.admin, self.producer = admin, self.broker.producer()
        await self.producer.start()
        settings = RuntimeSettings(linger_s=0.002, retry_s=0.05, defer_s=0.05, tick_s=60)
        self.runner = Runner(self.broker, self.broker.clock, settings=settings, decoder=Decoder(self.ears))
        policies = self.runner.view("policies")
        store = MemoryStore()
        self.runner.add_transform(
            Router(
                policies,
                store,
                StoreAround(store, self.broker.clock),
                ByPlace(self.broker),
                self.broker.clock,
                lambda _: b"k" * 32,
            )
        )
        for fold in (Cases(), Judge(), Ladder()):
            self.runner.add_fold(fold)
        await ensure_groups("memory", self.runner.groups(), admin=admin)
        self.task = asyncio.create_task(self.runner.run())

    async def say(self, topic: str, row: Encoded) -> None:
        at = partition_of(row.key, PARTITIONS)
        await self.producer.send(f"ratchet.{topic}", at, [Outgoing(row.key, row.value, row.headers)])

    async def records(self, topic: str) -> list[Record]:
        """Every committed record of a topic."""
        tps = [(f"ratchet.{topic}", number) for number in range(PARTITIONS)]
        reader = self.broker.reader(await self.admin.starts(tps))
        await reader.start()
        ends, found = await self.admin.ends(tps), list[Record]()
        while [tp for tp in tps if await reader.position(tp) < ends[tp]]:
            for rows in (await reader.poll(timeout_s=0.05, max_records=500)).values():
                found += rows
        await reader.stop()
        return sorted(found, key=lambda row: row.timestamp_ms)

    async def until(self, topic: str, count: int) -> list[Record]:
        """As many records on a topic, and no more a moment later."""
        for _ in range(500):
            if len(await self.records(topic)) >= count:
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)
        found = await self.records(topic)
        assert len(found) == count
        return found

    async def events(self, topic: str, count: int) -> list:
        return [decode(row, PARTITIONS).data for row in await self.until(topic, count)]


def running(ears: Ears) -> AbstractAsyncContextManager[World]:
    return living(World(ears))


def request(world: World, name: str) -> Encoded:
    """A request for a route that nobody applied: the router's answer says that it was heard."""
    message = Message(role="user", content="hello")
    told = RequestSubmitted(at_ms=world.now(), route="nowhere", request_id=name, messages=(message,))
    return encoded(told, f"e-{name}")


def verdict(world: World, by: str = "ann") -> Encoded:
    told = VerdictGiven(at_ms=world.now(), route="bank", request_id="r-1", by=by, corrected="x")
    return encoded(told, f"v-{by}-{world.now()}")


def command(world: World, by: str = "op", kind: type = CommandApply) -> Encoded:
    more = {"settings": ROUTE} if kind is CommandApply else {}
    return encoded(kind(at_ms=world.now(), route="bank", operator=by, **more), f"c-{kind.TYPE}-{by}-{world.now()}")


def spoiled(world: World, plain: Encoded, name: str) -> dict[str, Encoded]:
    """The record as it must not be taken, by the kind of refusal."""
    now, own = world.now(), credential(name)
    good = own.prove(plain, at_ms=now)
    other = "shop" if name == "op" else "op"
    return {
        "forged": replace(good, value=good.value + b" "),
        "unknown-key": Credential("mallory", "k1", b"m" * 32).prove(plain, at_ms=now),
        "unproven": plain,
        "proof-expired": own.prove(plain, at_ms=now - 3_600_000),
        "wrong-role": credential(other).prove(plain, at_ms=now),
    }


def letters(rows: list[Record]) -> list[tuple[str, str]]:
    """(agent, kind) of dead letters."""
    told = [dict(row.headers) for row in rows]
    return [(row["ratchet-dlq-agent"].decode(), row["ratchet-dlq-kind"].decode()) for row in told]


async def test_requests_are_answered_by_name() -> None:
    """A proven request is heard; each of the others is refused once, by its kind, to its own record."""
    async with running(Ears(ring_of(ROLES))) as world:
        await world.say("requests", credential("shop").prove(request(world, "good"), at_ms=world.now()))
        for kind, row in spoiled(world, request(world, "bad"), "shop").items():
            await world.say("requests", replace(row, headers=(*row.headers, ("x-case", kind.encode()))))
        said = await world.events("answers", 1 + len(KINDS))
        sent = {(row.partition, row.offset): dict(row.headers) for row in await world.records("requests")}
        assert all(isinstance(one, AnswerRefused) for one in said)
        for one in said:
            case = sent[one.request_partition, one.request_offset].get("x-case", b"unknown-route").decode()
            assert one.kind == case
            assert one.reason
            assert "accepted:" not in one.reason
            assert secret("shop").hex() not in one.model_dump_json()
        assert await world.records("requests.dlq") == []


async def test_verdicts_and_commands_end_as_dead_letters() -> None:
    """Untouched, with the kind, from every agent that reads them; nothing of them is done, the proven ones are."""
    async with running(Ears(ring_of(ROLES))) as world:
        for row in spoiled(world, verdict(world), "ann").values():
            await world.say("verdicts", row)
        bad = spoiled(world, command(world), "op")
        for row in bad.values():
            await world.say("commands", row)
        found = letters(await world.until("verdicts.dlq", len(KINDS)))
        assert sorted(found) == sorted(("cases", kind) for kind in KINDS)
        dead = await world.until("commands.dlq", 2 * len(KINDS))
        assert sorted(letters(dead)) == sorted((agent, kind) for agent in ("judge", "ladder") for kind in KINDS)
        assert {row.value for row in dead} == {row.value for row in bad.values()}
        assert await world.records("policies") == []
        await world.say("commands", credential("op").prove(command(world), at_ms=world.now()))
        await world.say("verdicts", credential("ann").prove(verdict(world), at_ms=world.now()))
        made = await world.events("policies", 3)
        assert [one.author for one in made if isinstance(one, PolicyRoute)] == ["op"]
        await world.until("verdicts.dlq", len(KINDS))


async def test_nobody_speaks_under_another_name() -> None:
    """A genuine proof by one principal over a verdict `by`, or a command of, another is refused."""
    async with running(Ears(ring_of(ROLES))) as world:
        await world.say("verdicts", credential("ann").prove(verdict(world, by="bob"), at_ms=world.now()))
        await world.say("commands", credential("op").prove(command(world, by="boss"), at_ms=world.now()))
        assert letters(await world.until("verdicts.dlq", 1)) == [("cases", "wrong-principal")]
        assert {kind for _, kind in letters(await world.until("commands.dlq", 2))} == {"wrong-principal"}


async def test_a_copy_of_a_proven_command_is_done_once() -> None:
    """A pause caught on the way and sent again after the resume does not pause."""
    async with running(Ears(ring_of(ROLES))) as world:
        op = credential("op")
        await world.say("commands", op.prove(command(world), at_ms=world.now()))
        await world.until("policies", 3)
        caught = op.prove(command(world, kind=CommandPause), at_ms=world.now())
        await world.say("commands", caught)
        await world.until("policies", 4)
        await world.say("commands", caught)
        fleets = [one for one in await world.events("policies", 4) if isinstance(one, PolicyFleet)]
        assert [one.paused for one in fleets] == [False, True]
        assert await world.records("commands.dlq") == []


async def test_without_any_key_everything_is_taken() -> None:
    """And from the first key's start on nothing unproven is: the agents need no restart."""
    async with running(Ears(EMPTY)) as world:
        await world.say("commands", command(world))
        await world.until("policies", 3)
        world.ears.ring = ring_of(ROLES, not_before_ms=world.now())
        await asyncio.sleep(0.002)
        await world.say("requests", request(world, "late"))
        assert [one.kind for one in await world.events("answers", 1)] == ["unproven"]


async def test_replay_says_the_same_with_rotated_keys_and_with_none() -> None:
    """Decoded again by a ring whose keys have ended since, and by the log's refusals alone, each record is as it was."""
    ears = Ears(ring_of(ROLES))
    async with running(ears) as world:
        for row in (*spoiled(world, command(world), "op").values(), command(world)):
            await world.say("commands", row)
        await world.say("commands", credential("op").prove(command(world), at_ms=world.now()))
        for row in (*spoiled(world, request(world, "a"), "shop").values(), request(world, "b")):
            await world.say("requests", row)
        dead = await world.until("commands.dlq", 2 * (len(KINDS) + 1))
        answers = await world.until("answers", len(KINDS) + 1)
        ears.ring = ring_of(ROLES, not_after_ms=world.now() + 1)
        for topic, agent in (("commands", "judge"), ("requests", "router")):
            recorded = as_recorded([*dead, *answers], agent)
            spoken = await world.records(topic)
            first = [outcome(row, Ears(ring_of(ROLES))) for row in spoken]
            assert [outcome(row, ears) for row in spoken] == first
            assert [outcome(row, recorded) for row in spoken] == first
            assert len({kind for kind, _ in first if kind}) == len(KINDS)


def as_recorded(rows: Iterable[Record], agent: str) -> Verify:
    """What a replay of the agent goes by: the refusals that the log has, and no key."""
    log = RecordedLog(PARTITIONS)
    log.add(rows)

    def verify(record: Record) -> None:
        for refused in filter(None, map(unproven, log.outputs(agent, str(record.place)))):
            raise refused

    return verify


def outcome(row: Record, verify: Verify) -> tuple[str, str]:
    """The kind and the reason of a refusal, as an answer has them, or nothing."""
    try:
        decode(row, PARTITIONS, verify)
    except Refused as fault:
        return fault.kind, str(fault).partition("; accepted: ")[0].rpartition(": ")[2]
    return "", ""


def test_a_deferred_request_keeps_its_time() -> None:
    """A proof that held when the record was written still holds when its agent takes it up again, later than the proof."""
    message = Message(role="user", content="hello")
    told = RequestSubmitted(at_ms=1, route="bank", request_id="r", messages=(message,))
    row = credential("shop").prove(encoded(told, "e"), at_ms=1_000_000)
    record = Record("ratchet.requests", 0, 3, row.key, row.value, row.headers, 1_000_000)
    sent = parked(record, attempt=1, topic="ratchet.router.deferred", not_before_ms=5).record
    later = Record("ratchet.router.deferred", 0, 9, sent.key, sent.value, sent.headers, 99_000_000)
    again, attempt, due = unparked(later)
    assert (again, attempt, due) == (record, 1, 5)
    assert decode(again, 1, Ears(ring_of(ROLES))).data == told
    with pytest.raises(Refused, match="has passed"):
        decode(replace(again, timestamp_ms=99_000_000), 1, Ears(ring_of(ROLES)))
