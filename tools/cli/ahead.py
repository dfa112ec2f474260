"""Where an arena stands and what it still needs, in words and tables. Pure: takes what was read, returns JSON or prints."""

from typing import Any

from agents.judge.arena import Arena
from agents.judge.decide import BREACH, COOLDOWN, GAIN, PAIRS, TIME, Gain, Look
from agents.judge.forecast import Ahead, Forecast, Span, range_of, words_of
from schemas.routes import JudgeSettings
from tools.cli.screen import Screen, clean

HOUR, MINUTE = 3_600_000, 60_000


def duration(ms: int) -> str:
    """A length of time as a person says it: 40 s, 12 min, 3.5 h, 2.1 days."""
    if ms < MINUTE:
        return f"{-(-ms // 1000)} s"
    if ms < 2 * HOUR:
        return f"{ms / MINUTE:.0f} min"
    return f"{ms / HOUR:.1f} h" if ms < 48 * HOUR else f"{ms / (24 * HOUR):.1f} days"


def as_row(arena: Arena, seen: Look, ahead: Forecast, breach: str) -> dict[str, Any]:
    """Everything about one arena, for `--json`."""
    spans = {"pairs": ahead.overall.pairs, "low": ahead.overall.low, "high": ahead.overall.high}
    return {
        "arena": arena.key,
        "challenger": arena.challenger,
        "champion": arena.champion,
        "pairs": arena.pairs,
        "holdback": arena.holdback,
        "stage": arena.stage,
        "breach": breach,
        "forecast": ahead.model_dump() | {"minutes": {k: _minutes(ahead.ms_of(v)) for k, v in spans.items()}},
    } | seen.model_dump()


def _minutes(ms: int | None) -> float | None:
    return None if ms is None else round(ms / MINUTE, 1)


def explain(
    screen: Screen, arena: Arena, seen: Look, ahead: Forecast, settings: JudgeSettings, *, approval: str, breach: str
) -> None:
    """Every number, every condition, what is missing, what follows."""
    screen.say(_headline(arena, ahead, settings))
    graded = f"{arena.quality_pairs} graded pairs: " if arena.quality_pairs else "grades: "
    screen.say(f"{graded}champion {_grade(seen.champion_grade)}, challenger {_grade(seen.challenger_grade)}")
    if arena.novelty < settings.novelty_pairs and not arena.holdback and not arena.pairs:
        screen.say(f"novelty: {arena.novelty} of the first {settings.novelty_pairs} pairs, which count nothing")
    elif arena.x0_us is None and not arena.pairs:
        screen.say("no pair counts yet: the latency objective is being learnt from the champion's answers")
    screen.table(
        "evidence, in log E",
        ("process", "now", "max", "need", "n", "estimate", "more pairs"),
        _evidence(seen, ahead),
    )
    if arena.holdback:
        screen.say(f"rolled back when a harm process reaches its level; {overview(arena, ahead, settings)}")
    else:
        rows = _conditions(seen, ahead, settings, breach)
        screen.table("conditions", ("condition", "", "what is missing"), rows)
        screen.say(overview(arena, ahead, settings))
    asks = ", an operator decides" if approval == "operator" and not arena.holdback else ""
    screen.say(f"decision now: [bold]{clean(seen.decision)}[/] {clean(seen.reason)}".rstrip() + asks)


def _headline(arena: Arena, ahead: Forecast, settings: JudgeSettings) -> str:
    if arena.holdback:
        stands = f"holdback: {clean(arena.champion)} still answers beside {clean(arena.challenger)}"
    elif arena.stage:
        share = settings.stages[arena.stage - 1] if arena.stage <= len(settings.stages) else 1.0
        left = duration(ahead.stage_left_ms) + " left" if ahead.stage_left_ms else "its time is over"
        name = clean(arena.challenger)
        stands = f"challenger {name}: stage {arena.stage} of {len(settings.stages)}, serves {share:.0%}, {left}"
    else:
        stands = f"challenger {clean(arena.challenger)}: in the shadow"
    rate = "" if ahead.a_minute is None else f", {ahead.a_minute:.3g} a minute"
    look = f", next look after {ahead.next_look} more" if arena.pairs else ""
    return f"[bold]{stands}[/]\n{arena.pairs} pairs{rate}{look}; arena {arena.key[:12]}"


def _evidence(seen: Look, ahead: Forecast) -> list[tuple[object, ...]]:
    by_name = {row.name: row for row in ahead.processes}
    return [
        (
            row.name,
            f"{row.log_e:.2f}",
            f"{row.max_log_e:.2f}",
            f"{row.needed:.2f}",
            row.n,
            "" if row.estimate is None else f"{row.estimate:+.4f}",
            said(by_name[row.name], ahead.pairs_left),
        )
        for row in seen.processes
        if row.name in by_name
    ]


def said(row: Ahead, left: int) -> str:
    """What is to be expected of a process, in pairs. Harm that is not to be expected in those that are `left` is quiet."""
    if row.part == "harm" and (row.crossed or row.span.pairs is None or row.span.pairs > left):
        return "HARM" if row.crossed else "quiet"
    if row.crossed and not row.again:
        return "proven"
    if row.span.pairs is None:
        return "not at this rate" + ("" if row.span.low is None else f" ({row.span.low:,} at best)")
    again = "below 1 again: " if row.again else "harm: " if row.part == "harm" else ""
    return f"{again}about {row.span.pairs:,} ({range_of(row.span)})"


def _conditions(seen: Look, ahead: Forecast, settings: JudgeSettings, breach: str) -> list[tuple[str, str, str]]:
    """Each condition, and under the first one every way to win."""
    rows: list[tuple[str, str, str]] = []
    for name, held in seen.conditions.items():
        span = ahead.conditions.get(name, Span())
        missing = {
            PAIRS: f"{words_of(span)} to {settings.min_pairs:,}",
            TIME: f"{duration(ahead.time_left_ms)} of {duration(settings.min_time_s * 1000)}",
            BREACH: breach,
            COOLDOWN: duration(ahead.cooldown_left_ms),
        }.get(name, words_of(span))
        if held:
            missing = "its estimate may yet fall below the bar" if name == GAIN and not span.there else ""
        rows.append((name, "holds" if held else "not yet", missing))
        if name == GAIN:
            rows += [
                (f"  by {gain.name}", "yes" if gain.reached and gain.meets else "no", _gain(gain))
                for gain in seen.gains
            ]
    return rows


def _gain(gain: Gain) -> str:
    if gain.estimate is None:
        return "no estimate yet"
    sign = ("≤" if gain.meets else ">") if gain.name == "cost" else "≥" if gain.meets else "<"
    what = "of the champion's cost" if gain.name == "cost" else "mean D"
    proven = "proven" if gain.reached else "not proven"
    return f"{proven}; {what} {gain.estimate:.3f} {sign} {gain.bar:.3f}"


def overview(arena: Arena, ahead: Forecast, settings: JudgeSettings) -> str:
    """The whole in one sentence."""
    if arena.holdback:
        return f"the holdback ends after {ahead.pairs_left:,} more pairs or {duration(ahead.time_left_ms)}"
    if arena.stage:
        left = ahead.stage_left_ms + (ahead.stages_left * settings.stage_time_s * 1000)
        return f"all requests in {duration(left)} at the earliest, while guardrails hold and the breaker is quiet"
    waits = max(ahead.time_left_ms, ahead.cooldown_left_ms)
    then = (
        f", then {len(settings.stages)} stages of {duration(settings.stage_time_s * 1000)}" if settings.stages else ""
    )
    if ahead.overall.there and not waits:
        return f"everything is there{then}"
    if ahead.overall.there:
        return f"the evidence is there; {duration(waits)} to wait{then}"
    end = f"; at {ahead.pairs_left:,} more pairs it ends as inconclusive"
    if ahead.overall.pairs is None:
        return f"overall: {words_of(ahead.overall)}{end}"
    at = ahead.ms_of(ahead.overall.pairs)
    time = "" if at is None else f", {_times(ahead)} at this rate of pairs"
    more = f", and {duration(waits)} to wait" if waits > (at or 0) else ""
    return f"overall: {words_of(ahead.overall)}{time}{more}{then}{end}"


def _times(ahead: Forecast) -> str:
    def at(pairs: int | None) -> str:
        ms = ahead.ms_of(pairs)
        return "no end" if ms is None else duration(ms)

    span = ahead.overall
    if span.low == span.high:
        return at(span.pairs)
    return f"about {at(span.pairs)} ({at(span.low)} to {at(span.high)})"


def waiting(pairs: int, closed: int, late: int, overflow: int) -> str:
    """Pairs that wait for their place, and those that had none."""
    found = f"{pairs} pairs wait for the end of their window ({closed} closed), {late} came too late to count"
    return found + (f", {overflow} found no room" if overflow else "")


def _grade(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"
