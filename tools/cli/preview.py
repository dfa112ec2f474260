"""`ratchet preview`: what the judge would do now, condition by condition. Reads only."""

from typing import Any

from agents.judge.bench import Bench, Entry
from agents.judge.decide import Look
from agents.judge.fold import preview as look_now
from schemas.topics import BY_NAME, state_topic
from streams.state import split_key
from streams.wire import partition_of
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
    looks = look_now(bench, entries, now_ms())
    last = rows[-1] if rows else None
    if screen.as_json:
        answer: dict[str, Any] = {
            "route": route,
            "champion": bench.champion,
            "challengers": [arena.challenger for arena, _ in looks if not arena.holdback],
            "paused": bench.paused,
            "approval": bench.settings.approval,
            "judging": bool(looks),
            "looks": [
                {"challenger": arena.challenger, "pairs": arena.pairs} | seen.model_dump() for arena, seen in looks
            ],
            "last": last,
        }
        screen.json(answer)
        return Exit.DONE if looks else Exit.NO
    screen.say(
        f"[bold]{clean(route)}[/]: champion {clean(bench.champion)}" + (", [yellow]paused[/]" if bench.paused else "")
    )
    for arena, seen in looks:
        screen.say(f"challenger {clean(arena.challenger)}")
        explain(screen, seen, arena.pairs)
    if not looks:
        screen.say("nothing is being judged now")
    if last is not None:
        screen.say(f"last: {one_line(last)}")
    return Exit.DONE if looks else Exit.NO


def explain(screen: Screen, seen: Look, pairs: int) -> None:
    """Every number and every condition."""
    screen.say(
        f"{pairs} pairs; grades: champion {_grade(seen.champion_grade)}, challenger {_grade(seen.challenger_grade)}"
    )
    screen.table(
        "evidence",
        ("process", "log E", "greatest", "needed", "n", "estimate", ""),
        [
            (
                process.name,
                f"{process.log_e:.3f}",
                f"{process.max_log_e:.3f}",
                f"{process.needed:.3f}",
                process.n,
                "" if process.estimate is None else f"{process.estimate:.4f}",
                "proven" if process.crossed else "not yet",
            )
            for process in seen.processes
        ],
    )
    rows = [(name, "holds" if held else "not yet") for name, held in seen.conditions.items()]
    screen.table("conditions", ("condition", ""), rows)
    screen.say(f"decision now: [bold]{clean(seen.decision)}[/] {clean(seen.reason)}".rstrip())


def _grade(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
