"""The learner: what it keeps, what a decision reads of it, and what bytes it refuses."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router import learner, packing, snapshot
from agents.router.learner import Posterior, amend, forget, observe, pooled, prior, rebased, weight_of
from agents.router.snapshot import Factor, Mean, Snapshot, mean_of, predict, predict_all, snapshot_of, stacked
from schemas.errors import Refused

DIMS = 12
BLOCKS = [(1, 0.01), (4, 1.0), (7, 3.0)]


def vector(seed: int, dims: int = DIMS) -> np.ndarray:
    """Features of a usual size, with the bias."""
    found = np.random.default_rng(seed).normal(0, 4096, dims).clip(-32768, 32767).astype(np.int16)
    found[0] = learner.ONE
    return found


def learnt(cases: int = 60, dims: int = DIMS, seed: int = 0) -> Posterior:
    """A posterior of some cases."""
    rng = np.random.default_rng(seed)
    found = prior(BLOCKS if dims == DIMS else [(dims, 1.0)])
    for at in range(cases):
        found = observe(found, vector(seed * 1000 + at, dims), int(rng.integers(0, 1_000_001)), 1.0)
    return found


def same(one: Posterior, other: Posterior) -> bool:
    """To the bit."""
    return one.to_bytes() == other.to_bytes()


def near(one: Posterior, other: Posterior) -> bool:
    """To what the order of float operations may change."""
    return np.allclose(one.a, other.a, rtol=1e-10, atol=1e-9) and np.allclose(one.b, other.b, rtol=1e-10, atol=1e-6)


def test_it_is_the_ridge_regression() -> None:
    """Mean and deviation are those of the closed form."""
    found, x = learnt(), vector(5)
    rows = np.stack([vector(at) for at in range(60)]) / learner.ONE
    qualities = np.random.default_rng(0).integers(0, 1_000_001, 60)
    ridge = np.array([scale for length, scale in BLOCKS for _ in range(length)])
    a = np.diag(ridge) + rows.T @ rows
    assert np.allclose(found.mean(), np.linalg.solve(a, rows.T @ qualities))
    real = x / learner.ONE
    quality, deviation = predict(snapshot_of(found), x)
    assert abs(quality - real @ found.mean()) < 10
    exact = 1e6 * math.sqrt(real @ np.linalg.solve(a, real))
    assert abs(deviation - exact) < 1e-3 * exact


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 59), st.sampled_from([1.0, 0.25, 20.0, 3.7]))
def test_an_amended_case_equals_the_right_one_folded(old: int, new: int, seed: int, weight: float) -> None:
    """Without forgetting to the bit, whatever came between."""
    start, x = learnt(5), vector(seed)
    wrong = observe(observe(start, x, old, weight), vector(99), 500_000)
    right = observe(observe(start, x, new, weight), vector(99), 500_000)
    assert same(amend(wrong, x, old, new, weight), right)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 500))
def test_an_amended_case_equals_the_right_one_though_it_was_forgotten_meanwhile(old: int, new: int, gone: int) -> None:
    """The correction fades as the case did."""
    start, x = forget(learnt(5), 40), vector(3)

    def folded(quality: int) -> Posterior:
        return forget(observe(start, x, quality), gone)

    assert near(amend(folded(old), x, old, new, since=start.cases), folded(new))


@given(st.permutations(range(8)))
def test_the_order_of_cases_is_nothing(order: list[int]) -> None:
    """Sums of whole 4,096ths and 1,024ths are exact."""
    start = prior(BLOCKS)
    one = other = start
    for at in range(8):
        one = observe(one, vector(at), 100_000 * at, 0.25)
        other = observe(other, vector(order[at]), 100_000 * order[at], 0.25)
    assert same(one, other)


def test_forgetting_ends_at_the_warm_start() -> None:
    """After very many cases only the warm start is left, and its mean."""
    warm = rebased(learnt())
    drifted = warm
    for at in range(30):
        drifted = observe(drifted, vector(at), 0)
    assert not np.allclose(drifted.mean(), warm.mean())
    gone = forget(drifted, 100_000)
    assert np.allclose(gone.mean(), warm.mean())
    assert gone.mass < 1e-9
    assert gone.cases == 100_000


def test_forgetting_step_by_step_is_forgetting_at_once() -> None:
    """Cases gone by add up."""
    one = learnt(10)
    stepwise = one
    for _ in range(50):
        stepwise = forget(stepwise)
    assert near(stepwise, forget(one, 50))


def test_a_warm_start_keeps_what_was_learnt() -> None:
    """Rebasing changes no prediction."""
    found = learnt()
    assert np.allclose(rebased(found).mean(), found.mean())
    assert np.allclose(rebased(found).warm_a, found.warm_a + found.a)


def test_a_pooled_start_lies_between_the_arms() -> None:
    """An arm without cases starts from all of them, in part."""
    low, high = prior(BLOCKS), prior(BLOCKS)
    for at in range(40):
        low, high = observe(low, vector(at), 200_000), observe(high, vector(at), 800_000)
    start = pooled([low, high], 0.5, BLOCKS)
    assert low.mean()[0] < start.mean()[0] < high.mean()[0]


@pytest.mark.parametrize(
    ("verdict", "propensity", "weight"),
    [(True, 65_536, 1.0), (False, 65_536, 0.25), (True, 32_768, 2.0), (True, 1, 20.0), (False, 1, 5.0)],
)
def test_a_label_weighs_by_its_kind_and_its_chance(verdict: bool, propensity: int, weight: float) -> None:
    """A rare label weighs more, up to 20 times."""
    assert weight_of(verdict, propensity) == weight


@pytest.mark.parametrize("propensity", [0, -1, 65_537])
def test_a_label_without_a_chance_is_none(propensity: int) -> None:
    """It is refused, not divided by."""
    with pytest.raises(ValueError, match="label_propensity"):
        weight_of(True, propensity)


@pytest.mark.parametrize("weight", [0.0, -1.0, 20.1, math.nan, math.inf])
def test_a_weight_is_positive_and_bounded(weight: float) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="weight"):
        observe(prior(BLOCKS), vector(1), 1, weight)


def test_features_of_another_basis_are_refused() -> None:
    """By the learner and by the decision, with the lengths."""
    found, wrong = learnt(), vector(1, DIMS + 1)
    with pytest.raises(Refused, match="accepted: int16 of shape"):
        observe(found, wrong, 1)
    with pytest.raises(Refused, match="accepted: int16 of shape"):
        predict(snapshot_of(found), wrong)
    with pytest.raises(Refused, match="accepted: int16"):
        predict(snapshot_of(found), vector(1).astype(np.int64))
    with pytest.raises(Refused, match="all of one basis"):
        stacked([snapshot_of(found), snapshot_of(learnt(dims=DIMS + 1))])


KEPT: list[tuple[str, Callable[[], bytes], Callable[[bytes, int | None], bytes]]] = [
    ("posterior", lambda: learnt().to_bytes(), lambda data, dims: Posterior.from_bytes(data, dims).to_bytes()),
    (
        "snapshot",
        lambda: snapshot_of(learnt()).to_bytes(),
        lambda data, dims: Snapshot.from_bytes(data, dims).to_bytes(),
    ),
    ("mean", lambda: mean_of(learnt()).to_bytes(), lambda data, dims: Mean.from_bytes(data, dims).to_bytes()),
    (
        "factor",
        snapshot_of(learnt()).factor.to_bytes,
        lambda data, dims: Factor.from_bytes(data, dims).to_bytes(),
    ),
]


@pytest.mark.parametrize(("name", "written", "read"), KEPT, ids=[row[0] for row in KEPT])
def test_bytes_are_read_back_to_the_bit(
    name: str, written: Callable[[], bytes], read: Callable[[bytes, int | None], bytes]
) -> None:
    """Writing what was read gives the same bytes."""
    data = written()
    assert read(data, None) == data
    assert read(data, DIMS) == data


@pytest.mark.parametrize(("name", "written", "read"), KEPT, ids=[row[0] for row in KEPT])
def test_bytes_that_are_none_are_refused(
    name: str, written: Callable[[], bytes], read: Callable[[bytes, int | None], bytes]
) -> None:
    """Cut, prolonged, changed anywhere, of a later version, of other features: `Refused`, each with its kind."""
    data = written()
    for bad in (b"", data[:5], data[:-1], data[:-9], data + b"\0", b"XXXX" + data[4:]):
        with pytest.raises(Refused) as fault:
            read(bad, None)
        assert fault.value.kind == "damaged"
    for at in range(6, len(data), max(1, len(data) // 40)):
        with pytest.raises(Refused):
            read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], None)
    later = data[:4] + (packing.VERSION + 1).to_bytes(2, "little") + data[6:]
    with pytest.raises(Refused) as fault:
        read(later, None)
    assert fault.value.kind == "from-the-future"
    with pytest.raises(Refused) as fault:
        read(data, DIMS + 1)
    assert fault.value.kind == "wrong-dims"


def test_sealed_bytes_of_too_much_or_too_little_are_refused() -> None:
    """A right checksum does not make a wrong length right, nor a number that is none."""
    for content in (
        b"",
        b"\x02\0\0" + bytes(8),
        b"\x01\0\0" + bytes(8 + 4 + 1),
        b"\0\0\0" + bytes(8),
        b"\x01\0\x7f" + bytes(12),
    ):
        with pytest.raises(Refused, match="mean: damaged"):
            Mean.from_bytes(packing.sealed(b"RLME", content))
    endless = replace(learnt(), b=np.full(DIMS, np.inf))
    with pytest.raises(Refused, match="not finite"):
        Posterior.from_bytes(endless.to_bytes())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_prediction_is_whole_numbers_of_any_size(data: st.DataObject) -> None:
    """Any int16 features on any admissible snapshot: as computed in unbounded integers, the factor's bits cut as told."""
    dims = data.draw(st.sampled_from([1, 2, 7]))

    def ints(low: int, high: int, count: int) -> np.ndarray:
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    x = ints(-32768, 32767, dims).astype(np.int16)
    mean = Mean(ints(-(2**31), 2**31 - 1, dims).astype(np.int32), data.draw(st.integers(-12, 40)), 0)
    packed = dims * (dims + 1) // 2
    factor = Factor(ints(-32768, 32767, packed).astype(np.int16), data.draw(st.integers(-12, 40)), 0)
    quality, deviation = predict(Snapshot.from_bytes(Snapshot(mean, factor).to_bytes()), x)
    exact = sum(int(m) * int(v) for m, v in zip(mean.values, x, strict=True)) >> (mean.shift + 12)
    assert quality == max(-snapshot.MOST, min(exact, snapshot.MOST))
    rows, at = [], 0
    for row in range(dims):
        rows.append(sum(int(factor.values[at + k]) * int(x[k]) for k in range(row + 1)))
        at += row + 1
    square = Fraction(sum(one * one for one in rows) * 10**12) / Fraction(4) ** (factor.shift + 12)
    assert abs(deviation - min(math.isqrt(int(square)), snapshot.MOST)) <= 1 + deviation * dims / 2**20


def test_no_sum_overflows_at_the_extremes() -> None:
    """The most features of the largest size, all signs alike: the sums are those of unbounded integers."""
    dims = learner.MOST_DIMS
    x = np.full(dims, -32768, np.int16)
    mean = Mean(np.full(dims, -(2**31), np.int32), 19, 0)
    factor = Factor(np.full(dims * (dims + 1) // 2, -32768, np.int16), 15, 0)
    qualities, deviations = predict_all(stacked([Snapshot(mean, factor)]), x)
    assert qualities == [dims * 2**46 >> 31]
    exact = math.sqrt(sum((8.0 * row) ** 2 for row in range(1, dims + 1))) * 1e6
    assert deviations == [min(int(exact), snapshot.MOST)]
    small = Factor(np.full(dims * (dims + 1) // 2, -32768, np.int16), 40, 0)
    assert 0 < predict(Snapshot(mean, small), x)[1] < exact


def test_arms_together_are_the_arms_alone() -> None:
    """A stack gives each arm what it gives alone."""
    arms = [snapshot_of(learnt(seed=seed, cases=20 + 30 * seed)) for seed in range(4)]
    x = vector(77)
    qualities, deviations = predict_all(stacked(arms), x)
    assert list(zip(qualities, deviations, strict=True)) == [predict(one, x) for one in arms]
    assert snapshot.gains(qualities, 1)[1] == 0
    assert snapshot.value_at(arms[2].mean, x) == qualities[2]


def test_a_deviation_falls_as_cases_come() -> None:
    """What was seen often is known."""
    x = vector(4)
    few, many = learnt(5), learnt(5)
    for _ in range(50):
        many = observe(many, x, 500_000)
    assert predict(snapshot_of(many), x)[1] < predict(snapshot_of(few), x)[1] / 2


@pytest.mark.parametrize("blocks", [[], [(3, 0.0)], [(3, -1.0)], [(1025, 1.0)], [(2, math.inf)]])
def test_a_prior_has_ridges(blocks: list[tuple[int, float]]) -> None:
    """Without them the sums have no inverse."""
    with pytest.raises(ValueError, match="accepted"):
        prior(blocks)


def test_a_prior_may_have_a_mean() -> None:
    """It is what is predicted before any case."""
    assert np.allclose(prior([(3, 2.0)], [900_000, 5, -7]).mean(), [900_000, 5, -7])
    with pytest.raises(ValueError, match="accepted: 3"):
        prior([(3, 2.0)], [1])
