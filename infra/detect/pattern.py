"""The only regular expressions that meet a text: RE2's, linear in its length whatever it holds.

Texts come folded (`infra.detect.fold`): one ASCII byte a character. Repetitions in patterns are bounded where a match may follow
another, so that looking for the end of one match never reads the rest of the text again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import re2

_re2 = cast("Any", re2)  # it ships no types
Span = tuple[int, int]
CONTEXT_BEFORE, CONTEXT_AFTER = 64, 24


def _options() -> Any:
    options = _re2.Options()
    options.encoding = _re2.Options.Encoding.LATIN1  # a byte is a character: no decoding, no classes of sequences
    options.log_errors = False
    return options


class Pattern:
    """One compiled expression. Raises ValueError for one that RE2 does not take."""

    __slots__ = ("_compiled",)

    def __init__(self, source: str, *, any_case: bool = False) -> None:
        try:
            self._compiled = _re2.compile(f"(?i:{source})".encode() if any_case else source.encode(), _options())
        except _re2.error as fault:
            raise ValueError(f"RE2 refuses {source!r}: {fault}") from fault

    def found(self, text: bytes) -> bool:
        """Does it occur?"""
        return self._compiled.search(text) is not None

    def first(self, text: bytes, start: int) -> Span | None:
        """The leftmost occurrence that starts at a place or behind it."""
        match = self._compiled.search(text, start)
        return None if match is None else cast("Span", match.span())

    def all_groups(self, text: bytes) -> Iterator[tuple[Span, ...]]:
        """The spans of each occurrence and of its groups; (-1, -1) for a group that took no part."""
        places = range(self._compiled.groups + 1)
        for match in self._compiled.finditer(text):
            yield tuple(match.span(group) for group in places)

    def spans(self, text: bytes, group: int = 0) -> Iterator[Span]:
        """Every occurrence, or what a group of it captured, from left to right."""
        for match in self._compiled.finditer(text):
            yield match.span(group)


def literally(words: Iterable[str]) -> str:
    """An expression for one of these, as they are."""
    return "(?:" + "|".join(_re2.escape(word) for word in words) + ")"


def any_of(words: Iterable[str]) -> str:
    """An expression for one of these words; a space stands for any run of up to three spaces, hyphens or underscores."""
    quoted = (_re2.escape(word).replace("\\ ", "[ _-]{1,3}") for word in sorted(words, key=len, reverse=True))
    return "(?:" + "|".join(quoted) + ")"


class Context:
    """Words of which one must stand near: whole words, in any case."""

    __slots__ = ("_words",)

    def __init__(self, *words: str) -> None:
        self._words = Pattern(rf"\b{any_of(words)}s?\b", any_case=True)

    def near(self, text: bytes, span: Span, before: int = CONTEXT_BEFORE, after: int = CONTEXT_AFTER) -> bool:
        """Does one stand within so many bytes before or after? A word that the window cuts does not count."""
        start, end = span
        left, right = max(start - before, 0), min(end + after, len(text))
        while 0 < left < start and text[left - 1 : left].isalnum():
            left += 1
        while end < right < len(text) and text[right : right + 1].isalnum():
            right -= 1
        return self._words.found(text[left:start]) or self._words.found(text[end:right])
