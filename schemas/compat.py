"""May one JSON Schema stand where another stood? Judged on the documents alone: any earlier version can be asked.

Rules:
1. `violations(reader, writer)` is empty only if the reader accepts every document that the writer's schema describes.
2. It may refuse what is in truth compatible; it never passes what it cannot judge (a keyword outside the lists below).
3. A writer writes only the fields its schema names. So a new optional field of an object without `additionalProperties`
   is compatible, though a stranger might have written something else under that name.
4. A changed default counts: an old record without the field would be read as something else. An object's default may gain fields at
   their own defaults.

Not seen: rules that a model checks beyond its schema (validators across fields).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

Schema = Mapping[str, Any]

NOTES = {"title", "description", "examples", "$schema", "$id", "$defs", "deprecated", "$comment"}
_SCALAR = {"type", "enum", "const", "default", "format"}
_NUMBER = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_STRING = {"minLength", "maxLength", "pattern"}
_ARRAY = {"items", "prefixItems", "minItems", "maxItems"}
_OBJECT = {"properties", "required", "additionalProperties", "minProperties", "maxProperties", "propertyNames"}
_JUDGED = NOTES | _SCALAR | _NUMBER | _STRING | _ARRAY | _OBJECT | {"$ref", "anyOf"}
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


@dataclass(frozen=True, slots=True)
class _Root:
    """A schema with its document, for its references."""

    schema: Schema
    document: Schema

    def to(self, schema: Any) -> "_Root":
        """A sub-schema of the same document; `true` is the schema that accepts everything."""
        if schema is True:
            return _Root({}, self.document)
        if schema is False:
            return _Root({"enum": []}, self.document)
        return _Root(cast("Schema", schema), self.document)


def violations(reader: Schema, writer: Schema) -> list[str]:
    """Why `reader` may refuse, or read otherwise, what `writer` describes; each line names the field, none: compatible."""
    found = _compare(_Root(reader, reader), _Root(writer, writer), "$", frozenset())
    return list(dict.fromkeys(found))


def same(one: Schema, other: Schema) -> bool:
    """Whether two schemas differ in notes only (titles, descriptions, their own id)."""
    return _stripped(one) == _stripped(other)


def _stripped(value: Any, *, names: bool = False) -> Any:
    """Without notes. `names`: the keys are field names, not keywords."""
    if isinstance(value, Mapping):
        rows = cast("Mapping[str, Any]", value).items()
        notes = NOTES - {"$defs"}
        return {
            key: _stripped(item, names=not names and key in {"properties", "$defs"})
            for key, item in rows
            if names or key not in notes
        }
    if isinstance(value, list):
        return [_stripped(item) for item in cast("list[Any]", value)]
    return value


def _resolve(root: _Root) -> _Root:
    """Follow `$ref`; what stands beside it (a default) stays in force."""
    seen: set[str] = set()
    while (ref := root.schema.get("$ref")) is not None:
        if ref in seen or not ref.startswith("#/"):
            raise ValueError(f"reference {ref!r}; accepted: a reference into the same document, not to itself")
        seen.add(ref)
        target: Any = root.document
        for part in ref[2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        beside = {key: value for key, value in root.schema.items() if key != "$ref"}
        if odd := set(beside) - NOTES - {"default"}:
            raise ValueError(f"{', '.join(sorted(odd))} beside a reference")
        root = _Root({**target, **beside}, root.document)
    return root


def _branches(root: _Root) -> Iterator[_Root]:
    """The schema as alternatives without anyOf, reference or list of types."""
    root = _resolve(root)
    schema = root.schema
    if "anyOf" in schema:
        if odd := set(schema) - NOTES - {"anyOf", "default"}:
            raise ValueError(f"{', '.join(sorted(odd))} beside anyOf")
        for option in schema["anyOf"]:
            yield from _branches(root.to(option))
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield _Root({**schema, "type": kind}, root.document)
    else:
        yield root


def _unjudged(root: _Root) -> set[str]:
    schema = root.schema
    odd = set(schema) - _JUDGED
    if isinstance(schema.get("type"), str) and schema["type"] not in _TYPES:
        odd.add(f"type {schema['type']}")
    return odd


def _compare(reader: _Root, writer: _Root, where: str, assumed: frozenset[str]) -> list[str]:
    # A recursive model comes back to a pair it is already being judged on: assume it holds there.
    pair = json.dumps([reader.schema, writer.schema], sort_keys=True)
    if pair in assumed:
        return []
    assumed |= {pair}
    try:
        reader, writer = _resolve(reader), _resolve(writer)
        for side, root in (("reader", reader), ("writer", writer)):
            if odd := _unjudged(root):
                return [f"{where}: cannot judge {', '.join(sorted(odd))} ({side})"]
        options = list(_branches(reader))
        found: list[str] = []
        for branch in _branches(writer):
            tries = [_branch(option, branch, where, assumed) for option in options]
            if all(tries):
                # Every alternative refuses: the shortest list is the nearest one.
                found += min(tries, key=len) if tries else [f"{where}: nothing is accepted any more"]
    except (KeyError, ValueError) as error:
        return [f"{where}: cannot judge {error}"]
    return found


def _branch(reader: _Root, writer: _Root, where: str, assumed: frozenset[str]) -> list[str]:
    for side, root in (("reader", reader), ("writer", writer)):
        if odd := _unjudged(root):
            return [f"{where}: cannot judge {', '.join(sorted(odd))} ({side})"]
    old, new = writer.schema, reader.schema
    values = _values(old)
    if values is not None:
        return [f"{where}: {value!r} is no longer accepted" for value in values if not _takes(new, value)]
    if _values(new) is not None:
        return [f"{where}: only listed values are accepted now"]
    old_type, new_type = old.get("type"), new.get("type")
    if new_type is not None and old_type != new_type and (old_type, new_type) != ("integer", "number"):
        return [f"{where}: was {old_type or 'anything'}, now {new_type}"]
    found = _bounds(new, old, where)
    kinds = {old_type} if old_type is not None else {"array", "object"}
    if "object" in kinds:
        found += _objects(reader, writer, where, assumed)
    if "array" in kinds:
        found += _arrays(reader, writer, where, assumed)
    return found


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _takes(schema: Schema, value: Any) -> bool:
    """Whether a plain value is accepted. Compared with its type: 1 is not True."""
    known = _values(schema)
    if known is not None and not any(type(item) is type(value) and item == value for item in known):
        return False
    kind = schema.get("type")
    if kind is not None and kind not in _kinds(value):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = _low(schema), _high(schema)
        return (low is None or (value, 0) >= low) and (high is None or (value, 0) <= high)
    if isinstance(value, str):
        pattern = schema.get("pattern")
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return fits and (pattern is None or re.search(pattern, value) is not None) and "format" not in schema
    return not isinstance(value, list | dict) or known is not None


def _kinds(value: Any) -> tuple[str, ...]:
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, int):
        return ("integer", "number")
    if isinstance(value, float):
        return ("number",)
    return ("string",) if isinstance(value, str) else ("array",) if isinstance(value, list) else ("object",)


def _low(schema: Schema) -> tuple[float, int] | None:
    """The lower bound as (value, 1 where the value itself is excluded): greater is narrower."""
    whole = schema.get("type") == "integer"
    bounds = [(schema["minimum"], 0)] if "minimum" in schema else []
    if "exclusiveMinimum" in schema:
        edge = schema["exclusiveMinimum"]
        bounds.append((edge + 1, 0) if whole and isinstance(edge, int) else (edge, 1))
    return max(bounds, default=None)


def _high(schema: Schema) -> tuple[float, int] | None:
    """The upper bound as (value, -1 where the value itself is excluded): less is narrower."""
    whole = schema.get("type") == "integer"
    bounds = [(schema["maximum"], 0)] if "maximum" in schema else []
    if "exclusiveMaximum" in schema:
        edge = schema["exclusiveMaximum"]
        bounds.append((edge - 1, 0) if whole and isinstance(edge, int) else (edge, -1))
    return min(bounds, default=None)


def _bounds(new: Schema, old: Schema, where: str) -> list[str]:
    found: list[str] = []
    low, high, old_low, old_high = _low(new), _high(new), _low(old), _high(old)
    if low is not None and (old_low is None or old_low < low):
        found.append(f"{where}: the lower bound is now {low[0]}")
    if high is not None and (old_high is None or old_high > high):
        found.append(f"{where}: the upper bound is now {high[0]}")
    for kind in ("Length", "Items", "Properties"):
        least, most = new.get(f"min{kind}", 0), new.get(f"max{kind}")
        if old.get(f"min{kind}", 0) < least:
            found.append(f"{where}: min{kind} is now {least}")
        if most is not None and (old.get(f"max{kind}") is None or old[f"max{kind}"] > most):
            found.append(f"{where}: max{kind} is now {most}")
    found += [
        f"{where}: {key} is now {new[key]!r}, was {old.get(key)!r}: not comparable"
        for key in ("pattern", "format")
        if key in new and new[key] != old.get(key)
    ]
    return found


def _objects(reader: _Root, writer: _Root, where: str, assumed: frozenset[str]) -> list[str]:
    new, old = reader.schema, writer.schema
    new_fields: Schema = new.get("properties", {})
    old_fields: Schema = old.get("properties", {})
    closed, rest = new.get("additionalProperties"), old.get("additionalProperties")
    found = [
        f"{where}.{name}: is required now" for name in new.get("required", []) if name not in old.get("required", [])
    ]
    for name, field in old_fields.items():
        place = f"{where}.{name}"
        if name in new_fields:
            found += _defaults(reader.to(new_fields[name]), field, place)
            found += _compare(reader.to(new_fields[name]), writer.to(field), place, assumed)
        elif closed is False:
            found.append(f"{place}: is refused now")
        elif closed is not None:
            found += _compare(reader.to(closed), writer.to(field), place, assumed)
    if rest is not None and rest is not False:  # the writer may write further fields, all of this kind
        for name in new_fields.keys() - old_fields.keys():
            found += _compare(reader.to(new_fields[name]), writer.to(rest), f"{where}.{name}", assumed)
        if closed is not None:
            found += _compare(reader.to(closed), writer.to(rest), f"{where}.*", assumed)
    elif rest is None and closed is not None and closed is not True:
        found.append(f"{where}: further fields were ignored and are not now")
    if "propertyNames" in new:
        named = {"type": "string", **old.get("propertyNames", {})}
        wanted = {"type": "string", **new["propertyNames"]}
        found += _compare(reader.to(wanted), writer.to(named), f"{where}.(names)", assumed)
        found += [f"{where}.{name}: is refused now" for name in old_fields if not _takes(wanted, name)]
    return found


def _defaults(reader: _Root, old: Schema, where: str) -> list[str]:
    """A field that may be missing must keep meaning what it meant when missing.

    An object means the same with a further field that has the very value that it has when missing.
    """
    if "default" not in old:
        return []
    before: Any = old["default"]
    after: Any = reader.schema.get("default", "(none)")
    if isinstance(before, dict) and isinstance(after, dict):
        fields: Schema = _resolve(reader).schema.get("properties", {})
        rows = cast("dict[str, Any]", after)
        after = {name: row for name, row in rows.items() if name in before or fields[name].get("default", ...) != row}
    if json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
        return [f"{where}: the default was {before!r} and is now {after!r}"]
    return []


def _arrays(reader: _Root, writer: _Root, where: str, assumed: frozenset[str]) -> list[str]:
    new, old = reader.schema, writer.schema
    new_first, old_first = new.get("prefixItems", []), old.get("prefixItems", [])
    most = old.get("maxItems")
    found: list[str] = []
    for index in range(max(len(new_first), len(old_first))):
        if most is not None and index >= most:
            return found
        ours = new_first[index] if index < len(new_first) else new.get("items", True)
        theirs = old_first[index] if index < len(old_first) else old.get("items", True)
        found += _compare(reader.to(ours), writer.to(theirs), f"{where}[{index}]", assumed)
    if most is None or most > max(len(new_first), len(old_first)):
        found += _compare(reader.to(new.get("items", True)), writer.to(old.get("items", True)), f"{where}[]", assumed)
    return found
