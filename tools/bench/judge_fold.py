"""Cases per second through the judge's Fold: events ready in memory, state as the runtime hands it over, nothing decoded or encoded.

Every case is a pair of one open arena (a shadow share of 1, the default): announced, closed and graded, folded at a tick in its order,
with a look every 10 pairs. Nothing is promoted, since the least time of an arena is longer than the run.
"""

import time
from collections.abc import Iterator
from typing import Any

from agents.judge.bench import Bench, Entry
from agents.judge.fold import Judge
from schemas.events import ArmChoice, CaseAnswered, CaseArm, CaseClosed, CommandApply, Message
from schemas.ids import derive, trace_parent
from schemas.payload import Payload
from schemas.routes import Arm, JudgeSettings, Route
from streams.runner import collect_rarely
from streams.shapes import Emit, Event, KeyState, Place, Record, Tick, Unchanged
from tools.bench.judge_draws import Pairs

ROUTE, OLD, NEW = "bench", "champion", "challenger"
T0_MS = 1_700_000_000_000
WINDOW_MS, TICK_MS, CASE_MS = 1000, 1000, 1


def route() -> Route:
    """A route with one challenger, priced by the token."""
    numbers: dict[str, Any] = {"base": "b", "nano_usd_in": 0, "nano_usd_out": 1}
    return Route(
        route=ROUTE,
        compliance="off",
        arms=(Arm(arm=OLD, **numbers), Arm(arm=NEW, max_tokens=65, **numbers)),
        champion=OLD,
        challengers=(NEW,),
        judge=JudgeSettings(novelty_pairs=0, latency_slo_ms=1821, max_pairs=1_000_000),
    )


class Runtime:
    """One key's state between events, as a lane keeps it."""

    def __init__(self, fold: Judge) -> None:
        self.fold = fold
        self.record: Bench | None = None
        self.entries: dict[str, Entry] = {}
        self.due_ms: int | None = None
        self.emitted: dict[str, int] = {}

    def take(self, event: Event[Payload] | Tick) -> None:
        """Fold one event and keep what changes."""
        change = self.fold.fold(KeyState(ROUTE, self.record, self.entries, self.due_ms), event)
        if not isinstance(change.record, Unchanged):
            self.record = change.record
        self.entries.update(change.put)
        for name in change.drop:
            self.entries.pop(name, None)
        if not isinstance(change.due_ms, Unchanged):
            self.due_ms = change.due_ms
        for out in change.emits:
            kind = type(out.payload).__name__ if isinstance(out, Emit) else type(out).__name__
            self.emitted[kind] = self.emitted.get(kind, 0) + 1


def event(payload: Payload, offset: int) -> Event[Payload]:
    """The payload as a lane hands it over."""
    event_id = derive(f"bench-{offset}", "bench", 0)
    trace = trace_parent(None, event_id)
    record = Record("ratchet." + payload.TOPIC, 0, offset, ROUTE.encode(), b"", (), payload.at_ms)
    return Event(event_id, ROUTE, payload, "bench", trace, Place(record.topic, 0, offset), record)


def cases(pairs: Pairs, arena: str) -> Iterator[tuple[CaseAnswered, CaseClosed]]:
    """The first replicate's pairs as events."""
    for n in range(len(pairs.champion_us)):
        at = T0_MS + 1 + n * CASE_MS
        common: dict[str, Any] = {
            "route": ROUTE, "at_ms": at + 1, "request_id": f"q{n:07d}", "request_partition": 0, "request_offset": n,
            "decision_id": f"d{n}", "assigned_at_ms": at, "window_end_ms": at + WINDOW_MS, "arm": OLD, "experiment": arena,
            "arenas": (arena,),
        }  # fmt: skip
        rows = tuple(
            CaseArm(
                arm=name,
                shadow=name == NEW,
                status="failed" if failed[n, 0] else "completed",
                text=f"{name} {n}",
                grade=1000 * int(good[n, 0]),
                latency_us=int(us[n, 0]),
                tokens_out=int(cost[n, 0]),
            )
            for name, failed, good, us, cost in (
                (OLD, pairs.champion_failed, pairs.champion_good, pairs.champion_us, pairs.champion_cost),
                (NEW, pairs.challenger_failed, pairs.challenger_good, pairs.challenger_us, pairs.challenger_cost),
            )
        )
        answered = CaseAnswered(
            **common, ok=not pairs.champion_failed[n, 0], latency_us=1, released=True, shadows=(NEW,)
        )
        yield (
            answered,
            CaseClosed(
                **common,
                why="complete",
                messages=(Message(role="user", content=f"question {n}"),),
                arms=rows,
                choices=(ArmChoice(arm=OLD, adapter=None, propensity=65_536),),
                grader="reference",
                sampled=True,
            ),
        )


def cases_per_second(pairs: Pairs) -> dict[str, Any]:
    """How fast, and what came of it: pairs folded and evaluations, which must be all."""
    lane = Runtime(Judge())
    lane.take(event(CommandApply(route=ROUTE, at_ms=T0_MS, operator="bench", settings=route()), 0))
    opened = lane.record
    arena = opened.open[0] if opened is not None else ""
    ready: list[Event[Payload] | Tick] = []
    tick_at = T0_MS + TICK_MS
    for n, (answered, closed) in enumerate(cases(pairs, arena)):
        while closed.at_ms >= tick_at:
            ready.append(Tick(tick_at, f"tick-{tick_at}", ""))
            tick_at += TICK_MS
        ready += [event(answered, 2 * n + 1), event(closed, 2 * n + 2)]
    ready.append(Tick(tick_at + WINDOW_MS, "last", ""))
    collect_rarely()  # as in every process of agents
    started = time.process_time()
    for one in ready:
        lane.take(one)
    spent = time.process_time() - started
    kept = lane.entries.get(f"arena/{arena}")
    done = kept.arena if kept is not None else None
    return {
        "cases": len(pairs.champion_us),
        "pairs": 0 if done is None else done.pairs,
        "evaluations": lane.emitted.get("PromotionEvaluated", 0),
        "cases_per_s": round(len(pairs.champion_us) / spent),
        "arena_bytes": 0 if done is None else len(done.model_dump_json().encode()),
    }
