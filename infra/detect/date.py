"""Dates: of the calendar in usual orders, with or without a time; weekdays; a month and a day; years and months where words say so."""

from collections.abc import Iterator

from infra.detect.pattern import Context, Pattern
from schemas.findings import Finding, Kind

_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    "|dec(?:ember)?)"
)
_TIME = r"(?:[T ,]{1,2}[0-2]?[0-9]:[0-5][0-9](?::[0-6][0-9](?:\.[0-9]{1,9})?)?(?: ?[ap]\.?m\b|Z\b|[+-][0-9]{2}:?[0-9]{2}\b)?)?"
_YEAR_FIRST = Pattern(
    rf"\b(?:1[89]|20)[0-9]{{2}}(?:-[01]?[0-9]-|/[01]?[0-9]/|\.[01]?[0-9]\.)[0-3]?[0-9]{_TIME}\b", any_case=True
)
_YEAR_LAST = Pattern(
    rf"\b[0-3]?[0-9](?:/[0-3]?[0-9]/|-[0-3]?[0-9]-|\.[0-3]?[0-9]\.)(?:(?:1[89]|20)[0-9]{{2}}|[0-9]{{2}}){_TIME}\b",
    any_case=True,
)
_DAY = "(?:(?:mon|tue|tues|wed|wednes|thu|thurs|fri|sat|satur|sun)(?:day)?,? (?:the )?)?"
_ORDINAL = "(?:st|nd|rd|th)?"
_NAMED = Pattern(
    rf"\b{_DAY}(?:[0-3]?[0-9]{_ORDINAL}(?: of)?[ .-]{{1,2}}{_MONTH}(?:[ .,-]{{1,2}}(?:(?:1[89]|20)[0-9]{{2}}|'?[0-9]{{2}}))?"
    rf"|{_MONTH}[ .-]{{1,2}}(?:(?:1[89]|20)[0-9]{{2}}|[0-3]?[0-9]{_ORDINAL}(?:,? (?:1[89]|20)[0-9]{{2}})?)){_TIME}\b",
    any_case=True,
)
_WEEKDAY = Pattern(r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b", any_case=True)
_PART = Pattern(r"\b(?:0?[1-9]|1[0-2])/(?:(?:1[89]|20)[0-9]{2}|0?[1-9]|[12][0-9]|3[01])\b")
_YEAR = Pattern(r"\b(?:19|20)[0-9]{2}\b")
_SPOKEN = Context(
    "today", "date", "dated", "day", "born", "birthday", "dob", "birth", "due", "until", "since", "expires", "expiry", "expiration"
)  # fmt: skip
_OF_YEARS = Context("since", "born", "birth", "dob", "year", "aged")
_MONTHS, _DAYS = 12, 31


def find(text: bytes) -> Iterator[Finding]:
    """Every date; a day or month that no calendar has is none."""
    for pattern, year_at, rule in ((_YEAR_FIRST, 0, "date-year-first"), (_YEAR_LAST, 2, "date-year-last")):
        for start, end in pattern.spans(text):
            if _free(text, start, end) and _real(text[start:end], year_at):
                yield Finding(Kind.DATE, start, end, rule, 0.8)
    for start, end in _NAMED.spans(text):
        yield Finding(Kind.DATE, start, end, "date-month", 0.8)
    for start, end in _WEEKDAY.spans(text):
        yield Finding(Kind.DATE, start, end, "weekday", 0.6)
    for pattern, context, before, rule in ((_PART, _SPOKEN, 24, "date-part"), (_YEAR, _OF_YEARS, 16, "year")):
        for start, end in pattern.spans(text):
            if _free(text, start, end) and context.near(text, (start, end), before=before, after=0):
                yield Finding(Kind.DATE, start, end, rule, 0.6)


def _free(text: bytes, start: int, end: int) -> bool:
    """Not a piece of a longer number."""
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    joined_before = before[-1:] in {b"/", b"-", b"."} and before[:1].isdigit()
    joined_after = after[:1] in {b"/", b"-", b"."} and after[1:].isdigit()
    return not joined_before and not joined_after


def _real(part: bytes, year_at: int) -> bool:
    """May its two other numbers be a day and a month, in whichever order?"""
    day = part.replace(b"/", b"-").replace(b".", b"-").split(b"-")[:3]
    one, other = (int(number[:2].rstrip(b"Tt, ")) for index, number in enumerate(day) if index != year_at)
    return 1 <= min(one, other) <= _MONTHS and 1 <= max(one, other) <= _DAYS
