"""IP addresses, versions 4 and 6, with a prefix length where one follows."""

import ipaddress
from collections.abc import Iterator

from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = Pattern(rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b(?:/[0-9]{{1,2}}\b)?")
_V6 = Pattern(r"(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f.]{0,15}(?:/[0-9]{1,3}\b)?")
_LONGEST_PREFIX = 128
_VERSIONS = Context("version", "release", "build", "v", "firmware", "section", "chapter", "clause")
_ADDRESS = Context("ip", "address", "ipv6", "host", "server", "bind", "listen", "localhost")
_WORD_OR_COLON = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:"


def find(text: bytes) -> Iterator[Finding]:
    """Every address; a number of a version is none."""
    if text.count(b".") >= len("..."):
        for start, end in _V4.spans(text.replace(b"_", b" ")):
            if text[start - 1 : start] == b"." or (text[end : end + 1] == b"." and text[end + 1 : end + 2].isdigit()):
                continue
            if not _VERSIONS.near(text, (start, end), before=12, after=0):
                yield Finding(Kind.IP, start, end, "ipv4")
    if b":" in text:
        for start, end in _V6.spans(text):
            stop = _v6_end(text, start, end)
            if stop is not None:
                yield Finding(Kind.IP, start, stop, "ipv6")


def _v6_end(text: bytes, start: int, end: int) -> int | None:
    if start and text[start - 1] in _WORD_OR_COLON:
        return None
    address, _, prefix = text[start:end].decode().partition("/")
    bare = address.rstrip(".")
    end = start + len(bare) + (len(prefix) + 1 if prefix and int(prefix) <= _LONGEST_PREFIX else 0)
    if text[end : end + 1] and text[end] in _WORD_OR_COLON:
        return None
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        return None
    sliced = text[start - 1 : start] == b"[" and len(bare) <= len("::ff")
    if ((bare == "::" and not prefix) or sliced) and not _ADDRESS.near(text, (start, end)):
        return None  # two colons alone, or a number behind them in brackets, are what programs are written in
    return end
