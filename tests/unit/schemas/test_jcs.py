"""The whole of RFC 8785: published documents and numbers, another implementation, and what is no JSON of one meaning."""

import json
import struct
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas import canonical, jcs

VECTORS = json.loads((Path(__file__).parents[2] / "data/jcs/vectors.json").read_text())
NUMBERS = {
    "0000000000000000": "0", "8000000000000000": "0", "0000000000000001": "5e-324", "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308", "4340000000000000": "9007199254740992",
    "4430000000000000": "295147905179352830000", "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23", "444b1ae4d6e2ef4f": "999999999999999900000", "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7", "3eb0c6f7a0b5ed8d": "0.000001", "41b3de4355555555": "333333333.3333333",
}  # fmt: skip
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-canonical.MAX_INT, canonical.MAX_INT)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=12,
)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_published_documents(name: str) -> None:
    """All six documents become the published bytes, and those stay as they are."""
    form = bytes.fromhex(VECTORS[name]["output_hex"])
    assert jcs.canonicalize(VECTORS[name]["input"].encode()) == form
    assert jcs.canonicalize(form) == form


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_as_the_rfc_lists_them(bits: str, text: str) -> None:
    """Samples of the RFC's appendix B."""
    assert jcs.number(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


@given(values)
def test_agrees_with_an_independent_implementation(value: jcs.Json) -> None:
    """Another implementation writes the same bytes, floats and keys of all planes included."""
    assert jcs.encode(value) == rfc8785.dumps(value)  # pyright: ignore[reportArgumentType]


@given(values)
def test_agrees_with_what_evidence_writes(value: jcs.Json) -> None:
    """Where the restricted form exists, it is the same."""
    try:
        restricted = canonical.encode(value)  # pyright: ignore[reportArgumentType]
    except canonical.NotCanonical:
        return
    assert jcs.encode(value) == restricted


def test_integers_are_doubles() -> None:
    """As ECMAScript reads them: beyond 2^53 rounded, beyond every double refused."""
    assert jcs.canonicalize(b"[9007199254740993,-0,1E2]") == b"[9007199254740992,0,100]"
    with pytest.raises(canonical.NotCanonical, match="double"):
        jcs.canonicalize(b"[1" + 400 * b"0" + b"]")


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":1}',
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b'["\\ud800"]',
        b'{"\\ud800":1}',
        b"\xff",
        b"",
        b"[" * 100_000,
    ],
    ids=lambda data: data[:12].decode("latin-1"),
)
def test_what_has_no_one_meaning_is_refused(document: bytes) -> None:
    """Double keys, no numbers, half characters, other encodings, nesting without end."""
    with pytest.raises(canonical.NotCanonical):
        jcs.canonicalize(document)
