"""E-mail addresses: a local part, `@`, a domain whose last label is letters (or an encoded international one)."""

from collections.abc import Iterator

from infra.detect.pattern import Pattern
from schemas.findings import Finding, Kind

_ADDRESS = Pattern(
    r"\b([a-z0-9_](?:[a-z0-9.!#$%&'*+/=?^_`{|}~-]{0,63})@(?:[a-z0-9](?:[a-z0-9-]{0,62})?\.){1,8}(?:xn--[a-z0-9-]{2,59}|[a-z]{2,24}))(?:\b|_)",
    any_case=True,
)


def find(text: bytes) -> Iterator[Finding]:
    """Every address."""
    if b"@" in text:
        for start, end in _ADDRESS.spans(text, 1):
            yield Finding(Kind.EMAIL, start, end, "email")
