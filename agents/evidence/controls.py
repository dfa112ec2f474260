"""What the log itself can show of controls: a fold over its entries, judged by the catalogue. Pure.

Four results, and no way around them:
1. satisfied: there were cases, and every one held.
2. not-satisfied: there were cases, and one did not hold.
3. not-applicable: there was no case, and a signed statement that has not expired says so (`statements`).
4. no-evidence: all else. Never a pass.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from agents.evidence.catalogue import BY_ID, CATALOGUE, Control, Wording
from agents.evidence.checks import all_checks
from agents.evidence.folds import Check, End, Judged
from agents.evidence.oscal import NAMED, Result
from agents.evidence.statements import Statement

_LATEST_MS = 32_503_679_999_999  # the end of the year 2999: what OSCAL's times can say


class Ledger:
    """Give it every entry in order, then ask for the `results`. Keeps a few dozen bytes per request, evaluation and command."""

    def __init__(self) -> None:
        self.first_ms = _LATEST_MS
        self.last_ms = 0
        self._entries = 0
        folds, self._judges = all_checks()
        self._every = [fold for fold in folds if "*" in fold.types]
        self._by_type: dict[str, list[Check]] = {}
        for fold in folds:
            for kind in fold.types:
                self._by_type.setdefault(kind, []).append(fold)

    def take(self, index: int, value: Mapping[str, Any]) -> None:
        """The next entry."""
        self._entries += 1
        at = value.get("src", {}).get("broker_ms")
        if isinstance(at, int) and 0 < at <= _LATEST_MS:
            self.first_ms, self.last_ms = min(self.first_ms, at), max(self.last_ms, at)
        for fold in (*self._every, *self._by_type.get(value["type"], ())):
            fold.take(index, value)

    def results(self, *, unbroken: bool, statements: Iterable[Statement] = ()) -> list[Result]:
        """All controls of the catalogue. `unbroken`: the tiles were read and have the signed root."""
        end = End(self._entries, self.last_ms, unbroken)
        judged = {name: judge(end) for name, judge in self._judges.items()}
        stated = {one.control: one for one in statements}
        return [
            _result(control, judged.get(control.check, Judged(0)), stated.get(control.id), self.last_ms)
            for control in CATALOGUE
        ]


def _result(control: Control, judged: Judged, stated: Statement | None, at_ms: int) -> Result:
    wording = control.wording
    if judged.population:
        holds = f"Of each {wording.case}: {wording.holds}."
        return Result(
            control.id, control.title, "not-satisfied" if judged.failed else "satisfied",
            wording.fails if judged.failed else holds, judged.population, judged.failed,
        )  # fmt: skip
    nothing = _nothing(wording)
    if stated is None:
        return Result(control.id, control.title, "no-evidence", nothing)
    said = f"{stated.why} (signed by {stated.by}, until {stated.until})"
    if stated.says == "reviewed":
        holds = stated.holds(at_ms)
        why = said if holds else f"{wording.fails} It was valid until {stated.until}."
        return Result(
            control.id, control.title, "satisfied" if holds else "not-satisfied", why, 1, by=stated.by
        )  # fmt: skip
    if stated.holds(at_ms):
        return Result(control.id, control.title, "not-applicable", said, by=stated.by)
    return Result(
        control.id, control.title, "no-evidence", f"{nothing} A statement about it expired on {stated.until}."
    )


def _nothing(wording: Wording) -> str:
    if not wording.proof:
        return "No log can show it: a person's signed statement does."
    return "The log holds no case of it."


def row_of(one: Result) -> dict[str, Any]:
    """A result with what the catalogue says of its control, as JSON has it."""
    control = BY_ID[one.control]
    return {
        "control": one.control, "title": one.title, "state": one.state, "why": one.why, "population": one.population,
        "failed": len(one.failed), "entries": list(one.failed[:NAMED]), "proof": list(control.wording.proof),
        "case": control.wording.case, "holds": control.wording.holds, "deadlines": list(control.deadlines),
        "crosswalk": list(control.crosswalk), "stated_by": one.by,
    }  # fmt: skip


def sheet(results: Sequence[Result]) -> bytes:
    """The results as CSV (RFC 4180, UTF-8): lists with spaces between. The same results give the same bytes."""
    out = io.StringIO(newline="")
    rows = [row_of(one) for one in results]
    names = [name for name in row_of(Result(CATALOGUE[0].id, "", "no-evidence", "")) if name not in ("case", "holds")]
    writer = csv.writer(out)
    writer.writerow(names)
    for row in rows:
        cells = (row[name] for name in names)
        writer.writerow(
            " ".join(map(str, cast("list[object]", cell))) if isinstance(cell, list) else cell for cell in cells
        )
    return out.getvalue().encode()
