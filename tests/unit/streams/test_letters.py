"""Settling dead letters on the broker in memory: once each, by one transaction, with a trace of where it came from."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from streams_contract import FAST, Echo, request, until

from infra.clock import SystemClock
from schemas.codec import encode
from schemas.errors import Refused, Unavailable
from schemas.events import CommandDiscard, CommandResend, RequestSubmitted
from schemas.principal import Credential, KeyTerm, Principal, Ring, commitment, verify
from schemas.topics import deferred_topic
from streams.difference import written_by
from streams.letters import FROM, ID, Edit, Letter, Settled, about, returned, settle, tell
from streams.memory import MemoryBroker, run_until
from streams.port import Outgoing
from streams.runner import Runner
from streams.shapes import Headers, Record
from streams.wire import BROKER_BYTES, Sent, letter, partition_of

NOW = 1_700_000_100_000
SECRET = bytes(range(32))


def letters(broker: MemoryBroker) -> list[Letter]:
    return [Letter.of(row) for row in broker.records("requests.dlq")]


def dead(broker: MemoryBroker, record: Record, agent: str = "probe", message: str = "no") -> Letter:
    """Bury a record as an agent would."""
    row = letter(record, agent=agent, kind="test", message=message, attempts=1, at_ms=NOW)
    return Letter.of(broker.append((row.topic, row.partition), row.record, None))


def told(found: Letter, model: type[CommandResend | CommandDiscard], **more: object) -> Sent:
    said = {**about(found), "at_ms": NOW, "operator": "ann", "reason": "r", **more}
    return tell(model.model_validate(said), found.id, found.place, 4, None)


async def send(broker: MemoryBroker, found: Letter, edit: Edit | None = None, *, again: bool = False) -> str:
    back = returned(found, edit, partitions=4, by="ann", at_ms=NOW)

    def rows(before: bool) -> Sequence[Sent]:
        return back.sent, told(found, CommandResend, sent_id=back.id, edited=back.edited, again=before)

    await settle(broker, found, rows, again=again)
    return back.id


def value_of(name: str, text: str) -> bytes:
    return encode(request(name, text), event_id="-", source="-", traceparent="").value


async def test_a_refused_request_is_edited_sent_back_and_answered_once() -> None:
    """Its letter is settled by one transaction with the event; a second time is refused and sends nothing."""
    broker, seen = MemoryBroker(4, clock=SystemClock()), Echo("probe")
    broker.publish(request("q", "refused"), event_id="e")
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(seen)
    task = asyncio.create_task(runner.run())
    await until(lambda: len(letters(broker)) == 1)
    (found,) = letters(broker)
    sent_id = await send(broker, found, Edit(value_of("q", "fine")))
    await until(lambda: len(broker.events("answers")) == 1)
    with pytest.raises(Refused, match="was sent back by ann") as error:
        await send(broker, found)
    await runner.stop()
    await task
    assert (error.value.kind, found.agent, found.kind) == ("settled", "probe", "test")
    assert [row.id for row in broker.events("requests")] == ["e", sent_id]
    assert [row.data.reason for row in broker.events("answers")] == ["fine"]  # type: ignore[attr-defined]
    (command,) = broker.events("commands")
    assert isinstance(command.data, CommandResend)
    assert (command.data.sent_id, command.data.edited, command.data.again) == (sent_id, True, False)


async def test_what_goes_back_unchanged_keeps_its_id_and_says_where_it_lay() -> None:
    """Key, value and own headers as they were; sent twice on purpose it has the same id, and only one trace of the way."""
    broker = MemoryBroker(4, clock=SystemClock())
    first = broker.publish(request("q"), event_id="e", extra=(("x", b"1"),))
    found = dead(broker, first)
    await send(broker, found)
    await send(broker, found, again=True)
    _, second, third = broker.records("requests")
    own = tuple(pair for pair in third.headers if not pair[0].startswith("ratchet-resent-"))
    assert (third.key, third.value, third.partition, own) == (first.key, first.value, first.partition, first.headers)
    assert second.headers == third.headers
    assert dict(third.headers)[FROM] == str(found.place).encode()
    once_more = returned(dead(broker, third), None, partitions=4, by="bob", at_ms=NOW)
    assert [name for name, _ in once_more.sent.record.headers].count(FROM) == 1
    assert [row.data.again for row in broker.events("commands")] == [False, True]  # type: ignore[attr-defined]


async def test_a_record_sent_back_settles_the_letters_of_other_agents() -> None:
    """All that read the topic get it again; a discarded letter settles what this agent makes of the record, now and when it reads again."""
    broker = MemoryBroker(4, clock=SystemClock())
    one, two = (broker.publish(request(name)) for name in ("a", "b"))
    mine, others = dead(broker, one), dead(broker, one, agent="other")
    await send(broker, mine)
    with pytest.raises(Refused, match="was sent back"):
        await send(broker, others)
    mine, others = dead(broker, two), dead(broker, two, agent="other")
    await settle(broker, mine, lambda _: (told(mine, CommandDiscard),))
    for once_more in (mine, dead(broker, two)):
        with pytest.raises(Refused, match="was discarded"):
            await send(broker, once_more)
    await send(broker, others)
    settled = Settled(broker.records("commands"))
    assert [type(settled.of(row)).__name__ for row in (mine, others)] == ["CommandDiscard", "CommandResend"]
    assert len(broker.records("requests")) == 4


async def test_of_two_operators_one_settles() -> None:
    """Whoever begins later fences the other, whose record is aborted with its event."""
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.publish(request("q")))
    mine = returned(found, None, partitions=4, by="ann", at_ms=NOW).sent

    def overtaken(before: bool) -> Sequence[Sent]:
        broker.transactions[ID].epoch += 1
        return mine, told(found, CommandResend, sent_id="s", edited=False)

    with pytest.raises(Unavailable, match="another operator"):
        await settle(broker, found, overtaken)
    await send(broker, found)
    assert len(broker.records("requests")) == 2
    assert len(broker.records("commands")) == 1


async def test_what_an_operator_sent_back_is_no_agents_output() -> None:
    """A replay expects an agent's outputs once: the copy that went back is not among them."""
    broker = MemoryBroker(4, clock=SystemClock())
    at = (("ratchet-at", b"ratchet.requests[0]@0"), ("ce_source", b"ratchet/router"))
    first = broker.publish(request("q"), extra=at)
    await send(broker, dead(broker, first))
    assert [written_by(row) for row in broker.records("requests")] == ["router", ""]


async def test_a_refused_command_sends_nothing_back() -> None:
    """The record and what tells of it go together or not at all, and the letter stays open."""
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.publish(request("q")))
    broker.refuse = {"ratchet.commands"}
    with pytest.raises(Refused, match=r"requests\.dlq"):
        await send(broker, found)
    broker.refuse.clear()
    assert len(broker.records("requests")) == 1
    await send(broker, found)


async def test_a_broker_that_is_away_is_said() -> None:
    """Unavailable: what became of it is not known."""
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.publish(request("q")))
    broker.away = True
    with pytest.raises(Unavailable, match="not known"):
        await send(broker, found)


def test_reasons_that_a_sender_wrote_are_not_believed() -> None:
    """Only the last headers are the agent's; a record without them, or of another topic, is no letter."""
    forged: Headers = (("ratchet-dlq-topic", b"ratchet.commands"), ("ratchet-dlq-agent", b"mallory"))
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.publish(request("q"), extra=forged))
    assert (found.record.topic, found.agent) == ("ratchet.requests", "probe")
    row = broker.records("requests.dlq")[0]
    for wrong in (
        replace(row, headers=row.headers[:-1]),
        replace(row, topic="ratchet.verdicts.dlq"),
        replace(row, headers=()),
    ):
        with pytest.raises(Refused, match="no dead letter"):
            Letter.of(wrong)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit(b"{"), "Invalid JSON"),
        (Edit(b"{}"), "at_ms: Field required"),
        (Edit(value_of("q", "x"), "ratchet.no.such.v1"), "unknown event type"),
    ],
)
def test_an_edited_copy_must_be_an_event(edit: Edit, said: str) -> None:
    """Refused before anything is sent, with the field."""
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.publish(request("q")))
    with pytest.raises(Refused, match=f"edited copy.*{said}"):
        returned(found, edit, partitions=4, by="ann", at_ms=NOW)


def test_an_edited_copy_lies_where_its_key_belongs() -> None:
    """Key and partition come from the payload, so a misplaced or wrongly keyed request is mended by the way."""
    broker = MemoryBroker(4, clock=SystemClock())
    row = encode(request("q"), event_id="e", source="test", traceparent="")
    wrong = (partition_of(b"q", 4) + 1) % 4
    record = broker.append(("ratchet.requests", wrong), Outgoing(b"other", row.value, row.headers), None)
    back = returned(dead(broker, record), Edit(row.value), partitions=4, by="ann", at_ms=NOW)
    assert (back.sent.record.key, back.sent.partition) == (b"q", partition_of(b"q", 4))
    assert back.id != "e"
    again = returned(
        Letter.of(broker.records("requests.dlq")[0]), Edit(row.value), partitions=4, by="bob", at_ms=NOW + 1
    )
    assert again.id == back.id


def test_a_letter_without_an_id_gets_the_one_that_readers_derive() -> None:
    """A record that named no id is known by its place: sent back it is the same event."""
    broker = MemoryBroker(4, clock=SystemClock())
    row = encode(request("q"), event_id="e", source="test", traceparent="")
    bare = tuple(pair for pair in row.headers if pair[0] != "ce_id")
    found = dead(broker, broker.put("ratchet.requests", b"q", row.value, bare))
    back = returned(found, None, partitions=4, by="ann", at_ms=NOW)
    assert dict(back.sent.record.headers)["ce_id"].decode() == back.id == found.id


def test_what_does_not_fit_with_its_trace_is_refused() -> None:
    """The topic's limit is named; a smaller copy fits."""
    broker = MemoryBroker(4, clock=SystemClock())
    big = Record("ratchet.requests", 0, 0, b"q", b"x" * (BROKER_BYTES - 200), (), 0)
    found = dead(broker, big)
    with pytest.raises(Refused, match="1,048,588"):
        returned(found, None, partitions=4, by="ann", at_ms=NOW)


def test_a_request_is_proven_anew() -> None:
    """The former proof has run out; the new one holds for what is sent, edited or not."""
    term = KeyTerm(not_before_ms=0, commitment=commitment(SECRET))
    ring = Ring({"shop": Principal(roles=("upstream",), keys={"k1": term})}, {("shop", "k1"): SECRET})
    voice = Credential("shop", "k1", SECRET)
    row = voice.prove(encode(request("q"), event_id="e", source="test", traceparent=""), at_ms=NOW - 86_400_000)
    broker = MemoryBroker(4, clock=SystemClock())
    found = dead(broker, broker.put("ratchet.requests", row.key, row.value, row.headers))
    for edit in (None, Edit(value_of("q", "other"))):
        sent = returned(
            found, edit, partitions=4, by="ann", at_ms=NOW, prove=lambda row: voice.prove(row, at_ms=NOW)
        ).sent.record
        speaker = verify(
            ring, topic="ratchet.requests", headers=sent.headers, key=sent.key, value=sent.value, at_ms=NOW + 1
        )
        assert speaker is not None
        speaker.admits(RequestSubmitted.model_validate_json(sent.value or b""))
    keyless = dead(broker, Record("ratchet.requests", 0, 9, None, b"{}", (), 0))
    with pytest.raises(Refused, match="nobody can prove it"):
        returned(keyless, None, partitions=4, by="ann", at_ms=NOW, prove=lambda row: voice.prove(row, at_ms=NOW))


async def test_what_somebody_else_put_on_a_deferred_topic_can_be_discarded_only() -> None:
    """It is buried with the letters of the first input, is read as a letter, and does not go back."""
    broker, seen = MemoryBroker(4, clock=SystemClock()), Echo("probe")
    broker.append((deferred_topic("probe"), 0), Outgoing(b"k", b"no record of ours", ()), None)
    runner = Runner(broker, SystemClock(), settings=FAST)
    runner.add_transform(seen)
    await run_until(runner, lambda: len(broker.records("requests.dlq")) == 1)
    (found,) = letters(broker)
    assert (found.record.topic, found.agent, found.kind) == (deferred_topic("probe"), "probe", "deferred")
    with pytest.raises(Refused, match="does not go back"):
        await send(broker, found)
    await settle(broker, found, lambda _: [told(found, CommandDiscard)])
    assert Settled(broker.records("commands")).of(found) is not None
