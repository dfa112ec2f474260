"""`ratchet review`: what waits for a person, and the person's verdict. Never shows a score or which arm answered."""

import secrets
from collections.abc import Iterable
from typing import Any

from schemas import codec, ids
from schemas.errors import Refused
from schemas.events import ReviewRequested, VerdictGiven
from schemas.principal import Prove
from schemas.topics import BY_NAME
from tools.cli.bus import Bus, now_ms
from tools.cli.events import as_row, clock
from tools.cli.keyboard import open_keyboard
from tools.cli.place import open_bus
from tools.cli.place import voice as voice_of
from tools.cli.review_desk import Desk, verdict
from tools.cli.screen import Exit, Screen, clean
from tools.voice import Voice, unproven

REVIEWS, VERDICTS = BY_NAME["reviews"], BY_NAME["verdicts"]


async def waiting(bus: Bus, route: str | None, now: int, by: str | None = None) -> list[ReviewRequested]:
    """Reviews that wait for `by`, whoever that is; oldest first."""
    rows = [as_row(record) for record in await bus.read(await bus.starts([REVIEWS.full, VERDICTS.full]))]
    found = for_person(rows, now, by)
    return [review for review in found if route is None or review.route == route]


def for_person(rows: Iterable[dict[str, Any]], now: int, by: str | None) -> list[ReviewRequested]:
    """Of the records of reviews and verdicts, the reviews that people are asked about and that are not past their time.

    Once somebody has judged, it is settled or a reference has said what is right, a review waits for nobody. Where a second person
    is wanted it then waits for whoever is not the first, until two have judged. What a judge model says ends no wait.
    """
    found: dict[str, ReviewRequested] = {}
    settled: set[str] = set()
    known: set[str] = set()
    people: dict[str, set[str]] = {}
    for row in rows:
        said: dict[str, Any] = row["data"] or {}
        if row["type"] == ReviewRequested.TYPE:
            review = ReviewRequested.model_validate(said)
            found[review.request_id] = review
        elif row["type"] == "review.settled":
            settled.add(row["key"])
        elif row["type"] == VerdictGiven.TYPE and said.get("kind", "person") == "person":
            people.setdefault(row["key"], set()).add(str(said.get("by")))
        elif row["type"] == VerdictGiven.TYPE and said.get("kind") == "reference":
            known.add(row["key"])

    def waits(review: ReviewRequested) -> bool:
        judged = people.get(review.request_id, set())
        if not review.people or review.due_ms <= now or review.request_id in known:
            return False
        if not judged:
            return review.request_id not in settled
        return review.double and len(judged) == 1 and by is not None and by not in judged

    return [review for review in found.values() if waits(review)]


def shown(review: ReviewRequested) -> dict[str, Any]:
    """What a person may see."""
    return {
        "request_id": review.request_id,
        "route": review.route,
        "due_ms": review.due_ms,
        "waits": review.gated,
        "messages": [message.model_dump() for message in review.messages],
        "answers": [{"label": answer.label, "text": answer.text} for answer in review.answers],
    }


async def give(bus: Bus, given: VerdictGiven, prove: Prove = unproven) -> None:
    """Publish the verdict."""
    event_id = ids.derive(f"{given.by}/{given.request_id}/{given.at_ms}/{secrets.token_hex(4)}", "cli", "verdict")
    trace = ids.trace_parent(None, event_id)
    record = codec.encode(given, event_id=event_id, source="ratchet/cli", traceparent=trace)
    await bus.publish([(VERDICTS.full, prove(record))])


async def run(
    screen: Screen,
    *,
    route: str | None,
    by: str | None,
    listed: bool,
    request: str | None,
    approve: list[str],
    reject: list[str],
    correct: str | None,
) -> int:
    """The command: a list, one verdict, or one after the other on a terminal."""
    if request is None and (approve or reject or correct):
        raise Refused("say which: --request ID", kind="usage")
    voice = await voice_of("reviewer", by)
    async with open_bus(user="reviewer") as bus:
        reviews = await waiting(bus, route, now_ms(), voice.name)
        if request is not None:
            review = next((row for row in reviews if row.request_id == request), None)
            if review is None:
                screen.line(
                    {"request_id": request, "waiting": False},
                    f"no answer of request {clean(request)} waits for a person: `ratchet trace {clean(request)}`",
                )
                return Exit.NO
            if not (approve or reject or correct):
                _show(screen, review)
                return Exit.DONE
            given = verdict(review, by=voice.name, approve=approve, reject=reject, correct=correct, at_ms=now_ms())
            await give(bus, given, voice.prove)
            screen.line({"request_id": request, "given": given.model_dump()}, f"[green]noted[/] for {clean(request)}")
            return Exit.DONE
        if listed or screen.as_json or not screen.out.is_terminal:
            for review in reviews:
                _show(screen, review)
            screen.say(f"{len(reviews)} wait{'s' if len(reviews) == 1 else ''} for a person")
            return Exit.DONE
        return await sit(screen, bus, reviews, voice)


async def sit(screen: Screen, bus: Bus, reviews: list[ReviewRequested], voice: Voice) -> int:
    """One at a time, by keys."""

    async def send(given: VerdictGiven) -> None:
        await give(bus, given, voice.prove)

    with open_keyboard() as keyboard:
        desk = Desk(screen, keyboard, voice.name, lambda review: _show(screen, review), send, now_ms)
        return await desk.sit(reviews)


def _show(screen: Screen, review: ReviewRequested) -> None:
    answers = "\n".join(f"  [bold]{clean(a.label)}[/] {clean(a.text.strip())}" for a in review.answers)
    asked = "\n".join(f"  [dim]{message.role}[/] {clean(message.content)}" for message in review.messages)
    head = f"[bold]{clean(review.request_id)}[/] [cyan]{clean(review.route)}[/] [dim]until {clock(review.due_ms)}[/]"
    screen.line(shown(review), f"{head}\n{asked}\n{answers}")
