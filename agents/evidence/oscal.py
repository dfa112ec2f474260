"""Results of controls as an OSCAL assessment-results document, version 1.2.1. Pure; no clock, no randomness.

Times are the log's, ids are UUIDv5 of the log's root, so that one log gives one document. What could not be assessed is
never a pass: no evidence is `not-satisfied` with the reason `other`, not applicable is an excluded control.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from schemas import canonical
from schemas.ids import derive
from schemas.tlog.note import Checkpoint

VERSION = "1.2.1"
State = Literal["satisfied", "not-satisfied", "not-applicable", "no-evidence"]
NAMED = 20
"""Entries that a result names at most; `failed` says how many there are."""
_STATUS = {
    "satisfied": {"state": "satisfied", "reason": "pass"},
    "not-satisfied": {"state": "not-satisfied", "reason": "fail"},
    "no-evidence": {"state": "not-satisfied", "reason": "other"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """One control, assessed. `population` is how many cases there were, `failed` which entries of them did not hold.

    `by`: who signed the statement that it rests on; empty where it rests on the log.
    """

    control: str
    title: str
    state: State
    why: str
    population: int = 0
    failed: Sequence[int] = ()
    by: str = ""


def assessment_results(log: Checkpoint, results: Sequence[Result], first_ms: int, last_ms: int) -> bytes:
    """The document over the log under a checkpoint; the times are those of its first and last record."""
    identity = f"{log.origin}/{log.size}/{log.root.hex()}"

    def uuid(what: str) -> str:
        return derive(identity, "oscal", what)

    end = instant(last_ms)
    assessed = [one for one in results if one.state != "not-applicable"]
    excluded = [one for one in results if one.state == "not-applicable"]
    selection: dict[str, canonical.Json] = {"include-controls": [{"control-id": one.control} for one in assessed]}
    if not assessed:
        selection = {"include-all": {}}  # the schema asks for one; all of them are excluded below
    if excluded:
        selection["exclude-controls"] = [{"control-id": one.control} for one in excluded]
        selection["remarks"] = " ".join(f"{one.control}: {one.why}" for one in excluded)
    body: dict[str, canonical.Json] = {
        "uuid": uuid("result"),
        "title": f"What the evidence log {log.origin} shows",
        "description": "Derived from the entries alone. They are not asserted to be true, only to be what was recorded.",
        "start": instant(first_ms),
        "end": end,
        "reviewed-controls": {"control-selections": [selection]},
    }
    if assessed:
        body["observations"] = [_observation(one, uuid(f"observation/{one.control}"), end) for one in assessed]
        body["findings"] = [
            {
                "uuid": uuid(f"finding/{one.control}"),
                "title": one.title,
                "description": one.why,
                "target": {"type": "objective-id", "target-id": one.control, "status": _STATUS[one.state]},
                "related-observations": [{"observation-uuid": uuid(f"observation/{one.control}")}],
            }
            for one in assessed
        ]
    plan = uuid("plan")
    return canonical.encode(
        {
            "assessment-results": {
                "uuid": uuid("document"),
                "metadata": {
                    "title": "Ratchet evidence: assessment results",
                    "last-modified": end,
                    "version": str(log.size),
                    "oscal-version": VERSION,
                },
                "import-ap": {"href": f"#{plan}"},
                "results": [body],
                "back-matter": {
                    "resources": [
                        {
                            "uuid": plan,
                            "title": "How the controls are assessed",
                            "description": f"By rules over all {log.size} entries; docs/evidence.md of Ratchet states them.",
                        }
                    ]
                },
            }
        }
    )


def _observation(one: Result, uuid: str, collected: str) -> dict[str, canonical.Json]:
    named = ", ".join(str(index) for index in one.failed[:NAMED])
    more = f" and {len(one.failed) - NAMED} more" if len(one.failed) > NAMED else ""
    failing = f"; {len(one.failed)} did not hold: entries {named}{more}" if one.failed else ""
    return {
        "uuid": uuid,
        "title": one.control,
        "description": f"{one.population} cases looked at{failing}." if not one.by else f"Stated by {one.by}.",
        "methods": ["EXAMINE" if one.by else "TEST"],
        "types": ["control-objective"],
        "relevant-evidence": [{"href": "checkpoint", "description": "The signed log that the cases stand in."}],
        "collected": collected,
    }


def instant(at_ms: int) -> str:
    """Epoch milliseconds in OSCAL's spelling of a time."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
