"""`ratchet judge show`: an arena's history as pictures, numbers and decisions; and whether every look comes out the same again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import Refused
from schemas.events import PromotionEvaluated
from schemas.topics import BY_NAME
from tools.cli.arenas import Again, History, again, histories, holdbacks, outcome_of, pick
from tools.cli.bus import Bus
from tools.cli.chart import draw
from tools.cli.events import as_row, one_line
from tools.cli.panels import counts, legend, panels
from tools.cli.place import open_bus
from tools.cli.screen import Exit, Screen, clean

PROMOTIONS = BY_NAME["promotions"]
SHOWN = 20  # differing looks that are shown one by one


async def read(bus: Bus) -> list[dict[str, Any]]:
    """Everything that was ever said of promotions and is still kept, oldest first."""
    rows = [as_row(record) for record in await bus.read(await bus.starts([PROMOTIONS.full]))]
    return [row for row in rows if row["data"] is not None]


def check_png(png: Path | None) -> None:
    """Raise `Refused` where no file can be there."""
    if png is not None and (png.is_dir() or not png.resolve().parent.is_dir()):
        raise Refused(f"--png {png}: accepted: a file in a folder that exists", kind="usage", field="png")


async def run(screen: Screen, asked: str, *, png: Path | None, recompute: bool) -> int:
    """The command. Exit 1 where no arena, or more than one, is meant, and where a look comes out otherwise."""
    check_png(png)
    async with open_bus() as bus:
        with screen.progress("reading what was said of promotions"):
            rows = await read(bus)
    return show(screen, histories(rows), asked, png=png, recompute=recompute)


def show(
    screen: Screen, known: Mapping[str, History], asked: str, *, png: Path | None = None, recompute: bool = False
) -> int:
    """Show the arena that is meant, as read."""
    meant = pick(known, asked)
    if len(meant) != 1:
        return _unclear(screen, known, meant, asked)
    history = meant[0]
    checked = [found for row, look in history.looks if (found := again(row, look)) is not None] if recompute else None
    drawn = png is not None and bool(history.looks)
    if png is not None and drawn:
        from tools.cli.judge_picture import picture

        picture(history, outcome_of(known, history), png)
    if screen.as_json:
        screen.json(answer(history, known, checked, png if drawn else None))
    else:
        _show(screen, history, known)
        if png is not None:
            screen.say(f"drawn to {clean(str(png))}" if drawn else "no look yet: nothing to draw")
        if checked is not None:
            _recomputed(screen, history, checked)
    return Exit.NO if any(found.differs for found in checked or ()) else Exit.DONE


def _unclear(screen: Screen, known: Mapping[str, History], meant: Sequence[History], asked: str) -> int:
    rows = [_summary(history, known) for history in (meant or known.values())]
    if screen.as_json:
        screen.json({"asked": asked, "found": len(meant), "known": rows})
        return Exit.NO
    if meant:
        screen.say(f"{len(meant)} arenas begin with {clean(asked)}")
    else:
        screen.say(f"no arena and no route {clean(asked)} is known")
    _list(screen, rows)
    return Exit.NO


def _list(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        screen.say("nothing was ever said of a promotion here")
    screen.table(
        "arenas, oldest first",
        ("arena", "route", "challenger", "champion", "pairs", "outcome"),
        [(r["arena"][:12], r["route"], r["challenger"], r["champion"], r["pairs"], r["outcome"]) for r in rows],
    )


def _summary(history: History, known: Mapping[str, History]) -> dict[str, Any]:
    outcome = f"holdback, {history.outcome}" if history.holdback else outcome_of(known, history)
    return {
        "arena": history.arena,
        "route": history.route,
        "challenger": history.first["challenger"],
        "champion": history.first["champion"],
        "pairs": history.pairs,
        "outcome": outcome,
    }


def answer(
    history: History, known: Mapping[str, History], checked: Sequence[Again] | None, png: Path | None
) -> dict[str, Any]:
    """All of it, for `--json`. A look's basis stays on the topic: it is the judge's whole state of the arena."""
    return _summary(history, known) | {
        "holdback": history.holdback,
        "holdbacks": [other.arena for other in holdbacks(known, history)],
        "looks": [
            {"at_ms": look.at_ms, "place": row["place"]}
            | look.model_dump(mode="json", exclude={"basis", "tenant", "route", "arena", "at_ms"})
            for row, look in history.looks
        ],
        "events": history.decided,
        "recomputed": None if checked is None else _counts(history, checked),
        "png": None if png is None else str(png),
    }


def _counts(history: History, checked: Sequence[Again]) -> dict[str, Any]:
    wrong = [found for found in checked if found.differs]
    return {
        "looks": len(history.looks),
        "agree": len(checked) - len(wrong),
        "differ": [{"pairs": found.pairs, "place": found.place, "differs": list(found.differs)} for found in wrong],
        "without_basis": len(history.looks) - len(checked),
    }


def _show(screen: Screen, history: History, known: Mapping[str, History]) -> None:
    screen.say(f"[bold]{clean(history.title)}[/]")
    outcome = outcome_of(known, history)
    screen.say(f"arena {history.arena}: {outcome}, {history.pairs} pairs, {len(history.looks)} looks")
    found = panels(history)
    for panel in found:
        for line in draw(panel):
            screen.say(clean(line))
    if found:
        screen.say(f"[dim]{clean(legend(found))}[/]")
        _last_look(screen, history.looks[-1][1])
    else:
        screen.say("no look yet: the judge looks when the first pairs have been folded")
    _decided(screen, history, holdbacks(known, history))


def _decided(screen: Screen, history: History, after: Sequence[History]) -> None:
    rows = sorted((row for each in (history, *after) for row in each.decided), key=lambda row: row["written_ms"])
    screen.say("[bold]what was decided[/]")
    for row in rows:
        screen.say(one_line(row))
    if not rows:
        screen.say("nothing yet")
    for other in after:
        screen.say(f"its holdback: `ratchet judge show {other.arena[:12]}`, {other.pairs} pairs, {other.outcome}")


def _last_look(screen: Screen, look: PromotionEvaluated) -> None:
    grades = ", ".join(
        f"{who} {'?' if grade is None else f'{grade:.3f}'}"
        for who, grade in (("champion", look.champion_grade), ("challenger", look.challenger_grade))
    )
    late = f", {look.late} came too late to count" if look.late else ""
    screen.say(f"[bold]the last look[/]: {look.pairs} pairs{late}; {look.quality_pairs} graded: {grades}")
    screen.table(
        "evidence, in log E",
        ("process", "now", "max", "need", "n", "estimate", ""),
        [
            (
                row.name,
                f"{row.log_e:.2f}",
                f"{row.max_log_e:.2f}",
                f"{row.needed:.2f}",
                row.n,
                "" if row.estimate is None else f"{row.estimate:+.4f}",
                "reached" if row.crossed else "",
            )
            for row in look.processes
            if counts(look, row.name)
        ],
    )
    if not look.holdback:
        rows = [(name, "held" if held else "did not hold") for name, held in look.conditions.items()]
        screen.table("conditions then", ("condition", ""), rows)


def _recomputed(screen: Screen, history: History, checked: Sequence[Again]) -> None:
    counts = _counts(history, checked)
    wrong = counts["differ"]
    colour = "red" if wrong else "green"
    without = f", {counts['without_basis']} carry no basis" if counts["without_basis"] else ""
    screen.say(f"[{colour}]made again[/]: {counts['agree']} of {counts['looks']} looks come out the same{without}")
    for row in wrong[:SHOWN]:
        screen.say(f"[red]differs[/] {clean(row['place'])} at {row['pairs']} pairs: {clean('; '.join(row['differs']))}")
    if len(wrong) > SHOWN:
        screen.say(f"and {len(wrong) - SHOWN} more: --json lists all")
