"""A tenant file: TOML that an operator writes, validated whole into a `GateTenant`; and what a configuration says, in words.

Times are dates or date-times (`from`, `until`), UTC where they name no zone; `until` a date: to the end of that day.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import ValidationError

from schemas.errors import Refused
from schemas.gate import Exemption, Flow, GateTenant, Hold, Timed
from schemas.topics import DAY_MS
from tools.declared import errors, read_toml, refused

KIND = "tenant-file"
SOON_MS = 30 * DAY_MS
TIMES = ("from", "until")
ENDLESS_MS = (1 << 53) - 1
ROUTES_OWN = frozenset({"route", "arms", "champion"})
ACCEPTED = "a date or a time, such as 2027-01-31 or 2027-01-31T12:00:00Z"
UNSAID = ("purpose", "basis", "notice", "origin")
"""What requests need not say where the tenant says it for them."""
Tone = Literal["", "soon", "ended", "later"]


class Line(NamedTuple):
    """One thing that a configuration says. `tone`: what time makes of it."""

    name: str
    text: str
    tone: Tone = ""


def read_tenant(file: Path) -> GateTenant:
    """The configuration that the file declares. Raises `Refused` once, with a line `file: field: what is wrong` per error."""
    return parse_tenant(read_toml(file, KIND), str(file))


def parse_tenant(declared: Mapping[str, Any], name: str) -> GateTenant:
    """The same for a parsed file; `name` is what the messages call it."""
    if "version" in declared:
        raise Refused(f"{name}: version: is counted when it is applied; leave it out", kind=KIND, field="version")
    if ROUTES_OWN & declared.keys():
        raise Refused(f"{name}: is a route's file: `ratchet apply {name}`", kind=KIND)
    untimely: list[str] = []
    timed = cast("dict[str, Any]", _timed(declared, "", untimely))
    wrong = [f"{name}: {line}" for line in untimely]
    try:
        settings = GateTenant.model_validate(timed)
    except ValidationError as fault:
        found = errors(fault)
        for row in found:
            row["loc"] = tuple(part.removesuffix("_ms") if part in _FIELDS else part for part in row["loc"])
            row["msg"] = row["msg"].replace("until_ms", "until").replace("from_ms", "from")
            row["msg"] = row["msg"].replace("Unix epoch milliseconds", ACCEPTED)
        whole = refused(found, GateTenant, name, KIND)
        if not wrong:
            raise whole from None
        raise Refused("\n".join([*wrong, str(whole)]), kind=KIND) from None
    if wrong:
        raise Refused("\n".join(wrong), kind=KIND)
    return settings


_FIELDS = frozenset(f"{name}_ms" for name in TIMES)


def _timed(value: object, place: str, wrong: list[str]) -> object:
    """`from` and `until` as the milliseconds that the model has. What is no time is told, and stands in as one that is
    right everywhere, so that whatever else is wrong is told as well."""
    if isinstance(value, list):
        return [_timed(row, f"{place}[{number}]", wrong) for number, row in enumerate(cast("list[object]", value))]
    if not isinstance(value, dict):
        return value
    found: dict[str, object] = {}
    for key, inner in cast("dict[str, object]", value).items():
        at = f"{place}.{key}" if place else key
        if key not in TIMES:
            found[key] = _timed(inner, at, wrong)
        elif f"{key}_ms" in value:
            wrong.append(f"{at}: and {key}_ms: are one time; accepted: one of them")
        elif (ms := _instant(inner, ends=key == "until")) is None:
            wrong.append(f"{at}: {inner!r} is not accepted: {ACCEPTED}")
            found[f"{key}_ms"] = ENDLESS_MS if key == "until" else 0
        else:
            found[f"{key}_ms"] = ms
    return found


def _instant(given: object, *, ends: bool) -> int | None:
    """Epoch milliseconds; None for what is no time, or lies before 1970."""
    if isinstance(given, str):
        try:
            given = date.fromisoformat(given) if len(given) == len("2027-01-31") else datetime.fromisoformat(given)
        except ValueError:
            return None
    if not isinstance(given, date):
        return None
    if not isinstance(given, datetime):
        given = datetime.combine(given, time.min, UTC) + (timedelta(days=1) if ends else timedelta())
    ms = round((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)
    return ms if ms >= 0 else None


def words(settings: GateTenant, now_ms: int) -> list[Line]:
    """All that a configuration permits, asks for and keeps, a thing a line."""
    return list(_words(settings, now_ms))


def _words(settings: GateTenant, now_ms: int) -> Iterator[Line]:
    for purpose, bases in sorted(settings.purposes.items()):
        yield Line("purpose", f"{purpose}, on {_or(bases)}")
    if not settings.purposes:
        yield Line("purpose", "none: every request is denied", "ended")
    unsaid = [f"{name} {value}" for name in UNSAID if (value := getattr(settings, name)) is not None]
    if unsaid:
        yield Line("where unsaid", ", ".join(unsaid))
    if settings.notices:
        yield Line("notices", ", ".join(settings.notices))
    yield from (_of_time("flow", _flow(flow), flow, now_ms) for flow in settings.flows)
    if settings.private_arms:
        yield Line("private arms", ", ".join(settings.private_arms))
    if settings.hipaa:
        yield Line("HIPAA", "applies" if settings.baa else "applies, without a business associate agreement")
    if settings.baa is not None:
        yield _of_time("agreement", f"{settings.baa.id} (BAA)", settings.baa, now_ms)
    yield from (_of_time("exemption", _exemption(one), one, now_ms) for one in settings.exemptions)
    for kind, thousandths in sorted(settings.thresholds.items()):
        yield Line("threshold", f"{kind}: findings below {thousandths / 1000:g} do not count")
    yield from (_of_time("legal hold", _hold(hold), hold, now_ms) for hold in settings.holds)
    yield Line("retention", f"{settings.retention_days} days")
    yield Line("breach notice", f"within {settings.notify_hours} hours")


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(names) if names else "no legal basis"


def _flow(flow: Flow) -> str:
    by = f" by {flow.tool}" if flow.tool else ""
    return f"from {flow.origin} to {flow.region}{by}"


def _exemption(one: Exemption) -> str:
    scope = [
        f"{word} {_or(names)}" for word, names in (("for", one.kinds), ("in", one.purposes), ("at", one.where)) if names
    ]
    return f"{one.id}: {one.rule} does at most {one.then}{' ' if scope else ''}{' '.join(scope)}"


def _hold(hold: Hold) -> str:
    whose = f"subject {hold.subject}" if hold.subject else "every subject"
    return f"{hold.id}: nothing of {whose} is erased"


def _of_time(name: str, text: str, one: Timed, now_ms: int) -> Line:
    """With its beginning where that lies ahead, and its end."""
    ends, tone = "", cast("Tone", "")
    if one.until_ms is not None:
        left = one.until_ms - now_ms
        tone = "ended" if left <= 0 else "soon" if left <= SOON_MS else ""
        ends = f", {'ended' if left <= 0 else 'until'} {until_words(one.until_ms)}"
        ends += f" ({left // DAY_MS} days left)" if left > 0 else ""
    begins = ""
    if one.from_ms > now_ms:
        begins, tone = f", not before {instant(one.from_ms)}", "later"
    return Line(name, f"{text}{begins}{ends}", tone)


def until_words(until_ms: int) -> str:
    """A midnight is the end of the day before it."""
    return instant(until_ms - DAY_MS)[:10] if until_ms % DAY_MS == 0 and until_ms else instant(until_ms)


def instant(at_ms: int) -> str:
    """UTC, to the minute."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return f"{at_ms} ms"


def changes(before: GateTenant | None, after: GateTenant) -> dict[str, dict[str, Any]]:
    """Field -> before and after, of those that differ; the version, which is counted elsewhere, is none."""
    old = {} if before is None else before.model_dump(mode="json")
    new = after.model_dump(mode="json")
    return {
        name: {"before": old.get(name), "after": value}
        for name, value in new.items()
        if name not in ("version", "tenant") and old.get(name) != value
    }
