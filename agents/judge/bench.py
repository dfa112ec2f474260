"""What the judge keeps of a route, and one event being folded into it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.judge.arena import Arena, nulls_of
from agents.judge.breaker import Breaker
from agents.judge.order import Place
from agents.judge.pairs import Pending
from agents.rules.eprocess import Nulls
from schemas.payload import Payload
from schemas.policies import PolicyFleet
from schemas.routes import MODEL_GRADERS, Arm, Route
from streams.shapes import DeadLetter, Emit, Event, KeyState, Out, Tick

ARENA, ORDER, BREAKER = "arena/", "order", "breaker/"


class Waiting(BaseModel):
    """A registered challenger in line."""

    model_config = ConfigDict(frozen=True)

    arm: Arm
    fresh_after_ms: int


class Leaving(BaseModel):
    """A rollback that waits until the arm to return to is proven live."""

    model_config = ConfigDict(frozen=True)

    reason: str
    by: str = ""


class Bench(BaseModel):
    """The record: settings, arms and who is where. What changes with every pair lies in entries.

    `open`: keys of the arenas whose challengers are judged, oldest first; `watch`: the holdback's. `live`: arms that an engine has proven
    live and none has refused since. `opened`, `promotions`: counted for e-LOND.
    """

    model_config = ConfigDict(frozen=True)

    settings: Route
    version: int = 0
    fleet_version: int = 0
    arms: tuple[Arm, ...] = ()
    champion: str = ""
    rollback: str | None = None
    paused: bool = False
    open: tuple[str, ...] = ()
    watch: str = ""
    leaving: Leaving | None = None
    live: tuple[str, ...] = ()
    queue: tuple[Waiting, ...] = ()
    cooldown_until_ms: int = 0
    opened: int = 0
    promotions: int = 0
    commands: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm:
        """The arm of that name; StopIteration where there is none."""
        return next(arm for arm in self.arms if arm.arm == name)


class Entry(BaseModel):
    """One entry of a route: exactly one of these, or nothing (a subject that had its pair today)."""

    model_config = ConfigDict(frozen=True)

    arena: Arena | None = None
    pending: Pending | None = None
    order: Place | None = None
    breaker: Breaker | None = None


State = KeyState[Bench, Entry]


class Judging:
    """One event while it is folded: the bench as it changes, entries put and dropped, emits."""

    def __init__(self, state: State, bench: Bench, now_ms: int, event: Event[Payload] | Tick) -> None:
        self.state, self.bench, self.now_ms, self.event, self.cause = state, bench, now_ms, event, event.id
        self.put: dict[str, Entry] = {}
        self.drop: dict[str, None] = {}
        self.emits: list[Out] = []
        self.due_ms: int | None = None
        self._nulls: dict[float | None, Mapping[str, Nulls]] = {}

    # what is known

    def entry(self, name: str) -> Entry | None:
        """An entry as it is now."""
        if name in self.drop:
            return None
        return self.put.get(name) or self.state.entries.get(name)

    def arena(self, key: str) -> Arena | None:
        """The arena of a key, open or not."""
        found = self.entry(ARENA + key)
        return None if found is None else found.arena

    def arenas(self) -> list[Arena]:
        """The open arenas, oldest first."""
        return [arena for key in self.bench.open if (arena := self.arena(key)) is not None]

    def staged(self) -> Arena | None:
        """The arena whose challenger is on its way to all requests."""
        return next((arena for arena in self.arenas() if arena.stage), None)

    def judged(self, challenger: str) -> Arena | None:
        """The open arena of a challenger."""
        return next((arena for arena in self.arenas() if arena.challenger == challenger), None)

    def watched(self) -> Arena | None:
        """The holdback after the last promotion."""
        return self.arena(self.bench.watch) if self.bench.watch else None

    @property
    def place(self) -> Place:
        found = self.entry(ORDER)
        return found.order if found is not None and found.order is not None else Place()

    def breaker(self, arm: str) -> Breaker | None:
        """The breaker that watches an arm: one on its way, or the champion while it can be taken back."""
        found = self.entry(BREAKER + arm)
        return None if found is None else found.breaker

    def nulls(self, overlay: float | None) -> Mapping[str, Nulls]:
        """What tracks are read against while pairs are folded, at the settings of now."""
        if overlay not in self._nulls:
            self._nulls[overlay] = nulls_of(self.bench.settings.judge, overlay)
        return self._nulls[overlay]

    # what happens

    def change(self, **fields: Any) -> None:
        """Change the record."""
        self.bench = self.bench.model_copy(update=fields)

    def keep(self, name: str, entry: Entry) -> None:
        """Put an entry."""
        self.drop.pop(name, None)
        self.put[name] = entry

    def forget(self, name: str) -> None:
        """Drop an entry."""
        self.put.pop(name, None)
        if name in self.state.entries:
            self.drop[name] = None

    def keep_arena(self, arena: Arena, **fields: Any) -> Arena:
        """Put an arena, with some fields changed."""
        if fields:
            arena = arena.model_copy(update=fields)
        self.keep(ARENA + arena.key, Entry(arena=arena))
        return arena

    def keep_breaker(self, breaker: Breaker) -> None:
        """Put the breaker of its arm."""
        self.keep(BREAKER + breaker.arm, Entry(breaker=breaker))

    def drop_breaker(self, arm: str) -> None:
        """Nobody watches the arm any more."""
        self.forget(BREAKER + arm)

    def wake(self, at_ms: int) -> None:
        """A tick is wanted then, at the latest."""
        self.due_ms = at_ms if self.due_ms is None else min(self.due_ms, at_ms)

    def give_up(self, kind: str, message: str) -> None:
        """The event becomes a dead letter."""
        if not isinstance(self.event, Tick):
            self.emits.append(DeadLetter(self.event.record, kind, message))

    def emit(self, payload: Payload, identity: str) -> None:
        """Send an event; its id is derived from the cause and `identity`."""
        self.emits.append(Emit(payload, identity))

    def adapter_of(self, name: str) -> str | None:
        """The adapter of an arm that the fleet has, or had until this event."""
        before = () if self.state.record is None else self.state.record.arms
        return next((arm.adapter for arm in (*self.bench.arms, *before) if arm.arm == name), None)

    def common(self, arena: Arena) -> dict[str, Any]:
        """What every event about an arena says."""
        return {
            "tenant": self.bench.settings.tenant,
            "at_ms": self.now_ms,
            "route": self.bench.settings.route,
            "arena": arena.key,
            "champion": arena.champion,
            "challenger": arena.challenger,
            "adapter": self.adapter_of(arena.challenger),
        }

    def publish_fleet(self, reason: str) -> None:
        """The fleet as it is now, one version on."""
        open_now, staged, watched = self.arenas(), self.staged(), self.watched()
        bench, judge = self.bench, self.bench.settings.judge
        shares = [bench.settings.shadow_share for arena in open_now if not arena.stage]
        shares += [judge.stage_pair_share] if staged else []
        shares += [judge.holdback_share] if watched else []
        leading = staged or (open_now[0] if open_now else None)
        shadows = [arena.challenger for arena in open_now]
        shadows += [watched.champion] if watched and watched.champion not in shadows else []
        loaded = [name for name in others(bench.settings) if name not in (bench.champion, *shadows)]
        named = [bench.champion, bench.rollback, *shadows, *(arm.arm for arm in bench.settings.arms)]
        arms = tuple(arm for arm in bench.arms if arm.arm in named)
        self.change(fleet_version=bench.fleet_version + 1, arms=arms)
        self.emit(
            PolicyFleet(
                tenant=bench.settings.tenant,
                at_ms=self.now_ms,
                route=bench.settings.route,
                version=self.bench.fleet_version,
                arms=arms,
                champion=bench.champion,
                challenger=leading.challenger if leading else None,
                rollback=bench.rollback,
                rollout_bp=self._rollout_bp(leading),
                shadow_bp=round(max(shares, default=0.0) * 10_000),
                experiment=leading.key if leading else "",
                shadows=tuple(shadows),
                loaded=tuple(loaded),
                arenas=(*bench.open, *((bench.watch,) if watched else ())),
                paused=bench.paused,
                reason=reason,
            ),
            f"fleet-{self.bench.fleet_version}",
        )

    def _rollout_bp(self, leading: Arena | None) -> int:
        if leading is None:
            return 0
        settings = self.bench.settings
        share = settings.judge.stages[leading.stage - 1] if leading.stage else settings.rollout
        return round(share * 10_000)


def others(settings: Route) -> tuple[str, ...]:
    """Arms that are kept loaded though the judge lets them serve nobody, each once.

    A judge model, a second opinion, and whatever the router may choose: an arm that is not loaded is masked, so it would never be chosen.
    """
    routing = settings.routing
    judging = (settings.grading.arm,) if settings.grader in MODEL_GRADERS else ()
    second = settings.trust.second_arm
    named = (*judging, second or "", routing.arm, *routing.arms, *routing.cascade.arms, routing.emergency.arm)
    return tuple(dict.fromkeys(name for name in named if name))
