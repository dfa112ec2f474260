"""A judge at work without a broker: cases announced and closed at times of their own, ticks in between."""

import hashlib
from typing import Any

from folding import Folding

from agents.judge.fold import Judge
from schemas.events import AdapterLive, AdapterRegistered, CaseAnswered, CaseArm, CaseClosed, CommandApply, Message
from schemas.policies import PolicyFleet
from schemas.routes import Arm, JudgeSettings, Route

T = 1_700_000_000_000
SHARED: dict[str, Any] = {"route": "r", "operator": "ann"}
GAP_MS = 100
WINDOW_MS = 1000


def coin(seed: int, index: int, what: str) -> float:
    """A uniform number in [0, 1) drawn from names."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{what}".encode()).digest()[:4], "big") / 2**32


def route(**changes: Any) -> Route:
    """A route whose judge needs little time: no novelty, one objective for latency, no stages unless asked."""
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
        "novelty_pairs": 0,
        "stages": (),
        "holdback_share": 0.0,
    }
    judge = JudgeSettings.model_validate(numbers | changes.pop("judge", {}))
    arms = changes.pop("arms", (Arm(arm="old", base="b"),))
    return Route(route="r", compliance="off", arms=arms, champion="old", judge=judge, shadow_share=0.5, **changes)


def registered(arm: str = "new", at: int = 10, cutoff: int = 0) -> AdapterRegistered:
    """The trainer's word of a new adapter."""
    return AdapterRegistered(
        route="r",
        at_ms=T + at,
        order_id="o",
        adapter=f"sha256:{arm}",
        base="b",
        dataset="d",
        cutoff_ms=T + cutoff,
        metrics={},
        arm=arm,
    )


class Court:
    """A folded judge, opened with a route and, unless `alone`, one registered challenger `new`."""

    def __init__(self, *, alone: bool = False, judge_fold: Judge | None = None, **changes: Any) -> None:
        self.folding = Folding(judge_fold or Judge())
        self.now = T
        self.folding.take(CommandApply(**SHARED, at_ms=T, settings=route(**changes)))
        self.live("old", None)
        if not alone:
            self.folding.take(registered())

    def live(self, arm: str, adapter: str | None) -> None:
        """An engine proves an arm live."""
        fact = AdapterLive(route="r", at_ms=self.now + 1, arm=arm, adapter=adapter, instance="i", load_ms=1.0)
        self.folding.take(fact)

    @property
    def fleet(self) -> PolicyFleet:
        """The fleet now."""
        return self.folding.of(PolicyFleet)[-1]

    def of(self, kind: Any) -> list[Any]:
        """Every emitted payload of that class."""
        return self.folding.of(kind)

    def arm(self, name: str, grade: int | None, **more: Any) -> CaseArm:
        """One arm's part; grade None and no `status`: it failed."""
        adapter = next((arm.adapter for arm in self.fleet.arms if arm.arm == name), None)
        if grade is None and "status" not in more:
            return CaseArm(arm=name, adapter=adapter, shadow=False, status="failed")
        fields = {"arm": name, "adapter": adapter, "shadow": False, "status": "completed", "text": name, "grade": grade}
        return CaseArm.model_validate(fields | {"latency_us": 50_000} | more)

    def common(self, index: int, **more: Any) -> dict[str, Any]:
        """What both of a case's events say."""
        at = T + 1000 + index * GAP_MS
        return {
            "route": "r",
            "request_id": f"q{index:06d}",
            "request_partition": 0,
            "request_offset": index,
            "decision_id": f"d{index}",
            "assigned_at_ms": at,
            "window_end_ms": at + WINDOW_MS,
            "at_ms": at + 200,
            "arm": "old",
            "arenas": self.fleet.arenas,
        } | more

    def announced(self, index: int, **more: Any) -> CaseAnswered:
        """The announcement of pair `index`."""
        fields = self.common(index, **more) | {"ok": True, "latency_us": 50_000, "released": True}
        return CaseAnswered.model_validate({"shadows": self.fleet.shadows} | fields | more)

    def closed(self, index: int, arms: list[CaseArm], **more: Any) -> CaseClosed:
        """The closed case of pair `index`."""
        fields = self.common(index, at_ms=T + 1000 + index * GAP_MS + 500) | {
            "why": "complete",
            "messages": (Message(role="user", content="x"),),
            "arms": arms,
            "choices": (),
            "grader": "reference",
            "verdict_kind": "reference",
        }
        return CaseClosed.model_validate(fields | more)

    def pair(self, index: int, old: int | None, new: int | None, **more: Any) -> None:
        """One pair, announced and closed at once."""
        shared = {name: more.pop(name) for name in ("arenas", "subject", "assigned_at_ms", "arm") if name in more}
        closed = self.closed(index, [self.arm("old", old), self.arm("new", new)], **shared, **more)
        self.folding.take(self.announced(index, **shared))
        self.folding.take(closed)

    def pairs(self, count: int, old: float, new: float, *, seed: int = 1, start: int = 0, every: int = 10) -> None:
        """Pairs graded by coins of these chances, a tick after every few, and one when their windows are over."""
        for index in range(start, start + count):
            self.pair(index, self.graded(seed, index, "old", old), self.graded(seed, index, "new", new))
            if index % every == every - 1:
                self.tick(T + 1000 + index * GAP_MS)
        self.tick(T + 1000 + (start + count) * GAP_MS + WINDOW_MS)

    def graded(self, seed: int, index: int, arm: str, chance: float) -> int:
        """1000 with that chance, else 0."""
        return 1000 * (coin(seed, index, arm) < chance)

    def tick(self, at_ms: int) -> None:
        """Event time has come to `at_ms`."""
        self.now = max(self.now, at_ms)
        self.folding.tick(at_ms)
