"""The engine port over both kinds of arms: those of our own engines (`ray_vllm`) and those of providers.

Our engines are opened when the first arm asks for them; a fleet of outside arms alone needs no Ray. No arm waits for another's
trouble: providers are probed side by side within `PROBE_S`, and our engines get `PATIENCE_S` where there are providers, after which
what they load is reported as away and goes on loading; a later `ensure` finds it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from infra.clock import Clock
from infra.engine import OWN, ArmSpec, Blameless, Engine, EngineGuest, Generation, LoadOutcome, blames_engine
from infra.provider import Provider
from schemas.errors import Refused, Unavailable

PROBE_S = 15.0
PROBES = 8  # at once
DOUBT_S = 5.0  # of a second look at an arm that failed
PATIENCE_S = 10.0
AWAY = "replica is away"  # how a reason begins that says nothing of the arm: nobody could be asked
log = logging.getLogger("ratchet")


@runtime_checkable
class Replicated(Protocol):
    """An engine of several replicas, where each can be asked by name."""

    def places(self, arm: str) -> Sequence[str]: ...

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation: ...


class MixedEngine:
    """See the module. `own` opens our engines; `providers` by name."""

    def __init__(
        self,
        own: Callable[[], Awaitable[Engine]],
        providers: Mapping[str, Provider],
        clock: Clock,
        *,
        patience_s: float = PATIENCE_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self._open = own
        self._providers = providers
        self._clock = clock
        self._patience_s = patience_s
        self._probe_s = probe_s
        self._own: Engine | None = None
        self._opening = asyncio.Lock()
        self._owned: frozenset[str] = frozenset()
        self._loading: tuple[tuple[ArmSpec, ...], asyncio.Task[Sequence[LoadOutcome]]] | None = None
        self._loads: set[asyncio.Task[Sequence[LoadOutcome]]] = set()
        self._outcomes: dict[ArmSpec, LoadOutcome] = {}
        self._arms: dict[str, ArmSpec] = {}
        self._doubted: set[ArmSpec] = set()  # a call failed since the last look
        self._failed: set[ArmSpec] = set()  # the last look failed
        self._probing = asyncio.Semaphore(PROBES)

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        """As the port says. A provider's arm that is live is not probed again, unless it has failed since."""
        mine = tuple(spec for spec in arms if spec.provider == OWN)
        others = [spec for spec in arms if spec.provider != OWN]
        loading = asyncio.create_task(self._ensure_own(mine, alone=not others))
        try:
            found = await asyncio.gather(*(self._ensure_outside(spec) for spec in others))
            self._outcomes = dict(zip(others, found, strict=True))
            self._arms = {spec.arm: spec for spec in others if self._outcomes[spec].live}
            self._doubted &= set(others)
            self._failed &= set(others)
            owned = list(await loading)
        finally:
            loading.cancel()
        rows = {spec.arm: [self._outcomes[spec]] for spec in others}
        for row in owned:
            rows.setdefault(row.arm, []).append(row)
        return [row for spec in arms for row in rows.pop(spec.arm, [])]

    async def _ensure_own(self, specs: tuple[ArmSpec, ...], *, alone: bool) -> Sequence[LoadOutcome]:
        """Our engines' outcomes. Those that were opened once are told too that nothing is wanted of them any more."""
        self._owned = frozenset(spec.arm for spec in specs)
        if not specs and self._own is None:
            return ()
        task = self._load_of(specs)
        await asyncio.wait({task}, timeout=None if alone else self._patience_s)
        if task.done():
            return task.result()
        return [LoadOutcome(spec.arm, spec.adapter, OWN, False, f"{AWAY}: it is still loading", 0.0) for spec in specs]

    def _load_of(self, specs: tuple[ArmSpec, ...]) -> asyncio.Task[Sequence[LoadOutcome]]:
        """The load of these arms that is under way, else a new one; our engines take one after the other."""
        if self._loading is not None:
            before, task = self._loading
            if task.done():
                task.result()  # what it ended with while nobody waited: a crash is one
            elif before == specs:
                return task
        fresh = asyncio.create_task(self._load_own(specs))
        self._loading = specs, fresh
        self._loads.add(fresh)
        fresh.add_done_callback(self._loads.discard)
        return fresh

    async def _load_own(self, specs: tuple[ArmSpec, ...]) -> Sequence[LoadOutcome]:
        try:
            return await (await self._opened()).ensure(specs)
        except Unavailable as away:
            log.warning("our own engines are away: %s", away)
            return [LoadOutcome(spec.arm, spec.adapter, OWN, False, f"{AWAY}: {away}", 0.0) for spec in specs]

    async def _opened(self) -> Engine:
        async with self._opening:
            if self._own is None:
                self._own = await self._open()
            return self._own

    async def _ensure_outside(self, spec: ArmSpec) -> LoadOutcome:
        known = self._outcomes.get(spec)
        if known is not None and known.live and spec not in self._failed:
            return known
        started = self._clock.monotonic()
        reason = await self._probed(spec, self._probe_s)
        load_ms = (self._clock.monotonic() - started) * 1000
        return LoadOutcome(spec.arm, spec.adapter, spec.provider, not reason, reason, load_ms)

    async def _probed(self, spec: ArmSpec, timeout_s: float) -> str:
        """Why the arm does not answer; "" when it does."""
        async with self._probing:
            try:
                async with asyncio.timeout(
                    timeout_s + 1.0
                ):  # the provider keeps the time; this is for one that does not
                    await self._provider(spec).probe(spec, timeout_s)
            except (Refused, Unavailable, TimeoutError) as fault:
                self._failed.add(spec)
                return str(fault) or f"no answer within {timeout_s} s"
        self._doubted.discard(spec)
        self._failed.discard(spec)
        return ""

    def _provider(self, spec: ArmSpec) -> Provider:
        if spec.provider not in self._providers:
            raise Refused(
                f"arm {spec.arm!r}: no provider {spec.provider!r}",
                kind="provider_settings",
                field="provider",
                accepted=", ".join([OWN, *sorted(self._providers)]),
            )
        return self._providers[spec.provider]

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        spec = self._arms.get(arm)
        if spec is None:
            return await self._generate_own(arm, text, request_id, timeout_s)
        try:
            return await self._provider(spec).complete(spec, text, request_id, timeout_s)
        except (Refused, Unavailable) as fault:
            if blames_engine(fault):
                self._doubted.add(spec)
            raise

    async def _generate_own(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        if arm in self._owned and self._own is not None:
            return await self._own.generate(arm, text, request_id, timeout_s)
        outside = sorted(spec.arm for spec in self._outcomes)
        if arm in self._owned or arm in outside:
            raise Blameless(f"arm {arm!r} is not live now", retry_after_s=1.0)
        known = str(sorted({*self._owned, *outside}))
        raise Refused(f"arm {arm!r} is not loaded", kind="unknown_arm", field="arm", accepted=known)

    def places(self, arm: str) -> Sequence[str]:
        """The replicas of our engines that the arm is live at, the one to ask first in front; none for a provider's arm."""
        if arm in self._owned and isinstance(self._own, Replicated):
            return self._own.places(arm)
        return ()

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        """As `generate`, at one of `places`."""
        if arm in self._owned and isinstance(self._own, Replicated):
            return await self._own.generate_at(place, arm, text, request_id, timeout_s)
        return await self.generate(arm, text, request_id, timeout_s)

    async def healthy(self) -> bool:
        """Whether anything answers: our engines, or a provider's arm. Arms that failed since the last look are probed, others not.

        A single arm that is away is its breaker's business; the next `ensure` proves it again.
        """
        doubted = [spec for spec in self._arms.values() if spec in self._doubted or spec in self._failed]
        await asyncio.gather(*(self._probed(spec, DOUBT_S) for spec in doubted))
        if any(spec not in self._failed for spec in self._arms.values()):
            return True
        if self._own is None or not self._owned:
            return not self._owned and not self._outcomes
        return await self._own.healthy()

    async def close(self) -> None:
        """Let go of our engines. Providers are whoever's who made them."""
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        if self._own is not None:
            await self._own.close()
        self._arms.clear()
        self._outcomes.clear()


class MixedGuest:
    """Asks providers itself, and for every other arm the guest of our engines."""

    def __init__(self, own: EngineGuest, providers: Mapping[str, Provider]) -> None:
        self._own = own
        self._providers = providers

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        provider = self._providers.get(spec.provider)
        if provider is None:
            return await self._own.generate(replace(spec, provider=OWN), text, request_id, timeout_s)
        return await provider.complete(spec, text, request_id, timeout_s)
