"""Compliance: what the gate permits each tenant, and its incidents with their clocks.

1. `policy.gate` is written from here alone, its version counted here, and its settings carry that version.
2. A command is done once. One that speaks of another tenant than its own is a dead letter.
3. A violation opens an incident; later ones of its kind join it while it is open, without a word.
4. A person's step is done when the broker wrote its command, whatever time its sender claims: nobody dates a notice back.
5. That a notice is overdue is said once, by a tick.
"""

from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from agents.rules.commands import remembered
from agents.rules.incidents import DEFAULT_HOURS, Incident, Why, opened, stepped
from schemas.compliance import (
    CommandIncident,
    CommandTenant,
    ComplianceViolation,
    IncidentAssessed,
    IncidentClosed,
    IncidentContained,
    IncidentDetected,
    IncidentEvent,
    IncidentNotified,
    IncidentNotNotifiable,
    IncidentOverdue,
    IncidentRefused,
    IncidentTold,
    PolicyGate,
    Step,
)
from schemas.gate import GateTenant
from schemas.payload import Payload
from streams.shapes import UNCHANGED, Change, DeadLetter, Emit, Event, KeyState, Tick

NAME = "compliance"
CLOSED_KEPT: Final = 1000
"""Of a tenant: beyond, those that were closed first are forgotten here. The log has them."""
_OURS = "v-"
_STANDS = ("aware_at_ms", "notify_by_ms", "personal_data", "high_risk")
_SAID: dict[Step, type[IncidentEvent]] = {
    "assess": IncidentAssessed,
    "notify": IncidentNotified,
    "tell": IncidentTold,
    "not_notifiable": IncidentNotNotifiable,
    "contain": IncidentContained,
    "close": IncidentClosed,
}


class Kept(BaseModel):
    """What is kept of one tenant. `settings`: None until it was configured; `commands`: the newest ones, by their ids."""

    model_config = ConfigDict(frozen=True)

    settings: GateTenant | None = None
    commands: tuple[str, ...] = ()

    @property
    def hours(self) -> int:
        return DEFAULT_HOURS if self.settings is None else self.settings.notify_hours


State: TypeAlias = KeyState[Kept, Incident]
Result: TypeAlias = Change[Kept, Incident]


class Compliance:
    """Fold `compliance`, keyed by tenant; its entries are incidents by their ids."""

    name = NAME
    inputs = ("ratchet.audit", "ratchet.commands")
    record_type = Kept
    entry_type = Incident

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        return data.tenant if isinstance(data, CommandTenant | CommandIncident | ComplianceViolation) else None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        if isinstance(event, Tick):
            return _ticked(state, event.at_ms)
        data = event.data
        if isinstance(data, ComplianceViolation):
            return _violated(state, data)
        if isinstance(data, CommandTenant | CommandIncident):
            return _heeded(state, data, event)
        return Change()


def _heeded(state: State, command: CommandTenant | CommandIncident, event: Event[Payload]) -> Result:
    """A command is done once, and only under its own tenant."""
    kept = state.record or Kept()
    problem, known = _objection(command, event.key), remembered(kept.commands, event.id)
    if problem is not None:
        return Change(emits=(DeadLetter(event.record, *problem),))
    if known is None:
        return Change()
    kept = kept.model_copy(update={"commands": known})
    if isinstance(command, CommandTenant):
        return _configured(kept, command)
    return _taken(state, kept, command, max(event.record.timestamp_ms, 0))


def _objection(command: CommandTenant | CommandIncident, key: str) -> tuple[str, str] | None:
    """(kind, message) of why a command may not be done, None where it may."""
    if key != command.tenant:
        return "wrong-key", f"{command.TYPE}: tenant: the record key is not the tenant; accepted: {command.tenant}"
    if isinstance(command, CommandTenant) and command.settings.tenant != command.tenant:
        return "wrong-tenant", f"{command.TYPE}: settings.tenant: is another tenant; accepted: {command.tenant}"
    return None


def _configured(kept: Kept, command: CommandTenant) -> Result:
    version = 1 if kept.settings is None else kept.settings.version + 1
    settings = command.settings.model_copy(update={"version": version})
    policy = PolicyGate(
        tenant=command.tenant, at_ms=command.at_ms, version=version, settings=settings, author=command.operator
    )
    return Change(emits=(Emit(policy, "policy"),), record=kept.model_copy(update={"settings": settings}))


def _violated(state: State, violation: ComplianceViolation) -> Result:
    """A violation of which an incident is open joins it; the log may be announced again, and then tells nothing new."""
    name, index = f"{_OURS}{violation.log_index}", violation.log_index
    for other in sorted(state.entries):
        incident = state.entries[other]
        if incident.open and incident.violation == violation.finding:
            newest = incident.log_index if incident.joined_index is None else incident.joined_index
            if newest is None or index <= newest:
                return Change()
            joined = {"joined": incident.joined + 1, "joined_index": index}
            return Change(put={other: incident.model_copy(update=joined)})
    if name in state.entries:
        return Change()
    about = {"violation": violation.finding, "controls": violation.controls, "log_index": index}
    hours = (state.record or Kept()).hours
    incident = opened(violation.at_ms, violation.at_ms, hours, **about)
    return _detected(state, None, name, incident, violation.tenant, "")


def _taken(state: State, kept: Kept, command: CommandIncident, now_ms: int) -> Result:
    """A person's step at `now_ms`."""
    name, before = command.incident, state.entries.get(command.incident)
    if before is None:
        if command.step != "detect":
            return _refused(kept, command, now_ms, None, "unknown")
        if name.startswith(_OURS):
            return _refused(kept, command, now_ms, None, "taken")
        aware_ms = now_ms if command.aware_at_ms is None else command.aware_at_ms
        return _detected(state, kept, name, opened(aware_ms, now_ms, kept.hours), command.tenant, command.operator)
    after = stepped(before, command, now_ms)
    if not isinstance(after, Incident):
        return _refused(kept, command, now_ms, before, after)
    said: dict[str, object] = {"late": after.late, "missing": after.missing} if command.step == "notify" else {}
    event = _said(_SAID[command.step], command.tenant, now_ms, name, after, command.operator, **said)
    return _changed(state, kept, event, {name: after})


def _detected(state: State, kept: Kept | None, name: str, incident: Incident, tenant: str, by: str) -> Result:
    about = {"violation": incident.violation, "controls": incident.controls, "log_index": incident.log_index}
    event = _said(IncidentDetected, tenant, incident.opened_at_ms, name, incident, by, **about)
    return _changed(state, kept, event, {name: incident})


def _refused(kept: Kept, command: CommandIncident, now_ms: int, incident: Incident | None, why: Why) -> Result:
    """Nothing changes but that the command was seen."""
    state = "" if incident is None else incident.state
    said: dict[str, object] = {"step": command.step, "why": why, "state": state}
    name, by = command.incident, command.operator
    event = _said(IncidentRefused, command.tenant, now_ms, name, incident, by, **said)
    return Change(emits=(Emit(event, "incident"),), record=kept)


def _ticked(state: State, at_ms: int) -> Result:
    """Say of each incident whose time has passed that its notice is overdue."""
    late = sorted(
        name for name, incident in state.entries.items() if incident.due_ms is not None and incident.due_ms <= at_ms
    )
    put = {name: state.entries[name].model_copy(update={"overdue": True}) for name in late}
    emits = [Emit(_said(IncidentOverdue, state.key, at_ms, name, put[name], ""), f"overdue/{name}") for name in late]
    return Change(emits=emits, put=put, due_ms=_next(state, put))


def _said(
    kind: type[IncidentEvent], tenant: str, at_ms: int, name: str, incident: Incident | None, by: str, **more: object
) -> IncidentEvent:
    """An event with the incident as it now stands; None: there is none of that name."""
    stands: dict[str, object] = {"aware_at_ms": 0}
    if incident is not None:
        stands = {field: getattr(incident, field) for field in _STANDS}
    return kind.model_validate({"tenant": tenant, "at_ms": at_ms, "incident": name, "by": by, **stands, **more})


def _changed(state: State, kept: Kept | None, event: IncidentEvent, put: dict[str, Incident]) -> Result:
    return Change(
        emits=(Emit(event, "incident"),),
        record=UNCHANGED if kept is None else kept,
        put=put,
        drop=_forgotten(state, put),
        due_ms=_next(state, put),
    )


def _next(state: State, put: dict[str, Incident]) -> int | None:
    """When the next notice is overdue."""
    times = (incident.due_ms for incident in {**state.entries, **put}.values())
    return min((time for time in times if time is not None), default=None)


def _forgotten(state: State, put: dict[str, Incident]) -> tuple[str, ...]:
    closed = sorted(
        (incident.changed_at_ms, name) for name, incident in {**state.entries, **put}.items() if not incident.open
    )
    return tuple(name for _, name in closed[:-CLOSED_KEPT])
