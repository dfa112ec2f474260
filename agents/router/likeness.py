"""How like two questions are: the port of text embedders, and one that needs no model. Integers only."""

import re
import unicodedata
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DIMS = 256
_WORD = re.compile(r"\w+")


class TextEmbedder(Protocol):
    """A text as a direction: near texts point near. The same text gives the same bytes on any machine."""

    @property
    def by_meaning(self) -> bool:
        """Whether texts of other words may be near: then a veto does not ask for the same words."""
        ...

    @property
    def dims(self) -> int:
        """At most 1,024: products of such vectors are then exact in float32, whatever the order of the sum."""
        ...

    def embed(self, text: str) -> NDArray[np.int8]:
        """`dims` numbers from -127 to 127; all 0 where the text says nothing."""
        ...


class HashedGrams:
    """Words (weight 2), pairs of neighbouring words (2) and the words' letter trigrams (1), hashed with a sign into 256 sums.

    Knows nothing of meaning: what it holds like is worded alike. That is what a cache may rely on without a model.
    """

    by_meaning = False
    dims = DIMS

    def embed(self, text: str) -> NDArray[np.int8]:
        sums = [0] * DIMS
        for gram, weight in _grams(text):
            code = zlib.crc32(gram.encode())
            sums[code % DIMS] += weight if code & 0x8000_0000 else -weight
        most = max(map(abs, sums))
        if most:
            sums = [127 * one // most if one > 0 else -(-127 * one // most) for one in sums]
        return np.array(sums, dtype=np.int8)


def _grams(text: str) -> Iterator[tuple[str, int]]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    for word in words:
        yield word, 2
        padded = f"^{word}$"
        for start in range(len(padded) - 2):
            yield f"#{padded[start : start + 3]}", 1
    for one, other in pairwise(words):
        yield f"{one} {other}", 2
