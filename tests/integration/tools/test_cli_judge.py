"""Commands and preview against the real judge, ladder and router on a real broker and a real Redis."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agents.judge.fold import Judge
from agents.router.actor import Router
from agents.trust.fold import Ladder
from infra.clock import SystemClock
from infra.store import RedisStore
from schemas.routes import Arm, Route
from streams.admin import ensure_groups, ensure_topics
from streams.kafka import KafkaBroker
from streams.runner import Runner
from tools.cli import commands, preview
from tools.cli.bus import Bus
from tools.cli.place import settings
from tools.cli.screen import Progress, Screen
from tools.cli.submit import Defaults, prepare, submit
from tools.cli.trace import gather

ROUTE = Route(route="cli.judged", arms=(Arm(arm="base", base="sha256:aa"),), champion="base", max_chars=50)


@contextlib.asynccontextmanager
async def agents_of(bootstrap: str, redis_url: str) -> AsyncGenerator[Runner, None]:
    runner = Runner(KafkaBroker(bootstrap), SystemClock())
    store = RedisStore(redis_url, timeout_s=1.0)
    runner.add_fold(Judge())
    runner.add_fold(Ladder())
    runner.add_transform(Router(runner.view("policies"), store, SystemClock(), lambda _: b"k" * 32))
    await ensure_topics(bootstrap, 4, 1)
    await ensure_groups(bootstrap, runner.groups())
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.stop()
        await running
        await store.close()


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_the_loop_of_commands(
    kafka: Any, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apply, bad requests refused by name, pause and resume, trust, preview: each with its effect or its reason."""
    bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
    monkeypatch.setenv("KAFKA_BOOTSTRAP", bootstrap)
    assert settings().kafka_bootstrap == bootstrap
    screen = Screen(as_json=True)

    async def act(kind: str, **more: Any) -> tuple[int, dict[str, Any]]:
        code = await commands.act(screen, kind, "cli.judged", by="ann", reason="test", wait_s=20, **more)
        return code, said(capsys)[-1]

    async with agents_of(bootstrap, redis_url), Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        assert (
            await commands.apply_route(screen, bus, ROUTE, by="ann", reason="", wait_s=30, progress=Progress(None)) == 0
        )
        assert said(capsys)[-1] == {"applied": "cli.judged", "version": 1, "changed": True}

        given = Defaults("cli.judged", None, None, None, f"bad-{SystemClock().now_ms()}", SystemClock().now_ms())
        bad = [
            b"not json", b'{"messages": []}', b'{"text": "x", "unknown": 1}', b'{"text": "x", "route": "nowhere"}',
            b'{"text": "' + b"long " * 20 + b'"}', b"\xff\xfe", b'{"text": "x", "at_ms": "soon"}',
            b'{"text": "x", "request_id": 7}', b'{"text": "x", "at_ms": 9000000000000}',
        ]  # fmt: skip
        lines = [prepare(n, raw, given) for n, raw in enumerate(bad, 1)]
        assert await submit(screen, lines, wait_s=30, bus=bus) == 1
        rows = said(capsys)
        assert {row["line"]: row["outcome"] in ("refused", "dead-letter") for row in rows[:-1]} == {
            line.number: True for line in lines
        }
        assert all(row["detail"] for row in rows[:-1])
        traced = await gather(bus, lines[1].request_id)
        assert [row["type"] for row in traced][:2] == ["request.submitted", "answer.refused"]

        assert (await act("pause"))[0] == 0
        assert (await act("pause"))[1]["changed"] is False
        assert (await act("resume"))[0] == 0
        assert (await act("trust", action="grant", threshold=0.8))[1]["event"]["data"]["mode"] == "GRANTED"
        assert (await act("trust", action="withdraw"))[1]["event"]["data"]["mode"] == "SHADOW"
        code, row = await act("promote")
        assert (code, row["reason"]) == (1, "no challenger")

        assert await preview.run(screen, "cli.judged") == 1
        row = said(capsys)[-1]
        assert (row["champion"], row["judging"], row["look"]) == ("base", False, None)
        assert await preview.run(screen, "cli.never") == 1
