"""Folding: every text becomes plain ASCII, one byte a character, and each byte knows where it came from.

What a reader takes for a digit, a letter or a dot becomes that: compatibility forms (NFKC's: full width, mathematical, circled),
digits of other scripts, look-alikes of Latin letters, marks on letters. What cannot be seen (zero width, soft hyphens, directions,
control characters, fillers) goes. Cased letters that resemble nothing become `x`: a name stays one word. All else becomes a byte that
no pattern knows. `unescaped` is for what programs write: there an escape becomes the character that it stands for.
"""

import unicodedata
from dataclasses import dataclass
from html.entities import html5

from infra.detect.pattern import Pattern

UNKNOWN = "\x1f"
_LAST = 0x10FFFF  # of Unicode's code points
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
        + "∶"
        + "\u2800",
        "ABESIJKMHOPCTYXaesijopcyxhdqwvl"
        + "ABEZHIKMNOPTYXoiv"
        + "336"
        + "is"
        + "--------"
        + "''''"
        + "...."
        + "//"
        + ":"
        + " ",
        strict=True,
    )
)
_UNSEEN_BYTES = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r"})
# No letter is seen where these stand, though Unicode counts them among letters, or has not assigned them yet and says: ignore.
_UNSEEN = frozenset(
    map(chr, (0x115F, 0x1160, 0x3164, 0xFFA0, 0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)))
)
# As URLs, HTML, and the strings of JSON and programs have them.
_ESCAPE = Pattern(
    r"%(?:[2-6][0-9a-f]|7[0-9a-e]|0[9ad]|[cd][0-9a-f]%[89ab][0-9a-f]|e[0-9a-f](?:%[89ab][0-9a-f]){2}|f[0-4](?:%[89ab][0-9a-f]){3})"
    r"|&#(?:[0-9]{1,7}|x[0-9a-f]{1,6});|&[a-z]{2,20};|\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[nrt])",
    any_case=True,
)
_SHORT = {b"n": "\n", b"r": "\r", b"t": "\t"}


@dataclass(frozen=True, slots=True)
class Folded:
    """A text for patterns. `origins`: of each byte the index of its character, then the text's length; None: the same index."""

    text: bytes
    origins: tuple[int, ...] | None

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the folded text stands in the original, with what was hidden inside and right behind it."""
        if self.origins is None:
            return start, end
        last = self.origins[end - 1]
        while self.origins[end] == last:  # a character that became several is covered whole
            end += 1
        return self.origins[start], self.origins[end]


def fold(text: str) -> Folded:
    """A text of any characters, folded; linear in its length."""
    if text.isascii():
        plain = text.encode("ascii")
        if len(plain.translate(None, _UNSEEN_BYTES)) == len(plain):
            return Folded(plain, None)
    if all(len(_TABLE[ord(char)]) == 1 for char in set(text)):
        return Folded(text.translate(_TABLE).encode("ascii"), None)
    pieces = [_TABLE[ord(char)] for char in text]
    origins = [index for index, piece in enumerate(pieces) for _ in piece]
    return Folded("".join(pieces).encode("ascii"), (*origins, len(text)))


def unescaped(folded: Folded) -> Folded:
    """The folded text with each escape as the character that it stands for, folded too; the same object where there is none.

    Once: what an escape stands for is no part of another.
    """
    text, origins = folded.text, folded.origins
    if b"%" not in text and b"&" not in text and b"\\" not in text:
        return folded
    parts, places, at = list[bytes](), list[int](), 0
    for start, end in _ESCAPE.spans(text):
        char = _meant(text[start:end])
        if char is None:
            continue
        piece = _TABLE[ord(char)].encode("ascii")
        parts += (text[at:start], piece)
        places += range(at, start) if origins is None else origins[at:start]
        places += [start if origins is None else origins[start]] * len(piece)
        at = end
    if not parts:
        return folded
    places += range(at, len(text) + 1) if origins is None else origins[at:]
    return Folded(b"".join((*parts, text[at:])), tuple(places))


def _meant(escape: bytes) -> str | None:
    """The character of an escape; None where it is none."""
    sign, rest = escape[:1], escape[1:]
    if sign == b"%":
        return _one(bytes.fromhex(escape.replace(b"%", b"").decode()).decode("utf-8", "replace"))
    if sign == b"\\":
        return _SHORT.get(rest.lower()) or chr(int(rest[1:], 16))
    if rest[:1] != b"#":
        return _one(html5.get(rest.decode(), ""))
    code = int(rest[2:-1], 16) if rest[1:2] in b"xX" else int(rest[1:-1])
    return chr(code) if code <= _LAST else None


def _one(text: str) -> str | None:
    return text if len(text) == 1 else None


class _Table(dict[int, str]):
    def __missing__(self, code: int) -> str:
        piece = _folded(chr(code))
        if len(self) < _CACHED:
            self[code] = piece
        return piece


_TABLE = _Table()


def _folded(char: str) -> str:
    if char.isascii():
        return "" if ord(char) in _UNSEEN_BYTES else char
    if char in _UNSEEN:
        return ""
    return "".join(_plain(part) for part in unicodedata.normalize("NFKD", _ALIKE.get(char, char)))


def _plain(char: str) -> str:
    char = _ALIKE.get(char, char)
    if char.isascii():
        return char
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(char)
    if category in {"Cf", "Mn", "Me"} or char in _UNSEEN:
        return ""
    if category == "Cc":
        return "\n" if char == "\x85" else ""
    if category in {"Ll", "Lu", "Lt"}:
        return "x"
    return {"Zs": " ", "Zl": "\n", "Zp": "\n"}.get(category, UNKNOWN)
