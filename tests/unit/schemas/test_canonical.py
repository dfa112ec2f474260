"""Canonical JSON: one value, one byte string, and a refusal for everything else."""

import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas import canonical

VECTORS = json.loads((Path(__file__).parents[2] / "data/jcs/vectors.json").read_text())
OUTSIDE = {"french.json", "structures.json", "values.json", "weird.json"}  # non-ASCII keys, or a float
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-canonical.MAX_INT, canonical.MAX_INT)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", sorted(set(VECTORS) - OUTSIDE))
def test_published_vectors(name: str) -> None:
    """The published vectors inside our restriction give the published bytes."""
    assert canonical.encode(json.loads(VECTORS[name]["input"])).hex() == VECTORS[name]["output_hex"]


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_vectors_outside_the_restriction_are_refused(name: str) -> None:
    """Floats and keys outside ASCII are refused, never written in a form of our own."""
    with pytest.raises(canonical.NotCanonical):
        canonical.encode(json.loads(VECTORS[name]["input"]))


@given(values)
def test_agrees_with_an_independent_implementation(value: canonical.Json) -> None:
    """Whatever we encode, another RFC 8785 implementation encodes to the same bytes, and decoding gives it back."""
    data = canonical.encode(value)
    assert data == rfc8785.dumps(value)  # pyright: ignore[reportArgumentType]
    assert canonical.decode(data) == value


@pytest.mark.parametrize("value", [1.5, 2**53, -(2**53), "\ud800", {"é": 1}, {1: 2}, b"x", float("nan")])
def test_refused_values(value: object) -> None:
    """What has no restricted form is refused."""
    with pytest.raises(canonical.NotCanonical):
        canonical.encode({"x": value} if not isinstance(value, dict) else value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "data", [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b'"\\u0041"', b"1.0", b"01", b"\xff", b""]
)
def test_other_spellings_are_refused(data: bytes) -> None:
    """A second spelling of a value is not accepted."""
    with pytest.raises(canonical.NotCanonical):
        canonical.decode(data)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimals_read_back(value: float) -> None:
    """A number written as a decimal string reads back as the same double."""
    assert float(canonical.decimal(value)) == value
