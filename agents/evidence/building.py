"""A batch's records into entries and sealed payloads, once its subjects' keys are there."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agents.evidence import coverage
from agents.evidence.keytable import KEY_BYTES, Erased, Missing, SubjectKey, Wanted
from agents.evidence.payloads import Sealed, sealed
from agents.evidence.ports import EvidenceKeys
from agents.evidence.record import Draft, pseudonym
from streams.shapes import Record


@dataclass(frozen=True, slots=True)
class Item:
    """A record on its way to an entry. `wanted`: whose key it needs; None: the tenant's."""

    record: Record
    inc: int
    draft: Draft
    pseudonym_key: bytes
    wanted: Wanted | None


@dataclass(slots=True)
class Built:
    """What a batch becomes. `tenants`: how many entries each tenant's tag has."""

    entries: list[bytes] = field(default_factory=list[bytes])
    findings: list[bytes] = field(default_factory=list[bytes])
    payloads: list[Sealed] = field(default_factory=list[Sealed])
    tenants: Counter[str] = field(default_factory=Counter[str])


def items(records: Iterable[tuple[Record, int]], keys: EvidenceKeys) -> list[Item]:
    """The records, each with the incarnation of its partition, read as far as it takes to say whose keys are needed."""
    found: list[Item] = []
    for record, inc in records:
        draft = Draft(record, inc)
        key = keys.pseudonym_key(draft.tenant)
        found.append(Item(record, inc, draft, key, draft.wanted(key)))
    return found


def built(batch: Sequence[Item], keys: EvidenceKeys, subjects: Mapping[Wanted, SubjectKey | Erased | Missing]) -> Built:
    """Entries in the order of the items. Of what an erasure covers nobody can ever confirm a guess, and no payload is kept."""
    done = Built()
    for item in batch:
        draft = item.draft
        done.tenants[pseudonym(item.pseudonym_key, "tenant", draft.tenant)] += 1
        key = subjects[item.wanted] if item.wanted is not None else None
        if key is None:
            commitment_key = keys.commitment_key(draft.tenant)
        elif isinstance(key, SubjectKey):
            commitment_key = key.commit
            payload = sealed(item.record, item.inc, draft.tenant, draft.id, key)
            if payload is not None:
                done.payloads.append(payload)
        else:
            commitment_key = os.urandom(KEY_BYTES)
        done.entries.append(draft.build(commitment_key, item.pseudonym_key))
        if draft.refused:
            done.findings.append(coverage.finding(draft.refused, item.record, item.inc))
    return done
