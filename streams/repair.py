"""Freeing a lane that one record has halted: what `ratchet dlq skip` does.

The record becomes a dead letter, the group's offset and (for a Fold) `~position` pass it, the order topic says so: one transaction
under the lane's own transactional id, so that it fences every owner and is fenced by the next. It changes no state.

Refused, and nothing changed, where the lane's owner may still be at work: its group has members and nothing says that the lane has
halted at this very place. Stopping the agent is always enough. A halted lane sees the moved offset and opens by itself.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import Refused, Unavailable
from schemas.topics import deferred_topic, order_topic, state_topic
from streams.admin import committed
from streams.crashes import Crashes
from streams.order import Position, Skipped, encode_skip
from streams.port import NONE, TP, Admin, Broker, BrokerError, Clock, Denied, Outgoing
from streams.restore import POSITION, first_from, last_under, unnamed_starts
from streams.shapes import Place, Record
from streams.state import torn
from streams.wire import Sent, letter, unparked

STOP_S = 2.0
COMMIT_S = 10.0


async def skip(
    broker: Broker,
    clock: Clock,
    agent: str,
    inputs: Sequence[str],
    place: Place,
    *,
    fold: bool,
    reason: str,
    crashes: Path | None = None,
    tell: Sequence[Sent] = (),
) -> Place:
    """Make a dead letter of the record at `place`, which must be the next that the lane would take of its topic.

    `inputs`: full names of all that the agent's group reads (a Transform's deferred topic included), as `Runner.groups()` and
    `wiring.groups()` say. `reason`: who and why, without payload text. `crashes`: the runner's `state_dir`, where it can be read.
    `tell`: records of the same transaction, that tell of it. Returns
    the place itself. Refused says what is wrong, Unavailable that the outcome is unknown: run it again and see.
    """
    if place.topic not in inputs:
        raise Refused(
            f"{agent} does not read {place.topic}", kind="not-an-input", field="topic", accepted=", ".join(inputs)
        )
    admin = broker.admin()
    try:
        await admin.start()
        await _owner_rests(admin, agent, place, crashes)
        async with asyncio.timeout(COMMIT_S):
            await _skip(broker, admin, clock, agent, inputs, place, fold=fold, reason=reason, tell=tell)
    except Denied as error:
        raise Refused(f"{agent}: {place}: {error}", kind="forbidden") from error
    except (BrokerError, TimeoutError) as error:
        raise Unavailable(f"{agent}: whether {place} was skipped is not known: {error!r}") from error
    finally:
        await admin.stop()
    return place


async def _owner_rests(admin: Admin, agent: str, place: Place, crashes: Path | None) -> None:
    if Crashes(crashes, agent, place.partition).halted_at() == str(place):
        return
    members = await admin.members(f"ratchet.{agent}")
    if members:
        raise Refused(
            f"{agent} is running ({', '.join(members)}) and is not known to have halted at {place}",
            kind="owner-alive",
            field="place",
            accepted="a lane halted there after three crashes, or the agent stopped for the six seconds of a session",
        )


async def _skip(
    broker: Broker,
    admin: Admin,
    clock: Clock,
    agent: str,
    inputs: Sequence[str],
    place: Place,
    *,
    fold: bool,
    reason: str,
    tell: Sequence[Sent],
) -> None:
    group, number = f"ratchet.{agent}", place.partition
    producer = broker.transactional(f"{group}-{number}")
    try:
        await producer.start()  # from here on no owner can commit
        at = await committed(admin, group, [(topic, number) for topic in inputs])
        record = await _next_record(broker, admin, agent, place, at[place.topic, number])
        if place.topic == deferred_topic(agent):
            record, _, _ = unparked(record)  # its dead letters lie with those of the topic that it came from
        now, following = clock.now_ms(), {place.topic: place.offset + 1}
        rows = [letter(record, agent=agent, kind="skipped", message=reason, attempts=1, at_ms=now), *tell]
        if fold:
            rows += await fold_rows(broker, admin, agent, number, at, following, now)
        await producer.begin()
        waiting = [f for row in rows for f in await producer.send(row.topic, row.partition, [row.record])]
        await producer.offsets({(topic, number): offset for topic, offset in following.items()}, group)
        for future in waiting:
            await future
        await producer.commit()
    finally:
        await producer.stop(STOP_S)


async def _next_record(broker: Broker, admin: Admin, agent: str, place: Place, at: int) -> Record:
    """The record at `place`, if it is the next one to be taken."""
    tp = (place.topic, place.partition)
    if at == NONE:
        raise Refused(f"ratchet.{agent} has no offset on {tp}", kind="missing-offset", accepted="`ratchet up` first")
    if at > place.offset:
        raise Refused(f"{place} is behind {agent}, which goes on at {at}", kind="passed", field="offset")
    row = await first_from(broker, tp, at, (await admin.ends([tp]))[tp])
    if row is None:
        raise Refused(f"there is no committed record at {place}", kind="no-record", field="offset")
    if row.offset != place.offset:
        raise Refused(
            f"{agent} goes on at {row.place}, not at {place}",
            kind="not-next",
            field="offset",
            accepted=f"the next record, {row.place}",
        )
    return row


async def fold_rows(
    broker: Broker,
    admin: Admin,
    agent: str,
    number: int,
    at: Mapping[TP, int],
    following: Mapping[str, int],
    now_ms: int,
) -> list[Sent]:
    """`~position` at the `following` offsets of some inputs, and what the order topic says of it. `at`: all that is committed now."""
    if none := sorted(topic for (topic, _), offset in at.items() if offset == NONE):
        raise Refused(
            f"ratchet.{agent} has no offset on partition {number} of {', '.join(none)}",
            kind="missing-offset",
            accepted="`ratchet up` first",
        )
    tp = (state_topic(agent), number)
    start, end = (await admin.starts([tp]))[tp], (await admin.ends([tp]))[tp]
    position = Position.of(await last_under(broker, tp, start, end, POSITION))
    offsets = {topic: offset for (topic, _), offset in at.items()}
    wrong = torn(position, offsets, await unnamed_starts(admin, position, at))
    if wrong:
        raise Refused(
            f"{agent}[{number}]: changelog and offsets differ: {'; '.join(wrong)}",
            kind="torn-state",
            accepted=f"{tp[0]} as it was at those offsets",
        )
    moved = Position(offsets | dict(following), position.tick_ms, position.version)
    skipped = [encode_skip(Skipped(topic, offset - 1, now_ms)) for topic, offset in following.items()]
    return [
        Sent(*tp, Outgoing(POSITION, moved.encode())),
        *(Sent(order_topic(agent), number, Outgoing(str(number).encode(), row)) for row in skipped),
    ]
