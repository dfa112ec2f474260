"""The benchmark of decisions: its options, its percentiles, its world, its report. The measurement is an integration test."""

from pathlib import Path

import pytest

from agents.router.actor import Router
from agents.router.around import StoreAround
from infra.clock import SystemClock
from infra.store import MemoryStore
from schemas.errors import Refused
from schemas.events import DecisionRouted
from streams.shapes import Emit
from streams.wire import Verbatim, cause_of, decode, outgoing, partition_of
from tools.bench import gateway, gateway_parts, gateway_run, gateway_worker, gateway_world
from tools.bench.gateway_run import Samples, Watched, number_of

TEXTS = gateway_world.texts_of()[:120]
NOW = SystemClock().now_ms()
WORLD = gateway_world.world(TEXTS, NOW)


def router(store=None, world=WORLD):
    clock, store = SystemClock(), store or MemoryStore()
    table = gateway_parts.Table(world.policies)
    around = StoreAround(store, clock)
    return Router(table, store, around, gateway_parts.Nowhere(), clock, lambda tenant: b"key", artifact=world.artifact)


def events(count, route=gateway_world.FULL):
    return [decode(row, 1) for row in gateway_parts.events_of(WORLD, count, NOW, route, "t")]


@pytest.mark.parametrize(
    "options",
    [
        ["--rate", "fast"],
        ["--rate", "0"],
        ["--rate", "nan"],
        ["--seconds", "0"],
        ["--partitions", "65"],
        ["--replays", "0"],
        ["--skip"],
        ["more"],
    ],
)
def test_bad_options_are_refused(options):
    """Options that are not understood are refused with the usage, before a server starts."""
    with pytest.raises(Refused, match="ratchet bench gateway"):
        gateway.options_of(options)


def test_options_as_promised():
    """1,000 requests per second for 60 s and 20 replays, unless said otherwise."""
    chosen = gateway.options_of([])
    assert (chosen.rate, chosen.seconds, chosen.replays, chosen.skip_ope, chosen.data) == (1000, 60, 20, False, None)
    assert gateway.options_of(["--data", "x.jsonl", "--skip-ope"]).data == Path("x.jsonl")


def test_percentiles_are_values_that_were_seen():
    """Nearest rank: at least that share of all is at or below it; of nothing they are 0."""
    found = gateway.percentiles([float(n) for n in range(1, 1001)])
    assert found == {"p50": 500.0, "p99": 990.0, "p999": 999.0, "max": 1000.0}
    assert gateway.percentiles([7.0]) == {"p50": 7.0, "p99": 7.0, "p999": 7.0, "max": 7.0}
    assert gateway.percentiles([]) == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}


async def test_the_measured_route_has_everything_on():
    """Its decisions are balanced, with features, quality of every arm, a budget's ledger, a cache key and no refusal."""
    agent = router()
    for event in events(8):
        [made] = [emit.payload for emit in await agent(event)]
        assert isinstance(made, DecisionRouted)
        assert made.strategy in ("balanced", "session")
        assert made.routing.features
        assert made.routing.basis == WORLD.basis.digest
        assert made.routing.observed.probe == "miss"
        assert made.routing.observed.spent_nano_usd is not None
        assert made.cache_key
        assert sorted(row.arm for row in made.arms) == ["big", "outside", "small"]
        assert all(row.terms.quality is not None and not row.masks for row in made.arms)


async def test_the_route_beside_it_weighs_nothing():
    """The champion, no features, no terms."""
    for event in events(3, gateway_world.FIXED):
        [made] = [emit.payload for emit in await router()(event)]
        assert (made.arm, made.strategy, made.routing) == ("small", "champion", None)


async def test_a_watched_router_sends_the_same_bytes():
    """The records that it has encoded itself are those that the lane would have made."""
    samples = Samples(0, 4)
    watched, clock = Watched(router(), samples, 1), SystemClock()
    for event in events(4):
        [out] = await watched(event)
        assert isinstance(out, Verbatim)
        [row] = outgoing([Emit(out.payload, "decision")], cause_of(event), agent="router", partitions=1,
                         now_ms=clock.now_ms)  # fmt: skip
        assert out.row == row
    assert len(samples.decide_ms) == 4
    assert samples.said["without the store"] == 0
    assert samples.said["no decision"] == 0


def test_a_commit_ends_what_was_taken_first():
    """Latency counts from when a request was due; warm-up is not counted, a retried call is one request."""
    samples = Samples(1, 3)
    for event in events(3):
        samples.taken(event, number_of(event.key))
        samples.taken(event, number_of(event.key))
    samples.committed(0, 2, NOW + 30)
    assert samples.durable_ms == [30]
    assert not samples.done.is_set()
    samples.committed(0, 1, NOW + 50)
    assert samples.durable_ms == [30, 50]
    assert samples.done.is_set()
    assert samples.achieved_per_s == 1000 * 2 / 50


def test_requests_lie_where_murmur2_places_them_and_say_when_they_were_due():
    """Each batch of the sender holds the requests of one partition, `at_ms` as due, not as sent."""
    found = gateway_worker.batches(range(40, 60), 4, 100.0, NOW, gateway_world.FULL, "w", TEXTS)
    assert sum(map(len, found.values())) == 20
    for number, rows in found.items():
        for row in rows:
            assert partition_of(row.key, 4) == number
            made = gateway_world.request("w", number_of(row.key.decode()), gateway_world.FULL, TEXTS, 0)
            due = NOW + int(1000 * number_of(row.key.decode()) / 100)
            assert row.value == made.model_copy(update={"at_ms": due}).model_dump_json().encode()


def test_texts_of_a_file_are_its_prompts(tmp_path):
    """Prompts that no route takes are left out; a file without any is refused by name."""
    line = '{"prompt": "%s", "arms": {"a": {"reward": 1, "cost": 0}}}\n'
    file = tmp_path / "world.jsonl"
    file.write_text(line % "why?" + line % "" + line % ("x" * 20_001))
    assert gateway_world.texts_of(file) == ("why?",)
    file.write_text(line % "")
    with pytest.raises(Refused, match=r"world\.jsonl"):
        gateway_world.texts_of(file)
    assert gateway_world.world(("why?",), NOW).basis.seed == gateway_world.SEED
    assert sum(map(len, TEXTS)) / len(TEXTS) > gateway_world.CHARS


RECORDED = {
    "parts": {"decide": 400.0},
    "max_decisions_per_s": [
        {"what": "rules alone", "decisions": 10, "decisions_per_s": 2500.0},
        {"what": "router, Kafka and Redis", "decisions": 10, "decisions_per_s": 700.0, "cpu_us_per_decision": 1200.0},
        {"what": "loop by hand, Kafka", "decisions": 10, "decisions_per_s": 7000.0, "cpu_us_per_decision": 90.0},
    ],
}


def recorded(decide_ms, durable_ms, said):
    samples = Samples(0, len(durable_ms))
    samples.decide_ms, samples.durable_ms = list(decide_ms), list(durable_ms)
    samples.said.update(said)
    samples.begun_ms, samples.ended_ms = NOW, NOW + 1000
    return gateway.told(samples, 100.0)


def test_a_report_says_what_holds():
    """Limits on p50 and p99 of deciding and on the rate; a decision without the store, or none, fails the benchmark."""
    good = {**RECORDED, "full": recorded([0.8] * 100, [20.0] * 100, {"balanced": 100})}
    good["fixed"] = recorded([0.2] * 100, [15.0] * 100, {"champion": 100})
    lines = gateway.summary(good)
    assert all(line["pass"] is not False for line in lines.values())
    assert lines["decide_ratio, full / fixed, p50"]["value"] == 4.0
    assert lines["through Kafka / loop by hand"]["value"] == 0.1
    assert lines["durable_ms p999"]["value"] == 20.0
    late = {**good, "full": recorded([1.2] * 98 + [6.0, 6.0], [20.0] * 90, {"balanced": 99, "without the store": 1})}
    failed = {name for name, line in gateway.summary(late).items() if line["pass"] is False}
    assert failed == {"achieved_per_s", "decide_ms p50", "decide_ms p99", "no decision, or without the store"}
    shown = gateway.tables(good)
    assert [row["what"] for row in shown["open loop"]] == ["decide_ms", "durable_ms"] * 2
    assert len(shown["what one process can do"]) == 3


def test_the_log_s_figures_stand_beside():
    """With the part on other policies there is one report: its summary, tables and notes are those of both."""
    judged = {"ope": {"dr": {}}, "tables": {"ope": []}, "notes": ["b"], "summary": {"ope_dr_rmse": {}}}
    found = gateway.with_ope({"summary": {"x": 1}, "tables": {"t": []}, "notes": ("a",), "full": {}}, judged)
    assert found["summary"] == {"x": 1, "ope_dr_rmse": {}}
    assert found["notes"] == ("a", "b")
    assert set(found["tables"]) == {"t", "ope"}
    assert found["ope"] == {"dr": {}}


def test_every_word_of_a_run_names_its_requests():
    """The number of a request is at the end of its id, whatever the run is called."""
    assert number_of(gateway_world.request("gateway-fixed-12", 34, "r", TEXTS, 0).request_id) == 34
    assert gateway_run.REQUESTS == gateway_parts.REQUESTS == "ratchet.requests"
