"""`submit` prepares lines as they are and joins outcomes by place, not by id."""

import json

import pytest

from schemas.codec import encode
from schemas.errors import Refused
from schemas.events import AnswerRefused, AnswerReleased
from schemas.payload import Payload
from streams.shapes import Record
from streams.wire import letter
from tools.cli.bus import check_size
from tools.cli.screen import Screen
from tools.cli.submit import Defaults, Line, Watch, prepare, show

GIVEN = Defaults("r", None, None, None, "nonce", 1_000)


def sent(line: Line, offset: int) -> Record:
    return Record("ratchet.requests", 0, offset, line.record.key, line.record.value, line.record.headers, 0)


def came(payload: Payload) -> Record:
    row = encode(payload, event_id="e", source="router", traceparent="")
    return Record("ratchet.answers", 0, 0, row.key, row.value, row.headers, 0)


def released(request_id: str, offset: int) -> Record:
    return came(
        AnswerReleased(
            at_ms=1, route="r", request_id=request_id, request_partition=0, request_offset=offset, text="yes",
            arm="a", certified=False, reviewed=False, decision_id="d", latency_ms=5,
        )
    )  # fmt: skip


def test_gaps_are_filled_and_the_rest_left_alone() -> None:
    """An id, a time and the route are added; a wrong field stays wrong, for the router to refuse."""
    line = prepare(3, b'{"messages": 7, "wrong": 1}', GIVEN)
    assert json.loads(line.record.value) == {
        "messages": 7, "wrong": 1, "request_id": "nonce-3", "at_ms": 1000, "route": "r",
    }  # fmt: skip
    assert line.record.key == b"nonce-3"


def test_a_complete_line_goes_out_byte_for_byte() -> None:
    """Spaces and all."""
    raw = b'{"request_id": "x",  "at_ms": 1, "route": "q", "messages": []}'
    assert prepare(1, raw, GIVEN).record.value == raw


@pytest.mark.parametrize("raw", [b"not json", b"\xff\xfe", b"[1]", b"null", b'"text"', b"[" * 100_000])
def test_what_is_not_an_object_goes_out_raw(raw: bytes) -> None:
    """Under a key of our own, so that it is refused by name."""
    line = prepare(7, raw, GIVEN)
    assert (line.record.key, line.record.value) == (b"nonce-7", raw)


@pytest.mark.parametrize("request_id", [7, None, ["a"], "", "\ud800"])
def test_an_id_that_is_no_key_gets_one_of_ours(request_id: object) -> None:
    """The wrong id itself still goes out in the payload."""
    line = prepare(7, json.dumps({"request_id": request_id}).encode(), GIVEN)
    assert line.record.key == b"nonce-7"
    assert json.loads(line.record.value)["request_id"] == request_id


def test_too_large_is_refused_with_the_limit() -> None:
    """Ten megabytes, and the number that would be taken."""
    with pytest.raises(Refused, match="at most 1,048,588 bytes"):
        check_size("ratchet.requests", prepare(1, b"x" * 10_000_000, GIVEN).record)


def test_outcomes_are_joined_by_place() -> None:
    """Two lines with one id and other content: the answer goes to one, the refusal to the other."""
    first = prepare(1, b'{"request_id": "same", "messages": 1}', GIVEN)
    second = prepare(2, b'{"request_id": "same", "messages": 2}', GIVEN)
    watch = Watch([first, second])
    watch.take(sent(first, 10))
    watch.take(sent(second, 11))
    refused = AnswerRefused(
        at_ms=1, route="r", request_id="same", kind="duplicate", field="request_id", reason="seen", accepted="another",
        request_partition=0, request_offset=11,
    )  # fmt: skip
    assert watch.take(came(refused)) == [second]
    assert watch.take(released("same", 10)) == [first]
    assert (first.outcome, second.outcome, watch.open()) == ("released", "refused", [])


def test_an_answer_that_overtakes_its_request_is_kept() -> None:
    """Topics arrive in any order."""
    line = prepare(1, b'{"request_id": "a"}', GIVEN)
    watch = Watch([line])
    assert watch.take(released("a", 4)) == []
    assert watch.take(sent(line, 4)) == [line]


def test_a_repeat_shares_the_first_ones_outcome() -> None:
    """The router drops what it has seen word for word, so no second answer comes."""
    lines = [prepare(n, b'{"request_id": "a"}', GIVEN) for n in (1, 2)]
    watch = Watch(lines)
    for n, line in enumerate(lines):
        watch.take(sent(line, n))
    assert watch.take(released("a", 0)) == lines
    assert [line.outcome for line in lines] == ["released", "repeat"]


def test_a_dead_letter_is_an_outcome() -> None:
    """With its reason; the record it is of says whose."""
    line = prepare(1, b"not json", GIVEN)
    watch = Watch([line])
    record = sent(line, 5)
    watch.take(record)
    dead = letter(record, agent="router", kind="not-json", message="no JSON", attempts=1, at_ms=0)
    row = dead.record
    assert watch.take(Record(dead.topic, 0, 0, row.key, row.value, row.headers, 0)) == [line]
    assert (line.outcome, line.detail) == ("dead-letter", "not-json: no JSON")


def test_others_events_change_nothing() -> None:
    """Another sender's request and answer."""
    line, other = prepare(1, b"{}", GIVEN), prepare(9, b"{}", GIVEN)
    watch = Watch([line])
    assert watch.take(sent(other, 1)) == []
    assert watch.take(released("z", 1)) == []
    assert watch.open() == [line]


def test_what_would_be_accepted_is_not_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    """It stands at the end of a reason, however long that is."""
    line = prepare(1, b"{}", GIVEN)
    line.outcome, line.detail = "refused", "purpose: " + "Denied. " * 60 + "; accepted: care"
    show(Screen(as_json=False), line)
    assert capsys.readouterr().out.endswith("; accepted: care\n")
