"""The observer as a faust application: reads committed records, counts them into windows, decides nothing.

What holds (each was seen to fail otherwise):
1. `read_committed`: faust reads aborted records, so its consumer thread is subclassed.
2. Concurrency 1 and one process: more loses records.
3. The views are rebuilt from the log: at each start the positions go back to the horizon, whatever the group has committed,
   so no table has to agree with an offset. A record counts once (`fold.py`, rule 1).
4. It creates no topic and writes none.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportPrivateUsage=false
# faust is typed in parts only; what leaves this file is typed by fold.py.

import asyncio
import json
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from agents.observer.fold import AHEAD_MIN, MINUTE_MS, NAME_CHARS, Seen, Views
from infra.clock import Clock, SystemClock
from infra.settings import Settings
from infra.telemetry import Sample, Telemetry, configure_logs, logger
from schemas.errors import Refused
from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from schemas.topics import BY_NAME
from streams.kafka_names import take_any_names
from streams.security import MECHANISM, PLAINTEXT, Security

NAME = "ratchet.observer"
READS = ("results", "answers", "scores", "cases")
SNAPSHOT = "observer.json"  # in the state folder; `ratchet status` reads it
HORIZON_MIN = 24 * 60
WRITE_S = 1.0
SESSION_S = 8.0


def topics() -> list[str]:
    """What the observer reads: the events it counts and every dead-letter topic."""
    return [BY_NAME[name].full for name in READS] + [t.dlq for t in BY_NAME.values() if t.dead_letters]


class _CommittedThread(AIOKafkaConsumerThread):
    """Reads committed records only, from the horizon on."""

    since_ms: Callable[[], int]

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # faust itself asks for it only with its own transactions, which duplicate
        consumer._isolation_level = "read_committed"  # noqa: SLF001  the client takes it at start, faust has no setting
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return cast("Mapping[TP, int]", await self.call_thread(self._seek_back))

    async def _seek_back(self) -> dict[Any, int]:
        consumer: Any = self._ensure_consumer()
        assigned = list(consumer.assignment())
        if not assigned:
            return {}
        since = cast("_Transport", self.transport).since_ms()
        found = await consumer.offsets_for_times(dict.fromkeys(assigned, since))
        ends = await consumer.end_offsets(assigned)
        positions: dict[Any, int] = {}
        for tp in assigned:
            positions[tp] = ends[tp] if found[tp] is None else found[tp].offset
            consumer.seek(tp, positions[tp])
        return positions


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(Transport):
    Consumer = _Consumer
    since_ms: Callable[[], int]


def decode(topic: str, partition: int, offset: int, headers: Any, value: bytes | None, written_ms: int) -> Seen:
    """A record as the views take it; what cannot be decoded counts with nothing in it."""
    rows = headers.items() if isinstance(headers, dict) else headers or ()
    told = {str(name): bytes(held or b"") for name, held in rows}
    kind = told.get("ce_type", b"").decode("utf-8", "replace").removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)
    if topic.endswith(".dlq"):
        reason = told.get("ratchet-dlq-kind", b"").decode("utf-8", "replace")[:NAME_CHARS] or "unnamed"
        source = told.get("ratchet-dlq-topic", topic.removesuffix(".dlq").encode()).decode("utf-8", "replace")
        return Seen(topic, partition, offset, kind, written_ms, {"source": source}, reason)
    try:
        data: object = json.loads(value) if value is not None else {}
    except (ValueError, RecursionError):
        data = {}
    held = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    at = held.get("at_ms")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at <= written_ms + AHEAD_MIN * MINUTE_MS:
        at = written_ms
    return Seen(topic, partition, offset, kind, at, held)


def build(
    bootstrap: str,
    views: Views,
    clock: Clock,
    *,
    folder: Path,
    group: str,
    horizon_min: int,
    security: Security = PLAINTEXT,
) -> faust.App:
    """The faust application; it has no command line and no web server."""
    take_any_names()
    servers = bootstrap.split(",")
    app = faust.App(
        group,
        broker=[f"kafka://{server}" for server in servers],
        broker_credentials=_credentials(security),
        store="memory://",
        datadir=folder / "faust",
        web_enabled=False,
        autodiscover=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{group}-0",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=1.0,
        broker_request_timeout=30.0,
        stream_wait_empty=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    transport = _Transport(app.conf.broker_consumer, app)
    transport.since_ms = lambda: max(0, clock.now_ms() - horizon_min * 60_000)
    app.transport = transport
    source = app.topic(*topics(), key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def observe(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            written = int((message.timestamp or 0) * 1000)
            views.take(
                decode(message.topic, message.partition, message.offset, message.headers, message.value, written)
            )

    app.agent(source, name="observer", concurrency=1)(observe)
    return app


def _credentials(security: Security) -> faust.SASLCredentials | None:
    if security.open:
        return None
    return faust.SASLCredentials(
        username=security.user, password=security.password, mechanism=MECHANISM, ssl_context=security.context()
    )


def samples(views: Views, now_ms: int) -> Iterable[Sample]:
    """The five-minute window and the counts as Prometheus figures."""
    snapshot = views.snapshot(now_ms)
    for row in snapshot["windows"]["5"]:
        labels = {"route": row["route"], "arm": row["arm"]}
        for name, said in (
            ("per_s", "Results (or, without arm, answers) per second over 5 minutes."),
            ("p50_ms", "Median latency over 5 minutes."),
            ("p95_ms", "95th percentile of latency over 5 minutes."),
            ("tokens_per_s", "Tokens written per second over 5 minutes."),
            ("approval", "Mean grade, 0 to 1, of closed cases over 5 minutes."),
        ):
            if row.get(name) is not None:
                yield Sample(f"ratchet_observed_{name}", said, labels, float(row[name]))
    for row in snapshot["refused"]:
        labels = {"route": row["route"], "kind": row["kind"]}
        yield Sample("ratchet_observed_refused", "Requests refused within the horizon.", labels, row["count"])
    for row in snapshot["dead_letters"]:
        labels = {"topic": row["topic"], "kind": row["kind"]}
        yield Sample("ratchet_observed_dead_letters", "Dead letters within the horizon.", labels, row["count"])


def write_snapshot(file: Path, views: Views, now_ms: int, port: int) -> None:
    """Replace the snapshot file whole."""
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(views.snapshot(now_ms) | {"metrics_port": port}), encoding="utf-8")
    beside.replace(file)


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    group: str = NAME,
    horizon_min: int = HORIZON_MIN,
    security: Security = PLAINTEXT,
) -> None:
    """Observe until `stop` is set. Raises `Refused` without a broker's address, what faust raises when it crashes."""
    if settings.kafka_bootstrap is None:
        raise Refused("KAFKA_BOOTSTRAP is not set: the observer reads topics", kind="settings")
    time = SystemClock() if clock is None else clock
    views = Views(horizon_min)
    telemetry = Telemetry("observer")
    telemetry.figures(lambda: samples(views, time.now_ms()))
    pages: dict[str, Callable[[], object]] = {"/views": lambda: views.snapshot(time.now_ms())}
    port = telemetry.open(settings.metrics_host, settings.metrics_port, pages)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    file = settings.state_dir / SNAPSHOT
    app = build(
        settings.kafka_bootstrap,
        views,
        time,
        folder=settings.state_dir,
        group=group,
        horizon_min=horizon_min,
        security=security,
    )
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await app.start()
        logger(NAME).info("observing", port=port, topics=len(topics()), file=str(file))
        crashed = asyncio.ensure_future(app.wait_until_stopped())
        while not stopping.done() and not crashed.done():
            await asyncio.wait({stopping, crashed}, timeout=WRITE_S, return_when=asyncio.FIRST_COMPLETED)
            views.forget(time.now_ms())
            write_snapshot(file, views, time.now_ms(), port)
        if not crashed.done():
            crashed.cancel()
        if app.crash_reason is not None:
            raise app.crash_reason
    finally:
        stopping.cancel()
        await app.stop()
        telemetry.close()


def main(settings: Settings, security: Security = PLAINTEXT) -> int:
    """Run until SIGTERM or SIGINT: the process of `python -m agents observer`."""
    configure_logs(settings.log_level, "observer")

    async def run() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await serve(settings, stopped, security=security)

    asyncio.run(run())
    return 0
