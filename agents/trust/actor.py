"""The shell of trust: one read of the view and the clock per event, a look at each text that may go out, and released answers put
where the router finds them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from agents.ports import Clock, Store
from agents.rules import answers
from agents.rules.masking import MaskMap
from agents.screen import Screen
from agents.trust import decide
from agents.trust.release import Gate, Held, budget, has_none
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerReleased, ResultCompleted, ResultFailed, ReviewSettled
from schemas.gate import KEY_GONE
from schemas.payload import Payload
from schemas.policies import PolicyRoute, PolicyTrust
from streams.shapes import DeadLetter, Emit, Event, Out, P, Record, View


class Keys(Protocol):
    """A tenant's keys: of the mark, and of what placeholders stand for."""

    def key_at(self, at_ms: int) -> int:
        """The id of the key that marks at a time."""
        ...

    def mark_key(self, tenant: str, key_id: int) -> bytes: ...

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        """Raises `Refused` where it does not open, of the kind `gate-key` where its key is not held."""
        ...


Learn = Callable[[str], Awaitable[None]]
"""Asks where keys come from for that of a sealed map which is not held. Raises `Unavailable` where nobody answers."""
AWAY, NOT_OUT = "unavailable", "nothing was let out: "
AWAY_S = 5.0  # what is not kept after the store did not answer: no further answer waits for it


class Trust:
    """Transform `trust`. Keeps nothing, and loses nothing without a store.

    An answer is kept as it is decided, before that is committed: after a crash in between, the same result is decided again, and
    what stands in the store may be an answer that then was held. It was one that trust let out by the policies of its time.
    """

    name = decide.NAME
    inputs: Sequence[str] = ("ratchet.results", "ratchet.reviews")

    def __init__(
        self,
        policies: View,
        clock: Clock,
        screen: Screen,
        keys: Keys,
        store: Store | None = None,
        learn: Learn | None = None,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._screen = screen
        self._keys = keys
        self._store = store
        self._learn = learn
        self._away_until_s = float("-inf")

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        data, now = event.data, self._clock.now_ms()
        if isinstance(data, ResultCompleted):
            policies = self._read(data)
            held = await self._held(data, policies, now) if decide.may_go_out(data, policies, now) else None
            emits = decide.decide(_as(event, data), policies, now, held)
            await self._keep(event.id, data, policies, emits)
            return emits
        if isinstance(data, ResultFailed):
            return decide.decide(_as(event, data), self._read(data), now)
        if isinstance(data, ReviewSettled):
            policies = self._read(data)
            held = await self._held(data, policies, now) if data.outcome == "released" else None
            return decide.settle(_as(event, data), policies, now, held)
        return ()  # a requested review is for people

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        """Where the key of a map could not be looked up for long: nothing goes out until somebody sends it back."""
        return (DeadLetter(event.record, AWAY, f"{NOT_OUT}{error}"),)

    async def _keep(
        self, result_id: str, result: ResultCompleted, policies: decide.Policies, emits: Sequence[Emit]
    ) -> None:
        """Put a released answer under its decision's key. A store that is away only costs the next one a model's answer."""
        released = any(isinstance(emit.payload, AnswerReleased) for emit in emits)
        if self._store is None or policies.route is None or not released or not answers.keeps(result):
            return
        entry, now_s = answers.encode(result, result_id), self._clock.monotonic()
        if len(entry) > answers.MOST_BYTES or now_s < self._away_until_s:
            return
        try:
            await self._store.put(result.cache_key, entry, policies.route.data.settings.routing.cache.ttl_s)
        except Unavailable:
            self._away_until_s = now_s + AWAY_S

    async def _held(self, told: ResultCompleted | ReviewSettled, policies: decide.Policies, now_ms: int) -> Held:
        """The text scanned where the route has a gate, its map opened, and the key of its mark."""
        scan = None
        if not Gate.of(policies.route, policies.gate).off:
            characters, microseconds = budget(now_ms)
            scan = await self._screen.scan((told.text,), most_characters=characters, budget_us=microseconds)
        known, unopened = await self._opened(told)
        key_id = self._keys.key_at(now_ms)
        return Held(scan, known, self._keys.mark_key(told.tenant, key_id), key_id, unopened)

    async def _opened(self, told: ResultCompleted | ReviewSettled) -> tuple[MaskMap | None, str]:
        """What placeholders stand for; None where it does not open. More is said of why only where its key is not held."""
        if not told.mask_map:
            return MaskMap(), ""
        try:
            if self._learn is not None:
                await self._learn(told.mask_map)
            return MaskMap.decode(self._keys.open_map(told.tenant, told.request_id, told.mask_map)), ""
        except Refused as error:
            return None, str(error) if error.kind == KEY_GONE else ""
        except ValueError:
            return None, ""

    def _read(self, told: ResultCompleted | ResultFailed | ReviewSettled) -> decide.Policies:
        route = self._policies.get(PolicyRoute, f"route/{told.route}")
        return decide.Policies(
            route,
            self._policies.get(PolicyTrust, f"trust/{told.route}"),
            None if has_none(route) else self._policies.get(PolicyGate, f"gate/{told.tenant}"),
        )


def _as(event: Event[Payload], data: P) -> Event[P]:
    """The event with its payload's class known to the type checker."""
    return Event(event.id, event.key, data, event.source, event.traceparent, event.place, event.record)
