"""An incident: its states, its clock, and what of a notice is missing. Pure.

1. detected -> assessed -> notified or not_notifiable, and contained -> closed. No step skips a state; a step that is not allowed
   changes nothing.
2. The clock runs from when somebody was aware until the authority was notified, or a person said that it need not be. An
   assessment does not stop it, and a tenant that changes its hours later does not move it.
3. Late and incomplete notices are notices: they are taken, and what is wrong with them is said. The rest may follow in phases.
4. A later assessment takes a `not_notifiable` back, for it was said of the former one.
"""

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from schemas.compliance import CommandIncident, IncidentState, Notice, Step

HOUR_MS: Final = 3_600_000
DEFAULT_HOURS: Final = 72
"""From awareness to the notice (GDPR Art. 33(1)), where the tenant has not configured them."""
LAST_MS: Final = (1 << 53) - 1  # of any event's times
ITEMS: Final = ("nature", "contact", "consequences", "measures")
DELAY: Final = "delay_reason"
Why = Literal["unknown", "taken", "order", "again", "answers", "risk", "reason"]
WHYS: Final[tuple[Why, ...]] = get_args(Why)


class Incident(BaseModel):
    """One incident as it stands. `state`: its newest; `answered`, `contained`: those that it has been in, in whichever order.

    `deadline_ms`: when the notice is late, whoever has to be notified. `noticed`: items that notices have said so far. `joined`: how many
    later violations of the same kind it stands for; `joined_index`: where the newest of them stands in the log.
    """

    model_config = ConfigDict(frozen=True)

    state: IncidentState = "detected"
    opened_at_ms: int
    changed_at_ms: int
    aware_at_ms: int
    deadline_ms: int
    personal_data: bool = False
    high_risk: bool = False
    answered: Literal["", "notified", "not_notifiable"] = ""
    contained: bool = False
    told: bool = False
    overdue: bool = False
    late: bool = False
    noticed: tuple[str, ...] = ()
    violation: str = ""
    controls: tuple[str, ...] = ()
    log_index: int | None = None
    joined: int = 0
    joined_index: int | None = None

    @property
    def open(self) -> bool:
        return self.state != "closed"

    @property
    def notify_by_ms(self) -> int:
        """As events say it: 0 where nobody has to be notified."""
        return 0 if self.answered == "not_notifiable" else self.deadline_ms

    @property
    def due_ms(self) -> int | None:
        """When it has to be said that the notice is overdue; None where nothing runs."""
        return self.deadline_ms + 1 if self.open and not self.answered and not self.overdue else None

    @property
    def missing(self) -> tuple[str, ...]:
        """What the notices lack. The reason of a delay only where there is one."""
        needed = (*ITEMS, DELAY) if self.late else ITEMS
        return tuple(item for item in needed if item not in self.noticed)

    @property
    def next_steps(self) -> tuple[Step, ...]:
        """What may be done now."""
        return tuple(step for step in get_args(Step) if _refused(self, step) is None)


def opened(aware_at_ms: int, now_ms: int, hours: int, **about: object) -> Incident:
    """A new one. Nobody comes to know of it after it was said: the earlier time counts."""
    aware_ms = min(aware_at_ms, now_ms)
    return Incident.model_validate(
        {
            "opened_at_ms": now_ms,
            "changed_at_ms": now_ms,
            "aware_at_ms": aware_ms,
            "deadline_ms": min(aware_ms + hours * HOUR_MS, LAST_MS),
            **about,
        }
    )


def stepped(incident: Incident, command: CommandIncident, now_ms: int) -> Incident | Why:
    """The incident after a person's step at `now_ms`; or why the step is not allowed."""
    why = _refused(incident, command.step)
    if why is not None:
        return why
    match command.step:
        case "detect":
            return "taken"
        case "assess":
            return _assessed(incident, command, now_ms)
        case "notify":
            return _notified(incident, command.notice or Notice(), now_ms)
        case "tell":
            return _changed(incident, now_ms, told=True)
        case "not_notifiable":
            return _not_notifiable(incident, command, now_ms)
        case "contain":
            return _changed(incident, now_ms, state="contained", contained=True)
        case "close":
            return _changed(incident, now_ms, state="closed")


def _refused(incident: Incident, step: Step) -> Why | None:
    """Why the step is not allowed, whatever it says: the states before it are not there, it was done, or the assessment is against it."""
    if step == "detect":
        return "taken"
    assessed = incident.state != "detected"
    allowed = {
        "assess": True,
        "notify": assessed and incident.answered != "not_notifiable",
        "not_notifiable": assessed and not incident.answered,
        "tell": assessed,
        "contain": assessed,
        "close": bool(incident.answered) and incident.contained,
    }[step]
    if not incident.open or not allowed:
        return "order"
    repeated = {
        "notify": incident.answered == "notified" and not incident.missing,
        "contain": incident.contained,
    }.get(step, False)
    if repeated:
        return "again"
    grave = incident.personal_data and incident.high_risk
    against = {"tell": not incident.high_risk, "not_notifiable": grave}.get(step, False)
    return "risk" if against else None


def _changed(incident: Incident, now_ms: int, **what: object) -> Incident:
    return incident.model_copy(update={"changed_at_ms": now_ms, **what})


def _assessed(incident: Incident, command: CommandIncident, now_ms: int) -> Incident | Why:
    if command.personal_data is None or command.high_risk is None:
        return "answers"
    return _changed(
        incident,
        now_ms,
        state="assessed",
        personal_data=command.personal_data,
        high_risk=command.high_risk,
        answered="notified" if incident.answered == "notified" else "",
    )


def _notified(incident: Incident, notice: Notice, now_ms: int) -> Incident:
    said = tuple(item for item in (*ITEMS, DELAY) if getattr(notice, item) or item in incident.noticed)
    first = incident.answered != "notified"
    late = now_ms > incident.deadline_ms if first else incident.late
    return _changed(incident, now_ms, state="notified", answered="notified", late=late, noticed=said)


def _not_notifiable(incident: Incident, command: CommandIncident, now_ms: int) -> Incident | Why:
    """A breach of personal data that is unlikely to be a risk need not be notified either (Art. 33(1)): somebody says why."""
    if incident.personal_data and not command.reason.strip():
        return "reason"
    return _changed(incident, now_ms, state="not_notifiable", answered="not_notifiable")
