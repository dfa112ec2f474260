"""The shell of the gate: detectors by a clock, closed when in doubt, silent about texts."""

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from gates import finding

from agents import screen as module
from agents.screen import AT_ONCE, Screen
from infra.detect import detect, named
from schemas.findings import Finding, Kind

CANARY = "4111 1111 1111 1111"
LIMITS: dict[str, Any] = {"most_characters": 200_000, "budget_us": 20_000}


class Steps:
    """A clock that each reading moves on."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


async def test_findings_of_each_text_in_their_order() -> None:
    """One tuple of findings a text, the characters of all."""
    gave = await Screen(detect, Steps()).scan(["clean", f"card {CANARY}"], **LIMITS)
    assert [[one.kind for one in row] for row in gave.findings] == [[], [Kind.CARD]]
    assert (gave.characters, gave.spent_us, gave.failed) == (29, 0, False)


async def test_no_text_is_a_whole_scan() -> None:
    """Nothing to scan is nothing found."""
    gave = await Screen(detect, Steps()).scan([], **LIMITS)
    assert (gave.findings, gave.characters, gave.failed) == ((), 0, False)


async def test_too_long_is_not_scanned() -> None:
    """What is longer than it may be meets no detector; its length is said."""
    met: list[str] = []

    def meets(text: str) -> Sequence[Finding]:
        met.append(text)
        return ()

    gave = await Screen(meets, Steps()).scan(["a" * 6, "b" * 5], most_characters=10, budget_us=20_000)
    assert met == []
    assert (gave.characters, gave.failed, gave.findings) == (11, False, ((), ()))


@pytest.mark.parametrize("length", [10, AT_ONCE + 1])
async def test_a_detector_that_raises_fails_the_scan(length: int, caplog: pytest.LogCaptureFixture) -> None:
    """Failed, no finding of any text, and neither the text nor the exception's words are logged."""

    def breaks(text: str) -> Sequence[Finding]:
        if CANARY in text:
            raise RuntimeError(f"cannot read {text}")
        return [finding("email")]

    with caplog.at_level(logging.DEBUG):
        gave = await Screen(breaks, Steps()).scan(["x" * length, CANARY], **LIMITS)
    assert gave.failed
    assert gave.findings == ((), ())
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text
    assert "cannot read" not in caplog.text


@pytest.mark.parametrize("length", [10, AT_ONCE + 1])
async def test_a_scan_past_its_time_ends_without_findings(length: int) -> None:
    """It stops at the first text past its time, says how long it took, and tells nothing of what it had found by then."""
    met: list[str] = []
    clock = Steps()

    def slow(text: str) -> Sequence[Finding]:
        met.append(text)
        clock.now += 0.015
        return [finding("email")]

    gave = await Screen(slow, clock).scan(["x" * length, "second", "third"], **LIMITS)
    assert met == ["x" * length, "second"]
    assert gave.spent_us == 30_000
    assert not gave.failed
    assert gave.findings == ((), (), ())


async def test_a_detector_that_does_not_end_fails_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a long text is told that it failed."""
    monkeypatch.setattr(module, "GIVEN_UP_S", 0.05)
    free = threading.Event()

    def hangs(text: str) -> Sequence[Finding]:
        free.wait(10)
        return ()

    try:
        gave = await Screen(hangs, Steps()).scan(["x" * (AT_ONCE + 1)], **LIMITS)
    finally:
        free.set()
    assert gave.failed
    assert gave.findings == ((),)


async def test_long_texts_do_not_hold_up_the_loop() -> None:
    """More than 4,000 characters are scanned on a thread, fewer where they are."""
    where: list[threading.Thread] = []

    def here(text: str) -> Sequence[Finding]:
        where.append(threading.current_thread())
        return ()

    screen = Screen(here, Steps())
    await screen.scan(["x" * AT_ONCE], **LIMITS)
    await screen.scan(["x" * AT_ONCE, "y"], **LIMITS)
    assert where[0] is threading.main_thread()
    assert threading.main_thread() not in where[1:]


async def test_names_have_detectors_of_their_own() -> None:
    """Their findings stand behind those of the texts; their characters and their time count, and their failure fails all."""
    met: list[str] = []

    def meets(text: str) -> Sequence[Finding]:
        met.append(text)
        return [finding("email")]

    screen = Screen(detect, Steps(), meets)
    gave = await screen.scan([f"card {CANARY}"], **LIMITS, names="req-1")
    assert [[one.kind for one in row] for row in gave.findings] == [[Kind.CARD], [Kind.EMAIL]]
    assert (met, gave.characters) == (["req-1"], 29)
    assert (await screen.scan(["a"], most_characters=5, budget_us=1, names="req-1")).findings == ((), ())


def test_what_gives_somebody_away_in_a_name() -> None:
    """Written plainly or with look-alikes; dates, phones and domains are no matter in an id."""
    assert [one.kind for one in named("card-4111111111111111")] == [Kind.CARD]
    assert [one.kind for one in named("ann@example.org")] == [Kind.EMAIL]
    assert Kind.IBAN in [one.kind for one in named("DE89370400440532013000")]
    assert Kind.SSN in [one.kind for one in named("ssn 536-22-8726")]
    assert Kind.SECRET in [one.kind for one in named("AKIA" + "Z7QX3MRTP2KVW5ND")]
    wide = "x-" + "４" + "１" * 15
    assert [wide[one.start : one.end] for one in named(wide)] == [wide[2:]]
    assert named("2026-01-01.example.com") == []
