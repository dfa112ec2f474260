"""Events of the gate, of incidents, of keys and erasure, and of what is observed about the system itself.

A subject is always a pseudonym here: 16 bytes of HMAC under the tenant's key, as the router makes them.
"""

from typing import Final, Literal

from pydantic import Field

from schemas.events import AuditEvent, Observation, Part, TenantCommand
from schemas.gate import GateTenant
from schemas.payload import ID_PATTERN, Incoming, Payload, RouteEvent, Strict
from schemas.policies import Policy

SUBJECT_PATTERN: Final = r"^[0-9a-f]{32}$"
# It begins with a letter: an id of digits alone, such as a date, could be somebody's number, and does not stand in evidence in plain.
INCIDENT_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9._-]{0,63}$"
WORD_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,47}$"
DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$"


# commands about a tenant: by operators


class CommandTenant(TenantCommand):
    """What the gate permits a tenant from now on, whole: it replaces what was permitted before."""

    TYPE = "command.tenant"

    settings: GateTenant


class Notice(Strict):
    """What a notice to the authority has to say (GDPR Art. 33(3)), item by item: whether it does."""

    nature: bool = Field(default=False, description="What happened, categories and numbers of people and records.")
    contact: bool = Field(default=False, description="Who can be asked.")
    consequences: bool = Field(default=False, description="What is likely to follow.")
    measures: bool = Field(default=False, description="What was done and is proposed.")
    delay_reason: bool = Field(default=False, description="Why it is late, where it is.")


Step = Literal["detect", "assess", "notify", "tell", "not_notifiable", "contain", "close"]


class CommandIncident(TenantCommand):
    """A person's step in an incident. `detect` opens one that a person noticed; no step skips a state.

    `tell`: the people concerned were told (GDPR Art. 34). `aware_at_ms`: when somebody came to know; None: when the command was given.
    """

    TYPE = "command.incident"

    incident: str = Field(pattern=INCIDENT_PATTERN)
    step: Step
    aware_at_ms: int | None = Field(default=None, ge=0, lt=1 << 53)
    personal_data: bool | None = Field(default=None, description="Of `assess`: whether personal data is concerned.")
    high_risk: bool | None = Field(default=None, description="Of `assess`: whether people run a high risk.")
    notice: Notice | None = Field(default=None, description="Of `notify`.")


class CommandErase(TenantCommand):
    """Make a subject's data unreadable for good."""

    TYPE = "command.erase"

    subject: str = Field(pattern=SUBJECT_PATTERN)


# the gate's policy: by compliance


class PolicyGate(Policy):
    """What the gate permits a tenant."""

    TYPE = "policy.gate"
    KIND = "gate"

    settings: GateTenant
    author: str = ""

    def name(self) -> str:
        return self.tenant


# incidents: by compliance

IncidentState = Literal["detected", "assessed", "notified", "not_notifiable", "contained", "closed"]


class IncidentEvent(Observation):
    """One incident's new state. `notify_by_ms`: 0 where nobody has to be notified, or where it is not known yet."""

    incident: str = Field(pattern=INCIDENT_PATTERN)
    aware_at_ms: int = Field(ge=0, lt=1 << 53)
    notify_by_ms: int = Field(default=0, ge=0, lt=1 << 53)
    personal_data: bool = False
    high_risk: bool = False
    by: str = Field(default="", description="The operator; empty: the system.")


class IncidentDetected(IncidentEvent):
    """`violation`: what was found; `controls`: what it violates; `log_index`: where it stands in the log, None: a person noticed."""

    TYPE = "incident.detected"

    violation: str = Field(default="", pattern=r"^(?:[a-z][a-z0-9_-]{0,47})?$")
    controls: tuple[str, ...] = ()
    log_index: int | None = Field(default=None, ge=0)


class IncidentAssessed(IncidentEvent):
    TYPE = "incident.assessed"


class IncidentNotified(IncidentEvent):
    """`late`: after `notify_by_ms`. `missing`: items of the notice that it lacks."""

    TYPE = "incident.notified"

    late: bool = False
    missing: tuple[str, ...] = ()


class IncidentTold(IncidentEvent):
    """The people concerned were told."""

    TYPE = "incident.told"


class IncidentNotNotifiable(IncidentEvent):
    TYPE = "incident.not_notifiable"


class IncidentContained(IncidentEvent):
    TYPE = "incident.contained"


class IncidentClosed(IncidentEvent):
    TYPE = "incident.closed"


class IncidentOverdue(IncidentEvent):
    """`notify_by_ms` has passed and nobody was notified. Said once."""

    TYPE = "incident.overdue"


class IncidentRefused(IncidentEvent):
    """A person's step that the incident's state does not allow. Nothing changed.

    `why`: unknown, taken (ids); order, again (states); answers, reason (the step says too little); risk (against the assessment).
    """

    TYPE = "incident.refused"

    step: Step
    why: str = Field(default="", pattern=r"^[a-z]{0,16}$")
    state: Literal["", "detected", "assessed", "notified", "not_notifiable", "contained", "closed"] = ""


# keys and erasure


class KeyEvent(Payload):
    TOPIC = "keyring"

    subject: str = Field(pattern=SUBJECT_PATTERN)
    epoch: int = Field(ge=1, lt=1 << 31, description="Counts a subject's keys: 1, then one more after each erasure.")


class KeyWrapped(KeyEvent):
    """A subject's key, wrapped by its tenant's key in the secret store. By the evidence log; the newest one counts."""

    TYPE = "key.wrapped"

    wrapped: str = Field(max_length=1024)

    def event_key(self) -> str:
        return f"{self.tenant}/{self.subject}"


class KeyRemoved(KeyEvent):
    """Stands where the wrapped key stood, so that compaction takes that away. By the shredder; by the evidence log, of a key that it
    made while an erasure of it was being committed."""

    TYPE = "key.removed"

    def event_key(self) -> str:
        return f"{self.tenant}/{self.subject}"


class Cut(Part):
    """Requests of a partition below `offset` are erased."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class KeyErased(KeyEvent):
    """For ever: keys of the subject up to `epoch` are erased, for requests below `cut`. By the shredder."""

    TYPE = "key.erased"

    cut: tuple[Cut, ...]
    erasure: str = Field(max_length=64, description="Id of the command.")
    receipt: bool = Field(default=True, description="False: there was no key yet, and the command has no receipt.")

    def event_key(self) -> str:
        return f"{self.tenant}/{self.subject}/erased"


class Horizons(Part):
    """Until when copies of a subject's keys or texts may still exist. The latest one counts."""

    backup_ms: int = Field(default=0, ge=0, lt=1 << 53, description="Backups of the keyring.")
    payload_ms: int = Field(default=0, ge=0, lt=1 << 53, description="Texts in topics.")
    compaction_ms: int = Field(default=0, ge=0, lt=1 << 53, description="segment.ms + max.compaction.lag.ms.")
    cache_ms: int = Field(default=0, ge=0, lt=1 << 53, description="Caches of keys and answers.")


class SubjectErased(Observation):
    """A receipt. From `effective_at_ms` no key that we hold opens the subject's payloads or confirms a guess of their text."""

    TYPE = "subject.erased"

    subject: str = Field(pattern=SUBJECT_PATTERN)
    erasure: str = Field(max_length=64, description="Id of the command.")
    keys: int = Field(ge=0, description="How many keys there were.")
    epoch: int = Field(ge=0, lt=1 << 31)
    cut: tuple[Cut, ...]
    hold_checked: bool
    effective_at_ms: int = Field(ge=0, lt=1 << 53)
    horizons: Horizons
    routes: tuple[str, ...] = Field(default=(), description="Where trainers were told to forget.")
    by: str = ""


class SubjectKept(Observation):
    """An erasure that found no key to take away, or was not done. `reason` hold: a legal hold stands against it; unknown: there is no
    key of that subject; erased: it was erased before, by the command `earlier`, and has no key since; settings: what `settings` names
    is not as it must be. After unknown and erased requests that came until then, and were not read yet, get no key that lasts."""

    TYPE = "subject.kept"

    subject: str = Field(pattern=SUBJECT_PATTERN)
    erasure: str = Field(max_length=64)
    reason: Literal["hold", "unknown", "settings", "erased"]
    earlier: str = Field(default="", max_length=64)
    holds: tuple[str, ...] = ()
    settings: tuple[str, ...] = Field(
        default=(), description="Topic settings, or a policy, that are not as they must be."
    )


class CommandForget(RouteEvent):
    """To a route's trainer, by the shredder: rows of the subject are not used again; what used them is marked."""

    TYPE = "command.forget"
    TOPIC = "commands"

    subject: str = Field(pattern=SUBJECT_PATTERN)
    erasure: str = Field(max_length=64)
    cut: tuple[Cut, ...]


# by the trainer


class AdapterMarked(RouteEvent):
    """An adapter was trained from a data set with rows of an erased subject. `ordered`: retraining without them was ordered."""

    TYPE = "adapter.marked"
    TOPIC = "training"

    adapter: str
    dataset: str
    order_id: str
    subject: str = Field(pattern=SUBJECT_PATTERN)
    erasure: str = Field(max_length=64)
    rows: int = Field(ge=0)
    ordered: bool = False


# observed about the system itself


class AccessChecked(Observation, Incoming):
    """Somebody tried what must not be possible. `passed`: it was refused. `what` names the trial."""

    TYPE = "access.checked"

    check: Literal["role", "transport", "principal"]
    what: str = Field(pattern=WORD_PATTERN)
    passed: bool
    by: str = Field(pattern=ID_PATTERN)


class ConfigObserved(Observation, Incoming):
    """A setting was read where it counts. `passed`: it is as it must be."""

    TYPE = "config.observed"

    what: str = Field(pattern=WORD_PATTERN)
    passed: bool
    by: str = Field(pattern=ID_PATTERN)


class DrillCompleted(Observation, Incoming):
    """A restore was tried. `passed`: what was restored has the root of what was there."""

    TYPE = "drill.completed"

    kind: Literal["restore"]
    size: int = Field(ge=0, lt=1 << 53)
    root: str = Field(pattern=DIGEST_PATTERN)
    restored: str = Field(pattern=DIGEST_PATTERN)
    passed: bool
    by: str = Field(pattern=ID_PATTERN)


class DeidApplied(Observation):
    """A training's rows were de-identified. `classes`: of HIPAA's 18 identifier classes those that were looked for and
    removed; `unsupported`: the others, by name. By the training job."""

    TYPE = "deid.applied"

    route: str = Field(pattern=ID_PATTERN)
    order_id: str
    dataset: str
    classes: int = Field(ge=0, le=18)
    unsupported: tuple[str, ...] = ()
    rows: int = Field(ge=0)
    masked: int = Field(default=0, ge=0, description="Rows in which something was replaced.")
    denied: int = Field(default=0, ge=0, description="Rows that the gate left out.")


# audit: by the evidence publisher


class AuditRecorded(AuditEvent):
    """An erasure or an incident stands in the log. `id`, `of`: of the event."""

    TYPE = "audit.recorded"

    id: str
    of: str


class ComplianceViolation(AuditEvent):
    """A finding that violates controls. `finding`: its kind."""

    TYPE = "compliance.violation"

    log_index: int = Field(ge=0, lt=1 << 53)
    finding: str = Field(pattern=WORD_PATTERN)
    controls: tuple[str, ...]
