"""US DEA registration numbers: a registrant's type, a letter of the name or 9, six digits and their check digit."""

from collections.abc import Iterator

from infra.detect.checksums import dea
from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_NUMBER = Pattern(r"\b(?:dea)?([ABCDEFGHJKLMPRSTUX][A-Z9][0-9]{7})\b", any_case=True)
_CONTEXT = Context(
    "dea", "certificate", "prescriber", "registration", "registrant", "controlled substance", "physician"
)


def find(text: bytes) -> Iterator[Finding]:
    """Every number with its check digit right; surer where a word says so."""
    for start, end in _NUMBER.spans(text, 1):
        if dea(text[start + 2 : end].decode()):
            yield Finding(Kind.DEA, start, end, "dea-checksum", 1.0 if _CONTEXT.near(text, (start, end)) else 0.6)
