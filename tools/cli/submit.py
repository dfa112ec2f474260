"""`ratchet submit`: requests to Kafka as they are given, and what became of each, line by line.

Rules:
1. What is JSON goes out as it is, but for `request_id`, `at_ms`, `tenant`, `route` where they are missing: the router
   does the refusing.
2. What is not JSON goes out raw under a key of our own, so that it is refused by name too.
3. Only what the broker cannot take (too large) is refused here.
4. Proofs are put on when a line is sent: they hold for minutes, a file may take longer.
5. An outcome belongs to the record that it names by partition and offset, not to an id: two lines may say the same id.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from schemas import ids
from schemas.codec import CONTENT_TYPE, Encoded, rfc3339
from schemas.errors import Refused
from schemas.events import RequestSubmitted
from schemas.principal import Prove
from schemas.topics import BY_NAME
from streams.shapes import Record
from tools.cli.bus import Bus, check_size, now_ms
from tools.cli.events import as_row
from tools.cli.place import open_bus
from tools.cli.place import voice as voice_of
from tools.cli.screen import Exit, Screen, clean, short
from tools.voice import unproven

REQUESTS = BY_NAME["requests"]
ANSWERS = BY_NAME["answers"]
CHUNK = 500
TERMINAL = ("answer.released", "answer.withheld", "answer.refused")


@dataclass
class Line:
    """One request on its way. `outcome` is "" until it is known."""

    number: int
    request_id: str
    event_id: str
    record: Encoded
    outcome: str = ""
    detail: str = ""
    text: str | None = None
    latency_ms: float | None = None
    row: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"line": self.number, "request_id": self.request_id, "outcome": self.outcome}
        if self.text is not None:
            found["text"] = self.text
        if self.detail:
            found["detail"] = self.detail
        if self.latency_ms is not None:
            found["latency_ms"] = round(self.latency_ms, 1)
        return found


@dataclass(frozen=True)
class Defaults:
    """What fills the gaps of a line."""

    route: str | None
    session: str | None
    subject: str | None
    tenant: str | None
    nonce: str
    at_ms: int


def prepare(number: int, raw: bytes, given: Defaults) -> Line:
    """The record of one line. Never refuses: see the rules."""
    fallback = f"{given.nonce}-{number}"
    try:
        value: object = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return _line(number, fallback, raw, given)
    payload = cast("dict[str, Any]", value)
    filled: dict[str, Any] = dict(payload)
    text = filled.get("text")
    if "messages" not in filled and isinstance(text, str):  # the shorthand {"text": "…"}
        filled["messages"] = [{"role": "user", "content": filled.pop("text")}]
    filled.setdefault("request_id", fallback)
    filled.setdefault("at_ms", given.at_ms)
    for name in ("route", "tenant", "session_id", "subject"):
        default = {"session_id": given.session}.get(name, getattr(given, name, None))
        if default is not None:
            filled.setdefault(name, default)
    request_id = filled["request_id"]
    key = request_id if isinstance(request_id, str) and _utf8(request_id) else fallback
    body = raw if filled == payload else json.dumps(filled, ensure_ascii=True, separators=(",", ":")).encode()
    return _line(number, key, body, given)


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(text) <= 1024


def _line(number: int, key: str, body: bytes, given: Defaults) -> Line:
    event_id = ids.derive(given.nonce, "cli", number)
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_type", RequestSubmitted.ce_type().encode()),
        ("ce_source", b"ratchet/cli"),
        ("ce_time", rfc3339(given.at_ms).encode()),
        ("content-type", CONTENT_TYPE),
        ("traceparent", ids.trace_parent(None, event_id).encode()),
    )
    return Line(number, key, event_id, Encoded(key.encode(), body, headers))


def read_lines(text: str | None, file: Path | None, given: Defaults) -> list[Line]:
    """The lines to send. Raises `Refused` where there is nothing to read."""
    if text is not None:
        body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
        return [prepare(1, body, given)]
    if file is None:
        raise Refused("nothing to submit: give TEXT or --file FILE.jsonl", kind="usage")
    try:
        raw = file.read_bytes()
    except OSError as fault:
        raise Refused(f"{file}: cannot be read: {fault.strerror}", kind="usage") from fault
    rows = [(n, row) for n, row in enumerate(raw.split(b"\n"), 1) if row.strip()]
    if not rows:
        raise Refused(f"{file}: holds no line; accepted: one JSON object a line", kind="usage")
    return [prepare(number, row.rstrip(b"\r"), given) for number, row in rows]


class Watch:
    """Joins what comes back with what was sent. Takes records in any order: what comes early is kept."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self._by_event = {line.event_id: line for line in lines}
        self._by_place: dict[tuple[int, int], Line] = {}
        self._early: dict[tuple[int, int], Record] = {}
        self._first_of: dict[tuple[str, bytes], Line] = {}
        for line in lines:
            self._first_of.setdefault((line.request_id, _content(line.record.value)), line)

    def open(self) -> list[Line]:
        """Lines without an outcome yet."""
        return [line for line in self.lines if not line.outcome]

    def take(self, record: Record) -> list[Line]:
        """The lines that the record decides."""
        row = as_row(record)
        if record.topic == REQUESTS.full:
            line = self._by_event.get(row["id"])
            if line is None:
                return []
            place = (record.partition, record.offset)
            self._by_place[place] = line
            early = self._early.pop(place, None)
            return self.take(early) if early is not None else []
        data: dict[str, Any] = row["data"] or {}
        if record.topic == REQUESTS.dlq:
            letter = row["dead_letter"]
            place = (int(letter["partition"] or -1), int(letter["offset"] or -1))
            return self._decide(place, record, "dead-letter", f"{letter['kind']}: {letter['message']}", row)
        if row["type"] not in TERMINAL:
            return []
        place = (int(data.get("request_partition", -1)), int(data.get("request_offset", -1)))
        outcome = row["type"].removeprefix("answer.")
        if outcome == "refused":
            detail = f"{data.get('field') or 'value'}: {data.get('reason')}; accepted: {data.get('accepted')}"
        else:
            detail = " ".join(str(data[name]) for name in ("reason", "detail") if data.get(name))
        return self._decide(place, record, outcome, detail, row)

    def _decide(
        self, place: tuple[int, int], record: Record, outcome: str, detail: str, row: dict[str, Any]
    ) -> list[Line]:
        line = self._by_place.get(place)
        if line is None:
            self._early[place] = record
            return []
        if line.outcome:
            return []
        data: dict[str, Any] = row["data"] or {}
        line.outcome, line.detail, line.row = outcome, detail, row
        if outcome == "released":
            line.text, line.latency_ms = str(data.get("text", "")), data.get("latency_ms")
        return [line, *self._repeats(line)]

    def _repeats(self, line: Line) -> list[Line]:
        """Later lines that say the same again: the router drops them, the first one's outcome is theirs."""
        key = (line.request_id, _content(line.record.value))
        if self._first_of[key] is not line:
            return []
        found = [
            other
            for other in self.lines
            if other is not line and not other.outcome and (other.request_id, _content(other.record.value)) == key
        ]
        for other in found:
            other.outcome, other.detail = "repeat", f"the same request as line {line.number}, answered there"
        return found


def _content(value: bytes) -> bytes:
    return value.strip()


async def submit(screen: Screen, lines: list[Line], *, wait_s: float, bus: Bus, prove: Prove = unproven) -> int:
    """Send and wait. Exit 1 where a request was refused or withheld, 3 where an answer did not come in time."""
    watch = Watch(lines)
    sendable: list[Line] = []
    for line in lines:
        try:
            check_size(REQUESTS.full, prove(line.record))
            sendable.append(line)
        except Refused as fault:
            line.outcome, line.detail = "refused", f"{fault.field}: {fault}"
            show(screen, line)
    positions = await bus.ends([REQUESTS.full, REQUESTS.dlq, ANSWERS.full])
    followed = bus.follow(positions)
    loop = asyncio.get_running_loop()
    with screen.progress(f"{len(lines)} requests") as progress:
        sending = asyncio.create_task(_send(bus, sendable, prove))
        try:
            deadline = loop.time() + wait_s
            while watch.open() if wait_s > 0 else not sending.done():
                record = await anext(followed)
                if sending.done():
                    sending.result()
                if record is not None:
                    for line in watch.take(record):
                        show(screen, line)
                        deadline = max(deadline, loop.time() + min(wait_s, 5.0))
                else:
                    progress.say(f"{len(lines) - len(watch.open())} of {len(lines)} requests have their outcome")
                    if loop.time() > deadline:
                        break
            await sending
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(sending, return_exceptions=True)
            await followed.aclose()
    for line in watch.open():
        line.outcome = "waiting" if wait_s > 0 else "sent"
        line.detail = (
            f"no answer within {wait_s:g} s: `ratchet trace {line.request_id}` says where it is" if wait_s > 0 else ""
        )
        show(screen, line)
    return _sum_up(screen, lines)


async def _send(bus: Bus, lines: Sequence[Line], prove: Prove) -> None:
    for at in range(0, len(lines), CHUNK):
        await bus.publish((REQUESTS.full, prove(line.record)) for line in lines[at : at + CHUNK])


COLOURS = {"released": "green", "refused": "red", "dead-letter": "red", "withheld": "yellow", "waiting": "yellow"}


def show(screen: Screen, line: Line) -> None:
    """What became of a line. An answer may be cut, what to do about a refusal may not."""
    colour = COLOURS.get(line.outcome, "dim")
    said = short(line.text.strip(), 120) if line.text is not None else clean(line.detail)
    took = f" [dim]{line.latency_ms:.0f} ms[/]" if line.latency_ms is not None else ""
    name = short(line.request_id, 40)
    screen.line(line.as_json(), f"{line.number:>5} [dim]{name}[/] [{colour}]{line.outcome:<11}[/] {said}{took}")


def _sum_up(screen: Screen, lines: Sequence[Line]) -> int:
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.outcome] = counts.get(line.outcome, 0) + 1
    took = sorted(line.latency_ms for line in lines if line.latency_ms is not None)
    summary: dict[str, Any] = {"requests": len(lines), **dict(sorted(counts.items()))}
    if took:
        summary["p50_ms"] = round(took[len(took) // 2], 1)
        summary["p95_ms"] = round(took[min(len(took) - 1, int(len(took) * 0.95))], 1)
    words = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    pace = f"; p50 {summary['p50_ms']:.0f} ms, p95 {summary['p95_ms']:.0f} ms" if took else ""
    screen.line(
        {"summary": summary}, f"[bold]{len(lines)} request{'s' if len(lines) != 1 else ''}[/]: {clean(words)}{pace}"
    )
    if any(counts.get(name) for name in ("refused", "dead-letter", "withheld")):
        return Exit.NO
    return Exit.AWAY if counts.get("waiting") else Exit.DONE


async def run(
    screen: Screen,
    text: str | None,
    file: Path | None,
    *,
    route: str | None,
    session: str | None,
    subject: str | None,
    tenant: str | None,
    wait_s: float,
    by: str | None,
) -> int:
    """The command."""
    given = Defaults(route, session, subject, tenant, f"cli-{secrets.token_hex(5)}", now_ms())
    lines = read_lines(text, file, given)
    voice = await voice_of("upstream", by)
    async with open_bus(user="upstream") as bus:
        return await submit(screen, lines, wait_s=wait_s, bus=bus, prove=voice.prove)
