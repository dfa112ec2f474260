"""Old records by new code, new records by old code: what the compatibility rules promise, on recorded bytes.

`tests/data/recorded/types.xz` holds real records of every type as they were written when the file was made. It is never written anew:
a new type adds records to it, and what was there stays readable.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, create_model

from schemas.errors import Undecodable
from schemas.export import json_schema
from schemas.payload import REGISTRY, Incoming, Payload
from streams.recorded import read_file
from streams.shapes import Record
from streams.wire import decode
from tools.schema import BOTH_WAYS, incompatible

FILE = Path(__file__).resolve().parents[2] / "data" / "recorded" / "types.xz"
RECORDS = {str(record.place): record for record in read_file(FILE).all()}
NAMED = {dict(record.headers)["ce_type"].decode()[len("ratchet.") : -len(".v1")]: record for record in RECORDS.values()}


def body(record: Record, **more: Any) -> Record:
    return replace(record, value=json.dumps(json.loads(record.value or b"") | more, ensure_ascii=False).encode())


def kept(said: Any, made: Any) -> Any:
    """What was made, without the fields that were not there then."""
    if isinstance(said, dict) and isinstance(made, dict):
        return {name: kept(said[name], made.get(name, "gone")) for name in said}
    if isinstance(said, list) and isinstance(made, list) and len(said) == len(made):
        return [kept(one, other) for one, other in zip(said, made, strict=True)]
    return made


def next_version(name: str, **fields: Any) -> type[Payload]:
    """Tomorrow's model of a type; the registry keeps today's."""
    today = REGISTRY[name]
    try:
        made = create_model(f"Next{today.__name__}", __base__=today, **fields)
    finally:
        REGISTRY[name] = today
    return made


@pytest.mark.parametrize("place", sorted(RECORDS))
def test_a_recorded_record_is_read_as_it_was_written(place: str) -> None:
    """Every recorded record decodes, and each field that it has says what it said, inside its parts too."""
    event = decode(RECORDS[place], 4)
    said = json.loads(RECORDS[place].value or b"")
    made = json.loads(event.data.model_dump_json())
    assert kept(said, made) == said
    assert event.key == event.data.event_key()


def test_every_type_has_a_recorded_record() -> None:
    """A new event type is recorded too."""
    assert set(NAMED) == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_next_version_with_an_optional_field(name: str) -> None:
    """It reads the old record; today's code reads its record where the writer is ours, and refuses by name what people send.

    The compatibility check says the same of both directions.
    """
    tomorrow = next_version(name, note_of_tomorrow=(str, Field(default="")))
    old = tomorrow.model_validate_json(NAMED[name].value or b"", strict=True)
    assert json.loads(old.model_dump_json())["note_of_tomorrow"] == ""
    new = body(NAMED[name], note_of_tomorrow="later")
    if issubclass(REGISTRY[name], Incoming):
        with pytest.raises(Undecodable) as error:
            decode(new, 4)
        assert error.value.field == "note_of_tomorrow"
    else:
        assert decode(new, 4).data == decode(NAMED[name], 4).data
    said = incompatible({name: json_schema(tomorrow)}, {name: [(1, json_schema(REGISTRY[name]))]}, {name: "results"})
    assert said == []


def test_a_required_field_more_is_refused_by_the_check_and_by_the_record() -> None:
    """What the check forbids would indeed lose old records."""
    name = "result.completed"
    tomorrow = next_version(name, cost_usd=(float, ...))
    with pytest.raises(ValueError, match="cost_usd"):
        tomorrow.model_validate_json(NAMED[name].value or b"")
    told = incompatible({name: json_schema(tomorrow)}, {name: [(1, json_schema(REGISTRY[name]))]}, {name: "results"})
    assert any("cost_usd" in line for line in told)


@pytest.mark.parametrize(
    ("name", "topic", "allowed"), [("result.failed", "results", True), ("promotion.evaluated", "promotions", False)]
)
def test_a_word_more_in_an_enum(name: str, topic: str, allowed: bool) -> None:
    """A reader of tomorrow takes old and new words. Today's refuses the new one by its field: so readers are upgraded before writers,

    and on topics that outsiders read with readers of their own the check refuses such a change.
    """
    field, words = {
        "result.failed": ("kind", Literal["unavailable", "deadline", "refused", "hedge_lost", "postponed"]),
        "promotion.evaluated": ("decision", Literal["continue", "promote", "request_approval", "reject", "postponed"]),
    }[name]
    tomorrow = next_version(name, **{field: (words, ...)})
    new = body(NAMED[name], **{field: "postponed"})
    tomorrow.model_validate_json(NAMED[name].value or b"", strict=True)
    tomorrow.model_validate_json(new.value or b"", strict=True)
    with pytest.raises(Undecodable) as error:
        decode(new, 4)
    assert error.value.field == field
    told = incompatible({name: json_schema(tomorrow)}, {name: [(1, json_schema(REGISTRY[name]))]}, {name: topic})
    assert (topic in BOTH_WAYS) is not allowed
    assert (told == []) is allowed


def test_a_second_version_of_a_type_is_refused_by_name() -> None:
    """`.v2` beside `.v1` is another type: code that does not know it says so, and what it does accept."""
    record = NAMED["result.completed"]
    told = tuple(
        (name, value.replace(b".v1", b".v2") if name == "ce_type" else value) for name, value in record.headers
    )
    with pytest.raises(Undecodable) as error:
        decode(replace(record, headers=told), 4)
    assert (error.value.kind, error.value.accepted) == ("unknown-type", "ratchet.<type>.v1")
