"""The benchmark of the lanes: its events, its counts, its options, its verdicts. The measurement is an integration test."""

from collections.abc import Mapping
from typing import Any

import pytest

from schemas import ids
from schemas.errors import Refused
from streams.shapes import Record
from streams.wire import decode, partition_of
from tools.bench import figure, streams, streams_children
from tools.bench.streams_base import CAUSE, VALUE_BYTES, judged, keys_of, payload, record
from tools.bench.streams_rows import Row, Spec, ratios, specs


def out(cause: str, key: str = "k", count: int = 1) -> Record:
    value = payload(key).model_copy(update={"deadline_ms": count}).model_dump_json().encode()
    return Record("out", 0, 0, key.encode(), value, ((CAUSE, cause.encode()),), 0)


def test_every_event_has_the_size_that_is_said() -> None:
    """Whatever its key, an event's value has the bytes that the notes name, and is a valid event of nine headers."""
    for key in ("k", "key-0000017"):
        row = record(payload(key), ids.derive("a", "b", 0))
        assert len(row.value or b"") == VALUE_BYTES
        assert len(row.headers) == 9
        event = decode(Record("in", 0, 0, row.key, row.value, row.headers, 0), 1)
        assert event.data == payload(key)


def test_keys_lie_where_murmur2_places_them() -> None:
    """Each partition has as many keys as asked for, none of them placed elsewhere."""
    found = keys_of(4, 5)
    assert [len(keys) for keys in found] == [5] * 4
    assert all(partition_of(key.encode(), 4) == number for number, keys in enumerate(found) for key in keys)


def test_what_is_lost_or_twice_is_counted() -> None:
    """An event without output is lost, a second output of one and an output of none of them are one too many."""
    assert judged(["a", "b"], [out("a"), out("b")]) == {"lost": 0, "duplicated": 0}
    assert judged(["a", "b"], [out("a"), out("a")]) == {"lost": 1, "duplicated": 1}
    assert judged(["a"], [out("a"), out("other")]) == {"lost": 0, "duplicated": 1}


def test_a_count_that_jumps_is_a_wrong_state() -> None:
    """Outputs of a key must count 1, 2, 3: a key with a gap or a repeat is wrong, others are not."""
    good = [out("a", "k", 1), out("b", "j", 1), out("c", "k", 2)]
    assert streams_children.wrong_states(good) == 0
    assert streams_children.wrong_states([*good, out("d", "j", 3)]) == 1
    assert streams_children.wrong_states([*good, out("d", "k", 2)]) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--events", "many"],
        ["--events", "3999"],
        ["--partitions", "17"],
        ["--kills", "0"],
        ["--only", "all"],
        ["--fast"],
    ],
)
def test_bad_options_are_refused(options: list[str]) -> None:
    """Options that are not understood are refused with the usage, before a broker starts."""
    with pytest.raises(Refused, match="ratchet bench streams"):
        streams.options_of(options)


def test_options_leave_whole_transactions() -> None:
    """Events are cut down so that every transaction is full; parts are all unless some are named."""
    chosen = streams.options_of(["--events", "9500", "--only", "work", "--only", "scale"])
    assert (chosen.events, chosen.parts) == (8000, ("work", "scale"))
    assert streams.options_of([]).parts == streams.PARTS


def test_a_limit_from_above() -> None:
    """A figure passes at its upper limit, fails above it and where it was not measured."""
    assert figure(3.0, at_most=3)["pass"] is True
    assert figure(3.1, at_most=3)["pass"] is False
    assert figure(None, at_most=3)["pass"] is False


def found(ours: float, yard: float) -> dict[str, Any]:
    """A report in which our rows have one rate and the others another."""
    made: list[Row] = []
    for spec in specs(streams.BATCHES):
        rate = ours if spec.ours else yard
        made.append(Row(spec, [{"events_per_s": rate, "cpu_us_per_event": 1e6 / rate, "stall_ms": 1.0}]))
    return {"throughput": [row.told() for row in made], "ratios": ratios(made, streams.BATCHES)}


def verdicts(report: Mapping[str, Any]) -> dict[str, bool | None]:
    return {name: line["pass"] for name, line in streams.summary(report).items()}


def test_rows_have_a_name_of_their_own() -> None:
    """No two rows are told by one name, and each of ours is measured with the codec and without."""
    rows = specs((100, 1000))
    assert len({spec.name for spec in rows}) == len(rows)
    assert {Spec("fold", 100), Spec("fold", 100, codec=True)} <= set(rows)


def test_ratios_meet_the_limits_of_the_design() -> None:
    """1.2 of the loop by record, 0.70 and 0.75 of that by batch at 1,000: each fails by itself."""
    told = verdicts(found(ours=72.0, yard=100.0))
    assert told["transform / raw batch calls, 1000, no codec"] is True
    assert told["fold / raw batch calls, 1000, no codec"] is False
    assert told["transform / raw batch calls, 100, no codec"] is None
    assert told["transform / raw record calls, 100, codec"] is False
    assert verdicts(found(ours=120.0, yard=100.0))["fold / raw record calls, 1000, no codec"] is True


def test_one_lost_event_fails_the_whole() -> None:
    """Counts of every part are added up, and any above 0 fails."""
    report: dict[str, Any] = {"work": [{"work_ms": 20.0, "ratio": 0.9, "lost": 1, "duplicated": 0}]}
    told = verdicts(report)
    assert (told["lost"], told["duplicated"]) == (False, True)
    assert told["20 ms of work / (workers / latency)"] is True
    assert "aborted copies" not in told


def killed(*copies: int, quick: bool = False) -> dict[str, Any]:
    """A report of recovery alone, so many aborted copies a row, nothing lost or late."""
    rows = {
        f"row_{number}": {"p50_s": 0.1, "worst_s": 0.2, "aborted_copies": found, "lost": 0, "duplicated": 0}
        for number, found in enumerate(copies)
    }
    return {"options": {"quick": quick}, "recovery": rows}


def test_kills_that_aborted_nothing_prove_nothing() -> None:
    """A recovery run fails where no kill struck an open transaction; with --quick, of two kills a row, the figure has no limit."""
    assert all(verdicts(killed(0, 3)).values())
    assert {name for name, holds in verdicts(killed(0, 0)).items() if not holds} == {"aborted copies"}
    assert verdicts(killed(0, 0, quick=True))["aborted copies"] is None
    assert streams.summary(killed(2, 3))["aborted copies"]["value"] == 5


def test_latency_is_told_with_its_rate() -> None:
    """Half of what was measured just before, or a fixed rate: the figure's name says which events per second it is of."""
    told = streams.summary({"latency": {"events_per_s": 2000.0, "p50_ms": 3.0, "p99_ms": 9.0}})
    assert told["p50 at 2000 events/s, ms"]["value"] == 3.0
    assert told["p99 at 2000 events/s, ms"]["value"] == 9.0
