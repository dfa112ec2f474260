"""What the trainer keeps of a route, and one event being folded into it. Pure.

Entries of a route, by name: `index`; a text's hash, for the row that it is; `order ID`; `used ID STEP`, for whose rows that order's job
said that it uses; `erased SUBJECT`, for an erasure below which cases may still come. Of orders the newest `KEPT_ADAPTERS` with an
adapter are kept and the newest `KEPT_OTHERS` without one, beside what serves, is judged or is under way.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import TrainingOrdered
from schemas.payload import Payload
from schemas.routes import Arm, Route
from streams.shapes import Emit, Event, KeyState, Out, Tick

INDEX, ORDER, USED, ERASED = "index", "order ", "used ", "erased "
KEPT_ADAPTERS, KEPT_OTHERS = 32, 8


class Index(BaseModel):
    """What is known of the rows: counts, and where their cases lie."""

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    classes: dict[str, int] = {}
    partition: int = 0
    first: int = -1
    last: int = -1
    rows_at_order: int = 0
    last_order_ms: int = 0


class Forgotten(BaseModel):
    """An erasure. `cut`: partition -> offset of requests below which it holds. `rows`: the requests of an order's rows that it covers."""

    model_config = ConfigDict(frozen=True)

    subject: str
    erasure: str
    cut: dict[int, int]
    rows: tuple[tuple[int, int], ...] = ()

    def covers(self, subject: str, partition: int, offset: int) -> bool:
        """Whether it speaks of that request."""
        return subject == self.subject and offset < self.cut.get(partition, 0)


class Made(BaseModel):
    """An order and what came of it; no `adapter`: nothing yet, and maybe never.

    `erasures`: those since it was ordered, for what its job may still name. `hits`: those of them whose rows it uses.
    """

    model_config = ConfigDict(frozen=True)

    at_ms: int
    adapter: str = ""
    dataset: str = ""
    arm: str = ""
    erasures: tuple[Forgotten, ...] = ()
    hits: tuple[Forgotten, ...] = ()


class Gone(BaseModel):
    """Partition -> offset of requests below which a subject is erased, and when that was said last."""

    model_config = ConfigDict(frozen=True)

    at_ms: int
    cut: dict[int, int]


class Slot(BaseModel):
    """An entry: the index, an order, whose rows it uses, an erasure; or one text's label, the offset of its newest case, and where its
    request lies.

    `used`: lines of subject, partition and offset; a text, for there are many.
    """

    model_config = ConfigDict(frozen=True)

    index: Index | None = None
    made: Made | None = None
    used: str = ""
    label: str = ""
    offset: int = -1
    subject: str | None = None
    request: tuple[int, int] = (0, 0)
    gone: Gone | None = Field(default=None, exclude_if=lambda found: found is None)


class Trains(BaseModel):
    """What the trainer knows of one route besides its rows. `retrain`: an adapter that serves or is judged used rows that are erased."""

    model_config = ConfigDict(frozen=True)

    settings: Route
    champion: str
    adapters: dict[str, str] = {}
    arena_open: bool = False
    challengers: tuple[str, ...] = ()
    order: TrainingOrdered | None = None
    heard_ms: int = 0
    asked: bool = False
    retrain: bool = False
    commands: tuple[str, ...] = ()

    def champion_arm(self) -> Arm:
        """The serving arm; a learnt one has the first arm's prompt and its own adapter."""
        declared = {arm.arm: arm for arm in self.settings.arms}
        if self.champion in declared:
            return declared[self.champion]
        first = declared[self.settings.champion]
        return first.model_copy(update={"arm": self.champion, "adapter": self.adapters.get(self.champion)})

    def at_work(self, arm: str) -> bool:
        """Whether an arm serves or is judged."""
        return arm == self.champion or arm in self.challengers


class Step:
    """One event being folded."""

    def __init__(
        self, state: KeyState[Trains, Slot], record: Trains, event: Event[Payload] | Tick, now_ms: int
    ) -> None:
        self.state, self.record, self.event, self.now_ms = state, record, event, now_ms
        slot = state.entries.get(INDEX)
        self.index = slot.index if slot is not None and slot.index is not None else Index()
        self.put: dict[str, Slot] = {}
        self.drop: list[str] = []
        self.emits: list[Out] = []

    def change(self, **fields: Any) -> None:
        self.record = self.record.model_copy(update=fields)

    def reindex(self, **fields: Any) -> None:
        self.index = self.index.model_copy(update=fields)
        self.put[INDEX] = Slot(index=self.index)

    def emit(self, payload: Payload, identity: str) -> None:
        self.emits.append(Emit(payload, identity))

    def common(self, order: TrainingOrdered) -> dict[str, Any]:
        return {"tenant": order.tenant, "at_ms": self.now_ms, "route": order.route, "order_id": order.order_id}

    def rows(self) -> Iterator[tuple[str, Slot]]:
        """The rows as they were before this event, in no order."""
        return ((name, slot) for name, slot in self.state.entries.items() if slot.offset >= 0)

    def made(self, order_id: str) -> Made | None:
        """What is known of an order, with what this event has changed."""
        name = ORDER + order_id
        slot = self.put.get(name) or self.state.entries.get(name)
        return None if slot is None or name in self.drop else slot.made

    def orders(self) -> list[tuple[str, Made]]:
        """The known orders, oldest first."""
        names = sorted({name for name in chain(self.state.entries, self.put) if name.startswith(ORDER)})
        found = [(name.removeprefix(ORDER), self.made(name.removeprefix(ORDER))) for name in names]
        return sorted(
            [(name, made) for name, made in found if made is not None], key=lambda row: (row[1].at_ms, row[0])
        )

    def keep(self, order_id: str, made: Made) -> None:
        self.put[ORDER + order_id] = Slot(made=made)

    def used(self, order_id: str) -> list[tuple[str, Slot]]:
        """What an order's job has said that it uses, with what this event has changed."""
        prefix = f"{USED}{order_id} "
        names = sorted({name for name in chain(self.state.entries, self.put) if name.startswith(prefix)})
        return [(name, self.put[name] if name in self.put else self.state.entries[name]) for name in names]

    def let_go(self, order_id: str) -> None:
        """Know nothing more of an order."""
        names = [ORDER + order_id, *(name for name, _ in self.used(order_id))]
        self.put = {name: slot for name, slot in self.put.items() if name not in names}
        self.drop += [name for name in names if name in self.state.entries]
