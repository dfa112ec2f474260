"""The judge's line of challengers: an arm that came to serve while it waited is judged against nobody."""

from typing import Any

from folding import Folding

from agents.judge.fold import Judge
from schemas.events import AdapterRegistered, CommandApply, PromotionOpened, PromotionRejected
from schemas.policies import PolicyFleet
from schemas.routes import Arm, JudgeSettings, Route

T = 1_700_000_000_000


def applied(at: int, champion: str, **changes: Any) -> CommandApply:
    arms = (Arm(arm="old", base="b"), Arm(arm="other", base="c"))
    judge = JudgeSettings(cooldown_s=60, latency_slo_ms=1000)
    settings = Route(route="r", arms=arms, champion=champion, judge=judge, **changes)
    return CommandApply(route="r", operator="ann", at_ms=T + at, settings=settings)


def test_a_waiting_arm_that_became_champion_leaves_the_line() -> None:
    """It waits behind an open arena, the operator makes it champion: after the cooldown no arena of it against itself opens."""
    folding = Folding(Judge())
    folding.take(applied(0, "old"))
    told: dict[str, Any] = {"route": "r", "order_id": "o", "base": "b", "dataset": "d", "cutoff_ms": T, "metrics": {}}
    folding.take(AdapterRegistered(at_ms=T + 10, arm="new", adapter="sha256:n", **told))
    folding.take(applied(20, "old", challengers=("other",)))
    assert [row.challenger for row in folding.of(PromotionOpened)] == ["new"]
    folding.take(applied(30, "other"))
    assert [row.challenger for row in folding.of(PromotionRejected)] == ["new"]
    folding.tick(T + 100_000)
    assert [row.challenger for row in folding.of(PromotionOpened)] == ["new"]
    fleet = folding.of(PolicyFleet)[-1]
    assert (fleet.champion, fleet.challenger) == ("other", None)
    assert folding.cells["r"].due_ms is None
