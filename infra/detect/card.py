"""Payment cards: 12 to 19 digits, whole or grouped, of an issuer's range and with a Luhn digit; O and l read as digits."""

from collections.abc import Iterator

from infra.detect.checksums import luhn
from infra.detect.pattern import Context, Pattern, Span
from schemas.findings import Finding, Kind

_DIGIT = "[0-9OoIl]"
_NUMBER = Pattern(
    rf"\b(?:{_DIGIT}{{4}}(?:[ .-]{_DIGIT}{{4}}){{3}}(?:[ .-]{_DIGIT}{{1,3}})?"
    rf"|{_DIGIT}{{4}}[ .-]{_DIGIT}{{6}}[ .-]{_DIGIT}{{4,5}}"
    rf"|{_DIGIT}{{12,19}}"
    rf"|{_DIGIT}(?:[ .-]{_DIGIT}){{11,18}})\b"
)
_FEWEST, _GROUPED = 12, 16
_LOOK_ALIKE = bytes.maketrans(b"OoIl", b"0011")
_CONTEXT = Context(
    "card", "credit", "debit", "visa", "mastercard", "maestro", "amex", "american express", "discover", "jcb", "diners", "pan", "cc"
)  # fmt: skip
# First digits (from, to), lengths. Ranges of the networks' published issuer numbers.
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),
    (51, 55, frozenset({16})),
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16, 19})),
    (3095, 3095, frozenset({14, 16})),
    (36, 36, frozenset({14, 16, 19})),
    (38, 39, frozenset({14, 16, 19})),
    (6011, 6011, frozenset(range(16, 20))),
    (644, 659, frozenset(range(16, 20))),
    (3528, 3589, frozenset(range(16, 20))),
    (1800, 1800, frozenset({15})),
    (2131, 2131, frozenset({15})),
    (62, 62, frozenset(range(16, 20))),
    (50, 50, frozenset(range(16, 20))),
    (56, 69, frozenset(range(16, 20))),
    (2200, 2204, frozenset(range(16, 20))),
    (9792, 9792, frozenset({16})),
    (1, 1, frozenset({15})),
)


def find(text: bytes) -> Iterator[Finding]:
    """Every number of a known issuer; with a card's word near, any number with a right check digit."""
    for start, end in _NUMBER.spans(text):
        found = _read(text, start, end)
        if found is None:
            continue
        digits, stop = found
        if _issued(digits):
            yield Finding(Kind.CARD, start, stop, "card-luhn")
        elif _CONTEXT.near(text, (start, stop)):
            yield Finding(Kind.CARD, start, stop, "card-luhn-context", 0.8)


def _read(text: bytes, start: int, end: int) -> tuple[str, int] | None:
    """The digits of the number that starts here, and its end; a last short group may be a code that stands behind it."""
    for stop in _ends(text, (start, end)):
        part = text[start:stop].replace(b" ", b"").replace(b"-", b"").replace(b".", b"")
        plain = sum(48 <= byte <= 57 for byte in part)
        digits = part.translate(_LOOK_ALIKE).decode()
        if _FEWEST <= len(digits) <= 2 * plain and len(set(digits)) > 1 and luhn(digits):
            return digits, stop
    return None


def _ends(text: bytes, span: Span) -> tuple[int, ...]:
    start, end = span
    four_groups = start + _GROUPED + 3
    return (end, four_groups) if end > four_groups and text[four_groups : four_groups + 1] in b" .-" else (end,)


def _issued(digits: str) -> bool:
    return any(
        len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high for low, high, lengths in _ISSUERS
    )
