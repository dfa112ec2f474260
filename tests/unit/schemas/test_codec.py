"""The codec: a record says everything in headers, reads back as it was, and a bad one names its field and no content."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Encoded, decode_payload, encode, payload_class, rfc3339
from schemas.errors import Undecodable
from schemas.events import Message, RequestSubmitted
from schemas.payload import REGISTRY

REQUEST = RequestSubmitted(
    at_ms=1_700_000_000_123, route="bank", request_id="r-1", messages=(Message(role="user", content="Grüß Gott"),)
)
VALUE = json.loads(REQUEST.model_dump_json())
WORD = "geheim-4711"


def test_a_record_is_a_cloud_event_in_binary_mode() -> None:
    """Attributes stand in `ce_*` headers, the key is the request id, the value is the payload alone."""
    made = encode(REQUEST, event_id="e1", source="upstream/app", traceparent="00-a-b-01", extra=(("x", b"1"),))
    headers = dict(made.headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"ratchet.request.submitted.v1"
    assert headers["ce_time"] == b"2023-11-14T22:13:20.123Z"
    assert headers["content-type"] == b"application/json"
    assert headers["traceparent"] == b"00-a-b-01"
    assert made.headers[-1] == ("x", b"1")
    assert made.key == b"r-1"
    assert decode_payload(RequestSubmitted, made.value) == REQUEST


@given(st.integers(0, 2**53 - 1), st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable()))
def test_what_was_encoded_decodes_to_the_same(at_ms: int, content: str) -> None:
    """Any text and any time come back as they were."""
    event = REQUEST.model_copy(update={"at_ms": at_ms, "messages": (Message(role="user", content=content),)})
    value = event.__pydantic_serializer__.to_json(event)
    assert decode_payload(RequestSubmitted, value) == event


@pytest.mark.parametrize(
    ("value", "kind", "field"),
    [
        (None, "empty", "value"),
        (b"", "not-json", "value"),
        (f'{{"x": "{WORD}"'.encode(), "not-json", "value"),
        (b"\xff\xfe", "not-json", "value"),
        (b"[]", "invalid", "value"),
        (json.dumps(VALUE | {"at_ms": WORD}).encode(), "invalid", "at_ms"),
        (json.dumps(VALUE | {"at_ms": 2**53}).encode(), "invalid", "at_ms"),
        (json.dumps(VALUE | {"at_ms": -1}).encode(), "invalid", "at_ms"),
        (json.dumps(VALUE | {"surplus": WORD}).encode(), "invalid", "surplus"),
        (json.dumps(VALUE | {"messages": []}).encode(), "invalid", "messages"),
        (json.dumps(VALUE | {"messages": [{"role": WORD, "content": "x"}]}).encode(), "invalid", "messages.0.role"),
        (json.dumps(VALUE | {"request_id": WORD + " "}).encode(), "invalid", "request_id"),
        (json.dumps({k: v for k, v in VALUE.items() if k != "route"}).encode(), "invalid", "route"),
    ],
)
def test_a_bad_payload_names_its_field_and_never_its_content(value: bytes | None, kind: str, field: str) -> None:
    """The sender learns where and what is accepted; no value of the payload is repeated."""
    with pytest.raises(Undecodable) as caught:
        decode_payload(RequestSubmitted, value)
    assert (caught.value.kind, caught.value.field) == (kind, field)
    assert caught.value.accepted
    assert WORD not in str(caught.value) + caught.value.accepted


@pytest.mark.parametrize(
    "name", ["", "request.submitted", "ratchet.request.submitted", "ratchet.request.submitted.v2", "ratchet.no.v1"]
)
def test_an_unknown_type_is_refused_with_the_form_accepted(name: str) -> None:
    """Only the whole type name of this version is known."""
    with pytest.raises(Undecodable, match="unknown event type") as caught:
        payload_class(name)
    assert caught.value.accepted == "ratchet.<type>.v1"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_type_is_found_by_its_full_name(name: str) -> None:
    """The registry and the type names agree."""
    assert payload_class(f"ratchet.{name}.v1") is REGISTRY[name]


def test_time_is_written_in_utc_with_milliseconds() -> None:
    """RFC 3339, always with `Z`."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


@given(st.integers(0, 253_402_300_799_999))
def test_time_is_as_the_standard_library_writes_it(at_ms: int) -> None:
    """Seconds are remembered for speed: every time up to the end of the year 9999 is what `datetime` writes."""
    exact = datetime.fromtimestamp(at_ms // 1000, UTC) + timedelta(milliseconds=at_ms % 1000)
    assert rfc3339(at_ms) == exact.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_time_that_the_standard_does_not_know_crashes_nothing() -> None:
    """A sender's time may lie past the year 9999; what is emitted because of it says the last second there is."""
    assert rfc3339(2**53 - 1) == "9999-12-31T23:59:59.991Z"


def test_values_are_equal_by_type_and_field() -> None:
    """What is made per event compares and hashes by its fields, and never equals another type's, as tuples would."""
    one = Encoded(b"k", b"v", ())
    assert one == Encoded(b"k", b"v", ())
    assert hash(one) == hash(Encoded(b"k", b"v", ()))
    assert one != (b"k", b"v", ())


def test_a_whole_number_with_a_point_is_an_integer() -> None:
    """To JSON Schema `5.0` is the integer 5; `5.5`, a number past 2^53 and a number as text are none, beside it too."""
    assert decode_payload(RequestSubmitted, json.dumps(VALUE | {"at_ms": 5.0, "deadline_ms": 1e3}).encode()) == (
        REQUEST.model_copy(update={"at_ms": 5, "deadline_ms": 1000})
    )
    for bad in (5.5, 1e300, "5", 2.0**53):
        with pytest.raises(Undecodable) as error:
            decode_payload(
                RequestSubmitted, json.dumps(VALUE | {"at_ms": 5.0, "deadline_ms": bad, "route": "b"}).encode()
            )
        assert "deadline_ms" in str(error.value) or error.value.field == "at_ms"


@pytest.mark.parametrize("number", [10**21, -(10**21), 10**400])
def test_an_integer_of_more_digits_than_any_rule_can_reckon_with_is_refused(number: int) -> None:
    """It is named, wherever it stands, in a field that is ignored too; as a text and as a fraction it is none."""
    model, told = REGISTRY["training.progressed"], {"at_ms": 1, "route": "r", "order_id": "o", "epoch": 1.0, "steps": 2}
    for change, field in (({"step": number}, "step"), ({"step": 1, "new": [{"a": number}]}, "new.0.a")):
        with pytest.raises(Undecodable) as error:
            decode_payload(model, json.dumps(told | change).encode())
        assert (error.value.kind, error.value.field) == ("invalid", field)
        assert str(number) not in str(error.value)
    fits = told | {"step": 10**21 - 1, "new": str(number), "loss": 0.00012345678901234567}
    assert json.loads(decode_payload(model, json.dumps(fits).encode()).model_dump_json())["step"] == 10**21 - 1
