"""`ratchet incident`: what happened, how long is left to notify the authority, and a person's steps.

Nobody outside is told by us: a step says that a person has done it.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.evidence.compliance import Compliance
from agents.rules.incidents import DELAY, HOUR_MS, ITEMS, Incident
from schemas.compliance import INCIDENT_PATTERN, CommandIncident, IncidentEvent, IncidentRefused, Notice, Step
from schemas.errors import Refused
from schemas.payload import REGISTRY
from schemas.topics import BY_NAME
from streams.wire import partition_of
from tools.cli.bus import Bus, now_ms
from tools.cli.commands import not_done, send_and_wait
from tools.cli.events import as_row
from tools.cli.place import an_id, open_bus, voice
from tools.cli.screen import Exit, Screen, clean
from tools.cli.states import state_of
from tools.tenants import instant

OBSERVATIONS = BY_NAME["observations"].full
COMMANDS = BY_NAME["commands"].full
SOON_H = 24
_LOOKS = 20
_WHY = {
    "unknown": "there is no such incident",
    "taken": "the id is taken; those that begin with v- are the system's own",
    "order": "its states allow no such step now",
    "again": "it was done",
    "answers": "an assessment says both: --personal-data or --no-personal-data, --high-risk or --no-high-risk",
    "reason": "personal data is concerned: say why nobody has to be notified, with --reason",
}
_RISK = {
    "tell": "no high risk was assessed: `ratchet incident assess` says whether people run one",
    "not_notifiable": "people run a high risk: the authority has to be notified",
}
_ITEMS = {
    "nature": "what happened, to how many people and records",
    "contact": "who can be asked",
    "consequences": "what is likely to follow",
    "measures": "what was done and is proposed",
    DELAY: "why it is late",
}


@dataclass(frozen=True, slots=True)
class Found:
    """An incident with its name."""

    tenant: str
    name: str
    incident: Incident

    def row(self, at_ms: int) -> dict[str, Any]:
        one = self.incident
        left = left_h(one, at_ms)
        return {
            "incident": self.name,
            "tenant": self.tenant,
            **one.model_dump(mode="json", exclude={"deadline_ms"}),
            "notify_by_ms": one.notify_by_ms,
            "left_h": None if left is None else round(left, 2),
            "missing": list(one.missing) if one.answered == "notified" else [],
            "next": list(one.next_steps),
        }


def left_h(incident: Incident, at_ms: int) -> float | None:
    """Hours until the authority must have been notified, negative once it is overdue; None where no clock runs."""
    if incident.answered or not incident.open:
        return None
    return (incident.notify_by_ms - at_ms) / HOUR_MS


async def incidents(bus: Bus, tenant: str | None = None) -> list[Found]:
    """All that are known, those that must be notified first before the others."""
    state = await state_of(bus, Compliance(), tenant)
    found = [
        Found(key, name, incident)
        for key in sorted(state.cells)
        for name, incident in sorted(state.view(key).entries.items())
    ]
    return sorted(found, key=lambda one: (one.incident.due_ms is None, not one.incident.open, one.incident.deadline_ms))


async def open_rows(bus: Bus) -> list[dict[str, Any]]:
    """What nobody has closed, as rows, the most urgent first."""
    at_ms = now_ms()
    return [one.row(at_ms) for one in await incidents(bus) if one.incident.open]


def say_open(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line each, in red: among much else, as in `ratchet status`."""
    for row in rows:
        left = row["left_h"]
        clock = "" if left is None else f", {'overdue for' if left < 0 else 'to notify within'} {abs(left):.1f} h"
        name = f"{clean(row['incident'])} of {clean(row['tenant'])}"
        screen.say(f"[red]incident[/] {name}: {row['state'].replace('_', ' ')}{clock}; `ratchet incident`")


async def find(bus: Bus, name: str, tenant: str | None) -> Found | None:
    """The incident of this name. Raises `Refused` where several tenants have one."""
    found = [one for one in await incidents(bus, tenant) if one.name == name]
    if len(found) > 1:
        tenants = ", ".join(one.tenant for one in found)
        raise Refused(f"incident {name!r} is known of several tenants: give --tenant, one of {tenants}", field="tenant")
    return found[0] if found else None


async def listed(screen: Screen, tenant: str | None, *, every: bool) -> int:
    """`ratchet incident list`: the open ones, and how long is left."""
    async with open_bus() as bus:
        found = await incidents(bus, None if tenant is None else an_id("tenant", tenant))
    rows = [one for one in found if every or one.incident.open]
    at_ms = now_ms()
    if screen.as_json:
        for one in rows:
            screen.json(one.row(at_ms))
        return Exit.DONE
    closed = len(found) - len(rows)
    if not rows:
        screen.say("no incident is open" + (f"; {closed} closed, with --all" if closed else ""))
    for one in rows:
        screen.say(_one(one, at_ms))
    return Exit.DONE


async def show(screen: Screen, name: str, tenant: str | None) -> int:
    """`ratchet incident show`: one incident whole, with what was said of it when."""
    an_id("incident", name)
    async with open_bus() as bus:
        found = await find(bus, name, tenant)
        if found is None:
            return _unknown(screen, name)
        history = await _history(bus, found)
    shown(screen, found, history, now_ms())
    return Exit.DONE


def shown(screen: Screen, found: Found, history: list[dict[str, Any]], at_ms: int) -> None:
    """The incident, its notice item by item, what may be done next, and what was said of it when."""
    one = found.incident
    if screen.as_json:
        screen.json({**found.row(at_ms), "history": history})
        return
    screen.say(_one(found, at_ms))
    screen.say(f"  aware        {instant(one.aware_at_ms)}, opened {instant(one.opened_at_ms)}")
    if one.violation:
        joined = f", and {one.joined} more, the last at {one.joined_index}" if one.joined else ""
        screen.say(f"  violation    {clean(one.violation)}, entry {one.log_index} of the evidence log{joined}")
        screen.say(f"  violates     {clean(', '.join(one.controls)) or 'no control'}")
    if one.state != "detected":
        screen.say(f"  assessed     {_assessed(one)}")
    if one.answered == "notified":
        screen.say(f"  notified     {'[red]late[/]' if one.late else 'in time'}; its notices say:")
        for item in (*ITEMS, *((DELAY,) if one.late else ())):
            said = item in one.noticed
            screen.say(f"    {'[green]yes[/]' if said else '[red]no [/]'}  {_ITEMS[item]}")
    if one.high_risk:
        screen.say(f"  people       {'were told' if one.told else '[yellow]were not told[/] (GDPR Art. 34)'}")
    screen.say(f"  next         {_next(one)}")
    for row in history:
        data = row["data"]
        by = f" by {clean(data['by'])}" if data["by"] else ""
        refused = row["type"] == IncidentRefused.TYPE
        what = f": {clean(verb(data['step']))}, {_why(data['step'], data['why'])}" if refused else ""
        why = f" “{clean(row['reason'])}”" if row.get("reason") else ""
        screen.say(f"  [dim]{instant(data['at_ms'])}[/] {clean(row['type'].removeprefix('incident.'))}{by}{what}{why}")


async def _history(bus: Bus, found: Found) -> list[dict[str, Any]]:
    """The events of one incident and what the commands behind them gave as reason, as long as their topics keep them."""
    counts = await bus.partitions([OBSERVATIONS, COMMANDS])
    places = [(topic, partition_of(found.tenant.encode(), count)) for topic, count in counts.items()]
    rows = [as_row(record) for record in await bus.read(await bus.starts_of(places))]
    reasons = {row["id"]: row["data"]["reason"] for row in rows if row["type"] == CommandIncident.TYPE and row["data"]}
    history = [row for row in rows if _about(row, found.tenant, found.name)]
    return [row | {"reason": reasons.get(row["cause"], "")} for row in history]


def _about(row: Mapping[str, Any], tenant: str, name: str) -> bool:
    kind, data = REGISTRY.get(str(row["type"])), row["data"]
    if kind is None or not issubclass(kind, IncidentEvent) or data is None:
        return False
    return (data.get("tenant"), data.get("incident")) == (tenant, name)


@dataclass(frozen=True, slots=True)
class Asked:
    """A person's step, as the command line gives it."""

    step: Step
    incident: str
    tenant: str | None = None
    by: str | None = None
    reason: str = ""
    wait_s: float = 15
    aware_at_ms: int | None = None
    personal_data: bool | None = None
    high_risk: bool | None = None
    notice: Notice | None = None


async def take(screen: Screen, asked: Asked) -> int:
    """The step, and what came of it. Exit 1 where the incident's state does not allow it."""
    if not re.fullmatch(INCIDENT_PATTERN, asked.incident):
        raise Refused(
            f"incident {asked.incident!r} is not accepted: a letter, then letters, digits, . _ - and at most 64 of them",
            field="incident",
        )
    if asked.aware_at_ms is not None and asked.aware_at_ms > now_ms():
        raise Refused("--aware: lies ahead; accepted: when somebody came to know", kind="usage", field="aware")
    speaker = await voice("operator", asked.by)
    async with open_bus() as bus:
        tenant = await _tenant(bus, asked)
        if tenant is None:
            return _unknown(screen, asked.incident)
        command = CommandIncident(
            tenant=tenant,
            at_ms=now_ms(),
            operator=speaker.name,
            reason=asked.reason,
            incident=asked.incident,
            step=asked.step,
            aware_at_ms=asked.aware_at_ms,
            personal_data=asked.personal_data,
            high_risk=asked.high_risk,
            notice=asked.notice,
        )
        with screen.progress(f"{verb(asked.step)} {asked.incident}") as progress:
            done, rows = await send_and_wait(
                bus,
                command,
                lambda row, caused: caused and _about(row, tenant, asked.incident),
                wait_s=asked.wait_s,
                progress=progress,
                prove=speaker.prove,
            )
        if not done:
            return not_done(screen, rows, f"{verb(asked.step)} {asked.incident}", asked.wait_s)
        found = await _as_told(bus, asked.incident, tenant, rows[-1])
    return told(screen, asked, rows[-1], found)


async def _as_told(bus: Bus, name: str, tenant: str, row: Mapping[str, Any]) -> Found | None:
    """The incident as it stands with this event: the state's partition may show the transaction a moment later."""
    for _ in range(_LOOKS):
        found = await find(bus, name, tenant)
        if row["type"] == IncidentRefused.TYPE or (found and found.incident.changed_at_ms >= row["data"]["at_ms"]):
            return found
        await asyncio.sleep(0.1)
    return None


async def _tenant(bus: Bus, asked: Asked) -> str | None:
    """Whose incident: as said, else whoever has one of this name; a new one is `default`'s. None where nobody has."""
    if asked.tenant is not None:
        return an_id("tenant", asked.tenant)
    if asked.step == "detect":
        return "default"
    found = await find(bus, asked.incident, None)
    return None if found is None else found.tenant


def told(screen: Screen, asked: Asked, row: Mapping[str, Any], found: Found | None) -> int:
    """What came of a step: the event, and the incident as it now stands."""
    at_ms, data = now_ms(), row["data"]
    stands = {} if found is None else {"now": found.row(at_ms)}
    if row["type"] == IncidentRefused.TYPE:
        why = _why(asked.step, data["why"])
        accepted = "" if found is None else f"; accepted now: {_next(found.incident)}"
        screen.line(
            {
                "refused": asked.step,
                "incident": asked.incident,
                "why": data["why"],
                "reason": why,
                "event": row,
                **stands,
            },
            f"[red]no[/]: {verb(asked.step)} {clean(asked.incident)}: {clean(why)}{accepted}",
        )
        return Exit.NO
    screen.line(
        {"done": asked.step, "incident": asked.incident, "event": row, **stands},
        "[green]done[/] " + (clean(asked.incident) if found is None else _one(found, at_ms)),
    )
    if data.get("missing"):
        lacks = "; ".join(_ITEMS[item] for item in data["missing"])
        screen.say(f"[yellow]the notice does not say[/] {lacks}: it may follow with another `notify`")
    if found is not None:
        screen.say(f"next: {_next(found.incident)}")
    return Exit.DONE


def verb(step: str) -> str:
    """A step as it is typed."""
    return "open" if step == "detect" else step.replace("_", "-")


def _why(step: str, code: str) -> str:
    return _RISK[step] if code == "risk" else _WHY.get(code, "it is not allowed")


def _one(found: Found, at_ms: int) -> str:
    """An incident in a line."""
    one = found.incident
    what = clean(one.violation) or "said by a person"
    assessed = "" if one.state == "detected" else f", {_assessed(one)}"
    return (
        f"[bold]{clean(found.name)}[/]  {clean(found.tenant)}  {one.state.replace('_', ' ')}  {what}{assessed}  "
        f"{clock_words(one, at_ms)}"
    )


def clock_words(incident: Incident, at_ms: int) -> str:
    """How long is left, in markup: red once it is overdue, or was late."""
    left = left_h(incident, at_ms)
    if left is None:
        return "[red]notified late[/]" if incident.late else "[dim]no clock runs[/]"
    by = f"(by {instant(incident.notify_by_ms)})"
    if left < 0:
        return f"[red]overdue for {-left:.1f} h[/] {by}"
    tone = "yellow" if left < SOON_H else "green"
    return f"[{tone}]{left:.1f} h left to notify[/] {by}"


def _assessed(incident: Incident) -> str:
    data = "personal data" if incident.personal_data else "no personal data"
    return f"{data}, {'high risk' if incident.high_risk else 'no high risk'}"


def _next(incident: Incident) -> str:
    steps = incident.next_steps
    return ", ".join(map(verb, steps)) if steps else "nothing: it is closed; open another"


def _unknown(screen: Screen, name: str) -> int:
    words = f"no incident {name!r} is known; `ratchet incident list --all` names them"
    screen.line({"refused": words, "kind": "unknown-incident", "incident": name}, f"[red]no[/]: {clean(words)}")
    return Exit.NO
