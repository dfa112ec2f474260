"""The router's rules: `decide(event, policies, observed)` is pure, so a decision can be made again from the log.

1. What the sender got wrong ends in one `answer.refused` (or a dead letter, raised as `Refused`), never in silence.
2. No masked arm is drawn, shadowed, hedged, in a chain or answered for by the cache.
3. Propensities are integers that sum to 65,536 over the arms sorted by id; they are logged before the call.
4. Raising a rollout share never moves a session or request back out of it.
5. The raw session and subject go no further than `observed`; on a route with a gate no text does that the gate has not let through.
"""

from dataclasses import replace

from agents.router import choose, masks, route
from agents.router.observed import NEVER, Denied, Gated, Hit, Observed, Policies, Seen
from agents.router.refuse import ACCEPTED, ID, accepted_at, refusal, undecodable
from agents.router.weigh import Weighed, weigh
from schemas.errors import Refused, Unavailable
from schemas.events import RequestSubmitted
from schemas.routes import Route
from streams.shapes import Emit, Event

__all__ = [
    "NAME",
    "REQUESTS",
    "Hit",
    "Observed",
    "Policies",
    "Seen",
    "accepted_at",
    "decide",
    "refusal",
    "undecodable",
]

NAME = route.NAME
REQUESTS = "ratchet.requests"
FUTURE_MS = 5 * 60_000


def decide(event: Event[RequestSubmitted], policies: Policies, observed: Observed) -> tuple[Emit, ...]:
    """The emits of a request; () for a repeated one.

    Raises `Refused` for what cannot even be answered, `Unavailable` while no arm may answer for a reason that may pass.
    """
    request = event.data
    if event.key != request.request_id:
        return _wrong_key(event, observed)
    if _repeated(event, observed):
        return ()
    settings = policies.route.data.settings if policies.route else None
    problem = _problem(request, settings, policies, observed)
    if problem is not None:
        refs, subject = policies.refs(request.route), observed.subject
        return (refusal(event, observed.now_ms, *problem, observed.alias, refs, subject=subject),)
    if observed.gated is not None and observed.gated.denied is not None:
        return (_denied(event, policies, observed, observed.gated.denied),)
    if settings is None or policies.fleet is None:
        raise Unavailable(f"route {request.route!r} has no fleet policy yet", retry_after_s=0.5)
    if observed.quota_ms is not None:
        return (_over_quota(event, policies, observed),)
    return _routed(_passed(event, settings, observed.gated), settings, policies, observed)


def _passed(event: Event[RequestSubmitted], settings: Route, gated: Gated | None) -> Event[RequestSubmitted]:
    """The request as everything from here on sees it."""
    if gated is not None:
        return replace(event, data=gated.request)
    if settings.has_gate:
        raise AssertionError("a request of a route with a gate is not decided on before the gate was asked")
    return event


def _denied(event: Event[RequestSubmitted], policies: Policies, observed: Observed, denied: Denied) -> Emit:
    return refusal(
        event,
        observed.now_ms,
        "gate",
        denied.field,
        denied.reason,
        denied.accepted,
        request_id=observed.alias,
        policies=policies.refs(event.data.route),
        gate=None if observed.gated is None else observed.gated.seen,
        subject=observed.subject,
    )


def _routed(
    event: Event[RequestSubmitted], settings: Route, policies: Policies, observed: Observed
) -> tuple[Emit, ...]:
    """The decision; where no arm may answer, the wait or the refusal that its masks make."""
    request = event.data
    if policies.fleet is None:
        raise AssertionError("a route without a fleet is not decided on")
    fleet = policies.fleet.data
    deadline = route.deadline_of(request, settings, observed.now_ms)
    weighed = weigh(request, settings, fleet, policies, observed, deadline - observed.now_ms)
    router = None if policies.router is None else policies.router.data
    choice = choose.choose(request, event.id, settings, fleet, router, weighed, observed)
    if choice is not None:
        return route.emits(event, settings, fleet, policies, observed, weighed, choice)
    among = {arm: weighed.masks[arm] for arm in settings.routing.chosen_from(fleet.champion) if arm in weighed.masks}
    if masks.passing(among):
        why = "; ".join(f"{arm!r} is masked: {', '.join(codes)}" for arm, codes in sorted(among.items()))
        raise Unavailable(f"route {request.route!r}: {why}", retry_after_s=1.0)
    return (_nowhere(event, settings, policies, observed, weighed, among),)


def _nowhere(
    event: Event[RequestSubmitted],
    settings: Route,
    policies: Policies,
    observed: Observed,
    weighed: Weighed,
    among: dict[str, tuple[str, ...]],
) -> Emit:
    """`answer.refused` for a request that no arm may ever answer as it is; it names the masks."""
    codes = [code for code in masks.CODES if any(code in found for found in among.values())]
    field = {
        "gate": "route",
        "privacy": "sensitivity",
        "capability": "needs",
        "context": "messages",
        "slo": "deadline_ms",
    }
    budget = weighed.purse.limited and "budget" in codes
    period_ms = settings.routing.budget.period_s * 1000
    return refusal(
        event,
        observed.now_ms,
        "no-arm",
        next((field[code] for code in codes if code in field), "route"),
        "no arm may answer: " + "; ".join(f"{code}: {masks.WORDS[code]}" for code in codes),
        "a request that at least one arm may answer: `ratchet trace` shows each arm's masks",
        policies=policies.refs(event.data.route),
        retry_after_ms=period_ms - observed.now_ms % period_ms if budget else None,
        masked=among,
        gate=None if observed.gated is None else observed.gated.seen,
        subject=observed.subject,
    )


def _over_quota(event: Event[RequestSubmitted], policies: Policies, observed: Observed) -> Emit:
    never = observed.quota_ms == NEVER
    return refusal(
        event,
        observed.now_ms,
        "quota",
        "messages" if never else "tenant",
        "the request is larger than the tenant's whole quota"
        if never
        else "the tenant has used up its quota on this route",
        "a shorter request" if never else f"the same request under a new id after {observed.quota_ms} ms",
        policies=policies.refs(event.data.route),
        retry_after_ms=None if never else observed.quota_ms,
        gate=None if observed.gated is None else observed.gated.seen,
        subject=observed.subject,
    )


def _wrong_key(event: Event[RequestSubmitted], observed: Observed) -> tuple[Emit, ...]:
    reason = "the record key is not the request id"
    if not ID.fullmatch(event.key):
        raise Refused(
            f"request_id: {reason}; accepted: {ACCEPTED['request_id']}",
            kind="wrong-key",
            field="request_id",
            accepted=ACCEPTED["request_id"],
        )
    return (
        refusal(
            event,
            observed.now_ms,
            "wrong-key",
            "request_id",
            reason,
            ACCEPTED["request_id"],
            request_id=observed.alias or event.key,
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
