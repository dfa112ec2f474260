"""How many more pairs: a forecast that is exact for the mix that it has seen, and honest about what it has not."""

import math
from typing import Any

import pytest
from arena_history import NUMBERS, History, T, coin
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.judge.arena import nulls_of, open_arena
from agents.judge.decide import COOLDOWN, GAIN, PAIRS, TIME, Around, look
from agents.judge.forecast import Forecast, Span, forecast, pairs_to, variance_of, words_of
from agents.rules.eprocess import Track, counted
from agents.rules.metrics import contrast
from agents.rules.wealth import log_of
from schemas.routes import Arm, JudgeSettings, Route

ARMS = (Arm(arm="old", base="b"), Arm(arm="new", base="b", adapter="sha256:new"))
NULLS = nulls_of(JudgeSettings(), None)
COUNTS = st.builds(
    Track,
    losses=st.integers(0, 200),
    ties=st.integers(0, 2000),
    wins=st.integers(0, 200),
    missing=st.integers(0, 50),
)
PLACES = [(track, null) for track in ("quality", "error", "cost") for null in NULLS[track].bets]


def made(judge: dict[str, Any] | None = None, at_ms: int = T + 600_000, **tracks: Track) -> Forecast:
    """The forecast of an arena that holds these tracks, ten minutes old."""
    numbers = JudgeSettings.model_validate(NUMBERS | (judge or {}))
    route = Route(route="r", compliance="off", arms=ARMS, champion="old", judge=numbers)
    arena = open_arena(*ARMS, route, now_ms=T, fresh_after_ms=T, alpha=numbers.alpha)
    pairs = max((track.n for track in tracks.values()), default=0)
    arena = arena.model_copy(update={"slowness": Track(ties=pairs), **tracks})
    around = Around(settings=numbers, now_ms=at_ms)
    arena, seen = look(arena, around)
    return forecast(arena, around, seen)


@settings(deadline=None)
@given(track=COUNTS, place=st.sampled_from(PLACES), level=st.floats(0.1, 10))
def test_the_range_holds_the_point_and_nothing_is_negative(track: Track, place: tuple[str, str], level: float) -> None:
    """low ≤ pairs ≤ high, where None is later than any number; below ten pairs nothing is said."""
    span = pairs_to(track, place[1], NULLS[place[0]], level)
    low, at, high = (math.inf if value is None else value for value in (span.low, span.pairs, span.high))
    assert 0 <= low <= at <= high
    assert track.n >= 10 or span == Span()


@settings(deadline=None)
@given(track=COUNTS, place=st.sampled_from(PLACES), times=st.integers(2, 6))
def test_more_of_the_same_evidence_needs_fewer_pairs(track: Track, place: tuple[str, str], times: int) -> None:
    """The same mix again: what was forecast has come, to the pair; the whole number of pairs stays what it was."""
    bets = NULLS[place[0]]
    more = Track(track.losses * times, track.ties * times, track.wins * times, track.missing * times)
    before, after = (pairs_to(one, place[1], bets, math.log(60)) for one in (track, more))
    if before.pairs is None or after.pairs is None or log_of(more.wealth(place[1], bets)) >= math.log(60):
        return
    assert after.pairs < before.pairs
    assert abs((after.pairs + more.n) - (before.pairs + track.n)) <= 1


def test_the_point_is_what_the_same_mix_would_do() -> None:
    """30 wins and 18 losses in 300 pairs: folded on at that mix, E crosses in the pairs forecast."""
    track, bets = Track(losses=18, ties=252, wins=30), NULLS["quality"]
    span = pairs_to(track, "better", bets, math.log(60))
    assert span.pairs is not None

    def log_e(more: float) -> float:
        scale = 1 + more / track.n
        parts = counted(bets.bets["better"], 18, 252, 30)
        weights = bets.bets["better"].weights
        logs = [math.log(w) + (log_of(p) - math.log(w)) * scale for w, p in zip(weights, parts, strict=True)]
        return math.log(sum(map(math.exp, logs)))

    assert log_e(span.pairs - 1) < math.log(60) <= log_e(span.pairs)


def test_equal_arms_are_not_promoted_at_this_rate() -> None:
    """As many wins as losses: no gain at this rate, in words too; the guardrails are a matter of pairs."""
    even = Track(losses=40, ties=420, wins=40)
    found = made(quality=even, latency=even, slowness=even, error=Track(ties=500), cost=Track(ties=500))
    assert found.conditions[GAIN].pairs is None
    assert found.overall.pairs is None
    assert words_of(found.overall).startswith("not at this rate")
    assert found.conditions["error not worse"].there


def test_a_challenger_that_is_worse_is_not_at_this_rate_even_at_best() -> None:
    """Twice as many losses as wins, often: no end of the range grows; the harm process has an end."""
    found = made(quality=Track(losses=100, ties=350, wins=50))
    quality = next(row for row in found.processes if row.name == "quality")
    assert quality.span == Span()
    assert words_of(quality.span) == "not at this rate"
    harm = next(row for row in found.processes if row.name == "quality_worse")
    assert harm.crossed or harm.span.pairs is not None


def test_what_is_reached_needs_nothing() -> None:
    """A process that has reached its level is there; one that then fell below 1 is to come back to 1."""
    numbers = JudgeSettings.model_validate(NUMBERS)
    route = Route(route="r", compliance="off", arms=ARMS, champion="old", judge=numbers)
    arena = open_arena(*ARMS, route, now_ms=T, fresh_after_ms=T, alpha=numbers.alpha)
    around = Around(settings=numbers, now_ms=T + 1000)
    good = arena.model_copy(update={"slowness": Track(ties=300), "error": Track(ties=300)})
    good, seen = look(good, around)
    assert next(row for row in forecast(good, around, seen).processes if row.name == "error_margin").span.there
    fallen, seen = look(
        good.model_copy(update={"slowness": Track(ties=360), "error": Track(ties=300, losses=60)}), around
    )
    row = next(row for row in forecast(fallen, around, seen).processes if row.name == "error_margin")
    assert row.again
    assert not row.span.there


def test_a_gain_below_its_bar_is_not_at_this_rate() -> None:
    """E has crossed, yet the estimate is one point of the two that the bar asks for: pairs alone do not help."""
    good = Track(losses=200, ties=9000, wins=300)
    found = made({"max_pairs": 20_000}, quality=good)
    quality = next(row for row in found.processes if row.name == "quality")
    assert quality.crossed
    assert found.conditions[GAIN].pairs is None


def test_cost_is_needed_only_where_an_arm_has_a_price() -> None:
    """Without a price there is no such condition and no such process; cost as a gain is still told."""
    even = Track(losses=40, ties=420, wins=40)
    assert "cost not worse" not in made(quality=even, cost=Track(ties=500)).conditions
    names = {row.name for row in made(quality=even).processes}
    assert {"cost", "error_margin"} <= names
    assert not {"cost_margin", "cost_harm", "cost_worse"} & names


def test_time_counts_beside_pairs() -> None:
    """The rate is pairs per minute of event time; what is left of time, pairs and the next look is said."""
    found = made({"min_time_s": 3600, "max_pairs": 500}, quality=Track(losses=10, ties=76, wins=34))
    assert found.a_minute == pytest.approx(12.0)
    assert found.time_left_ms == 3_000_000
    assert found.pairs_left == 380
    assert found.next_look == 10
    assert found.ms_of(24) == 120_000
    assert TIME not in found.conditions
    assert COOLDOWN not in found.conditions
    assert found.conditions[PAIRS].there


def test_nothing_yet() -> None:
    """An arena without pairs: no rate, no forecast, and the least number of pairs still to come."""
    found = made()
    assert found.a_minute is None
    assert found.conditions[PAIRS] == Span(pairs=100, low=100, high=100)
    assert all(row.span == Span() for row in found.processes)
    assert found.ms_of(100) is None


@pytest.mark.parametrize("ratio", [0.8, 0.95])
def test_the_variance_of_values_is_told_by_the_smallest_bets(ratio: float) -> None:
    """No squares are kept, yet the variance of F4 comes out within a tenth (beside the two wins and losses put in)."""
    factors = [math.exp(sum(coin(7, index, what) for what in "abc") - 1.5) for index in range(2000)]
    values = [contrast(1000, int(1000 * ratio * factor)) for factor in factors]
    track = Track()
    for value in values:
        track = track.add(value, NULLS["latency"])
    mean = sum(values) / len(values)
    true = sum((value - mean) ** 2 for value in values) / len(values)
    put_in = (2 * (1 - mean) ** 2 + 2 * (1 + mean) ** 2) / (len(values) + 4)
    assert variance_of(track, NULLS["latency"]) - put_in == pytest.approx(true, rel=0.1)


def test_values_are_forecast_as_counts_are() -> None:
    """A track of values all of one size, and the same track of twice the pairs: what was forecast has come."""
    track, double = Track(), Track()
    for index in range(400):
        value = 0.25 if index % 8 < 5 else -0.25
        double = double.add(value, NULLS["latency"])
        if index < 200:
            track = track.add(value, NULLS["latency"])
    before, after = (pairs_to(one, "better", NULLS["latency"], 20.0) for one in (track, double))
    assert before.pairs is not None
    assert after.pairs is not None
    assert abs(before.pairs - after.pairs - 200) <= 1


@pytest.mark.parametrize(("share", "null"), [(0.11, "better"), (0.08, "margin")])
def test_the_range_covers_what_comes(share: float, null: str) -> None:
    """Of 30 arenas forecast at pair 150, nine tenths cross within their range (drawn from names: always the same ones)."""
    bets, level, inside, asked = NULLS["quality"], math.log(60 if null == "better" else 20), 0, 0
    for seed in range(30):
        track, span, came = Track(), Span(), None
        for index in range(4000):
            drawn = coin(seed, index, null)
            track = track.add(1.0 if drawn < share else -1.0 if drawn < 0.16 else 0.0, bets)
            crossed = log_of(track.wealth(null, bets)) >= level
            if track.n == 150 and not crossed:
                span = pairs_to(track, null, bets, level)
            elif track.n >= 150 and crossed:
                came = track.n - 150
                break
            elif crossed:
                break
        if track.n <= 150:
            continue
        asked += 1
        low, high, at = (math.inf if value is None else value for value in (span.low, span.high, came))
        inside += low <= at <= high
    assert asked >= 15
    assert inside >= 0.9 * asked


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 60))
def test_any_arena_has_a_forecast(seed: int, count: int) -> None:
    """Whatever the judge has folded, failures too: the forecast is there, and looking changes nothing."""
    history = History()
    history.pairs(count, 0.5, 0.6, seed=seed, failing=0.1)
    bench, entries = history.state
    arena = next(entry.arena for entry in entries if entry.arena is not None)
    around = Around(settings=bench.settings.judge, now_ms=history.now)
    arena, seen = look(arena, around)
    found = forecast(arena, around, seen)
    assert set(found.conditions) == set(seen.conditions) - {TIME, COOLDOWN}
    assert look(arena, around)[1] == seen
