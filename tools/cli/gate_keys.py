"""`ratchet gate`: the keys that masks are sealed and answers marked with. A key itself is shown nowhere, and read by none of this."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from infra import gate_keys
from infra.gate_keys import Listed
from infra.sealing import GATE_SECRET, map_key
from schemas.errors import Unavailable
from schemas.gate import FIRST_KEY
from schemas.topics import full
from streams.shapes import Record
from tools.cli.bus import Bus, now_ms
from tools.cli.place import open_bus, settings
from tools.cli.screen import Exit, Screen, clean
from tools.voice import open_store

DECISIONS, ANSWERS = full("decisions"), full("answers")
NAMED = 10
SKEW_MS = 3_600_000  # between the clocks of two agents


async def listed(screen: Screen) -> int:
    """`keys`: every key, with the times in which it sealed."""
    async with _store() as store:
        rows = await gate_keys.listed(store, now_ms())
    if screen.as_json:
        for row in rows:
            screen.json(row_of(row))
    screen.table(
        "keys of the gate",
        ("key", "state", "seals from", "until"),
        [(row.name, row.state, _instant(row.key_id), _instant(row.until_ms)) for row in rows],
    )
    return Exit.DONE


async def rotate(screen: Screen) -> int:
    """`rotate`: another key; the former ones open and check."""
    async with _store() as store:
        made = await gate_keys.rotate(store, now_ms())
    screen.line(
        {"rotated": True, **row_of(made)},
        f"[green]rotated[/]: {made.name} seals from {_instant(made.key_id)}; the former keys go on opening what they sealed",
    )
    return Exit.DONE


async def retire(screen: Screen, name: str, *, anyway: bool, bus: Bus | None = None) -> int:
    """`retire`: a key that only opens goes. Not while answers are under way under it, unless `anyway`."""
    async with _store() as store:
        row = await gate_keys.to_retire(store, name, now_ms())
        if row.state == "retired":
            return _told(screen, row, "is retired already: nothing was done")
        waiting = [] if anyway else await _under_way(screen, row.key_id, bus or open_bus())
        if waiting:
            screen.line(
                {"retired": False, **row_of(row), "under_way": len(waiting), "requests": waiting[:NAMED]},
                f"[yellow]answers under way[/] under {name}: {len(waiting)} ({', '.join(map(clean, waiting[:NAMED]))}"
                f"{', …' if len(waiting) > NAMED else ''}); nothing was done: say it again when they are out, or with --yes, "
                "and they are withheld",
            )
            return Exit.NO
        row = await gate_keys.retire(store, name, now_ms())
    return _told(screen, row, "retired: marks of answers under it can no longer be checked")


def _told(screen: Screen, row: Listed, words: str) -> int:
    screen.line({"retired": True, **row_of(row)}, f"{row.name} {words}")
    return Exit.DONE


async def _under_way(screen: Screen, key_id: int, bus: Bus) -> list[str]:
    """Requests that were decided under the key and have no answer yet."""
    with screen.progress("reading decisions") as progress:
        async with bus:
            waiting = await _decided(bus, key_id)
            progress.say(f"reading answers: {len(waiting)} requests were masked under the key")
            async for record in bus.each(await bus.starts([ANSWERS], _since(key_id))):
                waiting.discard(_key(record))
    return sorted(waiting)


async def _decided(bus: Bus, key_id: int) -> set[str]:
    return {
        _key(record)
        async for record in bus.each(await bus.starts([DECISIONS], _since(key_id)))
        if sealed_by(record) == key_id
    }


def _since(key_id: int) -> int | None:
    return None if key_id == FIRST_KEY else key_id - SKEW_MS


def sealed_by(record: Record) -> int | None:
    """The id of the key that sealed a decision's map; None where nothing was masked."""
    try:
        said = cast("object", json.loads(record.value or b""))
    except ValueError:
        return None
    sealed = cast("Mapping[str, Any]", said).get("mask_map") if isinstance(said, dict) else None
    return map_key(sealed) if isinstance(sealed, str) and sealed else None


def row_of(row: Listed) -> dict[str, Any]:
    """A key as JSON has it."""
    return {"key": row.name, "state": row.state, "from_ms": row.key_id, "until_ms": row.until_ms}


def _key(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")


@asynccontextmanager
async def _store() -> AsyncGenerator[gate_keys.Changes, None]:
    found = settings()
    if found.secrets == "vault" and found.vault_token is None:
        raise Unavailable(
            "the gate's keys are in Vault, and there is no token to change them with: set RATCHET_VAULT_TOKEN to one that may read "
            f"{found.vault_mount}/subkeys/{GATE_SECRET} and patch {found.vault_mount}/data/{GATE_SECRET}"
        )
    async with open_store(found) as source:
        if source is None:
            raise Unavailable("there is no secret store here yet: `ratchet up` makes one, or set RATCHET_SECRETS=vault")
        yield source


def _instant(at_ms: int | None) -> str:
    if at_ms is None:
        return "—"
    return (
        "the beginning"
        if at_ms == FIRST_KEY
        else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    )
