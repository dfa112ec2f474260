"""The router's shell: gathers what `decide` must know, and nothing else."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from agents.ports import Clock
from agents.router import cache, decide, gate, second
from agents.router.around import Around, Asked
from agents.router.gatekeeper import Gatekeeper
from agents.router.masks import rank
from agents.router.models import Models
from agents.router.observed import Gated
from agents.router.weigh import CHARS_PER_TOKEN, sensitivity_of, weighs_any
from schemas import canonical, codec, ids
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable, Undecodable
from schemas.events import DecisionRouted, Noticed, RequestSubmitted, ResultCompleted, ScoreAssigned
from schemas.gate import Scan
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter
from schemas.routes import Route
from streams.shapes import Emit, Event, Out, Place, Record, View

log = logging.getLogger("ratchet")
SCORES, RESULTS = "ratchet.scores", "ratchet.results"
SEEN_S = 7 * 86_400
SESSION_S = 86_400
Keyed = Callable[[bytes, str, str], str]


def keyed(key: bytes, label: str, text: str) -> str:
    """HMAC-SHA-256 of a text within a label, its first 16 bytes in hex."""
    return hmac.new(key, f"{label}\x1f{text}".encode(), hashlib.sha256).hexdigest()[:32]


class Memory(Protocol):
    """What the router needs of the store for ids and sessions. It may lose everything."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def set_if_absent(self, key: str, value: bytes, ttl_s: float) -> bytes: ...


class Again(Protocol):
    """Reads a committed record again."""

    async def read(self, place: Place) -> Record | None:
        """None where it is no longer there. Raises `Unavailable`."""
        ...


class Router:
    """Transform `router`. `key_of` gives the tenant's secret key, under which subjects and sessions are pseudonymised. Without a
    `gatekeeper` every request of a route with a gate is denied.

    The store may lose everything: then a repeated id is decided again and a session's arm comes from its hash. Only a replay
    without the keys gives another `keyed`.
    """

    name = decide.NAME
    inputs: Sequence[str] = (decide.REQUESTS, SCORES)

    def __init__(
        self,
        policies: View,
        store: Memory,
        around: Around,
        again: Again,
        clock: Clock,
        key_of: Callable[[str], bytes],
        *,
        keyed: Keyed = keyed,
        artifact: Callable[[str], bytes] | None = None,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        self._policies = policies
        self._store = store
        self._clock = clock
        self._key_of = key_of
        self._keyed = keyed
        self._models = Models(artifact)
        self._around = around
        self._again = again
        self._gatekeeper = gatekeeper

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if isinstance(event.data, ScoreAssigned):
            return await self._escalated(event, event.data)
        if not isinstance(event.data, RequestSubmitted):
            return self._other(event)
        request = Event(event.id, event.key, event.data, event.source, event.traceparent, event.place, event.record)
        policies = await self._models.unfolded(self._read(event.data))
        observed = await self._observe(request, policies)
        emits = decide.decide(request, policies, observed)
        passed = request.data if observed.gated is None else observed.gated.request
        await self._remember(emits, policies, passed, observed.gated)
        return emits

    async def _escalated(self, event: Event[Payload], score: ScoreAssigned) -> Sequence[Out]:
        """The second decision. Both records lie on the score's partition number; one that is gone leaves the window's end to settle."""
        if score.action != "escalate" or score.result_partition is None or score.result_offset is None:
            return ()
        scored = Event(event.id, event.key, score, event.source, event.traceparent, event.place, event.record)
        found = await asyncio.gather(
            self._again.read(Place(decide.REQUESTS, score.request_partition, score.request_offset)),
            self._again.read(Place(RESULTS, score.result_partition, score.result_offset)),
        )
        request, result = (_payload(row) for row in found)
        if not isinstance(request, RequestSubmitted) or not isinstance(result, ResultCompleted):
            return ()
        policies = await self._models.unfolded(self._read(request))
        now_ms = self._clock.now_ms()
        session, subject = self._pseudonyms(request, self._key_of(request.tenant))
        route = None if policies.route is None else policies.route.data.settings
        noticed = Noticed() if route is None else await self._around.noticed(route, now_ms)
        gated, sealed = await self._gated(request, request.request_id, event.id, policies, now_ms)
        observed = decide.Observed(
            now_ms, "", session=session, subject=subject, told=noticed, gated=gated, mask_map=sealed
        )
        emits = second.decide(scored, second.First(request, result), policies, observed)
        await self._remember(emits, policies)
        return emits

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        if record.topic != decide.REQUESTS:
            return None
        emit = decide.undecodable(record, error)
        return None if emit is None else (emit,)

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        """The request's own deadline, else its time plus the route's budget."""
        if not isinstance(event.data, RequestSubmitted):
            return None
        if event.data.deadline_ms is not None:
            return event.data.at_ms + event.data.deadline_ms
        route = self._policies.get(PolicyRoute, f"route/{event.data.route}")
        return None if route is None else event.data.at_ms + int(route.data.settings.deadline_s * 1000)

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        if not isinstance(event.data, RequestSubmitted):
            return ()
        request = Event(event.id, event.key, event.data, event.source, event.traceparent, event.place, event.record)
        return (
            decide.refusal(
                request,
                self._clock.now_ms(),
                "unavailable",
                "route",
                f"nothing could answer in time: {error}",
                "the same request under a new id, later",
                policies=self._read(event.data).refs(event.data.route),
                subject=self._pseudonyms(event.data, self._key_of(event.data.tenant))[1],
            ),
        )

    def _other(self, event: Event[Payload]) -> Sequence[Out]:
        """An event that is no request: refused on the requests topic, else (a score) nothing to decide."""
        if event.place.topic != decide.REQUESTS:
            return ()
        error = Undecodable(
            f"{event.data.TYPE} is no request",
            kind="wrong-type",
            field="ce_type",
            accepted=RequestSubmitted.ce_type(),
        )
        emits = self.refused(event.record, error)
        if emits is None:
            raise error
        return emits

    def _read(self, request: RequestSubmitted) -> decide.Policies:
        view = self._policies
        route = view.get(PolicyRoute, f"route/{request.route}")
        if route is None:
            known = (row for row in view.items(PolicyRoute).values() if row.data.settings.tenant == request.tenant)
            mine = sorted(known, key=lambda row: row.data.route)
            return decide.Policies(None, None, (), tuple(mine[:10]))
        live = view.items(PolicyLive)
        return decide.Policies(
            route,
            view.get(PolicyFleet, f"fleet/{request.route}"),
            tuple(live[key] for key in sorted(live)),
            router=view.get(PolicyRouter, f"router/{request.route}"),
            gate=view.get(PolicyGate, f"gate/{request.tenant}") if route.data.settings.has_gate else None,
        )

    async def _observe(self, event: Event[RequestSubmitted], policies: decide.Policies) -> decide.Observed:
        request, key = event.data, self._key_of(event.data.tenant)
        digest = self._keyed(key, "content", request.model_dump_json())
        session, subject = self._pseudonyms(request, key)
        now_ms = self._clock.now_ms()
        gated, sealed = await self._gated(request, event.key, event.id, policies, now_ms)
        if gated is not None:
            if gated.denied is not None:
                return await self._denied(event, gated, digest, now_ms)
            request = gated.request
        settings = None if policies.route is None else policies.route.data.settings
        route = None if settings is None or not weighs_any(settings) else settings
        asked = None if route is None else _asked(request, route, policies, gated)
        body = "" if asked is None else cache.body_of(request.messages, request.needs)
        keys = {} if asked is None else cache.keys_of(asked.scope, asked.arms, body)
        # Side by side: what the store is asked here goes to it in one round trip.
        (first, known), (arm, there), quota_ms, noticed, hits = await asyncio.gather(
            self._first(event, digest),
            self._session_arm(request.route, session),
            self._quota_ms(request, str(event.place), route),
            self._noticed(route, now_ms),
            self._around.hits(keys),
        )
        likes, vetoes = (), ()
        if asked is not None and route is not None and not hits and _may_be_like(request, route):
            likes, vetoes = await self._around.likes(asked)
        if route is not None:
            probe = "off" if not keys else "hit" if hits or any(like.serve for like in likes) else "miss"
            noticed = noticed.model_copy(update={"probe": probe, "vetoes": vetoes})
        return decide.Observed(
            now_ms,
            digest,
            first,
            known and there,
            session,
            arm,
            subject,
            quota_ms=quota_ms,
            hits=hits,
            keys=keys,
            likes=likes,
            told=noticed,
            gated=gated,
            mask_map=sealed,
        )

    async def _gated(
        self, request: RequestSubmitted, key: str, event_id: str, policies: decide.Policies, now_ms: int
    ) -> tuple[Gated | None, str]:
        """What the gate lets through, None where the route has none; and what was taken out, sealed. A route that nobody knows has one."""
        if policies.route is not None and not policies.route.data.settings.has_gate:
            return None, ""
        if self._gatekeeper is None:
            return gate.gated(request, policies, Scan((), 0, 0, failed=True), now_ms, key), ""
        return await self._gatekeeper.look(request, key, event_id, policies, now_ms)

    async def _denied(self, event: Event[RequestSubmitted], gated: Gated, digest: str, now_ms: int) -> decide.Observed:
        """Of a denied request nothing is asked of the store but whether it repeats another; an id that nobody may repeat not even that."""
        request, key = event.data, self._key_of(event.data.tenant)
        session, subject = self._pseudonyms(request, key)
        alias = None
        if gated.denied is not None and gated.denied.field == "request_id":
            alias = self._keyed(key, "request", event.key)
        first, known = (None, True) if alias is not None else await self._first(event, digest)
        return decide.Observed(now_ms, digest, first, known, session, subject=subject, gated=gated, alias=alias)

    def _pseudonyms(self, request: RequestSubmitted, key: bytes) -> tuple[str | None, str | None]:
        """The session's and the subject's, under the tenant's key."""
        session = None if request.session_id is None else self._keyed(key, "session", request.session_id)
        subject = None if request.subject is None else self._keyed(key, "subject", request.subject)
        return session, subject

    async def _first(self, event: Event[RequestSubmitted], digest: str) -> tuple[decide.Seen | None, bool]:
        """What the store holds for this id; and whether it answered."""
        request_id = event.data.request_id
        if event.key != request_id:
            return None, True
        try:
            held = await self._store.set_if_absent(f"seen:{request_id}", f"{event.place}|{digest}".encode(), SEEN_S)
        except Unavailable:
            return None, False
        place, _, known = held.decode().rpartition("|")
        return decide.Seen(place, known), True

    async def _session_arm(self, route: str, session: str | None) -> tuple[str | None, bool]:
        """The arm that the session had; and whether the store answered."""
        if session is None:
            return None, True
        try:
            arm = await self._store.get(f"session:{route}:{session}")
        except Unavailable:
            return None, False
        return None if arm is None else arm.decode(), True

    async def _quota_ms(self, request: RequestSubmitted, once: str, route: Route | None) -> int | None:
        if route is None:
            return None
        tokens = sum(len(message.content) for message in request.messages) // CHARS_PER_TOKEN
        return await self._around.quota_ms(route, max(tokens, 1), once)

    async def _noticed(self, route: Route | None, now_ms: int) -> Noticed:
        return Noticed() if route is None else await self._around.noticed(route, now_ms)

    async def _remember(
        self,
        emits: Sequence[Emit],
        policies: decide.Policies,
        request: RequestSubmitted | None = None,
        gated: Gated | None = None,
    ) -> None:
        """`request`: as the gate let it through."""
        route = None if policies.route is None else policies.route.data.settings
        for emit in emits:
            made = emit.payload
            if not isinstance(made, DecisionRouted) or route is None:
                continue
            like = request is not None and _may_be_like(request, route)
            asked = _asked(request, route, policies, gated) if request is not None and like else None
            reserved = self._around.reserve(made, route, asked)
            if made.session is not None and made.arm != made.session_arm:
                await asyncio.gather(reserved, self._keep_arm(made.route, made.session, made.arm))
            else:
                await reserved

    async def _keep_arm(self, route: str, session: str, arm: str) -> None:
        with contextlib.suppress(Unavailable):  # the hash gives the same arm again
            await self._store.put(f"session:{route}:{session}", arm.encode(), SESSION_S)


def _payload(record: Record | None) -> Payload | None:
    """What a record that was taken before says; None where it is gone or cannot be read any more."""
    if record is None:
        return None
    kind = dict(record.headers).get("ce_type", b"").decode("ascii", "replace")
    try:
        return codec.decode_payload(codec.payload_class(kind), record.value)
    except Refused:
        return None


def _asked(request: RequestSubmitted, route: Route, policies: decide.Policies, gated: Gated | None) -> Asked | None:
    """Whose kept answers may be given to the request; None where the route keeps none, and for what is personal."""
    told = route.routing.cache
    personal = rank(sensitivity_of(request, route.routing)) >= rank("personal")
    if not (told.exact or told.semantic) or policies.fleet is None or personal:
        return None
    fleet, router = policies.fleet.data, policies.router
    scope = cache.Scope(
        tenant=request.tenant,
        route=request.route,
        router=_scope_digest(route.routing.sensitivity, route.routing.regions),
        gate="" if gated is None else f"{gated.seen.rules_digest}/{gated.seen.tenant_version}",
        generation=0 if router is None else router.data.generation,
    )
    among = route.routing.chosen_from(fleet.champion)
    return Asked(scope, request.messages, tuple(arm for arm in fleet.arms if arm.arm in among))


def _may_be_like(request: RequestSubmitted, route: Route) -> bool:
    settings = route.routing
    level = sensitivity_of(request, settings)
    return cache.may_be_like(settings.cache.semantic, request.messages, level, tools=bool(request.needs))


@lru_cache(maxsize=1024)
def _scope_digest(sensitivity: str, regions: tuple[str, ...]) -> str:
    """Of the settings that an answer depends on beside its arm: whose answers may be given under which sensitivity."""
    return ids.digest(canonical.encode({"sensitivity": sensitivity, "regions": list(regions)}))
