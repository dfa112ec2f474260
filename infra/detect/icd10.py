"""Codes of ICD-10 near a word for a diagnosis: alone they look like seats, rooms and parts."""

from collections.abc import Iterator

from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_CODE = Pattern(r"\b[A-Z][0-9][0-9AB](?:\.[0-9A-Z]{1,4})?\b")
_CONTEXT = Context(
    "icd", "icd-10", "icd10", "icd 10 cm", "diagnosis", "diagnoses", "diagnosed", "dx", "diagnostic code", "comorbidity",
    "condition code", "principal dx",
)  # fmt: skip


def find(text: bytes) -> Iterator[Finding]:
    """Every code."""
    for start, end in _CODE.spans(text):
        if _CONTEXT.near(text, (start, end)):
            yield Finding(Kind.ICD10, start, end, "icd-10-context", 0.8)
