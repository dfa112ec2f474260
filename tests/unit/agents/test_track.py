"""What is kept of a metric's pairs: every pair once, counts free of order, and the same bits after every save."""

import json
import math
import random  # noqa: TID251 hypothesis draws and seeds it
import subprocess
import sys
from pathlib import Path

import pytest
from drawn import uniforms
from fair import ALL, folded, wealths
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.eprocess import Track
from agents.rules.wealth import log_of

differences = st.sampled_from([-1.0, 0.0, 1.0, None])
values = st.floats(min_value=-1.0, max_value=1.0)


def drawn(n: int, seed: int) -> list[float | None]:
    """Counts, missing verdicts and values, mixed."""
    row: list[float | None] = []
    for u in uniforms(seed):
        row.append((-1.0, 0.0, 1.0, None)[int(u * 8)] if u < 0.5 else 4.0 * u - 3.0)
        if len(row) == n:
            return row
    raise AssertionError


@given(st.lists(differences, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_counts_are_free_of_order(row: list[float | None], shuffler: random.Random) -> None:
    """Any permutation of wins, ties, losses and missing verdicts is the same track, so the same bits against every null."""
    turned = list(row)
    shuffler.shuffle(turned)
    one, other = folded(row), folded(turned)
    assert one == other
    assert wealths(one) == wealths(other)


@given(st.lists(st.lists(differences, max_size=15), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_a_merge_equals_folding_in_any_order(parts: list[list[float | None]]) -> None:
    """Tracks of counts merged forwards, backwards or never split are the same."""
    tracks = [folded(part) for part in parts]
    whole = folded([d for part in parts for d in part])
    forwards, backwards = Track(), Track()
    for track in tracks:
        forwards = forwards.merge(track)
    for track in reversed(tracks):
        backwards = track.merge(backwards)
    assert forwards == backwards == whole
    assert forwards.to_json() == whole.to_json()


def test_a_merge_refuses_values() -> None:
    """A track that holds one value that is no -1, 0 or 1 merges with none, from either side."""
    graded, counts = folded([0.5, 1.0]), folded([1.0, None])
    for one, other in ((graded, counts), (counts, graded), (graded, graded)):
        with pytest.raises(ValueError, match="only counts merge exactly"):
            one.merge(other)


@pytest.mark.parametrize("d", [1.5, -1.0000000000000002, math.nan, math.inf, -math.inf])
def test_a_value_outside_its_range_is_refused(d: float) -> None:
    """A D beyond one would break the bound on the bets: it is named, and the track stands as before."""
    track = folded([0.25, 1.0, None])
    before = track.to_json()
    with pytest.raises(ValueError, match="accepted: -1 to 1"):
        track.add(d, ALL)
    assert track.to_json() == before


def test_whole_values_are_counted() -> None:
    """-1, 0, -0 and 1 are counts; the floats next to them are values."""
    assert folded([-1.0, 0.0, -0.0, 1.0, 1.0, None]) == Track(losses=1, ties=2, wins=2, missing=1)
    beside = [math.nextafter(1.0, 0.0), math.nextafter(-1.0, 0.0), 5e-324, -5e-324]
    assert folded(beside).others == 4


@given(st.lists(st.one_of(values, st.none()), max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_track_says_how_many_and_their_mean(row: list[float | None]) -> None:
    """Every pair is counted once, and the mean is theirs with a missing verdict as 0."""
    track = folded(row)
    assert track.n == len(row)
    if row:
        assert track.mean == pytest.approx(math.fsum(d or 0.0 for d in row) / len(row), abs=1e-12)
    else:
        assert track.mean is None


@given(st.lists(st.one_of(values, differences), max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_wealth_lies_between_its_bets(row: list[float | None]) -> None:
    """E is at least each bet's share of it and at most the best bet's product: against logarithms, for every null."""
    track = folded(row)
    for name, bets in ALL.bets.items():
        seen = [float(bets.missing) if d is None else d for d in row]
        products = [math.fsum(math.log1p(f * (bets.sign * d + bets.offset)) for d in seen) for f in bets.fractions]
        found = log_of(track.wealth(name, ALL))
        least = max(log + math.log(w) for log, w in zip(products, bets.weights, strict=True))
        assert least - 1e-9 <= found <= max(products) + 1e-9


# the same bits


def test_saving_after_every_pair_changes_no_bit() -> None:
    """Through JSON after each pair, or not at all: the same packed state and the same wealth, at every look."""
    straight = saved = Track()
    for d in drawn(300, 5):
        straight = straight.add(d, ALL)
        saved = Track.of_json(saved.to_json()).add(d, ALL)
        assert saved.to_json() == straight.to_json()
    assert straight.others > 64
    assert wealths(saved) == wealths(straight)
    assert len(straight.to_json()) < 2000


ELSEWHERE = """
import json, sys
from agents.rules.eprocess import Nulls, Track, gain_bets, margin_bets, win_bets, worse_bets
asked = json.load(sys.stdin)
nulls = Nulls(win=win_bets(), gain=gain_bets(), margin=margin_bets(.03), harm=margin_bets(.05), worse=worse_bets(.01))
track = Track.of_json(asked["track"])
for d in asked["row"]:
    track = Track.of_json(track.add(d, nulls).to_json())
print(json.dumps([track.to_json(), {name: track.wealth(name, nulls) for name in nulls.bets}]))
"""


@pytest.mark.parametrize("seed", ["1", "4711"])
def test_another_process_goes_on_to_the_same_bits(seed: str) -> None:
    """Half the pairs here, the state through JSON, the rest in another process with another hash seed: as uninterrupted."""
    row = drawn(400, 9)
    here = folded(row)
    asked = json.dumps({"track": folded(row[:200]).to_json(), "row": row[200:]})
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=asked,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": root},
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    state, found = json.loads(done.stdout)
    assert state == here.to_json()
    assert {name: tuple(wealth) for name, wealth in found.items()} == wealths(here)
