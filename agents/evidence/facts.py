"""Facts by kind: what a value must be to stand in the log in plain. The kinds are those of the event models. Pure.

Rules:
1. A fact's kind is its field's annotation with its bounds: integers below 2^53, finite numbers, booleans, words of a `Literal`,
   lists and maps of these (at most 64), parts. Nothing is converted but a number that is no integer, which becomes its decimal.
2. A string without pattern or `Literal` has no kind. `table.STRINGS` declares one for its name, or it is no fact.
3. What is not of its kind is left out here and committed to by the record: never refused, never repaired.
"""

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from schemas import canonical
from schemas.payload import ID_PATTERN

MAX_ITEMS = 64
_DEFS = "#/$defs/"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """`core` reads a value, `document` says as JSON Schema what is written of it."""

    core: CoreSchema
    document: Document


DEFINED: dict[str, Document] = {}
"""The documents of named kinds, to which all others refer as `#/$defs/<name>`."""


def _defined(name: str, core: CoreSchema, document: Document) -> Kind:
    DEFINED[name] = document
    return Kind(core, {"$ref": _DEFS + name})


def _pattern(pattern: str, most: int) -> Kind:
    """A string by its pattern (anchored; of what Python's `re` and Rust's `regex` have in common) and greatest length."""
    core = core_schema.str_schema(pattern=pattern, max_length=most, strict=True)
    return Kind(core, {"type": "string", "pattern": pattern, "maxLength": most})


def _text(name: str, most: int, pattern: str) -> Kind:
    kind = _pattern(pattern, most)
    return _defined(name, kind.core, kind.document)


# What reads like somebody's number wherever it stands in an id. Social security: 3-2-4 with separators. Cards: 13 to 19 digits, whole or
# in the groups of cards. Times, days and counters (0, 1, 20 at the front) are none, nor what stands in hexadecimal digits.
_SEP, _FRONT = "[^0-9A-Za-z]", "(?:[3-9][0-9]|2[1-9])"
_SOCIAL = rf"(?:^|[^0-9])[0-9]{{3}}{_SEP}[0-9]{{2}}{_SEP}[0-9]{{4}}(?:[^0-9]|$)"
_CARD = (
    rf"(?:^|[^0-9A-Fa-f]){_FRONT}(?:[0-9]{{11,17}}|[0-9]{{2}}{_SEP}[0-9]{{6}}{_SEP}[0-9]{{4,5}}"
    rf"|[0-9]{{2}}(?:{_SEP}[0-9]{{4}}){{2}}{_SEP}[0-9]{{1,4}})(?:[^0-9A-Fa-f]|$)"
)
NUMBER = rf"{_SOCIAL}|{_CARD}"
_NUMBERED = SchemaValidator(
    core_schema.str_schema(pattern=NUMBER)
)  # in Rust, for it is asked of each id of each record


def _unnumbered(value: str) -> str:
    if _NUMBERED.isinstance_python(value):
        raise ValueError("holds what reads like a person's number")
    return value


def _id(name: str, most: int, pattern: str) -> Kind:
    kind = _pattern(pattern, most)
    core = core_schema.no_info_after_validator_function(_unnumbered, kind.core)
    return _defined(name, core, kind.document | {"not": {"pattern": NUMBER}})


# A row of seven digits or more is a telephone or card number for all we know: no name and no token.
NAME = _id("name", 64, r"^[0-9.-]*[A-Za-z_][A-Za-z0-9._-]*$|^[0-9.-]{1,6}$")
TOKEN = _id(
    "token", 128, r"^[0-9][0-9./:+-]*[A-Za-z_][A-Za-z0-9._:/+-]*$|^[A-Za-z][A-Za-z0-9._:/+-]*$|^[0-9][0-9./:+-]{0,5}$"
)
WORD = _text("word", 48, r"^[a-z][a-z0-9_-]*$")
LABEL = _text("label", 48, r"^[a-z][a-z_-]*$")
UUID = _text("uuid", 36, r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
DIGEST = _text("digest", 80, r"^[a-z][a-z0-9]{0,15}:[0-9a-f]{64}$|^[0-9a-f]{64}$|^[0-9a-f]{32}$")
VERSIONED = _text("versioned", 48, r"^[a-z][a-z_]*(?:/[0-9]{1,9})?$")
STANDING = _text(
    "standing",
    48,
    r"^(?:SHADOW|SHADOW, [0-9]{1,3} % certified|ENFORCE [0-9]{1,3} %|GRANTED >= (?:[01]|0\.[0-9]{1,9}|[0-9](?:\.[0-9]{1,6})?e-[0-9]{2}))"
    r"(?:, gated)?$",
)
SETTING = _text("setting", 200, r"^[a-z_]{1,24}(?:,[a-z_]{1,24}){0,7}$|^0\.[0-9]{1,9}(?:,0\.[0-9]{1,9}){0,7}$")

_UNIONS = (types.UnionType, typing.Union)
_ORDER = (bool, int, float, str)  # of a union: an integer is not to be read as a number that happens to be whole
_MAX = canonical.MAX_INT
INTEGER = _defined(
    "integer",
    core_schema.int_schema(strict=True, ge=-_MAX, le=_MAX),
    {"type": "integer", "minimum": -_MAX, "maximum": _MAX},
)
COUNT = _defined(
    "count", core_schema.int_schema(strict=True, ge=0, le=_MAX), {"type": "integer", "minimum": 0, "maximum": _MAX}
)
_DECIMAL = _defined(
    "decimal", core_schema.str_schema(), {"type": "string", "pattern": r"^-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?$"}
).document
_BOOLEAN = Kind(core_schema.bool_schema(strict=True), {"type": "boolean"})
_TOKEN = re.compile(DEFINED["token"]["pattern"])


def is_token(value: str) -> bool:
    """Whether an id of a header may stand in the log in plain."""
    fits = len(value) <= DEFINED["token"]["maxLength"] and _TOKEN.fullmatch(value) is not None
    return fits and not _NUMBERED.isinstance_python(value)


def reader(fields: Mapping[str, Kind]) -> SchemaValidator:
    """Reads an object's fields: those of their kind, by name. Reads any object, and refuses none."""
    return SchemaValidator(_object(fields).core)


def described(fields: Mapping[str, Kind]) -> Document:
    """What `reader` leaves of an object, as JSON Schema."""
    return _object(fields).document


def kinds(model: type[BaseModel], wanted: tuple[str, ...], strings: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kinds of the wanted fields of a model. TypeError names a field that has none."""
    return {name: _of_field(model, name, strings) for name in wanted}


def listed(fields: Mapping[str, Kind]) -> Kind:
    """A list of objects, of whatever length: who writes them shows the first `MAX_ITEMS`."""
    return _list(_object(fields), most=None)


def parts(
    model: type[BaseModel], wanted: Mapping[str, tuple[str, ...]], strings: Mapping[str, Kind]
) -> dict[str, Kind]:
    """The kinds of fields that hold objects, or lists of objects: of each the wanted fields."""
    found: dict[str, Kind] = {}
    for name, fields in wanted.items():
        annotation = _without_none(model.model_fields[name].annotation)
        many = typing.get_origin(annotation) is tuple
        part = typing.get_args(annotation)[0] if many else annotation
        inside = kinds(part, fields, strings)
        found[name] = listed(inside) if many else _object(inside)
    return found


def _of_field(model: type[BaseModel], name: str, strings: Mapping[str, Kind]) -> Kind:
    field = model.model_fields.get(name)
    if field is None:
        raise TypeError(f"{model.__name__} has no field {name!r}; accepted: {', '.join(model.model_fields)}")
    try:
        return _of(_without_none(field.annotation), field, strings.get(name))
    except TypeError as error:
        raise TypeError(f"{model.__name__}.{name} is no fact: {error}") from error


def _of(annotation: Any, field: FieldInfo, declared: Kind | None) -> Kind:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        words = [word for word in inside if word != ""]
        return Kind(core_schema.literal_schema(words), {"enum": words})
    if origin is tuple and len(inside) == 2 and inside[1] is Ellipsis:
        return _list(_of(inside[0], field, declared))
    if origin is dict and inside[0] is str:
        return _map(_of(_without_none(inside[1]), field, declared))
    if origin in _UNIONS and set(inside) <= set(_ORDER):
        found = [_of(one, field, declared) for one in sorted(inside, key=_ORDER.index)]
        core = core_schema.union_schema([kind.core for kind in found], mode="left_to_right")
        return Kind(core, {"anyOf": [kind.document for kind in found]})
    if annotation is bool:
        return _BOOLEAN
    if annotation is int:
        return _integer(field)
    if annotation is float:
        return _number(field)
    if annotation is str:
        return declared or _patterned(field)
    raise TypeError(
        f"{annotation} is no kind; accepted: numbers, booleans, literals, strings of a kind, lists and maps"
    )


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) not in _UNIONS:
        return annotation
    left = [one for one in typing.get_args(annotation) if one is not types.NoneType]
    return typing.Union[tuple(left)]  # noqa: UP007  of as many as there are


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """The bounds that the model sets on a number, or on the numbers inside of a list."""
    said = ((name, getattr(row, name, None)) for row in field.metadata for name in ("ge", "gt", "le", "lt"))
    return {name: bound for name, bound in said if bound is not None}


def _integer(field: FieldInfo) -> Kind:
    """Below 2^53. `5.0` is the integer 5, as it is for the decoder of events."""
    bounds = _bounds(field)
    least = max(bounds.get("ge", -_MAX), bounds.get("gt", -_MAX - 1) + 1)
    most = min(bounds.get("le", _MAX), bounds.get("lt", _MAX + 1) - 1)
    core = core_schema.int_schema(strict=True, ge=least, le=most)
    whole = core_schema.chain_schema([core_schema.float_schema(strict=True), core_schema.int_schema(ge=least, le=most)])
    document: Document = {"type": "integer", "minimum": least, "maximum": most}
    for named in (INTEGER, COUNT):
        if DEFINED[named.document["$ref"].removeprefix(_DEFS)] == document:
            document = named.document
    return Kind(core_schema.union_schema([core, whole], mode="left_to_right"), document)


def _number(field: FieldInfo) -> Kind:
    """Written as its shortest decimal: evidence holds no floats."""
    core = core_schema.float_schema(strict=True, allow_inf_nan=False, **_bounds(field))
    written = core_schema.no_info_after_validator_function(repr, core)  # `canonical.decimal` of what is finite
    return Kind(written, _DECIMAL)


def _patterned(field: FieldInfo) -> Kind:
    pattern = next((row.pattern for row in field.metadata if getattr(row, "pattern", None)), None)
    if pattern is None:
        raise TypeError("a string without pattern; accepted: a kind in table.STRINGS, or a commitment")
    return NAME if pattern == ID_PATTERN else _pattern(pattern, 256)


def _list(item: Kind, most: int | None = MAX_ITEMS) -> Kind:
    core = core_schema.list_schema(item.core, max_length=most, strict=True)
    return Kind(core, {"type": "array", "items": item.document, "maxItems": MAX_ITEMS})


def _map(value: Kind) -> Kind:
    """By name. A value of None says nothing and is left out."""
    core = core_schema.dict_schema(
        NAME.core, core_schema.nullable_schema(value.core), max_length=MAX_ITEMS, strict=True
    )
    document = {"type": "object", "propertyNames": NAME.document, "additionalProperties": value.document}
    return Kind(core_schema.no_info_after_validator_function(_said, core), document)


def _said(items: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in items.items() if value is not None}


def _object(fields: Mapping[str, Kind]) -> Kind:
    core = core_schema.typed_dict_schema(
        {
            name: core_schema.typed_dict_field(
                core_schema.with_default_schema(kind.core, on_error="omit"), required=False
            )
            for name, kind in fields.items()
        },
        extra_behavior="ignore",
    )
    document = {"type": "object", "properties": {name: kind.document for name, kind in fields.items()}}
    return Kind(core, document | {"additionalProperties": False})
