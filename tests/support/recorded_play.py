"""What happens on the route of a recording: requests of every kind, challengers good, bad and failing, people who command.

Deterministic, from SplitMix (`drawn`). The cases name the arenas and arms of the fleet that the judge had published by then, so the
recording is made with a judge beside it; whoever takes it later has the file alone.
"""

import heapq
from pathlib import Path
from typing import Any

from court import SHARED, T, registered
from drawn import uniforms
from recorded_cases import Judging, Writer

from schemas.events import (
    AdapterLive,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandPause,
    CommandReject,
    CommandResume,
    CommandRollback,
    Message,
)
from schemas.payload import Payload
from schemas.policies import PolicyFleet
from schemas.routes import Arm, JudgeSettings, Route

ROUTE = "r"
GAP_MS = 2600
WINDOW_MS = 60_000
BLOCK = (500, 4000)
CHANCES = {"old": 0.6, "even": 0.6, "good": 0.74, "bad": 0.5, "flaky": 0.74, "cheap": 0.6, "best": 0.86, "late": 0.8}
ROT_AFTER, ROTTEN = 18_000, 0.35  # the share right of `good` from that case on
FAILS = {"flaky": 0.12}
TOKENS = {"cheap": 20, "best": 30}
JUDGE = JudgeSettings(
    min_time_s=3600, cooldown_s=3600, stages=(0.2, 0.5), stage_time_s=1800, holdback_share=0.3, max_pairs=12_000
)


def settings(**judge: Any) -> Route:
    """The route, with other numbers of the judge where given."""
    old = Arm(arm="old", base="b", nano_usd_in=10, nano_usd_out=40)
    return Route(
        route=ROUTE,
        compliance="off",
        arms=(old,),
        champion="old",
        shadow_share=0.9,
        judge=JUDGE.model_copy(update=judge),
        grader="verdict",
    )


def script(at_ms: int) -> dict[int, list[Payload]]:
    """What people and the trainer say before the block that begins at a case or behind it."""

    def when(case: int) -> int:
        return at_ms + case * GAP_MS

    def adapter(case: int, *arms: str) -> list[Payload]:
        return [registered(arm, at=when(case) - T, cutoff=when(case) - T) for arm in arms]

    command = {name: when(case) for name, case in (("pause", 70_000), ("reject", 51_000), ("back", 84_000))}
    return {
        1_000: adapter(1_000, "even", "good"),
        36_000: adapter(36_000, "bad", "flaky"),
        48_000: adapter(48_000, "cheap", "late"),
        51_000: [CommandReject(**SHARED, at_ms=command["reject"], challenger="cheap")],
        70_000: [CommandPause(**SHARED, at_ms=command["pause"]), CommandResume(**SHARED, at_ms=command["pause"] + 1)],
        72_000: adapter(72_000, "best"),
        84_000: [CommandRollback(**SHARED, at_ms=command["back"], reason="complaints")],
        90_000: [CommandApply(**SHARED, at_ms=when(90_000), settings=settings(alpha=0.04))],
        91_000: adapter(91_000, "even", "cheap"),
    }


class Play:
    """Plays so many cases into a recording."""

    def __init__(self, file: Path, count: int) -> None:
        self.writer, self.judging, self.count = Writer(file, ROUTE), Judging(), count
        self._draw = uniforms(5).__next__
        self._soon: list[tuple[int, int, Payload, str]] = []
        self._begins_ms = self._now_ms = T + 60_000
        self._script = script(self._begins_ms)
        self._numbers = 0
        self._proven: set[str] = set()
        self.fleet: PolicyFleet

    def play(self) -> dict[str, Any]:
        """All of it; what the judge beside it has said."""
        self._say([CommandApply(**SHARED, at_ms=T, settings=settings())])
        case = 0
        while case < self.count:
            due = sorted(at for at in self._script if at <= case)
            self._say([payload for at in due for payload in self._script.pop(at)])
            low, high = BLOCK
            until = min(self.count, case + low + int(self._draw() * (high - low)))
            for number in range(case, until):
                self._now_ms = self._begins_ms + number * GAP_MS
                self._out(self._now_ms)
                self._case(number)
            case = until
            self._tick(self._now_ms)
        self._out(self._now_ms + 10_000 * WINDOW_MS)
        self._tick(self._now_ms + 10 * WINDOW_MS)
        self.writer.close()
        return self.judging.end()

    # the writing

    def _say(self, payloads: list[Payload]) -> None:
        """Words beside the cases, each behind a barrier: between topics no log orders anything."""
        for payload in payloads:
            self.writer.barrier()
            self._take(payload, f"said-{self._number()}")
        if payloads:
            self._look()

    def _look(self) -> None:
        """The fleet of now: each block's cases are of the one that stood before it. Its new arms are proven live."""
        self.judging.cut()
        self.fleet = PolicyFleet.model_validate_json(self.judging.heard.last["ratchet.policy.fleet.v1"])
        new = [arm for arm in self.fleet.arms if arm.arm not in self._proven]
        self._proven |= {arm.arm for arm in new}
        told = {"route": ROUTE, "at_ms": self._now_ms, "instance": "i", "load_ms": 1.0}
        self._say([AdapterLive(arm=arm.arm, adapter=arm.adapter, **told) for arm in new])
        self.writer.barrier()

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _take(self, payload: Payload, event_id: str) -> None:
        self.judging.take(self.writer.record(payload, event_id))

    def _tick(self, at_ms: int) -> None:
        if self.judging.due(at_ms):
            self.judging.take(self.writer.tick(at_ms))
            self._look()

    def _later(self, at_ms: int, payload: Payload, event_id: str) -> None:
        heapq.heappush(self._soon, (at_ms, self._number(), payload, event_id))

    def _out(self, at_ms: int) -> None:
        while self._soon and self._soon[0][0] <= at_ms:
            _, _, payload, event_id = heapq.heappop(self._soon)
            self._take(payload, event_id)

    # the cases

    def _case(self, number: int) -> None:
        """One request: who answers, what came of it, when that is told."""
        draw, fleet, at = self._draw, self.fleet, self._now_ms
        served = fleet.champion
        if fleet.challenger and draw() * 10_000 < fleet.rollout_bp:
            served = fleet.challenger
        shadows: tuple[str, ...] = ()
        if fleet.shadows and draw() * 10_000 < fleet.shadow_bp:
            shadows = tuple(arm for arm in (fleet.champion, *fleet.shadows) if arm != served)
        rows = self._rows(number, served, shadows)
        told = {
            "route": ROUTE,
            "request_id": f"q{number:06d}",
            "request_partition": 0,
            "request_offset": number,
            "decision_id": f"d{number}",
            "assigned_at_ms": at,
            "window_end_ms": at + WINDOW_MS,
            "arm": served,
            "arenas": fleet.arenas,
            "subject": f"s{int(draw() * 20_000)}" if draw() < 0.3 else None,
        }
        row = rows[0]
        said_ms = at + int(draw() * 5000) if draw() < 0.999 else at + 4000 * GAP_MS  # one in a thousand too late
        answered = CaseAnswered(
            **told,
            at_ms=said_ms,
            ok=row.status == "completed",
            latency_us=row.latency_us,
            released=True,
            shadows=shadows,
        )
        closed = CaseClosed(
            **told,
            at_ms=min(said_ms + int(draw() ** 3 * 50_000), max(said_ms, at + WINDOW_MS)),
            why="complete",
            messages=(Message(role="user", content="x"),),
            arms=tuple(rows),
            choices=(),
            grader="verdict",
            sampled=draw() < 0.9,
            verdict_kind="person",
        )
        for payload, name in ((answered, f"a{number}"), (closed, f"c{number}")):
            self._later(payload.at_ms, payload, name)
            if draw() < 0.002:
                self._later(payload.at_ms + 1000, payload, name)  # told again

    def _rows(self, number: int, served: str, shadows: tuple[str, ...]) -> list[CaseArm]:
        adapters = {arm.arm: arm.adapter for arm in self.fleet.arms}
        kind, same, hard = self._draw(), self._draw() < 0.2, self._draw()
        rows: list[CaseArm] = []
        for name in (served, *shadows):
            row: dict[str, Any] = {"arm": name, "adapter": adapters[name], "shadow": name != served}
            fail, luck, time = self._draw(), self._draw(), self._draw()
            if fail < FAILS.get(name, 0.002):
                rows.append(CaseArm(**row, status="failed", latency_us=int(9e6 * time)))
                continue
            chance = ROTTEN if name == "good" and number > ROT_AFTER else CHANCES[name]
            grade = 1000 * (0.5 * hard + 0.5 * luck < chance)
            if kind < 0.05:
                grade = None  # nobody said anything
            elif kind < 0.3:
                grade = int(1000 * (0.6 * chance + 0.4 * luck))
            if same and rows and rows[0].status == "completed" and name != "good":
                grade = rows[0].grade
            row |= {"text": "same" if same else name, "grade": grade, "tokens_in": 100 + int(hard * 50)}
            speed = 40_000 + int(60_000 * time * time) + int(20_000 * hard)
            rows.append(CaseArm(**row, status="completed", latency_us=speed, tokens_out=TOKENS.get(name, 40)))
        return rows
