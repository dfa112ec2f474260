"""`ratchet review`: who is shown what, keys on a real pseudo-terminal and lines from a pipe, undo, and what leaving does."""

import asyncio
import contextlib
import io
import os
import pty
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from rich.console import Console

from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.events import BlindAnswer, Message, ReviewRequested, ReviewSettled, VerdictGiven
from schemas.payload import Payload
from streams.memory import MemoryBroker
from streams.wire import decode
from tools.cli.bus import Bus
from tools.cli.keyboard import END, Lines, open_terminal
from tools.cli.review import give, shown, waiting
from tools.cli.review_desk import Desk, left, ratings_of
from tools.cli.screen import Screen

NOW = SystemClock().now_ms()


def review(name: str, *texts: str, **more: Any) -> ReviewRequested:
    return ReviewRequested.model_validate(
        {
            "at_ms": NOW, "route": "bank", "request_id": name, "request_partition": 0, "request_offset": 0,
            "messages": (Message(role="user", content=f"question {name}"),), "grader": "verdict", "gated": True,
            "answers": [BlindAnswer(label=chr(65 + n), text=text) for n, text in enumerate(texts or ("one", "two"))],
            "due_ms": NOW + 3_600_000,
        } | more
    )  # fmt: skip


def judged(name: str, by: str, kind: str = "person") -> VerdictGiven:
    return VerdictGiven.model_validate(
        {"at_ms": NOW, "route": "bank", "request_id": name, "by": by, "kind": kind, "corrected": "x"}
    )


def settled(name: str) -> ReviewSettled:
    return ReviewSettled.model_validate(
        {
            "at_ms": NOW, "route": "bank", "request_id": name, "request_partition": 0, "request_offset": 0,
            "outcome": "released", "reason": "approved", "text": "one",
        }
    )  # fmt: skip


async def waits(by: str | None, *events: Payload) -> list[str]:
    """The ids of what waits for that person, after these events."""
    broker = MemoryBroker(2, clock=SystemClock())
    for event in events:
        broker.publish(event)
    async with Bus(broker, "memory") as bus:
        return [row.request_id for row in await waiting(bus, None, NOW, by)]


# who is shown what


@pytest.mark.parametrize(
    ("events", "for_ann", "for_bob"),
    [
        ((), True, True),
        ((judged("q", "ann"),), False, False),
        ((settled("q"),), False, False),
        ((judged("q", "model.judge", "model"),), True, True),
    ],
    ids=["new", "judged", "settled", "by a model"],
)
async def test_a_review_waits_until_a_person_has_judged(
    events: tuple[Payload, ...], for_ann: bool, for_bob: bool
) -> None:
    """Whoever it is; what a judge model says takes nothing off a person's list."""
    assert bool(await waits("ann", review("q"), *events)) == for_ann
    assert bool(await waits("bob", review("q"), *events)) == for_bob


@pytest.mark.parametrize(
    ("events", "for_ann", "for_bob"),
    [
        ((), True, True),
        ((judged("q", "ann"),), False, True),
        ((judged("q", "ann"), settled("q")), False, True),
        ((judged("q", "ann"), judged("q", "bob")), False, False),
        ((judged("q", "ann"), judged("q", "cid")), False, False),
        ((judged("q", "ann"), judged("q", "system", "reference")), False, False),
        ((settled("q"),), False, False),
    ],
    ids=[
        "new",
        "judged once",
        "and settled",
        "twice",
        "twice by others",
        "a reference knows",
        "settled without a person",
    ],
)
async def test_a_double_label_waits_for_another_person(
    events: tuple[Payload, ...], for_ann: bool, for_bob: bool
) -> None:
    """After the first verdict it waits for somebody else, once, whether or not it was settled by the first."""
    wanted = review("q", double=True)
    assert bool(await waits("ann", wanted, *events)) == for_ann
    assert bool(await waits("bob", wanted, *events)) == for_bob
    assert (await waits(None, wanted, *events) == ["q"]) == (for_ann and for_bob)


async def test_what_only_a_model_is_asked_and_what_is_late_waits_for_nobody() -> None:
    """People are not shown what the coin did not give them, nor what nobody waits for any more."""
    assert await waits("ann", review("q", people=False), review("r", due_ms=NOW), review("s")) == ["s"]


def test_nothing_shown_tells_score_arm_or_that_it_is_a_second_label() -> None:
    """A person sees the conversation and the answers under letters."""
    assert set(shown(review("q", double=True))) == {"request_id", "route", "due_ms", "waits", "messages", "answers"}


# the desk


class Watched:
    """A screen whose words are kept, what was sent, and a clock that stands still."""

    def __init__(self, *, terminal: bool) -> None:
        self.words = io.StringIO()
        self.screen = Screen(as_json=False)
        self.screen.out = Console(file=self.words, width=160, force_terminal=terminal, color_system=None)
        self.sent: list[VerdictGiven] = []
        self.at_ms = NOW

    async def send(self, given: VerdictGiven) -> None:
        self.sent.append(given)

    def desk(self, keyboard: Any) -> Desk:
        return Desk(self.screen, keyboard, "ann", self.show, self.send, lambda: self.at_ms)

    def show(self, wanted: ReviewRequested) -> None:
        self.screen.say(f"<{wanted.request_id}>")

    def told(self) -> list[tuple[str, str]]:
        """Request and what was said of it, in short."""
        return [(row.request_id, row.corrected or _letters(row)) for row in self.sent]


def _letters(row: VerdictGiven) -> str:
    words = {"approve": "+", "reject": "-", None: ""}
    return " ".join(
        f"{words[said.decision]}{said.label}{'' if said.rating is None else said.rating}" for said in row.answers
    )


class Person:
    """Who sits at the other end of a pseudo-terminal."""

    def __init__(self, watched: Watched, master: int, task: "asyncio.Task[int]") -> None:
        self.watched, self.master, self.task = watched, master, task

    async def sees(self, words: str) -> None:
        """Wait until that is on the screen."""
        for _ in range(400):
            if words in self.watched.words.getvalue():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{words!r} is not in {self.watched.words.getvalue()!r}")

    async def types(self, keys: str, then: str) -> None:
        """Type, and wait for what follows on a screen that was wiped."""
        self.watched.words.seek(0)
        self.watched.words.truncate()
        os.write(self.master, keys.encode())
        await self.sees(then)


@asynccontextmanager
async def at_a_terminal(*reviews: ReviewRequested) -> AsyncIterator[Person]:
    """A person before these reviews, at a real pseudo-terminal; afterwards it is as it was."""
    watched, (master, slave) = Watched(terminal=True), pty.openpty()
    before = termios.tcgetattr(slave)
    with open_terminal(slave) as terminal:
        task = asyncio.create_task(watched.desk(terminal).sit(reviews))
        try:
            yield Person(watched, master, task)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


async def test_single_keys_answer_one_after_the_other() -> None:
    """A letter approves it and rejects the others, n rejects all, * approves all, without Enter; each is sent with the next."""
    async with at_a_terminal(review("a"), review("b"), review("c")) as person:
        await person.sees("<a>")
        await person.types("b", "<b>")
        assert person.watched.told() == [], "held until the next"
        await person.types("n", "<c>")
        assert person.watched.told() == [("a", "+B -A")]
        await person.types("*", "nothing else waits")
        os.write(person.master, b" ")
        assert await person.task == 0
        assert person.watched.told() == [("a", "+B -A"), ("b", "-A -B"), ("c", "+A +B")]
        assert "3 verdicts sent; 0 left" in person.watched.words.getvalue()


async def test_the_right_text_and_ratings_are_typed_as_lines() -> None:
    """With the terminal's own editing, and the keys come single again afterwards."""
    async with at_a_terminal(review("a"), review("b")) as person:
        await person.sees("<a>")
        await person.types("=", "the right answer: ")
        await person.types("thirdd\x7f öl\n", "<b>")
        await person.types("r", "numbers from 0 to 1")
        await person.types("0.5 2\n", "accepted: 2 number")
        await person.types("r", "numbers from 0 to 1")
        await person.types("0.5, 1\n", "nothing else waits")
        os.write(person.master, b"q")
        await person.task
        assert person.watched.told() == [("a", "third öl"), ("b", "A0.5 B1.0")]


async def test_undo_takes_the_last_verdict_back_before_it_is_sent() -> None:
    """Its review comes again at once; also the very last one, before leaving. What was sent is not to be taken back."""
    async with at_a_terminal(review("a"), review("b")) as person:
        await person.sees("<a>")
        await person.types("u", "nothing to take back")
        await person.types("a", "<b>")
        await person.types("u", "<a>")
        await person.types("n", "<b>")
        await person.types("a", "nothing else waits")
        await person.types("u", "<b>")
        await person.types("b", "nothing else waits")
        os.write(person.master, b"\n")
        await person.task
        assert person.watched.told() == [("a", "-A -B"), ("b", "+B -A")]


async def test_what_was_skipped_comes_at_the_end() -> None:
    """It is not lost, and the last one left is said to be."""
    async with at_a_terminal(review("a"), review("b")) as person:
        await person.sees("<a>")
        await person.types("s", "<b>")
        await person.types("a", "<a>")
        await person.types("s", "this one alone is left")
        await person.types("q", "1 verdict sent; 1 left")
        assert person.watched.told() == [("b", "+A -B")]


async def test_help_and_unknown_keys_change_nothing() -> None:
    """An arrow, a letter that is not shown, Enter: told what would be accepted, and the review stays."""
    async with at_a_terminal(review("a")) as person:
        await person.sees("<a>")
        await person.types("?", "take back the last verdict")
        await person.types("\x1b[A", "accepted: A/B")
        await person.types("z", "'z': accepted: A/B")
        await person.types("\n", "A/B")
        await person.types("q", "0 verdicts sent; 1 left")
        assert await person.task == 0


@pytest.mark.parametrize(("keys", "sent"), [("q", 1), ("\x04", 1), (None, 0)], ids=["q", "end of input", "Ctrl-C"])
async def test_leaving_sends_what_is_held_and_an_interrupt_drops_it(keys: str | None, sent: int) -> None:
    """And says so."""
    async with at_a_terminal(review("a"), review("b")) as person:
        await person.sees("<a>")
        await person.types("a", "<b>")
        if keys is None:
            person.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await person.task
            assert "the verdict for a was not sent" in person.watched.words.getvalue()
        else:
            await person.types(keys, "1 verdict sent; 1 left")
        assert len(person.watched.sent) == sent


async def test_a_review_whose_time_runs_out_leaves_the_desk() -> None:
    """It is said, and its verdict is not asked for."""
    async with at_a_terminal(review("a"), review("b", due_ms=NOW + 5_000), review("c")) as person:
        await person.sees("60 min for this one")
        person.watched.at_ms += 10_000
        await person.types("a", "b ran out of time")
        await person.sees("<c>")
        assert person.watched.sent == []
        os.write(person.master, b"q")
        await person.task
        assert person.watched.sent[0].seconds_spent == 10.0


async def test_lines_from_a_pipe_do_the_same() -> None:
    """One answer a line; the end of the input sends the last."""
    watched = Watched(terminal=False)
    typed = io.StringIO("a\n\n= the right one\nu\n=the right text\nr 1 0\n")
    await watched.desk(Lines(typed)).sit([review("a"), review("b"), review("c"), review("d")])
    assert watched.told() == [("a", "+A -B"), ("b", "the right text"), ("c", "A1.0 B0.0")]
    assert "3 verdicts sent; 1 left" in watched.words.getvalue()


async def test_a_file_that_has_ended_gives_the_end() -> None:
    """And again, however often it is asked."""
    lines = Lines(io.StringIO(""))
    assert [await lines.key(), await lines.key(), await lines.line()] == [END, END, ""]


@pytest.mark.parametrize("text", ["", "1", "1 2", "a b", "1 -0.1", "nan 1", "0 0 0"])
def test_ratings_out_of_range_or_of_another_count_are_refused(text: str) -> None:
    """The number of answers and the range are said."""
    with pytest.raises(Refused, match=r"accepted: 2 number\(s\) from 0 to 1"):
        ratings_of(text, 2)


def test_time_left_is_said_as_people_do() -> None:
    """Seconds, minutes, hours."""
    assert [left(ms) for ms in (-5, 61_000, 600_000, 7_500_000)] == ["0 s", "61 s", "10 min", "2 h 5 min"]


async def test_what_the_desk_sends_is_a_verdict_of_this_person() -> None:
    """It lies on the verdicts' topic, under the request's id, where agents accept it."""
    async with Bus(MemoryBroker(2, clock=SystemClock()), "memory") as bus:

        async def send(given: VerdictGiven) -> None:
            await give(bus, given)

        watched = Watched(terminal=False)
        desk = Desk(watched.screen, Lines(io.StringIO("B\n")), "ann", watched.show, send, lambda: NOW)
        await desk.sit([review("q")])
        [record] = await bus.read(await bus.starts(["ratchet.verdicts"]))
    given = decode(record, 2).data
    assert isinstance(given, VerdictGiven)
    assert (given.by, given.request_id, given.kind, _letters(given)) == ("ann", "q", "person", "+B -A")
