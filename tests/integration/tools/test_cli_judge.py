"""Commands, preview and judge show against the real judge, ladder and router on a real broker and a real Redis."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from agents.judge.fold import Judge
from agents.router.actor import Router
from agents.router.around import StoreAround
from agents.trust.fold import Ladder
from infra.clock import SystemClock
from infra.store_redis import RedisStore
from schemas import codec, ids
from schemas.events import AdapterLive, AdapterRegistered, CaseAnswered, CaseArm, CaseClosed, Message
from schemas.payload import Payload
from schemas.routes import Arm, JudgeSettings, Route
from streams.admin import ensure_groups, ensure_topics
from streams.kafka import KafkaBroker
from streams.reader import ByPlace
from streams.runner import Runner
from tools.cli import commands, judge, preview
from tools.cli.bus import Bus
from tools.cli.place import settings
from tools.cli.screen import Progress, Screen
from tools.cli.submit import Defaults, prepare, submit
from tools.cli.trace import gather

ROUTE = Route(
    route="cli.judged", compliance="off", arms=(Arm(arm="base", base="sha256:aa"),), champion="base", max_chars=50
)


@contextlib.asynccontextmanager
async def agents_of(bootstrap: str, redis_url: str) -> AsyncGenerator[Runner, None]:
    broker = KafkaBroker(bootstrap)
    runner = Runner(broker, SystemClock())
    again = ByPlace(broker)
    store = RedisStore(redis_url, timeout_s=1.0)
    runner.add_fold(Judge())
    runner.add_fold(Ladder())
    runner.add_transform(
        Router(
            runner.view("policies"),
            store,
            StoreAround(store, SystemClock()),
            again,
            SystemClock(),
            lambda _: b"k" * 32,
        )
    )
    await ensure_topics(bootstrap, 4, 1)
    await ensure_groups(bootstrap, runner.groups())
    running = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.stop()
        await running
        await again.stop()
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
        row = said(capsys)[-1]
        assert ["NO GATE" in words for words in row.pop("warnings")] == [True]
        assert row == {"applied": "cli.judged", "version": 1, "changed": True}

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
        assert (row["champion"], row["judging"], row["looks"]) == ("base", False, [])
        assert await preview.run(screen, "cli.never") == 1
        capsys.readouterr()
        assert await judge.run(screen, "cli.never", png=None, recompute=False) == 1
        assert said(capsys)[-1]["found"] == 0


def pair(index: int, at_ms: int, arena: str) -> list[Payload]:
    """A request that both arms answered: announced, and closed at once. The old arm is right two times in five, the new one always."""
    case: dict[str, Any] = {
        "route": "cli.arena", "request_id": f"q{index:04d}", "request_partition": 0, "request_offset": index,
        "decision_id": f"d{index}", "assigned_at_ms": at_ms, "window_end_ms": at_ms + 1, "arenas": (arena,),
        "arm": "base", "at_ms": at_ms,
    }  # fmt: skip
    done: dict[str, Any] = {"status": "completed", "latency_us": 1000}
    arms = (
        CaseArm(arm="base", shadow=False, text="a", grade=1000 * (index % 5 < 2), **done),
        CaseArm(arm="tuned", adapter="sha256:bb", shadow=True, text="b", grade=1000, **done),
    )
    said = CaseClosed(
        **case, why="complete", messages=(Message(role="user", content="x"),), arms=arms, choices=(), grader="reference",
        verdict_kind="reference",
    )  # fmt: skip
    return [CaseAnswered(**case, ok=True, latency_us=1000, released=True, shadows=("tuned",)), said]


async def tell(bus: Bus, *payloads: Payload) -> None:
    """Publish events as their agents would."""
    rows: list[tuple[str, codec.Encoded]] = []
    for number, payload in enumerate(payloads):
        event_id = ids.derive(f"{payload.TYPE}/{payload.at_ms}/{number}", "test", 0)
        trace = ids.trace_parent(None, event_id)
        rows.append(
            ("ratchet." + payload.TOPIC, codec.encode(payload, event_id=event_id, source="t", traceparent=trace))
        )
    await bus.publish(rows)


async def until(
    screen: Screen, capsys: pytest.CaptureFixture[str], told: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """What preview says once that is so; it fails after 30 s."""
    for _ in range(60):
        await preview.run(screen, "cli.arena")
        row = said(capsys)[-1]
        if told(row):
            return row
        await asyncio.sleep(0.5)
    raise AssertionError(row)


async def test_an_arena_from_its_opening_to_its_rollback(
    kafka: Any, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Forecast, approval, a stage, promotion, a rollback that waits for the old arm: each as the command line tells it."""
    bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
    monkeypatch.setenv("KAFKA_BOOTSTRAP", bootstrap)
    screen, clock = Screen(as_json=True), SystemClock()
    numbers = JudgeSettings(
        min_pairs=20, min_time_s=0, cooldown_s=0, latency_slo_ms=100, novelty_pairs=0, stages=(0.5,), stage_time_s=2,
        quality_margin=0.3, quality_harm=0.5, latency_margin=0.3, latency_harm=0.5, error_margin=0.3, error_harm=0.5,
        cost_margin=0.8, cost_harm=0.9,
    )  # fmt: skip
    route = Route(
        route="cli.arena", compliance="off", arms=(Arm(arm="base", base="b"),), champion="base", judge=numbers, approval="operator",
        grader="reference",
    )  # fmt: skip

    async def act(kind: str, wait_s: float = 20) -> tuple[int, dict[str, Any]]:
        code = await commands.act(screen, kind, "cli.arena", by="ann", reason="test", wait_s=wait_s)
        return code, said(capsys)[-1]

    async with agents_of(bootstrap, redis_url), Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        await commands.apply_route(screen, bus, route, by="ann", reason="", wait_s=30, progress=Progress(None))
        capsys.readouterr()
        adapter = AdapterRegistered(
            route="cli.arena", at_ms=clock.now_ms(), order_id="o", adapter="sha256:bb", base="b", dataset="d",
            cutoff_ms=0, metrics={}, arm="tuned",
        )  # fmt: skip
        await tell(bus, adapter)
        row = await until(screen, capsys, lambda row: row["judging"])
        arena = row["looks"][0]["arena"]
        assert row["looks"][0]["forecast"]["overall"]["pairs"] is None

        at = clock.now_ms() + 5
        await tell(bus, *(event for index in range(20) for event in pair(index, at + index, arena)))
        row = await until(screen, capsys, lambda row: row["looks"][0]["pairs"] == 20)
        assert row["pending"] == {"waiting": 0, "closed": 0, "late": 0, "overflow": 0}
        assert row["looks"][0]["forecast"]["overall"]["pairs"] > 0
        assert (await act("promote"))[0] == 1

        at = clock.now_ms() + 5
        await tell(bus, *(event for index in range(20, 80) for event in pair(index, at + index, arena)))
        row = await until(screen, capsys, lambda row: row["looks"][0]["decision"] == "request_approval")
        assert row["looks"][0]["forecast"]["overall"] == {"pairs": 0, "low": 0, "high": 0}
        code, row = await act("promote")
        assert (code, row["event"]["type"]) == (0, "promotion.staged")
        row = await until(screen, capsys, lambda row: row["champion"] == "tuned")
        assert (row["rollback"], row["rollback_live"], row["looks"][0]["holdback"]) == ("base", False, True)

        code, row = await act("rollback", wait_s=3)
        assert (code, row["taken"], row["event"]["type"]) == (3, True, "policy.fleet")
        assert row["event"]["data"]["reason"].startswith("rollback waits until base is proven live")
        live = AdapterLive(
            route="cli.arena", at_ms=clock.now_ms(), arm="base", adapter=None, instance="e", base="b", load_ms=1.0, order_id=""
        )  # fmt: skip
        await tell(bus, live)
        await until(screen, capsys, lambda row: row["champion"] == "base")
        assert (await act("rollback"))[0] == 1

        picture = tmp_path / "arena.png"
        assert await judge.run(screen, "cli.arena", png=picture, recompute=True) == 0
        row = said(capsys)[-1]
        assert (row["arena"], row["outcome"], row["recomputed"]["differ"]) == (arena, "promoted, rolled back", [])
        assert row["recomputed"]["agree"] == len(row["looks"]) > 0
        assert picture.read_bytes().startswith(b"\x89PNG")
