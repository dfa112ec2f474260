"""`ratchet review`: what waits for a person, and the person's verdict. Never shows a score or which arm answered."""

import secrets
from typing import Any

from schemas import codec, ids
from schemas.errors import Refused
from schemas.events import ArmVerdict, ReviewRequested, VerdictGiven
from schemas.principal import Prove
from schemas.topics import BY_NAME
from tools.cli.bus import Bus, now_ms
from tools.cli.events import as_row, clock
from tools.cli.place import open_bus
from tools.cli.place import voice as voice_of
from tools.cli.screen import Exit, Screen, clean, short
from tools.voice import Voice, unproven

REVIEWS, VERDICTS = BY_NAME["reviews"], BY_NAME["verdicts"]


async def waiting(bus: Bus, route: str | None, now: int) -> list[ReviewRequested]:
    """Reviews that are neither settled, nor judged, nor past their time; oldest first."""
    found: dict[str, ReviewRequested] = {}
    gone: set[str] = set()
    for record in await bus.read(await bus.starts([REVIEWS.full, VERDICTS.full])):
        row = as_row(record)
        if row["type"] == ReviewRequested.TYPE:
            review = ReviewRequested.model_validate(row["data"])
            found[review.request_id] = review
        elif row["type"] in ("review.settled", VerdictGiven.TYPE):
            gone.add(row["key"])
    return [
        review
        for key, review in found.items()
        if key not in gone and review.due_ms > now and (route is None or review.route == route)
    ]


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


def verdict(
    review: ReviewRequested, *, by: str, approve: list[str], reject: list[str], correct: str | None, at_ms: int
) -> VerdictGiven:
    """The verdict event. Raises `Refused` where the letters are not those of the review or nothing is said."""
    labels = [answer.label for answer in review.answers]
    for label in (*approve, *reject):
        if label not in labels:
            raise Refused(f"answer {label!r}: this review shows {', '.join(labels)}", kind="usage", field="label")
    both = sorted(set(approve) & set(reject))
    if both:
        raise Refused(f"answer {both[0]!r} is approved and rejected at once", kind="usage", field="label")
    if not approve and not reject and not correct:
        raise Refused("say --approve LETTER, --reject LETTER or --correct TEXT", kind="usage")
    said = [("approve", label) for label in approve] + [("reject", label) for label in reject]
    return VerdictGiven(
        tenant=review.tenant,
        at_ms=at_ms,
        route=review.route,
        request_id=review.request_id,
        by=by,
        answers=tuple(
            ArmVerdict(label=label, decision="approve" if word == "approve" else "reject") for word, label in said
        ),
        corrected=correct,
    )


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
        reviews = await waiting(bus, route, now_ms())
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
        return await _prompt(screen, bus, reviews, voice)


def _show(screen: Screen, review: ReviewRequested) -> None:
    answers = "\n".join(f"  [bold]{clean(a.label)}[/] {clean(a.text.strip())}" for a in review.answers)
    asked = "\n".join(f"  [dim]{message.role}[/] {clean(message.content)}" for message in review.messages)
    head = f"[bold]{clean(review.request_id)}[/] [cyan]{clean(review.route)}[/] [dim]until {clock(review.due_ms)}[/]"
    screen.line(shown(review), f"{head}\n{asked}\n{answers}")


async def _prompt(screen: Screen, bus: Bus, reviews: list[ReviewRequested], voice: Voice) -> int:
    """One at a time. The answer's letter approves it (and rejects the others); end of input leaves."""
    for number, review in enumerate(reviews, 1):
        screen.say(f"\n[dim]{number} of {len(reviews)}[/]")
        _show(screen, review)
        labels = [answer.label for answer in review.answers]
        started = now_ms()
        while True:
            try:
                said = screen.out.input(f"{'/'.join(labels)} is right · n none · = TEXT correct · s skip · q quit > ")
            except EOFError:
                return Exit.DONE
            said = said.strip()
            if said == "q":
                return Exit.DONE
            if said == "s":
                break
            letter = said.upper()
            if letter in labels or said == "n" or said.startswith("="):
                correct = said[1:].strip() or None if said.startswith("=") else None
                right = [letter] if letter in labels else []
                wrong = [label for label in labels if label not in right] if correct is None else []
                if not (right or wrong or correct):
                    continue
                given = verdict(review, by=voice.name, approve=right, reject=wrong, correct=correct, at_ms=now_ms())
                seconds = (given.at_ms - started) / 1000
                await give(bus, given.model_copy(update={"seconds_spent": seconds}), voice.prove)
                break
            screen.say(f"[yellow]{short(said, 40)}?[/]")
    screen.say("nothing else waits for a person")
    return Exit.DONE
