"""An erasure's surroundings for tests: a tenant, its routes, topics with every setting that counts."""

from collections.abc import Mapping, Sequence
from typing import Any

from agents.evidence.shred import KEYRING as RING
from agents.evidence.shred import Stand
from schemas.compliance import CommandErase, KeyWrapped, PolicyGate
from schemas.gate import GateTenant, Hold
from schemas.policies import PolicyRoute
from schemas.routes import Arm, Route
from schemas.routing import CacheSettings, RoutingSettings
from schemas.topics import DAY_MS, KEYRING, plans, with_texts

NOW = 1_790_000_000_000
TENANT = "acme"
ANN = "a" * 32
SEGMENT_MS = 7 * DAY_MS


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
