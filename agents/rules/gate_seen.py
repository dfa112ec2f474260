"""From a scan to what stands in events: what is asked with the tenant's defaults, the decision, the masked texts, and `GateSeen`. Pure.

1. What a sender wrote is repeated only where the tenant's configuration has the same name.
2. A detector that miscounts has failed: nothing is masked by it, and the text is denied.
3. `again` gives the scan that a recorded word stands for, so that a decision is made again without a clock.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agents.rules.gate import Asked, Book, GateDecision, Place, decide
from agents.rules.masking import Masked, mask
from schemas.events import GateSeen
from schemas.gate import GateTenant, Scan, SizeRule, Where

Word = Literal["whole", "failed", "late"]


@dataclass(frozen=True, slots=True, repr=False)
class Checked:
    """`masked`: the texts as they may go on; None where they may not."""

    decision: GateDecision
    seen: GateSeen
    masked: Masked | None


def limits(book: Book, at_ms: int) -> tuple[int, int]:
    """(characters, microseconds) that a scan may have at that time; nothing where no rule says how much."""
    sizes = [rule for rule in book.at(at_ms).rules if isinstance(rule, SizeRule)]
    return min((rule.characters for rule in sizes), default=0), min((rule.scan_us for rule in sizes), default=0)


def asked_of(
    where: Where,
    tenant: str,
    settings: GateTenant | None,
    *,
    purpose: str | None = None,
    basis: str | None = None,
    notice: str | None = None,
    origin: str | None = None,
    classes: Iterable[str] = (),
    places: Iterable[Place] = (),
) -> Asked:
    """What is asked: where the sender says nothing, as the tenant's configuration says."""
    return Asked(
        where=where,
        tenant=tenant,
        purpose=purpose or (None if settings is None else settings.purpose),
        basis=basis or (None if settings is None else settings.basis),
        notice=notice or (None if settings is None else settings.notice),
        origin=origin or (None if settings is None else settings.origin),
        classes=tuple(classes),
        places=tuple(places),
    )


def check(texts: Sequence[str], asked: Asked, scan: Scan, tenant: GateTenant | None, book: Book, at_ms: int) -> Checked:
    """The gate over texts that were scanned: the decision, and what of them goes on."""
    decision = decide(asked, scan, tenant, book, at_ms)
    if decision.action == "deny":
        return Checked(decision, seen(decision, asked, tenant, scan), None)
    done = masked(texts, scan, decision.masks)
    if done is None:
        scan = failed(texts, scan)
        decision = decide(asked, scan, tenant, book, at_ms)
    return Checked(decision, seen(decision, asked, tenant, scan), done)


def masked(texts: Sequence[str], scan: Scan, kinds: Collection[str]) -> Masked | None:
    """The texts with findings of `kinds` replaced; None where a finding lies outside its text, or texts and findings differ in number:
    then the scan has `failed`."""
    try:
        return mask(texts, scan.findings, kinds)
    except ValueError:
        return None


def failed(texts: Sequence[str], scan: Scan) -> Scan:
    """The scan as one whose detectors failed."""
    return replace(scan, findings=((),) * len(texts), spent_us=0, failed=True)


def seen(decision: GateDecision, asked: Asked, tenant: GateTenant | None, scan: Scan) -> GateSeen:
    """What events say of the decision."""
    bases = () if tenant is None else tenant.purposes.get(asked.purpose or "", ())
    origins = set[str]() if tenant is None else {tenant.origin, *(flow.origin for flow in tenant.flows)}
    return GateSeen(
        action=decision.action,
        rules=tuple(sorted({fired.rule for fired in decision.fired})),
        exemptions=tuple(sorted({fired.exemption for fired in decision.fired if fired.exemption is not None})),
        rules_digest=decision.digest,
        tenant_version=decision.tenant_version,
        purpose=asked.purpose or "" if tenant is not None and asked.purpose in tenant.purposes else "",
        legal_basis=asked.basis or "" if asked.basis in bases else "",
        origin=asked.origin or "" if asked.origin in origins else "",
        registered=asked.basis in bases and _carried(decision, asked, tenant),
        found=dict(decision.found),
        masked=decision.masks if decision.action != "deny" else (),
        scan=word(decision, scan),
    )


def word(decision: GateDecision, scan: Scan) -> Word:
    """How the scan ended."""
    if scan.failed:
        return "failed"
    return "late" if any(fired.rule == "gate-time" for fired in decision.fired) else "whole"


def again(word: Word, scan: Scan, budget_us: int) -> Scan:
    """The scan of a replay, as the recorded word says that it ended."""
    if word == "whole":
        return replace(scan, spent_us=0)
    nothing = ((),) * len(scan.findings)
    return replace(scan, findings=nothing, spent_us=budget_us + 1 if word == "late" else 0, failed=word == "failed")


def _carried(decision: GateDecision, asked: Asked, tenant: GateTenant | None) -> bool:
    """Whether flows of the tenant lead from the origin to everywhere that is left; where nothing is left: to anywhere."""
    regions = (
        {flow.region for flow in tenant.flows if flow.origin == asked.origin} if tenant is not None else set[str]()
    )
    return asked.where == "answer" or (bool(regions) and {*decision.regions} <= regions)
