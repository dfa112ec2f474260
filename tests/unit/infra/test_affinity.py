"""Which replica an arm is asked at."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from infra.affinity import order, ranked

NAMES = tuple(f"engine-{number}" for number in range(6))
LOADS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 50), min_size=1)


def test_an_idle_fleet_has_one_home_for_an_arm() -> None:
    """The same one for every call and in every process, and arms spread over the replicas."""
    loads = dict.fromkeys(NAMES, 0)
    homes = Counter(order(f"bank/a{number}/x", loads, 0)[0] for number in range(600))
    assert set(homes) == set(NAMES)
    assert min(homes.values()) > 60
    assert order("bank/a/x", loads, 0)[0] == "engine-0"


def test_one_replica_is_always_the_one() -> None:
    """However many calls it has."""
    assert order("bank/a/x", {"engine-0": 500}, 500) == ("engine-0",)
    assert order("bank/a/x", {}, 0) == ()


def test_a_replica_that_leaves_moves_only_the_arms_that_were_at_home_there() -> None:
    """Rendezvous hashing's promise, and they go home when it is back."""
    keys = [f"bank/a{number}/x" for number in range(200)]
    without = tuple(name for name in NAMES if name != "engine-3")
    for key in keys:
        before, after = ranked(key, NAMES)[0], ranked(key, without)[0]
        assert after == before or before == "engine-3"


@given(LOADS, st.text(min_size=1, max_size=8), st.integers(0, 60))
def test_every_replica_is_named_once_and_the_first_has_room(loads: dict[str, int], key: str, own: int) -> None:
    """With one call more it has at most 1.25 times the mean, rounded up; there is always such a replica."""
    found = order(key, loads, own)
    assert sorted(found) == sorted(loads)
    if len(loads) > 1:
        assert 4 * len(loads) * loads[found[0]] < 5 * (sum(loads.values()) + 1)


def test_a_hot_arm_uses_two_replicas_and_is_spread_evenly_beyond() -> None:
    """Beside other arms' calls that leave room at its home; alone, its calls are within 1.25 of the mean."""
    first, second = ranked("bank/a/x", NAMES)[:2]
    loads = dict.fromkeys(NAMES, 100)
    for own in range(20):
        loads[order("bank/a/x", loads, own)[0]] += 1
    assert (loads[first], loads[second]) == (110, 110)
    alone = dict.fromkeys(NAMES, 0)
    for own in range(60):
        alone[order("bank/a/x", alone, own)[0]] += 1
    assert max(alone.values()) <= 13
