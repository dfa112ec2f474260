"""IBANs: a country, its length, and the check digits of ISO 13616; any case, spaced or not, whatever stands behind."""

from collections.abc import Iterator

from infra.detect.checksums import mod97
from infra.detect.pattern import Pattern
from schemas.findings import Finding, Kind

_SEPARATORS = b" -\t\r\n"
_GROUP = 4
_WIDEST = 3  # blanks between two groups: a table's, or a line's end
_BETWEEN = rf"[ \t\r\n-]{{0,{_WIDEST}}}"
_HEAD = Pattern(rf"\b(?:iban)?[A-Z]{{2}}{_BETWEEN}[0-9]{{2}}(?:{_BETWEEN}[A-Z0-9]){{4}}", any_case=True)
# Letters and digits by country, of the SWIFT registry.
_REGISTRY = """
AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27
DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28
IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22
MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24
SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30
"""
_LENGTHS = {entry[:2]: int(entry[3:]) for entry in _REGISTRY.split()}


def find(text: bytes) -> Iterator[Finding]:
    """Every account number whose check digits are right."""
    at = 0
    while (head := _HEAD.first(text, at)) is not None:
        start = at = head[0]
        at += 2  # what is none may be the words in front of one: `is 12 DE89…`
        if text[start : start + 4].lower() == b"iban":
            start += 4
        length = _LENGTHS.get(text[start : start + 2].decode().upper())
        end = None if length is None else _end(text, start, length)
        if end is not None and mod97(_plain(text[start:end])) and not _in_a_uuid(text, start, end):
            yield Finding(Kind.IBAN, start, end, "iban-mod97")
            at = end


def _end(text: bytes, start: int, length: int) -> int | None:
    """Where so many letters and digits end, with few separators between; None where a word goes on behind them."""
    place, taken, wide = start, 0, 0
    while taken < length:
        char = text[place : place + 1]
        if char.isalnum():
            taken, wide = taken + 1, 0
        elif not char or char not in _SEPARATORS or wide == _WIDEST:
            return None
        else:
            wide += 1
        place += 1
    return None if text[place : place + 1].isalnum() else place


def _in_a_uuid(text: bytes, start: int, end: int) -> bool:
    """Whether more stands behind a dash on either side, and the dashes inside make no groups of four: one UUID in 10,000 fits by chance."""
    groups = text[start:end].split(b"-")
    uneven = any(len(group) != _GROUP for group in groups[:-1]) or len(groups[-1]) > _GROUP
    return len(groups) > 1 and uneven and b"-" in (text[start - 1 : start], text[end : end + 1])


def _plain(part: bytes) -> str:
    return part.translate(None, _SEPARATORS).decode().upper()
