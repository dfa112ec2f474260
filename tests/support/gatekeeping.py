"""A router with a gate: real detectors, real keys, a clinic's configuration, arms at home and abroad, and a store to look into."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gates import CLINIC

from agents.router.actor import Gatekeeper, Router
from agents.router.around import StoreAround
from agents.rules.masking import MaskMap
from agents.screen import Screen
from infra.clock import ManualClock
from infra.detect import detect, named
from infra.sealing import GateKeys
from infra.store import MemoryStore
from schemas.compliance import PolicyGate
from schemas.events import DecisionRouted, Message, RequestSubmitted
from schemas.findings import Finding
from schemas.gate import Flow, GateTenant
from schemas.payload import Payload
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, EmergencySettings, RoutingSettings
from streams.shapes import Emit, Event, P, Place, Record, View

NOW = 1_800_000_000_000
KEYS = GateKeys(bytes(range(32)))
FAR = 40_000_000_000
ARMS = (
    Arm(arm="near", provider="openai_http", model="m", clearance="secret", region="eu-west", nano_usd_in=1),
    Arm(arm="own", base="sha256:0", region="eu-west"),
    Arm(arm="abroad", provider="openai_http", model="m", clearance="secret", region="us-east", nano_usd_in=1),
    Arm(arm="last", provider="openai_http", model="m", clearance="secret", region="us-east", nano_usd_in=1),
    Arm(arm="nowhere", provider="openai_http", model="m", clearance="secret", nano_usd_in=1),
)
NAMES = tuple(arm.arm for arm in ARMS)
CHOSEN = ("own", "abroad", "nowhere")  # beside the champion; `last` is the emergency arm
TENANT = CLINIC.model_copy(update={"purpose": "care", "basis": "consent", "notice": "notice-2"})
"""The clinic, with defaults for requests that say nothing. Health data goes to `own` alone."""

CARD = "4111 1111 1111 1111"
MAIL = "ann.smith@example.org"
SECRET = "AKIA" + "Z7QX3MRTP2KVW5ND"
HEALTH = "The patient was diagnosed with HIV and takes insulin."


def route(**changes: Any) -> Route:
    told: dict[str, Any] = {
        "route": "ward",
        "tenant": "clinic",
        "arms": ARMS,
        "champion": "near",
        "challengers": ("abroad",),
        "release": "immediate",
        "trust": {"second_arm": "abroad"},
        "routing": RoutingSettings(
            arms=CHOSEN,
            cache=CacheSettings(exact=True, semantic=True),
            emergency=EmergencySettings(arm="last", share=0.5),
            hedge_share=0.05,
        ),
    }
    return Route.model_validate(told | changes)


def policies(tenant: GateTenant | None = TENANT, made: Route | None = None, **fleet: Any) -> tuple[Payload, ...]:
    """What is known of the ward: every arm is live, all of them are asked as shadows where `shadow_bp` says so."""
    made = made or route()
    told = {"champion": "near", "challenger": "abroad", "rollback": "nowhere", "shadow_bp": 10_000} | fleet
    rows = tuple(LiveArm(route="ward", arm=arm.arm, adapter=None, replicas=1) for arm in made.arms)
    known: tuple[Payload, ...] = (
        PolicyRoute(at_ms=NOW, version=3, route="ward", tenant="clinic", settings=made),
        PolicyFleet.model_validate({"at_ms": NOW, "version": 4, "route": "ward", "arms": made.arms} | told),
        PolicyLive(at_ms=NOW, version=5, instance="i1", arms=rows, until_ms=NOW + FAR),
        PolicyRouter(at_ms=NOW, version=1, route="ward", champion="near", code="learner/1"),
    )
    if tenant is None:
        return known
    return (*known, PolicyGate(at_ms=NOW, version=tenant.version, tenant="clinic", settings=tenant))


class Table:
    """A view that holds what it was given."""

    def __init__(self, *rows: Payload) -> None:
        self.rows: dict[str, Event[Any]] = {row.event_key(): event_of(row, "ratchet.policies") for row in rows}

    def get(self, model: type[P], key: str) -> Event[P] | None:
        return self.rows.get(key)

    def items(self, model: type[P]) -> Mapping[str, Event[P]]:
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self) -> float:
        return 0.0


class Kept:
    """Records that can be read again, by their place."""

    def __init__(self) -> None:
        self.rows: dict[Place, Record] = {}

    async def read(self, place: Place) -> Record | None:
        return self.rows.get(place)


def event_of(payload: Payload, topic: str = "ratchet.requests", offset: int = 7, key: str | None = None) -> Event[Any]:
    key = payload.event_key() if key is None else key
    headers = (("ce_type", payload.ce_type().encode()),)
    record = Record(topic, 2, offset, key.encode(), payload.model_dump_json().encode(), headers, NOW)
    return Event(f"id-{topic}-{key}", key, payload, "test", "", Place(topic, 2, offset), record)


def request(*texts: str, **changes: Any) -> RequestSubmitted:
    roles = ("user", "assistant")
    messages = tuple(Message(role=cast("Any", roles[at % 2]), content=text) for at, text in enumerate(texts or ("hi",)))
    told: dict[str, Any] = {"tenant": "clinic", "at_ms": NOW, "route": "ward", "request_id": "r1", "messages": messages}
    return RequestSubmitted.model_validate(told | changes)


class Ward:
    """A router of the ward over one store. `found`: what detectors find in the place of the real ones."""

    def __init__(
        self,
        *known: Payload,
        found: Callable[[str], Sequence[Finding]] = detect,
        monotonic: Callable[[], float] | None = None,
        keeps: bool = True,
    ) -> None:
        self.clock = ManualClock(NOW)
        self.store = MemoryStore(self.clock.monotonic)
        self.again = Kept()
        self.offset = 0
        view = cast("View", Table(*(known or policies())))
        screen = Screen(found, monotonic or self.clock.monotonic, named if found is detect else None)
        self.router = Router(
            view,
            self.store,
            StoreAround(self.store, self.clock),
            self.again,
            self.clock,
            lambda tenant: b"key-" + tenant.encode(),
            gatekeeper=Gatekeeper(screen, KEYS.seal_map) if keeps else None,
        )

    async def take(self, event: Event[Any]) -> list[Payload]:
        self.again.rows[event.place] = event.record
        return [emit.payload for emit in await self.router(event) if isinstance(emit, Emit)]

    async def ask(self, *texts: str, **changes: Any) -> list[Payload]:
        """What the router makes of a request."""
        self.offset += 1
        changes = {"request_id": f"r{self.offset}"} | changes
        return await self.take(event_of(request(*texts, **changes), offset=self.offset))

    async def decided(self, *texts: str, **changes: Any) -> DecisionRouted:
        """The decision of a request that goes on."""
        made = (await self.ask(*texts, **changes))[0]
        assert isinstance(made, DecisionRouted), made
        return made

    def held(self) -> str:
        """All that the store holds, keys and values."""
        return repr(vars(self.store))


def opened(decision: DecisionRouted) -> Mapping[str, str]:
    """What the placeholders of a decision stand for."""
    return MaskMap.decode(KEYS.open_map("clinic", decision.request_id, decision.mask_map)).values


def no_flows(tenant: GateTenant = TENANT) -> GateTenant:
    """The clinic with a flow to another continent alone."""
    return tenant.model_copy(update={"flows": (Flow(origin="eu", region="ap-south", tool="scc"),)})
