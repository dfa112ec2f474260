"""`ratchet preview`: what the judge would do now, condition by condition. Reads only."""

from typing import Any

from schemas.events import PromotionEvaluated
from schemas.topics import BY_NAME
from streams.wire import partition_of
from tools.cli.bus import Bus, now_ms
from tools.cli.commands import fleet_of, route_of
from tools.cli.events import as_row
from tools.cli.place import an_id, open_bus
from tools.cli.screen import Exit, Screen, clean

PROMOTIONS = BY_NAME["promotions"]
ENDS = ("model.promoted", "promotion.rejected", "model.rolled_back")


async def history(bus: Bus, route: str) -> list[dict[str, Any]]:
    """What was said of promotions on the route, oldest first."""
    count = (await bus.partitions([PROMOTIONS.full]))[PROMOTIONS.full]
    tps = [(PROMOTIONS.full, partition_of(route.encode(), count))]
    rows = [as_row(record) for record in await bus.read(await bus.starts_of(tps))]
    return [row for row in rows if row["key"] == route and row["data"] is not None]


def current(rows: list[dict[str, Any]]) -> tuple[PromotionEvaluated | None, dict[str, Any] | None]:
    """(the newest evaluation of the open arena, the event that ended the newest arena or None)."""
    evaluated: PromotionEvaluated | None = None
    ended: dict[str, Any] | None = None
    for row in rows:
        if row["type"] == "promotion.opened":
            evaluated, ended = None, None
        elif row["type"] == PromotionEvaluated.TYPE:
            evaluated = PromotionEvaluated.model_validate(row["data"])
        elif row["type"] in ENDS:
            ended = row
    return evaluated, ended


async def run(screen: Screen, route: str) -> int:
    """The command. Exit 1 where the route is unknown or nothing is being judged."""
    an_id("route", route)
    async with open_bus() as bus:
        settings, fleet, rows = await route_of(bus, route), await fleet_of(bus, route), await history(bus, route)
    if settings is None or fleet is None:
        screen.line({"route": route, "known": False}, f"route {clean(route)} was never applied")
        return Exit.NO
    evaluated, ended = current(rows)
    opened = next((row for row in reversed(rows) if row["type"] == "promotion.opened"), None)
    judging = fleet.challenger is not None and evaluated is not None and ended is None
    answer: dict[str, Any] = {
        "route": route,
        "champion": fleet.champion,
        "challenger": fleet.challenger,
        "paused": fleet.paused,
        "approval": settings.settings.approval,
        "judging": judging,
        "opened": opened["data"] if opened is not None else None,
        "evaluation": evaluated.model_dump() if evaluated is not None else None,
        "ended": ended,
    }
    if screen.as_json:
        screen.json(answer)
        return Exit.DONE if judging else Exit.NO
    screen.say(
        f"[bold]{clean(route)}[/]: champion {clean(fleet.champion)}, challenger {clean(fleet.challenger or 'none')}"
        + (", [yellow]paused[/]" if fleet.paused else "")
    )
    if evaluated is None:
        screen.say("no pair was evaluated yet" if fleet.challenger else "there is nothing to judge: no challenger")
        return Exit.NO
    _explain(screen, evaluated, minutes=(now_ms() - evaluated.at_ms) / 60_000)
    if ended is not None:
        screen.say(f"ended: {clean(ended['type'])}: {clean(str(ended['data'].get('reason', '')))}")
    return Exit.DONE if judging else Exit.NO


def _explain(screen: Screen, seen: PromotionEvaluated, minutes: float) -> None:
    screen.say(
        f"{seen.pairs} pairs ({seen.quality_pairs} graded: {seen.wins} won, {seen.losses} lost), as of "
        f"{minutes:.1f} minutes ago"
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
    screen.table(
        "conditions",
        ("condition", ""),
        [(name, "holds" if held else "not yet") for name, held in seen.conditions.items()],
    )
    screen.say(f"decision now: [bold]{seen.decision}[/] {clean(seen.reason)}".rstrip())
