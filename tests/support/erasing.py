"""An erasure's surroundings for tests: a tenant, its routes, topics with every setting that counts."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from spoken import Ears, credential

from agents.evidence.shred import KEYRING as RING
from agents.evidence.shred import Stand
from agents.evidence.shredder import Shredder
from schemas.compliance import CommandErase, KeyWrapped, PolicyGate, SubjectErased, SubjectKept
from schemas.events import Message, RequestSubmitted
from schemas.gate import GateTenant, Hold
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.principal import Prove
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, RoutingSettings
from schemas.topics import DAY_MS, KEYRING, plans, with_texts
from streams.admin import ensure_groups
from streams.memory import MemoryBroker
from streams.port import Clock, Fault, TopicSpec
from streams.runner import Runner, RuntimeSettings
from streams.standing import Standing
from streams.wire import Decoder

NOW = 1_790_000_000_000
TENANT = "acme"
ANN = "a" * 32
SEGMENT_MS = 7 * DAY_MS
PARTITIONS = 2
FAST = RuntimeSettings(linger_s=0.002, retry_s=0.05, defer_s=0.05, fenced_wait_s=0.02, tick_s=60)
RECEIPTS = (SubjectErased, SubjectKept)


def command(subject: str = ANN, tenant: str = TENANT, at_ms: int = NOW) -> CommandErase:
    return CommandErase(tenant=tenant, at_ms=at_ms, operator="op", subject=subject)


def wrapped(epoch: int = 1, subject: str = ANN, tenant: str = TENANT) -> KeyWrapped:
    return KeyWrapped(tenant=tenant, at_ms=NOW, subject=subject, epoch=epoch, wrapped=f"vault:v1:{epoch}")


def hold(name: str = "case-7", **more: Any) -> Hold:
    return Hold(id=name, **more)


def gate(*holds: Hold, tenant: str = TENANT) -> GateTenant:
    return GateTenant(tenant=tenant, holds=holds)


def policy(*holds: Hold, tenant: str = TENANT, version: int = 1) -> PolicyGate:
    return PolicyGate(tenant=tenant, at_ms=NOW, version=version, settings=gate(*holds, tenant=tenant))


def route(name: str = "cards", tenant: str = TENANT, *, window_s: float = 3600, ttl_s: int = 60) -> PolicyRoute:
    settings = Route(
        route=name,
        tenant=tenant,
        arms=(Arm(arm="base", base="sha256:0"),),
        champion="base",
        window_s=window_s,
        routing=RoutingSettings(cache=CacheSettings(ttl_s=ttl_s)),
    )
    return PolicyRoute(tenant=tenant, route=name, at_ms=NOW, version=1, settings=settings)


def configs(**keyring: str) -> dict[str, dict[str, str]]:
    """As brokers tell them: the table's settings, and a segment's week where the table says nothing."""
    found = {plan.full: {"segment.ms": str(SEGMENT_MS)} | plan.config for plan in plans()}
    ring = KEYRING | {name.replace("_", "."): text for name, text in keyring.items()}
    return {name: found[name] for name in with_texts()} | {RING: ring}


def stand(
    *holds: Hold,
    now_ms: int = NOW,
    routes: Sequence[PolicyRoute] = (),
    ends: Mapping[int, int] | None = None,
    backup_ms: int = 0,
    **more: Any,
) -> Stand:
    told: dict[str, Any] = {"gate": gate(*holds), "configs": configs()} | more
    return Stand(now_ms=now_ms, routes=routes, ends=ends or {0: 5, 1: 7}, backup_ms=backup_ms, **told)


class Says:
    """The shredder's own voice."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    async def prover(self) -> Prove:
        return lambda row: credential("shredder").prove(row, at_ms=self.clock.now_ms())


class World:
    """A shredder that listens, with a tenant, a route and a key."""

    def __init__(self, *, ears: Ears | None = None, faults: Fault | None = None) -> None:
        self.broker = MemoryBroker(PARTITIONS)
        self.ears, self.faults = ears, faults
        self.standing = Standing(self.broker)

    async def start(self) -> None:
        admin = self.broker.admin()
        await admin.create([TopicSpec(row.full, PARTITIONS, 1, {"segment.ms": "1000"} | row.config) for row in plans()])
        for payload in (policy(), route("cards"), route("other", tenant="umbrella"), wrapped(1)):
            self.broker.publish(payload)
        for number in range(5):
            request = RequestSubmitted(
                at_ms=NOW,
                route="cards",
                tenant=TENANT,
                request_id=f"r{number}",
                messages=(Message(role="user", content="x"),),
            )
            self.broker.publish(request)
        self.make()
        await ensure_groups("memory", self.runner.groups(), admin=admin)
        self.task = asyncio.create_task(self.runner.run())

    def make(self) -> None:
        clock = self.broker.clock
        self.runner = Runner(
            self.broker, clock, settings=FAST, decoder=Decoder(self.ears), fault=self.faults, artifacts=None
        )
        self.agent = Shredder(
            self.runner.view("policies"), self.runner.view("keyring"), self.standing, Says(clock), clock
        )
        self.runner.add_transform(self.agent, workers=1)

    def of(self, topic: str, kind: type[Payload]) -> list[Payload]:
        return [event.data for event in self.broker.events(topic) if isinstance(event.data, kind)]

    def answers(self) -> list[Payload]:
        return [event.data for event in self.broker.events("observations") if isinstance(event.data, RECEIPTS)]

    async def answered(self, count: int) -> list[Payload]:
        async with asyncio.timeout(20):
            while len(self.answers()) < count:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.005)
        return self.answers()
