"""Routes and cases for the estimator's tests."""

from typing import Any

from folding import Folding

from agents.router.capacity import BUCKET_MS
from agents.router.estimator import Estimator
from schemas import ids
from schemas.events import CaseAnswered, CaseArm, CaseClosed, CommandApply, Message
from schemas.policies import CapacityArm, PolicyCapacity
from schemas.routes import Arm, Route

T = 1_700_000_000_000


def route(**changes: Any) -> Route:
    arms = (
        Arm(arm="a", base="sha256:0"),
        Arm(arm="b", base="sha256:0", adapter="sha256:9"),
        Arm(arm="far", provider="openai_http", model="m"),
    )
    return Route.model_validate({"route": "bank", "arms": arms, "champion": "a"} | changes)


def apply(**changes: Any) -> CommandApply:
    return CommandApply(at_ms=T, route="bank", operator="op", settings=route(**changes))


def common(at_ms: int, arm: str, number: int | str) -> dict[str, Any]:
    return {
        "at_ms": at_ms + 500, "route": "bank", "request_id": f"r{number}", "request_partition": 0, "request_offset": 1,
        "decision_id": "d", "assigned_at_ms": at_ms, "window_end_ms": at_ms + 60_000, "arm": arm,
    }  # fmt: skip


def answered(at_ms: int, arm: str = "a", latency_ms: int = 100, number: int | str = 0, **more: Any) -> CaseAnswered:
    fields = {"ok": True, "latency_us": 1000 * latency_ms, "tokens_out": 20, "released": True} | more
    return CaseAnswered.model_validate(common(at_ms, arm, number) | fields)


def row(arm: str = "a", latency_ms: int = 100, *, shadow: bool = False, **more: Any) -> CaseArm:
    fields = {"status": "completed", "latency_us": 1000 * latency_ms, "tokens_in": 100, "tokens_out": 20} | more
    return CaseArm.model_validate({"arm": arm, "shadow": shadow} | fields)


def closed(at_ms: int, *rows: CaseArm, arm: str = "a", number: int | str = 0, **more: Any) -> CaseClosed:
    fields = {
        "why": "complete", "messages": (Message(role="user", content="x"),), "arms": rows or (row(arm),), "choices": (),
        "grader": "verdict",
    }  # fmt: skip
    return CaseClosed.model_validate(common(at_ms, arm, number) | fields | more)


class Estimated(Folding):
    """The estimator of one route; every state survives a JSON round trip."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(Estimator())
        self.now_ms = T
        self.take(apply(**changes))

    @property
    def policy(self) -> PolicyCapacity:
        found: PolicyCapacity = self.of(PolicyCapacity)[-1]
        return found

    def arm(self, name: str) -> CapacityArm:
        return next(arm for arm in self.policy.arms if arm.arm == name)

    def bucket(self, calls: int, arm: str = "a", latency_ms: int = 100, **more: Any) -> None:
        """Ten seconds with so many calls, evenly spread; then time reaches the next ten."""
        for number in range(calls):
            at_ms = self.now_ms + number * BUCKET_MS // calls
            self.take(answered(at_ms, arm, latency_ms, f"{self.now_ms}-{arm}-{number}", **more))
        self.idle()

    def idle(self, buckets: int = 1) -> None:
        """Time goes on, ticks included."""
        for _ in range(buckets):
            self.now_ms += BUCKET_MS
            self.tick(self.now_ms)


def pick(seed: str, most: int) -> int:
    """A number below `most`, the same for the same seed."""
    return ids.coin(seed, "pick") * most // 65_536
