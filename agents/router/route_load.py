"""What the estimator keeps of a route, and one event being folded into it."""

from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agents.router.capacity import BUCKET_MS, RING
from agents.router.load import Load
from schemas.policies import CapacityArm
from streams.shapes import UNCHANGED, Change, KeyState, Out


class Declared(BaseModel):
    """What the settings say of an arm. `ours`: our engines run it."""

    model_config = ConfigDict(frozen=True)

    adapter: str | None = None
    ours: bool = True


class Past(BaseModel):
    """What is known of an arm from before: a call of it (`like`), and what one replica held, by octave of calls at work."""

    model_config = ConfigDict(frozen=True)

    adapter: str | None = None
    like: Load = Load()
    held: dict[int, Load] = Field(default_factory=dict[int, Load])


class RouteLoad(BaseModel):
    """The record. `head`: the bucket that time has reached; all before it are complete.

    `needs`: arm -> (bucket, replicas), falling, so that the first is the most of the last ten minutes. `advised`: (bucket, engines)
    from when on so many were advised.
    """

    model_config = ConfigDict(frozen=True)

    tenant: str
    champion: str
    challengers: tuple[str, ...] = ()
    arms: dict[str, Declared] = Field(default_factory=dict[str, Declared])
    limit_ms: int | None = None
    leading: str = ""
    head: int = 0
    version: int = 0
    needs: dict[str, tuple[tuple[int, int], ...]] = Field(default_factory=dict[str, tuple[tuple[int, int], ...]])
    advised: tuple[tuple[int, int], ...] = ()
    published: tuple[CapacityArm, ...] = ()
    commands: tuple[str, ...] = ()


class Part(BaseModel):
    """One entry: the load of an arm in a bucket (`load/BUCKET/ARM`), or its past (`past/ARM`)."""

    model_config = ConfigDict(frozen=True)

    load: Load | None = None
    past: Past | None = None


State: TypeAlias = KeyState[RouteLoad, Part]
Result: TypeAlias = Change[RouteLoad, Part]


class Turn:
    """One event: the record and entries as they change."""

    def __init__(self, state: State, record: RouteLoad) -> None:
        self.state, self.record = state, record
        self.put: dict[str, Part] = {}
        self.drop: dict[str, None] = {}
        self.emits: list[Out] = []
        self.due_ms = state.due_ms

    def set(self, **fields: object) -> None:
        self.record = self.record.model_copy(update=fields)

    def entry(self, name: str) -> Part | None:
        return None if name in self.drop else self.put.get(name) or self.state.entries.get(name)

    def add(self, bucket: int, arm: str, load: Load) -> None:
        """One more load of a bucket in the ring."""
        if bucket <= self.record.head - RING:
            return
        name = f"load/{bucket}/{arm}"
        held = self.entry(name)
        self.put[name] = Part(load=load if held is None or held.load is None else held.load.plus(load))
        self.due_ms = self.due_ms or (self.record.head + 1) * BUCKET_MS

    def past(self, arm: str) -> Past:
        held = self.entry(f"past/{arm}")
        return Past() if held is None or held.past is None else held.past

    def keep(self, arm: str, past: Past) -> None:
        self.put[f"past/{arm}"] = Part(past=past)

    def loads(self) -> dict[str, dict[int, Load]]:
        """Arm -> bucket -> load, of all that is in the ring."""
        found: dict[str, dict[int, Load]] = {}
        for name in sorted({*self.state.entries, *self.put} - self.drop.keys()):
            kind, _, rest = name.partition("/")
            part = self.entry(name)
            if kind == "load" and part is not None and part.load is not None:
                bucket, _, arm = rest.partition("/")
                found.setdefault(arm, {})[int(bucket)] = part.load
        return found

    def change(self) -> Result:
        return Change(
            emits=tuple(self.emits),
            record=UNCHANGED if self.record is self.state.record else self.record,
            put=self.put,
            drop=tuple(self.drop),
            due_ms=self.due_ms,
        )
