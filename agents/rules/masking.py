"""Values out of a request's texts, numbered placeholders in; and back in the answer, also where it comes in pieces. Pure.

1. A placeholder is `[LABEL_N]`. The same value under the same label has the same number in all texts of a request; numbers are given in
   the order of first appearance, so a longer conversation repeats those of a shorter one.
2. What looks like a placeholder in a text that comes in is a value itself (`[LITERAL_N]`): nobody can type one that gives another's value.
3. Putting back is one pass: what was put back is not looked at again, and a placeholder that the map does not hold stays as it is.
4. Findings that overlap become one placeholder over all of them, under the label of the longest.
5. The map holds what was taken out: it is sealed before it goes anywhere, and shows nothing of itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, cast

from schemas import canonical
from schemas.findings import Finding

LITERAL: Final = "LITERAL"
LONGEST: Final = 48  # of a placeholder, brackets included
_LABEL: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_LABEL_MOST: Final = 32
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, repr=False)
class MaskMap:
    """Placeholder -> the value that it stands for."""

    values: Mapping[str, str] = field(default_factory=dict[str, str])

    def __repr__(self) -> str:
        return f"MaskMap({len(self.values)} values)"

    def encode(self) -> bytes:
        """The bytes to seal (JCS)."""
        return canonical.encode({"v": _VERSION, "values": self.values})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The map of such bytes. Raises ValueError for others, and says nothing of what they hold."""
        try:
            read = canonical.decode(data)
        except canonical.NotCanonical:
            raise ValueError("not the bytes of a mask map") from None
        values = read.get("values") if isinstance(read, dict) and read.keys() == {"v", "values"} else None
        if not isinstance(values, dict) or cast("dict[str, object]", read)["v"] != _VERSION:
            raise ValueError(f"not a mask map of version {_VERSION}")
        if not all(isinstance(text, str) and _is_placeholder(name) for name, text in values.items()):
            raise ValueError("a mask map holds placeholders and texts only")
        return cls(cast("dict[str, str]", values))


@dataclass(frozen=True, slots=True)
class Masked:
    """The texts as a model may see them, in their order, and what puts them back."""

    texts: tuple[str, ...]
    map: MaskMap


def mask(texts: Sequence[str], findings: Sequence[Iterable[Finding]], kinds: Collection[str]) -> Masked:
    """All texts of a request (system, tool, each turn, metadata) with findings of `kinds` replaced; `findings`: those of each text.

    Raises ValueError for a finding outside its text, and for findings of more or fewer texts: a detector that miscounts must not leak.
    """
    spans = _spans(texts, findings, kinds)
    names: dict[tuple[str, str], str] = {}
    last: dict[str, int] = {}
    masked: list[str] = []
    for number, text in enumerate(texts):
        literals = [_Span(start, end, "") for start, end in _placeholders(text)]
        parts: list[str] = []
        at = 0
        for span in _merged([*spans[number], *literals]):
            key = (span.label or LITERAL, text[span.start : span.end])
            if key not in names:
                last[key[0]] = last.get(key[0], 0) + 1
                names[key] = f"[{key[0]}_{last[key[0]]}]"
            parts += (text[at : span.start], names[key])
            at = span.end
        masked.append("".join((*parts, text[at:])))
    return Masked(tuple(masked), MaskMap({name: value for (_, value), name in names.items()}))


def redact(texts: Sequence[str], findings: Sequence[Iterable[Finding]], kinds: Collection[str]) -> tuple[str, ...]:
    """The texts with findings of `kinds` gone for good: `[LABEL]`, without a number, so nothing puts it back.

    For what a model wrote by itself; placeholders of the request stay, to be put back afterwards.
    """
    spans = _spans(texts, findings, kinds)
    done: list[str] = []
    for number, text in enumerate(texts):
        at, parts = 0, list[str]()
        for span in _merged(spans[number]):
            parts += (text[at : span.start], f"[{span.label}]")
            at = span.end
        done.append("".join((*parts, text[at:])))
    return tuple(done)


def unmask(text: str, known: MaskMap) -> str:
    """The text with the values of `known` put back."""
    return _restored(text, known.values, whole=True)[0]


def literals(text: str) -> tuple[str, ...]:
    """What stands before, between and after the placeholders of a text: one part more than it has of them."""
    parts, at = list[str](), 0
    for start, end in _placeholders(text):
        parts.append(text[at:start])
        at = end
    return (*parts, text[at:])


class Unmasker:
    """`unmask` for a text that comes in pieces: joined, what it gives is what `unmask` gives of the joined pieces.

    Holds back at most the beginning of one placeholder.
    """

    def __init__(self, known: MaskMap) -> None:
        self._values = known.values
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be said after this piece."""
        done, self._held = _restored(self._held + piece, self._values, whole=False)
        return done

    def finish(self) -> str:
        """What was held back; the text has ended."""
        held, self._held = self._held, ""
        return held


def label_of(kind: str) -> str:
    """A kind as it stands in placeholders: `e-mail` is `E_MAIL`."""
    return "".join(char if char in _LABEL else "_" for char in kind.upper())[:_LABEL_MOST] or "VALUE"


@dataclass(frozen=True, slots=True)
class _Span:
    """[start, end) of a text. No label: a literal, which yields to any finding."""

    start: int
    end: int
    label: str


def _spans(texts: Sequence[str], findings: Sequence[Iterable[Finding]], kinds: Collection[str]) -> list[list[_Span]]:
    if len(texts) != len(findings):
        raise ValueError(f"findings of {len(findings)} texts for {len(texts)} texts")
    spans: list[list[_Span]] = []
    for text, rows in zip(texts, findings, strict=True):
        wanted = [one for one in rows if one.kind in kinds]
        for one in wanted:
            if not 0 <= one.start < one.end <= len(text):
                raise ValueError(f"a finding at {one.start}-{one.end} lies outside its text of {len(text)} characters")
        spans.append([_Span(one.start, one.end, label_of(one.kind)) for one in wanted])
    return spans


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Apart from each other, in order. What overlaps is one, labelled by the longest finding, then by the first label."""
    groups: list[tuple[_Span, _Span]] = []  # the whole, and the span that labels it
    for span in sorted(spans, key=lambda one: (one.start, one.end, one.label)):
        if groups and span.start < groups[-1][0].end:
            whole, best = groups[-1]
            best = min(best, span, key=lambda one: (not one.label, one.start - one.end, one.label))
            groups[-1] = (_Span(whole.start, max(whole.end, span.end), best.label), best)
        else:
            groups.append((span, span))
    return [whole for whole, _ in groups]


def _placeholders(text: str) -> Iterable[tuple[int, int]]:
    """Where the text holds what looks like a placeholder."""
    start = text.find("[")
    while start >= 0:
        end = _end(text, start)
        if end is not None and end > start and _is_placeholder(text[start:end]):
            yield start, end
        start = text.find("[", start + 1)


def _is_placeholder(text: str) -> bool:
    label, _, number = text[1:-1].rpartition("_")
    return (
        len(text) <= LONGEST
        and text[:1] == "["
        and text[-1:] == "]"
        and label != ""
        and _LABEL.issuperset(label)
        and number.isascii()
        and number.isdecimal()
    )


def _end(text: str, start: int) -> int | None:
    """Past the bracket that closes what was opened at `start`; `start` where it is no placeholder; None where the text ended too early."""
    for index in range(start + 1, min(len(text), start + LONGEST)):
        if text[index] == "]":
            return index + 1
        if text[index] not in _LABEL:
            return start
    return None if len(text) < start + LONGEST else start


def _restored(text: str, values: Mapping[str, str], *, whole: bool) -> tuple[str, str]:
    """What is certain of `text` with values put back, and the rest, which may become a placeholder (none when it is `whole`)."""
    parts: list[str] = []
    at = 0
    while (start := text.find("[", at)) >= 0:
        parts.append(text[at:start])
        end = _end(text, start)
        if end is None:
            if not whole:
                return "".join(parts), text[start:]
            end = start
        at = max(end, start + 1)
        found = text[start:at]
        parts.append(values.get(found, found))
    return "".join((*parts, text[at:])), ""
