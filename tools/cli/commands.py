"""Commands of an operator: one record on `ratchet.commands`, then what came of it.

What an agent does because of a command names the command as its cause (`ratchet-cause`): so the effect is found.
"""

import asyncio
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas import codec, ids
from schemas.codec import Encoded
from schemas.events import (
    Command,
    CommandApply,
    CommandCancel,
    CommandPause,
    CommandPromote,
    CommandReject,
    CommandResume,
    CommandRollback,
    CommandTrain,
    CommandTrust,
    TenantCommand,
)
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.principal import Prove
from schemas.routes import Route
from schemas.topics import BY_NAME
from tools.cli.bus import Bus, now_ms
from tools.cli.effects import Word, meaning
from tools.cli.events import as_row, one_line
from tools.cli.gating import policy_of, warn, warnings
from tools.cli.place import an_id, open_bus
from tools.cli.place import voice as voice_of
from tools.cli.screen import Exit, Progress, Screen, clean
from tools.routes import read_route
from tools.voice import unproven

COMMANDS, POLICIES = BY_NAME["commands"], BY_NAME["policies"]
EFFECTS = (
    POLICIES.full,
    BY_NAME["promotions"].full,
    BY_NAME["training"].full,
    BY_NAME["observations"].full,
    COMMANDS.full,
    COMMANDS.dlq,
)
Told = Callable[[dict[str, Any], bool], bool]
"""Whether a row, caused by the command or not, is the answer that was waited for."""


def encoded(command: Command | TenantCommand, prove: Prove = unproven) -> tuple[str, Encoded]:
    """The command's event id and record."""
    event_id = ids.derive(f"{command.operator}/{command.at_ms}/{secrets.token_hex(8)}", "cli", 0)
    trace = ids.trace_parent(None, event_id)
    return event_id, prove(codec.encode(command, event_id=event_id, source="ratchet/cli", traceparent=trace))


async def send_and_wait(
    bus: Bus,
    command: Command | TenantCommand,
    told: Told,
    *,
    wait_s: float,
    progress: Progress,
    prove: Prove = unproven,
) -> tuple[bool, list[dict[str, Any]]]:
    """Send, then collect what names the command as its cause, and what else answers, until `told` says that a row is the answer.

    A dead letter of the command is an answer too (False). (False, rows) when the time is up; rows may be empty.
    """
    event_id, record = encoded(command, prove)
    followed = bus.follow(await bus.ends(EFFECTS))
    await bus.publish([(COMMANDS.full, record)])
    progress.say(f"{command.TYPE} sent, waiting for its effect")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    rows: list[dict[str, Any]] = []
    try:
        async for found in followed:
            if found is None:
                if loop.time() > deadline:
                    return False, rows
                continue
            row = as_row(found)
            if found.topic == COMMANDS.dlq and row["id"] == event_id:
                return False, [*rows, row]
            caused = row["cause"] == event_id
            answered = told(row, caused)
            if caused or answered:
                rows.append(row)
            if answered:
                return True, rows
    except asyncio.CancelledError:  # who presses Ctrl-C may think that nothing happens
        sys.stderr.write(f"{command.TYPE} was sent and is done all the same\n")
        raise
    finally:
        await followed.aclose()
    return False, rows


async def fleet_of(bus: Bus, route: str) -> PolicyFleet | None:
    """The fleet policy in force, None where the route has none."""
    record = (await bus.newest(POLICIES.full, [f"fleet/{route}"])).get(f"fleet/{route}")
    return None if record is None or record.value is None else PolicyFleet.model_validate_json(record.value)


async def route_of(bus: Bus, route: str) -> PolicyRoute | None:
    """The route's settings in force, None where it was never applied."""
    record = (await bus.newest(POLICIES.full, [f"route/{route}"])).get(f"route/{route}")
    return None if record is None or record.value is None else PolicyRoute.model_validate_json(record.value)


async def apply(screen: Screen, file: Path, *, by: str | None, reason: str, wait_s: float) -> int:
    """`ratchet apply`: the whole file is checked first, then sent; done when `policy.route` says the same."""
    route, voice = read_route(file), await voice_of("operator", by)
    async with open_bus() as bus:
        with screen.progress(f"applying {route.route}") as progress:
            return await apply_route(
                screen,
                bus,
                route,
                by=voice.name,
                reason=reason,
                wait_s=wait_s,
                progress=progress,
                prove=voice.prove,
            )


async def apply_route(
    screen: Screen,
    bus: Bus,
    route: Route,
    *,
    by: str,
    reason: str,
    wait_s: float,
    progress: Progress,
    prove: Prove = unproven,
) -> int:
    """The same for a route already read."""
    before, gate = await route_of(bus, route.route), await policy_of(bus, route.tenant)
    loud = warnings(route, None if gate is None else gate.settings, now_ms())
    if before is not None and before.settings == route:
        row = {"applied": route.route, "version": before.version, "changed": False, "warnings": loud}
        screen.line(row, f"{clean(route.route)} already has these settings (version {before.version})")
        warn(screen, route.route, loud)
        return Exit.DONE
    command = CommandApply(
        route=route.route, tenant=route.tenant, at_ms=now_ms(), operator=by, reason=reason, settings=route
    )

    def told(row: dict[str, Any], _: bool) -> bool:
        return (
            row["type"] == PolicyRoute.TYPE
            and row["key"] == f"route/{route.route}"
            and PolicyRoute.model_validate(row["data"]).settings == route
        )

    done, rows = await send_and_wait(bus, command, told, wait_s=wait_s, progress=progress, prove=prove)
    if done:
        version = rows[-1]["data"]["version"]
        screen.line(
            {"applied": route.route, "version": version, "changed": True, "warnings": loud},
            f"[green]applied[/] {clean(route.route)}, version {version}: running agents follow by themselves",
        )
        warn(screen, route.route, loud)
        return Exit.DONE
    return not_done(screen, rows, f"apply {route.route}", wait_s)


def not_done(screen: Screen, rows: list[dict[str, Any]], what: str, wait_s: float) -> int:
    """Say why: a dead letter is a no, silence means that who should act is away."""
    letter = next((row for row in rows if row.get("dead_letter")), None)
    if letter is not None:
        reason = letter["dead_letter"]
        screen.line(
            {"refused": what, "reason": reason["message"], "kind": reason["kind"], "place": letter["place"]},
            f"[red]refused[/] {clean(what)}: {clean(reason['kind'])}: {clean(reason['message'])}",
        )
        return Exit.NO
    screen.line(
        {"waiting": what, "seconds": wait_s},
        f"[yellow]nothing came of {clean(what)} within {wait_s:g} s[/]: the command is kept and will "
        "be taken when its agent runs; `ratchet status` says what runs",
    )
    return Exit.AWAY


async def act(
    screen: Screen,
    kind: str,
    route: str,
    *,
    by: str | None,
    reason: str,
    wait_s: float,
    challenger: str | None = None,
    action: str = "",
    threshold: float | None = None,
) -> int:
    """One of the commands on a route, and its effect."""
    an_id("route", route)
    voice = await voice_of("operator", by)
    async with open_bus() as bus:
        settings = await route_of(bus, route)
        if settings is None:
            screen.line(
                {"refused": kind, "route": route, "reason": "unknown route"},
                f"[red]no[/]: route {clean(route)} was never applied: `ratchet apply FILE.toml`",
            )
            return Exit.NO
        fleet = await fleet_of(bus, route)
        said: dict[str, Any] = {
            "route": route,
            "tenant": settings.tenant,
            "at_ms": now_ms(),
            "operator": voice.name,
            "reason": reason,
        }
        command: Command
        if kind in ("promote", "reject"):
            named = challenger or (fleet.challenger if fleet is not None else None)
            if named is None:
                screen.line(
                    {"refused": kind, "route": route, "reason": "no challenger"},
                    f"[red]no[/]: route {clean(route)} has no challenger now",
                )
                return Exit.NO
            if fleet is not None and named not in (fleet.challenger, *fleet.shadows):
                screen.line(
                    {"refused": kind, "route": route, "reason": "not judged", "challenger": named},
                    f"[red]no[/]: {clean(named)} is not being judged on route {clean(route)}",
                )
                return Exit.NO
            command = (CommandPromote if kind == "promote" else CommandReject)(challenger=named, **said)
        elif kind == "trust":
            command = CommandTrust.model_validate({**said, "action": action, "threshold": threshold})
        else:
            plain = {"rollback": CommandRollback, "pause": CommandPause, "resume": CommandResume, "train": CommandTrain}
            command = (plain | {"cancel": CommandCancel})[kind](**said)
        if kind in ("pause", "resume") and fleet is not None and fleet.paused == (kind == "pause"):
            screen.line(
                {"done": kind, "route": route, "changed": False},
                f"route {clean(route)} is {'paused' if fleet.paused else 'not paused'} already",
            )
            return Exit.DONE
        ended = (Word.DONE, Word.NO)
        with screen.progress(f"{kind} {route}") as progress:
            _, rows = await send_and_wait(
                bus,
                command,
                lambda row, caused: meaning(kind, route, row, caused=caused) in ended,
                wait_s=wait_s,
                progress=progress,
                prove=voice.prove,
            )
    return _say(screen, kind, route, rows, wait_s)


def _say(screen: Screen, kind: str, route: str, rows: list[dict[str, Any]], wait_s: float) -> int:
    """What became of the command: of the rows that it caused, and that which answered it."""
    told = [(row, meaning(kind, route, row, caused=True)) for row in rows if not row.get("dead_letter")]
    row, word = next((pair for pair in reversed(told) if pair[1] is not None), (None, None))
    if row is None or any(row.get("dead_letter") for row in rows):
        return not_done(screen, rows, f"{kind} {route}", wait_s)
    if word is Word.DONE:
        screen.line({"done": kind, "route": route, "event": row}, f"[green]done[/] {one_line(row)}")
        return Exit.DONE
    if word is Word.NO:
        screen.line({"refused": kind, "route": route, "event": row}, f"[red]no[/] {one_line(row)}")
        return Exit.NO
    reason = clean(str(row["data"].get("reason", "")))
    screen.line(
        {"waiting": f"{kind} {route}", "seconds": wait_s, "taken": True, "event": row},
        f"[yellow]under way[/]: {reason}; it goes on by itself, `ratchet preview {route}` says how far it is",
    )
    return Exit.AWAY
