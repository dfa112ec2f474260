"""Telemetry: one Prometheus registry and endpoint per process, and JSON logs that say where but never what was said.

Rules:
1. Instrumentation is data: the runtime is given `Telemetry.observe`, a callable of notices, and imports no metrics library.
2. A log line carries tenant, route, request, trace id and place (`topic[partition]@offset`), never payload text: fields that
   could hold some are left out by name.
3. Labels have few values: agents, partitions, kinds, routes, arms. Never an id.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from structlog.typing import Processor

from schemas.errors import Unavailable

Level = Literal["debug", "info", "warning", "error"]
UNSAID = frozenset(
    {"text", "messages", "content", "prompt", "corrected", "label_text", "value", "payload", "data", "answers", "body"}
)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Notice(Protocol):
    """What the streams runtime tells (`streams.lane.Notice`)."""

    @property
    def kind(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def value(self) -> float: ...
    @property
    def text(self) -> str: ...


class EventLike(Protocol):
    """What a log line says of an event (`streams.shapes.Event`)."""

    @property
    def id(self) -> str: ...
    @property
    def data(self) -> object: ...
    @property
    def traceparent(self) -> str: ...
    @property
    def place(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure of a page of figures that is made when asked for."""

    name: str
    help: str
    labels: Mapping[str, str]
    value: float


@dataclass(eq=False)
class _Figures(Collector):
    """Gauges computed at the scrape."""

    make: Callable[[], Iterable[Sample]]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self.make():
            family = families.get(sample.name)
            if family is None:
                family = GaugeMetricFamily(sample.name, sample.help, labels=list(sample.labels))
                families[sample.name] = family
            family.add_metric(list(sample.labels.values()), sample.value)
        return families.values()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()


@dataclass
class Telemetry:
    """The figures of one process. `open` serves them; `close` ends that. Safe to use from any thread."""

    process: str
    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))
    port: int = 0

    def __post_init__(self) -> None:
        told = ("agent", "partition")
        self._events = {
            kind: Counter(f"ratchet_{name}", said, told, registry=self.registry)
            for kind, name, said in (
                ("accepted", "records_accepted", "Records that a lane took in."),
                ("committed", "records_committed", "Records whose effects were committed."),
                ("emitted", "records_emitted", "Records sent in committed transactions."),
                ("worked_s", "work_seconds", "Time spent in an agent's own code."),
                ("opened", "lanes_opened", "Lanes opened."),
                ("fenced", "lanes_fenced", "Lanes that another owner fenced."),
                ("dropped", "lanes_dropped", "Lanes dropped for an unknown outcome."),
                ("deferred", "records_deferred", "Records put off while the world was away."),
                ("expired", "records_expired", "Records given up at their deadline."),
                ("tick", "ticks", "Ticks folded."),
                ("snapshot", "snapshot_seconds", "Time spent on snapshots of state."),
            )
        }
        self._reasons = {
            kind: Counter(f"ratchet_{name}", said, ("agent", "reason"), registry=self.registry)
            for kind, name, said in (
                ("dead_letter", "dead_letters", "Records sent to a dead-letter topic."),
                ("refused", "records_refused", "Records that an agent refused."),
            )
        }
        self._lanes = {
            kind: Gauge(f"ratchet_lane_{name}", said, told, registry=self.registry)
            for kind, name, said in (
                ("lag", "lag", "Records between what a lane has committed and the last stable offsets, all inputs."),
                ("state_keys", "state_keys", "Keys in a lane's state."),
                ("restoring", "restored_ratio", "How much of its changelog a lane has read, 1 when it is whole."),
                ("restored", "restore_seconds", "How long a lane's last restore took."),
            )
        }
        self._stall = Gauge(
            "ratchet_event_loop_stall_seconds",
            "The longest time, of the last few seconds, that the event loop was held up.",
            registry=self.registry,
        )
        self._halted = Gauge("ratchet_lane_halted", "1 where a lane has halted.", told, registry=self.registry)
        self._commit = Histogram(
            "ratchet_commit_seconds", "Duration of a transaction.", ("agent",), buckets=SECONDS, registry=self.registry
        )
        self._other = Counter(
            "ratchet_notices",
            "Notices of a kind without a figure of its own.",
            ("agent", "kind"),
            registry=self.registry,
        )
        self._log = structlog.get_logger("ratchet.runtime")
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def observe(self, notice: Notice) -> None:
        """Count what the runtime tells, and log what an operator must know. Never raises for a new kind."""
        agent, partition = notice.agent, str(notice.partition)
        if notice.kind in self._events:
            self._events[notice.kind].labels(agent, partition).inc(max(0.0, notice.value))
        elif notice.kind in self._reasons:
            self._reasons[notice.kind].labels(agent, notice.text or "unnamed").inc(notice.value)
        elif notice.kind == "commit_s":
            self._commit.labels(agent).observe(notice.value)
        elif notice.kind in self._lanes:
            self._lanes[notice.kind].labels(agent, partition).set(notice.value)
        elif notice.kind == "stall_s":
            self._stall.set(notice.value)
        elif notice.kind == "closed":  # another process has the lane now, or none
            for gauge in (*self._lanes.values(), self._halted):
                gauge.remove(agent, partition)
        elif notice.kind == "halted":
            self._halted.labels(agent, partition).set(1)
        else:
            self._other.labels(agent, notice.kind).inc()
        if notice.kind == "opened":
            self._halted.labels(agent, partition).set(0)
        if notice.kind in ("fenced", "dropped", "halted"):
            self._log.warning(notice.kind, agent=agent, partition=notice.partition, why=notice.text)

    def figures(self, make: Callable[[], Iterable[Sample]]) -> None:
        """Add gauges that are computed at each scrape."""
        self.registry.register(_Figures(make))

    def open(self, host: str, port: int, pages: Mapping[str, Callable[[], object]] | None = None) -> int:
        """Serve `/metrics` and JSON `pages` (path → maker) on the port, 0 for any free one; the port it got."""
        registry, extra = self.registry, dict(pages or {})

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encoder, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, kind, encoder(registry))
                elif path in extra:
                    self._answer(200, "application/json", json.dumps(extra[path](), default=str).encode())
                else:
                    self._answer(404, "text/plain", b"/metrics " + " ".join(extra).encode() + b"\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
                """Scrapes are not logged."""

        try:
            server = ThreadingHTTPServer((host, port), Page)
        except OSError as fault:
            raise Unavailable(f"the metrics port {host}:{port} cannot be opened: {fault.strerror}") from fault
        server.daemon_threads = True
        self._server, self.port = server, int(server.server_address[1])
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()
        return self.port

    def close(self) -> None:
        """End the endpoint. Safe to repeat."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None


def event_fields(event: EventLike) -> dict[str, Any]:
    """What a log line says of an event: tenant, route, request, trace, place, id; nothing of its content."""
    found: dict[str, Any] = {"event": event.id, "place": str(event.place)}
    for name, attribute in (("tenant", "tenant"), ("route", "route"), ("request", "request_id")):
        held = getattr(event.data, attribute, None)
        if isinstance(held, str) and held:
            found[name] = held
    trace = event.traceparent.split("-")
    if len(trace) == 4:
        found["trace"] = trace[1]
    found["event_id"] = found.pop("event")
    return found


def without_text(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor of rule 2."""
    return {name: value for name, value in event.items() if name not in UNSAID}


def configure_logs(level: Level, process: str, stream: TextIO | None = None) -> None:
    """JSON lines on stderr (or `stream`) for our loggers and the standard library's alike."""
    sink = sys.stderr if stream is None else stream
    shared: Sequence[Processor] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        without_text,
        _named(process),
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _named(process: str) -> Processor:
    def name(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return name


def logger(name: str) -> Any:
    """A structlog logger: `log.info("routed", **event_fields(event))`."""
    return structlog.get_logger(name)
