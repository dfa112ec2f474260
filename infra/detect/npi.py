"""US national provider identifiers: ten digits from 1 or 2, a Luhn digit over 80840 and them, and a word for a provider near."""

from collections.abc import Iterator

from infra.detect.checksums import luhn
from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_NUMBER = Pattern(r"\b(?:npi)?([12][0-9]{3}(?:[0-9]{6}|-[0-9]{3}-[0-9]{3}| [0-9]{3} [0-9]{3}))\b", any_case=True)
_CONTEXT = Context(
    "npi", "provider", "provider identifier", "national provider", "physician", "prescriber", "practitioner"
)
_ISSUER = "80840"


def find(text: bytes) -> Iterator[Finding]:
    """Every identifier: one number in ten of any ten passes the check digit, so a word must say what it is."""
    for start, end in _NUMBER.spans(text, 1):
        digits = text[start:end].translate(None, b" -").decode()
        if luhn(_ISSUER + digits) and _CONTEXT.near(text, (start, end)):
            yield Finding(Kind.NPI, start, end, "npi-luhn")
