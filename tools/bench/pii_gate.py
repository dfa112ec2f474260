"""How long the gate in front of the router takes: scan, rules, masks and the sealed map of one request."""

import asyncio
import statistics
import time
from collections.abc import Sequence

from agents.router.gatekeeper import Gatekeeper
from agents.router.observed import Policies
from agents.screen import Screen
from infra import banking77
from infra.clock import SystemClock
from infra.detect import detect, named
from infra.sealing import GateKeys
from schemas.compliance import PolicyGate
from schemas.events import Message, RequestSubmitted
from schemas.gate import Flow, GateTenant
from schemas.policies import PolicyRoute
from schemas.routes import Arm, Route
from streams.shapes import Event, P, Place, Record

CHARS = 500
REQUESTS = 2000
WARM = 200
_TENANT = GateTenant(
    tenant="default",
    purposes={"service": ("contract",)},
    purpose="service",
    basis="contract",
    notices=("notice",),
    notice="notice",
    origin="eu",
    flows=(Flow(origin="eu", region="eu"),),
)
_ROUTE = Route(route="bench", arms=(Arm(arm="a", base="b", region="eu"),), champion="a")


def gate_us(texts: Sequence[str]) -> dict[str, float]:
    """Microseconds of a request of 500 characters: of the demonstration's customers, as most are, and `dense` of these texts."""
    plain = asyncio.run(_measured(_requests([message.text for message in banking77.load()])))
    dense = asyncio.run(_measured(_requests(texts)))
    return {f"gate_{name}": value for name, value in plain.items()} | {
        f"gate_dense_{name}": value for name, value in dense.items()
    }


async def _measured(requests: Sequence[RequestSubmitted]) -> dict[str, float]:
    keeper = Gatekeeper(Screen(detect, SystemClock().computed, named), GateKeys(bytes(32)).seal_map)
    policies = Policies(
        _event(PolicyRoute(at_ms=1, version=1, route="bench", settings=_ROUTE)),
        None,
        gate=_event(PolicyGate(at_ms=1, version=1, settings=_TENANT)),
    )
    computed: list[float] = []
    passed: list[float] = []
    masked = 0
    for number, request in enumerate((*requests[:WARM], *requests)):
        wall, own = time.perf_counter(), time.thread_time()
        _, sealed = await keeper.look(request, request.request_id, f"e{number}", policies, 1)
        if number >= WARM:
            computed.append(time.thread_time() - own)
            passed.append(time.perf_counter() - wall)
            masked += bool(sealed)
    return {
        "us_p50": _us(computed, 50),
        "us_p99": _us(computed, 99),
        "wall_us_p50": _us(passed, 50),
        "masked": round(masked / len(requests), 3),
    }


def _us(seconds: Sequence[float], percent: int) -> float:
    return round(1e6 * statistics.quantiles(seconds, n=100)[percent - 1], 1)


def _requests(texts: Sequence[str]) -> list[RequestSubmitted]:
    whole = "\n".join(texts)
    while len(whole) < 2 * CHARS:
        whole = f"{whole}\n{whole or 'a'}"
    parts = [whole[at : at + CHARS] for at in range(0, len(whole) - CHARS + 1, CHARS)]
    return [
        RequestSubmitted(
            at_ms=1,
            route="bench",
            request_id=f"bench-{number}",
            subject=f"customer-{number}",
            messages=(Message(role="user", content=parts[number % len(parts)]),),
        )
        for number in range(REQUESTS)
    ]


def _event(payload: P) -> Event[P]:
    record = Record("ratchet.policies", 0, 0, b"", b"", (), 1)
    return Event("e", payload.event_key(), payload, "bench", "", Place("ratchet.policies", 0, 0), record)
