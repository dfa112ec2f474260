"""`ratchet status`: what runs, how each route and arm is doing, what was refused and why, how far behind each agent is."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from infra.keys import principals
from infra.settings import Settings
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.principal import KINDS, PROVEN, Principal
from schemas.topics import BY_NAME
from tools.cli.bus import now_ms
from tools.cli.events import as_row
from tools.cli.gating import row_of, warn
from tools.cli.incidents import open_rows, say_open
from tools.cli.place import open_bus
from tools.cli.place import settings as find_settings
from tools.cli.principals import rows_of
from tools.cli.screen import Exit, Screen, clean
from tools.stack.secure import IN_THE_CLEAR, SECURED, open_security
from tools.voice import open_store

SNAPSHOT = "observer.json"
STALE_MS = 10_000
UNPROVEN = "no principal's key is set: requests, verdicts and commands are taken unproven"


def gather() -> dict[str, Any]:
    """Everything that is known, as one JSON value. Raises nothing for what is away: it says so."""
    from tools.stack import status

    settings = find_settings()
    found: dict[str, Any] = {}
    stack = status(settings)
    found["stack"] = {
        "state": stack.state,
        "services": stack.services,
        "processes": stack.processes,
        "broken": stack.broken,
    }
    found["evidence"] = stack.evidence
    found["observer"] = read_snapshot(settings)
    found["lag"], found["lag_error"] = lags(settings)
    found["fleets"], found["gates"] = ([], []) if found["lag_error"] else in_force(settings)
    found["incidents"] = [] if found["lag_error"] else open_incidents(settings)
    found["proof"] = proof(settings) | {"refused": unproven_of(found["observer"])}
    found["transport"] = IN_THE_CLEAR if settings.kafka_security == "plaintext" else SECURED
    return found


def proof(settings: Settings) -> dict[str, Any]:
    """Whether what comes in must be proven (`on`; None where that is not known), in words, and by whom it can be."""

    async def ask() -> dict[str, Principal]:
        async with open_store(settings) as source:
            return {} if source is None else await principals(source)

    try:
        known = asyncio.run(ask())
    except (Unavailable, Refused) as fault:
        return {"on": None, "detail": f"whether anything must be proven is not known: {fault}", "principals": []}
    rows = rows_of(known, now_ms())
    keys = [key for row in rows for key in row["keys"]]
    if not keys:
        return {"on": False, "detail": UNPROVEN, "principals": rows}
    counting = sum(key["state"] == "counts" for key in keys)
    since = min(key["not_before_ms"] for key in keys)
    able = sorted(row["principal"] for row in rows if any(key["state"] == "counts" for key in row["keys"]))
    words = f"requests, verdicts and commands must be proven; {counting} keys count, of {', '.join(able) or 'nobody'}"
    return {"on": since <= now_ms(), "detail": words, "since_ms": since, "principals": rows}


def unproven_of(seen: Mapping[str, Any] | None) -> dict[str, int]:
    """What lacked a proof that holds, by kind, over the observer's horizon: requests, and dead letters of verdicts and commands.

    A verdict or command counts once for each agent that refused it.
    """
    found: Counter[str] = Counter()
    if seen is not None:
        for row in seen["refused"]:
            found[row["kind"]] += row["count"]
        for row in seen["dead_letters"]:
            if row["topic"].removesuffix(".dlq") in PROVEN:
                found[row["kind"]] += row["count"]
    return {kind: found[kind] for kind in sorted(KINDS & found.keys())}


def read_snapshot(settings: Settings) -> dict[str, Any] | None:
    """The observer's figures with their age, None where it never ran."""
    try:
        snapshot: dict[str, Any] = json.loads((settings.state_dir / SNAPSHOT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    age = now_ms() - int(snapshot["at_ms"])
    return snapshot | {"age_ms": age, "stale": age > STALE_MS}


def lags(settings: Settings) -> tuple[dict[str, int], str]:
    """Records that each agent is behind, markers included; or why that is not known."""
    from agents.wiring import groups
    from streams.admin import lag

    bootstrap = settings.kafka_bootstrap
    if bootstrap is None:
        return {}, "no stack runs here and KAFKA_BOOTSTRAP is not set"

    async def ask() -> dict[str, int]:
        security = await open_security(settings, "operator")
        found: dict[str, int] = {}
        for group, topics in groups().items():
            rows = await lag(bootstrap, group, topics, security=security)
            found[group.removeprefix("ratchet.")] = sum(row.records for row in rows)
        return found

    try:
        return asyncio.run(asyncio.wait_for(ask(), 30)), ""
    except (Unavailable, Refused) as fault:
        return {}, str(fault)
    except TimeoutError:
        return {}, f"Kafka at {bootstrap} did not answer within 30 s"


def in_force(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Who is where on each route, and what its gate does. Nothing where the broker is away or has no such topic."""
    topic = BY_NAME["policies"].full
    kinds = (PolicyFleet.TYPE, PolicyRoute.TYPE, PolicyGate.TYPE)

    async def ask() -> dict[str, dict[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in kinds}
        async with open_bus(settings) as bus:
            for record in await bus.read(await bus.starts([topic])):
                row = as_row(record)
                if row["type"] in found and row["data"] is not None:
                    found[row["type"]][row["key"]] = row["data"]
        return found

    try:
        known = asyncio.run(asyncio.wait_for(ask(), 30))
    except (Unavailable, Refused, TimeoutError):
        return [], []
    fleets, routes, gates = (known[kind] for kind in kinds)
    shown = ("route", "champion", "challenger", "rollback", "rollout_bp", "shadow_bp", "shadows", "paused", "reason")
    told = [{name: data.get(name) for name in shown} for _, data in sorted(fleets.items())]
    return told, [_gate(data, gates) for _, data in sorted(routes.items())]


def _gate(route: Mapping[str, Any], gates: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    settings = PolicyRoute.model_validate(route).settings
    held = gates.get(f"{PolicyGate.KIND}/{settings.tenant}")
    return row_of(settings, None if held is None else PolicyGate.model_validate(held).settings, now_ms())


def open_incidents(settings: Settings) -> list[dict[str, Any]]:
    """Incidents that nobody has closed, the most urgent first. Nothing where the broker is away or has no such topic."""

    async def ask() -> list[dict[str, Any]]:
        async with open_bus(settings) as bus:
            return await open_rows(bus)

    try:
        return asyncio.run(asyncio.wait_for(ask(), 30))
    except (Unavailable, Refused, TimeoutError):
        return []


def run(screen: Screen) -> int:
    """The command. Exit 0 where the stack is whole, 1 where part of it is broken, 3 where none runs."""
    with screen.progress("asking around"):
        found = gather()
    state = str(found["stack"]["state"])
    if screen.as_json:
        screen.json(found)
    else:
        show(screen, found)
    return {"whole": Exit.DONE, "broken": Exit.NO}.get(state, Exit.AWAY)


def show(screen: Screen, found: Mapping[str, Any]) -> None:
    """The same for people."""
    stack: Mapping[str, Any] = found["stack"]
    colour = {"whole": "green", "broken": "red"}.get(stack["state"], "yellow")
    screen.say(f"stack [{colour}]{stack['state']}[/]" + ("" if stack["services"] else ": `ratchet up` starts one"))
    screen.table("services", ("name", "where"), list(stack["services"].items()))
    screen.table("agents", ("process", "state"), list(stack["processes"].items()))
    screen.table("evidence", ("what", "where"), list(found["evidence"].items()))
    for line in stack["broken"]:
        screen.say(f"[red]broken[/] {clean(line)}")
    _fleets(screen, found["fleets"])
    for row in found["gates"]:
        warn(screen, row["route"], row["warnings"])
    _observed(screen, found["observer"])
    say_open(screen, found["incidents"])
    screen.table("behind", ("agent", "records"), sorted(found["lag"].items()))
    if found["lag_error"]:
        screen.say(f"[yellow]how far behind is not known[/]: {clean(found['lag_error'])}")
    told = found["proof"]
    sign = "[green]proof[/]" if told["on"] else "[bold red]UNPROVEN[/]" if told["on"] is False else "[yellow]proof[/]"
    screen.say(f"{sign} {clean(told['detail'])}")
    if told["refused"]:
        said = ", ".join(f"{kind} {count}" for kind, count in told["refused"].items())
        screen.say(f"[yellow]refused for want of a proof that holds, last day[/]: {said}")
    mark = "[green]●[/]" if found["transport"] == SECURED else "[yellow]![/]"
    screen.say(f"{mark} {found['transport']}")


def _fleets(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> None:
    screen.table(
        "routes",
        ("route", "champion", "challenger", "serves", "both answer", "to return to", "last change"),
        [
            (
                row["route"],
                row["champion"],
                row["challenger"] or "",
                f"{row['rollout_bp'] / 100:g} %" if row["challenger"] else "",
                f"{row['shadow_bp'] / 100:g} %" if row["shadows"] or row["challenger"] else "",
                row["rollback"] or "",
                ("paused; " if row["paused"] else "") + (row["reason"] or ""),
            )
            for row in rows
        ],
    )


def _observed(screen: Screen, seen: Mapping[str, Any] | None) -> None:
    if seen is None:
        screen.say("the observer has not written yet: no figures of routes")
        return
    if seen["stale"]:
        screen.say(f"[yellow]the observer's figures are {seen['age_ms'] / 1000:.0f} s old[/]: is it alive?")
    rows = seen["windows"]["5"]
    screen.table(
        "answers, last 5 minutes",
        ("route", "released", "withheld", "per s", "p50 ms", "p95 ms", "cases"),
        [
            (r["route"], r["released"], r["withheld"], r["per_s"], _ms(r["p50_ms"]), _ms(r["p95_ms"]), r["cases"])
            for r in rows
            if not r["arm"]
        ],
    )
    screen.table(
        "arms, last 5 minutes",
        ("route", "arm", "done", "failed", "per s", "p50 ms", "p95 ms", "tok/s", "right", "graded"),
        [
            (
                r["route"],
                r["arm"],
                r["completed"],
                r["failed"],
                r["per_s"],
                _ms(r["p50_ms"]),
                _ms(r["p95_ms"]),
                r["tokens_per_s"],
                "" if r["approval"] is None else f"{r['approval']:.1%}",
                r["graded"],
            )
            for r in rows
            if r["arm"]
        ],
    )
    hours = seen["horizon_minutes"] / 60
    screen.table(
        f"refused, last {hours:g} hours",
        ("route", "reason", "count"),
        [(r["route"], r["kind"], r["count"]) for r in seen["refused"]],
    )
    screen.table(
        f"dead letters, last {hours:g} hours",
        ("topic", "reason", "count"),
        [(r["topic"], r["kind"], r["count"]) for r in seen["dead_letters"]],
    )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
