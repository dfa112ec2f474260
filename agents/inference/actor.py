"""The shell of inference: asks the engine, remembers results in the store, and keeps the fleet's arms loaded.

No transaction is open while a model works. A call may run twice after a crash; what is emitted is what the store holds,
so two owners emit the same. How an engine is called, and when another arm is asked beside it: calls.py, race.py.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from agents.inference import decide
from agents.inference.calls import Blocked, Calls
from agents.inference.charges import compare, settle
from agents.inference.race import Given, Hedging, begun
from agents.ports import (
    OUR_FAULTS,
    ArmSpec,
    Clock,
    Engine,
    Facts,
    Generation,
    LoadOutcome,
    Places,
    Scaling,
    Store,
)
from agents.rules.replicas import pooled
from agents.rules.text import same
from schemas.errors import Refused, Unavailable
from schemas.events import ResultCompleted
from schemas.payload import Payload
from schemas.policies import PolicyCapacity, PolicyFleet, PolicyLive
from schemas.routes import Arm
from streams.shapes import Emit, Event, Out, Record, View

RESULT_S = 3600
WATCH_S = 0.2
ANNOUNCE_S = 2.0
DOUBT_S = 1.0  # between two looks at an engine that failed a call
RECHECK_S = 5.0
RECHECK_MOST_S = 60.0
LOADING_S = 30.0
POLL_S = 0.05
SECOND_S = 1.0  # what an answer waits for the second arm once it is made itself
PATIENCE_S = (
    0.25  # what an order waits for a busy arm before it asks the next; for the last one it waits to its deadline
)


class Inference:
    """Transform `inference`; `follow()` runs beside it for as long as it serves."""

    name = decide.NAME
    inputs: Sequence[str] = ("ratchet.decisions", "ratchet.shadows")

    def __init__(
        self,
        policies: View,
        engine: Engine,
        store: Store,
        facts: Facts,
        clock: Clock,
        instance: str,
        pool: Places | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._policies = policies
        self._engine = engine
        self._store = store
        self._facts = facts
        self._clock = clock
        self._instance = instance
        self._calls = Calls(engine, clock, instance, store, pool)
        self._hedging = Hedging(policies, self._calls, clock, instance)
        self._scaling = scaling
        self._wanted: dict[str, Arm] = {}
        self._outcomes: tuple[LoadOutcome, ...] = ()
        self._live: frozenset[str] = frozenset()
        self._told: dict[tuple[str, str], tuple[str | None, bool, str]] = {}
        self._version = 0
        self._announced: tuple[object, ...] = ()
        self._announced_at = 0.0
        self._checked_at = 0.0
        self._pause_s = RECHECK_S
        self._doubt = False
        self._loading = True  # until the first load has ended

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        order = decide.order_of(event)
        if order is None:
            return ()
        before = decide.given_before(order, self._clock.now_ms(), self._instance)
        if before is not None:
            return (Emit(before, f"completed/{before.arm}"),)
        outs = await self._chain(order, event.id)
        told = [out.payload for out in outs if isinstance(out, Emit)]
        await compare(self._store, order.told.trial, order.decision_id, told)
        await settle(self._store, order.told, told)
        return outs

    async def _chain(self, order: decide.Order, order_id: str) -> Sequence[Out]:
        """The first answer down the order's arms, with a failure for each that gave none. Raises `Unavailable` while time is left."""
        failures: list[Out] = []
        away: Unavailable | None = None
        last = len(order.arms) - 1
        for index, arm in enumerate(order.arms):
            now = self._clock.now_ms()
            try:
                return [*failures, *await self._answer(order, arm, order_id, last=index == last)]
            except Refused as error:
                why = str(error)
                return [*failures, decide.failed(order, arm, "refused", why, now, self._instance, final=True)]
            except Unavailable as error:
                away, now = error, self._clock.now_ms()
                late = now >= order.told.deadline_at_ms
                kind = "deadline" if late else "unavailable"
                ended = late and (index == last)
                failures.append(decide.failed(order, arm, kind, str(error), now, self._instance, final=ended))
        if away is None or self._clock.now_ms() >= order.told.deadline_at_ms:
            return decide.given_up(order, "deadline", str(away), self._clock.now_ms(), self._instance)
        raise away

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        order = decide.order_of(event)
        return None if order is None else order.told.deadline_at_ms

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        order = decide.order_of(event)
        if order is None:
            return ()
        now = self._clock.now_ms()
        kind = "deadline" if now >= order.told.deadline_at_ms else "unavailable"
        return decide.given_up(order, kind, str(error), now, self._instance)

    async def _answer(self, order: decide.Order, arm: str, order_id: str, *, last: bool) -> list[Out]:
        """The stored result of this order and arm, else a new one. Raises `Unavailable` past the deadline too."""
        told = order.told
        # The request's place too: upstream chooses the ids that ours derive from, and must not reach another's answer.
        place = f"{told.request_partition}-{told.request_offset}"
        key = f"result:{order.decision_id}:{place}:{arm}" + (":shadow" if order.shadow else "")
        result = _stored(await self._held(key))
        beside: tuple[Emit, ...] = ()
        if result is None:
            given, agreement = await self._answer_beside(order, arm, order_id, last=last)
            result = decide.completed(order, given.arm, given.made, self._clock.now_ms(), self._instance, agreement)
            beside = given.beside
            try:
                held = await self._store.set_if_absent(key, result.model_dump_json().encode(), RESULT_S)
                stored = _stored(held)
            except Unavailable:
                stored = None  # the store only saves a second call; the committed event is the result
            if stored is not None and stored.arm != result.arm:
                beside = ()  # another owner's arms came in in another order, and it is that owner's answer
            result = stored or result
        return [*beside, Emit(result, f"completed/{result.arm}")]

    async def _answer_beside(
        self, order: decide.Order, arm: str, order_id: str, *, last: bool
    ) -> tuple[Given, float | None]:
        """An answer, and whether the second arm says the same: None where there is none, or it fails, or is late.

        Both are asked at once. The answer waits a second for the other arm and no longer; nothing else of it depends on that arm.
        """
        text = decide.last_user_text(order.told.messages)

        async def ask(name: str, suffix: str, waits: bool) -> Generation:
            patience_s = 0.0 if not waits else float("inf") if last else PATIENCE_S
            return await self._generate(order, name, text, order_id + suffix, patience_s)

        second = decide.second_of(order, arm)
        if second is None:
            return await self._hedging.answer(order, arm, self._live, ask), None
        asked = begun(self._second(order, second, text, f"{order_id}/second"))
        waited: asyncio.Task[None] | None = None
        try:
            given = await self._hedging.answer(order, arm, self._live, ask)
            left_s = min(SECOND_S, (order.told.deadline_at_ms - self._clock.now_ms()) / 1000)
            waited = begun(self._clock.sleep(left_s))
            await asyncio.wait({asked, waited}, return_when=asyncio.FIRST_COMPLETED)
            other = asked.result() if asked.done() else None
            return given, None if other is None else float(same(given.made.text, other.text))
        finally:
            for task in (asked, waited):
                if task is not None and not task.done():
                    task.cancel()

    async def _second(self, order: decide.Order, arm: str, text: str, order_id: str) -> Generation | None:
        """What the second arm says; None where it cannot be asked."""
        try:
            return await self._calls.ask(order.engine_arm(arm), text, order_id, order.told.deadline_at_ms, 0.0)
        except (Refused, Unavailable):
            return None

    async def _generate(self, order: decide.Order, arm: str, text: str, order_id: str, patience_s: float) -> Generation:
        """Ask the engine within the deadline. An arm that is just being loaded is waited for, bounded; a busy one for `patience_s`."""
        name, deadline = order.engine_arm(arm), order.told.deadline_at_ms
        until = self._clock.monotonic() + LOADING_S
        while self._loading and name not in self._live and self._clock.now_ms() < deadline:
            if self._clock.monotonic() >= until:
                break
            await self._clock.sleep(POLL_S)
        try:
            return await self._calls.ask(name, text, order_id, deadline, patience_s)
        except Refused as error:
            if error.kind in OUR_FAULTS:  # the arm's settings or key, not the request: another arm may well answer it
                raise Unavailable(str(error)) from error
            if error.kind != "unknown_arm":
                raise
            raise Unavailable(f"arm {arm!r} is not loaded here", retry_after_s=0.5) from error
        except Blocked:
            raise
        except Unavailable:
            self._doubt = True  # look at the engine soon
            raise

    async def _held(self, key: str) -> bytes | None:
        try:
            return await self._store.get(key)
        except Unavailable:
            return None

    async def follow(self) -> None:
        """Keep every fleet's arms loaded and say which are live; runs until cancelled, engine or broker away or not."""
        while self._policies.age_s() == float("inf"):  # the view is not whole yet
            await self._clock.sleep(POLL_S)
        last = self._policies.get(PolicyLive, f"live/{self._instance}")
        self._version = max(self._version, 0 if last is None else last.data.version)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load())
            group.create_task(self._announce())

    async def _load(self) -> None:
        while True:
            try:
                await self.load_once()
            except Unavailable:
                self._hold(())  # not proven live now, whatever was proven before
            await self._clock.sleep(WATCH_S)

    async def _announce(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):  # the broker is away: told again in a moment
                await self.announce_once()
            await self._turn()

    async def _turn(self) -> None:
        """A moment; but where a breaker changes, no longer: the router masks by it. After a failure always a moment."""
        self._calls.changed.clear()
        tasks: list[asyncio.Task[object]] = [begun(self._clock.sleep(WATCH_S))]
        if not self._calls.changes:
            tasks.append(begun(self._calls.changed.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def load_once(self) -> None:
        """One look: load on a change of the fleets, and again where something wanted is not live."""
        wanted = decide.wanted(row.data for row in self._policies.items(PolicyFleet).values())
        now, changed = self._clock.monotonic(), await self._scaled() or wanted != self._wanted
        if changed or now - self._checked_at >= (DOUBT_S if self._doubt else self._pause_s):
            healthy = await self._engine.healthy()
            self._checked_at, self._doubt = now, not healthy
            if not healthy:
                self._hold(())
            if changed or wanted.keys() - self._live:
                self._loading = True
                specs = [ArmSpec.of(name, arm) for name, arm in wanted.items()]
                found = tuple(await self._engine.ensure(specs)) if specs else ()
                same = {(row.arm, row.reason) for row in found} == {(row.arm, row.reason) for row in self._outcomes}
                settled = same and healthy and all(map(decide.tells, found))  # what is only away may come any moment
                self._pause_s = min(2 * self._pause_s, RECHECK_MOST_S) if settled else RECHECK_S
                self._calls.limit({name: arm.max_in_flight for name, arm in wanted.items()})
                self._hold(found)
                self._wanted = wanted
        self._loading = False

    async def _scaled(self) -> bool:
        """Follow the estimator's advice where engines can come and go; whether any did."""
        if self._scaling is None:
            return False
        rows = self._policies.items(PolicyCapacity).values()
        return await self._scaling.scale(pooled(arm for row in rows for arm in row.data.arms))

    def _hold(self, outcomes: tuple[LoadOutcome, ...]) -> None:
        self._calls.loaded(self._outcomes, outcomes)
        self._outcomes = outcomes
        self._live = frozenset(row.arm for row in outcomes if row.live)

    async def announce_once(self) -> None:
        """One look: facts once per change, `policy.live` on a change and every two seconds."""
        tenants = {row.data.route: row.data.tenant for row in self._policies.items(PolicyFleet).values()}
        for row in self._outcomes:
            said = (row.adapter, row.live, row.reason)
            if decide.tells(row) and self._told.get((row.arm, row.replica)) != said:
                tenant = tenants.get(row.arm.partition("/")[0], "default")
                fact = decide.fact_of(row, tenant, self._clock.now_ms(), self._instance)
                identity = (
                    f"{self._instance}/{row.arm}/{row.replica}/{row.adapter}/{'live' if row.live else row.reason}"
                )
                await self._facts.send(fact, identity)
                self._told[row.arm, row.replica] = said
        self._calls.breakers.look(self._calls.now_ms())
        await self._tell_breakers(tenants)
        arms = decide.live_arms(self._outcomes, self._wanted, {name: self._use(name) for name in self._live})
        breakers = decide.live_breakers(self._calls.breakers.held(), self._calls.lead_ms())
        now, news = self._clock.monotonic(), decide.news(arms, breakers)
        if news != self._announced or now - self._announced_at >= ANNOUNCE_S:
            self._version += 1
            policy = PolicyLive(
                at_ms=self._clock.now_ms(),
                version=self._version,
                instance=self._instance,
                arms=arms,
                until_ms=self._clock.now_ms() + decide.LIVE_MS,
                breakers=breakers,
            )
            await self._facts.send(policy, f"live/{self._instance}/{self._version}")
            self._announced, self._announced_at = news, now

    async def _tell_breakers(self, tenants: Mapping[str, str]) -> None:
        """A fact per change, in their order; one that was not acknowledged stays the next to tell."""
        changes = self._calls.changes
        while changes:
            key, change, lead_ms, number = changes[0]
            tenant = tenants.get(key[0].partition("/")[0], "default")
            fact = decide.breaker_fact(key, change, lead_ms, tenant, self._instance)
            await self._facts.send(fact, f"{self._instance}/{key[0]}/{key[1]}/{fact.at_ms}/{number}")
            if changes and changes[0][3] == number:
                changes.popleft()

    def _use(self, name: str) -> decide.Use:
        slots = self._calls.slots(name)
        return decide.Use(slots.in_flight, slots.cap, self._calls.open_until_ms(name))


def _stored(value: bytes | None) -> ResultCompleted | None:
    if value is None:
        return None
    try:
        return ResultCompleted.model_validate_json(value)
    except ValidationError:
        return None  # written by another version: as good as absent
