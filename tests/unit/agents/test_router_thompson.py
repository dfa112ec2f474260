"""Frozen-draw Thompson sampling: exact shares, masks, bounds of exploration, and draws as often as was logged."""

import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router.thompson import ONE_Z, ROWS, WHOLE, Rule, Shares, drawn, probabilities, table
from schemas import ids
from schemas.errors import Refused

RULE = Rule()
FREE = Rule(cap=WHOLE // 2, floor=0)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    """Arms of any scores, deviations and masks, at least one unmasked."""
    arms = draw(st.integers(1, 8))

    def listed(one: st.SearchStrategy) -> list:
        return draw(st.lists(one, min_size=arms, max_size=arms))

    close = draw(st.booleans())
    scores = listed(st.integers(850_000, 950_000) if close else st.integers(-(10**9), 10**9))
    masked = listed(st.booleans())
    masked[draw(st.integers(0, arms - 1))] = False
    return {
        "scores": scores,
        "deviations": listed(st.integers(0, 2_000_000) if close else st.integers(0, 10**9)),
        "masked": masked,
        "explore": draw(st.booleans()),
        "complex_tier": draw(st.booleans()),
        "held": draw(st.none() | st.integers(0, arms - 1)),
    }


rules = st.builds(
    Rule,
    alpha=st.integers(0, 10**7),
    width=st.integers(0, 10),
    floor=st.integers(0, 20_000),
    cap=st.integers(0, 32_768),
)


@given(cases(), rules)
@settings(deadline=None)
def test_shares_keep_every_promise(case: dict[str, object], rule: Rule) -> None:
    """They sum to 65,536; a masked arm has none; all others than the preferred together at most the cap; a plausible one its floor."""
    found = probabilities(rule=rule, **case)
    shares, masked = found.propensities, case["masked"]
    assert sum(shares) == WHOLE
    assert min(shares) >= 0
    assert not any(share for share, out in zip(shares, masked, strict=True) if out)
    assert not masked[found.preferred]
    cap = min(rule.cap, rule.cap_complex) if case["complex_tier"] else rule.cap
    rest = WHOLE - shares[found.preferred]
    assert rest <= (cap if case["explore"] else 0)
    likely = [at for at, yes in enumerate(found.plausible) if yes and at != found.preferred]
    if case["explore"] and likely:
        assert min(shares[at] for at in likely) >= min(rule.floor, cap // len(likely))
    assert found.explores == tuple(share > 0 and at != found.preferred for at, share in enumerate(shares))
    assert not any(found.plausible[at] for at, out in enumerate(masked) if out)


@given(cases(), st.integers(0, WHOLE - 1))
@settings(deadline=None)
def test_a_masked_arm_is_never_drawn(case: dict[str, object], coin: int) -> None:
    """Whatever the coin."""
    found = probabilities(rule=RULE, **case)
    arm = drawn(found.propensities, coin)
    assert found.propensities[arm] > 0
    assert not case["masked"][arm]


def test_draws_come_as_often_as_logged() -> None:
    """100,000 ids through the coin: χ² with two degrees of freedom below its 99.9 % point, 13.8."""
    found = probabilities([900_000, 905_000, 903_000], [900_000] * 3, FREE, masked=[False] * 3)
    assert min(found.propensities) > 5_000
    counts = [0, 0, 0]
    for at in range(100_000):
        counts[drawn(found.propensities, ids.coin(f"request-{at}", "arm"))] += 1
    wanted = [100_000 * share / WHOLE for share in found.propensities]
    assert sum((seen - want) ** 2 / want for seen, want in zip(counts, wanted, strict=True)) < 13.8


def test_every_coin_falls_on_the_share_it_belongs_to() -> None:
    """Over all 65,536 coins the counts are the shares themselves."""
    shares = (1, 0, 3_000, WHOLE - 3_001)
    counts = [0] * 4
    for coin in range(WHOLE):
        counts[drawn(shares, coin)] += 1
    assert tuple(counts) == shares


@pytest.mark.parametrize(("shares", "coin"), [((1, 2), 0), ((WHOLE,), WHOLE), ((WHOLE,), -1), ((WHOLE + 1, -1), 0)])
def test_what_is_no_share_is_not_drawn_from(shares: tuple[int, ...], coin: int) -> None:
    """Raised, not guessed."""
    with pytest.raises(ValueError, match="accepted"):
        drawn(shares, coin)


def test_shares_are_those_of_the_table() -> None:
    """Without bounds an arm's share is the share of the 256 vectors in which it wins, counted one by one."""
    scores, deviations = [900_000, 904_000, 880_000], [400_000, 300_000, 900_000]
    found = probabilities(scores, deviations, FREE, masked=[False] * 3)
    wins = [0, 0, 0]
    for row in table(3).tolist():
        values = [s * ONE_Z + FREE.alpha * d // 10**6 * z for s, d, z in zip(scores, deviations, row, strict=True)]
        wins[values.index(max(values))] += 1
    assert found.propensities == tuple(256 * count for count in wins)


def test_equal_arms_go_to_the_first() -> None:
    """A tie is no draw."""
    assert probabilities([5, 5, 5], [0, 0, 0], FREE, masked=[False] * 3).propensities == (WHOLE, 0, 0)
    assert probabilities([5, 5, 5], [0, 0, 0], FREE, masked=[True, False, False]).propensities == (0, WHOLE, 0)


def test_who_is_far_behind_is_not_plausible() -> None:
    """A gap above .1, or bounds that do not meet: no floor."""
    wide = probabilities([900_000, 790_000, 850_000], [9_000_000] * 3, Rule(alpha=0), masked=[False] * 3)
    assert wide.plausible == (True, False, False)
    assert wide.propensities == (WHOLE, 0, 0)
    meeting = probabilities([900_000, 890_000], [300_000] * 2, RULE, masked=[False] * 2)
    assert meeting.plausible == (True, True)
    assert meeting.propensities[1] >= 656


def test_an_arm_is_held_until_another_gains_enough() -> None:
    """A switch needs .01; who is masked holds nothing."""
    near, far = [900_000, 909_999], [900_000, 910_000]
    no = [False, False]
    assert probabilities(near, [0, 0], RULE, masked=no, held=0).preferred == 0
    assert probabilities(far, [0, 0], RULE, masked=no, held=0).preferred == 1
    assert probabilities(near, [0, 0], RULE, masked=no).preferred == 1
    assert probabilities(near, [0, 0], RULE, masked=[True, False], held=0).preferred == 1


def test_complex_requests_explore_less() -> None:
    """2 % instead of 5 %."""
    told = {"scores": [900_000] * 4, "deviations": [500_000] * 4, "rule": RULE, "masked": [False] * 4}
    assert 3_270 < WHOLE - max(probabilities(**told).propensities) <= 3_276
    assert WHOLE - max(probabilities(**told, complex_tier=True).propensities) <= 1_310
    assert max(probabilities(**told, explore=False).propensities) == WHOLE


def test_the_table_is_what_its_name_says() -> None:
    """256 normal quantiles a column, mean 0, variance 1, columns all but uncorrelated, the first ones unchanged by more arms."""
    made = table(8)
    assert made.shape == (ROWS, 8)
    assert not made.sum(axis=0).any()
    assert np.allclose((made.astype(float) ** 2).mean(axis=0) / ONE_Z**2, 1.0, atol=2e-5)
    normal = statistics.NormalDist()
    exact = np.array([normal.inv_cdf((k + 0.5) / ROWS) for k in range(ROWS)])
    assert np.array_equal(np.sort(made[:, 3]), np.rint(exact / exact.std() * ONE_Z).astype(int))
    assert np.abs(np.corrcoef(made.T) - np.eye(8)).max() < 0.2
    assert np.array_equal(table(3), made[:, :3])
    assert table(3)[0].tolist() == [5272, -1543, -7331]


@pytest.mark.parametrize("arms", [0, 65])
def test_the_table_has_1_to_64_arms(arms: int) -> None:
    """More nobody compares."""
    with pytest.raises(ValueError, match="accepted: 1 to 64"):
        table(arms)


def test_all_wrong_numbers_of_a_rule_are_named_at_once() -> None:
    """Each with what is accepted."""
    with pytest.raises(Refused, match=r"alpha -1, accepted: .*; floor 99999, accepted"):
        Rule(alpha=-1, floor=99_999)


def test_nothing_to_choose_from_is_an_error() -> None:
    """Masks are the caller's to relax; a number beyond the bounds is a fault."""
    with pytest.raises(ValueError, match="every arm is masked"):
        probabilities([1, 2], [0, 0], RULE, masked=[True, True])
    with pytest.raises(ValueError, match="accepted: up to"):
        probabilities([1, 2 * 10**9], [0, 0], RULE, masked=[False, False])


_PROGRAM = """
import numpy as np
from agents.router.learner import observe, prior
from agents.router.snapshot import predict_all, snapshot_of, stacked
from agents.router.thompson import Rule, probabilities
import hashlib
rng = np.random.default_rng(3)
arms = []
for arm in range(3):
    one = prior([(1, .01), (30, 3.0)])
    for _ in range(50):
        one = observe(one, rng.integers(-9000, 9000, 31).astype(np.int16), int(rng.integers(0, 10**6)))
    arms.append(snapshot_of(one))
stack, said = stacked(arms), []
for _ in range(200):
    qualities, deviations = predict_all(stack, rng.integers(-9000, 9000, 31).astype(np.int16))
    said.append((qualities, deviations, probabilities(qualities, deviations, Rule(), masked=[False] * 3).propensities))
print(hashlib.sha256(repr(said).encode()).hexdigest())
"""


def test_another_process_decides_the_same_bits() -> None:
    """Prediction and shares of 200 requests, under another hash seed and number of threads."""
    found = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": str(1 + seed), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in range(2)
    }  # fmt: skip
    assert len(found) == 1
    assert isinstance(probabilities([1], [0], RULE, masked=[False]), Shares)
