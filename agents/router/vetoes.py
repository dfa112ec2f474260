"""What two questions must agree in before one's answer may be the other's: a code for each thing in which they do not.

Nearness of texts is blind to small words that turn an answer round. A veto that speaks wrongly costs one fresh answer, one that is
silent wrongly gives a false one; so wherever there is doubt, it speaks. The word lists know English and German best.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agents.router import words

_NUMBER = re.compile(r"(?<![\w)])-?\d+(?:[.,:/-]\d+)*|\d+(?:[.,:/-]\d+)*")
_TOKEN = re.compile(_NUMBER.pattern + r"|[^\W\d_]+(?:['.&-]?[^\W_]+)*|[%€$£¥°<>=≤≥≠±+*/^×÷#|&~]|(?<=\s)-(?=\s)")
_SYMBOLS = frozenset("<>=≤≥≠±+*/^×÷#|&~-")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_EST = re.compile(r"[a-zäöüß]{2,}(?:est|ste[nrms]?)")
_LINK = re.compile(r"\S+@\S+|https?://\S+|www\.\S+|[@#]\w+|\"[^\"]+\"|“[^”]+”|„[^“”]+[“”]|`[^`]+`")
_KNOWN = words.UNITS | words.DATES
_SENTENCE_END = frozenset(".!?:\n")


@dataclass(frozen=True, slots=True)
class _Word:
    """A word as written, folded, and whether a sentence begins with it."""

    raw: str
    low: str
    opens: bool


def veto(one: str, other: str, *, by_meaning: bool = False) -> tuple[str, ...]:
    """The codes of what the texts do not agree in, in a fixed order; () where nothing speaks against it. Symmetric.

    Unless they were found alike `by_meaning`, their words must be the same, but for small ones and endings: one name in small letters
    for another, debit for credit, is little among many words, and nothing else would tell.
    """
    left, right = _words(one), _words(other)
    found = [code for code, part in _PARTS if part(left) != part(right)]
    if not (_names_within(left, right) and _names_within(right, left)) or _links(one) != _links(other):
        found.append("names")
    if _prefixed(left, right) or _prefixed(right, left):
        found.append("negation")
    content = _content(left), _content(right)
    if not by_meaning and set(content[0]) != set(content[1]):
        found.append("words")
    if _reordered(*content):
        found.append("order")
    languages = {_language(left), _language(right)} - {""}
    if len(languages) > 1 or _scripts(one) != _scripts(other):
        found.append("language")
    return tuple(code for code in CODES if code in found)


CODES = ("numbers", "units", "dates", "names", "negation", "comparatives", "language", "question", "words", "order")


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[_Word, ...]:
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-")
    found: list[_Word] = []
    end = 0
    for match in _TOKEN.finditer(text):
        between = text[end : match.start()]
        opens = not found or bool(_SENTENCE_END & set(between))
        end = match.end()
        for index, part in enumerate(_apart(match.group())):
            found.append(_Word(part, part.casefold(), opens and not index))
    return tuple(found)


def _apart(token: str) -> list[str]:
    """A contraction in two: isn't -> is, not; what's -> what."""
    low = token.casefold()
    if low in words.CONTRACTED:
        return list(words.CONTRACTED[low])
    if low.endswith("n't"):
        return [token[:-3], "not"]
    if low.endswith(("'s", "'re", "'m", "'ll", "'ve", "'d")):
        return [token.rpartition("'")[0]]
    return [token]


def _numbers(text: Sequence[_Word]) -> list[str]:
    """Every number in order, spelled ones too, each in one writing."""
    return [_number(word.low) for word in text if _number(word.low)]


def _number(low: str) -> str:
    if low in words.NUMBERS:
        return words.NUMBERS[low]
    if _NUMBER.match(low) or any(letter.isdigit() for letter in low):
        sign, bare = ("-", low[1:]) if low[0] == "-" else ("", low)
        plain = bare.replace(",", "") if _GROUPED.fullmatch(bare) else bare.replace(",", ".")
        whole, dot, rest = plain.partition(".")
        if whole.isdigit() and (not dot or rest.isdigit()):
            rest = rest.rstrip("0")
            return sign + (f"{int(whole)}.{rest}" if rest else str(int(whole)))
        return sign + plain
    return ""


def _units(text: Sequence[_Word]) -> list[str]:
    """Units that are spelled out, anywhere; short ones only beside a number (5 m, 5m, $5)."""
    found: list[str] = []
    for index, word in enumerate(text):
        beside = (index and _number(text[index - 1].low)) or (index + 1 < len(text) and _number(text[index + 1].low))
        if word.low in words.UNITS:
            found.append(words.UNITS[word.low])
        elif beside and word.raw in words.SHORT_UNITS:
            found.append(words.SHORT_UNITS[word.raw])
    return found


def _dates(text: Sequence[_Word]) -> list[str]:
    """Days, months, times of day and what is relative to now."""
    return [words.DATES[word.low] for word in text if word.low in words.DATES]


def _negations(text: Sequence[_Word]) -> list[str]:
    """What each negation negates: the next word that is none of the small ones."""
    found: list[str] = []
    for index, word in enumerate(text):
        if word.low in words.NEGATIONS:
            after = (_stem(one.low) for one in text[index + 1 :] if one.low not in words.SMALL)
            found.append(next(after, ""))
    return found


def _comparatives(text: Sequence[_Word]) -> list[str]:
    """Words and signs that compare, direct or bound, in order."""
    found: list[str] = []
    for index, word in enumerate(text):
        following = text[index + 1].low if index + 1 < len(text) else ""
        compares = word.low.endswith("er") and following in ("than", "als")
        superlative = _EST.fullmatch(word.low) and word.low not in words.NO_SUPERLATIVES
        if word.low in words.COMPARATIVES or word.low in _SYMBOLS or compares or superlative:
            found.append(words.COMPARATIVES.get(word.low, word.low))
    return found


def _questions(text: Sequence[_Word]) -> list[str]:
    """What is asked for: who, when, how many."""
    found: list[str] = []
    for index, word in enumerate(text):
        if word.low in words.QUESTIONS:
            following = text[index + 1].low if index + 1 < len(text) else ""
            found.append(f"{words.QUESTIONS[word.low]} {following if following in words.MEASURED else ''}".strip())
    return found


def _tongues(text: Sequence[_Word]) -> list[str]:
    """Languages that are named: translate into German."""
    return [words.TONGUES[word.low] for word in text if word.low in words.TONGUES]


_PARTS: tuple[tuple[str, Callable[[Sequence[_Word]], list[str]]], ...] = (
    ("numbers", _numbers),
    ("units", _units),
    ("dates", _dates),
    ("negation", _negations),
    ("comparatives", _comparatives),
    ("language", _tongues),
    ("question", _questions),
)


def _names_within(text: Sequence[_Word], other: Sequence[_Word]) -> bool:
    """Whether the names of a text come in the other too, in their order; there they may be written small."""
    rest = iter([_stem(word.low) for word in other])
    return all(_stem(word.low) in rest for word in text if _is_name(word))


def _is_name(word: _Word) -> bool:
    """Written large, though not only because a sentence begins; or large inside (iPhone, NASA), or with digits among letters (A4)."""
    raw = word.raw
    if not raw[0].isalpha() or raw == "I":
        return False
    inside = any(letter.isupper() or letter.isdigit() for letter in raw[1:])
    return inside or (raw[0].isupper() and not (word.opens and word.low in words.OPENERS))


def _links(text: str) -> list[str]:
    """Addresses, handles and what is quoted, word for word."""
    return [found.rstrip(".,;:!?)") for found in _LINK.findall(unicodedata.normalize("NFKC", text))]


def _prefixed(text: Sequence[_Word], other: Sequence[_Word]) -> bool:
    """Whether a word here is the other text's word with a prefix that negates it: possible, impossible."""
    there, here = {word.low for word in other}, {word.low for word in text}
    return any(
        word.startswith(prefix) and word[len(prefix) :] in there - here
        for word in here - there
        for prefix in words.PREFIXES
    )


def _content(text: Sequence[_Word]) -> list[str]:
    """The words that are not small, in order: without their endings, numbers, units and dates in one writing."""
    return [
        _number(word.low) or _KNOWN.get(word.low) or _stem(word.low) for word in text if word.low not in words.SMALL
    ]


def _reordered(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether words that both say come in another order: who bites whom."""
    both = set(left) & set(right)
    return [word for word in left if word in both] != [word for word in right if word in both]


def _stem(low: str) -> str:
    """A word without the ending that number and case change."""
    for ending in ("'s", "es", "s"):
        if low.endswith(ending) and len(low) - len(ending) >= 3:
            return low[: -len(ending)]
    return low


def _language(text: Sequence[_Word]) -> str:
    """The language whose small words come most often, by two at least and alone; "" where that is not clear."""
    counts = sorted(
        ((sum(word.low in known for word in text), name) for name, known in words.LANGUAGES.items()), reverse=True
    )
    return counts[0][1] if counts[0][0] >= 2 and counts[0][0] > counts[1][0] else ""


def _scripts(text: str) -> frozenset[str]:
    """The scripts of its letters."""
    if text.isascii():
        return frozenset(["LATIN"] if any(letter.isalpha() for letter in text) else [])
    return frozenset(
        unicodedata.name(letter, "?").partition(" ")[0]
        for letter in set(text)
        if letter.isalpha() and letter not in "ªºµ"
    )
