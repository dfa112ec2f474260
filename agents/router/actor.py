"""The router's shell: gathers what `decide` must know, and nothing else."""

import hashlib
import hmac
from collections.abc import Callable, Sequence

from agents.ports import Clock, Store
from agents.router import decide
from schemas.errors import Unavailable, Undecodable
from schemas.events import DecisionRouted, RequestSubmitted
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyLive, PolicyRoute
from streams.shapes import Emit, Event, Out, Record, View

SEEN_S = 7 * 86_400
SESSION_S = 86_400
Keyed = Callable[[bytes, str, str], str]


def keyed(key: bytes, label: str, text: str) -> str:
    """HMAC-SHA-256 of a text within a label, its first 16 bytes in hex."""
    return hmac.new(key, f"{label}\x1f{text}".encode(), hashlib.sha256).hexdigest()[:32]


class Router:
    """Transform `router`. `key_of` gives the tenant's secret key, under which subjects and sessions are pseudonymised.

    The store may lose everything: then a repeated id is decided again and a session's arm comes from its hash. Only a replay
    without the keys gives another `keyed`.
    """

    name = decide.NAME
    inputs: Sequence[str] = (decide.REQUESTS,)

    def __init__(
        self, policies: View, store: Store, clock: Clock, key_of: Callable[[str], bytes], *, keyed: Keyed = keyed
    ) -> None:
        self._policies = policies
        self._store = store
        self._clock = clock
        self._key_of = key_of
        self._keyed = keyed

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        if not isinstance(event.data, RequestSubmitted):
            return self._other(event)
        request = Event(event.id, event.key, event.data, event.source, event.traceparent, event.place, event.record)
        observed = await self._observe(request)
        emits = decide.decide(request, self._read(event.data), observed)
        await self._remember(emits)
        return emits

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
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
            route, view.get(PolicyFleet, f"fleet/{request.route}"), tuple(live[key] for key in sorted(live))
        )

    async def _observe(self, event: Event[RequestSubmitted]) -> decide.Observed:
        request, key = event.data, self._key_of(event.data.tenant)
        digest = self._keyed(key, "content", request.model_dump_json())
        session = None if request.session_id is None else self._keyed(key, "session", request.session_id)
        subject = None if request.subject is None else self._keyed(key, "subject", request.subject)
        first, session_arm, there = None, None, True
        try:
            if event.key == request.request_id:
                held = await self._store.set_if_absent(
                    f"seen:{request.request_id}", f"{event.place}|{digest}".encode(), SEEN_S
                )
                place, _, known = held.decode().rpartition("|")
                first = decide.Seen(place, known)
            if session is not None:
                arm = await self._store.get(f"session:{request.route}:{session}")
                session_arm = None if arm is None else arm.decode()
        except Unavailable:
            there = False
        return decide.Observed(self._clock.now_ms(), digest, first, there, session, session_arm, subject)

    async def _remember(self, emits: Sequence[Emit]) -> None:
        for emit in emits:
            made = emit.payload
            if isinstance(made, DecisionRouted) and made.session is not None and made.arm != made.session_arm:
                try:
                    await self._store.put(f"session:{made.route}:{made.session}", made.arm.encode(), SESSION_S)
                except Unavailable:
                    return  # the hash gives the same arm again
