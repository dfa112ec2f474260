"""JCS (RFC 8785) whole, for documents that others wrote: floats as ECMAScript prints them, keys in UTF-16 order.

Evidence itself is written by `canonical` alone, which refuses what is not the same bytes under every implementation;
this shows that the two agree where both speak, and checks foreign documents.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from schemas.canonical import MAX_INT, NotCanonical

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"

_STRING = json.JSONEncoder(ensure_ascii=False).encode  # escapes ", \ and below U+0020 as RFC 8785, 3.2.2.2 does
_REPR = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:e([+-][0-9]+))?")


def canonicalize(document: bytes) -> bytes:
    """The canonical form of a JSON document. Raises NotCanonical for what is no I-JSON (RFC 7493)."""
    try:
        value = json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise NotCanonical("not JSON in UTF-8") from exc
    return encode(value)


def encode(value: Json) -> bytes:
    """The canonical form of a value. An integer is a double, as in ECMAScript: beyond 2^53 it is rounded."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError as exc:
        raise NotCanonical("a string holds a lone surrogate") from exc
    except RecursionError as exc:
        raise NotCanonical("nested too deeply") from exc


def number(value: float) -> str:
    """Number::toString of ECMA-262: the shortest digits that read back, plain from 1e-6 up to below 1e21."""
    match = _REPR.fullmatch(repr(float(value)))
    if match is None:
        raise NotCanonical(f"{value!r} is not a number; accepted: finite numbers")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    point = len(whole) + exponent - (len(whole + fraction) - len(digits))  # the value is 0.DIGITS times 10^point
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        text = digits.ljust(point, "0")
        return sign + text[:point] + ("." + text[point:] if text[point:] else "")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{sign}{mantissa}e{point - 1:+d}"


def _encode(value: Json) -> str:
    if isinstance(value, str):
        return _STRING(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and -MAX_INT <= value <= MAX_INT:
        return str(value)
    if isinstance(value, int | float):
        return number(_double(value))
    if isinstance(value, Mapping):
        rows = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_STRING(key)}:{_encode(item)}" for key, item in rows) + "}"
    return "[" + ",".join(map(_encode, value)) + "]"


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError as exc:
        raise NotCanonical("an integer beyond every double; accepted: finite numbers") from exc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical("an object names a key twice")
    return found


def _no_constant(text: str) -> float:
    raise NotCanonical(f"{text} is not a number; accepted: finite numbers")
