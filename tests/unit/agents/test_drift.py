"""Calibration and oscillation: they notice what is wrong, keep quiet about noise, and stay small."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router.drift import (
    MOST_ARMS,
    MOST_GRADES,
    MOST_KEYS,
    SWING_MS,
    Bin,
    Calibration,
    Oscillation,
    Swinging,
    preferred,
)

MICRO = 1_000_000


def graded(n: int, *, off: float, seed: int = 1, spread: tuple[float, float] = (0.6, 0.95)) -> Calibration:
    """n right-or-wrong grades of an arm whose quality is what was predicted plus `off`."""
    rng = np.random.default_rng(seed)
    found = Calibration()
    for predicted in rng.uniform(*spread, n):
        right = bool(rng.random() < predicted + off)
        found = found.add("a", int(predicted * MICRO), MICRO if right else 0)
    return found


def test_an_arm_as_good_as_predicted_raises_no_alarm() -> None:
    """Twenty calibrated arms with 2,000 grades of right or wrong each: not one decile cries wolf."""
    assert [graded(2000, off=0.0, seed=seed).alarms() for seed in range(20)] == [()] * 20


@pytest.mark.parametrize("off", [-0.15, 0.15])
def test_an_arm_that_changed_raises_an_alarm(off: float) -> None:
    """15 points worse, or better, than predicted: alarms in the arm's deciles, with the gap's sign and about its size."""
    alarms = graded(4000, off=off, spread=(0.5, 0.8)).alarms()
    assert len(alarms) >= 5
    assert all(gap.arm == "a" and gap.n >= 100 and abs(gap.gap - off * MICRO) < 100_000 for gap in alarms)


def test_a_gap_needs_a_hundred_grades() -> None:
    """However large the gap: 99 grades say nothing, the 100th speaks."""
    found = Calibration()
    for _ in range(99):
        found = found.add("a", 900_000, 500_000)
    assert found.alarms() == ()
    [gap] = found.add("a", 900_000, 500_000).alarms()
    assert gap == ("a", 5, 100, 900_000, -400_000, True)


def test_a_gap_needs_five_points() -> None:
    """A gap of exactly .05, however certain, is none."""
    found = Calibration()
    for _ in range(1000):
        found = found.add("a", 900_000, 850_000)
    assert found.alarms() == ()
    for _ in range(1000):
        found = found.add("a", 900_000, 849_000)
    assert len(found.alarms()) == 1


def test_deciles_hold_a_tenth_of_the_grades_each() -> None:
    """Predictions between .6 and .95 fill all ten deciles, from the lowest up, with about a tenth of the grades in each."""
    gaps = list(graded(3000, off=0.0).gaps())
    assert [gap.decile for gap in gaps] == list(range(10))
    assert all(200 <= gap.n <= 400 for gap in gaps)
    assert all(low.predicted < high.predicted for low, high in pairwise(gaps))


def test_seldom_labelled_answers_weigh_more() -> None:
    """Half the answers are wrong and reviewed nine times as often: weighted by inverse label propensity the gap is gone."""
    weighted, naive = Calibration(), Calibration()
    for _ in range(90):
        weighted, naive = weighted.add("a", 500_000, 0, 58_982), naive.add("a", 500_000, 0)
    for _ in range(10):
        weighted, naive = weighted.add("a", 500_000, MICRO, 6_554), naive.add("a", 500_000, MICRO)
    assert weighted.alarms() == ()
    [gap] = weighted.gaps()
    assert abs(gap.gap) < 10_000
    assert [gap.gap for gap in naive.alarms()] == [-400_000]


def test_old_grades_fade() -> None:
    """An arm that got better is calibrated again after as many grades as it remembers, and its counts stay bounded."""
    found = Calibration()
    for _ in range(MOST_GRADES):
        found = found.add("a", 700_000, 500_000)
    assert len(found.alarms()) == 1
    for _ in range(2 * MOST_GRADES):
        found = found.add("a", 700_000, 700_000)
    assert found.alarms() == ()
    assert sum(part.n for part in found.arms["a"].values()) <= MOST_GRADES


def test_the_memory_is_bounded() -> None:
    """More arms, keys and predictions than are kept: the sizes stop, and the newest are there."""
    calibration, oscillation = Calibration(), Oscillation()
    for number in range(2 * MOST_ARMS):
        calibration = calibration.add(f"arm{number:03}", 500_000, 500_000)
    for number in range(2 * MOST_KEYS):
        oscillation, _ = oscillation.see(f"key{number:03}", "a", number)
    assert len(calibration.arms) == MOST_ARMS
    assert f"arm{2 * MOST_ARMS - 1:03}" in calibration.arms
    assert set(oscillation.keys) == {f"key{number:03}" for number in range(MOST_KEYS, 2 * MOST_KEYS)}
    many = graded(3 * MOST_GRADES, off=0.0, spread=(0.0, 1.0))
    assert len(many.arms["a"]) <= 100
    assert len(many.model_dump_json()) < 10_000


@pytest.mark.parametrize(
    ("predicted", "grade", "label_propensity"),
    [(-1, 0, 1), (0, MICRO + 1, 1), (MICRO + 1, 0, 1), (0, 0, 0), (0, 0, 65_537)],
)
def test_an_impossible_grade_changes_nothing(predicted: int, grade: int, label_propensity: int) -> None:
    """Outside its range it is refused, and what was there stays."""
    before = Calibration().add("a", 500_000, 500_000)
    said = before.model_dump_json()
    with pytest.raises(ValueError, match="accepted: 0 to 1000000"):
        before.add("a", predicted, grade, label_propensity)
    assert before.model_dump_json() == said


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, MICRO), st.integers(0, MICRO)), max_size=30))
def test_calibration_survives_json(rows: list[tuple[str, int, int]]) -> None:
    """Saved as JSON and read back after every grade: the same state as uninterrupted."""
    straight = saved = Calibration()
    for arm, predicted, grade in rows:
        straight = straight.add(arm, predicted, grade)
        saved = Calibration.model_validate(json.loads(json.dumps(saved.add(arm, predicted, grade).model_dump())))
    assert saved == straight
    assert list(saved.gaps()) == list(straight.gaps())


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("abc"), st.integers(0, 10**6)), max_size=40))
def test_oscillation_survives_json(rows: list[tuple[str, str, int]]) -> None:
    """Saved and read back after every sight: the same state, the same alarms."""
    straight = saved = Oscillation()
    for key, arm, at_ms in rows:
        straight, one = straight.see(key, arm, at_ms)
        moved, other = saved.see(key, arm, at_ms)
        saved = Oscillation.model_validate_json(moved.model_dump_json())
        assert one == other
    assert saved == straight


def seen(arms: str, step_ms: int = 1000, start_ms: int = 0) -> tuple[Oscillation, list[tuple[int, Swinging]]]:
    """These arms preferred in turn: the state, and the alarms with the number of the sight."""
    state, told = Oscillation(), []
    for number, arm in enumerate(arms):
        state, alarm = state.see("tier/complex", arm, start_ms + number * step_ms)
        if alarm is not None:
            told.append((number, alarm))
    return state, told


def test_going_back_and_forth_is_told_once() -> None:
    """The fourth A→B→A within ten minutes raises the alarm; more of them say nothing new."""
    _, told = seen("abababababab")
    assert told == [(5, Swinging("tier/complex", "b", "a", 4))]


@pytest.mark.parametrize("arms", ["aaaaaaaaaa", "abcdefghij", "aabbccdd", "ababa", "abcabcabcabc"])
def test_what_is_no_oscillation(arms: str) -> None:
    """Staying, moving on, three swings, a round of three: no alarm."""
    assert seen(arms)[1] == []


def test_slow_swings_are_no_oscillation() -> None:
    """The same swings, more than ten minutes for four of them: no alarm."""
    assert seen("abababababab", step_ms=SWING_MS // 4 + 1)[1] != []
    assert seen("abababababab", step_ms=SWING_MS // 3 + 1)[1] == []


def test_it_is_told_again_after_a_calm() -> None:
    """Ten quiet minutes clear the alarm, and the next oscillation is told."""
    state, told = seen("abababab")
    assert len(told) == 1
    at = 8000 + SWING_MS
    state, alarm = state.see("tier/complex", "b", at)
    assert alarm is None
    alarms = []
    for number, arm in enumerate("abababab"):
        state, alarm = state.see("tier/complex", arm, at + number * 1000)
        alarms.append(alarm)
    assert sum(alarm is not None for alarm in alarms) == 1


def test_time_does_not_run_backwards() -> None:
    """Late events count at the latest time seen: they neither crash nor clear the window."""
    state = Oscillation()
    for at_ms, arm in ((5000, "a"), (1000, "b"), (4000, "a"), (0, "b")):
        state, _ = state.see("x", arm, at_ms)
    assert state.keys["x"].swings == (5000, 5000)


def test_a_switch_needs_a_point() -> None:
    """The current arm stays until another is .01 better, or it is gone; ties go by id."""
    assert preferred("a", {"a": 900_000, "b": 909_999}) == "a"
    assert preferred("a", {"a": 900_000, "b": 910_000}) == "b"
    assert preferred("z", {"b": 900_000, "a": 900_000}) == "a"


def test_halving_keeps_the_mean() -> None:
    """Half of every sum: the ratios stay."""
    assert Bin(10, 160, 8_000, -320, 9_000).halved() == (5, 80, 4_000, -160, 4_500)
