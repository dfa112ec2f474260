"""`ratchet basis ROUTE`: the frozen basis in which the router reads a route's texts, built from texts that nobody labelled."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agents.router.basis_build import build
from agents.router.model import text_of
from infra.artifacts import DirectoryStore
from schemas.errors import Refused
from schemas.events import CaseClosed
from schemas.routing import SENSITIVITIES
from schemas.topics import BY_NAME
from streams.shapes import Record
from streams.wire import partition_of
from tools.cli.bus import Bus
from tools.cli.place import an_id, open_bus, settings
from tools.cli.replay import instant_ms
from tools.cli.screen import Exit, Screen

CASES = BY_NAME["cases"]
LEAST = 200  # texts; of fewer the directions would be these texts themselves
MOST = 20_000
PERSONAL = SENSITIVITIES.index("personal")


async def run(screen: Screen, route: str, since: str | None, seed: int) -> int:
    """The command, from the route's closed cases. Exit 1 where there are too few."""
    an_id("route", route)
    since_ms = 0 if since is None else instant_ms("--since", since)
    async with open_bus() as bus:
        with screen.progress(f"reading the cases of {route}"):
            texts = [*_of_cases(await _cases(bus, route, since_ms), route)]
    return stored(screen, route, texts, seed)


def offline(screen: Screen, route: str, file: Path, seed: int) -> int:
    """The same from a file: a JSON object with `prompt` or `messages` a line."""
    return stored(screen, route, [*_of_file(file)], seed)


def stored(screen: Screen, route: str, texts: list[str], seed: int) -> int:
    """Build, store, and say the line for the route file."""
    if len(texts) < LEAST:
        said = f"{len(texts)} texts are too few for a basis; accepted: at least {LEAST} that are not personal"
        screen.line({"route": route, "texts": len(texts), "basis": None}, said)
        return Exit.NO
    try:
        with screen.progress(f"building a basis of {min(len(texts), MOST)} texts"):
            data = build(texts[-MOST:], seed).to_bytes()
    except Refused as fault:
        screen.line({"route": route, "texts": len(texts), "basis": None}, f"these texts make no basis: {fault}")
        return Exit.NO
    digest = DirectoryStore(settings().state_dir / "artifacts").put_bytes(data)
    told = {"route": route, "texts": len(texts), "bytes": len(data), "basis": digest}
    screen.line(told, f'[green]stored[/], of {len(texts)} texts\n[routing]\nbasis = "{digest}"')
    return Exit.DONE


async def _cases(bus: Bus, route: str, since_ms: int) -> Iterable[Record]:
    count = (await bus.partitions([CASES.full]))[CASES.full]
    tps = [(CASES.full, partition_of(route.encode(), count))]
    return await bus.read(await bus.starts_of(tps, since_ms))


def _of_cases(records: Iterable[Record], route: str) -> Iterator[str]:
    """The texts of closed cases; what is personal stays out of an artifact that is kept."""
    kind = CaseClosed.ce_type().encode()
    for record in records:
        if record.key != route.encode() or record.value is None or dict(record.headers).get("ce_type") != kind:
            continue
        case = CaseClosed.model_validate_json(record.value)
        level = "internal" if case.routing is None else case.routing.sensitivity
        if SENSITIVITIES.index(level) < PERSONAL:
            yield text_of(case.messages)


def _of_file(file: Path) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(f"{file}: cannot be read as UTF-8: {type(fault).__name__}", kind="usage") from fault
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _text(line, f"{file}: line {number}")


def _text(line: str, where: str) -> str:
    try:
        said: Any = json.loads(line)
        if "prompt" in said:
            return str(said["prompt"])
        return "\n".join(str(row["content"]) for row in said["messages"] if row["role"] != "system")
    except (ValueError, KeyError, TypeError) as fault:
        raise Refused(
            f"{where}: accepted is a JSON object with prompt, or messages of role and content", kind="usage"
        ) from fault
