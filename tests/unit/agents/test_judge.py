"""The judge: promotions only by evidence, one arena at a time, and everything an operator may command."""

import hashlib
from typing import Any

from folding import Folding

from agents.judge.decide import add_pair, look, open_arena
from agents.judge.fold import Judge, preview
from schemas.events import (
    AdapterRefused,
    AdapterRegistered,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandPause,
    CommandPromote,
    CommandReject,
    CommandResume,
    CommandRollback,
    Message,
    ModelPromoted,
    ModelRolledBack,
    PromotionApprovalRequested,
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
)
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, JudgeSettings, Route

T = 1_700_000_000_000
SHARED: dict[str, Any] = {"route": "r", "operator": "ann"}


def route(**changes: Any) -> Route:
    numbers = {
        "min_pairs": 100,
        "max_pairs": 2000,
        "min_time_s": 0,
        "cooldown_s": 60,
        "latency_slo_ms": 1000,
        "latency_margin": 0.05,
        "latency_harm": 0.1,
        "error_margin": 0.05,
        "error_harm": 0.1,
    }
    judge = JudgeSettings.model_validate(numbers | changes.pop("judge", {}))
    return Route(route="r", arms=(Arm(arm="old", base="b"),), champion="old", judge=judge, shadow_share=0.5, **changes)


def registered(arm: str = "new", at: int = 10) -> AdapterRegistered:
    return AdapterRegistered(
        route="r",
        at_ms=T + at,
        order_id="o",
        adapter=f"sha256:{arm}",
        base="b",
        dataset="d",
        cutoff_ms=T,
        metrics={},
        arm=arm,
    )


def coin(seed: int, index: int, what: str) -> float:
    """A uniform number in [0, 1) drawn from names."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{what}".encode()).digest()[:4], "big") / 2**32


def case(index: int, old: int, new: int | None, **changes: Any) -> CaseClosed:
    arms = [
        CaseArm(arm="old", shadow=False, status="completed", text=f"o{index}", grade=old, latency_us=50_000),
        CaseArm(arm="new", shadow=True, status="completed", text=f"n{index}", grade=new, latency_us=60_000)
        if new is not None
        else CaseArm(arm="new", shadow=True, status="failed"),
    ]
    at = T + 1000 + index * 100
    return CaseClosed.model_validate(
        {
            "route": "r",
            "request_id": f"q{index}",
            "request_partition": 0,
            "request_offset": index,
            "decision_id": f"d{index}",
            "assigned_at_ms": at,
            "window_end_ms": at + 1000,
            "at_ms": at + 500,
            "arm": "old",
            "why": "complete",
            "messages": (Message(role="user", content="x"),),
            "arms": arms,
            "choices": (),
            "grader": "reference",
            "verdict_kind": "reference",
        }
        | changes
    )


def opened(**changes: Any) -> Folding:
    folding = Folding(Judge())
    folding.take(CommandApply(**SHARED, at_ms=T, settings=route(**changes)))
    folding.take(registered())
    return folding


def pairs(folding: Folding, count: int, old: float, new: float, *, seed: int = 1, start: int = 0) -> None:
    for index in range(start, start + count):
        folding.take(case(index, 1000 * (coin(seed, index, "old") < old), 1000 * (coin(seed, index, "new") < new)))


def test_applying_publishes_route_and_fleet() -> None:
    """An applied route becomes policy.route and policy.fleet, versions from one."""
    folding = Folding(Judge())
    folding.take(CommandApply(**SHARED, at_ms=T, settings=route()))
    (applied,), (fleet,) = folding.of(PolicyRoute), folding.of(PolicyFleet)
    assert (applied.version, applied.author, fleet.version, fleet.champion) == (1, "ann", 1, "old")
    assert fleet.challenger is None
    assert fleet.shadow_bp == 0


def test_a_registered_adapter_opens_an_arena() -> None:
    """The fleet then names the challenger, loads it and orders shadows at the route's share."""
    folding = opened()
    (arena,) = folding.of(PromotionOpened)
    fleet = folding.of(PolicyFleet)[-1]
    assert arena.challenger == fleet.challenger == "new"
    assert fleet.shadow_bp == 5000
    assert {arm.arm: arm.adapter for arm in fleet.arms} == {"old": None, "new": "sha256:new"}
    assert fleet.experiment == arena.arena


def test_a_better_challenger_is_promoted_on_evidence() -> None:
    """Twenty points better: promoted once, every condition met, the old champion kept to return to."""
    folding = opened()
    pairs(folding, 900, 0.6, 0.8)
    (promoted,) = folding.of(ModelPromoted)
    last = [look for look in folding.of(PromotionEvaluated) if look.decision == "promote"]
    assert len(last) == 1
    assert all(last[0].conditions.values())
    fleet = folding.of(PolicyFleet)[-1]
    assert (fleet.champion, fleet.challenger, fleet.rollback) == ("new", None, "old")
    assert promoted.pairs >= 100
    assert promoted.evaluation in folding.ids


def test_equal_models_are_not_promoted() -> None:
    """Of 60 A/A arenas of 500 pairs, looked at every ten, at most five percent may cross (here: at most three)."""
    settings, champion = route(), Arm(arm="old", base="b")
    challenger = champion.model_copy(update={"arm": "new", "adapter": "sha256:new"})
    count = 0
    for seed in range(60):
        arena = open_arena(champion, challenger, settings, now_ms=T, fresh_after_ms=T)
        for index in range(500):
            old, new = (1000 * (coin(seed, index, arm) < 0.7) for arm in ("old", "new"))
            arms = [CaseArm(arm=a, shadow=s, status="completed", text=a, grade=g, latency_us=9) for a, s, g in
                    (("old", False, old), ("new", True, new))]  # fmt: skip
            arena = add_pair(arena, *arms, f"q{index}", sampled=False)
            if index % 10 == 9:
                arena, seen = look(arena, now_ms=T + 10_000, cooldown_until_ms=0, approval="automatic")
                if seen.decision == "promote":
                    count += 1
                    break
    assert count <= 3


def test_a_harmful_challenger_is_rejected() -> None:
    """Fifteen points worse: rejected as harmful, and the fleet lets it go."""
    folding = opened()
    pairs(folding, 900, 0.8, 0.65)
    (rejected,) = folding.of(PromotionRejected)
    assert rejected.reason == "harmful"
    fleet = folding.of(PolicyFleet)[-1]
    assert fleet.challenger is None
    assert [arm.arm for arm in fleet.arms] == ["old"]


def test_a_failing_challenger_is_never_promoted() -> None:
    """One answer in eight missing: whatever its grades otherwise, the error guardrail holds it."""
    folding = opened()
    for index in range(1500):
        old, new = 1000 * (coin(3, index, "old") < 0.5), 1000 * (coin(3, index, "new") < 0.95)
        folding.take(case(index, old, None if index % 8 == 0 else new))
    assert folding.of(ModelPromoted) == []


def test_no_evidence_in_time_is_inconclusive() -> None:
    """At the greatest number of pairs the arena ends as inconclusive."""
    folding = opened(judge={"max_pairs": 200})
    pairs(folding, 200, 0.7, 0.7)
    assert [row.reason for row in folding.of(PromotionRejected)] == ["inconclusive"]


def test_an_operator_approves() -> None:
    """With approval by an operator the judge asks once, and promotes on the command that evidence does not contradict."""
    folding = opened(approval="operator")
    folding.take(CommandPromote(**SHARED, at_ms=T + 2000, challenger="new"))
    assert folding.of(ModelPromoted) == []
    assert "refused" in folding.of(PromotionEvaluated)[-1].reason
    pairs(folding, 900, 0.6, 0.8)
    assert len(folding.of(PromotionApprovalRequested)) == 1
    folding.take(CommandPromote(**SHARED, at_ms=T + 200_000, challenger="new"))
    (promoted,) = folding.of(ModelPromoted)
    assert promoted.approved_by == "ann"


def test_an_operator_rejects_pauses_and_rolls_back() -> None:
    """Reject ends the arena, pause and resume show in the fleet, rollback returns to the former champion."""
    folding = opened()
    folding.take(CommandReject(**SHARED, at_ms=T + 2000, challenger="new"))
    assert folding.of(PromotionRejected)[-1].reason == "rejected by ann"
    folding.take(CommandPause(**SHARED, at_ms=T + 3000))
    assert folding.of(PolicyFleet)[-1].paused
    folding.take(CommandResume(**SHARED, at_ms=T + 4000))
    assert not folding.of(PolicyFleet)[-1].paused
    folding.take(CommandRollback(**SHARED, at_ms=T + 5000))
    assert "refused" in folding.of(PolicyFleet)[-1].reason
    assert folding.of(ModelRolledBack) == []

    folding = opened()
    pairs(folding, 900, 0.6, 0.8)
    folding.take(CommandRollback(**SHARED, at_ms=T + 300_000, reason="complaints"))
    (back,) = folding.of(ModelRolledBack)
    assert (back.champion, back.challenger, back.by) == ("old", "new", "ann")
    assert folding.of(PolicyFleet)[-1].champion == "old"


def test_the_next_waits_for_arena_and_cooldown() -> None:
    """A second adapter waits in line while an arena is open, then until the cooldown's end, which a tick brings."""
    folding = opened()
    folding.take(registered("next", 20))
    assert len(folding.of(PromotionOpened)) == 1
    folding.take(CommandReject(**SHARED, at_ms=T + 2000, challenger="new"))
    assert len(folding.of(PromotionOpened)) == 1
    folding.tick(T + 61_999)
    assert len(folding.of(PromotionOpened)) == 1
    folding.tick(T + 62_000)
    assert folding.of(PromotionOpened)[-1].challenger == "next"


def test_the_same_arena_resumes() -> None:
    """A rejected challenger that is registered again goes on with its evidence: a loser is not retried into luck."""
    folding = opened(judge={"cooldown_s": 0})
    pairs(folding, 100, 0.7, 0.7)
    folding.take(CommandReject(**SHARED, at_ms=T + 20_000, challenger="new"))
    folding.take(registered(at=21_000))
    assert folding.of(PromotionOpened)[-1].resumed
    pairs(folding, 10, 0.7, 0.7, start=300)
    assert folding.of(PromotionEvaluated)[-1].pairs == 110


def test_other_numbers_are_another_arena() -> None:
    """Applying other numbers while an arena is open ends it: its evidence was for the numbers it was opened with."""
    folding = opened()
    pairs(folding, 50, 0.6, 0.8)
    folding.take(CommandApply(**SHARED, at_ms=T + 10_000, settings=route(judge={"alpha": 0.01})))
    assert folding.of(PromotionRejected)[-1].reason == "superseded by new settings"
    assert folding.of(PolicyFleet)[-1].challenger is None


def test_the_engine_refuses_the_challenger() -> None:
    """An adapter that no engine will load is rejected with the engine's reason."""
    folding = opened()
    folding.take(
        AdapterRefused(
            route="r", at_ms=T + 50, arm="new", adapter="sha256:new", instance="i", reason="adapter.bin: digest"
        )
    )
    assert "adapter.bin" in folding.of(PromotionRejected)[-1].reason


def test_old_and_repeated_cases_change_nothing() -> None:
    """A case assigned before the arena opened is no pair; the last case again adds none."""
    folding = opened()
    folding.take(case(0, 0, 1000, assigned_at_ms=T))
    pairs(folding, 10, 0.6, 0.8)
    folding.take(case(9, 0, 1000))
    pairs(folding, 10, 0.6, 0.8, start=10)
    assert [look.pairs for look in folding.of(PromotionEvaluated)] == [10, 20]


def test_preview_is_the_next_look_and_replay_is_equal() -> None:
    """The preview says what the judge would say, changes nothing; the same events give the same emits again."""
    folding = opened()
    pairs(folding, 80, 0.6, 0.8)
    cell = folding.cells["r"]
    before = [entry.model_dump_json() for entry in cell.entries.values()]
    seen = preview(cell.record, list(cell.entries.values()), T + 1_000_000)  # type: ignore[arg-type]
    assert seen is not None
    assert [row.log_e for row in seen.processes] == [row.log_e for row in folding.of(PromotionEvaluated)[-1].processes]
    assert [entry.model_dump_json() for entry in cell.entries.values()] == before
    again = opened()
    pairs(again, 80, 0.6, 0.8)
    assert [p.model_dump_json() for p in again.emitted] == [p.model_dump_json() for p in folding.emitted]
