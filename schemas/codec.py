"""CloudEvents 1.0 in Kafka's binary content mode: attributes in `ce_*` headers, the value is the JSON payload.

(CloudEvents Kafka protocol binding 1.0.2, 3.2.) Headers let routing, deduplication and tracing work without a parse.
"""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import NoReturn, cast

from pydantic import ValidationError

from schemas import compliance, events, policies
from schemas.errors import Undecodable
from schemas.payload import REGISTRY, TYPE_PREFIX, TYPE_SUFFIX, Payload
from schemas.value import value

Headers = tuple[tuple[str, bytes], ...]
MODULES = (events, policies, compliance)  # importing them fills the registry
FIELD_CHARS = 64
UNSAID = "..."  # in the place of a field's name that is not repeated
_FIELD = re.compile(r"[A-Za-z_-]*([0-9][A-Za-z_-]*){0,4}")
YEAR_9999_S = 253_402_300_799
LONG, DIGITS = b"0" * 22, bytes.maketrans(b"123456789", b"000000000")  # no float that is written shortest has as many
CONTENT_TYPE = b"application/json"


@value
class Encoded:
    key: bytes
    value: bytes
    headers: Headers


def rfc3339(at_ms: int) -> str:
    """Epoch milliseconds as an RFC 3339 instant in UTC. A time past the year 9999, which the standard ends with, is its end."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(min(at_s, YEAR_9999_S), UTC).isoformat().removesuffix("+00:00")


@lru_cache(maxsize=1024)
def _encoded(text: str) -> bytes:
    """For texts of which there are few: types and sources."""
    return text.encode()


def encode(payload: Payload, *, event_id: str, source: str, traceparent: str, extra: Headers = ()) -> Encoded:
    """The record of an event. `source` is the producing agent (`ratchet/router`); `extra` headers come last."""
    headers: Headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", _encoded(payload.ce_type())),
        ("ce_source", _encoded(source)),
        ("ce_time", rfc3339(payload.at_ms).encode()),
        ("content-type", CONTENT_TYPE),
        ("traceparent", traceparent.encode()),
        *extra,
    )
    return Encoded(payload.event_key().encode(), payload.__pydantic_serializer__.to_json(payload), headers)


def first_errors(error: ValidationError, limit: int = 5) -> list[tuple[str, str]]:
    """(field path, what is wrong) of the first errors, without any input value; a sender's own field name may be one."""
    return [
        (".".join(_said(part) for part in row["loc"]), row["msg"])
        for row in error.errors(include_url=False, include_context=False, include_input=False)[:limit]
    ]


def _said(part: int | str) -> str:
    """An index, or a name of few characters and few digits: no address or number of anybody has room in it."""
    return str(part) if isinstance(part, int) or (len(part) <= FIELD_CHARS and _FIELD.fullmatch(part)) else UNSAID


@lru_cache(maxsize=1024)
def payload_class(ce_type: str) -> type[Payload]:
    """The class of a `ce_type`; Undecodable when no such type is known."""
    name = ce_type.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)
    model = REGISTRY.get(name)
    if model is None or model.ce_type() != ce_type:
        raise Undecodable(
            f"unknown event type {ce_type[:80]!r}",
            kind="unknown-type",
            field="ce_type",
            accepted="ratchet.<type>.v1",
        )
    return model


class _Long:
    """Stands for an integer of too many digits."""


def _check_numbers(model: type[Payload], value: bytes) -> None:
    """pydantic reads `NaN` and `Infinity` as numbers where a field is ignored; JSON has no such words, and other readers stop there.

    An integer of any length is JSON, but a reader may set a limit (RFC 8259, 6): a rule that divides one of 400 digits crashes.
    """

    def refuse(name: str) -> NoReturn:
        raise Undecodable(
            f"{model.TYPE}: value: {name} is no JSON", kind="not-json", field="value", accepted="JSON (RFC 8259)"
        )

    def whole(text: str) -> object:
        return _Long() if len(text.removeprefix("-")) >= len(LONG) else 0

    with suppress(ValueError, RecursionError):  # what else is wrong with it the validator says
        data: object = json.loads(value, parse_constant=refuse, parse_int=whole)
        if (field := _long_at(data)) is not None:
            raise Undecodable(
                f"{model.TYPE}: {field or 'value'}: an integer of too many digits",
                kind="invalid",
                field=field or "value",
                accepted=f"at most {len(LONG) - 1} digits",
            )


def _long_at(data: object) -> str | None:
    """Where a `_Long` stands, None where none does."""
    left: list[tuple[str, object]] = [("", data)]
    while left:
        path, one = left.pop()
        if isinstance(one, _Long):
            return path[1:]
        if isinstance(one, dict):
            left += [(f"{path}.{name[:FIELD_CHARS]}", item) for name, item in cast("dict[str, object]", one).items()]
        elif isinstance(one, list):
            left += [(f"{path}.{number}", item) for number, item in enumerate(cast("list[object]", one))]
    return None


def _is_whole(number: float) -> bool:
    return number.is_integer() and abs(number) < 1 << 53


def _with_whole(error: ValidationError, value: bytes) -> bytes | None:
    """The value with `5.0` as `5`, where that is all that is wrong with it: to JSON Schema it is the same integer."""
    if not all(
        row["type"] == "int_type" and isinstance(row["input"], float) and _is_whole(row["input"])
        for row in error.errors(include_url=False, include_context=False)
    ):
        return None

    def number(text: str) -> float | int:
        real = float(text)
        return int(real) if _is_whole(real) else real

    try:
        return json.dumps(json.loads(value, parse_float=number)).encode()
    except (ValueError, RecursionError):
        return None


def decode_payload(model: type[Payload], value: bytes | None) -> Payload:
    """The payload, validated as its JSON Schema says: a number as text is no number, `5.0` is an integer. Undecodable names the field.

    Its message never holds a value of the payload. Of a name that an object says twice the last counts, as for `json.loads`.
    """
    if value is None:
        raise Undecodable("the record has no value", kind="empty", field="value", accepted="a JSON object")
    if b"NaN" in value or b"Infinity" in value or LONG in value.translate(DIGITS):
        _check_numbers(model, value)
    try:
        return model.__pydantic_validator__.validate_json(value, strict=True)
    except ValidationError as error:
        if (whole := _with_whole(error, value)) is not None:
            return decode_payload(model, whole)
        found = first_errors(error)
        field, message = found[0]
        rest = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        kind = (
            "not-json"
            if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
            else "invalid"
        )
        raise Undecodable(
            f"{model.TYPE}: {field or 'value'}: {message}{rest}",
            kind=kind,
            field=field or "value",
            accepted=message,
        ) from None
