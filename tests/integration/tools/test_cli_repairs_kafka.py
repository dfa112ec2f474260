"""`ratchet dlq` and `ratchet offsets` on a real broker, beside an agent at work."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from streams_contract import FAST, Echo, World, request

from infra.clock import SystemClock
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused
from schemas.topics import deferred_topic, plans
from streams.admin import ensure_topics, specs_of, topic_problems
from streams.kafka import KafkaBroker
from streams.runner import Runner
from tools.cli import letters, offsets
from tools.cli.bus import Bus
from tools.cli.repairs import Agent, By, opened
from tools.cli.screen import Screen

CLOCK = SystemClock()
JSON = Screen(as_json=True)


@pytest.fixture
async def world(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World, None]:
    """The broker, which the commands find as a user's would."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    await ensure_topics(kafka, 4, 1)
    made = await World(KafkaBroker(kafka), f"dl{CLOCK.now_ms()}").start()
    await made.topics("ratchet.commands")
    yield made
    await made.stop()


@asynccontextmanager
async def running(world: World, agent: Echo) -> AsyncGenerator[None, None]:
    runner = Runner(world.broker, CLOCK, settings=FAST)
    runner.add_transform(agent)
    task = asyncio.create_task(runner.run())
    try:
        yield
        await runner.stop()
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def answers(world: World, agent: str, count: int) -> list[tuple[str, str]]:
    """(id, text) of so many answers."""
    async with asyncio.timeout(20):
        while len(found := await world.answers(agent)) < count:  # noqa: ASYNC110  the broker does not signal
            await asyncio.sleep(0.1)
    return [(row.id, row.data.reason) for row in found if isinstance(row.data, AnswerRefused)]


async def open_letters(agent: str, count: int, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `ratchet dlq list` says of the agent, once it says so many."""
    async with asyncio.timeout(20):
        while True:
            capsys.readouterr()
            async with opened("operator") as (_, bus):
                assert await letters.listed(JSON, bus, letters.Asked(agent=agent)) == 0
            rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()][:-1]
            if len(rows) == count:
                return rows
            await asyncio.sleep(0.2)


async def test_a_dead_letter_is_listed_edited_sent_back_and_processed_once(
    world: World, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Beside the running agent; a second time is refused, the other letter is discarded, and nothing is left open."""
    agent = Echo(world.agent("echo"))
    await world.join(agent.name)
    async with running(world, agent):
        await world.publish(request("one", "refused"), request("two", "refused"), request("three", "fine"))
        rows = await open_letters(agent.name, 2, capsys)
        one, two = (next(row["place"] for row in rows if row["key"] == key) for key in ("one", "two"))
        file = tmp_path / "value"
        assert await letters.run_show(JSON, one, file) == 0
        file.write_text(file.read_text().replace("refused", "mended"))
        how: dict[str, Any] = {"by": "ann", "sender": None, "reason": "typo", "type_": None}
        assert await letters.run_send(JSON, one, **how, value=file, again=False) == 0
        found = await answers(world, agent.name, 2)
        with pytest.raises(Refused, match="was sent back by ann"):
            await letters.run_send(JSON, one, **how, value=file, again=False)
        assert await letters.run_discard(JSON, two, by="ann", reason="not wanted", again=False) == 0
        with pytest.raises(Refused, match="was discarded by ann"):
            await letters.run_send(JSON, two, **how, value=None, again=False)
        assert await open_letters(agent.name, 0, capsys) == []
    assert sorted(text for _, text in found) == ["fine", "mended"]
    assert len(await world.answers(agent.name)) == 2
    told = [row for row in await world.read("ratchet.commands") if agent.name.encode() in (row.value or b"")]
    assert [dict(row.headers)["ce_type"] for row in told] == [
        b"ratchet.command.resend.v1",
        b"ratchet.command.discard.v1",
    ]


async def test_an_agent_whose_offsets_go_back_reads_again_under_the_same_ids(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused while it runs; then moved, told, and what it sends again has the ids that it had."""
    echo = Echo(world.agent("echo"))
    await world.join(echo.name)
    name, inputs = echo.name, ("ratchet.requests", deferred_topic(echo.name))
    agent, ann = Agent(name, inputs, False), By("ann", "read again")
    before = {tp: offset for tp, offset in world.marks.items() if tp[0] == "ratchet.requests"}
    starts = await world.admin.committed(f"ratchet.{name}", list(before))
    back = [f"requests[{number}]@{offset}" for (_, number), offset in starts.items()]
    async with Bus(world.broker, "kafka") as bus:
        async with running(world, echo):
            await world.publish(*(request(f"r{n}", f"text {n}") for n in range(8)))
            first = await answers(world, name, 8)
            with pytest.raises(Refused, match="is running"):
                await offsets.shift(JSON, world.broker, bus, agent, back, ann, yes=True)
        async with asyncio.timeout(10):
            while await world.admin.members(f"ratchet.{name}"):  # noqa: ASYNC110  until its session ends
                await asyncio.sleep(0.2)
        assert await offsets.shift(JSON, world.broker, bus, agent, back, ann, yes=False) == 1
        assert await offsets.shift(JSON, world.broker, bus, agent, back, ann, yes=True) == 0
        assert await world.admin.committed(f"ratchet.{name}", list(before)) == starts
    async with running(world, Echo(name)):
        both = await answers(world, name, 16)
    assert len(both) == 16
    assert set(both) == set(first)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    moved = [row for row in said if row.get("moved")]
    told = [json.loads(row.value or b"") for row in await world.read("ratchet.commands")]
    mine = [row for row in told if row["agent"] == name]
    assert sorted((row["partition"], row["from"], row["to"]) for row in moved) == sorted(
        (row["partition"], row["from_offset"], row["to_offset"]) for row in mine
    )
    assert len(moved) >= 2


async def test_topics_are_checked_against_the_table(world: World) -> None:
    """As `ratchet up` makes them there is nothing to say; against another plan each difference is named with both values."""
    rows = list(plans())
    assert await topic_problems(world.admin, specs_of(rows, 4, 1)) == []
    problems = await topic_problems(world.admin, specs_of(rows[:1], 6, 3))
    assert problems == [
        "ratchet.requests: 4 partitions, wanted 6",
        "ratchet.requests: min.insync.replicas=1, wanted 2",
        "ratchet.requests: 1 replicas, wanted 3",
    ]


async def test_a_broker_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unavailable, which is exit code 3, with its address."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        await letters.run_list(JSON, letters.Asked())
