"""The router's rules: `decide(event, policies, observed)` is pure, so a decision can be made again from the log.

1. What the sender got wrong ends in one `answer.refused` (or a dead letter, raised as `Refused`), never in silence.
2. No masked arm is drawn, shadowed or in a chain.
3. Propensities are integers that sum to 65,536 over the arms sorted by id; they are logged before the call.
4. Raising a rollout share never moves a session or request back out of it.
5. The raw session and subject go no further than `observed`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from schemas import ids
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerRefused, ArmChoice, DecisionRouted, RequestSubmitted, ShadowOrdered
from schemas.payload import ID_PATTERN
from schemas.policies import Policy, PolicyFleet, PolicyLive, PolicyRef, PolicyRoute
from schemas.routes import MODEL_GRADERS, Arm, Route
from streams.shapes import Emit, Event, Record

NAME = "router"
CODE = "router/1"
REQUESTS = "ratchet.requests"
WHOLE = 65_536
FUTURE_MS = 5 * 60_000
_ID = re.compile(ID_PATTERN)

ACCEPTED = {
    "tenant": f"a string matching {ID_PATTERN}",
    "at_ms": "an integer, Unix epoch milliseconds, from 0",
    "route": f"the name of an applied route, matching {ID_PATTERN}",
    "request_id": f"a string matching {ID_PATTERN}, equal to the record key",
    "messages": "a list of 1 to 64 objects {role: system, user or assistant; content: a string that is not empty}",
    "session_id": f"null or a string matching {ID_PATTERN}",
    "subject": f"null or a string matching {ID_PATTERN}",
    "deadline_ms": "null or an integer from 1, counted from at_ms",
    "ce_type": RequestSubmitted.ce_type(),
    "value": "a JSON object in UTF-8",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """Where an id was first seen, and the keyed digest of what it said there."""

    place: str
    digest: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What the shell found out. `first` is what the store holds for this id, None when it did not answer."""

    now_ms: int
    digest: str
    first: Seen | None = None
    store_seen: bool = True
    session: str | None = None
    session_arm: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Policies:
    """One synchronous read of the view. `known`: some of the tenant's routes, to name them to a sender."""

    route: Event[PolicyRoute] | None
    fleet: Event[PolicyFleet] | None
    live: tuple[Event[PolicyLive], ...] = ()
    known: tuple[Event[PolicyRoute], ...] = ()

    def refs(self, route: str) -> tuple[PolicyRef, ...]:
        """What an answer names as its basis: all that could have made it another one."""
        used: list[Event[Any]] = [one for one in (self.route, self.fleet) if one is not None]
        used += [one for one in self.live if any(row.route == route for row in one.data.arms)]
        return tuple(_ref(one) for one in (*used, *self.known))


def decide(event: Event[RequestSubmitted], policies: Policies, observed: Observed) -> tuple[Emit, ...]:
    """The emits of a request; () for a repeated one.

    Raises `Refused` for what cannot even be answered, `Unavailable` while the route has no live champion.
    """
    request = event.data
    if event.key != request.request_id:
        return _wrong_key(event, observed)
    if _repeated(event, observed):
        return ()
    settings = policies.route.data.settings if policies.route else None
    problem = _problem(request, settings, policies, observed)
    if problem is not None:
        return (refusal(event, observed.now_ms, *problem, policies=policies.refs(request.route)),)
    if policies.route is None or policies.fleet is None:
        raise Unavailable(f"route {request.route!r} has no fleet policy yet", retry_after_s=0.5)
    return _route(event, policies.route, policies.fleet, policies, observed)


def refusal(
    event: Event[RequestSubmitted],
    now_ms: int,
    kind: str,
    field: str,
    reason: str,
    accepted: str,
    request_id: str | None = None,
    policies: tuple[PolicyRef, ...] = (),
) -> Emit:
    """`answer.refused` to a decoded request."""
    payload = AnswerRefused(
        tenant=event.data.tenant,
        at_ms=now_ms,
        route=event.data.route,
        request_id=event.data.request_id if request_id is None else request_id,
        kind=kind,
        field=field,
        reason=reason,
        accepted=accepted,
        request_partition=event.place.partition,
        request_offset=event.place.offset,
        policies=policies,
    )
    return Emit(payload, "refused")


def undecodable(record: Record, error: Exception) -> Emit | None:
    """`answer.refused` for JSON under a usable id that is no valid request; None where there is nobody to answer."""
    key, said = _text(record.key), _json(record.value)
    if key is None or not _ID.fullmatch(key) or said is None:
        return None
    fields: Mapping[str, object] = cast("dict[str, object]", said) if isinstance(said, dict) else {}
    refused = error if isinstance(error, Refused) else Refused(str(error))
    field = refused.field or "value"
    payload = AnswerRefused(
        tenant=_id_or(fields.get("tenant"), "default"),
        at_ms=max(record.timestamp_ms, 0),
        route=_id_or(fields.get("route"), ""),
        request_id=key,
        kind=refused.kind,
        field=field,
        reason=str(refused).removeprefix(f"{field}: ").removesuffix(f"; accepted: {refused.accepted}"),
        accepted=accepted_at(field) if refused.kind == "invalid" else refused.accepted or accepted_at(field),
        request_partition=record.partition,
        request_offset=record.offset,
    )
    return Emit(payload, "refused")


def accepted_at(field: str) -> str:
    """What a request's field (a path, `messages.0.role`) may hold; for an unknown field, which ones there are."""
    known = ACCEPTED.get(field.split(".", 1)[0])
    return known or "only the fields " + ", ".join(sorted(RequestSubmitted.model_fields))


def _wrong_key(event: Event[RequestSubmitted], observed: Observed) -> tuple[Emit, ...]:
    reason = "the record key is not the request id"
    if not _ID.fullmatch(event.key):
        raise Refused(
            f"request_id: {reason}; accepted: {ACCEPTED['request_id']}",
            kind="wrong-key",
            field="request_id",
            accepted=ACCEPTED["request_id"],
        )
    return (
        refusal(
            event, observed.now_ms, "wrong-key", "request_id", reason, ACCEPTED["request_id"], request_id=event.key
        ),
    )


def _repeated(event: Event[RequestSubmitted], observed: Observed) -> bool:
    """Whether this record repeats an earlier one. A record at its own place is read again, not repeated."""
    first = observed.first
    if first is None or first.place == str(event.place):
        return False
    if first.digest == observed.digest:
        return True
    raise Refused(
        f"request_id: this id was used at {first.place} with other content; accepted: an id that was not used",
        kind="duplicate-id",
        field="request_id",
        accepted="an id that was not used",
    )


def _problem(
    request: RequestSubmitted, settings: Route | None, policies: Policies, observed: Observed
) -> tuple[str, str, str, str] | None:
    """(kind, field, reason, accepted) of the first thing that the sender must change."""
    if settings is None:
        known = ", ".join(row.data.route for row in policies.known) or "none is applied yet"
        return "unknown-route", "route", "no such route is applied", f"an applied route: {known}"
    if request.tenant != settings.tenant:
        return "wrong-tenant", "tenant", "the route belongs to another tenant", "the tenant of the route"
    if policies.fleet is not None and policies.fleet.data.paused:
        return "paused", "route", "the route is paused", "requests again once an operator resumes the route"
    chars = sum(len(message.content) for message in request.messages)
    if chars > settings.max_chars:
        limit = f"at most {settings.max_chars} characters in all messages together"
        return "too-long", "messages", f"the messages have {chars} characters", limit
    if request.at_ms > observed.now_ms + FUTURE_MS:
        ahead = (request.at_ms - observed.now_ms) // 1000
        return "future", "at_ms", f"the time is {ahead} s ahead", f"at most {FUTURE_MS // 1000} s ahead"
    if request.deadline_ms is not None and request.at_ms + request.deadline_ms <= observed.now_ms:
        late = observed.now_ms - request.at_ms - request.deadline_ms
        return "expired", "deadline_ms", f"the deadline passed {late} ms ago", "a deadline that lies ahead"
    return None


def live_adapters(route: str, live: tuple[Event[PolicyLive], ...], now_ms: int) -> dict[str, frozenset[str | None]]:
    """Arm -> adapters that instances have proven live for it; an announcement past its time does not count."""
    found: dict[str, set[str | None]] = {}
    for event in live:
        if event.data.until_ms > now_ms:
            for arm in event.data.arms:
                if arm.route == route and arm.replicas > 0:
                    found.setdefault(arm.arm, set()).add(arm.adapter)
    return {arm: frozenset(adapters) for arm, adapters in found.items()}


def masks_of(arm: Arm, live: Mapping[str, frozenset[str | None]]) -> tuple[str, ...]:
    """Why the arm may not answer now, a code each; () when it may. Further masks are added here."""
    return () if arm.adapter in live.get(arm.arm, frozenset()) else ("not_live",)


def propensities(fleet: PolicyFleet, masks: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Arm -> marginal probability out of 65,536 over sessions, sorted by arm id. The champion must not be masked."""
    shares = {arm.arm: 0 for arm in sorted(fleet.arms, key=lambda arm: arm.arm)}
    part = 0
    if fleet.challenger is not None and not masks[fleet.challenger]:
        part = fleet.rollout_bp * WHOLE // 10_000
        shares[fleet.challenger] = part
    shares[fleet.champion] = WHOLE - part
    return shares


def _route(
    event: Event[RequestSubmitted],
    route: Event[PolicyRoute],
    fleet_event: Event[PolicyFleet],
    policies: Policies,
    observed: Observed,
) -> tuple[Emit, ...]:
    request, settings, fleet, now = event.data, route.data.settings, fleet_event.data, observed.now_ms
    live = live_adapters(request.route, policies.live, now)
    masks = {arm.arm: masks_of(arm, live) for arm in fleet.arms}
    if masks[fleet.champion]:
        why = ", ".join(masks[fleet.champion])
        raise Unavailable(f"route {request.route!r}: champion {fleet.champion!r} is masked: {why}", retry_after_s=1.0)
    shares = propensities(fleet, masks)
    bucket = ids.bucket(fleet.experiment or fleet.route, observed.session or request.request_id)
    strategy, arm = "champion", fleet.champion
    if fleet.challenger is not None and bucket < fleet.rollout_bp and not masks[fleet.challenger]:
        strategy, arm = "rollout", fleet.challenger
    kept = observed.session_arm
    if settings.sticky and kept is not None and shares.get(kept, 0) > 0:
        strategy, arm = "session", kept
    chance = fleet.shadow_bp * WHOLE // 10_000
    beside = (fleet.champion, *(fleet.shadows or (fleet.challenger,)))
    others = dict.fromkeys(name for name in beside if name is not None and name != arm)
    drawn = ids.coin(event.id, "shadow") < chance
    shadows = tuple(name for name in others if not masks[name]) if drawn else ()
    fallback = (fleet.champion, fleet.rollback) if arm != fleet.champion else (fleet.rollback,)
    chain = tuple(name for name in fallback if name in masks and not masks[name] and name != arm)
    second = settings.trust.second_arm
    deadline = now + int(settings.deadline_s * 1000)
    if request.deadline_ms is not None:
        deadline = min(deadline, request.at_ms + request.deadline_ms)
    window_end = now + int(settings.window_s * 1000)
    refs = policies.refs(request.route)
    identity = observed.session or event.id
    adapters = {row.arm: row.adapter for row in fleet.arms}
    decision = DecisionRouted(
        tenant=request.tenant,
        at_ms=now,
        route=request.route,
        request_id=request.request_id,
        request_partition=event.place.partition,
        request_offset=event.place.offset,
        request_at_ms=request.at_ms,
        messages=request.messages,
        arm=arm,
        chain=chain,
        shadows=shadows,
        second_arm=second if second in masks and not masks[second] and second != arm else None,
        arms=tuple(
            ArmChoice(arm=name, adapter=adapters[name], propensity=share, masks=masks[name])
            for name, share in shares.items()
        ),
        strategy=strategy,
        draw=ids.coin(identity, "arm"),
        draw_identity=identity,
        experiment=fleet.experiment,
        arenas=fleet.arenas,
        bucket=bucket,
        rollout_bp=fleet.rollout_bp,
        shadow_probability=chance,
        assigned_at_ms=now,
        window_end_ms=window_end,
        deadline_at_ms=deadline,
        grader=settings.grader,
        human_share=settings.grading.human_share if settings.grader in MODEL_GRADERS else 0.0,
        double_share=settings.grading.double_share,
        session=observed.session,
        session_arm=kept,
        subject=observed.subject,
        policies=refs,
        store_seen=observed.store_seen,
        code=CODE,
    )
    decision_id = ids.derive(event.id, NAME, "decision")
    orders = tuple(
        Emit(
            ShadowOrdered(
                tenant=request.tenant,
                at_ms=now,
                route=request.route,
                request_id=request.request_id,
                request_partition=event.place.partition,
                request_offset=event.place.offset,
                request_at_ms=request.at_ms,
                messages=request.messages,
                arm=name,
                decision_id=decision_id,
                deadline_at_ms=deadline,
                assigned_at_ms=now,
                window_end_ms=window_end,
                policies=refs,
            ),
            f"shadow/{name}",
        )
        for name in shadows
    )
    return (Emit(decision, "decision"), *orders)


def _ref(event: Event[Any]) -> PolicyRef:
    policy = cast("Policy", event.data)
    return PolicyRef(kind=policy.KIND, name=policy.name(), version=policy.version, id=event.id)


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _json(data: bytes | None) -> object:
    try:
        return None if data is None else cast("object", json.loads(data.decode()))
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None


def _id_or(value: object, otherwise: str) -> str:
    return value if isinstance(value, str) and _ID.fullmatch(value) else otherwise
