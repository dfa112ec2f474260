"""The embedder without a model: the same bytes anywhere, near for like wording, within what float32 adds exactly."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router.likeness import HashedGrams


def cosine(one: str, other: str) -> float:
    """Of the two texts' vectors."""
    left, right = (HashedGrams().embed(text).astype(np.float64) for text in (one, other))
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def test_the_same_bytes_on_any_machine() -> None:
    """Pinned: an index written by one machine is read by another."""
    made = b"".join(HashedGrams().embed(text).tobytes() for text in ("How do I reset my password?", "Größe 44", ""))
    assert hashlib.sha256(made).hexdigest() == "2b5ddb2626c721639b2cb94dcac52535a43f264b9ff24b24d4a8c6e46cf0d8ae"


@given(text=st.text())
def test_any_text_has_a_vector(text: str) -> None:
    """256 numbers from -127 to 127, the greatest 127 in size wherever there is a word at all."""
    vector = HashedGrams().embed(text)
    assert (vector.dtype, vector.shape) == (np.int8, (HashedGrams.dims,))
    assert int(np.abs(vector.astype(int)).max()) in (0, 127)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "how do i reset  my password"),
        ("How do I change the address on my business account?", "how do I change the address on my business account, please"),
        ("ＦＵＬＬ width", "full WIDTH!"),
    ],
)  # fmt: skip
def test_like_wording_is_near(one: str, other: str) -> None:
    """Case, punctuation, width and a polite word leave a text near enough to be nominated or just below."""
    assert cosine(one, other) >= 0.88


def test_other_questions_are_far() -> None:
    """Questions about other things are nowhere near nomination."""
    assert cosine("How do I reset my password?", "When does the shop in town open?") < 0.5
