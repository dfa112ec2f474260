"""The short form of `python -m tools.fuzz`, and that its oracle can say no."""

import json
from dataclasses import replace

import pytest

from schemas.errors import Refused
from schemas.payload import REGISTRY
from streams.wire import decode, parked
from tools.fuzz import __main__ as fuzzing
from tools.fuzz.mutate import MUTATIONS, PARTITIONS
from tools.fuzz.oracle import Oracle


@pytest.fixture(scope="module")
def corpus() -> fuzzing.Corpus:
    return fuzzing.Corpus(fuzzing.DATA / name for name in fuzzing.CORPUS)


def test_mutated_records_crash_nothing_and_none_is_accepted_wrongly() -> None:
    """Some thousand records of every type and mutation go through decoder and agents; much is refused, some is still right."""
    report = fuzzing.fuzz(1, range(2000))
    assert report.found == []
    assert report.types == len(REGISTRY)
    assert set(report.mutations) == set(MUTATIONS)
    assert report.accepted > 300
    assert report.accepted_proven < report.accepted < report.refused.total()
    assert len(report.steps) == 13
    assert report.emits > 100
    assert report.dead_letters > 1000


def test_the_same_number_of_a_seed_is_the_same_mutant() -> None:
    """A run is repeated by its seed."""
    one, other = (fuzzing.fuzz(5, range(100)) for _ in range(2))
    assert (one.mutations, one.refused, one.emits) == (other.mutations, other.refused, other.emits)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"at_ms": "5"}, "schema"),
        ({"tenant": 5}, "schema"),
        ({"route": "a b"}, "schema"),
        ({"by": "another"}, "something else"),
    ],
)
def test_the_oracle_tells_what_the_decoder_must_not_take(corpus: fuzzing.Corpus, change: dict, says: str) -> None:
    """An event beside a record that says otherwise is accepted wrongly; beside its own it is not."""
    record = corpus.by_type["verdict.given"][0]
    event, oracle = decode(record, PARTITIONS), Oracle(PARTITIONS)
    assert oracle.wrong(record, event) is None
    forged = replace(record, value=json.dumps(json.loads(record.value or b"") | change).encode())
    assert says in (oracle.wrong(forged, event) or "")
    assert "taken from" in (oracle.wrong(replace(record, topic="ratchet.decisions"), event) or "")
    assert "partition" in (oracle.wrong(replace(record, partition=(record.partition + 1) % 4), event) or "")
    assert oracle.unproven(forged, record, speaker_asked=True)


def test_a_crash_is_found_and_its_record_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step raises ends in the report, with a file that holds the record; the command's exit code is 1."""

    async def broken(stand: object, record: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(fuzzing.Stand, "take", broken)
    assert fuzzing.main(["--records", "3", "--keep", str(tmp_path), "--json"]) == 1
    assert len(list(tmp_path.glob("1-*.xz"))) == 3


@pytest.mark.parametrize("bad", [["--records", "0"], ["--only", "-1"]])
def test_a_number_that_makes_no_run_is_refused(bad: list[str]) -> None:
    """Used wrongly: exit code 2."""
    with pytest.raises(SystemExit) as ended:
        fuzzing.main(bad)
    assert ended.value.code == 2


def test_what_the_fuzz_found_stays_refused(corpus: fuzzing.Corpus) -> None:
    """Found by it: another type on the topic, another key, a number as text, a repeated attribute, words that are no JSON."""
    verdict, result = corpus.by_type["verdict.given"][0], corpus.by_type["result.completed"][0]
    body = json.loads(verdict.value or b"")
    told = [*verdict.headers, ("ce_type", b"ratchet.verdict.given.v1")]
    named = {
        "wrong-type": replace(result, topic=verdict.topic, key=verdict.key, partition=verdict.partition),
        "wrong-key": replace(verdict, value=json.dumps(body | {"request_id": "another"}).encode()),
        "invalid": replace(verdict, value=json.dumps(body | {"at_ms": str(body["at_ms"])}).encode()),
        "repeated-header": replace(verdict, headers=tuple(told)),
        "not-json": replace(result, value=(result.value or b"")[:-1] + b',"new":NaN}'),
    }
    for kind, record in named.items():
        with pytest.raises(Refused) as error:
            decode(record, PARTITIONS)
        assert error.value.kind == kind


@pytest.mark.parametrize(
    "change",
    [
        {"ratchet-attempt": b"x"},
        {"ratchet-not-before": b"9" * 400},
        {"ratchet-origin": b"ratchet.answers[%d]@1"},
        {"ratchet-origin": b"ratchet.requests[99]@1"},
        {"ratchet-origin": b"\xff"},
        {"ratchet-written": b"-1"},
    ],
)
async def test_a_foreign_record_among_the_deferred_is_a_dead_letter(corpus: fuzzing.Corpus, change: dict) -> None:
    """Nobody but the agent parks there; what another wrote halts no lane. What the agent parked is taken."""
    stand = fuzzing.Stand(corpus.log)
    await stand.start()
    source = corpus.by_type["request.submitted"][0]
    lane = next(one for one in stand._transforms if one.agent == "router")
    row = parked(source, attempt=1, topic=lane.parking, not_before_ms=1 << 50).record
    told = {name: (data % source.partition if b"%" in data else data) for name, data in change.items()}
    headers = tuple((name, told.get(name, data)) for name, data in row.headers)
    for rows, topics in ((headers, {"ratchet.requests.dlq"}), (row.headers, {"ratchet.answers", "ratchet.decisions"})):
        record = replace(source, topic=lane.parking, headers=rows)
        sent = await lane.answer(record)
        assert {one.topic for one in sent} <= topics, sent
        assert sent


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("decision.routed", {"messages": []}),
        ("result.completed", {"tokens_out": 10**400}),
        ("review.settled", {"request_at_ms": -1}),
        ("shadow.ordered", {"assigned_at_ms": -(10**400)}),
        ("case.closed", {"signals": [1e308, -1e308, 1e308, 1e308]}),
        ("adapter.registered", {"arm": "no arm!"}),
        ("result.completed", {"latency_ms": 1e308}),
        ("result.completed", {"ttft_ms": 1e20}),
        ("result.failed", {"latency_ms": 1 << 64}),
    ],
)
async def test_what_crashed_an_agent_crashes_none(corpus: fuzzing.Corpus, name: str, change: dict) -> None:
    """Found by the fuzz: each of these is taken, and what came of it can be sent, read and restored."""
    stand = fuzzing.Stand(corpus.log)
    await stand.start()
    for record in corpus.by_type[name]:
        await stand.take(replace(record, value=json.dumps(json.loads(record.value or b"") | change).encode()))
    for lane in stand._folds:
        stand._restored(lane)
    assert stand.steps
