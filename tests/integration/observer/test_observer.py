"""The observer on a real broker: committed records counted once, aborted ones never, views rebuilt after a restart."""

import asyncio
import json
import urllib.request
from pathlib import Path

from agents.observer import app
from infra.clock import SystemClock
from infra.settings import Settings
from schemas import codec, ids
from schemas.events import AnswerRefused, ResultCompleted
from schemas.payload import Payload
from schemas.topics import plans
from streams.admin import ensure_topics
from streams.kafka import KafkaBroker
from streams.port import Outgoing
from streams.shapes import Record
from streams.wire import letter, partition_of

ROUTE = "observer.test"


def result(number: int) -> ResultCompleted:
    return ResultCompleted(
        at_ms=SystemClock().now_ms(),
        route=ROUTE,
        request_id=f"observed-{number}",
        request_partition=0,
        request_offset=number,
        arm="champion",
        shadow=False,
        final=True,
        decision_id="d",
        assigned_at_ms=0,
        window_end_ms=1,
        latency_ms=10.0 + number % 10,
        text="secret words",
        tokens_in=3,
        tokens_out=4,
        ttft_ms=1.0,
        engine_ms=2.0,
        finish_reason="stop",
        logprobs=(-0.1,),
        engine="scripted",
    )


def outgoing(payload: Payload, number: int) -> Outgoing:
    event_id = ids.derive(ROUTE, "test", f"{payload.TYPE}/{number}")
    row = codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))
    return Outgoing(row.key, row.value, row.headers)


async def transaction(bootstrap: str, payloads: list[Payload], *, commit: bool) -> None:
    producer = KafkaBroker(bootstrap).transactional("observer-test")
    await producer.start()
    await producer.begin()
    for number, payload in enumerate(payloads):
        row = outgoing(payload, number)
        topic = f"ratchet.{payload.TOPIC}"
        for sent in await producer.send(topic, partition_of(row.key or b"", 4), [row]):
            await sent
    await (producer.commit() if commit else producer.abort())
    await producer.stop(2.0)


def arm_row(snapshot: dict, arm: str) -> dict:
    return next(
        (row for row in snapshot["windows"]["60"] if row["route"] == ROUTE and row["arm"] == arm), {"completed": 0}
    )


async def observe(bootstrap: str, folder: Path, wanted: int, *, settle_s: float = 2.0) -> tuple[dict, str]:
    """Run the observer until it has counted `wanted` results and a while longer; its snapshot and metrics page."""
    settings = Settings(kafka_bootstrap=bootstrap, state_dir=folder)
    stop = asyncio.Event()
    running = asyncio.create_task(app.serve(settings, stop, group="ratchet.observer-test"))
    file = folder / app.SNAPSHOT
    try:
        async with asyncio.timeout(60):
            while not running.done():
                await asyncio.sleep(0.2)
                if file.exists() and arm_row(json.loads(file.read_text()), "champion")["completed"] >= wanted:
                    break
        await asyncio.sleep(settle_s)
        snapshot = json.loads(file.read_text())
        url = f"http://127.0.0.1:{snapshot['metrics_port']}/metrics"
        page = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
    finally:
        stop.set()
        await running
        file.unlink()
    return snapshot, page


async def test_committed_once_aborted_never_and_rebuilt(kafka, tmp_path: Path) -> None:
    """160 committed results count 160, 40 aborted ones 0, and a second process comes to the same figures from the log."""
    bootstrap = kafka if isinstance(kafka, str) else kafka.bootstrap
    await ensure_topics(bootstrap, 4, 1, wanted=list(plans()))
    await transaction(bootstrap, [result(n) for n in range(100)], commit=True)
    await transaction(bootstrap, [result(n) for n in range(100, 140)], commit=False)
    refused = AnswerRefused(
        at_ms=SystemClock().now_ms(), route=ROUTE, request_id="bad", kind="unknown-route", field="route",
        reason="unknown", accepted="a route", request_partition=0, request_offset=7,
    )  # fmt: skip
    await transaction(bootstrap, [*(result(n) for n in range(140, 200)), refused], commit=True)
    raw = Record("ratchet.requests", 1, 3, b"k", b"{", (), 0)
    dead = letter(raw, agent="router", kind="observer-test", message="x", attempts=1, at_ms=SystemClock().now_ms())
    producer = KafkaBroker(bootstrap).producer()
    await producer.start()
    await producer.send(dead.topic, dead.partition, [dead.record])
    await producer.stop()

    first, page = await observe(bootstrap, tmp_path, 160)
    row = arm_row(first, "champion")
    assert row["completed"] == 160
    assert 13 <= row["p50_ms"] <= 16
    assert {"route": ROUTE, "kind": "unknown-route", "count": 1} in first["refused"]
    assert {"topic": "ratchet.requests.dlq", "kind": "observer-test", "count": 1} in first["dead_letters"]
    assert f'ratchet_observed_per_s{{arm="champion",route="{ROUTE}"}}' in page
    assert "secret words" not in page + json.dumps(first)

    again, _ = await observe(bootstrap, tmp_path, 160)
    assert arm_row(again, "champion")["completed"] == 160
