"""HIPAA's identifiers that de-identified data is without (45 CFR 164.514(b)(2)(i)), and which of them the gate removes. Pure.

A class is removed only where detectors look for its usual forms and the tenant's gate replaces, or denies, every kind that stands for
it. What detectors look for they do not always find (docs/detectors.md): this says what was tried, no more.
"""

from collections.abc import Mapping
from typing import Final

from agents.rules.gate import Asked, Book, decide
from schemas.findings import Finding, Kind
from schemas.gate import GateTenant, Scan

CLASSES: Final[Mapping[str, tuple[Kind, ...]]] = {
    "names": (),
    "places": (),
    "dates": (Kind.DATE,),
    "phone": (Kind.PHONE,),
    "fax": (Kind.PHONE,),  # their numbers look the same
    "email": (Kind.EMAIL,),
    "social-security": (Kind.SSN,),
    "medical-records": (Kind.RECORD,),
    "health-plans": (Kind.MBI, Kind.RECORD),
    "accounts": (Kind.CARD, Kind.IBAN),
    "licences": (),  # numbers of prescribers and providers are found, drivers' and others' are not
    "vehicles": (),
    "devices": (),
    "urls": (Kind.DOMAIN,),
    "ip": (Kind.IP,),
    "biometrics": (),
    "photos": (),
    "other-numbers": (),
}
"""The 18 classes in the order of the rule, and the kinds that stand for each; none: no detector looks for it."""


def unsupported(asked: Asked, tenant: GateTenant, book: Book, at_ms: int) -> tuple[str, ...]:
    """The classes of which something is not looked for, or is let through by the tenant's own exemptions and thresholds."""
    gone = {kind for kinds in CLASSES.values() for kind in kinds if _removed(kind, asked, tenant, book, at_ms)}
    return tuple(name for name, kinds in CLASSES.items() if not kinds or not gone.issuperset(kinds))


def _removed(kind: Kind, asked: Asked, tenant: GateTenant, book: Book, at_ms: int) -> bool:
    """Whether even the least certain finding of a kind does not come through."""
    scan = Scan(((Finding(kind, 0, 1, "trial", 0.0),),), characters=1, spent_us=0)
    decision = decide(asked, scan, tenant, book, at_ms)
    return decision.action == "deny" or kind in decision.masks
