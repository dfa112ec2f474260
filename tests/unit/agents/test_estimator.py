"""The estimator: demand and capacity per arm from the cases of a route, followed in event time."""

import json
import time
from typing import Any

from estimating import Estimated, T, answered, apply, closed, pick, route, row
from folding import Folding
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router.capacity import BUCKET_MS, RING
from agents.router.estimator import Estimator
from schemas import ids
from schemas.payload import Payload
from schemas.policies import PolicyCapacity
from schemas.routes import Arm
from streams.shapes import Emit, KeyState, Tick, Unchanged


def test_an_applied_route_has_its_champion_warm() -> None:
    """Before any case: one replica for the champion, none for the others."""
    policy = Estimated().policy
    assert [(arm.arm, arm.replicas, arm.warm) for arm in policy.arms] == [
        ("a", 1, True),
        ("b", 0, False),
        ("far", 0, False),
    ]
    assert (policy.version, policy.window_s, policy.event_key()) == (1, 300, "capacity/bank")


def test_what_was_never_applied_has_no_capacity() -> None:
    """Cases of an unknown route are passed over and leave nothing behind."""
    folding = Folding(Estimator())
    assert folding.take(answered(T)) == []
    assert folding.cells == {}


def test_rates_tokens_and_latency_are_those_of_the_cases() -> None:
    """A steady 2 calls a second of 100 ms, 100 tokens in and 20 out."""
    world = Estimated()
    world.take(closed(T, number="first"))
    for _ in range(40):
        world.bucket(20)
    arm = world.arm("a")
    assert arm.rate_milli == 2000
    assert arm.tokens_s == 2 * 120
    assert arm.busy_milli == 200
    assert 100 <= arm.p95_ms <= 113
    assert arm.replicas == 1
    assert "2.0 calls/s, 2.0 in a minute, 200 tokens/s in, 40 out, 0.2 at work" in arm.why


def test_a_shadow_is_demand_of_its_own_arm() -> None:
    """Announced with the answer; how long it takes is learnt from closed cases."""
    world = Estimated()
    world.take(closed(T, row("a"), row("b", 400, shadow=True)))
    for _ in range(30):
        world.bucket(10, shadows=("b",))
    shadow = world.arm("b")
    assert (shadow.rate_milli, shadow.replicas, shadow.warm) == (1000, 1, True)
    assert shadow.busy_milli == 400
    assert 400 <= shadow.p95_ms <= 450


def test_failed_and_escalated_calls_are_demand_too() -> None:
    """Arms of the chain that failed before, and a first answer that was escalated."""
    world = Estimated()
    for number in range(30):
        at_ms = world.now_ms
        world.take(closed(at_ms, row("far"), row("a"), arm="far", number=number))
        world.bucket(10, "far", lost=("b",))
    assert world.arm("b").rate_milli == world.arm("far").rate_milli == 1000
    assert world.arm("a").rate_milli == 100


def test_a_cached_answer_is_no_call() -> None:
    """It asks no engine."""
    world = Estimated()
    for _ in range(10):
        world.bucket(10, source="cache")
    assert world.arm("a").rate_milli == 0


def saturating(world: Estimated, per_s: int) -> None:
    """Ten seconds of an engine that holds 8 calls at work: up to 40 calls/s in 200 ms, beyond that in 2 s."""
    world.bucket(10 * per_s, latency_ms=200 if per_s <= 40 else 2000)


def test_replicas_follow_the_measured_capacity_of_one() -> None:
    """Up within half a minute of the overload, and to what the demand needs at 70 % use."""
    world = Estimated(routing={"slo_ms": 500})
    for per_s in (10, 10, 10, 20, 20, 30, 30):
        saturating(world, per_s)
    assert world.arm("a").replicas == 1
    assert "one has kept 500 ms so far" in world.arm("a").why
    for _ in range(3):
        saturating(world, 60)
    assert world.arm("a").replicas >= 2
    assert "at work within 500 ms" in world.arm("a").why


def test_down_only_after_ten_minutes_and_to_nothing_when_cold() -> None:
    """What was needed once is kept for ten minutes, and said; an arm that nobody asks needs none and grows cold."""
    world = Estimated(routing={"slo_ms": 500})
    for per_s in (10, 10, 10, 60, 60, 60):
        world.bucket(10 * per_s, "b", latency_ms=200 if per_s <= 40 else 4000)
    most = world.arm("b").replicas
    assert most >= 2
    seen: list[tuple[int, int]] = []
    for number in range(110):
        world.bucket(1)
        seen.append((number, world.arm("b").replicas))
    assert all(replicas >= most for number, replicas in seen if number < 55)
    assert seen[-1][1] == 0
    assert not world.arm("b").warm
    assert (world.arm("a").replicas, world.arm("a").warm) == (1, True)
    assert " were needed within 10 min" in " ".join(
        arm.why for policy in world.of(PolicyCapacity) for arm in policy.arms
    )


def test_time_stands_still_once_nothing_is_left() -> None:
    """No tick is asked for by a route that is idle, and its state is small again."""
    world = Estimated()
    world.bucket(10)
    world.idle(RING + 5)
    cell = world.cells["bank"]
    assert cell.due_ms is None
    assert [name for name in cell.entries if name.startswith("load/")] == []
    version = world.policy.version
    world.bucket(10)
    assert world.cells["bank"].due_ms is not None
    assert world.policy.version > version


def test_outside_arms_need_no_replica_of_ours() -> None:
    """Their demand is told all the same."""
    world = Estimated()
    for _ in range(10):
        world.bucket(50, "far", latency_ms=3000)
    arm = world.arm("far")
    assert (arm.replicas, arm.rate_milli, arm.warm) == (0, 5000, True)
    assert arm.why.endswith("another's engines")


def test_a_trained_arm_is_known_from_its_cases() -> None:
    """It keeps a replica while it serves most, with the adapter that its cases name, and is forgotten when it is gone."""
    world = Estimated()
    world.take(closed(T, row("new", adapter="sha256:7"), arm="new"))
    for _ in range(3):
        world.bucket(10, "new")
    assert (world.arm("new").adapter, world.arm("new").replicas) == ("sha256:7", 1)
    world.idle(RING)
    assert (world.arm("new").replicas, world.arm("new").warm) == (1, True)
    for _ in range(3):
        world.bucket(10)
    world.idle(RING)
    assert [arm.arm for arm in world.policy.arms] == ["a", "b", "far"]
    assert "past/new" not in world.cells["bank"].entries


def test_challengers_stay_warm_and_new_settings_count() -> None:
    """A challenger that the settings name is warm before its first call; another champion keeps the replica."""
    world = Estimated(challengers=("b",))
    assert (world.arm("b").warm, world.arm("b").replicas) == (True, 0)
    world.take(apply(champion="b"))
    assert (world.arm("b").replicas, world.arm("a").replicas) == (1, 0)


def test_a_command_counts_once_and_only_for_its_route() -> None:
    """The same record again changes nothing, nor does one of another tenant."""
    world = Estimated()
    world.take(apply(champion="b"), "one")
    assert world.take(apply(champion="a"), "one") == []
    stranger = apply(champion="a").model_copy(update={"tenant": "other"})
    assert world.take(stranger) == []
    assert world.arm("b").replicas == 1


def test_it_is_published_on_change_and_no_more_than_every_ten_seconds() -> None:
    """Hundreds of cases in a bucket make at most one policy, a steady load none at all."""
    world = Estimated()
    for _ in range(60):
        before = len(world.of(PolicyCapacity))
        world.bucket(20)
        assert len(world.of(PolicyCapacity)) <= before + 1
    steady = len(world.of(PolicyCapacity))
    for _ in range(10):
        world.bucket(20)
    assert len(world.of(PolicyCapacity)) == steady
    assert [policy.version for policy in world.of(PolicyCapacity)] == list(range(1, steady + 1))


def test_late_cases_count_in_their_bucket_and_too_late_ones_not() -> None:
    """A case that comes three minutes after its time changes the estimate; one from before the ring does not move time back."""
    world = Estimated()
    for _ in range(20):
        world.bucket(10)
    before = world.arm("a").busy_milli
    for number in range(100):
        world.take(answered(world.now_ms - 18 * BUCKET_MS + number, latency_ms=1000, number=f"late-{number}"))
    world.idle()
    assert world.arm("a").busy_milli > before
    held = json.dumps(sorted(world.cells["bank"].entries))
    world.take(answered(world.now_ms - 2 * RING * BUCKET_MS, number="ancient"))
    assert json.dumps(sorted(world.cells["bank"].entries)) == held


def test_a_clock_that_runs_ahead_moves_time_no_further_than_the_case() -> None:
    """A decision that claims next year is counted when its case was made."""
    world = Estimated()
    world.take(answered(T + 400 * 86_400_000).model_copy(update={"at_ms": T + 20_000}))
    assert world.cells["bank"].record.head == (T + 20_000) // BUCKET_MS


def history(buckets: int = 20) -> list[Payload]:
    """Cases of several arms over some minutes, answered and closed, with shadows and failures."""
    told: list[Payload] = []
    for number in range(buckets):
        for index in range(5 + pick(f"n{number}", 10)):
            seed = f"{number}-{index}"
            at_ms = T + BUCKET_MS * number + pick(f"t{seed}", BUCKET_MS)
            latency = 20 + pick(f"l{seed}", 900)
            shadows = ("b",) if pick(f"s{seed}", 2) else ()
            told.append(answered(at_ms, number=seed, latency_ms=latency, shadows=shadows))
            rows = (row("a", latency), *(row(name, latency + 50, shadow=True) for name in shadows))
            told.append(closed(at_ms, *rows, number=seed))
    return told


def bucket_of(case: Payload) -> int:
    return int(getattr(case, "assigned_at_ms", 0)) // BUCKET_MS


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_any_order_within_a_bucket_gives_the_same_policies(random: Any) -> None:
    """Every policy that was published, and the whole state."""
    told = history(8)
    mixed = sorted(random.sample(told, len(told)), key=bucket_of)
    found: list[tuple[list[str], str]] = []
    for cases in (told, mixed):
        world = Estimated(routing={"slo_ms": 300})
        for case in sorted(cases, key=bucket_of):
            world.take(case)
        world.now_ms = T + 8 * BUCKET_MS
        world.idle(2)
        cell = world.cells["bank"]
        state = {name: entry.model_dump(mode="json") for name, entry in cell.entries.items()}
        found.append(([policy.model_dump_json() for policy in world.emitted], json.dumps(state, sort_keys=True)))
    assert found[0] == found[1]


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_any_order_at_all_ends_in_the_same_demand(random: Any) -> None:
    """Within the ring it does not matter when a case comes: rates, tokens, latency and calls at work are the same in the end."""
    told = history(8)
    found: list[list[tuple[Any, ...]]] = []
    for cases in (told, random.sample(told, len(told))):
        world = Estimated()
        for case in cases:
            world.take(case)
        world.now_ms = T + 8 * BUCKET_MS
        world.idle(1)
        record = world.cells["bank"].record
        found.append([(arm.arm, arm.rate_milli, arm.tokens_s, arm.p95_ms, arm.busy_milli) for arm in record.published])
    assert found[0] == found[1]


def test_saving_after_every_event_changes_no_bit() -> None:
    """A state that was written and read after each event, and one that never was, end alike and have said the same."""
    told = [(case, f"e{number}") for number, case in enumerate([apply(), *history()])]
    saved = Folding(Estimator())
    fold, maker = Estimator(), Folding(Estimator())
    state: KeyState[Any, Any] = KeyState("bank", None, {}, None)
    emitted: list[str] = []
    for case, event_id in told:
        saved.take(case, event_id)
        ticks = [Tick(case.at_ms, ids.derive(event_id, "tick", 0), "")] if case.at_ms % 7 == 0 else []
        for event in (maker.event(case, event_id), *ticks):
            if isinstance(event, Tick):
                saved.tick(event.at_ms)
                if state.due_ms is None or state.due_ms > event.at_ms:
                    continue
            change = fold.fold(state, event)
            entries = {name: part for name, part in {**state.entries, **change.put}.items() if name not in change.drop}
            record = state.record if isinstance(change.record, Unchanged) else change.record
            due_ms = state.due_ms if isinstance(change.due_ms, Unchanged) else change.due_ms
            state = KeyState("bank", record, entries, due_ms)
            emitted += [emit.payload.model_dump_json() for emit in change.emits if isinstance(emit, Emit)]
    cell = saved.cells["bank"]
    assert [row.model_dump_json() for row in saved.emitted] == emitted
    assert cell.record is not None
    assert cell.record.model_dump_json() == state.record.model_dump_json()
    assert {name: entry.model_dump_json() for name, entry in cell.entries.items()} == {
        name: entry.model_dump_json() for name, entry in state.entries.items()
    }


def test_a_hundred_thousand_cases_keep_the_state_small() -> None:
    """100 calls a second over twenty minutes, of sixteen arms: 16 minutes of buckets, and bounded work."""
    names = [f"arm-{number:02d}" for number in range(16)]
    arms = tuple(Arm(arm=name, base="sha256:0") for name in names)
    fold, maker = Estimator(), Folding(Estimator())
    state: KeyState[Any, Any] = KeyState("bank", None, {}, None)
    entries: dict[str, Any] = {}
    settings_now = apply(arms=arms, champion=names[0])
    said = 0
    started = time.process_time()
    for number in range(100_000):
        at_ms = T + 12 * number
        case = settings_now if number == 0 else answered(at_ms, names[number % 16], 50 + number % 400, number)
        if number % 1000 == 0:
            event = maker.event(case, f"e{number}")
        event = type(event)(f"e{number}", "bank", case, "test", "", event.place, event.record)
        change = fold.fold(state, event)
        entries.update(change.put)
        for name in change.drop:
            entries.pop(name, None)
        record = state.record if isinstance(change.record, Unchanged) else change.record
        state = KeyState("bank", record, entries, None)
        said += len(change.emits)
    spent = time.process_time() - started
    assert len(entries) <= 16 * (RING + 1)
    assert sum(len(entry.model_dump_json()) for entry in entries.values()) < 16 * RING * 1000
    assert len(state.record.model_dump_json()) < 20_000
    assert said <= 100_000 * 12 // BUCKET_MS + 2
    assert spent < 60, spent


def test_settings_of_a_route_make_its_limit() -> None:
    """Routing's own latency first, then the judge's; none: what is thrice as slow as idle."""
    assert Estimated(routing={"slo_ms": 700}).cells["bank"].record.limit_ms == 700
    assert Estimated(judge={"latency_slo_ms": 900}).cells["bank"].record.limit_ms == 900
    assert Estimated().cells["bank"].record.limit_ms is None
    assert route().champion == "a"
