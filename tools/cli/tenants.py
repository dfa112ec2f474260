"""`ratchet tenant`: what the gate permits a tenant; shown, and changed by a file."""

from pathlib import Path
from typing import Any

from agents.rules.gate_check import without_effect
from agents.rules.gate_standard import STANDARD
from schemas.compliance import CommandTenant, PolicyGate
from schemas.gate import GateTenant
from tools.cli.bus import Bus, now_ms
from tools.cli.commands import not_done, send_and_wait
from tools.cli.gating import POLICIES, PREFIX, policy_of
from tools.cli.place import an_id, open_bus, voice
from tools.cli.screen import Exit, Screen, clean
from tools.tenants import Line, changes, instant, read_tenant, words

_TONES = {"": "", "soon": "yellow", "ended": "red", "later": "dim"}
_NONE = "nothing is configured: every request of a route under the gate is denied; `ratchet tenant apply FILE.toml`"


async def policies(bus: Bus) -> list[PolicyGate]:
    """Every tenant's, by name."""
    held: dict[str, PolicyGate] = {}
    for record in await bus.read(await bus.starts([POLICIES])):
        key = (record.key or b"").decode("utf-8", "replace")
        if key.startswith(PREFIX) and record.value is not None:
            held[key] = PolicyGate.model_validate_json(record.value)
    return [held[key] for key in sorted(held)]


async def apply(screen: Screen, file: Path, *, by: str | None, reason: str, wait_s: float) -> int:
    """`ratchet tenant apply`: the whole file is checked first; done when `policy.gate` says the same."""
    settings, speaker = read_tenant(file), await voice("operator", by)
    tenant = settings.tenant
    async with open_bus() as bus:
        before = await policy_of(bus, tenant)
        changed = changes(None if before is None else before.settings, settings)
        idle = without_effect(settings, STANDARD)
        if before is not None and not changed:
            row = {"applied": tenant, "version": before.version, "changed": False, "without_effect": idle}
            screen.line(row, f"{clean(tenant)} already has this configuration (version {before.version})")
            _warn(screen, idle)
            return Exit.DONE
        _differ(screen, None if before is None else before.settings, settings)
        _warn(screen, idle)
        command = CommandTenant(tenant=tenant, at_ms=now_ms(), operator=speaker.name, reason=reason, settings=settings)
        with screen.progress(f"configuring {tenant}") as progress:
            done, rows = await send_and_wait(
                bus,
                command,
                lambda row, caused: caused and row["type"] == PolicyGate.TYPE,
                wait_s=wait_s,
                progress=progress,
                prove=speaker.prove,
            )
    if not done:
        return not_done(screen, rows, f"tenant {tenant}", wait_s)
    version = rows[-1]["data"]["version"]
    screen.line(
        {"applied": tenant, "version": version, "changed": True, "changes": changed, "without_effect": idle},
        f"[green]applied[/] {clean(tenant)}, version {version}: running agents follow by themselves",
    )
    return Exit.DONE


async def show(screen: Screen, tenant: str | None) -> int:
    """`ratchet tenant show`: one tenant's configuration, or everybody's. Exit 1 where there is none."""
    async with open_bus() as bus:
        if tenant is None:
            found = await policies(bus)
        else:
            policy = await policy_of(bus, an_id("tenant", tenant))
            found = [] if policy is None else [policy]
    if not found:
        row = {"configured": False, "tenant": tenant}
        screen.line(row, f"[red]no[/]: {'' if tenant is None else clean(tenant) + ': '}{_NONE}")
        return Exit.NO
    for policy in found:
        shown(screen, policy, now_ms())
    return Exit.DONE


def shown(screen: Screen, policy: PolicyGate, at_ms: int) -> None:
    """One configuration, in people's words; what of it has no effect, or no longer, stands out."""
    idle = without_effect(policy.settings, STANDARD)
    if screen.as_json:
        whole: dict[str, Any] = policy.model_dump(mode="json")
        screen.json({"configured": True, **whole, "without_effect": idle})
        return
    by = f", by {clean(policy.author)}" if policy.author else ""
    screen.say(f"[bold]{clean(policy.tenant)}[/]  version {policy.version}{by}, {instant(policy.at_ms)}")
    for line in words(policy.settings, at_ms):
        screen.say("  " + _line(line))
    _warn(screen, idle)


def _line(line: Line) -> str:
    text = f"{line.name:<14} {clean(line.text)}"
    return f"[{_TONES[line.tone]}]{text}[/]" if line.tone else text


def _warn(screen: Screen, idle: tuple[str, ...]) -> None:
    for one in idle:
        screen.say(f"[yellow]without effect[/] {clean(one)}")


def _differ(screen: Screen, before: GateTenant | None, after: GateTenant) -> None:
    """What goes and what comes, in the words of `show`."""
    at_ms = now_ms()
    old, new = ([] if one is None else words(one, at_ms) for one in (before, after))
    for line in (line for line in old if line not in new):
        screen.say(f"[red]-[/] {line.name:<14} {clean(line.text)}")
    for line in (line for line in new if line not in old):
        screen.say(f"[green]+[/] {line.name:<14} {clean(line.text)}")
