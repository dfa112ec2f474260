"""The gate over rows for training: text and label are asked about together, before anything is trained on. Pure.

1. The purpose is `training`, on a basis that both the rules and the tenant name for it; the place is the job, where the champion computes.
2. What the gate masks is replaced on top of what the router replaced already: placeholders in a row stay as they are.
3. Whatever the gate does not permit is no row: denied, confined to arms of which the job is none, detectors that failed or were late.
"""

from dataclasses import replace
from typing import Final

from agents.rules.curation import Row
from agents.rules.gate import Asked, Book, Place
from agents.rules.gate_seen import asked_of, check
from agents.rules.masking import mask_further
from schemas.gate import BasisRule, GateTenant, Scan

PURPOSE: Final = "training"
JOB: Final = "trainer"
"""The job's name as a place: a tenant that confines texts to private arms names it among them, or such rows are denied."""


def asked_to_train(tenant: GateTenant, region: str, book: Book, at_ms: int) -> Asked:
    """What a job of the tenant asks of each row."""
    fitting = {
        basis
        for rule in book.rules
        if isinstance(rule, BasisRule) and rule.in_force(at_ms)
        for basis in rule.matrix.get(PURPOSE, ())
    }
    bases = [basis for basis in tenant.purposes.get(PURPOSE, ()) if basis in fitting]
    asked = asked_of(
        "curation", tenant.tenant, tenant, purpose=PURPOSE, places=(Place(JOB, region),)
    )  # its basis is the tenant's default for requests
    return replace(asked, basis=bases[0] if bases else None)


def texts_of(row: Row) -> tuple[str, str]:
    """What of a row is scanned."""
    return row.text, row.label


def permitted(row: Row, scan: Scan, asked: Asked, tenant: GateTenant, book: Book, at_ms: int) -> Row | None:
    """The row as it may be trained on; None where it may not."""
    texts = texts_of(row)
    checked = check(texts, asked, scan, tenant, book, at_ms)
    if checked.masked is None:
        return None
    if not checked.decision.masks:
        return row
    text, label = mask_further(texts, scan.findings, checked.decision.masks)
    return replace(row, text=text, label=label)
