"""What may be accepted, said a second time and without the decoder: the documents of `schemas/json`, the standard library's JSON,
the topics table. What both let pass is right; what only the decoder lets pass is accepted wrongly.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from jsonschema import Draft202012Validator

from schemas.errors import Refused
from schemas.payload import REGISTRY, Payload
from schemas.topics import PREFIX, SPOKEN
from streams.shapes import Event, Record
from streams.wire import partition_of

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "json"
COVERED = (
    "ce_id",
    "ce_type",
    "ratchet-principal",
    "ratchet-key",
    "ratchet-proof-at",
    "ratchet-proof-until",
    "ratchet-proof",
)
LEAK = 24  # letters: a shorter text may stand in a message by chance


class Oracle:
    """Says why a record may not be accepted."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._schemas = {
            name: Draft202012Validator(json.loads((SCHEMAS / f"{name}.v1.json").read_text(encoding="utf-8")))
            for name in REGISTRY
        }

    def wrong(self, record: Record, event: Event[Payload]) -> str | None:
        """Why this record should not have become this event, None where it should."""
        types = [value for name, value in record.headers if name == "ce_type"]
        named = [value for name, value in record.headers if name == "ce_id"]
        kind = event.data.TYPE
        if types != [b"ratchet." + kind.encode() + b".v1"]:
            return f"taken as {kind}, its headers say {types!r}"
        if len(named) > 1 or (named and named[0] and event.id.encode() != named[0]) or not event.id:
            return f"taken as {event.id!r}, its headers say {named!r}"
        if record.topic != PREFIX + event.data.TOPIC:
            return f"{kind} taken from {record.topic}"
        try:
            said = json.loads((record.value or b"").decode(), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            return f"taken, and is no JSON: {error}"
        fault = next(iter(cast("Any", self._schemas[kind]).iter_errors(said)), None)
        if fault is not None:
            return f"taken, and the schema says: {'.'.join(map(str, fault.absolute_path))}: {fault.message[:200]}"
        made = json.loads(event.data.__pydantic_serializer__.to_json(event.data))
        changed = _changed(made, said, "$")
        return f"taken as something else: {changed}" if changed else self._misplaced(record, event)

    def _misplaced(self, record: Record, event: Event[Payload]) -> str | None:
        if event.key.encode() != (record.key or b""):
            return f"the key became {event.key!r}"
        if record.topic.removeprefix(PREFIX) not in SPOKEN:
            return None  # only our agents write there
        if record.key is None or partition_of(record.key, self._partitions) != record.partition:
            return f"taken from partition {record.partition}"
        if event.key != event.data.event_key() and record.topic != PREFIX + "requests":  # there the router says so
            return f"key {event.key!r} of an event about {event.data.event_key()!r}"
        return None

    @staticmethod
    def unproven(record: Record, proven: Record, speaker_asked: bool) -> str | None:
        """Why a record that was made from a proven one may not be taken as proven: all that the proof covers must be as it was."""
        if not speaker_asked:
            return None
        same = (record.key, record.value) == (proven.key, proven.value)
        told, before = ([row for row in one.headers if row[0] in COVERED] for one in (record, proven))
        return (
            None if same and sorted(told) == sorted(before) else "taken with a proof that was made for another record"
        )

    @staticmethod
    def badly_refused(record: Record, error: Refused) -> str | None:
        """What a refusal lacks, or what it tells that it must not."""
        if not (error.kind and error.field and error.accepted and str(error)):
            return f"refused without kind, field or what is accepted: {error!r}"
        try:
            said = json.loads(record.value or b"")
        except (ValueError, RecursionError):
            return None
        if isinstance(said, dict):  # an answer that was refused says what a refusal says
            said = {
                name: value
                for name, value in cast("dict[str, Any]", said).items()
                if name not in ("reason", "accepted")
            }
        open_text = b"\0".join(value for _, value in record.headers).decode("utf-8", "replace")
        texts = (text for text in _texts(said) if len(text) >= LEAK and text[:LEAK] not in open_text)
        leaked = next((text for text in texts if text in str(error)), None)
        return None if leaked is None else f"the refusal tells what the payload says: {error}"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _texts(value: Any) -> list[str]:
    """Every text in a JSON value, names of fields not."""
    found: list[str] = []
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            left += cast("dict[str, Any]", one).values()
        elif isinstance(one, list):
            left += cast("list[Any]", one)
    return found


def _changed(made: Any, said: Any, where: str) -> str | None:
    """Where a payload, encoded again, differs from what was said; fields that were not said may have their default."""
    if isinstance(made, dict) and isinstance(said, dict):
        named = cast("Mapping[str, Any]", said)
        rows = cast("dict[str, Any]", made).items()
        found = (_changed(value, named[name], f"{where}.{name}") for name, value in rows if name in named)
        return next((row for row in found if row), None)
    if isinstance(made, list) and isinstance(said, list):
        mine, theirs = cast("list[Any]", made), cast("list[Any]", said)
        if len(mine) != len(theirs):
            return f"{where}: {len(theirs)} items became {len(mine)}"
        return next((row for n, one in enumerate(mine) if (row := _changed(one, theirs[n], f"{where}[{n}]"))), None)
    return _other(cast("object", made), cast("object", said), where)


def _other(made: object, said: object, where: str) -> str | None:
    if (type(made) is type(said) and made == said) or _equal(made, said):
        return None
    return f"{where}: {type(said).__name__} became {type(made).__name__}"


def _equal(made: object, said: object) -> bool:
    """Whether they are the same number; a field of floating point may round what it was given."""
    if (
        isinstance(made, bool)
        or isinstance(said, bool)
        or not isinstance(made, int | float)
        or not isinstance(said, int | float)
    ):
        return False
    return made == said or (isinstance(made, float) and math.isclose(made, said, rel_tol=1e-15))
