"""US social security numbers: 3-2-4 with one kind of separator, or nine digits near a word for it; void ones are none."""

from collections.abc import Iterator

from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_DIGIT = "[0-9OoIl]"
_GROUPED = Pattern(
    "|".join(rf"\b{_DIGIT}{{3}}{sign}{_DIGIT}{{2}}{sign}{_DIGIT}{{4}}\b" for sign in ("-", " ", r"\.", "/"))
)
_WHOLE = Pattern(r"\b(?:ssn)?([0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})\b", any_case=True)
_CONTEXT = Context("ssn", "ssns", "social security", "social sec", "ss#", "soc sec", "ssid", "tax id", "taxpayer")
_STREET = Pattern(r"^ [A-Z][a-z]+ [A-Z]")  # a flat and a house number stand before a street's name
_LOOK_ALIKE = bytes.maketrans(b"OoIl", b"0011")
_PLAIN = b"0123456789"
# Printed on specimen cards and in advertisements: nobody's.
_SPECIMENS = frozenset({"078051120", "219099999"})


def find(text: bytes) -> Iterator[Finding]:
    """Every number that may have been issued."""
    for start, end in _GROUPED.spans(text):
        if _issued(text[start:end]) and not (
            text[start + 3 : start + 4] == b" " and _STREET.found(text[end : end + 24])
        ):
            yield Finding(Kind.SSN, start, end, "ssn", 0.8)
    for start, end in _WHOLE.spans(text, 1):
        if _issued(text[start:end]) and _CONTEXT.near(text, (start, end)):
            yield Finding(Kind.SSN, start, end, "ssn-context", 0.8)


def _issued(part: bytes) -> bool:
    if sum(byte in _PLAIN for byte in part) < 6:
        return False
    digits = part.translate(_LOOK_ALIKE, b" -./").decode()
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    void = area in {"000", "666"} or area[0] == "9" or group == "00" or serial == "0000"
    return not void and digits not in _SPECIMENS and len(set(digits)) > 1
