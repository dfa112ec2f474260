"""Folds over the log's entries that assess controls: how many cases there were, which of them did not hold. Pure.

Entries come in the order of the log. What lies on different partitions may come in any order: it is joined at the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from agents.evidence.catalogue import DEADLINE

Value = Mapping[str, Any]
Place = tuple[int, int, int]
"""Of a request: partition, its incarnation, offset."""
DAY_MS = 86_400_000
_REQUESTS = "ratchet.requests"
_NEED_FINDING = frozenset({"unknown", "lost", "before-first-read"})


@dataclass(frozen=True, slots=True)
class End:
    """What is known once every entry was taken. `unbroken`: the tiles were read and have the signed root."""

    entries: int
    last_ms: int
    unbroken: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """How many cases there were, and the entries of those that did not hold."""

    population: int
    failed: Sequence[int] = ()


class Check(ABC):
    """A fold over the entries of `types`, `*` for all of them."""

    types: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.population: int = 0
        self.failed: list[int] = []

    @abstractmethod
    def take(self, index: int, value: Value) -> None:
        """The next entry of these types."""

    def judged(self, end: End) -> Judged:
        return Judged(self.population, self.failed)

    def case(self, index: int, *, holds: bool) -> None:
        self.population += 1
        if not holds:
            self.failed.append(index)


def part(value: Value, name: str) -> Value:
    """The object of this name, an empty one where there is none."""
    found = value.get(name)
    return cast("Value", found) if isinstance(found, dict) else {}


class Unbroken(Check):
    types = ("coverage",)

    def __init__(self) -> None:
        super().__init__()
        self._frontiers: dict[tuple[str, int], int] = {}

    def take(self, index: int, value: Value) -> None:
        for place, span in value["partitions"].items():
            key = (place, span["inc"])
            unexplained = any(kind in _NEED_FINDING for _, _, kind in span["skips"])
            self.case(index, holds=span["from"] == self._frontiers.get(key, 0) and not unexplained)
            self._frontiers[key] = span["next"]


class Intact(Check):
    """Every entry is a case; all fail where the tiles do not have the signed root, else findings of one kind."""

    types = ("finding",)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def take(self, index: int, value: Value) -> None:
        if value.get("kind") == self._kind:
            self.failed.append(index)

    def judged(self, end: End) -> Judged:
        return Judged(end.entries, self.failed if end.unbroken else range(end.entries))


class Grounded(Check):
    types = ("promotion.evaluated", "command.promote", "model.promoted")

    def __init__(self) -> None:
        super().__init__()
        self._grounds: set[str] = set()
        self._promotions: list[tuple[int, str]] = []

    def take(self, index: int, value: Value) -> None:
        if value["type"] == "model.promoted":
            self._promotions.append((index, str(part(value, "facts").get("evaluation"))))
        else:
            self._grounds.add(str(value.get("id")))

    def judged(self, end: End) -> Judged:
        return Judged(len(self._promotions), [at for at, ground in self._promotions if ground not in self._grounds])


class Signed(Check):
    """Registration and engine write to different partitions: who was registered is known at the end."""

    types = ("training.completed", "adapter.registered", "adapter.live", "adapter.refused")

    def __init__(self) -> None:
        super().__init__()
        self._registered: set[str] = set()
        self._live: list[tuple[int, str]] = []

    def take(self, index: int, value: Value) -> None:
        adapter = part(value, "facts").get("adapter")
        if value["type"] == "adapter.refused":
            self.population += 1
        elif not isinstance(adapter, str):
            return
        elif value["type"] == "adapter.live":
            self._live.append((index, adapter))
        else:
            self._registered.add(adapter)

    def judged(self, end: End) -> Judged:
        unsigned = [index for index, adapter in self._live if adapter not in self._registered]
        return Judged(self.population + len(self._live), unsigned)


_REQUESTED, _ROUTED, _RELEASED, _WITHHELD, _REFUSED, _TWICE = 1, 2, 4, 8, 16, 32
_ENDED = _RELEASED | _WITHHELD | _REFUSED
_BITS = {
    "decision.routed": _ROUTED,
    "answer.released": _RELEASED,
    "answer.withheld": _WITHHELD,
    "answer.refused": _REFUSED,
}


class Requests(Check):
    """Each request by its place on the topic: what became of it. A few dozen bytes per request.

    Answers do not say of which incarnation of the topic their request was: it is the one that was read last.
    """

    types = ("*",)

    def __init__(self) -> None:
        super().__init__()
        self._bits: dict[Place, int] = {}
        self._first: dict[Place, int] = {}
        self._answers: dict[Place, int] = {}
        self._until_ms: dict[Place, int] = {}
        self._inc: dict[int, int] = {}

    def take(self, index: int, value: Value) -> None:
        if "src" not in value or "offset" not in value["src"]:
            return
        kind, source, facts = value["type"], value["src"], part(value, "facts")
        if source["topic"] == _REQUESTS:
            self._inc[source["partition"]] = source["inc"]
            place = self._place(source["partition"], source["offset"])
            self._note(index, place, _REQUESTED)
            at = source["broker_ms"]
            if isinstance(at, int):
                self._until_ms.setdefault(place, at + DAY_MS)
        elif kind == "dead-letter":
            if facts.get("topic") == _REQUESTS and facts.get("agent") == "router" and "offset" in facts:
                self._end(index, self._place(facts.get("partition", 0), facts["offset"]), _REFUSED)
        elif kind in _BITS and "request_offset" in facts:
            place = self._place(facts.get("request_partition", 0), facts["request_offset"])
            if kind == "decision.routed":
                self._note(index, place, _ROUTED)
                until = facts.get("window_end_ms")
                if isinstance(until, int):
                    self._until_ms[place] = until
            else:
                self._answers.setdefault(place, index)
                self._end(index, place, _BITS[kind])

    def _place(self, partition: int, offset: int) -> Place:
        return partition, self._inc.get(partition, 0), offset

    def _note(self, index: int, place: Place, bit: int) -> None:
        self._first.setdefault(place, index)
        self._bits[place] = self._bits.get(place, 0) | bit

    def _end(self, index: int, place: Place, bit: int) -> None:
        twice = _TWICE if self._bits.get(place, 0) & _ENDED else 0
        self._note(index, place, bit | twice)

    def rebuilt(self, end: End) -> Judged:
        lacking = [index for place, index in self._answers.items() if not _rebuilt(self._bits[place])]
        return Judged(len(self._answers), sorted(lacking))

    def accounted(self, end: End) -> Judged:
        latest = end.last_ms - DEADLINE["answer-grace"].value * 1000
        failed = [self._first[place] for place, bits in self._bits.items() if not self._sound(place, bits, latest)]
        return Judged(len(self._bits), sorted(failed))

    def _sound(self, place: Place, bits: int, latest: int) -> bool:
        if bits & _TWICE or not bits & _REQUESTED:
            return False
        return bool(bits & _ENDED) or self._until_ms.get(place, latest) >= latest


def _rebuilt(bits: int) -> bool:
    """Whether nothing that led to an answer is missing; what was refused before needs no decision."""
    if bits & (_RELEASED | _WITHHELD):
        return bits & (_REQUESTED | _ROUTED) == _REQUESTED | _ROUTED
    return bool(bits & _REQUESTED)


class Overseen(Check):
    """Score, answer and verdict lie on different partitions: what a score asked for is known at the end."""

    types = ("score.assigned", "answer.released", "answer.withheld", "verdict.given")

    def __init__(self) -> None:
        super().__init__()
        self._held: set[str] = set()
        self._unseen: dict[int, str] = {}
        self._verdicts = 0
        self._quick: list[int] = []

    def take(self, index: int, value: Value) -> None:
        kind, facts = value["type"], part(value, "facts")
        if kind == "verdict.given":
            self._verdict(index, facts)
            return
        decision = str(facts.get("decision_id"))
        if kind == "score.assigned":
            if facts.get("action") == "hold" and facts.get("gated") and not facts.get("shadow"):
                self._held.add(decision)
            return
        self.population += 1
        if kind == "answer.released" and not facts.get("reviewed"):
            self._unseen[index] = decision

    def _verdict(self, index: int, facts: Value) -> None:
        if facts.get("kind", "person") != "person" or "seconds_spent" not in facts:
            return
        self._verdicts += 1
        if float(facts["seconds_spent"]) < DEADLINE["review-least"].value:
            self._quick.append(index)

    def judged(self, end: End) -> Judged:
        return Judged(self.population, [index for index, decision in self._unseen.items() if decision in self._held])

    def attentive(self, end: End) -> Judged:
        """With verdicts as cases too; quick ones fail where they are more than the share that is allowed."""
        answers = self.judged(end)
        stamped = len(self._quick) * 100 > self._verdicts * DEADLINE["review-quick-share"].value
        failed = sorted((*answers.failed, *(self._quick if stamped else ())))
        return Judged(answers.population + self._verdicts, failed)


class Accurate(Check):
    """An alarm stays open until a person's command, or a rollback, on its route."""

    types = (
        "case.closed", "case.amended", "trust.changed", "model.rolled_back", "command.rollback", "command.trust",
        "command.pause", "command.apply", "command.train",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[tuple[Any, Any], list[int]] = {}

    def take(self, index: int, value: Value) -> None:
        kind, facts, route = value["type"], part(value, "facts"), (value.get("tenant"), value.get("route"))
        if kind.startswith("case."):
            self.population += any(isinstance(row.get("grade"), int) for row in facts.get("arms", ()))
        elif kind != "trust.changed":
            self._open.pop(route, None)
        elif facts.get("alarm"):
            self.population += 1
            self._open.setdefault(route, []).append(index)

    def judged(self, end: End) -> Judged:
        return Judged(self.population, sorted(index for found in self._open.values() for index in found))


class Marked(Check):
    """Answers from before there was a mark are no cases: nothing is known of them."""

    types = ("answer.released",)

    def __init__(self) -> None:
        super().__init__()
        self._begun = False

    def take(self, index: int, value: Value) -> None:
        mark = part(value, "facts").get("marked")
        self._begun = self._begun or mark is not None
        if self._begun:
            self.case(index, holds=mark is True)
