"""Commands about tenants and incidents, for tests of compliance."""

from folding import Folding

from agents.evidence.compliance import Compliance
from schemas.compliance import CommandIncident, CommandTenant, ComplianceViolation, IncidentEvent, Notice
from schemas.gate import GateTenant
from schemas.payload import Payload

NOW = 1_800_000_000_000
HOUR = 3_600_000
WHOLE = Notice(nature=True, contact=True, consequences=True, measures=True)


def configured(tenant: str = "bank", of: str | None = None, **settings: object) -> CommandTenant:
    whole = GateTenant.model_validate({"tenant": of or tenant, **settings})
    return CommandTenant(tenant=tenant, at_ms=NOW, operator="ana", settings=whole)


def step(name: str, at_ms: int = NOW, incident: str = "breach", **said: object) -> CommandIncident:
    whole = {"tenant": "bank", "at_ms": at_ms, "operator": "ana", "incident": incident, "step": name, **said}
    return CommandIncident.model_validate(whole)


def assess(at_ms: int = NOW, incident: str = "breach", *, personal: bool = True, risk: bool = False) -> CommandIncident:
    return step("assess", at_ms, incident, personal_data=personal, high_risk=risk)


def violation(index: int, at_ms: int = NOW, finding: str = "offset-gap") -> ComplianceViolation:
    return ComplianceViolation(
        tenant="bank", at_ms=at_ms, log_index=index, finding=finding, controls=("hipaa-164.312.b",)
    )


def complying() -> Folding:
    return Folding(Compliance())


def said(fold: Folding, *commands: Payload) -> list[str]:
    """The types of what they caused, one after the other, without `incident.`."""
    return [event.TYPE.removeprefix("incident.") for command in commands for event in fold.take(command)]


def incidents(fold: Folding) -> list[IncidentEvent]:
    return [event for event in fold.emitted if isinstance(event, IncidentEvent)]
