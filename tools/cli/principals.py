"""`ratchet principal`: who may speak, and with which keys. A key itself is shown nowhere: it is read from the secret store, or
written into a file of its own for whom it is for."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import keys
from schemas.errors import Refused, Unavailable
from schemas.principal import SPEAKS, KeyTerm, Principal, Role
from tools.cli.bus import now_ms
from tools.cli.place import settings
from tools.cli.screen import Exit, Screen, clean
from tools.voice import open_store

DAY_MS = 86_400_000


def role_of(word: str) -> Role:
    """Raises `Refused` that names the roles."""
    for role in SPEAKS:
        if role == word:
            return role
    raise Refused(f"role {word!r}: accepted: {', '.join(SPEAKS)}", kind="usage", field="role")


def _there(source: keys.Keeps | None) -> keys.Keeps:
    if source is None:
        raise Unavailable("there is no secret store here yet: `ratchet up` makes one, or set RATCHET_SECRETS=vault")
    return source


def term_row(kid: str, term: KeyTerm, at_ms: int) -> dict[str, Any]:
    """A key as it may be shown."""
    state = "counts" if keys.counts(term, at_ms) else ("not yet" if at_ms < term.not_before_ms else "ended")
    return {"key": kid, "state": state, **term.model_dump()}


def rows_of(found: Mapping[str, Principal], at_ms: int) -> list[dict[str, Any]]:
    """Every principal as it may be shown."""
    return [
        {
            "principal": name,
            "roles": list(row.roles),
            "tenants": list(row.tenants),
            "keys": [
                term_row(kid, term, at_ms)
                for kid, term in sorted(row.keys.items(), key=lambda pair: (pair[1].not_before_ms, pair[0]))
            ],
        }
        for name, row in sorted(found.items())
    ]


async def listed(screen: Screen) -> int:
    """`list`: everyone, with every key's time."""
    async with open_store(settings()) as source:
        found = {} if source is None else await keys.principals(source)
    rows = rows_of(found, now_ms())
    if screen.as_json:
        for row in rows:
            screen.json(row)
        return Exit.DONE
    if not rows:
        screen.say(
            "no principal: requests, verdicts and commands are taken unproven; `ratchet principal add NAME --role …`"
        )
    screen.table(
        "principals",
        ("name", "roles", "tenants", "key", "state", "from", "until"),
        [
            (
                row["principal"],
                ", ".join(row["roles"]),
                ", ".join(row["tenants"]) or "all",
                key["key"],
                key["state"],
                _instant(key["not_before_ms"]),
                _instant(key["not_after_ms"]),
            )
            for row in rows
            for key in row["keys"]
        ],
    )
    return Exit.DONE


async def add(
    screen: Screen, name: str, roles: list[str], tenants: list[str], *, valid_days: float | None, key_file: Path | None
) -> int:
    """`add`: a principal and its first key."""
    wanted: list[Role] = [role_of(word) for word in roles]
    _free(key_file)
    async with open_store(settings()) as source:
        store = _there(source)
        kid = await keys.add(store, name, wanted, tenants, now_ms=now_ms(), valid_ms=_ms(valid_days))
        return await _told(screen, store, "added", name, (kid,), key_file)


async def rotate(
    screen: Screen, name: str, *, overlap_s: float, valid_days: float | None, key_file: Path | None
) -> int:
    """`rotate`: another key; the former ones end after the overlap."""
    _free(key_file)
    async with open_store(settings()) as source:
        store = _there(source)
        kid = await keys.rotate(
            store, name, now_ms=now_ms(), overlap_ms=int(overlap_s * 1000), valid_ms=_ms(valid_days)
        )
        return await _told(screen, store, "rotated", name, (kid,), key_file)


async def revoke(screen: Screen, name: str, *, kid: str | None) -> int:
    """`revoke`: a key, or all of a principal's."""
    async with open_store(settings()) as source:
        store = _there(source)
        ended = await keys.revoke(store, name, now_ms=now_ms(), kid=kid)
        return await _told(screen, store, "revoked", name, ended, None)


async def _told(
    screen: Screen, store: keys.Keeps, what: str, name: str, kids: tuple[str, ...], key_file: Path | None
) -> int:
    row, at = (await keys.principals(store))[name], now_ms()
    if key_file is not None:
        held = await store.get(f"{keys.INDEX}/{name}")
        _write(key_file, {"principal": name, "key_id": kids[0], "key": held[kids[0]]})
    changed = [term_row(kid, row.keys[kid], at) for kid in kids]
    if screen.as_json:
        screen.json({what: name, "roles": list(row.roles), "keys": changed})
    for key in changed:
        when = _instant(key["not_after_ms"] if what == "revoked" else key["not_before_ms"])
        words = "ends" if what == "revoked" else "counts from"
        screen.say(f"[green]{what}[/] {clean(name)}: key {clean(key['key'])} {words} {when}")
    if what != "revoked" and key_file is None:
        screen.say(f"the key is in the secret store, under {keys.INDEX}/{clean(name)}; --key-file FILE writes it out")
    return Exit.DONE


def _free(file: Path | None) -> None:
    if file is not None and file.exists():
        raise Refused(f"{file} is there already: nothing is overwritten; give another --key-file", kind="usage")
    if file is not None and not (file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK)):
        raise Refused(f"{file.parent} is no folder that can be written; give another --key-file", kind="usage")


def _write(file: Path, row: Mapping[str, str]) -> None:
    """For its owner's eyes."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as fault:
        raise Refused(
            f"{file} cannot be written: {fault.strerror}; the key is in the secret store", kind="usage"
        ) from fault
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write(json.dumps(row) + "\n")


def _ms(days: float | None) -> int | None:
    return None if days is None else int(days * DAY_MS)


def _instant(at_ms: int | None) -> str:
    return "—" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
