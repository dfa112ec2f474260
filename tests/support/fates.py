"""Requests from the router to their closed cases, agents taken one step at a time: whoever holds the world says who is next.

Router, trust and cases are the real ones over one log. What models do is said beforehand, by inference's own rules. A step that did not
commit is taken again; each agent reads each topic in its order, and nothing orders topics among each other.
"""

import random  # noqa: TID251 hypothesis draws and seeds it
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from answering import KEYS, SECRET, trust
from folding import Folding
from gatekeeping import Kept
from gates import SHOP

from agents.cases.fold import Cases
from agents.inference import decide
from agents.ports import Generation
from agents.router.actor import Gatekeeper, Router
from agents.router.around import StoreAround
from agents.screen import Screen
from infra.clock import ManualClock
from infra.detect import detect
from infra.store import MemoryStore
from schemas import codec, ids
from schemas.compliance import PolicyGate
from schemas.errors import Unavailable
from schemas.events import ArmVerdict, Message, RequestSubmitted, ReviewRequested, VerdictGiven
from schemas.findings import Finding
from schemas.payload import Payload
from schemas.policies import SIGNALS, LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyTrust
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, CascadeSettings, EmergencySettings, RoutingSettings
from streams.shapes import DeadLetter, Emit, Event, Out, P, Place, Record

NOW = 1_800_000_000_000
WINDOW_S = 60
ARMS = tuple(Arm(arm=name, base=f"sha256:{name}", region="eu-west", nano_usd_out=1) for name in ("old", "new", "last"))
ASKED = (*("When do you open?", "I am anna@example.org") * 3, f"what is {SECRET}")
ANSWERS = ("At nine.", "Dear [EMAIL_1]", "Ask otto@example.com", f"It is {SECRET}")
Doing = tuple[str, str]  # an agent, and the topic that it reads next


@dataclass(frozen=True)
class Setting:
    """How the route is served."""

    gated: bool = True
    gate: bool = True
    grader: str = "verdict"
    review_share: float = 1.0
    cascade: bool = False
    cached: bool = False
    shadowed: bool = False
    emergency: bool = False
    mode: str = "SHADOW"

    def route(self) -> Route:
        routing = RoutingSettings(
            cascade=CascadeSettings(below=0.99, arms=("old", "new")) if self.cascade else CascadeSettings(),
            cache=CacheSettings(exact=self.cached),
            emergency=EmergencySettings(arm="last", share=0.5),
        )
        told: dict[str, Any] = {
            "route": "bank", "tenant": "shop", "arms": ARMS, "champion": "old", "window_s": WINDOW_S, "deadline_s": 30,
            "release": "gated" if self.gated else "immediate", "compliance": "standard" if self.gate else "off",
            "grader": self.grader, "review_share": self.review_share, "routing": routing,
            "trust": {"audit_share": 0.5},
        }  # fmt: skip
        if self.shadowed:
            told["challengers"] = ("new",)
        if self.grader == "rubric":
            told["grading"] = {"arm": "last", "rubric": "short", "human_share": 0.5}
        return Route.model_validate(told)

    def policies(self) -> tuple[Payload, ...]:
        made = self.route()
        fleet: dict[str, Any] = {"at_ms": NOW, "version": 1, "route": "bank", "tenant": "shop", "arms": ARMS}
        fleet |= {"champion": "old", "loaded": ("new", "last")}
        fleet |= {"challenger": "new", "shadow_bp": 10_000} if self.shadowed else {}
        live = tuple(
            LiveArm(route="bank", arm=arm.arm, adapter=None, replicas=1)
            for arm in ARMS
            if arm.arm == "last" or not self.emergency
        )
        return (
            PolicyRoute(at_ms=NOW, version=1, route="bank", tenant="shop", settings=made),
            PolicyFleet.model_validate(fleet),
            PolicyLive(at_ms=NOW, version=1, instance="i", arms=live, until_ms=NOW + 10**9),
            PolicyGate(at_ms=NOW, version=2, tenant="shop", settings=SHOP),
            self.trust(self.mode),
        )

    def trust(self, mode: str) -> PolicyTrust:
        """What the ladder let out by then: about half of the answers by their scores."""
        told = {"at_ms": NOW, "version": 1, "route": "bank", "tenant": "shop", "scorer": "s1", "signals": SIGNALS}
        told |= {"weights": (2.0, 0, 0, 0, 0, 0), "bias": 1.0, "arm": "old", "mode": mode, "threshold": 0.5}
        return PolicyTrust.model_validate(told | {"floor": 0.0 if mode == "ENFORCE" else None})


class Policies:
    """A view whose rows come and go."""

    def __init__(self, rows: Sequence[Payload]) -> None:
        self.rows: dict[str, Event[Any]] = {}
        for row in rows:
            self.put(row)

    def put(self, row: Payload) -> None:
        key = row.event_key()
        record = Record("ratchet.policies", 0, 1, key.encode(), b"", (), NOW)
        self.rows[key] = Event(f"id-{key}", key, row, "test", "", record.place, record)

    def get(self, model: type[P], key: str) -> Event[P] | None:
        return self.rows.get(key)

    def items(self, model: type[P]) -> dict[str, Event[P]]:
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self) -> float:
        return 0.0


class Models:
    """Inference by its rules alone: what an order comes to is drawn."""

    name = decide.NAME
    inputs = ("ratchet.decisions", "ratchet.shadows")

    def __init__(self, clock: ManualClock, draw: random.Random) -> None:
        self._clock = clock
        self._draw = draw
        self._made: dict[str, tuple[Out, ...]] = {}

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        """The same order comes to the same, however often it is taken."""
        order = decide.order_of(event)
        if order is None:
            return ()
        if event.id not in self._made:
            self._made[event.id] = tuple(self._outcome(order))
        return self._made[event.id]

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        raise AssertionError("nothing is away here")

    def _outcome(self, order: decide.Order) -> Sequence[Out]:
        now = self._clock.now_ms()
        before = decide.given_before(order, now, "i")
        if before is not None:
            return (Emit(before, f"completed/{before.arm}"),)
        kind = self._draw.choice(("answers", "answers", "answers", "falls back", "is hedged", "refuses", "gives up"))
        first, *others = order.arms
        if kind == "gives up":
            return decide.given_up(order, "unavailable", "away", now, "i")
        if kind == "refuses":
            return (decide.failed(order, first, "refused", "not this one", now, "i", final=True),)
        if kind == "falls back" and others:
            away = decide.failed(order, first, "unavailable", "away", now, "i", final=False)
            return (away, self._answer(order, others[0]))
        if kind == "is hedged" and not order.shadow:
            lost = decide.failed(order, first, "hedge_lost", "late", now, "i", final=False, hedge=True)
            other = next(arm.arm for arm in ARMS if arm.arm != first)
            return (lost, self._answer(order, other))
        return (self._answer(order, first),)

    def _answer(self, order: decide.Order, arm: str) -> Emit:
        sure = self._draw.choice((-0.1, -1.0))
        text = self._draw.choice(ANSWERS)
        made = Generation(text, 3, 2, 12.0, 4.0, "stop", (sure,), None, "scripted", "rep1")
        result = decide.completed(order, arm, made, self._clock.now_ms(), "i")
        return Emit(result, f"completed/{arm}")


class World:
    """One log, a cursor for each agent and topic; `broken`: detectors raise."""

    def __init__(self, setting: Setting, draw: random.Random) -> None:
        self.setting, self.draw = setting, draw
        self.clock = ManualClock(NOW)
        self.view = Policies(setting.policies())
        self.log: dict[str, list[Event[Payload]]] = defaultdict(list)
        self.letters: list[DeadLetter] = []
        self.kept = Kept()
        self.broken = False
        self.cases = Folding(Cases())
        store = MemoryStore(self.clock.monotonic)
        around, gatekeeper = StoreAround(store, self.clock), Gatekeeper(Screen(self._look, still), KEYS.seal_map)
        view: Any = self.view
        router = Router(view, store, around, self.kept, self.clock, lambda tenant: b"key", gatekeeper=gatekeeper)
        trusted = trust(view, self.clock, store, look=self._look, monotonic=still)
        self.agents: dict[str, Any] = {
            "router": router,
            "inference": Models(self.clock, draw),
            "trust": trusted,
        }
        self.at: dict[Doing, int] = {
            (name, topic): 0 for name, agent in self.agents.items() for topic in agent.inputs
        } | {("cases", f"ratchet.{topic}"): 0 for topic in Cases.inputs}
        self.said = 0

    def _look(self, text: str) -> Sequence[Finding]:
        if self.broken:
            raise RuntimeError("broken")
        return detect(text)

    # the log

    def append(self, payload: Payload, event_id: str) -> Event[Payload]:
        topic = f"ratchet.{payload.TOPIC}"
        row = codec.encode(payload, event_id=event_id, source="test", traceparent="")
        place = Place(topic, 0, len(self.log[topic]))
        record = Record(topic, 0, place.offset, row.key, row.value, row.headers, self.clock.now_ms())
        event = Event(event_id, row.key.decode(), payload, "test", "", place, record)
        self.log[topic].append(event)
        self.kept.rows[place] = record
        return event

    def say(self, payload: Payload) -> None:
        """As somebody outside does."""
        self.said += 1
        self.append(payload, ids.derive(f"said-{self.said}", "test", 0))

    def data(self, topic: str) -> list[Any]:
        return [event.data for event in self.log[f"ratchet.{topic}"]]

    # the agents

    def pending(self) -> list[Doing]:
        return [who for who, at in self.at.items() if at < len(self.log[who[1]])]

    async def step(self, who: Doing, *, twice: bool = False) -> None:
        """An agent takes the next record of a topic. `twice`: it crashed before its first transaction was committed."""
        name, topic = who
        event = self.log[topic][self.at[who]]
        self.at[who] += 1
        if name == "cases":
            self._out_of_cases(self.cases.take(event.data, event.id))
            return
        agent = self.agents[name]
        outs: Sequence[Out] = ()
        for _ in range(2 if twice else 1):
            try:
                outs = await agent(event)
            except Unavailable as error:
                outs = agent.expired(event, error)
        for index, out in enumerate(outs):
            if isinstance(out, DeadLetter):
                self.letters.append(out)
            else:
                self.append(out.payload, ids.derive(event.id, name, out.identity or index))

    def _out_of_cases(self, found: list[Payload]) -> None:
        for payload, event_id in zip(found, self.cases.ids[len(self.cases.ids) - len(found) :], strict=True):
            self.append(payload, event_id)

    async def tick(self) -> None:
        """Cases have read all that there is, then they hear the time."""
        while mine := [who for who in self.pending() if who[0] == "cases"]:
            await self.step(self.draw.choice(mine))
        self._out_of_cases(self.cases.tick(self.clock.now_ms()))

    async def rest(self) -> None:
        """Until nothing is left to do at this time."""
        while True:
            while found := self.pending():
                await self.step(self.draw.choice(found))
            await self.tick()
            if not self.pending():
                return

    # people

    def ask(self) -> None:
        now, number = self.clock.now_ms(), len({row.request_id for row in self.data("requests")})
        said = (Message(role="user", content=self.draw.choice(ASKED)),)
        told = {"at_ms": now, "tenant": "shop", "route": "bank", "request_id": f"r{number}", "messages": said}
        self.say(RequestSubmitted.model_validate(told))

    def judge(self) -> None:
        """Somebody says something of a request: a person or a model of a review, a reference of any."""
        asked = self.data("requests")
        if not asked:
            return
        kind = self.draw.choice(("person", "person", "reference", "model"))
        reviews = [row for row in self.data("reviews") if isinstance(row, ReviewRequested)]
        told: dict[str, Any] = {"at_ms": self.clock.now_ms(), "tenant": "shop", "route": "bank", "kind": kind}
        told |= {"by": self.draw.choice(("ann", "bob"))}
        right = self.draw.choice(("Ten.", *ANSWERS))
        if kind == "reference":
            about = self.draw.choice(asked).request_id
            self.say(VerdictGiven.model_validate(told | {"request_id": about, "corrected": right}))
        elif reviews:
            review = self.draw.choice(reviews)
            says = self.draw.choice(("approve", "approve", "reject", "corrects"))
            rows = [ArmVerdict(label=row.label, decision=self._of(says)).model_dump() for row in review.answers]
            more = {"corrected": right} if says == "corrects" and kind == "person" else {"answers": rows}
            self.say(VerdictGiven.model_validate(told | {"request_id": review.request_id} | more))

    def _of(self, says: str) -> Any:
        return says if says == "reject" else self.draw.choice(("approve", "approve", "reject"))

    def again(self) -> None:
        """Somebody sends a record once more."""
        for topic in ("requests", "verdicts"):
            if rows := self.log[f"ratchet.{topic}"]:
                event = self.draw.choice(rows)
                self.append(event.data, event.id)

    def change(self) -> None:
        """Operators change what trust and gate go by."""
        what = self.draw.choice(("gate", "mode", "mode", "detectors"))
        if what == "detectors":
            self.broken = not self.broken
        elif what == "mode":
            self.view.put(self.setting.trust(self.draw.choice(("SHADOW", "ENFORCE", "GRANTED"))))
        elif self.view.rows.pop("gate/shop", None) is None:
            self.view.put(PolicyGate(at_ms=NOW, version=3, tenant="shop", settings=SHOP))


def still() -> float:
    """The time of scans: a busy machine is no reason to deny here."""
    return 0.0
