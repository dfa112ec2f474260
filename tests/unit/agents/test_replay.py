"""Replay: a recorded log gives the same records with today's code, and whatever was changed is found and named."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from replayed import LOOP, Change, again, changed, headed, one, put

from agents.cases import fold as cases
from agents.judge import decide as judge
from agents.replay import AGENTS, FOLDS, LOST, RACED, first_topics, offset_groups, other_topics
from agents.router import decide as router
from agents.trust import decide as trust
from streams.acl import Right, rights
from streams.recorded import RecordedLog, read_file
from streams.replay import Window
from streams.shapes import Record
from tools.access import outside_work


@pytest.fixture(scope="module")
def log() -> RecordedLog:
    return read_file(LOOP)


def test_the_recorded_log_comes_out_the_same(log: RecordedLog) -> None:
    """The test of every upgrade: each agent's records and state, bit for bit. A rule changed on purpose needs a new log, and says so."""
    found = {gave.agent: gave for gave in again(log, *AGENTS)}
    assert [str(row) for gave in found.values() for row in gave.found] == []
    assert set(found) == set(AGENTS)
    assert all(gave.events > 50 and gave.records > 0 for gave in found.values())
    assert all(found[agent].keys > 0 for agent in FOLDS)


def test_the_recorded_log_is_worth_replaying(log: RecordedLog) -> None:
    """It holds every kind of record that the replayed agents write, refused requests, a promotion, and the traces of two kills."""
    types = {
        dict(row.headers)["ce_type"].decode().split(".", 1)[1] for row in log.all() if dict(row.headers).get("ce_type")
    }
    assert {
        "decision.routed.v1", "shadow.ordered.v1", "score.assigned.v1", "answer.released.v1", "answer.withheld.v1",
        "answer.refused.v1", "case.closed.v1", "case.amended.v1", "promotion.evaluated.v1", "model.promoted.v1",
        "trust.changed.v1", "training.ordered.v1", "policy.fleet.v1", "policy.trust.v1", "review.settled.v1",
    } <= types  # fmt: skip
    assert {"unproven", "wrong-role"} <= {
        json.loads(row.value or b"")["kind"]
        for row in log.topic("ratchet.answers")
        if b"refused" in dict(row.headers)["ce_type"]
    }
    routed = [said for row in log.topic("ratchet.decisions") if (said := json.loads(row.value or b""))["routing"]]
    assert {"champion", "balanced", "session", "cache"} <= {said["strategy"] for said in routed}
    learnt = [said for said in routed if all(arm["terms"]["quality"] is not None for arm in said["arms"])]
    assert any(said["routing"]["lambda_cost"] > 0 for said in learnt)
    assert {row.topic for row in log.all()} >= {"ratchet.requests.dlq", "ratchet.verdicts.dlq"}
    assert {topic for topic, _ in log.starts} <= set(other_topics(AGENTS)) | {f"ratchet.{name}.order" for name in FOLDS}


@pytest.mark.parametrize(
    ("agent", "change", "path"),
    [
        ("router", one("ratchet.decisions", put("arm", value="other")), "value.arm"),
        ("router", one("ratchet.decisions", headed("ce_time", b"2020-01-01T00:00:00Z")), "header ce_time"),
        ("router", one("ratchet.answers", put("reason", value="because"), "refused"), "value.reason"),
        ("trust", one("ratchet.scores", put("score", value=0.123)), "value.score"),
        ("trust", one("ratchet.answers", put("text", value="no"), "released"), "value.text"),
        ("cases", one("ratchet.cases", put("close_reason", value="x"), "closed"), "value.close_reason"),
        ("judge", one("ratchet.promotions", put("pairs", value=7), "evaluated"), "value.pairs"),
        ("ladder", one("ratchet.policies", put("bias", value=0.5), "policy.trust"), "value.bias"),
        ("trainer", one("ratchet.training", put("rows", value=3), "ordered"), "value.rows"),
    ],
)  # fmt: skip
def test_a_changed_output_is_shown_with_its_event(agent: str, change: Change, path: str) -> None:
    """One field of one recorded output is another: one difference, with its cause, and the field by name."""
    (gave,) = again(changed(change), agent)
    (difference,) = (row for row in gave.found if row.kind == "changed")
    assert path in [field.path for field in difference.fields]
    assert difference.cause.startswith("ratchet.") or difference.cause.startswith("~tick")
    assert difference.place.startswith("ratchet.")


def test_a_changed_input_is_found() -> None:
    """A decision that was made of another request: the text decides nothing, the session does."""
    (gave,) = again(
        changed(one("ratchet.requests", put("messages", 0, "content", value="x" * 250), "submitted")), "router"
    )
    assert gave.kinds


@pytest.mark.parametrize(
    ("agent", "module", "name", "value"),
    [
        ("router", router, "FUTURE_MS", 10**9),
        ("trust", trust, "LOGPROB_FLOOR", -0.01),
        ("cases", cases, "GRACE_MS", 1_000),
        ("judge", judge, "HARM_LEVEL", 10.0),
    ],
)
def test_a_changed_rule_is_found(
    agent: str, module: object, name: str, value: object, log: RecordedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One constant of one agent's rules is another: the replay differs."""
    monkeypatch.setattr(module, name, value)
    (gave,) = again(log, agent)
    assert gave.kinds


def gone(record: Record) -> Iterator[Record]:
    yield from ()


def twice(record: Record) -> Iterator[Record]:
    yield record
    yield replace(record, offset=1_000_000)


@pytest.mark.parametrize(("agent", "topic"), [("router", "decisions"), ("trust", "scores"), ("cases", "cases")])
@pytest.mark.parametrize(("change", "kind"), [(gone, "missing"), (twice, "extra")])
def test_lost_and_doubled_outputs_are_found(agent: str, topic: str, change: Change, kind: str) -> None:
    """An output that is not there, and one that is there twice."""
    held = b'"action":"hold"' if topic == "scores" else b""  # nothing else follows from such a score
    (gave,) = again(
        changed(one(f"ratchet.{topic}", change, but=b"cards.intent-0000", having=held)), agent
    )  # 0000: sent again later
    assert gave.kinds == {kind: 1}


def test_outputs_in_another_order_are_found() -> None:
    """Two decisions of one lane have changed places."""
    rows = list(read_file(LOOP).of("ratchet.decisions", 1))[:2]
    places = {row.offset: other.offset for row, other in zip(rows, rows[::-1], strict=True)}

    def swap(record: Record) -> Iterator[Record]:
        mine = record.topic == "ratchet.decisions" and record.partition == 1
        yield replace(record, offset=places.get(record.offset, record.offset)) if mine else record

    (gave,) = again(changed(swap), "router")
    assert gave.kinds == {"order": 1}


def test_damaged_state_is_found() -> None:
    """One value in the changelog is not what the fold comes to."""
    found = [row for row in read_file(LOOP).topic("ratchet.judge.state") if not (row.key or b"").startswith(b"~")]
    damaged = found[-1].place

    def damage(record: Record) -> Iterator[Record]:
        yield replace(record, value=b"{}") if record.place == damaged else record

    (gave,) = again(changed(damage), "judge")
    assert gave.kinds["state"] == 1


def twins(log: RecordedLog) -> list[tuple[bytes, bytes]]:
    """Places of two equal requests side by side: the one that was decided, the other."""
    found: dict[bytes, list[bytes]] = {}
    for row in log.topic("ratchet.requests"):
        found.setdefault(row.key or b"", []).append(str(row.place).encode())
    decided = {dict(row.headers)["ratchet-at"] for row in log.topic("ratchet.decisions")}
    pairs = [rows for key, rows in sorted(found.items()) if b"cards.intent-9010" <= key < b"cards.intent-9100"]
    return [(rows[0], rows[1]) if rows[0] in decided else (rows[1], rows[0]) for rows in pairs if len(rows) == 2]


def offset_of(place: bytes) -> int:
    return int(place.rpartition(b"@")[2])


def moved(record: Record, place: bytes) -> Record:
    """What was written because of a request, as if that stood at another place."""
    data = json.loads(record.value or b"") | {"request_offset": offset_of(place)}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return replace(record, value=text, headers=tuple((n, place if n == "ratchet-at" else v) for n, v in record.headers))


def test_a_store_that_forgot_is_told_not_blamed(log: RecordedLog) -> None:
    """Decisions that only a store without memory explains are taken as recorded, and counted."""
    pairs = twins(log)
    assert pairs
    told, other = pairs[0]
    first, second = sorted((told, other), key=offset_of)
    written = ("ratchet.decisions", "ratchet.shadows")

    def late(record: Record) -> Iterator[Record]:
        """The later of two equal requests was decided: it came to the store first."""
        if record.topic in written and dict(record.headers).get("ratchet-at") == first:
            yield moved(record, second)
        elif told == first and (at := str(record.place).encode()) in pairs[0]:
            yield replace(record, offset=offset_of(second if at == first else first))
        else:
            yield record

    (before,), (gave,) = again(log, "router"), again(changed(late), "router")
    assert not gave.kinds
    assert gave.notes[RACED] == before.notes.get(RACED, 0) + (told == first)

    def both(record: Record) -> Iterator[Record]:
        """The first of two equal requests was decided as well: as after a loss of the store."""
        for row in late(record):
            yield row
            if dict(row.headers).get("ratchet-at") == second and row.topic == "ratchet.decisions":
                yield replace(moved(row, first), offset=1_000_000)

    (gave,) = again(changed(both), "router")
    assert gave.notes[LOST] == 1


def test_an_arm_that_no_session_had_is_impossible() -> None:
    """What a decision says it observed must have been given to that session once."""
    (gave,) = again(changed(one("ratchet.decisions", put("session_arm", value="nobody"), "routed")), "router")
    assert gave.kinds


def test_only_a_stretch_is_compared(log: RecordedLog) -> None:
    """From a time, to a time, from an offset: what lies before is replayed, not compared."""
    (whole,) = again(log, "cases")
    times = sorted(row.timestamp_ms for row in log.topic("ratchet.cases.order"))
    middle = times[len(times) // 2]
    (late,) = again(log, "cases", window=Window(from_ms=middle))
    (early,) = again(log, "cases", window=Window(to_ms=middle - 1))
    assert 0 < early.events < whole.events
    assert early.events + late.events == whole.events
    assert late.records == whole.records > early.records
    first = {(topic, number): 5 for topic in ("ratchet.requests", "ratchet.scores") for number in range(log.partitions)}
    (some,) = again(log, "router", window=Window(first=first))
    read = {row.place for topic, _ in first for row in log.topic(topic) if row.offset >= 5}
    assert some.events == sum(
        place.offset < log.committed["ratchet.router"].get((place.topic, place.partition), 0) for place in read
    )
    broken = changed(one("ratchet.cases", put("close_reason", value="x"), "closed"))
    assert not again(broken, "cases", window=Window(from_ms=times[-1] + 1))[0].kinds


def test_an_operator_may_read_what_a_replay_reads() -> None:
    """The generated rights of the secured stack cover every topic and group of it."""
    held = rights(outside_work()["operator"])
    topics = {*first_topics(AGENTS), *other_topics(AGENTS)}
    assert {Right("topic", topic, "read") for topic in topics} <= held
    assert Right("group", "ratchet.", "describe", "prefixed") in held
    assert all(group.startswith("ratchet.") for group in offset_groups(AGENTS))
