"""Two policies side by side: whom the new one decides for, and what the log says of both. Pure, in integers.

1. The logged propensity is the marginal: part · new + (1 - part) · old; the same for every request, whichever decided.
2. Raising the share never moves a session, or a request without one, back out of it.
"""

from collections.abc import Mapping

from agents.router import thompson
from schemas import ids
from schemas.routes import Route
from schemas.routing import CHOOSES, RoutingSettings

WHOLE = thompson.WHOLE
BUCKETS = 10_000


def part_of(share_bp: int) -> int:
    """A share of the buckets out of 65,536."""
    return share_bp * WHOLE // BUCKETS


def share_bp(route: Route) -> int:
    """Of 10,000 buckets, those that the route's trial decides for."""
    return 0 if route.trial is None else round(route.trial_share * BUCKETS)


def salt(settings: RoutingSettings) -> str:
    """What a trial's buckets are drawn with: a digest of how it chooses, which no later field with a default changes."""
    return ids.digest(settings.model_dump_json(include=set(CHOOSES), exclude_defaults=True).encode())


def decides(route: Route, identity: str) -> bool:
    """Whether the trial decides for this session, or request without one."""
    return route.trial is not None and ids.bucket(salt(route.trial), identity) < share_bp(route)


def as_tried(route: Route) -> Route:
    """The route as its trial wants it, with its own policy as the one beside."""
    return route if route.trial is None else route.model_copy(update={"routing": route.trial, "trial": route.routing})


def overlaid(base: Mapping[str, int], over: Mapping[str, int], part: int, rest: str) -> dict[str, int]:
    """Marginal shares of `over`, which has `part` of 65,536, and `base`; what rounding leaves is the arm `rest`'s."""
    if not part:
        return dict(base)
    arms = {**base, **over}
    shares = {arm: base.get(arm, 0) * (WHOLE - part) // WHOLE + over.get(arm, 0) * part // WHOLE for arm in arms}
    shares[rest] += WHOLE - sum(shares.values())
    return shares
