"""`ratchet offsets`: where every group stands, and, by hand and told, somewhere else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agents.wiring import groups
from schemas.codec import first_errors
from schemas.errors import Refused
from schemas.events import CommandOffsets
from schemas.topics import PREFIX, full
from streams.admin import committed
from streams.crashes import Crashes
from streams.letters import tell
from streams.moving import Move, move, plan
from streams.port import NONE, TP, Admin, Broker
from streams.shapes import Place
from tools.cli.bus import Bus, translated
from tools.cli.place import settings
from tools.cli.repairs import CLOCK, COMMANDS, Agent, By, agent_of, opened, speaking
from tools.cli.screen import Exit, Screen, clean
from tools.cli.tail import since_ms

_WANTED = re.compile(r"([A-Za-z0-9._-]{1,249})(?:\[(\d{1,6})\]|/(\d{1,6}))?@(\d{1,18}|start|end|\d{1,6}[smhd])")


@dataclass(frozen=True, slots=True)
class Standing:
    """One group on one partition."""

    agent: str
    topic: str
    partition: int
    committed: int
    start: int
    end: int
    halted_at: str | None

    @property
    def lag(self) -> int:
        return max(0, self.end - max(self.committed, self.start))

    def row(self) -> dict[str, Any]:
        return {
            "group": f"{PREFIX}{self.agent}", "topic": self.topic, "partition": self.partition,
            "committed": None if self.committed == NONE else self.committed, "start": self.start, "end": self.end,
            "lag": self.lag, "lost": self.committed != NONE and self.committed < self.start, "halted_at": self.halted_at,
        }  # fmt: skip


async def standings(admin: Admin, agents: Sequence[Agent]) -> tuple[list[Standing], dict[str, tuple[str, ...]]]:
    """Every group of the agents on every partition, and who its members are."""
    counts = await admin.partitions({topic for agent in agents for topic in agent.inputs})
    found: list[Standing] = []
    members: dict[str, tuple[str, ...]] = {}
    crashes = settings().state_dir / "runner"
    for agent in agents:
        tps = [(topic, number) for topic in agent.inputs for number in range(counts.get(topic, 0))]
        members[agent.name] = await admin.members(f"{PREFIX}{agent.name}")
        if not tps:
            continue
        at, starts, ends = (
            await committed(admin, f"{PREFIX}{agent.name}", tps),
            await admin.starts(tps),
            await admin.ends(tps),
        )
        for topic, number in tps:
            tp, halted = (topic, number), Crashes(crashes, agent.name, number).halted_at()
            here = halted if _ahead(halted, tp, at[tp]) else None
            found.append(Standing(agent.name, topic, number, at[tp], starts[tp], ends[tp], here))
    return found, members


def _ahead(halted: str | None, tp: TP, at: int) -> bool:
    """Whether a lane halts on this partition at a record that the group has not passed."""
    return halted is not None and halted.startswith(f"{tp[0]}[{tp[1]}]@") and int(halted.rpartition("@")[2]) >= at


def named(agent: str | None) -> list[Agent]:
    return [agent_of(name.removeprefix(PREFIX)) for name in ([agent] if agent is not None else groups())]


async def show(screen: Screen, bus: Bus, agent: str | None) -> int:
    """Where every group stands."""
    with translated(bus.bootstrap), screen.progress("asking for offsets"):
        found, members = await standings(bus.admin, named(agent))
    if screen.as_json:
        for one in found:
            screen.json(one.row() | {"members": list(members[one.agent])})
        return Exit.DONE
    screen.table(
        "offsets",
        ("group", "topic", "partition", "committed", "end", "lag", "halted at"),
        [
            (
                one.agent,
                one.topic.removeprefix(PREFIX),
                one.partition,
                "none" if one.committed == NONE else one.committed,
                one.end,
                one.lag,
                one.halted_at or "",
            )
            for one in found
        ],
    )
    for one in found:
        if one.committed != NONE and one.committed < one.start:
            screen.say(
                f"[red]lost[/] {clean(one.agent)}: retention has removed {clean(one.topic)}[{one.partition}]"
                f"@{one.committed} to {one.start - 1} unread"
            )
        if one.halted_at is not None:
            screen.say(f"[red]halted[/] {clean(one.agent)} at {clean(one.halted_at)}: `ratchet dlq skip`")
    running = [name for name, who in members.items() if who]
    screen.say(f"running: {', '.join(running) or 'none'}; lag counts offsets, transaction markers included")
    return Exit.DONE


async def wanted(bus: Bus, agent: Agent, texts: Sequence[str]) -> dict[TP, int]:
    """Target offsets of `requests[0]@120`, `requests@start`, `requests@end`, `requests@2h`. Raises `Refused`."""
    found: dict[TP, int] = {}
    for text in texts:
        said = _WANTED.fullmatch(text)
        if said is None:
            raise Refused(
                f"--move {text!r}: accepted: topic[partition]@offset, or topic@offset for all partitions; the offset a number, "
                "start, end, or 90s, 15m, 2h, 1d ago",
                kind="usage",
                field="move",
            )
        topic, number, at = full(said[1]), said[2] or said[3], said[4]
        if topic not in agent.inputs:
            accepted = ", ".join(name.removeprefix(PREFIX) for name in agent.inputs)
            raise Refused(f"{agent.name} does not read {topic}; accepted: {accepted}", kind="usage", field="move")
        count = (await bus.partitions([topic]))[topic]
        tps = [(topic, int(number))] if number is not None else [(topic, one) for one in range(count)]
        if number is not None and int(number) >= count:
            raise Refused(f"{topic} has partitions 0 to {count - 1}", kind="usage", field="move")
        found |= await _offsets(bus, tps, at)
    return found


async def _offsets(bus: Bus, tps: Sequence[TP], at: str) -> Mapping[TP, int]:
    if at == "end":
        ends = await bus.ends({topic for topic, _ in tps})
        return {tp: ends[tp] for tp in tps}
    if at == "start" or not at.isdecimal():
        return await bus.starts_of(tps, None if at == "start" else since_ms(at))
    return dict.fromkeys(tps, int(at))


def _command(one: Move, agent: str, by: By) -> CommandOffsets:
    try:
        return CommandOffsets(
            at_ms=CLOCK.now_ms(), operator=by.name, reason=by.reason, agent=agent, topic=one.topic, partition=one.partition,
            from_offset=one.from_offset, to_offset=one.to_offset,
        )  # fmt: skip
    except ValidationError as fault:
        field, message = first_errors(fault)[0]
        raise Refused(f"{field}: {message}", kind="usage", field=field) from None


async def shift(
    screen: Screen, broker: Broker, bus: Bus, agent: Agent, texts: Sequence[str], by: By, *, yes: bool
) -> int:
    """Move, or without `yes` only say what would be moved: exit 1."""
    by.check(None)
    targets = await wanted(bus, agent, texts)
    with translated(bus.bootstrap):
        moves = await plan(bus.admin, agent.name, agent.inputs, targets, fold=agent.fold)
    count = (await bus.partitions([COMMANDS]))[COMMANDS]
    for one in moves:
        _command(one, agent.name, by)
    if yes and moves:
        await move(
            broker, CLOCK, agent.name, agent.inputs, moves, fold=agent.fold,
            tell=lambda one: tell(
                _command(one, agent.name, by), f"{one}", Place(one.topic, one.partition, one.to_offset), count, by.prove
            ),
        )  # fmt: skip
    for one in moves:
        row = {
            "agent": agent.name, "topic": one.topic, "partition": one.partition, "from": one.from_offset, "to": one.to_offset,
            "moved": yes,
        }  # fmt: skip
        verb = "[green]moved[/]" if yes else "[yellow]would move[/]"
        screen.line(row, f"{verb} {agent.name} on {clean(str(one))}")
    if not moves:
        screen.line({"agent": agent.name, "moved": False, "changed": False}, f"{agent.name} stands there already")
    elif not yes:
        screen.say("nothing was moved: say it again with --yes, while the agent is stopped")
        return Exit.NO
    return Exit.DONE


async def run(
    screen: Screen, agent: str | None, texts: Sequence[str], *, by: str | None, reason: str, yes: bool
) -> int:
    """The command."""
    if not texts:
        if yes:
            raise Refused("--yes: there is nothing to move; accepted: with --move", kind="usage")
        named(agent)
        async with opened("operator") as (_, bus):
            return await show(screen, bus, agent)
    if agent is None:
        raise Refused("--move needs --agent: whose offsets", kind="usage", field="agent")
    (who,), by_whom = named(agent), await speaking(by, reason)
    async with opened("repair") as (broker, bus):
        return await shift(screen, broker, bus, who, texts, by_whom, yes=yes)
