"""The estimator's arithmetic on Prometheus series instead of cases: what an operator's engines report of themselves.

A point is (name, labels, epoch ms, value). Counters only rise: where one falls, its process began anew and counts from zero. What a
counter gained between two scrapes is spread evenly over the buckets between them; what a histogram gained, evenly within its bounds
(as Prometheus's histogram_quantile takes it). Calls at work are divided by the engines that reported then. Pure, integers once read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from agents.router import capacity
from agents.router.capacity import BUCKET_MS, RING, WARM, Arms
from agents.router.load import PARTS, Load, part_of, total
from schemas.errors import Refused
from schemas.policies import CapacityArm

Point: TypeAlias = tuple[str, Mapping[str, str], int, float]


@dataclass(frozen=True, slots=True)
class Names:
    """What the exporter calls things; vLLM's names. `engine`: the labels that tell one engine from another."""

    calls: str = "vllm:request_success_total"
    tokens_in: str = "vllm:prompt_tokens_total"
    tokens_out: str = "vllm:generation_tokens_total"
    latency: str = "vllm:e2e_request_latency_seconds"
    waiting: str = "vllm:num_requests_waiting"
    arm: str = "model_name"
    engine: tuple[str, ...] = ("instance", "engine")

    def counters(self) -> frozenset[str]:
        return frozenset({self.calls, self.tokens_in, self.tokens_out, f"{self.latency}_bucket", f"{self.latency}_sum"})


@dataclass(slots=True)
class _Sums:
    """What is being added up of an arm in a bucket."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    busy_us: int = 0
    spread: dict[int, int] = field(default_factory=dict[int, int])

    def load(self) -> Load:
        timed = sum(self.spread.values())
        calls = max(self.calls, timed)
        return Load(
            calls=calls,
            served=calls,
            timed=timed,
            busy_us=self.busy_us if timed else 0,
            told=calls,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            spread=dict(sorted(self.spread.items())),
        )


def estimate(
    points: Iterable[Point], limit_ms: int | None = None, names: Names | None = None
) -> tuple[CapacityArm, ...]:
    """What each arm in the series needs at their end. `Refused` where they hold too little to say anything."""
    arms = loads(points, names or Names())
    measured = arms.measured()
    found: list[CapacityArm] = []
    for arm in sorted(arms.buckets):
        demand = arms.demand(arm)
        one = capacity.held(measured.get(arm, {}), limit_ms)
        waiting = arms.waiting.get(arm, 0)
        found.append(
            CapacityArm(
                arm=arm,
                rate_milli=capacity.rate_milli(demand.rate),
                tokens_s=demand.tokens_in_s + demand.tokens_out_s,
                p95_ms=demand.p95_ms,
                busy_milli=demand.busy_milli,
                replicas=capacity.needed(demand, one),
                warm=any(load.calls and bucket > arms.now - WARM for bucket, load in arms.buckets[arm].items()),
                why=capacity.told(demand, one) + (f"; {waiting} wait" if waiting else ""),
            )
        )
    return tuple(found)


def loads(points: Iterable[Point], names: Names) -> Arms:
    """The series as loads per arm and bucket."""
    series = _series(points, names)
    times = [ts for rows in series.values() for ts, _ in rows]
    now = max(times, default=0) // BUCKET_MS
    sums: dict[str, dict[int, _Sums]] = {}
    for (name, labels), rows in series.items():
        if name in names.counters() and not name.endswith("_bucket"):
            for bucket, gained in _gained(rows, 1_000_000 if name.endswith("_sum") else 1):
                _add(_at(sums, dict(labels)[names.arm], bucket), name, gained, names)
    for arm, bucket, part, count in _latencies(series, names):
        spread = _at(sums, arm, bucket).spread
        spread[part] = spread.get(part, 0) + count
    buckets = {
        arm: {bucket: rows[bucket].load() for bucket in sorted(rows) if now - RING <= bucket < now}
        for arm, rows in sums.items()
    }
    if not any(load.calls for rows in buckets.values() for load in rows.values()):
        raise Refused(
            f"series: no calls between two scrapes; accepted: {names.calls} or {names.latency}_bucket, scraped at least "
            "twice, ten seconds apart or more",
            kind="series",
            field="series",
        )
    past = {arm: total(rows.values()) for arm, rows in buckets.items()}
    return Arms(now, buckets, past, _engines(series, names), _waiting(series, names))


_Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[int, float]]]


def _series(points: Iterable[Point], names: Names) -> _Series:
    """Points by name and labels, in the order of time; only those that are of use."""
    wanted = {*names.counters(), names.waiting}
    found: _Series = {}
    for name, labels, ts, value in points:
        if name in wanted and names.arm in labels:
            found.setdefault((name, tuple(sorted(labels.items()))), []).append((ts, value))
    for rows in found.values():
        rows.sort()
    return dict(sorted(found.items()))


def _gained(rows: Sequence[tuple[int, float]], unit: int) -> list[tuple[int, int]]:
    """(bucket, what the counter gained in it, in `1/unit`), restarts taken into account."""
    found: list[tuple[int, int]] = []
    for (since, before), (until, after) in pairwise(rows):
        gained = round(unit * (after - before if after >= before else after))
        if gained <= 0 or until <= since:
            continue
        done = 0
        for bucket in range(since // BUCKET_MS, (until - 1) // BUCKET_MS + 1):
            share = gained * (min(until, (bucket + 1) * BUCKET_MS) - since) // (until - since)
            found.append((bucket, share - done))
            done = share
    return found


def _latencies(series: _Series, names: Names) -> list[tuple[str, int, int, int]]:
    """(arm, bucket, part of the histogram, calls): each bound's own share of what the cumulative counters gained."""
    below: dict[tuple[str, tuple[tuple[str, str], ...]], dict[float, dict[int, int]]] = {}
    for (name, labels), rows in series.items():
        told = dict(labels)
        if name == f"{names.latency}_bucket" and "le" in told:
            rest = tuple(row for row in labels if row[0] != "le")
            gained: dict[int, int] = {}
            for bucket, count in _gained(rows, 1):
                gained[bucket] = gained.get(bucket, 0) + count
            below.setdefault((told[names.arm], rest), {})[float(told["le"])] = gained
    found: list[tuple[str, int, int, int]] = []
    for (arm, _), bounds in below.items():
        low, before = 0, dict[int, int]()
        for bound in sorted(bounds):
            high = low if bound == float("inf") else round(1000 * bound)
            for bucket, count in bounds[bound].items():
                found += [
                    (arm, bucket, part, share) for part, share in _between(low, high, count - before.get(bucket, 0))
                ]
            low, before = high, bounds[bound]
    return found


def _between(low_ms: int, high_ms: int, count: int) -> list[tuple[int, int]]:
    """So many calls spread evenly between two bounds."""
    found: list[tuple[int, int]] = []
    done = 0
    for step in range(1, PARTS + 1):
        share = count * step // PARTS
        if share > done:
            found.append((part_of(low_ms + (high_ms - low_ms) * step // PARTS), share - done))
            done = share
    return found


def _at(sums: dict[str, dict[int, _Sums]], arm: str, bucket: int) -> _Sums:
    return sums.setdefault(arm, {}).setdefault(bucket, _Sums())


def _add(sums: _Sums, name: str, gained: int, names: Names) -> None:
    if name == names.calls:
        sums.calls += gained
    elif name == names.tokens_in:
        sums.tokens_in += gained
    elif name == names.tokens_out:
        sums.tokens_out += gained
    else:
        sums.busy_us += gained


def _engines(series: _Series, names: Names) -> dict[int, int | None]:
    """Bucket -> engines that reported from before to after it."""
    spans: dict[tuple[str, ...], tuple[int, int]] = {}
    for (_, labels), rows in series.items():
        told = dict(labels)
        engine = tuple(told.get(label, "") for label in names.engine)
        first, last = spans.get(engine, (rows[0][0], rows[-1][0]))
        spans[engine] = min(first, rows[0][0]), max(last, rows[-1][0])
    found: dict[int, int | None] = {}
    for first, last in spans.values():
        for bucket in range(first // BUCKET_MS, last // BUCKET_MS + 1):
            found[bucket] = (found.get(bucket) or 0) + 1
    return found


def _waiting(series: _Series, names: Names) -> dict[str, int]:
    """Arm -> calls that wait in all its engines, by the newest gauges."""
    found: dict[str, int] = {}
    for (name, labels), rows in series.items():
        if name == names.waiting:
            arm = dict(labels)[names.arm]
            found[arm] = found.get(arm, 0) + max(0, round(rows[-1][1]))
    return found
