"""The command line on a real broker. The other side of the contract is played by the test: it reads and writes real topics."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from infra.clock import SystemClock
from schemas import codec, ids
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused, AnswerReleased, BlindAnswer, Message, ReviewRequested
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from schemas.topics import PREFIX
from streams.admin import ensure_topics
from streams.kafka import KafkaBroker
from streams.wire import letter
from tools.cli import commands, review
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.cli.screen import Progress, Screen
from tools.cli.submit import Defaults, prepare, submit
from tools.cli.tail import tail
from tools.cli.trace import gather, parents

QUIET = Progress(None)
NOW = SystemClock().now_ms


@pytest.fixture
async def bus(kafka: Any) -> AsyncGenerator[Bus, None]:
    bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
    await ensure_topics(bootstrap, 4, 1)
    async with Bus(KafkaBroker(bootstrap), bootstrap) as made:
        yield made


def event(payload: Payload, cause: str, identity: str) -> tuple[str, codec.Encoded]:
    event_id = ids.derive(cause, "played", identity)
    extra = (("ratchet-cause", cause.encode()),)
    row = codec.encode(payload, event_id=event_id, source="played", traceparent="", extra=extra)
    return PREFIX + payload.TOPIC, row


async def play_router(bus: Bus, positions: dict[tuple[str, int], int]) -> None:
    """Answers what is an object with a text, refuses other objects, sends what is no JSON to the dead letters."""
    producer = KafkaBroker(bus.bootstrap).producer()
    await producer.start()
    try:
        async for record in bus.follow(positions):
            if record is None:
                continue
            row = as_row(record)
            place = {"request_partition": record.partition, "request_offset": record.offset}
            who = {"at_ms": NOW(), "route": "cli.test", "request_id": row["key"], **place}
            if row["data"] is None:
                dead = letter(record, agent="router", kind="not-json", message="no JSON", attempts=1, at_ms=NOW())
                await producer.send(dead.topic, dead.partition, [dead.record])
            elif "wrong" in row["data"]:
                refused = AnswerRefused(
                    **who, kind="invalid", field="wrong", reason="no such field", accepted="messages"
                )
                await bus.publish([event(refused, row["id"], "refused")])
            else:
                answer = AnswerReleased(
                    **who, text="yes", arm="a", certified=False, reviewed=False, decision_id="d", latency_ms=5
                )
                await bus.publish([event(answer, row["id"], "released")])
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def played(work: Any) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_every_line_has_one_outcome(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    """Two hundred lines of which ten are bad: each ends once, by its number, and the exit code is 1."""
    given = Defaults("cli.test", None, None, None, f"many-{NOW()}", NOW())
    rows = [b'{"text": "hello"}'] * 200
    for n, bad in enumerate([b"not json", b"\xff", b"[1]", b'{"wrong": 1}', b"x" * 10_000_000] * 2):
        rows[n * 20] = bad
    lines = [prepare(n, row, given) for n, row in enumerate(rows, 1)]
    async with played(play_router(bus, await bus.ends(["ratchet.requests"]))):
        code = await submit(Screen(as_json=True), lines, wait_s=20, bus=bus)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert sorted(row["line"] for row in said[:-1]) == list(range(1, 201))
    assert {k: said[-1]["summary"][k] for k in ("requests", "released", "refused", "dead-letter")} == {
        "requests": 200, "released": 190, "refused": 4, "dead-letter": 6,
    }  # fmt: skip
    assert {row["line"] for row in said[:-1] if row["outcome"] != "released"} == {1 + 20 * n for n in range(10)}


async def test_no_answer_is_three(bus: Bus) -> None:
    """Nobody answers: waiting, with the time that was given."""
    line = prepare(1, b'{"text": "hello"}', Defaults("cli.test", None, None, None, f"none-{NOW()}", NOW()))
    assert await submit(Screen(as_json=True), [line], wait_s=0.5, bus=bus) == 3
    assert line.outcome == "waiting"


async def test_trace_of_a_good_and_a_bad_request(bus: Bus) -> None:
    """The answer hangs on the request, the dead letter on its record."""
    given = Defaults("cli.test", None, None, None, f"trace-{NOW()}", NOW())
    lines = [prepare(1, b'{"text": "hello"}', given), prepare(2, b"not json", given)]
    async with played(play_router(bus, await bus.ends(["ratchet.requests"]))):
        await submit(Screen(as_json=True), lines, wait_s=20, bus=bus)
    for line, topics in zip(
        lines, (["ratchet.requests", "ratchet.answers"], ["ratchet.requests", "ratchet.requests.dlq"]), strict=True
    ):
        rows = await gather(bus, line.request_id)
        assert [row["place"].partition("[")[0] for row in rows] == topics
        assert parents(rows) == {0: None, 1: 0}
    assert await gather(bus, "never-sent") == []


async def test_tail_filters_and_ends(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    """From the beginning, one request, one line."""
    line = prepare(1, b'{"text": "hello"}', Defaults("cli.test", None, None, None, f"tail-{NOW()}", NOW()))
    await bus.publish([("ratchet.requests", line.record)])
    code = await tail(
        Screen(as_json=True), bus, ["ratchet.requests"], route=None, kind="request", request=line.request_id,
        from_beginning=True, since=None, limit=1,
    )  # fmt: skip
    assert code == 0
    assert json.loads(capsys.readouterr().out)["key"] == line.request_id


ROUTE = Route(route="cli.apply", compliance="off", arms=(Arm(arm="base", base="sha256:aa"),), champion="base")


async def play_judge(bus: Bus, positions: dict[tuple[str, int], int], *, refuse: bool = False) -> None:
    """Publishes what is applied, pauses what is paused; or refuses all."""
    producer = KafkaBroker(bus.bootstrap).producer()
    await producer.start()
    try:
        async for record in bus.follow(positions):
            row = as_row(record) if record is not None else None
            if record is None or row is None or not row["key"].startswith("cli."):
                continue
            base = {"at_ms": NOW(), "route": row["key"], "version": record.offset + 1}
            if refuse:
                dead = letter(record, agent="judge", kind="not-now", message="cooling down", attempts=1, at_ms=NOW())
                await producer.send(dead.topic, dead.partition, [dead.record])
            elif row["type"] == "command.apply":
                settings = Route.model_validate(row["data"]["settings"])
                fleet = PolicyFleet(**base, arms=settings.arms, champion=settings.champion)
                await bus.publish(
                    [event(fleet, row["id"], "1"), event(PolicyRoute(**base, settings=settings), row["id"], "0")]
                )
            else:
                fleet = PolicyFleet(**base, arms=ROUTE.arms, champion="base", paused=row["type"] == "command.pause")
                await bus.publish([event(fleet, row["id"], "0")])
    finally:
        await producer.stop()


async def apply(bus: Bus, route: Route, wait_s: float = 15) -> int:
    return await commands.apply_route(
        Screen(as_json=True), bus, route, by="ann", reason="test", wait_s=wait_s, progress=QUIET
    )


async def test_apply_waits_for_the_policy(bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    """Away is 3; taken is 0 with the version, loudly without a gate; the same again changes nothing; a dead letter is 1 with the reason."""
    assert await apply(bus, ROUTE, wait_s=0.5) == 3
    async with played(play_judge(bus, await bus.ends(["ratchet.commands"]))):
        assert await apply(bus, ROUTE) == 0
    assert ["NO GATE" in words for words in json.loads(capsys.readouterr().out.splitlines()[-1])["warnings"]] == [True]
    assert await apply(bus, ROUTE) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["changed"], len(again["warnings"])) == (False, 1)
    async with played(play_judge(bus, await bus.ends(["ratchet.commands"]), refuse=True)):
        assert await apply(bus, ROUTE.model_copy(update={"window_s": 99.0, "deadline_s": 5.0})) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "cooling down"


async def test_a_review_is_listed_until_it_is_judged(bus: Bus) -> None:
    """Oldest first, without arm or score; a verdict takes it off the list."""
    request_id = f"review-{NOW()}"
    wanted = ReviewRequested(
        at_ms=NOW(), route="cli.review", request_id=request_id, request_partition=0, request_offset=0,
        grader="verdict", gated=True, due_ms=NOW() + 60_000, messages=(Message(role="user", content="x"),),
        answers=(BlindAnswer(label="A", text="1"),),
    )  # fmt: skip
    await bus.publish([event(wanted, request_id, "0")])
    found = await review.waiting(bus, "cli.review", NOW())
    assert [row.request_id for row in found] == [request_id]
    assert set(review.shown(found[0])) == {"request_id", "route", "due_ms", "waits", "messages", "answers"}
    given = review.verdict(found[0], by="ann", approve=["A"], reject=[], correct=None, at_ms=NOW())
    await review.give(bus, given)
    assert await review.waiting(bus, "cli.review", NOW()) == []


async def test_a_missing_topic_and_a_missing_broker_are_said(bus: Bus) -> None:
    """Unavailable, with what to do; a record that is too large is refused before anything is sent."""
    with pytest.raises(Unavailable, match="ratchet up"):
        await bus.ends(["ratchet.nosuch"])
    with pytest.raises(Unavailable, match="is away"):
        async with Bus(KafkaBroker("127.0.0.1:1"), "127.0.0.1:1"):
            pass
    with pytest.raises(Refused, match="1,048,588"):
        await bus.publish([("ratchet.requests", codec.Encoded(b"k", b"x" * 2_000_000, ()))])
