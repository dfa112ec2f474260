"""The observer's views: each record counts once, in its own minute, and no sender decides how much memory they take."""

import json
from typing import Any

import pytest

from agents.observer import fold
from agents.observer.app import decode
from agents.observer.fold import MINUTE_MS, MOST_NAMES, NAME_CHARS, OTHERS, Views

NOW = 1_000_000 * MINUTE_MS


class Source:
    """Records of one partition, one behind the other."""

    def __init__(self, views: Views) -> None:
        self.views = views
        self.offset = -1

    def send(self, name: str, /, topic: str = "ratchet.results", **data: Any) -> bool:
        self.offset += 1
        value = json.dumps({"at_ms": NOW, "route": "r", "arm": "a"} | data).encode()
        headers = (("ce_type", f"ratchet.{name}.v1".encode()),)
        return self.views.take(decode(topic, 0, self.offset, headers, value, NOW))

    def letter(self, reason: str, topic: str = "ratchet.requests.dlq") -> bool:
        self.offset += 1
        return self.views.take(decode(topic, 0, self.offset, {"ratchet-dlq-kind": reason.encode()}, b"{", NOW))


def rows(views: Views, minutes: int = 5, now_ms: int = NOW) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["route"], row["arm"]): row for row in views.snapshot(now_ms)["windows"][str(minutes)]}


def test_a_record_counts_once_and_a_window_holds_what_it_says() -> None:
    """What is read again is ignored; the windows of 1, 5 and 60 minutes end with the running one."""
    views = Views()
    source = Source(views)
    for age in (0, 1, 4, 5, 59, 60):
        source.send("result.completed", at_ms=NOW - age * MINUTE_MS, latency_ms=10, tokens_out=3, engine_ms=1)
    source.offset -= 6
    assert not any(source.send("result.completed") for _ in range(6))
    assert [rows(views, minutes)["r", "a"]["completed"] for minutes in (1, 5, 60)] == [1, 3, 5]
    assert rows(views)["r", "a"]["p50_ms"] == pytest.approx(10, rel=0.05)
    assert views.records == 6


def test_what_the_gate_withheld_is_not_counted_as_released() -> None:
    """Of an arm whose score let it out, and of the route, whoever had let it out."""
    views = Views()
    source = Source(views)
    source.send("score.assigned", action="release")
    source.send("score.assigned", action="release", withheld=True)
    source.send("answer.released", latency_ms=5)
    source.send("answer.withheld", reason="gate")
    of_arm, of_route = rows(views)["r", "a"], rows(views)["r", ""]
    assert (of_arm["released"], of_arm["withheld"], of_arm["held"]) == (1, 1, 0)
    assert (of_route["released"], of_route["withheld"]) == (1, 1)


def test_what_is_past_the_horizon_is_forgotten() -> None:
    """Of each table; an arm with nothing left is gone with its name."""
    views = Views(horizon_min=10)
    source = Source(views)
    source.send("result.completed")
    source.send("answer.refused", kind="k")
    source.letter("dead")
    views.forget(NOW + 10 * MINUTE_MS)
    assert len(rows(views, 60)) == len(views.snapshot(NOW)["refused"]) == len(views.snapshot(NOW)["dead_letters"]) == 1
    views.forget(NOW + 11 * MINUTE_MS)
    assert rows(views, 60) == {}
    assert views.snapshot(NOW)["refused"] == views.snapshot(NOW)["dead_letters"] == []


def test_names_past_the_most_count_as_others() -> None:
    """Whoever makes up routes, kinds and actions fills a table up to a bound, and nothing that was sent goes uncounted."""
    views, more = Views(), 40
    source = Source(views)
    for number in range(MOST_NAMES + more):
        source.send("result.completed", route=f"r{number}")
        source.send("answer.refused", route=f"r{number}", kind="k")
        source.letter(f"kind{number}")
        source.send("score.assigned", route="r0", action=f"action{number}")
    told = views.snapshot(NOW)
    assert len(rows(views)) == MOST_NAMES + 1
    assert rows(views)[OTHERS, OTHERS]["completed"] == more
    for table in ("refused", "dead_letters"):
        assert len(told[table]) == MOST_NAMES + 1
        assert sum(row["count"] for row in told[table]) == MOST_NAMES + more
    held = views.window(NOW, 1)["r0", "a"].counts
    assert held["score." + OTHERS] == MOST_NAMES + more
    assert len(held) == 2


def test_a_long_name_is_cut() -> None:
    """A name takes as much room as a name may."""
    views = Views()
    source = Source(views)
    source.send("result.completed", route="x" * 10_000, arm="y" * 10_000)
    source.send("answer.refused", route="x" * 10_000, kind="k" * 10_000)
    source.letter("z" * 10_000)
    assert list(rows(views)) == [("x" * NAME_CHARS, "y" * NAME_CHARS)]
    assert views.snapshot(NOW)["refused"] == [{"route": "x" * NAME_CHARS, "kind": "k" * NAME_CHARS, "count": 1}]
    assert [row["kind"] for row in views.snapshot(NOW)["dead_letters"]] == ["z" * NAME_CHARS]


@pytest.mark.parametrize("odd", [-1, 10**400, True, "5", None, [], float("nan"), float("inf"), fold.LARGEST + 1])
def test_a_number_that_is_none_counts_nothing(odd: object) -> None:
    """Neither a latency nor tokens nor a grade that cannot be becomes part of a figure, and none crashes one."""
    views = Views()
    source = Source(views)
    source.send("result.completed", latency_ms=odd, tokens_out=odd, engine_ms=odd)
    source.send(
        "case.closed", topic="ratchet.cases", arms=[{"arm": "a", "grade": odd}] if odd is not True else [7, None]
    )
    row = rows(views)["r", "a"]
    assert (row["completed"], row["p95_ms"], row["tokens_per_s"], row["graded"]) == (1, 1.0, 0.0, 0)
    assert json.dumps(views.snapshot(NOW))


@pytest.mark.parametrize("odd", [-1, 10**400, True, "5", None, 5.5, NOW + 6 * MINUTE_MS])
def test_a_time_that_cannot_be_is_the_time_of_writing(odd: object) -> None:
    """An event of a time to come would stay for ever, one of no time would have no minute."""
    views = Views()
    Source(views).send("result.completed", at_ms=odd)
    assert rows(views, 1)["r", "a"]["completed"] == 1


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"at_ms":' + b"9" * 5000 + b"}"]
)
def test_what_cannot_be_read_counts_as_a_record_and_no_more(value: bytes | None) -> None:
    """The view goes on behind it."""
    views = Views()
    headers = [("ce_type", b"\xff"), ("ratchet-dlq-topic", None)]
    assert views.take(decode("ratchet.results", 0, 1, headers, value, NOW))
    assert (views.records, rows(views)) == (1, {})
