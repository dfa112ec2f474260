"""`ratchet preview`: what the judge would do now, condition by condition, and how far it is. Reads only."""

from collections.abc import Sequence
from typing import Any

from agents.judge.arena import Arena
from agents.judge.bench import Bench, Entry
from agents.judge.decide import Around, Look
from agents.judge.fold import preview as look_now
from agents.judge.forecast import Forecast, forecast
from agents.judge.order import Place
from schemas.topics import BY_NAME, state_topic
from streams.state import split_key
from streams.wire import partition_of
from tools.cli import ahead
from tools.cli.bus import Bus, now_ms
from tools.cli.events import as_row, one_line
from tools.cli.place import an_id, open_bus
from tools.cli.screen import Exit, Screen, clean

PROMOTIONS = BY_NAME["promotions"]


async def history(bus: Bus, route: str) -> list[dict[str, Any]]:
    """What was said of promotions on the route, oldest first."""
    count = (await bus.partitions([PROMOTIONS.full]))[PROMOTIONS.full]
    tps = [(PROMOTIONS.full, partition_of(route.encode(), count))]
    rows = [as_row(record) for record in await bus.read(await bus.starts_of(tps))]
    return [row for row in rows if row["key"] == route and row["data"] is not None]


async def state(bus: Bus, route: str) -> tuple[Bench | None, list[Entry]]:
    """The judge's own state of the route, rebuilt from its changelog: what it would start from after a crash."""
    name = state_topic("judge")
    count = (await bus.partitions([name]))[name]
    held: dict[str | None, bytes] = {}
    for record in await bus.read(await bus.starts_of([(name, partition_of(route.encode(), count))])):
        key, entry = split_key(record.key or b"")
        if key != route:
            continue
        if record.value is None:
            held.pop(entry, None)
        else:
            held[entry] = record.value
    raw = held.pop(None, b"null")
    bench = None if raw == b"null" else Bench.model_validate_json(raw)
    return bench, [Entry.model_validate_json(value) for value in held.values()]


async def run(screen: Screen, route: str) -> int:
    """The command. Exit 1 where the route is unknown or nothing is being judged."""
    an_id("route", route)
    async with open_bus() as bus:
        (bench, entries), rows = await state(bus, route), await history(bus, route)
    if bench is None:
        screen.line({"route": route, "known": False}, f"the judge knows no route {clean(route)}: `ratchet apply` it")
        return Exit.NO
    return show(screen, bench, entries, now_ms(), rows[-1] if rows else None)


def show(screen: Screen, bench: Bench, entries: Sequence[Entry], at_ms: int, last: dict[str, Any] | None) -> int:
    """Say what the state means at that time. Calls what the judge calls, and emits nothing: there is nowhere to emit to."""
    looks = [(arena, seen, _ahead(bench, arena, seen, at_ms)) for arena, seen in look_now(bench, entries, at_ms)]
    if screen.as_json:
        screen.json(answer(bench, entries, looks) | {"last": last})
        return Exit.DONE if looks else Exit.NO
    screen.say(f"[bold]{clean(bench.settings.route)}[/]: {_standing(bench)}")
    for arena, seen, told in looks:
        judge, approval = bench.settings.judge, bench.settings.approval
        ahead.explain(
            screen, arena, seen, told, judge, approval=approval, breach=breach_of(bench, entries, arena.challenger)
        )
    if not looks:
        screen.say("nothing is being judged now")
    waits = pending_of(entries)
    if waits["waiting"] or waits["late"] or waits["overflow"]:
        screen.say(ahead.waiting(waits["waiting"], waits["closed"], waits["late"], waits["overflow"]))
    if last is not None:
        screen.say(f"last: {one_line(last)}")
    return Exit.DONE if looks else Exit.NO


def _ahead(bench: Bench, arena: Arena, seen: Look, at_ms: int) -> Forecast:
    around = Around(
        settings=bench.settings.judge,
        now_ms=at_ms,
        cooldown_until_ms=bench.cooldown_until_ms,
        approval=bench.settings.approval,
    )
    return forecast(arena, around, seen)


def _standing(bench: Bench) -> str:
    said = [f"champion {clean(bench.champion)}"]
    if bench.rollback is not None:
        live = "proven live" if bench.rollback in bench.live else "not proven live"
        said.append(f"{clean(bench.rollback)} is kept to return to ({live})")
    if bench.leaving is not None:
        said.append(f"[yellow]a rollback waits until it is live[/]: {clean(bench.leaving.reason)}")
    if bench.queue:
        said.append(f"in line: {', '.join(clean(row.arm.arm) for row in bench.queue)}")
    if bench.paused:
        said.append("[yellow]paused[/]")
    return ", ".join(said)


def breach_of(bench: Bench, entries: Sequence[Entry], arm: str) -> str:
    """Why the breaker that watches the arm has tripped; empty where it is quiet."""
    breaker = next((entry.breaker for entry in entries if entry.breaker is not None and entry.breaker.arm == arm), None)
    return breaker.tripped(bench.settings.judge) if breaker is not None else ""


def pending_of(entries: Sequence[Entry]) -> dict[str, int]:
    """How many pairs wait, how many of them are closed, how many were late or found no room."""
    waiting = [entry.pending for entry in entries if entry.pending is not None]
    place = next((entry.order for entry in entries if entry.order is not None), Place())
    closed = sum(pending.closed for pending in waiting)
    return {"waiting": len(waiting), "closed": closed, "late": place.late, "overflow": place.overflow}


def answer(bench: Bench, entries: Sequence[Entry], looks: Sequence[tuple[Arena, Look, Forecast]]) -> dict[str, Any]:
    """All of it, for `--json`."""
    return {
        "route": bench.settings.route,
        "champion": bench.champion,
        "rollback": bench.rollback,
        "rollback_live": bench.rollback in bench.live,
        "leaving": None if bench.leaving is None else bench.leaving.reason,
        "challengers": [arena.challenger for arena, _, _ in looks if not arena.holdback],
        "in_line": [row.arm.arm for row in bench.queue],
        "paused": bench.paused,
        "approval": bench.settings.approval,
        "judging": bool(looks),
        "pending": pending_of(entries),
        "looks": [
            ahead.as_row(arena, seen, told, breach_of(bench, entries, arena.challenger)) for arena, seen, told in looks
        ],
    }
