"""Telemetry: what the runtime tells becomes figures, logs say where but never what."""

import io
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import structlog

from infra.telemetry import Sample, Telemetry, configure_logs, event_fields, logger
from schemas.errors import Unavailable
from schemas.events import RequestSubmitted
from streams.lane import Notice
from streams.shapes import Event, Place, Record


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry("test")
    yield made
    made.close()


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    sink = io.StringIO()
    configure_logs("info", "test", sink)
    yield sink
    root.handlers, root.level = before
    structlog.reset_defaults()


def page(telemetry: Telemetry, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{telemetry.port}{path}") as answer:
        return answer.read().decode()


def test_notices_become_figures(telemetry: Telemetry) -> None:
    """Counts by agent and partition, reasons by name, commits as a histogram, an unknown kind under its own name."""
    for notice in (
        Notice("accepted", "router", 1, 5),
        Notice("committed", "router", 1, 5),
        Notice("opened", "router", 1),
        Notice("commit_s", "router", 1, 0.02),
        Notice("dead_letter", "router", 1, text="not-json"),
        Notice("brand_new", "router", 1),
    ):
        telemetry.observe(notice)
    telemetry.open("127.0.0.1", 0)
    text = page(telemetry)
    assert 'ratchet_records_accepted_total{agent="router",partition="1"} 5.0' in text
    assert 'ratchet_lanes_opened_total{agent="router",partition="1"} 1.0' in text
    assert 'ratchet_dead_letters_total{agent="router",reason="not-json"} 1.0' in text
    assert 'ratchet_commit_seconds_bucket{agent="router",le="0.025"} 1.0' in text
    assert 'ratchet_notices_total{agent="router",kind="brand_new"} 1.0' in text


def test_a_halted_lane_shows_until_it_opens(telemetry: Telemetry, logs: io.StringIO) -> None:
    """The gauge is 1 and a line is logged with the place; opening clears it."""
    telemetry.observe(Notice("halted", "cases", 2, text="ratchet.results[2]@7"))
    assert telemetry.registry.get_sample_value("ratchet_lane_halted", {"agent": "cases", "partition": "2"}) == 1
    assert json.loads(logs.getvalue())["why"] == "ratchet.results[2]@7"
    telemetry.observe(Notice("opened", "cases", 2))
    assert telemetry.registry.get_sample_value("ratchet_lane_halted", {"agent": "cases", "partition": "2"}) == 0


def test_health_of_a_lane_is_shown_while_this_process_has_it(telemetry: Telemetry) -> None:
    """Lag, keys, restore and stall are gauges; a closed lane's are taken away, others stay."""
    for partition in (1, 2):
        for kind, value in (("lag", 7), ("state_keys", 3), ("restoring", 0.5), ("restored", 0.2)):
            telemetry.observe(Notice(kind, "cases", partition, value))
    telemetry.observe(Notice("stall_s", "runner", -1, 0.25))
    telemetry.observe(Notice("closed", "cases", 1))
    telemetry.observe(Notice("closed", "router", 1))
    telemetry.open("127.0.0.1", 0)
    text = page(telemetry)
    for name, value in (("lag", 7), ("state_keys", 3), ("restored_ratio", 0.5), ("restore_seconds", 0.2)):
        assert f'ratchet_lane_{name}{{agent="cases",partition="2"}} {float(value)}' in text
        assert f'ratchet_lane_{name}{{agent="cases",partition="1"}}' not in text
    assert "ratchet_event_loop_stall_seconds 0.25" in text


def test_computed_figures_and_pages(telemetry: Telemetry) -> None:
    """Gauges made at the scrape, JSON pages, and 404 for all else."""
    telemetry.figures(lambda: [Sample("ratchet_x", "X.", {"route": "a"}, 2.5)])
    telemetry.open("127.0.0.1", 0, {"/views": lambda: {"a": 1}})
    assert 'ratchet_x{route="a"} 2.5' in page(telemetry)
    assert json.loads(page(telemetry, "/views")) == {"a": 1}
    with pytest.raises(urllib.error.HTTPError) as caught:
        page(telemetry, "/etc/passwd")
    assert caught.value.code == 404
    caught.value.close()


def test_a_taken_port_is_said(telemetry: Telemetry) -> None:
    """Unavailable with the address, and the first endpoint goes on."""
    port = telemetry.open("127.0.0.1", 0)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        Telemetry("other").open("127.0.0.1", port)
    assert "ratchet" in page(telemetry)


def test_a_log_line_says_where_and_never_what(logs: io.StringIO) -> None:
    """Tenant, route, request, trace and place are there; text is not, whatever field it was given in."""
    data = RequestSubmitted(
        at_ms=1,
        route="r",
        request_id="q",
        messages=({"role": "user", "content": "secret words"},),  # type: ignore[arg-type]
    )
    record = Record("ratchet.requests", 3, 9, b"q", b"", (), 0)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    event = Event("id-1", "q", data, "upstream", trace, Place("ratchet.requests", 3, 9), record)
    logger("test").info("routed", **event_fields(event), text="secret words", messages=data.messages)
    line = json.loads(logs.getvalue())
    assert "secret" not in logs.getvalue()
    assert {k: line[k] for k in ("event", "tenant", "route", "request", "trace", "place", "process", "level")} == {
        "event": "routed", "tenant": "default", "route": "r", "request": "q", "trace": "a" * 32,
        "place": "ratchet.requests[3]@9", "process": "test", "level": "info",
    }  # fmt: skip


def test_the_standard_librarys_loggers_speak_json_too(logs: io.StringIO) -> None:
    """One format for all."""
    logging.getLogger("aiokafka").warning("away %s", "now")
    assert json.loads(logs.getvalue())["event"] == "away now"
