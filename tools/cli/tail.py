"""`ratchet tail`: events as they are committed, one line each."""

import re

from schemas.errors import Refused
from tools.cli.bus import Bus, now_ms
from tools.cli.events import as_row, every_topic, full_topics, matches, one_line
from tools.cli.place import open_bus
from tools.cli.screen import Exit, Screen

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since_ms(text: str) -> int:
    """`90s`, `15m`, `2h`, `1d` ago as epoch milliseconds. Raises `Refused`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if found is None:
        raise Refused(f"--since {text!r}: accepted: a number and s, m, h or d, for example 15m", kind="usage")
    return now_ms() - int(found[1]) * _UNITS[found[2]] * 1000


async def tail(
    screen: Screen,
    bus: Bus,
    topics: list[str],
    *,
    route: str | None,
    kind: str | None,
    request: str | None,
    from_beginning: bool,
    since: str | None,
    limit: int | None,
) -> int:
    """Follow until `limit` lines were shown, or for ever."""
    if from_beginning or since is not None:
        positions = await bus.starts(topics, None if since is None else since_ms(since))
    else:
        positions = await bus.ends(topics)
    shown = 0
    followed = bus.follow(positions)
    try:
        async for record in followed:
            if record is None:
                continue
            row = as_row(record)
            if matches(row, route=route, kind=kind, request=request):
                screen.line(row, one_line(row))
                shown += 1
                if limit is not None and shown >= limit:
                    return Exit.DONE
    finally:
        await followed.aclose()
    return Exit.DONE


async def run(
    screen: Screen,
    names: list[str],
    *,
    route: str | None,
    kind: str | None,
    request: str | None,
    from_beginning: bool,
    since: str | None,
    limit: int | None,
) -> int:
    """The command."""
    try:
        topics = full_topics(names) if names else every_topic()
    except KeyError as fault:
        known = ", ".join(topic.removeprefix("ratchet.") for topic in every_topic() if not topic.endswith(".dlq"))
        raise Refused(f"topic {fault.args[0]!r}: accepted: {known}, each also with .dlq", kind="usage") from None
    if since is not None:
        since_ms(since)
    async with open_bus() as bus:
        return await tail(
            screen,
            bus,
            topics,
            route=route,
            kind=kind,
            request=request,
            from_beginning=from_beginning,
            since=since,
            limit=limit,
        )
