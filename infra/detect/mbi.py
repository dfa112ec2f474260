"""US Medicare beneficiary identifiers: eleven places, each with its own set of digits and letters; they have no check digit."""

from collections.abc import Iterator

from infra.detect.pattern import Pattern
from schemas.findings import Finding, Kind

_LETTER = "[AC-HJKMNP-RT-Y]"
_EITHER = "[0-9AC-HJKMNP-RT-Y]"
_HEAD, _MIDDLE, _TAIL = f"[1-9]{_LETTER}{_EITHER}[0-9]", f"{_LETTER}{_EITHER}[0-9]", f"{_LETTER}{{2}}[0-9]{{2}}"
_IDENTIFIER = Pattern(
    rf"\b(?:{_HEAD}{_MIDDLE}{_TAIL}|{_HEAD}-{_MIDDLE}-{_TAIL}|{_HEAD} {_MIDDLE} {_TAIL})\b", any_case=True
)


def find(text: bytes) -> Iterator[Finding]:
    """Every identifier."""
    for start, end in _IDENTIFIER.spans(text):
        yield Finding(Kind.MBI, start, end, "mbi", 0.8)
