"""The judge: promotions only by evidence, and everything an operator may command."""

from court import GAP_MS, SHARED, Court, T, registered, route
from folding import Folding

from agents.judge.fold import Judge
from schemas.events import (
    AdapterRefused,
    CommandApply,
    CommandPause,
    CommandPromote,
    CommandReject,
    CommandResume,
    CommandRollback,
    ModelPromoted,
    ModelRolledBack,
    PromotionApprovalRequested,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
)
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm


def test_applying_publishes_route_and_fleet() -> None:
    """An applied route becomes policy.route and policy.fleet, versions from one."""
    folding = Folding(Judge())
    folding.take(CommandApply(**SHARED, at_ms=T, settings=route()))
    (applied,), (fleet,) = folding.of(PolicyRoute), folding.of(PolicyFleet)
    assert (applied.version, applied.author, fleet.version, fleet.champion) == (1, "ann", 1, "old")
    assert (fleet.challenger, fleet.shadows, fleet.arenas) == (None, (), ())
    assert fleet.shadow_bp == 0


def test_a_registered_adapter_opens_an_arena() -> None:
    """The fleet then names the challenger, loads it and orders shadows at the route's share."""
    court = Court()
    (arena,) = court.of(PromotionOpened)
    assert arena.challenger == court.fleet.challenger == "new"
    assert court.fleet.shadow_bp == 5000
    assert court.fleet.shadows == ("new",)
    assert {arm.arm: arm.adapter for arm in court.fleet.arms} == {"old": None, "new": "sha256:new"}
    assert court.fleet.experiment == arena.arena
    assert court.fleet.arenas == (arena.arena,)


def test_a_better_challenger_is_promoted_on_evidence() -> None:
    """Twenty points better: promoted once, every condition met, the old champion kept to return to."""
    court = Court()
    court.pairs(900, 0.6, 0.8)
    (promoted,) = court.of(ModelPromoted)
    last = [look for look in court.of(PromotionEvaluated) if look.decision == "promote"]
    assert len(last) == 1
    assert all(last[0].conditions.values())
    assert (court.fleet.champion, court.fleet.challenger, court.fleet.rollback) == ("new", None, "old")
    assert promoted.pairs >= 100
    assert promoted.evaluation in court.folding.ids


def test_a_harmful_challenger_is_rejected() -> None:
    """Fifteen points worse: rejected as harmful, and the fleet lets it go."""
    court = Court()
    court.pairs(900, 0.8, 0.65)
    (rejected,) = court.of(PromotionRejected)
    assert rejected.reason == "harmful: worse in quality"
    assert court.fleet.challenger is None
    assert [arm.arm for arm in court.fleet.arms] == ["old"]


def test_a_failing_challenger_is_never_promoted() -> None:
    """One answer in eight missing: however good the others are, it is rejected for its errors."""
    court = Court()
    for index in range(1500):
        new = court.graded(3, index, "new", 0.95)
        court.pair(index, court.graded(3, index, "old", 0.5), None if index % 8 == 0 else new)
        if index % 50 == 49:
            court.tick(T + 1000 + index * GAP_MS)
    assert court.of(ModelPromoted) == []
    assert court.of(PromotionRejected)[0].reason.startswith("harmful: worse in")


def test_no_evidence_in_time_is_inconclusive() -> None:
    """At the greatest number of pairs the arena ends as inconclusive."""
    court = Court(judge={"max_pairs": 200})
    court.pairs(220, 0.7, 0.7)
    assert [row.reason for row in court.of(PromotionRejected)] == ["inconclusive"]
    assert court.of(PromotionEvaluated)[-1].pairs == 200


def test_an_operator_approves() -> None:
    """With approval by an operator the judge asks once, and promotes on the command that evidence does not contradict."""
    court = Court(approval="operator")
    court.folding.take(CommandPromote(**SHARED, at_ms=T + 900, challenger="new"))
    assert court.of(ModelPromoted) == []
    assert "refused" in court.of(PromotionEvaluated)[-1].reason
    court.pairs(900, 0.6, 0.8)
    assert len(court.of(PromotionApprovalRequested)) == 1
    court.folding.take(CommandPromote(**SHARED, at_ms=T + 200_000, challenger="new"))
    (promoted,) = court.of(ModelPromoted)
    assert promoted.approved_by == "ann"


def test_an_approval_comes_too_late_for_harm() -> None:
    """What was asked for while all held is out when failures have come since: the command finds nothing to promote."""
    court = Court(approval="operator", judge={"max_pairs": 5000})
    court.pairs(600, 0.6, 0.8)
    assert len(court.of(PromotionApprovalRequested)) == 1
    for index in range(700, 740):
        court.pair(index, 1000, None)
    court.tick(T + 80_000)
    court.folding.take(CommandPromote(**SHARED, at_ms=T + 80_500, challenger="new"))
    assert court.of(ModelPromoted) == []
    assert court.of(PromotionRejected)[-1].reason.startswith("harmful")


def test_an_operator_rejects_pauses_and_resumes() -> None:
    """Reject ends the arena, pause and resume show in the fleet, a rollback without an arm to return to is refused."""
    court = Court()
    court.folding.take(CommandReject(**SHARED, at_ms=T + 2000, challenger="new"))
    assert court.of(PromotionRejected)[-1].reason == "rejected by ann"
    court.folding.take(CommandPause(**SHARED, at_ms=T + 3000))
    assert court.fleet.paused
    court.folding.take(CommandResume(**SHARED, at_ms=T + 4000))
    assert not court.fleet.paused
    court.folding.take(CommandRollback(**SHARED, at_ms=T + 5000))
    assert "refused" in court.fleet.reason
    assert court.of(ModelRolledBack) == []


def test_the_next_waits_for_arena_and_cooldown() -> None:
    """Where one arena is open at a time a second adapter waits in line, then until the cooldown's end, which a tick brings."""
    court = Court(judge={"at_once": 1})
    court.folding.take(registered("next", 20))
    assert len(court.of(PromotionOpened)) == 1
    court.folding.take(CommandReject(**SHARED, at_ms=T + 2000, challenger="new"))
    assert len(court.of(PromotionOpened)) == 1
    court.tick(T + 61_999)
    assert len(court.of(PromotionOpened)) == 1
    court.tick(T + 62_000)
    assert court.of(PromotionOpened)[-1].challenger == "next"


def test_a_waiting_arm_that_became_champion_leaves_the_line() -> None:
    """It waits behind an open arena, the operator makes it champion: after the cooldown no arena of it against itself opens."""
    arms = (Arm(arm="old", base="b"), Arm(arm="other", base="c"))
    court = Court(arms=arms, judge={"at_once": 1})
    first = route(arms=arms, challengers=("other",), judge={"at_once": 1})
    court.folding.take(CommandApply(**SHARED, at_ms=T + 20, settings=first))
    assert [row.challenger for row in court.of(PromotionOpened)] == ["new"]
    then = first.model_copy(update={"champion": "other", "challengers": ()})
    court.folding.take(CommandApply(**SHARED, at_ms=T + 30, settings=then))
    assert [row.challenger for row in court.of(PromotionRejected)] == ["new"]
    court.tick(T + 100_000)
    assert [row.challenger for row in court.of(PromotionOpened)] == ["new"]
    assert (court.fleet.champion, court.fleet.challenger) == ("other", None)
    assert court.folding.cells["r"].due_ms is None


def test_several_challengers_are_judged_at_once() -> None:
    """Two arenas on the same requests: the better one is promoted, the other ends with its champion and waits for a new arena."""
    court = Court()
    court.folding.take(registered("third", 20))
    assert court.fleet.shadows == ("new", "third")
    assert len(court.fleet.arenas) == 2
    for index in range(600):
        old, new = court.graded(1, index, "old", 0.6), court.graded(1, index, "new", 0.8)
        arms = [court.arm("old", old), court.arm("new", new), court.arm("third", old)]
        court.folding.take(court.announced(index))
        court.folding.take(court.closed(index, arms))
        if index % 10 == 9:
            court.tick(T + 1000 + index * GAP_MS)
        if court.of(ModelPromoted):
            break
    (promoted,), (ended,) = court.of(ModelPromoted), court.of(PromotionRejected)
    assert (promoted.challenger, ended.challenger, ended.reason) == ("new", "third", "superseded: new was promoted")
    court.tick(court.now + 61_000)
    again = court.of(PromotionOpened)[-1]
    assert (again.champion, again.challenger, again.resumed) == ("new", "third", False)


def test_the_same_arena_resumes() -> None:
    """A rejected challenger that is registered again goes on with its evidence: a loser is not retried into luck."""
    court = Court(judge={"cooldown_s": 0})
    court.pairs(100, 0.7, 0.7)
    court.folding.take(CommandReject(**SHARED, at_ms=T + 20_000, challenger="new"))
    court.folding.take(registered(at=21_000))
    assert court.of(PromotionOpened)[-1].resumed
    court.pairs(10, 0.7, 0.7, start=300)
    assert court.of(PromotionEvaluated)[-1].pairs == 110


def test_other_numbers_are_another_arena() -> None:
    """Applying other numbers while an arena is open ends it: its evidence was for the numbers it was opened with."""
    court = Court()
    court.pairs(50, 0.6, 0.8)
    court.folding.take(CommandApply(**SHARED, at_ms=T + 10_000, settings=route(judge={"alpha": 0.01})))
    assert court.of(PromotionRejected)[-1].reason == "superseded by new settings"
    assert court.fleet.challenger is None


def test_the_engine_refuses_the_challenger() -> None:
    """An adapter that no engine will load is rejected with the engine's reason."""
    court = Court()
    told = {"route": "r", "instance": "i", "reason": "adapter.bin: digest"}
    court.folding.take(AdapterRefused(at_ms=T + 50, arm="new", adapter="sha256:new", **told))
    assert "adapter.bin" in court.of(PromotionRejected)[-1].reason


def test_e_lond_spends_its_alpha_over_the_arenas() -> None:
    """With `fdr` the second arena of a route has α/6, and twice that after a promotion."""
    court = Court(judge={"fdr": True, "cooldown_s": 0})
    court.folding.take(CommandReject(**SHARED, at_ms=T + 2000, challenger="new"))
    court.folding.take(registered("next", 3000))
    levels = [row.settings["alpha"] for row in court.of(PromotionOpened)]
    assert levels == [0.05 / 2, 0.05 / 6]
