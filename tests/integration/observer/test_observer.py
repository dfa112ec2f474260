"""The observer on a real broker: committed records counted once, aborted ones never, views rebuilt after a restart."""

import asyncio
import json
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from agents.observer import app
from infra.clock import SystemClock
from infra.settings import Settings, process_environment
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


class Process:
    """The observer as it runs: a process of its own, with a folder of its own."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        folder.mkdir()
        self.file = folder / app.SNAPSHOT
        self._settings = Settings(kafka_bootstrap=bootstrap, state_dir=folder, log_level="warning")

    async def __aenter__(self) -> "Process":
        command = (sys.executable, "-m", "agents", "observer")
        environment = process_environment() | self._settings.to_env()
        self._process = await asyncio.create_subprocess_exec(*command, env=environment)
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def counted(self, arm: str, wanted: int) -> int:
        """What it counts of an arm once that is `wanted`, and a while later."""
        async with asyncio.timeout(30):
            while not self.file.exists() or arm_row(json.loads(self.file.read_text()), arm)["completed"] < wanted:
                assert self._process.returncode is None
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        return arm_row(json.loads(self.file.read_text()), arm)["completed"]


async def test_killed_and_robbed_it_rebuilds_its_windows_and_nobody_else_sees_it(kafka, tmp_path: Path) -> None:
    """Killed with SIGKILL, behind by what was written meanwhile, without a file of its own: it counts right again, aborted records
    not, and in all this no topic, no record and no other group's offset was changed by it."""
    await ensure_topics(kafka, 4, 1, wanted=list(plans()))
    admin, group, arm = KafkaBroker(kafka).admin(), "ratchet.observed-beside", "robbed"
    await admin.start()
    names, beside = sorted(plan.full for plan in plans()), (app.topics()[0], 0)
    tps = [(name, number) for name in names for number in range(4)]
    mine = [result(n).model_copy(update={"arm": arm}) for n in range(120)]
    try:
        await admin.set_offsets(group, {beside: 0})
        async with Process(kafka, tmp_path / "first") as first:
            await transaction(kafka, list(mine[:50]), commit=True)
            await transaction(kafka, list(mine[50:70]), commit=False)
            assert await first.counted(arm, 50) == 50
        began = asyncio.get_running_loop().time()
        await transaction(kafka, list(mine[70:]), commit=True)
        assert asyncio.get_running_loop().time() - began < 5  # nobody waits for it
        ends, known = await admin.ends(tps), await admin.partitions(names)
        async with Process(kafka, tmp_path / "second") as second:
            assert await second.counted(arm, 100) == 100
        assert await admin.ends(tps) == ends
        assert await admin.partitions(names) == known
        assert await admin.committed(group, [beside]) == {beside: 0}
    finally:
        await admin.stop()
