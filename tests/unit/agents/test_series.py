"""The estimate from Prometheus series: counters with restarts, histograms, queues, several engines."""

from collections.abc import Callable, Mapping

import pytest

from agents.router.series import Names, Point, estimate, loads
from schemas.errors import Refused

T = 1_700_000_000_000
NAMES = Names()
BOUNDS = (0.1, 0.2, 0.5, 1.0, 5.0)


class Exporter:
    """An engine that is scraped: so many calls a second that take so long each."""

    def __init__(self, arm: str = "base", instance: str = "one") -> None:
        self.labels = {"model_name": arm, "instance": instance}
        self.points: list[Point] = []
        self.restart()

    def restart(self) -> None:
        self.calls, self.busy_s, self.counts = 0, 0.0, dict.fromkeys(BOUNDS, 0)

    def add(self, calls: int, latency_s: float) -> None:
        self.calls += calls
        self.busy_s += calls * latency_s
        for bound in BOUNDS:
            self.counts[bound] += calls * (latency_s <= bound)

    def scrape(self, at_ms: int, waiting: int = 0) -> None:
        def put(name: str, value: float, **more: str) -> None:
            self.points.append((name, self.labels | more, at_ms, value))

        put(NAMES.calls, self.calls)
        put(NAMES.tokens_in, 100 * self.calls)
        put(NAMES.tokens_out, 20 * self.calls)
        put(NAMES.waiting, waiting)
        put(NAMES.latency + "_sum", self.busy_s)
        for bound, count in self.counts.items():
            put(NAMES.latency + "_bucket", count, le=str(bound))
        put(NAMES.latency + "_bucket", self.calls, le="+Inf")
        put("vllm:something_else", 3.0)


def scraped(load: Callable[[int], tuple[int, float]], minutes: int = 10, every_s: int = 10, **more: str) -> Exporter:
    """An engine over some minutes; `load` of a second gives calls and how long each takes."""
    engine = Exporter(**more)
    for second in range(60 * minutes + 1):
        if second % every_s == 0:
            engine.scrape(T + 1000 * second)
        engine.add(*load(second))
    return engine


def steady(_: int) -> tuple[int, float]:
    return 2, 0.15


@pytest.mark.parametrize("every_s", [5, 10, 15, 60])
def test_a_steady_engine_is_read_right_however_often_it_is_scraped(every_s: int) -> None:
    """Rate, tokens, calls at work and the percentile, to the histogram's bounds."""
    (arm,) = estimate(scraped(steady, every_s=every_s).points)
    assert (arm.arm, arm.rate_milli, arm.tokens_s, arm.replicas, arm.warm) == ("base", 2000, 240, 1, True)
    assert abs(arm.busy_milli - 300) <= 3
    assert 180 <= arm.p95_ms <= 225


def test_the_order_of_the_points_does_not_matter() -> None:
    """Neither of names nor of times."""
    points = scraped(steady).points
    assert estimate(points) == estimate(list(reversed(points)))


def test_a_restart_is_no_gain_of_everything_and_no_loss() -> None:
    """A counter that falls has begun anew: what it shows is what it gained since."""
    engine = Exporter()
    for second in range(601):
        if second % 10 == 0:
            engine.scrape(T + 1000 * second)
        if second == 305:
            engine.restart()
        engine.add(*steady(second))
    (arm,) = estimate(engine.points)
    assert 1850 <= arm.rate_milli <= 2010
    assert arm.busy_milli <= 301


def overloaded(second: int) -> tuple[int, float]:
    """Ten calls a second in a fifth of a second each, then sixty in four."""
    return (10, 0.2) if second < 480 else (60, 4.0)


def test_what_one_engine_holds_is_measured() -> None:
    """2 calls at work kept the limit, 240 did not: so many engines for 60 calls a second."""
    (arm,) = estimate(scraped(overloaded).points, 500)
    assert "one holds 4 at work within 500 ms" in arm.why
    assert 4 <= arm.replicas <= 6


def test_engines_are_counted_by_their_labels() -> None:
    """Two engines that bear the same load together hold half of it each."""
    both = [engine.points for engine in (scraped(overloaded), scraped(overloaded, instance="two"))]
    merged = [point for points in both for point in points]
    found: Mapping[int, int | None] = loads(merged, NAMES).replicas
    assert set(found.values()) == {2}
    (arm,) = estimate(merged, 500)
    assert "one holds 4 at work within 500 ms" in arm.why
    assert 8 <= arm.replicas <= 12
    assert abs(arm.rate_milli - 2 * estimate(both[0], 500)[0].rate_milli) <= 1


def test_a_queue_is_demand() -> None:
    """What waits now shall be worked off within a minute."""
    engine = scraped(overloaded)
    before = estimate(engine.points, 500)[0].replicas
    engine.scrape(T + 601_000, waiting=6000)
    (arm,) = estimate(engine.points, 500)
    assert arm.replicas > before
    assert arm.why.endswith("6000 wait")


def test_too_little_is_refused() -> None:
    """Nothing, one scrape, and series of something else."""
    engine = Exporter()
    engine.add(10, 0.1)
    engine.scrape(T)
    for points in ([], engine.points, [("up", {"job": "x"}, T, 1.0), ("up", {"job": "x"}, T + 60_000, 1.0)]):
        with pytest.raises(Refused, match="scraped at least twice"):
            estimate(points)
