"""Compliance: what the gate permits each tenant, and its incidents with their clocks.

1. `policy.gate` is written from here alone, its version counted here, and its settings carry that version.
2. A command is done once. One that speaks of another tenant than its own is a dead letter.
"""

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

from agents.rules.commands import remembered
from schemas.compliance import CommandTenant, PolicyGate, TenantCommand
from schemas.gate import GateTenant
from schemas.payload import Payload
from streams.shapes import Change, DeadLetter, Emit, Event, KeyState, Tick

NAME = "compliance"


class Kept(BaseModel):
    """What is kept of one tenant. `settings`: None until it was configured; `commands`: the newest ones, by their ids."""

    model_config = ConfigDict(frozen=True)

    settings: GateTenant | None = None
    commands: tuple[str, ...] = ()


class Part(BaseModel):
    """An incident."""


State: TypeAlias = KeyState[Kept, Part]
Result: TypeAlias = Change[Kept, Part]


class Compliance:
    """Fold `compliance`, keyed by tenant."""

    name = NAME
    inputs = ("ratchet.audit", "ratchet.commands")
    record_type = Kept
    entry_type = Part

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        return data.tenant if isinstance(data, CommandTenant) else None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        if isinstance(event, Tick):
            return Change()
        data, kept = event.data, state.record or Kept()
        if isinstance(data, CommandTenant):
            return _heeded(kept, data, event)
        return Change()


def _heeded(kept: Kept, command: CommandTenant, event: Event[Payload]) -> Result:
    problem, known = _objection(command, event.key), remembered(kept.commands, event.id)
    if problem is not None:
        return Change(emits=(DeadLetter(event.record, *problem),))
    if known is None:
        return Change()
    version = 1 if kept.settings is None else kept.settings.version + 1
    settings = command.settings.model_copy(update={"version": version})
    policy = PolicyGate(
        tenant=command.tenant, at_ms=command.at_ms, version=version, settings=settings, author=command.operator
    )
    return Change(emits=(Emit(policy, "policy"),), record=Kept(settings=settings, commands=known))


def _objection(command: TenantCommand, key: str) -> tuple[str, str] | None:
    """(kind, message) of why a command may not be done, None where it may."""
    if key != command.tenant:
        return "wrong-key", f"{command.TYPE}: tenant: the record key is not the tenant; accepted: {command.tenant}"
    if isinstance(command, CommandTenant) and command.settings.tenant != command.tenant:
        return "wrong-tenant", f"{command.TYPE}: settings.tenant: is another tenant; accepted: {command.tenant}"
    return None
