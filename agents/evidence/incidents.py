"""What the log shows of incidents: that no state was skipped, authority and people were told in time, and findings were looked at. Pure.

An incident's states are `incident.STATE`; that the people concerned were told (`told`) is none. Steps that were refused, and the reminder
that a notice is overdue, change nothing here: the log's own time says whether it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.evidence.catalogue import DEADLINE, INCIDENT
from agents.evidence.folds import Check, End, Judged, Value, part

Name = tuple[str, str]
"""Tenant and id."""
_HOUR_MS = 3_600_000
_BEFORE: Mapping[str, Sequence[frozenset[str]]] = {
    "detected": (),
    "assessed": (frozenset({"detected"}),),
    "notified": (frozenset({"assessed"}),),
    "not_notifiable": (frozenset({"assessed"}),),
    "contained": (frozenset({"assessed"}),),
    "closed": (frozenset({"notified", "not_notifiable"}), frozenset({"contained"})),
}
"""Of each of these sets an incident has been in one state before."""


@dataclass(slots=True)
class _Incident:
    """One incident as far as the log tells. `at`: its first entry; `lacking`: the newest notice is late or leaves out what it must say."""

    at: int
    due_ms: int
    states: set[str]
    skipped: int | None = None
    harmless: bool = False
    notified_ms: int | None = None
    lacking: bool = False
    grave: bool = False
    told: bool = False
    closed: int | None = None


class Incidents(Check):
    """Each incident by its tenant and id: the states it went through, and when authority and people were told."""

    types = (*(f"incident.{state}" for state in INCIDENT), "incident.told")

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Name, _Incident] = {}

    def take(self, index: int, value: Value) -> None:
        facts, step = part(value, "facts"), str(value["type"]).removeprefix("incident.")
        at_ms = value["src"]["broker_ms"]
        name = str(value.get("tenant")), str(facts.get("incident"))
        one = self._known.setdefault(name, _Incident(index, _due_ms(facts, at_ms), set()))
        one.grave = facts.get("high_risk") is True
        if step == "told":
            one.told = True
            return
        if one.skipped is None and not all(one.states & before for before in _BEFORE[step]):
            one.skipped = index
        one.states.add(step)
        if step == "assessed":
            one.harmless = False  # what was said to need no notice was said of the former assessment
        elif step == "not_notifiable":
            one.harmless = True
        elif step == "notified":
            one.notified_ms = at_ms if one.notified_ms is None else one.notified_ms
            one.lacking = facts.get("late") is True or bool(facts.get("missing"))
        elif step == "closed":
            one.closed = index

    def judged(self, end: End) -> Judged:
        return Judged(len(self._known), sorted(one.skipped for one in self._known.values() if one.skipped is not None))

    def notified(self, end: End) -> Judged:
        """An incident is a case unless a person said that nobody has to be notified of it."""
        cases = [one for one in self._known.values() if not one.harmless]
        late = [one.at for one in cases if one.lacking or (one.notified_ms or end.last_ms) > one.due_ms]
        return Judged(len(cases), sorted(late))

    def told(self, end: End) -> Judged:
        grave = [one for one in self._known.values() if one.grave]
        return Judged(len(grave), sorted(one.closed for one in grave if one.closed is not None and not one.told))


def _due_ms(facts: Value, at_ms: int) -> int:
    """Until when the authority has to be notified, as the first entry says; else so long after somebody was aware as configured."""
    due = facts.get("notify_by_ms")
    if isinstance(due, int) and due > 0:
        return due
    aware = facts.get("aware_at_ms", at_ms)
    return (aware if isinstance(aware, int) else at_ms) + DEADLINE["gdpr-33-notify"].value * _HOUR_MS


class Watched(Check):
    """A finding is looked at once a person has assessed an incident of its kind after it."""

    types = ("coverage", "finding", "incident.detected", "incident.assessed")

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, list[int]] = {}
        self._about: dict[Name, str] = {}

    def take(self, index: int, value: Value) -> None:
        kind, facts = value["type"], part(value, "facts")
        name = str(value.get("tenant")), str(facts.get("incident"))
        if kind == "coverage":
            self.population += 1
        elif kind == "finding":
            self._open.setdefault(str(value.get("kind")), []).append(index)
        elif kind == "incident.detected":
            self._about[name] = str(facts.get("violation", ""))
        else:
            self._open.pop(self._about.get(name, ""), None)

    def judged(self, end: End) -> Judged:
        return Judged(self.population, sorted(index for found in self._open.values() for index in found))
