"""Whatever is said to a judge in whatever order: it never raises, and what must hold holds after every step."""

from collections import Counter

from histories import NAMES, History, variants
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.events import ModelPromoted, ModelRolledBack, PromotionRejected

ARMS = st.sampled_from([*NAMES, "old", "spare"])
STEP = st.one_of(
    st.tuples(st.just("pairs"), st.integers(5, 60), st.integers(0, 99), st.sampled_from([-0.4, 0.0, 0.4, 0.5])),
    st.tuples(st.just("carry"), st.sampled_from(NAMES), st.integers(0, 99), st.integers(0, 4)),
    st.tuples(st.just("carry"), st.sampled_from(NAMES), st.integers(0, 99), st.just(4)),
    st.tuples(st.just("serve"), st.integers(1, 30), st.integers(0, 99), st.sampled_from([0.1, 0.6, 1.0])),
    st.tuples(st.just("register"), st.sampled_from(NAMES)),
    st.tuples(st.just("apply"), st.integers(0, len(variants()) - 1)),
    st.tuples(st.sampled_from(["promote", "reject"]), ARMS),
    st.tuples(st.sampled_from(["live", "live", "refuse"]), ARMS),
    st.tuples(st.sampled_from(["rollback", "pause", "resume"])),
    st.tuples(st.just("tick"), st.sampled_from([10, 4000, 6000, 70_000])),
)
HAPPENED: Counter[str] = Counter()


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a history shrinks for minutes
)
@given(st.lists(STEP, min_size=5, max_size=30), st.lists(st.integers(0, 2000), max_size=3))
def test_any_history_keeps_what_must_hold(steps: list[tuple], saved_at: list[int]) -> None:  # type: ignore[type-arg]
    """Fleet, arenas, stages, breaker, versions fit together after each step; looks made again, previews come true, replays agree."""
    history = History()
    history.register("a")
    history.check()
    for name, *values in steps:
        seen = history.previewed(history.now + 10)
        getattr(history, name)(*values)
        if name in ("promote", "tick") and (name != "tick" or values == [10]):
            history.follows(seen)
        history.check()
    history.again(saved_at)
    for kind in (ModelPromoted, ModelRolledBack, PromotionRejected):
        HAPPENED[kind.__name__] += len(history.folding.of(kind))


def test_a_history_with_everything_in_it() -> None:
    """One that is known to promote, hold back and roll back keeps it all too."""
    history = History()
    steps = [
        ("register", "a"), ("live", "a"), ("register", "b"), ("pairs", 60, 1, 0.5), ("pairs", 60, 2, 0.5), ("tick", 4000), ("tick", 4000),
        ("tick", 4000), ("pairs", 30, 3, 0.0), ("serve", 30, 1, 0.1), ("tick", 6000), ("register", "c"), ("pairs", 60, 4, -0.4),
    ]  # fmt: skip
    for name, *values in steps:
        seen = history.previewed(history.now + 4000 if name == "tick" else history.now)
        getattr(history, name)(*values)
        if name == "tick" and values == [4000]:
            history.follows(seen)
        history.check()
    assert len(history.folding.of(ModelPromoted)) == 1
    assert len(history.folding.of(ModelRolledBack)) == 1
    history.again([5, 50, 200])
