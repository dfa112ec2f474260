"""What `ratchet bench gateway` routes: texts of a usual length, a route of three arms with everything on, and what a learner would have
published for it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.router import basis_build, learner, model, snapshot
from agents.router.basis import Basis
from infra import banking77
from schemas import ids
from schemas.codec import encode
from schemas.errors import Refused
from schemas.events import Message, RequestSubmitted
from schemas.payload import Payload
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter, RouterArm
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, CacheSettings, QuotaSettings, RoutingSettings
from streams.port import Outgoing
from streams.wire import partition_of
from tools.bench import pareto_data

SEED = 1
TEXTS = 1000  # as many as a basis is made of
CHARS, MOST_CHARS = 500, 20_000
FULL, FIXED = "gateway", "gateway-fixed"  # routes
QUALITY = {"big": 0.80, "outside": 0.82, "small": 0.79}  # near enough for exploration to have something to do
CHAMPION = "small"
LABELS = 400
BUDGET_NANO = 3_000_000
NEVER = (1 << 53) - 1


@dataclass(frozen=True, eq=False)
class World:
    """Texts, the basis made of them, and the policies of both routes; `factors`: the blob that the learner's policy names."""

    texts: tuple[str, ...]
    basis: Basis
    policies: tuple[Payload, ...]
    blobs: Mapping[str, bytes]

    def artifact(self, digest: str) -> bytes:
        """What the policies name by digest. Raises `Refused` for what they do not."""
        if digest not in self.blobs:
            raise Refused(f"{digest}: no such artifact in the benchmark's world", kind="artifact")
        return self.blobs[digest]


def texts_of(data: Path | None = None) -> tuple[str, ...]:
    """The prompts of a file of the `paretobandit` format; without one customer messages, joined to `CHARS` characters and more."""
    if data is not None:
        fit = [text for text in pareto_data.read(data).prompts if 0 < len(text) <= MOST_CHARS]
        if not fit:
            raise Refused(f"{data}: no prompt of 1 to {MOST_CHARS} characters", kind="invalid")
        return tuple(fit)
    said = [message.text for message in banking77.load()]
    order = np.random.default_rng(SEED).permutation(len(said))
    found: list[str] = []
    parts: list[str] = []
    for at in order:
        parts.append(said[int(at)])
        if sum(map(len, parts)) >= CHARS:
            found.append("\n".join(parts))
            parts = []
    return tuple(found[:TEXTS])


def world(texts: Sequence[str], now_ms: int) -> World:
    """Deterministic but for the time. A basis needs at least 100 texts; of fewer it is the random one."""
    some = texts[:TEXTS]
    basis = basis_build.build(some, SEED) if len(some) >= basis_build.LEAST_TEXTS else Basis.random(SEED)
    rows, blob = _learnt(basis, some)
    routes = (_full(basis.digest), _fixed())
    router = PolicyRouter(
        at_ms=now_ms,
        route=FULL,
        version=1,
        champion=CHAMPION,
        basis=basis.digest,
        dims=basis.size,
        arms=rows,
        factors=ids.digest(blob),
        warm=True,
        lambda_cost=20_000,
        labels=len(rows) * LABELS,
        cases=LABELS,
        code=model.CODE,
    )
    live = tuple(
        LiveArm(route=route.route, arm=arm.arm, adapter=None, replicas=1, cap=1_000_000)
        for route in routes
        for arm in route.arms
    )
    policies: list[Payload] = [router]
    for route in routes:
        policies.append(PolicyRoute(at_ms=now_ms, version=1, route=route.route, settings=route))
        policies.append(PolicyFleet(at_ms=now_ms, version=1, route=route.route, arms=route.arms, champion=CHAMPION))
    policies.append(PolicyLive(at_ms=now_ms, version=1, instance="bench", arms=live, until_ms=NEVER))
    blobs = {basis.digest: basis.to_bytes(), ids.digest(blob): blob}
    return World(tuple(texts), basis, tuple(policies), blobs)


def _full(basis: str) -> Route:
    """Features, predictions, draws, masks, budget, quota, cache, sessions."""
    return Route(
        route=FULL,
        compliance="off",
        release="immediate",
        arms=_arms(),
        champion=CHAMPION,
        routing=RoutingSettings(
            strategy="balanced",
            arms=("big", "outside"),
            basis=basis,
            slo_ms=1000,
            budget=BudgetSettings(nano_usd=BUDGET_NANO, requests=10**8),
            cache=CacheSettings(exact=True),
            quota=QuotaSettings(requests_per_s=1e6, burst=10**6, tokens_per_min=10**9),
        ),
    )


def _fixed() -> Route:
    """The champion, and nothing that is weighed."""
    return Route(route=FIXED, compliance="off", release="immediate", arms=_arms(), champion=CHAMPION, sticky=False)


def _arms() -> tuple[Arm, ...]:
    return (
        Arm(arm="small", base="sha256:small", nano_usd_in=1_000, nano_usd_out=2_000),
        Arm(arm="big", base="sha256:big", nano_usd_in=5_000, nano_usd_out=15_000),
        Arm(
            arm="outside", provider="openai_http", model="m", url="https://127.0.0.1", nano_usd_in=10_000,
            nano_usd_out=30_000,
        ),
    )  # fmt: skip


def _learnt(basis: Basis, texts: Sequence[str]) -> tuple[tuple[RouterArm, ...], bytes]:
    """Each arm after `LABELS` graded answers to these texts, and the blob of the factors."""
    rng = np.random.default_rng([SEED, 1])
    xs = [basis.vector(texts[n % len(texts)]) for n in range(LABELS)]
    rows: list[RouterArm] = []
    factors: dict[str, bytes] = {}
    for arm, quality in QUALITY.items():
        posterior = learner.prior(basis.blocks)
        for x, coin in zip(xs, rng.random(LABELS), strict=True):
            posterior = learner.observe(posterior, x, learner.MICRO if coin < quality else 0)
        shot = snapshot.snapshot_of(posterior)
        factors[arm] = shot.factor.to_bytes()
        mean = base64.b64encode(shot.mean.to_bytes()).decode("ascii")
        rows.append(
            RouterArm(
                arm=arm, labels=LABELS, cases=LABELS, mean=mean, tokens_in_milli=240, tokens_out=40, latency_ms=400
            )
        )
    return tuple(rows), model.factors_of(factors)


def request(word: str, n: int, route: str, texts: Sequence[str], at_ms: int) -> RequestSubmitted:
    """The n-th request: every second pair of them is a session's two turns."""
    return RequestSubmitted(
        at_ms=at_ms,
        route=route,
        request_id=f"{word}-{n:08d}",
        messages=(Message(role="user", content=texts[n % len(texts)]),),
        session_id=f"{word}-s-{n // 2}" if n // 2 % 2 else None,
        subject=f"u-{n % 500}",
    )


def record(made: Payload, partitions: int, number: int = 0) -> tuple[int, Outgoing]:
    """The record of the key's so many-th event from outside, and its partition."""
    key = made.event_key()
    event_id = ids.derive(key, "bench", number)
    row = encode(made, event_id=event_id, source="ratchet/bench", traceparent=ids.trace_parent(None, event_id))
    return partition_of(row.key, partitions), Outgoing(row.key, row.value, row.headers)
