"""The judge's arithmetic: pairs into an arena's e-processes, and the decision that they allow. Pure; all numbers of an arena
are frozen when it opens.

Rules:
1. Promote only when quality superiority has ever reached 3/α and its estimate meets the bar now, every guardrail has ever
   reached 1/α at its margin and 100 at its harm line and is ≥ 1 now, and pairs, time and cooldown allow.
2. A failed or missing answer is quality 0, exceedance 1, error 1: a pair is never dropped for it.
3. Equal answers are a tie without a verdict. A missing verdict of a sampled pair is 0 for superiority, -1 for non-inferiority.
4. The same arena, opened again, resumes: nothing is retried into luck.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from agents.rules.eprocess import Betting, Discordant, Wealth, Worse, at_least, log_of
from agents.rules.text import same
from schemas.events import CaseArm, CaseClosed, EProcess
from schemas.routes import Arm, JudgeSettings, Route

HARM_LEVEL = 100.0
WORSE_ALLOWANCE = 0.01
GUARDS = ("quality", "latency", "error")


class Crossed(BaseModel):
    """The greatest log wealth seen at a look (display) and whether the level was ever reached."""

    model_config = ConfigDict(frozen=True)

    reached: bool = False
    max_log_e: float = 0.0


class Arena(BaseModel):
    """One challenger against one champion. O(1): no pair is kept."""

    model_config = ConfigDict(frozen=True)

    key: str
    champion: str
    challenger: str
    adapter: str | None
    settings: JudgeSettings
    opened_ms: int
    fresh_after_ms: int
    slo_us: int | None
    pairs: int = 0
    quality_pairs: int = 0
    champion_grades: int = 0
    challenger_grades: int = 0
    superiority: Discordant = Discordant()
    margins: dict[str, Betting]
    harms: dict[str, Betting]
    worse: Worse = Worse(allowance=WORSE_ALLOWANCE)
    crossed: dict[str, Crossed] = {}
    last_case: str = ""
    asked_approval: bool = False
    done: str = ""


def version_key(champion: Arm, challenger: Arm, route: Route) -> str:
    """The arena's identity: arms, grader, the judge's numbers. Anything else new is another arena, with E = 1."""
    parts = {
        "champion": champion.model_dump(mode="json"),
        "challenger": challenger.model_dump(mode="json"),
        "grader": route.grader,
        "judge": route.judge.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def open_arena(champion: Arm, challenger: Arm, route: Route, *, now_ms: int, fresh_after_ms: int) -> Arena:
    """A new arena with every wealth at 1."""
    judge = route.judge
    return Arena(
        key=version_key(champion, challenger, route),
        champion=champion.arm,
        challenger=challenger.arm,
        adapter=challenger.adapter,
        settings=judge,
        opened_ms=now_ms,
        fresh_after_ms=max(now_ms, fresh_after_ms),
        slo_us=None if judge.latency_slo_ms is None else judge.latency_slo_ms * 1000,
        margins={name: Betting(margin=getattr(judge, f"{name}_margin")) for name in GUARDS},
        harms={name: Betting(margin=getattr(judge, f"{name}_harm")) for name in GUARDS},
    )


def exceedance(latency_us: int, slo_us: int) -> float:
    """F5's ramp s(l) = clip((l/x0 - 2/3)·6/5, 0, 1): 0 up to two thirds of the objective, 1 from one and a half."""
    return min(1.0, max(0.0, (latency_us / slo_us - 2 / 3) * 6 / 5))


def pair_of(case: CaseClosed, arena: Arena) -> tuple[CaseArm, CaseArm] | None:
    """(champion, challenger) when the case is a pair of this arena: both ordered, and assigned after it opened."""
    if case.assigned_at_ms <= arena.fresh_after_ms:
        return None
    arms = {arm.arm: arm for arm in case.arms}
    if arena.champion in arms and arena.challenger in arms:
        return arms[arena.champion], arms[arena.challenger]
    return None


def p95_us(latencies: Sequence[int]) -> int | None:
    """The 95th percentile of at least 50 latencies; None of fewer."""
    ordered = sorted(latencies)
    return ordered[(len(ordered) * 95) // 100] if len(ordered) >= 50 else None


def _quality(champion: CaseArm, challenger: CaseArm, *, sampled: bool) -> tuple[float, float, bool] | None:
    """(D for superiority, D for non-inferiority, graded); None: this pair says nothing of quality."""
    ok = champion.status == "completed", challenger.status == "completed"
    if not any(ok):
        return 0.0, 0.0, False
    if all(ok) and same(champion.text, challenger.text):
        return 0.0, 0.0, champion.grade is not None
    before = champion.grade if ok[0] else 0
    after = challenger.grade if ok[1] else 0
    if before is None or after is None:
        return (0.0, -1.0, False) if sampled else None
    difference = (after - before) / 1000
    return difference, difference, True


def add_pair(arena: Arena, champion: CaseArm, challenger: CaseArm, case_id: str, *, sampled: bool) -> Arena:
    """The arena after one pair."""
    if arena.slo_us is None:
        raise ValueError("the latency objective must be frozen before pair 1")
    changes: dict[str, object] = {"pairs": arena.pairs + 1, "last_case": case_id}
    differences: dict[str, float] = {}
    quality = _quality(champion, challenger, sampled=sampled)
    if quality is not None:
        better, inferior, graded = quality
        differences["quality"] = inferior
        changes["superiority"] = arena.superiority.add(better)
        changes["worse"] = arena.worse.add(better)
        if graded or better:
            changes["quality_pairs"] = arena.quality_pairs + 1
            changes["champion_grades"] = arena.champion_grades + (champion.grade or 0)
            changes["challenger_grades"] = arena.challenger_grades + (challenger.grade or 0)
    slow = [
        exceedance(arm.latency_us, arena.slo_us) if arm.status == "completed" else 1.0 for arm in (champion, challenger)
    ]
    differences["latency"] = slow[0] - slow[1]
    differences["error"] = float(champion.status != "completed") - float(challenger.status != "completed")
    changes["margins"] = {n: p.add(differences[n]) if n in differences else p for n, p in arena.margins.items()}
    changes["harms"] = {n: p.add(differences[n]) if n in differences else p for n, p in arena.harms.items()}
    return arena.model_copy(update=changes)


class Look(BaseModel):
    """One look: every number, every condition, what follows."""

    model_config = ConfigDict(frozen=True)

    processes: tuple[EProcess, ...]
    conditions: dict[str, bool]
    decision: str
    reason: str
    guards_hold: bool
    log_e: float
    champion_grade: float | None
    challenger_grade: float | None


def look(arena: Arena, *, now_ms: int, cooldown_until_ms: int, approval: str) -> tuple[Arena, Look]:
    """Look at the evidence. The arena that is returned remembers which levels were ever reached."""
    judge = arena.settings
    crossed: dict[str, Crossed] = dict(arena.crossed)
    rows: list[EProcess] = []
    now_fine: dict[str, bool] = {}

    def note(name: str, wealth: Wealth, level: float, n: int, estimate: float | None) -> None:
        before = crossed.get(name, Crossed())
        log_e = log_of(wealth)
        reached = before.reached or at_least(wealth, level)
        crossed[name] = Crossed(reached=reached, max_log_e=max(before.max_log_e, log_e))
        now_fine[name] = at_least(wealth, 1.0)
        rows.append(
            EProcess(
                name=name,
                log_e=round(log_e, 6),
                max_log_e=round(crossed[name].max_log_e, 6),
                needed=round(log_of(_level(level)), 6),
                n=n,
                estimate=estimate,
                crossed=reached,
            )
        )

    pairs, asked = (
        arena.quality_pairs,
        arena.margins["quality"].n,
    )  # an equal answer or a missing verdict is a gain of 0
    gain = (arena.challenger_grades - arena.champion_grades) / (1000 * asked) if asked else None
    w, l = arena.superiority.wins, arena.superiority.losses  # noqa: E741  the field's letters
    note("quality", arena.superiority.wealth(), 3 / judge.alpha, w + l, gain)
    for name in GUARDS:
        margin, harm = arena.margins[name], arena.harms[name]
        mean = margin.total / margin.n if margin.n else None
        note(f"{name}_margin", margin.wealth(), 1 / judge.alpha, margin.n, mean)
        note(f"{name}_harm", harm.wealth(), HARM_LEVEL, harm.n, mean)
    note("quality_worse", arena.worse.wealth(), 1 / judge.alpha, pairs, gain)

    guards = {
        f"{name} not worse": crossed[f"{name}_margin"].reached
        and crossed[f"{name}_harm"].reached
        and now_fine[f"{name}_margin"]
        and now_fine[f"{name}_harm"]
        for name in GUARDS
    }
    conditions = {
        "quality better": crossed["quality"].reached,
        "gain meets the bar": gain is not None and gain >= judge.quality_bar,
        **guards,
        "enough pairs": arena.pairs >= judge.min_pairs,
        "enough time": now_ms - arena.opened_ms >= judge.min_time_s * 1000,
        "no cooldown": now_ms >= cooldown_until_ms,
    }
    decision, reason = "continue", ""
    if crossed["quality_worse"].reached:
        decision, reason = "reject", "harmful"
    elif all(conditions.values()):
        decision = "promote" if approval == "automatic" else "request_approval"
    elif arena.pairs >= judge.max_pairs:
        decision, reason = "reject", "inconclusive"
    seen = Look(
        processes=tuple(rows),
        conditions=conditions,
        decision=decision,
        reason=reason,
        guards_hold=all(guards.values()),
        log_e=rows[0].log_e,
        champion_grade=round(arena.champion_grades / (1000 * pairs), 4) if pairs else None,
        challenger_grade=round(arena.challenger_grades / (1000 * pairs), 4) if pairs else None,
    )
    return arena.model_copy(update={"crossed": crossed}), seen


def _level(level: float) -> Wealth:
    return math.frexp(level)


def settings_of(arena: Arena) -> Mapping[str, float | int | str | None]:
    """The arena's frozen numbers, as `promotion.opened` shows them."""
    return dict(arena.settings.model_dump())
