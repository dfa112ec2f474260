"""What the log itself can show of controls. Pure: a fold over its entries.

|control|case|holds when|
|---|---|---|
|hipaa-164.312.b|a span of offsets in a coverage entry|it continues the span before it and skips nothing that needs a finding|
|hipaa-164.312.c|an entry|the tiles have the signed root, and no finding says that a source was reset|
|soc2-cc7.2|a coverage entry|no finding is recorded: the log cannot show yet that a person has looked at one|
|soc2-cc8.1|a promotion|an evaluation or a command in the log is what it names as its ground|
|aiact-12|an answered request|its request and, unless refused before, its decision are in the log|

Keeps a few dozen bytes per request, evaluation and command.
"""

from collections.abc import Mapping
from typing import Any

from agents.evidence.oscal import Result, result

_LATEST_MS = 32_503_679_999_999  # the end of the year 2999: what OSCAL's times can say
_REQUESTED, _ROUTED, _ANSWERED, _REFUSED = 1, 2, 4, 8
_BITS = {
    "decision.routed": _ROUTED,
    "answer.released": _ANSWERED,
    "answer.withheld": _ANSWERED,
    "answer.refused": _REFUSED,
}
_NEED_FINDING = frozenset({"unknown", "lost", "before-first-read"})
_REQUESTS = "ratchet.requests"


class Ledger:
    """Give it every entry in order, then ask for the `results`."""

    def __init__(self) -> None:
        self.first_ms = _LATEST_MS
        self.last_ms = 0
        self._entries = 0
        self._frontiers: dict[tuple[str, int], int] = {}
        self._spans = 0
        self._broken: list[int] = []
        self._coverages = 0
        self._findings: list[int] = []
        self._resets: list[int] = []
        self._grounds: set[str] = set()
        self._promotions: list[tuple[int, str]] = []
        self._requests: dict[tuple[int, int], int] = {}
        self._answers: dict[tuple[int, int], int] = {}

    def take(self, index: int, value: Mapping[str, Any]) -> None:
        """The next entry."""
        self._entries += 1
        kind = value["type"]
        if kind == "coverage":
            self._cover(index, value["partitions"])
        elif kind == "finding":
            self._findings.append(index)
            if value["kind"] == "source-reset":
                self._resets.append(index)
        elif "src" in value:
            self._record(index, kind, value)

    def results(self, *, unbroken: bool) -> list[Result]:
        """All controls of the table. `unbroken`: the tiles were read and have the signed root."""
        ungrounded = [index for index, ground in self._promotions if ground not in self._grounds]
        lacking = [self._answers[place] for place, bits in self._requests.items() if not _rebuilt(bits)]
        broken = self._resets if unbroken else range(self._entries)
        return [
            result(
                "hipaa-164.312.b", "Activity is recorded without a gap", self._spans, self._broken,
                "Every offset of every recorded partition is an entry or a skip with its reason.",
                "Coverage has a gap, or names offsets that were lost or could not be explained.",
            ),
            result(
                "hipaa-164.312.c", "Records are not altered", self._entries, broken,
                "All entries hang together under the signed root.",
                "The tiles do not have the signed root, or a source was reset.",
            ),
            result(
                "soc2-cc7.2", "Anomalies are found", self._coverages, self._findings,
                "Every batch was compared with its source, and no finding is recorded.",
                "Findings are recorded, and nothing in the log says that a person has looked at them.",
            ),
            result(
                "soc2-cc8.1", "Models change by evaluation and approval", len(self._promotions), ungrounded,
                "Every promotion names an evaluation or a command that is in the log.",
                "A promotion names a ground that the log does not hold.",
            ),
            result(
                "aiact-12", "Any answered request can be rebuilt", len(self._answers), sorted(lacking),
                "Every answered request stands in the log with its request and its decision.",
                "Of an answered request the request itself or its decision is not in the log.",
            ),
        ]  # fmt: skip

    def _cover(self, index: int, partitions: Mapping[str, Mapping[str, Any]]) -> None:
        self._coverages += 1
        for place, span in partitions.items():
            key = (place, span["inc"])
            self._spans += 1
            unexplained = any(kind in _NEED_FINDING for _, _, kind in span["skips"])
            if span["from"] != self._frontiers.get(key, 0) or unexplained:
                self._broken.append(index)
            self._frontiers[key] = span["next"]

    def _record(self, index: int, kind: str, value: Mapping[str, Any]) -> None:
        source, facts = value["src"], value.get("facts", {})
        at = source["broker_ms"]
        if isinstance(at, int) and 0 < at <= _LATEST_MS:
            self.first_ms, self.last_ms = min(self.first_ms, at), max(self.last_ms, at)
        if kind in ("promotion.evaluated", "command.promote"):
            self._grounds.add(str(value.get("id")))
        elif kind == "model.promoted":
            self._promotions.append((index, str(facts.get("evaluation"))))
        elif source["topic"] == _REQUESTS:
            self._note((source["partition"], source["offset"]), _REQUESTED)
        elif kind in _BITS and "request_offset" in facts:
            place = (facts.get("request_partition", 0), facts["request_offset"])
            self._note(place, _BITS[kind])
            if kind != "decision.routed":
                self._answers.setdefault(place, index)

    def _note(self, place: tuple[int, int], bit: int) -> None:
        self._requests[place] = self._requests.get(place, 0) | bit


def _rebuilt(bits: int) -> bool:
    """Whether nothing that led to an answer is missing; a request that waits for one misses nothing."""
    if bits & _ANSWERED:
        return bits & (_REQUESTED | _ROUTED) == _REQUESTED | _ROUTED
    return not bits & _REFUSED or bool(bits & _REQUESTED)
