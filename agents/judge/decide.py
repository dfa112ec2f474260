"""The decision that an arena's evidence allows. Pure: the same arena, numbers and time give the same look, here and anywhere.

Rules:
1. Promote only when a gain (quality, latency or cost, as the route allows) has ever reached k/α, k the number of them, and its estimate
   meets the bar now; every guardrail has ever reached 1/α at its margin and 100 at its harm line and is ≥ 1 now; pairs, time, breaker
   and cooldown allow.
2. A harm process that has ever reached k/α, k the number of guardrails, ends the arena, or rolls back after a promotion: by mistake with a
   probability of at most α. Too many pairs end it as inconclusive.
3. Nothing but exact comparisons of wealths and integers decides; logarithms are shown.
"""

import json
import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from agents.judge.arena import PROCESSES, RULES, TRACKS, Arena, guards_of, nulls_of
from agents.rules.metrics import gain_of, overlay_scale
from agents.rules.wealth import Wealth, at_least, capped, floored, log_of
from schemas.events import EProcess
from schemas.routes import JudgeSettings

HARM_LEVEL = 100.0
GAIN, PAIRS, TIME, BREACH, COOLDOWN = (
    "a gain is proven and meets its bar",
    "enough pairs",
    "enough time",
    "no breach",
    "no cooldown",
)


def guard_name(guard: str) -> str:
    """The condition of a guardrail."""
    return f"{guard} not worse"


class Around(BaseModel):
    """What a look needs beside the arena. `breach`: why the breaker has tripped, empty where it is quiet."""

    model_config = ConfigDict(frozen=True)

    settings: JudgeSettings
    now_ms: int
    cooldown_until_ms: int = 0
    approval: str = "automatic"
    breach: str = ""


class Gain(BaseModel):
    """How far a way to win has come."""

    model_config = ConfigDict(frozen=True)

    name: str
    reached: bool
    estimate: float | None
    bar: float
    meets: bool


class Look(BaseModel):
    """One look: every number, every condition, what follows. `metric`: the gain that wins, else the nearest."""

    model_config = ConfigDict(frozen=True)

    processes: tuple[EProcess, ...]
    gains: tuple[Gain, ...]
    conditions: dict[str, bool]
    decision: str
    reason: str
    guards_hold: bool
    metric: str
    log_e: float
    champion_grade: float | None
    challenger_grade: float | None


def needed(null: str, arena: Arena, settings: JudgeSettings) -> float:
    """The level that a process must reach."""
    if null == "better":
        return len(settings.win_by) / arena.alpha
    if null == "worse":
        return len(guards_of(arena)) / settings.alpha
    return HARM_LEVEL if null == "harm" else 1.0 / settings.alpha


def look(arena: Arena, around: Around) -> tuple[Arena, Look]:
    """Look at the evidence. The arena that is returned remembers the greatest wealths. Looking again changes nothing."""
    settings, nulls = around.settings, nulls_of(around.settings, arena.overlay)
    wealths: dict[str, Wealth] = {}
    peaks: list[float] = []
    for process, peak in zip(PROCESSES, arena.peaks or (0.0,) * len(PROCESSES), strict=True):
        wealth = getattr(arena, process.track).wealth(process.null, nulls[process.track])
        wealths[process.name] = wealth
        value = capped(wealth)
        peaks.append(max(peak, floored(value)) if value > peak else peak)
    arena = arena.model_copy(update={"peaks": tuple(peaks)})
    levels = {null: needed(null, arena, settings) for null in ("better", "margin", "harm", "worse")}
    reached = {process.name: peak >= levels[process.null] for process, peak in zip(PROCESSES, peaks, strict=True)}
    guards = {
        guard_name(guard): all(
            reached[f"{guard}_{null}"] and at_least(wealths[f"{guard}_{null}"], 1.0) for null in ("margin", "harm")
        )
        for guard in guards_of(arena)
    }
    gains = _gains(arena, settings, reached)
    conditions = {
        GAIN: any(gain.reached and gain.meets for gain in gains),
        **guards,
        PAIRS: arena.pairs >= settings.min_pairs,
        TIME: around.now_ms - arena.opened_ms >= settings.min_time_s * 1000,
        BREACH: not around.breach,
        COOLDOWN: around.now_ms >= around.cooldown_until_ms,
    }
    decision, reason = _decision(arena, around, conditions, reached)
    best = max(gains, key=lambda gain: (gain.reached and gain.meets, _rank(wealths[gain.name])))
    graded = 1000 * arena.quality_pairs
    seen = Look(
        processes=_rows(arena, levels, wealths, reached),
        gains=gains,
        conditions=conditions,
        decision=decision,
        reason=reason,
        guards_hold=all(guards.values()),
        metric=best.name,
        log_e=round(log_of(wealths[best.name]), 6),
        champion_grade=round(arena.champion_grades / graded, 4) if graded else None,
        challenger_grade=round(arena.challenger_grades / graded, 4) if graded else None,
    )
    return arena, seen


def _rank(wealth: Wealth) -> tuple[int, float]:
    return wealth[1], wealth[0]


def _gains(arena: Arena, settings: JudgeSettings, reached: Mapping[str, bool]) -> tuple[Gain, ...]:
    """Each way to win that the route allows. Quality and latency: the mean now; cost: the ratio of the totals."""
    rows: list[Gain] = []
    for name in settings.win_by:
        if name == "cost":
            before, after = arena.champion_nano, arena.challenger_nano
            estimate, bar = (after / before if before else None), settings.cost_bar
            meets = estimate is not None and estimate <= bar
        else:
            estimate = estimate_of(arena, name)
            bar = settings.quality_bar if name == "quality" else gain_of(settings.latency_bar)
            meets = estimate is not None and estimate >= bar
        rows.append(Gain(name=name, reached=reached[name], estimate=estimate, bar=bar, meets=meets))
    return tuple(rows)


def estimate_of(arena: Arena, track: str) -> float | None:
    """The mean of D on a track; of quality under F10 in the scale of grades."""
    mean = getattr(arena, track).mean
    if mean is not None and track == "quality" and arena.overlay is not None:
        return mean * overlay_scale(arena.overlay)
    return mean


def harmed(arena: Arena, reached: Mapping[str, bool]) -> str:
    """Which harm processes have ever reached their level, in words; empty where none has."""
    return ", ".join(guard for guard in guards_of(arena) if reached[f"{guard}_worse"])


def _decision(
    arena: Arena, around: Around, conditions: Mapping[str, bool], reached: Mapping[str, bool]
) -> tuple[str, str]:
    worse = harmed(arena, reached)
    if worse:
        return "reject", f"harmful: worse in {worse}"
    if arena.holdback or arena.stage:
        return "continue", ""
    if all(conditions.values()):
        return ("promote" if around.approval == "automatic" or arena.approved_by else "request_approval"), ""
    if arena.pairs >= around.settings.max_pairs:
        return "reject", "inconclusive"
    return "continue", ""


def _rows(
    arena: Arena, levels: Mapping[str, float], wealths: Mapping[str, Wealth], reached: Mapping[str, bool]
) -> tuple[EProcess, ...]:
    shown = {null: round(math.log(level), 6) for null, level in levels.items()}
    tracks = {name: (getattr(arena, name).n, estimate_of(arena, name)) for name in TRACKS}
    rows: list[EProcess] = []
    for process, peak in zip(PROCESSES, arena.peaks, strict=True):
        mantissa, exponent = wealths[process.name]
        n, estimate = tracks[process.track]
        rows.append(
            EProcess(
                name=process.name,
                log_e=_shown(log_of((mantissa, exponent))),
                max_log_e=_shown(math.log(peak) if peak else -math.inf),
                needed=shown[process.null],
                n=n,
                estimate=estimate,
                crossed=reached[process.name],
                mantissa=mantissa,
                exponent=exponent,
                peak=peak,
            )
        )
    return tuple(rows)


def _shown(log_e: float) -> float:
    """A logarithm that JSON can say."""
    return round(max(log_e, -1e6), 6)


def basis_of(arena: Arena, around: Around) -> str:
    """JSON of all that a look is made from: `promotion.evaluated` carries it, `looked_again` reads it."""
    beside = json.dumps(
        {
            "now_ms": around.now_ms,
            "cooldown_until_ms": around.cooldown_until_ms,
            "approval": around.approval,
            "breach": around.breach,
        }
    )
    return (
        f'{{"rules":"{RULES}","arena":{arena.model_dump_json()},"settings":{around.settings.model_dump_json()},'
        f'"beside":{beside}}}'
    )


def looked_again(basis: str) -> Look:
    """The look that a `promotion.evaluated` tells of, made again from its basis alone. ValueError where the basis is none."""
    said = json.loads(basis)
    if said["rules"] != RULES:
        raise ValueError(f"rules {said['rules']!r}: this code decides by {RULES!r}")
    around = Around(settings=JudgeSettings.model_validate(said["settings"]), **said["beside"])
    return look(Arena.model_validate(said["arena"]), around)[1]
