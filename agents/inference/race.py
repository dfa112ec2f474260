"""Two arms for one answer: the second is asked when the first is late, who answers first serves, the other is let go."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from agents.inference import decide
from agents.inference.calls import Blocked, Calls
from agents.inference.hedge import MILLION, Bucket
from agents.ports import Clock, Generation
from schemas.errors import RatchetError, Unavailable
from schemas.policies import PolicyRoute
from streams.shapes import Emit, View

LOST = "another arm answered first"
Asked = Callable[[str, str, bool], Coroutine[Any, Any, Generation]]  # arm, suffix of the call's id, whether it may wait
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Given:
    """An answer, whose it is, and what there is to tell of the arm that did not serve."""

    arm: str
    made: Generation
    beside: tuple[Emit, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Which arms may be asked too, and after how long."""

    others: tuple[str, ...]
    after_s: float


class Hedging:
    """The hedges of one process. At most the route's share of its calls, over all that went through here."""

    def __init__(self, policies: View, calls: Calls, clock: Clock, instance: str) -> None:
        self._policies = policies
        self._calls = calls
        self._clock = clock
        self._instance = instance
        self._buckets: dict[str, Bucket] = {}

    async def answer(self, order: decide.Order, arm: str, live: Set[str], ask: Asked) -> Given:
        """The arm's answer, or that of an arm that the decision names beside it where this one is late."""
        plan = self._plan(order, arm, live)
        if plan is None:
            return Given(arm, await ask(arm, "", True))
        asked = begun(ask(arm, "", True))
        late, beside = begun(self._clock.sleep(plan.after_s)), None
        try:
            await asyncio.wait({asked, late}, return_when=asyncio.FIRST_COMPLETED)
            other = None if asked.done() else self._taken(order, plan)
            if other is None:
                return Given(arm, await asked)
            beside = begun(ask(other, "/hedge", False))
            await _one_that_counts(asked, beside)
            return self._won(order, arm, asked, other, beside)
        finally:
            for task in (asked, late, beside):
                if task is not None:
                    task.cancel()

    def _plan(self, order: decide.Order, arm: str, live: Set[str]) -> Plan | None:
        others = tuple(other for other in decide.hedges_of(order, arm) if order.engine_arm(other) in live)
        if not others:
            return None
        route = order.told.route
        policy = self._policies.get(PolicyRoute, f"route/{route}")
        share = 0 if policy is None else round(policy.data.settings.routing.hedge_share * MILLION)
        if share == 0:
            return None
        self._buckets.setdefault(route, Bucket()).called(share)
        p95_ms = self._calls.p95_ms(order.engine_arm(arm))
        return None if p95_ms is None else Plan(others, p95_ms / 1000)

    def _taken(self, order: decide.Order, plan: Plan) -> str | None:
        """The arm to ask too, its token taken; None where no arm is free or no token is left."""
        free = next((other for other in plan.others if self._calls.ready(order.engine_arm(other))), None)
        return free if free is not None and self._buckets[order.told.route].take() else None

    def _won(
        self,
        order: decide.Order,
        arm: str,
        asked: "asyncio.Task[Generation]",
        other: str,
        beside: "asyncio.Task[Generation]",
    ) -> Given:
        """Who answered. Where neither did, or the sender is wrong, what the arm that was chosen raised."""
        failure = asked.exception() if asked.done() else None
        if asked.done() and failure is None:
            return Given(arm, asked.result(), self._told(order, other, beside))
        over = failure is None or isinstance(failure, Unavailable)
        if over and beside.done() and beside.exception() is None:
            return Given(other, beside.result(), self._told(order, arm, asked))
        return Given(arm, asked.result())  # raises

    def _told(self, order: decide.Order, arm: str, task: "asyncio.Task[Generation]") -> tuple[Emit, ...]:
        """What became of the arm that did not serve: let go, or failed by itself. Nothing where it was never asked."""
        error = task.exception() if task.done() else None
        if error is not None and not isinstance(error, RatchetError):
            raise error  # ours
        if isinstance(error, Blocked):
            return ()
        now, failed = self._clock.now_ms(), isinstance(error, Unavailable)
        kind, reason = ("unavailable", str(error)) if failed else ("hedge_lost", LOST if error is None else str(error))
        return (decide.failed(order, arm, kind, reason, now, self._instance, final=False, hedge=True),)


async def _one_that_counts(asked: "asyncio.Task[Generation]", beside: "asyncio.Task[Generation]") -> None:
    """Until one has answered, the sender is wrong, or both have failed."""
    await asyncio.wait({asked, beside}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done() and beside.exception() is not None:
        await asyncio.wait({asked})
    elif asked.done() and isinstance(asked.exception(), Unavailable):
        await asyncio.wait({beside})


def begun(call: Awaitable[_T]) -> "asyncio.Task[_T]":
    """The call as a task whose error is not said to be lost when nobody waits for it any more."""

    async def made() -> _T:
        return await call

    task = asyncio.create_task(made())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
