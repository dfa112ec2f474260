"""Numbers of medical records, patients, members and policies: whatever has digits in it and stands behind a word for it."""

from collections.abc import Iterator

from infra.detect.pattern import Pattern, any_of
from schemas.findings import Finding, Kind

_WORDS = any_of(
    (
        "mrn", "medical record", "patient id", "patient number", "patient no", "patient identifier", "chart number", "chart no",
        "record number", "record no", "health record", "health plan id", "health plan number", "health insurance number", "member id",
        "member number", "subscriber id", "beneficiary id", "beneficiary number", "medicaid id", "medicaid number", "encounter id",
        "encounter number", "admission number", "accession number", "specimen id", "hospital number", "nhs number",
    )
)  # fmt: skip
# Between word and number: a sign, or the quotes, bars, stars and lines of JSON, tables and lists; or nothing, before a digit.
_NUMBER = Pattern(
    rf"\b{_WORDS}(?: (?:number|no\.?|id|is|was)){{0,2}}(?:[ :#=.\"'|*\s]{{1,6}}([A-Z0-9][A-Z0-9/-]{{2,23}})|([0-9][A-Z0-9/-]{{2,23}}))\b",
    any_case=True,
)
_FEWEST_DIGITS = 3


def find(text: bytes) -> Iterator[Finding]:
    """Every such number; the word before it is no part of the finding."""
    for _, apart, joined in _NUMBER.all_groups(text):
        start, end = max(apart, joined)
        if sum(byte in b"0123456789" for byte in text[start:end]) >= _FEWEST_DIGITS:
            yield Finding(Kind.RECORD, start, end, "record-number", 0.8)
