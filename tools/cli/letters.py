"""`ratchet dlq`: dead letters listed, shown, sent back, discarded; a halted lane freed. What it does is `streams/letters.py`'s."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.codec import first_errors, payload_class
from schemas.errors import Refused
from schemas.events import CommandDiscard, CommandResend, CommandSkip, LetterCommand
from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from schemas.principal import Prove
from schemas.topics import PREFIX
from streams.letters import Edit, Letter, Settled, about, returned, settle, tell, words
from streams.port import Broker
from streams.repair import skip as skip_record
from streams.shapes import Place, Record
from tools.cli.bus import Bus
from tools.cli.events import every_topic, full_topics
from tools.cli.place import settings
from tools.cli.repairs import CLOCK, COMMANDS, By, agent_of, opened, place_of, speaking, tenant_of, vouching
from tools.cli.screen import Exit, Screen, clean, short

LONGEST = 20_000
"""Characters of a payload that are shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which letters."""

    agent: str | None = None
    kind: str | None = None
    topic: str | None = None
    every: bool = False
    limit: int = 50


def row_of(letter: Letter, done: LetterCommand | None) -> dict[str, Any]:
    """A letter as one JSON object, without its payload."""
    row: dict[str, Any] = {
        "place": str(letter.place),
        "at": letter.at,
        "agent": letter.agent,
        "kind": letter.kind,
        "message": letter.message,
        "attempts": letter.attempts,
        "record": str(letter.record.place),
        "type": letter.type.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX),
        "key": (letter.record.key or b"").decode("utf-8", "replace"),
        "id": letter.id,
        "state": "open" if done is None else "sent back" if isinstance(done, CommandResend) else "discarded",
    }
    if done is not None:
        row["settled"] = {"by": done.operator, "at_ms": done.at_ms, "reason": done.reason}
        if isinstance(done, CommandResend):
            row["settled"] |= {"sent_id": done.sent_id, "edited": done.edited}
    return row


async def gather(bus: Bus, asked: Asked) -> list[tuple[Letter, LetterCommand | None]]:
    """The letters asked for, newest first, each with what settled it. What is no letter of ours is left out."""
    try:
        topics = [row for row in full_topics([asked.topic]) if row.endswith(".dlq")] if asked.topic else _every()
        topics = topics or full_topics([f"{asked.topic}.dlq"])
    except KeyError as fault:
        known = ", ".join(row.removeprefix(PREFIX) for row in _every())
        raise Refused(f"--topic {fault.args[0]!r}: accepted: {known}", kind="usage", field="topic") from None
    settled = Settled(await bus.read(await bus.starts([COMMANDS])))
    found: list[tuple[Letter, LetterCommand | None]] = []
    for row in reversed(await bus.read(await bus.starts(topics))):
        letter = _letter(row)
        if (
            letter is None
            or (asked.agent or letter.agent) != letter.agent
            or (asked.kind or letter.kind) != letter.kind
        ):
            continue
        done = settled.of(letter)
        if asked.every or done is None:
            found.append((letter, done))
    return found


def _every() -> list[str]:
    return [topic for topic in every_topic() if topic.endswith(".dlq")]


def _letter(row: Record) -> Letter | None:
    try:
        return Letter.of(row)
    except Refused:
        return None


async def listed(screen: Screen, bus: Bus, asked: Asked) -> int:
    """`list`."""
    with screen.progress("reading dead letters"):
        found = await gather(bus, asked)
    shown = found[: asked.limit]
    if screen.as_json:
        for letter, done in shown:
            screen.json(row_of(letter, done))
        screen.json({"summary": {"letters": len(found), "shown": len(shown), **_counts(found)}})
        return Exit.DONE
    columns = ("place", "at", "agent", "kind", "reason", "key", "state")
    screen.table(
        "dead letters",
        columns,
        [
            (
                str(letter.place).removeprefix(PREFIX),
                letter.at,
                letter.agent,
                letter.kind,
                letter.message[:160],
                (letter.record.key or b"").decode("utf-8", "replace")[:40],
                "open" if done is None else words(done),
            )
            for letter, done in shown
        ],
    )
    rest = f", the newest {len(shown)} shown (--limit)" if len(shown) < len(found) else ""
    what = "dead letters" if asked.every else "open dead letters"
    screen.say(f"{len(found)} {what}{rest}" if found else f"no {what}")
    return Exit.DONE


def _counts(found: Sequence[tuple[Letter, object]]) -> dict[str, Any]:
    return {"kinds": dict(Counter(f"{letter.agent}: {letter.kind}" for letter, _ in found))}


async def find(bus: Bus, place: Place) -> Letter:
    """The letter at a place. Raises `Refused` where there is none."""
    if place.topic not in _every():
        known = ", ".join(row.removeprefix(PREFIX) for row in _every())
        raise Refused(f"{place} is in no dead-letter topic; accepted: {known}", kind="usage", field="place")
    count = (await bus.partitions([place.topic]))[place.topic]
    if place.partition >= count:
        raise Refused(f"{place}: {place.topic} has partitions 0 to {count - 1}", kind="no-record", field="place")
    tp = (place.topic, place.partition)
    start = (await bus.starts_of([tp]))[tp]
    rows = await bus.read({tp: place.offset}) if place.offset >= start else []
    row = next((row for row in rows if row.offset == place.offset), None)
    if row is None:
        raise Refused(
            f"there is no committed record at {place}; `ratchet dlq list` names those that are", kind="no-record"
        )
    return Letter.of(row)


def rendered(value: bytes | None) -> tuple[str, str]:
    """A payload as (form, text): `json` indented, `text`, `base64` of what is no UTF-8, or `none`. Long ones are cut with a sign."""
    if value is None:
        return "none", ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "base64", _cut(base64.b64encode(value).decode())
    try:
        return "json", _cut(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return "text", _cut(text)


def _cut(text: str) -> str:
    return (
        text if len(text) <= LONGEST else f"{text[:LONGEST]}… (cut at {LONGEST:,} of {len(text):,} characters; --save)"
    )


async def show(screen: Screen, bus: Bus, place: Place, save: Path | None) -> int:
    """`show`: why, what it was, and what became of it."""
    letter = await find(bus, place)
    if save is not None:
        _save(save, letter.record.value)
    done = Settled(await bus.read(await bus.starts([COMMANDS]))).of(letter)
    form, text = rendered(letter.record.value)
    headers = [(name, value.decode("utf-8", "backslashreplace")) for name, value in letter.record.headers]
    row = row_of(letter, done) | {
        "headers": headers,
        "form": form,
        "value": text,
        "saved": None if save is None else str(save),
    }
    if screen.as_json:
        screen.json(row)
        return Exit.DONE
    screen.say(f"[bold]{clean(str(letter.place))}[/], of {clean(str(letter.record.place))}")
    screen.say(f"[red]{clean(letter.kind)}[/]: {clean(letter.message)}")
    screen.say(f"given up by {clean(letter.agent)} at {clean(letter.at)} after {letter.attempts} attempt(s)")
    screen.say(f"state: {'open' if done is None else clean(words(done))}" + _because(done))
    screen.say(f"key: {clean(str(row['key']))}" if letter.record.key is not None else "no key")
    screen.table("headers", ("name", "value"), headers)
    screen.say(f"[bold]value[/] ({form}, {len(letter.record.value or b''):,} bytes)")
    for line in text.split("\n"):
        screen.say(clean(line.replace("\t", "    ")))
    if save is not None:
        screen.say(f"the value, byte for byte, is in {clean(str(save))}")
    return Exit.DONE


def _because(done: LetterCommand | None) -> str:
    return f": {clean(done.reason)}" if done is not None and done.reason else ""


def _save(file: Path, value: bytes | None) -> None:
    """For its owner's eyes; nothing is overwritten."""
    try:
        file.touch(mode=0o600, exist_ok=False)
        file.write_bytes(value or b"")
    except OSError as fault:
        raise Refused(
            f"--save {file}: {fault.strerror}; accepted: a file that is not there yet", kind="usage"
        ) from fault


def edit_of(letter: Letter, value: Path | None, type_: str | None) -> Edit | None:
    """The edited copy that the options describe, None for the letter as it was. Raises `Refused`."""
    if value is None and type_ is None:
        return None
    ce_type = None
    if type_ is not None:
        ce_type = TYPE_PREFIX + type_.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX) + TYPE_SUFFIX
        payload_class(ce_type)
    if value is None:
        return Edit(letter.record.value or b"", ce_type)
    try:
        return Edit(value.read_bytes(), ce_type)
    except OSError as fault:
        raise Refused(f"--value {value}: {fault.strerror}", kind="usage", field="value") from fault


def _said(letter: Letter, by: str, reason: str) -> dict[str, Any]:
    return {**about(letter), "tenant": tenant_of(letter), "at_ms": CLOCK.now_ms(), "operator": by, "reason": reason}


def _command(model: type[Any], **said: Any) -> Any:
    """Raises `Refused` where a letter's headers say what no event of ours may."""
    try:
        return model.model_validate(said)
    except ValidationError as fault:
        field, message = first_errors(fault)[0]
        raise Refused(f"{field}: {message}", kind="usage", field=field) from None


async def send(
    screen: Screen,
    broker: Broker,
    bus: Bus,
    letter: Letter,
    by: By,
    vouch: Prove | None,
    *,
    edit: Edit | None,
    again: bool,
) -> int:
    """`send`: back to its topic, once, with the event that tells of it. `vouch` proves what goes back, `by.prove` the command."""
    by.check(tenant_of(letter))
    counts = await bus.partitions([letter.record.topic, COMMANDS])
    back = returned(
        letter,
        edit,
        partitions=counts[letter.record.topic],
        by=by.name,
        at_ms=CLOCK.now_ms(),
        prove=vouch,
    )
    said = _said(letter, by.name, by.reason) | {"sent_id": back.id, "edited": back.edited}
    _command(CommandResend, **said)
    await settle(
        broker,
        letter,
        lambda before: (
            back.sent,
            tell(_command(CommandResend, **said, again=before), letter.id, letter.place, counts[COMMANDS], by.prove),
        ),
        again=again,
    )
    to = f"{back.sent.topic}[{back.sent.partition}]"
    screen.line(
        {"sent": str(letter.place), "to": to, "id": back.id, "edited": back.edited},
        f"[green]sent back[/] {clean(str(letter.place))} to {clean(to)}{', edited' if back.edited else ''}, id {clean(back.id)}",
    )
    return Exit.DONE


async def discard(screen: Screen, broker: Broker, bus: Bus, letter: Letter, by: By, *, again: bool) -> int:
    """`discard`: settled, with a reason."""
    by.check(tenant_of(letter))
    count = (await bus.partitions([COMMANDS]))[COMMANDS]
    row = tell(_command(CommandDiscard, **_said(letter, by.name, by.reason)), letter.id, letter.place, count, by.prove)
    await settle(broker, letter, lambda _: (row,), again=again)
    screen.line(
        {"discarded": str(letter.place), "reason": by.reason},
        f"[green]discarded[/] {clean(str(letter.place))}: {short(by.reason)}; it stays in its topic until retention removes it",
    )
    return Exit.DONE


async def skip(screen: Screen, broker: Broker, bus: Bus, place: Place, agent: str, by: By) -> int:
    """`skip`: the record at which a lane halted becomes a dead letter."""
    who = agent_of(agent)
    by.check(None)
    count = (await bus.partitions([COMMANDS]))[COMMANDS]
    command = _command(
        CommandSkip, agent=agent, topic=place.topic, partition=place.partition, offset=place.offset, operator=by.name,
        reason=by.reason, at_ms=CLOCK.now_ms(),
    )  # fmt: skip
    await skip_record(
        broker,
        CLOCK,
        agent,
        who.inputs,
        place,
        fold=who.fold,
        reason=f"by {by.name}: {by.reason}",
        crashes=settings().state_dir / "runner",
        tell=(tell(command, f"{agent}/{place}", place, count, by.prove),),
    )
    screen.line(
        {"skipped": str(place), "agent": agent},
        f"[green]skipped[/] {clean(str(place))}: it is a dead letter now, and {agent} goes on behind it",
    )
    return Exit.DONE


# the commands -------------------------------------------------------------------------------------------------------------


async def run_list(screen: Screen, asked: Asked) -> int:
    if asked.agent is not None:
        agent_of(asked.agent)
    async with opened("operator") as (_, bus):
        return await listed(screen, bus, asked)


async def run_show(screen: Screen, text: str, save: Path | None) -> int:
    place = place_of(text)
    async with opened("operator") as (_, bus):
        return await show(screen, bus, place, save)


async def run_send(
    screen: Screen,
    text: str,
    *,
    by: str | None,
    sender: str | None,
    reason: str,
    value: Path | None,
    type_: str | None,
    again: bool,
) -> int:
    place, who = place_of(text), await speaking(by, reason)
    async with opened("repair") as (broker, bus):
        letter = await find(bus, place)
        edit = edit_of(letter, value, type_)
        vouch = await vouching(letter, edit.value if edit is not None else letter.record.value, sender)
        return await send(screen, broker, bus, letter, who, vouch, edit=edit, again=again)


async def run_discard(screen: Screen, text: str, *, by: str | None, reason: str, again: bool) -> int:
    place, who = place_of(text), await speaking(by, reason)
    async with opened("repair") as (broker, bus):
        return await discard(screen, broker, bus, await find(bus, place), who, again=again)


async def run_skip(screen: Screen, text: str, agent: str, *, by: str | None, reason: str) -> int:
    place, who = place_of(text), await speaking(by, reason)
    agent_of(agent)
    async with opened("repair") as (broker, bus):
        return await skip(screen, broker, bus, place, agent, who)
