"""`ratchet up`, `down`, `doctor`: handed to the local stack, its words printed."""

import asyncio
from pathlib import Path
from typing import Any

from tools.cli.screen import Exit, Screen, clean
from tools.routes import read_route


def up(screen: Screen, *, vault: bool, secure: bool, partitions: int | None, routes: list[Path]) -> int:
    """Start what is missing, then apply the routes. Route files are checked before anything is started."""
    from tools.cli import commands, place
    from tools.stack import up as start

    declared = [read_route(file) for file in routes]
    with screen.progress("starting") as progress:
        found = start(vault=vault, secure=secure, partitions=partitions, say=progress.say)
    _told(screen, found)
    code = int(Exit.DONE)
    for route in declared:

        async def apply(route: Any = route) -> int:
            by = await place.voice("operator", None)
            async with place.open_bus() as bus:
                with screen.progress(f"applying {route.route}") as following:
                    return await commands.apply_route(
                        screen,
                        bus,
                        route,
                        by=by.name,
                        reason="up",
                        wait_s=60,
                        progress=following,
                        prove=by.prove,
                    )

        code = max(code, asyncio.run(apply()))
    return code


def down(screen: Screen) -> int:
    """Stop what `up` started."""
    from tools.stack import down as stop

    with screen.progress("stopping") as progress:
        stopped = stop(say=progress.say)
    names = [str(name) for name in stopped]
    screen.line({"stopped": names}, f"stopped {clean(', '.join(names))}" if names else "nothing of ours was running")
    return Exit.DONE


def doctor(screen: Screen) -> int:
    """Every check with what to do; exit 1 where one fails."""
    from tools.doctor import run_checks

    with screen.progress("checking"):
        checks = run_checks()
    for check in checks:
        sign = "[green]ok[/]  " if check.ok else "[red]no[/]  "
        advice = f"\n      → {clean(check.fix)}" if not check.ok and check.fix else ""
        row = {"check": check.name, "ok": check.ok, "detail": check.detail, "advice": check.fix}
        screen.line(row, f"{sign}{clean(check.name):<24} {clean(check.detail)}{advice}")
    return Exit.DONE if all(check.ok for check in checks) else Exit.NO


def _told(screen: Screen, found: Any) -> None:
    """Where everything is."""
    rows = {str(name): str(where) for name, where in dict(found).items()}
    if screen.as_json:
        screen.json({"up": rows})
        return
    for name, where in rows.items():
        screen.say(f"[green]●[/] {clean(name):<12} {clean(where)}")
