"""Telephone numbers: international ones by the numbering plans; national ones by shape and words near, or by a configured region's plan."""

from collections.abc import Iterator, Sequence

import phonenumbers

from infra.detect.pattern import Context, Pattern, Span
from schemas.findings import Finding, Kind

REGIONS = ("US", "GB", "DE", "FR", "IT", "ES", "NL", "CH", "IL", "IN", "JP", "BR", "AU", "CN")
_EXTENSION = r"(?: ?(?:x|ext\.?|#) ?[0-9]{1,6})?"
_CANDIDATE = Pattern(rf"(?:\+ ?|\()?\b[0-9](?:[0-9]|[ .()/-]{{1,2}}[0-9]){{5,16}}{_EXTENSION}\b", any_case=True)
_NORTH_AMERICAN = Pattern(
    rf"^(?:(?:\+|00)?1[ .-]?)?(?:\([0-9]{{3}}\) ?|[0-9]{{3}}[.-])[0-9]{{3}}[.-][0-9]{{4}}{_EXTENSION}$", any_case=True
)
_CALLED = Context(
    "phone", "telephone", "tel", "call", "called", "calling", "mobile", "cell phone", "cellphone", "cellular", "fax", "whatsapp", "sms",
    "dial", "hotline", "helpline", "landline", "answering", "voicemail", "mob", "ph", "pager",
)  # fmt: skip
_REACHED = Context(
    "text", "message", "signal", "ring", "reach", "contact", "cell", "handy", "my number", "your number", "his number", "her number",
    "new number", "number to",
)  # fmt: skip
_BEHIND = Context("office", "fax", "mobile", "cell", "phone", "tel")
# A postcode, a date, a social security number, and a time or another number behind the last two.
_OTHER_FORM = Pattern(
    r"^(?:[0-9]{5}-[0-9]{4}$|(?:19|20)[0-9]{2}[-./][0-9]{2}[-./][0-9]{2}\b|[0-9]{3}-[0-9]{2}-[0-9]{4}\b)"
)
_WEAK = Context("number", "no", "line")
_OTHER = Context(
    "order", "invoice", "account", "routing", "ssn", "social security", "zip", "postcode", "serial", "tracking", "reference", "ref",
    "case", "ticket", "isbn", "policy", "id", "iban", "card", "npi", "mrn", "version", "license", "licence", "passport", "permit", "tax",
    "itin",
)  # fmt: skip
for _region in REGIONS:
    phonenumbers.PhoneMetadata.metadata_for_region(_region)  # else the first text of a region waits for its file
_LOOKUPS = 16  # of a text, at some 20 µs a region
_FEWEST, _FEWEST_ALONE, _MOST = 6, 9, 15


def find(parted: bytes, text: bytes) -> Iterator[Finding]:
    """Every number that can be dialled and is meant to be. `parted`: the text without underscores. Words near count as they stand in the
    text: in `tool_call_id` nobody is called."""
    lookups = iter(range(_LOOKUPS))
    for first, end in _CANDIDATE.spans(parted):
        opened = text[first : first + 1] == b"(" and b")" not in text[first:end]
        start = first + 1 if opened else first
        rule = None if b"_" in text[start:end] else _rule(text, (start, end), lookups)  # 1_000_000 is nobody's
        if rule is not None:
            yield Finding(Kind.PHONE, start, end, *rule)


def _rule(text: bytes, span: Span, lookups: Iterator[int]) -> tuple[str, float] | None:
    start, end = span
    part = text[start:end].decode()
    number = part.lower().partition("x")[0].partition("e")[0].partition("#")[0]
    digits = sum(char.isdigit() for char in number)
    decimal = number.count(".") == 1 and number.replace(".", "").isdigit()
    if decimal or not _FEWEST <= digits <= _MOST or text[start - 1 : start] in {b".", b"-", b"/", b"$"}:
        return None
    if number.startswith(("+", "00")) and (_spent(lookups) or _dialled("+" + number.lstrip("+0"))):
        return "phone-international", 1.0
    if _NORTH_AMERICAN.found(text[start:end]):
        return "phone-north-american", 0.8
    if _CALLED.near(text, span, before=48, after=0) or _BEHIND.near(text, span, before=0, after=16):
        return "phone-context", 0.8
    if (digits >= _FEWEST_ALONE or not number.isdigit()) and _REACHED.near(text, span, before=48, after=0):
        return "phone-context", 0.8
    if digits < _FEWEST_ALONE or _OTHER_FORM.found(text[start:end]) or _OTHER.near(text, span, before=32, after=0):
        return None
    marked = number[0] in "0(" or "-" in number or _WEAK.near(text, span, before=24, after=0)
    return ("phone-region", 0.6) if marked and (_spent(lookups) or _planned(number, REGIONS)) else None


def _spent(lookups: Iterator[int]) -> bool:
    """Take one of a text's lookups. Behind the last one a number counts unseen: lists of numbers must not cost seconds."""
    return next(lookups, None) is None


def _dialled(number: str) -> bool:
    """Does the country exist, and does a number of its have so many digits?"""
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return False


def _planned(number: str, regions: Sequence[str]) -> bool:
    """Is it in the numbering plan of one of these regions?"""
    for region in regions:
        try:
            parsed = phonenumbers.parse(number, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number_for_region(parsed, region):
            return True
    return False
