"""Detectors: where a text holds personal data, health data or a secret. One file a recogniser; `docs/detectors.md` says what none finds.

`detect` is a function of the text alone: no network, no model, no state. Its time is linear in the text's length, whatever is in it.
"""

from collections.abc import Callable, Iterable, Iterator

from infra.detect import (
    card,
    date,
    dea,
    domain,
    email,
    health,
    iban,
    icd10,
    ip,
    mbi,
    npi,
    phone,
    record,
    secret,
    ssn,
)
from infra.detect.fold import Folded, fold, unescaped
from infra.detect.pattern import Pattern
from schemas.findings import Finding, Kind

_Find = Callable[[bytes], Iterator[Finding]]
_ALWAYS: tuple[_Find, ...] = (email.find, date.find, health.find, secret.find, ip.find)
_DIGIT = Pattern("[0-9]")
_WITH_DIGITS: tuple[_Find, ...] = (icd10.find,)
_LONG = Pattern(r"[0-9][0-9OoIl _.()/\s-]{0,2}[0-9OoIl][0-9A-Za-z _.()/\s-]{0,3}[0-9OoIl]")
_IN_NAMES: tuple[_Find, ...] = (email.find, secret.find)
# To these an underscore is a space: in `card_4111…` and `_4111…_` nothing else says where the number begins.
_PARTED_WITH_DIGITS: tuple[_Find, ...] = (record.find, mbi.find)
_PARTED_WITH_NUMBERS: tuple[_Find, ...] = (card.find, iban.find, ssn.find, npi.find, dea.find)
_NUMBERS_IN_NAMES: tuple[_Find, ...] = (card.find, iban.find, ssn.find)

# Where two findings overlap the first of these stays: what has a check digit, then what has a grammar, then what has words near it.
_ORDER = (
    Kind.IBAN, Kind.CARD, Kind.EMAIL, Kind.MBI, Kind.SECRET, Kind.SSN, Kind.NPI, Kind.DEA, Kind.IP, Kind.RECORD, Kind.DATE, Kind.PHONE,
    Kind.ICD10, Kind.HEALTH, Kind.DOMAIN,
)  # fmt: skip
_RANK = {kind: rank for rank, kind in enumerate(_ORDER)}
# What they say, they say of the text: a URL around them takes nothing back, and stays one itself.
_OF_THE_TEXT = frozenset({Kind.ICD10, Kind.HEALTH})


def detect(text: str) -> list[Finding]:
    """What the text holds, by place, none over another but health data in a URL. Offsets count the characters of the text as given."""
    folded = fold(text)
    read = unescaped(folded)
    plain, found = read.text, list[Finding]()
    for find in _ALWAYS:
        found += find(plain)
    if _DIGIT.found(plain):
        parted = _parted(plain)
        for find in _WITH_DIGITS:
            found += find(plain)
        for find in _PARTED_WITH_DIGITS:
            found += find(parted)
        if _LONG.found(plain):
            for find in _PARTED_WITH_NUMBERS:
                found += find(parted)
            found += phone.find(parted, plain)
    found = _placed(found, read)
    found += _placed(domain.find(folded.text), folded)  # an escape is a part of a URL and no end of it
    return _apart(found, len(text)) if len(found) > 1 else found


def named(text: str) -> list[Finding]:
    """Of an id or a name what gives somebody, an account or a secret away: e-mail, card, IBAN, social security number, secret.

    Some may lie over others. A third of the time of `detect`, for texts that are made by programs.
    """
    read = unescaped(fold(text))
    plain = read.text
    found = [finding for find in _IN_NAMES for finding in find(plain)]
    if _LONG.found(plain):
        parted = _parted(plain)
        found += [finding for find in _NUMBERS_IN_NAMES for finding in find(parted)]
    return _placed(found, read)


def _parted(plain: bytes) -> bytes:
    return plain.replace(b"_", b" ")


def _placed(found: Iterable[Finding], folded: Folded) -> list[Finding]:
    if folded.origins is None:
        return [*found]
    return [Finding(one.kind, *folded.place(one.start, one.end), one.rule, one.score) for one in found]


# One of each kind as plain as it comes, and letters that must be folded.
_EACH = (
    "ann@example.org +1 (555) 010-9999 555-010-9999 4111 1111 1111 1111 DE89 3704 0044 0532 0130 00 ssn 536-22-8726 10.0.0.1 2001:db8::1 "
    "npi 1234567893 dea AB1234563 mbi 1EG4-TE5-MK73 mrn: 1234567 icd E11.9 diabetes 2024-03-12 12/03/2024 3:15 pm 12 March 2024 monday "
    "born 1980 due 3/12 https://www.example.com/path?q=1 key = 'a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6' Ёлка ４２ naïve a\u200bb "
    "Visa4111111111111111 ann%40example.org &#64; &amp; \\u0040 "
)


def warm() -> None:
    """Meet every expression once: RE2 makes of one what it needs when a text first asks for it, and no sender's text should wait for that.

    Some 60 ms of a processor, once a process: what is made is there for all threads.
    """
    words = secret.keywords()
    detect(_EACH + " ".join(words))
    detect(_EACH + " ".join(f"{word} = 'a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6'\n" for word in words))
    named(_EACH)


def _apart(found: list[Finding], length: int) -> list[Finding]:
    """Those of the best kind, the surest, the longest, where some overlap. A secret yields only where what is better covers all of it:
    a private key that has somebody's address in its head is a private key."""
    taken = bytearray(length)
    for one in found:
        if _RANK[one.kind] < _RANK[Kind.SECRET]:
            taken[one.start : one.end] = b"\x01" * (one.end - one.start)

    def order(one: Finding) -> tuple[int, float, int, int]:
        first = one.kind is Kind.SECRET and taken.find(0, one.start, one.end) >= 0
        return -1 if first else _RANK[one.kind], -one.score, one.start - one.end, one.start

    ordered = sorted(found, key=order)
    taken = bytearray(length)
    kept: list[Finding] = []
    for one in ordered:
        if taken.find(1, one.start, one.end) < 0:
            kept.append(one)
            if one.kind not in _OF_THE_TEXT:
                taken[one.start : one.end] = b"\x01" * (one.end - one.start)
    return sorted(kept, key=lambda one: one.start)
