"""The gate in front of the router: what of a request goes on, and to which arms; or why nothing does. Pure.

1. Who decides behind it sees masked texts only: decision, shadows, features, caches, the index of questions.
2. A request in which something was replaced, or that may go to private arms only, is personal at least.
3. An id names a request or a session, no person or account: whoever puts a card number into one is refused.
4. The router's own time counts, not the sender's: nobody dates a request back to when something was permitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from agents.router.masks import rank
from agents.router.observed import Denied, Gated, Policies
from agents.rules.gate import Asked, Fired, Place, closed
from agents.rules.gate_seen import Checked, asked_of, check, failed, limits, seen
from agents.rules.gate_standard import BOOK
from agents.rules.masking import MaskMap
from schemas.events import GateSeen, RequestSubmitted
from schemas.findings import Finding, Kind
from schemas.gate import GateTenant, Scan

GONE: Final = "[DENIED]"  # in the place of a denied text
OF_PEOPLE: Final = frozenset({Kind.EMAIL, Kind.CARD, Kind.IBAN, Kind.SSN, Kind.SECRET})
_FIELDS: Final[Mapping[str, str]] = {
    "gate-tenant": "tenant",
    "gate-purpose": "purpose",
    "gate-basis": "legal_basis",
    "gate-no-arm": "route",
}
_OF_FAMILY: Final[Mapping[str, str]] = {
    "purpose": "purpose",
    "basis": "legal_basis",
    "residency": "origin",
    "transfer": "origin",
}
_FAMILIES: Final = {rule.id: rule.family for rule in BOOK.rules}
_ACCEPTED: Final[Mapping[str, str]] = {
    "tenant": "a tenant whose configuration an operator has applied: `ratchet tenant apply`",
    "purpose": "a purpose that the tenant's configuration names",
    "notice": "a notice that the tenant's configuration names",
    "legal_basis": "a legal basis that fits the purpose and that the tenant relies on",
    "origin": "an origin from which a flow of the tenant leads to an arm's region",
    "classes": "a request without these data classes, or an exemption of the tenant",
    "route": "a route with an arm that may compute it",
    "messages": "a text in which no rule finds what it denies (docs/gate.md)",
}
_NAMES: Final = "a name without an e-mail address, card number, IBAN, social security number or credential"
_AGAIN: Final = "the same request under a new id: the text could not be scanned this time"


def texts_of(request: RequestSubmitted, key: str) -> tuple[str, ...]:
    """All that is scanned: each message, then everything else that the sender may choose freely, in lines of one text.

    `key`: the record's.
    """
    return (*(message.content for message in request.messages), "\n".join(text for _, text in _named(request, key)))


def scan_limits(now_ms: int) -> tuple[int, int]:
    """(characters, microseconds) that a scan may have."""
    return limits(BOOK, now_ms)


def gated(request: RequestSubmitted, policies: Policies, scan: Scan, now_ms: int, key: str) -> Gated:
    """The gate's word on a request. `scan`: of `texts_of(request, key)`."""
    tenant = None if policies.gate is None else policies.gate.data.settings
    *texts, names = texts_of(request, key)
    if len(scan.findings) != len(texts) + 1 or any(one.end > len(names) for one in scan.findings[-1]):
        scan = failed((*texts, names), scan)
    asked = asked_of(
        "request",
        request.tenant,
        tenant,
        purpose=request.purpose,
        basis=request.legal_basis,
        notice=request.notice,
        origin=request.origin,
        classes=request.classes,
        places=_places(policies),
    )
    of_texts = replace(scan, findings=scan.findings[:-1])
    checked = check(texts, asked, of_texts, tenant, BOOK, now_ms)
    field = _field_with(request, key, scan.findings[-1])
    if field is not None:
        decision = closed(checked.decision, "gate-id")
        return _stopped(request, seen(decision, asked, tenant, of_texts), Denied(field, decision.explanation, _NAMES))
    if checked.masked is None:
        return _stopped(request, checked.seen, _denied(checked, asked, tenant))
    personal = bool(checked.decision.masks) or checked.decision.action == "confine"
    passed = _with(request, checked.masked.texts, personal=personal)
    return Gated(passed, checked.seen, frozenset(checked.decision.arms), checked.masked.map)


def _stopped(request: RequestSubmitted, told: GateSeen, denied: Denied) -> Gated:
    gone = _with(request, (GONE,) * len(request.messages), personal=True)
    return Gated(gone, told, frozenset(), MaskMap(), denied)


def _places(policies: Policies) -> tuple[Place, ...]:
    """Every arm that could be asked."""
    fleet = policies.fleet.data.arms if policies.fleet is not None else ()
    arms = fleet or (policies.route.data.settings.arms if policies.route is not None else ())
    return tuple(Place(arm.arm, arm.region) for arm in arms)


def _named(request: RequestSubmitted, key: str) -> list[tuple[str, str]]:
    """(field, text) of what a sender may put a name into. A key that is not the id is answered under itself."""
    fields = [
        ("request_id", request.request_id),
        ("request_id", None if key == request.request_id else key),
        ("session_id", request.session_id),
        ("subject", request.subject),
        ("notice", request.notice),
        *(("needs", need) for need in request.needs),
    ]
    return [(field, text) for field, text in fields if text is not None]


def _field_with(request: RequestSubmitted, key: str, findings: Sequence[Finding]) -> str | None:
    """The first field that holds what names somebody."""
    held = [one for one in findings if one.kind in OF_PEOPLE]
    at = 0
    for field, text in _named(request, key) if held else ():
        end = at + len(text)
        if any(one.start < end and one.end > at for one in held):
            return field
        at = end + 1
    return "request_id" if held else None  # a place outside all of them: whoever found it miscounts


def _with(request: RequestSubmitted, texts: Sequence[str], *, personal: bool) -> RequestSubmitted:
    """The request with these texts in the place of its own."""
    changes: dict[str, object] = {}
    pairs = list(zip(request.messages, texts, strict=True))
    if any(message.content != text for message, text in pairs):
        changes["messages"] = tuple(message.model_copy(update={"content": text}) for message, text in pairs)
    if personal:
        changes["sensitivity"] = max(request.sensitivity or "public", "personal", key=rank)
    return request.model_copy(update=changes) if changes else request


def _denied(checked: Checked, asked: Asked, tenant: GateTenant | None) -> Denied:
    """What the sender has to change first."""
    decision = checked.decision
    fields = {_field_of(fired, asked, tenant) for fired in decision.fired if fired.action == "deny"}
    first = next(field for field in _ACCEPTED if field in fields)
    unscanned = first == "messages" and checked.seen.scan != "whole"
    return Denied(first, decision.explanation, _AGAIN if unscanned else _ACCEPTED[first])


def _field_of(fired: Fired, asked: Asked, tenant: GateTenant | None) -> str:
    if fired.kinds and {*fired.kinds} <= {*asked.classes}:
        return "classes"
    field = _FIELDS.get(fired.rule) or _OF_FAMILY.get(_FAMILIES.get(fired.rule, ""), "messages")
    return "notice" if field == "purpose" and tenant is not None and asked.purpose in tenant.purposes else field
