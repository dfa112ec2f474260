"""JCS (RFC 8785) for the values that evidence may hold: one value, one byte string.

Restricted on purpose, so that sorted `json` output already is JCS: no floats (a number that is not an integer is a
string, see `decimal`), |int| < 2^53, keys of ASCII only (code point order is then UTF-16 order), no lone surrogates.
What lies outside is refused, never repaired.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

Json: TypeAlias = "None | bool | int | str | Sequence[Json] | Mapping[str, Json]"

MAX_INT = 2**53 - 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


class NotCanonical(ValueError):
    """The value has no restricted JCS form, or the bytes are not the form of their value. The message says where."""


def encode(value: Json) -> bytes:
    """The one encoding of `value`. Raises NotCanonical for what the restriction leaves out."""
    _check(value, "$")
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError as exc:
        raise NotCanonical("a string holds a lone surrogate") from exc


def decode(data: bytes) -> Json:
    """The value of canonical bytes. Raises NotCanonical unless encoding it again gives `data`, byte for byte."""
    try:
        value = cast("Json", json.loads(data.decode()))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise NotCanonical("not JSON in UTF-8") from exc
    if encode(value) != data:
        raise NotCanonical("not in canonical form: encoding the value again gives other bytes")
    return value


def decimal(value: float) -> str:
    """The shortest decimal that reads back as the same double: how evidence writes what is not an integer."""
    if not math.isfinite(value):
        raise NotCanonical(f"{value!r} is not a number; accepted: finite numbers")
    return repr(value)


def _check(value: Any, where: str) -> None:
    if value is None or value is True or value is False or type(value) is str:
        return
    if type(value) is int:
        if not -MAX_INT <= value <= MAX_INT:
            raise NotCanonical(f"{where}: integer beyond 2^53 - 1; accepted: a decimal string")
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            if type(key) is not str or not key.isascii():
                raise NotCanonical(f"{where}: key {key!r}; accepted: ASCII strings")
            _check(item, key)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[Any]", value):
            _check(item, where)
    else:
        raise NotCanonical(f"{where}: {type(value).__name__}; accepted: null, boolean, integer, string, list, object")
