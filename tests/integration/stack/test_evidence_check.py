"""`ratchet evidence check` and `drill` on real parts: what a secured stack refuses, and what an open one does not."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agents.evidence.snapshot import Snapshot, parsed
from infra.settings import Settings
from schemas.errors import Unavailable
from streams.kafka import KafkaBroker
from tools.cli import check, drill, trials_roles
from tools.cli.bus import Bus
from tools.cli.place import open_broker, open_bus
from tools.cli.screen import Exit, Screen
from tools.stack import AGENT_GROUPS, up

DAYS = 365
SEEN_S = 30.0


def ran(command: Callable[[Screen], Awaitable[int]], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """A command's exit code and its answer."""
    capsys.readouterr()
    code = asyncio.run(command(Screen(as_json=True)))
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def checked(screen: Screen) -> Awaitable[int]:
    """All trials."""
    return check.run(screen, None, DAYS)


def drilled(screen: Screen) -> Awaitable[int]:
    """A restore."""
    return drill.run(screen, None)


async def records_of(topics: list[str]) -> int:
    """How many records these topics hold."""
    async with open_bus() as bus:
        assert isinstance(bus, Bus)
        return len(await bus.read(await bus.starts(topics)))


def recorded(settings: Settings, kind: str) -> list[dict[str, Any]]:
    """What the log says of a kind of event."""
    try:
        log = Snapshot.open(settings.state_dir / "evidence")
    except Unavailable:
        return []
    found = [parsed(entry) for _, entry in log.entries()]
    return [value["facts"] for value in found if value.get("type") == kind]


async def recorded_all(settings: Settings, kind: str, many: int) -> list[dict[str, Any]]:
    """The same once the log has so many."""
    async with asyncio.timeout(SEEN_S):
        while len(found := recorded(settings, kind)) < many:  # noqa: ASYNC110
            await asyncio.sleep(0.3)
    return found


def test_a_secured_stack_refuses_what_it_must(
    settings: Settings, ray_address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trial passes and becomes an entry of the log; none leaves a record; a drill gives the signed root."""
    up(
        settings=settings.model_copy(update={"ray_address": ray_address}),  # else the jobs' process would start its own
        secure=True,
        vault=True,
        agents=[group for group in AGENT_GROUPS if group != ("observer",)],
    )
    tried = sorted(
        {f"ratchet.{row.topic}" for row in trials_roles.KAFKA if row.verb == "write" and row.topic != "audit"}
    )
    before = asyncio.run(records_of(tried))
    code, said = ran(checked, capsys)
    rows: list[dict[str, Any]] = said["checks"]
    assert [row for row in rows if not row["passed"]] == []
    assert code == Exit.DONE
    assert asyncio.run(records_of(tried)) == before + 1  # the refusal of the request without a proof
    mine = trials_roles.Foreign("operator", "write", "commands")
    found = asyncio.run(trials_roles.kafka_role(mine, lambda: open_broker(user="operator")))
    assert (found.passed, asyncio.run(records_of(["ratchet.commands"]))) == (False, 0)
    access, config = ([row for row in rows if (row["check"] == "config") is of] for of in (False, True))
    facts = asyncio.run(recorded_all(settings, "access.checked", len(access)))
    assert {(row["check"], row["what"], row["passed"]) for row in facts} == {
        (r["check"], r["what"], True) for r in access
    }
    assert len(asyncio.run(recorded_all(settings, "config.observed", len(config)))) == len(config)
    temp = settings.state_dir / "temp"
    temp.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    code, said = ran(drilled, capsys)
    assert (code, said["passed"], said["root"]) == (Exit.DONE, True, said["restored"])
    (fact,) = asyncio.run(recorded_all(settings, "drill.completed", 1))
    assert fact["passed"] is True
    assert list(temp.iterdir()) == []


def test_an_open_stack_passes_no_trial_of_rights(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Everybody may do everything there: that is what is said and published, nothing is tried by writing, and what to do is named."""
    up(settings=settings, agents=(), ray=False)
    code, said = ran(checked, capsys)
    rows: list[dict[str, Any]] = said["checks"]
    assert code == Exit.NO
    assert {row["passed"] for row in rows if row["check"] == "role"} == {False}
    assert {row["passed"] for row in rows if row["check"] == "transport"} == {False}
    assert "--secure" in " ".join(row["fix"] for row in rows)
    found = {row["what"]: row["passed"] for row in rows}
    assert (found["kafka-user-each"], found["kafka-tls"], found["secret-store"]) == (False, False, False)
    assert found["request-without-proof"] is None  # no router looks at it
    assert asyncio.run(records_of(["ratchet.answers", "ratchet.commands", "ratchet.decisions"])) == 0


async def test_what_is_deleted_before_its_time_is_gone(kafka: str) -> None:
    """`delete_before`: the partition begins where it was told to."""
    from streams.kafka_purge import delete_before
    from streams.port import Outgoing, TopicSpec

    broker, topic = KafkaBroker(kafka), "purge-test"
    admin, producer = broker.admin(), broker.producer()
    await admin.start()
    await producer.start()
    try:
        await admin.create([TopicSpec(topic, 1, 1, {})])
        await producer.send(topic, 0, [Outgoing(b"k", b"v")] * 5)
        await delete_before(kafka, {(topic, 0): 3})
        assert await admin.starts([(topic, 0)]) == {(topic, 0): 3}
    finally:
        await producer.stop()
        await admin.stop()
