"""What the events that follow a command say of it: done, refused, or under way. Pure."""

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Word(Enum):
    """What an event means for the command that is waited for. UNDER_WAY: it was taken, and more will follow by itself."""

    DONE = "done"
    NO = "no"
    UNDER_WAY = "under way"


_DONE = {
    "promote": ("model.promoted", "promotion.staged"),
    "reject": ("promotion.rejected",),
    "rollback": ("model.rolled_back",),
    "pause": ("policy.fleet",),
    "resume": ("policy.fleet",),
    "trust": ("policy.trust",),
    "train": ("training.ordered",),
    "cancel": ("training.cancelled",),
}
_NO = {"promote": ("promotion.rejected",), "train": ("training.failed", "training.cancelled")}


def meaning(kind: str, route: str, row: Mapping[str, Any], *, caused: bool) -> Word | None:
    """What `row` says of the command; None of what does not concern it. `caused`: the row names the command as its cause.

    A rollback that had to wait is carried out because of `adapter.live`, not of the command: it counts whatever its cause.
    """
    data: Mapping[str, Any] = row["data"] or {}
    if data.get("route") != route:
        return None
    if kind == "rollback" and row["type"] == "model.rolled_back":
        return Word.DONE
    if not caused:
        return None
    reason = str(data.get("reason") or "")
    if kind == "promote" and row["type"] == "promotion.evaluated":
        return Word.UNDER_WAY if reason.startswith("approved by ") else Word.NO
    if kind == "rollback" and row["type"] == "policy.fleet":
        return {"rollback waits": Word.UNDER_WAY, "rollback by": Word.NO}.get(" ".join(reason.split()[:2]))
    if kind == "trust" and row["type"] == "trust.changed" and data.get("refused"):
        return Word.NO  # goes before the policy that stays as it was
    if row["type"] in _DONE[kind]:
        return Word.DONE
    return Word.NO if row["type"] in _NO.get(kind, ()) else None
