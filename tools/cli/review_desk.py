"""One review after the other, answered by keys. A verdict is held until the next one is given, so that it can be taken back.

Leaving (`q`, end of input) sends what is held; Ctrl-C drops it. Nothing here knows a score or an arm.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from schemas.errors import Refused
from schemas.events import ArmVerdict, ReviewRequested, VerdictGiven
from tools.cli.keyboard import END, Keyboard
from tools.cli.screen import Exit, Screen, clean, short

KEYS = "* n = r s u q ?"
Send = Callable[[VerdictGiven], Awaitable[None]]
WORDS = {
    "A": "that answer is right, the others are not",
    "*": "all answers are right",
    "n": "no answer is right",
    "=": "type the right answer; placeholders as shown, [EMAIL_1], may stand in it",
    "r": "rate: a number from 0 to 1 for each answer, in their order",
    "s": "skip, it comes again at the end",
    "u": "take back the last verdict",
    "q": "send what was said, and leave (Ctrl-C leaves without the last verdict)",
    "?": "this",
}


class Said(TypedDict, total=False):
    """What a person said of the answers under their letters."""

    approve: Sequence[str]
    reject: Sequence[str]
    correct: str
    ratings: Sequence[float]


def verdict(
    review: ReviewRequested,
    *,
    by: str,
    at_ms: int,
    approve: Sequence[str] = (),
    reject: Sequence[str] = (),
    correct: str | None = None,
    ratings: Sequence[float] = (),
) -> VerdictGiven:
    """The verdict event. Raises `Refused` where the letters are not those of the review or nothing is said."""
    labels = [answer.label for answer in review.answers]
    for label in (*approve, *reject):
        if label not in labels:
            raise Refused(f"answer {label!r}: this review shows {', '.join(labels)}", kind="usage", field="label")
    both = sorted(set(approve) & set(reject))
    if both:
        raise Refused(f"answer {both[0]!r} is approved and rejected at once", kind="usage", field="label")
    if not approve and not reject and not correct and not ratings:
        raise Refused("say --approve LETTER, --reject LETTER or --correct TEXT", kind="usage")
    said = tuple(ArmVerdict(label=label, decision="approve") for label in approve)
    said += tuple(ArmVerdict(label=label, decision="reject") for label in reject)
    said += tuple(ArmVerdict(label=label, rating=value) for label, value in zip(labels, ratings, strict=False))
    return VerdictGiven(
        tenant=review.tenant,
        at_ms=at_ms,
        route=review.route,
        request_id=review.request_id,
        by=by,
        answers=said,
        corrected=correct,
        subject=review.subject,
    )


def ratings_of(text: str, answers: int) -> tuple[float, ...]:
    """`0.8 0.3` as ratings. Raises `Refused` that says what would be taken."""
    words = text.replace(",", " ").split()
    try:
        found = tuple(float(word) for word in words)
    except ValueError:
        found = ()
    if len(found) != answers or not all(0 <= value <= 1 for value in found):
        raise Refused(f"{text[:40]!r}: accepted: {answers} number(s) from 0 to 1", kind="usage", field="rating")
    return found


def left(ms: int) -> str:
    """A time as a person says it: `3 min`, `2 h 5 min`."""
    seconds = max(0, ms // 1000)
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(slots=True)
class Desk:
    """What lies before one person. `show` puts a review on the screen, `send` publishes a verdict."""

    screen: Screen
    keyboard: Keyboard
    by: str
    show: Callable[[ReviewRequested], None]
    send: Send
    now_ms: Callable[[], int]
    queue: deque[ReviewRequested] = field(default_factory=deque[ReviewRequested])
    held: tuple[ReviewRequested, VerdictGiven] | None = None
    sent: int = 0
    note: str = ""

    async def sit(self, reviews: Sequence[ReviewRequested]) -> int:
        """Until nothing waits, or the person leaves."""
        self.queue.extend(reviews)
        try:
            while await self._one():
                pass
        except asyncio.CancelledError:
            if self.held is not None:
                self.screen.say(f"the verdict for {clean(self.held[0].request_id)} was not sent")
            raise
        await self._send_held()
        self.screen.say(f"{self.sent} verdict{'' if self.sent == 1 else 's'} sent; {len(self.queue)} left")
        return Exit.DONE

    async def _one(self) -> bool:
        """One review until it is answered, skipped or put back; False once the person leaves."""
        now = self.now_ms()
        overdue = [review for review in self.queue if review.due_ms <= now]
        for review in overdue:
            self.queue.remove(review)
            self.note += f"{clean(review.request_id)} ran out of time. "
        if not self.queue:
            return await self._done()
        review = self.queue[0]
        if self.keyboard.alive:
            self.screen.out.clear()
        waits = len(self.queue)
        self.screen.say(f"[dim]{waits} left · {left(review.due_ms - now)} for this one[/]  {self.note}")
        self.note = ""
        self.show(review)
        return await self._answered(review, now)

    async def _answered(self, review: ReviewRequested, began_ms: int) -> bool:
        """Keys until one ends this review's turn."""
        while True:
            key = await self._key("/".join(answer.label for answer in review.answers) + f" {KEYS}")
            if key in (END, "q"):
                return False
            if key.isspace():
                continue
            if key == "s":
                self.queue.rotate(-1)
                self.note = "this one alone is left. " if len(self.queue) == 1 else ""
                return True
            if key == "u":
                if self._taken_back():
                    return True
                self.screen.say("nothing to take back")
            elif key == "?":
                self._help()
            else:
                given = await self._said(review, key)
                if given is not None:
                    await self._hold(review, given, began_ms)
                    return True

    async def _said(self, review: ReviewRequested, key: str) -> VerdictGiven | None:
        """The verdict that a key gives; None, with a word, where it gives none."""
        try:
            said = await self._meant(review, key)
            return verdict(review, by=self.by, at_ms=self.now_ms(), **said)
        except Refused as fault:
            self.screen.say(f"[yellow]{short(str(fault), 120)}[/]")
            return None

    async def _meant(self, review: ReviewRequested, key: str) -> Said:
        """What a key, or the line that it asks for, says of the answers. Raises `Refused` that says what would be taken."""
        labels = [answer.label for answer in review.answers]
        rest = key[1:].strip()
        if key in labels or (key.upper() in labels and key not in WORDS):
            return {"approve": [key.upper()], "reject": [label for label in labels if label != key.upper()]}
        if key == "*":
            return {"approve": labels}
        if key == "n":
            return {"reject": labels}
        if key.startswith("="):
            correct = rest or await self._asked("the right answer: ")
            if not correct:
                raise Refused("nothing was typed", kind="usage")
            return {"correct": correct}
        if key.startswith("r"):
            asked = f"{len(labels)} number{'' if len(labels) == 1 else 's'} from 0 to 1: "
            return {"ratings": ratings_of(rest or await self._asked(asked), len(labels))}
        raise Refused(f"{key!r}: accepted: {'/'.join(labels)} {KEYS}", kind="usage")

    async def _asked(self, words: str) -> str:
        if self.keyboard.alive:
            self.screen.out.print(words, end="")
        return await self.keyboard.line()

    async def _hold(self, review: ReviewRequested, given: VerdictGiven, began_ms: int) -> None:
        """Keep this verdict, and let the one before go out."""
        await self._send_held()
        seconds = max(0, given.at_ms - began_ms) / 1000
        self.held = review, given.model_copy(update={"seconds_spent": seconds})
        self.queue.remove(review)
        self.note = f"[green]noted[/] for {clean(review.request_id)}; u takes it back. "

    async def _send_held(self) -> None:
        if self.held is not None:
            _, given = self.held
            await self.send(given)
            self.held = None
            self.sent += 1

    def _taken_back(self) -> bool:
        if self.held is None:
            return False
        review, _ = self.held
        self.queue.appendleft(review)
        self.held = None
        self.note = "taken back. "
        return True

    async def _done(self) -> bool:
        """Nothing waits: the last verdict may still be taken back."""
        self.screen.say(f"{self.note}nothing else waits for a person")
        self.note = ""
        if self.held is None:
            return False
        return await self._key("u takes the last verdict back, any other key sends it") == "u" and self._taken_back()

    def _help(self) -> None:
        for key, words in WORDS.items():
            self.screen.say(f"  {key}  {words}")

    async def _key(self, words: str) -> str:
        """The next key, after words that say which there are."""
        if not self.keyboard.alive:
            return await self.keyboard.key()
        self.screen.out.print(f"[bold]{clean(words)}[/] > ", end="")
        key = await self.keyboard.key()
        self.screen.out.print()
        return key
