"""An arena's history as the real judge writes it: a route, an adapter, pairs drawn from names, ticks."""

import hashlib
from typing import Any

from folding import Folding

from agents.judge.fold import Judge
from schemas import codec, ids
from schemas.events import (
    AdapterLive,
    AdapterRegistered,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    CommandApply,
    Message,
    PromotionOpened,
)
from schemas.payload import Payload
from schemas.routes import Arm, JudgeSettings, Route
from streams.shapes import Record
from tools.cli.events import as_row

T = 1_700_000_000_000
STEP_MS = 2_000
WINDOW_MS = 10_000
NUMBERS: dict[str, Any] = {
    "min_pairs": 100, "max_pairs": 2000, "min_time_s": 0, "cooldown_s": 60, "latency_slo_ms": 1000, "novelty_pairs": 0,
    "latency_margin": 0.05, "latency_harm": 0.1, "error_margin": 0.05, "error_harm": 0.1, "stage_time_s": 60,
    "holdback_time_s": 3600, "holdback_share": 0.05, "breaker_quality": 0.5,
}  # fmt: skip


def coin(seed: int, index: int, what: str) -> float:
    """A uniform number in [0, 1) drawn from names."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{what}".encode()).digest()[:4], "big") / 2**32


class History:
    """A judge with an open arena `new` against `old` on route `r`. `rows` is what `ratchet.promotions` would hold, read back."""

    def __init__(self, judge: dict[str, Any] | None = None, **changes: Any) -> None:
        settings = JudgeSettings.model_validate(NUMBERS | (judge or {}))
        self.route = Route(
            route="r",
            compliance="off",
            arms=(Arm(arm="old", base="b"),),
            champion="old",
            judge=settings,
            shadow_share=0.5,
            grader="reference",
            **changes,
        )
        self.folding = Folding(Judge())
        self.index = 0
        self.now = T
        self.written: list[tuple[int, Payload]] = []
        self.say(CommandApply(route="r", at_ms=T, operator="ann", settings=self.route))
        self.register("new")

    @property
    def arena(self) -> str:
        """The key of the newest arena."""
        return self.folding.of(PromotionOpened)[-1].arena

    @property
    def state(self) -> tuple[Any, list[Any]]:
        """The judge's record and entries, as `ratchet preview` reads them."""
        cell = self.folding.cells["r"]
        return cell.record, list(cell.entries.values())

    def say(self, payload: Payload) -> None:
        """One event, now."""
        self._keep(self.folding.take(payload))

    def tick(self, at_ms: int) -> None:
        """Time passes."""
        self.now = max(self.now, at_ms)
        self._keep(self.folding.tick(at_ms))

    def register(self, arm: str) -> None:
        """An adapter comes."""
        adapter = f"sha256:{arm}"
        at = self.now + 10
        self.say(
            AdapterRegistered(
                route="r", at_ms=at, order_id="o", adapter=adapter, base="b", dataset="d", cutoff_ms=T, metrics={}, arm=arm
            )
        )  # fmt: skip

    def live(self, arm: str, adapter: str | None) -> None:
        """An engine has proven the arm live."""
        self.say(
            AdapterLive(
                route="r", at_ms=self.now, order_id="", adapter=adapter, arm=arm, instance="e", base="b", load_ms=1.0
            )
        )  # fmt: skip

    def pairs(self, count: int, old: float, new: float, *, seed: int = 1, failing: float = 0.0) -> None:
        """So many requests that both arms answer, right with these probabilities; each is folded once its window is over."""
        for _ in range(count):
            self.index += 1
            self.now += STEP_MS
            self.say(self._answered())
            self.say(self._closed(seed, old, new, failing))
            self.tick(self.now)
        self.tick(self.now + WINDOW_MS)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every promotion event as the command line reads it."""
        found: list[dict[str, Any]] = []
        for offset, (at, payload) in enumerate(row for row in self.written if row[1].TOPIC == "promotions"):
            event_id = ids.derive(f"history-{offset}", "test", 0)
            trace = ids.trace_parent(None, event_id)
            row = codec.encode(payload, event_id=event_id, source="ratchet/judge", traceparent=trace)
            found.append(as_row(Record("ratchet.promotions", 0, offset, row.key, row.value, row.headers, at)))
        return found

    def _keep(self, payloads: list[Payload]) -> None:
        self.written += [(self.now, payload) for payload in payloads]

    def _shared(self) -> dict[str, Any]:
        bench = self.folding.cells["r"].record
        return {
            "route": "r", "request_id": f"q{self.index:06d}", "request_partition": 0, "request_offset": self.index,
            "decision_id": f"d{self.index}", "assigned_at_ms": self.now, "window_end_ms": self.now + WINDOW_MS,
            "arenas": (*bench.open, *((bench.watch,) if bench.watch else ())), "arm": bench.champion,
        }  # fmt: skip

    def _answered(self) -> CaseAnswered:
        said: dict[str, Any] = {"ok": True, "latency_us": 50_000, "released": True, "shadows": ("new",)}
        return CaseAnswered(**self._shared(), **said, at_ms=self.now)

    def _closed(self, seed: int, old: float, new: float, failing: float) -> CaseClosed:
        arms = [self._arm(seed, "old", None, old, 0.0), self._arm(seed, "new", "sha256:new", new, failing)]
        return CaseClosed(
            **self._shared(),
            at_ms=self.now + 500,
            why="complete",
            messages=(Message(role="user", content="x"),),
            arms=tuple(arms),
            choices=(),
            grader="reference",
            verdict_kind="reference",
        )

    def _arm(self, seed: int, arm: str, adapter: str | None, right: float, failing: float) -> CaseArm:
        shadow = arm != self.folding.cells["r"].record.champion
        if coin(seed, self.index, arm + "/fails") < failing:
            return CaseArm(arm=arm, adapter=adapter, shadow=shadow, status="failed")
        slow = int(60_000 * (1 + coin(seed, self.index, "request") + coin(seed, self.index, arm + "/time")))
        grade = 1000 * (coin(seed, self.index, arm) < right)
        text = f"{arm}{self.index}"
        return CaseArm(
            arm=arm, adapter=adapter, shadow=shadow, status="completed", text=text, grade=grade, latency_us=slow, tokens_in=9,
            tokens_out=9,
        )  # fmt: skip
