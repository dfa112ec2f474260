"""Dead letters as an operator settles them: read, sent back or discarded, each once (`ratchet dlq`).

Rules:
1. The deed and the event that tells of it are one transaction under one id (`ratchet.repair`). Two operators at one letter: one
   commits, the other is fenced or finds it settled.
2. Settled is a record of one agent, not the letter alone: an agent that reads it again makes the letter again. What was sent back
   settles the letters of other agents too, for all that read the topic get it again.
3. What goes back unchanged keeps its id, so that whoever had done with it knows it again. An edited copy is another event: its id
   is derived from the letter's place and the content, so the same edit has the same id.
4. It tells where it comes from (`ratchet-resent-*`) and is proven anew: a proof holds for minutes, a letter lies for weeks.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from schemas import ids
from schemas.codec import Encoded, encode, rfc3339
from schemas.errors import Refused, Unavailable, Undecodable
from schemas.events import CommandDiscard, CommandResend, LetterCommand, RepairCommand
from schemas.principal import OURS, PROVEN, Prove
from schemas.topics import BY_NAME, deferred_topic, dlq_of
from streams.port import Broker, BrokerError, Denied, Fenced, Outgoing, Rejected
from streams.restore import read_to
from streams.shapes import Headers, Place, Record
from streams.wire import BROKER_BYTES, PLACED, Sent, decode, partition_of, size_of

ID = "ratchet.repair"
COMMANDS = BY_NAME["commands"].full
REASONS = ("topic", "partition", "offset", "agent", "kind", "message", "attempts", "at")
RESENT = "ratchet-resent-"
FROM = RESENT + "from"
STOP_S = 2.0
COMMIT_S = 30.0  # reading what was settled so far included
_TYPES = {model.ce_type().encode(): model for model in (CommandResend, CommandDiscard)}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter at `place`; `record` is what it was, at the place that it had.

    One of a deferred topic is a record that no agent put there: it lies with the letters of the agent's first input.
    """

    place: Place
    record: Record
    agent: str
    kind: str
    message: str
    attempts: int
    at: str

    @staticmethod
    def of(row: Record) -> "Letter":
        """Reads the reason from the last headers: earlier ones of such names are the sender's. Undecodable where it has none."""
        own, said = row.headers[: -len(REASONS)], row.headers[-len(REASONS) :]
        told = {name: value.decode("utf-8", "replace") for name, value in said}
        numbers = [told.get(f"ratchet-dlq-{name}", "") for name in ("partition", "offset", "attempts")]
        whole = tuple(told) == tuple(f"ratchet-dlq-{name}" for name in REASONS) and all(map(str.isdecimal, numbers))
        if not whole or (
            row.topic != dlq_of(told["ratchet-dlq-topic"])
            and told["ratchet-dlq-topic"] != deferred_topic(told["ratchet-dlq-agent"])
        ):
            raise Undecodable(
                f"{row.place} is no dead letter of ours",
                kind="not-a-letter",
                accepted="a record with ratchet-dlq-* headers",
            )
        place = Place(told["ratchet-dlq-topic"], int(numbers[0]), int(numbers[1]))
        was = Record(place.topic, place.partition, place.offset, row.key, row.value, own, row.timestamp_ms)
        agent, kind, message, at = (told[f"ratchet-dlq-{name}"] for name in ("agent", "kind", "message", "at"))
        return Letter(row.place, was, agent, kind, message, int(numbers[2]), at)

    @property
    def type(self) -> str:
        return _said(self.record.headers, "ce_type")

    @property
    def id(self) -> str:
        """The event's id: its own, else the one that every reader derives from its place."""
        return _said(self.record.headers, "ce_id") or ids.derive(str(self.record.place), "place", 0)


@dataclass(frozen=True, slots=True)
class Edit:
    """What an edited copy says. `type` of None keeps the letter's."""

    value: bytes
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """What goes back, and whether it is an edited copy."""

    id: str
    edited: bool
    sent: Sent


class Settled:
    """What has become of dead letters, from the commands topic."""

    def __init__(self, rows: Iterable[Record] = ()) -> None:
        self._by_agent: dict[tuple[str, Place], LetterCommand] = {}
        self._sent: dict[Place, LetterCommand] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Record) -> None:
        """Take note of a record of the commands topic; others than those about letters do not count."""
        model = _TYPES.get(dict(row.headers).get("ce_type", b""))
        if model is None or row.value is None:
            return
        try:
            said = model.model_validate_json(row.value)
        except ValueError:
            return  # an agent makes a dead letter of it
        was = Place(said.topic, said.partition, said.offset)
        self._by_agent[said.agent, was] = said
        if isinstance(said, CommandResend):
            self._sent[was] = said

    def of(self, letter: Letter) -> LetterCommand | None:
        """The newest that settles it, None while it is open."""
        return self._by_agent.get((letter.agent, letter.record.place)) or self._sent.get(letter.record.place)


def returned(
    letter: Letter, edit: Edit | None, *, partitions: int, by: str, at_ms: int, prove: Prove | None = None
) -> Returned:
    """What goes back to the topic. Refused where an edited copy is no valid event, or anything is too large or cannot be proven."""
    was = letter.record
    if was.topic == deferred_topic(letter.agent):
        raise Refused(
            f"{letter.place} was put on {was.topic} by somebody else than {letter.agent}, and does not go back there",
            kind="not-deferred",
            accepted="`ratchet dlq discard`",
        )
    told: Headers = (
        (FROM, str(letter.place).encode()),
        (RESENT + "record", str(was.place).encode()),
        (RESENT + "by", by.encode()),
        (RESENT + "at", rfc3339(at_ms).encode()),
    )
    own = tuple(pair for pair in was.headers if not pair[0].startswith(RESENT) and pair[0] not in OURS)
    if edit is None:
        event_id, key, value = letter.id, was.key, was.value
        headers = _with(own, "ce_id", event_id.encode())
    else:
        ce_type = (edit.type or letter.type).encode()
        content = hashlib.sha256(ce_type + b"\x1f" + edit.value).hexdigest()
        event_id, value = ids.derive(str(letter.place), "repair", content), edit.value
        headers = _with(_with(own, "ce_id", event_id.encode()), "ce_type", ce_type)
        key = _key_of(replace(was, topic="", key=None, value=value, headers=headers))
    if prove is not None and was.topic in PROVEN:
        if key is None or value is None or not _said(headers, "ce_type"):
            raise Refused(
                f"{letter.place} has no key, value or ce_type: nobody can prove it, and it would be refused again",
                kind="unprovable",
                accepted="an edited copy",
            )
        headers = prove(Encoded(key, value, headers)).headers
    record = Outgoing(key, value, (*headers, *told))
    moved = key is not None and (was.topic in PLACED or key != was.key)
    number = partition_of(key, partitions) if moved and key is not None else was.partition
    if size_of(record) > BROKER_BYTES:
        raise Refused(
            f"{letter.place} with where it comes from has {size_of(record):,} bytes, and {was.topic} takes {BROKER_BYTES:,}",
            kind="too-large",
            accepted="a smaller edited copy",
        )
    return Returned(event_id, edit is not None, Sent(was.topic, number, record))


def _key_of(record: Record) -> bytes:
    """The key that an edited copy's payload says. Refused where it is no valid event of its type."""
    try:
        return decode(record, 1).data.event_key().encode()
    except Refused as error:
        raise Refused(
            f"the edited copy is refused: {error}", kind=error.kind, field=error.field, accepted=error.accepted
        ) from None


def _with(headers: Headers, name: str, value: bytes) -> Headers:
    """`name` once, in the place of the first that there was."""
    if all(pair[0] != name for pair in headers):
        return (*headers, (name, value))
    first = next(i for i, pair in enumerate(headers) if pair[0] == name)
    return tuple(
        (name, value) if i == first else pair for i, pair in enumerate(headers) if i == first or pair[0] != name
    )


def _said(headers: Headers, name: str) -> str:
    return dict(headers).get(name, b"").decode("utf-8", "replace")


def tell(command: RepairCommand, cause: str, at: Place, partitions: int, prove: Prove | None) -> Sent:
    """The record of what an operator did. `cause` is the event that it is about, `at` where that lies."""
    event_id = ids.derive(f"{at}/{command.operator}/{command.at_ms}", "repair", command.TYPE)
    row = encode(
        command,
        event_id=event_id,
        source="ratchet/cli",
        traceparent=ids.trace_parent(None, event_id),
        extra=(("ratchet-cause", cause.encode()), ("ratchet-at", str(at).encode())),
    )
    row = row if prove is None else prove(row)
    return Sent(COMMANDS, partition_of(row.key, partitions), Outgoing(row.key, row.value, row.headers))


def about(letter: Letter) -> Mapping[str, str | int]:
    """The fields of a `LetterCommand` that say which letter."""
    was, place = letter.record.place, letter.place
    return {
        "agent": letter.agent, "topic": was.topic, "partition": was.partition, "offset": was.offset,
        "letter_topic": place.topic, "letter_partition": place.partition, "letter_offset": place.offset,
    }  # fmt: skip


async def settle(
    broker: Broker, letter: Letter, rows: Callable[[bool], Iterable[Sent]], *, again: bool = False
) -> None:
    """Commit `rows(settled before)` if the letter is open, or `again`. Refused and nothing sent where it is settled.

    Unavailable: the outcome is not known, or another operator was at work; look, then run it again.
    """
    producer = broker.transactional(ID)
    try:
        async with asyncio.timeout(COMMIT_S):
            await producer.start()  # whoever was about to settle can no longer, and what it did is decided
            done = (await _read_settled(broker)).of(letter)
            if done is not None and not again:
                raise Refused(
                    f"{letter.place} {words(done)}; nothing was done: --again does it all the same",
                    kind="settled",
                    field="place",
                    accepted="--again",
                )
            await producer.begin()
            sent = [
                f for row in rows(done is not None) for f in await producer.send(row.topic, row.partition, [row.record])
            ]
            for future in sent:
                await future
            await producer.commit()
    except (Denied, Rejected) as error:
        raise Refused(f"{letter.place}: {error}", kind="rejected") from error
    except Fenced as error:
        raise Unavailable(
            f"{letter.place}: another operator settles letters at this moment; `ratchet dlq list` says what became of it"
        ) from error
    except (BrokerError, TimeoutError) as error:
        raise Unavailable(
            f"{letter.place}: what became of it is not known, `ratchet dlq list` says it: {error!r}"
        ) from error
    finally:
        await producer.stop(STOP_S)


def words(done: LetterCommand) -> str:
    """How a letter was settled, in words."""
    what = "was sent back" if isinstance(done, CommandResend) else "was discarded"
    return f"{what} by {done.operator} at {rfc3339(done.at_ms)}"


async def _read_settled(broker: Broker) -> Settled:
    admin, found = broker.admin(), Settled()
    await admin.start()
    try:
        count = (await admin.partitions([COMMANDS])).get(COMMANDS, 0)
        tps = [(COMMANDS, number) for number in range(count)]
        starts, ends = await admin.starts(tps), await admin.ends(tps)
    finally:
        await admin.stop()

    async def take(rows: Iterable[Record], position: int) -> bool:
        for row in rows:
            found.add(row)
        return True

    for tp in tps:
        await read_to(broker, tp, starts[tp], ends[tp], take)
    return found
