"""What the observer knows: pure counting of events into minutes per route and arm.

Rules:
1. A record counts once: per partition, an offset at or below the last one counted is ignored. So rebuilding by reading again
   gives the same figures, and a redelivery changes nothing.
2. Time is the event's own (`at_ms`), in whole minutes; what is older than the horizon is dropped.
3. Memory is bounded whatever is sent: names are cut, past `MOST_NAMES` they count as "(others)", a time that lies ahead is the
   time of writing, a number that is none counts 0.
4. Percentiles come from buckets that grow by 5 %: an answer within 5 % of the true one, in bounded memory.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

MINUTE_MS = 60_000
GROWTH = math.log(1.05)
WINDOWS_MIN = (1, 5, 60)
LARGEST = 1 << 53
AHEAD_MIN = 5  # how far an event's own time may lie after its writing
NAME_CHARS = 64
MOST_NAMES = 500  # of each kind: routes with arms, kinds of refusals, kinds of dead letters
OTHERS = "(others)"
ACTIONS = ("release", "hold", "escalate", "withheld")  # withheld: by the gate, after the score let it out


def bucket_of(value: float) -> int:
    """The bucket of a latency in milliseconds; 0 holds everything up to 1 ms."""
    return 0 if value <= 1 else math.ceil(math.log(value) / GROWTH)


@dataclass
class Minute:
    """What one arm (or, under arm "", one route) did in one minute."""

    counts: Counter[str] = field(default_factory=Counter[str])
    latencies: Counter[int] = field(default_factory=Counter[int])
    tokens_out: int = 0
    engine_ms: float = 0.0

    def add(self, other: "Minute") -> None:
        self.counts.update(other.counts)
        self.latencies.update(other.latencies)
        self.tokens_out += other.tokens_out
        self.engine_ms += other.engine_ms


def percentile(latencies: Mapping[int, int], share: float) -> float | None:
    """The upper edge of the bucket that holds the share, in milliseconds."""
    total = sum(latencies.values())
    if not total:
        return None
    left = math.ceil(share * total)
    for bucket in sorted(latencies):
        left -= latencies[bucket]
        if left <= 0:
            return round(math.exp(bucket * GROWTH), 1)
    return None


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as the views take it. `kind` is the type without prefix and version; `reason` is a dead letter's kind."""

    topic: str
    partition: int
    offset: int
    kind: str
    at_ms: int
    data: Mapping[str, Any]
    dead_letter: str = ""


class Views:
    """Windowed figures per route and arm, and counts of what was refused."""

    def __init__(self, horizon_min: int = 24 * 60) -> None:
        self.horizon_min = horizon_min
        self._minutes: dict[tuple[str, str], dict[int, Minute]] = {}
        self._refused: dict[int, Counter[tuple[str, str]]] = {}
        self._letters: dict[int, Counter[tuple[str, str]]] = {}
        self._last: dict[tuple[str, int], int] = {}
        self.records = 0

    def take(self, seen: Seen) -> bool:
        """Count a record; False where it was counted before."""
        place = (seen.topic, seen.partition)
        if seen.offset <= self._last.get(place, -1):
            return False
        self._last[place] = seen.offset
        self.records += 1
        minute = seen.at_ms // MINUTE_MS
        if seen.dead_letter:
            self._told(self._letters, minute, (seen.topic, seen.dead_letter))
        else:
            self._count(seen, minute)
        return True

    def _at(self, route: str, arm: str, minute: int) -> Minute:
        who = (route, arm)
        if who not in self._minutes and len(self._minutes) >= MOST_NAMES:
            who = (OTHERS, OTHERS if arm else "")
        return self._minutes.setdefault(who, {}).setdefault(minute, Minute())

    def _told(self, tables: dict[int, Counter[tuple[str, str]]], minute: int, who: tuple[str, str]) -> None:
        table = tables.setdefault(minute, Counter())
        if who not in table and len(table) >= MOST_NAMES:
            who = (OTHERS, OTHERS)
        table[who] += 1

    def _count(self, seen: Seen, minute: int) -> None:
        data, kind = seen.data, seen.kind
        route = _text(data, "route")
        if kind == "answer.refused":
            self._told(self._refused, minute, (route or "(none)", _text(data, "kind")))
            return
        if not route:
            return
        if kind in ("result.completed", "result.failed"):
            at = self._at(route, _text(data, "arm"), minute)
            at.counts["completed" if kind == "result.completed" else "failed"] += 1
            if kind == "result.completed":
                at.latencies[bucket_of(_number(data, "latency_ms"))] += 1
                at.tokens_out += int(_number(data, "tokens_out"))
                at.engine_ms += _number(data, "engine_ms")
        elif kind in ("answer.released", "answer.withheld"):
            at = self._at(route, "", minute)
            at.counts["released" if kind == "answer.released" else "withheld"] += 1
            if kind == "answer.released":
                at.latencies[bucket_of(_number(data, "latency_ms"))] += 1
        elif kind == "score.assigned":
            action = "withheld" if data.get("withheld") is True else _text(data, "action")
            self._at(route, _text(data, "arm"), minute).counts[
                "score." + (action if action in ACTIONS else OTHERS)
            ] += 1
        elif kind == "case.closed":
            self._case(data, route, minute)

    def _case(self, data: Mapping[str, Any], route: str, minute: int) -> None:
        self._at(route, "", minute).counts["cases"] += 1
        arms: object = data.get("arms")
        for row in cast("list[object]", arms) if isinstance(arms, list) else ():
            arm = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
            grade: object = arm.get("grade")
            if isinstance(grade, int) and 0 <= grade <= 1000:
                counts = self._at(route, _text(arm, "arm"), minute).counts
                counts["graded"] += 1
                counts["grade_sum"] += grade

    def forget(self, now_ms: int) -> None:
        """Drop what is past the horizon."""
        oldest = now_ms // MINUTE_MS - self.horizon_min
        tables: list[dict[int, Any]] = [*self._minutes.values(), self._refused, self._letters]
        for table in tables:
            for minute in [m for m in table if m < oldest]:
                del table[minute]
        for who in [who for who, table in self._minutes.items() if not table]:
            del self._minutes[who]

    def window(self, now_ms: int, minutes: int) -> dict[tuple[str, str], Minute]:
        """The sums of the last `minutes` minutes, the running one included."""
        first = now_ms // MINUTE_MS - minutes + 1
        found: dict[tuple[str, str], Minute] = {}
        for who, table in self._minutes.items():
            for minute, held in table.items():
                if minute >= first:
                    found.setdefault(who, Minute()).add(held)
        return found

    def snapshot(self, now_ms: int) -> dict[str, Any]:
        """Everything as one JSON value: `windows` by minutes, `refused` and `dead_letters` over the horizon."""
        return {
            "at_ms": now_ms,
            "records": self.records,
            "horizon_minutes": self.horizon_min,
            "windows": {
                str(minutes): [
                    _shown(route, arm, held, minutes)
                    for (route, arm), held in sorted(self.window(now_ms, minutes).items())
                ]
                for minutes in WINDOWS_MIN
            },
            "refused": _table(self._refused, ("route", "kind")),
            "dead_letters": _table(self._letters, ("topic", "kind")),
        }


def _shown(route: str, arm: str, held: Minute, minutes: int) -> dict[str, Any]:
    counts = held.counts
    row: dict[str, Any] = {
        "route": route,
        "arm": arm,
        "p50_ms": percentile(held.latencies, 0.50),
        "p95_ms": percentile(held.latencies, 0.95),
    }
    if not arm:
        answers = counts["released"] + counts["withheld"]
        return row | {
            "released": counts["released"],
            "withheld": counts["withheld"],
            "cases": counts["cases"],
            "per_s": round(answers / (minutes * 60), 3),
        }
    done = counts["completed"] + counts["failed"]
    graded = counts["graded"]
    return row | {
        "completed": counts["completed"],
        "failed": counts["failed"],
        "per_s": round(done / (minutes * 60), 3),
        "tokens_per_s": round(held.tokens_out / (minutes * 60), 1),
        "graded": graded,
        "approval": round(counts["grade_sum"] / graded / 1000, 4) if graded else None,
        "released": counts["score.release"],
        "held": counts["score.hold"],
        "withheld": counts["score.withheld"],
    }


def _table(tables: Mapping[int, Counter[tuple[str, str]]], names: tuple[str, str]) -> list[dict[str, Any]]:
    total: Counter[tuple[str, str]] = Counter()
    for table in tables.values():
        total.update(table)
    return [{names[0]: a, names[1]: b, "count": count} for (a, b), count in sorted(total.items())]


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value[:NAME_CHARS] if isinstance(value, str) else ""


def _number(data: Mapping[str, Any], name: str) -> float:
    """A number that can be counted with; whatever else stands there counts 0."""
    value = data.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        return 0.0
    return float(value)
