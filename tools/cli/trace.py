"""`ratchet trace`: everything about one request as a tree: what caused what, when, and where it lies."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.tree import Tree

from agents.evidence.snapshot import Snapshot, parsed
from schemas.errors import Refused, Unavailable
from schemas.tlog.tiles import WIDTH
from schemas.topics import BY_NAME, PREFIX
from streams.shapes import Record
from streams.wire import partition_of
from tools.cli.bus import Bus
from tools.cli.events import as_row, clock, gist
from tools.cli.evidence import LOG
from tools.cli.marks import checked, keys_of
from tools.cli.place import open_bus, settings, state_file
from tools.cli.reasons import reasons
from tools.cli.screen import Exit, Screen, clean

BY_REQUEST = ("requests", "decisions", "shadows", "results", "scores", "answers", "reviews", "verdicts")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SLACK_MS = 60_000  # how far clocks of producers may differ
BUNDLES = 256  # of 256 entries, from the newest back: as far as the log is searched


async def gather(bus: Bus, request: str) -> list[dict[str, Any]]:
    """Every committed record about the request, in the order of writing."""
    topics = [BY_NAME[name] for name in BY_REQUEST]
    full = [topic.full for topic in topics]
    counts = await bus.partitions([*full, *(t.dlq for t in topics), BY_NAME["cases"].full])
    key = request.encode()
    requests = BY_NAME["requests"].full
    home = partition_of(key, counts[requests])
    seen = [r for r in await bus.read(await bus.starts_of([(requests, home)])) if _about(r, request)]
    if not seen:  # placed otherwise by an outside producer: refused, but it is somewhere
        others = [(requests, p) for p in range(counts[requests]) if p != home]
        seen = [r for r in await bus.read(await bus.starts_of(others)) if _about(r, request)]
    partitions = {home, *(r.partition for r in seen)}
    since = min((r.timestamp_ms for r in seen), default=SLACK_MS) - SLACK_MS
    names = [name for t in topics for name in (t.full, t.dlq) if name != requests]
    tps = [(name, p) for name in names for p in partitions]
    found = seen + [r for r in await bus.read(await bus.starts_of(tps, since)) if _about(r, request)]
    routes = {str(row["data"]["route"]) for row in map(as_row, found) if row["data"] and row["data"].get("route")}
    cases = BY_NAME["cases"].full
    tps = [(cases, p) for p in {partition_of(name.encode(), counts[cases]) for name in routes}]
    found += [r for r in await bus.read(await bus.starts_of(tps, since)) if _of_case(r, key, request)]
    return [as_row(record) for record in sorted(found, key=lambda r: r.timestamp_ms)]


def _about(record: Record, request: str) -> bool:
    return record.key == request.encode()


def _of_case(record: Record, key: bytes, request: str) -> bool:
    """A look at the bytes before the parse: a partition of cases holds every request of its routes."""
    if record.value is None or key not in record.value:
        return False
    data: dict[str, Any] | None = as_row(record)["data"]
    return data is not None and data.get("request_id") == request


def parents(rows: Sequence[Mapping[str, Any]]) -> dict[int, int | None]:
    """Row number to the number of the row that caused it; None for a root. A dead letter hangs on its record."""
    by_id: dict[str, int] = {}
    by_place: dict[str, int] = {}
    for number, row in enumerate(rows):
        by_place[row["place"]] = number
        if "dead_letter" not in row:
            by_id.setdefault(row["id"], number)
    found: dict[int, int | None] = {}
    for number, row in enumerate(rows):
        letter = row.get("dead_letter")
        if letter is not None:
            parent = by_place.get(f"{letter['topic']}[{letter['partition']}]@{letter['offset']}")
        else:
            parent = by_id.get(row["cause"]) if row["cause"] else None
        found[number] = parent if parent != number else None
    return found


def logged(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Place to log index, of the rows that the newest entries of the local log hold. Empty where there is no log here."""
    try:
        log = Snapshot.open(folder)
        wanted = {str(row["place"]): str(row["id"]) for row in rows if row["id"]}
        found: dict[str, int] = {}
        newest = (log.size - 1) // WIDTH
        for number in range(newest, max(-1, newest - BUNDLES), -1):
            ids = {event_id for place, event_id in wanted.items() if place not in found}
            if not ids:
                break
            for index in (one for places in log.ids(ids, range(number, number + 1)).values() for one in places):
                source = parsed(log.entry(index)).get("src", {})
                found[f"{source.get('topic')}[{source.get('partition')}]@{source.get('offset')}"] = index
    except (Refused, Unavailable):
        return {}
    return {place: index for place, index in found.items() if place in wanted}


async def mark(rows: Sequence[dict[str, Any]]) -> None:
    """Says of each released answer what its mark says, and whether it holds."""
    answers = [row for row in rows if row["type"] == "answer.released" and row["data"] and "dead_letter" not in row]
    if answers:
        keys = await keys_of(settings())
        for row in answers:
            found, words = checked(row["data"], keys)
            row["mark"] = {"found": found, "words": words}


def short(event: str | None) -> str:
    """An id as a person reads it: of a UUID its first eight digits, which `ratchet evidence prove` takes as well."""
    return "-" if not event else event[:8] if _UUID.fullmatch(event) else event


def draw(request: str, rows: Sequence[Mapping[str, Any]]) -> Tree:
    """The tree for people; times count from the first record."""
    start = rows[0]["written_ms"]
    tree = Tree(f"[bold]{clean(request)}[/] [dim]{clock(start)}[/]")
    above = parents(rows)
    nodes: dict[int, Tree] = {}

    def node(number: int, path: frozenset[int]) -> Tree:
        if number not in nodes:
            row, parent = rows[number], above[number]
            at = tree if parent is None or parent in path else node(parent, path | {number})
            place = clean(str(row["place"]).removeprefix(PREFIX))
            moment = f"[dim]{row['written_ms'] - start:+6d} ms[/]"
            label = (
                f"{moment} [bold]{clean(row['type'] or '(no type)')}[/] [cyan]{clean(short(row['id']))}[/] {gist(row)}"
            )
            index = f" entry {row['log_index']}" if row.get("log_index") is not None else ""
            nodes[number] = at.add(f"{label} [dim]{place}{index}[/]")
            if row.get("mark"):
                nodes[number].add(f"[dim]{clean(row['mark']['words'])}[/]")
            if row["type"] == "decision.routed" and row["data"]:
                for words in reasons(row["data"]):
                    nodes[number].add(f"[dim]{clean(words)}[/]")
        return nodes[number]

    for number in range(len(rows)):
        node(number, frozenset())
    return tree


async def run(screen: Screen, request: str) -> int:
    """The command. Exit 1 where nothing is known of the request."""
    async with open_bus() as bus:
        with screen.progress(f"reading what is known of {request}"):
            rows = await gather(bus, request)
    indices = logged(state_file(LOG), rows)
    for row in rows:
        row["log_index"] = indices.get(row["place"])
    await mark(rows)
    if screen.as_json:
        screen.json({"request": request, "events": rows})
    elif rows:
        screen.draw(draw(request, rows))
        screen.say("[dim]`ratchet evidence prove ID` gives the proof of an event; its first eight digits do[/]")
    else:
        screen.say(f"nothing is known of request {clean(request)}; an id is the record's key, case and all")
    return Exit.DONE if rows else Exit.NO
