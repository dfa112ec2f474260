"""What a person says of a control that no log can show: a signed note with one statement a line. Pure; the signature check is passed in.

    ratchet-statements/v1
    ORIGIN OF THE LOG
    {"control":"hipaa-164.514.b.2","says":"not-applicable","until":"2027-06-30","why":"No health data is processed."}

    — NAME KEYID+SIGNATURE

Rules:
1. A statement counts until the end of its day `until` (UTC), measured by the newest record of the log: there is no clock here.
2. `not-applicable` counts only where the log holds no case of the control: nobody can declare away what happened.
3. `reviewed` counts only for controls that a person assesses (check `person`); once expired it is a failure, not silence.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal, cast

from agents.evidence.catalogue import BY_ID
from schemas.errors import Refused
from schemas.tlog import note
from schemas.tlog.strict import Malformed

HEADER = "ratchet-statements/v1"
Says = Literal["not-applicable", "reviewed"]
_FIELDS = ("control", "says", "until", "why")
_WHY = re.compile(r"\w[^\x00-\x1f\x7f]{0,499}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Statement:
    """One line, and who signed for it."""

    control: str
    says: Says
    until: str
    why: str
    by: str

    def holds(self, at_ms: int) -> bool:
        """Whether its day is not over at this time."""
        end = datetime.combine(date.fromisoformat(self.until), time.max, UTC)
        return at_ms <= end.timestamp() * 1000


def read(
    data: bytes, origin: str, signers: Sequence[note.VerifierKey], check: note.SignatureCheck
) -> tuple[Statement, ...]:
    """The statements of a file about the log `origin`. Raises Refused naming the line, or that nobody known signed it."""
    try:
        text, keys = note.open_note(data, signers, check)
    except Malformed as exc:
        raise _refused(f"the file is no signed note: {exc}") from exc
    except note.Untrusted as exc:
        raise _refused(f"{exc}; accepted: a note that one of the given signers signed") from exc
    header, _, rest = text.partition("\n")
    about, _, lines = rest.partition("\n")
    if header != HEADER:
        raise _refused(f"line 1 {header[:80]!r}; accepted: {HEADER}")
    if about != origin:
        raise _refused(f"line 2 {about[:80]!r} is another log; accepted: {origin}")
    by = ", ".join(key.name for key in keys)
    found = tuple(_statement(line, number, by) for number, line in enumerate(lines.splitlines(), 3))
    twice = {one.control for one in found if sum(other.control == one.control for other in found) > 1}
    if twice:
        raise _refused(f"{', '.join(sorted(twice))}: stated twice; accepted: one line for each control")
    return found


def text(origin: str, statements: Iterable[Statement]) -> str:
    """What is signed, a line for each control in order; the newest statement about one counts. Raises Refused as `read` does."""
    newest = {one.control: one for one in statements}
    lines = [
        json.dumps({"control": one.control, "says": one.says, "until": one.until, "why": one.why}, ensure_ascii=False)
        for _, one in sorted(newest.items())
    ]
    for number, line in enumerate(lines, 3):
        _statement(line, number, "")
    return "\n".join((HEADER, origin, *lines, ""))


def _statement(line: str, number: int, by: str) -> Statement:
    where = f"line {number}"
    try:
        loaded: Any = json.loads(line)
    except ValueError as exc:
        raise _refused(f"{where} is not JSON; accepted: an object with {', '.join(_FIELDS)}") from exc
    if not isinstance(loaded, dict) or set(cast("Mapping[str, Any]", loaded)) != set(_FIELDS):
        raise _refused(f"{where}; accepted: an object with {', '.join(_FIELDS)}")
    row = {name: str(value) for name, value in cast("Mapping[str, Any]", loaded).items()}
    control = BY_ID.get(row["control"])
    if control is None:
        raise _refused(f"{where}: control {row['control'][:80]!r}; accepted: those of `ratchet evidence controls`")
    if row["says"] not in ("not-applicable", "reviewed"):
        raise _refused(f"{where}: says {row['says'][:80]!r}; accepted: not-applicable, reviewed")
    if row["says"] == "reviewed" and control.check != "person":
        raise _refused(f"{where}: {control.id} is shown by the log, not by a review; accepted: not-applicable")
    if not _is_day(row["until"]):
        raise _refused(f"{where}: until {row['until'][:80]!r}; accepted: a day as 2027-06-30")
    if not _WHY.fullmatch(row["why"]):
        raise _refused(f"{where}: why; accepted: one line of at most 500 characters that begins with a letter or digit")
    return Statement(control.id, row["says"], row["until"], row["why"], by)


def _is_day(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _refused(words: str) -> Refused:
    return Refused(f"statements: {words}", kind="statements")
