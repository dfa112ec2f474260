"""After the evidence: stages, holdback, breaker, and the way back."""

from typing import Any

from court import GAP_MS, SHARED, WINDOW_MS, Court, T, coin, registered

from schemas.events import (
    AdapterRefused,
    CommandApply,
    CommandRollback,
    ModelPromoted,
    ModelRolledBack,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
    PromotionStaged,
)

STAGED: dict[str, Any] = {"stages": (0.2, 0.5), "stage_time_s": 20, "holdback_share": 0.05, "breaker_window": 40}


def staged(**judge: Any) -> Court:
    """A court whose challenger has just passed the shadow."""
    court = Court(judge=STAGED | judge)
    index = 0
    while not court.of(PromotionStaged):
        old, new = (1000 * (coin(1, index, arm) < chance) for arm, chance in (("old", 0.6), ("new", 0.85)))
        court.pair(index, old, new)
        index += 1
        if index % 10 == 0:
            court.tick(T + 1000 + index * GAP_MS)
        assert index < 2000
    return court


def promoted(**judge: Any) -> Court:
    """A court whose challenger has gone through its stages."""
    court = staged(**judge)
    for _ in range(3):
        court.tick(court.now + 20_000)
    assert court.fleet.champion == "new"
    return court


def serve(court: Court, count: int, *, grade: int | None = None, ok: bool = True, slow: bool = False) -> None:
    """Answers of the arm on its way, or of the new champion, without any pairs."""
    for _ in range(count):
        court.now += 10
        index = 100_000 + court.now % 10_000_000
        more: dict[str, Any] = {"arm": "new", "at_ms": court.now, "shadows": ()}
        court.folding.take(court.announced(index, ok=ok, latency_us=5_000_000 if slow else 50_000, **more))
        if grade is not None:
            row = court.arm("new", grade)
            court.folding.take(court.closed(index, [row], arm="new", at_ms=court.now))


def test_the_rule_is_passed_in_the_shadow_and_stages_take_their_time() -> None:
    """Shadow, 20 %, 50 %, all: each stage lasts its time; the arms of a tenth of the requests are both asked meanwhile."""
    court = staged()
    assert (court.fleet.rollout_bp, court.fleet.shadow_bp, court.fleet.challenger) == (2000, 1000, "new")
    assert court.of(ModelPromoted) == []
    court.tick(court.now + 19_000)
    assert len(court.of(PromotionStaged)) == 1
    court.tick(court.now + 1_000)
    assert [row.rollout_bp for row in court.of(PromotionStaged)] == [2000, 5000]
    assert court.fleet.rollout_bp == 5000
    court.tick(court.now + 20_000)
    (told,) = court.of(ModelPromoted)
    assert told.evaluation in court.folding.ids
    assert (court.fleet.champion, court.fleet.rollback, court.fleet.challenger) == ("new", "old", None)


def test_no_stage_spends_any_alpha() -> None:
    """The same process goes on through the stages: its counts only grow, its peaks never fall."""
    court = staged(stage_time_s=10_000)
    before = court.of(PromotionEvaluated)[-1]
    court.pairs(40, 0.6, 0.85, start=3000)
    after = court.of(PromotionEvaluated)[-1]
    assert (after.arena, after.stage) == (before.arena, 1)
    assert after.pairs > before.pairs
    peaks = [{row.name: row.peak for row in told.processes} for told in (before, after)]
    assert all(peaks[1][name] >= peaks[0][name] for name in peaks[0])


def test_the_breaker_ends_a_stage() -> None:
    """Failures of the arm on its way: rejected at once, everyone is served by the champion again; nothing it says promotes."""
    court = staged()
    serve(court, 3, ok=False)
    (told,) = court.of(PromotionRejected)
    assert "errors" in told.reason
    assert (court.fleet.rollout_bp, court.fleet.champion) == (0, "old")
    assert court.of(ModelPromoted) == []
    court = staged()
    serve(court, 20, slow=True)
    assert "latency" in court.of(PromotionRejected)[0].reason


def test_a_quiet_breaker_never_promotes() -> None:
    """However good what it sees: only the stage's time, and the judge's look, bring a challenger on."""
    court = staged()
    serve(court, 500, grade=1000)
    assert len(court.of(PromotionStaged)) == 1
    assert court.of(ModelPromoted) == []


def test_harm_during_a_stage_ends_it() -> None:
    """The harm process goes on: a challenger that turns bad on its way is rejected."""
    court = staged(stage_time_s=10_000)
    court.pairs(600, 0.9, 0.1, start=3000)
    assert court.of(PromotionRejected)[0].reason.startswith("harmful")
    assert court.fleet.rollout_bp == 0


def test_the_old_champion_answers_beside_the_new_one() -> None:
    """After the promotion it shadows the holdback's share, under an arena of its own, for its time."""
    court = promoted()
    assert (court.fleet.shadows, court.fleet.shadow_bp) == (("old",), 500)
    (watch,) = court.fleet.arenas
    assert watch != court.of(PromotionOpened)[0].arena
    court.tick(court.now + 14 * 86_400_000 + 1000)
    assert (court.fleet.shadows, court.fleet.arenas, court.fleet.rollback) == ((), (), "old")


def test_harm_after_the_promotion_rolls_back() -> None:
    """The new champion turns worse than the old one on the holdback's pairs: rolled back by the judge, no person asked."""
    court = promoted()
    for index in range(20_000, 20_400):
        court.pair(index, 1000 * (coin(2, index, "old") < 0.8), 1000 * (coin(2, index, "new") < 0.3), arm="new")
        if index % 10 == 9:
            court.tick(T + 1000 + index * GAP_MS + WINDOW_MS)
        if court.of(ModelRolledBack):
            break
    (told,) = court.of(ModelRolledBack)
    assert (told.champion, told.challenger, told.by, told.adapter) == ("old", "new", "", "sha256:new")
    assert told.reason == "harmful: worse in quality"
    assert court.of(PromotionEvaluated)[-1].holdback
    assert (court.fleet.champion, court.fleet.rollback, court.fleet.shadows) == ("old", None, ())


def test_the_breaker_rolls_back_on_quality_latency_and_errors() -> None:
    """Instant, on the last answers of the new champion: each of the three brings the old one back."""
    for told, word in (({"grade": 0}, "quality"), ({"slow": True}, "latency"), ({"ok": False}, "errors")):
        court = promoted()
        serve(court, 60, **told)  # type: ignore[arg-type]  # keywords by name
        (back,) = court.of(ModelRolledBack)
        assert back.reason.startswith("breaker")
        assert word in back.reason
        assert court.fleet.champion == "old"


def test_the_detector_needs_no_full_window() -> None:
    """The rate of wrong answers rises far: the e-detector's alarm comes before the breaker's window is full."""
    court = promoted(breaker_window=1000)
    serve(court, 200, grade=0)
    (back,) = court.of(ModelRolledBack)
    assert "detector" in back.reason


def test_a_rollback_waits_for_a_live_arm() -> None:
    """The old arm was refused by the engine: the new champion goes on serving until the old one is proven live again."""
    court = promoted()
    told: dict[str, Any] = {"route": "r", "instance": "i", "reason": "gone"}
    court.folding.take(AdapterRefused(at_ms=court.now, arm="old", adapter=None, **told))
    court.folding.take(CommandRollback(**SHARED, at_ms=court.now + 10, reason="complaints"))
    assert court.of(ModelRolledBack) == []
    assert "waits until old is proven live" in court.fleet.reason
    assert court.fleet.champion == "new"
    court.now += 100
    court.live("old", None)
    (back,) = court.of(ModelRolledBack)
    assert (back.champion, back.by, back.reason) == ("old", "ann", "complaints")


def test_what_was_rolled_back_is_not_promoted_again_on_old_evidence() -> None:
    """The same version registered again is refused: only another version is judged; a new one is."""
    court = promoted(cooldown_s=0)
    court.folding.take(CommandRollback(**SHARED, at_ms=court.now + 10))
    court.folding.take(registered(at=court.now - T + 20))
    assert len(court.of(PromotionOpened)) == 1
    assert "promoted before" in court.of(PromotionRejected)[-1].reason
    court.folding.take(registered("newer", court.now - T + 30))
    assert court.of(PromotionOpened)[-1].challenger == "newer"


def test_an_operator_may_change_the_champion_at_any_time() -> None:
    """Applying another champion ends holdback and breaker; nothing of the old watch rolls anything back."""
    court = promoted()
    settings = court.folding.cells["r"].record.settings  # type: ignore[union-attr]  # the bench
    command = CommandApply(**SHARED, at_ms=court.now + 10, settings=settings.model_copy(update={"shadow_share": 0.4}))
    court.folding.take(command)
    assert court.fleet.shadows == ("old",)
    assert court.fleet.champion == "new"
    assert "breaker/new" in court.folding.cells["r"].entries
