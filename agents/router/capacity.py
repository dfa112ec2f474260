"""How many replicas an arm needs: its demand a minute ahead, over what one replica was seen to hold. Pure, integers only.

* Demand: calls per bucket of ten seconds, smoothed with level and trend (Holt 1957); a rising trend counts a minute ahead, a falling
  one not at all.
* Calls at work: arrivals × mean time (Little 1961), of all arms together, for they share their engines.
* What one replica holds: buckets are sorted by how many calls were at work, in octaves. The last octave before the one whose 95th
  percentile of the latency is above the limit is what one replica holds, by its upper edge: beyond, calls at work are a queue. Only
  buckets with one replica count, or are divided by how many there were. No line is fitted and nothing is extrapolated: as long as
  no bucket was too slow, one replica is enough.
* Of that `USED` per mille may be used; the rest is for what comes in bursts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.router.load import Load, total

BUCKET_MS = 10_000
RING = 96  # buckets that are kept: 16 minutes
WINDOW = 30  # of which rates, tokens and percentiles speak: 5 minutes
WARM = 90  # since when an arm is no longer warm: 15 minutes
AHEAD = 6  # a replica takes about a minute to come
USED = 700
MOST = 1000
LEAST = 20  # calls that a measurement needs
SLOWER = 3  # times the idle latency, where no limit is set
ONE = 1_000_000  # a call, in what demand is counted in
_BUCKET_US = BUCKET_MS * 1000


@dataclass(frozen=True, slots=True)
class Held:
    """What one replica holds. `milli` calls at work, thousandths; None: it was never too slow, or cannot be helped."""

    milli: int | None
    limit_ms: int
    mean_us: int  # of a call within the limit
    why: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of an arm. `rate` and `ahead` are millionths of a call per bucket."""

    rate: int
    ahead: int
    busy_milli: int
    p95_ms: int
    tokens_in_s: int
    tokens_out_s: int


@dataclass(frozen=True, slots=True)
class Arms:
    """Loads of the arms that share engines. `buckets`: arm -> bucket -> load, all before `now`; `past`: what is known from before.

    `replicas`: bucket -> how many there were, one where nothing is said; None: not known, nothing is measured there.
    `waiting`: arm -> calls that wait besides, as a gauge says.
    """

    now: int
    buckets: Mapping[str, Mapping[int, Load]]
    past: Mapping[str, Load]
    replicas: Mapping[int, int | None] = field(default_factory=dict[int, int | None])
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])

    def first(self) -> int:
        """The first bucket that anything is known of."""
        return min((bucket for rows in self.buckets.values() for bucket in rows), default=self.now)

    def busy_us(self, arm: str, load: Load) -> int:
        """Time at work; calls that say none are taken to be as long as those of the past."""
        return load.busy_us + (load.calls - load.timed) * self.past.get(arm, Load()).mean_us()

    def at_work_milli(self) -> dict[int, int]:
        """Bucket -> mean calls at work of all arms, thousandths."""
        found: dict[int, int] = {}
        for arm, rows in self.buckets.items():
            for bucket, load in rows.items():
                found[bucket] = found.get(bucket, 0) + self.busy_us(arm, load)
        return {bucket: 1000 * busy // _BUCKET_US for bucket, busy in found.items()}

    def measured(self) -> dict[str, dict[int, Load]]:
        """Arm -> octave of calls at work per replica -> loads of then."""
        found: dict[str, dict[int, list[Load]]] = {}
        for bucket, milli in self.at_work_milli().items():
            replicas = self.replicas.get(bucket, 1)
            if replicas is None:
                continue
            octave = octave_of(milli // max(1, replicas))
            for arm, rows in self.buckets.items():
                if bucket in rows and rows[bucket].timed:
                    found.setdefault(arm, {}).setdefault(octave, []).append(rows[bucket])
        return {arm: {octave: total(rows) for octave, rows in octaves.items()} for arm, octaves in found.items()}

    def demand(self, arm: str) -> Demand:
        """What is asked of one of them now."""
        rows, past = self.buckets.get(arm, {}), self.past.get(arm, Load())
        first, since = self.first(), max(self.first(), self.now - WINDOW)
        seen = total(rows[bucket] for bucket in rows if bucket >= since)
        if not seen.calls:
            return Demand(0, 0, 0, 0, 0, 0)
        level, trend = _smoothed([rows[bucket].calls if bucket in rows else 0 for bucket in range(first, self.now)])
        told = past if past.told else seen
        out = (past.tokens_out, past.told) if past.told else (seen.tokens_out, seen.timed)
        queue = ONE * self.waiting.get(arm, 0) // AHEAD  # to be worked off within a minute
        return Demand(
            rate=level,
            ahead=max(level, level + AHEAD * trend) + queue,
            busy_milli=1000 * self.busy_us(arm, seen) // (_BUCKET_US * (self.now - since)),
            p95_ms=(seen if seen.timed else past).quantile_ms(95),
            tokens_in_s=_per_s(level, told.tokens_in, told.told),
            tokens_out_s=_per_s(level, *out),
        )


def octave_of(milli: int) -> int:
    """0: less than one call at work; n: from 2^(n-1) on."""
    return (max(0, milli) // 1000).bit_length()


def held(octaves: Mapping[int, Load], limit_ms: int | None) -> Held:
    """What one replica holds, from what was measured; `limit_ms` None: thrice the latency of the idlest octave."""
    rows = [(octave, octaves[octave]) for octave in sorted(octaves) if octaves[octave].timed >= LEAST]
    if not rows:
        return Held(None, limit_ms or 0, total(octaves.values()).mean_us(), "not measured yet")
    limit = SLOWER * max(1, rows[0][1].quantile_ms(95)) if limit_ms is None else limit_ms
    good: list[Load] = []
    most = 1 << max(0, rows[0][0] - 1)  # what is too slow at first sight had at least so many at work
    for octave, load in rows:
        if load.quantile_ms(95) > limit:
            if octave == 0:
                return Held(None, limit, load.mean_us(), f"slower than {limit} ms even alone: replicas do not help")
            mean = total(good).mean_us() or load.mean_us()
            return Held(1000 * most, limit, mean, f"one holds {most} at work within {limit} ms")
        good.append(load)
        most = 1 << octave
    return Held(None, limit, total(good).mean_us(), f"one has kept {limit} ms so far")


def needed(demand: Demand, one: Held) -> int:
    """Replicas for that demand; 0 where there is none."""
    if demand.ahead <= 0:
        return 0
    if one.milli is None:
        return 1
    at_work = demand.ahead * one.mean_us // _BUCKET_US  # millionths of a call
    return min(MOST, max(1, -(-at_work // (one.milli * USED))))


def told(demand: Demand, one: Held) -> str:
    """Demand and capacity in words."""
    rate, ahead, work = demand.rate // (ONE // 100), demand.ahead // (ONE // 100), demand.busy_milli
    return (
        f"{_tenths(rate)} calls/s, {_tenths(ahead)} in a minute, {demand.tokens_in_s} tokens/s in, "
        f"{demand.tokens_out_s} out, {_tenths(work)} at work; {one.why}"
    )


def rate_milli(rate: int) -> int:
    """Millionths of a call per bucket as calls per 1000 s."""
    return 1000 * rate // (ONE * BUCKET_MS // 1000)


def _per_s(rate: int, tokens: int, calls: int) -> int:
    return rate * tokens // (calls * ONE * BUCKET_MS // 1000) if calls else 0


def _smoothed(counts: list[int]) -> tuple[int, int]:
    """Level and trend per bucket, millionths: a quarter of the surprise goes to the level, a sixteenth of its change to the trend."""
    level, trend = ONE * counts[0], 0
    for count in counts[1:]:
        before = level
        level = level + trend + (ONE * count - level - trend) // 4
        trend += (level - before - trend) // 16
    return max(0, level), trend


def _tenths(milli: int) -> str:
    return f"{milli // 1000}.{milli % 1000 // 100}"
