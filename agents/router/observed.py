"""What a decision is made from beside the request: policies, and what the shell found out. Values only."""

from dataclasses import dataclass, field
from typing import Any, cast

from agents.router.model import Model
from agents.rules.masking import MaskMap
from schemas.compliance import PolicyGate
from schemas.events import CachedAnswer, GateSeen, Noticed, RequestSubmitted
from schemas.policies import Policy, PolicyFleet, PolicyLive, PolicyRef, PolicyRoute, PolicyRouter
from streams.shapes import Event

NEVER = -1  # of a quota: more than its burst was asked for at once


@dataclass(frozen=True, slots=True)
class Seen:
    """Where an id was first seen, and the keyed digest of what it said there."""

    place: str
    digest: str


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that the cache holds for an arm."""

    arm: str
    answer: CachedAnswer


@dataclass(frozen=True, slots=True)
class Like:
    """A like question's answer, of an arm: to be served, or to be tried beside a fresh one."""

    arm: str
    serve: bool
    answer: CachedAnswer


@dataclass(frozen=True, slots=True)
class Denied:
    """What the sender is told: the field, why, and what would be accepted. Never what was found."""

    field: str
    reason: str
    accepted: str


@dataclass(frozen=True, slots=True, repr=False)
class Gated:
    """What the gate let through. `request`: masked, and no less sensitive than what was found in it; of a denied one the texts are gone.

    `arms`: where it may go. `map`: what the placeholders stand for.
    """

    request: RequestSubmitted
    seen: GateSeen
    arms: frozenset[str]
    map: MaskMap
    denied: Denied | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What the shell found out. `first` is what the store holds for this id, None when it did not answer.

    `quota_ms`: the tenant has used up its quota, and may ask again after so many ms (`NEVER`: not so much at once); None: it has not.
    `keys`: arm -> the cache key under which its answer to this request is kept. `likes`: answers of like questions. `gated`: None where
    the route has no gate. `mask_map`: of `gated`, sealed. `alias`: stands for a request id that nobody may repeat.
    """

    now_ms: int
    digest: str
    first: Seen | None = None
    store_seen: bool = True
    session: str | None = None
    session_arm: str | None = None
    subject: str | None = None
    quota_ms: int | None = None
    hits: tuple[Hit, ...] = ()
    keys: dict[str, str] = field(default_factory=dict[str, str])
    likes: tuple[Like, ...] = ()
    told: Noticed = field(default_factory=Noticed)
    gated: Gated | None = None
    mask_map: str = ""
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Policies:
    """One synchronous read of the view. `known`: some of the tenant's routes, to name them to a sender. `model`: the router's policy
    unfolded."""

    route: Event[PolicyRoute] | None
    fleet: Event[PolicyFleet] | None
    live: tuple[Event[PolicyLive], ...] = ()
    known: tuple[Event[PolicyRoute], ...] = ()
    router: Event[PolicyRouter] | None = None
    model: Model | None = None
    gate: Event[PolicyGate] | None = None

    def refs(self, route: str) -> tuple[PolicyRef, ...]:
        """What an answer names as its basis: all that could have made it another one."""
        used: list[Event[Any]] = [one for one in (self.route, self.fleet, self.router, self.gate) if one is not None]
        used += [one for one in self.live if any(row.route == route for row in one.data.arms)]
        return tuple(_ref(one) for one in (*used, *self.known))


def _ref(event: Event[Any]) -> PolicyRef:
    policy = cast("Policy", event.data)
    return PolicyRef(kind=policy.KIND, name=policy.name(), version=policy.version, id=event.id)
