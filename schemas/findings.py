"""What a detector says of a text: a kind, a place and a rule, never the value.

The kinds are a closed list: decisions and evidence count findings by kind.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What was found."""

    EMAIL = "email"
    CARD = "card"
    PHONE = "phone"
    IBAN = "iban"
    SSN = "ssn"
    IP = "ip"
    DOMAIN = "domain"
    DATE = "date"
    NPI = "npi"
    DEA = "dea"
    MBI = "mbi"
    RECORD = "record-number"
    ICD10 = "icd-10"
    HEALTH = "health"
    SECRET = "secret"  # noqa: S105 the name of a kind


@dataclass(frozen=True, slots=True)
class Finding:
    """`text[start:end]` of the text as it was given looks like a `kind`. Nothing here repeats what stands there.

    `rule` names what found it. `score`: 1 a checksum or a grammar of its own, .8 shape and context, .6 shape alone.
    """

    kind: Kind
    start: int
    end: int
    rule: str
    score: float = 1.0
