"""The breaker of an arm at an engine: when it opens, who may probe, when it closes again."""

import asyncio
import itertools
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agents.inference.breaker import (
    CALLS,
    KEPT,
    PAUSE_MOST_MS,
    PAUSE_MS,
    PROBES,
    WINDOW_S,
    Breaker,
    Breakers,
    Change,
    End,
    Permit,
)

T = 1_000_000


def made() -> tuple[Breaker, list[Change]]:
    changes: list[Change] = []
    return Breaker(changes.append), changes


def call(breaker: Breaker, how: End, now_ms: int) -> None:
    permit = breaker.admit(now_ms)
    assert permit is not None
    breaker.end(permit, how, now_ms)


def opened(now_ms: int = T) -> tuple[Breaker, list[Change]]:
    breaker, changes = made()
    for _ in range(CALLS):
        call(breaker, "failed", now_ms)
    assert breaker.state == "open"
    return breaker, changes


def test_it_opens_at_half_of_twenty_and_not_before() -> None:
    """Nineteen failures say nothing yet; of twenty calls nine are too few and ten enough."""
    breaker, changes = made()
    for _ in range(CALLS - 1):
        call(breaker, "failed", T)
    assert breaker.state == "closed"
    breaker, changes = made()
    for how in ["answered"] * 11 + ["failed"] * 9:
        call(breaker, how, T)
    assert breaker.state == "closed"
    breaker, changes = made()
    for how in ["answered"] * 10 + ["failed"] * 10:
        call(breaker, how, T)
    assert changes == [Change("closed", "open", T, T + PAUSE_MS, 20, 10)]
    assert breaker.admit(T) is None


@pytest.mark.parametrize("later_ms", [29_000, 29_999, *range(30_000, 64_000, 1_000)])
def test_failures_count_for_thirty_seconds(later_ms: int) -> None:
    """Ten of them, and ten more within the window open it; however much later than that, they do not."""
    breaker, _ = made()
    for now in (T, T + later_ms):
        for _ in range(CALLS // 2):
            call(breaker, "failed", now)
    assert (breaker.state == "open") == (later_ms < 30_000)
    assert breaker.counted == ((0, 0) if later_ms < 30_000 else (10, 10))


def test_a_storm_of_what_does_not_count_never_opens_it() -> None:
    """Ten thousand refused calls leave no trace."""
    breaker, changes = made()
    for now in range(T, T + 10_000):
        call(breaker, "void", now)
    assert (breaker.state, breaker.counted, changes) == ("closed", (0, 0), [])


def test_the_pause_doubles_to_a_minute_and_begins_anew_once_it_closed() -> None:
    """5, 10, 20, 40, 60, 60 s; two answered probes close it, and the next pause is 5 s again."""
    breaker, changes = opened()
    now, pauses = T, list[int]()
    for _ in range(6):
        pauses.append(breaker.until_ms - now)
        assert breaker.admit(breaker.until_ms - 1) is None
        now = breaker.until_ms
        call(breaker, "failed", now)
    assert pauses == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]
    now = breaker.until_ms
    call(breaker, "answered", now)
    assert breaker.state == "half_open"
    call(breaker, "answered", now)
    assert (breaker.state, changes[-1].after) == ("closed", "closed")
    for _ in range(CALLS):
        call(breaker, "failed", now)
    assert breaker.until_ms - now == PAUSE_MS


async def test_one_of_fifty_concurrent_probes_passes() -> None:
    """All ask at the same time, before any has ended; cancelled, the one frees its slot for exactly one other."""
    breaker, _ = opened()
    now = breaker.until_ms
    held: list[Permit] = []
    blocked = 0
    gate = asyncio.Event()

    async def probe() -> None:
        nonlocal blocked
        await asyncio.sleep(0)
        permit = breaker.admit(now)
        if permit is None:
            blocked += 1
            return
        held.append(permit)
        try:
            await gate.wait()
        finally:
            breaker.end(permit, "void", now)

    tasks = [asyncio.create_task(probe()) for _ in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert (len(held), blocked) == (1, 49)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [breaker.admit(now) is None for _ in range(50)] == [False] + [True] * 49


def test_a_call_of_before_says_nothing_of_after() -> None:
    """What was let pass while it was closed neither closes it again nor takes the probe's slot away."""
    breaker, _ = made()
    before = [breaker.admit(T) for _ in range(45)]
    for permit in before[:CALLS]:
        assert permit is not None
        breaker.end(permit, "failed", T)
    now = breaker.until_ms
    probe = breaker.admit(now)
    assert probe is not None
    for permit in before[CALLS:]:
        assert permit is not None
        breaker.end(permit, "failed", now)
    assert (breaker.state, breaker.admit(now)) == ("half_open", None)


def test_an_engine_that_came_back_may_be_tried_at_once() -> None:
    """A live probe at loading ends the pause, not the doubt; a closed one stays as it is."""
    breaker, changes = opened()
    breaker.revived(T + 1)
    assert [change.after for change in changes] == ["open", "half_open"]
    assert breaker.passes(T + 1)
    closed, none = made()
    closed.revived(T)
    assert (closed.state, none) == ("closed", [])


def test_the_table_is_bounded_and_forgets_closed_ones_first() -> None:
    """However many arms are named; an open one is kept as long as there is a closed one."""
    told: list[object] = []
    table = Breakers(lambda key, change: told.append((key, change.after)))
    for _ in range(CALLS):
        call(table.at("bank/bad", "e"), "failed", T)
    for number in range(2 * KEPT):
        table.at(f"bank/{number}", "e")
    assert len(table.held()) == KEPT
    assert table.at("bank/bad", "e").state == "open"
    assert told == [(("bank/bad", "e"), "open")]
    table.keep({"bank/bad"})
    assert list(table.held()) == [("bank/bad", "e")]


def test_an_arm_is_barred_only_where_each_of_its_engines_is() -> None:
    """Until the first of them may be tried; an engine that nobody asked yet lets pass."""
    table = Breakers(lambda key, change: None)
    for engine, now in (("e1", T), ("e2", T + 1_000)):
        for _ in range(CALLS):
            call(table.at("a", engine), "failed", now)
    assert table.open_until_ms("a", ("e1", "e2"), T + 1_000) == T + PAUSE_MS
    assert table.open_until_ms("a", ("e1", "e2", "e3"), T + 1_000) == 0
    assert table.open_until_ms("a", ("e1", "e2"), T + PAUSE_MS) == 0
    assert table.open_until_ms("a", (), T) == 0


class Machine(RuleBasedStateMachine):
    """A breaker beside a model that keeps every call with its second."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T
        self.changes: list[Change] = []
        self.breaker = Breaker(self.changes.append)
        self.calls: list[tuple[int, bool]] = []  # (second, failed) since the last change
        self.out: list[tuple[Permit, int]] = []  # with how many changes there had been
        self.answered = 0
        self.pause = PAUSE_MS

    def _recent(self) -> list[bool]:
        return [failed for second, failed in self.calls if second > self.now // 1000 - WINDOW_S]

    @rule(ms=st.sampled_from([1, 400, 5_000, 10_000, 14_000, 28_000, 29_000, 29_500, 30_000, 61_000]))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule(count=st.integers(5, 24), how=st.sampled_from(["answered", "failed", "failed"]))
    def storm(self, count: int, how: End) -> None:
        """Calls that end as they began."""
        for _ in range(count):
            state, told = self.breaker.look(self.now), len(self.changes)
            permit = self.breaker.admit(self.now)
            if permit is not None:
                self.breaker.end(permit, how, self.now)
                self._expect(state, how, told, counts=True)

    @rule(count=st.integers(1, 8))
    def ask(self, count: int) -> None:
        for _ in range(count):
            state = self.breaker.look(self.now)
            probing = any(permit.probe and at == len(self.changes) for permit, at in self.out)
            permit = self.breaker.admit(self.now)
            assert (permit is not None) == (state == "closed" or (state == "half_open" and not probing))
            if permit is not None:
                assert permit.probe == (state == "half_open")
                self.out.append((permit, len(self.changes)))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), count=st.integers(1, 12), how=st.sampled_from(["answered", "failed", "failed", "void"]))
    def end(self, data: st.DataObject, count: int, how: End) -> None:
        for _ in range(min(count, len(self.out))):
            permit, at = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
            state = self.breaker.look(self.now)
            counts = at == len(self.changes)
            told = len(self.changes)
            self.breaker.end(permit, how, self.now)
            self._expect(state, how, told, counts=counts and how != "void")

    def _expect(self, state: str, how: End, told: int, *, counts: bool) -> None:
        after = self.changes[-1].after if len(self.changes) > told else None
        if not counts:
            assert after is None
        elif state == "closed":
            self.calls.append((self.now // 1000, how == "failed"))
            recent = self._recent()
            assert (after == "open") == (len(recent) >= CALLS and 2 * sum(recent) >= len(recent))
            if after == "open":
                assert (self.changes[-1].calls, self.changes[-1].failed) == (len(recent), sum(recent))
        elif how == "failed":
            self.pause = min(2 * self.pause, PAUSE_MOST_MS)
            assert after == "open"
        else:
            self.answered += 1
            assert (after == "closed") == (self.answered == PROBES)
        if after is not None:
            self.calls, self.answered = [], 0
            if after == "open":
                assert self.breaker.until_ms == self.now + self.pause
            if after == "closed":
                self.pause = PAUSE_MS

    @invariant()
    def one_probe_at_most(self) -> None:
        assert sum(permit.probe and at == len(self.changes) for permit, at in self.out) <= 1

    @invariant()
    def states_follow_each_other(self) -> None:
        steps = [(change.before, change.after) for change in self.changes]
        allowed = {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed")}
        assert set(steps) <= allowed
        assert all(left[1] == right[0] for left, right in itertools.pairwise(steps))
        assert PAUSE_MS <= self.breaker.pause_ms <= PAUSE_MOST_MS


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


@pytest.mark.parametrize("step", [lambda b: b.admit(0), lambda b: b.look(0)])
def test_a_time_that_steps_back_changes_nothing(step: Callable[[Breaker], object]) -> None:
    """The breaker's own last time counts then."""
    breaker, _ = opened()
    step(breaker)
    assert (breaker.state, breaker.until_ms) == ("open", T + PAUSE_MS)
