"""Which controls a finding violates, and the entry that says so. Pure.

A violation stands right behind the finding that it is about, in the same batch: a reader needs no index to join them. Findings that
violate nothing (`witness-away`, an entry without its facts) have none.
"""

from collections.abc import Mapping

from schemas import canonical

VIOLATION = "violation"
VIOLATES: Mapping[str, tuple[str, ...]] = {
    "offset-gap": ("hipaa-164.312.b",),
    "range-lost": ("aiact-19", "aiact-26.6", "hipaa-164.312.b", "hipaa-164.316.b.2"),
    "range-unread": ("hipaa-164.312.b",),
    "source-reset": ("hipaa-164.312.c",),
}
"""Kind of finding -> the controls that a log with it does not satisfy; a test holds them to the checks."""
_ENTRIES = {
    kind: canonical.encode({"v": 1, "type": VIOLATION, "finding": kind, "controls": list(controls)})
    for kind, controls in VIOLATES.items()
}


def with_violation(kind: str, finding: bytes) -> list[bytes]:
    """A finding's entry, and behind it that of its violation where it is one."""
    entry = _ENTRIES.get(kind)
    return [finding] if entry is None else [finding, entry]
