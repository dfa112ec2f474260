"""Compatibility: every planted break is named, and what the check passes, an independent validator passes too."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.compat import same, violations
from schemas.export import json_schemas

ALL = json_schemas()
BASE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 64, "minLength": 1},
        "kind": {"type": "string", "enum": ["a", "b", "c"]},
        "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.5},
        "count": {"type": "integer", "minimum": 0, "maximum": 10},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "minItems": 1, "maxItems": 4},
        "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["id", "kind"],
    "$defs": {"Part": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


def at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy's inner schema by dotted path is edited in place by the caller."""
    for part in path.split(".") if path else ():
        schema = schema[part]
    return schema


BREAKS: list[tuple[str, str, dict[str, Any], str]] = [
    ("a removed enum value", "properties.kind", {"enum": ["a", "b"]}, "$.kind: 'c' is no longer accepted"),
    ("values listed where any were taken", "properties.id", {"enum": ["x"]}, "$.id: only listed values"),
    ("a raised minimum", "properties.count", {"minimum": 1}, "$.count: the lower bound is now 1"),
    ("a lowered maximum", "properties.count", {"maximum": 9}, "$.count: the upper bound is now 9"),
    ("a bound made exclusive", "properties.share", {"exclusiveMinimum": 0}, "$.share: the lower bound"),
    ("a bound where none was", "properties.numbers.additionalProperties", {"maximum": 5}, "$.numbers.*: the upper"),
    ("a shorter string", "properties.id", {"maxLength": 63}, "$.id: maxLength is now 63"),
    ("a longer least string", "properties.id", {"minLength": 2}, "$.id: minLength is now 2"),
    ("another pattern", "properties.id", {"pattern": "^[a-z0-9]+$"}, "$.id: pattern is now"),
    ("a new format", "properties.id", {"format": "uuid"}, "$.id: format is now"),
    ("another type", "properties.count", {"type": "string"}, "$.count: was integer, now string"),
    ("a narrower type", "properties.share", {"type": "integer"}, "$.share: was number, now integer"),
    ("an alternative less", "properties.maybe", {"anyOf": [{"type": "string"}]}, "$.maybe: was null, now string"),
    ("another default", "properties.share", {"default": 0.6}, "$.share: the default was 0.5 and is now 0.6"),
    ("a new required field", "", {"required": ["id", "kind", "new"]}, "$.new: is required now"),
    ("an optional field made required", "", {"required": ["id", "kind", "count"]}, "$.count: is required now"),
    ("further fields refused", "", {"additionalProperties": False}, "$: further fields were ignored"),
    ("a required field in a part", "$defs.Part", {"required": ["x", "y"]}, "$.parts[].y: is required now"),
    ("another type in a part", "$defs.Part.properties.x", {"type": "integer"}, "$.parts[].x: was number"),
    ("a shorter list", "properties.parts", {"maxItems": 3}, "$.parts: maxItems is now 3"),
    ("a longer least list", "properties.parts", {"minItems": 2}, "$.parts: minItems is now 2"),
    (
        "another type in a tuple",
        "properties.pair",
        {"prefixItems": [{"type": "integer"}, {"type": "integer"}]},
        "$.pair[1]: was string, now integer",
    ),
    ("a map of another kind", "properties.numbers", {"additionalProperties": {"type": "integer"}}, "$.numbers.*: was"),
    ("named fields in a free map", "properties.numbers", {"propertyNames": {"maxLength": 3}}, "$.numbers.(names)"),
    ("an unknown keyword", "properties.count", {"multipleOf": 2}, "$.count: cannot judge multipleOf (reader)"),
    ("a keyword beside a reference", "properties.parts.items", {"minProperties": 1}, "cannot judge"),
    ("a foreign reference", "properties.parts", {"items": {"$ref": "other.json"}}, "cannot judge"),
]


@pytest.mark.parametrize(("path", "change", "said"), [row[1:] for row in BREAKS], ids=[row[0] for row in BREAKS])
def test_a_planted_break_is_named(path: str, change: dict[str, Any], said: str) -> None:
    """Each way of taking something back is found, with the field and the reason."""
    reader = copy.deepcopy(BASE)
    at(reader, path).update(change)
    found = violations(reader, BASE)
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("properties.kind", {"enum": ["a", "b", "c", "d"]}),
        ("properties.count", {"minimum": -1, "maximum": 11}),
        ("properties.count", {"type": "number"}),
        ("properties.count", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("properties", {"extra": {"type": "string"}}),
        ("", {"required": ["id"]}),
        ("properties.id", {"description": "another word", "title": "Id"}),
        ("$defs.Part", {"required": []}),
    ],
)
def test_widening_is_compatible(path: str, change: dict[str, Any]) -> None:
    """A wider value, a new optional field and a lifted requirement accept everything that was accepted before."""
    reader = copy.deepcopy(BASE)
    inner = at(reader, path)
    if "anyOf" in change:
        inner.clear()
    inner.update(change)
    assert violations(reader, BASE) == []


def test_a_field_is_removed_from_an_open_and_from_a_closed_object() -> None:
    """A reader that ignores strange fields may forget one; a reader that refuses them may not."""
    reader = copy.deepcopy(BASE)
    del reader["properties"]["count"]
    assert violations(reader, BASE) == []
    closed = copy.deepcopy(BASE) | {"additionalProperties": False}
    assert violations(reader | {"additionalProperties": False}, closed) == ["$.count: is refused now"]


def test_a_recursive_schema_is_judged() -> None:
    """A model that contains itself is compared to an end, and a break inside it is found."""
    tree: dict[str, Any] = {
        "$ref": "#/$defs/Tree",
        "$defs": {
            "Tree": {
                "type": "object",
                "properties": {"n": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
            }
        },
    }
    assert violations(tree, tree) == []
    narrow = copy.deepcopy(tree)
    narrow["$defs"]["Tree"]["properties"]["n"]["maximum"] = 3
    assert violations(narrow, tree)[0] == "$.n: the upper bound is now 3"


def test_notes_are_not_a_change() -> None:
    """Descriptions and titles do not make a new version; a field that is called `title` does."""
    noted = copy.deepcopy(BASE) | {"description": "said otherwise"}
    assert same(noted, BASE)
    named = copy.deepcopy(BASE)
    named["properties"]["title"] = {"type": "string"}
    assert not same(named, BASE)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_event_accepts_itself_and_breaks_are_caught(name: str) -> None:
    """Every real schema is judged without a doubt, and a new requirement or a closed door in it is found."""
    schema = ALL[name]
    assert violations(schema, schema) == []
    demanding = copy.deepcopy(schema)
    demanding["required"] = [*demanding.get("required", []), "planted"]
    assert violations(demanding, schema) == ["$.planted: is required now"]
    forgetful = copy.deepcopy(schema) | {"additionalProperties": False}
    forgetful["properties"].pop("at_ms")
    assert violations(forgetful, schema)


scalars = st.one_of(
    st.builds(
        lambda kind, low, high, edge: (
            {"type": kind}
            | ({} if low is None else {"exclusiveMinimum" if edge else "minimum": low})
            | ({} if high is None else {"maximum": high})
        ),
        st.sampled_from(["integer", "number"]),
        st.none() | st.integers(-3, 3),
        st.none() | st.integers(0, 6),
        st.booleans(),
    ),
    st.builds(
        lambda least, most: {"type": "string", "minLength": least} | ({} if most is None else {"maxLength": most}),
        st.integers(0, 2),
        st.none() | st.integers(1, 3),
    ),
    st.lists(st.sampled_from(["a", "b", 1, None, True]), min_size=1, unique_by=repr).map(lambda v: {"enum": v}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}]),
)


def _object(fields: dict[str, Any], required: list[str], rest: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": fields, "required": [n for n in required if n in fields]}
    return made if rest is None else made | {"additionalProperties": rest}


def _grow(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["p", "q"])
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        st.builds(
            lambda item, most: {"type": "array", "items": item} | ({} if most is None else {"maxItems": most}),
            inner,
            st.none() | st.integers(0, 2),
        ),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda items: {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        ),
        st.builds(
            _object, st.dictionaries(names, inner, max_size=2), st.lists(names), st.none() | st.just(False) | inner
        ),
    )


schemas = st.recursive(scalars, _grow, max_leaves=5)


def documents(schema: Any) -> st.SearchStrategy[Any]:
    """Documents that a writer of this schema may write: only the fields that it names (Rule 3)."""
    if "anyOf" in schema:
        return st.one_of([documents(option) for option in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        whole = st.integers(-5, 8)
        return whole if kind == "integer" else whole | st.sampled_from([-0.5, 0.5, 1.5, 5.5])
    if kind == "string":
        return st.text("ab", max_size=4)
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*[documents(item) for item in schema["prefixItems"]]).map(list)
        return st.lists(documents(schema["items"]), max_size=3)
    if kind == "object":
        fields = {name: documents(field) for name, field in schema["properties"].items()}
        needed = {name: made for name, made in fields.items() if name in schema["required"]}
        named = st.fixed_dictionaries(needed, optional={n: m for n, m in fields.items() if n not in needed})
        rest = schema.get("additionalProperties")
        if not isinstance(rest, dict):
            return named
        more = st.dictionaries(st.sampled_from(["p", "q", "r"]), documents(rest), max_size=2)
        return st.builds(lambda extra, own: {**{k: v for k, v in extra.items() if k not in fields}, **own}, more, named)
    if kind == "boolean":
        return st.booleans()
    return st.none() if kind == "null" else st.none() | st.integers(-5, 8) | st.text("ab", max_size=3) | st.just([])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas, schemas, st.data())
def test_what_the_check_passes_the_validator_passes(reader: Any, writer: Any, data: st.DataObject) -> None:
    """For any two schemas found compatible, a document of the writer is valid for the reader."""
    assume(not violations(reader, writer))
    document = data.draw(documents(writer))
    assume(Draft202012Validator(writer).is_valid(document))
    assert Draft202012Validator(reader).is_valid(document), document


@settings(max_examples=50, deadline=None)
@given(schemas)
def test_every_schema_is_compatible_with_itself(schema: Any) -> None:
    """Whatever the schema, it accepts what it accepts."""
    assert violations(schema, schema) == []
