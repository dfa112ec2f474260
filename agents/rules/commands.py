"""What every fold that takes commands asks of one: whether it may touch its route at all, and whether it was done already."""

from schemas.events import Command, CommandApply
from schemas.ids import short

REMEMBERED = 32


def remembered(known: tuple[str, ...], event_id: str) -> tuple[str, ...] | None:
    """The newest ids with this one; None where it is among them: the same record sent again is the same command."""
    name = short(event_id)
    return None if name in known else (*known, name)[-REMEMBERED:]


def objection(command: Command, key: str, tenant: str | None) -> tuple[str, str] | None:
    """(kind, message) of why a command may not be done, None where it may. `tenant`: the route's, None before its first apply.

    A route stays with the tenant for which it was first applied; else whoever speaks for another could take it.
    """
    if key != command.route:
        return "wrong-key", f"{command.TYPE}: route: the record key is not the route; accepted: {command.route}"
    tenants = {command.tenant} if tenant is None else {command.tenant, tenant}
    if isinstance(command, CommandApply):
        if command.settings.route != command.route:
            return "wrong-route", f"{command.TYPE}: settings.route: is another route; accepted: {command.route}"
        tenants.add(command.settings.tenant)
    if len(tenants) > 1:
        return "wrong-tenant", f"{command.TYPE}: tenant: the route belongs to another tenant; accepted: its own"
    return None
