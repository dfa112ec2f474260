"""An arena: one challenger against one champion, from E = 1. O(1): no pair is kept. Pure; its numbers are frozen when it opens.

1. The same arena opened again resumes: a loser is not retried into luck. Anything new in the version key is another arena.
2. Pairs come in (assigned_at, request id) order (`agents.judge.order`); each is of this arena, of these adapters, or counts nothing.
3. The first pairs are novelty and count nothing; where the route sets no latency objective, x0 is the champion's p95 over them.
4. After a promotion the same two arms go on as a holdback: the old champion stays the champion of the pairs.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from agents.judge import pairs
from agents.judge.pairs import Outcome, Pending
from agents.rules.eprocess import Nulls, Track, gain_bets, margin_bets, win_bets, worse_bets
from agents.rules.grading import chance
from agents.rules.metrics import margin_of, overlay_scale
from agents.rules.wealth import Peaks
from schemas.routes import MODEL_GRADERS, Arm, JudgeSettings, Route

RULES = "judge/2"
QUALITY_ALLOWANCE = 0.01  # the harm process; of the other metrics half the margin
LEAST_FOR_P95 = 50


@dataclass(frozen=True, slots=True)
class Process:
    """One e-process of an arena, as events name it: `track` read against `null`."""

    name: str
    track: str
    null: str


GUARDS = ("quality", "latency", "error", "cost")
TRACKS = ("quality", "latency", "slowness", "error", "cost")
_TRACK = {"latency": "slowness"}  # the guardrail of latency is F5, its gain F4
PROCESSES = (
    Process("quality", "quality", "better"),
    Process("latency", "latency", "better"),
    Process("cost", "cost", "better"),
    *(
        Process(f"{guard}_{null}", _TRACK.get(guard, guard), null)
        for guard in GUARDS
        for null in ("margin", "harm", "worse")
    ),
)
"""In the order of `Arena.peaks`."""


def _set(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield name, {key: part for key, part in cast("dict[str, Any]", value).items() if part}
        else:
            yield name, value


class Arena(BaseModel):
    """See the module. `peaks`: the greatest wealth of each of `PROCESSES` at a look. `warmup`: champion latencies until x0 is frozen."""

    model_config = ConfigDict(frozen=True)

    key: str
    champion: str
    challenger: str
    opened_ms: int
    cutoff_ms: int = 0
    alpha: float
    overlay: float | None = None
    priced: bool = False
    x0_us: int | None = None
    warmup: tuple[int, ...] = ()
    novelty: int = 0
    quality_pairs: int = 0
    champion_grades: int = 0
    challenger_grades: int = 0
    champion_nano: int = 0
    challenger_nano: int = 0
    quality: Track = Track()
    latency: Track = Track()
    slowness: Track = Track()
    error: Track = Track()
    cost: Track = Track()
    peaks: Peaks = ()
    stage: int = 0
    stage_since_ms: int = 0
    asked_approval: bool = False
    approved_by: str = ""
    holdback: bool = False
    strangers: int = 0
    done: str = ""

    @property
    def fresh_after_ms(self) -> int:
        """Only requests that were assigned later count: after the opening, and after the training's cutoff (or the reopening)."""
        return max(self.opened_ms, self.cutoff_ms)

    @property
    def pairs(self) -> int:
        """How many pairs count."""
        return self.slowness.n

    @model_serializer(mode="wrap", when_used="json")
    def _sparse(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is empty, 0 or null: every default is one of these, so it is read back the same."""
        return {name: value for name, value in _set(handler(self)) if value}


def version_key(champion: Arm, challenger: Arm, route: Route) -> str:
    """The arena's identity: both arms (base, adapter, prompt, sampling, price), grader, rubric, the judge's numbers and rules."""
    parts = {
        "rules": RULES,
        "champion": champion.model_dump(mode="json"),
        "challenger": challenger.model_dump(mode="json"),
        "grader": grading_of(route),
        "judge": route.judge.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def open_arena(
    champion: Arm, challenger: Arm, route: Route, *, now_ms: int, fresh_after_ms: int, alpha: float
) -> Arena:
    """A new arena with every wealth at 1, at the level `alpha`."""
    slo = route.judge.latency_slo_ms
    return Arena(
        key=version_key(champion, challenger, route),
        champion=champion.arm,
        challenger=challenger.arm,
        opened_ms=now_ms,
        cutoff_ms=fresh_after_ms if fresh_after_ms > now_ms else 0,
        alpha=alpha,
        overlay=overlay_of(route),
        priced=priced(champion, challenger),
        x0_us=None if slo is None else slo * 1000,
    )


def grading_of(route: Route) -> dict[str, Any]:
    """What decides a grade: the grader, and where it is a model its arm, rubric and the share of people beside it."""
    if route.grader not in MODEL_GRADERS:
        return {"grader": route.grader}
    model = next(arm for arm in route.arms if arm.arm == route.grading.arm)
    told = {"rubric": route.grading.rubric, "human_share": route.grading.human_share}
    return {"grader": route.grader, "arm": model.model_dump(mode="json"), **told}


def priced(*arms: Arm) -> bool:
    """Whether any of them costs something by what the route says."""
    return any((arm.nano_usd_in, arm.nano_usd_out) != (0, 0) for arm in arms)


def hold_back(arena: Arena, now_ms: int, overlay: float | None, *, priced: bool) -> Arena:
    """What goes on after the arena's promotion: the same arms and x0, every wealth at 1, only requests from now on."""
    return Arena(
        key=hashlib.sha256(f"holdback/{arena.key}/{now_ms}".encode()).hexdigest()[:32],
        champion=arena.champion,
        challenger=arena.challenger,
        opened_ms=now_ms,
        alpha=arena.alpha,
        overlay=overlay,
        priced=priced,
        x0_us=arena.x0_us,
        holdback=True,
    )


def guards_of(arena: Arena) -> tuple[str, ...]:
    """The guardrails of an arena: cost where an arm has a price; where none has, both cost the same by what the route says."""
    return GUARDS if arena.priced else GUARDS[:-1]


def overlay_of(route: Route) -> float | None:
    """F10's share of human labels where a model grades, as its coin falls; None where people or references do."""
    return chance(route.grading.human_share) if route.grader in MODEL_GRADERS else None


def nulls_of(settings: JudgeSettings, overlay: float | None) -> dict[str, Nulls]:
    """All that an arena's tracks are read against. F10's values are smaller by its scale, and so are its margins."""
    scale = 1.0 if overlay is None else overlay_scale(overlay)
    return {
        "quality": _won(settings.quality_margin / scale, settings.quality_harm / scale, QUALITY_ALLOWANCE / scale),
        "latency": _gained(),
        "slowness": _guard(settings.latency_margin, settings.latency_harm),
        "error": _guard(settings.error_margin, settings.error_harm),
        "cost": _saved(margin_of(settings.cost_margin), margin_of(settings.cost_harm)),
    }


@lru_cache(maxsize=256)
def _won(margin: float, harm: float, allowance: float) -> Nulls:
    return Nulls(better=win_bets(), margin=margin_bets(margin), harm=margin_bets(harm), worse=worse_bets(allowance))


@lru_cache(maxsize=256)
def _guard(margin: float, harm: float) -> Nulls:
    return Nulls(margin=margin_bets(margin), harm=margin_bets(harm), worse=worse_bets(margin / 2))


@lru_cache(maxsize=256)
def _saved(margin: float, harm: float) -> Nulls:
    return Nulls(better=gain_bets(), margin=margin_bets(margin), harm=margin_bets(harm), worse=worse_bets(margin / 2))


@cache
def _gained() -> Nulls:
    return Nulls(better=gain_bets())


def members(arena: Arena, pending: Pending) -> tuple[Outcome, Outcome] | None:
    """(champion, challenger) of a pair of this arena; None where an arm is not there or answered with another adapter."""
    champion, challenger = pending.outcomes.get(arena.champion), pending.outcomes.get(arena.challenger)
    if champion is None or challenger is None or champion.strange or challenger.strange:
        return None
    return champion, challenger


def take(arena: Arena, settings: JudgeSettings, pending: Pending, nulls: Mapping[str, Nulls] | None = None) -> Arena:
    """The arena after the next pair in order, novelty included. `nulls`: those of the settings, where the caller has them."""
    pair = members(arena, pending)
    if pair is None:
        return arena.model_copy(update={"strangers": arena.strangers + 1})
    if not arena.holdback and (arena.novelty < settings.novelty_pairs or arena.x0_us is None):
        return _warm(arena, settings, pair[0])
    return _add(arena, nulls or nulls_of(settings, arena.overlay), *pair, pending)


def _warm(arena: Arena, settings: JudgeSettings, champion: Outcome) -> Arena:
    """Before pair 1: novelty, and the champion's p95 where no objective is set."""
    changes: dict[str, object] = {"novelty": arena.novelty + 1}
    if arena.x0_us is None:
        seen = (*arena.warmup, champion.latency_us) if champion.ok else arena.warmup
        enough = len(seen) >= LEAST_FOR_P95 and arena.novelty + 1 >= settings.novelty_pairs
        changes |= {"x0_us": p95(seen), "warmup": ()} if enough else {"warmup": seen}
    return arena.model_copy(update=changes)


def p95(latencies: tuple[int, ...]) -> int:
    """The 95th percentile of latencies that are at least one; at least 1."""
    ordered = sorted(latencies)
    return max(1, ordered[(len(ordered) * 95) // 100])


def _add(arena: Arena, nulls: Mapping[str, Nulls], champion: Outcome, challenger: Outcome, pending: Pending) -> Arena:
    if arena.x0_us is None:
        raise ValueError("the latency objective must be frozen before pair 1")
    changes: dict[str, object] = {
        "latency": arena.latency.add(pairs.latency(champion, challenger), nulls["latency"]),
        "slowness": arena.slowness.add(pairs.slowness(champion, challenger, arena.x0_us), nulls["slowness"]),
        "error": arena.error.add(pairs.error(champion, challenger), nulls["error"]),
        "cost": arena.cost.add(pairs.cost(champion, challenger), nulls["cost"]),
    }
    if champion.ok and challenger.ok:
        changes["champion_nano"] = arena.champion_nano + champion.nano_usd
        changes["challenger_nano"] = arena.challenger_nano + challenger.nano_usd
    said = pairs.quality(champion, challenger, sampled=pending.sampled, overlay=arena.overlay, asked=pending.asked)
    if said is not None:
        track, against = arena.quality, nulls["quality"]
        changes["quality"] = track.add(said.d, against) if said.bounds is None else track.add_each(said.bounds, against)
        before, after = champion.shown_grade, challenger.shown_grade
        if before is not None and after is not None:
            changes["quality_pairs"] = arena.quality_pairs + 1
            changes["champion_grades"] = arena.champion_grades + before
            changes["challenger_grades"] = arena.challenger_grades + after
    return arena.model_copy(update=changes)
