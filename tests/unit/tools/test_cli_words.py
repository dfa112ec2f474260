"""How records, trees and faults are said: safe to print, tolerant of anything, the right exit codes."""

import io
import subprocess
import sys

import pytest
from rich.console import Console
from rich.tree import Tree

from agents.observer.fold import Seen, Views, bucket_of, percentile
from schemas.errors import Refused
from schemas.events import BlindAnswer, Message, ReviewRequested
from streams.shapes import Record
from tools.cli.events import GISTS, as_row, full_topics, matches, one_line
from tools.cli.review import verdict
from tools.cli.screen import Screen, clean
from tools.cli.tail import since_ms
from tools.cli.trace import draw, parents


def record(topic: str, offset: int, kind: str, event_id: str, cause: str = "", value: bytes = b"{}") -> Record:
    headers = (
        ("ce_type", f"ratchet.{kind}.v1".encode()),
        ("ce_id", event_id.encode()),
        ("ratchet-cause", cause.encode()),
    )
    return Record(topic, 0, offset, b"q", value, headers, 1000 + offset)


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b"{}", b'{"messages": 3}'])
@pytest.mark.parametrize("kind", [*GISTS, "", "unknown"])
def test_any_record_has_a_line(kind: str, value: bytes | None) -> None:
    """Whatever the payload holds: one line, no exception."""
    row = as_row(record("ratchet.x", 0, kind, "e", value=value))  # type: ignore[arg-type]
    assert "\n" not in one_line(row)


def test_text_never_becomes_markup_or_control() -> None:
    """Brackets are escaped, control characters become spaces."""
    assert clean("[red]x[/]\x1b[2J\n") == r"\[red]x\[/] [2J "


def test_filters() -> None:
    """By route, by a type's first word, by request."""
    row = as_row(record("ratchet.answers", 0, "answer.refused", "e", value=b'{"route":"r","request_id":"q"}'))
    assert matches(row, route="r", kind="answer", request="q")
    assert not matches(row, route="other", kind=None, request=None)
    assert not matches(row, route=None, kind="answer.released", request=None)
    assert not matches(row, route=None, kind=None, request="z")


def test_topics_by_short_name() -> None:
    """With or without prefix, dead letters too; anything else raises its name."""
    assert full_topics(["answers", "ratchet.cases", "requests.dlq"]) == [
        "ratchet.answers", "ratchet.cases", "ratchet.requests.dlq",
    ]  # fmt: skip
    with pytest.raises(KeyError, match=r"keyring\.dlq"):
        full_topics(["keyring.dlq"])


def test_a_tree_hangs_on_causes() -> None:
    """Each event under its cause, a dead letter under its record, what has no known cause at the top; a circle ends."""
    letter = record("ratchet.requests.dlq", 0, "request.submitted", "a")
    origin = (("ratchet-dlq-topic", b"ratchet.requests"), ("ratchet-dlq-partition", b"0"), ("ratchet-dlq-offset", b"0"))
    dead = Record(letter.topic, 0, 0, b"q", b"{", (*letter.headers, *origin), 1001)
    rows = [
        as_row(record("ratchet.requests", 0, "request.submitted", "a")),
        as_row(record("ratchet.decisions", 1, "decision.routed", "b", "a")),
        as_row(record("ratchet.verdicts", 2, "verdict.given", "v")),
        as_row(dead),
        as_row(record("ratchet.x", 4, "x", "c", "d")),
        as_row(record("ratchet.x", 5, "x", "d", "c")),
    ]
    assert parents(rows) == {0: None, 1: 0, 2: None, 3: 0, 4: 5, 5: 4}
    assert draw("q", rows).children


def test_since() -> None:
    """A number and a unit; anything else is refused with an example."""
    assert since_ms("15m") < since_ms("1s")
    with pytest.raises(Refused, match="15m"):
        since_ms("yesterday")


REVIEW = ReviewRequested(
    at_ms=1, route="r", request_id="q", request_partition=0, request_offset=0, grader="verdict", gated=True, due_ms=9,
    messages=(Message(role="user", content="x"),),
    answers=(BlindAnswer(label="A", text="1"), BlindAnswer(label="B", text="2")),
)  # fmt: skip


def test_a_verdict_names_letters_of_the_review() -> None:
    """Approve and reject by letter; the person's name and the request are in it."""
    given = verdict(REVIEW, by="ann", approve=["B"], reject=["A"], correct=None, at_ms=5)
    assert [(a.label, a.decision) for a in given.answers] == [("B", "approve"), ("A", "reject")]
    assert (given.by, given.request_id, given.kind) == ("ann", "q", "person")


@pytest.mark.parametrize(
    ("approve", "reject", "correct"), [(["C"], [], None), (["A"], ["A"], None), ([], [], None), ([], [], "")]
)
def test_a_verdict_that_says_nothing_is_refused(approve: list[str], reject: list[str], correct: str | None) -> None:
    """An unknown letter, both at once, nothing."""
    with pytest.raises(Refused):
        verdict(REVIEW, by="ann", approve=approve, reject=reject, correct=correct, at_ms=5)


def seen(offset: int, kind: str, **data: object) -> Seen:
    return Seen("ratchet.results", 0, offset, kind, 60_000_000, {"route": "r", "arm": "a", **data})


def test_views_count_a_record_once() -> None:
    """A redelivery and a re-read change nothing."""
    views = Views()
    assert views.take(seen(5, "result.completed", latency_ms=10.0, tokens_out=4))
    before = views.snapshot(60_000_000)
    assert not views.take(seen(5, "result.completed", latency_ms=10.0, tokens_out=4))
    assert views.snapshot(60_000_000) == before
    row = before["windows"]["1"][0]
    assert (row["completed"], row["per_s"], row["tokens_per_s"]) == (1, 0.017, 0.1)


def test_views_forget_past_the_horizon() -> None:
    """Memory is bounded by time."""
    views = Views(horizon_min=10)
    views.take(seen(1, "result.failed"))
    views.forget(60_000_000 + 11 * 60_000)
    assert views.snapshot(60_000_000)["windows"]["60"] == []


def test_approval_is_the_mean_grade() -> None:
    """Of graded arms of closed cases; what nobody graded does not count."""
    views = Views()
    arms = [{"arm": "a", "grade": 1000}, {"arm": "b", "grade": 0}, {"arm": "a", "grade": None}]
    views.take(seen(1, "case.closed", arms=arms))
    rows = {row["arm"]: row for row in views.snapshot(60_000_000)["windows"]["5"]}
    assert (rows["a"]["approval"], rows["b"]["approval"], rows[""]["cases"]) == (1.0, 0.0, 1)


@pytest.mark.parametrize("data", [{}, {"arms": 3}, {"arms": [3]}, {"latency_ms": "x"}, {"latency_ms": True}])
@pytest.mark.parametrize(
    "kind", ["case.closed", "result.completed", "answer.released", "score.assigned", "answer.refused"]
)
def test_views_take_anything(kind: str, data: dict[str, object]) -> None:
    """A strange payload is counted with nothing in it."""
    views = Views()
    views.take(Seen("t", 0, 0, kind, 60_000_000, {"route": "r", **data}))
    assert views.records == 1


@pytest.mark.parametrize("true", [1.0, 3.0, 47.0, 900.0, 30_000.0])
def test_percentiles_are_within_five_percent(true: float) -> None:
    """The edge of a bucket that grows by 5 %."""
    found = percentile({bucket_of(true): 10}, 0.95)
    assert found is not None
    assert true <= found * 1.001
    assert found <= true * 1.06


def ratchet(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tools.ratchet", *words], capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    """And imports nothing that a help page does not need."""
    found = ratchet("--help")
    assert found.returncode == 0
    for name in ("up", "down", "status", "apply", "submit", "tail", "trace", "review", "promote", "rollback", "pause",
                 "preview", "evidence", "doctor", "bench", "demo"):  # fmt: skip
        assert f" {name} " in found.stdout
    lazy = "import sys, tools.ratchet; print([m for m in ('pydantic', 'aiokafka', 'faust', 'torch', 'asyncio') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", lazy], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_misuse_is_two_and_json_where_asked() -> None:
    """An unknown command, as a line and as an object."""
    plain, as_json = ratchet("nosuch"), ratchet("nosuch", "--json")
    assert (plain.returncode, as_json.returncode) == (2, 2)
    assert plain.stderr.startswith("ratchet: No such command")
    assert as_json.stdout.startswith('{"error":')


NAMES = ("route", "champion", "last change")
ROWS = [("clinic.answer.of.long.name", "outside-llm-of-a-long-name", "applied by an operator some time ago")]


def test_a_pipe_has_no_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is a line, a branch is a line, whatever COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "40")
    screen = Screen(as_json=False)
    screen.table("", NAMES, ROWS)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()][-1] == "  ".join(ROWS[0])
    tree = Tree("request")
    tree.add("word " * 30 + "end")
    screen.draw(tree)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(("width", "whole"), [("70", True), ("30", False)])
def test_a_terminal_breaks_names_last(width: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they have room words give way; where they have none they are broken, and nothing is lost."""
    monkeypatch.setenv("COLUMNS", width)
    screen = Screen(as_json=False)
    screen.out = Console(file=io.StringIO(), force_terminal=True, color_system=None)
    screen.table("", NAMES, ROWS)
    assert isinstance(screen.out.file, io.StringIO)
    page = screen.out.file.getvalue()
    assert all((name in page) == whole for name in ROWS[0][:2])
    kept = sorted("".join(page.split()))
    assert kept == sorted("".join(NAMES + ROWS[0]).replace(" ", ""))
    assert max(map(len, page.splitlines())) <= int(width)
