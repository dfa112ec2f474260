"""Any history of a route before a judge: what happened at random, and what must hold whatever happened."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from court import SHARED, T, coin, registered, route
from folding import Folding

from agents.judge.bench import ARENA, BREAKER, Bench, Entry
from agents.judge.decide import Look, looked_again
from agents.judge.fold import Judge, preview
from agents.judge.order import PAIR
from schemas.events import (
    AdapterLive,
    AdapterRefused,
    CaseAnswered,
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
    PromotionEvaluated,
    PromotionOpened,
    PromotionRejected,
    PromotionStaged,
)
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyRoute
from schemas.routes import Arm, Route
from streams.shapes import Change, Emit, Event, KeyState, Record, Tick
from streams.state import MemoryState

NAMES = ("a", "b", "c")
WINDOW_MS = 1000
QUICK: dict[str, Any] = {
    "alpha": 0.2,
    "min_pairs": 10,
    "max_pairs": 200,
    "cooldown_s": 5,
    "latency_margin": 0.4,
    "latency_harm": 0.5,
    "error_margin": 0.4,
    "error_harm": 0.5,
    "quality_margin": 0.4,
    "quality_harm": 0.5,
    "cost_margin": 0.9,
    "cost_harm": 0.95,
    "stages": (0.2, 0.5),
    "stage_time_s": 4,
    "holdback_share": 0.1,
    "holdback_time_s": 60,
    "holdback_pairs": 80,
    "breaker_window": 20,
    "evaluate_every": 5,
}
"""So that everything happens within a few dozen pairs."""


def variants() -> list[Route]:
    """Settings that an operator may apply one after the other."""
    two = (Arm(arm="old", base="b"), Arm(arm="spare", base="c"))
    plain = route(judge=QUICK, arms=two)
    return [
        plain,
        plain.model_copy(update={"approval": "operator"}),
        route(judge=QUICK | {"alpha": 0.1, "fdr": True}, arms=two),
        plain.model_copy(update={"champion": "spare"}),
        plain.model_copy(update={"challengers": ("spare",)}),
        route(judge=QUICK | {"stages": (), "at_once": 1}, arms=two[:1]),
        route(
            judge=QUICK | {"stages": (0.1,), "holdback_share": 0.0, "novelty_pairs": 5, "latency_slo_ms": None},
            arms=two,
        ),
    ]


class Taped:
    """A judge that keeps what it was given and what it answered."""

    name, inputs, record_type, entry_type, state_version = (
        Judge.name, Judge.inputs, Judge.record_type, Judge.entry_type, Judge.state_version,
    )  # fmt: skip

    def __init__(self) -> None:
        self.judge = Judge()
        self.tape: list[tuple[Event[Payload] | Tick, Change[Bench, Entry]]] = []

    def state_key(self, event: Event[Payload]) -> str | None:
        return self.judge.state_key(event)

    def fold(self, state: KeyState[Bench, Entry], event: Event[Payload] | Tick) -> Change[Bench, Entry]:
        change = self.judge.fold(state, event)
        self.tape.append((event, change))
        return change


class History:
    """One route; every step comes some time after the one before it."""

    def __init__(self) -> None:
        self.taped = Taped()
        self.folding = Folding(self.taped)
        self.now, self.index, self.seen = T, 0, 0
        self.rollout: dict[str, int] = {}
        self.open: dict[str, str] = {}
        self.apply(0)
        self.live("old")

    @property
    def bench(self) -> Bench:
        """The record now."""
        found = self.folding.cells["r"].record
        assert isinstance(found, Bench)
        return found

    @property
    def entries(self) -> dict[str, Entry]:
        """The entries now."""
        return self.folding.cells["r"].entries

    @property
    def fleet(self) -> PolicyFleet:
        """The last fleet."""
        return self.folding.of(PolicyFleet)[-1]

    # steps

    def _say(self, payload: Payload) -> None:
        self.now += 10
        self.folding.take(payload.model_copy(update={"at_ms": self.now}))

    def apply(self, variant: int) -> None:
        self._say(CommandApply(**SHARED, at_ms=0, settings=variants()[variant]))

    def register(self, name: str) -> None:
        self._say(registered(name, cutoff=self.now - T))

    def promote(self, name: str) -> None:
        self._say(CommandPromote(**SHARED, at_ms=0, challenger=name))

    def reject(self, name: str) -> None:
        self._say(CommandReject(**SHARED, at_ms=0, challenger=name))

    def rollback(self) -> None:
        self._say(CommandRollback(**SHARED, at_ms=0, reason="complaints"))

    def pause(self) -> None:
        self._say(CommandPause(**SHARED, at_ms=0))

    def resume(self) -> None:
        self._say(CommandResume(**SHARED, at_ms=0))

    def live(self, name: str) -> None:
        for arm in self.bench.arms:
            if arm.arm == name:
                told = {"route": "r", "at_ms": 0, "instance": "i", "load_ms": 1.0}
                self._say(AdapterLive(**told, arm=name, adapter=arm.adapter))

    def refuse(self, name: str) -> None:
        for arm in self.bench.arms:
            if arm.arm == name:
                told = {"route": "r", "at_ms": 0, "instance": "i", "reason": "no"}
                self._say(AdapterRefused(**told, arm=name, adapter=arm.adapter))

    def tick(self, after_ms: int) -> None:
        self.now += after_ms
        self.folding.tick(self.now)

    def pairs(self, count: int, seed: int, gain: float) -> None:
        """Requests that the champion serves and every shadow answers too; `gain`: how much more often a challenger is right."""
        for _ in range(count):
            self._request(seed, self.fleet.champion, self.fleet.shadows, 0.5, 0.5 + gain)
        self.tick(WINDOW_MS + 10)

    def carry(self, name: str, seed: int, stages: int) -> None:
        """A challenger comes that is right nearly always, and goes on through so many stages."""
        self.tick(6000)
        self.register(name)
        self.live(name)
        self.pairs(70, seed, 0.5)
        for _ in range(stages):
            self.tick(4000)

    def serve(self, count: int, seed: int, share: float) -> None:
        """Requests that the challenger on its way serves, or the champion, alone; `share` of its answers are right."""
        for _ in range(count):
            arm = self.fleet.challenger if self.fleet.rollout_bp else self.fleet.champion
            self._request(seed, arm or self.fleet.champion, (), share, share)

    def _request(self, seed: int, served: str, shadows: Sequence[str], old: float, new: float) -> None:
        self.index += 1
        self.now += 10
        adapters = {arm.arm: arm.adapter for arm in self.fleet.arms}
        rows = []
        for name in (served, *shadows):
            fate = coin(seed, self.index, f"{name}-fate")
            row: dict[str, Any] = {"arm": name, "adapter": adapters[name], "shadow": name != served}
            if fate < 0.04:
                rows.append(CaseArm(**row, status="failed"))
                continue
            chance = old if name == self.fleet.champion else new
            grade = None if fate < 0.08 else 1000 * (coin(seed, self.index, name) < chance)
            rows.append(
                CaseArm(**row, status="completed", text=name, grade=grade, latency_us=50_000 + int(fate * 9000))
            )
        shared = {
            "route": "r",
            "request_id": f"q{self.index:06d}",
            "request_partition": 0,
            "request_offset": self.index,
            "decision_id": f"d{self.index}",
            "assigned_at_ms": self.now,
            "window_end_ms": self.now + WINDOW_MS,
            "at_ms": self.now + 1,
            "arm": served,
            "arenas": self.fleet.arenas,
        }
        ok = rows[0].status == "completed"
        self.folding.take(
            CaseAnswered(**shared, ok=ok, latency_us=rows[0].latency_us, released=True, shadows=tuple(shadows))
        )
        self.folding.take(
            CaseClosed(
                **shared,
                why="complete",
                messages=(Message(role="user", content="x"),),
                arms=tuple(rows),
                choices=(),
                grader="verdict",
                sampled=True,
            )
        )

    # what must hold

    def check(self) -> None:
        """After any step."""
        self._check_bench()
        self._check_versions()
        for payload in self.folding.emitted[self.seen :]:
            self._check_said(payload)
        self.seen = len(self.folding.emitted)

    def _check_bench(self) -> None:
        bench, fleet = self.bench, self.fleet
        arms = {arm.arm for arm in bench.arms}
        arenas = {key: self.entries[ARENA + key].arena for key in bench.open}
        assert fleet.champion == bench.champion
        assert {bench.champion, *fleet.shadows, *(row.arm.arm for row in bench.queue if row.arm.adapter is None)} <= {
            *arms, *(row.arm.arm for row in bench.queue)
        }  # fmt: skip
        assert {fleet.champion, *fleet.shadows} <= {arm.arm for arm in fleet.arms}
        assert bench.champion not in fleet.shadows
        assert bench.rollback is None or (bench.rollback in arms and bench.rollback != bench.champion)
        assert len(set(bench.open)) == len(bench.open) <= 4
        for arena in arenas.values():
            assert arena is not None
            assert (arena.champion, arena.done, arena.holdback) == (bench.champion, "", False)
            assert arena.challenger in fleet.shadows
        staged = [arena for arena in arenas.values() if arena is not None and arena.stage]
        assert len(staged) <= 1
        assert (fleet.rollout_bp > 0) == bool(staged)
        watched = self.entries[ARENA + bench.watch].arena if bench.watch else None
        if watched is not None:
            assert watched.holdback
            assert (watched.champion, watched.challenger) == (bench.rollback, bench.champion)
        assert set(fleet.arenas) == {*bench.open, *((bench.watch,) if bench.watch else ())}
        watched = {row.breaker.arm for row in self.entries.values() if row.breaker is not None}
        assert watched <= {bench.champion, *(arena.challenger for arena in staged)}
        assert {BREAKER + arm for arm in watched} == {name for name in self.entries if name.startswith(BREAKER)}
        assert {arena.challenger for arena in staged} <= watched, "a challenger on its way is watched"
        assert bench.leaving is None or bench.rollback is not None

    def _check_versions(self) -> None:
        for kind in (PolicyFleet, PolicyRoute):
            rows = self.folding.of(kind)
            assert [row.version for row in rows] == list(range(1, len(rows) + 1))
        assert len(set(self.folding.ids)) == len(self.folding.ids)

    def _check_said(self, payload: Payload) -> None:
        match payload:
            case PromotionOpened():
                assert payload.arena not in self.open
                self.open[payload.arena] = payload.challenger
            case PromotionStaged():
                assert payload.arena in self.open
                assert payload.rollout_bp > self.rollout.get(payload.arena, 0)
                self.rollout[payload.arena] = payload.rollout_bp
            case ModelPromoted():
                assert self.open.pop(payload.arena) == payload.challenger
                assert payload.evaluation in self.folding.ids
                self.rollout.pop(payload.arena, None)
            case PromotionRejected() if payload.arena in self.open:
                del self.open[payload.arena]
                self.rollout.pop(payload.arena, None)
            case PromotionRejected():
                assert "promoted before" in payload.reason
            case PromotionEvaluated():
                self._check_evaluated(payload)
            case _:
                pass

    def _check_evaluated(self, said: PromotionEvaluated) -> None:
        again = looked_again(said.basis)
        assert told(again) == (said.processes, said.conditions, said.champion_grade, said.challenger_grade)
        if "approv" not in said.reason:
            assert (again.decision, again.reason) == (said.decision, said.reason)

    def previewed(self, now_ms: int) -> dict[str, Look]:
        """What the judge would say at that time, where no pair is waiting. It changes nothing."""
        if any(name.startswith(PAIR) for name in self.entries):
            return {}
        before = self.bench.model_dump_json(), {name: row.model_dump_json() for name, row in self.entries.items()}
        found = preview(self.bench, list(self.entries.values()), now_ms)
        assert before == (
            self.bench.model_dump_json(),
            {name: row.model_dump_json() for name, row in self.entries.items()},
        )
        return {arena.key: seen for arena, seen in found}

    def follows(self, previewed: dict[str, Look]) -> None:
        """The first look after a preview, where no pair came between, says what was previewed."""
        said = {
            row.arena: row for row in reversed(self.folding.emitted[self.seen :]) if isinstance(row, PromotionEvaluated)
        }
        for key in previewed.keys() & said.keys():
            row = said[key]
            assert told(previewed[key]) == (row.processes, row.conditions, row.champion_grade, row.challenger_grade)

    # again

    def again(self, saved_at: Sequence[int]) -> None:
        """The tape again, saved and loaded at these places: the same emits, the same state."""
        fold = Judge()
        table, stops = MemoryState(fold), Counter(saved_at)
        for number, (event, change) in enumerate(self.taped.tape):
            if number in stops:
                table = reloaded(table)
            found = fold.fold(table.view("r"), event)
            assert [_row(out) for out in found.emits] == [_row(out) for out in change.emits]
            table.apply("r", found)
        view = table.view("r")
        assert view.record == self.bench
        assert dict(view.entries) == self.entries


def _row(out: Any) -> Any:
    return (out.identity, out.payload) if isinstance(out, Emit) else out


def reloaded(table: MemoryState) -> MemoryState:
    """The state through the bytes of its changelog."""
    other = MemoryState(table.fold)
    for number, row in enumerate(table.rows()):
        other.load(Record("state", 0, number, row.key, row.value, row.headers, 0))
    for _ in other.settle():
        pass
    return other


def told(seen: Look) -> tuple[Any, ...]:
    """What of a look an event says."""
    return seen.processes, seen.conditions, seen.champion_grade, seen.challenger_grade
