"""What an operator must know of a route's gate: that there is none, that it refuses everything, that it keeps arms out."""

from collections.abc import Sequence
from typing import Any

from schemas.compliance import PolicyGate
from schemas.gate import GateTenant
from schemas.routes import Route
from schemas.topics import BY_NAME
from tools.cli.bus import Bus
from tools.cli.screen import Screen, clean

POLICIES = BY_NAME["policies"].full
PREFIX = f"{PolicyGate.KIND}/"


async def policy_of(bus: Bus, tenant: str) -> PolicyGate | None:
    """The configuration in force, None where there is none."""
    key = PREFIX + tenant
    record = (await bus.newest(POLICIES, [key])).get(key)
    return None if record is None or record.value is None else PolicyGate.model_validate_json(record.value)


def warnings(route: Route, tenant: GateTenant | None, at_ms: int) -> list[str]:
    """What does not go without saying, in words; none where requests are looked at and may go to every arm."""
    if not route.has_gate:
        return ['NO GATE: requests, answers and training rows of this route are not looked at (compliance = "off")']
    if tenant is None:
        return [
            f"EVERY REQUEST IS REFUSED: nothing is configured for the tenant {route.tenant}; "
            "`ratchet tenant apply FILE.toml` configures it (docs/gate.md)"
        ]
    regions = {flow.region for flow in tenant.flows if flow.in_force(at_ms)}
    out = sorted(arm.arm for arm in route.arms if arm.region not in regions)
    if not out:
        return []
    leads = f"a flow of the tenant {route.tenant} leads ({', '.join(sorted(regions)) or 'none'})"
    if len(out) == len(route.arms):
        return [f"EVERY REQUEST IS REFUSED: no arm lies in a region to which {leads}"]
    return [f"THE GATE KEEPS ARMS OUT: {', '.join(out)}: not in a region to which {leads}"]


def warn(screen: Screen, route: str, words: Sequence[str]) -> None:
    """Loudly, for people."""
    for text in words:
        screen.say(f"[bold red]![/] {clean(route)}: [bold red]{clean(text)}[/]")


def row_of(route: Route, tenant: GateTenant | None, at_ms: int) -> dict[str, Any]:
    """The same of a route in force, for `ratchet status`."""
    words = warnings(route, tenant, at_ms)
    told = {"route": route.route, "tenant": route.tenant, "compliance": route.compliance}
    return told | {"configured": tenant is not None, "warnings": words}
