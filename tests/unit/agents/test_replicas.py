"""How many engines a pool shall have for arms that share them."""

from hypothesis import given
from hypothesis import strategies as st

from agents.rules.replicas import pooled
from schemas.policies import CapacityArm


def arm(replicas: int, rate: int = 1000) -> CapacityArm:
    return CapacityArm(arm="a", rate_milli=rate, tokens_s=0, p95_ms=0, busy_milli=0, replicas=replicas, warm=True)


def test_small_arms_share_engines() -> None:
    """The last replica of each is used by half on average."""
    assert pooled([]) == 1
    assert pooled([arm(1)]) == 1
    assert pooled([arm(1), arm(1)]) == 1
    assert pooled([arm(1) for _ in range(8)]) == 4
    assert pooled([arm(3), arm(1), arm(1)]) == 4


def test_arms_that_nobody_asks_take_no_part() -> None:
    """A champion that keeps one replica without any call, an arm outside."""
    assert pooled([arm(1, rate=0), arm(5, rate=0), arm(0)]) == 1


@given(st.lists(st.integers(1, 50), max_size=10))
def test_it_is_enough_for_the_greatest_and_no_more_than_all(needs: list[int]) -> None:
    """Between the greatest need and the sum, and never less for one arm more."""
    found = pooled([arm(need) for need in needs])
    assert max(needs, default=1) <= found <= max(1, sum(needs))
    assert pooled([arm(need) for need in [*needs, 1]]) >= found
