"""Payment cards: 12 to 19 digits, whole or grouped, of an issuer's range and with a Luhn digit; O and l read as digits."""

from collections.abc import Iterator

from infra.detect.checksums import luhn
from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_DIGIT = "[0-9OoIl]"
_SIGNS = b" .-\t\r\n"
_BLANKS = b" \t\r\n"
_WIDE = (b"  ", b"\t", b"\n")
_BETWEEN = r"(?:[.-]|[ \t]{1,3}|\r?\n)"  # two groups: also in a table, or where a line ends
_NUMBER = Pattern(
    rf"\b(?:{_DIGIT}{{4}}(?:{_BETWEEN}{_DIGIT}{{4}}){{3}}(?:[ .-]{_DIGIT}{{1,3}})?"
    rf"|{_DIGIT}{{4}}{_BETWEEN}{_DIGIT}{{6}}{_BETWEEN}{_DIGIT}{{4,5}}"
    rf"|{_DIGIT}{{12,19}}"
    rf"|{_DIGIT}(?:[ .-]{_DIGIT}){{11,18}})\b"
)
# With letters joined to it, which `\b` takes for one word with it.
_JOINT = Pattern(r"[a-z][0-9]{4}|[0-9]{4}[a-z]", any_case=True)
_JOINED = Pattern(r"[0-9]{13,19}|[0-9]{4}(?:[ .-][0-9]{4}){3}|[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{5}")
_HEX = b"0123456789abcdefABCDEF"
_LONGEST_WORD = 16
_TRIES = 3  # groups in a row at which a card may begin: of longer rows of numbers some would fit by chance
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
    at = tries = 0
    while (span := _NUMBER.first(text, at)) is not None:
        start, end = span
        tries = tries + 1 if start == at else 1
        found = _read(text, start, end)
        if found is None or _in_a_table(text, start, found[1]):
            at = _behind_one_group(text, start, end) if tries < _TRIES else end
            continue
        at = end
        digits, stop = found
        if _issued(digits):
            yield Finding(Kind.CARD, start, stop, "card-luhn")
        elif _CONTEXT.near(text, (start, stop)):
            yield Finding(Kind.CARD, start, stop, "card-luhn-context", 0.8)
    if _JOINT.found(text):
        yield from _joined(text)


def _behind_one_group(text: bytes, start: int, end: int) -> int:
    """Where the next group begins: a year or a code may stand in front of a card's first."""
    group = next((at for at in range(start, end) if text[at] in _SIGNS), end)
    return next((at for at in range(group, end) if text[at] not in _SIGNS), end)


def _in_a_table(text: bytes, start: int, end: int) -> bool:
    """Whether groups that stand wide apart have more numbers beside them: a row or a column of numbers."""
    part = text[start:end]
    if not any(wide in part for wide in _WIDE):
        return False
    before, after = text[max(start - 4, 0) : start].rstrip(_BLANKS), text[end : end + 4].lstrip(_BLANKS)
    return before[-1:].isdigit() or after[:1].isdigit()


def _joined(text: bytes) -> Iterator[Finding]:
    """Numbers of a known issuer between or beside words (`Visa4111…`); not those in digests and other long hexadecimal numbers."""
    for start, end in _JOINED.spans(text):
        before, after = text[max(start - _LONGEST_WORD, 0) : start], text[end : end + _LONGEST_WORD]
        left, right = len(before.rstrip(_HEX)), len(after) - len(after.lstrip(_HEX))
        joined = before[-1:].isalpha() or after[:1].isalpha()
        if not joined or before[-1:].isdigit() or after[:1].isdigit():
            continue
        words = (not before[-1:].isalnum() or before[left - 1 : left].isalpha()) and (
            not after[:1].isalnum() or after[right : right + 1].isalpha()
        )
        found = _read(text, start, end) if words else None
        if found is not None and found[1] == end and _issued(found[0]):
            yield Finding(Kind.CARD, start, end, "card-luhn")


def _read(text: bytes, start: int, end: int) -> tuple[str, int] | None:
    """The digits of the number that starts here, and its end; a last short group may be a code that stands behind it."""
    for stop in _ends(text, start, end):
        part = text[start:stop].translate(None, _SIGNS)
        plain = sum(48 <= byte <= 57 for byte in part)
        digits = part.translate(_LOOK_ALIKE).decode()
        if _FEWEST <= len(digits) <= 2 * plain and len(set(digits)) > 1 and luhn(digits):
            return digits, stop
    return None


def _ends(text: bytes, start: int, end: int) -> tuple[int, ...]:
    """The end, and that of the sixteenth digit or letter where more stand behind a sign."""
    if end - start <= _GROUPED:
        return (end,)
    stop, taken = start, 0
    while stop < end and taken < _GROUPED:
        taken += text[stop] not in _SIGNS
        stop += 1
    return (end, stop) if stop < end and stop - start > _GROUPED and text[stop] in _SIGNS else (end,)


def _issued(digits: str) -> bool:
    return any(
        len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high for low, high, lengths in _ISSUERS
    )
