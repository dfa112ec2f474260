"""What becomes of arenas: opened, looked at, on their way in stages, promoted, rejected, held back, rolled back. Pure.

1. One e-process per arena, through the shadow and all stages; no stage spends any α. A stage lasts its time and needs the guardrails at 1
   and a quiet breaker.
2. At most one arena is on its way; the others stay in the shadow, and end when their champion is replaced.
3. A rollback needs no evidence for the old arm, but that it is live. What the breaker says stops or rolls back, at once.
"""

from typing import Any, cast

from agents.judge.arena import Arena, hold_back, open_arena, version_key
from agents.judge.bench import Judging, Leaving, Waiting
from agents.judge.breaker import Breaker
from agents.judge.decide import Around, Look, basis_of, look
from schemas.events import (
    ModelPromoted,
    ModelRolledBack,
    PromotionApprovalRequested,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
    PromotionStaged,
)
from schemas.ids import derive
from schemas.routes import Arm

NAME = "judge"
QUEUE = 4
PROMOTED = "promoted"


def around(judging: Judging, arena: Arena) -> Around:
    """What a look needs beside the arena."""
    bench, breaker = judging.bench, judging.breaker(arena.challenger)
    return Around(
        settings=bench.settings.judge,
        now_ms=judging.now_ms,
        cooldown_until_ms=bench.cooldown_until_ms,
        approval=bench.settings.approval,
        breach=breaker.tripped(bench.settings.judge) if breaker is not None else "",
    )


# the line


def enqueue(judging: Judging, arm: Arm, fresh_after_ms: int) -> None:
    """A challenger takes its place in the line, its last one where it stood there; who serves or is judged does not."""
    waiting = [row for row in judging.bench.queue if row.arm.arm != arm.arm]
    if arm.arm not in (judging.bench.champion, judging.bench.settings.grading.arm) and judging.judged(arm.arm) is None:
        waiting.append(Waiting(arm=arm, fresh_after_ms=fresh_after_ms))
    judging.change(queue=tuple(waiting[-QUEUE:]))


def open_next(judging: Judging) -> None:
    """Open arenas while there is room, none is on its way and no cooldown lasts."""
    if any(row.arm.arm == judging.bench.champion for row in judging.bench.queue):  # it serves by now
        judging.change(queue=tuple(row for row in judging.bench.queue if row.arm.arm != judging.bench.champion))
    while judging.bench.queue and len(judging.bench.open) < judging.bench.settings.judge.at_once:
        if judging.now_ms < judging.bench.cooldown_until_ms:
            judging.wake(judging.bench.cooldown_until_ms)
            return
        if judging.bench.leaving is not None or judging.staged() is not None:
            return
        _open(judging, judging.bench.queue[0])


def _open(judging: Judging, first: Waiting) -> None:
    bench = judging.bench
    others = tuple(arm for arm in bench.arms if arm.arm != first.arm.arm)
    champion = bench.arm(bench.champion)
    key = version_key(champion, first.arm, bench.settings)
    known = judging.arena(key)
    judging.change(queue=bench.queue[1:])
    if known is not None and known.done == PROMOTED:
        close(judging, known, "it was promoted before and taken back: only another version is judged again")
        return
    judging.change(arms=(*others, first.arm), open=(*bench.open, key))
    if known is None:
        judging.change(opened=bench.opened + 1)
        arena = open_arena(
            champion,
            first.arm,
            bench.settings,
            now_ms=judging.now_ms,
            fresh_after_ms=first.fresh_after_ms,
            alpha=level_of(judging),
        )
        judging.keep_arena(arena)
    else:
        resumed = max(judging.now_ms, known.fresh_after_ms)
        arena = judging.keep_arena(known, done="", asked_approval=False, approved_by="", cutoff_ms=resumed)
    judging.emit(
        PromotionOpened(**judging.common(arena), resumed=known is not None, settings=settings_of(judging, arena)),
        f"opened/{key}",
    )
    judging.publish_fleet(f"arena opened for {arena.challenger}")


def level_of(judging: Judging) -> float:
    """α of the arena that opens: the route's, or e-LOND's α·γ_t·(R+1), γ_t = 1/(t(t+1)) (Xu & Ramdas 2024, arXiv 2311.06412)."""
    bench = judging.bench
    alpha = bench.settings.judge.alpha
    if not bench.settings.judge.fdr:
        return alpha
    return alpha * (bench.promotions + 1) / (bench.opened * (bench.opened + 1))


def settings_of(judging: Judging, arena: Arena) -> dict[str, float | int | str | None]:
    """The arena's frozen numbers, as `promotion.opened` shows them."""
    rows = judging.bench.settings.judge.model_dump(mode="json") | {"alpha": arena.alpha, "overlay": arena.overlay}
    return {name: _flat(row) for name, row in rows.items()}


def _flat(value: Any) -> float | int | str | None:
    return ",".join(str(one) for one in cast("list[Any]", value)) if isinstance(value, list) else value


# looks


def take_look(judging: Judging, arena: Arena, identity: str) -> Arena:
    """Look at an arena, say so, and do what follows."""
    beside = around(judging, arena)
    arena, seen = look(arena, beside)
    judging.keep_arena(arena)
    evaluated(judging, arena, beside, seen, identity)
    if seen.decision == "reject" and arena.holdback:
        leave(judging, seen.reason, "")
    elif seen.decision == "reject":
        reject(judging, arena, seen.reason, seen.log_e)
    elif seen.decision == "promote" and judging.staged() is None:
        advance(judging, arena, seen, identity)
    elif seen.decision == "request_approval" and not arena.asked_approval:
        judging.keep_arena(arena, asked_approval=True)
        judging.emit(
            PromotionApprovalRequested(**judging.common(arena), pairs=arena.pairs, log_e=seen.log_e),
            f"approval/{arena.key}",
        )
    return judging.arena(arena.key) or arena


def evaluated(judging: Judging, arena: Arena, beside: Around, seen: Look, identity: str, reason: str = "") -> None:
    """`promotion.evaluated` of a look, with all that recomputes it."""
    judging.emit(
        PromotionEvaluated(
            **judging.common(arena),
            pairs=arena.pairs,
            quality_pairs=arena.quality_pairs,
            wins=arena.quality.wins,
            losses=arena.quality.losses,
            champion_grade=seen.champion_grade,
            challenger_grade=seen.challenger_grade,
            processes=seen.processes,
            conditions=seen.conditions,
            decision="continue" if reason else seen.decision,  # type: ignore[arg-type]  # one of the four words
            reason=reason or seen.reason,
            stage=arena.stage,
            holdback=arena.holdback,
            late=judging.place.late,
            basis=basis_of(arena, beside),
        ),
        f"evaluated/{identity}",
    )


# stages


def advance(judging: Judging, arena: Arena, seen: Look, identity: str) -> None:
    """One stage on; after the last one the challenger is promoted."""
    stages = judging.bench.settings.judge.stages
    if arena.stage >= len(stages):
        promote(judging, arena, seen, identity)
        return
    if arena.stage == 0:
        judging.keep_breaker(_breaker_of(arena))
    arena = judging.keep_arena(arena, stage=arena.stage + 1, stage_since_ms=judging.now_ms)
    judging.emit(
        PromotionStaged(
            **judging.common(arena),
            stage=arena.stage,
            rollout_bp=round(stages[arena.stage - 1] * 10_000),
            pairs=arena.pairs,
        ),
        f"staged/{arena.key}/{arena.stage}",
    )
    judging.publish_fleet(f"{arena.challenger} serves {stages[arena.stage - 1]:.0%}")
    judging.wake(judging.now_ms + judging.bench.settings.judge.stage_time_s * 1000)


def _breaker_of(arena: Arena) -> Breaker:
    graded = arena.quality_pairs
    base = arena.champion_grades // graded if graded else None
    return Breaker(arm=arena.challenger, x0_us=arena.x0_us or 1, base_grade=base)


def stage_over(judging: Judging) -> None:
    """At a tick: the arena on its way goes on where its stage's time is over and its guardrails hold."""
    arena = judging.staged()
    if arena is None:
        return
    over = arena.stage_since_ms + judging.bench.settings.judge.stage_time_s * 1000
    if judging.now_ms < over:
        judging.wake(over)
        return
    beside = around(judging, arena)
    arena, seen = look(arena, beside)
    judging.keep_arena(arena)
    if not seen.guards_hold or not seen.conditions["no breach"]:
        return  # the next look, or the breaker, says what follows
    identity = f"stage-{arena.key}-{arena.stage}"
    evaluated(judging, arena, beside, seen, identity)
    advance(judging, arena, seen, identity)


def promote(judging: Judging, arena: Arena, seen: Look, identity: str) -> None:
    """The challenger becomes the champion; the old one is kept to return to, and answers a share beside it."""
    before, judge = judging.bench.champion, judging.bench.settings.judge
    others = [row for row in judging.arenas() if row.key != arena.key]
    _end(judging, arena, PROMOTED)
    for other in others:
        close(judging, other, f"superseded: {arena.challenger} was promoted")
    watch = hold_back(arena, judging.now_ms, arena.overlay, priced=arena.priced)
    judging.drop_breaker(before)
    judging.keep_breaker((judging.breaker(arena.challenger) or _breaker_of(arena)).detecting())
    promotions = judging.bench.promotions + 1
    judging.change(champion=arena.challenger, rollback=before, leaving=None, promotions=promotions)
    end_watch(judging)
    if judge.holdback_share and judge.holdback_time_s:
        judging.keep_arena(watch)
        judging.change(watch=watch.key)
        judging.wake(judging.now_ms + judge.holdback_time_s * 1000)
    for other in others:
        enqueue(judging, judging.bench.arm(other.challenger), other.fresh_after_ms)
    judging.publish_fleet(f"{arena.challenger} promoted")
    judging.emit(
        ModelPromoted(
            **judging.common(arena),
            pairs=arena.pairs,
            log_e=seen.log_e,
            approved_by=arena.approved_by,
            fleet_version=judging.bench.fleet_version,
            evaluation=derive(judging.cause, NAME, f"evaluated/{identity}"),
        ),
        "promoted",
    )


def reject(judging: Judging, arena: Arena, reason: str, log_e: float) -> None:
    """The challenger is taken out."""
    close(judging, arena, reason, log_e)
    judging.publish_fleet(f"{arena.challenger} rejected: {reason}")


def close(judging: Judging, arena: Arena, reason: str, log_e: float = 0.0) -> None:
    """End an arena and say why."""
    if arena.stage:
        judging.drop_breaker(arena.challenger)
    _end(judging, arena, reason)
    judging.emit(
        PromotionRejected(**judging.common(arena), reason=reason, pairs=arena.pairs, log_e=log_e),
        f"rejected/{arena.key}",
    )


def _end(judging: Judging, arena: Arena, word: str) -> None:
    """The arena is over: it is kept, so that the same challenger resumes in the shadow; the cooldown begins."""
    word = PROMOTED if arena.done == PROMOTED else word
    judging.keep_arena(arena, done=word, stage=0, stage_since_ms=0, asked_approval=False)
    cooldown = judging.now_ms + judging.bench.settings.judge.cooldown_s * 1000
    left = tuple(key for key in judging.bench.open if key != arena.key)
    judging.change(open=left, cooldown_until_ms=cooldown)


# after a promotion


def end_watch(judging: Judging) -> None:
    """The holdback is over: its arena is forgotten."""
    if judging.bench.watch:
        judging.forget(f"arena/{judging.bench.watch}")
        judging.change(watch="")


def watch_over(judging: Judging) -> None:
    """At a tick: the holdback ends after its time or its pairs."""
    watched, judge = judging.watched(), judging.bench.settings.judge
    if watched is None:
        return
    end = watched.opened_ms + judge.holdback_time_s * 1000
    if judging.now_ms < end and watched.pairs < judge.holdback_pairs:
        judging.wake(end)
        return
    end_watch(judging)
    judging.drop_breaker(watched.challenger)
    judging.publish_fleet(f"holdback of {watched.champion} ended after {watched.pairs} pairs")


def trip(judging: Judging, arm: str) -> None:
    """Do what an arm's breaker says: a stage ends in a rejection, a promotion in a rollback."""
    breaker, bench = judging.breaker(arm), judging.bench
    why = "" if breaker is None else breaker.tripped(bench.settings.judge)
    if not why:
        return
    staged = judging.staged()
    if staged is not None and staged.challenger == arm:
        reject(judging, staged, f"breaker: {why}", 0.0)
    elif arm == bench.champion and bench.rollback is not None and bench.leaving is None:
        leave(judging, f"breaker: {why}", "")


def leave(judging: Judging, reason: str, by: str) -> None:
    """Return to the former champion: now where it is proven live, else as soon as it is."""
    bench = judging.bench
    if bench.rollback is None:
        judging.publish_fleet(f"rollback by {by or NAME} refused: there is no arm to return to")
        return
    judging.change(leaving=Leaving(reason=reason, by=by))
    if not return_if_live(judging):
        judging.publish_fleet(f"rollback waits until {bench.rollback} is proven live: {reason}")


def return_if_live(judging: Judging) -> bool:
    """Carry out a rollback that waits, where the arm to return to is live."""
    bench = judging.bench
    back, leaving = bench.rollback, bench.leaving
    if back is None or leaving is None or back not in bench.live:
        return False
    for arena in judging.arenas():
        close(judging, arena, f"rollback: {leaving.reason}")
    watched, taken_out = judging.watched(), bench.champion
    end_watch(judging)
    judging.drop_breaker(taken_out)
    cooldown = judging.now_ms + bench.settings.judge.cooldown_s * 1000
    judging.change(champion=back, rollback=None, leaving=None, cooldown_until_ms=cooldown)
    judging.publish_fleet(f"rolled back{f' by {leaving.by}' if leaving.by else ''}: {leaving.reason}")
    judging.emit(
        ModelRolledBack(
            tenant=bench.settings.tenant,
            at_ms=judging.now_ms,
            route=bench.settings.route,
            arena="" if watched is None else watched.key,
            champion=back,
            challenger=taken_out,
            adapter=judging.adapter_of(taken_out),
            reason=leaving.reason or "by command",
            by=leaving.by,
            fleet_version=judging.bench.fleet_version,
        ),
        "rolled-back",
    )
    return True
