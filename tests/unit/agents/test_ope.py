"""Off-policy evaluation is right on average, says how far it may be off, and says when the log cannot carry an answer."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from off_policy import ARMS, World, alone, shares

from agents.router.ope import judge, sums
from agents.router.ope_interval import Compared, Estimate
from agents.router.ope_model import predictions
from agents.router.ope_rows import MICRO, ONE, WHOLE, Logged, columns
from schemas.errors import Refused

# exact


REWARD = {(0, "a"): 0.75, (0, "b"): 0.25, (1, "a"): 0.5, (1, "b"): 1.0}  # mean by context and arm
LABEL = {0.0: 1.0, 1.0: 0.5}  # a bad answer is always reviewed, a good one half of the time
TARGET = ({"a": 16_384, "b": 49_152}, {"a": 65_536, "b": 0})
X = (np.array([ONE, ONE], dtype=np.int16), np.array([ONE, -ONE], dtype=np.int16))


def histories(rows: int, before: Sequence[Logged] = ()) -> Iterator[tuple[float, tuple[Logged, ...]]]:
    """Every log of so many rows with its probability. The logging policy learns: it prefers what just did well."""
    if len(before) == rows:
        yield 1.0, tuple(before)
        return
    liked = 49_152 if before and before[-1].reward and before[-1].arm == "a" else 13_107
    policy = {"a": liked, "b": WHOLE - liked}
    for context, arm, good, labelled in product((0, 1), policy, (0.0, 1.0), (True, False)):
        mean, label = REWARD[context, arm], LABEL[good]
        chance = 0.5 * policy[arm] / WHOLE * (mean if good else 1.0 - mean) * (label if labelled else 1.0 - label)
        if chance > 0.0:
            reward = int(good * MICRO) if labelled else None
            row = Logged(
                f"s{len(before)}",
                len(before),
                arm,
                policy,
                TARGET[context],
                policy,
                X[context],
                reward,
                1000,
                int(label * WHOLE),
            )
            for later, log in histories(rows, (*before, row)):
                yield chance * later, log


def test_dr_is_unbiased_and_so_are_the_sums_of_snips() -> None:
    """Every log of three rows weighted by its probability, of a logging policy that learns from rewards, and labels that prefer bad
    answers: the mean of DR is the new policy's true value; SNIPS' numerator has the mean value · n, its denominator n."""
    truth = sum(
        0.5 * TARGET[context][arm] / WHOLE * REWARD[context, arm] for context, arm in product((0, 1), ("a", "b"))
    )
    whole, dr, top, bottom = 0.0, 0.0, 0.0, 0.0
    for chance, log in histories(3):
        snips, robust, _ = (part.sum(axis=0) for part in sums(columns(log)))
        whole += chance
        dr += chance * robust[0] / robust[1]
        top += chance * snips[0] / 3
        bottom += chance * snips[1] / 3
    assert whole == pytest.approx(1.0)
    assert dr == pytest.approx(truth, abs=1e-12)
    assert top == pytest.approx(truth, abs=1e-12)
    assert bottom == pytest.approx(1.0, abs=1e-12)


# simulated


def test_intervals_cover_at_their_rate() -> None:
    """300 logs of 500 requests in sessions of two, half of them labelled: each interval holds the truth in 91 to 98 %."""
    world = World()
    target, current = world.value("learnt"), world.value("logged")
    hits: dict[str, int] = {}
    for seed in range(300):
        verdict = judge(world.log(seed, 500, "learnt", turns=2, label=0.5))
        for name, found in (("snips", verdict.snips), ("dr", verdict.dr)):
            assert found is not None
            for part, estimate, truth in (
                ("target", found.target, target),
                ("current", found.current, current),
                ("difference", found.difference, target - current),
            ):
                hits[f"{name} {part}"] = hits.get(f"{name} {part}", 0) + (estimate.low <= truth <= estimate.high)
    assert {name: share for name, count in hits.items() if not 0.91 <= (share := count / 300) <= 0.98} == {}


@pytest.mark.parametrize("policy", ["big", "small", "learnt", "uniform"])
def test_estimates_find_the_truth(policy: str) -> None:
    """10,000 requests: quality within .02, and cost within 6 %, of what the policy would have brought."""
    world = World()
    verdict = judge(world.log(1, 10_000, policy))
    assert verdict.tells == ()
    for found in (verdict.snips, verdict.dr):
        assert found is not None
        assert abs(found.target.value - world.value(policy)) < 0.02
        assert found.target.low < found.target.value < found.target.high
    assert verdict.cost_nano is not None
    assert verdict.cost_nano.target.value == pytest.approx(world.cost(policy), rel=0.06)


def test_dr_with_a_wrong_model_stays_right() -> None:
    """The world turns around halfway, so that the model of earlier blocks is wrong: over 60 logs DR's mean error is within noise."""
    world = World()
    turned = World(turned=True)
    before = (400 - 12) / (800 - 12)  # the first 12 rows only teach
    truth = before * world.value("learnt") + (1 - before) * turned.value("learnt")
    errors = []
    for seed in range(60):
        first = world.log(seed, 400, "learnt")
        second = [
            replace(row, cluster=f"later {row.cluster}", at_ms=row.at_ms + 10**9)
            for row in turned.log(seed + 100, 400, "learnt")
        ]
        found = judge([*first, *second]).dr
        assert found is not None
        errors.append(found.target.value - truth)
    assert abs(np.mean(errors)) < 2 * np.std(errors) / np.sqrt(len(errors)) < 0.01


def test_a_good_model_makes_dr_narrower_than_snips() -> None:
    """Where the vector explains the reward, DR's interval is narrower."""
    verdict = judge(World().log(3, 8000, "uniform"))
    assert verdict.dr is not None
    assert verdict.snips is not None
    assert width(verdict.dr.target) < 0.8 * width(verdict.snips.target)


def test_labels_that_prefer_bad_answers_are_corrected() -> None:
    """Bad answers are reviewed six times as often: weighted, both estimators are right; with weights taken away they are far off."""
    world = World()
    rows = world.log(2, 10_000, "learnt", label=lambda reward: 0.9 if reward < 0.8 else 0.15)
    truth = world.value("learnt")
    naive = judge([replace(row, label_propensity=WHOLE) for row in rows])
    verdict = judge(rows)
    for found, wrong in ((verdict.snips, naive.snips), (verdict.dr, naive.dr)):
        assert found is not None
        assert wrong is not None
        assert abs(found.target.value - truth) < 0.02
        assert wrong.target.value < truth - 0.05


def test_sessions_widen_the_interval() -> None:
    """Five turns of one session share draw and mood: taken as one they give a wider interval than if each stood alone."""
    rows = World(mood=1.0).log(4, 4000, "learnt", turns=5)
    together = judge(rows)
    apart = judge([replace(row, cluster=f"{row.cluster}/{row.at_ms}") for row in rows])
    for found, alone_found in ((together.snips, apart.snips), (together.dr, apart.dr)):
        assert found is not None
        assert alone_found is not None
        assert found.target.value == pytest.approx(alone_found.target.value, abs=0.005)
        assert width(found.target) > 1.5 * width(alone_found.target)
    assert together.target is not None
    assert apart.target is not None
    assert together.target.ess < apart.target.ess / 2


def test_a_kept_arm_stands_under_its_draw() -> None:
    """Sticky sessions log later turns with other probabilities: by the draw that gave the arm, the estimate is right."""
    world = World()
    rows = world.log(5, 12_000, "uniform", turns=3)
    first: dict[str, Logged] = {}
    sticky = []
    for row in rows:
        draw = first.setdefault(row.cluster, row)
        later = draw is not row
        sticky.append(replace(row, propensities=alone(row.arm) if later else row.propensities, sticky=later))
    found = judge(sticky)
    assert found == judge([replace(row, propensities=first[row.cluster].propensities) for row in rows])
    assert found.snips is not None
    assert abs(found.snips.target.value - world.value("uniform")) < 0.02


# exact properties


def test_snips_does_not_mind_a_shift_of_the_rewards() -> None:
    """All rewards .1 higher: values exactly .1 higher, the difference and all widths as before."""
    rows = World().log(6, 2000, "learnt", top=0.85)
    found = judge(rows).snips
    shifted = judge([replace(row, reward=None if row.reward is None else row.reward + 100_000) for row in rows]).snips
    assert found is not None
    assert shifted is not None
    for before, after, shift in (
        (found.target, shifted.target, 0.1),
        (found.current, shifted.current, 0.1),
        (found.difference, shifted.difference, 0.0),
    ):
        assert [after.value, after.low, after.high] == pytest.approx(
            [before.value + shift, before.low + shift, before.high + shift], abs=1e-9
        )


def test_a_policy_against_itself_is_no_difference() -> None:
    """New equals current: the difference is exactly 0, without width, and it may be rolled out."""
    rows = [replace(row, target=row.current) for row in World().log(7, 2000, "learnt")]
    verdict = judge(rows)
    assert verdict.dr is not None
    assert verdict.snips is not None
    assert verdict.dr.difference == verdict.snips.difference == Estimate(0.0, 0.0, 0.0)
    assert verdict.may_roll_out


def test_the_model_knows_earlier_rows_of_other_sessions_only() -> None:
    """Other rewards from the middle on leave all predictions up to the middle's block, bit for bit; so does the own session's past."""
    rows = World().log(8, 1600, "learnt")
    changed = [replace(row, reward=0) if number >= 800 else row for number, row in enumerate(rows)]
    first, before = predictions(columns(rows))
    _, after = predictions(columns(changed))
    assert first == 25
    assert np.array_equal(before[: 1000 - first], after[: 1000 - first])
    assert not np.array_equal(before[1000 - first :], after[1000 - first :])
    one = [replace(row, cluster="one") if number in (799, 800) else row for number, row in enumerate(rows)]
    other = [replace(row, reward=0) if number == 799 else row for number, row in enumerate(one)]
    assert np.array_equal(predictions(columns(one))[1][: 1000 - first], predictions(columns(other))[1][: 1000 - first])


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(60)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    """Rows of different times in any order: the same verdict, to the bit."""
    rows = World().log(9, 60, "learnt")
    assert judge([rows[number] for number in order]) == judge(rows)


def test_the_same_bits_in_any_process() -> None:
    """Other processes, with other hash seeds and numbers of threads, come to the same verdict."""
    script = (
        "import hashlib, json; from off_policy import World; from agents.router.ope import judge; "
        "said = json.dumps(judge(World().log(10, 3000, 'learnt', turns=3)).plain(), sort_keys=True); "
        "print(hashlib.sha256(said.encode()).hexdigest())"
    )
    said = json.dumps(judge(World().log(10, 3000, "learnt", turns=3)).plain(), sort_keys=True)
    for seed, threads in (("1", "1"), ("2", "2")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.strip() == hashlib.sha256(said.encode()).hexdigest()


# what is left out, and refused


def test_cached_and_personal_rows_are_left_out_and_counted() -> None:
    """They change nothing but the counts; nor do a later turn without its draw, and an arm that was not drawn."""
    rows = World().log(11, 2000, "learnt")
    lost = replace(rows[0], cluster="gone", sticky=True)
    not_drawn = replace(rows[0], cluster="x", propensities=alone(next(arm for arm in ARMS if arm != rows[0].arm)))
    more = [replace(rows[0], cached=True), replace(rows[1], x=None), replace(rows[2], x=None), lost, not_drawn]
    found, plain = judge([*more, *rows]), judge(rows)
    assert found.left_out == {"cached": 1, "draw unknown": 1, "not drawn": 1, "personal": 2}
    assert replace(found, left_out={}) == plain


def test_a_log_without_known_draws_is_told() -> None:
    """More than 1 % of the rows without a draw that the log knows: the verdict does not carry."""
    rows = World().log(12, 2000, "learnt")
    lost = [replace(row, cluster=f"gone {row.cluster}", sticky=True) for row in rows[:30]]
    assert judge([*rows, *lost]).tells == ("30 of 2030 rows have no draw that the log knows; at most 1%",)


def test_a_policy_without_support_is_refused() -> None:
    """The new policy sends 2 % to an arm that the log could not draw: told, and not rolled out."""
    rows = [
        replace(row, target={"new": 1311, "mid": WHOLE - 1311} if number % 2 else {"new": 1400, "mid": WHOLE - 1400})
        for number, row in enumerate(World().log(13, 4000, "learnt"))
    ]
    verdict = judge(rows)
    [told] = verdict.tells
    assert told == "2.1% of the new policy's choices could not be drawn in this log; at most 1%"
    assert not verdict.may_roll_out


def test_too_few_effective_rows_are_refused() -> None:
    """An arm drawn with .02: 3,000 requests are worth 60 of it, not 200."""
    verdict = judge(World(explored=0.02).log(14, 3000, "small"))
    assert verdict.target is not None
    assert verdict.target.ess < 150
    assert any("labelled rows for the new policy; at least 200 are needed" in told for told in verdict.tells)
    assert not verdict.may_roll_out


def test_few_effective_rows_of_many_are_refused() -> None:
    """300 effective rows do for 9,000 labels, and not for 31,000: then the log hardly resembles the policy."""
    policy = {"a": 65_536 // 100, "b": WHOLE - 65_536 // 100}

    def rows(count: int, drawn: int) -> list[Logged]:
        return [
            Logged(
                f"s{number}", number, "a" if number * drawn % count < drawn else "b", policy, {"a": WHOLE}, policy,
                X[0], 500_000 + number % 2, 1000,
            )
            for number in range(count)
        ]  # fmt: skip

    assert judge(rows(9_000, 300)).tells == ()
    [told] = judge(rows(31_000, 300)).tells
    assert told == "the log is worth 300 labelled rows for the new policy; at least 310 are needed"


def test_one_heavy_session_is_refused() -> None:
    """One session with 40 times the others' probability ratio among 600 carries more than 5 %: told."""
    rows = World().log(15, 600, "logged")
    rare = dict.fromkeys(ARMS, 300) | {"mid": WHOLE - 600}
    heavy = replace(rows[0], arm="big", propensities=rare, target=alone("big"), current=rare)
    verdict = judge([heavy, *rows[1:]])
    assert verdict.target is not None
    assert verdict.target.greatest > 0.05
    assert any(told.startswith("one session carries") for told in verdict.tells)


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_log_without_labels_gives_no_estimate(labelled: int) -> None:
    """No labelled row, or all of one session: reasons, and no figure at all."""
    rows = [replace(row, cluster="one") for row in World().log(16, 10, "learnt")]
    verdict = judge([replace(row, reward=None) for row in rows] if not labelled else rows)
    assert (verdict.snips, verdict.dr, verdict.cost_nano) == (None, None, None)
    assert len(verdict.tells) == 1
    assert not verdict.may_roll_out


def test_an_empty_log_gives_no_estimate() -> None:
    """Nothing in, reasons out."""
    assert judge([]).tells == ("0 labelled rows of 0 sessions can be judged; at least 1 of 2 is needed",)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("propensities", {"propensities": {"big": 1, "mid": 65_536}}),
        ("target", {"target": {"big": 65_535}}),
        ("current", {"current": {"big": -1, "mid": 65_537}}),
        ("label_propensity", {"label_propensity": 0}),
        ("x", {"x": np.zeros(3, dtype=np.int16)}),
    ],
)
def test_rows_that_no_log_can_hold_are_refused(field: str, change: Mapping[str, object]) -> None:
    """Shares that do not sum to the whole, a label that had no chance, vectors of two bases: refused by the field's name."""
    rows = World().log(17, 50, "learnt")
    arm = "mid" if field == "propensities" else rows[0].arm
    with pytest.raises(Refused, match=rf"^{field}: .*; accepted: ") as refused:
        judge([replace(rows[0], arm=arm, **change), *rows[1:]])
    assert refused.value.field == field


# the gate


def test_a_worse_policy_is_held() -> None:
    """Everything to the small arm: quality may fall, said so; within the budget or not is said too."""
    verdict = judge(World().log(18, 8000, "small"), budget_nano=1)
    assert verdict.tells == ()
    assert [held.split(";")[0].split(" ")[0] for held in verdict.holds] == ["quality", "a"]
    assert not verdict.may_roll_out


def test_a_better_policy_within_its_budget_may_be_rolled_out() -> None:
    """Better by more than the interval's width: it may, at a budget above its cost, and may not below."""
    rows = World().log(19, 10_000, "learnt")
    cost = World().cost("learnt")
    assert judge(rows, budget_nano=int(cost * 1.1)).may_roll_out
    [held] = judge(rows, budget_nano=int(cost * 0.9)).holds
    assert held.startswith("a request would cost")


def test_the_weight_of_a_label_ends_at_20() -> None:
    """A label propensity of .01 weighs as much as one of .05."""
    rows = World().log(20, 400, "learnt")
    rare = [replace(row, label_propensity=3276 if number % 7 else 655) for number, row in enumerate(rows)]
    assert judge(rare) == judge([replace(row, label_propensity=3276) for row in rows])


def test_plain_is_json() -> None:
    """The verdict as JSON values, with the gate's word."""
    verdict = judge(World().log(21, 400, "learnt"))
    said = json.loads(json.dumps(verdict.plain()))
    assert said["may_roll_out"] is verdict.may_roll_out
    assert set(said["dr"]) == {"target", "current", "difference"}
    assert isinstance(verdict.dr, Compared)
    assert said["dr"]["target"] == {
        "value": verdict.dr.target.value,
        "low": verdict.dr.target.low,
        "high": verdict.dr.target.high,
    }


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_shares_sum_to_the_whole() -> None:
    """The world's own rounding."""
    odd: NDArray[np.float64] = np.array([[1 / 3, 1 / 3, 1 / 3], [0.0, 0.9, 0.1]])
    assert [sum(row.values()) for row in shares(odd)] == [WHOLE, WHOLE]
