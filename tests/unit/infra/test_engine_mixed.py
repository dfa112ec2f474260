"""Our engines and providers behind one port: each arm on its own, nothing opened that nobody asked for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from infra.clock import SystemClock
from infra.engine import ArmSpec, Blameless, Generation, LoadOutcome, blames_engine
from infra.engine_mixed import PROBES, MixedEngine, MixedGuest
from infra.engine_scripted import ScriptedEngine, ScriptedGuest
from infra.provider import Fault, Provider
from infra.provider_stand_in import StandIn
from schemas.errors import Refused, Unavailable

OWN = ArmSpec("route/own", "base")
OUT = ArmSpec("route/out", "", provider="told")
TWO = ArmSpec("route/two", "", provider="told")


@dataclass
class Told:
    """A provider that does what the test says: `away` arms fail, `slow` ones take their time, it counts probes."""

    name: str = "told"
    away: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    probes: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        await self._do(spec, timeout_s)
        return Generation(text.upper(), 1, 1, 1.0, 1.0, "stop", (), None, self.name, "there")

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        self.probes.append(spec.arm)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._do(spec, timeout_s)
            await asyncio.sleep(0.001)
        finally:
            self.at_once -= 1

    async def _do(self, spec: ArmSpec, timeout_s: float) -> None:
        if spec.arm in self.slow:
            await asyncio.sleep(timeout_s)
            raise Fault("no answer in time")
        if spec.arm in self.away:
            raise Fault("it fails")
        if spec.arm in self.refused:
            raise Refused("it refuses", kind="unauthorized")


class Slow(ScriptedEngine):
    """An engine that loads until it is let; it can be ill."""

    def __init__(self) -> None:
        super().__init__()
        self.may_load = asyncio.Event()
        self.asked: list[tuple[str, ...]] = []
        self.well = True
        self.closed = False

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        self.asked.append(tuple(spec.arm for spec in arms))
        await self.may_load.wait()
        return await super().ensure(arms)

    async def healthy(self) -> bool:
        return self.well

    async def close(self) -> None:
        self.closed = True
        await super().close()


class Lab:
    """An engine under test, what it stands on, and how often our engines were opened."""

    def __init__(self, patience_s: float = 5.0, probe_s: float = 0.2) -> None:
        self.own = Slow()
        self.own.may_load.set()
        self.told = Told()
        self.opened = 0
        self.fails_to_open = False
        providers: dict[str, Provider] = {"told": self.told, "stand_in": StandIn(SystemClock())}
        self.engine = MixedEngine(self._open, providers, SystemClock(), patience_s=patience_s, probe_s=probe_s)

    async def _open(self) -> Slow:
        self.opened += 1
        if self.fails_to_open:
            raise Unavailable("no Ray cluster answers")
        return self.own

    async def live(self, *arms: ArmSpec) -> list[tuple[str, bool]]:
        return [(row.arm, row.live) for row in await self.engine.ensure(arms)]


async def test_each_arm_answers_where_it_belongs() -> None:
    """Outcomes in the order given; each result names its engine; our engines are opened once."""
    lab = Lab()
    assert await lab.live(OUT, OWN, TWO) == [("route/out", True), ("route/own", True), ("route/two", True)]
    assert (await lab.engine.generate("route/out", "hi", "r", 1)).engine == "told"
    assert (await lab.engine.generate("route/own", "hi", "r", 1)).engine == "scripted"
    await lab.live(OUT, OWN)
    assert lab.opened == 1
    await lab.engine.close()
    assert lab.own.closed


async def test_without_arms_of_ours_no_engine_is_opened() -> None:
    """Nor is one that never was told that nothing is wanted; one that was is."""
    lab = Lab()
    await lab.live(OUT)
    assert lab.opened == 0
    await lab.live(OUT, OWN)
    await lab.live(OUT)
    assert lab.own.asked == [("route/own",), ()]
    await lab.engine.close()


async def test_a_live_arm_is_probed_once() -> None:
    """Idempotent, and the outcome is the same; a changed arm is another; one that is not named any more is gone."""
    lab = Lab()
    first = await lab.engine.ensure([OUT])
    assert await lab.engine.ensure([OUT]) == first
    assert lab.told.probes == ["route/out"]
    await lab.live(replace(OUT, max_tokens=9))
    assert lab.told.probes == ["route/out"] * 2
    await lab.live(TWO)
    with pytest.raises(Refused) as refused:
        await lab.engine.generate("route/out", "hi", "r", 1)
    assert refused.value.kind == "unknown_arm"


async def test_one_arms_trouble_is_its_own() -> None:
    """Away, refused, silent, of no known provider: each says why, the others are live, and it is probed again."""
    lab = Lab(probe_s=0.1)
    lab.told.away, lab.told.refused, lab.told.slow = {"route/a"}, {"route/b"}, {"route/c"}
    arms = [replace(OUT, arm=f"route/{name}") for name in "abc"]
    odd = replace(OUT, arm="route/d", provider="nobody")
    rows = await lab.engine.ensure([*arms, odd, OUT, OWN])
    assert [row.live for row in rows] == [False, False, False, False, True, True]
    assert [row.reason for row in rows[:3]] == ["it fails", "it refuses", "no answer in time"]
    assert "no provider 'nobody'" in rows[3].reason
    with pytest.raises(Blameless, match="not live"):
        await lab.engine.generate("route/a", "hi", "r", 1)
    lab.told.away.clear()
    assert (await lab.live(*arms, OUT))[0] == ("route/a", True)
    assert lab.told.probes.count("route/out") == 1


async def test_probes_are_bounded() -> None:
    """Many arms are probed side by side, a few at once."""
    lab = Lab()
    arms = [replace(OUT, arm=f"route/{number}") for number in range(40)]
    assert all(live for _, live in await lab.live(*arms))
    assert 1 < lab.told.most_at_once <= PROBES


async def test_our_engines_load_while_providers_answer() -> None:
    """A minute of loading keeps no outside arm: what loads is away until it is done."""
    lab = Lab(patience_s=0.05)
    lab.own.may_load.clear()
    rows = await lab.engine.ensure([OUT, OWN])
    assert [row.live for row in rows] == [True, False]
    assert rows[1].reason.startswith("replica is away")
    assert (await lab.engine.generate("route/out", "hi", "r", 1)).text == "HI"
    with pytest.raises(Refused, match="not loaded"):  # by the engine itself, which loads it
        await lab.engine.generate("route/own", "hi", "r", 1)
    lab.own.may_load.set()
    assert await lab.live(OUT, OWN) == [("route/out", True), ("route/own", True)]
    assert (await lab.engine.generate("route/own", "hi", "r", 1)).engine == "scripted"
    await lab.engine.close()


async def test_engines_that_cannot_be_opened_harm_no_provider() -> None:
    """No Ray: our arms are away and say why, the outside ones answer; opened again at the next look."""
    lab = Lab()
    lab.fails_to_open = True
    assert await lab.live(OWN, OUT) == [("route/own", False), ("route/out", True)]
    with pytest.raises(Blameless):
        await lab.engine.generate("route/own", "hi", "r", 1)
    assert await lab.engine.healthy()
    lab.fails_to_open = False
    assert await lab.live(OWN, OUT) == [("route/own", True), ("route/out", True)]


async def test_healthy_while_anything_answers() -> None:
    """Nothing wanted: well. An arm that failed is probed again, others not; all away: not well, and proven anew."""
    lab = Lab()
    assert await lab.engine.healthy()
    await lab.live(OUT, TWO)
    lab.told.away = {"route/out", "route/two"}
    for arm in ("route/out", "route/two"):
        with pytest.raises(Fault):
            await lab.engine.generate(arm, "hi", "r", 1)
        well = await lab.engine.healthy()
        assert well == (arm == "route/out")
    assert lab.told.probes == ["route/out", "route/two", "route/out", "route/out", "route/two"]
    assert await lab.live(OUT, TWO) == [("route/out", False), ("route/two", False)]
    lab.told.away.clear()
    assert await lab.live(OUT, TWO) == [("route/out", True), ("route/two", True)]
    assert await lab.engine.healthy()
    await lab.live(OWN)
    assert await lab.engine.healthy()
    lab.own.well = False
    assert not await lab.engine.healthy()


async def test_a_refusal_casts_no_doubt() -> None:
    """A storm of 4xx is the senders': nothing is probed for it, no breaker counts it."""
    lab = Lab()
    await lab.live(OUT)
    lab.told.refused = {"route/out"}
    for _ in range(50):
        with pytest.raises(Refused) as refused:
            await lab.engine.generate("route/out", "hi", "r", 1)
        assert not blames_engine(refused.value)
    assert await lab.engine.healthy()
    assert lab.told.probes == ["route/out"]


class Replicas(Slow):
    """Our engines as two replicas."""

    def places(self, arm: str) -> Sequence[str]:
        return ("one", "two")

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        return replace(await self.generate(arm, text, request_id, timeout_s), replica=place)


async def test_replicas_of_our_engines_can_be_asked_by_name() -> None:
    """Where they are several; a provider's arm has no places and is asked as ever."""
    lab = Lab()
    await lab.live(OWN, OUT)
    assert (lab.engine.places("route/own"), lab.engine.places("route/out")) == ((), ())
    lab = Lab()
    lab.own = Replicas()
    lab.own.may_load.set()
    await lab.live(OWN, OUT)
    assert (lab.engine.places("route/own"), lab.engine.places("route/out")) == (("one", "two"), ())
    assert (await lab.engine.generate_at("two", "route/own", "hi", "r", 1)).replica == "two"
    assert (await lab.engine.generate_at("two", "route/out", "hi", "r", 1)).engine == "told"


async def test_a_guest_asks_providers_itself() -> None:
    """And for arms of ours the guest of our engines."""
    guest = MixedGuest(ScriptedGuest(ScriptedEngine()), {"told": Told()})
    assert (await guest.generate(OUT, "hi", "r", 1)).engine == "told"
    assert (await guest.generate(OWN, "hi", "r", 1)).engine == "scripted"


def test_what_a_breaker_counts() -> None:
    """Faults and every plain Unavailable of our engines; not what is refused, limited or cancelled."""
    assert blames_engine(Fault("x"))
    assert blames_engine(Unavailable("a replica died"))
    assert not blames_engine(Blameless("429"))
    assert not blames_engine(Refused("400"))
    assert not blames_engine(asyncio.CancelledError())
