"""Folding: every text becomes plain ASCII, one byte a character, and each byte knows where it came from.

What a reader takes for a digit, a letter or a dot becomes that: compatibility forms (NFKC's: full width, mathematical, circled),
digits of other scripts, look-alikes of Latin letters, marks on letters. What cannot be seen (zero width, soft hyphens, directions)
goes. Cased letters that resemble nothing become `x`: a name stays one word. All else becomes a byte that no pattern knows.
"""

import unicodedata
from dataclasses import dataclass

UNKNOWN = "\x1f"
_CACHED = 1 << 16  # characters; more distinct ones than that are folded anew each time
_ALIKE = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХаеѕіјорсухһԁԛԝѵӏ"
        + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοιν"
        + "Ззб"
        + "ıſ"
        + "‐‑‒–—―−⁃"
        + "‘’ʼ′"
        + "。｡∙·"
        + "⁄∕"
        + "∶",
        "ABESIJKMHOPCTYXaesijopcyxhdqwvl"
        + "ABEZHIKMNOPTYXoiv"
        + "336"
        + "is"
        + "--------"
        + "''''"
        + "...."
        + "//"
        + ":",
        strict=True,
    )
)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text for patterns. `origins`: of each byte the index of its character, then the text's length; None: the same index."""

    text: bytes
    origins: tuple[int, ...] | None

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the folded text stands in the original, with what was hidden inside and right behind it."""
        if self.origins is None:
            return start, end
        return self.origins[start], max(self.origins[end - 1] + 1, self.origins[end])


def fold(text: str) -> Folded:
    """A text of any characters, folded; linear in its length."""
    if text.isascii():
        return Folded(text.encode("ascii"), None)
    if all(len(_TABLE[ord(char)]) == 1 for char in set(text)):
        return Folded(text.translate(_TABLE).encode("ascii"), None)
    pieces = [_TABLE[ord(char)] for char in text]
    origins = [index for index, piece in enumerate(pieces) for _ in piece]
    return Folded("".join(pieces).encode("ascii"), (*origins, len(text)))


class _Table(dict[int, str]):
    def __missing__(self, code: int) -> str:
        piece = _folded(chr(code))
        if len(self) < _CACHED:
            self[code] = piece
        return piece


_TABLE = _Table()


def _folded(char: str) -> str:
    if char.isascii():
        return char
    return "".join(_plain(part) for part in unicodedata.normalize("NFKD", _ALIKE.get(char, char)))


def _plain(char: str) -> str:
    char = _ALIKE.get(char, char)
    if char.isascii():
        return char
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category in {"Cf", "Mn", "Me"}:
        return ""
    if category in {"Ll", "Lu", "Lt"}:
        return "x"
    return {"Zs": " ", "Zl": "\n", "Zp": "\n"}.get(category, UNKNOWN)
