"""The judge's estimate of the gain: over every pair that was asked about, not over the graded ones alone."""

from agents.judge.decide import add_pair, look, open_arena
from schemas.events import CaseArm
from schemas.routes import Arm, JudgeSettings, Route


def arm(name: str, text: str, grade: int | None) -> CaseArm:
    return CaseArm(arm=name, shadow=name == "new", status="completed", text=text, grade=grade, latency_us=1000)


def test_equal_and_unjudged_pairs_dilute_the_gain() -> None:
    """One win among one tie and two pairs without a verdict is a gain of a quarter, for a pair counts 0 without a verdict."""
    judge = JudgeSettings(latency_slo_ms=100)
    route = Route(route="r", arms=(Arm(arm="old", base="b"), Arm(arm="new", base="b")), champion="old", judge=judge)
    arena = open_arena(*route.arms, route, now_ms=0, fresh_after_ms=0)
    rows = [("a", "b", 0, 1000), ("same", "Same", None, None), ("a", "b", None, None), ("a", "c", None, None)]
    for index, (old, new, before, after) in enumerate(rows):
        arena = add_pair(arena, arm("old", old, before), arm("new", new, after), f"q{index}", sampled=True)
    _, seen = look(arena, now_ms=1, cooldown_until_ms=0, approval="automatic")
    assert seen.processes[0].estimate == 0.25
    assert (arena.superiority.wins, arena.superiority.losses) == (1, 0)
    arena = add_pair(arena, arm("old", "a", None), arm("new", "b", None), "q9", sampled=False)
    _, seen = look(arena, now_ms=1, cooldown_until_ms=0, approval="automatic")
    assert seen.processes[0].estimate == 0.25, "a pair that nobody was asked about says nothing of quality"
