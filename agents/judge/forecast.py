"""How many more pairs an arena needs at the rate of its pairs so far, for display only: nothing decides on it. Pure.

1. The growth of bet g per pair so far is exact, from counts and from values alike: (log of what the bet has become)/n. At the same
   mix of pairs E after m more is Σ_g w_g exp(S_g·(1 + m/n)); the point is the least m that takes it to its level.
2. The range is ±2 standard errors of what the growth may truly be and of what m pairs may bring: 2·σ_g·sqrt(m + m²/n). `high` is
   None where the low end does not grow. A Track keeps no squares: σ_g is exact for counts; of values the two smallest bets tell the
   second moment (log(1+fx) = fx - (fx)²/2 + ...). Two more wins and losses are put into it, so that a rate of nothing is not certain.
3. Pairs are those of the arena: a metric that only some of the pairs say something of needs more of them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from agents.judge.arena import PROCESSES, Arena, Process, guards_of, nulls_of
from agents.judge.decide import COOLDOWN, GAIN, PAIRS, TIME, Around, Look, guard_name, needed
from agents.rules.eprocess import Bets, Nulls, Track, counted
from agents.rules.wealth import log_of

ERRORS = 2.0  # standard errors on either side
LEAST = 10  # below so many pairs of a metric nothing is said
MOST = 1_000_000  # pairs; more is "not at this rate"


class Span(BaseModel):
    """More pairs: about `pairs`, between `low` and `high`. None: not at this rate. 0 of all: it is there."""

    model_config = ConfigDict(frozen=True)

    pairs: int | None = None
    low: int | None = None
    high: int | None = None

    @property
    def there(self) -> bool:
        """Nothing is missing."""
        return self.pairs == 0 and self.high == 0


THERE, UNKNOWN = Span(pairs=0, low=0, high=0), Span()


class Ahead(BaseModel):
    """One e-process: its part (`gain`, `guard`, `harm`: a level that ends the arena or rolls back), where it is, what it needs.

    `again`: it has reached its level once and fell below 1 since, to which it must return.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    part: str
    n: int
    log_e: float
    needed: float
    crossed: bool
    again: bool
    span: Span


class Forecast(BaseModel):
    """What an arena still needs. Times in milliseconds. `overall`: all that takes pairs, of a holdback: until it is over.

    `a_minute`: pairs, novelty included, per minute of event time since the arena opened; None before the first.
    """

    model_config = ConfigDict(frozen=True)

    processes: tuple[Ahead, ...]
    conditions: dict[str, Span]
    overall: Span
    a_minute: float | None
    next_look: int
    pairs_left: int
    time_left_ms: int
    cooldown_left_ms: int
    stage_left_ms: int
    stages_left: int
    novelty_left: int

    def ms_of(self, pairs: int | None) -> int | None:
        """How long so many pairs take at the rate so far; None where that is not known."""
        return None if pairs is None or not self.a_minute else round(pairs / self.a_minute * 60_000)


def forecast(arena: Arena, around: Around, seen: Look) -> Forecast:
    """What the arena still needs to be promoted; after a promotion, how far each harm process is from a rollback."""
    settings, nulls = around.settings, nulls_of(around.settings, arena.overlay)
    rows = tuple(_ahead(process, arena, around, seen, nulls) for process in PROCESSES if _told(process, arena, around))
    elapsed = around.now_ms - arena.opened_ms
    folded = arena.pairs + arena.novelty
    most = settings.holdback_pairs if arena.holdback else settings.max_pairs
    least = settings.holdback_time_s if arena.holdback else settings.min_time_s
    left = max(0, most - arena.pairs)
    conditions = {} if arena.holdback else _conditions(arena, around, seen, rows)
    staged = arena.stage > 0
    return Forecast(
        processes=rows,
        conditions=conditions,
        overall=Span(pairs=left, low=left, high=left) if arena.holdback else _most(conditions.values()),
        a_minute=folded * 60_000 / elapsed if folded and elapsed > 0 else None,
        next_look=settings.evaluate_every - arena.pairs % settings.evaluate_every,
        pairs_left=left,
        time_left_ms=max(0, least * 1000 - elapsed),
        cooldown_left_ms=0 if arena.holdback else max(0, around.cooldown_until_ms - around.now_ms),
        stage_left_ms=max(0, arena.stage_since_ms + settings.stage_time_s * 1000 - around.now_ms) if staged else 0,
        stages_left=0 if arena.holdback else len(settings.stages) - arena.stage,
        novelty_left=0 if arena.holdback or arena.pairs else max(0, settings.novelty_pairs - arena.novelty),
    )


def _told(process: Process, arena: Arena, around: Around) -> bool:
    """After a promotion only harm is looked for; a gain that the route does not count is none, nor is a guardrail of no price."""
    if process.null != "better" and not process.name.startswith(guards_of(arena)):
        return False
    if arena.holdback:
        return process.null == "worse"
    return process.null != "better" or process.name in around.settings.win_by


def _ahead(process: Process, arena: Arena, around: Around, seen: Look, nulls: Mapping[str, Nulls]) -> Ahead:
    row = next(row for row in seen.processes if row.name == process.name)
    part = {"better": "gain", "worse": "harm"}.get(process.null, "guard")
    track: Track = getattr(arena, process.track)
    again = part == "guard" and row.crossed and row.log_e < 0
    if row.crossed and not again:
        span = THERE
    else:
        level = 0.0 if again else math.log(needed(process.null, arena, around.settings))
        span = _scaled(pairs_to(track, process.null, nulls[process.track], level), arena.pairs, track.n)
    return Ahead(
        name=process.name,
        part=part,
        n=row.n,
        log_e=row.log_e,
        needed=row.needed,
        crossed=row.crossed,
        again=again,
        span=span,
    )


def _scaled(span: Span, pairs: int, n: int) -> Span:
    """Pairs of a metric as pairs of the arena."""

    def times(value: int | None) -> int | None:
        return None if value is None else math.ceil(value * pairs / n)

    return span if pairs <= n or not n else Span(pairs=times(span.pairs), low=times(span.low), high=times(span.high))


def _conditions(arena: Arena, around: Around, seen: Look, rows: Iterable[Ahead]) -> dict[str, Span]:
    """Per condition of the look what it still needs. Those that time or the breaker decide need no pairs."""
    by_name = {row.name: row.span for row in rows}
    missing = max(0, around.settings.min_pairs - arena.pairs)
    found = {GAIN: _least(_with_bar(arena, around, seen, name, by_name[name]) for name in around.settings.win_by)}
    for guard in guards_of(arena):
        found[guard_name(guard)] = _most((by_name[f"{guard}_margin"], by_name[f"{guard}_harm"]))
    found[PAIRS] = Span(pairs=missing, low=missing, high=missing)
    return found | {name: THERE for name in seen.conditions if name not in found and name not in (TIME, COOLDOWN)}


def _with_bar(arena: Arena, around: Around, seen: Look, name: str, span: Span) -> Span:
    """A gain's span where its estimate must also meet the bar: not at all where it does not, no end where it may yet not."""
    gain = next(gain for gain in seen.gains if gain.name == name)
    track: Track = getattr(arena, name)
    if gain.estimate is None or not track.n:
        return UNKNOWN
    slack = ERRORS * math.sqrt(variance_of(track, nulls_of(around.settings, arena.overlay)[name]) / track.n)
    if name == "quality" and track.mean:
        slack *= abs(gain.estimate / track.mean)  # F10: the estimate is in the scale of grades
    above = gain.estimate - gain.bar
    if name == "cost":  # a ratio r of totals moves by (1+r)²/2 where the mean of F8 = (1-r)/(1+r) moves by 1
        above, slack = -above, slack * (1 + gain.estimate) ** 2 / 2
    return Span(
        pairs=span.pairs if gain.meets else None,
        low=span.low if above + slack >= 0 else None,
        high=span.high if gain.meets and above - slack >= 0 else None,
    )


def _most(spans: Iterable[Span]) -> Span:
    """All are needed."""
    rows = list(spans)

    def most(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return max(known, default=0) if len(known) == len(values) else None

    return Span(pairs=most([s.pairs for s in rows]), low=most([s.low for s in rows]), high=most([s.high for s in rows]))


def _least(spans: Iterable[Span]) -> Span:
    """Any one is enough."""
    rows = list(spans)

    def least(values: Iterable[int | None]) -> int | None:
        return min((value for value in values if value is not None), default=None)

    return Span(pairs=least(s.pairs for s in rows), low=least(s.low for s in rows), high=least(s.high for s in rows))


# one e-process


@dataclass(frozen=True, slots=True)
class _Bet:
    """One bet: log weight, what it has grown to, growth per pair, its standard deviation per pair."""

    weight: float
    total: float
    mean: float
    deviation: float


def pairs_to(track: Track, null: str, nulls: Nulls, level: float) -> Span:
    """More pairs of the metric until log E against the null of that name is `level`, at the mix of pairs so far."""
    if track.n < LEAST:
        return UNKNOWN
    bets = _grown(track, null, nulls)
    n = track.n
    return Span(
        pairs=_first(bets, n, level, 0.0), low=_first(bets, n, level, ERRORS), high=_first(bets, n, level, -ERRORS)
    )


def _grown(track: Track, null: str, nulls: Nulls) -> list[_Bet]:
    bets = nulls.bets[null]
    losses = track.losses + (track.missing if bets.missing else 0)
    ties = track.ties + (0 if bets.missing else track.missing)
    parts = counted(bets, losses, ties, track.wins)
    rest = _logs_of_values(track, null, nulls)
    spread = _spread_of_values(track, nulls)
    middle = track.total / track.others if track.others else 0.0
    found: list[_Bet] = []
    for weight, base, slope, part, more in zip(bets.weights, bets.levels, bets.slopes, parts, rest, strict=True):
        total = log_of(part) - math.log(weight) + more
        mean = total / track.n
        logs = ((math.log(base - slope), losses + 2), (math.log(base), ties), (math.log(base + slope), track.wins + 2))
        squares = sum(count * (one - mean) ** 2 for one, count in logs)
        if track.others:
            about = slope / (base + slope * middle)
            squares += track.others * (about * about * spread + (more / track.others - mean) ** 2)
        found.append(_Bet(math.log(weight), total, mean, math.sqrt(squares / (track.n + 4))))
    return found


def _logs_of_values(track: Track, null: str, nulls: Nulls) -> list[float]:
    """Per bet the logarithm of what the values that are no -1, 0 or 1 made of it."""
    place = nulls.places[null]
    if not track.rest:
        return [0.0] * (place.stop - place.start)
    values = track.rest[place]
    shifts = track.shifts[place] or (0,) * len(values)
    return [math.log(value) + 256 * shift * math.log(2) for value, shift in zip(values, shifts, strict=True)]


def _spread_of_values(track: Track, nulls: Nulls) -> float:
    """The variance of the values that are no -1, 0 or 1, from the two smallest bets of the first null, extrapolated to a bet of 0.

    Where nulls see values of their own (`Track.add_each`) the total is of the first one, `better`.
    """
    if not track.others:
        return 0.0
    null = next(iter(nulls.bets))
    bets: Bets = nulls.bets[null]
    middle = track.total / track.others
    mean = bets.offset + bets.sign * middle
    two = sorted(zip(bets.fractions, _logs_of_values(track, null, nulls), strict=True))[:2]
    (f, first), (g, second) = ((one, 2 * (one * mean - log / track.others) / (one * one)) for one, log in two)
    return max(0.0, first + (first - second) * f / (g - f) - mean * mean)


def variance_of(track: Track, nulls: Nulls) -> float:
    """The variance of D, with two more wins and losses; a missing verdict is 0."""
    mean = track.mean or 0.0
    squares = (track.wins + 2) * (1 - mean) ** 2 + (track.losses + 2) * (1 + mean) ** 2
    squares += (track.ties + track.missing) * mean * mean
    if track.others:
        squares += track.others * (_spread_of_values(track, nulls) + (track.total / track.others - mean) ** 2)
    return squares / (track.n + 4)


def _first(bets: list[_Bet], n: int, level: float, errors: float) -> int | None:
    """The least m whose log E is at the level, found by doubling and halving; None above `MOST`."""

    def short(m: int) -> bool:
        wide = errors * math.sqrt(m + m * m / n)
        logs = [bet.weight + bet.total + m * bet.mean + wide * bet.deviation for bet in bets]
        top = max(logs)
        return top + math.log(math.fsum(math.exp(one - top) for one in logs)) < level

    under, over = 0, 1
    while short(over):
        under, over = over, 2 * over
        if over > MOST:
            return None
    while over - under > 1:
        middle = (under + over) // 2
        under, over = (middle, over) if short(middle) else (under, middle)
    return over


# words


def words_of(span: Span) -> str:
    """A span in words."""
    if span.there:
        return "there"
    if span.pairs is None:
        return "not at this rate" + ("" if span.low is None else f" (at best {span.low:,} more pairs)")
    exact = span.low == span.high == span.pairs
    return f"{span.pairs:,} more pairs" if exact else f"about {span.pairs:,} more pairs ({range_of(span)})"


def range_of(span: Span) -> str:
    """From where to where."""
    low, high = ("no end" if value is None else f"{value:,}" for value in (span.low, span.high))
    return f"{low} to {high}"
