"""The rules of inference: what an order asks for, what its result says, which arms shall be loaded and are live.

1. It acts on committed orders only: `decision.routed` for the arm and its chain, `shadow.ordered` for one shadow arm.
2. Exactly one result of an order is final. An arm that was let go because another answered first has failed nothing: `hedge_lost`.
3. Nothing of the request but the last user message reaches an engine. What placeholders in it stand for is sealed, and goes on as it came.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agents.inference.breaker import Breaker, Change, Key
from agents.inference.hedge import candidates
from agents.rules.ledger import paid
from schemas.errors import Refused
from schemas.events import (
    AdapterLive,
    AdapterRefused,
    ArmTerms,
    BreakerChanged,
    DecisionRouted,
    Message,
    ResultCompleted,
    ResultFailed,
    ShadowOrdered,
)
from schemas.payload import Payload
from schemas.policies import LiveArm, LiveBreaker, PolicyFleet
from schemas.routes import Arm
from streams.shapes import Emit, Event

NAME = "inference"
LIVE_MS = 15_000
AWAY = "replica is away"  # how infra.cluster begins the reason where nobody could be asked


class Made(Protocol):
    """What a rule needs of an engine's generation."""

    @property
    def text(self) -> str: ...
    @property
    def tokens_in(self) -> int: ...
    @property
    def tokens_out(self) -> int: ...
    @property
    def tokens_cached(self) -> int: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def ttft_ms(self) -> float: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def logprobs(self) -> tuple[float, ...]: ...
    @property
    def adapter_digest(self) -> str | None: ...
    @property
    def engine(self) -> str: ...
    @property
    def replica(self) -> str: ...


class Loaded(Protocol):
    """What a rule needs of an engine's load outcome."""

    @property
    def arm(self) -> str: ...
    @property
    def adapter(self) -> str | None: ...
    @property
    def replica(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def load_ms(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What both kinds of order have in common. `arms`: the arm to ask, then its fallbacks."""

    told: DecisionRouted | ShadowOrdered
    decision_id: str
    arms: tuple[str, ...]
    shadow: bool
    attempt: int

    def engine_arm(self, arm: str) -> str:
        """The engine's name of an arm: two routes may name arms alike."""
        return f"{self.told.route}/{arm}"


def order_of(event: Event[Payload]) -> Order | None:
    """The order that an event gives, None when it gives none."""
    told = event.data
    if isinstance(told, DecisionRouted):
        return Order(told, event.id, (told.arm, *told.chain), False, told.attempt)
    if isinstance(told, ShadowOrdered):
        return Order(told, told.decision_id, (told.arm,), True, 1)
    return None


def last_user_text(messages: Sequence[Message]) -> str:
    """The message that a template's `{text}` stands for: the last of the user, else the last. `Refused` where there is none."""
    if not messages:
        raise Refused("messages: is empty", kind="invalid", field="messages", accepted="at least one message")
    users = [message for message in messages if message.role == "user"]
    return (users or list(messages))[-1].content


def second_of(order: Order, arm: str) -> str | None:
    """The arm to ask beside `arm`, only to see whether it agrees; None for a shadow."""
    told = order.told
    second = told.second_arm if isinstance(told, DecisionRouted) and not order.shadow else None
    return None if second == arm else second


def hedges_of(order: Order, arm: str) -> tuple[str, ...]:
    """The arms that may be asked too when `arm` is late. None where the answers are compared: an arm that was let go says nothing."""
    told = order.told
    if not isinstance(told, DecisionRouted) or told.shadows or arm != told.arm:
        return ()
    return candidates(told.hedges, arm, told.second_arm)


def terms_of(order: Order, arm: str) -> ArmTerms | None:
    """What the decision knew of the arm's price."""
    if isinstance(order.told, ShadowOrdered):
        return order.told.terms
    return next((choice.terms for choice in order.told.arms if choice.arm == arm), None)


def _about(order: Order, now_ms: int, instance: str) -> dict[str, Any]:
    """What every result says of its order: whose it is, which attempt, and how long it took."""
    told = order.told
    return {
        "tenant": told.tenant,
        "at_ms": now_ms,
        "route": told.route,
        "request_id": told.request_id,
        "request_partition": told.request_partition,
        "request_offset": told.request_offset,
        "request_at_ms": told.request_at_ms,
        "subject": told.subject,
        "shadow": order.shadow,
        "attempt": order.attempt,
        "decision_id": order.decision_id,
        "assigned_at_ms": told.assigned_at_ms,
        "window_end_ms": told.window_end_ms,
        "latency_ms": float(max(0, now_ms - max(0, told.assigned_at_ms))),
        "instance": instance,
    }


def given_before(order: Order, now_ms: int, instance: str) -> ResultCompleted | None:
    """The result of a decision that carries its answer: one of the cache, or the first one kept. None where a model is to be asked."""
    told = order.told
    if not isinstance(told, DecisionRouted) or told.cached is None:
        return None
    answer = told.cached
    return ResultCompleted(
        **_about(order, now_ms, instance),
        arm=told.arm,
        adapter=answer.adapter,
        final=True,
        text=answer.text,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        ttft_ms=0.0,
        engine_ms=0.0,
        finish_reason=answer.finish_reason,
        logprobs=answer.logprobs,
        engine=answer.engine,
        source="kept" if answer.kind == "kept" else "cache",
        cost_nano_usd=0,
        mask_map=told.mask_map,
    )


def completed(
    order: Order, arm: str, made: Made, now_ms: int, instance: str, agreement: float | None = None
) -> ResultCompleted:
    """The result of a generation; it ends the chain. Only the drawn arm's answer may be kept under the decision's key."""
    decision = order.told if isinstance(order.told, DecisionRouted) else None
    key = decision.cache_key if decision is not None and arm == decision.arm else ""
    return ResultCompleted(
        **_about(order, now_ms, instance),
        arm=arm,
        adapter=made.adapter_digest,
        final=True,
        text=made.text,
        tokens_in=made.tokens_in,
        tokens_out=made.tokens_out,
        ttft_ms=made.ttft_ms,
        engine_ms=made.latency_ms,
        finish_reason=made.finish_reason,
        logprobs=made.logprobs,
        agreement=agreement,
        engine=made.engine,
        replica=made.replica,
        cached_tokens=made.tokens_cached,
        cost_nano_usd=paid(terms_of(order, arm), made.tokens_in, made.tokens_cached, made.tokens_out, made.latency_ms),
        cache_key=key,
        mask_map="" if decision is None else decision.mask_map,
    )


def failed(
    order: Order,
    arm: str,
    kind: Literal["unavailable", "deadline", "refused", "hedge_lost"],
    reason: str,
    now_ms: int,
    instance: str,
    *,
    final: bool,
    hedge: bool = False,
) -> Emit:
    """`result.failed` of one arm of the order. `hedge`: of one beside its chain, which the chain may come to as well."""
    payload = ResultFailed(
        **_about(order, now_ms, instance),
        arm=arm,
        adapter=adapter_of(order, arm),
        final=final,
        kind=kind,
        reason=reason,
    )
    return Emit(payload, f"{'hedge' if hedge else 'failed'}/{arm}")


def given_up(
    order: Order, kind: Literal["unavailable", "deadline"], reason: str, now_ms: int, instance: str
) -> tuple[Emit, ...]:
    """A failure of every arm of the chain, the last one final."""
    last = len(order.arms) - 1
    return tuple(
        failed(order, arm, kind, reason, now_ms, instance, final=index == last) for index, arm in enumerate(order.arms)
    )


def adapter_of(order: Order, arm: str) -> str | None:
    """The adapter that the decision saw under the arm; a shadow order does not say."""
    if isinstance(order.told, DecisionRouted):
        for choice in order.told.arms:
            if choice.arm == arm:
                return choice.adapter
    return None


def wanted(fleets: Iterable[PolicyFleet]) -> dict[str, Arm]:
    """Engine name -> arm of all that shall be loaded, sorted: who serves, shadows, is kept to return to, or is named besides."""
    found = {
        f"{fleet.route}/{arm.arm}": arm
        for fleet in fleets
        for arm in fleet.arms
        if arm.arm in (fleet.champion, fleet.challenger, fleet.rollback, *fleet.shadows, *fleet.loaded)
    }
    return {name: found[name] for name in sorted(found)}


@dataclass(frozen=True, slots=True)
class Use:
    """How an arm is used here now. `open_until_ms`: wall time until which its breakers let nothing pass; 0: they do."""

    in_flight: int = 0
    cap: int | None = None
    open_until_ms: int = 0


def live_arms(
    outcomes: Iterable[Loaded], asked: Mapping[str, Arm], uses: Mapping[str, Use] | None = None
) -> tuple[LiveArm, ...]:
    """The arms that at least one replica has proven live with the very adapter that is wanted, and how they are used."""
    replicas: dict[str, set[str]] = {}
    for row in outcomes:
        if row.live and row.arm in asked and asked[row.arm].adapter == row.adapter:
            replicas.setdefault(row.arm, set()).add(row.replica)
    rows: list[LiveArm] = []
    for name in sorted(replicas):
        route, _, arm = name.partition("/")
        use = (uses or {}).get(name, Use())
        rows.append(
            LiveArm(
                route=route,
                arm=arm,
                adapter=asked[name].adapter,
                replicas=len(replicas[name]),
                in_flight=use.in_flight,
                cap=use.cap,
                open_until_ms=use.open_until_ms,
            )
        )
    return tuple(rows)


def live_breakers(held: Mapping[Key, Breaker], lead_ms: int) -> tuple[LiveBreaker, ...]:
    """The breakers that are not closed. `lead_ms` makes wall time of theirs."""
    rows: list[LiveBreaker] = []
    for (name, engine), breaker in sorted(held.items()):
        route, _, arm = name.partition("/")
        if breaker.state != "closed":
            until = breaker.until_ms + lead_ms if breaker.until_ms else 0
            rows.append(LiveBreaker(route=route, arm=arm, engine=engine, state=breaker.state, until_ms=until))
    return tuple(rows)


def news(arms: Iterable[LiveArm], breakers: Iterable[LiveBreaker]) -> tuple[object, ...]:
    """What of an announcement cannot wait for the next one in its turn: that an arm is busy, but not how many calls it has."""
    return (
        tuple((row.route, row.arm, row.adapter, row.replicas, row.cap, row.busy) for row in arms),
        tuple((row.route, row.arm, row.engine, row.state) for row in breakers),
    )


def breaker_fact(key: Key, change: Change, lead_ms: int, tenant: str, instance: str) -> BreakerChanged:
    """What a breaker's change tells."""
    route, _, arm = key[0].partition("/")
    return BreakerChanged(
        tenant=tenant,
        at_ms=max(0, change.at_ms + lead_ms),
        route=route,
        arm=arm,
        engine=key[1],
        instance=instance,
        before=change.before,
        after=change.after,
        until_ms=change.until_ms + lead_ms if change.until_ms else 0,
        calls=change.calls,
        failed=change.failed,
    )


def tells(row: Loaded) -> bool:
    """Whether an outcome says something of the adapter: that a replica is away does not."""
    return row.live or not row.reason.startswith(AWAY)


def fact_of(row: Loaded, tenant: str, now_ms: int, instance: str) -> AdapterLive | AdapterRefused:
    """What a load outcome tells the loop."""
    route, _, arm = row.arm.partition("/")
    if row.live:
        return AdapterLive(
            tenant=tenant,
            at_ms=now_ms,
            route=route,
            arm=arm,
            adapter=row.adapter,
            instance=instance,
            replica=row.replica,
            load_ms=row.load_ms,
        )
    return AdapterRefused(
        tenant=tenant,
        at_ms=now_ms,
        route=route,
        arm=arm,
        adapter=row.adapter,
        instance=instance,
        replica=row.replica,
        reason=row.reason,
    )
