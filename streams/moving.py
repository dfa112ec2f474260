"""Moving a group's offsets by hand: what `ratchet offsets --move` does.

A lane's offsets and the events that tell of it are one transaction under the lane's own id, so that an agent which starts meanwhile
fences it or reads what it committed. Refused while the group has members.

A Transform may go back: what it sends again has the ids that it had. A Fold may only go on, for what it has folded is in its state;
its `~position` and order topic go with it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.errors import Refused, Unavailable
from streams.admin import committed
from streams.port import NONE, TP, Admin, Broker, BrokerError, Clock, Denied
from streams.repair import COMMIT_S, STOP_S, fold_rows
from streams.wire import Sent


@dataclass(frozen=True, slots=True)
class Move:
    """One offset, from where to where."""

    topic: str
    partition: int
    from_offset: int
    to_offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] from {self.from_offset} to {self.to_offset}"


async def plan(
    admin: Admin, agent: str, inputs: Sequence[str], wanted: Mapping[TP, int], *, fold: bool
) -> tuple[Move, ...]:
    """What would change. Refused, naming all that is wrong at once; members are not looked at."""
    group, counts = f"ratchet.{agent}", await admin.partitions(list(inputs))
    strange = sorted(f"{topic}[{number}]" for topic, number in wanted if number >= counts.get(topic, 0))
    if strange:
        raise Refused(
            f"{agent} reads no {', '.join(strange)}",
            kind="not-an-input",
            field="topic",
            accepted=", ".join(f"{topic}[0..{count - 1}]" for topic, count in sorted(counts.items())),
        )
    tps = list(wanted)
    at, starts, ends = await committed(admin, group, tps), await admin.starts(tps), await admin.ends(tps)
    wrong: list[str] = []
    for (topic, number), to in wanted.items():
        tp = (topic, number)
        if at[tp] == NONE:
            wrong.append(f"{topic}[{number}]: the group has no offset, `ratchet up` gives it one")
        elif not starts[tp] <= to <= ends[tp]:
            wrong.append(f"{topic}[{number}]@{to}: the log holds {starts[tp]} to {ends[tp]}")
        elif fold and to < at[tp]:
            wrong.append(
                f"{topic}[{number}]@{to}: {agent} is a Fold and has folded up to {at[tp]}: it would count twice"
            )
    if wrong:
        raise Refused(f"{agent}: " + "; ".join(wrong), kind="no-such-offset", field="offset")
    return tuple(Move(*tp, at[tp], to) for tp, to in sorted(wanted.items()) if to != at[tp])


async def move(
    broker: Broker,
    clock: Clock,
    agent: str,
    inputs: Sequence[str],
    moves: Sequence[Move],
    *,
    fold: bool,
    tell: Callable[[Move], Sent],
) -> None:
    """Carry a plan out, lane by lane. Refused where the agent runs or the plan no longer holds.

    A refusal after the first lane, like an Unavailable, says which offsets were moved before it.
    """
    admin, done = broker.admin(), list[Move]()
    try:
        await admin.start()
        for number in sorted({one.partition for one in moves}):
            mine = [one for one in moves if one.partition == number]
            async with asyncio.timeout(COMMIT_S):
                await _move_lane(broker, admin, clock, agent, inputs, mine, fold=fold, tell=tell)
            done += mine
    except Refused as error:
        if not done:
            raise
        raise Refused(
            f"{agent}: moved: {_said(done)}; not the rest: {error}",
            kind=error.kind,
            field=error.field,
            accepted=error.accepted,
        ) from error
    except Denied as error:
        moved = f"; moved before: {_said(done)}" if done else ""
        raise Refused(f"{agent}: {error}{moved}", kind="forbidden") from error
    except (BrokerError, TimeoutError) as error:
        moved = _said(done) or "nothing for certain"
        raise Unavailable(
            f"{agent}: moved: {moved}; the next is not known, `ratchet offsets` says it: {error!r}"
        ) from error
    finally:
        await admin.stop()


def _said(moves: Sequence[Move]) -> str:
    return "; ".join(map(str, moves))


async def _move_lane(
    broker: Broker,
    admin: Admin,
    clock: Clock,
    agent: str,
    inputs: Sequence[str],
    moves: Sequence[Move],
    *,
    fold: bool,
    tell: Callable[[Move], Sent],
) -> None:
    group, number = f"ratchet.{agent}", moves[0].partition
    await _none_runs(admin, agent)  # before its lane is fenced
    producer = broker.transactional(f"{group}-{number}")
    try:
        await producer.start()
        at = await committed(admin, group, [(topic, number) for topic in inputs])
        other = [one for one in moves if at[one.topic, number] != one.from_offset]
        if other:
            raise Refused(f"{agent} has gone on meanwhile: {other[0].topic}[{number}]", kind="changed", field="offset")
        rows = [tell(one) for one in moves]
        if fold:
            following = {one.topic: one.to_offset for one in moves}
            rows += await fold_rows(broker, admin, agent, number, at, following, clock.now_ms())
        await _none_runs(admin, agent)
        await producer.begin()
        waiting = [f for row in rows for f in await producer.send(row.topic, row.partition, [row.record])]
        await producer.offsets({(one.topic, number): one.to_offset for one in moves}, group)
        for future in waiting:
            await future
        await producer.commit()
        before = {(one.topic, number): one.from_offset for one in moves}
        while await committed(admin, group, list(before)) == before:  # noqa: ASYNC110  a commit is answered before it is told
            await asyncio.sleep(0.02)
    finally:
        await producer.stop(STOP_S)


async def _none_runs(admin: Admin, agent: str) -> None:
    members = await admin.members(f"ratchet.{agent}")
    if members:
        raise Refused(
            f"{agent} is running ({', '.join(members)}): its offsets are its own",
            kind="owner-alive",
            accepted="the agent stopped, and the six seconds of a session passed",
        )
