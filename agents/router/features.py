"""What a request's text shows on its surface, in integers: the 20 surface numbers, and the complexity tier in plain words.

1. Integers only: the same text gives the same numbers in any process, on any machine. Logarithms come from a table.
2. At most `HEAD` + `TAIL` characters are read, so a huge text costs no more than a large one; lengths are of the whole.
3. Nothing here knows a data set: list items, blanks and questions are what they are in any text.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ONE = 4096
CLIP = 4 * ONE
HEAD, TAIL = 12_288, 4_096
Tier = Literal["trivial", "simple", "moderate", "complex"]

NAMES = (
    "log_length", "log_stem", "log_last", "digits", "capitals", "symbols", "lines", "commas", "word_length", "type_token",
    "questions", "blanks", "quotes", "years", "negations", "items", "item_length", "formulae", "code", "item_digits",
)  # fmt: skip
NEGATIONS = frozenset((
    "not", "no", "never", "none", "nor", "neither", "cannot", "without", "except", "least", "false", "incorrect", "unlikely",
    "isn", "doesn", "don", "didn", "won", "wouldn",
))  # fmt: skip
STEPS = frozenset((
    "then", "step", "steps", "after", "before", "finally", "total", "remaining", "each", "per", "how", "calculate", "compute",
    "derive", "prove", "show", "explain", "compare", "evaluate", "design", "implement", "analyse", "analyze", "summarise",
    "summarize", "refactor", "plan", "therefore", "hence",
))  # fmt: skip

_WORDS = re.compile(r"\w+")
_ITEM = re.compile(r"^[ \t]*(?:\(?[A-Za-z0-9]{1,2}[.)]|[-*•])[ \t]+(?=\S)|\([A-Za-z0-9]\)[ \t]", re.MULTILINE)
_ENDS = (". ", "? ", "! ", ": ", "\n")
_BLANK = re.compile(r"_{2,}|\.{4,}")
_YEAR = re.compile(r"\b(?:1[0-9]|20)\d\d\b", re.ASCII)

# Classes of bytes in UTF-8, counted in one pass.
_LOWER, _UPPER, _DIGIT, _SPACE, _LINE, _COMMA, _QUESTION, _QUOTE, _MATH, _CODE, _SYMBOL = range(11)


def _classes() -> NDArray[np.uint8]:
    table = np.full(256, _SYMBOL, np.uint8)
    table[ord("a") : ord("z") + 1] = _LOWER
    table[ord("A") : ord("Z") + 1] = _UPPER
    table[ord("0") : ord("9") + 1] = _DIGIT
    table[128:] = _LOWER  # what is not ASCII
    table[128:192] = _SPACE  # but its first byte counts nowhere
    for name, signs in ((_SPACE, " \t\r\f\v"), (_LINE, "\n"), (_COMMA, ","), (_QUESTION, "?"), (_QUOTE, "\"'`")):
        table[list(signs.encode())] = name
    table[list(b"=+*/^<>$%\\|~")] = _MATH
    table[list(b"{}[];#@&_")] = _CODE
    return table


_CLASS = _classes()


def _mantissa(step: int) -> int:
    """round-down(2^12 · log2(1 + step/256)) by repeated squaring, exactly."""
    value, found = (256 + step) << 56, 0  # fixed point 2^-64
    for _ in range(12):
        value = value * value >> 64
        found <<= 1
        if value >> 65:
            value >>= 1
            found |= 1
    return found


_LOG2 = tuple(_mantissa(step) for step in range(256))


_SMALL = 1 << 10


def log2(number: int) -> int:
    """2^12 · log2(number), for numbers from 1; at most 2^-7 below the true value."""
    return _FIRST[number] if number < _SMALL else _log2(number)


def _log2(number: int) -> int:
    high = number.bit_length() - 1
    return (high << 12) + _LOG2[(number << 8 >> high) - 256]


_FIRST = (0, *(_log2(number) for number in range(1, _SMALL)))


@dataclass(frozen=True, slots=True)
class Scale:
    """The means and deviations, 2^-12, by which the raw surface numbers become z-scores."""

    means: tuple[int, ...]
    deviations: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A text as it is read once for all features: `seen` is what is read of it, `words` are folded to one case.

    `classes`: of the bytes of `seen` in UTF-8, `counts` of each class.
    """

    length: int
    seen: str
    words: Sequence[str]
    classes: NDArray[np.uint8]
    counts: Sequence[int]
    negations: int


def read(text: str) -> Reading:
    """NFC, without lone surrogates; of a huge text the head and the tail."""
    length = len(text)
    if length > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    words: list[str] = _WORDS.findall(text.casefold())
    classes = _CLASS[np.frombuffer(text.encode(), np.uint8)]
    counts: list[int] = np.bincount(classes, minlength=11).tolist()
    return Reading(length, text, words, classes, counts, sum(map(NEGATIONS.__contains__, words)))


def measures(reading: Reading) -> tuple[int, ...]:
    """The 20 surface numbers as they are, 2^-12, in the order of `NAMES`."""
    text, words = reading.seen, reading.words
    classes, counts = reading.classes, reading.counts
    seen = max(1, len(text))
    items = [found.start() for found in _ITEM.finditer(text)]
    stem = items[0] if items else len(text)
    last = stem - max(0, *(text.rfind(end, 0, max(0, stem - 2)) + len(end) for end in _ENDS))
    listed = classes[len(text[:stem].encode()) :]
    letters = counts[_LOWER] + counts[_UPPER]
    said = max(1, len(words))
    return (
        log2(1 + reading.length),
        log2(1 + stem),
        log2(1 + max(0, last)),
        (counts[_DIGIT] << 12) // seen,
        (counts[_UPPER] << 12) // max(1, letters),
        (counts[_SYMBOL] + counts[_MATH] + counts[_CODE] << 12) // seen,
        log2(1 + counts[_LINE]),
        log2(1 + counts[_COMMA]),
        (letters << 12) // said,
        (len(set(words)) << 12) // said,
        log2(1 + counts[_QUESTION]),
        log2(1 + len(_BLANK.findall(text))) if "__" in text or "...." in text else 0,
        log2(1 + counts[_QUOTE]),
        log2(1 + len(_YEAR.findall(text))) if counts[_DIGIT] > 3 else 0,
        log2(1 + reading.negations),
        log2(1 + len(items)),
        log2(1 + (len(text) - stem) // len(items)) if items else 0,
        log2(1 + counts[_MATH]),
        log2(1 + counts[_CODE]),
        (int(np.count_nonzero(listed == _DIGIT)) << 12) // max(1, len(text) - stem),
    )


# Over customer messages, examination questions and instructions in equal parts; a basis holds its own route's.
USUAL = Scale(
    (29972, 27300, 22393, 41, 221, 113, 5788, 3431, 17409, 3333, 2731, 68, 1417, 265, 1488, 5063, 11366, 1004, 956, 58),
    (6116, 5434, 4661, 114, 195, 116, 5455, 4717, 3350, 677, 2004, 610, 2881, 1222, 2853, 4776, 11108, 2901, 2774, 231),
)


def scores(measured: Sequence[int], scale: Scale) -> tuple[int, ...]:
    """z-scores, 2^-12, clipped at ±4."""
    return tuple(
        max(-CLIP, min(CLIP, (value - mean) * ONE // deviation))
        for value, mean, deviation in zip(measured, scale.means, scale.deviations, strict=True)
    )


def surface(text: str, scale: Scale = USUAL) -> tuple[int, ...]:
    """The 20 surface numbers as z-scores, 2^-12, clipped at ±4."""
    return scores(measures(read(text)), scale)


@dataclass(frozen=True, slots=True)
class Complexity:
    """How much a request seems to ask, and which points say so."""

    tier: Tier
    points: int
    why: tuple[tuple[str, int], ...]


TIERS: tuple[tuple[int, Tier], ...] = ((9, "complex"), (5, "moderate"), (2, "simple"), (0, "trivial"))
# name, the counts from which one more point is given
POINTS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("tokens", (15, 60, 150, 400, 1500)),
    ("questions", (2, 4)),
    ("code", (4, 20)),
    ("formulae", (3, 10)),
    ("digits", (4, 20)),
    ("negation", (1, 3)),
    ("steps", (1, 2, 4)),
    ("turns", (3, 7)),
)


def complexity(text: str, messages: int = 1) -> Complexity:
    """Points for what a text asks and for the messages of its conversation, and the tier of their sum."""
    return complexity_of(read(text), messages)


def complexity_of(reading: Reading, messages: int = 1) -> Complexity:
    """As `complexity`, of a text that was read already."""
    counts = reading.counts
    found = {
        "tokens": len(reading.words),
        "questions": counts[_QUESTION],
        "code": counts[_CODE],
        "formulae": counts[_MATH],
        "digits": counts[_DIGIT],
        "negation": reading.negations,
        "steps": sum(map(STEPS.__contains__, reading.words)),
        "turns": messages,
    }
    why: list[tuple[str, int]] = []
    for name, steps in POINTS:
        points = bisect_right(steps, found[name])
        if points:
            why.append((name, points))
    total = sum(points for _, points in why)
    return Complexity(next(tier for least, tier in TIERS if total >= least), total, tuple(why))
