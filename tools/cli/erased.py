"""Receipts of erasures in the log: whose data was made unreadable, below which offsets, from which day on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agents.evidence.checks import NEVER_MS
from agents.evidence.keytable import request_place
from agents.evidence.snapshot import Say, Snapshot, parsed, silent

_ERASED = b'"type":"subject.erased"'


@dataclass(frozen=True, slots=True)
class Receipt:
    """`cut`: partition of the requests' topic -> the first offset that is not erased."""

    index: int
    effective_at_ms: int
    cut: Mapping[int, int]

    @property
    def day(self) -> str:
        """The day (UTC) from which it holds."""
        if self.effective_at_ms >= NEVER_MS:
            return "a day that never comes"
        return datetime.fromtimestamp(self.effective_at_ms / 1000, UTC).date().isoformat()

    def covers(self, value: Mapping[str, Any]) -> bool:
        """Whether the request that an entry is about lies below the cut."""
        source = value.get("src", {})
        if "offset" not in source:
            return False
        place = request_place(source["topic"], source["partition"], source["offset"], value.get("facts", {}))
        return place is not None and place[1] < self.cut.get(place[0], 0)


def receipts(log: Snapshot, tenant: str, subject: str, say: Say = silent) -> list[Receipt]:
    """The subject's receipts, oldest first."""
    found: list[Receipt] = []
    for index, entry in log.entries(say=say):
        if _ERASED not in entry or subject.encode() not in entry:
            continue
        value = parsed(entry)
        if (value.get("type"), value.get("tenant"), value.get("subject")) == ("subject.erased", tenant, subject):
            facts = value.get("facts", {})
            cut = {row["partition"]: row["offset"] for row in facts.get("cut", ()) if {"partition", "offset"} <= {*row}}
            found.append(Receipt(index, facts.get("effective_at_ms", 0), cut))
    return found


def words(found: Receipt) -> str:
    """The receipt in a line."""
    return f"erased: from {found.day} on no key that we hold opens the texts or confirms a guess of them (receipt: entry {found.index})"
